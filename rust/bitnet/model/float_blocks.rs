//! Float tensors of model files, decoded to f32.
//!
//! | type | values | bytes | layout |
//! |---|---|---|---|
//! | F32, F16, BF16 | 1 | 4, 2, 2 | little-endian |
//! | Q8_0 | 32 | 34 | F16 d, 32 int8 q; value = d * q |
//! | Q6_K | 256 | 210 | 128 bytes ql, 64 bytes qh, 16 int8 scales, F16 d; value = (d * scale) * (q - 32) |
//!
//! Q6_K, for each half h (0, 1) of 128 values, quarter c (0..4) and l (0..32): value 128 h + 32 c + l has its low four
//! bits in ql[64 h + 32 (c mod 2) + l] (low nibble for c < 2, high nibble above), its high two bits in
//! qh[32 h + l] at bit 2 c, and scale 8 h + 2 c + l div 16. Products are f32, in the order written.

use super::gguf::TensorType;
use half::{bf16, f16};

const Q8_0_BYTES: usize = 34;
const Q6K_BYTES: usize = 210;

/// A storage of floats that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an F32.
    Bf16,
    /// 32 values of 8 bits and a scale.
    Q8_0,
    /// 256 values of 6 bits, 16 scales of 8 bits and a scale.
    Q6K,
}

impl FloatType {
    /// The float type of a tensor type, if it is one.
    pub fn of(tensor_type: TensorType) -> Option<Self> {
        match tensor_type {
            TensorType::F32 => Some(Self::F32),
            TensorType::F16 => Some(Self::F16),
            TensorType::Bf16 => Some(Self::Bf16),
            TensorType::Q8_0 => Some(Self::Q8_0),
            TensorType::Q6K => Some(Self::Q6K),
            _ => None,
        }
    }

    /// Values per block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 => 32,
            Self::Q6K => 256,
        }
    }

    /// Bytes of `n` values, a multiple of [`FloatType::block_len`].
    pub fn bytes_of(self, n: usize) -> usize {
        let block_bytes = match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => Q8_0_BYTES,
            Self::Q6K => Q6K_BYTES,
        };
        n / self.block_len() * block_bytes
    }

    /// Decodes whole blocks from `bytes` into `out`; what is longer than the other is left alone.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => decode_each(bytes, out, f32::from_le_bytes),
            Self::F16 => decode_each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => decode_each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::Q8_0 => {
                let (blocks, _) = bytes.as_chunks::<Q8_0_BYTES>();
                blocks
                    .iter()
                    .zip(out.as_chunks_mut::<32>().0)
                    .for_each(|(block, out)| decode_q8_0(block, out));
            }
            Self::Q6K => {
                let (blocks, _) = bytes.as_chunks::<Q6K_BYTES>();
                blocks
                    .iter()
                    .zip(out.as_chunks_mut::<256>().0)
                    .for_each(|(block, out)| decode_q6k(block, out));
            }
        }
    }
}

/// A float matrix `[rows, cols]` as it stands in a file: rows contiguous, each a whole number of blocks.
#[derive(Clone, Copy, Debug)]
pub struct FloatMatrix<'a> {
    float_type: FloatType,
    rows: usize,
    cols: usize,
    bytes: &'a [u8],
}

impl<'a> FloatMatrix<'a> {
    /// `None` where a side is 0, `cols` is not a multiple of the block, or the bytes are more or fewer than the shape
    /// needs.
    pub fn new(float_type: FloatType, rows: usize, cols: usize, bytes: &'a [u8]) -> Option<Self> {
        let whole = rows > 0 && cols > 0 && cols.is_multiple_of(float_type.block_len());
        let fits = || float_type.bytes_of(cols).checked_mul(rows) == Some(bytes.len());
        (whole && fits()).then_some(Self { float_type, rows, cols, bytes })
    }

    /// How its values are stored.
    pub fn float_type(&self) -> FloatType {
        self.float_type
    }

    /// Outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of a product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of one row, which is below [`FloatMatrix::rows`].
    pub fn row(&self, row: usize) -> &'a [u8] {
        let row_bytes = self.float_type.bytes_of(self.cols);
        &self.bytes[row * row_bytes..(row + 1) * row_bytes]
    }
}

fn decode_each<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (value, &chunk) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = decode(chunk);
    }
}

fn decode_q8_0(block: &[u8; Q8_0_BYTES], out: &mut [f32; 32]) {
    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
    for (value, &q) in out.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(q as i8);
    }
}

fn decode_q6k(block: &[u8; Q6K_BYTES], out: &mut [f32; 256]) {
    let (ql, rest) = block.split_at(128);
    let (qh, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = f16::from_le_bytes([d[0], d[1]]).to_f32();
    for (index, value) in out.iter_mut().enumerate() {
        let (h, c, l) = (index / 128, index / 32 % 4, index % 32);
        let low = ql[64 * h + 32 * (c % 2) + l] >> (4 * (c / 2)) & 0xf;
        let high = qh[32 * h + l] >> (2 * c) & 3;
        let scale = f32::from(scales[8 * h + 2 * c + l / 16] as i8);
        *value = d * scale * f32::from((high << 4 | low) as i8 - 32);
    }
}
