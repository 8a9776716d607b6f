// The float loops as docs/NUMERICS.md states them, one element at a time: what the fast ones are compared
// with.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "floats.hpp"

namespace bnb {
namespace {

uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

float float_of_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t load_u16(const uint8_t *bytes) {
    return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}

float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
    if (exponent == 0) { // zero or subnormal: fraction * 2^-24, exact
        const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
        return float_of_bits(bits_of(magnitude) | sign);
    }
    const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
    return float_of_bits(sign | wide << 23 | fraction << 13);
}

uint16_t float_to_half(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { // not a number: the upper bits of the payload, made quiet
        return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    }
    if (magnitude >= 0x477ff000u) { // 65520 and more round to infinity
        return static_cast<uint16_t>(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) { // below 2^-14: a multiple of 2^-24, rounded where 0.5 has its last bit
        const float shifted = float_of_bits(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (bits_of(shifted) - bits_of(0.5f)));
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

void decode_q8_0(const uint8_t *block, float *out) {
    const float d = half_to_float(load_u16(block));
    for (size_t i = 0; i < kQ8Block; ++i) {
        out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
    }
}

void decode_q6_k(const uint8_t *block, float *out) {
    const uint8_t *low = block, *high = block + 128, *scales = block + 192;
    const float d = half_to_float(load_u16(block + 208));
    for (size_t i = 0; i < kQ6Block; ++i) {
        const size_t half = i / 128, quarter = i / 32 % 4, l = i % 32;
        const unsigned nibble = low[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15u;
        const unsigned top = high[32 * half + l] >> (2 * quarter) & 3u;
        const float scale = static_cast<float>(static_cast<int8_t>(scales[8 * half + 2 * quarter + l / 16]));
        out[i] = d * scale * static_cast<float>(static_cast<int>(top << 4 | nibble) - 32);
    }
}

void decode(uint32_t type, const uint8_t *bytes, size_t n, float *out) {
    switch (type) {
    case BNB_TYPE_F32:
        std::memcpy(out, bytes, 4 * n);
        return;
    case BNB_TYPE_F16:
        for (size_t i = 0; i < n; ++i) {
            out[i] = half_to_float(load_u16(bytes + 2 * i));
        }
        return;
    case BNB_TYPE_BF16:
        for (size_t i = 0; i < n; ++i) {
            out[i] = float_of_bits(static_cast<uint32_t>(load_u16(bytes + 2 * i)) << 16);
        }
        return;
    case BNB_TYPE_Q8_0:
        for (size_t block = 0; block < n / kQ8Block; ++block) {
            decode_q8_0(bytes + block * kQ8BlockBytes, out + block * kQ8Block);
        }
        return;
    default:
        for (size_t block = 0; block < n / kQ6Block; ++block) {
            decode_q6_k(bytes + block * kQ6BlockBytes, out + block * kQ6Block);
        }
    }
}

float dot(const float *w, const float *x, size_t n) {
    float lanes[kFloatLanes] = {};
    for (size_t k = 0; k < n; ++k) {
        lanes[k % kFloatLanes] = std::fma(w[k], x[k], lanes[k % kFloatLanes]);
    }
    for (size_t half = kFloatLanes / 2; half > 0; half /= 2) {
        for (size_t lane = 0; lane < half; ++lane) {
            lanes[lane] += lanes[lane + half];
        }
    }
    return lanes[0];
}

void dots(const FloatRows &rows, size_t n_rows, const float *x, size_t x_stride, size_t n, float *y,
          size_t y_stride, float *scratch) {
    for (size_t row = 0; row < n_rows; ++row) {
        decode(rows.type, rows.bytes + row * rows.row_bytes, rows.cols, scratch);
        for (size_t column = 0; column < n; ++column) {
            y[column * y_stride + row] = dot(scratch, x + column * x_stride, rows.cols);
        }
    }
}

void quantize_q8(const float *x, size_t n, int8_t *q, float *d) {
    for (size_t block = 0; block < n / kQ8Block; ++block, x += kQ8Block, q += kQ8Block) {
        uint32_t largest_bits = 0; // they order like the numbers, and a NaN is above them all
        for (size_t i = 0; i < kQ8Block; ++i) {
            largest_bits = std::max(largest_bits, bits_of(x[i]) & 0x7fffffffu);
        }
        const float largest = float_of_bits(largest_bits);
        d[block] = half_to_float(float_to_half(largest / 127.0f));
        // Zeros for zeros, for next to nothing (d is 0 too), and where d is no number.
        const float inverse = 127.0f / largest;
        const bool zeros = !std::isfinite(inverse) || !std::isfinite(largest);
        for (size_t i = 0; i < kQ8Block; ++i) {
            q[i] = zeros ? int8_t{0} : static_cast<int8_t>(std::nearbyint(x[i] * inverse));
        }
    }
}

void dots_q8(const FloatRows &rows, size_t n_rows, const int8_t *q, const float *d, size_t n, float *y,
             size_t y_stride) {
    const size_t blocks = rows.cols / kQ8Block;
    for (size_t row = 0; row < n_rows; ++row) {
        for (size_t column = 0; column < n; ++column) {
            const int8_t *codes = q + column * rows.cols;
            float sum = 0.0f;
            for (size_t b = 0; b < blocks; ++b) {
                const uint8_t *block = rows.bytes + row * rows.row_bytes + b * kQ8BlockBytes;
                int32_t products = 0;
                for (size_t i = 0; i < kQ8Block; ++i) {
                    products += static_cast<int8_t>(block[2 + i]) * codes[b * kQ8Block + i];
                }
                const float scale = half_to_float(load_u16(block)) * d[column * blocks + b];
                sum = std::fma(static_cast<float>(products), scale, sum);
            }
            y[column * y_stride + row] = sum;
        }
    }
}

void to_half(const float *x, size_t n, uint16_t *half) {
    for (size_t i = 0; i < n; ++i) {
        half[i] = float_to_half(x[i]);
    }
}

void round_to_half(const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; ++i) {
        y[i] = half_to_float(float_to_half(x[i]));
    }
}

float exponential(float x) {
    const float z = std::fma(x, 0x1.715476p+0f, 0x1.8p23f);
    const float n = z - 0x1.8p23f;
    if (n < -126.0f) {
        return 0.0f;
    }
    if (n > 127.0f) {
        return INFINITY;
    }
    const float b = std::fma(-n, 0x1.7f7d1cp-20f, std::fma(-n, 0x1.62e4p-1f, x));
    const float u = b * b;
    const float high = std::fma(0x1.0e4020p-7f, b, 0x1.573e2ep-5f);
    const float low = std::fma(0x1.555e66p-3f, b, 0x1.fffdb6p-2f);
    const float j = std::fma(std::fma(high, u, low), u, 0x1.ffffecp-1f * b);
    const float k = float_of_bits((bits_of(z) << 23) + 0x3f800000u); // 2^n: z ends in the bits of n
    return std::fma(k, j, k);
}

void exp_scores(float *s, size_t n, float scale) {
    float largest = -INFINITY;
    for (size_t i = 0; i < n; ++i) {
        s[i] *= scale;
        largest = s[i] > largest ? s[i] : largest;
    }
    for (size_t i = 0; i < n; ++i) {
        s[i] = exponential(s[i] - largest);
    }
}

void mix(const FloatRows &v, size_t n, const float *p, size_t p_stride, size_t columns, bool onto, float *out,
         size_t out_stride) {
    for (size_t column = 0; column < columns; ++column) {
        float *sums = out + column * out_stride;
        if (!onto) {
            std::fill_n(sums, v.cols, 0.0f);
        }
        for (size_t t = 0; t < n; ++t) {
            const uint8_t *row = v.bytes + t * v.row_bytes;
            for (size_t i = 0; i < v.cols; ++i) {
                float value;
                decode(v.type, row + (v.type == BNB_TYPE_F16 ? 2 : 4) * i, 1, &value);
                sums[i] = std::fma(p[column * p_stride + t], value, sums[i]);
            }
        }
    }
}

void rope(uint32_t pairing, const float *x, const float *cosine, const float *sine, size_t d, float *y) {
    const bool halves = pairing == BNB_ROPE_HALVES;
    for (size_t j = 0; j < d / 2; ++j) {
        const size_t first = halves ? j : 2 * j, second = halves ? j + d / 2 : 2 * j + 1;
        const float a = x[first], b = x[second], c = cosine[j], s = sine[j];
        y[first] = std::fma(a, c, -(b * s));
        y[second] = std::fma(a, s, b * c);
    }
}

void activate(uint32_t activation, const float *g, size_t n, float *y) {
    for (size_t i = 0; i < n; ++i) {
        if (activation == BNB_ACTIVATION_SILU) {
            y[i] = g[i] / (1.0f + exponential(-g[i]));
        } else {
            const float r = g[i] > 0.0f ? g[i] : 0.0f;
            y[i] = r * r;
        }
    }
}

} // namespace

const FloatKernels kFloatPortable = {decode,        dots,       quantize_q8, dots_q8, to_half,
                                     round_to_half, exp_scores, mix,         rope,    activate};

} // namespace bnb
