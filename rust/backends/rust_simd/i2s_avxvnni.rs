//! I2_S on AVX-VNNI, straight on the original bytes: as `i2s_avx2`, with `vpdpbusd` instead of a multiplication and two
//! additions, in int32 from the start. sum(q) is taken off once per activation row; sums may wrap on the way.
//!
//! Up to five activation rows go one by one (`gemv`): of v and v >> 4, `& 3` gives two groups as they are, `& 12` the
//! other two times 4, which are summed apart (at most 2^24 columns / 128 * 8192 = 2^30) and joined as low + high / 4,
//! without a remainder. Four far weight rows, two sums each: more would not fit the registers.
//!
//! More (`gemm`): 32 weight rows x 256 columns are transposed, dword by dword, and unpacked to a panel.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::detect::AvxVnni;
use super::Product;
use super::i2s_avx2::{
    self, BLOCK, Groups, Lane, add_lanes, groups, lanes_of, load, load_i8, prefetch, reload, sum_lanes,
};
use super::panel_avxvnni;
use super::tl_avx2::{Panel, Quad, store};
use crate::bitnet::formats::Weights;
use crate::team::Outputs;

/// Activation rows up to which unpacking to a panel costs more than it gives.
const MAX_GEMV_ROWS: usize = 5;
/// Blocks of a strip: a panel has 64 quads of columns.
const STRIP_BLOCKS: usize = 2;
/// Weight rows of a panel.
const ROWS: usize = 32;
/// Dwords of a block of one row.
const DWORDS: usize = 8;
/// The rows of the eight dwords of each vector of a quad.
const ROW_ORDER: [[usize; 8]; 4] = [
    [0, 1, 2, 3, 8, 9, 10, 11],
    [4, 5, 6, 7, 12, 13, 14, 15],
    [16, 17, 18, 19, 24, 25, 26, 27],
    [20, 21, 22, 23, 28, 29, 30, 31],
];

/// I2_S weights, read in place, with room for a panel.
struct I2s<'a> {
    /// The proof that [`Product::run`] needs.
    _token: AvxVnni,
    /// `[rows, cols / 128]`
    codes: &'a [Lane],
    rows: usize,
    blocks: usize,
    panel: Box<Panel>,
}

/// Allocates for some of the rows of weights whose codes were found valid; they are used where they are.
pub(super) fn part<'a>(token: AvxVnni, weights: &Weights<'a>, rows: Range<usize>) -> Box<dyn Product + 'a> {
    let blocks = weights.layout().cols() / BLOCK;
    Box::new(I2s {
        _token: token,
        codes: &i2s_avx2::lanes_of_codes(weights)[rows.start * blocks..rows.end * blocks],
        rows: rows.len(),
        blocks,
        panel: Box::new([[[0; 32]; 4]; 64]),
    })
}

impl Product for I2s<'_> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        // SAFETY: the token proves that this CPU runs AVX2, FMA and AVX-VNNI.
        unsafe {
            if n <= MAX_GEMV_ROWS {
                for (i, q) in q.chunks_exact(self.blocks * BLOCK).enumerate() {
                    gemv(self, q, out.of(i));
                }
            } else {
                gemm(self, q, out);
            }
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Panel>()
    }
}

/// `out` `[rows]` for one activation row.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn gemv(weights: &I2s<'_>, q: &[i8], out: &mut [i32]) {
    let I2s { codes, rows, blocks, .. } = *weights;
    let q_sum = i2s_avx2::sum(q);
    let q = groups(q);
    let quarter = rows / 4;
    for i in 0..quarter {
        let four = [0, 1, 2, 3].map(|stream| &codes[(stream * quarter + i) * blocks..][..blocks]);
        let dots = gemv_rows(four, q);
        for (stream, dot) in lanes_of(add_lanes(dots)).into_iter().enumerate() {
            out[stream * quarter + i] = dot.wrapping_sub(q_sum);
        }
    }
    for row in 4 * quarter..rows {
        let [dot] = gemv_rows([&codes[row * blocks..][..blocks]], q);
        out[row] = sum_lanes(dot).wrapping_sub(q_sum);
    }
}

/// For each of `R` weight rows, eight int32 that add up to its product with `q`.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn gemv_rows<const R: usize>(rows: [&[Lane]; R], q: &[Groups]) -> [__m256i; R] {
    assert!(rows.iter().all(|row| row.len() == q.len()));
    let (mask_low, mask_high) = (_mm256_set1_epi8(0b0011), _mm256_set1_epi8(0b1100));
    let (mut low, mut high) = ([_mm256_setzero_si256(); R], [_mm256_setzero_si256(); R]);
    for block in 0..q.len() {
        // SAFETY: `block` is below the length of `q`.
        let mut q = unsafe { q.get_unchecked(block) };
        for r in 0..R {
            // SAFETY: every row is as long as `q`; the compiler does not see it and would compare every time.
            let codes = unsafe { rows[r].get_unchecked(block) };
            prefetch(codes);
            let v = load(codes);
            let w = _mm256_srli_epi16::<4>(v);
            q = reload(q);
            low[r] = _mm256_dpbusd_avx_epi32(low[r], _mm256_and_si256(v, mask_low), load_i8(&q[3]));
            high[r] = _mm256_dpbusd_avx_epi32(high[r], _mm256_and_si256(v, mask_high), load_i8(&q[2]));
            low[r] = _mm256_dpbusd_avx_epi32(low[r], _mm256_and_si256(w, mask_low), load_i8(&q[1]));
            high[r] = _mm256_dpbusd_avx_epi32(high[r], _mm256_and_si256(w, mask_high), load_i8(&q[0]));
        }
    }
    for r in 0..R {
        low[r] = _mm256_add_epi32(low[r], _mm256_srai_epi32::<2>(high[r]));
    }
    low
}

/// The results of all activation rows.
#[target_feature(enable = "avx2,fma,avxvnni")]
fn gemm(weights: &mut I2s<'_>, q: &[i8], out: &mut Outputs<'_, i32>) {
    let I2s { codes, rows, blocks, panel, .. } = weights;
    let (rows, blocks, cols) = (*rows, *blocks, *blocks * BLOCK);
    for (i, q) in q.chunks_exact(cols).enumerate() {
        out.of(i).fill(i2s_avx2::sum(q).wrapping_neg());
    }
    for row in (0..rows).step_by(ROWS) {
        // A matrix that ends within the panel repeats its last row; what comes of it is dropped.
        let mut lines = [&codes[..0]; ROWS];
        for (r, line) in lines.iter_mut().enumerate() {
            *line = &codes[(row + r).min(rows - 1) * blocks..][..blocks];
        }
        for block in (0..blocks).step_by(STRIP_BLOCKS) {
            let strip = block..(block + STRIP_BLOCKS).min(blocks);
            let quads = fill_panel(&lines, strip, panel);
            panel_avxvnni::add_panel(quads, (q, cols, block * BLOCK), (out, row));
        }
    }
}

/// The blocks of a strip of 32 rows as a panel.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn fill_panel<'p>(rows: &[&[Lane]; ROWS], strip: Range<usize>, panel: &'p mut Panel) -> &'p [Quad] {
    assert!(rows.iter().all(|row| row.len() >= strip.end));
    let quads = &mut panel[..strip.len() * 4 * DWORDS];
    let mask = _mm256_set1_epi8(3);
    for (v, order) in ROW_ORDER.iter().enumerate() {
        for (block, quads) in strip.clone().zip(quads.as_chunks_mut::<{ 4 * DWORDS }>().0) {
            // SAFETY: every row reaches to the end of the strip; the compiler would compare every time.
            let dwords = transpose(order.map(|row| unsafe { rows[row].get_unchecked(block) }));
            for (j, codes) in dwords.into_iter().enumerate() {
                let shifted = [
                    _mm256_srli_epi16::<6>(codes),
                    _mm256_srli_epi16::<4>(codes),
                    _mm256_srli_epi16::<2>(codes),
                    codes,
                ];
                for (g, shifted) in shifted.into_iter().enumerate() {
                    store(&mut quads[g * DWORDS + j][v], _mm256_and_si256(shifted, mask));
                }
            }
        }
    }
    for row in rows {
        prefetch_line(row.as_ptr().wrapping_add(strip.end));
    }
    quads
}

/// Vector j holds dword j of eight rows of 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn transpose(rows: [&Lane; 8]) -> [__m256i; DWORDS] {
    let r = rows.map(|row| load(row));
    // Within lanes of 128 bits: dwords of four rows ...
    let mut t = r;
    for i in [0, 4] {
        let (ab_low, ab_high) =
            (_mm256_unpacklo_epi32(r[i], r[i + 1]), _mm256_unpackhi_epi32(r[i], r[i + 1]));
        let (cd_low, cd_high) =
            (_mm256_unpacklo_epi32(r[i + 2], r[i + 3]), _mm256_unpackhi_epi32(r[i + 2], r[i + 3]));
        t[i] = _mm256_unpacklo_epi64(ab_low, cd_low);
        t[i + 1] = _mm256_unpackhi_epi64(ab_low, cd_low);
        t[i + 2] = _mm256_unpacklo_epi64(ab_high, cd_high);
        t[i + 3] = _mm256_unpackhi_epi64(ab_high, cd_high);
    }
    // ... then lanes.
    let mut dwords = t;
    for i in 0..4 {
        dwords[i] = _mm256_permute2x128_si256::<0x20>(t[i], t[i + 4]);
        dwords[i + 4] = _mm256_permute2x128_si256::<0x31>(t[i], t[i + 4]);
    }
    dwords
}

/// Asks for a cache line.
#[inline]
#[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
fn prefetch_line(at: *const Lane) {
    // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}
