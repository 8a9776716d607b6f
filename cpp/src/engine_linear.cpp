// Cutting packed matrices by rows. I2_S and TL1 hold rows (or tiles of rows) one after the other, so a slice
// is a range of the caller's bytes; TL2 holds three such sequences, from which a slice is copied together.

#include "engine_linear.hpp"

#include <cmath>
#include <cstring>

#include "checks.hpp"
#include "team.hpp"

namespace bnb {
namespace {

constexpr size_t kI2sUnit = 16; // rows: a cache line of outputs

bnb_layout layout_of(const bnb_tensor &tensor) {
    const uint32_t format = tensor.type == BNB_TYPE_I2_S  ? BNB_FORMAT_I2_S
                            : tensor.type == BNB_TYPE_TL1 ? BNB_FORMAT_TL1
                                                          : BNB_FORMAT_TL2;
    return {format, tensor.bm, tensor.bk, tensor.by, tensor.rows, tensor.cols};
}

// Rows [begin, begin + rows) of a TL2 tensor, as a tensor of their own without a scale.
std::vector<uint8_t> copy_tl2(const bnb_layout &layout, const Sizes &sizes, const uint8_t *bytes,
                              size_t begin, size_t rows, size_t packed_bytes) {
    const size_t three = sizes.three_cols, two = layout.cols - three;
    const size_t per_row[3] = {three * 2, three / 2, two * 3}; // in twelfths: magnitudes, signs, pairs
    std::vector<uint8_t> slice(packed_bytes, 0);
    size_t from = 0, to = 0;
    for (const size_t twelfths : per_row) {
        std::memcpy(slice.data() + to, bytes + from + begin * twelfths / 12, rows * twelfths / 12);
        from += layout.rows * twelfths / 12;
        to += rows * twelfths / 12;
    }
    return slice;
}

} // namespace

bnb_status Linear::prepare(const Kernels &kernels, const bnb_tensor &tensor, size_t n_max, size_t threads) {
    const bnb_layout layout = layout_of(tensor);
    Sizes sizes;
    bnb_status status = check_layout(layout, &sizes);
    if (status != BNB_OK) {
        return status;
    }
    if (layout.cols > kMaxCols) {
        return BNB_UNSUPPORTED;
    }
    if (tensor.n_bytes != sizes.packed_bytes) {
        return BNB_INVALID_ARGUMENT;
    }
    std::memcpy(&weight_scale_, tensor.bytes + sizes.scale_offset, sizeof weight_scale_);
    if (!std::isfinite(weight_scale_)) {
        return BNB_NON_FINITE;
    }
    if (std::signbit(weight_scale_)) {
        return BNB_INVALID_ARGUMENT;
    }
    kernels_ = &kernels;
    rows_ = layout.rows;
    cols_ = layout.cols;
    table_rule_ = layout.format != BNB_FORMAT_I2_S;
    const auto make = layout.format == BNB_FORMAT_I2_S  ? kernels.make_i2s
                      : layout.format == BNB_FORMAT_TL1 ? kernels.make_tl1
                                                        : kernels.make_tl2;
    const size_t unit = table_rule_ ? layout.bm : kI2sUnit;
    const size_t units = (rows_ + unit - 1) / unit;
    slices_.resize(threads);
    for (size_t part = 0; part < threads; ++part) {
        const Share share = share_of(units, part, threads);
        Slice &slice = slices_[part];
        slice.begin = share.begin * unit;
        slice.rows = (share.end * unit < rows_ ? share.end * unit : rows_) - slice.begin;
        if (share.begin == share.end) {
            slice.rows = 0;
            continue;
        }
        most_rows_ = slice.rows > most_rows_ ? slice.rows : most_rows_;
        bnb_weights weights = {layout, tensor.bytes, tensor.n_bytes, weight_scale_};
        weights.layout.rows = slice.rows;
        Sizes part_sizes;
        status = check_layout(weights.layout, &part_sizes);
        if (status != BNB_OK) {
            return status;
        }
        weights.n_bytes = part_sizes.packed_bytes;
        if (slice.rows != rows_ && layout.format == BNB_FORMAT_TL2) {
            slice.bytes =
                copy_tl2(layout, sizes, tensor.bytes, slice.begin, slice.rows, part_sizes.packed_bytes);
            weights.bytes = slice.bytes.data();
        } else {
            weights.bytes += slice.begin * (cols_ / 4);
        }
        Product *product = nullptr;
        status = make(weights, n_max, &product);
        if (status != BNB_OK) {
            return status;
        }
        slice.product.reset(product);
    }
    return BNB_OK;
}

void Linear::run(size_t part, const int8_t *q, const float *scales, size_t n, int32_t *dots,
                 float *y) const noexcept {
    const Slice &slice = slices_[part];
    if (slice.product == nullptr) {
        return;
    }
    slice.product->run(q, n, dots);
    for (size_t i = 0; i < n; ++i) {
        float *outputs = y + i * rows_ + slice.begin;
        kernels_->scale_dots(dots + i * slice.rows, slice.rows, scales[i], weight_scale_, outputs);
        for (size_t row = 0; has_output_scale_ && row < slice.rows; ++row) {
            outputs[row] *= output_scale_;
        }
    }
}

} // namespace bnb
