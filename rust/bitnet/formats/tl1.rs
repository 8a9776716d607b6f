//! TL1: a 4-bit index for every pair of weights, tiled for NEON table look-ups (`docs/FORMATS.md`, TL1).
//!
//! ```text
//! one byte = four neighbouring columns k..k+4 of one row
//!
//!   bits       7..4            |        3..0
//!   holds  pair (k, k+1)       |   pair (k+2, k+3)       index = 3 * w0 + w1 + 4: 0..=8; 9..=15 never occur
//!
//! order of the bytes, outermost first, with row block RB = 256 / BY:
//!   M / BM tiles > K / BK blocks > BM / RB row blocks > BK / BY column blocks
//!     > RB / 16 groups of rows > BY / 4 quads of columns > 16 rows
//!
//!   | indices: M * K / 4 bytes | scale: f32, little-endian | 28 bytes of tail |
//! ```

use super::{FormatError, Layout, WeightFormat};

/// Calls `visit(offset, row, col)` for every byte in the order of the bytes; the byte holds `col..col + 4`.
pub(crate) fn try_for_each_byte<E>(
    layout: &Layout,
    mut visit: impl FnMut(usize, usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    let Some(tile) = layout.tile() else { return Ok(()) };
    let row_block = tile.row_block();
    let mut offset = 0;
    for tile_row in (0..layout.rows()).step_by(tile.bm) {
        for block_col in (0..layout.cols()).step_by(tile.bk) {
            for block_row in (tile_row..tile_row + tile.bm).step_by(row_block) {
                for inner_col in (block_col..block_col + tile.bk).step_by(tile.by) {
                    for group_row in (block_row..block_row + row_block).step_by(16) {
                        for col in (inner_col..inner_col + tile.by).step_by(4) {
                            for row in group_row..group_row + 16 {
                                visit(offset, row, col)?;
                                offset += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// The index of a pair of codes: 0..=8.
pub(super) fn pair_index(w: &[i8]) -> u8 {
    (3 * w[0] + w[1] + 4) as u8
}

/// The byte of four neighbouring codes.
pub(super) fn quad_byte(w: &[i8]) -> u8 {
    pair_index(&w[..2]) << 4 | pair_index(&w[2..])
}

/// The four codes of a byte, or the index above 8 that it holds.
pub(super) fn quad_codes(byte: u8) -> Result<[i8; 4], u8> {
    let (high, low) = (byte >> 4, byte & 15);
    if high > 8 || low > 8 {
        return Err(if high > 8 { high } else { low });
    }
    let (high, low) = (high as i8, low as i8);
    Ok([high / 3 - 1, high % 3 - 1, low / 3 - 1, low % 3 - 1])
}

pub(super) fn pack(layout: &Layout, codes: &[i8], dst: &mut [u8]) {
    let Ok(()) = try_for_each_byte(layout, |offset, row, col| {
        let first = row * layout.cols() + col;
        dst[offset] = quad_byte(&codes[first..first + 4]);
        Ok::<(), std::convert::Infallible>(())
    });
}

pub(super) fn unpack(layout: &Layout, bytes: &[u8], codes: &mut [i8]) -> Result<(), FormatError> {
    try_for_each_byte(layout, |offset, row, col| {
        let quad = quad_codes(bytes[offset])
            .map_err(|index| super::invalid(WeightFormat::Tl1, offset, format!("pair index {index}")))?;
        let first = row * layout.cols() + col;
        codes[first..first + 4].copy_from_slice(&quad);
        Ok(())
    })
}

/// The look-up tables of TL1 for one activation row: per pair of int8 codes (a, b), 16 int16 entries, entry i
/// being (i / 3 - 1) * a + (i % 3 - 1) * b. A table is 32 bytes: the 16 **high** bytes first, then the 16 low
/// ones. Entries 9..=15 are never looked up; the published kernel leaves them unspecified, here they are 0.
///
/// `q`: `[cols]`, an even number of codes; the result has `16 * cols` bytes.
pub fn lut(q: &[i8]) -> Result<Vec<u8>, FormatError> {
    let tables = pair_tables(q)?;
    Ok(tables
        .iter()
        .flat_map(|t| t.map(|e| e.to_le_bytes()[1]).into_iter().chain(t.map(|e| e as u8)))
        .collect())
}

/// The tables of [`lut`] as numbers.
pub(super) fn pair_tables(q: &[i8]) -> Result<Vec<[i16; 16]>, FormatError> {
    let (pairs, rest) = q.as_chunks::<2>();
    super::check_length("activation codes of whole pairs", q.len() - rest.len(), q.len())?;
    Ok(pairs
        .iter()
        .map(|&[a, b]| {
            std::array::from_fn(|i| {
                let w = |digit: usize| digit as i16 - 1;
                if i > 8 { 0 } else { w(i / 3) * i16::from(a) + w(i % 3) * i16::from(b) }
            })
        })
        .collect())
}
