//! Products of decoded weights with many activation rows on AVX-512 VNNI, for every format.
//!
//! A panel holds up to 512 columns of 64 weight rows as code + 1, in the order of their use: four columns of sixteen
//! rows are a vector. Four of its vectors meet four activations of up to six rows, broadcast: 24 sums of sixteen rows,
//! which stay in registers for the length of the panel and need no adding up across lanes at its end.
//!
//! ```text
//! for each 64 weight rows:
//!   for each strip of columns:         fill the panel
//!     for each six activation rows:
//!       for each quad of columns:      w0..w3 = 64 rows x 4 codes        4 loads
//!         for each activation row:     b = its 4 activations, 16 times   1 load
//!                                      sum[v] += w[v] . b                4 vpdpbusd, exact int32
//!       after the last strip:          results = sums - sum(q)
//! ```
//!
//! The panel (32 KB) stays in L1 while all activation rows pass it. Sums from strip to strip stand by themselves, aligned:
//! results of any alignment, thousands of bytes apart, would be read and written across cache lines for every strip. int32 sums may wrap on the way, as sum(q) is taken off at the end: the result is right modulo 2^32, and it
//! fits.

use std::arch::x86_64::*;
use std::ops::Range;

use super::shares;
use crate::team::Outputs;

/// Weight rows of a panel.
pub(super) const ROWS: usize = 64;
/// Weight rows of a vector.
pub(super) const LANES: usize = 16;
/// Vectors of a panel that have four columns.
const VECTORS: usize = ROWS / LANES;
/// Columns of a panel at most.
const COLS: usize = 512;
/// Activation rows of a tile: 24 sums, 4 vectors of codes and one of activations are 29 of 32 registers.
const TILE: usize = 6;
/// Bytes of activations that stay in L2 while all weight rows pass them.
const RESIDENT_BYTES: usize = 1 << 20;
/// Activation rows that pass a panel at most before it is filled anew.
const PASS: usize = 42 * TILE;

/// code + 1 of four columns of 64 rows.
pub(super) type Quad = [[u8; 4 * LANES]; VECTORS];

/// Up to [`COLS`] columns of 64 rows.
#[repr(align(64))]
pub(super) struct Panel(pub [Quad; COLS / 4]);

impl Panel {
    /// Zeros.
    pub fn new() -> Box<Self> {
        Box::new(Self([[[0; 4 * LANES]; VECTORS]; COLS / 4]))
    }
}

/// Packed weights of some format, from which panels are filled.
pub(super) trait Packed {
    /// Weight rows and columns.
    fn shape(&self) -> (usize, usize);

    /// Columns of the strip that begins at `col`: a multiple of four, at most `most` and the columns left.
    fn strip(&self, col: usize, most: usize) -> usize;

    /// Fills the panel with columns `cols` of rows `row`... Of rows from `kept` on, which are not there, it holds
    /// anything.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL and VNNI, and what else the token behind these weights proves.
    unsafe fn fill(&self, row: usize, kept: usize, cols: Range<usize>, panel: &mut [Quad]);

    /// How many of a quad's vectors hold the first `kept` rows.
    fn vectors(kept: usize) -> usize {
        kept.div_ceil(LANES)
    }

    /// The sums of 64 rows, as the vectors of a quad stand, in the order of the rows.
    ///
    /// # Safety
    /// As above.
    unsafe fn in_order(sums: [__m512i; VECTORS]) -> [__m512i; VECTORS] {
        sums
    }
}

/// Activation rows whose sums are soon set to zero.
const FEW: usize = 8 * TILE;

/// Of each activation row of a pass, 64 sums in the order of a quad's vectors.
#[repr(align(64))]
struct Sums<const N: usize>([[i32; ROWS]; N]);

/// All results of `weights` and `q` `[n, cols]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn multiply<P: Packed>(weights: &P, q: &[i8], panel: &mut Panel, out: &mut Outputs<'_, i32>) {
    if q.len() / weights.shape().1 <= FEW {
        multiply_in_passes::<P, FEW>(weights, q, panel, out);
    } else {
        multiply_in_passes::<P, PASS>(weights, q, panel, out);
    }
}

/// [`multiply`] with room for the sums of `N` activation rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn multiply_in_passes<P: Packed, const N: usize>(
    weights: &P,
    q: &[i8],
    panel: &mut Panel,
    out: &mut Outputs<'_, i32>,
) {
    let (rows, cols) = weights.shape();
    let n = q.len() / cols;
    let most = (RESIDENT_BYTES / cols / TILE * TILE).clamp(FEW, N);
    // Passes of about the same size: a panel that few pass costs more than it gives.
    let pass = n.div_ceil(n.div_ceil(most)).next_multiple_of(TILE);
    // Filling a small one disturbs L1 less, passing a large one pays off when many do (measured).
    let most_cols = if n < 32 { COLS / 2 } else { COLS };
    // Strips of about the same size, of whole blocks of every format that has such.
    let most_cols = cols.div_ceil(cols.div_ceil(most_cols)).next_multiple_of(128);
    let mut sums = Sums([[0; ROWS]; N]);
    for (i, q) in q.chunks(pass * cols).enumerate() {
        let (first, n) = (i * pass, q.len() / cols);
        let mut q_sums = [0; N];
        for (q_sum, q) in q_sums.iter_mut().zip(q.chunks_exact(cols)) {
            *q_sum = sum(q);
        }
        for row in (0..rows).step_by(ROWS) {
            let kept = row..rows.min(row + ROWS);
            let mut col = 0;
            while col < cols {
                let end = col + weights.strip(col, most_cols);
                let quads = &mut panel.0[..(end - col) / 4];
                // SAFETY: the token that brought us here proves it.
                unsafe { weights.fill(row, kept.len(), col..end, quads) };
                // Tiles of about the same size: one with few sums would wait for each of them.
                for columns in shares(n, TILE) {
                    if end == cols {
                        for c in columns.clone() {
                            ask_for_results(&out.of(first + c)[kept.clone()]);
                        }
                    }
                    let q = &q[columns.start * cols..columns.end * cols];
                    let sums = &mut sums.0[columns.clone()];
                    multiply_columns(quads, P::vectors(kept.len()), (q, cols, col), sums);
                    if end == cols {
                        for (c, sums) in columns.zip(&*sums) {
                            write::<P>(sums, q_sums[c], &mut out.of(first + c)[kept.clone()]);
                        }
                    }
                }
                col = end;
            }
        }
    }
}

/// Asks for the cache lines of results that will be written: they are thousands of bytes from one to the next activation row.
#[inline]
fn ask_for_results(out: &[i32]) {
    out.chunks(LANES).for_each(|line| prefetch_line(line.as_ptr()));
}

/// `out` = sums, in the order of rows, less what code + 1 added too much.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn write<P: Packed>(sums: &[i32; ROWS], q_sum: i32, out: &mut [i32]) {
    let mut vectors = [_mm512_setzero_si512(); VECTORS];
    for (vector, sums) in vectors.iter_mut().zip(sums.as_chunks::<LANES>().0) {
        // SAFETY: sixteen sums.
        *vector = unsafe { _mm512_loadu_epi32(sums.as_ptr()) };
    }
    // SAFETY: the token that brought us here proves it.
    let vectors = unsafe { P::in_order(vectors) };
    for (out, vector) in out.chunks_mut(LANES).zip(vectors) {
        let mask = ((1_u32 << out.len()) - 1) as __mmask16;
        let dots = _mm512_sub_epi32(vector, _mm512_set1_epi32(q_sum));
        // SAFETY: the mask ends with the slice.
        unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr(), mask, dots) };
    }
}

/// Adds the product of the panel's first `vectors` vectors with columns `col`.. of up to six activation rows `q` to the sums;
/// the first strip sets them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn multiply_columns(panel: &[Quad], vectors: usize, q: (&[i8], usize, usize), sums: &mut [[i32; ROWS]]) {
    match sums.len() {
        1 => multiply_exactly::<1>(panel, vectors, q, sums),
        2 => multiply_exactly::<2>(panel, vectors, q, sums),
        3 => multiply_exactly::<3>(panel, vectors, q, sums),
        4 => multiply_exactly::<4>(panel, vectors, q, sums),
        5 => multiply_exactly::<5>(panel, vectors, q, sums),
        _ => multiply_exactly::<TILE>(panel, vectors, q, sums),
    }
}

/// [`multiply_columns`] for exactly `C` activation rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn multiply_exactly<const C: usize>(
    panel: &[Quad],
    vectors: usize,
    q: (&[i8], usize, usize),
    sums: &mut [[i32; ROWS]],
) {
    let sums: &mut [[i32; ROWS]; C] = sums.try_into().expect("as many as activation rows");
    if vectors > VECTORS / 2 {
        tile::<VECTORS, C>(panel, 0, q, sums);
        return;
    }
    for v in 0..vectors {
        tile::<1, C>(panel, v, q, sums);
    }
}

/// Adds the product of `V` vectors of rows, from vector `v` of each quad on, with columns `col`.. of `C` activation rows
/// `q`; sets it, if they are the first columns. Never inlined: copies of it side by side would be compiled as one, with
/// more values alive than there are registers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const V: usize, const C: usize>(
    panel: &[Quad],
    v: usize,
    (q, cols, col): (&[i8], usize, usize),
    sums: &mut [[i32; ROWS]; C],
) {
    assert!(v + V <= VECTORS && col + 4 * panel.len() <= cols && q.len() == C * cols);
    let mut added = [[_mm512_setzero_si512(); V]; C];
    // Four at a time: what a loop needs besides takes the places of products.
    let (fours, rest) = panel.as_chunks::<4>();
    for (i, quads) in fours.iter().enumerate() {
        for (k, quad) in quads.iter().enumerate() {
            // SAFETY: the panel ends no later than the rows of q.
            unsafe { add_quad(quad, v, (q, cols, col + 4 * (4 * i + k)), &mut added) };
        }
    }
    for (k, quad) in rest.iter().enumerate() {
        // SAFETY: as above.
        unsafe { add_quad(quad, v, (q, cols, col + 4 * (4 * fours.len() + k)), &mut added) };
    }
    for (sums, added) in sums.iter_mut().zip(added) {
        let sums = sums.as_chunks_mut::<LANES>().0;
        for (sums, added) in sums[v..v + V].iter_mut().zip(added) {
            let at = sums.as_mut_ptr();
            // SAFETY: sixteen sums.
            unsafe {
                let sum = if col == 0 { added } else { _mm512_add_epi32(_mm512_loadu_epi32(at), added) };
                _mm512_storeu_epi32(at, sum);
            }
        }
    }
}

/// Adds the products of four columns.
///
/// # Safety
/// `C` rows of `cols` activations have four columns from `col` on; `v + V` is at most [`VECTORS`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add_quad<const V: usize, const C: usize>(
    quad: &Quad,
    v: usize,
    (q, cols, col): (&[i8], usize, usize),
    sums: &mut [[__m512i; V]; C],
) {
    let mut codes = [_mm512_setzero_si512(); V];
    for (i, codes) in codes.iter_mut().enumerate() {
        // SAFETY: the caller vouches for it.
        *codes = load(unsafe { quad.get_unchecked(v + i) });
    }
    for (c, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller vouches for it. Slices of the rows would cost as much as some of the products.
        let four = broadcast(unsafe { q.as_ptr().add(c * cols + col).cast::<[i8; 4]>().read() });
        for (sum, &codes) in sums.iter_mut().zip(&codes) {
            *sum = _mm512_dpbusd_epi32(*sum, codes, four);
        }
    }
}

/// Four activations, sixteen times.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn broadcast(four: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(four.map(|q| q as u8)))
}

/// Sum of a row of activations, which fits int32 for every K a backend accepts.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn sum(q: &[i8]) -> i32 {
    let (vectors, rest) = q.as_chunks::<64>();
    let mut sums = _mm512_setzero_si512();
    for q in vectors {
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), load_i8(q));
    }
    rest.iter().fold(_mm512_reduce_add_epi32(sums), |sum, &q| sum.wrapping_add(i32::from(q)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array is 64 bytes; an unaligned load.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the array is 64 bytes; an unaligned load.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Asks for a cache line.
#[inline]
#[allow(unused_unsafe, reason = "whether it is unsafe depends on the version of std::arch")]
pub(super) fn prefetch_line<T>(at: *const T) {
    // SAFETY: a prefetch never faults; the address need not be mapped, and nothing is read through it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}
