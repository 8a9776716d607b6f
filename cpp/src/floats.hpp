// Float matrices times float activations (docs/NUMERICS.md, float products), and the float loops of a whole
// model. What differs from one instruction set to the next is a table of loops, as for the integer side
// (kernels.hpp); every implementation gives the same bits. Lengths are in elements, buffers need no
// alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "bitnet_backend.h"
#include "team.hpp"

namespace bnb {

// Rows of a float matrix, `row_bytes` apart; `bytes` is where the first one stands.
struct FloatRows {
    uint32_t type; // BNB_TYPE_F32, F16, BF16, Q8_0 or Q6_K
    const uint8_t *bytes;
    size_t row_bytes;
    size_t cols;
};

constexpr size_t kFloatLanes = 32; // of the fused arithmetic
constexpr size_t kQ8Block = 32;    // values of a Q8_0 block
constexpr size_t kQ8BlockBytes = 34;
constexpr size_t kQ6Block = 256; // values of a Q6_K block
constexpr size_t kQ6BlockBytes = 210;

// Floats of scratch that `dots` needs for n columns: four decoded rows, the columns in the order of their
// use, and room to set them apart and align them.
constexpr size_t dots_scratch(size_t cols, size_t n) {
    return (4 + n) * cols + 1024;
}

struct FloatKernels {
    // `n` values (whole blocks) as float32.
    void (*decode)(uint32_t type, const uint8_t *bytes, size_t n, float *out);
    // y[c * y_stride + r] = row r times column c of x, x + c * x_stride, in 32 fused lanes; any type but
    // Q8_0.
    void (*dots)(const FloatRows &rows, size_t n_rows, const float *x, size_t x_stride, size_t n, float *y,
                 size_t y_stride, float *scratch);
    // One row of activations -> codes, and for each 32 of them the scale d.
    void (*quantize_q8)(const float *x, size_t n, int8_t *q, float *d);
    // As `dots`, for Q8_0 rows; q [n, cols], d [n, cols / 32].
    void (*dots_q8)(const FloatRows &rows, size_t n_rows, const int8_t *q, const float *d, size_t n, float *y,
                    size_t y_stride);
    // float32 -> float16, nearest even: the bits, and the value as float32 (in place is allowed).
    void (*to_half)(const float *x, size_t n, uint16_t *half);
    void (*round_to_half)(const float *x, size_t n, float *y);
    // s = s * scale; m = max s; s = exp(s - m)
    void (*exp_scores)(float *s, size_t n, float scale);
    // out[c * out_stride + i] = sum over t < n of p[c * p_stride + t] * v[t][i], fused, t ascending, from +0
    // or, when `onto`, from what stands in out. Rows of v are F32 or F16.
    void (*mix)(const FloatRows &v, size_t n, const float *p, size_t p_stride, size_t columns, bool onto,
                float *out, size_t out_stride);
    // Rotates the pairs of one head of d values; cosine and sine [d / 2].
    void (*rope)(uint32_t pairing, const float *x, const float *cosine, const float *sine, size_t d,
                 float *y);
    // silu(g), or max(g, 0) squared
    void (*activate)(uint32_t activation, const float *g, size_t n, float *y);
};

extern const FloatKernels kFloatPortable;
extern const FloatKernels kFloatAvx2; // needs AVX2, FMA and F16C
extern const FloatKernels kFloatNeon; // needs AArch64

// Bytes of a row of `cols` values; 0 for a type that is no float or a row that is no whole number of blocks.
size_t float_row_bytes(uint32_t type, size_t cols);

// A float matrix and the scratch for n_max columns on the threads of a team.
class FloatProduct {
  public:
    // `rows` is the whole matrix of n_rows. std::bad_alloc may leave it.
    FloatProduct(const FloatKernels &kernels, const FloatRows &rows, size_t n_rows, size_t n_max,
                 std::shared_ptr<Team> team);

    // y[n][n_rows]; 1 <= n <= n_max. Allocates nothing.
    void run(const float *x, size_t n, float *y);

    size_t rows() const { return n_rows_; }
    size_t cols() const { return rows_.cols; }
    size_t n_max() const { return n_max_; }
    uint32_t type() const { return rows_.type; }

  private:
    const FloatKernels &kernels_;
    FloatRows rows_;
    size_t n_rows_;
    size_t n_max_;
    std::shared_ptr<Team> team_;
    std::unique_ptr<float[]> scratch_; // dots_scratch for each thread
    std::unique_ptr<int8_t[]> codes_;  // Q8_0: [n_max, cols]
    std::unique_ptr<float[]> scales_;  // Q8_0: [n_max, cols / 32]
};

} // namespace bnb
