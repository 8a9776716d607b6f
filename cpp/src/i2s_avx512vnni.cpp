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
// A few rows (2 to 6) take the same walk, four weight rows by all of them, and pass along the rows four
// times, group by group from the highest: between two passes the sums are divided by 4, so that each pass
// costs one AND for each vector of codes and nothing else. A lane takes 4 * 128 * 128 at most from two
// blocks, and stays below 2^23.
//
// More rows (prefill) are bound by arithmetic. Unpacking and adding across lanes would take too large a
// share, so weight rows of a strip are transposed to a panel first: the same four bytes of 16 rows come
// together, and a lane of the sums is a row. Some rows (7 to 32) multiply by the transposed bytes as they
// stand, again in four passes: 32 weight rows by up to 12 activation rows. Where more activation rows share
// it, it pays to unpack the four groups of 64 weight rows, shifted and masked, to a panel of codes:
// panel_avx512vnni.hpp.
//
// Compiled with its own flags and free of the standard library, see quantize_avx2.cpp.

#include "packed_avx512vnni.hpp"
#include "panel_avx512vnni.hpp"
#include "product.hpp"

namespace bnb {
namespace {

using namespace avx512;

constexpr size_t kStripBlocks = 64; // of one activation row
constexpr size_t kFewRows = 6;      // up to here the walk along rows is faster than making a panel
constexpr size_t kSomeRows = 32;    // up to here a panel of packed bytes is faster than one of codes
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

// Blocks of a strip of a few rows, an even number: together they fill half of the L1 cache.
constexpr size_t tile_blocks(int columns) {
    return 192 / static_cast<size_t>(columns) / 2 * 2;
}

// One strip of four weight rows times kColumns staged activation rows, a strip apart, u form. On the way it
// fetches the bytes `ahead` into the cache, those of one row in each pass.
template <int kColumns>
inline void dot_tile(const uint8_t *const (&rows)[4], size_t blocks, size_t ahead, const int8_t *staged,
                     __m128i (&dots)[kColumns]) {
    __m512i sums[kColumns][4];
#pragma GCC unroll 6
    for (int c = 0; c < kColumns; ++c) {
        sums[c][0] = sums[c][1] = sums[c][2] = sums[c][3] = _mm512_setzero_si512();
    }
    // An odd last block is read with the 32 bytes behind it: of the next row, or the scale and its padding.
    // The activations there are zeros.
    const size_t bytes = (blocks + 1) / 2 * 64;
    __m512i mask = _mm512_set1_epi8(static_cast<char>(0xc0));
    for (int group = 0;; staged += 64) {
        const int8_t *q = staged;
        const uint8_t *const next = rows[group] + ahead;
        for (size_t at = 0; at < bytes; at += 64, q += 2 * kBlock) {
            _mm_prefetch(reinterpret_cast<const char *>(next + at), _MM_HINT_T0);
            __m512i u[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                u[i] = _mm512_and_si512(mask, load(rows[i] + at));
            }
#pragma GCC unroll 6
            for (int c = 0; c < kColumns; ++c) {
                const __m512i values =
                    _mm512_load_si512(q + static_cast<size_t>(c) * tile_blocks(kColumns) * kBlock);
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) {
                    add_products(sums[c][i], u[i], values);
                }
            }
        }
        if (++group == 4) {
            break;
        }
        mask = _mm512_srli_epi16(mask, 2);
#pragma GCC unroll 6
        for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                quarter(sums[c][i]);
            }
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < kColumns; ++c) {
        dots[c] = sum_lanes(sums[c][0], sums[c][1], sums[c][2], sums[c][3]);
    }
}

class I2sAvx512Vnni final : public Product {
  public:
    explicit I2sAvx512Vnni(const bnb_weights &weights)
        : bytes_(weights.bytes), rows_(weights.layout.rows), cols_(weights.layout.cols) {}

    size_t row_step(size_t n) const noexcept override {
        return n <= kFewRows ? 4 : n <= kSomeRows ? kPackedRows : kPanelRows;
    }
    void reserve(size_t) override {}
    uint64_t bytes() const noexcept override { return 0; }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t) noexcept override {
        if (n == 1) {
            walk_one(q, out, first, last);
        } else if (n <= kFewRows) {
            walk_few(q, n, out, first, last);
        } else if (n <= kSomeRows) {
            multiply_some(q, n, out, first, last);
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
        const size_t blocks = cols_ / kBlock, far = (last - first) / 4;
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
            for (size_t row = first; row < first + far; ++row) {
                walk({row, row + far, row + 2 * far, row + 3 * far}, 4);
            }
            const size_t rest = first + 4 * far, end = last - 1;
            if (rest < last) {
                walk({rest, rest + 1 < end ? rest + 1 : end, rest + 2 < end ? rest + 2 : end, end},
                     last - rest);
            }
        }
    }

    void walk_few(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last) const {
        n == 2   ? walk_columns<2>(q, out, first, last)
        : n == 3 ? walk_columns<3>(q, out, first, last)
        : n == 4 ? walk_columns<4>(q, out, first, last)
        : n == 5 ? walk_columns<5>(q, out, first, last)
                 : walk_columns<6>(q, out, first, last);
    }

    template <int kColumns>
    void walk_columns(const int8_t *q, int32_t *out, size_t first, size_t last) const {
        constexpr size_t kStrip = tile_blocks(kColumns);
        alignas(64) int8_t staged[kColumns * kStrip * kBlock];
        int32_t sums[kColumns];
        negated_sums(q, cols_, kColumns, sums);
        const size_t blocks = cols_ / kBlock;
        for (size_t start = 0; start < blocks; start += kStrip) {
            const size_t strip = blocks - start < kStrip ? blocks - start : kStrip;
            for (size_t c = 0; c < kColumns; ++c) {
                stage(q + c * cols_ + start * kBlock, strip, staged + c * kStrip * kBlock);
            }
            for (size_t row = first; row < last; row += 4) {
                const size_t count = last - row < 4 ? last - row : 4;
                const uint8_t *rows[4];
                for (size_t i = 0; i < 4; ++i) {
                    rows[i] = row_bytes(row + (i < count ? i : count - 1)) + start * kBlockBytes;
                }
                __m128i dots[kColumns];
                dot_tile<kColumns>(rows, strip, cols_, staged, dots);
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

    // Panels of packed bytes.
    void multiply_some(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last) const {
        alignas(64) uint8_t panel[kPackedRows * kPackedCols / 4];
        int32_t sums[kSomeRows];
        negated_sums(q, cols_, n, sums);
        for_each_strip(first, last, kPackedRows, kPackedCols, [&](const Strip &strip) {
            fill_packed(strip, panel);
            const Target target = {out + strip.row, rows_, strip.rows, strip.start == 0 ? sums : nullptr};
            multiply_packed_rows(panel, strip.blocks, q + strip.start * kBlock, cols_, n, target);
        });
    }

    // n <= kPassRows activation rows by panels of codes.
    void multiply_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last) const {
        alignas(64) uint8_t panel[kPanelRows * kStripCols];
        int32_t sums[kPassRows];
        negated_sums(q, cols_, n, sums);
        for_each_strip(first, last, kPanelRows, kStripCols, [&](const Strip &strip) {
            fill_panel(strip, panel);
            const Target target = {out + strip.row, rows_, strip.rows, strip.start == 0 ? sums : nullptr};
            multiply_panel_rows(panel, strip.blocks * kBlock / 4, q + strip.start * kBlock, cols_, n, target);
        });
    }

    // Blocks [start, start + blocks) of some weight rows. What is made of them next stands `ahead` bytes on.
    struct Strip {
        size_t row, rows, start, blocks, ahead;
    };

    template <class Work>
    void for_each_strip(size_t first, size_t last, size_t most_rows, size_t most_cols, Work work) const {
        const size_t most = most_cols / kBlock, all = cols_ / kBlock;
        for (size_t row = first; row < last; row += most_rows) {
            const size_t rows = last - row < most_rows ? last - row : most_rows;
            for (size_t start = 0; start < all; start += most) {
                const size_t blocks = all - start < most ? all - start : most;
                const size_t next = start + blocks < all ? blocks : most_rows * all - start;
                work(Strip{row, rows, start, blocks, next * kBlockBytes});
            }
        }
    }

    // Rows beyond those that exist repeat the last one.
    void fill_packed(const Strip &strip, uint8_t *panel) const {
        for (size_t vector = 0; vector < kPackedVectors; ++vector) {
            uint8_t *to = panel + 64 * vector;
            for_each_block(strip, 16 * vector, [&](const __m512i(&columns)[8]) {
#pragma GCC unroll 8
                for (size_t d = 0; d < 8; ++d, to += kPackedStep) {
                    _mm512_store_si512(to, columns[d]);
                }
            });
        }
    }

    void fill_panel(const Strip &strip, uint8_t *panel) const {
        const __m512i mask = _mm512_set1_epi8(3);
        for (size_t vector = 0; vector < kPanelVectors; ++vector) {
            uint8_t *to = panel + 64 * vector;
            for_each_block(strip, 16 * vector, [&](const __m512i(&columns)[8]) {
#pragma GCC unroll 4
                for (size_t group = 0; group < 4; ++group) {
#pragma GCC unroll 8
                    for (size_t d = 0; d < 8; ++d, to += kPanelStep) {
                        const auto shift = static_cast<unsigned>(6 - 2 * group);
                        _mm512_store_si512(to, _mm512_and_si512(_mm512_srli_epi16(columns[d], shift), mask));
                    }
                }
            });
        }
    }

    // The blocks of 16 rows of a strip, transposed.
    template <class Work> void for_each_block(const Strip &strip, size_t first, Work work) const {
        const uint8_t *rows[16];
        for (size_t i = 0; i < 16; ++i) {
            const size_t at = first + i < strip.rows ? first + i : strip.rows - 1;
            rows[i] = row_bytes(strip.row + at) + strip.start * kBlockBytes;
        }
        for (size_t block = 0; block < strip.blocks; ++block) {
            if (block % 2 == 0) {
                for (size_t i = 0; i < 16; ++i) {
                    const uint8_t *next = rows[i] + block * kBlockBytes + strip.ahead;
                    _mm_prefetch(reinterpret_cast<const char *>(next), _MM_HINT_T0);
                }
            }
            __m512i columns[8];
            transpose(rows, block * kBlockBytes, columns);
            work(columns);
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
