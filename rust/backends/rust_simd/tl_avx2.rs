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
//! once into a [`Panel`] of code + 1 (8 KB, it stays in L1) and multiplied with all activation rows, in the order that the
//! multiplication wants: `panel_avx2`, `panel_avxvnni`.

use std::arch::x86_64::*;

use super::super::detect::{Avx2, Avx512Vbmi, Avx512Vnni, AvxVnni};
use super::codes::{self, PAIR_DIGITS, TRIPLE_DIGITS, digits};
use super::panel_avx2::Multiplicand;
use super::panel_avx512vnni;
use crate::bitnet::formats::{FormatError, Layout, Tile, WeightFormat, Weights};
use crate::team::Outputs;

/// Activation rows that are looked up together: their byte sums and what they share fill the registers.
pub(super) const LOOKUP_ROWS: usize = 4;

/// Sums of eight triples that fit one int16.
pub(super) const TRIPLE_UNITS: usize = 10;

/// Sums of eight pairs that fit one int16.
pub(super) const PAIR_UNITS: usize = 15;

/// The weight of h in T = 27 h + l.
pub(super) const RADIX: i16 = 27;

/// round(2^15 / 27).
const RECIPROCAL: i16 = 1214;

/// Bytes between a load of codes and the prefetch issued with it.
pub(super) const PREFETCH_BYTES: usize = 3072;

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

/// Refuses codes that no packer produces. Gives the tile.
pub(super) fn check(_token: Avx2, weights: &Weights<'_>) -> Result<Tile, FormatError> {
    // SAFETY: the token proves that this CPU runs AVX2.
    codes::check_tl(weights, |bytes, largest| unsafe { any_above(bytes, largest) })
}

/// Whether some nibble is above `largest`. The fold has no early exit, so it becomes vector code.
#[target_feature(enable = "avx2")]
fn any_above(bytes: &[u8], largest: u8) -> bool {
    bytes.iter().fold(false, |bad, &byte| bad | (byte >> 4 > largest) | (byte & 15 > largest))
}

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
    prefetch_ahead(weights, PREFETCH_BYTES);
}

/// Asks for as many bytes as `weights`, so many bytes further on.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn prefetch_ahead<const BYTES: usize>(weights: &[u8; BYTES], bytes: usize) {
    for line in (0..BYTES).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(weights.as_ptr().wrapping_add(bytes + line).cast());
    }
}

/// The first and the second nibble of each byte: high, low.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    [_mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask), _mm256_and_si256(bytes, mask)]
}

/// Weight + 1 of a pair index.
const PAIR_CODES: [[u8; 16]; 2] = digits([3, 1], 4, 9, 1);

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

/// Adds sixteen int16 to sixteen int32, which hold first the even and then the odd ones of them: up to Cascade Lake, Intel's
/// CPUs look up in one port, where vpmovsxwd would be too, and this is not.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_words_apart(out: &mut [i32; 16], words: __m256i) {
    let (even, odd) = out.as_chunks_mut().0.split_at_mut(1);
    add_dwords(&mut even[0], _mm256_madd_epi16(words, _mm256_set1_epi32(1)));
    add_dwords(&mut odd[0], _mm256_srai_epi32::<16>(words));
}

/// What [`add_words_apart`] took apart.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn in_row_order(out: &mut [i32; 16]) {
    let at: *mut __m256i = out.as_mut_ptr().cast();
    // SAFETY: twice 32 bytes are readable and writable; loadu and storeu need no alignment.
    unsafe {
        let (even, odd) = (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1)));
        let (low, high) = (_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
        _mm256_storeu_si256(at, _mm256_permute2x128_si256::<0x20>(low, high));
        _mm256_storeu_si256(at.add(1), _mm256_permute2x128_si256::<0x31>(low, high));
    }
}

/// Adds eight int16 to eight int32.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_words(out: &mut [i32; 8], words: __m128i) {
    add_dwords(out, _mm256_cvtepi16_epi32(words));
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn add_dwords(out: &mut [i32; 8], sums: __m256i) {
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

/// Up to 64 quads of columns of one block of 32 rows, aligned so that no load meets two cache lines.
#[repr(align(64))]
pub(super) struct Panel(pub [Quad; 64]);

/// Where codes are decoded to, and what multiplies them there.
pub(super) enum Decoded {
    /// 32 rows in pairs of columns, with AVX2.
    Pairs(Box<Panel>, Multiplicand),
    /// 32 rows in quads of columns, with AVX-VNNI.
    Quads(Box<Panel>, AvxVnni),
    /// 64 rows, with AVX-512.
    Wide(Box<panel_avx512vnni::Panel>),
}

impl Decoded {
    /// Allocates what that multiplier takes for up to `n_max` activation rows, which may all be looked up.
    pub fn of(multiplier: Multiplier, layout: &Layout, n_max: usize) -> Self {
        let panel = || Box::new(Panel([[[0; 32]; 4]; 64]));
        match multiplier {
            Multiplier::Avx512Vnni { .. } => Self::Wide(panel_avx512vnni::Panel::new()),
            Multiplier::AvxVnni(token) => Self::Quads(panel(), token),
            Multiplier::Avx2 => {
                let rows = if n_max > multiplier.max_lookup_rows(layout.format()) { n_max } else { 0 };
                // TL1 is decoded as it comes, a lane for 16 rows; TL2 in the order of `store_quad`.
                let eights = if layout.format() == WeightFormat::Tl1 { [0, 2, 1, 3] } else { [0, 1, 2, 3] };
                Self::Pairs(panel(), Multiplicand::new(rows, layout.cols(), eights))
            }
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Pairs(panel, multiplicand) => size_of_val(&**panel) + multiplicand.bytes(),
            Self::Quads(panel, _) => size_of_val(&**panel),
            Self::Wide(panel) => size_of_val(&**panel),
        }
    }
}

/// Four columns of 32 rows, whose bytes stand in the order 0-7, 16-23, 8-15, 24-31, to a quad; with `PAIRS`, to the pairs
/// of the first and of the last two columns.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store_quad<const PAIRS: bool>(quad: &mut Quad, columns: [__m256i; 4]) {
    let [a, b, c, d] = columns;
    let (ab_low, cd_low) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
    if PAIRS {
        store(&mut quad[0], ab_low);
        store(&mut quad[1], ab_high);
        store(&mut quad[2], cd_low);
        store(&mut quad[3], cd_high);
    } else {
        store(&mut quad[0], _mm256_unpacklo_epi16(ab_low, cd_low));
        store(&mut quad[1], _mm256_unpackhi_epi16(ab_low, cd_low));
        store(&mut quad[2], _mm256_unpacklo_epi16(ab_high, cd_high));
        store(&mut quad[3], _mm256_unpackhi_epi16(ab_high, cd_high));
    }
}

/// [`store_quad`] from the bytes of two pair indices of 32 rows.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store_pairs<const PAIRS: bool>(quad: &mut Quad, bytes: __m256i) {
    let [first, second] = nibbles(bytes);
    let (w0, w1) = (both_lanes(&PAIR_CODES[0]), both_lanes(&PAIR_CODES[1]));
    let columns = [
        _mm256_shuffle_epi8(w0, first),
        _mm256_shuffle_epi8(w1, first),
        _mm256_shuffle_epi8(w0, second),
        _mm256_shuffle_epi8(w1, second),
    ];
    store_quad::<PAIRS>(quad, columns);
}

/// Whose instructions look up and multiply.
#[derive(Clone, Copy)]
pub(super) enum Multiplier {
    /// 32 rows looked up at a time, `pmaddubsw`.
    Avx2,
    /// The same look-ups, `vpdpbusd` on 256 bits.
    AvxVnni(AvxVnni),
    /// `vpdpbusd` on 512 bits (`tl_panel_avx512`), and 64 rows looked up at a time (`tl_avx512`), or 32: pairs of TL1 and
    /// triples of TL2, which need VBMI. TL2 is looked up for `triple_rows` activation rows at most.
    Avx512Vnni { _token: Avx512Vnni, wide_pairs: bool, wide_triples: Option<Avx512Vbmi>, triple_rows: usize },
}

impl Multiplier {
    /// Activation rows up to which looking up is faster than decoding (measured).
    pub fn max_lookup_rows(self, format: WeightFormat) -> usize {
        match self {
            Self::Avx512Vnni { .. } | Self::Avx2 if format == WeightFormat::Tl1 => 2,
            Self::Avx512Vnni { triple_rows, .. } => triple_rows,
            Self::Avx2 => 4,
            Self::AvxVnni(_) => 8,
        }
    }

    /// AVX-512 as it is fastest on this CPU: a look-up of twice the width is more work, and where it takes twice as long
    /// it is lost.
    pub fn avx512(token: Avx512Vnni) -> Self {
        Self::looking_up(token, !token.in_halves())
    }

    fn looking_up(token: Avx512Vnni, wide: bool) -> Self {
        let vbmi = Avx512Vbmi::detect().ok();
        let triple_rows = if vbmi.is_some() { 4 } else { 2 };
        Self::Avx512Vnni { _token: token, wide_pairs: wide, wide_triples: vbmi.filter(|_| wide), triple_rows }
    }

    /// With AVX-512, which has both, TL2 looked up for two groups of activation rows; else the widest that runs here.
    #[cfg(test)]
    pub fn widest(wide_lookups: bool) -> Self {
        let narrower = || AvxVnni::detect().map_or(Self::Avx2, Self::AvxVnni);
        let Ok(token) = Avx512Vnni::detect() else { return narrower() };
        let Self::Avx512Vnni { _token, wide_pairs, wide_triples, .. } = Self::looking_up(token, wide_lookups)
        else {
            unreachable!("it is of AVX-512");
        };
        Self::Avx512Vnni { _token, wide_pairs, wide_triples, triple_rows: 2 * LOOKUP_ROWS }
    }
}

/// Sets results `[n, rows]` to what the offset of the decoded codes adds too much: -sum of each row of `q` `[n, cols]`.
#[target_feature(enable = "avx2")]
pub(super) fn start_with_offset(q: &[i8], cols: usize, out: &mut Outputs<'_, i32>) {
    for (i, q) in q.chunks_exact(cols).enumerate() {
        out.of(i).fill(-q.iter().map(|&q| i32::from(q)).sum::<i32>());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The token; a machine without AVX2 cannot run these tests, and says so by failing.
    pub fn token() -> Avx2 {
        Avx2::detect().expect("these tests need AVX2")
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
