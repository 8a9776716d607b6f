//! GGUF version 3, little-endian: the container of model files, as llama.cpp and bitnet.cpp write it.
//!
//! ```text
//! "GGUF"  version u32  number of tensors u64  number of keys u64
//! keys:     name, value type u32, value
//! tensors:  name, number of sides u32, sides u64 (K first), type u32, offset u64 from the data section
//! padding to the alignment (general.alignment, 32 unless told)
//! data:     each tensor at its offset, padded to the alignment
//! ```
//! A string is its length in 8 bytes and UTF-8; keys, tensor names and string values that are not UTF-8 are errors.
//!
//! Why not a crate. Looked at: candle-core 0.11.1, gguf-rs 0.1.8, ggus 0.5.1, gguf 0.1.2. Each fixes the meaning of a
//! type id in an enum. gguf-rs takes bitnet.cpp's 36 to 39 for IQ4_NL_4_4 to MXFP4, with the sizes of those; candle
//! ("unknown dtype"), ggus (ends at 33) and gguf (ends at 19) know none of them: a BitNet file is misread or refused by
//! all four. None looks for overlapping tensors or says at which byte a fault stands; gguf-rs replaces
//! invalid UTF-8 silently, and ggus panics where a value has another type than asked for. What would
//! remain for the crate to do is less than wrapping it would cost.

mod cursor;
mod error;
mod reader;
mod types;
mod value;
mod writer;

pub(super) use error::quoted;
pub use error::{GgufError, GgufErrorKind};
pub use reader::TensorInfo;
pub use types::TensorType;
pub use value::{Array, MAX_ARRAY_DEPTH, Metadata, Value};
pub use writer::{GgufWriter, MAX_NAME_BYTES, NewFile, TensorPlan};

use super::float_blocks;
use super::map::Map;
use crate::bitnet::formats::{Layout, Weights};
use reader::Parsed;
use std::fmt;
use std::ops::Range;
use std::path::Path;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSION: u32 = 3;
const ALIGNMENT_KEY: &str = "general.alignment";

/// Alignment of tensors in a file that does not name another.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Most sides that a tensor has.
pub const MAX_DIMS: usize = 4;

/// A parsed file: its metadata, and where its tensors are. The bytes of tensors are borrowed, never copied.
pub struct Gguf<'a> {
    bytes: Bytes<'a>,
    parsed: reader::Parsed,
}

enum Bytes<'a> {
    Mapped(Map),
    Owned(Vec<u8>),
    Borrowed(&'a [u8]),
}

impl fmt::Debug for Gguf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, tensors) = (self.metadata().len(), self.tensors().len());
        write!(f, "Gguf of {} bytes, {keys} keys, {tensors} tensors", self.bytes().len())
    }
}

impl Gguf<'static> {
    /// Maps and parses the file at `path`. Nobody may shorten the file while the result lives.
    ///
    /// Errors name the path, the byte, what was found and what was expected.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let name_it = |kind: GgufErrorKind| GgufError::from(kind).at(path);
        let map = Map::open(path).map_err(|source| name_it(GgufErrorKind::Io { doing: "read", source }))?;
        let parsed = reader::parse(&map).map_err(name_it)?;
        Ok(Self { bytes: Bytes::Mapped(map), parsed })
    }

    /// Parses a file that is in memory already, and keeps its bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GgufError> {
        let parsed = reader::parse(&bytes)?;
        Ok(Self { bytes: Bytes::Owned(bytes), parsed })
    }
}

impl<'a> Gguf<'a> {
    /// Parses a file that is in memory already.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        Ok(Self { parsed: reader::parse(bytes)?, bytes: Bytes::Borrowed(bytes) })
    }

    /// Keys and values, in the order of the file.
    pub fn metadata(&self) -> &Metadata {
        &self.parsed.metadata
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.parsed.tensors
    }

    /// The alignment of tensors, in bytes.
    pub fn alignment(&self) -> u64 {
        self.parsed.alignment
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        let Parsed { tensors, by_name, .. } = &self.parsed;
        match by_name.binary_search_by(|&index| tensors[index].name().cmp(name)) {
            Ok(position) => Ok(&tensors[by_name[position]]),
            Err(_) => {
                Err(GgufErrorKind::NoTensor { name: name.to_string(), available: tensors.len() }.into())
            }
        }
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
            Bytes::Borrowed(bytes) => bytes,
        }
    }

    /// The bytes of a tensor of this file, without padding. Empty for an info of another file that does not fit.
    pub fn tensor_bytes(&self, info: &TensorInfo) -> &[u8] {
        self.tensor_range(info).and_then(|range| self.bytes().get(range)).unwrap_or(&[])
    }

    /// Where in the file those bytes stand; `None` for an info of another file whose numbers overflow.
    pub fn tensor_range(&self, info: &TensorInfo) -> Option<Range<usize>> {
        let start = self.parsed.data_start.checked_add(info.offset)?;
        Some(start as usize..start.checked_add(info.n_bytes)? as usize)
    }

    /// A ternary tensor with its layout. Tile parameters are not in the file: TL1 and TL2 take those that the public
    /// generators use for the shape ([`Layout::published`]).
    ///
    /// Errors: not a ternary type, not a matrix, a shape the format cannot hold, a scale that is none.
    pub fn ternary(&self, info: &TensorInfo) -> Result<Weights<'_>, GgufError> {
        let Some(format) = info.tensor_type().ternary() else {
            let found = format!("type {}", info.tensor_type());
            return Err(GgufErrorKind::tensor(info.name(), found, "I2_S, TL1 or TL2").into());
        };
        if info.dims().len() < 2 || info.dims()[2..].iter().any(|&side| side != 1) {
            let found = format!("sides {:?}", info.dims());
            return Err(GgufErrorKind::tensor(info.name(), found, "a matrix [K, M]").into());
        }
        let layout = Layout::published(format, info.rows(), info.cols());
        let weights = layout.and_then(|layout| Weights::new(layout, self.tensor_bytes(info)));
        weights.map_err(|source| GgufErrorKind::Format { tensor: info.name().to_string(), source }.into())
    }

    /// Rows `first_row ..` of a float tensor as f32, as many as `out` holds; `out.len()` is a multiple of
    /// [`TensorInfo::cols`].
    ///
    /// Errors: a type that is not F32, F16, BF16, Q8_0 or Q6_K; rows outside the tensor.
    pub fn rows_f32(&self, info: &TensorInfo, first_row: usize, out: &mut [f32]) -> Result<(), GgufError> {
        let Some(float_type) = float_blocks::FloatType::of(info.tensor_type()) else {
            let found = format!("type {}", info.tensor_type());
            return Err(GgufErrorKind::tensor(info.name(), found, "F32, F16, BF16, Q8_0 or Q6_K").into());
        };
        let (cols, rows) = (info.cols(), out.len() / info.cols());
        let last_row = first_row.checked_add(rows);
        if !out.len().is_multiple_of(cols) || last_row.is_none_or(|last| last > info.rows()) {
            let found = format!("{} values from row {first_row}", out.len());
            let expected = format!("whole rows of {cols} values, within its {}", info.rows());
            return Err(GgufErrorKind::tensor(info.name(), found, expected).into());
        }
        let row_bytes = float_type.bytes_of(cols);
        let start = first_row.saturating_mul(row_bytes);
        let bytes = self.tensor_bytes(info).get(start..).and_then(|rest| rest.get(..rows * row_bytes));
        match bytes {
            Some(bytes) => {
                float_type.decode(bytes, out);
                Ok(())
            }
            None => {
                Err(GgufErrorKind::tensor(info.name(), "fewer bytes than its shape needs", "its own file")
                    .into())
            }
        }
    }

    /// A whole float tensor as f32, row-major `[rows, cols]`. Errors as [`Gguf::rows_f32`].
    pub fn floats(&self, info: &TensorInfo) -> Result<Vec<f32>, GgufError> {
        // Asked before allocating: the size of a type that is not read may be any fraction of its values.
        if float_blocks::FloatType::of(info.tensor_type()).is_none() {
            return self.rows_f32(info, 0, &mut []).map(|()| Vec::new());
        }
        let mut values = vec![0.0; info.rows() * info.cols()];
        self.rows_f32(info, 0, &mut values)?;
        Ok(values)
    }
}
