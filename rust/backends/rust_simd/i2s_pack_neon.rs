//! I2_S weights to and from floats with NEON (`docs/FORMATS.md` 2): a matrix is taken in chunks whose codes stay in L1.

use std::arch::aarch64::*;

use super::super::detect::Neon;
use super::i2s_neon::{self, codes_of};
use super::ternary::{self, BLOCK, Ternary};
use crate::bitnet::formats::{FormatError, Weights};

/// The codes that whole blocks of `src` become, packed into `bytes`. Whether any of them is not 0.
pub(super) fn pack(token: Neon, ternary: Ternary, src: &[f32], bytes: &mut [u8]) -> bool {
    ternary::pack_i2s(token, ternary, src, bytes, |codes, packed| {
        // SAFETY: the token proves that this CPU runs NEON.
        unsafe { pack_blocks(codes, packed) }
    })
}

/// `dst` `[rows, cols]` = code * scale. Nothing is written where a code is invalid.
pub(super) fn dequantize(_: Neon, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), FormatError> {
    let packed = i2s_neon::checked(weights)?;
    // SAFETY: the token proves that this CPU runs NEON.
    unsafe { dequantize_blocks(packed.as_chunks().0, weights.scale(), dst.as_chunks_mut().0) };
    Ok(())
}

/// Each insertion moves a group in above the ones behind it.
#[target_feature(enable = "neon")]
fn pack_blocks(codes: &[[i8; BLOCK]], packed: &mut [[u8; 32]]) {
    for (codes, packed) in codes.iter().zip(packed) {
        let vectors: &[[i8; 16]] = codes.as_chunks().0;
        for (half, packed) in packed.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let stored = |group: usize| {
                // SAFETY: sixteen codes are readable; no alignment is needed.
                let codes = unsafe { vld1q_s8(vectors[2 * group + half].as_ptr()) };
                vreinterpretq_u8_s8(vaddq_s8(codes, vdupq_n_s8(1)))
            };
            let bytes = vsliq_n_u8::<2>(stored(3), stored(2));
            let bytes = vsliq_n_u8::<6>(vsliq_n_u8::<4>(bytes, stored(1)), stored(0));
            // SAFETY: sixteen bytes are writable; no alignment is needed.
            unsafe { vst1q_u8(packed.as_mut_ptr(), bytes) };
        }
    }
}

/// Codes as they are stored, less one, times the scale.
#[target_feature(enable = "neon")]
fn dequantize_blocks(packed: &[[u8; 32]], scale: f32, dst: &mut [[f32; BLOCK]]) {
    for (packed, dst) in packed.iter().zip(dst) {
        for (half, packed) in packed.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: sixteen bytes are readable; no alignment is needed.
            let packed = unsafe { vld1q_u8(packed.as_ptr()) };
            for group in 0..4 {
                let codes = vsubq_s8(codes_of(packed, group), vdupq_n_s8(1));
                let dst = &mut dst.as_chunks_mut::<16>().0[2 * group + half];
                let (low, high) = (vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes));
                let fours = [
                    vmovl_s16(vget_low_s16(low)),
                    vmovl_high_s16(low),
                    vmovl_s16(vget_low_s16(high)),
                    vmovl_high_s16(high),
                ];
                for (dst, codes) in dst.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
                    // SAFETY: four floats are writable; no alignment beyond theirs is needed.
                    unsafe { vst1q_f32(dst.as_mut_ptr(), vmulq_n_f32(vcvtq_f32_s32(codes), scale)) };
                }
            }
        }
    }
}
