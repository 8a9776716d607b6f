//! Byte layouts of ternary weights: where each weight's code stands, and how many bytes there are.
//!
//! A matrix is `[rows, cols]`: `rows` outputs, `cols` inputs, row-major. A [`Layout`] is a legal combination of
//! format, shape and tile parameters; constructing one checks it, so everything that holds a `Layout` may
//! rely on its arithmetic. [`Weights`] adds the bytes, exactly as they stand in a GGUF tensor: codes,
//! padding, the float32 scale, the tail. Facts: `docs/FORMATS.md` 2, 5 and 6.

pub mod foreign;
pub mod i2s;
pub mod identify;
pub mod repacked;
#[cfg(test)]
mod tests;
mod tiles;
pub mod tl1;
pub mod tl2;

use std::fmt;

/// An interchange format of ternary weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// 2 bits per weight, blocks of 128 columns in 32 bytes (`docs/FORMATS.md` 2, x86 order).
    I2S,
    /// 4-bit indices of weight pairs, tiled for NEON look-up tables (`docs/FORMATS.md` 6).
    Tl1,
    /// 5 bits per weight triple and 4 per remaining pair, tiled for AVX2 look-up tables (`docs/FORMATS.md` 5).
    Tl2,
}

impl WeightFormat {
    /// Every format, in the order tables show them.
    pub const ALL: [Self; 3] = [Self::I2S, Self::Tl1, Self::Tl2];

    /// The name used in workload ids and on the command line: `i2_s`, `tl1`, `tl2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::I2S => "i2_s",
            Self::Tl1 => "tl1",
            Self::Tl2 => "tl2",
        }
    }

    /// The format of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Tile parameters of TL1 and TL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows per tile (BM).
    pub bm: usize,
    /// Columns per block (BK).
    pub bk: usize,
    /// Columns per inner block (BY); the inner block has `256 / by` rows (called bm or bmm by the generators).
    pub by: usize,
}

impl Tile {
    /// Rows of the inner block: 32 or 64 in a legal tile, 0 where `by` is 0.
    pub fn row_block(self) -> usize {
        256_usize.checked_div(self.by).unwrap_or(0)
    }
}

/// Why bytes, a shape or a tile cannot be what was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FormatError {
    /// The format cannot hold this shape, or not with these tile parameters.
    #[error("{format} cannot hold {rows}x{cols}: {why}")]
    Unsupported {
        /// The format asked for.
        format: WeightFormat,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// The rule that is broken, with numbers.
        why: String,
    },
    /// A buffer has the wrong length.
    #[error("{what} has {actual} elements, expected {expected}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements it must have.
        expected: usize,
        /// Elements it has.
        actual: usize,
    },
    /// A code that no packer produces: I2_S code 3, TL1 index 9..=15, TL2 magnitude 14 or 15.
    #[error("byte {offset} holds {what}, which no {format} packer produces: wrong layout or damaged bytes")]
    InvalidCode {
        /// The format the bytes were read as.
        format: WeightFormat,
        /// Offset of the first such byte.
        offset: usize,
        /// What stands there.
        what: String,
    },
    /// The same of an order that weights were repacked to: an r64 code 3, a t5 byte of 243 or more.
    #[error("byte {offset} is {byte}, which is never repacked to {order}: damaged bytes")]
    InvalidByte {
        /// The order's name.
        order: &'static str,
        /// Offset of the first such byte.
        offset: usize,
        /// Its value.
        byte: u8,
    },
    /// A code to be packed is not ternary.
    #[error("code {index} is {value}, expected -1, 0 or +1")]
    NotTernary {
        /// Position of the first one.
        index: usize,
        /// Its value.
        value: i8,
    },
    /// The scale stored behind the codes is NaN, infinite or negative.
    #[error("the scale of a {format} tensor is {scale}, expected a finite number >= 0")]
    Scale {
        /// The format the bytes were read as.
        format: WeightFormat,
        /// The value found.
        scale: f32,
    },
}

/// A legal combination of format, shape and tile: what is needed to know where every bit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    format: WeightFormat,
    rows: usize,
    cols: usize,
    tile: Option<Tile>,
}

/// Bytes of the tail behind the codes: the float32 scale and 28 bytes of padding (`docs/FORMATS.md` 1, 5, 6).
pub const TAIL_BYTES: usize = 32;

impl Layout {
    /// I2_S, 128 columns per block. `cols` must be a multiple of 128.
    pub fn i2s(rows: usize, cols: usize) -> Result<Self, FormatError> {
        let layout = Self { format: WeightFormat::I2S, rows, cols, tile: None };
        layout.check_shape()?;
        layout.require(cols.is_multiple_of(128), || format!("K % 128 = {}, must be 0", cols % 128))?;
        Ok(layout)
    }

    /// TL1 with the given tile: BM divides rows, BK divides cols, BY is 4 or 8 and divides BK, and the inner
    /// row block 256 / BY divides BM.
    pub fn tl1(rows: usize, cols: usize, tile: Tile) -> Result<Self, FormatError> {
        let layout = Self { format: WeightFormat::Tl1, rows, cols, tile: Some(tile) };
        layout.check_shape()?;
        let Tile { bm, bk, by } = tile;
        layout.require(by == 4 || by == 8, || format!("BY = {by}, must be 4 or 8"))?;
        layout.require(bm > 0 && bm % (256 / by) == 0, || {
            format!("BM = {bm}, must be a multiple of {}", 256 / by)
        })?;
        layout.require(bk > 0 && bk % by == 0, || format!("BK = {bk}, must be a multiple of BY = {by}"))?;
        layout.require(rows.is_multiple_of(bm), || {
            format!("M % BM = {rows} % {bm} = {}, must be 0", rows % bm)
        })?;
        layout.require(cols.is_multiple_of(bk), || {
            format!("K % BK = {cols} % {bk} = {}, must be 0", cols % bk)
        })?;
        Ok(layout)
    }

    /// TL2 with the given tile: BM is a multiple of 32 and divides rows, BK is a multiple of 24, the columns
    /// left over by whole BK blocks are a multiple of 32, and cols >= 256. BY is 8 (row block 32).
    pub fn tl2(rows: usize, cols: usize, tile: Tile) -> Result<Self, FormatError> {
        let layout = Self { format: WeightFormat::Tl2, rows, cols, tile: Some(tile) };
        layout.check_shape()?;
        let Tile { bm, bk, by } = tile;
        layout.require(by == 8, || format!("BY = {by}, must be 8"))?;
        layout.require(bm > 0 && bm % 32 == 0, || format!("BM = {bm}, must be a multiple of 32"))?;
        layout.require(bk > 0 && bk % 24 == 0, || format!("BK = {bk}, must be a multiple of 24"))?;
        layout.require(rows.is_multiple_of(bm), || {
            format!("M % BM = {rows} % {bm} = {}, must be 0", rows % bm)
        })?;
        let rest = cols % bk;
        layout.require(rest.is_multiple_of(32), || {
            format!("(K % BK) % 32 = {rest} % 32 = {}, must be 0", rest % 32)
        })?;
        layout.require(cols >= 256, || format!("K = {cols}, must be at least 256"))?;
        let (data, nominal) = (layout.tl2_data_bytes(), layout.tl2_nominal_bytes());
        layout.require(data <= nominal, || {
            format!("its {data} bytes exceed the {nominal} that the format's size rule reserves")
        })?;
        Ok(layout)
    }

    /// The layout from its parts, as a file or a foreign caller gives them.
    pub fn from_parts(
        format: WeightFormat,
        rows: usize,
        cols: usize,
        tile: Option<Tile>,
    ) -> Result<Self, FormatError> {
        match (format, tile) {
            (WeightFormat::I2S, None) => Self::i2s(rows, cols),
            (WeightFormat::Tl1, Some(tile)) => Self::tl1(rows, cols, tile),
            (WeightFormat::Tl2, Some(tile)) => Self::tl2(rows, cols, tile),
            (_, tile) => Err(FormatError::Unsupported {
                format,
                rows,
                cols,
                why: if tile.is_some() { "it has no tiles" } else { "tile parameters are missing" }
                    .to_string(),
            }),
        }
    }

    /// The format.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Outputs (M).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs (K).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Tile parameters; `None` for I2_S.
    pub fn tile(&self) -> Option<Tile> {
        self.tile
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.rows * self.cols
    }

    /// Columns held as 3-weight groups (TL2): whole BK blocks. 0 for the other formats.
    pub fn three_cols(&self) -> usize {
        match (self.format, self.tile) {
            (WeightFormat::Tl2, Some(tile)) => self.cols / tile.bk * tile.bk,
            _ => 0,
        }
    }

    /// Bytes that hold codes, without padding, scale and tail.
    pub fn code_bytes(&self) -> usize {
        match self.format {
            WeightFormat::I2S | WeightFormat::Tl1 => self.n_weights() / 4,
            WeightFormat::Tl2 => self.tl2_data_bytes(),
        }
    }

    /// Offset of the little-endian float32 scale.
    pub fn scale_offset(&self) -> usize {
        match self.format {
            WeightFormat::I2S | WeightFormat::Tl1 => self.n_weights() / 4,
            WeightFormat::Tl2 => self.tl2_nominal_bytes().next_multiple_of(32),
        }
    }

    /// Bytes of the whole tensor: codes, padding, scale, tail.
    pub fn packed_bytes(&self) -> usize {
        self.scale_offset() + TAIL_BYTES
    }

    fn tl2_data_bytes(&self) -> usize {
        let three = self.three_cols();
        three * self.rows / 6 + three * self.rows / 24 + (self.cols - three) * self.rows / 4
    }

    /// The size rule of the public converter, integer arithmetic from left to right (`docs/FORMATS.md` 5).
    fn tl2_nominal_bytes(&self) -> usize {
        (self.cols - 256) * self.rows / 3 * 5 / 8 + 256 * self.rows / 2 * 4 / 8
    }

    fn check_shape(&self) -> Result<(), FormatError> {
        self.require(self.rows > 0 && self.cols > 0, || "both sides must be at least 1".to_string())?;
        // The largest intermediate of any size rule is twice the product.
        let fits = self.rows.checked_mul(self.cols).is_some_and(|n| n <= usize::MAX / 8);
        self.require(fits, || "the number of weights overflows".to_string())
    }

    fn require(&self, holds: bool, why: impl FnOnce() -> String) -> Result<(), FormatError> {
        if holds {
            return Ok(());
        }
        Err(FormatError::Unsupported { format: self.format, rows: self.rows, cols: self.cols, why: why() })
    }
}

impl fmt::Display for Layout {
    /// `i2_s 2560x2560`: format, outputs, inputs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}", self.format, self.rows, self.cols)
    }
}

/// A packed matrix: a layout and its bytes, borrowed (from a vector, a memory-mapped file, ...).
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    layout: Layout,
    bytes: &'a [u8],
    scale: f32,
}

impl<'a> Weights<'a> {
    /// Checks the length and the scale; the codes are checked by whoever unpacks or prepares them.
    pub fn new(layout: Layout, bytes: &'a [u8]) -> Result<Self, FormatError> {
        check_length("packed weights", layout.packed_bytes(), bytes.len())?;
        let at = layout.scale_offset();
        let scale = f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        check_scale(layout.format, scale)?;
        Ok(Self { layout, bytes, scale })
    }

    /// Where each code stands.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Codes, padding, scale, tail.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What a code of +1 stands for.
    pub fn scale(&self) -> f32 {
        self.scale
    }
}

/// Packs ternary codes into `dst`: all of [`Layout::packed_bytes`], with padding and the 28 tail bytes zeroed.
///
/// `codes`: `[rows, cols]` of -1, 0, +1. Errors, before anything is written: wrong lengths, a code outside
/// -1..=1 ([`FormatError::NotTernary`]), a scale that [`Weights::new`] would refuse.
pub fn pack(layout: &Layout, codes: &[i8], scale: f32, dst: &mut [u8]) -> Result<(), FormatError> {
    check_length("codes", layout.n_weights(), codes.len())?;
    check_length("packed weights", layout.packed_bytes(), dst.len())?;
    check_scale(layout.format, scale)?;
    if let Some(index) = codes.iter().position(|code| !(-1..=1).contains(code)) {
        return Err(FormatError::NotTernary { index, value: codes[index] });
    }
    match layout.format {
        WeightFormat::I2S => i2s::pack(layout, codes, dst),
        WeightFormat::Tl1 => tl1::pack(layout, codes, dst),
        WeightFormat::Tl2 => tl2::pack(layout, codes, dst),
    }
    let at = layout.scale_offset();
    dst[layout.code_bytes()..].fill(0);
    dst[at..at + 4].copy_from_slice(&scale.to_le_bytes());
    Ok(())
}

/// Unpacks the codes of a packed matrix into `codes`: `[rows, cols]` of -1, 0, +1.
///
/// Errors: wrong length, [`FormatError::InvalidCode`] (then the contents of `codes` are unspecified).
pub fn unpack(weights: &Weights<'_>, codes: &mut [i8]) -> Result<(), FormatError> {
    let Weights { layout, bytes, .. } = weights;
    check_length("codes", layout.n_weights(), codes.len())?;
    match layout.format {
        WeightFormat::I2S => i2s::unpack(layout, bytes, codes),
        WeightFormat::Tl1 => tl1::unpack(layout, bytes, codes),
        WeightFormat::Tl2 => tl2::unpack(layout, bytes, codes),
    }
}

fn check_length(what: &'static str, expected: usize, actual: usize) -> Result<(), FormatError> {
    if actual == expected { Ok(()) } else { Err(FormatError::Length { what, expected, actual }) }
}

/// That a tensor can carry this scale: it is finite and not negative.
pub(crate) fn check_scale(format: WeightFormat, scale: f32) -> Result<(), FormatError> {
    let legal = scale.is_finite() && scale.is_sign_positive();
    if legal { Ok(()) } else { Err(FormatError::Scale { format, scale }) }
}

fn invalid(format: WeightFormat, offset: usize, what: String) -> FormatError {
    FormatError::InvalidCode { format, offset, what }
}
