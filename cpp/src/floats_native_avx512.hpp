// The loops of native float products in AVX-512, for a type of weights that says how its products are made.
//
// Weights are read where they lie: 32 neighbours are a vector, and so are 32 neighbours of a rounded column.
// A tile of four rows, a quarter of the matrix apart, and up to four columns keeps sixteen sums; the first
// one asks memory for what comes next in each of the four rows. At most kPanelCols columns of four rows are
// multiplied with every column before the next ones, so that the L1 cache holds them.
//
// A Type has
//     Acc                      what products are added to, kBlock groups of them
//     zero, add(acc, w, x)     acc + w x
//     wide(acc)                as sixteen floats
//
// Each file that includes this is compiled for its own instruction set, so everything here is its own.
#pragma once

// gcc 12 takes the deliberately undefined vectors of its own header for a defect of whoever uses them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "floats_native.hpp"

namespace bnb {
namespace {

constexpr size_t kPanelCols = 4096;
constexpr size_t kAheadBytes = 2048; // of the only tile; more tiles leave more time, and ask for what follows
constexpr size_t kTileColumns = 4;

inline __mmask16 floats_below(size_t count) {
    return static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1u);
}

// The sixteen lanes of each of four vectors, added in halves.
inline __m128 add_lanes(const __m512 (&v)[4]) {
    __m128 quarters[4];
    for (int i = 0; i < 4; ++i) {
        const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v[i]), 1));
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v[i]), upper);
        quarters[i] = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    }
    _MM_TRANSPOSE4_PS(quarters[0], quarters[1], quarters[2], quarters[3]);
    return _mm_add_ps(_mm_add_ps(quarters[0], quarters[2]), _mm_add_ps(quarters[1], quarters[3]));
}

// Four rows times kColumns columns over `cols` values; kFetch: so many bytes `ahead` of each row is fetched.
template <class Type, int kColumns, bool kFetch>
inline void tile(const uint8_t *const (&rows)[4], const uint16_t *x, size_t x_stride, size_t cols,
                 size_t ahead, __m128 (&out)[kColumns]) {
    __m512 sums[kColumns][4];
    for (auto &column : sums) {
        column[0] = column[1] = column[2] = column[3] = _mm512_setzero_ps();
    }
    const size_t groups = (cols + kNativeGroup - 1) / kNativeGroup;
    const size_t whole = cols / kNativeGroup;
    const __mmask32 rest = (1u << cols % kNativeGroup) - 1u;
    for (size_t block = 0; block < groups; block += Type::kBlock) {
        typename Type::Acc acc[kColumns][4];
        for (auto &column : acc) {
            column[0] = column[1] = column[2] = column[3] = Type::zero();
        }
        const auto step = [&](size_t group, const __m512i(&w)[4]) {
            for (int c = 0; c < kColumns; ++c) {
                const __m512i values =
                    _mm512_load_si512(x + static_cast<size_t>(c) * x_stride + group * kNativeGroup);
                for (int r = 0; r < 4; ++r) {
                    Type::add(acc[c][r], w[r], values);
                }
            }
        };
        const size_t end = groups - block < Type::kBlock ? groups : block + Type::kBlock;
        size_t group = block;
        for (; group < end && group < whole; ++group) {
            __m512i w[4];
            for (int r = 0; r < 4; ++r) {
                const uint8_t *at = rows[r] + group * 2 * kNativeGroup;
                if (kFetch) {
                    _mm_prefetch(reinterpret_cast<const char *>(at + ahead), _MM_HINT_T0);
                }
                w[r] = _mm512_loadu_si512(at);
            }
            step(group, w);
        }
        if (group < end) {
            __m512i w[4];
            for (int r = 0; r < 4; ++r) {
                w[r] = _mm512_maskz_loadu_epi16(rest, rows[r] + group * 2 * kNativeGroup);
            }
            step(group, w);
        }
        for (int c = 0; c < kColumns; ++c) {
            for (int r = 0; r < 4; ++r) {
                sums[c][r] = _mm512_add_ps(sums[c][r], Type::wide(acc[c][r]));
            }
        }
    }
    for (int c = 0; c < kColumns; ++c) {
        out[c] = add_lanes(sums[c]);
    }
}

// Which rows make a group of four: a quarter apart, then what is left over, the last one repeated.
struct Rows {
    size_t row[4];
    size_t used;
};
inline Rows rows_of(size_t index, size_t n_rows) {
    const size_t quarter = n_rows / 4;
    Rows group;
    for (size_t i = 0; i < 4; ++i) {
        const size_t left = 4 * quarter + i;
        group.row[i] = index < quarter ? index + i * quarter : left < n_rows ? left : n_rows - 1;
    }
    group.used = index < quarter ? 4 : n_rows - 4 * quarter;
    return group;
}

template <class Type, int kColumns, bool kFetch>
inline void tile_to(const Rows &group, const uint8_t *const (&at)[4], const uint16_t *x, size_t x_stride,
                    size_t cols, size_t ahead, bool onto, float *y, size_t y_stride) {
    __m128 sums[kColumns];
    tile<Type, kColumns, kFetch>(at, x, x_stride, cols, ahead, sums);
    for (size_t c = 0; c < static_cast<size_t>(kColumns); ++c) {
        alignas(16) float values[4];
        _mm_store_ps(values, sums[c]);
        for (size_t i = 0; i < group.used; ++i) {
            float &place = y[c * y_stride + group.row[i]];
            place = onto ? place + values[i] : values[i];
        }
    }
}

template <class Type, bool kFetch, class... Rest> inline void tiles_to(size_t columns, const Rest &...rest) {
    switch (columns) {
    case 1:
        return tile_to<Type, 1, kFetch>(rest...);
    case 2:
        return tile_to<Type, 2, kFetch>(rest...);
    case 3:
        return tile_to<Type, 3, kFetch>(rest...);
    default:
        return tile_to<Type, 4, kFetch>(rest...);
    }
}

template <class Type>
void native_dots(const FloatRows &rows, size_t n_rows, const uint16_t *x, size_t x_stride, size_t n, float *y,
                 size_t y_stride) {
    // Where there is one tile, nothing is read twice.
    const size_t panel = n <= kTileColumns ? rows.cols : kPanelCols;
    for (size_t index = 0; index < (n_rows + 3) / 4; ++index) {
        const Rows group = rows_of(index, n_rows);
        for (size_t first = 0; first < rows.cols; first += panel) {
            const size_t cols = rows.cols - first < panel ? rows.cols - first : panel;
            const size_t ahead = n <= kTileColumns ? kAheadBytes : 2 * cols;
            const uint8_t *at[4];
            for (size_t i = 0; i < 4; ++i) {
                at[i] = rows.bytes + group.row[i] * rows.row_bytes + 2 * first;
            }
            for (size_t column = 0; column < n; column += kTileColumns) {
                const size_t count = n - column < kTileColumns ? n - column : kTileColumns;
                const uint16_t *values = x + column * x_stride + first;
                float *to = y + column * y_stride;
                const bool onto = first != 0;
                if (column == 0) {
                    tiles_to<Type, true>(count, group, at, values, x_stride, cols, ahead, onto, to, y_stride);
                } else {
                    tiles_to<Type, false>(count, group, at, values, x_stride, cols, ahead, onto, to,
                                          y_stride);
                }
            }
        }
    }
}

} // namespace
} // namespace bnb
