// The loops of a model in NEON (model_neon.cpp), for the table in floats_neon.cpp; what they do: floats.hpp.
#pragma once

#include "floats.hpp"

namespace bnb {
namespace neon {

void to_half(const float *x, size_t n, uint16_t *half);
void round_to_half(const float *x, size_t n, float *y);
void exp_scores(float *s, size_t n, float scale);
void mix(const FloatRows &v, size_t n, const float *p, size_t p_stride, size_t columns, bool onto, float *out,
         size_t out_stride);
void rope(uint32_t pairing, const float *x, const float *cosine, const float *sine, size_t d, float *y);
void activate(uint32_t activation, const float *g, size_t n, float *y);

} // namespace neon
} // namespace bnb
