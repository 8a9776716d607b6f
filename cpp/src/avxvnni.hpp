// What the AVX-VNNI kernels of I2_S, TL1 and TL2 share: vpdpbusd on 256 bits, VEX-encoded.
//
// It multiplies unsigned by signed bytes and adds four neighbours to an int32 lane, so the codes are used as
// u = code + 1 in 0, 1, 2, and the sum of the activations is taken off at the end.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bnb {
namespace avxvnni {

// `static`: a copy compiled with these flags must not serve the whole program.

static inline __m256i load(const void *p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}

// sum += u q over the four bytes of each lane, u unsigned and q signed, in the register where `sum` is. Left
// to itself, gcc 12 rotates accumulators through moves and spills some of them.
static inline void add_products(__m256i &sum, __m256i u, __m256i q) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u), "x"(q));
}

// The sums of all lanes of four vectors.
static inline __m128i sum_lanes(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

// Modulo 2^32, like every sum; the final dot is what must fit.
static inline int32_t add(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

// Minus the sum of n activation rows of any length: what takes u back to codes.
static inline void negated_sums(const int8_t *q, size_t cols, size_t n, int32_t *sums) {
    const __m256i ones = _mm256_set1_epi8(1), zero = _mm256_setzero_si256();
    for (size_t i = 0; i < n; ++i, q += cols) {
        __m256i lanes = zero;
        size_t k = 0;
        for (; k + 32 <= cols; k += 32) {
            add_products(lanes, ones, load(q + k));
        }
        uint32_t sum = static_cast<uint32_t>(_mm_cvtsi128_si32(sum_lanes(lanes, zero, zero, zero)));
        for (; k < cols; ++k) {
            sum += static_cast<uint32_t>(q[k]);
        }
        sums[i] = static_cast<int32_t>(0u - sum);
    }
}

} // namespace avxvnni
} // namespace bnb
