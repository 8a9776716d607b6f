//! The house, enforced: which folder of `rust/` may import which, and where dangerous things may stand.
//!
//! The table is data; `docs/ARCHITECTURE.md` quotes it. The scan is of text, after comments and string literals
//! are blanked, so it needs no compiler and sees every `cfg`.

use std::fs;
use std::path::{Path, PathBuf};

/// Folder, and the folders it may name as `crate::<folder>`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("team", &[]),
    ("bitnet", &["rng", "units"]),
    ("parity", &["rng", "units"]),
    ("measure", &["rng", "units"]),
    ("stats", &["rng", "units"]),
    ("backends", &["bitnet", "team", "rng", "units"]),
    ("inference", &["bitnet", "team", "backends", "rng", "units"]),
    ("workloads", &["bitnet", "backends", "inference", "parity", "rng", "units"]),
    ("record", &["measure", "parity", "units"]),
    ("campaign", &["bitnet", "team", "workloads", "backends", "measure", "parity", "record", "rng", "units"]),
    ("gate", &["record", "stats", "units"]),
    ("session", &["campaign", "gate", "stats", "record", "units"]),
    ("report", &["record", "gate", "units"]),
    ("builds", &[]),
    ("export", &["bitnet", "backends", "inference"]),
];

/// A word, the files and folders where it may stand, and why nowhere else.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    (
        "std::arch",
        &[
            "rust/backends/rust_simd",
            "rust/backends/detect.rs",
            "rust/backends/contract/fp_mode.rs",
            "rust/measure/callgrind.rs",
        ],
        "intrinsics live in rust_simd, detection in detect.rs, the register of the floating-point mode in fp_mode.rs, the words that valgrind hears in callgrind.rs",
    ),
    ("core::arch", &["rust/backends/rust_simd"], "intrinsics live in rust_simd"),
    ("target_feature", &["rust/backends/rust_simd"], "kernels of an instruction set live in rust_simd"),
    ("extern \"\"", &["rust/backends/contract", "rust/export"], "foreign functions live behind the contract"),
    (
        "unsafe",
        &[
            "rust/backends/rust_simd",
            "rust/backends/contract/safe.rs",
            "rust/backends/contract/floats.rs",
            "rust/backends/contract/models.rs",
            "rust/backends/contract/fp_mode.rs",
            "rust/backends/contract/supplier.rs",
            "rust/backends/contract/bindings.rs",
            "rust/backends/plugin",
            "rust/bitnet/model/map.rs",
            "rust/export",
            "rust/team",
            "rust/measure/callgrind.rs",
        ],
        "unsafe code is confined to kernels, the contract, plugins, the memory map, the team of threads and the words that valgrind hears",
    ),
    (
        "Instant",
        &["rust/measure", "rust/campaign", "rust/python"],
        "clocks are read by measure; campaign times preparation",
    ),
    ("pyo3", &["rust/python", "rust/lib.rs"], "Python is met in one folder"),
];

/// Words that three leaves must not know, because they know nothing of BitNet.
const LEAVES: &[&str] = &["parity", "measure", "stats"];
const FOREIGN_TO_LEAVES: &[&str] = &["i2_s", "I2S", "Tl1", "Tl2", "Backend", "Token", "gguf", "ternary"];

/// Source text with comments and the inside of string literals blanked; line breaks stay.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (skipped, kept) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), "")
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), "")
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            (raw.find("\"#").map_or(rest.len(), |end| end + 5), "\"\"")
        } else if first == '"' {
            let bytes = rest.as_bytes();
            let mut end = 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            ((end + 1).min(rest.len()), "\"\"")
        } else if rest.starts_with("'\"'") {
            (3, "' '")
        } else {
            (first.len_utf8(), &rest[..first.len_utf8()])
        };
        code.extend(rest[..skipped].chars().filter(|&c| c == '\n' && kept.is_empty()));
        code.push_str(kept);
        rest = &rest[skipped..];
    }
    code
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable source folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust source of the crate as (path from the root, blanked code).
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("rust"), &mut files);
    files.sort();
    assert!(
        files.len() > 20,
        "only {} source files found: is this scan looking at the right folder?",
        files.len()
    );
    let relative =
        |path: &PathBuf| path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
    files
        .iter()
        .map(|path| (relative(path), code_of(&fs::read_to_string(path).expect("UTF-8 source"))))
        .collect()
}

/// The first folder (or file stem) below `rust/`.
fn room_of(path: &str) -> &str {
    let below = path.strip_prefix("rust/").expect("a file of rust/");
    below.split('/').next().expect("a name").trim_end_matches(".rs")
}

fn violations_of_imports(path: &str, code: &str) -> Vec<String> {
    let room = room_of(path);
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else {
        return if ["lib", "error", "rng", "units", "python", "export"].contains(&room) {
            Vec::new()
        } else {
            vec![format!(
                "rust/{room} has no row in the import table: decide who may import it, and whom it may"
            )]
        };
    };
    let mut found = Vec::new();
    for (position, _) in code.match_indices("crate::") {
        let standing_alone = code[..position]
            .chars()
            .next_back()
            .is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == '$'));
        let rest = &code[position + 7..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !standing_alone || name == room {
            continue;
        }
        if name.is_empty() {
            found
                .push(format!("{path}: `crate::{{...}}` hides what is imported; write one `use` per folder"));
        } else if !allowed.contains(&name.as_str()) {
            found.push(format!("{path}: rust/{room} imports crate::{name}, but may import only {allowed:?}"));
        }
    }
    // `super` must not climb out of the room.
    let depth = path.matches('/').count() - usize::from(path.ends_with("/mod.rs"));
    let climb = "super::".repeat(depth + usize::from(code.contains("mod tests")));
    if code.contains(&climb) {
        found.push(format!("{path}: `{climb}` climbs out of rust/{room}; write crate::<folder>"));
    }
    found
}

fn words_of(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

fn violations_of_places(path: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, places, why) in ONLY_IN {
        let stands = if word.chars().all(|c| c.is_alphanumeric() || c == '_') {
            words_of(code).any(|token| token == *word)
        } else {
            code.contains(word)
        };
        if stands && !places.iter().any(|place| path.starts_with(place)) {
            found.push(format!("{path} contains `{word}`: {why} ({places:?})"));
        }
    }
    if LEAVES.contains(&room_of(path)) {
        for word in FOREIGN_TO_LEAVES {
            if words_of(code).any(|token| token == *word) {
                found.push(format!("{path} names `{word}`: {} knows nothing of BitNet", room_of(path)));
            }
        }
    }
    found
}

#[test]
fn every_folder_imports_only_from_rows_below() {
    let found: Vec<String> =
        sources().iter().flat_map(|(path, code)| violations_of_imports(path, code)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn dangerous_things_stand_only_where_they_may() {
    let found: Vec<String> =
        sources().iter().flat_map(|(path, code)| violations_of_places(path, code)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The scan must be able to fail: planted violations, each with the sentence it must give.
#[test]
fn planted_violations_are_caught() {
    let imports = |path: &str, text: &str| violations_of_imports(path, &code_of(text));
    assert_eq!(
        imports("rust/stats/rank.rs", "use crate::bitnet::formats;"),
        ["rust/stats/rank.rs: rust/stats imports crate::bitnet, but may import only [\"rng\", \"units\"]"]
    );
    assert_eq!(imports("rust/gate/policy.rs", "let x = crate::backends::all();").len(), 1);
    assert_eq!(imports("rust/stats/rank.rs", "use crate::{bitnet, rng};").len(), 1);
    assert_eq!(imports("rust/stats/rank.rs", "use super::super::bitnet;").len(), 1);
    assert_eq!(imports("rust/attic/mod.rs", "").len(), 1);
    assert!(
        imports("rust/stats/rank.rs", "// crate::bitnet\nlet s = \"crate::bitnet\"; use crate::rng::Rng;")
            .is_empty()
    );
    let places = |path: &str, text: &str| violations_of_places(path, &code_of(text));
    assert_eq!(places("rust/gate/policy.rs", "unsafe { x() }").len(), 1);
    assert_eq!(places("rust/gate/policy.rs", "extern \"C\" fn f() {}").len(), 1);
    assert_eq!(places("rust/stats/rank.rs", "fn f(b: &dyn Backend) {}").len(), 1);
    assert!(places("rust/backends/plugin/mod.rs", "unsafe { x() }").is_empty());
    assert!(places("rust/gate/policy.rs", "/* unsafe */ let x = \"unsafe\";").is_empty());
}

#[test]
fn the_build_script_stays_small() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs")).expect("build.rs");
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines < 150, "build.rs has {lines} lines, fewer than 150 keep it readable");
}

#[test]
fn the_reference_depends_on_nothing_of_ours_but_its_header() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cpp/src");
    let mut seen = 0;
    for entry in fs::read_dir(root).expect("cpp/src") {
        let path = entry.expect("a readable entry").path();
        let text = fs::read_to_string(&path).expect("UTF-8 source");
        for word in ["fopen", "ifstream", "std::cout", "printf(", "rand(", "<random>", "../rust"] {
            assert!(
                !text.contains(word),
                "{} contains `{word}`: the reference only computes",
                path.display()
            );
        }
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} files of the reference were read");
}
