//! What AArch64 brings to `backends/ceilings.rs`: products of int8, by the instructions of its kernels, and FMA on four floats.
//! The portable loops read as well as it can.

use std::arch::aarch64::{int8x16_t, vdupq_n_f32, vdupq_n_s8, vfmaq_f32};
use std::arch::asm;
use std::hint::black_box;

use super::super::ceilings::Arithmetic;
use super::super::detect::{Neon, NeonDotprod};
use super::i2s_neon::Dot;

/// Sums that do not wait for one another; with the operands they fit the thirty-two registers.
const SUMS: usize = 16;

/// Arithmetic of every instruction set here.
pub(in crate::backends) fn arithmetic() -> Vec<Arithmetic> {
    let mut found = vec![
        Arithmetic { name: "int8_dot_neon", run: Box::new(|rounds| int8_dot(Neon::implied(), rounds)) },
        Arithmetic { name: "f32_fma_neon", run: Box::new(f32_fma) },
    ];
    if let Ok(token) = NeonDotprod::detect() {
        found.push(Arithmetic {
            name: "int8_dot_neondotprod",
            run: Box::new(move |rounds| int8_dot(token, rounds)),
        });
    }
    found
}

/// What the sums bear does not matter: they wrap.
fn int8_dot<D: Dot>(_: D, rounds: u64) -> u64 {
    // SAFETY: NEON belongs to every AArch64 CPU, and the token proves the rest.
    unsafe {
        let (mut a, b) = (vdupq_n_s8(black_box(2)), vdupq_n_s8(black_box(-3)));
        let mut sums = [D::zero(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                a = unknown(a);
                *sum = D::add(*sum, a, b);
            }
        }
        black_box(sums);
    }
    rounds * (2 * 16 * SUMS) as u64
}

fn f32_fma(rounds: u64) -> u64 {
    // SAFETY: NEON belongs to every AArch64 CPU.
    unsafe {
        let (a, b) = (vdupq_n_f32(black_box(0.5)), vdupq_n_f32(black_box(0.25)));
        let mut sums = [vdupq_n_f32(0.0); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vfmaq_f32(*sum, a, b);
            }
        }
        black_box(sums);
    }
    rounds * (2 * 4 * SUMS) as u64
}

/// The same vector, of which the compiler knows nothing: a product with it is another one each time.
#[inline(always)]
fn unknown(mut vector: int8x16_t) -> int8x16_t {
    // SAFETY: no instruction; the register comes back as it was.
    unsafe { asm!("/* {v:q} */", v = inout(vreg) vector, options(nomem, nostack, preserves_flags)) };
    vector
}
