// The entries of float products, over any table of float loops.
#pragma once

#include "floats.hpp"
#include "floats_native.hpp"

namespace bnb {

// The loops of native arithmetic that can run here for matrices of that type; NULL: none.
using NativeChoice = const NativeKernels *(*)(uint32_t type);

bnb_status float_prepare(const FloatKernels &kernels, NativeChoice native, const bnb_float_matrix *matrix,
                         uint64_t n_max, uint32_t threads, bnb_float_matmul **handle) noexcept;
bnb_status float_matmul(bnb_float_matmul *handle, const float *x, uint64_t n_x, uint64_t n, float *y,
                        uint64_t n_y) noexcept;
void float_free(bnb_float_matmul *handle) noexcept;

} // namespace bnb
