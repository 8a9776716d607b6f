//! I2_S on AVX2, straight on the original bytes (`docs/FORMATS.md` 2): byte b of a block of 128 columns holds the
//! codes of columns b, 32 + b, 64 + b, 96 + b in bits 7:6, 5:4, 3:2, 1:0.
//!
//! Codes are multiplied in their stored form u = 0, 1, 2 (`vpmaddubsw` wants one side unsigned); sum(q) is taken
//! off once per activation row. Pairs of products add up in int16 for as long as they cannot leave it, then in
//! int32: a pair is within -512..=508, so 64 of them (-32768..=32512) fit and one more might not. int32 sums
//! may wrap on the way: the final difference is right modulo 2^32, and it fits.
//!
//! Up to four activation rows (`gemv`). Bandwidth decides, so the codes are not even shifted into place: of v and
//! v >> 4, `& 3` gives two groups as they are, `& 12` the other two times 4. The two kinds are summed apart (the
//! second fits for 8 blocks: 8 * 2 * -2048 = -32768) and joined in int32 as 4 * low + high, a multiple of 4.
//! Four weight rows a quarter of the matrix apart are four streams from memory, each prefetched ahead; they are
//! in L1 when the second activation row wants them.
//!
//! More rows (`gemm`). Codes of four weight rows are unpacked once, 16 blocks at a time, into a buffer that stays
//! in L1, and used by every activation row in tiles of 4 x 2 sums: 64 groups of 32 columns, the int16 limit again.
//! Activation rows are taken in chunks that stay in L2.

use std::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_prefetch, _mm_storeu_si128, _mm256_add_epi16,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_hadd_epi32,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_setzero_si256, _mm256_srai_epi32, _mm256_srli_epi16, _mm256_storeu_si256,
};

use crate::bitnet::formats::{FormatError, WeightFormat, Weights};

use super::super::detect::Avx2;
use super::{Prepared, Product};

/// 32 bytes: the codes of a block, or 32 activations.
pub(super) type Lane = [u8; 32];
/// The activations of a block, by group.
type Groups = [[i8; 32]; 4];
/// Unpacked codes of a block of four weight rows, by group and row.
type Unpacked = [[Lane; 4]; 4];

/// Columns per block.
pub(super) const BLOCK: usize = 128;
/// Blocks whose products times 4 fit int16 (see above).
const GEMV_BLOCKS: usize = 8;
/// Blocks whose products fit int16.
const GEMM_BLOCKS: usize = 16;
/// Activation rows from which unpacking once pays.
const GEMM_ROWS: usize = 5;
/// How far ahead of its use a weight row is fetched, in bytes.
const PREFETCH_BYTES: usize = 1536;
/// Bytes of activations that stay in L2 beside the weights.
const L2_BYTES: usize = 384 * 1024;

/// I2_S weights, read in place, with room for what the products of `n_max` activation rows need.
struct I2s<'a> {
    /// The proof that [`Product::run`] needs.
    _token: Avx2,
    /// `[rows, cols / 128]`
    codes: &'a [Lane],
    rows: usize,
    blocks: usize,
    /// `[n_max]`: sum of each activation row.
    sums: Vec<i32>,
    /// Sums of four weight rows with each activation row of a chunk.
    quads: Vec<[i32; 4]>,
}

/// Validates the codes and allocates; the weights are used where they are.
pub(super) fn prepare<'a>(token: Avx2, weights: Weights<'a>, n_max: usize) -> Prepared<'a> {
    let layout = *weights.layout();
    let codes = codes(token, &weights)?;
    let chunk = chunk_rows(layout.cols()).min(n_max);
    Ok(Box::new(I2s {
        _token: token,
        codes,
        rows: layout.rows(),
        blocks: layout.cols() / BLOCK,
        sums: vec![0; n_max],
        quads: vec![[0; 4]; chunk],
    }))
}

impl Product for I2s<'_> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut [i32]) {
        // SAFETY: the token proves that this CPU runs AVX2 and FMA.
        unsafe { if n < GEMM_ROWS { gemv(self, q, n, out) } else { gemm(self, q, n, out) } }
    }
}

/// The code bytes as blocks, once no code is 3.
pub(super) fn codes<'a>(_: Avx2, weights: &Weights<'a>) -> Result<&'a [Lane], FormatError> {
    let bytes = &weights.bytes()[..weights.layout().code_bytes()];
    // SAFETY: the token proves that this CPU runs AVX2 and FMA.
    if unsafe { has_code_3(bytes) } {
        let offset = bytes.iter().position(|&byte| has_both_bits(byte) != 0).unwrap_or_default();
        let what = format!("{:#04x} with code 3", bytes[offset]);
        return Err(FormatError::InvalidCode { format: WeightFormat::I2S, offset, what });
    }
    Ok(bytes.as_chunks().0)
}

/// Activation rows of one chunk, an even number.
fn chunk_rows(cols: usize) -> usize {
    (L2_BYTES / cols).max(2).next_multiple_of(2)
}

/// `out` `[n, rows]` for few activation rows: four weight rows stay in L1 while all of them pass.
#[target_feature(enable = "avx2,fma")]
fn gemv(weights: &mut I2s<'_>, q: &[i8], n: usize, out: &mut [i32]) {
    let I2s { codes, rows, blocks, sums, .. } = weights;
    let (rows, blocks, cols) = (*rows, *blocks, *blocks * BLOCK);
    sum_rows(q, cols, sums);
    let quarter = rows.div_ceil(4);
    for i in 0..quarter {
        // Where four quarters are more than the matrix, its last row is computed again.
        let four = [0, 1, 2, 3].map(|stream| (i + stream * quarter).min(rows - 1));
        let code_rows = four.map(|row| &codes[row * blocks..][..blocks]);
        for ((q, q_sum), out) in q.chunks_exact(cols).zip(&sums[..n]).zip(out.chunks_exact_mut(rows)) {
            let dots = lanes_of(add_lanes(gemv_rows(code_rows, groups(q))));
            for (row, dot) in four.into_iter().zip(dots) {
                out[row] = dot.wrapping_sub(*q_sum);
            }
        }
    }
}

/// For each of four weight rows, eight int32 that add up to its product with `q`.
#[target_feature(enable = "avx2,fma")]
fn gemv_rows(rows: [&[Lane]; 4], q: &[Groups]) -> [__m256i; 4] {
    let zero = _mm256_setzero_si256();
    let (mask_low, mask_high) = (_mm256_set1_epi8(0b0011), _mm256_set1_epi8(0b1100));
    let mut total = [zero; 4];
    let [a, b, c, d] = rows.map(|row| row.chunks(GEMV_BLOCKS));
    for ((((a, b), c), d), q) in a.zip(b).zip(c).zip(d).zip(q.chunks(GEMV_BLOCKS)) {
        let (mut low, mut high) = ([zero; 4], [zero; 4]);
        for ((((a, b), c), d), q) in a.iter().zip(b).zip(c).zip(d).zip(q) {
            let [q0, q1, q2, q3] = load4(q);
            for (r, codes) in [a, b, c, d].into_iter().enumerate() {
                prefetch(codes, PREFETCH_BYTES);
                let v = load(codes);
                let w = _mm256_srli_epi16::<4>(v);
                low[r] = add_products(low[r], _mm256_and_si256(v, mask_low), q3);
                high[r] = add_products(high[r], _mm256_and_si256(v, mask_high), q2);
                low[r] = add_products(low[r], _mm256_and_si256(w, mask_low), q1);
                high[r] = add_products(high[r], _mm256_and_si256(w, mask_high), q0);
            }
        }
        for r in 0..4 {
            total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(low[r], _mm256_set1_epi16(4)));
            total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(high[r], _mm256_set1_epi16(1)));
        }
    }
    total.map(|total| _mm256_srai_epi32::<2>(total))
}

/// `out` `[n, rows]` for many activation rows.
#[target_feature(enable = "avx2,fma")]
fn gemm(weights: &mut I2s<'_>, q: &[i8], n: usize, out: &mut [i32]) {
    let I2s { codes, rows, blocks, sums, quads, .. } = weights;
    let (rows, blocks, cols) = (*rows, *blocks, *blocks * BLOCK);
    sum_rows(q, cols, sums);
    // As few chunks as fit, all of about the same length.
    let chunk = n.div_ceil(n.div_ceil(chunk_rows(cols))).next_multiple_of(2);
    let sums = sums[..n].chunks(chunk);
    let mut buffer = [[[[0; 32]; 4]; 4]; GEMM_BLOCKS];
    for ((q, sums), out) in q.chunks(chunk * cols).zip(sums).zip(out.chunks_mut(chunk * rows)) {
        let quads = &mut quads[..sums.len()];
        for first in (0..rows).step_by(4) {
            // A matrix that ends within the four repeats its last row; what comes of it is dropped.
            let four = [0, 1, 2, 3].map(|i| (first + i).min(rows - 1));
            gemm_quad(four.map(|row| &codes[row * blocks..][..blocks]), groups(q), &mut buffer, quads);
            let kept = (rows - first).min(4);
            for ((quad, q_sum), out) in quads.iter().zip(sums).zip(out.chunks_exact_mut(rows)) {
                for (out, dot) in out[first..first + kept].iter_mut().zip(quad) {
                    *out = dot.wrapping_sub(*q_sum);
                }
            }
        }
    }
}

/// `quads` `[n]` = four weight rows times `q` `[n, blocks]`; `buffer` is for unpacked codes.
#[target_feature(enable = "avx2,fma")]
fn gemm_quad(rows: [&[Lane]; 4], q: &[Groups], buffer: &mut [Unpacked; GEMM_BLOCKS], quads: &mut [[i32; 4]]) {
    let blocks = rows[0].len();
    quads.fill([0; 4]);
    for start in (0..blocks).step_by(GEMM_BLOCKS) {
        let end = (start + GEMM_BLOCKS).min(blocks);
        let buffer = &mut buffer[..end - start];
        unpack(rows.map(|row| &row[start..end]), blocks, buffer);
        let (pairs, last) = quads.as_chunks_mut::<2>();
        let (q_pairs, q_last) = q.split_at(pairs.len() * 2 * blocks);
        for (quads, q) in pairs.iter_mut().zip(q_pairs.chunks_exact(2 * blocks)) {
            let (q0, q1) = q.split_at(blocks);
            gemm_tile(buffer, [&q0[start..end], &q1[start..end]], quads);
        }
        for (quad, q) in last.iter_mut().zip(q_last.chunks_exact(blocks)) {
            gemm_tile(buffer, [&q[start..end]], std::array::from_mut(quad));
        }
    }
}

/// Adds the products of four unpacked weight rows with `C` activation rows, at most [`GEMM_BLOCKS`] blocks each.
#[target_feature(enable = "avx2,fma")]
fn gemm_tile<const C: usize>(codes: &[Unpacked], q: [&[Groups]; C], quads: &mut [[i32; 4]; C]) {
    assert!(q.iter().all(|q| q.len() == codes.len()));
    let mut sums = [[_mm256_setzero_si256(); 4]; C];
    for (block, codes) in codes.iter().enumerate() {
        // SAFETY: each of `q` is as long as `codes`; the compiler does not see it and would compare every time.
        let q = q.each_ref().map(|q| unsafe { q.get_unchecked(block) });
        for group in 0..4 {
            let codes = codes[group].each_ref().map(|codes| load(codes));
            for c in 0..C {
                let q = load_i8(&q[c][group]);
                for row in 0..4 {
                    sums[c][row] = add_products(sums[c][row], codes[row], q);
                }
            }
        }
    }
    for (quad, sums) in quads.iter_mut().zip(sums) {
        let widened = sums.map(|sum| _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
        for (total, dot) in quad.iter_mut().zip(lanes_of(add_lanes(widened))) {
            *total = total.wrapping_add(dot);
        }
    }
}

/// Codes u of four rows of `blocks` blocks in all, of which these are a part. Also fetches the same part of the
/// next four rows.
#[target_feature(enable = "avx2,fma")]
fn unpack(rows: [&[Lane]; 4], blocks: usize, buffer: &mut [Unpacked]) {
    let mask = _mm256_set1_epi8(0b11);
    for (r, row) in rows.into_iter().enumerate() {
        for (codes, groups) in row.iter().zip(&mut *buffer) {
            prefetch(codes, 4 * blocks * size_of::<Lane>());
            let v = load(codes);
            store(&mut groups[0][r], _mm256_and_si256(_mm256_srli_epi16::<6>(v), mask));
            store(&mut groups[1][r], _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask));
            store(&mut groups[2][r], _mm256_and_si256(_mm256_srli_epi16::<2>(v), mask));
            store(&mut groups[3][r], _mm256_and_si256(v, mask));
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn has_code_3(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |found, &byte| found | has_both_bits(byte)) != 0
}

/// Not 0 where one of the four codes is 3.
fn has_both_bits(byte: u8) -> u8 {
    byte & byte >> 1 & 0b0101_0101
}

/// `sums` = sum of each row of `q` `[n, cols]`, which fits int32 for every K a backend accepts.
#[target_feature(enable = "avx2,fma")]
fn sum_rows(q: &[i8], cols: usize, sums: &mut [i32]) {
    for (q, sum) in q.chunks_exact(cols).zip(sums) {
        *sum = q.iter().map(|&q| i32::from(q)).sum();
    }
}

/// int16 sums + pairs of u * q.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_products(sums: __m256i, u: __m256i, q: __m256i) -> __m256i {
    _mm256_add_epi16(sums, _mm256_maddubs_epi16(u, q))
}

/// The four totals of four vectors of eight int32.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_lanes([a, b, c, d]: [__m256i; 4]) -> __m128i {
    let quarters = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    _mm_add_epi32(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256::<1>(quarters))
}

/// Activations of whole blocks.
fn groups(q: &[i8]) -> &[Groups] {
    q.as_chunks::<32>().0.as_chunks::<4>().0
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(bytes: &Lane) -> __m256i {
    // SAFETY: the array is 32 bytes; an unaligned load.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_i8(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: the array is 32 bytes; an unaligned load.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load4(groups: &Groups) -> [__m256i; 4] {
    groups.each_ref().map(|group| load_i8(group))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(bytes: &mut Lane, v: __m256i) {
    // SAFETY: the array is 32 bytes; an unaligned store.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn lanes_of(v: __m128i) -> [i32; 4] {
    let mut lanes = [0; 4];
    // SAFETY: the array is 16 bytes; an unaligned store.
    unsafe { _mm_storeu_si128(lanes.as_mut_ptr().cast(), v) };
    lanes
}

/// Asks for the cache line `ahead` bytes further on.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
fn prefetch(at: &Lane, ahead: usize) {
    // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.as_ptr().wrapping_add(ahead).cast()) }
}
