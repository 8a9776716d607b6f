//! Reading a recording from anybody's bytes, and writing one so that a reader never sees half of it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::Invalid;
use super::recording::{Recording, SCHEMA};

/// Larger files are refused before they are read. The quick profile stays under 1 MB.
pub const MAX_RECORDING_BYTES: u64 = 256 << 20;

/// Why a recording was not read or written. Names the file, the place in it, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// It is larger than any recording.
    #[error("{}: {bytes} bytes, expected a recording of at most {MAX_RECORDING_BYTES}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Compressed, which this version does not read.
    #[error("{}: is zstd-compressed, which this version does not read; decompress it with `zstd -d`", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON, truncated, or a value of the wrong type.
    #[error("{}: at {place}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Path in the document; `.` is the whole.
        place: String,
        /// What stands there, what was expected, with line and column.
        what: String,
    },
    /// Another schema.
    #[error("{}: has schema {found:?}, expected {SCHEMA:?}; {advice}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// Well-formed, but it breaks a rule of recordings.
    #[error("{}: at {invalid}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The rule and the place.
        invalid: Invalid,
    },
}

/// Reads and checks the recording at `path`.
///
/// # Errors
/// Every [`RecordError`]; never a panic, whatever the bytes.
pub fn read_recording(path: &Path) -> Result<Recording, RecordError> {
    let io_error = |action| move |source| RecordError::Io { path: path.to_owned(), action, source };
    let file = File::open(path).map_err(io_error("open it"))?;
    let bytes = file.metadata().map_err(io_error("read its size"))?.len();
    if bytes > MAX_RECORDING_BYTES {
        return Err(RecordError::TooLarge { path: path.to_owned(), bytes });
    }
    let mut content = Vec::new();
    // A pipe or a growing file has no honest size: the limit holds for what is really read.
    file.take(MAX_RECORDING_BYTES + 1).read_to_end(&mut content).map_err(io_error("read it"))?;
    if content.len() as u64 > MAX_RECORDING_BYTES {
        return Err(RecordError::TooLarge { path: path.to_owned(), bytes: content.len() as u64 });
    }
    parse_recording(path, &content)
}

/// The same from bytes in memory; `path` names them in errors.
///
/// # Errors
/// As [`read_recording`], without input and output.
pub fn parse_recording(path: &Path, content: &[u8]) -> Result<Recording, RecordError> {
    const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    if content.starts_with(&ZSTD_MAGIC) {
        return Err(RecordError::Compressed { path: path.to_owned() });
    }
    // The name of the schema first: the fields of another one would only give misleading errors.
    #[derive(Deserialize)]
    struct Probe {
        schema: String,
    }
    let probe: Probe = typed(path, content)?;
    if probe.schema != SCHEMA {
        let advice = match probe.schema.strip_prefix("bitnet-perfgate/recording/") {
            Some(_) => "it was written by another version; use that version or a newer one",
            None => "it is not a recording",
        };
        return Err(RecordError::Schema { path: path.to_owned(), found: probe.schema, advice });
    }
    let recording: Recording = typed(path, content)?;
    recording.check().map_err(|invalid| RecordError::Invalid { path: path.to_owned(), invalid })?;
    Ok(recording)
}

fn typed<'a, T: Deserialize<'a>>(path: &Path, content: &'a [u8]) -> Result<T, RecordError> {
    let malformed =
        |place: String, what: String| RecordError::Malformed { path: path.to_owned(), place, what };
    let mut json = serde_json::Deserializer::from_slice(content);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| malformed(error.path().to_string(), error.inner().to_string()))?;
    json.end().map_err(|error| malformed(".".to_owned(), error.to_string()))?;
    Ok(value)
}

/// Writes `recording` to `path`: into a temporary file in the same folder, to disk, then renamed into place.
/// Whatever happens, `path` holds the old content or the new, never part of one.
///
/// # Errors
/// [`RecordError::Invalid`] before anything is touched, [`RecordError::Io`]; the temporary file is removed then.
pub fn write_recording(path: &Path, recording: &Recording) -> Result<(), RecordError> {
    recording.check().map_err(|invalid| RecordError::Invalid { path: path.to_owned(), invalid })?;
    let io_error = |action| move |source| RecordError::Io { path: path.to_owned(), action, source };
    let mut content =
        serde_json::to_vec(recording).map_err(|error| io_error("serialise it")(io::Error::other(error)))?;
    content.push(b'\n');
    let (temporary, mut file) = create_beside(path).map_err(io_error("create a temporary file beside it"))?;
    let written = file.write_all(&content).and_then(|()| file.sync_all());
    drop(file);
    if let Err(source) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The first error is the one to tell; a left-over temporary file is harmless.
        let _ = fs::remove_file(&temporary);
        return Err(io_error("write it")(source));
    }
    sync_folder(path).map_err(io_error("flush its folder"))
}

/// A new file in the folder of `path`, named after it and this process.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    for attempt in 0..100_u32 {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{attempt}.tmp", std::process::id()));
        let candidate = path.with_file_name(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&candidate) {
            Ok(file) => return Ok((candidate, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("100 temporary files are in the way"))
}

/// Makes the rename itself durable, where folders can be flushed.
fn sync_folder(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests;
