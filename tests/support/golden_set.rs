//! Golden files by their names, and the single numbers in them.

use super::npz::{Element, Npz, golden_dir};

/// Names of the golden files that begin and end so, sorted.
pub fn golden_names(prefix: &str, suffix: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(golden_dir())
        .expect("tests/golden is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix) && name.ends_with(suffix))
        .collect();
    names.sort();
    names
}

/// The only element of an array of one.
pub fn scalar<T: Element + Copy>(file: &mut Npz, name: &str) -> T {
    let data = file.data(name);
    assert_eq!(data.len(), 1, "{name} is not a scalar");
    data[0]
}
