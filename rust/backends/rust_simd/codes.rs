//! Codes as they are packed (`docs/FORMATS.md` 2, 5 and 6): what a nibble of TL1 and TL2 stands for, where the sections of TL2
//! begin, and which bytes no packer writes. One text for every instruction set, which brings its own loop over the bytes.

use std::ops::Range;

use crate::bitnet::formats::{FormatError, Layout, Tile, WeightFormat, Weights};

/// The weights of a pair index, and of a triple magnitude; entries that no packer uses are 0.
pub(super) const PAIR_DIGITS: [[u8; 16]; 2] = digits([3, 1], 4, 9, 0);
pub(super) const TRIPLE_DIGITS: [[u8; 16]; 3] = digits([9, 3, 1], 0, 14, 0);

/// Bytes that are searched together: damage is looked for in those alone where it is.
const CHECK_BYTES: usize = 4096;

/// The `N` digits, plus `plus`, of each of the `used` first nibbles: entry `zero` stands for zeros alone.
pub(super) const fn digits<const N: usize>(
    place: [i32; N],
    zero: i32,
    used: usize,
    plus: i32,
) -> [[u8; 16]; N] {
    let mut all = [[0; 16]; N];
    let mut entry = 0;
    while entry < used {
        let mut digit = 0;
        while digit < N {
            // Adding 13 = 111 (base 3) turns balanced digits into plain ones.
            all[digit][entry] = ((entry as i32 - zero + 13) / place[digit] % 3 - 1 + plus) as u8;
            digit += 1;
        }
        entry += 1;
    }
    all
}

/// The tile of a layout of TL1 or TL2, which has one.
pub(super) fn tile_of(layout: &Layout) -> Tile {
    layout.tile().expect("TL1 and TL2 layouts have tiles")
}

/// The three sections of the codes of TL2: A, S and B of the essay in `formats::tl2`.
pub(super) struct Sections<'a> {
    pub magnitudes: &'a [u8],
    pub signs: &'a [u8],
    pub indices: &'a [u8],
}

impl<'a> Sections<'a> {
    /// Those of some of the rows, whole tiles.
    pub fn of(weights: &Weights<'a>, rows: Range<usize>) -> Self {
        let layout = weights.layout();
        let (three_cols, all) = (layout.three_cols(), layout.rows());
        let two_cols = layout.cols() - three_cols;
        let signs = three_cols * all / 6;
        let pairs = signs + three_cols * all / 24;
        let section = |offset: usize, cols: usize, weights_per_byte: usize| {
            let bytes = |rows: usize| offset + cols * rows / weights_per_byte;
            &weights.bytes()[bytes(rows.start)..bytes(rows.end)]
        };
        Self {
            magnitudes: section(0, three_cols, 6),
            signs: section(signs, three_cols, 24),
            indices: section(pairs, two_cols, 4),
        }
    }
}

/// Not 0 where one of the four codes of a byte of I2_S is 3.
pub(super) fn code_3(byte: u8) -> u8 {
    byte & byte >> 1 & 0b0101_0101
}

/// The bytes of I2_S, unless some code is 3; `any_3` tells that of many bytes.
pub(super) fn check_i2s<'a>(
    weights: &Weights<'a>,
    any_3: impl Fn(&[u8]) -> bool,
) -> Result<&'a [u8], FormatError> {
    let bytes = &weights.bytes()[..weights.layout().code_bytes()];
    if any_3(bytes) {
        let offset = bytes.iter().position(|&byte| code_3(byte) != 0).unwrap_or_default();
        let what = format!("{:#04x} with code 3", bytes[offset]);
        return Err(FormatError::InvalidCode { format: WeightFormat::I2S, offset, what });
    }
    Ok(bytes)
}

/// Refuses nibbles of TL1 and TL2 that stand for nothing; `any_above` tells whether some nibble of bytes is above a limit. Gives the tile.
pub(super) fn check_tl(
    weights: &Weights<'_>,
    any_above: impl Fn(&[u8], u8) -> bool,
) -> Result<Tile, FormatError> {
    let layout = weights.layout();
    let format = layout.format();
    let check = |bytes: &[u8], offset: usize, largest: u8, what: &str| {
        for (chunk, bytes) in bytes.chunks(CHECK_BYTES).enumerate() {
            if !any_above(bytes, largest) {
                continue;
            }
            let above = |byte: u8| [byte >> 4, byte & 15].into_iter().find(|&nibble| nibble > largest);
            let found = bytes.iter().enumerate().find_map(|(i, &byte)| Some((i, above(byte)?)));
            if let Some((i, nibble)) = found {
                let offset = offset + chunk * CHECK_BYTES + i;
                return Err(FormatError::InvalidCode { format, offset, what: format!("{what} {nibble}") });
            }
        }
        Ok(())
    };
    if format == WeightFormat::Tl1 {
        check(&weights.bytes()[..layout.code_bytes()], 0, 8, "pair index")?;
    } else {
        let Sections { magnitudes, indices, .. } = Sections::of(weights, 0..layout.rows());
        check(magnitudes, 0, 13, "triple magnitude")?;
        check(indices, layout.code_bytes() - indices.len(), 8, "pair index")?;
    }
    Ok(tile_of(layout))
}
