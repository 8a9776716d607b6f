// Float products in the hardware's own arithmetic (docs/NUMERICS.md, native float products): F16 and BF16
// matrices whose values meet activations rounded to the same 16 bits. What differs from one type to the
// other is a table of loops; a table without entries says that this compiler has no such instructions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "floats.hpp"
#include "team.hpp"

namespace bnb {

constexpr size_t kNativeGroup = 32; // values of a vector

struct NativeKernels {
    // The exponent of the power of two by which a row of activations is scaled before it is rounded, where
    // every finite weight is below 2^largest.
    int (*exponent)(int largest, const float *x, size_t n);
    // n values, scaled, as 16 bits each, and zeros up to a whole group.
    void (*round)(const float *x, size_t n, int exponent, uint16_t *rounded);
    // y[c * y_stride + r] = row r times column c of x, which are x_stride apart, whole groups. The rows may
    // stand anywhere, x at a multiple of 64 bytes.
    void (*dots)(const FloatRows &rows, size_t n_rows, const uint16_t *x, size_t x_stride, size_t n, float *y,
                 size_t y_stride);
};

extern const NativeKernels kNativeBf16; // needs AVX-512 F, BW, VL and BF16
extern const NativeKernels kNativeF16;  // needs AVX-512 F, BW and VL, and AVX512-FP16

// A matrix of F16 or BF16, and room for n_max columns on the threads of a team.
class NativeProduct {
  public:
    // `rows` is the whole matrix of n_rows. std::bad_alloc may leave it.
    NativeProduct(const NativeKernels &kernels, const FloatRows &rows, size_t n_rows, size_t n_max,
                  std::shared_ptr<Team> team);

    // y[n][n_rows]; 1 <= n <= n_max. Allocates nothing.
    void run(const float *x, size_t n, float *y);

    size_t rows() const { return n_rows_; }
    size_t cols() const { return rows_.cols; }
    size_t n_max() const { return n_max_; }

  private:
    struct alignas(64) Group {
        uint16_t values[kNativeGroup];
    };

    const NativeKernels &kernels_;
    FloatRows rows_;
    size_t n_rows_;
    size_t n_max_;
    size_t groups_; // of a row
    int largest_;
    std::shared_ptr<Team> team_;
    std::unique_ptr<Group[]> rounded_; // [n_max, groups]
    std::unique_ptr<int[]> exponents_; // [n_max]
};

} // namespace bnb
