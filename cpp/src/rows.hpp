// A product cut into parts by weight rows, one part to a worker. Whatever the number of parts, the bits are
// the same.
#pragma once

#include "product.hpp"
#include "team.hpp"

namespace bnb {

// Weight rows that part `part` of `parts` computes of a product with `rows` rows and n activation rows.
inline Share row_share(const Product &product, size_t rows, size_t n, size_t part, size_t parts) {
    const size_t step = product.row_step(n);
    const Share steps = share_of((rows + step - 1) / step, part, parts);
    const size_t begin = steps.begin * step, end = steps.end * step;
    return {begin < rows ? begin : rows, end < rows ? end : rows}; // both `rows` where nothing is left
}

// That part itself; worker `part` does it. Answers which rows it was.
inline Share run_part(Product &product, size_t rows, const int8_t *q, size_t n, int32_t *out, size_t part,
                      size_t parts) noexcept {
    const Share share = row_share(product, rows, n, part, parts);
    if (share.begin < share.end) {
        product.run_rows(q, n, out, share.begin, share.end, part);
    }
    return share;
}

} // namespace bnb
