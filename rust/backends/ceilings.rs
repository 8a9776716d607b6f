//! Loops that do nothing but what a machine has a limit of: reading bytes, and multiplying and adding in registers. Who
//! times them knows the ceilings that no kernel on that instruction set passes.
//!
//! ```text
//! read       every byte of a slice once; along one stream, and along four far ones that are fetched ahead
//! int8 dot   products of int8 added up in int32 (or, where pairs are added in int16 first, in int16)
//! f32 FMA    products of f32 added up in f32
//! ```
//!
//! Arithmetic is that of registers: nothing is loaded, and there are more independent sums than an instruction waits for.
//! Here stand the portable loops, as the compiler makes them, and the list of all; loops of an instruction set stand in
//! `rust_simd`, unlocked by its token.

use std::hint::black_box;

/// Reads each byte of the slice once. Its length is a multiple of [`READ_BYTES`].
pub type Read = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What lengths that are read must be multiples of.
pub const READ_BYTES: usize = 512;

/// Arithmetic on registers.
pub struct Arithmetic {
    /// `int8_dot_avx2`, `f32_fma_avx2`: what is done, and the instruction set.
    pub name: &'static str,
    /// Does so many rounds; returns the operations that these are, 2 for a product that is added.
    pub run: Box<dyn Fn(u64) -> u64 + Send + Sync>,
}

/// The ways to read that the widest instruction set here has.
pub fn reads() -> Vec<Read> {
    let wide = simd_reads();
    if wide.is_empty() { vec![Box::new(read)] } else { wide }
}

/// Arithmetic of every instruction set that runs here, the portable loops first.
pub fn arithmetic() -> Vec<Arithmetic> {
    let mut found = vec![
        Arithmetic { name: "int8_dot_portable", run: Box::new(int8_dot) },
        Arithmetic { name: "f32_fma_portable", run: Box::new(f32_fma) },
    ];
    found.extend(simd_arithmetic());
    found
}

#[cfg(all(feature = "cpu", target_arch = "x86_64"))]
fn simd_reads() -> Vec<Read> {
    super::rust_simd::ceilings::reads()
}

#[cfg(all(feature = "cpu", target_arch = "x86_64"))]
fn simd_arithmetic() -> Vec<Arithmetic> {
    super::rust_simd::ceilings::arithmetic()
}

#[cfg(not(all(feature = "cpu", target_arch = "x86_64")))]
fn simd_reads() -> Vec<Read> {
    Vec::new()
}

#[cfg(all(feature = "cpu", target_arch = "aarch64"))]
fn simd_arithmetic() -> Vec<Arithmetic> {
    super::rust_simd::ceilings_neon::arithmetic()
}

#[cfg(not(all(feature = "cpu", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn simd_arithmetic() -> Vec<Arithmetic> {
    Vec::new()
}

/// Values that are worked on at a time: enough for any compiler to keep several vectors busy.
const VALUES: usize = 64;

fn read(bytes: &[u8]) {
    let mut sums = [0_u64; READ_BYTES / 8];
    for values in bytes.as_chunks::<8>().0.as_chunks::<{ READ_BYTES / 8 }>().0 {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum ^= u64::from_ne_bytes(*value);
        }
    }
    black_box(sums);
}

fn int8_dot(rounds: u64) -> u64 {
    let (a, b) = ([3_i8; VALUES], [5_i8; VALUES]);
    let mut sums = [0_i32; VALUES];
    for _ in 0..rounds {
        // Looked at anew: a sum of the same product could be had by one multiplication.
        let (a, b) = black_box((&a, &b));
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = sum.wrapping_add(i32::from(*a) * i32::from(*b));
        }
    }
    black_box(sums);
    rounds * 2 * VALUES as u64
}

fn f32_fma(rounds: u64) -> u64 {
    let (a, b) = ([0.5_f32; VALUES], [0.25_f32; VALUES]);
    let mut sums = [0.0_f32; VALUES];
    for _ in 0..rounds {
        let (a, b) = black_box((&a, &b));
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    black_box(sums);
    rounds * 2 * VALUES as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every instruction set that a backend of ours here has brings its int8 products, and names are told once.
    #[test]
    fn every_instruction_set_that_runs_here_has_its_ceiling() {
        let loops = arithmetic();
        let names: BTreeSet<&str> = loops.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), loops.len());
        let here = super::super::all().into_iter().filter(|backend| {
            backend.name().starts_with("rust-") && backend.availability() == super::super::Availability::Ready
        });
        for backend in here {
            let isa = if backend.isa() == "scalar" { "portable" } else { backend.isa() };
            assert!(names.contains(format!("int8_dot_{isa}").as_str()), "{isa} in {names:?}");
        }
        assert!(names.contains("f32_fma_portable"));
        let native = [
            ("bf16_dot_avx512vnni", super::super::detect::Avx512Bf16::detect().is_ok()),
            ("f16_fma_avx512vnni", super::super::detect::Avx512Fp16::detect().is_ok()),
        ];
        for (name, runs_here) in native {
            assert_eq!(names.contains(name), runs_here && cfg!(feature = "cpu"), "{name} in {names:?}");
        }
    }

    #[test]
    fn loops_count_what_they_do_and_read_what_they_are_given() {
        for one in arithmetic() {
            let operations = (one.run)(1);
            assert!(operations > 0 && operations.is_multiple_of(2), "{}", one.name);
            assert_eq!((one.run)(7), 7 * operations, "{}", one.name);
            assert_eq!((one.run)(0), 0, "{}", one.name);
        }
        // Nothing is read beyond the slice: these end where memory may end, and some are empty.
        for read in reads() {
            for pieces in [0, 1, 2, 3, 64] {
                read(&vec![1; pieces * READ_BYTES]);
            }
        }
    }
}
