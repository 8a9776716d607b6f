// The loops of a model in NEON, to the bit those of floats_portable.cpp; tails shorter than a vector go
// through those. Conversions between float16 and float32 are part of every AArch64.
//
// Mixing (the probabilities times V) keeps the sums of up to four columns and four vectors of values in
// registers while the positions pass; query heads that share a key head, or neighbouring tokens, are columns.

#include "model_neon.hpp"

#include <arm_neon.h>

namespace bnb {
namespace neon {
namespace {

constexpr size_t kVector = 4;

// exp of four values, docs/NUMERICS.md.
inline float32x4_t exponential(float32x4_t x) {
    const float32x4_t magic = vdupq_n_f32(0x1.8p23f);
    const float32x4_t z = vfmaq_n_f32(magic, x, 0x1.715476p+0f);
    const float32x4_t n = vsubq_f32(z, magic);
    const float32x4_t near = vfmsq_n_f32(x, n, 0x1.62e4p-1f);
    const float32x4_t b = vfmsq_n_f32(near, n, 0x1.7f7d1cp-20f);
    const float32x4_t u = vmulq_f32(b, b);
    const float32x4_t high = vfmaq_n_f32(vdupq_n_f32(0x1.573e2ep-5f), b, 0x1.0e4020p-7f);
    const float32x4_t low = vfmaq_n_f32(vdupq_n_f32(0x1.fffdb6p-2f), b, 0x1.555e66p-3f);
    const float32x4_t j = vfmaq_f32(vmulq_n_f32(b, 0x1.ffffecp-1f), vfmaq_f32(low, high, u), u);
    const uint32x4_t power = vaddq_u32(vshlq_n_u32(vreinterpretq_u32_f32(z), 23), vdupq_n_u32(0x3f800000));
    const float32x4_t k = vreinterpretq_f32_u32(power);
    const float32x4_t value = vfmaq_f32(k, k, j);
    const uint32x4_t under = vcltq_f32(n, vdupq_n_f32(-126.0f)), over = vcgtq_f32(n, vdupq_n_f32(127.0f));
    const float32x4_t above_zero = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), under));
    return vbslq_f32(over, vdupq_n_f32(__builtin_inff()), above_zero);
}

template <bool kHalf> inline float32x4_t load_value(const uint8_t *row, size_t i) {
    if (kHalf) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(row + 2 * i)));
    }
    return vreinterpretq_f32_u8(vld1q_u8(row + 4 * i));
}

// kVectors vectors of values from `first` on, kColumns columns.
template <int kColumns, int kVectors, bool kHalf>
inline void mix_tile(const FloatRows &v, size_t n, size_t first, const float *p, size_t p_stride, bool onto,
                     float *out, size_t out_stride) {
    const auto at = [&](int c, int i) {
        return out + static_cast<size_t>(c) * out_stride + first + static_cast<size_t>(i) * kVector;
    };
    float32x4_t acc[kColumns][kVectors];
    for (int c = 0; c < kColumns; ++c) {
        for (int i = 0; i < kVectors; ++i) {
            acc[c][i] = onto ? vld1q_f32(at(c, i)) : vdupq_n_f32(0.0f);
        }
    }
    const uint8_t *row = v.bytes;
    for (size_t t = 0; t < n; ++t, row += v.row_bytes) {
        float32x4_t values[kVectors];
        for (int i = 0; i < kVectors; ++i) {
            values[i] = load_value<kHalf>(row, first + static_cast<size_t>(i) * kVector);
        }
        for (int c = 0; c < kColumns; ++c) {
            const float weight = p[static_cast<size_t>(c) * p_stride + t];
            for (int i = 0; i < kVectors; ++i) {
                acc[c][i] = vfmaq_n_f32(acc[c][i], values[i], weight);
            }
        }
    }
    for (int c = 0; c < kColumns; ++c) {
        for (int i = 0; i < kVectors; ++i) {
            vst1q_f32(at(c, i), acc[c][i]);
        }
    }
}

template <int kColumns, bool kHalf>
void mix_columns(const FloatRows &v, size_t n, const float *p, size_t p_stride, bool onto, float *out,
                 size_t out_stride) {
    constexpr int kVectors = 4;
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
    for (; columns >= 1; columns -= 1, p += p_stride, out += out_stride) {
        mix_columns<1, kHalf>(v, n, p, p_stride, onto, out, out_stride);
    }
}

} // namespace

void to_half(const float *x, size_t n, uint16_t *half) {
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        vst1_u16(half + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    }
    kFloatPortable.to_half(x + i, n - i, half + i);
}

void round_to_half(const float *x, size_t n, float *y) {
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        vst1q_f32(y + i, vcvt_f32_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    }
    kFloatPortable.round_to_half(x + i, n - i, y + i);
}

void exp_scores(float *s, size_t n, float scale) {
    const float lowest = -__builtin_inff();
    float32x4_t largest = vdupq_n_f32(lowest);
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        const float32x4_t scaled = vmulq_n_f32(vld1q_f32(s + i), scale);
        vst1q_f32(s + i, scaled);
        largest = vbslq_f32(vcgtq_f32(scaled, largest), scaled, largest); // never one that is no number
    }
    float most = vmaxvq_f32(largest);
    for (size_t k = i; k < n; ++k) {
        s[k] *= scale;
        most = s[k] > most ? s[k] : most;
    }
    const float32x4_t offset = vdupq_n_f32(most);
    for (i = 0; i + kVector <= n; i += kVector) {
        vst1q_f32(s + i, exponential(vsubq_f32(vld1q_f32(s + i), offset)));
    }
    if (i < n) {
        float rest[kVector] = {};
        for (size_t k = i; k < n; ++k) {
            rest[k - i] = s[k] - most;
        }
        vst1q_f32(rest, exponential(vld1q_f32(rest)));
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
    const auto turned = [&](float32x4_t a, float32x4_t b, size_t j) {
        const float32x4_t c = vld1q_f32(cosine + j), s = vld1q_f32(sine + j);
        return float32x4x2_t{{vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c), vfmaq_f32(vmulq_f32(b, c), a, s)}};
    };
    size_t j = 0;
    if (pairing == BNB_ROPE_HALVES) {
        for (; j + kVector <= pairs; j += kVector) {
            const float32x4x2_t pair = turned(vld1q_f32(x + j), vld1q_f32(x + j + pairs), j);
            vst1q_f32(y + j, pair.val[0]);
            vst1q_f32(y + j + pairs, pair.val[1]);
        }
    } else {
        for (; j + kVector <= pairs; j += kVector) {
            const float32x4x2_t both = vld2q_f32(x + 2 * j);
            vst2q_f32(y + 2 * j, turned(both.val[0], both.val[1], j));
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
    const float32x4_t one = vdupq_n_f32(1.0f);
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        const float32x4_t gate = vld1q_f32(g + i);
        if (activation == BNB_ACTIVATION_SILU) {
            vst1q_f32(y + i, vdivq_f32(gate, vaddq_f32(one, exponential(vnegq_f32(gate)))));
        } else {
            const uint32x4_t positive = vcgtzq_f32(gate); // false where the gate is no number
            const float32x4_t r = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(gate), positive));
            vst1q_f32(y + i, vmulq_f32(r, r));
        }
    }
    kFloatPortable.activate(activation, g + i, n - i, y + i);
}

} // namespace neon
} // namespace bnb
