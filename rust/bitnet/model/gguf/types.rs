//! Tensor types: their numbers, their sizes, and what the disputed numbers 36 to 39 mean in a given file.
//!
//! bitnet.cpp's fork of llama.cpp took 36 = I2_S, 37 = I8_S, 38 = TL1, 39 = TL2. Upstream had 36 to 38 for repacked
//! IQ4_NL (since removed) and has 39 for MXFP4. Nothing in a file says whose numbers it uses, so it is decided
//! tensor by tensor, by evidence, strongest first:
//!
//! 1. Size. The space a tensor has (to the next tensor or the end of the file) must hold its bytes and less than one
//!    alignment more. The two meanings differ by hundreds of bytes for every shape of a real model.
//! 2. Where both sizes fit (tensors of a few hundred weights): `general.file_type` 40, 38 or 39 together with the id
//!    it belongs to, or an architecture whose name begins with "bitnet", speaks for bitnet.cpp.
//!
//! Without either the file is refused: a misread tensor would look like a numerical defect of some kernel.

use super::value::Metadata;
use crate::bitnet::formats::{TAIL_BYTES, WeightFormat};
use std::fmt;

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// Id 0.
    F32,
    /// Id 1: IEEE half precision.
    F16,
    /// Id 8: blocks of 32 values, 8 bits each and an F16 scale.
    Q8_0,
    /// Id 14: blocks of 256 values, 6 bits each with 16 8-bit scales and an F16 scale.
    Q6K,
    /// Id 30: the upper half of an F32.
    Bf16,
    /// Id 36 of bitnet.cpp.
    I2S,
    /// Id 38 of bitnet.cpp.
    Tl1,
    /// Id 39 of bitnet.cpp.
    Tl2,
    /// Another ggml type, by its id: its name and size are known, its values are not read.
    Other(u32),
}

/// Id, name, values per block and bytes per block of every ggml type that is not disputed.
const GGML_TYPES: [(u32, &str, u64, u64); 34] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (31, "Q4_0_4_4", 32, 18),
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
];

/// The disputed ids: id, bitnet.cpp's name, upstream's name, upstream's values and bytes per block.
const DISPUTED: [(u32, &str, &str, u64, u64); 4] = [
    (36, "I2_S", "IQ4_NL_4_4 (removed upstream)", 32, 18),
    (37, "I8_S", "IQ4_NL_4_8 (removed upstream)", 32, 18),
    (38, "TL1", "IQ4_NL_8_8 (removed upstream)", 32, 18),
    (39, "TL2", "MXFP4", 32, 17),
];

impl TensorType {
    /// The number that stands for it in a file.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Q6K => 14,
            Self::Bf16 => 30,
            Self::I2S => 36,
            Self::Tl1 => 38,
            Self::Tl2 => 39,
            Self::Other(id) => id,
        }
    }

    /// Its name as the public tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::I2S => "I2_S",
            Self::Tl1 => "TL1",
            Self::Tl2 => "TL2",
            _ => block_of(self.id()).map_or("unknown", |(name, ..)| name),
        }
    }

    /// The ternary format of that type.
    pub fn ternary(self) -> Option<WeightFormat> {
        match self {
            Self::I2S => Some(WeightFormat::I2S),
            Self::Tl1 => Some(WeightFormat::Tl1),
            Self::Tl2 => Some(WeightFormat::Tl2),
            _ => None,
        }
    }

    /// Bytes of a tensor of this type, `dims[0]` = K first, or why there can be none.
    pub fn n_bytes(self, dims: &[u64]) -> Result<u64, String> {
        let n = n_values(dims)?;
        let (k, m) = matrix_of(dims);
        match self {
            Self::I2S | Self::Tl1 => Ok(n / 4 + TAIL_BYTES as u64),
            Self::Tl2 if k < 256 => Err(format!("K = {k}, but TL2's size rule needs at least 256")),
            // n < 2^60, so five times a third of it fits.
            Self::Tl2 => {
                let nominal = (k - 256) * m / 3 * 5 / 8 + 256 * m / 2 * 4 / 8;
                Ok(nominal.next_multiple_of(32) + TAIL_BYTES as u64)
            }
            other => match block_of(other.id()) {
                Some((name, values, bytes)) => blocks(n, k, name, values, bytes),
                None => Err(format!("the size of type id {} is not known", other.id())),
            },
        }
    }

    fn undisputed(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            8 => Self::Q8_0,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => {
                block_of(id)?;
                Self::Other(id)
            }
        })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a file says about whose numbers it uses.
pub(super) struct Evidence {
    file_type: Option<u64>,
    bitnet_architecture: bool,
    alignment: u64,
}

/// Why an id and a size make no tensor.
pub(super) struct Refusal {
    pub(super) found: String,
    pub(super) expected: String,
}

impl Evidence {
    pub(super) fn new(metadata: &Metadata, alignment: u64) -> Self {
        let architecture = metadata.get("general.architecture").and_then(|value| value.as_str());
        Self {
            file_type: metadata.get("general.file_type").and_then(|value| value.as_u64()),
            bitnet_architecture: architecture.is_some_and(|name| name.starts_with("bitnet")),
            alignment,
        }
    }

    /// The type that `id` means and the bytes of the tensor, given the `space` it has in the file.
    pub(super) fn decide(&self, id: u32, dims: &[u64], space: u64) -> Result<(TensorType, u64), Refusal> {
        let refuse = |found: String, expected: String| Err(Refusal { found, expected });
        if let Some(known) = TensorType::undisputed(id) {
            return match known.n_bytes(dims) {
                Ok(n_bytes) if n_bytes <= space => Ok((known, n_bytes)),
                Ok(n_bytes) => refuse(
                    format!("{space} bytes for it"),
                    format!("the {n_bytes} that {known} {dims:?} takes"),
                ),
                Err(why) => refuse(why, format!("a shape that {known} can hold")),
            };
        }
        let Some(&(_, ours, stock, values, bytes)) = DISPUTED.iter().find(|row| row.0 == id) else {
            return refuse(format!("type id {id}"), "a ggml type id from 0 to 39".to_string());
        };
        let candidate = match id {
            36 => TensorType::I2S,
            38 => TensorType::Tl1,
            39 => TensorType::Tl2,
            _ => {
                let found = format!("type id {id}, which is {ours} or {stock}");
                return refuse(found, "a type of weights (neither of the two is kept in files)".to_string());
            }
        };
        let fits = |size: &u64| *size <= space && space - *size < self.alignment;
        let our_size = candidate.n_bytes(dims);
        let stock_size = n_values(dims).and_then(|n| blocks(n, matrix_of(dims).0, stock, values, bytes));
        let show = |size: &Result<u64, String>| size.clone().map_or_else(|why| why, |n| format!("{n} bytes"));
        match (our_size.as_ref().is_ok_and(fits), stock_size.as_ref().is_ok_and(fits)) {
            (true, false) => Ok((candidate, our_size.unwrap_or(space))),
            (true, true) if self.speaks_for_bitnet(id) => Ok((candidate, our_size.unwrap_or(space))),
            (_, true) => refuse(
                format!("type id {id} and {space} bytes, which is {stock} of stock GGUF"),
                format!("{ours} of bitnet.cpp ({})", show(&our_size)),
            ),
            (false, false) => refuse(
                format!("type id {id} and {space} bytes for {dims:?}"),
                format!(
                    "{ours} of bitnet.cpp ({}) or {stock} of stock GGUF ({})",
                    show(&our_size),
                    show(&stock_size)
                ),
            ),
        }
    }

    /// Upstream's file types 38 and 39 mean other things, so the number counts only beside the id it belongs to.
    fn speaks_for_bitnet(&self, id: u32) -> bool {
        let file_type_of_id = match id {
            36 => 40,
            38 => 38,
            _ => 39,
        };
        self.bitnet_architecture || self.file_type == Some(file_type_of_id)
    }
}

/// Number of values; an error where a side is 0 or the product does not stay below 2^60.
pub(super) fn n_values(dims: &[u64]) -> Result<u64, String> {
    let product = dims.iter().try_fold(1_u64, |product, &side| product.checked_mul(side));
    match product {
        Some(0) => Err(format!("a side of 0 in {dims:?}")),
        Some(n) if n < 1 << 60 => Ok(n),
        _ => Err(format!("2^60 values or more in {dims:?}")),
    }
}

/// Inputs (K) and the product of all other sides.
fn matrix_of(dims: &[u64]) -> (u64, u64) {
    match dims {
        [] => (1, 1),
        [k, rest @ ..] => (*k, rest.iter().fold(1_u64, |product, &side| product.saturating_mul(side))),
    }
}

fn blocks(n: u64, k: u64, name: &str, values: u64, bytes: u64) -> Result<u64, String> {
    if !k.is_multiple_of(values) {
        return Err(format!("K = {k}, but {name} needs a multiple of {values}"));
    }
    Ok(n / values * bytes)
}

fn block_of(id: u32) -> Option<(&'static str, u64, u64)> {
    GGML_TYPES.iter().find(|row| row.0 == id).map(|&(_, name, values, bytes)| (name, values, bytes))
}
