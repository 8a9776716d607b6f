//! Float kernels with AVX-512: an output's 32 lanes are two vectors, so those of four rows stay in registers from the
//! first column to the last; memory is read two rows at a time, by turns. Only one row of x is worth it, which waits for
//! memory and not for arithmetic as long as it has few instructions; every other loop is that of AVX2.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps, _mm256_castpd_ps,
    _mm256_loadu_si256, _mm512_add_ps, _mm512_castps_pd, _mm512_castps512_ps256, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_epi16, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_storeu_ps,
};

use super::super::detect::Avx512Vnni;
use super::float::{FloatKernels, LANES, NO_LANES, Octet, Octets, Panel, Q8_ROWS, ROWS};
use super::float_avx2::{BF16, F16, F32, add_last_columns, bytes_of_value, sum_each_row};
use super::float_native::GROUP;
use crate::bitnet::model::FloatType;

/// Floats of a vector.
pub(super) const WIDTH: usize = 16;
/// Rows whose lines are read in turn ...
const AT_ONCE: usize = 2;
/// ... and groups of 32 columns before the other rows have theirs.
const GROUPS: usize = 8;
/// How far ahead of the products lines are asked for, into L2 and into L1. L1 has room for few that wait for memory: asked
/// for all at once from far ahead, they took up to 1.4 times as long (measured on Zen 4).
const AHEAD_BYTES: [usize; 2] = [1024, 256];

impl FloatKernels for Avx512Vnni {
    fn stream(self, float_type: FloatType, rows: [&[u8]; ROWS], x: &[f32]) -> [f32; ROWS] {
        assert!(rows.iter().all(|row| row.len() == float_type.bytes_of(x.len())));
        // SAFETY: `self` proves that this CPU runs AVX-512 F, AVX2, FMA and F16C; the rows are as long as x.
        unsafe {
            match float_type {
                FloatType::F32 => stream::<F32>(rows, x),
                FloatType::F16 => stream::<F16>(rows, x),
                FloatType::Bf16 => stream::<BF16>(rows, x),
                FloatType::Q8_0 | FloatType::Q6K => unreachable!("blocks are not streamed"),
            }
        }
    }

    fn decode(self, float_type: FloatType, rows: [&[u8]; ROWS], k: usize, panel: &mut Panel) {
        self.avx2().decode(float_type, rows, k, panel);
    }

    fn panel(self, w: &Panel, k: usize, x: &[Octet], lanes: &mut [Octets]) {
        self.avx2().panel(w, k, x, lanes);
    }

    fn finish(self, w: &[[f32; LANES]; ROWS], x: &[f32], lanes: &[Octets], column: usize) -> [f32; ROWS] {
        self.avx2().finish(w, x, lanes, column)
    }

    fn quantize_q8_0(self, x: &[f32], q: &mut [i8], d: &mut [f32]) {
        self.avx2().quantize_q8_0(x, q, d);
    }

    fn q8_0(self, rows: [&[u8]; Q8_ROWS], q: &[i8], d: &[f32]) -> [f32; Q8_ROWS] {
        self.avx2().q8_0(rows, q, d)
    }
}

/// Sixteen values as f32.
///
/// # Safety
/// The bytes of sixteen values can be read at `bytes`.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn load<const TYPE: u8>(bytes: *const u8) -> __m512 {
    // SAFETY: the caller vouches for the bytes; unaligned loads.
    unsafe {
        match TYPE {
            F32 => _mm512_loadu_ps(bytes.cast()),
            F16 => _mm512_cvtph_ps(_mm256_loadu_si256(bytes.cast())),
            _ => {
                let upper_halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper_halves))
            }
        }
    }
}

/// The floats of a vector that there are: all sixteen, or those that are left.
pub(super) fn valid(x: &[f32]) -> u16 {
    if x.len() < WIDTH { (1 << x.len()) - 1 } else { u16::MAX }
}

/// A whole group of values of 16 bits of each row; the same group of each of `ahead` is fetched.
///
/// # Safety
/// The rows have so many groups, and this one.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load_group<const A: usize>(
    rows: [*const u8; ROWS],
    ahead: [*const u8; A],
    group: usize,
) -> [__m512i; ROWS] {
    let at = group * 2 * GROUP;
    for ahead in ahead {
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(at).cast());
    }
    let mut values = [_mm512_setzero_si512(); ROWS];
    for (values, row) in values.iter_mut().zip(rows) {
        // SAFETY: the caller vouches for the group; an unaligned load.
        *values = unsafe { _mm512_loadu_si512(row.add(at).cast()) };
    }
    values
}

/// The last values of 16 bits of each row, fewer than a group, and zeros.
///
/// # Safety
/// Each row has the bytes of `values` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load_rest(rows: [*const u8; ROWS], values: usize) -> [__m512i; ROWS] {
    let (whole, rest) = (values / GROUP, values % GROUP);
    let mut loaded = [_mm512_setzero_si512(); ROWS];
    for (loaded, row) in loaded.iter_mut().zip(rows) {
        // SAFETY: no more values than there are.
        *loaded = unsafe { _mm512_maskz_loadu_epi16((1 << rest) - 1, row.add(whole * 2 * GROUP).cast()) };
    }
    loaded
}

/// Asks for the lines ahead of `bytes`.
#[inline]
#[target_feature(enable = "avx512f")]
fn ask_for(bytes: *const u8) {
    _mm_prefetch::<_MM_HINT_T1>(bytes.wrapping_add(AHEAD_BYTES[0]).cast());
    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD_BYTES[1]).cast());
}

/// # Safety
/// Each row has the bytes of `x.len()` values.
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn stream<const TYPE: u8>(rows: [&[u8]; ROWS], x: &[f32]) -> [f32; ROWS] {
    let group_bytes = LANES * bytes_of_value(TYPE);
    let starts = rows.map(|row| row.as_ptr());
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (turn, x) in x.as_chunks::<LANES>().0.chunks(GROUPS).enumerate() {
        for (sums, starts) in
            sums.as_chunks_mut::<AT_ONCE>().0.iter_mut().zip(starts.as_chunks::<AT_ONCE>().0)
        {
            for (group, x) in x.iter().enumerate() {
                let at = (turn * GROUPS + group) * group_bytes;
                // SAFETY: a group of x, and the same one of each row.
                unsafe {
                    let x = [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(WIDTH))];
                    for (sums, start) in sums.iter_mut().zip(starts) {
                        let bytes = start.add(at);
                        ask_for(bytes);
                        if TYPE == F32 {
                            // A group is two lines.
                            ask_for(bytes.wrapping_add(64));
                        }
                        sums[0] = _mm512_fmadd_ps(load::<TYPE>(bytes), x[0], sums[0]);
                        sums[1] = _mm512_fmadd_ps(load::<TYPE>(bytes.add(group_bytes / 2)), x[1], sums[1]);
                    }
                }
            }
        }
    }
    if !x.len().is_multiple_of(LANES) {
        let mut lanes = [NO_LANES; ROWS];
        for (lanes, sums) in lanes.iter_mut().zip(&mut sums) {
            let at = lanes.0.as_mut_ptr();
            // SAFETY: 32 lanes.
            unsafe {
                _mm512_storeu_ps(at, sums[0]);
                _mm512_storeu_ps(at.add(WIDTH), sums[1]);
            }
        }
        add_last_columns::<TYPE>(rows, x, &mut lanes);
        for (lanes, sums) in lanes.iter().zip(&mut sums) {
            let at = lanes.0.as_ptr();
            // SAFETY: 32 lanes.
            *sums = unsafe { [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(WIDTH))] };
        }
    }
    sum_vectors(sums.map(|[low, high]| _mm512_add_ps(low, high)))
}

/// The sum of the sixteen lanes of each row's vector, in halves.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn sum_vectors(sums: [__m512; ROWS]) -> [f32; ROWS] {
    sum_each_row(sums.map(|sum| {
        let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sum)));
        _mm256_add_ps(_mm512_castps512_ps256(sum), upper)
    }))
}
