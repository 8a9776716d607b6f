// A ternary matrix of a model, cut by rows into one prepared product for each thread of the team: each reads
// its own part of the weights and writes its own outputs, so that the threads meet only at the end.
#pragma once

#include <memory>
#include <vector>

#include "kernels.hpp"
#include "product.hpp"

namespace bnb {

class Linear {
  public:
    // `tensor` has the right sides. Answers what the layout, the scale or the codes deserve.
    bnb_status prepare(const Kernels &kernels, const bnb_tensor &tensor, size_t n_max, size_t threads);

    // Multiplied into the outputs after the scale of the weights: the tensor named .scale.
    void set_output_scale(float scale) { output_scale_ = scale, has_output_scale_ = true; }

    // y[n][rows], the columns of thread `part`, from the codes and scales of n activation rows; `dots` has
    // room for n * dots_per_row() numbers.
    void run(size_t part, const int8_t *q, const float *scales, size_t n, int32_t *dots,
             float *y) const noexcept;

    size_t dots_per_row() const { return most_rows_; }
    size_t cols() const { return cols_; }
    // Activations are quantised by the rule of TL1 and TL2.
    bool table_rule() const { return table_rule_; }

  private:
    struct Slice {
        size_t begin = 0;
        size_t rows = 0;
        std::vector<uint8_t> bytes; // TL2 alone, whose parts are not contiguous by rows
        std::unique_ptr<Product> product;
    };

    const Kernels *kernels_ = nullptr;
    size_t rows_ = 0;
    size_t cols_ = 0;
    size_t most_rows_ = 0;
    float weight_scale_ = 0.0f;
    float output_scale_ = 1.0f;
    bool has_output_scale_ = false;
    bool table_rule_ = false;
    std::vector<Slice> slices_; // by thread; without a product where there are more threads than rows
};

} // namespace bnb
