//! Reads the named arrays of an `.npz` file: what the golden files of the real bitnet.cpp are kept in.
//!
//! An `.npz` is a zip of `.npy` members: magic, version, a header in Python's dict syntax, the elements. The three
//! fields of that header are read here; a crate that does it brings a C library of another compression along.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use zip::ZipArchive;

/// An array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    /// Length of every axis.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<T>,
}

/// A number that golden files hold.
pub trait Element: Sized {
    /// Its type in NumPy's notation.
    const DESCR: &'static str;
    /// Its size.
    const BYTES: usize;
    /// From its little-endian bytes.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($number:ty: $descr:literal),*) => {$(
        impl Element for $number {
            const DESCR: &'static str = $descr;
            const BYTES: usize = size_of::<$number>();
            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("as many bytes as the number has"))
            }
        }
    )*};
}

element!(u8: "|u1", i8: "|i1", i32: "<i4", i64: "<i8", f32: "<f4");

/// An open `.npz` file.
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<File>,
}

impl Npz {
    /// Opens `tests/golden/<name>`.
    pub fn golden(name: &str) -> Self {
        let path = golden_dir().join(name);
        let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let archive = ZipArchive::new(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, archive }
    }

    /// Whether it holds an array of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.archive.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// The array of that name; panics, naming file and array, when it is missing or of another type.
    pub fn array<T: Element>(&mut self, name: &str) -> Array<T> {
        let at = format!("{}: {name}", self.path.display());
        let mut bytes = Vec::new();
        let mut member =
            self.archive.by_name(&format!("{name}.npy")).unwrap_or_else(|error| panic!("{at}: {error}"));
        member.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "{at}: not an .npy of version 1.0");
        let data_start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header =
            std::str::from_utf8(&bytes[10..data_start]).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(header.contains(&format!("'descr': '{}'", T::DESCR)), "{at}: not {}: {header}", T::DESCR);
        assert!(header.contains("'fortran_order': False"), "{at}: not in row-major order");
        let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
        let (shape, _) = shape.unwrap_or_else(|| panic!("{at}: no shape: {header}"));
        let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
        let shape: Vec<usize> =
            axes.map(|axis| axis.parse().unwrap_or_else(|_| panic!("{at}: {header}"))).collect();
        let data: Vec<T> = bytes[data_start..].chunks_exact(T::BYTES).map(T::read).collect();
        assert_eq!(data.len(), shape.iter().product::<usize>(), "{at}: elements and shape differ");
        Array { shape, data }
    }

    /// The elements of an array, without its shape.
    pub fn data<T: Element>(&mut self, name: &str) -> Vec<T> {
        self.array(name).data
    }

    /// The only element of an array of one.
    pub fn scalar<T: Element + Copy>(&mut self, name: &str) -> T {
        let data = self.data(name);
        assert_eq!(data.len(), 1, "{}: {name} is not a scalar", self.path.display());
        data[0]
    }
}

/// The folder of golden files.
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

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
