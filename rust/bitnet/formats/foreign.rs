//! Layouts that are called I2_S somewhere but order their codes differently. They can be read here, under names
//! of their own, so that such a file can be recognised and explained; nothing here writes or computes them.
//!
//! All hold four 2-bit codes per byte (0, 1, 2 = -1, 0, +1), M * K / 4 bytes, then the float32 scale and the
//! 28 bytes of tail: the same size as I2_S, and the same bytes wherever all codes are equal.
//!
//! ```text
//!                          bits 7:6      bits 5:4      bits 3:2      bits 1:0
//! I2_S (for comparison)    b             32+b          64+b          96+b        block of 128 columns, byte b of 32
//! i2_s-arm64               b             16+b          32+b          48+b        block of  64 columns, byte b of 16
//! i2_s-four-row            row 4q        row 4q+1      row 4q+2      row 4q+3    column c is byte q * K + c
//! i2_s-consecutive-lsb     4b+3          4b+2          4b+1          4b          byte b of the flattened matrix
//! ```
//!
//! Origins: `i2_s-arm64` is what bitnet.cpp's NEON kernels of 2026 expect; `i2_s-four-row` is its x86 packing when
//! built without `ACT_PARALLEL`; `i2_s-consecutive-lsb` is the order in which a public Rust port read I2_S files.

use super::{FormatError, TAIL_BYTES, WeightFormat};

/// A layout named I2_S elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForeignLayout {
    /// Blocks of 64 columns in 16 bytes.
    I2sArm64,
    /// One byte per column of four neighbouring rows.
    I2sFourRow,
    /// Four neighbouring weights per byte, the first in the lowest bits.
    I2sConsecutiveLsb,
}

impl ForeignLayout {
    /// Every foreign layout.
    pub const ALL: [Self; 3] = [Self::I2sArm64, Self::I2sFourRow, Self::I2sConsecutiveLsb];

    /// Its name: `i2_s-arm64`, `i2_s-four-row`, `i2_s-consecutive-lsb`.
    pub fn name(self) -> &'static str {
        match self {
            Self::I2sArm64 => "i2_s-arm64",
            Self::I2sFourRow => "i2_s-four-row",
            Self::I2sConsecutiveLsb => "i2_s-consecutive-lsb",
        }
    }

    /// Bytes of the whole tensor, codes, scale and tail, or why it cannot hold `rows` x `cols`.
    pub fn packed_bytes(self, rows: usize, cols: usize) -> Result<usize, FormatError> {
        let unsupported = |why: String| {
            let why = format!("as {}: {why}", self.name());
            Err(FormatError::Unsupported { format: WeightFormat::I2S, rows, cols, why })
        };
        let Some(weights) = rows.checked_mul(cols).filter(|&n| n > 0 && n <= usize::MAX / 8) else {
            return unsupported(
                "both sides must be at least 1, and their product must not overflow".to_string(),
            );
        };
        match self {
            Self::I2sArm64 if !cols.is_multiple_of(64) => {
                unsupported(format!("K % 64 = {}, must be 0", cols % 64))
            }
            Self::I2sFourRow if !rows.is_multiple_of(4) => {
                unsupported(format!("M % 4 = {}, must be 0", rows % 4))
            }
            Self::I2sConsecutiveLsb if !cols.is_multiple_of(4) => {
                unsupported(format!("K % 4 = {}, must be 0", cols % 4))
            }
            _ => Ok(weights / 4 + TAIL_BYTES),
        }
    }

    /// Index in the flattened matrix of the four weights of byte `offset`, bits 7:6 first.
    fn weights_of_byte(self, cols: usize, offset: usize) -> [usize; 4] {
        let (first, step) = match self {
            Self::I2sArm64 => (offset / 16 * 64 + offset % 16, 16),
            Self::I2sFourRow => (offset / cols * 4 * cols + offset % cols, cols),
            Self::I2sConsecutiveLsb => return std::array::from_fn(|group| 4 * offset + 3 - group),
        };
        std::array::from_fn(|group| first + group * step)
    }

    /// Unpacks `bytes`, a whole tensor of [`Self::packed_bytes`], into `codes` `[rows, cols]` of -1, 0, +1.
    ///
    /// Errors: a shape it cannot hold, wrong lengths, [`FormatError::InvalidCode`] (then `codes` is unspecified).
    pub fn unpack(self, bytes: &[u8], rows: usize, cols: usize, codes: &mut [i8]) -> Result<(), FormatError> {
        super::check_length("packed weights", self.packed_bytes(rows, cols)?, bytes.len())?;
        super::check_length("codes", rows * cols, codes.len())?;
        for (offset, &byte) in bytes[..bytes.len() - TAIL_BYTES].iter().enumerate() {
            for (group, index) in self.weights_of_byte(cols, offset).into_iter().enumerate() {
                let code = byte >> (6 - 2 * group) & 3;
                if code == 3 {
                    return Err(super::invalid(
                        WeightFormat::I2S,
                        offset,
                        format!("{byte:#04x} with code 3"),
                    ));
                }
                codes[index] = code as i8 - 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(layout: ForeignLayout, bytes: &[u8], rows: usize, cols: usize) -> Vec<i8> {
        let mut codes = vec![9; rows * cols];
        layout.unpack(bytes, rows, cols, &mut codes).unwrap();
        codes
    }

    /// One +1 in a matrix of -1, at every byte and bit pair in turn, stands where the diagram says.
    #[test]
    fn each_code_stands_where_the_diagram_says() {
        let (rows, cols) = (8, 128);
        for offset in 0..rows * cols / 4 {
            for group in 0..4 {
                let mut bytes = vec![0; rows * cols / 4 + TAIL_BYTES];
                bytes[offset] = 2 << (6 - 2 * group);
                let found = |layout| {
                    let codes = unpack(layout, &bytes, rows, cols);
                    assert_eq!(codes.iter().filter(|&&code| code == -1).count(), codes.len() - 1);
                    let at = codes.iter().position(|&code| code == 1).unwrap();
                    (at / cols, at % cols)
                };
                let (block, byte) = (offset / 16, offset % 16);
                assert_eq!(found(ForeignLayout::I2sArm64), (block / 2, block % 2 * 64 + group * 16 + byte));
                assert_eq!(found(ForeignLayout::I2sFourRow), (offset / 128 * 4 + group, offset % 128));
                assert_eq!(
                    found(ForeignLayout::I2sConsecutiveLsb),
                    (offset / 32, offset % 32 * 4 + 3 - group)
                );
            }
        }
    }

    #[test]
    fn shapes_lengths_and_codes_are_checked() {
        let bytes =
            |layout: ForeignLayout, rows, cols| layout.packed_bytes(rows, cols).map_err(|e| e.to_string());
        assert_eq!(
            bytes(ForeignLayout::I2sArm64, 4, 96),
            Err("i2_s cannot hold 4x96: as i2_s-arm64: K % 64 = 32, must be 0".to_string())
        );
        assert_eq!(bytes(ForeignLayout::I2sArm64, 3, 64), Ok(3 * 16 + 32));
        assert!(
            bytes(ForeignLayout::I2sFourRow, 6, 64).is_err_and(|why| why.ends_with("M % 4 = 2, must be 0"))
        );
        assert!(bytes(ForeignLayout::I2sConsecutiveLsb, 4, 6).is_err());
        for layout in ForeignLayout::ALL {
            assert!(layout.packed_bytes(0, 64).is_err() && layout.packed_bytes(usize::MAX, 64).is_err());
            let mut codes = vec![0; 256];
            assert!(matches!(layout.unpack(&[0; 95], 4, 64, &mut codes), Err(FormatError::Length { .. })));
            assert!(matches!(
                layout.unpack(&[0; 96], 4, 64, &mut codes[1..]),
                Err(FormatError::Length { .. })
            ));
            let mut damaged = [0; 96];
            damaged[17] = 0b1100;
            let error = layout.unpack(&damaged, 4, 64, &mut codes).unwrap_err();
            assert!(matches!(error, FormatError::InvalidCode { offset: 17, .. }), "{error}");
        }
    }
}
