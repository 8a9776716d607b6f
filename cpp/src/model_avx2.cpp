// The loops of a model in AVX2, FMA and F16C, to the bit those of floats_portable.cpp; tails shorter than a
// vector go through those. Free of the standard library, see quantize_avx2.cpp.
//
// Mixing (the probabilities times V) keeps the sums of up to four columns and three vectors of values in
// twelve registers while the positions pass; query heads that share a key head, or neighbouring tokens, are
// columns.

#include "model_avx2.hpp"

#include <immintrin.h>

namespace bnb {
namespace avx2 {
namespace {

constexpr size_t kVector = 8;
constexpr size_t kAheadBytes = 2048; // values come from memory: how far ahead they are asked for

// exp of eight values, docs/NUMERICS.md.
inline __m256 exponential(__m256 x) {
    const __m256 magic = _mm256_set1_ps(0x1.8p23f);
    const __m256 z = _mm256_fmadd_ps(x, _mm256_set1_ps(0x1.715476p+0f), magic);
    const __m256 n = _mm256_sub_ps(z, magic);
    const __m256 near = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
    const __m256 b = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), near);
    const __m256 u = _mm256_mul_ps(b, b);
    const __m256 high = _mm256_fmadd_ps(_mm256_set1_ps(0x1.0e4020p-7f), b, _mm256_set1_ps(0x1.573e2ep-5f));
    const __m256 low = _mm256_fmadd_ps(_mm256_set1_ps(0x1.555e66p-3f), b, _mm256_set1_ps(0x1.fffdb6p-2f));
    const __m256 j =
        _mm256_fmadd_ps(_mm256_fmadd_ps(high, u, low), u, _mm256_mul_ps(_mm256_set1_ps(0x1.ffffecp-1f), b));
    const __m256i power =
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(z), 23), _mm256_set1_epi32(0x3f800000));
    const __m256 k = _mm256_castsi256_ps(power);
    const __m256 value = _mm256_fmadd_ps(k, j, k);
    const __m256 under = _mm256_cmp_ps(n, _mm256_set1_ps(-126.0f), _CMP_LT_OQ);
    const __m256 over = _mm256_cmp_ps(n, _mm256_set1_ps(127.0f), _CMP_GT_OQ);
    const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
    return _mm256_blendv_ps(_mm256_andnot_ps(under, value), infinity, over);
}

inline __m256 load_value(const uint8_t *row, size_t i, bool half) {
    if (half) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(row + 2 * i)));
    }
    return _mm256_loadu_ps(reinterpret_cast<const float *>(row + 4 * i));
}

// kVectors vectors of values from `first` on, kColumns columns.
template <int kColumns, int kVectors, bool kHalf>
inline void mix_tile(const FloatRows &v, size_t n, size_t first, const float *p, size_t p_stride, bool onto,
                     float *out, size_t out_stride) {
    __m256 acc[kColumns][kVectors];
    for (int c = 0; c < kColumns; ++c) {
        for (int i = 0; i < kVectors; ++i) {
            const float *at =
                out + static_cast<size_t>(c) * out_stride + first + static_cast<size_t>(i) * kVector;
            acc[c][i] = onto ? _mm256_loadu_ps(at) : _mm256_setzero_ps();
        }
    }
    const uint8_t *row = v.bytes;
    const size_t offset = first * (kHalf ? 2 : 4);
    for (size_t t = 0; t < n; ++t, row += v.row_bytes) {
        _mm_prefetch(reinterpret_cast<const char *>(row + offset + kAheadBytes), _MM_HINT_T0);
        __m256 values[kVectors];
        for (int i = 0; i < kVectors; ++i) {
            values[i] = load_value(row, first + static_cast<size_t>(i) * kVector, kHalf);
        }
        for (int c = 0; c < kColumns; ++c) {
            const __m256 weight = _mm256_broadcast_ss(p + static_cast<size_t>(c) * p_stride + t);
            for (int i = 0; i < kVectors; ++i) {
                acc[c][i] = _mm256_fmadd_ps(weight, values[i], acc[c][i]);
            }
        }
    }
    for (int c = 0; c < kColumns; ++c) {
        for (int i = 0; i < kVectors; ++i) {
            float *at = out + static_cast<size_t>(c) * out_stride + first + static_cast<size_t>(i) * kVector;
            _mm256_storeu_ps(at, acc[c][i]);
        }
    }
}

template <int kColumns, bool kHalf>
void mix_columns(const FloatRows &v, size_t n, const float *p, size_t p_stride, bool onto, float *out,
                 size_t out_stride) {
    constexpr int kVectors = kColumns >= 4 ? 2 : 4;
    size_t first = 0;
    for (; first + kVectors * kVector <= v.cols; first += kVectors * kVector) {
        mix_tile<kColumns, kVectors, kHalf>(v, n, first, p, p_stride, onto, out, out_stride);
    }
    for (; first + kVector <= v.cols; first += kVector) {
        mix_tile<kColumns, 1, kHalf>(v, n, first, p, p_stride, onto, out, out_stride);
    }
    if (first < v.cols) {
        FloatRows tail = v;
        tail.bytes += first * (kHalf ? 2 : 4);
        tail.cols -= first;
        kFloatPortable.mix(tail, n, p, p_stride, kColumns, onto, out + first, out_stride);
    }
}

template <bool kHalf>
void mix_rows(const FloatRows &v, size_t n, const float *p, size_t p_stride, size_t columns, bool onto,
              float *out, size_t out_stride) {
    for (; columns >= 4; columns -= 4, p += 4 * p_stride, out += 4 * out_stride) {
        mix_columns<4, kHalf>(v, n, p, p_stride, onto, out, out_stride);
    }
    for (; columns >= 2; columns -= 2, p += 2 * p_stride, out += 2 * out_stride) {
        mix_columns<2, kHalf>(v, n, p, p_stride, onto, out, out_stride);
    }
    if (columns == 1) {
        mix_columns<1, kHalf>(v, n, p, p_stride, onto, out, out_stride);
    }
}

} // namespace

void to_half(const float *x, size_t n, uint16_t *half) {
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(half + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));
    }
    kFloatPortable.to_half(x + i, n - i, half + i);
}

void round_to_half(const float *x, size_t n, float *y) {
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0)));
    }
    kFloatPortable.round_to_half(x + i, n - i, y + i);
}

void exp_scores(float *s, size_t n, float scale) {
    const __m256 factor = _mm256_set1_ps(scale);
    const float lowest = -__builtin_inff();
    __m256 largest = _mm256_set1_ps(lowest);
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(s + i), factor);
        _mm256_storeu_ps(s + i, scaled);
        largest = _mm256_max_ps(scaled, largest); // the second operand where one is no number
    }
    alignas(32) float lanes[kVector];
    _mm256_store_ps(lanes, largest);
    float most = lowest;
    for (size_t lane = 0; lane < kVector; ++lane) {
        most = lanes[lane] > most ? lanes[lane] : most;
    }
    for (size_t k = i; k < n; ++k) {
        s[k] *= scale;
        most = s[k] > most ? s[k] : most;
    }
    const __m256 offset = _mm256_set1_ps(most);
    for (i = 0; i + kVector <= n; i += kVector) {
        _mm256_storeu_ps(s + i, exponential(_mm256_sub_ps(_mm256_loadu_ps(s + i), offset)));
    }
    if (i < n) {
        alignas(32) float rest[kVector] = {};
        for (size_t k = i; k < n; ++k) {
            rest[k - i] = s[k] - most;
        }
        _mm256_store_ps(rest, exponential(_mm256_load_ps(rest)));
        for (size_t k = i; k < n; ++k) {
            s[k] = rest[k - i];
        }
    }
}

void mix(const FloatRows &v, size_t n, const float *p, size_t p_stride, size_t columns, bool onto, float *out,
         size_t out_stride) {
    if (v.type == BNB_TYPE_F16) {
        mix_rows<true>(v, n, p, p_stride, columns, onto, out, out_stride);
    } else {
        mix_rows<false>(v, n, p, p_stride, columns, onto, out, out_stride);
    }
}

void rope(uint32_t pairing, const float *x, const float *cosine, const float *sine, size_t d, float *y) {
    const size_t pairs = d / 2;
    size_t j = 0;
    if (pairing == BNB_ROPE_HALVES) {
        for (; j + kVector <= pairs; j += kVector) {
            const __m256 a = _mm256_loadu_ps(x + j), b = _mm256_loadu_ps(x + j + pairs);
            const __m256 c = _mm256_loadu_ps(cosine + j), s = _mm256_loadu_ps(sine + j);
            _mm256_storeu_ps(y + j, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
            _mm256_storeu_ps(y + j + pairs, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
        }
    } else {
        for (; j + kVector / 2 <= pairs; j += kVector / 2) {
            const __m256 both = _mm256_loadu_ps(x + 2 * j);
            const __m256 a = _mm256_moveldup_ps(both), b = _mm256_movehdup_ps(both);
            const __m128 cosines = _mm_loadu_ps(cosine + j), sines = _mm_loadu_ps(sine + j);
            const __m256 c =
                _mm256_set_m128(_mm_unpackhi_ps(cosines, cosines), _mm_unpacklo_ps(cosines, cosines));
            const __m256 s = _mm256_set_m128(_mm_unpackhi_ps(sines, sines), _mm_unpacklo_ps(sines, sines));
            const __m256 first = _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s));
            const __m256 second = _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c));
            _mm256_storeu_ps(y + 2 * j, _mm256_blend_ps(first, second, 0xaa));
        }
    }
    if (j == pairs) {
        return;
    }
    // Neighbours go on where the vectors ended; halves start again, their rest is no slice of the head.
    const size_t done = pairing == BNB_ROPE_NEIGHBOURS ? j : 0;
    kFloatPortable.rope(pairing, x + 2 * done, cosine + done, sine + done, d - 2 * done, y + 2 * done);
}

void activate(uint32_t activation, const float *g, size_t n, float *y) {
    const __m256 one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        const __m256 gate = _mm256_loadu_ps(g + i);
        __m256 value;
        if (activation == BNB_ACTIVATION_SILU) {
            const __m256 negative = _mm256_xor_ps(gate, _mm256_set1_ps(-0.0f));
            value = _mm256_div_ps(gate, _mm256_add_ps(one, exponential(negative)));
        } else {
            const __m256 positive = _mm256_max_ps(gate, zero); // zero where the gate is no number
            value = _mm256_mul_ps(positive, positive);
        }
        _mm256_storeu_ps(y + i, value);
    }
    kFloatPortable.activate(activation, g + i, n - i, y + i);
}

} // namespace avx2
} // namespace bnb
