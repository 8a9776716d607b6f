// I2_S products in AVX-VNNI: exact int32, read in place, weights and activations alike.
//
// 32 bytes b are a block of 128 columns, and the four groups q0 .. q3 of its activations are a vector each.
// Codes are never shifted: where they stand they are 64, 16, 4 or 1 times too large, and so are sums of their
// products, which are divided once.
//
// One activation row (decode) is bound by reading the weights once:
//       a0 += (b & c0) q0;  a1 += (b & 30) q1;  a2 += (b & 0c) q2;  a3 += (b & 03) q3
//       dot = a0 / 64 + a1 / 16 + a2 / 4 + a3
// for two rows at a time, because the eight sums, the masks and what is at work fill the sixteen registers.
// Two such pairs take turns, four rows a quarter of the matrix apart, so that four streams of memory run.
//
// More rows (prefill) are bound by arithmetic. A tile of weight rows by up to six activation rows keeps its
// sums in registers and passes along the rows four times, group by group from the highest: between two passes
// the sums are divided by 4, so that each pass costs one AND for each vector of codes and nothing else.
//
// A strip is at most 96 blocks, of each of which a lane takes 4 * 128 * 128 at most: it stays below 2^23.
// Every division is of a multiple.
//
// Compiled with its own flags and free of the standard library, see quantize_avx2.cpp.

#include "avxvnni.hpp"
#include "product.hpp"

namespace bnb {
namespace {

using namespace avxvnni;

constexpr size_t kBlock = 128;
constexpr size_t kBlockBytes = 32;
constexpr size_t kWalkBlocks = 64;      // decode: blocks of a strip
constexpr size_t kTileColumns = 6;      // prefill: activation rows of a tile
constexpr size_t kChunkBytes = 1 << 19; // weights that meet every activation row while the L2 cache has them
constexpr size_t kPrefetch = 1536;      // decode: bytes ahead in each stream

// The masks of the four groups, the highest first.
alignas(32) constexpr uint64_t kMasks[4][4] = {
    {0xc0c0c0c0c0c0c0c0, 0xc0c0c0c0c0c0c0c0, 0xc0c0c0c0c0c0c0c0, 0xc0c0c0c0c0c0c0c0},
    {0x3030303030303030, 0x3030303030303030, 0x3030303030303030, 0x3030303030303030},
    {0x0c0c0c0c0c0c0c0c, 0x0c0c0c0c0c0c0c0c, 0x0c0c0c0c0c0c0c0c, 0x0c0c0c0c0c0c0c0c},
    {0x0303030303030303, 0x0303030303030303, 0x0303030303030303, 0x0303030303030303}};

// Weight rows of a tile, whose sums, codes, mask and one vector of activations fill sixteen registers.
constexpr int tile_rows(int columns) {
    return columns == 2 ? 4 : columns <= 4 ? 3 : 2;
}

// Blocks of a strip of a tile: the activations fill half of the L1 cache.
constexpr size_t tile_blocks(int columns) {
    return 192 / static_cast<size_t>(columns);
}

// Divides by 4 in the register where `sum` is.
inline void quarter(__m256i &sum) {
    asm("vpsrad $2, %0, %0" : "+x"(sum));
}

// dots[i] = one strip of kRows weight rows times one activation row, u form.
template <int kRows>
inline void dot_rows(const uint8_t *const (&rows)[kRows], size_t blocks, const int8_t *q, int32_t *dots) {
    const __m256i mask0 = _mm256_set1_epi8(static_cast<char>(0xc0)), mask1 = _mm256_set1_epi8(0x30);
    const __m256i mask2 = _mm256_set1_epi8(0x0c), mask3 = _mm256_set1_epi8(0x03);
    __m256i sums[kRows][4];
#pragma GCC unroll 2
    for (int i = 0; i < kRows; ++i) {
        sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = _mm256_setzero_si256();
    }
    for (size_t at = 0; at < blocks * kBlockBytes; at += kBlockBytes, q += kBlock) {
#pragma GCC unroll 2
        for (int i = 0; i < kRows; ++i) {
            _mm_prefetch(reinterpret_cast<const char *>(rows[i] + at + kPrefetch), _MM_HINT_T0);
            const __m256i b = load(rows[i] + at);
            add_products(sums[i][0], _mm256_and_si256(b, mask0), load(q));
            add_products(sums[i][1], _mm256_and_si256(b, mask1), load(q + 32));
            add_products(sums[i][2], _mm256_and_si256(b, mask2), load(q + 64));
            add_products(sums[i][3], _mm256_and_si256(b, mask3), load(q + 96));
        }
    }
    __m256i total[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        const __m256i(&s)[4] = sums[i < kRows ? i : 0];
        total[i] = _mm256_add_epi32(_mm256_add_epi32(_mm256_srai_epi32(s[0], 6), _mm256_srai_epi32(s[1], 4)),
                                    _mm256_add_epi32(_mm256_srai_epi32(s[2], 2), s[3]));
    }
    const __m128i both = sum_lanes(total[0], total[1], total[0], total[1]);
    dots[0] = _mm_cvtsi128_si32(both);
    if (kRows > 1) {
        dots[1] = _mm_extract_epi32(both, 1);
    }
}

// dots[c][r] = one strip of kRows weight rows, `row_bytes` apart, times kColumns activation rows, `cols`
// apart, u form. On the way it fetches the next kRows rows into the cache, one in each pass.
template <int kRows, int kColumns>
inline void dot_tile(const uint8_t *bytes, size_t row_bytes, size_t blocks, const int8_t *q, size_t cols,
                     int32_t *dots) {
    constexpr int kSums = kRows * kColumns, kFours = (kSums + 3) / 4;
    __m256i sums[4 * kFours];
#pragma GCC unroll 12
    for (int i = 0; i < 4 * kFours; ++i) {
        sums[i] = _mm256_setzero_si256();
    }
    const uint64_t *mask = kMasks[0];
    for (int group = 0;; q += 32) {
        const int8_t *activations = q;
        const size_t ahead = static_cast<size_t>(kRows + group % kRows) * row_bytes;
        for (const uint8_t *b = bytes, *end = bytes + blocks * kBlockBytes; b != end;
             b += kBlockBytes, activations += kBlock) {
            _mm_prefetch(reinterpret_cast<const char *>(b + ahead), _MM_HINT_T0);
            __m256i u[kRows];
            if constexpr (kSums + kRows + 2 > 16) { // sums, codes, activations, mask: no register is left
                asm("" : "+r"(mask));
            }
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                u[r] = _mm256_and_si256(load(b + static_cast<size_t>(r) * row_bytes), load(mask));
            }
#pragma GCC unroll 6
            for (int c = 0; c < kColumns; ++c) {
                const __m256i values = load(activations + static_cast<size_t>(c) * cols);
#pragma GCC unroll 4
                for (int r = 0; r < kRows; ++r) {
                    add_products(sums[c * kRows + r], u[r], values);
                }
            }
        }
        if (++group == 4) {
            break;
        }
        mask = kMasks[group];
#pragma GCC unroll 12
        for (int i = 0; i < kSums; ++i) {
            quarter(sums[i]);
        }
    }
#pragma GCC unroll 3
    for (int i = 0; i < kFours; ++i) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(dots + 4 * i),
                         sum_lanes(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]));
    }
}

class I2sAvxVnni final : public Product {
  public:
    explicit I2sAvxVnni(const bnb_weights &weights)
        : bytes_(weights.bytes), rows_(weights.layout.rows), cols_(weights.layout.cols) {}

    size_t row_step(size_t) const noexcept override { return 4; }
    void reserve(size_t) override {}
    uint64_t bytes() const noexcept override { return 0; }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t) noexcept override {
        if (n == 1) {
            walk(q, out, first, last);
            return;
        }
        using Tiles = void (I2sAvxVnni::*)(const int8_t *, int32_t *, size_t, size_t) const;
        static constexpr Tiles kTiles[kTileColumns + 1] = {nullptr,
                                                           &I2sAvxVnni::tiles<1>,
                                                           &I2sAvxVnni::tiles<2>,
                                                           &I2sAvxVnni::tiles<3>,
                                                           &I2sAvxVnni::tiles<4>,
                                                           &I2sAvxVnni::tiles<5>,
                                                           &I2sAvxVnni::tiles<6>};
        const size_t parts = (n + kTileColumns - 1) / kTileColumns; // of the activation rows, even ones
        const size_t chunk = kChunkBytes / (cols_ / 4) / 12 * 12 + 12;
        for (size_t row = first, end; row < last; row = end) {
            end = last - row < chunk ? last : row + chunk;
            for (size_t part = 0; part < parts; ++part) {
                const size_t from = n * part / parts, to = n * (part + 1) / parts;
                (this->*kTiles[to - from])(q + from * cols_, out + from * rows_, row, end);
            }
        }
    }

  private:
    const uint8_t *row_bytes(size_t row) const { return bytes_ + row * (cols_ / 4); }

    // One activation row.
    void walk(const int8_t *q, int32_t *out, size_t first, size_t last) const {
        int32_t sum;
        negated_sums(q, cols_, 1, &sum);
        const size_t blocks = cols_ / kBlock, quarter_rows = (last - first) / 4;
        for (size_t start = 0; start < blocks; start += kWalkBlocks) {
            const size_t strip = blocks - start < kWalkBlocks ? blocks - start : kWalkBlocks;
            const int8_t *activations = q + start * kBlock;
            const auto put = [&](size_t row, int32_t dot) {
                out[row] = add(start == 0 ? sum : out[row], dot);
            };
            const auto bytes = [&](size_t row) { return row_bytes(row) + start * kBlockBytes; };
            const auto pair = [&](size_t one, size_t other) {
                const uint8_t *const rows[2] = {bytes(one), bytes(other)};
                int32_t dots[2];
                dot_rows(rows, strip, activations, dots);
                put(one, dots[0]);
                put(other, dots[1]);
            };
            for (size_t row = first; row < first + quarter_rows; ++row) {
                pair(row, row + quarter_rows);
                pair(row + 2 * quarter_rows, row + 3 * quarter_rows);
            }
            for (size_t row = first + 4 * quarter_rows; row < last; ++row) {
                const uint8_t *const rows[1] = {bytes(row)};
                int32_t dot;
                dot_rows(rows, strip, activations, &dot);
                put(row, dot);
            }
        }
    }

    // kColumns activation rows.
    template <int kColumns> void tiles(const int8_t *q, int32_t *out, size_t first, size_t last) const {
        constexpr int kRows = tile_rows(kColumns);
        int32_t sums[kColumns];
        negated_sums(q, cols_, kColumns, sums);
        const size_t blocks = cols_ / kBlock, most = tile_blocks(kColumns);
        for (size_t start = 0; start < blocks; start += most) {
            const size_t strip = blocks - start < most ? blocks - start : most;
            const int32_t *const before = start == 0 ? sums : nullptr;
            size_t row = first;
            for (; row + kRows <= last; row += kRows) {
                tile<kRows, kColumns>(row, start, strip, q, before, out);
            }
            for (; row < last; ++row) {
                tile<1, kColumns>(row, start, strip, q, before, out);
            }
        }
    }

    // Adds the strip's share to `out`, which starts from `before`, or stands there already where that is
    // NULL.
    template <int kRows, int kColumns>
    void tile(size_t row, size_t start, size_t strip, const int8_t *q, const int32_t *before,
              int32_t *out) const {
        const uint8_t *bytes = row_bytes(row) + start * kBlockBytes;
        int32_t dots[(kRows * kColumns + 3) / 4 * 4];
        dot_tile<kRows, kColumns>(bytes, cols_ / 4, strip, q + start * kBlock, cols_, dots);
        for (int c = 0; c < kColumns; ++c) {
            int32_t *to = out + static_cast<size_t>(c) * rows_ + row;
            for (int r = 0; r < kRows; ++r) {
                to[r] = add(before != nullptr ? before[c] : to[r], dots[c * kRows + r]);
            }
        }
    }

    const uint8_t *bytes_; // the caller's, packed [rows, cols]
    size_t rows_;
    size_t cols_;
};

// No code 3 anywhere.
bool valid(const uint8_t *bytes, size_t n) {
    __m256i unused = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += kBlockBytes) {
        const __m256i packed = load(bytes + i);
        unused = _mm256_or_si256(unused, _mm256_and_si256(packed, _mm256_srli_epi16(packed, 1)));
    }
    return _mm256_testz_si256(unused, _mm256_set1_epi8(0x55)) != 0;
}

} // namespace

bnb_status make_i2s_avxvnni(const bnb_weights &weights, size_t, Product **product) {
    if (!valid(weights.bytes, weights.layout.rows * weights.layout.cols / 4)) {
        return BNB_INVALID_DATA;
    }
    *product = new I2sAvxVnni(weights);
    return BNB_OK;
}

} // namespace bnb
