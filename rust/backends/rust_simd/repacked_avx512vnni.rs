//! I2_S on AVX-512 VNNI, repacked when it is prepared to the order in which products read it (`docs/FORMATS.md`, Repacked
//! orders): tiles of 64 rows, lines of four bytes for each of sixteen rows, `Q` codes in a byte: four of two bits (r64), or
//! five trits (t5). Everything but the taking apart of a byte is the same code.
//!
//! ```text
//! for each step of 4 Q columns:    Q quads of activations, each four of them sixteen times
//!   for each line of the tile:     one load gives Q vectors of sixteen rows by four columns
//!     sum[line] += vector . quad   Q vpdpbusd, exact int32: no adding up across lanes at the end, no transposing ever
//! ```
//!
//! Few activation rows (`direct`) are multiplied with codes in registers, four at a time. A single one meets four tiles a
//! quarter of the matrix apart: four streams from memory, each prefetched ahead. Many pass the panel of
//! `panel_avx512vnni`, which is only unpacked here. As there, codes are u = code + 1, and sum(q) is taken off modulo 2^32.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::checks;
use super::super::detect::Avx512Vbmi;
use super::i2s_avx2::{BLOCK, Lane, lanes_of_codes};
use super::i2s_avx512vnni::{BLOCK_QUADS, fill_panel, store, unpack};
use super::isa::{Isa, Made};
use super::panel_avx512vnni::{self as panel, LANES, Packed, Panel, Quad, ROWS, broadcast, load};
use super::{Product, t5_avx512vnni};
use crate::bitnet::formats::Weights;
use crate::bitnet::formats::repacked::Repacked;
use crate::team::Outputs;

/// The token of an instruction set over weights repacked to `Q` codes per byte.
#[derive(Clone, Copy, Debug)]
pub struct Repacking<const Q: usize>(pub(super) Avx512Vbmi);

impl<const Q: usize> Repacking<Q> {
    /// What it repacks to.
    pub(super) const ORDER: Repacked = match Q {
        4 => Repacked::R64,
        5 => Repacked::T5,
        _ => panic!("no order has so many codes in a byte"),
    };
}

/// Activation rows that meet a tile of weights at a time: sixteen sums. With 24 some would be spilled.
const TILE: usize = 4;
/// How far ahead of its use a line is fetched.
const PREFETCH_LINES: usize = 2048 / 64;
/// Lines of a step of a tile.
const LINES: usize = ROWS / LANES;
/// Blocks that are repacked at a time: their 640 columns are whole steps of either order.
const STRIP_BLOCKS: usize = 5;

/// `Q` times four columns of sixteen rows.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// The lines of a step.
type Step = [Line; LINES];
/// Sums of sixteen rows for each line of a tile.
type Sums = [__m512i; LINES];

/// Repacked weights, with room for activations in whole steps and for a panel.
struct Tiles<const Q: usize> {
    /// The proof that [`Product::run`] needs.
    _token: Avx512Vbmi,
    /// `[rows / 64, cols / 4 Q]`, both rounded up.
    steps: Vec<Step>,
    rows: usize,
    cols: usize,
    /// Room for [`Columns`].
    padded: Vec<[i8; 4]>,
    sums: Vec<i32>,
    panel: Box<Panel>,
}

/// Repacks some of the rows of weights whose codes were found valid.
pub(super) fn part<'a, const Q: usize>(
    token: Repacking<Q>,
    weights: &Weights<'a>,
    rows: Range<usize>,
    n_max: usize,
) -> Made<'a> {
    let cols = weights.layout().cols();
    let blocks = cols / BLOCK;
    let tile_steps = cols.div_ceil(4 * Q);
    let mut steps = checks::zeros(Repacking::<Q>::NAME, rows.len().div_ceil(ROWS), tile_steps)?;
    let codes = &lanes_of_codes(weights)[rows.start * blocks..rows.end * blocks];
    // SAFETY: the token proves that this CPU has these features.
    unsafe { repack::<Q>(codes, blocks, &mut steps) };
    Ok(Box::new(Tiles::<Q> {
        _token: token.0,
        steps,
        rows: rows.len(),
        cols,
        padded: vec![[0; 4]; n_max.min(Tiles::<Q>::MAX_DIRECT_ROWS) * tile_steps * Q],
        sums: vec![0; n_max.min(Tiles::<Q>::MAX_DIRECT_ROWS)],
        panel: Panel::new(),
    }))
}

impl<const Q: usize> Tiles<Q> {
    /// Activation rows up to which taking bytes apart for each four of them is faster than doing it once for a panel
    /// (measured). Five trits take more than twice as long as four codes of two bits.
    const MAX_DIRECT_ROWS: usize = if Q == 5 { TILE } else { 8 * TILE };
}

impl<const Q: usize> Product for Tiles<Q> {
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
        // SAFETY: the token proves that this CPU has these features.
        unsafe {
            if n <= Self::MAX_DIRECT_ROWS {
                direct(self, q, n, out);
            } else {
                let Self { steps, rows, cols, panel, .. } = self;
                panel::multiply(&Rows::<Q> { steps, rows: *rows, cols: *cols }, q, panel, out);
            }
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.steps)
            + size_of_val(&*self.padded)
            + size_of_val(&*self.sums)
            + size_of_val(&*self.panel)
    }
}

/// Codes `[rows, blocks]` as tiles. Rows beyond the last repeat it, columns beyond the last hold code 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,gfni")]
fn repack<const Q: usize>(codes: &[Lane], blocks: usize, steps: &mut [Step]) {
    let mut quads: Vec<Quad> = vec![[[1; 4 * LANES]; LINES]; STRIP_BLOCKS * BLOCK_QUADS];
    let mut padded = Vec::new();
    let tiles = codes.chunks(ROWS * blocks).zip(steps.chunks_mut((blocks * BLOCK).div_ceil(4 * Q)));
    for (mut codes, steps) in tiles {
        if codes.len() < ROWS * blocks {
            padded.extend_from_slice(codes);
            while padded.len() < ROWS * blocks {
                padded.extend_from_slice(&codes[codes.len() - blocks..]);
            }
            codes = &padded;
        }
        let strips = (0..blocks).step_by(STRIP_BLOCKS).zip(steps.chunks_mut(STRIP_BLOCKS * BLOCK / (4 * Q)));
        for (block, steps) in strips {
            let strip = block..(block + STRIP_BLOCKS).min(blocks);
            let (filled, behind) = quads.split_at_mut(strip.len() * BLOCK_QUADS);
            fill_panel(codes, blocks, 0..ROWS, strip, filled);
            behind.fill([[1; 4 * LANES]; LINES]);
            for (step, quads) in steps.iter_mut().zip(quads.as_chunks::<Q>().0) {
                for (v, line) in step.iter_mut().enumerate() {
                    store(&mut line.0, join(quads, v));
                }
            }
        }
    }
}

/// Vector `v` of `Q` quads as one line.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn join<const Q: usize>(quads: &[Quad; Q], v: usize) -> __m512i {
    let mut line = _mm512_setzero_si512();
    for g in 0..Q {
        let twice = _mm512_add_epi8(line, line);
        line = if Q == 5 {
            _mm512_add_epi8(_mm512_add_epi8(twice, line), load(&quads[Q - 1 - g][v]))
        } else {
            _mm512_add_epi8(_mm512_add_epi8(twice, twice), load(&quads[g][v]))
        };
    }
    line
}

/// What [`join`] joined.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
fn take_apart<const Q: usize>(line: &Line) -> [__m512i; Q] {
    let line = load(&line.0);
    let mut vectors = [_mm512_setzero_si512(); Q];
    if Q == 5 {
        vectors.copy_from_slice(&t5_avx512vnni::split(line));
    } else {
        vectors.copy_from_slice(&unpack(line));
    }
    vectors
}

/// Activation rows in whole steps, zeros behind the last column.
#[derive(Clone, Copy)]
struct Columns<'a> {
    /// `[n, quads]`
    padded: &'a [[i8; 4]],
    quads: usize,
    sums: &'a [i32],
}

impl<'a> Columns<'a> {
    /// `C` of them, and their sums.
    fn some<const C: usize>(self, first: usize) -> ([&'a [[i8; 4]]; C], &'a [i32]) {
        let mut some = [self.padded; C];
        for (some, padded) in some.iter_mut().zip(self.padded.chunks_exact(self.quads).skip(first)) {
            *some = padded;
        }
        (some, &self.sums[first..first + C])
    }
}

/// The results of few activation rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,gfni")]
fn direct<const Q: usize>(weights: &mut Tiles<Q>, q: &[i8], n: usize, out: &mut Outputs<'_, i32>) {
    let Tiles { steps, rows, cols, padded, sums, .. } = weights;
    let quads = cols.div_ceil(4 * Q) * Q;
    for ((q, padded), sum) in q.chunks_exact(*cols).zip(padded.chunks_exact_mut(quads)).zip(&mut *sums) {
        padded[..*cols / 4].copy_from_slice(q.as_chunks().0);
        *sum = panel::sum(q);
    }
    let columns = Columns { padded: &padded[..n * quads], quads, sums };
    let tiles = steps.chunks_exact(quads / Q);
    match n {
        1 => far_tiles::<Q, 4, 1>(steps, columns, out),
        2 => far_tiles::<Q, 2, 2>(steps, columns, out),
        _ => {
            // As few tiles of activations as fit, all of about the same size; a tile of weights meets them in turn.
            let step = n.div_ceil(n.div_ceil(TILE));
            for (tile, row) in tiles.zip((0..*rows).step_by(ROWS)) {
                for first in (0..n).step_by(step) {
                    let at = (first, row);
                    match step.min(n - first) {
                        1 => tile_columns::<Q, 1>(tile, columns, at, out),
                        2 => tile_columns::<Q, 2>(tile, columns, at, out),
                        3 => tile_columns::<Q, 3>(tile, columns, at, out),
                        _ => tile_columns::<Q, TILE>(tile, columns, at, out),
                    }
                }
            }
        }
    }
}

/// The results of the first `C` activation rows, `S` tiles that are far from each other at a time.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,gfni")]
fn far_tiles<const Q: usize, const S: usize, const C: usize>(
    steps: &[Step],
    columns: Columns<'_>,
    out: &mut Outputs<'_, i32>,
) {
    let (q, sums) = columns.some::<C>(0);
    let tile_steps = columns.quads / Q;
    let tile = |index: usize| &steps[index * tile_steps..][..tile_steps];
    let tiles = steps.len() / tile_steps;
    let stream = tiles / S;
    for i in 0..stream {
        let mut far = [&steps[..0]; S];
        for (s, far) in far.iter_mut().enumerate() {
            *far = tile(s * stream + i);
        }
        for (s, dots) in multiply::<Q, S, C>(far, q).iter().enumerate() {
            finish(dots, sums, (&mut *out, 0, (s * stream + i) * ROWS));
        }
    }
    for index in stream * S..tiles {
        let [dots] = multiply::<Q, 1, C>([tile(index)], q);
        finish(&dots, sums, (&mut *out, 0, index * ROWS));
    }
}

/// The results of `C` activation rows, from `first` on, of the tile of the rows from `row` on.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,gfni")]
fn tile_columns<const Q: usize, const C: usize>(
    tile: &[Step],
    columns: Columns<'_>,
    (first, row): (usize, usize),
    out: &mut Outputs<'_, i32>,
) {
    let (q, sums) = columns.some::<C>(first);
    let [dots] = multiply::<Q, 1, C>([tile], q);
    finish(&dots, sums, (out, first, row));
}

/// The products of `S` tiles with `C` activation rows, which are whole steps long.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,gfni")]
fn multiply<const Q: usize, const S: usize, const C: usize>(
    tiles: [&[Step]; S],
    q: [&[[i8; 4]]; C],
) -> [[Sums; C]; S] {
    let steps = tiles[0].len();
    assert!(tiles.iter().all(|tile| tile.len() == steps) && q.iter().all(|q| q.len() == steps * Q));
    let mut sums = [[[_mm512_setzero_si512(); LINES]; C]; S];
    for step in 0..steps {
        for s in 0..S {
            // SAFETY: every tile has as many steps; the compiler would compare every time.
            let lines = unsafe { tiles[s].get_unchecked(step) };
            for v in 0..LINES {
                prefetch(&lines[v]);
                let vectors: [__m512i; Q] = take_apart(&lines[v]);
                for (g, &vector) in vectors.iter().enumerate() {
                    for c in 0..C {
                        // SAFETY: Q quads for each step, likewise.
                        let quad = broadcast(unsafe { *q[c].get_unchecked(step * Q + g) });
                        sums[s][c][v] = _mm512_dpbusd_epi32(sums[s][c][v], vector, quad);
                    }
                }
            }
        }
    }
    sums
}

/// Writes the products of a tile, less sum(q), to the results from `first` and `row` on; what lies beyond the last row is
/// dropped.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish<const C: usize>(
    dots: &[Sums; C],
    sums: &[i32],
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    for c in 0..C {
        for (out, &dots) in out.of(first + c)[row..].chunks_mut(LANES).zip(&dots[c]) {
            let mask = ((1_u32 << out.len()) - 1) as __mmask16;
            let dots = _mm512_sub_epi32(dots, _mm512_set1_epi32(sums[c]));
            // SAFETY: the mask ends with the slice.
            unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr(), mask, dots) };
        }
    }
}

/// Tiles that a panel is filled from.
struct Rows<'a, const Q: usize> {
    steps: &'a [Step],
    rows: usize,
    cols: usize,
}

impl<const Q: usize> Packed for Rows<'_, Q> {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn strip(&self, col: usize, most: usize) -> usize {
        (most / (4 * Q) * (4 * Q)).min(self.cols - col)
    }

    unsafe fn fill(&self, row: usize, _: usize, cols: Range<usize>, panel: &mut [Quad]) {
        let tile_steps = self.cols.div_ceil(4 * Q);
        let tile = &self.steps[row / ROWS * tile_steps..][..tile_steps];
        // SAFETY: the caller vouches for the CPU.
        unsafe { fill::<Q>(&tile[cols.start / (4 * Q)..cols.end.div_ceil(4 * Q)], panel) }
    }
}

/// Steps of a tile as quads; of the last step, as many as there are columns.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,gfni")]
fn fill<const Q: usize>(steps: &[Step], quads: &mut [Quad]) {
    for (step, quads) in steps.iter().zip(quads.chunks_mut(Q)) {
        for (v, line) in step.iter().enumerate() {
            prefetch(line);
            let vectors: [__m512i; Q] = take_apart(line);
            for (quad, vector) in quads.iter_mut().zip(vectors) {
                store(&mut quad[v], vector);
            }
        }
    }
}

/// Asks for the line [`PREFETCH_LINES`] further on.
#[inline]
#[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
fn prefetch(line: &Line) {
    let at: *const Line = std::ptr::from_ref(line).wrapping_add(PREFETCH_LINES);
    // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitnet::formats::{Layout, pack};
    use crate::rng::Rng;

    fn repacked<const Q: usize>(token: Avx512Vbmi, layout: Layout, codes: &[i8]) -> Vec<u8> {
        let mut bytes = vec![0; layout.packed_bytes()];
        pack(&layout, codes, 1.0, &mut bytes).expect("ternary");
        let weights = Weights::new(layout, &bytes).expect("just packed");
        let (rows, cols) = (layout.rows(), layout.cols());
        let mut steps = vec![Step::default(); rows.div_ceil(ROWS) * cols.div_ceil(4 * Q)];
        let _proof = token;
        // SAFETY: as above.
        unsafe { repack::<Q>(lanes_of_codes(&weights), cols / BLOCK, &mut steps) };
        steps.as_flattened().iter().flat_map(|line| line.0).collect()
    }

    /// Byte for byte what the definition says, padding included, and every value of five trits is taken apart.
    #[test]
    fn repacking_is_what_the_format_defines() {
        let Ok(token) = Avx512Vbmi::detect() else { return };
        let mut rng = Rng::new(5);
        for rows in [1, 15, 16, 63, 64, 65, 130] {
            for blocks in [1, 2, 4, 5, 6, 10, 11] {
                let (cols, codes) = (blocks * BLOCK, (0..rows * blocks * BLOCK).map(|_| rng.ternary()));
                let codes: Vec<i8> = codes.collect();
                let layout = Layout::i2s(rows, cols).expect("legal");
                for order in Repacked::ALL {
                    let mut expected = vec![0; order.packed_bytes(rows, cols)];
                    order.pack((rows, cols), &codes, &mut expected).expect("ternary");
                    let ours = match order {
                        Repacked::R64 => repacked::<4>(token, layout, &codes),
                        Repacked::T5 => repacked::<5>(token, layout, &codes),
                    };
                    assert!(ours == expected, "{order:?} {rows}x{cols}");
                }
            }
        }
    }
}
