//! Weights to codes and packed bytes, whatever the instruction set: the rules of `docs/NUMERICS.md` in two steps, what needs
//! the whole matrix and what is then each weight's own, so that codes are made and packed while they are in L1.

use super::super::{BackendError, WeightRule};
use super::{Elementwise, non_finite};
use crate::bitnet::formats::{Layout, check_scale};

/// Columns of a block of I2_S, and its bytes.
pub(super) const BLOCK: usize = 128;
type Packed = [u8; 32];

/// Blocks of I2_S whose codes are held at a time: 4 KB.
const CHUNK_BLOCKS: usize = 32;

/// Weights whose magnitudes are looked at and added together.
const MAGNITUDES: usize = 32;

/// The loops over weights, on one instruction set. The token that unlocks it implements them.
pub(super) trait TernaryLoops: Elementwise {
    /// The bits of the largest magnitude, NaN and infinity at the top, and the sum of all magnitudes in index order.
    fn magnitudes(self, x: &[f32]) -> (u32, f64);

    /// `codes` = clamp(round_half_even(w * multiplier), -1, 1).
    fn round(self, src: &[f32], multiplier: f32, codes: &mut [i8]);

    /// `codes` = 0 where f64(|w|) < 1e-6, else the sign.
    fn signs(self, src: &[f32], codes: &mut [i8]);
}

// Loops that the compiler turns into vectors by itself: inlined always, so that an instruction set compiles them with what it
// has.

/// The bits of the largest magnitude: without their sign they order like the magnitudes, NaN and infinity at the top.
#[inline(always)]
pub(super) fn largest_magnitude_bits(x: &[f32]) -> u32 {
    x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff))
}

/// See [`TernaryLoops::magnitudes`]: each addition waits for the one before, and the rest is done meanwhile.
#[inline(always)]
pub(super) fn magnitudes(x: &[f32]) -> (u32, f64) {
    let (mut largest, mut sum) = (0, 0.0);
    for x in x.chunks(MAGNITUDES) {
        largest = largest.max(largest_magnitude_bits(x));
        for value in x {
            sum += f64::from(value.abs());
        }
    }
    (largest, sum)
}

/// See [`TernaryLoops::signs`]. The float32 next to 1e-6 lies just below it, and the next one above, so "not below 1e-6 in
/// float64" is "above that float32".
#[inline(always)]
pub(super) fn signs(src: &[f32], codes: &mut [i8]) {
    for (code, &w) in codes.iter_mut().zip(src) {
        *code = i8::from(w > 1e-6) - i8::from(w < -1e-6);
    }
}

/// A weight rule that has seen the whole matrix: what each weight becomes no longer depends on the others.
#[derive(Clone, Copy)]
pub(super) enum Ternary {
    /// `absmean`, by 1 / mean |w|.
    Round {
        /// 1 / max(mean |w|, 1e-5).
        multiplier: f32,
    },
    /// `maxabs`: the signs.
    Signs {
        /// max |w|.
        max_abs: f32,
    },
}

impl Ternary {
    /// Looks at all of `src`; where there is a NaN or an infinity, the index of the first one.
    fn of(loops: impl TernaryLoops, rule: WeightRule, src: &[f32]) -> Result<Self, usize> {
        match rule {
            WeightRule::AbsMean => {
                let (largest, sum) = loops.magnitudes(src);
                if !f32::from_bits(largest).is_finite() {
                    return Err(first_non_finite(src));
                }
                let mean = (sum / src.len() as f64) as f32;
                Ok(Self::Round { multiplier: 1.0 / mean.max(1e-5) })
            }
            WeightRule::MaxAbs => Ok(Self::Signs { max_abs: loops.max_abs(src)? }),
        }
    }

    /// The codes of some of the weights.
    pub fn codes(self, loops: impl TernaryLoops, src: &[f32], codes: &mut [i8]) {
        match self {
            Self::Round { multiplier } => loops.round(src, multiplier, codes),
            Self::Signs { .. } => loops.signs(src, codes),
        }
    }

    /// The scale, once it is known whether any code is not 0.
    fn scale(self, nonzero: bool) -> f32 {
        match self {
            Self::Round { multiplier } if nonzero => 1.0 / multiplier,
            Self::Round { .. } => 0.0,
            Self::Signs { max_abs } => max_abs,
        }
    }
}

/// The index of the first NaN or infinity, which there is.
pub(super) fn first_non_finite(x: &[f32]) -> usize {
    x.iter().position(|value| !value.is_finite()).unwrap_or_default()
}

/// `src` to its packed form `dst`, lengths checked; gives the scale. `pack_codes` writes the code bytes, and tells whether any
/// code is not 0.
pub(super) fn pack(
    loops: impl TernaryLoops,
    (layout, rule): (&Layout, WeightRule),
    src: &[f32],
    dst: &mut [u8],
    pack_codes: impl FnOnce(Ternary, &mut [u8]) -> Result<bool, BackendError>,
) -> Result<f32, BackendError> {
    let ternary = Ternary::of(loops, rule, src).map_err(|index| non_finite(src, index))?;
    check_scale(layout.format(), ternary.scale(true))?;
    let scale_at = layout.scale_offset() - layout.code_bytes();
    let (bytes, tail) = dst.split_at_mut(layout.code_bytes());
    let scale = ternary.scale(pack_codes(ternary, bytes)?);
    tail.fill(0);
    tail[scale_at..scale_at + 4].copy_from_slice(&scale.to_le_bytes());
    Ok(scale)
}

/// The codes that whole blocks of `src` become, packed into `bytes` of I2_S by `pack_blocks`. Whether any of them is not 0.
pub(super) fn pack_i2s(
    loops: impl TernaryLoops,
    ternary: Ternary,
    src: &[f32],
    bytes: &mut [u8],
    pack_blocks: impl Fn(&[[i8; BLOCK]], &mut [Packed]),
) -> bool {
    let mut codes = [0; CHUNK_BLOCKS * BLOCK];
    let mut nonzero = false;
    let packed = bytes.as_chunks_mut().0;
    for (src, packed) in src.chunks(codes.len()).zip(packed.chunks_mut(CHUNK_BLOCKS)) {
        let codes = &mut codes[..src.len()];
        ternary.codes(loops, src, codes);
        nonzero = nonzero || codes.iter().any(|&code| code != 0);
        pack_blocks(codes.as_chunks().0, packed);
    }
    nonzero
}
