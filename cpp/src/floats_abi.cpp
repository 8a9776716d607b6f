// The boundary of float products: argument checks around FloatProduct and NativeProduct.

#include "floats_abi.hpp"

#include "checks.hpp"

#include <variant>

struct bnb_float_matmul {
    std::variant<bnb::FloatProduct, bnb::NativeProduct> product;
};

namespace bnb {
namespace {

bnb_status check_matrix(const bnb_float_matrix *matrix, FloatRows *rows) {
    if (matrix == nullptr || matrix->bytes == nullptr) {
        return BNB_INVALID_ARGUMENT;
    }
    switch (matrix->type) {
    case BNB_TYPE_F32:
    case BNB_TYPE_F16:
    case BNB_TYPE_BF16:
    case BNB_TYPE_Q8_0:
    case BNB_TYPE_Q6_K:
        break;
    default:
        return BNB_INVALID_ARGUMENT;
    }
    if (matrix->arithmetic != BNB_ARITHMETIC_F32 && matrix->arithmetic != BNB_ARITHMETIC_NATIVE) {
        return BNB_INVALID_ARGUMENT;
    }
    if (matrix->rows == 0 || matrix->cols == 0 || matrix->cols > kMaxCols) {
        return BNB_UNSUPPORTED;
    }
    const size_t row_bytes = float_row_bytes(matrix->type, matrix->cols);
    if (row_bytes == 0) {
        return BNB_UNSUPPORTED;
    }
    *rows = {matrix->type, matrix->bytes, row_bytes, matrix->cols};
    return is_product(matrix->n_bytes, matrix->rows, row_bytes) ? BNB_OK : BNB_INVALID_ARGUMENT;
}

} // namespace

bnb_status float_prepare(const FloatKernels &kernels, NativeChoice native, const bnb_float_matrix *matrix,
                         uint64_t n_max, uint32_t threads, bnb_float_matmul **handle) noexcept {
    return guarded([&]() -> bnb_status {
        FloatRows rows;
        if (handle == nullptr) {
            return BNB_INVALID_ARGUMENT;
        }
        const bnb_status status = check_matrix(matrix, &rows);
        if (status != BNB_OK) {
            return status;
        }
        if (threads == 0 || threads > kMaxThreads) {
            return BNB_UNSUPPORTED;
        }
        if (!fits_memory(n_max, matrix->cols, sizeof(float)) ||
            !fits_memory(n_max, matrix->rows, sizeof(float))) {
            return BNB_INVALID_ARGUMENT;
        }
        if (matrix->arithmetic == BNB_ARITHMETIC_F32) {
            *handle =
                new bnb_float_matmul{FloatProduct(kernels, rows, matrix->rows, n_max, Team::shared(threads))};
            return BNB_OK;
        }
        const NativeKernels *loops = native(matrix->type);
        if (loops == nullptr) {
            return BNB_UNSUPPORTED;
        }
        *handle =
            new bnb_float_matmul{NativeProduct(*loops, rows, matrix->rows, n_max, Team::shared(threads))};
        return BNB_OK;
    });
}

bnb_status float_matmul(bnb_float_matmul *handle, const float *x, uint64_t n_x, uint64_t n, float *y,
                        uint64_t n_y) noexcept {
    return guarded([&]() -> bnb_status {
        if (handle == nullptr) {
            return BNB_INVALID_ARGUMENT;
        }
        return std::visit(
            [&](auto &product) -> bnb_status {
                if (n > product.n_max() || !is_product(n_x, n, product.cols()) ||
                    !is_product(n_y, n, product.rows()) || (n != 0 && (x == nullptr || y == nullptr))) {
                    return BNB_INVALID_ARGUMENT;
                }
                if (n != 0) {
                    product.run(x, n, y);
                }
                return BNB_OK;
            },
            handle->product);
    });
}

void float_free(bnb_float_matmul *handle) noexcept {
    delete handle;
}

} // namespace bnb
