//! What the TL1 and TL2 kernels for AVX2 share: look-up tables small enough for byte sums, and a product with
//! decoded weights for larger batches.
//!
//! **Look-up.** The partial sum T of a few activations needs up to 10 bits, so a table of T takes two `pshufb`
//! (low bytes, high bytes) and, in the usual scheme, every pair of answers is zipped to int16 before it is added.
//! Here T = 27 h + l with |h| <= 14 and |l| <= 13: the answers for h and for l are added as bytes,
//! up to nine of them, and only the sums are zipped; one `pmaddubsw` by (27, 1) gives the int16 sum of T.
//! A sign is applied to h and l alike.
//!
//! **Overflow.** Eight answers per byte sum: 8 * 14 = 112. Eight triples are at most 8 * 3 * 128 = 3072, so
//! [`TRIPLE_UNITS`] = 10 of them fit int16; eight pairs at most 2048, so [`PAIR_UNITS`] = 15 do. Then int32.
//!
//! **Decoded product.** For more activation rows than [`Multiplier::max_lookup_rows`], 32 rows x up to 256 columns are decoded
//! once into a [`Panel`] of code + 1 (8 KB, it stays in L1) and multiplied with all activation rows by `pmaddubsw`:
//! 64 quads x 2 products x 2 * 128 = 32768 is reached by the negative side only, so one panel fits int16.

use std::arch::x86_64::*;

use super::super::detect::{Avx512Vnni, AvxVnni};
use super::{panel_avx512vnni, panel_avxvnni};
use crate::bitnet::formats::{FormatError, Layout, Tile, WeightFormat};
use crate::team::Outputs;

/// Activation rows that are looked up together: their byte sums and what they share fill the registers.
pub(super) const LOOKUP_ROWS: usize = 4;

/// Activation rows that are multiplied together with half a decoded panel: 12 sums, 2 vectors of codes, one of
/// activations and one product are the 16 registers.
const PANEL_ROWS: usize = 6;

/// Sums of eight triples that fit one int16.
pub(super) const TRIPLE_UNITS: usize = 10;

/// Sums of eight pairs that fit one int16.
pub(super) const PAIR_UNITS: usize = 15;

/// The weight of h in T = 27 h + l.
pub(super) const RADIX: i16 = 27;

/// round(2^15 / 27).
const RECIPROCAL: i16 = 1214;

/// Bytes between a load of weights and the prefetch issued with it.
const PREFETCH_BYTES: usize = 3072;

/// The 16 answers h and l for one pair or triple of activations, by index or magnitude.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Table {
    pub high: [u8; 16],
    pub low: [u8; 16],
}

impl Table {
    pub const ZERO: Self = Self { high: [0; 16], low: [0; 16] };

    /// The table that [`triple_answers`] or [`pair_answers`] computed.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn store(&mut self, answers: __m256i) {
        // SAFETY: a Table is 32 bytes, aligned to 32, without padding; any bytes are valid in it.
        unsafe { _mm256_store_si256(std::ptr::from_mut(self).cast(), answers) };
    }

    /// All 32 bytes, for kernels that keep the h, or the l, of one pair per lane in here.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn load_wide(&self) -> __m256i {
        // SAFETY: a Table is 32 bytes, aligned to 32, without padding.
        unsafe { _mm256_load_si256(std::ptr::from_ref(self).cast()) }
    }

    /// h and l, each in both lanes.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn load(&self) -> [__m256i; 2] {
        [both_lanes(&self.high), both_lanes(&self.low)]
    }
}

/// The tile of a layout of TL1 or TL2, which has one.
pub(super) fn tile_of(layout: &Layout) -> Tile {
    layout.tile().expect("TL1 and TL2 layouts have tiles")
}

/// That no nibble of `bytes`, which begin at `offset` of the tensor, is above `largest`.
pub(super) fn check_nibbles(
    format: WeightFormat,
    bytes: &[u8],
    offset: usize,
    largest: u8,
    what: &str,
) -> Result<(), FormatError> {
    let above = |byte: u8| [byte >> 4, byte & 15].into_iter().find(|&nibble| nibble > largest);
    for (chunk, bytes) in bytes.chunks(CHECK_BYTES).enumerate() {
        // The fold has no early exit, so it becomes vector code; the search runs on damaged bytes only.
        if bytes.iter().fold(false, |bad, &byte| bad | (byte >> 4 > largest) | (byte & 15 > largest)) {
            for (i, &byte) in bytes.iter().enumerate() {
                if let Some(nibble) = above(byte) {
                    let offset = offset + chunk * CHECK_BYTES + i;
                    return Err(FormatError::InvalidCode {
                        format,
                        offset,
                        what: format!("{what} {nibble}"),
                    });
                }
            }
        }
    }
    Ok(())
}

const CHECK_BYTES: usize = 4096;

/// 32 bytes from anywhere.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are readable; loadu needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 32 bytes to anywhere.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store(bytes: &mut [u8; 32], value: __m256i) {
    // SAFETY: 32 bytes are writable; storeu needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value) }
}

/// 16 bytes from anywhere, in both lanes.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn both_lanes(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes are readable; loadu needs no alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Asks for the bytes that this stream of weights reaches a little later.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn prefetch<const BYTES: usize>(weights: &[u8; BYTES]) {
    for line in (0..BYTES).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(weights.as_ptr().wrapping_add(PREFETCH_BYTES + line).cast());
    }
}

/// The first and the second nibble of each byte: high, low.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    [_mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask), _mm256_and_si256(bytes, mask)]
}

/// The weights of a pair index, and of a triple magnitude; entries that no packer uses are 0.
pub(super) const PAIR_DIGITS: [[u8; 16]; 2] = digits([3, 1], 4, 9, 0);
pub(super) const TRIPLE_DIGITS: [[u8; 16]; 3] = digits([9, 3, 1], 0, 14, 0);

/// Weight + 1 of a pair index.
const PAIR_CODES: [[u8; 16]; 2] = digits([3, 1], 4, 9, 1);

const fn digits<const N: usize>(place: [i32; N], zero: i32, used: usize, plus: i32) -> [[u8; 16]; N] {
    let mut all = [[0; 16]; N];
    let mut entry = 0;
    while entry < used {
        let mut digit = 0;
        while digit < N {
            // Adding 13 = 111 (base 3) turns balanced digits into plain ones.
            all[digit][entry] = ((entry as i32 - zero + 13) / place[digit] % 3 - 1 + plus) as u8;
            digit += 1;
        }
        entry += 1;
    }
    all
}

/// Two rows of digits zipped to the bytes of 16 words.
const fn zip(even: [u8; 16], odd: [u8; 16]) -> [u8; 32] {
    let mut zipped = [0; 32];
    let mut i = 0;
    while i < 16 {
        zipped[2 * i] = even[i];
        zipped[2 * i + 1] = odd[i];
        i += 1;
    }
    zipped
}

const PAIR_ZIPPED: [u8; 32] = zip(PAIR_DIGITS[0], PAIR_DIGITS[1]);
const TRIPLE_ZIPPED: [[u8; 32]; 2] =
    [zip(TRIPLE_DIGITS[0], TRIPLE_DIGITS[1]), zip(TRIPLE_DIGITS[2], [0; 16])];

/// Activations as unsigned bytes q + 128, so that they can be the first operand of `pmaddubsw`.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn offset_activations(q: &[i8; 16]) -> __m256i {
    // SAFETY: 16 bytes are readable; loadu needs no alignment.
    let q = unsafe { _mm_loadu_si128(q.as_ptr().cast()) };
    _mm256_xor_si256(_mm256_broadcastsi128_si256(q), _mm256_set1_epi8(-128))
}

/// digits (16 words of two) times activations `at` and `at + 1` of `q`, both of which carry an offset of 128.
#[target_feature(enable = "avx2")]
#[inline]
fn digit_products(q: __m256i, at: usize, digits: &[u8; 32]) -> __m256i {
    let two = _mm256_set1_epi16(at as i16 + 256 * (at as i16 + 1));
    _mm256_maddubs_epi16(_mm256_shuffle_epi8(q, two), load(digits))
}

/// What the offset of 128 adds to each answer.
#[target_feature(enable = "avx2")]
#[inline]
fn offset_share(digits: &[u8; 32]) -> __m256i {
    _mm256_slli_epi16::<7>(_mm256_maddubs_epi16(_mm256_set1_epi8(1), load(digits)))
}

/// The answers for the pair of activations at `at` in `q` (see [`offset_activations`]): 16 bytes h, 16 bytes l.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn pair_answers(q: __m256i, at: usize) -> __m256i {
    split(_mm256_sub_epi16(digit_products(q, at, &PAIR_ZIPPED), offset_share(&PAIR_ZIPPED)))
}

/// The same for the triple at `at`.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn triple_answers(q: __m256i, at: usize) -> __m256i {
    let [first, last] = &TRIPLE_ZIPPED;
    let sum = _mm256_add_epi16(digit_products(q, at, first), digit_products(q, at + 2, last));
    split(_mm256_sub_epi16(sum, _mm256_add_epi16(offset_share(first), offset_share(last))))
}

/// T = 27 h + l, to 16 bytes h and 16 bytes l. Rounded division by a 15-bit reciprocal: exact enough for |l| <= 13
/// wherever |T| <= 384.
#[target_feature(enable = "avx2")]
#[inline]
fn split(t: __m256i) -> __m256i {
    let high = _mm256_mulhrs_epi16(t, _mm256_set1_epi16(RECIPROCAL));
    let low = _mm256_sub_epi16(t, _mm256_mullo_epi16(high, _mm256_set1_epi16(RADIX)));
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(high, low))
}

/// Sums of h and l per byte to sums of T in int16: the low and the high eight bytes of each lane.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn join(high: __m256i, low: __m256i) -> [__m256i; 2] {
    let weights = _mm256_set1_epi16(RADIX + 256);
    [
        _mm256_maddubs_epi16(weights, _mm256_unpacklo_epi8(high, low)),
        _mm256_maddubs_epi16(weights, _mm256_unpackhi_epi8(high, low)),
    ]
}

/// Adds eight int16 to eight int32.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_words(out: &mut [i32; 8], words: __m128i) {
    add_dwords(out, _mm256_cvtepi16_epi32(words));
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_dwords(out: &mut [i32; 8], sums: __m256i) {
    let out: *mut __m256i = out.as_mut_ptr().cast();
    // SAFETY: 32 bytes are readable and writable; loadu and storeu need no alignment.
    unsafe { _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_loadu_si256(out), sums)) };
}

/// Both lanes of a vector.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn lanes(v: __m256i) -> [__m128i; 2] {
    [_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)]
}

/// Code + 1 of 32 rows x 4 columns: 8 dwords per vector, each four columns of one row; the rows of the dwords
/// stand in the order 0-3, 8-11 | 4-7, 12-15 | 16-19, 24-27 | 20-23, 28-31.
pub(super) type Quad = [[u8; 32]; 4];

/// Up to 64 quads of columns of one block of 32 rows.
pub(super) type Panel = [Quad; 64];

/// Where codes are decoded to.
pub(super) enum Decoded {
    /// 32 rows.
    Narrow(Box<Panel>),
    /// 64 rows, with AVX-512.
    Wide(Box<panel_avx512vnni::Panel>),
}

impl Decoded {
    /// Allocates what that multiplier takes.
    pub fn of(multiplier: Multiplier) -> Self {
        match multiplier {
            Multiplier::Avx512Vnni(_) => Self::Wide(panel_avx512vnni::Panel::new()),
            _ => Self::Narrow(Box::new([[[0; 32]; 4]; 64])),
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Narrow(panel) => size_of_val(&**panel),
            Self::Wide(panel) => size_of_val(&**panel),
        }
    }
}

/// Four columns of 32 rows, whose bytes stand in the order 0-7, 16-23, 8-15, 24-31, to a quad.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store_quad(quad: &mut Quad, columns: [__m256i; 4]) {
    let [a, b, c, d] = columns;
    let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
    store(&mut quad[0], _mm256_unpacklo_epi16(ab, cd));
    store(&mut quad[1], _mm256_unpackhi_epi16(ab, cd));
    let (ab, cd) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
    store(&mut quad[2], _mm256_unpacklo_epi16(ab, cd));
    store(&mut quad[3], _mm256_unpackhi_epi16(ab, cd));
}

/// A quad from the bytes of two pair indices of 32 rows, in the order of [`store_quad`].
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store_pairs(quad: &mut Quad, bytes: __m256i) {
    let [first, second] = nibbles(bytes);
    let (w0, w1) = (both_lanes(&PAIR_CODES[0]), both_lanes(&PAIR_CODES[1]));
    let columns = [
        _mm256_shuffle_epi8(w0, first),
        _mm256_shuffle_epi8(w1, first),
        _mm256_shuffle_epi8(w0, second),
        _mm256_shuffle_epi8(w1, second),
    ];
    store_quad(quad, columns);
}

/// Whose instructions look up and multiply.
#[derive(Clone, Copy)]
pub(super) enum Multiplier {
    /// 32 rows looked up at a time, `pmaddubsw`.
    Avx2,
    /// The same look-ups, `vpdpbusd` on 256 bits.
    AvxVnni(AvxVnni),
    /// 64 rows looked up at a time (`tl_avx512`), and multiplied (`tl_panel_avx512`) by `vpdpbusd` on 512 bits.
    Avx512Vnni(Avx512Vnni),
}

impl Multiplier {
    /// Activation rows up to which looking up is faster than decoding (measured).
    pub fn max_lookup_rows(self, format: WeightFormat) -> usize {
        match self {
            Self::Avx512Vnni(_) if format == WeightFormat::Tl1 => 2,
            Self::Avx512Vnni(_) => 4,
            _ => 8,
        }
    }

    /// The fastest of them that runs here.
    #[cfg(test)]
    pub fn widest() -> Self {
        let narrower = || AvxVnni::detect().map_or(Self::Avx2, Self::AvxVnni);
        Avx512Vnni::detect().map_or_else(|_| narrower(), Self::Avx512Vnni)
    }

    /// Adds a panel's product: its 32 rows from row `row` on, its columns from column `col` on, with all of `q`
    /// `[n, cols]` to results `[n, rows]`.
    #[target_feature(enable = "avx2")]
    pub fn add_panel(self, panel: &[Quad], q: (&[i8], usize, usize), out: (&mut Outputs<'_, i32>, usize)) {
        match self {
            // SAFETY: the token proves that this CPU has AVX-VNNI.
            Self::AvxVnni(_) => unsafe { panel_avxvnni::add_panel(panel, q, out) },
            // AVX-512 multiplies panels of 64 rows (`panel_avx512vnni`).
            Self::Avx2 | Self::Avx512Vnni(_) => add_panel(panel, q, out),
        }
    }
}

/// Sets results `[n, rows]` to what the offset of the decoded codes adds too much: -sum of each row of `q` `[n, cols]`.
#[target_feature(enable = "avx2")]
pub(super) fn start_with_offset(q: &[i8], cols: usize, out: &mut Outputs<'_, i32>) {
    for (i, q) in q.chunks_exact(cols).enumerate() {
        out.of(i).fill(-q.iter().map(|&q| i32::from(q)).sum::<i32>());
    }
}

/// [`Multiplier::add_panel`] with AVX2.
#[target_feature(enable = "avx2")]
fn add_panel(
    panel: &[Quad],
    (q, cols, col): (&[i8], usize, usize),
    (out, row): (&mut Outputs<'_, i32>, usize),
) {
    for (i, q) in q.chunks(PANEL_ROWS * cols).enumerate() {
        let (q, out) = ((q, cols, col), (&mut *out, i * PANEL_ROWS, row));
        match q.0.len() / cols {
            1 => add_panel_rows::<1>(panel, q, out),
            2 => add_panel_rows::<2>(panel, q, out),
            3 => add_panel_rows::<3>(panel, q, out),
            4 => add_panel_rows::<4>(panel, q, out),
            5 => add_panel_rows::<5>(panel, q, out),
            _ => add_panel_rows::<PANEL_ROWS>(panel, q, out),
        }
    }
}

/// [`add_panel`] for exactly `N` activation rows, 16 weight rows at a time.
#[target_feature(enable = "avx2")]
#[inline]
fn add_panel_rows<const N: usize>(
    panel: &[Quad],
    (q, cols, col): (&[i8], usize, usize),
    (out, first, row): (&mut Outputs<'_, i32>, usize, usize),
) {
    let mut fours: [&[[i8; 4]]; N] = [&[]; N];
    for (fours, q) in fours.iter_mut().zip(q.chunks_exact(cols)) {
        *fours = &q[col..].as_chunks().0[..panel.len()];
    }
    assert!(fours.iter().all(|fours| fours.len() == panel.len()));
    for half in 0..2 {
        let mut sums = [[_mm256_setzero_si256(); 2]; N];
        for (k, quad) in panel.iter().enumerate() {
            let codes = [load(&quad[2 * half]), load(&quad[2 * half + 1])];
            for i in 0..N {
                // SAFETY: each of `fours` is as long as the panel; the compiler would compare every time.
                let [a, b, c, d] = *unsafe { fours[i].get_unchecked(k) };
                let four = _mm256_set1_epi32(i32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8]));
                for (sum, codes) in sums[i].iter_mut().zip(codes) {
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes, four));
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            let one = _mm256_set1_epi16(1);
            let out = out.of(first + i)[row + 16 * half..][..16].as_chunks_mut().0;
            let (a, b) = (_mm256_madd_epi16(sums[0], one), _mm256_madd_epi16(sums[1], one));
            add_dwords(&mut out[0], _mm256_permute2x128_si256::<0x20>(a, b));
            add_dwords(&mut out[1], _mm256_permute2x128_si256::<0x31>(a, b));
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/support/npz.rs"]
#[allow(dead_code, reason = "these tests need a part of it")]
mod npz;

/// What the tests of both formats share.
#[cfg(test)]
pub(super) mod tests {
    use super::super::super::detect::Avx2;
    use super::super::Product;
    use super::*;
    use crate::bitnet::formats::{Weights, pack, unpack};
    use crate::rng::Rng;

    pub use super::npz::{Npz, golden_names};

    /// The number behind the letters `key` in the name of a golden file.
    pub fn number(name: &str, key: &str) -> usize {
        let mut parts = name.trim_end_matches(".npz").split('_');
        parts.find_map(|part| part.strip_prefix(key)?.parse().ok()).expect(key)
    }

    /// Checks and prepares all rows of the format under test for so many activation rows.
    pub type Prepare = for<'a> fn(Weights<'a>, usize) -> Result<Box<dyn Product + 'a>, FormatError>;

    /// The token; a machine without AVX2 cannot run these tests, and says so by failing.
    pub fn token() -> Avx2 {
        Avx2::detect().expect("these tests need AVX2")
    }

    pub fn random_codes(layout: &Layout, rng: &mut Rng) -> Vec<i8> {
        (0..layout.n_weights()).map(|_| rng.ternary()).collect()
    }

    pub fn random_activations(count: usize, rng: &mut Rng) -> Vec<i8> {
        (0..count).map(|_| rng.next_u64() as i8).collect()
    }

    /// The oracle: codes as `unpack` reads them, multiplied by plain loops.
    fn products(weights: &Weights<'_>, q: &[i8]) -> Vec<i32> {
        let mut codes = vec![0; weights.layout().n_weights()];
        unpack(weights, &mut codes).unwrap();
        let dot =
            |q: &[i8], w: &[i8]| q.iter().zip(w).map(|(&q, &w)| i32::from(q) * i32::from(w)).sum::<i32>();
        let cols = weights.layout().cols();
        q.chunks_exact(cols).flat_map(|q| codes.chunks_exact(cols).map(move |w| dot(q, w))).collect()
    }

    /// Packs `codes`, at every call to another misalignment, and checks the products with each `q` `[n, cols]`,
    /// one after the other on the same prepared weights. Nothing but `out` may be written.
    pub fn check(prepare: Prepare, layout: &Layout, codes: &[i8], batches: &[Vec<i8>], misaligned: usize) {
        let mut bytes = vec![0xa5; misaligned + layout.packed_bytes()];
        pack(layout, codes, 0.5, &mut bytes[misaligned..]).unwrap();
        check_bytes(prepare, layout, &bytes[misaligned..], batches);
    }

    /// [`check`] for bytes that are packed already.
    pub fn check_bytes(prepare: Prepare, layout: &Layout, bytes: &[u8], batches: &[Vec<i8>]) {
        const CANARY: i32 = 0x5ca1_ab1e;
        let weights = Weights::new(*layout, bytes).unwrap();
        let rows_of = |q: &Vec<i8>| q.len() / layout.cols();
        let n_max = batches.iter().map(rows_of).max().unwrap();
        let mut product = prepare(weights, n_max).unwrap();
        for q in batches {
            let n = rows_of(q);
            let outputs = n * layout.rows();
            let mut fenced = vec![CANARY; outputs + 64];
            product.run(q, n, &mut Outputs::whole(&mut fenced[32..32 + outputs], layout.rows()));
            assert_eq!(fenced[32..32 + outputs], products(&weights, q), "{layout:?}, n = {n}");
            assert!(
                fenced[..32].iter().chain(&fenced[32 + outputs..]).all(|&c| c == CANARY),
                "{layout:?}: fence"
            );
        }
    }

    /// A random batch of every size.
    pub fn batches(layout: &Layout, sizes: &[usize], rng: &mut Rng) -> Vec<Vec<i8>> {
        sizes.iter().map(|n| random_activations(n * layout.cols(), rng)).collect()
    }

    /// All codes equal, all activations equal: the largest sums of either sign.
    pub fn check_extremes(prepare: Prepare, layout: &Layout) {
        for code in [-1, 0, 1] {
            let codes = vec![code; layout.n_weights()];
            for q in [-128, -127, -1, 1, 127] {
                let batches =
                    [vec![q; layout.cols()], vec![q; 4 * layout.cols()], vec![q; 5 * layout.cols()]];
                check(prepare, layout, &codes, &batches, 0);
            }
        }
        // The largest products of one sign although codes and activations alternate.
        let codes: Vec<i8> = (0..layout.n_weights()).map(|i| 1 - 2 * (i % layout.cols() % 2) as i8).collect();
        let q: Vec<i8> = (0..layout.cols()).map(|i| if i % 2 == 0 { 127 } else { -128 }).collect();
        check(prepare, layout, &codes, &[q.clone(), q.repeat(33)], 0);
    }

    /// The largest nibble and every larger one, in either half of the first, a middle and the last byte of `bytes`.
    pub fn check_invalid(prepare: Prepare, layout: &Layout, region: std::ops::Range<usize>, largest: u8) {
        let mut bytes = vec![0; layout.packed_bytes()];
        pack(layout, &vec![0; layout.n_weights()], 0.5, &mut bytes).unwrap();
        for offset in [region.start, region.start + region.len() / 2, region.end - 1] {
            for nibble in 0..16_u8 {
                for byte in [nibble << 4 | bytes[offset] & 15, bytes[offset] & 0xf0 | nibble] {
                    let mut damaged = bytes.clone();
                    damaged[offset] = byte;
                    let weights = Weights::new(*layout, &damaged).unwrap();
                    let error = prepare(weights, 1).err();
                    let reference = unpack(&weights, &mut vec![0; layout.n_weights()]).err();
                    assert_eq!(error, reference, "{layout:?}: byte {offset} = {byte:#x}");
                    assert_eq!(error.is_some(), nibble > largest, "{layout:?}: byte {offset} = {byte:#x}");
                }
            }
        }
    }

    /// Every triple and pair of activations: the split is exact and its parts stay within the bounds of the byte sums.
    #[test]
    fn split_is_exact_and_bounded() {
        #[target_feature(enable = "avx2")]
        fn split_all() {
            for t in -384..=384_i16 {
                let mut table = Table::ZERO;
                table.store(split(_mm256_set1_epi16(t)));
                for (h, l) in table.high.into_iter().zip(table.low) {
                    let (h, l) = (i16::from(h as i8), i16::from(l as i8));
                    assert_eq!(RADIX * h + l, t);
                    assert!(h.abs() <= 14 && l.abs() <= 13, "{t} = 27 * {h} + {l}");
                }
            }
        }
        let _ = token();
        // SAFETY: the token was made, so this CPU has AVX2.
        unsafe { split_all() };
    }
}
