// The rules of quantisation, over the loops of one instruction set (docs/NUMERICS.md).
#pragma once

#include "kernels.hpp"
#include "layout.hpp"

namespace bnb {

// The scale to multiply activations by, from the bits of a row's max |x| (finite).
float activation_scale_i2s(uint32_t max_abs_bits);
float activation_scale_tl(uint32_t max_abs_bits);

// Float weights -> the whole tensor: codes, padding, scale, zeroed tail. `rule` is known, sizes fit.
// BNB_NON_FINITE, and BNB_UNSUPPORTED for an infinite scale, before anything is written.
bnb_status quantize_weights(const Kernels &kernels, const bnb_layout &layout, const Sizes &sizes,
                            uint32_t rule, const float *src, uint8_t *dst, float *scale);

// Code bytes -> code * scale.
bnb_status dequantize_weights(const Kernels &kernels, const bnb_weights &weights, const Sizes &sizes,
                              float *dst);

// Rows of activations -> codes, scales, sums, by the rule of I2_S. BNB_NON_FINITE before anything is written.
bnb_status quantize_activations(const Kernels &kernels, const float *x, size_t rows, size_t cols, int8_t *q,
                                float *scale, int32_t *sum);

} // namespace bnb
