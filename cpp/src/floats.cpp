// Float products over the loops of one instruction set: which thread takes which rows, and the quantisation
// of activations that meet Q8_0 rows.

#include "floats.hpp"

namespace bnb {
namespace {

// Threads start at whole groups of rows, so that no output line is written by two of them at once.
constexpr size_t kRowGroup = 16;

} // namespace

size_t float_row_bytes(uint32_t type, size_t cols) {
    switch (type) {
    case BNB_TYPE_F32:
        return 4 * cols;
    case BNB_TYPE_F16:
    case BNB_TYPE_BF16:
        return 2 * cols;
    case BNB_TYPE_Q8_0:
        return cols % kQ8Block == 0 ? cols / kQ8Block * kQ8BlockBytes : 0;
    case BNB_TYPE_Q6_K:
        return cols % kQ6Block == 0 ? cols / kQ6Block * kQ6BlockBytes : 0;
    default:
        return 0;
    }
}

FloatProduct::FloatProduct(const FloatKernels &kernels, const FloatRows &rows, size_t n_rows, size_t n_max,
                           std::shared_ptr<Team> team)
    : kernels_(kernels), rows_(rows), n_rows_(n_rows), n_max_(n_max), team_(std::move(team)) {
    if (rows.type == BNB_TYPE_Q8_0) {
        codes_.reset(new int8_t[n_max * rows.cols]);
        scales_.reset(new float[n_max * (rows.cols / kQ8Block)]);
    } else {
        scratch_.reset(new float[team_->threads() * dots_scratch(rows.cols, n_max)]);
    }
}

void FloatProduct::run(const float *x, size_t n, float *y) {
    const size_t cols = rows_.cols;
    const bool q8 = rows_.type == BNB_TYPE_Q8_0;
    for (size_t column = 0; q8 && column < n; ++column) {
        kernels_.quantize_q8(x + column * cols, cols, codes_.get() + column * cols,
                             scales_.get() + column * (cols / kQ8Block));
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
        if (q8) {
            kernels_.dots_q8(rows, end - begin, codes_.get(), scales_.get(), n, y + begin, n_rows_);
        } else {
            kernels_.dots(rows, end - begin, x, cols, n, y + begin, n_rows_,
                          scratch_.get() + part * dots_scratch(cols, n_max_));
        }
    });
}

} // namespace bnb
