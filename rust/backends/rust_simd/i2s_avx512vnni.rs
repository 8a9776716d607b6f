//! I2_S on AVX-512 VNNI, straight on the original bytes (`docs/FORMATS.md` 2): byte b of a block of 128 columns holds
//! the codes of columns b, 32 + b, 64 + b, 96 + b in bits 7:6, 5:4, 3:2, 1:0. `vpdpbusd` multiplies codes in their
//! stored form u = 0, 1, 2 with int8 activations and adds four products to an int32 without saturation; sum(q) is taken
//! off once per activation row. int32 sums may wrap on the way: the difference is right modulo 2^32, and it fits.
//!
//! One activation row (`one`): codes are cut out where they stand in their byte, 64, 16, 4 or 1 times what they are, into a
//! sum for each place, and the sums are shifted once at the end.
//!
//! 64 bytes are two blocks, so the activations are laid out once in the same order, 256 columns as four vectors by group; an
//! odd block of weights is followed by half a vector of zeros. One activation row meets four weight rows a quarter of the part
//! apart: four streams from memory, each prefetched ahead.
//!
//! Some activation rows: `i2s_some_avx512vnni`, and without GFNI, for more of them, `i2s_packed_avx512vnni`.
//!
//! More (`fill_panel`): 64 weight rows x 512 columns are transposed, dword by dword, and unpacked to a panel, which
//! `panel_avx512vnni` multiplies. Transposing comes first: a packed dword stands for sixteen codes. Unpacking is one
//! instruction for each group where there is GFNI, else a shift and an AND.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::detect::{Avx512Vbmi, Avx512Vnni};
use super::i2s_transpose_avx512::{DWORDS, SixteenRows};
use super::panel_avx512vnni::{self as panel, LANES, Packed, Panel, Quad, load, load_i8};
use super::{Product, i2s_avx2, i2s_packed_avx512vnni as packed, i2s_some_avx512vnni as some};
use crate::bitnet::formats::Weights;
use crate::team::Outputs;

use i2s_avx2::{BLOCK, Lane};

/// The activations of two blocks, by group. Aligned: a vector across two cache lines is two loads.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Groups(pub [[i8; 64]; 4]);

/// How far ahead of its use a weight row is fetched, in bytes.
const PREFETCH_BYTES: usize = 1536;
/// Blocks of a row, some four million columns, whose products, up to 64 * 2 * 128 each and four to a lane from every two,
/// add up within int32; half of them.
const MAX_SHIFTED_BLOCKS: usize = 1 << 15;
/// Quads of a block: each dword holds four codes of four columns.
pub(super) const BLOCK_QUADS: usize = 4 * DWORDS;

/// I2_S weights, read in place, with room for activations in the order of their use and for a panel.
pub(super) struct I2s<'a> {
    /// The proof that [`Product::run`] needs.
    _token: Avx512Vnni,
    /// `[rows, cols / 128]`
    codes: &'a [Lane],
    rows: usize,
    blocks: usize,
    way: Way,
    /// Room for one activation row, or for a strip of some.
    groups: Vec<Groups>,
    /// Where some activation rows meet it.
    packed: Option<Box<packed::Panel>>,
    panel: Box<Panel>,
}

/// Which instructions and loops: whichever it is, the results are the same.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// Up to so many activation rows meet the bytes where they stand.
    pub most_rows: usize,
    /// Up to so many meet panels of packed bytes, and more of them panels of unpacked ones ...
    pub most_packed_rows: usize,
    /// ... unpacked by GFNI, where there is a proof of it.
    pub gfni: Option<Avx512Vbmi>,
}

/// Allocates for some of the rows of weights whose codes were found valid; they are used where they are.
pub(super) fn part<'a>(
    token: Avx512Vnni,
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
) -> Box<dyn Product + 'a> {
    let gfni = Avx512Vbmi::detect().ok();
    // Measured on Cascade Lake; where there is GFNI, unpacking takes little.
    let most_packed_rows = if gfni.is_some() { 0 } else { packed::MAX_ROWS };
    let most_rows = some::most_rows((token, gfni), weights.layout().cols());
    let way = Way { most_rows, most_packed_rows, gfni };
    Box::new(choosing(token, weights, rows, n_max, way))
}

/// [`part`] in that way.
pub(super) fn choosing<'a>(
    token: Avx512Vnni,
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
    way: Way,
) -> I2s<'a> {
    let blocks = weights.layout().cols() / BLOCK;
    let pairs = blocks.div_ceil(2);
    I2s {
        _token: token,
        codes: &i2s_avx2::lanes_of_codes(weights)[rows.start * blocks..rows.end * blocks],
        rows: rows.len(),
        blocks,
        way,
        groups: vec![Groups([[0; 64]; 4]); pairs.max(some::room(n_max.min(way.most_rows), pairs))],
        packed: (n_max.min(way.most_packed_rows) > way.most_rows).then(packed::Panel::new),
        panel: Panel::new(),
    }
}

impl Product for I2s<'_> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        // SAFETY: the token proves that this CPU has these features.
        unsafe {
            match n {
                1 if self.blocks <= MAX_SHIFTED_BLOCKS => one(self, q, out),
                2.. if n <= self.way.most_rows => {
                    let I2s { codes, blocks, ref mut groups, .. } = *self;
                    some::multiply(codes, blocks, (q, n), groups, out);
                }
                _ => {
                    let I2s { codes, rows, blocks, way, ref mut packed, ref mut panel, .. } = *self;
                    match packed {
                        Some(packed) if n <= way.most_packed_rows => {
                            packed::multiply(codes, blocks, (q, n), packed, out);
                        }
                        _ => panel::multiply(&Rows { codes, rows, blocks, gfni: way.gfni }, q, panel, out),
                    }
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        let packed = self.packed.as_deref().map_or(0, size_of_val);
        size_of_val(&*self.groups) + packed + size_of_val(&*self.panel)
    }
}

/// The results of one activation row. It divides nowhere: a short row takes not much longer than a few divisions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn one(weights: &mut I2s<'_>, q: &[i8], out: &mut Outputs<'_, i32>) {
    let I2s { codes, rows, blocks, ref mut groups, .. } = *weights;
    let groups = &mut groups[..blocks.div_ceil(2)];
    lay_out(q, groups);
    let (q, q_sum, out) = (&*groups, panel::sum(q), &mut out.of(0)[..rows]);
    // All that the loop relies on, checked once: of short rows, checks for every four take a tenth of the time.
    assert!(codes.len() == rows * blocks && q.len() == blocks.div_ceil(2));
    let quarter = rows / 4;
    let row = |index: usize| codes.as_ptr().wrapping_add(index * blocks);
    let mut four = [row(0), row(quarter), row(2 * quarter), row(3 * quarter)];
    let offset = _mm_set1_epi32(q_sum);
    for i in 0..quarter {
        // SAFETY: each row has as many blocks, and `q` the pairs of them.
        let dots = add_lanes(unsafe { one_rows(four, blocks, q) });
        let mut four_dots = [0; 4];
        // SAFETY: the array is 16 bytes; an unaligned store.
        unsafe { _mm_storeu_si128(four_dots.as_mut_ptr().cast(), _mm_sub_epi32(dots, offset)) };
        for (stream, dot) in four_dots.into_iter().enumerate() {
            // SAFETY: four quarters of the rows are results.
            unsafe { *out.get_unchecked_mut(stream * quarter + i) = dot };
        }
        for four in &mut four {
            *four = four.wrapping_add(blocks);
        }
    }
    for (i, out) in out.iter_mut().enumerate().skip(4 * quarter) {
        // SAFETY: a row, as above.
        let [dots] = unsafe { one_rows([row(i)], blocks, q) };
        *out = _mm512_reduce_add_epi32(dots).wrapping_sub(q_sum);
    }
}

/// For each of `R` weight rows, sixteen int32 that add up to its product with one activation row. Codes are cut out where
/// they stand in their byte, 64, 16, 4 or 1 times what they are, and each place has its sum: one shift at the end.
///
/// # Safety
/// Every row has `blocks` blocks, and `q` the pairs of them, the odd one counted.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn one_rows<const R: usize>(rows: [*const Lane; R], blocks: usize, q: &[Groups]) -> [__m512i; R] {
    let mut sums = [[_mm512_setzero_si512(); 4]; R];
    for pair in 0..blocks / 2 {
        // SAFETY: the caller's.
        let q = unsafe { q.get_unchecked(pair) };
        for r in 0..R {
            // SAFETY: two blocks of the row.
            let two: &[u8; 64] = unsafe { &*rows[r].add(2 * pair).cast() };
            prefetch(two);
            add_in_place(&mut sums[r], load(two), q);
        }
    }
    let mut dots = [_mm512_setzero_si512(); R];
    for r in 0..R {
        if blocks % 2 == 1 {
            // SAFETY: the last block of the row, and what it meets.
            let (last, q) = unsafe { (&*rows[r].add(blocks - 1), q.get_unchecked(blocks / 2)) };
            add_in_place(&mut sums[r], _mm512_zextsi256_si512(load_block(last)), q);
        }
        dots[r] = shift_down(sums[r]);
    }
    dots
}

/// Adds the products of 256 columns, of each group as many times too large as its place in a byte makes it.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_in_place(sums: &mut [__m512i; 4], codes: __m512i, q: &Groups) {
    for (g, mask) in [0xc0_u8, 0x30, 0x0c, 0x03].into_iter().enumerate() {
        let shifted = _mm512_and_si512(codes, _mm512_set1_epi8(mask.cast_signed()));
        sums[g] = _mm512_dpbusd_epi32(sums[g], shifted, load_i8(&q.0[g]));
    }
}

/// The sum of what [`add_in_place`] made, each part as large as it should be.
#[inline]
#[target_feature(enable = "avx512f")]
fn shift_down([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_srai_epi32::<6>(a), _mm512_srai_epi32::<4>(b));
    _mm512_add_epi32(ab, _mm512_add_epi32(_mm512_srai_epi32::<2>(c), d))
}

/// Two blocks of activations by group. Beside a block without a neighbour stays what was there: it meets zeros.
#[target_feature(enable = "avx512f")]
pub(super) fn lay_out(q: &[i8], groups: &mut [Groups]) {
    let (blocks, _) = q.as_chunks::<BLOCK>();
    for (pair, groups) in blocks.chunks(2).zip(groups) {
        for (half, block) in pair.iter().enumerate() {
            for (group, q) in groups.0.iter_mut().zip(block.as_chunks::<32>().0) {
                group[32 * half..][..32].copy_from_slice(q);
            }
        }
    }
}

/// The two-bit codes in bits 7:6, 5:4, 3:2 and 1:0, u = 0, 1, 2 in every byte.
#[inline]
#[target_feature(enable = "avx512f,gfni")]
pub(super) fn unpack(codes: __m512i) -> [__m512i; 4] {
    [
        _mm512_gf2p8affine_epi64_epi8::<0>(codes, _mm512_set1_epi64(bits_to_bottom(6))),
        _mm512_gf2p8affine_epi64_epi8::<0>(codes, _mm512_set1_epi64(bits_to_bottom(4))),
        _mm512_gf2p8affine_epi64_epi8::<0>(codes, _mm512_set1_epi64(bits_to_bottom(2))),
        _mm512_and_si512(codes, _mm512_set1_epi8(3)),
    ]
}

/// The same by shifts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack_by_shifts(codes: __m512i) -> [__m512i; 4] {
    let three = _mm512_set1_epi8(3);
    [
        _mm512_and_si512(_mm512_srli_epi16::<6>(codes), three),
        _mm512_and_si512(_mm512_srli_epi16::<4>(codes), three),
        _mm512_and_si512(_mm512_srli_epi16::<2>(codes), three),
        _mm512_and_si512(codes, three),
    ]
}

/// The 8 x 8 bit matrix that moves bits `shift` and `shift` + 1 of a byte to the bottom: its last byte makes bit 0.
const fn bits_to_bottom(shift: u32) -> i64 {
    (1 << (56 + shift)) | (1 << (48 + shift + 1))
}

/// The totals of four vectors of sixteen int32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn add_lanes([a, b, c, d]: [__m512i; 4]) -> __m128i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
    _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

/// Rows that a panel is filled from.
struct Rows<'a> {
    codes: &'a [Lane],
    rows: usize,
    blocks: usize,
    gfni: Option<Avx512Vbmi>,
}

impl Packed for Rows<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.blocks * BLOCK)
    }

    fn strip(&self, col: usize, most: usize) -> usize {
        most.min(self.blocks * BLOCK - col)
    }

    unsafe fn fill(&self, row: usize, kept: usize, cols: Range<usize>, panel: &mut [Quad]) {
        let strip = cols.start / BLOCK..cols.end / BLOCK;
        // SAFETY: the caller vouches for the CPU, and the token for GFNI.
        unsafe {
            match self.gfni {
                Some(_) => fill_panel(self.codes, self.blocks, row..row + kept, strip, panel),
                None => fill_panel_by_shifts(self.codes, self.blocks, row..row + kept, strip, panel),
            }
        }
    }
}

/// A function that unpacks a panel. Code compiled for an instruction set is inlined only into such for the same or more.
macro_rules! fill_panel {
    ($name:ident, $features:literal, $unpack:ident) => {
        /// The blocks of a strip of some rows of codes `[.., blocks]` as a panel. Where they end within a vector, the last one
        /// is repeated; what comes of it is dropped.
        #[inline(never)]
        #[target_feature(enable = $features)]
        pub(super) fn $name(
            codes: &[Lane],
            blocks: usize,
            rows: Range<usize>,
            strip: Range<usize>,
            quads: &mut [Quad],
        ) {
            for (v, first) in rows.clone().step_by(LANES).enumerate() {
                let sixteen =
                    SixteenRows::new(codes, blocks, first..rows.end.min(first + LANES), &strip, panel::ROWS);
                for (block, quads) in
                    quads.as_chunks_mut::<BLOCK_QUADS>().0.iter_mut().take(strip.len()).enumerate()
                {
                    for (j, dword) in sixteen.transposed(block).into_iter().enumerate() {
                        for (g, u) in $unpack(dword).into_iter().enumerate() {
                            store(&mut quads[g * DWORDS + j][v], u);
                        }
                    }
                }
            }
        }
    };
}

fill_panel!(fill_panel, "avx512f,avx512bw,avx512vl,avx512vnni,gfni", unpack);
fill_panel!(fill_panel_by_shifts, "avx512f,avx512bw,avx512vl,avx512vnni", unpack_by_shifts);

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_block(codes: &Lane) -> __m256i {
    // SAFETY: the array is 32 bytes; an unaligned load.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: the array is 64 bytes; an unaligned store.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// Asks for the cache line [`PREFETCH_BYTES`] further on.
#[inline]
fn prefetch(at: &[u8; 64]) {
    panel::prefetch_line(at.as_ptr().wrapping_add(PREFETCH_BYTES));
}
