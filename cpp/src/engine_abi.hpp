// The entries of whole models, over any tables of loops and products.
#pragma once

#include "floats.hpp"
#include "kernels.hpp"

namespace bnb {

bnb_status engine_create(const Kernels &kernels, const FloatKernels &floats, const bnb_model *model,
                         const bnb_tensor *tensors, uint64_t n_tensors, bnb_engine **engine) noexcept;
bnb_status engine_prefill(bnb_engine *engine, const uint32_t *tokens, uint64_t n,
                          uint64_t n_outputs) noexcept;
bnb_status engine_decode(bnb_engine *engine, uint32_t token) noexcept;
bnb_status engine_logits(bnb_engine *engine, float *logits, uint64_t n_logits) noexcept;
bnb_status engine_tap(bnb_engine *engine, const char *name, float *dst, uint64_t n_dst) noexcept;
bnb_status engine_reset(bnb_engine *engine) noexcept;
void engine_free(bnb_engine *engine) noexcept;

} // namespace bnb
