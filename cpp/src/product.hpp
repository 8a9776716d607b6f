// The seam inside the C++ reference: prepared weights of one format on one instruction set, which give exact
// int32 products and nothing else. abi.cpp stands around it: argument checks, threads (rows.hpp),
// quantising activations into scratch, the final scaling, exceptions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bitnet_backend.h"

namespace bnb {

class Product {
  public:
    virtual ~Product() = default;

    // Weight rows [first, last) of out[n][rows] = codes times q[n][cols], signed form, exact for every int8
    // including -128. 1 <= n <= the n_max given to the maker; `first` is a multiple of row_step(n), and so is
    // `last` unless it is the number of rows. Allocates nothing; builds its look-up tables inside. Calls of
    // different workers may run at once; worker < the number that was reserved, 1 at first.
    virtual void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                          size_t worker) noexcept = 0;

    // Weight rows that are computed together.
    virtual size_t row_step(size_t n) const noexcept = 0;

    // Makes scratch for so many workers. std::bad_alloc may leave it.
    virtual void reserve(size_t workers) = 0;

    // Bytes allocated beyond the weights: what is repacked, and scratch.
    virtual uint64_t bytes() const noexcept = 0;
};

// Makers: arguments were checked (layout legal, n_bytes right); they validate the codes (BNB_INVALID_DATA),
// repack if they like, and allocate everything `run` needs. std::bad_alloc may leave them.
// weights.bytes stays valid as long as the product lives.
bnb_status make_i2s_portable(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl1_portable(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl2_portable(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_i2s_avx2(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl1_avx2(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl2_avx2(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_i2s_avxvnni(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl1_avxvnni(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl2_avxvnni(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_i2s_avx512vnni(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl1_avx512vnni(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl2_avx512vnni(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_i2s_neon(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl1_neon(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_tl2_neon(const bnb_weights &weights, size_t n_max, Product **product);
bnb_status make_i2s_neondotprod(const bnb_weights &weights, size_t n_max, Product **product);

} // namespace bnb
