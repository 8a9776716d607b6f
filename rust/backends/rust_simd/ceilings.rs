//! What the instruction sets that run here bring to `backends/ceilings.rs`, and the loops that read, written once.

use super::super::ceilings::{Arithmetic, Read};
use super::super::detect::{Avx2, Avx512Bf16, Avx512Fp16, Avx512Vnni, AvxVnni};
use super::{ceilings_avx2, ceilings_avx512vnni, ceilings_avxvnni};

/// How far ahead of its use each of several streams is fetched, in bytes.
pub(super) const AHEAD_BYTES: usize = 1536;

/// The ways to read of the widest instruction set here; none without AVX2.
pub(in crate::backends) fn reads() -> Vec<Read> {
    match (Avx512Vnni::detect(), Avx2::detect()) {
        (Ok(token), _) => vec![
            Box::new(move |bytes| ceilings_avx512vnni::read(token, bytes)),
            Box::new(move |bytes| ceilings_avx512vnni::read_far(token, bytes)),
        ],
        (_, Ok(token)) => vec![
            Box::new(move |bytes| ceilings_avx2::read(token, bytes)),
            Box::new(move |bytes| ceilings_avx2::read_far(token, bytes)),
        ],
        _ => Vec::new(),
    }
}

/// Arithmetic of every instruction set here.
pub(in crate::backends) fn arithmetic() -> Vec<Arithmetic> {
    let mut found = Vec::new();
    if let Ok(token) = Avx2::detect() {
        let int8_dot = Box::new(move |rounds| ceilings_avx2::int8_dot(token, rounds));
        let f32_fma = Box::new(move |rounds| ceilings_avx2::f32_fma(token, rounds));
        found.push(Arithmetic { name: "int8_dot_avx2", run: int8_dot });
        found.push(Arithmetic { name: "f32_fma_avx2", run: f32_fma });
    }
    if let Ok(token) = AvxVnni::detect() {
        // Its loops over floats are those of AVX2.
        let int8_dot = Box::new(move |rounds| ceilings_avxvnni::int8_dot(token, rounds));
        found.push(Arithmetic { name: "int8_dot_avxvnni", run: int8_dot });
    }
    if let Ok(token) = Avx512Vnni::detect() {
        let int8_dot = Box::new(move |rounds| ceilings_avx512vnni::int8_dot(token, rounds));
        let f32_fma = Box::new(move |rounds| ceilings_avx512vnni::f32_fma(token, rounds));
        found.push(Arithmetic { name: "int8_dot_avx512vnni", run: int8_dot });
        found.push(Arithmetic { name: "f32_fma_avx512vnni", run: f32_fma });
    }
    // Native arithmetic of that instruction set, where the CPU has more than it implies.
    if let Ok(token) = Avx512Bf16::detect() {
        let bf16_dot = Box::new(move |rounds| ceilings_avx512vnni::bf16_dot(token, rounds));
        found.push(Arithmetic { name: "bf16_dot_avx512vnni", run: bf16_dot });
    }
    if let Ok(token) = Avx512Fp16::detect() {
        let f16_fma = Box::new(move |rounds| ceilings_avx512vnni::f16_fma(token, rounds));
        found.push(Arithmetic { name: "f16_fma_avx512vnni", run: f16_fma });
    }
    found
}

/// Two functions that read each byte of a slice: `$read` along one stream, `$read_far` along four, a quarter of the slice
/// apart and fetched ahead. What was read is joined by `$xor`, in eight vectors of `$bytes` bytes that do not wait for
/// one another.
macro_rules! reading {
    ($features:literal, $bytes:literal, $zero:ident, $load:ident, $xor:ident) => {
        #[target_feature(enable = $features)]
        fn along_one(bytes: &[u8]) {
            let mut sums = [$zero(); 8];
            for vectors in bytes.as_chunks::<$bytes>().0.as_chunks::<8>().0 {
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    // SAFETY: the vector's bytes are there; an unaligned load.
                    *sum = $xor(*sum, unsafe { $load(vector.as_ptr().cast()) });
                }
            }
            std::hint::black_box(sums);
        }

        #[target_feature(enable = $features)]
        fn along_four(bytes: &[u8]) {
            let lines = bytes.as_chunks::<64>().0;
            let quarter = lines.len() / 4;
            let (first, rest) = lines.split_at(quarter);
            let (second, rest) = rest.split_at(quarter);
            let (third, fourth) = rest.split_at(quarter);
            let mut sums = [$zero(); 4 * 64 / $bytes];
            for (((a, b), c), d) in first.iter().zip(second).zip(third).zip(fourth) {
                for (sums, line) in sums.as_chunks_mut::<{ 64 / $bytes }>().0.iter_mut().zip([a, b, c, d]) {
                    // SAFETY: the vectors' bytes are there, unaligned loads; a prefetch never faults, and nothing is read
                    // through it.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD_BYTES).cast());
                        for (sum, vector) in sums.iter_mut().zip(line.as_chunks::<$bytes>().0) {
                            *sum = $xor(*sum, $load(vector.as_ptr().cast()));
                        }
                    }
                }
            }
            std::hint::black_box(sums);
        }
    };
}

pub(super) use reading;
