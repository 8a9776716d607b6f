//! I2_S: 2 bits per weight, one block of 128 columns in 32 bytes (`docs/FORMATS.md`, I2_S).
//!
//! ```text
//! block, row-major, K / 128 blocks per row:   byte 0   byte 1   ...   byte 31
//!
//!   bits of byte b    7   6 | 5   4 | 3   2 | 1   0
//!   column in block     b   |  32+b |  64+b |  96+b      code + 1: 0, 1, 2 = -1, 0, +1; 3 never occurs
//!
//!   | codes: M * K / 4 bytes | scale: f32, little-endian | 28 bytes of tail |
//! ```
//!
//! This is the order of bitnet.cpp on x86 and of all published I2_S files. Layouts that share the name but
//! not the order are in [`super::foreign`].

use super::{FormatError, Layout, WeightFormat};

/// Columns per block.
pub const BLOCK_COLS: usize = 128;
/// Bytes per block.
pub const BLOCK_BYTES: usize = 32;

/// Index of the weight in bits 7:6 of byte `offset`; bits 5:4, 3:2 and 1:0 hold the ones 32, 64 and 96 later.
/// Rows are whole blocks, so the index runs over the flattened matrix.
pub(crate) fn first_weight(offset: usize) -> usize {
    offset / BLOCK_BYTES * BLOCK_COLS + offset % BLOCK_BYTES
}

pub(super) fn pack(layout: &Layout, codes: &[i8], dst: &mut [u8]) {
    for (offset, byte) in dst[..layout.code_bytes()].iter_mut().enumerate() {
        let first = first_weight(offset);
        *byte = (0..4).fold(0, |bits, group| bits << 2 | (codes[first + 32 * group] + 1) as u8);
    }
}

pub(super) fn unpack(layout: &Layout, bytes: &[u8], codes: &mut [i8]) -> Result<(), FormatError> {
    for (offset, &byte) in bytes[..layout.code_bytes()].iter().enumerate() {
        let first = first_weight(offset);
        for group in 0..4 {
            let code = byte >> (6 - 2 * group) & 3;
            if code == 3 {
                return Err(super::invalid(WeightFormat::I2S, offset, format!("{byte:#04x} with code 3")));
            }
            codes[first + 32 * group] = code as i8 - 1;
        }
    }
    Ok(())
}
