//! Writing GGUF: the plan first, then the data, tensor by tensor and chunk by chunk, in the order of the plan.
//!
//! The header holds every offset, so names, shapes and types are given up front and the bytes that follow are
//! held to them: a writer that finishes has written exactly what it announced. Never more than a chunk
//! and the header is in memory. What is written, [`super::Gguf`] reads and llama.cpp loads: keys and names are checked
//! for length and uniqueness, tensors lie without gaps, padded with zeros to the alignment.

use super::error::{GgufError, GgufErrorKind, quoted};
use super::reader::read_alignment;
use super::types::{TensorType, n_values};
use super::value::{MAX_ARRAY_DEPTH, Metadata, Value, later_duplicate, write_string};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, VERSION};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest tensor name in bytes: ggml keeps names in 64 bytes with a terminator, and cuts what is longer.
pub const MAX_NAME_BYTES: usize = 63;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorPlan {
    /// Its name, at most [`MAX_NAME_BYTES`].
    pub name: String,
    /// Its sides, the contiguous one (K, inputs) first; at most [`MAX_DIMS`].
    pub dims: Vec<u64>,
    /// How its values are stored.
    pub tensor_type: TensorType,
}

impl TensorPlan {
    /// Its size in bytes without padding. Errors: a shape that the type cannot hold.
    pub fn n_bytes(&self) -> Result<u64, GgufError> {
        let refuse =
            |found: String, expected: String| Err(GgufErrorKind::tensor(&self.name, found, expected).into());
        if self.dims.len() > MAX_DIMS {
            return refuse(format!("{} sides", self.dims.len()), format!("at most {MAX_DIMS}"));
        }
        match n_values(&self.dims).and_then(|_| self.tensor_type.n_bytes(&self.dims)) {
            Ok(n_bytes) => Ok(n_bytes),
            Err(why) => refuse(why, format!("a shape that {} can hold", self.tensor_type)),
        }
    }
}

/// Writes one GGUF file to `W`.
pub struct GgufWriter<W: Write> {
    out: W,
    plan: Vec<Announced>,
    /// The tensor that bytes are expected for.
    current: usize,
    /// Bytes of it that were written.
    written: u64,
    alignment: u64,
    /// Bytes of the file that were written, and that it will have.
    progress: (u64, u64),
}

/// What the header says of a tensor.
struct Announced {
    name: String,
    n_bytes: u64,
}

impl<W: Write> GgufWriter<W> {
    /// Checks the plan and writes everything up to the data section.
    ///
    /// The alignment is that of `general.alignment` in `metadata`, or 32. Errors: a key or name that stands twice or is
    /// empty or too long, arrays nested too deep, a shape its type cannot hold, and what `out` reports.
    pub fn new(mut out: W, metadata: &Metadata, tensors: &[TensorPlan]) -> Result<Self, GgufError> {
        check_metadata(metadata)?;
        let alignment = match metadata.get(ALIGNMENT_KEY) {
            None => DEFAULT_ALIGNMENT,
            Some(value) => read_alignment(value)
                .map_err(|found| key_error(ALIGNMENT_KEY, found, "a power of two as a U32"))?,
        };
        let (mut header, plan) = header_of(metadata, tensors, alignment)?;
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        out.write_all(&header).map_err(write_error)?;
        let done = header.len() as u64;
        let total = plan.iter().fold(done, |end, tensor| end + tensor.n_bytes.next_multiple_of(alignment));
        Ok(Self { out, plan, current: 0, written: 0, alignment, progress: (done, total) })
    }

    /// Bytes of the file that were written, and that it will have.
    pub fn progress(&self) -> (u64, u64) {
        self.progress
    }

    /// Writes the next bytes of a tensor: all of it, or chunk after chunk. Padding follows by itself.
    ///
    /// Errors: it is not this tensor's turn, or these are more bytes than it has.
    pub fn append(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), GgufError> {
        let Some(Announced { name, n_bytes }) = self.plan.get(self.current) else {
            return Err(GgufErrorKind::tensor(tensor, "data after the last tensor", "none").into());
        };
        if name != tensor {
            let expected =
                format!("data of {}, whose {} of {n_bytes} bytes are written", quoted(name), self.written);
            return Err(GgufErrorKind::tensor(tensor, "its data", expected).into());
        }
        let left = n_bytes - self.written;
        if bytes.len() as u64 > left {
            let found = format!("{} more bytes", bytes.len());
            return Err(GgufErrorKind::tensor(tensor, found, format!("{left} of its {n_bytes}")).into());
        }
        self.out.write_all(bytes).map_err(write_error)?;
        self.written += bytes.len() as u64;
        self.progress.0 += bytes.len() as u64;
        if self.written == *n_bytes {
            let padding = n_bytes.next_multiple_of(self.alignment) - n_bytes;
            write_zeros(&mut self.out, padding).map_err(write_error)?;
            self.progress.0 += padding;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Flushes and gives the output back. Error: a tensor is not whole yet.
    pub fn finish(mut self) -> Result<W, GgufError> {
        if let Some(Announced { name, n_bytes }) = self.plan.get(self.current) {
            let found = format!("{} bytes", self.written);
            return Err(GgufErrorKind::tensor(name, found, format!("all {n_bytes} before the end")).into());
        }
        self.out.flush().map_err(write_error)?;
        Ok(self.out)
    }
}

/// A file that appears under its name only when it is whole: until then it stands beside it as
/// `.<name>.<process>-<number>.partial`, and is removed if it is dropped before [`NewFile::commit`].
#[derive(Debug)]
pub struct NewFile {
    out: Option<BufWriter<File>>,
    partial: PathBuf,
    target: PathBuf,
}

impl NewFile {
    /// Begins the file that will stand at `target`. An existing one is kept until the commit replaces it.
    ///
    /// What exists at `target` and is not a regular file (a device, a pipe, a directory) is refused. A symbolic link is
    /// judged by what it leads to; the commit then replaces the link, and what it led to stays as it is.
    pub fn create(target: &Path) -> Result<Self, GgufError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let fail = |source| GgufError::from(GgufErrorKind::Io { doing: "create", source }).at(target);
        let name = target.file_name().ok_or_else(|| {
            fail(io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no file name"))
        })?;
        match std::fs::metadata(target) {
            Ok(there) if !there.is_file() => {
                let why = "it exists and is not a regular file";
                return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, why)));
            }
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(fail(why)),
            Ok(_) | Err(_) => {}
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let partial = format!(".{}.{}-{number}.partial", name.to_string_lossy(), std::process::id());
        let partial = target.with_file_name(partial);
        let file = OpenOptions::new().write(true).create_new(true).open(&partial).map_err(fail)?;
        let out = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { out, partial, target: target.to_path_buf() })
    }

    /// Brings everything to the disk and gives the file its name.
    pub fn commit(mut self) -> Result<(), GgufError> {
        self.close().map_err(|source| {
            GgufError::from(GgufErrorKind::Io { doing: "finish writing", source }).at(&self.target)
        })
    }

    fn close(&mut self) -> io::Result<()> {
        if let Some(out) = self.out.take() {
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            drop(file);
            std::fs::rename(&self.partial, &self.target)?;
            self.partial.clear();
        }
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.out = None;
        if !self.partial.as_os_str().is_empty() {
            // Nobody is left to tell if this fails; the name says what the file is.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn check_metadata(metadata: &Metadata) -> Result<(), GgufErrorKind> {
    if let Some((_, key)) = metadata.duplicate() {
        return Err(key_error(key, "it twice".to_string(), "every key once"));
    }
    for (key, value) in metadata.iter() {
        if key.is_empty() || key.len() > usize::from(u16::MAX) {
            return Err(key_error(key, format!("{} bytes", key.len()), "1 to 65535"));
        }
        if let Value::Array(array) = value
            && array.depth() > MAX_ARRAY_DEPTH
        {
            let found = format!("arrays nested {} deep", array.depth());
            return Err(key_error(key, found, &format!("at most {MAX_ARRAY_DEPTH}")));
        }
    }
    Ok(())
}

/// Everything before the data section, unpadded, and the sizes it announces.
fn header_of(
    metadata: &Metadata,
    tensors: &[TensorPlan],
    alignment: u64,
) -> Result<(Vec<u8>, Vec<Announced>), GgufError> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        write_string(key, &mut header);
        header.extend(value.type_id().to_le_bytes());
        value.write(&mut header);
    }
    let mut plan = Vec::with_capacity(tensors.len());
    let mut offset = 0_u64;
    for tensor in tensors {
        if tensor.name.is_empty() || tensor.name.len() > MAX_NAME_BYTES {
            let found = format!("a name of {} bytes", tensor.name.len());
            return Err(GgufErrorKind::tensor(&tensor.name, found, format!("1 to {MAX_NAME_BYTES}")).into());
        }
        let n_bytes = tensor.n_bytes()?;
        write_string(&tensor.name, &mut header);
        header.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().for_each(|side| header.extend(side.to_le_bytes()));
        header.extend(tensor.tensor_type.id().to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = n_bytes
            .checked_next_multiple_of(alignment)
            .and_then(|padded| offset.checked_add(padded))
            .ok_or_else(|| GgufErrorKind::tensor(&tensor.name, "an end above 2^64", "less data before it"))?;
        plan.push(Announced { name: tensor.name.clone(), n_bytes });
    }
    match later_duplicate(plan.len(), |index| &plan[index].name) {
        None => Ok((header, plan)),
        Some(index) => {
            Err(GgufErrorKind::tensor(&plan[index].name, "the name twice", "every name once").into())
        }
    }
}

fn key_error(key: &str, found: String, expected: &str) -> GgufErrorKind {
    GgufErrorKind::Key { key: key.to_string(), found, expected: expected.to_string() }
}

fn write_error(source: io::Error) -> GgufErrorKind {
    GgufErrorKind::Io { doing: "write", source }
}

fn write_zeros(out: &mut impl Write, n: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), n), out).map(|_| ())
}
