//! Float kernels with AVX2, FMA and F16C: an output's 32 lanes are four vectors.
//!
//! Sixteen registers hold the four vectors of two rows (`stream`, which goes on to the other two every few lines, so that
//! four far rows come from memory evenly), or one vector of a tile of four rows and three rows of x (`panel`, which walks
//! the columns four times, within L1), with room for what is loaded.

use std::arch::x86_64::{
    __m256, __m256i, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_add_epi32, _mm_cvtph_ps, _mm_cvtps_ph,
    _mm_cvtss_f32, _mm_loadu_si128, _mm_prefetch, _mm_set_ss, _mm_unpackhi_epi64, _mm256_abs_epi8,
    _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256, _mm256_permute_ps, _mm256_permute2f128_ps,
    _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_shuffle_ps, _mm256_sign_epi8, _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi8,
};

use super::super::detect::Avx2;
use super::float::{
    BLOCK, FloatKernels, LANES, Lanes, NO_LANES, OCTETS, Octet, Octets, PANEL, Panel, Q8_ROWS, ROWS, TILE,
    WIDTH,
};
use super::quantize_avx2::pack_to_i8;
use super::shares;
use crate::bitnet::model::FloatType;
use half::f16;

/// Groups of 32 columns before the other two rows have their turn.
const GROUPS: usize = 8;
/// How far ahead of the products memory is asked for its lines.
const AHEAD_BYTES: usize = 2048;

/// Bytes of 256 values of Q6_K.
const Q6K_BYTES: usize = 210;

pub(super) const F32: u8 = 0;
pub(super) const F16: u8 = 1;
pub(super) const BF16: u8 = 2;

impl FloatKernels for Avx2 {
    fn stream(self, float_type: FloatType, rows: [&[u8]; ROWS], x: &[f32]) -> [f32; ROWS] {
        assert!(rows.iter().all(|row| row.len() == float_type.bytes_of(x.len())));
        // SAFETY: `self` proves that this CPU runs AVX2, FMA and F16C; the rows are as long as x.
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
        assert!(k <= PANEL && k.is_multiple_of(LANES));
        assert!(rows.iter().all(|row| row.len() == float_type.bytes_of(k)));
        // SAFETY: `self` proves that this CPU runs AVX2, FMA and F16C; the bytes are those of `k` values.
        unsafe {
            match float_type {
                FloatType::F32 => decode::<F32>(rows, k, panel),
                FloatType::F16 => decode::<F16>(rows, k, panel),
                FloatType::Bf16 => decode::<BF16>(rows, k, panel),
                FloatType::Q6K => decode_q6k(rows, panel),
                FloatType::Q8_0 => unreachable!("Q8_0 is not multiplied as floats"),
            }
        }
    }

    fn panel(self, w: &Panel, k: usize, x: &[Octet], lanes: &mut [Octets]) {
        assert!(k <= PANEL && k.is_multiple_of(LANES) && x.len() * LANES == k * lanes.len());
        // SAFETY: `self` proves that this CPU runs AVX2, FMA and F16C.
        unsafe { panel(w, k, x, lanes) }
    }

    fn finish(self, w: &[[f32; LANES]; ROWS], x: &[f32], lanes: &[Octets], column: usize) -> [f32; ROWS] {
        // SAFETY: `self` proves that this CPU runs AVX2, FMA and F16C.
        unsafe { finish(w, x, lanes, column) }
    }

    fn quantize_q8_0(self, x: &[f32], q: &mut [i8], d: &mut [f32]) {
        // SAFETY: `self` proves that this CPU runs AVX2, FMA and F16C.
        unsafe { quantize_q8_0(x, q, d) }
    }

    fn q8_0(self, rows: [&[u8]; Q8_ROWS], q: &[i8], d: &[f32]) -> [f32; Q8_ROWS] {
        assert!(rows.iter().all(|row| row.len() == FloatType::Q8_0.bytes_of(q.len())));
        assert!(q.len() == d.len() * BLOCK);
        // SAFETY: `self` proves that this CPU runs AVX2, FMA and F16C; the rows are as long as q.
        unsafe { q8_0(rows, q, d) }
    }
}

pub(super) const fn bytes_of_value(float_type: u8) -> usize {
    if float_type == F32 { 4 } else { 2 }
}

/// Eight values as f32.
///
/// # Safety
/// The bytes of eight values can be read at `bytes`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<const TYPE: u8>(bytes: *const u8) -> __m256 {
    // SAFETY: the caller vouches for the bytes; unaligned loads.
    unsafe {
        match TYPE {
            F32 => _mm256_loadu_ps(bytes.cast()),
            F16 => _mm256_cvtph_ps(_mm_loadu_si128(bytes.cast())),
            _ => {
                let upper_halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper_halves))
            }
        }
    }
}

/// # Safety
/// Each row has the bytes of `x.len()` values.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn stream<const TYPE: u8>(rows: [&[u8]; ROWS], x: &[f32]) -> [f32; ROWS] {
    let width = bytes_of_value(TYPE);
    let mut lanes = [NO_LANES; ROWS];
    let groups = x.len() / LANES;
    for first in (0..groups).step_by(GROUPS) {
        let n_groups = GROUPS.min(groups - first);
        let x = x.as_ptr().wrapping_add(first * LANES);
        for (rows, lanes) in rows.as_chunks::<2>().0.iter().zip(lanes.as_chunks_mut::<2>().0) {
            let bytes = [rows[0], rows[1]].map(|row| row.as_ptr().wrapping_add(first * LANES * width));
            // SAFETY: groups first .. first + n_groups lie within x and the rows, and four vectors within lanes.
            unsafe {
                // Loops: vectors handed to a closure of core's `map` go through memory.
                let mut sums = [[_mm256_setzero_ps(); 4]; 2];
                for (sums, lanes) in sums.iter_mut().zip(&*lanes) {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm256_loadu_ps(lanes.0.as_ptr().add(v * WIDTH));
                    }
                }
                for group in 0..n_groups {
                    let x = x.add(group * LANES);
                    for (sums, bytes) in sums.iter_mut().zip(bytes) {
                        let bytes = bytes.add(group * LANES * width);
                        // A group is one line, or two.
                        _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD_BYTES).cast());
                        if TYPE == F32 {
                            _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD_BYTES + 64).cast());
                        }
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let w = load::<TYPE>(bytes.add(v * WIDTH * width));
                            *sum = _mm256_fmadd_ps(w, _mm256_loadu_ps(x.add(v * WIDTH)), *sum);
                        }
                    }
                }
                for (lanes, sums) in lanes.iter_mut().zip(sums) {
                    for (v, sum) in sums.into_iter().enumerate() {
                        _mm256_storeu_ps(lanes.0.as_mut_ptr().add(v * WIDTH), sum);
                    }
                }
            }
        }
    }
    add_last_columns::<TYPE>(rows, x, &mut lanes);
    let mut folded = [_mm256_setzero_ps(); ROWS];
    for (folded, lanes) in folded.iter_mut().zip(&lanes) {
        let lanes = lanes.0.as_ptr();
        // SAFETY: 32 lanes.
        *folded = unsafe {
            let [a, b] = [_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes.add(WIDTH))];
            let [c, d] = [_mm256_loadu_ps(lanes.add(2 * WIDTH)), _mm256_loadu_ps(lanes.add(3 * WIDTH))];
            _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d))
        };
    }
    sum_each_row(folded)
}

/// Adds the products of the last, fewer than 32, columns of each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_last_columns<const TYPE: u8>(rows: [&[u8]; ROWS], x: &[f32], lanes: &mut [Lanes; ROWS]) {
    let whole = x.len() / LANES * LANES;
    if whole == x.len() {
        return;
    }
    let x = &x[whole..];
    let mut values = [0.0; LANES];
    let values = &mut values[..x.len()];
    for (bytes, lanes) in rows.into_iter().zip(lanes) {
        plain_type(TYPE).decode(&bytes[whole * bytes_of_value(TYPE)..], values);
        for ((lane, &value), &x) in lanes.0.iter_mut().zip(&*values).zip(x) {
            *lane = value.mul_add(x, *lane);
        }
    }
}

/// The last three halvings of the lanes of each row, `lane[l] += lane[l + h]` for h = 4, 2, 1, for all rows at once.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum_each_row([a, b, c, d]: [__m256; ROWS]) -> [f32; ROWS] {
    let by_4 =
        |a, b| _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
    let (ab, cd) = (by_4(a, b), by_4(c, d));
    let by_2 = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
    // a a c c | b b d d
    let by_1 = _mm256_add_ps(by_2, _mm256_permute_ps::<0xb1>(by_2));
    let mut sums = [0.0; 2 * ROWS];
    // SAFETY: room for eight floats.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), by_1) };
    [sums[0], sums[4], sums[2], sums[6]]
}

const fn plain_type(float_type: u8) -> FloatType {
    match float_type {
        F32 => FloatType::F32,
        F16 => FloatType::F16,
        _ => FloatType::Bf16,
    }
}

/// # Safety
/// Each row has the bytes of `k` values, whole groups of 32, no more than a panel has.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn decode<const TYPE: u8>(rows: [&[u8]; ROWS], k: usize, panel: &mut Panel) {
    let width = bytes_of_value(TYPE);
    for step in 0..k / LANES {
        let rows = rows.map(|row| row.as_ptr().wrapping_add(step * LANES * width));
        for row in rows {
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD_BYTES).cast());
        }
        for (octet, panel) in panel.0.iter_mut().enumerate() {
            for (row, out) in rows.into_iter().zip(&mut panel[step]) {
                // SAFETY: the bytes of eight values, and room for them.
                unsafe { _mm256_storeu_ps(out.0.as_mut_ptr(), load::<TYPE>(row.add(octet * WIDTH * width))) };
            }
        }
    }
}

/// The layout stands in `bitnet/model/float_blocks.rs`.
#[target_feature(enable = "avx2,fma,f16c")]
fn decode_q6k(rows: [&[u8]; ROWS], panel: &mut Panel) {
    for block in 0..rows[0].len() / Q6K_BYTES {
        for (row, bytes) in rows.into_iter().enumerate() {
            let mut octets = panel.0.each_mut().map(|steps| &mut steps[8 * block..][..8]);
            decode_q6k_block(&bytes.as_chunks().0[block], |step, values| {
                for (octet, values) in octets.iter_mut().zip(values) {
                    // SAFETY: room for eight floats.
                    unsafe { _mm256_storeu_ps(octet[step][row].0.as_mut_ptr(), values) };
                }
            });
        }
    }
}

/// Hands over the values of a block, 32 at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn decode_q6k_block(block: &[u8; Q6K_BYTES], mut store: impl FnMut(usize, [__m256; 4])) {
    for line in 0..4 {
        _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD_BYTES + 64 * line).cast());
    }
    let d = f16::from_le_bytes([block[208], block[209]]).to_f32();
    for step in 0..8 {
        let (h, c) = (step / 4, step % 4);
        // SAFETY: 64 h + 32 (c mod 2) + 32 <= 128 and 128 + 32 h + 32 <= 192, within the block.
        let (low, high) = unsafe {
            (
                _mm256_loadu_si256(block.as_ptr().add(64 * h + 32 * (c % 2)).cast()),
                _mm256_loadu_si256(block.as_ptr().add(128 + 32 * h).cast()),
            )
        };
        let low = if c < 2 { low } else { _mm256_srli_epi16::<4>(low) };
        let high = match c {
            0 => _mm256_slli_epi16::<4>(high),
            1 => _mm256_slli_epi16::<2>(high),
            2 => high,
            _ => _mm256_srli_epi16::<2>(high),
        };
        // Bits that a shift of 16-bit lanes brought from the neighbour are masked off.
        let low = _mm256_and_si256(low, _mm256_set1_epi8(0x0f));
        let high = _mm256_and_si256(high, _mm256_set1_epi8(0x30));
        let codes = _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32));
        let scales = [0, 1].map(|l| d * f32::from(block[192 + 8 * h + 2 * c + l] as i8));
        store(step, widen_and_scale(codes, scales));
    }
}

/// 32 codes times the scale of their half.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_and_scale(codes: __m256i, scales: [f32; 2]) -> [__m256; 4] {
    let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
    let mut octets = [_mm256_setzero_ps(); 4];
    for ((codes, scale), octets) in halves.into_iter().zip(scales).zip(octets.as_chunks_mut::<2>().0) {
        let upper = _mm_unpackhi_epi64(codes, codes);
        for (codes, octet) in [codes, upper].into_iter().zip(octets) {
            *octet = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
        }
    }
    octets
}

#[target_feature(enable = "avx2,fma,f16c")]
fn panel(w: &Panel, k: usize, x: &[Octet], lanes: &mut [Octets]) {
    let n = lanes.len() / OCTETS;
    for (octet, (w, lanes)) in w.0.iter().zip(lanes.chunks_exact_mut(n)).enumerate() {
        let w = &w[..k / LANES];
        for rows in shares(n, TILE) {
            let first = rows.start * k / WIDTH + octet * w.len() * rows.len();
            let x = &x[first..][..w.len() * rows.len()];
            match &mut lanes[rows] {
                [a] => tile(w, x.as_chunks().0, [a]),
                [a, b] => tile(w, x.as_chunks().0, [a, b]),
                [a, b, c] => tile(w, x.as_chunks().0, [a, b, c]),
                _ => unreachable!("shares of {TILE} at most"),
            }
        }
    }
}

/// Eight lanes of four rows times `N` rows of x.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const N: usize>(w: &[Octets], x: &[[Octet; N]], lanes: [&mut Octets; N]) {
    let mut sums = [[_mm256_setzero_ps(); ROWS]; N];
    for column in 0..N {
        for row in 0..ROWS {
            sums[column][row] = load_octet(&lanes[column][row]);
        }
    }
    for (w, x) in w.iter().zip(x) {
        let mut columns = [_mm256_setzero_ps(); N];
        for column in 0..N {
            columns[column] = load_octet(&x[column]);
        }
        for row in 0..ROWS {
            let w = load_octet(&w[row]);
            for column in 0..N {
                sums[column][row] = _mm256_fmadd_ps(w, columns[column], sums[column][row]);
            }
        }
    }
    for (lanes, sums) in lanes.into_iter().zip(sums) {
        for (lanes, sum) in lanes.iter_mut().zip(sums) {
            // SAFETY: room for eight floats.
            unsafe { _mm256_storeu_ps(lanes.0.as_mut_ptr(), sum) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_octet(octet: &Octet) -> __m256 {
    // SAFETY: eight floats.
    unsafe { _mm256_loadu_ps(octet.0.as_ptr()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn finish(w: &[[f32; LANES]; ROWS], x: &[f32], lanes: &[Octets], column: usize) -> [f32; ROWS] {
    let n = lanes.len() / OCTETS;
    let mut sums = [[_mm256_setzero_ps(); ROWS]; OCTETS];
    for octet in 0..OCTETS {
        let lanes = &lanes[octet * n + column];
        for row in 0..ROWS {
            sums[octet][row] = load_octet(&lanes[row]);
        }
    }
    for (octet, x) in x.chunks(WIDTH).enumerate() {
        for row in 0..ROWS {
            let mut lanes = lanes[octet * n + column][row];
            for ((lane, &w), &x) in lanes.0.iter_mut().zip(&w[row][octet * WIDTH..]).zip(x) {
                *lane = w.mul_add(x, *lane);
            }
            sums[octet][row] = load_octet(&lanes);
        }
    }
    let mut folded = [_mm256_setzero_ps(); ROWS];
    for row in 0..ROWS {
        let (even, odd) =
            (_mm256_add_ps(sums[0][row], sums[2][row]), _mm256_add_ps(sums[1][row], sums[3][row]));
        folded[row] = _mm256_add_ps(even, odd);
    }
    sum_each_row(folded)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_q8_0(x: &[f32], q: &mut [i8], d: &mut [f32]) {
    let blocks = x.as_chunks::<BLOCK>().0.iter().zip(q.as_chunks_mut::<BLOCK>().0);
    for ((x, q), d) in blocks.zip(d) {
        // Magnitudes order like their bits, NaN above all.
        let bits = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(bits);
        *d = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(
            largest / 127.0,
        ))));
        if largest == 0.0 || !largest.is_finite() {
            q.fill(0);
            continue;
        }
        let multiplier = _mm256_set1_ps(127.0 / largest);
        // SAFETY: 32 floats and 32 bytes.
        unsafe {
            let rounded = [0, 8, 16, 24]
                .map(|at| _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(at)), multiplier)));
            _mm256_storeu_si256(q.as_mut_ptr().cast(), pack_to_i8(rounded));
        }
    }
}

/// Lane r of the sum is row r: the scalar chain of each row, eight at a time.
///
/// # Safety
/// Every row has the bytes of `q.len()` values, and `d` one scale for each 32 of them.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8_0(rows: [&[u8]; Q8_ROWS], q: &[i8], d: &[f32]) -> [f32; Q8_ROWS] {
    const BYTES: usize = 34;
    let mut sums = _mm256_setzero_ps();
    for (block, (q, &d)) in q.as_chunks::<BLOCK>().0.iter().zip(d).enumerate() {
        let blocks = rows.map(|row| row.as_ptr().wrapping_add(block * BYTES));
        // SAFETY: 34 bytes of each row, 32 of q.
        let (dots, scales) = unsafe {
            let q = _mm256_loadu_si256(q.as_ptr().cast());
            let dots = blocks.map(|block| {
                _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD_BYTES / 2).cast());
                dot_of_block(_mm256_loadu_si256(block.add(2).cast()), q)
            });
            let scales = blocks.map(|block| block.cast::<u16>().read_unaligned());
            (dots, _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().cast())))
        };
        let dots = _mm256_cvtepi32_ps(sum_each(dots));
        sums = _mm256_fmadd_ps(dots, _mm256_mul_ps(scales, _mm256_set1_ps(d)), sums);
    }
    let mut values = [0.0; Q8_ROWS];
    // SAFETY: room for eight floats.
    unsafe { _mm256_storeu_ps(values.as_mut_ptr(), sums) };
    values
}

/// Eight int32 that add up to the product. |w| <= 128 and |q| <= 127 where it matters: no int16 pair saturates.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_of_block(w: __m256i, q: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// The sums of eight vectors, in order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_each(v: [__m256i; Q8_ROWS]) -> __m256i {
    let [a, b, c, d, e, f, g, h] = v;
    let low = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let high = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
    let [low, high] =
        [low, high].map(|v| _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)));
    _mm256_set_m128i(high, low)
}
