// I2_S products in AVX-512 VNNI: exact int32, read in place.
//
// vpdpbusd multiplies unsigned by signed bytes and adds four neighbours to an int32 lane, so the codes are
// used as they stand, u = code + 1 in 0, 1, 2, and the sum of the activations is taken off at the end.
//
// One activation row (decode) is bound by reading the weights once:
//   for four rows a quarter of the matrix apart, so that four streams of memory run at once,
//       for every two blocks, 64 bytes b:
//           a0 += (b & c0) q0;  a1 += (b & 30) q1;  a2 += (b & 0c) q2;  a3 += (b & 03) q3
//       dot = a0 / 64 + a1 / 16 + a2 / 4 + a3
// Nothing is shifted but the sums, once per row; each is a multiple of what it is divided by. The activations
// are brought into the order of the groups of two blocks first, a strip of at most 8192 columns at a time: a
// sum stays below 64 * 2 * 128 * 8192 / 4 = 2^25 in a lane.
//
// A few rows (2 to 7) take the same walk with shifted codes, four weight rows by up to four activation rows.
//
// More rows (prefill) are bound by arithmetic: 64 weight rows of a strip are unpacked to a panel once, and
// every activation row is multiplied by it, see panel_avx512vnni.hpp. Unpacking transposes the packed bytes:
// the same four bytes of 16 rows come together, and their four groups, shifted and masked, are four vectors
// of the panel.
//
// Compiled with its own flags and free of the standard library, see quantize_avx2.cpp.

#include "panel_avx512vnni.hpp"
#include "product.hpp"

namespace bnb {
namespace {

using namespace avx512;

constexpr size_t kBlock = 128;
constexpr size_t kBlockBytes = 32;
constexpr size_t kStripBlocks = 64; // of the walk along rows
constexpr size_t kFewRows = 7;      // up to here the walk along rows is faster than making a panel
constexpr size_t kFewColumns = 4;   // activation rows that walk together
constexpr size_t kPrefetch = 1536;  // bytes ahead in each stream

inline __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}

inline int32_t add(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

// The sums of all lanes of four vectors.
inline __m128i sum_lanes(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    const __m512i s = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// A strip of activations in the order of two blocks of a row: 64 of group 0, 64 of group 1, ... An odd last
// block is filled up with zeros.
void stage(const int8_t *q, size_t blocks, int8_t *staged) {
    for (size_t block = 0; block < blocks; block += 2, q += 2 * kBlock, staged += 2 * kBlock) {
        const bool two = block + 1 < blocks;
        for (size_t group = 0; group < 4; ++group) {
            const int8_t *from = q + 32 * group;
            const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
            const __m256i high = two ? _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from + kBlock))
                                     : _mm256_setzero_si256();
            _mm512_store_si512(staged + 64 * group, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
        }
    }
}

// One strip of four weight rows times one staged activation row, u form.
inline __m128i dot_rows(const uint8_t *const (&rows)[4], size_t blocks, const int8_t *staged) {
    const __m512i mask0 = _mm512_set1_epi8(static_cast<char>(0xc0)), mask1 = _mm512_set1_epi8(0x30);
    const __m512i mask2 = _mm512_set1_epi8(0x0c), mask3 = _mm512_set1_epi8(0x03);
    __m512i sums[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = _mm512_setzero_si512();
    }
    const auto add_bytes = [&](__m512i(&sum)[4], __m512i b, const int8_t *q) {
        add_products(sum[0], _mm512_and_si512(b, mask0), _mm512_load_si512(q));
        add_products(sum[1], _mm512_and_si512(b, mask1), _mm512_load_si512(q + 64));
        add_products(sum[2], _mm512_and_si512(b, mask2), _mm512_load_si512(q + 128));
        add_products(sum[3], _mm512_and_si512(b, mask3), _mm512_load_si512(q + 192));
    };
    size_t at = 0;
    for (const size_t end = blocks / 2 * 64; at < end; at += 64) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            _mm_prefetch(reinterpret_cast<const char *>(rows[i] + at + kPrefetch), _MM_HINT_T0);
            add_bytes(sums[i], load(rows[i] + at), staged + 4 * at);
        }
    }
    if (blocks % 2 != 0) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            add_bytes(sums[i], _mm512_maskz_loadu_epi32(0x00ff, rows[i] + at), staged + 4 * at);
        }
    }
    __m512i dots[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512i upper =
            _mm512_add_epi32(_mm512_srai_epi32(sums[i][0], 6), _mm512_srai_epi32(sums[i][1], 4));
        dots[i] = _mm512_add_epi32(upper, _mm512_add_epi32(_mm512_srai_epi32(sums[i][2], 2), sums[i][3]));
    }
    return sum_lanes(dots[0], dots[1], dots[2], dots[3]);
}

// One strip of four weight rows times kColumns staged activation rows, a strip apart.
template <int kColumns>
inline void dot_tile(const uint8_t *const (&rows)[4], size_t blocks, const int8_t *staged,
                     __m128i (&dots)[kColumns]) {
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i sums[kColumns][4];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
        sums[c][0] = sums[c][1] = sums[c][2] = sums[c][3] = _mm512_setzero_si512();
    }
    for (size_t block = 0; block < blocks; block += 2, staged += 2 * kBlock) {
        const __mmask16 lanes = block + 1 < blocks ? 0xffff : 0x00ff;
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const __m512i b = _mm512_maskz_loadu_epi32(lanes, rows[i] + block * kBlockBytes);
#pragma GCC unroll 4
            for (int group = 0; group < 4; ++group) {
                const __m512i u = _mm512_and_si512(_mm512_srli_epi16(b, 6 - 2 * group), mask);
#pragma GCC unroll 4
                for (int c = 0; c < kColumns; ++c) {
                    const int8_t *q = staged + static_cast<size_t>(c) * kStripBlocks * kBlock + 64 * group;
                    add_products(sums[c][i], u, _mm512_load_si512(q));
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
        dots[c] = sum_lanes(sums[c][0], sums[c][1], sums[c][2], sums[c][3]);
    }
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

class I2sAvx512Vnni final : public Product {
  public:
    explicit I2sAvx512Vnni(const bnb_weights &weights)
        : bytes_(weights.bytes), rows_(weights.layout.rows), cols_(weights.layout.cols) {}

    size_t row_step(size_t n) const noexcept override { return n <= kFewRows ? 4 : kPanelRows; }
    void reserve(size_t) override {}
    uint64_t bytes() const noexcept override { return 0; }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t) noexcept override {
        if (n == 1) {
            walk_one(q, out, first, last);
        } else if (n <= kFewColumns) {
            walk_few(q, n, out, first, last);
        } else if (n <= kFewRows) {
            walk_few(q, (n + 1) / 2, out, first, last);
            walk_few(q + (n + 1) / 2 * cols_, n / 2, out + (n + 1) / 2 * rows_, first, last);
        } else {
            for (size_t i = 0; i < n; i += kPassRows) {
                const size_t pass = n - i < kPassRows ? n - i : kPassRows;
                multiply_rows(q + i * cols_, pass, out + i * rows_, first, last);
            }
        }
    }

  private:
    const uint8_t *row_bytes(size_t row) const { return bytes_ + row * (cols_ / 4); }

    void walk_one(const int8_t *q, int32_t *out, size_t first, size_t last) const {
        alignas(64) int8_t staged[kStripBlocks * kBlock];
        int32_t sum;
        negated_sums(q, cols_, 1, &sum);
        const size_t blocks = cols_ / kBlock, quarter = (last - first) / 4;
        for (size_t start = 0; start < blocks; start += kStripBlocks) {
            const size_t strip = blocks - start < kStripBlocks ? blocks - start : kStripBlocks;
            stage(q + start * kBlock, strip, staged);
            const auto walk = [&](const size_t(&at)[4], size_t count) {
                const uint8_t *rows[4];
                for (size_t i = 0; i < 4; ++i) {
                    rows[i] = row_bytes(at[i]) + start * kBlockBytes;
                }
                alignas(16) int32_t dots[4];
                _mm_store_si128(reinterpret_cast<__m128i *>(dots), dot_rows(rows, strip, staged));
                for (size_t i = 0; i < count; ++i) {
                    out[at[i]] = add(start == 0 ? sum : out[at[i]], dots[i]);
                }
            };
            for (size_t row = first; row < first + quarter; ++row) {
                walk({row, row + quarter, row + 2 * quarter, row + 3 * quarter}, 4);
            }
            const size_t rest = first + 4 * quarter, end = last - 1;
            if (rest < last) {
                walk({rest, rest + 1 < end ? rest + 1 : end, rest + 2 < end ? rest + 2 : end, end},
                     last - rest);
            }
        }
    }

    void walk_few(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last) const {
        n == 1   ? walk_one(q, out, first, last)
        : n == 2 ? walk_columns<2>(q, out, first, last)
        : n == 3 ? walk_columns<3>(q, out, first, last)
                 : walk_columns<4>(q, out, first, last);
    }

    template <int kColumns>
    void walk_columns(const int8_t *q, int32_t *out, size_t first, size_t last) const {
        alignas(64) int8_t staged[kColumns * kStripBlocks * kBlock];
        int32_t sums[kColumns];
        negated_sums(q, cols_, kColumns, sums);
        const size_t blocks = cols_ / kBlock;
        for (size_t start = 0; start < blocks; start += kStripBlocks) {
            const size_t strip = blocks - start < kStripBlocks ? blocks - start : kStripBlocks;
            for (size_t c = 0; c < kColumns; ++c) {
                stage(q + c * cols_ + start * kBlock, strip, staged + c * kStripBlocks * kBlock);
            }
            for (size_t row = first; row < last; row += 4) {
                const size_t count = last - row < 4 ? last - row : 4;
                const uint8_t *rows[4];
                for (size_t i = 0; i < 4; ++i) {
                    rows[i] = row_bytes(row + (i < count ? i : count - 1)) + start * kBlockBytes;
                }
                __m128i dots[kColumns];
                dot_tile<kColumns>(rows, strip, staged, dots);
                const auto lanes = static_cast<__mmask8>((1u << count) - 1);
                for (size_t c = 0; c < kColumns; ++c) {
                    int32_t *to = out + c * rows_ + row;
                    const __m128i before =
                        start == 0 ? _mm_set1_epi32(sums[c]) : _mm_maskz_loadu_epi32(lanes, to);
                    _mm_mask_storeu_epi32(to, lanes, _mm_add_epi32(before, dots[c]));
                }
            }
        }
    }

    // n <= kPassRows activation rows by panels.
    void multiply_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last) const {
        alignas(64) uint8_t panel[kPanelRows * kStripCols];
        int32_t sums[kPassRows];
        negated_sums(q, cols_, n, sums);
        for (size_t row = first; row < last; row += kPanelRows) {
            const size_t count = last - row < kPanelRows ? last - row : kPanelRows;
            for (size_t k = 0; k < cols_; k += kStripCols) {
                const size_t strip = cols_ - k < kStripCols ? cols_ - k : kStripCols;
                // Where the next panel's bytes stand: further along the rows, or in the next 64 rows.
                const size_t ahead = k + strip < cols_ ? strip / 4 : kPanelRows * cols_ / 4 - k / 4;
                fill_panel(row, count, k / kBlock, strip / kBlock, ahead, panel);
                const Target target = {out + row, rows_, count, k == 0 ? sums : nullptr};
                multiply_panel_rows(panel, strip / 4, q + k, cols_, n, target);
            }
        }
    }

    // Rows beyond `count` repeat the last one. Fetches the bytes `ahead` into the cache.
    void fill_panel(size_t row, size_t count, size_t start, size_t blocks, size_t ahead,
                    uint8_t *panel) const {
        const __m512i mask = _mm512_set1_epi8(3);
        for (size_t vector = 0; vector < kPanelVectors; ++vector) {
            const uint8_t *rows[16];
            for (size_t i = 0; i < 16; ++i) {
                const size_t at = 16 * vector + i;
                rows[i] = row_bytes(row + (at < count ? at : count - 1)) + start * kBlockBytes;
            }
            uint8_t *to = panel + 64 * vector;
            for (size_t block = 0; block < blocks; ++block, to += kBlock / 4 * kPanelStep) {
                if (block % 2 == 0) {
                    for (size_t i = 0; i < 16; ++i) {
                        const uint8_t *next = rows[i] + block * kBlockBytes + ahead;
                        _mm_prefetch(reinterpret_cast<const char *>(next), _MM_HINT_T0);
                    }
                }
                __m512i columns[8];
                transpose(rows, block * kBlockBytes, columns);
#pragma GCC unroll 4
                for (size_t group = 0; group < 4; ++group) {
#pragma GCC unroll 8
                    for (size_t d = 0; d < 8; ++d) {
                        const auto shift = static_cast<unsigned>(6 - 2 * group);
                        _mm512_store_si512(to + (8 * group + d) * kPanelStep,
                                           _mm512_and_si512(_mm512_srli_epi16(columns[d], shift), mask));
                    }
                }
            }
        }
    }

    const uint8_t *bytes_; // the caller's, packed [rows, cols]
    size_t rows_;
    size_t cols_;
};

// No code 3 anywhere. n is a multiple of 32.
bool valid(const uint8_t *bytes, size_t n) {
    const __m512i low = _mm512_set1_epi8(0x55);
    __m512i unused = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 64) {
        const __m512i packed = _mm512_maskz_loadu_epi32(n - i < 64 ? 0x00ff : 0xffff, bytes + i);
        unused = _mm512_or_si512(unused, _mm512_and_si512(packed, _mm512_srli_epi16(packed, 1)));
    }
    return _mm512_test_epi8_mask(unused, low) == 0;
}

} // namespace

bnb_status make_i2s_avx512vnni(const bnb_weights &weights, size_t, Product **product) {
    if (!valid(weights.bytes, weights.layout.rows * weights.layout.cols / 4)) {
        return BNB_INVALID_DATA;
    }
    *product = new I2sAvx512Vnni(weights);
    return BNB_OK;
}

} // namespace bnb
