// The float products in NEON, to the bit those of floats_portable.cpp.
//
// The 32 lanes are eight vectors of four. One column of x (decode) is bound by reading the rows once: two
// rows at a time keep their sixteen accumulators in registers and share what they load of x.
//
// More columns are bound by arithmetic. Four rows are decoded to float32 once; a tile of four rows and up to
// four columns runs over four of the 32 lanes at a time, sixteen accumulators and eight loads for sixteen
// fused products, in chunks of columns that stay in the L1 cache while the eight vectors of lanes take turns.
//
// Nothing is padded with zeros: fma(0, 0, -0) is +0, so the last columns go to their lanes one by one.

#include <arm_neon.h>

#include "model_neon.hpp"

namespace bnb {
namespace {

constexpr size_t kVector = 4;
constexpr size_t kVectors = kFloatLanes / kVector;
constexpr size_t kChunk = 512; // columns of a tile between changes of the vector of lanes
constexpr size_t kTileRows = 4;
static_assert(kTileRows == 4); // rows that dots_scratch counts on

// How four values stand in memory, kBytes for one.
struct F32 {
    static constexpr uint32_t kId = BNB_TYPE_F32;
    static constexpr size_t kBytes = 4;
    static float32x4_t load4(const uint8_t *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
};
struct F16 {
    static constexpr uint32_t kId = BNB_TYPE_F16;
    static constexpr size_t kBytes = 2;
    static float32x4_t load4(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
};
struct Bf16 {
    static constexpr uint32_t kId = BNB_TYPE_BF16;
    static constexpr size_t kBytes = 2;
    static float32x4_t load4(const uint8_t *p) {
        return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
    }
};

inline float half_to_float(const uint8_t *bytes) {
    const uint16_t half = static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}

struct Lanes {
    float32x4_t part[kVectors];
};

// lane[l] += lane[l + h] for h = 16, 8, 4, 2, 1.
inline float add_lanes(const Lanes &lanes) {
    const float32x4_t *p = lanes.part;
    const float32x4_t a = vaddq_f32(p[0], p[4]), b = vaddq_f32(p[1], p[5]);
    const float32x4_t c = vaddq_f32(p[2], p[6]), d = vaddq_f32(p[3], p[7]);
    const float32x4_t four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

// The last columns of a row, fewer than 32, onto their lanes.
inline void add_tail(const float *w, const float *x, size_t count, Lanes &lanes) {
    float values[kFloatLanes];
    for (size_t v = 0; v < kVectors; ++v) {
        vst1q_f32(values + kVector * v, lanes.part[v]);
    }
    for (size_t k = 0; k < count; ++k) {
        values[k] = __builtin_fmaf(w[k], x[k], values[k]);
    }
    for (size_t v = 0; v < kVectors; ++v) {
        lanes.part[v] = vld1q_f32(values + kVector * v);
    }
}

// Two rows times one column.
template <class Type>
inline void row_pair(const uint8_t *row_a, const uint8_t *row_b, const float *x, size_t cols, float *y_a,
                     float *y_b) {
    Lanes a, b;
    for (size_t v = 0; v < kVectors; ++v) {
        a.part[v] = b.part[v] = vdupq_n_f32(0.0f);
    }
    const size_t whole = cols / kFloatLanes * kFloatLanes;
    for (size_t k = 0; k < whole; k += kFloatLanes) {
        for (size_t v = 0; v < kVectors; ++v) {
            const size_t at = k + v * kVector;
            const float32x4_t values = vld1q_f32(x + at);
            a.part[v] = vfmaq_f32(a.part[v], Type::load4(row_a + at * Type::kBytes), values);
            b.part[v] = vfmaq_f32(b.part[v], Type::load4(row_b + at * Type::kBytes), values);
        }
    }
    if (whole < cols) {
        float w[kFloatLanes];
        kFloatPortable.decode(Type::kId, row_a + whole * Type::kBytes, cols - whole, w);
        add_tail(w, x + whole, cols - whole, a);
        kFloatPortable.decode(Type::kId, row_b + whole * Type::kBytes, cols - whole, w);
        add_tail(w, x + whole, cols - whole, b);
    }
    *y_b = add_lanes(b); // the same place when a row stands alone
    *y_a = add_lanes(a);
}

template <class Type> void one_column(const FloatRows &rows, size_t n_rows, const float *x, float *y) {
    for (size_t row = 0; row < n_rows; row += 2) {
        const size_t other = row + 1 < n_rows ? row + 1 : row;
        row_pair<Type>(rows.bytes + row * rows.row_bytes, rows.bytes + other * rows.row_bytes, x, rows.cols,
                       y + row, y + other);
    }
}

template <class Type> void decode_plain(const uint8_t *bytes, size_t n, float *out) {
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        vst1q_f32(out + i, Type::load4(bytes + i * Type::kBytes));
    }
    kFloatPortable.decode(Type::kId, bytes + i * Type::kBytes, n - i, out + i);
}

// 16 values of a Q6_K block, `q` as they are + 32, times one scale.
inline void store_q6(uint8x16_t q, float scale, float *out) {
    const int8x16_t centred = vsubq_s8(vreinterpretq_s8_u8(q), vdupq_n_s8(32));
    const int16x8_t wide[2] = {vmovl_s8(vget_low_s8(centred)), vmovl_high_s8(centred)};
    for (size_t half = 0; half < 2; ++half, out += 8) {
        vst1q_f32(out, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide[half]))), scale));
        vst1q_f32(out + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(wide[half])), scale));
    }
}

void decode_q6(const uint8_t *bytes, size_t n, float *out) {
    for (size_t block = 0; block < n / kQ6Block; ++block, bytes += kQ6BlockBytes) {
        const float d = half_to_float(bytes + 208);
        for (size_t i = 0; i < kQ6Block; i += 16, out += 16) {
            const size_t half = i / 128, quarter = i / 32 % 4, l = i % 32;
            const uint8x16_t both = vld1q_u8(bytes + 64 * half + 32 * (quarter % 2) + l);
            const uint8x16_t low = quarter < 2 ? vandq_u8(both, vdupq_n_u8(15)) : vshrq_n_u8(both, 4);
            const uint8x16_t high = vld1q_u8(bytes + 128 + 32 * half + l);
            const int8x16_t down = vdupq_n_s8(static_cast<int8_t>(-2 * static_cast<int>(quarter)));
            const uint8x16_t top = vshlq_n_u8(vandq_u8(vshlq_u8(high, down), vdupq_n_u8(3)), 4);
            const auto scale = static_cast<int8_t>(bytes[192 + 8 * half + 2 * quarter + l / 16]);
            store_q6(vorrq_u8(top, low), d * static_cast<float>(scale), out);
        }
    }
}

void decode(uint32_t type, const uint8_t *bytes, size_t n, float *out) {
    switch (type) {
    case BNB_TYPE_F16:
        return decode_plain<F16>(bytes, n, out);
    case BNB_TYPE_BF16:
        return decode_plain<Bf16>(bytes, n, out);
    case BNB_TYPE_Q6_K:
        return decode_q6(bytes, n, out);
    default:
        return kFloatPortable.decode(type, bytes, n, out); // float32 is copied
    }
}

// Four decoded rows times kColumns columns. The first `used` rows are stored, y for each column y_stride.
template <size_t kColumns>
void tile(const float *decoded, size_t cols, const float *x, size_t x_stride, size_t used, float *y,
          size_t y_stride) {
    Lanes lanes[kTileRows][kColumns];
    for (size_t r = 0; r < kTileRows; ++r) {
        for (size_t c = 0; c < kColumns; ++c) {
            for (size_t v = 0; v < kVectors; ++v) {
                lanes[r][c].part[v] = vdupq_n_f32(0.0f);
            }
        }
    }
    const size_t whole = cols / kFloatLanes * kFloatLanes;
    for (size_t chunk = 0; chunk < whole; chunk += kChunk) {
        const size_t end = chunk + kChunk < whole ? chunk + kChunk : whole;
        for (size_t v = 0; v < kVectors; ++v) {
            float32x4_t acc[kTileRows][kColumns];
            for (size_t r = 0; r < kTileRows; ++r) {
                for (size_t c = 0; c < kColumns; ++c) {
                    acc[r][c] = lanes[r][c].part[v];
                }
            }
            for (size_t k = chunk + v * kVector; k < end; k += kFloatLanes) {
                float32x4_t w[kTileRows];
                for (size_t r = 0; r < kTileRows; ++r) {
                    w[r] = vld1q_f32(decoded + r * cols + k);
                }
                for (size_t c = 0; c < kColumns; ++c) {
                    const float32x4_t values = vld1q_f32(x + c * x_stride + k);
                    for (size_t r = 0; r < kTileRows; ++r) {
                        acc[r][c] = vfmaq_f32(acc[r][c], w[r], values);
                    }
                }
            }
            for (size_t r = 0; r < kTileRows; ++r) {
                for (size_t c = 0; c < kColumns; ++c) {
                    lanes[r][c].part[v] = acc[r][c];
                }
            }
        }
    }
    for (size_t c = 0; c < kColumns; ++c) {
        for (size_t r = 0; r < used; ++r) {
            if (whole < cols) {
                add_tail(decoded + r * cols + whole, x + c * x_stride + whole, cols - whole, lanes[r][c]);
            }
            y[c * y_stride + r] = add_lanes(lanes[r][c]);
        }
    }
}

// Four rows at a time; of what is left over, the last one is decoded again and not stored.
void more_columns(const FloatRows &rows, size_t n_rows, const float *x, size_t x_stride, size_t n, float *y,
                  size_t y_stride, float *scratch) {
    for (size_t row = 0; row < n_rows; row += kTileRows) {
        const size_t used = n_rows - row < kTileRows ? n_rows - row : kTileRows;
        for (size_t r = 0; r < kTileRows; ++r) {
            const size_t from = row + (r < used ? r : used - 1);
            decode(rows.type, rows.bytes + from * rows.row_bytes, rows.cols, scratch + r * rows.cols);
        }
        size_t c = 0;
        for (; c + 4 <= n; c += 4) {
            tile<4>(scratch, rows.cols, x + c * x_stride, x_stride, used, y + c * y_stride + row, y_stride);
        }
        if (c + 2 <= n) {
            tile<2>(scratch, rows.cols, x + c * x_stride, x_stride, used, y + c * y_stride + row, y_stride);
            c += 2;
        }
        if (c < n) {
            tile<1>(scratch, rows.cols, x + c * x_stride, x_stride, used, y + c * y_stride + row, y_stride);
        }
    }
}

void dots(const FloatRows &rows, size_t n_rows, const float *x, size_t x_stride, size_t n, float *y,
          size_t y_stride, float *scratch) {
    if (n == 1 && rows.type == BNB_TYPE_F16) {
        one_column<F16>(rows, n_rows, x, y);
    } else if (n == 1 && rows.type == BNB_TYPE_F32) {
        one_column<F32>(rows, n_rows, x, y);
    } else if (n == 1 && rows.type == BNB_TYPE_BF16) {
        one_column<Bf16>(rows, n_rows, x, y);
    } else {
        more_columns(rows, n_rows, x, x_stride, n, y, y_stride, scratch);
    }
}

void quantize_q8(const float *x, size_t n, int8_t *q, float *d) {
    for (size_t block = 0; block < n / kQ8Block; ++block, x += kQ8Block, q += kQ8Block) {
        // The bits of magnitudes order like the numbers, and a NaN is above them all.
        uint32x4_t all = vdupq_n_u32(0);
        for (size_t i = 0; i < kQ8Block; i += kVector) {
            all = vmaxq_u32(all, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
        }
        const uint32_t largest_bits = vmaxvq_u32(all);
        const float largest = vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(largest_bits)), 0);
        const float16x4_t rounded = vcvt_f16_f32(vdupq_n_f32(largest / 127.0f));
        d[block] = vgetq_lane_f32(vcvt_f32_f16(rounded), 0);
        // Zeros for zeros, for next to nothing (d is 0 too), and where d is no number.
        const float inverse = 127.0f / largest;
        const bool zeros = inverse > 0x1.fffffep+127f || largest_bits >= 0x7f800000;
        for (size_t i = 0; i < kQ8Block; i += 8) {
            const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), inverse));
            const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), inverse));
            const int8x8_t codes = vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)));
            vst1_s8(q + i, zeros ? vdup_n_s8(0) : codes);
        }
    }
}

// The exact product of a block, in four partial sums. The codes of x never are -128, so a lane of int16 takes
// two products of at most 128 * 127.
inline int32x4_t block_product(const uint8_t *block, const int8_t *q) {
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t i = 0; i < kQ8Block; i += 16) {
        const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(block + 2 + i)), codes = vld1q_s8(q + i);
        const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(codes));
        sum = vpadalq_s16(sum, vmlal_high_s8(low, w, codes));
    }
    return sum;
}

// Four Q8_0 rows times one column.
inline float32x4_t four_rows_q8(const uint8_t *const (&rows)[4], const int8_t *q, const float *d,
                                size_t blocks) {
    float32x4_t sum = vdupq_n_f32(0.0f);
    for (size_t b = 0; b < blocks; ++b, q += kQ8Block) {
        int32x4_t products[4];
        float halves[4];
        for (size_t r = 0; r < 4; ++r) {
            const uint8_t *block = rows[r] + b * kQ8BlockBytes;
            products[r] = block_product(block, q);
            halves[r] = half_to_float(block);
        }
        const int32x4_t dot =
            vpaddq_s32(vpaddq_s32(products[0], products[1]), vpaddq_s32(products[2], products[3]));
        sum = vfmaq_f32(sum, vcvtq_f32_s32(dot), vmulq_n_f32(vld1q_f32(halves), d[b]));
    }
    return sum;
}

// Four rows at a time; of what is left over, the last one is repeated and not stored.
void dots_q8(const FloatRows &rows, size_t n_rows, const int8_t *q, const float *d, size_t n, float *y,
             size_t y_stride) {
    const size_t blocks = rows.cols / kQ8Block;
    for (size_t row = 0; row < n_rows; row += 4) {
        const size_t used = n_rows - row < 4 ? n_rows - row : 4;
        const uint8_t *at[4];
        for (size_t r = 0; r < 4; ++r) {
            at[r] = rows.bytes + (row + (r < used ? r : used - 1)) * rows.row_bytes;
        }
        for (size_t column = 0; column < n; ++column) {
            float values[4];
            vst1q_f32(values, four_rows_q8(at, q + column * rows.cols, d + column * blocks, blocks));
            for (size_t r = 0; r < used; ++r) {
                y[column * y_stride + row + r] = values[r];
            }
        }
    }
}

} // namespace

const FloatKernels kFloatNeon = {
    decode,           dots,      quantize_q8, dots_q8,       neon::to_half, neon::round_to_half,
    neon::exp_scores, neon::mix, neon::rope,  neon::activate};

} // namespace bnb
