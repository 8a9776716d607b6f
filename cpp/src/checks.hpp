// What every entry of the boundary does around its work: counts that fit, exceptions that stay inside.
#pragma once

#include <cstdint>
#include <new>
#include <system_error>

#include "bitnet_backend.h"

namespace bnb {

// Sums of this many int8 codes times -1 stay within int32.
constexpr uint64_t kMaxCols = (uint64_t{1} << 24) - 1;
constexpr uint32_t kMaxThreads = 1024;

template <class Work> bnb_status guarded(Work work) noexcept {
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return BNB_OUT_OF_MEMORY;
    } catch (const std::system_error &) { // the system refused a thread
        return BNB_OUT_OF_MEMORY;
    } catch (...) {
        return BNB_INTERNAL;
    }
}

// count == a * b, without overflow.
inline bool is_product(uint64_t count, uint64_t a, uint64_t b) {
    uint64_t product = 0;
    return !__builtin_mul_overflow(a, b, &product) && count == product;
}

// a * b elements of `size` bytes can be addressed.
inline bool fits_memory(uint64_t a, uint64_t b, uint64_t size) {
    uint64_t n = 0;
    return !__builtin_mul_overflow(a, b, &n) && !__builtin_mul_overflow(n, size, &n) && n <= PTRDIFF_MAX;
}

} // namespace bnb
