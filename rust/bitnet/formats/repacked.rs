//! Orders that a backend makes of I2_S for itself when it prepares weights (`docs/FORMATS.md`, Repacked orders). They hold
//! the same codes in the order in which one kernel reads them, have neither scale nor tail, and never travel: no file has
//! them, and no other backend reads them.
//!
//! ```text
//! matrix = tiles of 64 rows > steps of 4 Q columns > 4 lines of 16 rows > 64 bytes
//!
//! byte 4 i + j of line v in step s:   row 16 v + i of the tile, columns 4 Q s + 4 g + j for g = 0 .. Q - 1
//!   r64   Q = 4   bits 7:6, 5:4, 3:2, 1:0 hold g = 0, 1, 2, 3       code + 1 = 0, 1, 2; 3 never occurs
//!   t5    Q = 5   t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4, t = code + 1    0 .. 242; 243 .. 255 never occur
//! ```
//!
//! Rows that the last tile has too many repeat the last row; columns that the last step has too many hold code 0. Neither
//! means anything. What is written here is the definition; a backend packs faster, and must give the same bytes.

use super::{FormatError, check_length};

/// Weight rows of a tile.
pub const TILE_ROWS: usize = 64;
/// Weight rows of a line.
pub const LINE_ROWS: usize = 16;
/// Bytes of a line: four for each row.
pub const LINE_BYTES: usize = 64;
/// Values of five trits: bytes below this are legal in [`Repacked::T5`].
pub const FIVE_TRITS: u8 = 243;

/// An order of ternary codes that is made when weights are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repacked {
    /// Two bits per weight, tiles of 64 rows.
    R64,
    /// Five trits per byte, 1.6 bits per weight, the same tiles.
    T5,
}

impl Repacked {
    /// Both.
    pub const ALL: [Self; 2] = [Self::R64, Self::T5];

    /// `r64`, `t5`: how the names of backends end.
    pub const fn name(self) -> &'static str {
        match self {
            Self::R64 => "r64",
            Self::T5 => "t5",
        }
    }

    /// Codes of a byte: each belongs to another four columns.
    pub const fn codes_per_byte(self) -> usize {
        match self {
            Self::R64 => 4,
            Self::T5 => 5,
        }
    }

    /// Columns of a step.
    pub const fn step_cols(self) -> usize {
        4 * self.codes_per_byte()
    }

    /// Bytes of a matrix `[rows, cols]`, padding included.
    pub const fn packed_bytes(self, rows: usize, cols: usize) -> usize {
        let lines = rows.div_ceil(TILE_ROWS) * cols.div_ceil(self.step_cols()) * (TILE_ROWS / LINE_ROWS);
        lines * LINE_BYTES
    }

    /// Packs `codes` `[rows, cols]` of -1, 0, +1 into `dst`, all of [`Self::packed_bytes`].
    ///
    /// # Errors
    /// Before anything is written: wrong lengths, [`FormatError::NotTernary`].
    pub fn pack(self, (rows, cols): (usize, usize), codes: &[i8], dst: &mut [u8]) -> Result<(), FormatError> {
        check_length("codes", rows * cols, codes.len())?;
        check_length("repacked weights", self.packed_bytes(rows, cols), dst.len())?;
        if let Some(index) = codes.iter().position(|code| !(-1..=1).contains(code)) {
            return Err(FormatError::NotTernary { index, value: codes[index] });
        }
        for (offset, byte) in dst.iter_mut().enumerate() {
            let (row, col) = self.place(offset, cols);
            let stored = |g: usize| match codes[row.min(rows - 1) * cols..][..cols].get(col + 4 * g) {
                Some(code) => (code + 1) as u8,
                None => 1,
            };
            *byte = (0..self.codes_per_byte()).rev().fold(0, |byte, g| match self {
                Self::R64 => byte | stored(g) << (6 - 2 * g),
                Self::T5 => 3 * byte + stored(g),
            });
        }
        Ok(())
    }

    /// Unpacks a matrix `[rows, cols]` into `codes`.
    ///
    /// # Errors
    /// Wrong lengths; [`FormatError::InvalidByte`], in padding too (then the contents of `codes` are unspecified).
    pub fn unpack(
        self,
        (rows, cols): (usize, usize),
        bytes: &[u8],
        codes: &mut [i8],
    ) -> Result<(), FormatError> {
        check_length("codes", rows * cols, codes.len())?;
        check_length("repacked weights", self.packed_bytes(rows, cols), bytes.len())?;
        for (offset, &byte) in bytes.iter().enumerate() {
            let stored =
                self.codes_of(byte).ok_or(FormatError::InvalidByte { order: self.name(), offset, byte })?;
            let (row, col) = self.place(offset, cols);
            for (g, stored) in stored.into_iter().take(self.codes_per_byte()).enumerate() {
                if row < rows && col + 4 * g < cols {
                    codes[row * cols + col + 4 * g] = stored - 1;
                }
            }
        }
        Ok(())
    }

    /// Row and first column of the byte at `offset`; its other columns are 4, 8, ... further on.
    fn place(self, offset: usize, cols: usize) -> (usize, usize) {
        let (line, byte) = (offset / LINE_BYTES, offset % LINE_BYTES);
        let (step, v) = (line / (TILE_ROWS / LINE_ROWS), line % (TILE_ROWS / LINE_ROWS));
        let steps = cols.div_ceil(self.step_cols());
        let row = step / steps * TILE_ROWS + v * LINE_ROWS + byte / 4;
        (row, step % steps * self.step_cols() + byte % 4)
    }

    /// code + 1 of each code of a byte, 0 in the fifth place of [`Self::R64`]; `None` where no packer produces it.
    fn codes_of(self, byte: u8) -> Option<[i8; 5]> {
        let codes = match self {
            Self::R64 => [byte >> 6, byte >> 4 & 3, byte >> 2 & 3, byte & 3, 0],
            Self::T5 => [1, 3, 9, 27, 81].map(|unit| byte / unit % 3),
        };
        let legal = match self {
            Self::R64 => codes.iter().all(|&code| code < 3),
            Self::T5 => byte < FIVE_TRITS,
        };
        legal.then_some(codes.map(u8::cast_signed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    fn packed(order: Repacked, shape: (usize, usize), codes: &[i8]) -> Vec<u8> {
        let mut bytes = vec![0xff; order.packed_bytes(shape.0, shape.1)];
        order.pack(shape, codes, &mut bytes).expect("codes are ternary");
        bytes
    }

    fn unpacked(order: Repacked, shape: (usize, usize), bytes: &[u8]) -> Result<Vec<i8>, FormatError> {
        let mut codes = vec![7; shape.0 * shape.1];
        order.unpack(shape, bytes, &mut codes).map(|()| codes)
    }

    proptest! {
        /// Every shape, whole tiles and steps or not, comes back as it was.
        #[test]
        fn codes_come_back(rows in 1_usize..140, cols in 1_usize..90, seed in any::<u64>()) {
            let mut rng = Rng::new(seed);
            let codes: Vec<i8> = (0..rows * cols).map(|_| rng.ternary()).collect();
            for order in Repacked::ALL {
                let bytes = packed(order, (rows, cols), &codes);
                prop_assert_eq!(unpacked(order, (rows, cols), &bytes), Ok(codes.clone()));
            }
        }
    }

    /// One code at a time: the byte and its value, written out.
    #[test]
    fn each_code_stands_where_the_diagram_says() {
        // Row 64 + 16 + 3 is row 3 of line 1 of tile 1; column 5 is column 1 of quad 1 of step 0.
        let (shape, row, col) = ((65 + 63, 40), 64 + 16 + 3, 5);
        for (order, steps, zero, plus) in [(Repacked::R64, 3, 0x55, 0x65), (Repacked::T5, 2, 121, 121 + 3)] {
            let mut codes = vec![0; shape.0 * shape.1];
            codes[row * shape.1 + col] = 1;
            let at = ((steps * 4) + 1) * 64 + 4 * 3 + 1;
            let bytes = packed(order, shape, &codes);
            for (offset, &byte) in bytes.iter().enumerate() {
                assert_eq!(byte, if offset == at { plus } else { zero }, "{order:?} byte {offset}");
            }
        }
    }

    /// Of all bytes exactly those of 4 or 5 ternary codes are read, each as another one.
    #[test]
    fn bytes_that_no_packer_produces_are_refused() {
        for (order, legal) in [(Repacked::R64, 81), (Repacked::T5, 243)] {
            let shape = (TILE_ROWS, order.step_cols());
            let zeros = packed(order, shape, &vec![0; shape.0 * shape.1]);
            let mut seen = std::collections::HashSet::new();
            for byte in 0..=255 {
                let mut bytes = zeros.clone();
                bytes[77] = byte;
                match unpacked(order, shape, &bytes) {
                    Ok(codes) => {
                        assert_eq!(packed(order, shape, &codes), bytes);
                        seen.insert(codes);
                    }
                    Err(error) => {
                        assert_eq!(error, FormatError::InvalidByte { order: order.name(), offset: 77, byte });
                    }
                }
            }
            assert_eq!(seen.len(), legal);
            assert_eq!(order == Repacked::T5, unpacked(order, shape, &vec![242; zeros.len()]).is_ok());
        }
    }

    #[test]
    fn padding_repeats_the_last_row_and_is_code_zero_behind_it() {
        let codes: Vec<i8> = [[-1; 128], [1; 128]].concat();
        let bytes = packed(Repacked::T5, (2, 128), &codes);
        assert_eq!(bytes.len(), 7 * 4 * 64);
        // Columns 120..128 of the last step are two quads, the other three are code 0: 2 + 3 * 2 + 9 + 27 + 81.
        assert!(bytes[..4].iter().all(|&byte| byte == 0));
        assert_eq!(bytes[6 * 256..][..8], [117, 117, 117, 117, 125, 125, 125, 125]);
        assert!(bytes[6 * 256 + 4..].iter().all(|&byte| byte == 125));
    }

    #[test]
    fn wrong_lengths_and_codes_are_named_before_anything_is_written() {
        let mut bytes = vec![0xa5; Repacked::T5.packed_bytes(1, 20)];
        let refused = |error, codes: &[i8], bytes: &mut [u8]| {
            assert_eq!(Repacked::T5.pack((1, 20), codes, bytes), Err(error));
            assert!(bytes.iter().all(|&byte| byte == 0xa5));
        };
        refused(FormatError::Length { what: "codes", expected: 20, actual: 19 }, &[0; 19], &mut bytes);
        refused(
            FormatError::NotTernary { index: 19, value: 2 },
            &[[0; 19].as_slice(), &[2]].concat(),
            &mut bytes,
        );
        let short = FormatError::Length { what: "repacked weights", expected: 256, actual: 255 };
        refused(short.clone(), &[0; 20], &mut bytes[..255]);
        assert_eq!(unpacked(Repacked::T5, (1, 20), &bytes[..255]), Err(short));
    }
}
