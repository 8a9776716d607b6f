// The seam inside the C++ reference: prepared weights of one format on one instruction set, which give exact
// int32 products and nothing else. abi.cpp stands around it: argument checks, quantising activations into
// scratch, the final scaling, exceptions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bitnet_backend.h"

namespace bnb {

class Product {
  public:
    virtual ~Product() = default;
    // out[n][rows] = codes times q[n][cols], signed form, exact for every int8 including -128.
    // 1 <= n <= the n_max given to the maker. Allocates nothing; builds its look-up tables inside.
    virtual void run(const int8_t *q, size_t n, int32_t *out) noexcept = 0;
    // What it allocated: nothing where the caller's bytes are read in place.
    virtual uint64_t bytes() const noexcept { return 0; }
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

} // namespace bnb
