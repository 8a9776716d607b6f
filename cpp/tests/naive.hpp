// The oracle of the tests: what the contract promises, weight by weight, from docs/FORMATS.md and
// docs/NUMERICS.md. It answers "where does the weight (row, column) stand", while the reference asks "which
// weight stands here"; it shares no code with the reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "bitnet_backend.h"

namespace naive {

// Round half to even by cases, without the rounding mode of the machine.
inline double round_half_even(double x) {
    const double below = std::floor(x), rest = x - below;
    if (rest != 0.5) {
        return rest < 0.5 ? below : below + 1.0;
    }
    return std::fmod(below, 2.0) == 0.0 ? below : below + 1.0;
}

inline size_t three_cols(const bnb_layout &l) {
    return l.format == BNB_FORMAT_TL2 ? l.cols / l.bk * l.bk : 0;
}

inline size_t scale_offset(const bnb_layout &l) {
    if (l.format != BNB_FORMAT_TL2) {
        return l.rows * l.cols / 4;
    }
    const size_t n1 = (l.cols - 256) * l.rows / 3 * 5 / 8 + 256 * l.rows / 2 * 4 / 8;
    return n1 % 32 == 0 ? n1 : n1 + 32 - n1 % 32;
}

inline size_t packed_bytes(const bnb_layout &l) {
    return scale_offset(l) + 32;
}

// Where a row stands among the 32 bytes of a TL2 row block: 0-7, 16-23, 8-15, 24-31.
inline size_t tl2_position(size_t row) {
    return row < 8 ? row : row < 16 ? row + 8 : row < 24 ? row - 8 : row;
}

// Adds the codes [rows, cols] to zeroed bytes.
inline std::vector<uint8_t> pack(const bnb_layout &l, const std::vector<int8_t> &codes, float scale) {
    std::vector<uint8_t> bytes(packed_bytes(l), 0);
    const size_t three = three_cols(l);
    const size_t signs = three * l.rows / 6, pairs = signs + three * l.rows / 24;
    for (size_t r = 0; r < l.rows; ++r) {
        for (size_t k = 0; k < l.cols; ++k) {
            const int8_t *code = &codes[r * l.cols + k];
            if (l.format == BNB_FORMAT_I2_S) {
                const size_t byte = (r * l.cols + k) / 128 * 32 + k % 32;
                bytes[byte] |= static_cast<uint8_t>((*code + 1) << (6 - 2 * (k % 128 / 32)));
            } else if (l.format == BNB_FORMAT_TL1 && k % 2 == 0) {
                const size_t rows = 256 / l.by;
                size_t at = r / l.bm * (l.cols / l.bk) + k / l.bk;
                at = at * (l.bm / rows) + r % l.bm / rows;
                at = at * (l.bk / l.by) + k % l.bk / l.by;
                at = at * (rows / 16) + r % rows / 16;
                at = at * (l.by / 4) + k % l.by / 4;
                const int index = 3 * code[0] + code[1] + 4;
                bytes[at * 16 + r % 16] |= static_cast<uint8_t>(index << (k % 4 == 0 ? 4 : 0));
            } else if (l.format == BNB_FORMAT_TL2 && k < three && k % 3 == 0) {
                const int value = 9 * code[0] + 3 * code[1] + code[2];
                size_t block = r / l.bm * (three / l.bk) + k / l.bk;
                block = block * (l.bm / 32) + r % l.bm / 32;
                const size_t group = k % l.bk / 3;
                const size_t at = (block * (l.bk / 6) + group / 2) * 32 + tl2_position(r % 32);
                bytes[at] |= static_cast<uint8_t>(std::abs(value) << (group % 2 == 0 ? 4 : 0));
                if (value < 0) {
                    const size_t word = (block * (l.bk / 24) + group / 8) * 16 + r % 16;
                    const size_t bit = (r % 32 < 16 ? 15 : 14) - 2 * (group % 8);
                    bytes[signs + 2 * word + bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
                }
            } else if (l.format == BNB_FORMAT_TL2 && k >= three && (k - three) % 2 == 0) {
                const size_t column = k - three, group = column % 32 / 2;
                size_t block = r / l.bm * ((l.cols - three) / 32) + column / 32;
                block = block * (l.bm / 32) + r % l.bm / 32;
                const size_t at = (block * 8 + group / 2) * 32 + tl2_position(r % 32);
                const int index = 3 * code[0] + code[1] + 4;
                bytes[pairs + at] |= static_cast<uint8_t>(index << (group % 2 == 0 ? 4 : 0));
            }
        }
    }
    std::memcpy(&bytes[scale_offset(l)], &scale, sizeof scale);
    return bytes;
}

inline std::vector<int32_t> products(const bnb_layout &l, const std::vector<int8_t> &codes, const int8_t *q,
                                     size_t n) {
    std::vector<int32_t> out(n * l.rows);
    for (size_t i = 0; i < n; ++i) {
        for (size_t r = 0; r < l.rows; ++r) {
            int64_t dot = 0;
            for (size_t k = 0; k < l.cols; ++k) {
                dot += int64_t{codes[r * l.cols + k]} * q[i * l.cols + k];
            }
            out[i * l.rows + r] = static_cast<int32_t>(dot);
        }
    }
    return out;
}

struct QuantizedRow {
    std::vector<int8_t> q;
    float scale;
    int32_t sum;
};

inline QuantizedRow quantize_row(const float *x, size_t cols, bool table_rule) {
    double largest = 0.0;
    for (size_t k = 0; k < cols; ++k) {
        largest = std::max(largest, std::fabs(static_cast<double>(x[k])));
    }
    QuantizedRow row = {std::vector<int8_t>(cols), 0.0f, 0};
    row.scale = static_cast<float>(127.0 / std::max(1e-5, largest));
    if (table_rule) {
        const volatile float divisor = static_cast<float>(largest);
        const float scale = 127.0f / divisor;
        row.scale = std::isinf(scale) ? row.scale : scale;
    }
    for (size_t k = 0; k < cols; ++k) {
        const volatile float product = x[k] * row.scale;
        row.q[k] = static_cast<int8_t>(std::clamp(round_half_even(product), -128.0, 127.0));
        row.sum += row.q[k];
    }
    return row;
}

inline std::vector<float> linear(const bnb_layout &l, const std::vector<int8_t> &codes, float weight_scale,
                                 const float *x, size_t n) {
    std::vector<float> y;
    for (size_t i = 0; i < n; ++i) {
        const QuantizedRow row = quantize_row(x + i * l.cols, l.cols, l.format != BNB_FORMAT_I2_S);
        for (const int32_t dot : products(l, codes, row.q.data(), 1)) {
            const volatile float quotient = static_cast<float>(dot) / row.scale;
            y.push_back(quotient * weight_scale);
        }
    }
    return y;
}

} // namespace naive
