//! What NEON brings to the loops of a whole model (`backends/vector.rs`) that the compiler does not find by itself: conversions
//! of halves. Every AArch64 CPU has them, and the standard library offers them with a type that is not stable yet.

use std::arch::aarch64::{float32x4_t, uint16x8_t, vld1q_f32, vld1q_u16, vst1q_f32, vst1q_u16};
use std::arch::asm;

use half::f16;

use super::super::detect::Neon;
use super::super::vector::Vectors;

impl Vectors for Neon {
    #[inline(always)]
    fn widen(values: &[f16; 8]) -> [f32; 8] {
        let mut wide = [0.0; 8];
        // SAFETY: 16 bytes are read and 32 written, at places of those sizes; registers only in between.
        unsafe {
            let halves: uint16x8_t = vld1q_u16(values.as_ptr().cast());
            let (low, high): (float32x4_t, float32x4_t);
            asm!(
                "fcvtl {low:v}.4s, {halves:v}.4h",
                "fcvtl2 {high:v}.4s, {halves:v}.8h",
                low = out(vreg) low,
                high = lateout(vreg) high,
                halves = in(vreg) halves,
                options(pure, nomem, nostack),
            );
            vst1q_f32(wide.as_mut_ptr(), low);
            vst1q_f32(wide.as_mut_ptr().add(4), high);
        }
        wide
    }

    #[inline(always)]
    fn narrow(values: &[f32; 8]) -> [f16; 8] {
        let mut narrow = [f16::ZERO; 8];
        // SAFETY: as above, the other way round.
        unsafe {
            let (low, high) = (vld1q_f32(values.as_ptr()), vld1q_f32(values.as_ptr().add(4)));
            let halves: uint16x8_t;
            asm!(
                "fcvtn {halves:v}.4h, {low:v}.4s",
                "fcvtn2 {halves:v}.8h, {high:v}.4s",
                halves = out(vreg) halves,
                low = in(vreg) low,
                high = in(vreg) high,
                options(pure, nomem, nostack),
            );
            vst1q_u16(narrow.as_mut_ptr().cast(), halves);
        }
        narrow
    }
}
