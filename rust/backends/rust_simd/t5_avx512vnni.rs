//! Five trits of a byte on AVX-512 (`docs/FORMATS.md`, Repacked orders): t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4, 64 bytes at once.
//!
//! There is no division of bytes, and none is needed. 81 goes into a byte at most twice, so taking it off as long as that
//! makes the byte smaller, unsigned, leaves the other four trits; those are at most 80, few enough for one look-up in 128
//! bytes, which gives them as two-bit codes in the places that I2_S has. What was taken off is 81 t4, and 81 and 162 end
//! in the bits 01 and 10: it need not be divided either.
//!
//! ```text
//! rest = min(v, v - 81), twice     4 operations    x = TABLE[rest]     1    t0..t3 = x's two-bit codes     4
//!                                                                           t4 = (v - rest) & 3            2
//! ```
//!
//! Measured against this: a look-up for each trit is a sixth slower (look-ups have one port), and so are sums that are
//! kept apart for each place and joined at the end (twenty of them leave no register for anything else).

use std::arch::x86_64::*;

use super::i2s_avx512vnni::unpack;
use super::panel_avx512vnni::load;

/// The first four trits of 0..81 as two-bit codes, the first one in bits 7:6.
static TWO_BIT_CODES: [[u8; 64]; 2] = two_bit_codes();

const fn two_bit_codes() -> [[u8; 64]; 2] {
    let mut table = [[0; 64]; 2];
    let mut value = 0;
    while value < 81 {
        let trits = [value % 3, value / 3 % 3, value / 9 % 3, value / 27];
        let codes = trits[0] << 6 | trits[1] << 4 | trits[2] << 2 | trits[3];
        table[value as usize / 64][value as usize % 64] = codes;
        value += 1;
    }
    table
}

/// The trits of each byte, 0, 1 or 2.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
pub(super) fn split(bytes: __m512i) -> [__m512i; 5] {
    let unit = _mm512_set1_epi8(81);
    let once = _mm512_min_epu8(bytes, _mm512_sub_epi8(bytes, unit));
    let rest = _mm512_min_epu8(once, _mm512_sub_epi8(once, unit));
    let [low, high] = &TWO_BIT_CODES;
    let [t0, t1, t2, t3] = unpack(_mm512_permutex2var_epi8(load(low), rest, load(high)));
    [t0, t1, t2, t3, _mm512_and_si512(_mm512_sub_epi8(bytes, rest), _mm512_set1_epi8(3))]
}
