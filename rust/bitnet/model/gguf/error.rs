//! Why a GGUF file cannot be read or written.

use crate::bitnet::formats::FormatError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, and in which file where there is one.
#[derive(Debug)]
pub struct GgufError {
    path: Option<PathBuf>,
    kind: GgufErrorKind,
}

impl GgufError {
    /// What went wrong.
    pub fn kind(&self) -> &GgufErrorKind {
        &self.kind
    }

    /// The file, where it was opened or created by path.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The same error, of the file at `path`.
    pub(crate) fn at(mut self, path: &Path) -> Self {
        self.path = Some(path.to_path_buf());
        self
    }
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for GgufError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.kind)
    }
}

impl From<GgufErrorKind> for GgufError {
    fn from(kind: GgufErrorKind) -> Self {
        Self { path: None, kind }
    }
}

/// What went wrong, without the file's name.
#[derive(Debug, thiserror::Error)]
pub enum GgufErrorKind {
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// `read`, `write`, ...
        doing: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// The bytes are not a GGUF v3 file, or not a whole one.
    #[error("byte {offset}: {place}: found {found}, expected {expected}")]
    Malformed {
        /// Offset in the file.
        offset: u64,
        /// What should stand there: a header field, a key, a tensor.
        place: String,
        /// What stands there.
        found: String,
        /// What would have been right.
        expected: String,
    },
    /// No tensor of that name.
    #[error("there is no tensor {}; `tensors()` lists the {available} that are there", quoted(.name))]
    NoTensor {
        /// The name asked for.
        name: String,
        /// How many tensors there are.
        available: usize,
    },
    /// The tensor exists, but is not what the caller needs.
    #[error("tensor {}: found {found}, expected {expected}", quoted(.tensor))]
    Tensor {
        /// Its name.
        tensor: String,
        /// What it is, or was given.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// A ternary tensor whose shape or bytes its format cannot have.
    #[error("tensor {}: {source}", quoted(.tensor))]
    Format {
        /// Its name.
        tensor: String,
        /// The rule that is broken.
        source: FormatError,
    },
    /// Metadata that a writer was given and no reader would accept.
    #[error("key {}: found {found}, expected {expected}", quoted(.key))]
    Key {
        /// The key.
        key: String,
        /// What it has.
        found: String,
        /// What it has to have.
        expected: String,
    },
}

impl GgufErrorKind {
    pub(super) fn malformed(
        offset: u64,
        place: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Malformed { offset, place: place.into(), found: found.into(), expected: expected.into() }
    }

    /// A defect of the tensor of that name.
    pub(super) fn tensor(tensor: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.to_string(), found: found.into(), expected: expected.into() }
    }

    /// The same error, its place set inside a larger one.
    pub(super) fn inside(self, outer: &str) -> Self {
        match self {
            Self::Malformed { offset, place, found, expected } => {
                Self::Malformed { offset, place: format!("{outer}, {place}"), found, expected }
            }
            other => other,
        }
    }
}

/// A name out of a file, quoted and escaped, cut where it is long: hostile names must not flood a message.
pub(in crate::bitnet::model) fn quoted(name: &str) -> String {
    const MOST: usize = 80;
    match name.char_indices().nth(MOST) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}... ({} bytes)", &name[..end], name.len()),
    }
}
