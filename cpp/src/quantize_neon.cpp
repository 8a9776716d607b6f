// The element-wise loops in NEON. Every operation rounds where the portable loop rounds: vcvtn is half to
// even whatever the rounding mode, vdiv and vmul round once, nothing is contracted. Tails shorter than a
// vector go through the portable loops.

#include <arm_neon.h>

#include "kernels.hpp"

namespace bnb {
namespace {

constexpr size_t kStep = 16; // floats that become one vector of int8

struct Sixteen {
    int32x4_t v[4];
};

// Saturates, which is the clamp.
inline int8x16_t to_bytes(const Sixteen &s) {
    const int16x8_t low = vcombine_s16(vqmovn_s32(s.v[0]), vqmovn_s32(s.v[1]));
    const int16x8_t high = vcombine_s16(vqmovn_s32(s.v[2]), vqmovn_s32(s.v[3]));
    return vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
}

// each(four floats) -> four int32, for sixteen floats.
template <class Each> inline int8x16_t sixteen(const float *x, Each each) {
    return to_bytes(
        {{each(vld1q_f32(x)), each(vld1q_f32(x + 4)), each(vld1q_f32(x + 8)), each(vld1q_f32(x + 12))}});
}

// 1 above `edge`, -1 below -edge, else 0: comparisons answer 0 or -1.
inline int32x4_t side_of(float32x4_t values, float edge) {
    const uint32x4_t above = vcgtq_f32(values, vdupq_n_f32(edge));
    const uint32x4_t below = vcltq_f32(values, vdupq_n_f32(-edge));
    return vsubq_s32(vreinterpretq_s32_u32(below), vreinterpretq_s32_u32(above));
}

} // namespace

uint32_t max_abs_bits_neon(const float *x, size_t n) {
    const auto magnitude = [&](size_t at) {
        return vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + at)), vdupq_n_u32(0x7fffffff));
    };
    uint32x4_t a = vdupq_n_u32(0), b = a, c = a, d = a;
    size_t i = 0;
    for (; i + kStep <= n; i += kStep) {
        a = vmaxq_u32(a, magnitude(i));
        b = vmaxq_u32(b, magnitude(i + 4));
        c = vmaxq_u32(c, magnitude(i + 8));
        d = vmaxq_u32(d, magnitude(i + 12));
    }
    const uint32_t head = vmaxvq_u32(vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d)));
    const uint32_t tail = max_abs_bits_portable(x + i, n - i);
    return head > tail ? head : tail;
}

int32_t quantize_row_neon(const float *x, size_t n, float scale, int8_t *q) {
    int32x4_t sum = vdupq_n_s32(0);
    size_t i = 0;
    for (; i + kStep <= n; i += kStep) {
        const int8x16_t codes =
            sixteen(x + i, [&](float32x4_t values) { return vcvtnq_s32_f32(vmulq_n_f32(values, scale)); });
        vst1q_s8(q + i, codes);
        sum = vpadalq_s16(sum, vpaddlq_s8(codes));
    }
    return vaddvq_s32(sum) + quantize_row_portable(x + i, n - i, scale, q + i);
}

void ternarize_absmean_neon(const float *w, size_t n, float inverse, int8_t *codes) {
    // clamp(round_half_even(p), -1, 1): 0.5 goes to the even 0, and 1.5 or more is clamped.
    size_t i = 0;
    for (; i + kStep <= n; i += kStep) {
        vst1q_s8(codes + i, sixteen(w + i, [&](float32x4_t values) {
                     return side_of(vmulq_n_f32(values, inverse), 0.5f);
                 }));
    }
    ternarize_absmean_portable(w + i, n - i, inverse, codes + i);
}

void ternarize_signs_neon(const float *w, size_t n, int8_t *codes) {
    constexpr float kEdge = 0x1.0c6f7ap-20f; // the largest float32 below 1e-6
    size_t i = 0;
    for (; i + kStep <= n; i += kStep) {
        vst1q_s8(codes + i, sixteen(w + i, [&](float32x4_t values) { return side_of(values, kEdge); }));
    }
    ternarize_signs_portable(w + i, n - i, codes + i);
}

void dequantize_neon(const int8_t *codes, size_t n, float scale, float *dst) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const int16x8_t wide = vmovl_s8(vld1_s8(codes + i));
        const float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
        const float32x4_t high = vcvtq_f32_s32(vmovl_high_s16(wide));
        vst1q_f32(dst + i, vmulq_n_f32(low, scale));
        vst1q_f32(dst + i + 4, vmulq_n_f32(high, scale));
    }
    dequantize_portable(codes + i, n - i, scale, dst + i);
}

void scale_dots_neon(const int32_t *dots, size_t n, float activation_scale, float weight_scale, float *y) {
    const float32x4_t divisor = vdupq_n_f32(activation_scale);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t quotient = vdivq_f32(vcvtq_f32_s32(vld1q_s32(dots + i)), divisor);
        vst1q_f32(y + i, vmulq_n_f32(quotient, weight_scale));
    }
    scale_dots_portable(dots + i, n - i, activation_scale, weight_scale, y + i);
}

void pack_i2s_neon(const int8_t *codes, size_t blocks, uint8_t *dst) {
    const auto unsigned_code = [&](size_t group, size_t half) {
        const int8x16_t code = vld1q_s8(codes + 32 * group + 16 * half);
        return vreinterpretq_u8_s8(vaddq_s8(code, vdupq_n_s8(1)));
    };
    for (size_t block = 0; block < blocks; ++block, codes += kI2sBlock, dst += kI2sBlockBytes) {
        for (size_t half = 0; half < 2; ++half) {
            // Each insertion shifts one group in above the groups behind it.
            uint8x16_t packed = unsigned_code(3, half);
            packed = vsliq_n_u8(packed, unsigned_code(2, half), 2);
            packed = vsliq_n_u8(packed, unsigned_code(1, half), 4);
            packed = vsliq_n_u8(packed, unsigned_code(0, half), 6);
            vst1q_u8(dst + 16 * half, packed);
        }
    }
}

bool unpack_i2s_neon(const uint8_t *bytes, size_t blocks, int8_t *codes) {
    const uint8x16_t three = vdupq_n_u8(3);
    uint8x16_t unused = vdupq_n_u8(0); // gathers bits of code 3: both of a pair are set
    for (size_t block = 0; block < blocks; ++block, bytes += kI2sBlockBytes, codes += kI2sBlock) {
        for (size_t half = 0; half < 2; ++half) {
            const uint8x16_t packed = vld1q_u8(bytes + 16 * half);
            unused = vorrq_u8(unused, vandq_u8(packed, vshrq_n_u8(packed, 1)));
            const uint8x16_t groups[4] = {vshrq_n_u8(packed, 6), vandq_u8(vshrq_n_u8(packed, 4), three),
                                          vandq_u8(vshrq_n_u8(packed, 2), three), vandq_u8(packed, three)};
            for (size_t group = 0; group < 4; ++group) {
                vst1q_s8(codes + 32 * group + 16 * half,
                         vsubq_s8(vreinterpretq_s8_u8(groups[group]), vdupq_n_s8(1)));
            }
        }
    }
    return vmaxvq_u8(vandq_u8(unused, vdupq_n_u8(0x55))) == 0;
}

} // namespace bnb
