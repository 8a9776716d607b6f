//! I2_S on AVX2, straight on the original bytes (`docs/FORMATS.md` 2): byte b of a block of 128 columns holds the
//! codes of columns b, 32 + b, 64 + b, 96 + b in bits 7:6, 5:4, 3:2, 1:0.
//!
//! Codes are multiplied in their stored form u = 0, 1, 2 (`vpmaddubsw` wants one side unsigned); sum(q) is taken
//! off once per activation row. Pairs of products add up in int16 for as long as they cannot leave it, then in
//! int32: a pair is within -512..=508, so 64 of them (-32768..=32512) fit and one more might not. int32 sums
//! may wrap on the way: the final difference is right modulo 2^32, and it fits.
//!
//! One activation row (`gemv`). The codes are not even shifted into place: of v and v >> 4, `& 3` gives two groups
//! as they are, `& 12` the other two times 4. The two kinds are summed apart (the second fits for 8 blocks:
//! 8 * 2 * -2048 = -32768) and joined as low + high / 4, without a remainder. Four weight rows a quarter of the
//! matrix apart are four streams from memory, each prefetched ahead.
//!
//! Eight or four activation rows (`gemm`). A strip of their columns, at most the 16 blocks that int16 allows, is
//! copied to a panel in L1 in the order of its use, and every weight row passes it: eight sums at a time, of one
//! weight row with eight activation rows or of two with four. Sums of eight weight rows are transposed to where
//! they belong. What is left of the activation rows goes through `gemv`.
//!
//! What the compiler must not do: keep activations in registers that sums need (`reload`), reorder the sums of a
//! tile so that some are spilled (`add_products`), compile several tiles as one (`tile`), or call a closure that
//! computes vectors from a function of the standard library, which is compiled without AVX2 and cannot inline it;
//! there is none here.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_prefetch, _mm_storeu_si128, _mm256_add_epi16,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_hadd_epi32,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_permute2x128_si256,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_srai_epi16, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};
use std::ops::Range;

use crate::bitnet::formats::{FormatError, Weights};

use super::super::detect::Avx2;
use super::Product;
use super::codes::{check_i2s, code_3};
use crate::team::Outputs;

/// 32 bytes: the codes of a block, or 32 activations.
pub(super) type Lane = [u8; 32];
/// The activations of a block, by group.
pub(super) type Groups = [[i8; 32]; 4];
/// The activations of a block of `C` rows, by group and row.
type Columns<const C: usize> = [[[i8; 32]; C]; 4];

/// Columns per block.
pub(super) const BLOCK: usize = 128;
/// Blocks whose products times 4 fit int16 (see above).
const GEMV_BLOCKS: usize = 8;
/// Blocks whose products fit int16.
const STRIP_BLOCKS: usize = 16;
/// How far ahead of its use a weight row is fetched, in bytes.
const PREFETCH_BYTES: usize = 1536;

/// Activations of a strip, aligned so that no load meets two cache lines.
#[repr(align(32))]
struct Panel([[i8; 32]; 8 * 4 * STRIP_BLOCKS]);

/// I2_S weights, read in place, with room for a panel.
struct I2s<'a> {
    /// The proof that [`Product::run`] needs.
    _token: Avx2,
    /// `[rows, cols / 128]`
    codes: &'a [Lane],
    rows: usize,
    blocks: usize,
    panel: Box<Panel>,
}

/// Allocates for some of the rows of weights whose codes were found valid; they are used where they are.
pub(super) fn part<'a>(token: Avx2, weights: &Weights<'a>, rows: Range<usize>) -> Box<dyn Product + 'a> {
    let blocks = weights.layout().cols() / BLOCK;
    Box::new(I2s {
        _token: token,
        codes: &lanes_of_codes(weights)[rows.start * blocks..rows.end * blocks],
        rows: rows.len(),
        blocks,
        panel: Box::new(Panel([[0; 32]; 8 * 4 * STRIP_BLOCKS])),
    })
}

impl Product for I2s<'_> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        // SAFETY: the token proves that this CPU runs AVX2 and FMA.
        unsafe { products(self, q, n, out) }
    }

    fn bytes(&self) -> usize {
        size_of::<Panel>()
    }
}

/// The code bytes as blocks.
pub(super) fn lanes_of_codes<'a>(weights: &Weights<'a>) -> &'a [Lane] {
    weights.bytes()[..weights.layout().code_bytes()].as_chunks().0
}

/// The code bytes as blocks, once no code is 3.
pub(super) fn codes<'a>(_: Avx2, weights: &Weights<'a>) -> Result<&'a [Lane], FormatError> {
    // SAFETY: the token proves that this CPU runs AVX2 and FMA.
    check_i2s(weights, |bytes| unsafe { has_code_3(bytes) })?;
    Ok(lanes_of_codes(weights))
}

/// `out` `[n, rows]`: activation rows in eights, then a four, a two and a one.
#[target_feature(enable = "avx2,fma")]
fn products(weights: &mut I2s<'_>, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
    let cols = weights.blocks * BLOCK;
    let mut first = 0;
    while first < n {
        let step = [8, 4, 2, 1].into_iter().find(|step| *step <= n - first).unwrap_or(1);
        let q = &q[first * cols..][..step * cols];
        match step {
            8 => gemm::<8>(weights, q, (out, first)),
            4 => gemm::<4>(weights, q, (out, first)),
            2 => gemm::<2>(weights, q, (out, first)),
            _ => gemv(weights, q, out.of(first)),
        }
        first += step;
    }
}

/// `out` `[rows]` for one activation row.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn gemv(weights: &I2s<'_>, q: &[i8], out: &mut [i32]) {
    let I2s { codes, rows, blocks, .. } = *weights;
    let q_sum = sum(q);
    let q = groups(q);
    let quarter = rows / 4;
    let (a, codes) = codes.split_at(quarter * blocks);
    let (b, codes) = codes.split_at(quarter * blocks);
    let (c, codes) = codes.split_at(quarter * blocks);
    let (d, codes) = codes.split_at(quarter * blocks);
    for i in 0..quarter {
        let row = i * blocks..(i + 1) * blocks;
        let dots = gemv_rows([&a[row.clone()], &b[row.clone()], &c[row.clone()], &d[row]], q);
        for (stream, dot) in lanes_of(add_lanes(dots)).into_iter().enumerate() {
            out[stream * quarter + i] = dot.wrapping_sub(q_sum);
        }
    }
    for (i, out) in out[4 * quarter..].iter_mut().enumerate() {
        let [dot] = gemv_rows([&codes[i * blocks..][..blocks]], q);
        *out = sum_lanes(dot).wrapping_sub(q_sum);
    }
}

/// For each of `R` weight rows, eight int32 that add up to its product with `q`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn gemv_rows<const R: usize>(rows: [&[Lane]; R], q: &[Groups]) -> [__m256i; R] {
    assert!(rows.iter().all(|row| row.len() == q.len()));
    let zero = _mm256_setzero_si256();
    let (mask_low, mask_high) = (_mm256_set1_epi8(0b0011), _mm256_set1_epi8(0b1100));
    let mut total = [zero; R];
    for start in (0..q.len()).step_by(GEMV_BLOCKS) {
        let (mut low, mut high) = ([zero; R], [zero; R]);
        for block in start..(start + GEMV_BLOCKS).min(q.len()) {
            // SAFETY: `block` is below the length of `q`.
            let mut q = unsafe { q.get_unchecked(block) };
            for r in 0..R {
                // SAFETY: every row is as long as `q`; the compiler does not see it and would compare every time.
                let codes = unsafe { rows[r].get_unchecked(block) };
                prefetch(codes);
                let v = load(codes);
                let w = _mm256_srli_epi16::<4>(v);
                q = reload(q);
                let d = _mm256_maddubs_epi16(_mm256_and_si256(v, mask_low), load_i8(&q[3]));
                let b = _mm256_maddubs_epi16(_mm256_and_si256(w, mask_low), load_i8(&q[1]));
                let c = _mm256_maddubs_epi16(_mm256_and_si256(v, mask_high), load_i8(&q[2]));
                let a = _mm256_maddubs_epi16(_mm256_and_si256(w, mask_high), load_i8(&q[0]));
                low[r] = _mm256_add_epi16(low[r], _mm256_add_epi16(d, b));
                high[r] = _mm256_add_epi16(high[r], _mm256_add_epi16(c, a));
            }
        }
        for r in 0..R {
            let sums = _mm256_add_epi16(low[r], _mm256_srai_epi16::<2>(high[r]));
            total[r] = _mm256_add_epi32(total[r], widen(sums));
        }
    }
    total
}

/// Results `first`.. for `C` activation rows, 8, 4 or 2.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn gemm<const C: usize>(weights: &mut I2s<'_>, q: &[i8], (out, first): (&mut Outputs<'_, i32>, usize)) {
    let I2s { codes, rows, blocks, panel, .. } = weights;
    let (rows, blocks) = (*rows, *blocks);
    for (c, q) in q.chunks_exact(blocks * BLOCK).enumerate() {
        out.of(first + c).fill(sum(q).wrapping_neg());
    }
    // As few strips as fit, all of about the same length.
    let length = blocks.div_ceil(blocks.div_ceil(STRIP_BLOCKS));
    for start in (0..blocks).step_by(length) {
        let strip = start..(start + length).min(blocks);
        let panel = fill_panel::<C>(groups(q), blocks, strip.clone(), panel);
        for row in (0..rows).step_by(8) {
            // A matrix that ends within the eight repeats its last row; what comes of it is dropped.
            let kept = (rows - row).min(8);
            let mut eight = [&codes[..0]; 8];
            for (i, codes_of_row) in eight.iter_mut().enumerate() {
                *codes_of_row = &codes[(row + i.min(kept - 1)) * blocks..][strip.clone()];
            }
            for (c, dots) in gemm_rows(eight, panel, 8 * blocks).into_iter().enumerate() {
                add_dots(&mut out.of(first + c)[row..][..kept], dots);
            }
        }
    }
}

/// The strip of `C` activation rows `q` `[C, blocks]` in the order of its use.
#[target_feature(enable = "avx2,fma")]
fn fill_panel<'p, const C: usize>(
    q: &[Groups],
    blocks: usize,
    strip: Range<usize>,
    panel: &'p mut Panel,
) -> &'p [Columns<C>] {
    let panel = &mut panel.0.as_chunks_mut::<C>().0.as_chunks_mut::<4>().0[..strip.len()];
    for (c, q) in q.chunks_exact(blocks).enumerate() {
        for (groups, panel) in q[strip.clone()].iter().zip(&mut *panel) {
            for g in 0..4 {
                panel[g][c] = groups[g];
            }
        }
    }
    panel
}

/// Eight weight rows times each of the `C` columns of a panel.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn gemm_rows<const C: usize>(rows: [&[Lane]; 8], panel: &[Columns<C>], ahead: usize) -> [__m256i; C] {
    let mut dots = [_mm256_setzero_si256(); C];
    if C == 8 {
        let mut sums = [dots[0]; 8];
        for i in 0..8 {
            tile([rows[i]], panel, ahead, &mut sums[i]);
        }
        let [a, b, c, d, e, f, g, h] = sums;
        let (top, bottom) = (transpose([a, b, c, d]), transpose([e, f, g, h]));
        for i in 0..4 {
            dots[i] = _mm256_permute2x128_si256::<0x20>(top[i], bottom[i]);
            dots[4 + i] = _mm256_permute2x128_si256::<0x31>(top[i], bottom[i]);
        }
    } else if C == 4 {
        let mut sums = [dots[0]; 4];
        for i in 0..4 {
            tile([rows[i], rows[4 + i]], panel, ahead, &mut sums[i]);
        }
        dots.copy_from_slice(&transpose(sums));
    } else {
        let mut sums = [dots[0]; 2];
        for i in 0..2 {
            tile(
                [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]],
                panel,
                ahead,
                &mut sums[i],
            );
        }
        let columns = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
        let top = _mm256_permutevar8x32_epi32(sums[0], columns);
        let bottom = _mm256_permutevar8x32_epi32(sums[1], columns);
        dots[0] = _mm256_permute2x128_si256::<0x20>(top, bottom);
        dots[1] = _mm256_permute2x128_si256::<0x31>(top, bottom);
    }
    dots
}

/// `dots` = eight products of `R` weight rows with `C` columns, at most [`STRIP_BLOCKS`] blocks each. Never inlined:
/// copies of it side by side would be compiled as one, with more values alive than there are registers.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn tile<const R: usize, const C: usize>(
    rows: [&[Lane]; R],
    panel: &[Columns<C>],
    ahead: usize,
    dots: &mut __m256i,
) {
    assert!(rows.iter().all(|row| row.len() == panel.len()));
    let mask = _mm256_set1_epi8(0b11);
    let mut sums = [[_mm256_setzero_si256(); C]; R];
    for (block, columns) in panel.iter().enumerate() {
        for r in 0..R {
            // SAFETY: every row is as long as the panel; the compiler does not see it and would compare every time.
            let codes = unsafe { rows[r].get_unchecked(block) };
            prefetch_line(codes, ahead);
            let v = load(codes);
            let shifted =
                [_mm256_srli_epi16::<6>(v), _mm256_srli_epi16::<4>(v), _mm256_srli_epi16::<2>(v), v];
            let columns = reload(columns);
            for g in 0..4 {
                let u = _mm256_and_si256(shifted[g], mask);
                for c in 0..C {
                    sums[r][c] = add_products(sums[r][c], u, load_i8(&columns[g][c]));
                }
            }
        }
    }
    let &[a, b, c, d, e, f, g, h] = sums.as_flattened() else { unreachable!("R * C is 8") };
    let low = add_pairs([widen(a), widen(b), widen(c), widen(d)]);
    let high = add_pairs([widen(e), widen(f), widen(g), widen(h)]);
    let lanes = _mm256_permute2x128_si256::<0x20>(low, high);
    *dots = _mm256_add_epi32(lanes, _mm256_permute2x128_si256::<0x31>(low, high));
}

/// Lane i of vector j becomes lane j of vector i, in both halves.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab_low, cd_low),
        _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// `out` += the first of eight int32.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_dots(out: &mut [i32], dots: __m256i) {
    if let Ok(out) = <&mut [i32; 8]>::try_from(&mut *out) {
        let at = out.as_mut_ptr().cast();
        // SAFETY: the array is 32 bytes; an unaligned load and store.
        unsafe { _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), dots)) };
    } else {
        let halves = [_mm256_castsi256_si128(dots), _mm256_extracti128_si256::<1>(dots)];
        for (out, dot) in out.iter_mut().zip([lanes_of(halves[0]), lanes_of(halves[1])].as_flattened()) {
            *out = out.wrapping_add(*dot);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn has_code_3(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |found, &byte| found | code_3(byte)) != 0
}

/// Sum of a row of activations, which fits int32 for every K a backend accepts.
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum(q: &[i8]) -> i32 {
    let mut sums = _mm256_setzero_si256();
    for q in groups(q).as_flattened() {
        sums = _mm256_add_epi32(sums, widen(_mm256_maddubs_epi16(_mm256_set1_epi8(1), load_i8(q))));
    }
    sum_lanes(sums)
}

/// int16 sums + pairs of u * q, in the register where the sums are.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_products(mut sums: __m256i, u: __m256i, q: __m256i) -> __m256i {
    let products = _mm256_maddubs_epi16(u, q);
    // SAFETY: adds one register to another; the instruction is part of AVX2, which this function requires.
    unsafe {
        asm!(
            "vpaddw {sums}, {sums}, {products}",
            sums = inout(ymm_reg) sums,
            products = in(ymm_reg) products,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The same activations, to be loaded again: a multiplication takes them from L1 at no cost, and the registers
/// they would occupy are needed for sums.
#[inline]
pub(super) fn reload<T>(q: &T) -> &T {
    let mut q: *const T = q;
    // SAFETY: no instruction; the pointer comes back as it was.
    unsafe {
        asm!("/* {q} */", q = inout(reg) q, options(readonly, nostack, preserves_flags));
        &*q
    }
}

/// Eight int32 that add up to sixteen int16.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widen(sums: __m256i) -> __m256i {
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}

/// The total of eight int32.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum_lanes(v: __m256i) -> i32 {
    lanes_of(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)))
        .into_iter()
        .fold(0, i32::wrapping_add)
}

/// The four totals of four vectors of eight int32.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_lanes(vectors: [__m256i; 4]) -> __m128i {
    let quarters = add_pairs(vectors);
    _mm_add_epi32(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256::<1>(quarters))
}

/// The same, of each half.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_pairs([a, b, c, d]: [__m256i; 4]) -> __m256i {
    _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d))
}

/// Activations of whole blocks.
pub(super) fn groups(q: &[i8]) -> &[Groups] {
    q.as_chunks::<32>().0.as_chunks::<4>().0
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn load(bytes: &Lane) -> __m256i {
    // SAFETY: the array is 32 bytes; an unaligned load.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn load_i8(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: the array is 32 bytes; an unaligned load.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn lanes_of(v: __m128i) -> [i32; 4] {
    let mut lanes = [0; 4];
    // SAFETY: the array is 16 bytes; an unaligned store.
    unsafe { _mm_storeu_si128(lanes.as_mut_ptr().cast(), v) };
    lanes
}

/// Asks for the cache line [`PREFETCH_BYTES`] further on.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn prefetch(at: &Lane) {
    prefetch_line(at, PREFETCH_BYTES / size_of::<Lane>());
}

/// Asks for the cache line `ahead` blocks further on.
#[inline]
#[target_feature(enable = "avx2,fma")]
#[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
pub(super) fn prefetch_line(at: &Lane, ahead: usize) {
    // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).wrapping_add(ahead).cast()) }
}
