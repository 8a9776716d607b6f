// Products of a panel of packed I2_S bytes in AVX-512 VNNI: transposed, not unpacked.
//
// A panel holds kPackedRows weight rows of a strip of columns, in the order in which vpdpbusd eats them: for
// every four bytes of a row, two vectors of 16 rows, each 32-bit lane the four bytes of one row, which are
// four columns of each of the four groups of a block. A product passes along the panel four times, group by
// group from the highest. Codes stay where they are, so they are 64, 16, 4 and 1 times too large, and between
// two passes the sums are divided by 4: each is a multiple. A pass costs one AND for each vector.
//
// multiply_packed<kColumns> keeps 2 x kColumns sums in registers: with 12, one AND is made for 12 products. A
// lane takes 4 * 128 * 128 at most from four columns, 2^16, and a strip has fewer than 2^9 of them.
#pragma once

#include "panel_avx512vnni.hpp"

namespace bnb {
namespace avx512 {

constexpr size_t kBlock = 128;
constexpr size_t kBlockBytes = 32;

constexpr size_t kPackedRows = 32;
constexpr size_t kPackedVectors = 2;
constexpr size_t kPackedStep = 128;   // bytes of four bytes of all rows
constexpr size_t kPackedBlock = 1024; // bytes of a block of all rows
constexpr size_t kPackedCols = 1280;  // columns of a strip
constexpr size_t kPackedColumns = 12; // activation rows whose sums stay in registers

// Divides by 4 in the register where `sum` is.
inline void quarter(__m512i &sum) {
    asm("vpsrad $2, %0, %0" : "+v"(sum));
}

// Bytes 4d .. 4d + 3 of a block of 16 rows -> vector d, a row per 32-bit lane.
inline void transpose(const uint8_t *const *rows, size_t at, __m512i (&columns)[8]) {
    __m512i r[8], s[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) { // rows i and i + 8
        const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(rows[i] + at));
        const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(rows[i + 8] + at));
        r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]),
                      d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        s[i] = _mm512_unpacklo_epi64(a, c);
        s[i + 1] = _mm512_unpackhi_epi64(a, c);
        s[i + 2] = _mm512_unpacklo_epi64(b, d);
        s[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Lanes of 128 bits of s[d]: byte groups d and d + 4 of rows 0-3, then of rows 8-11; of s[d + 4]: the
    // same for rows 4-7 and 12-15.
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
#pragma GCC unroll 4
    for (int d = 0; d < 4; ++d) {
        columns[d] = _mm512_permutex2var_epi64(s[d], even, s[d + 4]);
        columns[d + 4] = _mm512_permutex2var_epi64(s[d], odd, s[d + 4]);
    }
}

// A panel of packed bytes times kColumns activation rows, `stride` apart.
template <int kColumns>
void multiply_packed(const uint8_t *panel, size_t blocks, const int8_t *q, size_t stride,
                     const Target &target, size_t first) {
    __m512i sums[kColumns][kPackedVectors];
#pragma GCC unroll 12
    for (int c = 0; c < kColumns; ++c) {
        sums[c][0] = sums[c][1] = _mm512_setzero_si512();
    }
    __m512i mask = _mm512_set1_epi8(static_cast<char>(0xc0));
    for (int group = 0;; q += 32) {
        const int8_t *activations = q;
        for (const uint8_t *at = panel, *end = panel + blocks * kPackedBlock; at != end;
             activations += kBlock - 32) {
            for (const uint8_t *next = at + kPackedBlock; at != next; at += kPackedStep, activations += 4) {
                const __m512i u[kPackedVectors] = {_mm512_and_si512(mask, _mm512_load_si512(at)),
                                                   _mm512_and_si512(mask, _mm512_load_si512(at + 64))};
#pragma GCC unroll 12
                for (int c = 0; c < kColumns; ++c) {
                    int32_t four;
                    std::memcpy(&four, activations + static_cast<size_t>(c) * stride, sizeof four);
                    const __m512i values = _mm512_set1_epi32(four);
                    add_products(sums[c][0], u[0], values);
                    add_products(sums[c][1], u[1], values);
                }
            }
        }
        if (++group == 4) {
            break;
        }
        mask = _mm512_srli_epi16(mask, 2);
#pragma GCC unroll 12
        for (int c = 0; c < kColumns; ++c) {
            quarter(sums[c][0]);
            quarter(sums[c][1]);
        }
    }
#pragma GCC unroll 12
    for (int c = 0; c < kColumns; ++c) {
        target.add(sums[c], first + static_cast<size_t>(c));
    }
}

// n activation rows against one panel, in even tiles.
inline void multiply_packed_rows(const uint8_t *panel, size_t blocks, const int8_t *q, size_t stride,
                                 size_t n, const Target &target) {
    using Multiply = void (*)(const uint8_t *, size_t, const int8_t *, size_t, const Target &, size_t);
    static constexpr Multiply kMultiply[kPackedColumns + 1] = {nullptr,
                                                               multiply_packed<1>,
                                                               multiply_packed<2>,
                                                               multiply_packed<3>,
                                                               multiply_packed<4>,
                                                               multiply_packed<5>,
                                                               multiply_packed<6>,
                                                               multiply_packed<7>,
                                                               multiply_packed<8>,
                                                               multiply_packed<9>,
                                                               multiply_packed<10>,
                                                               multiply_packed<11>,
                                                               multiply_packed<12>};
    const size_t tiles = (n + kPackedColumns - 1) / kPackedColumns;
    for (size_t tile = 0; tile < tiles; ++tile) {
        const size_t from = n * tile / tiles, columns = n * (tile + 1) / tiles - from;
        kMultiply[columns](panel, blocks, q + from * stride, stride, target, from);
    }
}

} // namespace avx512
} // namespace bnb
