// Native float products over the loops of one type: activations are rounded once, each thread takes some rows
// of the matrix, and what a column was scaled by is taken back from its sums.

#include "floats_native.hpp"

#include <cmath>
#include <cstring>

namespace bnb {
namespace {

// Threads start at whole groups of rows, so that no output line is written by two of them at once.
constexpr size_t kRowGroup = 16;

// The smallest e with every finite magnitude below 2^e; -14 where all of them are subnormal.
int exponent_of_largest(const FloatRows &rows, size_t n_rows) {
    uint16_t largest = 0;
    for (size_t at = 0; at < n_rows * rows.row_bytes; at += 2) {
        uint16_t bits = 0;
        std::memcpy(&bits, rows.bytes + at, 2);
        bits &= 0x7fff;
        if (bits < 0x7c00 && bits > largest) {
            largest = bits;
        }
    }
    return (largest >> 10) - 14;
}

} // namespace

NativeProduct::NativeProduct(const NativeKernels &kernels, const FloatRows &rows, size_t n_rows, size_t n_max,
                             std::shared_ptr<Team> team)
    : kernels_(kernels), rows_(rows), n_rows_(n_rows), n_max_(n_max),
      groups_((rows.cols + kNativeGroup - 1) / kNativeGroup),
      largest_(rows.type == BNB_TYPE_F16 ? exponent_of_largest(rows, n_rows) : 0), team_(std::move(team)),
      rounded_(new Group[n_max * groups_]), exponents_(new int[n_max]) {}

void NativeProduct::run(const float *x, size_t n, float *y) {
    const size_t stride = groups_ * kNativeGroup;
    for (size_t column = 0; column < n; ++column) {
        const float *values = x + column * rows_.cols;
        exponents_[column] = kernels_.exponent(largest_, values, rows_.cols);
        kernels_.round(values, rows_.cols, exponents_[column], rounded_[column * groups_].values);
    }
    const size_t groups = (n_rows_ + kRowGroup - 1) / kRowGroup;
    team_->run([&](size_t part) {
        const Share share = share_of(groups, part, team_->threads());
        const size_t begin = share.begin * kRowGroup;
        const size_t end = share.end * kRowGroup < n_rows_ ? share.end * kRowGroup : n_rows_;
        if (begin >= end) {
            return;
        }
        FloatRows rows = rows_;
        rows.bytes += begin * rows.row_bytes;
        kernels_.dots(rows, end - begin, rounded_[0].values, stride, n, y + begin, n_rows_);
        for (size_t column = 0; column < n; ++column) {
            // One rounding: the power of two is none of float32 where x is very large or small.
            const double back = std::ldexp(1.0, -exponents_[column]);
            float *values = y + column * n_rows_;
            for (size_t row = begin; exponents_[column] != 0 && row < end; ++row) {
                values[row] = static_cast<float>(values[row] * back);
            }
        }
    });
}

} // namespace bnb
