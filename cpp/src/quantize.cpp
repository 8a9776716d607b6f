// Quantisation of weights (absmean, maxabs) and activations (absmax to int8), docs/NUMERICS.md.
//
// The loops here are the portable ones: one element at a time, each rounding where the rule puts it. The
// rules around them, what the scale is and in which order things happen, are shared by every instruction set.

#include "quantize.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

namespace bnb {
namespace {

constexpr size_t kChunkBlocks = 32; // I2_S blocks held as codes at a time: 4 KB
constexpr size_t kChunk = kChunkBlocks * kI2sBlock;

float float_of_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Each addition of the sum waits for the one before; within so few weights, the processor looks for the
// maximum of the next ones meanwhile.
constexpr size_t kSumStep = 64;

// sum + |w|, in float64 and in index order.
double add_magnitudes(double sum, const float *w, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        sum += std::fabs(static_cast<double>(w[i]));
    }
    return sum;
}

bool any_nonzero(const int8_t *codes, size_t n) {
    return std::any_of(codes, codes + n, [](int8_t code) { return code != 0; });
}

} // namespace

uint32_t max_abs_bits_portable(const float *x, size_t n) {
    uint32_t largest = 0;
    for (size_t i = 0; i < n; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        largest = std::max(largest, bits & 0x7fffffffu);
    }
    return largest;
}

int32_t quantize_row_portable(const float *x, size_t n, float scale, int8_t *q) {
    int32_t sum = 0;
    for (size_t i = 0; i < n; ++i) {
        const float rounded = std::nearbyint(x[i] * scale); // half to even, the default rounding mode
        q[i] = static_cast<int8_t>(std::min(127.0f, std::max(-128.0f, rounded)));
        sum += q[i];
    }
    return sum;
}

void ternarize_absmean_portable(const float *w, size_t n, float inverse, int8_t *codes) {
    for (size_t i = 0; i < n; ++i) {
        const float rounded = std::nearbyint(w[i] * inverse);
        codes[i] = static_cast<int8_t>(std::min(1.0f, std::max(-1.0f, rounded)));
    }
}

void ternarize_signs_portable(const float *w, size_t n, int8_t *codes) {
    for (size_t i = 0; i < n; ++i) {
        const bool zero = std::fabs(static_cast<double>(w[i])) < 1e-6;
        codes[i] = zero ? 0 : w[i] > 0.0f ? 1 : -1;
    }
}

void dequantize_portable(const int8_t *codes, size_t n, float scale, float *dst) {
    for (size_t i = 0; i < n; ++i) {
        dst[i] = static_cast<float>(codes[i]) * scale;
    }
}

void scale_dots_portable(const int32_t *dots, size_t n, float activation_scale, float weight_scale,
                         float *y) {
    for (size_t i = 0; i < n; ++i) {
        y[i] = static_cast<float>(dots[i]) / activation_scale * weight_scale;
    }
}

float activation_scale_i2s(uint32_t max_abs_bits) {
    const double largest = static_cast<double>(float_of_bits(max_abs_bits));
    return static_cast<float>(127.0 / std::max(1e-5, largest));
}

float activation_scale_tl(uint32_t max_abs_bits) {
    const float scale = 127.0f / float_of_bits(max_abs_bits);
    return std::isfinite(scale) ? scale : activation_scale_i2s(max_abs_bits);
}

bnb_status quantize_activations(const Kernels &kernels, const float *x, size_t rows, size_t cols, int8_t *q,
                                float *scale, int32_t *sum) {
    // All rows are looked at before anything is written; what is learnt of the first rows is kept.
    constexpr size_t kRemembered = 256;
    uint32_t remembered[kRemembered];
    for (size_t row = 0; row < rows; ++row) {
        const uint32_t largest = kernels.max_abs_bits(x + row * cols, cols);
        if (largest > kLargestFinite) {
            return BNB_NON_FINITE;
        }
        if (row < kRemembered) {
            remembered[row] = largest;
        }
    }
    for (size_t row = 0; row < rows; ++row) {
        const float *values = x + row * cols;
        const uint32_t largest = row < kRemembered ? remembered[row] : kernels.max_abs_bits(values, cols);
        scale[row] = activation_scale_i2s(largest);
        sum[row] = kernels.quantize_row(values, cols, scale[row], q + row * cols);
    }
    return BNB_OK;
}

bnb_status quantize_weights(const Kernels &kernels, const bnb_layout &layout, const Sizes &sizes,
                            uint32_t rule, const float *src, uint8_t *dst, float *scale) {
    const size_t n = sizes.weights;
    const bool absmean = rule == BNB_RULE_ABSMEAN;
    uint32_t largest = 0;
    double sum = 0.0;
    for (size_t from = 0; from < n; from += kSumStep) {
        const size_t count = std::min(kSumStep, n - from);
        largest = std::max(largest, kernels.max_abs_bits(src + from, count));
        sum = absmean ? add_magnitudes(sum, src + from, count) : 0.0;
    }
    if (largest > kLargestFinite) {
        return BNB_NON_FINITE;
    }
    const float mean = static_cast<float>(sum / static_cast<double>(n));
    const float inverse = absmean ? 1.0f / std::max(mean, 1e-5f) : 0.0f;
    if (absmean && !std::isfinite(1.0f / inverse)) {
        return BNB_UNSUPPORTED;
    }
    const auto ternarize = [&](size_t from, size_t count, int8_t *codes) {
        if (absmean) {
            kernels.ternarize_absmean(src + from, count, inverse, codes);
        } else {
            kernels.ternarize_signs(src + from, count, codes);
        }
    };

    bool nonzero = false;
    if (layout.format == BNB_FORMAT_I2_S) {
        int8_t codes[kChunk];
        for (size_t from = 0; from < n; from += kChunk) {
            const size_t count = std::min(kChunk, n - from);
            ternarize(from, count, codes);
            nonzero = nonzero || any_nonzero(codes, count);
            kernels.pack_i2s(codes, count / kI2sBlock, dst + from / 4);
        }
    } else {
        const size_t count = layout.bm * layout.cols;
        const std::unique_ptr<int8_t[]> codes(new int8_t[count + kCodePadding]());
        for (size_t tile = 0; tile < layout.rows / layout.bm; ++tile) {
            ternarize(tile * count, count, codes.get());
            nonzero = nonzero || any_nonzero(codes.get(), count);
            kernels.pack_tl_tile(layout, sizes, tile, codes.get(), dst);
        }
    }
    std::memset(dst + sizes.code_bytes, 0, sizes.packed_bytes - sizes.code_bytes);
    if (absmean) {
        *scale = nonzero ? 1.0f / inverse : 0.0f;
    } else {
        *scale = float_of_bits(largest);
    }
    std::memcpy(dst + sizes.scale_offset, scale, sizeof *scale); // float32 of a little-endian machine
    return BNB_OK;
}

bnb_status dequantize_weights(const Kernels &kernels, const bnb_weights &weights, const Sizes &sizes,
                              float *dst) {
    const size_t n = sizes.weights;
    if (weights.layout.format == BNB_FORMAT_I2_S) {
        int8_t codes[kChunk];
        for (size_t from = 0; from < n; from += kChunk) {
            const size_t count = std::min(kChunk, n - from);
            if (!kernels.unpack_i2s(weights.bytes + from / 4, count / kI2sBlock, codes)) {
                return BNB_INVALID_DATA;
            }
            kernels.dequantize(codes, count, weights.scale, dst + from);
        }
        return BNB_OK;
    }
    const size_t count = weights.layout.bm * weights.layout.cols;
    const std::unique_ptr<int8_t[]> codes(new int8_t[count]);
    for (size_t tile = 0; tile < weights.layout.rows / weights.layout.bm; ++tile) {
        if (!kernels.unpack_tl_tile(weights.layout, sizes, tile, weights.bytes, codes.get())) {
            return BNB_INVALID_DATA;
        }
        kernels.dequantize(codes.get(), count, weights.scale, dst + tile * count);
    }
    return BNB_OK;
}

} // namespace bnb
