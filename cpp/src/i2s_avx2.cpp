// I2_S products in AVX2: exact int32, read in place.
//
// vpmaddubsw multiplies unsigned by signed bytes, so the codes are used as they stand, u = code + 1 in 0, 1,
// 2, and the sum of the activations is taken off at the end: sum (u - 1) q = sum u q - sum q.
//
// One activation row (decode) is bound by reading the weights once:
//   for four rows a quarter of the matrix apart, so that four streams of memory run at once,
//       for every block of 32 bytes: b = block, t = b >> 4;
//           units += maddubs(b & 03, q3) + maddubs(t & 03, q1)
//           fours += maddubs(b & 0c, q2) + maddubs(t & 0c, q0)      (four times too large)
//           every 8 blocks: dot += widen(units + fours / 4)
// One shift per 32 bytes instead of three. `fours` is a sum of multiples of 4, so the shift loses nothing.
// Bounds for any int8, -128 included: a lane of `fours` takes two products of at most 4 * 2 * 128 * 2 = 2048
// per block, -32768 after 8 blocks, which int16 just holds (and +32512 on the other side).
//
// More rows (prefill) are bound by arithmetic. Eight activation rows at a time and strips of at most 2048
// columns: the strip of the eight is copied to a panel, 32 columns of each in turn, that stays in the L1
// cache while every weight row passes; a vector of codes, once unpacked, meets all eight. A strip is at most
// 64 products of at most 2 * 128 * 2 = 512 per lane: -32768 again. Panels of 4 and 2 rows and the decode loop
// take what is left over.
//
// Compiled with -mavx2 -mfma and free of the standard library, see quantize_avx2.cpp.

#include <immintrin.h>

#include "product.hpp"

namespace bnb {
namespace {

constexpr size_t kBlock = 128;
constexpr size_t kBlockBytes = 32;
constexpr size_t kWidenBlocks = 8;  // decode: blocks between widenings
constexpr size_t kStripBlocks = 16; // prefill: blocks of a strip
constexpr size_t kPrefetch = 1536;  // bytes ahead in each stream
constexpr size_t kGroupBytes = 32;  // one vector of codes

inline __m256i load(const void *p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}

// sum += value in 16-bit lanes, in the register where `sum` is. Left to itself, gcc 12 rotates accumulators
// through moves and spills some of them.
inline void add16(__m256i &sum, __m256i value) {
    asm("vpaddw %1, %0, %0" : "+x"(sum) : "x"(value));
}

// Forgets what was loaded through a pointer, so that a multiplication takes its operand from the L1 cache
// again instead of occupying a register that an accumulator needs.
inline void reload(const int8_t *&pointer) {
    asm("" : "+r"(pointer));
}

inline __m256i widen(__m256i sums16) {
    return _mm256_madd_epi16(sums16, _mm256_set1_epi16(1));
}

inline int32_t sum_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

// cols is a multiple of 128. Sums are taken modulo 2^32; the final dot is what must fit.
int32_t sum_codes(const int8_t *q, size_t cols) {
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i sum = _mm256_setzero_si256();
    for (size_t k = 0; k < cols; k += kGroupBytes) {
        sum = _mm256_add_epi32(sum, widen(_mm256_maddubs_epi16(ones, load(q + k))));
    }
    return sum_lanes(sum);
}

inline int32_t subtract(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}

inline int32_t add(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

// dots[i] = sum over k of u * q for kRows weight rows.
template <int kRows>
inline void dot_rows(const uint8_t *const (&rows)[kRows], size_t blocks, const int8_t *q,
                     int32_t (&dots)[kRows]) {
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0c);
    __m256i total[kRows];
    for (int i = 0; i < kRows; ++i) {
        total[i] = _mm256_setzero_si256();
    }
    for (size_t start = 0; start < blocks; start += kWidenBlocks) {
        const size_t end = start + kWidenBlocks < blocks ? start + kWidenBlocks : blocks;
        __m256i units[kRows], fours[kRows];
        for (int i = 0; i < kRows; ++i) {
            units[i] = fours[i] = _mm256_setzero_si256();
        }
        for (size_t block = start; block < end; ++block) {
            const int8_t *activations = q + block * kBlock;
            for (int i = 0; i < kRows; ++i) {
                const uint8_t *bytes = rows[i] + block * kBlockBytes;
                _mm_prefetch(reinterpret_cast<const char *>(bytes + kPrefetch), _MM_HINT_T0);
                const __m256i b = load(bytes), t = _mm256_srli_epi16(b, 4);
                reload(activations);
                add16(units[i], _mm256_maddubs_epi16(_mm256_and_si256(b, low), load(activations + 96)));
                add16(units[i], _mm256_maddubs_epi16(_mm256_and_si256(t, low), load(activations + 32)));
                add16(fours[i], _mm256_maddubs_epi16(_mm256_and_si256(b, high), load(activations + 64)));
                add16(fours[i], _mm256_maddubs_epi16(_mm256_and_si256(t, high), load(activations)));
            }
        }
        for (int i = 0; i < kRows; ++i) {
            const __m256i sums = _mm256_add_epi16(units[i], _mm256_srai_epi16(fours[i], 2));
            total[i] = _mm256_add_epi32(total[i], widen(sums));
        }
    }
    for (int i = 0; i < kRows; ++i) {
        dots[i] = sum_lanes(total[i]);
    }
}

// A strip of kColumns activation rows, `stride` apart -> for each 32 columns the vectors of all rows in turn.
template <int kColumns> void fill_panel(const int8_t *q, size_t stride, size_t length, int8_t *panel) {
    for (size_t k = 0; k < length; k += kGroupBytes) {
        for (int c = 0; c < kColumns; ++c, panel += kGroupBytes) {
            _mm256_store_si256(reinterpret_cast<__m256i *>(panel),
                               load(q + static_cast<size_t>(c) * stride + k));
        }
    }
}

// dots[c] = one strip of a weight row times each row of the panel, u form. Fetches the bytes `ahead` into the
// cache.
template <int kColumns>
inline void strip_dots(const uint8_t *bytes, size_t blocks, size_t ahead, const int8_t *panel,
                       int32_t (&dots)[kColumns]) {
    const __m256i mask = _mm256_set1_epi8(3);
    __m256i acc[kColumns];
    for (int c = 0; c < kColumns; ++c) {
        acc[c] = _mm256_setzero_si256();
    }
    for (const uint8_t *end = bytes + blocks * kBlockBytes; bytes != end; bytes += kBlockBytes) {
        _mm_prefetch(reinterpret_cast<const char *>(bytes + ahead), _MM_HINT_T0);
        const __m256i b = load(bytes);
#pragma GCC unroll 4
        for (int group = 0; group < 4; ++group) {
            const __m256i u = _mm256_and_si256(_mm256_srli_epi16(b, 6 - 2 * group), mask);
            for (int c = 0; c < kColumns; ++c, panel += kGroupBytes) {
                add16(acc[c], _mm256_maddubs_epi16(u, load(panel)));
            }
        }
    }
    if constexpr (kColumns == 8) {
        const __m256i ab = _mm256_hadd_epi32(widen(acc[0]), widen(acc[1]));
        const __m256i cd = _mm256_hadd_epi32(widen(acc[2]), widen(acc[3]));
        const __m256i ef = _mm256_hadd_epi32(widen(acc[4]), widen(acc[5]));
        const __m256i gh = _mm256_hadd_epi32(widen(acc[6]), widen(acc[7]));
        const __m256i low = _mm256_hadd_epi32(ab, cd), high = _mm256_hadd_epi32(ef, gh);
        const __m256i sums = _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                                              _mm256_permute2x128_si256(low, high, 0x31));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(dots), sums);
    } else if constexpr (kColumns == 4) {
        const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(widen(acc[0]), widen(acc[1])),
                                               _mm256_hadd_epi32(widen(acc[2]), widen(acc[3])));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(dots),
                         _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
    } else {
        for (int c = 0; c < kColumns; ++c) {
            dots[c] = sum_lanes(widen(acc[c]));
        }
    }
}

class I2sAvx2 final : public Product {
  public:
    explicit I2sAvx2(const bnb_weights &weights)
        : bytes_(weights.bytes), rows_(weights.layout.rows), cols_(weights.layout.cols) {}

    size_t row_step(size_t) const noexcept override { return 4; }
    void reserve(size_t) override {}
    uint64_t bytes() const noexcept override { return 0; }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t) noexcept override {
        size_t done = 0;
        for (; done + 8 <= n; done += 8) {
            panel_products<8>(q + done * cols_, out + done * rows_, first, last);
        }
        if (done + 4 <= n) {
            panel_products<4>(q + done * cols_, out + done * rows_, first, last);
            done += 4;
        }
        if (done + 2 <= n) {
            panel_products<2>(q + done * cols_, out + done * rows_, first, last);
            done += 2;
        }
        if (done < n) {
            row_products(q + done * cols_, out + done * rows_, first, last);
        }
    }

  private:
    const uint8_t *row_bytes(size_t row) const { return bytes_ + row * (cols_ / 4); }

    // One activation row.
    void row_products(const int8_t *q, int32_t *out, size_t first, size_t last) const {
        const int32_t sum = sum_codes(q, cols_);
        const size_t blocks = cols_ / kBlock, quarter = (last - first) / 4;
        for (size_t row = first; row < first + quarter; ++row) {
            const uint8_t *const rows[4] = {row_bytes(row), row_bytes(row + quarter),
                                            row_bytes(row + 2 * quarter), row_bytes(row + 3 * quarter)};
            int32_t dots[4];
            dot_rows(rows, blocks, q, dots);
            for (size_t i = 0; i < 4; ++i) {
                out[row + i * quarter] = subtract(dots[i], sum);
            }
        }
        for (size_t row = first + 4 * quarter; row < last; ++row) {
            const uint8_t *const rows[1] = {row_bytes(row)};
            int32_t dots[1];
            dot_rows(rows, blocks, q, dots);
            out[row] = subtract(dots[0], sum);
        }
    }

    // kColumns activation rows.
    template <int kColumns>
    void panel_products(const int8_t *q, int32_t *out, size_t first, size_t last) const {
        alignas(32) int8_t panel[kColumns * kStripBlocks * kBlock];
        int32_t before[kColumns]; // what the products start from: minus the sum of the codes
        for (int c = 0; c < kColumns; ++c) {
            before[c] = subtract(0, sum_codes(q + static_cast<size_t>(c) * cols_, cols_));
        }
        const size_t blocks = cols_ / kBlock;
        for (size_t start = 0; start < blocks; start += kStripBlocks) {
            const size_t strip = blocks - start < kStripBlocks ? blocks - start : kStripBlocks;
            // What comes next is the same strip of later rows.
            const size_t ahead = (kPrefetch / (strip * kBlockBytes) + 1) * (cols_ / 4);
            fill_panel<kColumns>(q + start * kBlock, cols_, strip * kBlock, panel);
            for (size_t row = first; row < last; ++row) {
                int32_t dots[kColumns];
                strip_dots<kColumns>(row_bytes(row) + start * kBlockBytes, strip, ahead, panel, dots);
                for (int c = 0; c < kColumns; ++c) {
                    int32_t *to = out + static_cast<size_t>(c) * rows_ + row;
                    *to = add(start == 0 ? before[c] : *to, dots[c]);
                }
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

bnb_status make_i2s_avx2(const bnb_weights &weights, size_t, Product **product) {
    if (!valid(weights.bytes, weights.layout.rows * weights.layout.cols / 4)) {
        return BNB_INVALID_DATA;
    }
    *product = new I2sAvx2(weights);
    return BNB_OK;
}

} // namespace bnb
