// The element-wise loops in AVX2. Compiled with -mavx2 -mfma and free of the standard library, whose inline
// code must not be instantiated under these flags: the linker could pick it for the whole program.
//
// Every operation rounds where the portable loop rounds; nothing is contracted (-ffp-contract=off) or
// reassociated but integer sums. Tails shorter than a vector go through the portable loops.

#include <immintrin.h>

#include "kernels.hpp"

namespace bnb {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kBlock = 128;     // codes of an I2_S block
constexpr size_t kBlockBytes = 32; // and its bytes

inline __m256i load(const void *p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}
inline void store(void *p, __m256i v) {
    _mm256_storeu_si256(static_cast<__m256i *>(p), v);
}

// Four vectors of int32 -> 32 int8 in order, with saturation. The packs work within halves of 128 bits, which
// leaves groups of four in the order 0 2 4 6 1 3 5 7.
inline __m256i pack_to_bytes(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i interleaved = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    return _mm256_permutevar8x32_epi32(interleaved, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

inline int32_t sum_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

// x * scale to int32, half to even. |x * scale| stays near 127 by the choice of the scale, so the conversion
// does not overflow, and the clamp is the saturation of the packs.
inline __m256i rounded(const float *x, __m256 scale) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
}

// clamp(round_half_even(p), -1, 1) is a pair of comparisons: 0.5 goes to the even 0, and 1.5 or more is
// clamped.
inline __m256i ternary(const float *w, __m256 inverse) {
    const __m256 product = _mm256_mul_ps(_mm256_loadu_ps(w), inverse);
    const __m256 above = _mm256_cmp_ps(product, _mm256_set1_ps(0.5f), _CMP_GT_OQ);
    const __m256 below = _mm256_cmp_ps(product, _mm256_set1_ps(-0.5f), _CMP_LT_OQ);
    return _mm256_sub_epi32(_mm256_castps_si256(below), _mm256_castps_si256(above));
}

// |w| < 1e-6 in float64 is |w| <= 0x358637bd in float32 bits: that float is the largest below 1e-6.
inline __m256i signs(const float *w) {
    const __m256 threshold = _mm256_castsi256_ps(_mm256_set1_epi32(0x358637bd));
    const __m256 values = _mm256_loadu_ps(w);
    const __m256 above = _mm256_cmp_ps(values, threshold, _CMP_GT_OQ);
    const __m256 below = _mm256_cmp_ps(values, _mm256_sub_ps(_mm256_setzero_ps(), threshold), _CMP_LT_OQ);
    return _mm256_sub_epi32(_mm256_castps_si256(below), _mm256_castps_si256(above));
}

} // namespace

uint32_t max_abs_bits_avx2(const float *x, size_t n) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    size_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        a = _mm256_max_epi32(a, _mm256_and_si256(load(x + i), magnitude));
        b = _mm256_max_epi32(b, _mm256_and_si256(load(x + i + 8), magnitude));
        c = _mm256_max_epi32(c, _mm256_and_si256(load(x + i + 16), magnitude));
        d = _mm256_max_epi32(d, _mm256_and_si256(load(x + i + 24), magnitude));
    }
    a = _mm256_max_epi32(_mm256_max_epi32(a, b), _mm256_max_epi32(c, d));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    const uint32_t head = static_cast<uint32_t>(_mm_cvtsi128_si32(m));
    const uint32_t tail = max_abs_bits_portable(x + i, n - i);
    return head > tail ? head : tail;
}

int32_t quantize_row_avx2(const float *x, size_t n, float scale, int8_t *q) {
    const __m256 factor = _mm256_set1_ps(scale);
    const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        const __m256i codes = pack_to_bytes(rounded(x + i, factor), rounded(x + i + 8, factor),
                                            rounded(x + i + 16, factor), rounded(x + i + 24, factor));
        store(q + i, codes);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, codes), ones16));
    }
    return sum_lanes(sum) + quantize_row_portable(x + i, n - i, scale, q + i);
}

void ternarize_absmean_avx2(const float *w, size_t n, float inverse, int8_t *codes) {
    const __m256 factor = _mm256_set1_ps(inverse);
    size_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        store(codes + i, pack_to_bytes(ternary(w + i, factor), ternary(w + i + 8, factor),
                                       ternary(w + i + 16, factor), ternary(w + i + 24, factor)));
    }
    ternarize_absmean_portable(w + i, n - i, inverse, codes + i);
}

void ternarize_signs_avx2(const float *w, size_t n, int8_t *codes) {
    size_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        store(codes + i, pack_to_bytes(signs(w + i), signs(w + i + 8), signs(w + i + 16), signs(w + i + 24)));
    }
    ternarize_signs_portable(w + i, n - i, codes + i);
}

void dequantize_avx2(const int8_t *codes, size_t n, float scale, float *dst) {
    // The two low bits of a code, 0, 1 or 3, choose among the three products.
    const __m256 products = _mm256_mul_ps(_mm256_setr_ps(0, 1, 0, -1, 0, 1, 0, -1), _mm256_set1_ps(scale));
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(codes + i));
        _mm256_storeu_ps(dst + i, _mm256_permutevar_ps(products, _mm256_cvtepi8_epi32(bytes)));
    }
    dequantize_portable(codes + i, n - i, scale, dst + i);
}

void scale_dots_avx2(const int32_t *dots, size_t n, float activation_scale, float weight_scale, float *y) {
    const __m256 divisor = _mm256_set1_ps(activation_scale), factor = _mm256_set1_ps(weight_scale);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        const __m256 quotient = _mm256_div_ps(_mm256_cvtepi32_ps(load(dots + i)), divisor);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(quotient, factor));
    }
    scale_dots_portable(dots + i, n - i, activation_scale, weight_scale, y + i);
}

void pack_i2s_avx2(const int8_t *codes, size_t blocks, uint8_t *dst) {
    // (code + 1) of each group moves up by 6, 4, 2, 0 bits; no bit crosses a byte, so 16-bit shifts will do.
    const __m256i one = _mm256_set1_epi8(1);
    for (size_t block = 0; block < blocks; ++block) {
        const int8_t *code = codes + block * kBlock;
        const __m256i u0 = _mm256_slli_epi16(_mm256_add_epi8(load(code), one), 6);
        const __m256i u1 = _mm256_slli_epi16(_mm256_add_epi8(load(code + 32), one), 4);
        const __m256i u2 = _mm256_slli_epi16(_mm256_add_epi8(load(code + 64), one), 2);
        const __m256i u3 = _mm256_add_epi8(load(code + 96), one);
        store(dst + block * kBlockBytes, _mm256_or_si256(_mm256_or_si256(u0, u1), _mm256_or_si256(u2, u3)));
    }
}

bool unpack_i2s_avx2(const uint8_t *bytes, size_t blocks, int8_t *codes) {
    const __m256i three = _mm256_set1_epi8(3), one = _mm256_set1_epi8(1), low = _mm256_set1_epi8(0x55);
    __m256i unused = _mm256_setzero_si256();
    for (size_t block = 0; block < blocks; ++block) {
        const __m256i packed = load(bytes + block * kBlockBytes);
        int8_t *code = codes + block * kBlock;
        // Code 3: the upper bit, shifted down, meets the lower one. What a neighbour byte shifts in lands on
        // bit 7, which the mask 0x55 drops.
        unused = _mm256_or_si256(unused, _mm256_and_si256(packed, _mm256_srli_epi16(packed, 1)));
        for (int group = 0; group < 4; ++group) {
            const __m256i u = _mm256_and_si256(_mm256_srli_epi16(packed, 6 - 2 * group), three);
            store(code + 32 * group, _mm256_sub_epi8(u, one));
        }
    }
    return _mm256_testz_si256(unused, low) != 0;
}

} // namespace bnb
