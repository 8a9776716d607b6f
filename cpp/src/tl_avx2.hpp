// What the AVX2 kernels of TL1 and TL2 share. Both formats keep 32 or 64 rows side by side, one index of a
// few weights per nibble, so both get the same two algorithms:
//
// Few activation rows: look-up. The sum a group of two or three weights can contribute is read with vpshufb
// from a table of 16 entries, 32 rows at a time. An entry v (|v| <= 3 * 128) does not fit a byte, so it is
// kept as two signed digits, v = low + 31 * high with |low| <= 15 and |high| <= 12. Digits of 8 groups can be
// added in int8; one unpack and one vpmaddubsw by (1, 31) then give the int16 sum of the whole run.
// Adding digits instead of values halves the shuffles, and a sign is applied to 32 rows at once.
//
// More activation rows: decode and multiply. A stretch of at most 64 column pairs of 32 rows becomes int8
// codes, two columns of a row side by side, and is multiplied by every row of the panel with vpmaddubsw. Its
// unsigned operand is q + 128, so that every int8 is legal: dot = sum code * (q + 128) - 128 * sum code.
//
// Every int16 sum is flushed to int32 before its worst case could wrap; the limits stand next to the loops.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>
#include <new>

#include "product.hpp"

namespace bnb {
namespace tl {

constexpr size_t kLane = 32;      // rows that travel together
constexpr size_t kLutRows = 3;    // up to here the look-up is faster than decoding
constexpr size_t kTileGroup = 4;  // tiles that take turns: tables stay in L1, memory sees several streams
constexpr size_t kPanelRows = 96; // activation rows multiplied per decoded stretch; keeps them in L1
constexpr size_t kTileRows = 6;   // activation rows whose sums stay in registers
constexpr size_t kMaxPairs = 64;  // 64 pairs * 2 * 255 = 32640 fits int16
constexpr short kBase = 31;       // of the digits

// A 64-byte aligned array; `new` may throw std::bad_alloc.
template <class T> class Array {
  public:
    explicit Array(size_t count)
        : bytes_(count * sizeof(T) + 64),
          data_(static_cast<T *>(::operator new(bytes_, std::align_val_t(64)))) {}
    ~Array() { ::operator delete(data_, std::align_val_t(64)); }
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    T *get() const { return data_; }
    size_t bytes() const { return bytes_; }

  private:
    size_t bytes_;
    T *data_;
};

inline __m256i load(const void *p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}
inline void store(void *p, __m256i v) {
    _mm256_storeu_si256(static_cast<__m256i *>(p), v);
}
inline __m256i broadcast16(const void *p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(p)));
}
inline __m256i nibble_low(__m256i bytes) {
    return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}
inline __m256i nibble_high(__m256i bytes) {
    return nibble_low(_mm256_srli_epi16(bytes, 4));
}

// Sums of fixed order: without this the compiler regroups the additions of a loop body and runs out of
// registers.
inline void pin(__m256i &sum) {
    asm("" : "+x"(sum));
}

// Digit sums of 32 rows.
struct Digits {
    __m256i low = _mm256_setzero_si256();
    __m256i high = _mm256_setzero_si256();

    void add(__m256i low_table, __m256i high_table, __m256i index) {
        low = _mm256_add_epi8(low, _mm256_shuffle_epi8(low_table, index));
        high = _mm256_add_epi8(high, _mm256_shuffle_epi8(high_table, index));
        pin(low);
        pin(high);
    }
    // The same with the sign bit of each byte of `sign` (no byte of which may be 0).
    void add_signed(__m256i low_table, __m256i high_table, __m256i index, __m256i sign) {
        low = _mm256_add_epi8(low, _mm256_sign_epi8(_mm256_shuffle_epi8(low_table, index), sign));
        high = _mm256_add_epi8(high, _mm256_sign_epi8(_mm256_shuffle_epi8(high_table, index), sign));
        pin(low);
        pin(high);
    }
};

// int16 sums of 32 rows: bytes 0-7 of each 128-bit lane in `first`, bytes 8-15 in `second`.
struct Sums {
    __m256i first = _mm256_setzero_si256();
    __m256i second = _mm256_setzero_si256();

    void add(const Digits &d) {
        const __m256i weight = _mm256_set1_epi16(kBase * 256 + 1);
        first = _mm256_add_epi16(first, _mm256_maddubs_epi16(weight, _mm256_unpacklo_epi8(d.low, d.high)));
        second = _mm256_add_epi16(second, _mm256_maddubs_epi16(weight, _mm256_unpackhi_epi8(d.low, d.high)));
    }
    // Adds to 32 int32 sums, kept as even and odd words of first, then of second.
    void flush(int32_t *sum) const {
        const __m256i even = _mm256_set1_epi32(1), odd = _mm256_set1_epi32(1 << 16);
        store(sum, _mm256_add_epi32(load(sum), _mm256_madd_epi16(first, even)));
        store(sum + 8, _mm256_add_epi32(load(sum + 8), _mm256_madd_epi16(first, odd)));
        store(sum + 16, _mm256_add_epi32(load(sum + 16), _mm256_madd_epi16(second, even)));
        store(sum + 24, _mm256_add_epi32(load(sum + 24), _mm256_madd_epi16(second, odd)));
    }
};

// 16 values |v| <= 384 as digits: 16 low bytes, then 16 high bytes.
// 1057 / 2^15 is so close to 1 / 31 that high = round(v / 31) for each of them.
inline __m256i split(__m256i v) {
    const __m256i high = _mm256_mulhrs_epi16(v, _mm256_set1_epi16(1057));
    const __m256i low = _mm256_sub_epi16(v, _mm256_mullo_epi16(high, _mm256_set1_epi16(kBase)));
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
}

// q + 128 as unsigned bytes: two neighbours, or one twice, in every word.
inline __m256i broadcast_two(const int8_t *q) {
    int16_t two;
    std::memcpy(&two, q, 2);
    return _mm256_xor_si256(_mm256_set1_epi16(two), _mm256_set1_epi8(-128));
}
inline __m256i broadcast_one(const int8_t *q) {
    return _mm256_xor_si256(_mm256_set1_epi8(*q), _mm256_set1_epi8(-128));
}

// The 16 table entries of a pair: entry i is (i / 3 - 1) * q[0] + (i % 3 - 1) * q[1], 0 from 9 on.
inline __m256i pair_values(const int8_t *q) {
    const __m256i codes = _mm256_setr_epi8(-1, -1, -1, 0, -1, 1, 0, -1, 0, 0, 0, 1, 1, -1, 1, 0, 1, 1, 0, 0,
                                           0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i offset = _mm256_setr_epi16(-256, -128, 0, -128, 0, 128, 0, 128, 256, 0, 0, 0, 0, 0, 0, 0);
    return _mm256_sub_epi16(_mm256_maddubs_epi16(broadcast_two(q), codes), offset);
}

// The codes of pair indices, two columns side by side: 64 bytes of 32 rows.
inline void decode_pair(__m256i index, int8_t *codes) {
    const __m256i first = _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)), index);
    const __m256i second = _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0, 0, 0, 0, 0, 0)), index);
    store(codes, _mm256_unpacklo_epi8(first, second));
    store(codes + 32, _mm256_unpackhi_epi8(first, second));
}

// Column pairs of one activation row as the multiplication wants them: (q0, q1, q0, q1) + 128.
inline void spread_pairs(const int8_t *q, size_t pairs, uint32_t *dst) {
    for (size_t p = 0; p < pairs; p++) {
        const uint32_t two = (uint8_t)q[2 * p] | (uint32_t)(uint8_t)q[2 * p + 1] << 8;
        dst[p] = (two | two << 16) ^ 0x80808080u;
    }
}

// Sums of 32 rows for N activation rows; a chain of structures, because an array of them would live in
// memory.
template <size_t N> struct TileSums {
    Sums own;
    TileSums<N - 1> rest;

    // Adds the share of one column pair. q: this pair of the first activation row.
    void add(__m256i first, __m256i second, const uint32_t *q, size_t stride) {
        const __m256i two = _mm256_set1_epi32((int)*q);
        own.first = _mm256_add_epi16(own.first, _mm256_maddubs_epi16(two, first));
        own.second = _mm256_add_epi16(own.second, _mm256_maddubs_epi16(two, second));
        pin(own.first);
        pin(own.second);
        rest.add(first, second, q + stride, stride);
    }
    void flush(int32_t *sums) const {
        own.flush(sums);
        rest.flush(sums + kLane);
    }
};
template <> struct TileSums<0> {
    void add(__m256i, __m256i, const uint32_t *, size_t) {}
    void flush(int32_t *) const {}
};

// 32 rows of codes times N activation rows; pairs <= kMaxPairs.
template <size_t N> void multiply(const int8_t *codes, size_t pairs, const uint32_t *q, int32_t *sums) {
    TileSums<N> tile;
    for (size_t p = 0; p < pairs; p++)
        tile.add(load(codes + 64 * p), load(codes + 64 * p + 32), q + p, pairs);
    tile.flush(sums);
}

inline void multiply_panel(const int8_t *codes, size_t pairs, const uint32_t *q, size_t n, int32_t *sums) {
    using Multiply = void (*)(const int8_t *, size_t, const uint32_t *, int32_t *);
    static constexpr Multiply kMultiply[kTileRows + 1] = {nullptr,     multiply<1>, multiply<2>, multiply<3>,
                                                          multiply<4>, multiply<5>, multiply<6>};
    for (size_t i = 0; i < n;) {
        const size_t left = n - i; // the last two tiles share evenly
        const size_t step = left <= kTileRows ? left : left < 2 * kTileRows ? (left + 1) / 2 : kTileRows;
        kMultiply[step](codes, pairs, q + i * pairs, sums + i * kLane);
        i += step;
    }
}

// Columns that are decoded and multiplied together.
struct Stretch {
    size_t column, pairs;
};

// Products of one format. Format knows the bytes:
//   rows, cols, tile_rows       the matrix; a tile is tile_rows rows (BM)
//   kOrder[4]                   first row of each 8 sums: first low lane, first high, second low, second high
//   table_bytes(), build(q, tables)
//   blocks(), look_up(tile, block, tables, sums, stride)      adds the block's share to the sums of a tile,
//                                                             32 rows each `stride`
//   parts(block), stretch(block, part), decode(tile, block, part, lane, codes)     32 rows as codes
template <class Format> class TlProduct final : public Product {
  public:
    TlProduct(const Format &format, size_t n_max)
        : format_(format), panel_(n_max < kPanelRows ? n_max : kPanelRows), many_(n_max > kLutRows),
          tables_(kLutRows * format.table_bytes()),
          sums_((panel_ > kTileGroup * kLutRows ? panel_ : kTileGroup * kLutRows) * format.tile_rows),
          codes_(many_ ? 64 * kMaxPairs : 0), pairs_(many_ ? panel_ * (format.cols / 2) : 0),
          code_sums_(many_ ? format.rows : 0) {
        if (!many_)
            return;
        // sum code is the product with a row of ones
        Array<int8_t> ones(format.cols);
        std::memset(ones.get(), 1, format.cols);
        look_up(ones.get(), 1, code_sums_.get());
    }

    void run(const int8_t *q, size_t n, int32_t *out) noexcept override {
        for (size_t i = 0; i < n;) {
            const size_t step = n - i < panel_ ? n - i : panel_;
            if (step <= kLutRows)
                look_up(q + i * format_.cols, step, out + i * format_.rows);
            else
                decode_and_multiply(q + i * format_.cols, step, out + i * format_.rows);
            i += step;
        }
    }

    uint64_t bytes() const noexcept override {
        return tables_.bytes() + sums_.bytes() + codes_.bytes() + pairs_.bytes() + code_sums_.bytes();
    }

  private:
    void look_up(const int8_t *q, size_t n, int32_t *out) noexcept {
        for (size_t i = 0; i < n; i++)
            format_.build(q + i * format_.cols, tables_.get() + i * format_.table_bytes());
        const size_t tiles = format_.rows / format_.tile_rows;
        for (size_t tile = 0; tile < tiles; tile += kTileGroup) {
            const size_t group = tiles - tile < kTileGroup ? tiles - tile : kTileGroup;
            clear_sums(group * n);
            for (size_t block = 0; block < format_.blocks(); block++)
                for (size_t t = 0; t < group; t++)
                    for (size_t i = 0; i < n; i++)
                        format_.look_up(tile + t, block, tables_.get() + i * format_.table_bytes(),
                                        sums_.get() + t * n * format_.tile_rows + i * kLane, n * kLane);
            for (size_t t = 0; t < group; t++)
                write(tile + t, n, sums_.get() + t * n * format_.tile_rows, nullptr, out);
        }
    }

    void decode_and_multiply(const int8_t *q, size_t n, int32_t *out) noexcept {
        for_each_stretch([&](Stretch stretch, size_t, size_t) {
            uint32_t *dst = pairs_.get() + n * (stretch.column / 2);
            for (size_t i = 0; i < n; i++)
                spread_pairs(q + i * format_.cols + stretch.column, stretch.pairs, dst + i * stretch.pairs);
        });
        for (size_t tile = 0; tile < format_.rows / format_.tile_rows; tile++) {
            clear_sums(n);
            for_each_stretch([&](Stretch stretch, size_t block, size_t part) {
                const uint32_t *pairs = pairs_.get() + n * (stretch.column / 2);
                for (size_t lane = 0; lane < format_.tile_rows / kLane; lane++) {
                    format_.decode(tile, block, part, lane, codes_.get());
                    multiply_panel(codes_.get(), stretch.pairs, pairs, n, sums_.get() + lane * n * kLane);
                }
            });
            write(tile, n, sums_.get(), code_sums_.get(), out);
        }
    }

    template <class Visit> void for_each_stretch(Visit visit) const {
        for (size_t block = 0; block < format_.blocks(); block++)
            for (size_t part = 0; part < format_.parts(block); part++)
                visit(format_.stretch(block, part), block, part);
    }

    void clear_sums(size_t tiles) noexcept {
        std::memset(sums_.get(), 0, tiles * format_.tile_rows * sizeof(int32_t));
    }

    // Brings the sums of a tile into row order, less 128 * code_sums if there are any.
    void write(size_t tile, size_t n, const int32_t *sums, const int32_t *code_sums, int32_t *out) noexcept {
        for (size_t i = 0; i < n; i++)
            for (size_t lane = 0; lane < format_.tile_rows / kLane; lane++) {
                const int32_t *sum = sums + (lane * n + i) * kLane;
                const size_t row = tile * format_.tile_rows + lane * kLane;
                for (size_t half = 0; half < 2; half++) {
                    const __m256i even = load(sum + 16 * half), odd = load(sum + 16 * half + 8);
                    const __m256i a = _mm256_unpacklo_epi32(even, odd), b = _mm256_unpackhi_epi32(even, odd);
                    const __m256i eight[2] = {_mm256_permute2x128_si256(a, b, 0x20),
                                              _mm256_permute2x128_si256(a, b, 0x31)};
                    for (size_t e = 0; e < 2; e++) {
                        const size_t at = row + Format::kOrder[2 * half + e];
                        __m256i v = eight[e];
                        if (code_sums)
                            v = _mm256_sub_epi32(v, _mm256_slli_epi32(load(code_sums + at), 7));
                        store(out + i * format_.rows + at, v);
                    }
                }
            }
    }

    Format format_;
    size_t panel_; // activation rows per pass
    bool many_;    // decoding is possible
    Array<uint8_t> tables_;
    Array<int32_t> sums_;      // [tile][tile_rows / 32][n][32]
    Array<int8_t> codes_;      // one decoded stretch of 32 rows
    Array<uint32_t> pairs_;    // [stretch][panel][pairs]
    Array<int32_t> code_sums_; // [rows]
};

// Whether every nibble is at most `limit`.
inline bool nibbles_within(const uint8_t *bytes, size_t n, uint8_t limit) {
    uint8_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (uint8_t)((bytes[i] & 15) > limit) | (uint8_t)((bytes[i] >> 4) > limit);
    return bad == 0;
}

} // namespace tl
} // namespace bnb

#endif
