// Products of a panel of unpacked codes in AVX-512 VNNI, shared by the formats.
//
// A panel holds kPanelRows weight rows of a strip of columns as u = code + 1, in the order in which vpdpbusd
// eats them: for every four columns, four vectors of 16 rows, each 32-bit lane the four bytes of one row. The
// activations need no order of their own: four neighbours are broadcast to all lanes. A lane of the result is
// the sum of one row, so that nothing is added across lanes and outputs are stored 16 at a time.
//
// multiply_panel<kColumns> keeps 4 x kColumns sums in registers; with 6 columns, 24 sums, 4 vectors of codes
// and one of activations fill 29 of the 32 registers, and 24 products are made of 10 loads.
// A sum grows by at most 4 * 2 * 128 per four columns, and fits int32 for every legal width.
#pragma once

// gcc 12 takes the deliberately undefined vectors of its own header for a defect of whoever uses them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bnb {
namespace avx512 {

constexpr size_t kPanelRows = 64;
constexpr size_t kPanelVectors = 4; // of 16 rows
constexpr size_t kPanelStep = 256;  // bytes of four columns
constexpr size_t kTileColumns = 6;  // activation rows whose sums stay in registers
constexpr size_t kStripCols = 512;  // columns of a strip: 32 KB of panel, which the L1 cache holds
constexpr size_t kPassRows = 256;   // activation rows that meet a panel before it is made anew

// sum += u q over the four bytes of each lane, u unsigned and q signed, in the register where `sum` is. Left
// to itself, gcc 12 rotates accumulators through moves and spills some of them.
inline void add_products(__m512i &sum, __m512i u, __m512i q) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(q));
}

inline __mmask16 lanes_below(size_t count) {
    return static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1u);
}

// Where the products of a panel go: out[activation row][weight row], `rows` apart.
struct Target {
    int32_t *out;          // of the panel's first weight row
    size_t rows;           // distance of activation rows
    size_t count;          // weight rows of the panel that exist, 1 or more
    const int32_t *before; // per activation row: what the first strip starts from, or NULL for later ones

    // Asks for the cache lines of `columns` activation rows that the first strip will write.
    void ask(size_t row, size_t columns) const {
        for (size_t end = before == nullptr ? row : row + columns; row < end; ++row) {
            for (size_t lane = 0; lane < count; lane += 16) {
                _mm_prefetch(reinterpret_cast<const char *>(out + row * rows + lane), _MM_HINT_T0);
            }
        }
    }

    // Adds the sums of one activation row.
    template <size_t kVectors> void add(const __m512i (&sums)[kVectors], size_t row) const {
        int32_t *to = out + row * rows;
#pragma GCC unroll 4
        for (size_t v = 0; v < kVectors; ++v) {
            if (16 * v >= count) {
                break;
            }
            const __mmask16 lanes = lanes_below(count - 16 * v);
            const __m512i start = before == nullptr ? _mm512_maskz_loadu_epi32(lanes, to + 16 * v)
                                                    : _mm512_set1_epi32(before[row]);
            _mm512_mask_storeu_epi32(to + 16 * v, lanes, _mm512_add_epi32(start, sums[v]));
        }
    }
};

// q: `steps` times four columns of kColumns activation rows, `stride` apart.
template <int kColumns>
void multiply_panel(const uint8_t *panel, size_t steps, const int8_t *q, size_t stride, const Target &target,
                    size_t first) {
    __m512i sums[kColumns][kPanelVectors];
#pragma GCC unroll 6
    for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 4
        for (size_t v = 0; v < kPanelVectors; ++v) {
            sums[c][v] = _mm512_setzero_si512();
        }
    }
#pragma GCC unroll 4
    for (const uint8_t *end = panel + steps * kPanelStep; panel != end; panel += kPanelStep, q += 4) {
        const __m512i u[kPanelVectors] = {_mm512_load_si512(panel), _mm512_load_si512(panel + 64),
                                          _mm512_load_si512(panel + 128), _mm512_load_si512(panel + 192)};
#pragma GCC unroll 6
        for (int c = 0; c < kColumns; ++c) {
            int32_t four;
            std::memcpy(&four, q + static_cast<size_t>(c) * stride, sizeof four);
            const __m512i activations = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (size_t v = 0; v < kPanelVectors; ++v) {
                add_products(sums[c][v], u[v], activations);
            }
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < kColumns; ++c) {
        target.add(sums[c], first + static_cast<size_t>(c));
    }
}

// n activation rows against one panel; the last two tiles share evenly, so that no tile is left with few sums
// to hide the latency of an addition.
inline void multiply_panel_rows(const uint8_t *panel, size_t steps, const int8_t *q, size_t stride, size_t n,
                                const Target &target) {
    using Multiply = void (*)(const uint8_t *, size_t, const int8_t *, size_t, const Target &, size_t);
    static constexpr Multiply kMultiply[kTileColumns + 1] = {
        nullptr,           multiply_panel<1>, multiply_panel<2>, multiply_panel<3>,
        multiply_panel<4>, multiply_panel<5>, multiply_panel<6>};
    for (size_t i = 0; i < n;) {
        const size_t left = n - i;
        const size_t tile = left <= kTileColumns      ? left
                            : left < 2 * kTileColumns ? (left + 1) / 2
                                                      : kTileColumns;
        target.ask(i, tile);
        kMultiply[tile](panel, steps, q + i * stride, stride, target, i);
        i += tile;
    }
}

// Minus the sum of n activation rows of any length: what takes u back to codes. Modulo 2^32, like every sum.
inline void negated_sums(const int8_t *q, size_t cols, size_t n, int32_t *sums) {
    const __m512i ones = _mm512_set1_epi8(1);
    for (size_t i = 0; i < n; ++i, q += cols) {
        __m512i sum = _mm512_setzero_si512();
        size_t k = 0;
        for (; k + 64 <= cols; k += 64) {
            sum = _mm512_dpbusd_epi32(sum, ones, _mm512_loadu_si512(q + k));
        }
        const __mmask64 rest = (uint64_t{1} << (cols - k)) - 1;
        sum = _mm512_dpbusd_epi32(sum, ones, _mm512_maskz_loadu_epi8(rest, q + k));
        sums[i] = static_cast<int32_t>(0u - static_cast<uint32_t>(_mm512_reduce_add_epi32(sum)));
    }
}

} // namespace avx512
} // namespace bnb
