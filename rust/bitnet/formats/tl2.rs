//! TL2: 5 bits for every triple of weights, tiled for AVX2 table look-ups; the columns that whole BK blocks
//! leave over are held as pairs, as in TL1 (`docs/FORMATS.md`, TL2).
//!
//! ```text
//! K3 = floor(K / BK) * BK columns in triples v = 9 * w0 + 3 * w1 + w2, -13..=13, and K2 = K - K3 in pairs
//!
//! A, magnitudes: one byte = two neighbouring triples of one row
//!   bits       7..4         |          3..0
//!   holds  |v| of triple j  |  |v| of triple j + 1        0..=13; 14 and 15 never occur
//! S, signs: one little-endian uint16 = eight neighbouring triples of two rows, 16 apart; word i of 16:
//!   bit        15    14    13    12   ...    1     0
//!   row         i  16+i     i  16+i   ...    i  16+i
//!   triple      j     j   j+1   j+1   ...  j+7   j+7      1 = negative; means nothing where |v| = 0
//! B, pairs: one byte = four neighbouring columns of one row, as in TL1
//!
//! order of A and S, outermost first:  M / BM tiles > K3 / BK blocks > BM / 32 row blocks
//!   > A: BK / 6 pairs of triples > 32 rows          > S: BK / 24 octets of triples > 16 words
//! order of B:                         M / BM tiles > K2 / 32 blocks > BM / 32 row blocks > 8 quads > 32 rows
//! the 32 rows of A and B stand in the order 0-7, 16-23, 8-15, 24-31
//!
//!   | A: K3 * M / 6 | S: K3 * M / 24 | B: K2 * M / 4 | zeros | scale: f32, little-endian | 28 bytes of tail |
//! ```
//!
//! The scale stands where [`Layout::scale_offset`] says: the converter reserves as many bytes as the matrix
//! would need with exactly 256 columns in pairs, which is never less than what it fills.

use super::tl1::{quad_byte, quad_codes};
use super::{FormatError, Layout, WeightFormat};

/// Row within a block of 32 whose byte stands at position `slot`.
fn row_of_slot(slot: usize) -> usize {
    match slot / 8 {
        1 => slot + 8,
        2 => slot - 8,
        _ => slot,
    }
}

/// Where two neighbouring triples of one row stand.
pub(crate) struct TwoTriples {
    /// Row of the six weights.
    pub row: usize,
    /// Column of the first of them.
    pub col: usize,
    /// Offset of the byte with both magnitudes, the first in the high nibble.
    pub magnitudes: usize,
    /// Byte offset and bit of each sign.
    pub signs: [(usize, usize); 2],
}

/// Calls `visit` for every byte of A, in the order of the bytes.
pub(crate) fn try_for_each_two_triples<E>(
    layout: &Layout,
    mut visit: impl FnMut(TwoTriples) -> Result<(), E>,
) -> Result<(), E> {
    let Some(tile) = layout.tile() else { return Ok(()) };
    let (rows, three_cols) = (layout.rows(), layout.three_cols());
    let (mut magnitudes, mut octets) = (0, three_cols * rows / 6);
    for tile_row in (0..rows).step_by(tile.bm) {
        for block_col in (0..three_cols).step_by(tile.bk) {
            for block_row in (tile_row..tile_row + tile.bm).step_by(32) {
                for triple in (0..tile.bk / 3).step_by(2) {
                    let octet = octets + triple / 8 * 32;
                    for slot in 0..32 {
                        let row = row_of_slot(slot);
                        let sign = |triple: usize| {
                            let bit = 15 - 2 * (triple % 8) - row / 16;
                            (octet + 2 * (row % 16) + bit / 8, bit % 8)
                        };
                        let signs = [sign(triple), sign(triple + 1)];
                        visit(TwoTriples {
                            row: block_row + row,
                            col: block_col + 3 * triple,
                            magnitudes,
                            signs,
                        })?;
                        magnitudes += 1;
                    }
                }
                octets += tile.bk / 24 * 32;
            }
        }
    }
    Ok(())
}

/// Calls `visit(offset, row, col)` for every byte of B in the order of the bytes; it holds `col..col + 4`.
pub(crate) fn try_for_each_quad<E>(
    layout: &Layout,
    mut visit: impl FnMut(usize, usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    let Some(tile) = layout.tile() else { return Ok(()) };
    let (rows, three_cols) = (layout.rows(), layout.three_cols());
    let mut offset = three_cols * rows / 6 + three_cols * rows / 24;
    for tile_row in (0..rows).step_by(tile.bm) {
        for block_col in (three_cols..layout.cols()).step_by(32) {
            for block_row in (tile_row..tile_row + tile.bm).step_by(32) {
                for col in (block_col..block_col + 32).step_by(4) {
                    for slot in 0..32 {
                        visit(offset, block_row + row_of_slot(slot), col)?;
                        offset += 1;
                    }
                }
            }
        }
    }
    Ok(())
}

pub(super) fn pack(layout: &Layout, codes: &[i8], dst: &mut [u8]) {
    type Never = std::convert::Infallible;
    dst[..layout.code_bytes()].fill(0);
    let Ok(()) = try_for_each_two_triples(layout, |at| {
        let first = at.row * layout.cols() + at.col;
        for (triple, (byte, bit)) in at.signs.into_iter().enumerate() {
            let w = &codes[first + 3 * triple..first + 3 * triple + 3];
            let value = 9 * w[0] + 3 * w[1] + w[2];
            dst[at.magnitudes] |= value.unsigned_abs() << (4 - 4 * triple);
            dst[byte] |= u8::from(value < 0) << bit;
        }
        Ok::<(), Never>(())
    });
    let Ok(()) = try_for_each_quad(layout, |offset, row, col| {
        let first = row * layout.cols() + col;
        dst[offset] = quad_byte(&codes[first..first + 4]);
        Ok::<(), Never>(())
    });
}

pub(super) fn unpack(layout: &Layout, bytes: &[u8], codes: &mut [i8]) -> Result<(), FormatError> {
    try_for_each_two_triples(layout, |at| {
        let first = at.row * layout.cols() + at.col;
        for (triple, (byte, bit)) in at.signs.into_iter().enumerate() {
            let magnitude = bytes[at.magnitudes] >> (4 - 4 * triple) & 15;
            if magnitude > 13 {
                let what = format!("triple magnitude {magnitude}");
                return Err(super::invalid(WeightFormat::Tl2, at.magnitudes, what));
            }
            let negative = bytes[byte] >> bit & 1 == 1;
            let value = if negative { -(magnitude as i8) } else { magnitude as i8 };
            codes[first + 3 * triple..first + 3 * triple + 3].copy_from_slice(&triple_codes(value));
        }
        Ok(())
    })?;
    try_for_each_quad(layout, |offset, row, col| {
        let quad = quad_codes(bytes[offset])
            .map_err(|index| super::invalid(WeightFormat::Tl2, offset, format!("pair index {index}")))?;
        let first = row * layout.cols() + col;
        codes[first..first + 4].copy_from_slice(&quad);
        Ok(())
    })
}

/// Sign bits that stand over magnitude 0: a packer writes none. 0 for other formats. `bytes`: the whole tensor.
pub(super) fn signs_of_zero(layout: &Layout, bytes: &[u8]) -> usize {
    let mut count = 0;
    if layout.format() == WeightFormat::Tl2 {
        let Ok(()) = try_for_each_two_triples(layout, |at| {
            for (triple, (byte, bit)) in at.signs.into_iter().enumerate() {
                let zero = bytes[at.magnitudes] >> (4 - 4 * triple) & 15 == 0;
                count += usize::from(zero && bytes[byte] >> bit & 1 == 1);
            }
            Ok::<(), std::convert::Infallible>(())
        });
    }
    count
}

/// The balanced ternary digits of `value` in -13..=13, most significant first.
pub(super) fn triple_codes(value: i8) -> [i8; 3] {
    let digits = value + 13;
    [digits / 9 - 1, digits / 3 % 3 - 1, digits % 3 - 1]
}

/// The look-up tables of TL2's triples for one activation row: per triple of int8 codes, 16 int16 entries,
/// entry i being the sum of the codes weighted with the balanced ternary digits of i (0..=13; 14, 15 are 0).
/// A table is 32 bytes: the 16 low bytes first, then the 16 high ones, as bitnet.cpp stores them.
///
/// `q`: `[K3]`, the columns held as triples; the result has `32 / 3 * K3` bytes.
pub fn lut3(q: &[i8]) -> Result<Vec<u8>, FormatError> {
    let (triples, rest) = q.as_chunks::<3>();
    super::check_length("activation codes of whole triples", q.len() - rest.len(), q.len())?;
    Ok(triples
        .iter()
        .flat_map(|q| {
            low_then_high(std::array::from_fn(|i| {
                let w = if i > 13 { [0; 3] } else { triple_codes(i as i8) };
                w.iter().zip(q).map(|(&w, &q)| i16::from(w) * i16::from(q)).sum()
            }))
        })
        .collect())
}

/// The look-up tables of TL2's pairs: entries as in [`super::tl1::lut`] with 9..=15 zero, low bytes first.
///
/// `q`: `[K2]`, the columns held as pairs; the result has `16 * K2` bytes.
pub fn lut2(q: &[i8]) -> Result<Vec<u8>, FormatError> {
    Ok(super::tl1::pair_tables(q)?.into_iter().flat_map(low_then_high).collect())
}

fn low_then_high(table: [i16; 16]) -> impl Iterator<Item = u8> {
    table.map(|entry| entry as u8).into_iter().chain(table.map(|entry| entry.to_le_bytes()[1]))
}
