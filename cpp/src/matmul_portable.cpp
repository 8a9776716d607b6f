// Products of every format in plain loops: the codes are unpacked to int8 once, then
//     out[n][m] = sum over k of code[m][k] * q[n][k].
// Nothing clever happens here on purpose: this is what the fast kernels are compared with.

#include <memory>

#include "layout.hpp"
#include "product.hpp"

namespace bnb {
namespace {

class PortableProduct final : public Product {
  public:
    PortableProduct(size_t rows, size_t cols) : rows_(rows), cols_(cols), codes_(new int8_t[rows * cols]) {}

    int8_t *codes() { return codes_.get(); }

    void run(const int8_t *q, size_t n, int32_t *out) noexcept override {
        for (size_t row = 0; row < n; ++row) {
            for (size_t output = 0; output < rows_; ++output) {
                const int8_t *codes = codes_.get() + output * cols_;
                const int8_t *activations = q + row * cols_;
                int32_t dot = 0;
                for (size_t k = 0; k < cols_; ++k) {
                    dot += codes[k] * activations[k];
                }
                out[row * rows_ + output] = dot;
            }
        }
    }

    uint64_t bytes() const noexcept override { return rows_ * cols_; }

  private:
    size_t rows_;
    size_t cols_;
    std::unique_ptr<int8_t[]> codes_;
};

bnb_status make_portable(const bnb_weights &weights, Product **product) {
    Sizes sizes;
    bnb_status status = check_layout(weights.layout, &sizes);
    if (status != BNB_OK) {
        return status;
    }
    std::unique_ptr<PortableProduct> made(new PortableProduct(weights.layout.rows, weights.layout.cols));
    status = unpack_codes(weights.layout, sizes, weights.bytes, made->codes());
    if (status == BNB_OK) {
        *product = made.release();
    }
    return status;
}

} // namespace

bnb_status make_i2s_portable(const bnb_weights &weights, size_t, Product **product) {
    return make_portable(weights, product);
}

bnb_status make_tl1_portable(const bnb_weights &weights, size_t, Product **product) {
    return make_portable(weights, product);
}

bnb_status make_tl2_portable(const bnb_weights &weights, size_t, Product **product) {
    return make_portable(weights, product);
}

} // namespace bnb
