//! The one memory map: files of weights are read through it, and no other `unsafe` stands in this folder's parent.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A whole file, mapped read-only. Dereferences to its bytes.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps the regular file at `path`.
    ///
    /// Anything but a regular file (a directory, a pipe, a device) is [`io::ErrorKind::InvalidInput`]. Nobody may
    /// shorten the file while it is mapped: the operating system answers reads behind the new end with SIGBUS.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Asked before opening: opening a pipe would wait for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the map is read-only and only its `&[u8]` is handed out. What remains to the operator is that no
        // other process changes the file meanwhile; every reader of a mapped model file rests on that, and
        // all offsets are checked against the length at the time of mapping.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self(map))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
