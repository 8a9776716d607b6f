// What differs from one instruction set to the next: a table of element-wise loops and of the makers of
// products. abi.cpp is written once over this table. Lengths are in elements, buffers need no alignment.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.hpp"
#include "product.hpp"

namespace bnb {

struct Kernels {
    // The bits of max |x| (sign cleared), which order like the numbers themselves; more than kLargestFinite
    // when a NaN or an infinity is among them. 0 for n = 0.
    uint32_t (*max_abs_bits)(const float *x, size_t n);
    // q = clamp(round_half_even(x * scale), -128, 127); answers the sum of q.
    int32_t (*quantize_row)(const float *x, size_t n, float scale, int8_t *q);
    // code = clamp(round_half_even(w * inverse), -1, 1)
    void (*ternarize_absmean)(const float *w, size_t n, float inverse, int8_t *codes);
    // |w| < 1e-6 is 0, else the sign of w
    void (*ternarize_signs)(const float *w, size_t n, int8_t *codes);
    // dst = code * scale
    void (*dequantize)(const int8_t *codes, size_t n, float scale, float *dst);
    // y = (dot / activation_scale) * weight_scale
    void (*scale_dots)(const int32_t *dots, size_t n, float activation_scale, float weight_scale, float *y);
    // blocks of 128 codes <-> 32 bytes; false at a code 3
    void (*pack_i2s)(const int8_t *codes, size_t blocks, uint8_t *dst);
    bool (*unpack_i2s)(const uint8_t *bytes, size_t blocks, int8_t *codes);
    // one tile of TL1 or TL2, see layout.hpp
    void (*pack_tl_tile)(const bnb_layout &layout, const Sizes &sizes, size_t tile, const int8_t *codes,
                         uint8_t *bytes);
    bool (*unpack_tl_tile)(const bnb_layout &layout, const Sizes &sizes, size_t tile, const uint8_t *bytes,
                           int8_t *codes);

    bnb_status (*make_i2s)(const bnb_weights &weights, size_t n_max, Product **product);
    bnb_status (*make_tl1)(const bnb_weights &weights, size_t n_max, Product **product);
    bnb_status (*make_tl2)(const bnb_weights &weights, size_t n_max, Product **product);
};

constexpr uint32_t kLargestFinite = 0x7f7fffff; // bits of FLT_MAX

uint32_t max_abs_bits_portable(const float *x, size_t n);
int32_t quantize_row_portable(const float *x, size_t n, float scale, int8_t *q);
void ternarize_absmean_portable(const float *w, size_t n, float inverse, int8_t *codes);
void ternarize_signs_portable(const float *w, size_t n, int8_t *codes);
void dequantize_portable(const int8_t *codes, size_t n, float scale, float *dst);
void scale_dots_portable(const int32_t *dots, size_t n, float activation_scale, float weight_scale, float *y);

uint32_t max_abs_bits_avx2(const float *x, size_t n);
int32_t quantize_row_avx2(const float *x, size_t n, float scale, int8_t *q);
void ternarize_absmean_avx2(const float *w, size_t n, float inverse, int8_t *codes);
void ternarize_signs_avx2(const float *w, size_t n, int8_t *codes);
void dequantize_avx2(const int8_t *codes, size_t n, float scale, float *dst);
void scale_dots_avx2(const int32_t *dots, size_t n, float activation_scale, float weight_scale, float *y);
void pack_i2s_avx2(const int8_t *codes, size_t blocks, uint8_t *dst);
bool unpack_i2s_avx2(const uint8_t *bytes, size_t blocks, int8_t *codes);

uint32_t max_abs_bits_neon(const float *x, size_t n);
int32_t quantize_row_neon(const float *x, size_t n, float scale, int8_t *q);
void ternarize_absmean_neon(const float *w, size_t n, float inverse, int8_t *codes);
void ternarize_signs_neon(const float *w, size_t n, int8_t *codes);
void dequantize_neon(const int8_t *codes, size_t n, float scale, float *dst);
void scale_dots_neon(const int32_t *dots, size_t n, float activation_scale, float weight_scale, float *y);
void pack_i2s_neon(const int8_t *codes, size_t blocks, uint8_t *dst);
bool unpack_i2s_neon(const uint8_t *bytes, size_t blocks, int8_t *codes);

} // namespace bnb
