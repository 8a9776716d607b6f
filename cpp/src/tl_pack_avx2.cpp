// Codes of one tile to and from TL1 and TL2 bytes, in AVX2. docs/FORMATS.md 5 (TL2) and 6 (TL1).
//
// Both orders put bytes of neighbouring rows side by side. So 32 rows travel together, rows 0-15 in the lower
// and 16-31 in the upper half of a register, and a "column" is 32 bytes, one per row:
//
//     packing    16 or 12 codes of a row become four bytes; a transposition makes four columns of 32 rows
//     unpacking  nibbles of a column are looked up, one register per code; transposed back to 16 codes of a
//     row
//
// Free of the standard library; compiled with -mavx2 -mfma.

#include <immintrin.h>

#include "kernels.hpp"
#include "layout.hpp"

namespace bnb {
namespace {

constexpr size_t kRows = 32; // of one pass, and bytes of a column

inline __m256i load(const void *p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}
inline void store(void *p, __m256i v) {
    _mm256_storeu_si256(static_cast<__m256i *>(p), v);
}
inline __m256i load_halves(const void *low, const void *high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(low))),
                                   _mm_loadu_si128(static_cast<const __m128i *>(high)), 1);
}
inline void store_halves(void *low, void *high, __m256i v) {
    _mm_storeu_si128(static_cast<__m128i *>(low), _mm256_castsi256_si128(v));
    _mm_storeu_si128(static_cast<__m128i *>(high), _mm256_extracti128_si256(v, 1));
}
inline __m256i twice(__m128i v) {
    return _mm256_broadcastsi128_si256(v);
}

struct Four {
    __m256i v[4];
};

// In each half: dword j of v[i] becomes dword i of v[j].
inline Four transpose(const Four &f) {
    const __m256i a = _mm256_unpacklo_epi32(f.v[0], f.v[1]), b = _mm256_unpackhi_epi32(f.v[0], f.v[1]);
    const __m256i c = _mm256_unpacklo_epi32(f.v[2], f.v[3]), d = _mm256_unpackhi_epi32(f.v[2], f.v[3]);
    return {{_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, d),
             _mm256_unpackhi_epi64(b, d)}};
}

// Rows in order <-> the order of TL2: 0-7, 16-23, 8-15, 24-31.
inline __m256i tl2_order(__m256i rows) {
    return _mm256_permute4x64_epi64(rows, 0xd8);
}

// Codes of a tile, `cols` to a row.
template <class Code> struct Codes {
    Code *at;
    size_t cols;

    Code *row(size_t r) const { return at + r * cols; }
};

// Four columns from reduce(r), which makes four bytes each of rows r..r+3 (lower half) and 16 further
// (upper).
template <class Reduce> inline Four gather_columns(Reduce reduce) {
    const __m256i by_byte = twice(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    Four rows;
    for (size_t i = 0; i < 4; ++i) {
        rows.v[i] = _mm256_shuffle_epi8(reduce(4 * i), by_byte);
    }
    return transpose(rows);
}

// Pair indices of 16 columns, two to a byte.
inline Four quads_of(Codes<const int8_t> codes) {
    const __m256i three_one = _mm256_set1_epi16(0x0103), sixteen_one = _mm256_set1_epi16(0x0110);
    const __m256i four = _mm256_set1_epi8(4);
    const auto pairs = [&](size_t r) {
        return _mm256_maddubs_epi16(three_one, load_halves(codes.row(r), codes.row(16 + r)));
    };
    return gather_columns([&](size_t r) {
        const __m256i a = _mm256_add_epi8(_mm256_packs_epi16(pairs(r), pairs(r + 1)), four);
        const __m256i b = _mm256_add_epi8(_mm256_packs_epi16(pairs(r + 2), pairs(r + 3)), four);
        return _mm256_packus_epi16(_mm256_maddubs_epi16(a, sixteen_one),
                                   _mm256_maddubs_epi16(b, sixteen_one));
    });
}

// Values -13..13 of the four triples in 12 columns.
inline Four triples_of(Codes<const int8_t> codes) {
    const __m256i spread = twice(_mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
    const __m256i weights = _mm256_set1_epi32(0x00010309), ones = _mm256_set1_epi16(1);
    const auto values = [&](size_t r) {
        const __m256i w = _mm256_shuffle_epi8(load_halves(codes.row(r), codes.row(16 + r)), spread);
        return _mm256_madd_epi16(_mm256_maddubs_epi16(weights, w), ones);
    };
    return gather_columns([&](size_t r) {
        return _mm256_packs_epi16(_mm256_packs_epi32(values(r), values(r + 1)),
                                  _mm256_packs_epi32(values(r + 2), values(r + 3)));
    });
}

// The bit of triple t = 0..3 within a byte of signs: odd bits for rows 0-15, even ones for rows 16-31.
inline __m256i sign_bit(int t) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_set1_epi8(static_cast<char>(128 >> (2 * t)))),
                                   _mm_set1_epi8(static_cast<char>(64 >> (2 * t))), 1);
}

// The sign bytes of four triples: byte i belongs to rows i and 16 + i.
inline __m128i sign_bytes(const Four &triples) {
    __m256i all = _mm256_setzero_si256();
    for (int t = 0; t < 4; ++t) {
        const __m256i negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), triples.v[t]);
        all = _mm256_or_si256(all, _mm256_and_si256(negative, sign_bit(t)));
    }
    return _mm_or_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

// |first| << 4 | |second|
inline __m256i magnitudes_of(__m256i first, __m256i second) {
    return _mm256_or_si256(_mm256_slli_epi16(_mm256_abs_epi8(first), 4), _mm256_abs_epi8(second));
}

// Four columns of codes -> a dword per row: rows 0-3, 4-7, 8-11, 12-15, and 16 further in the upper half.
inline Four zip(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i low0 = _mm256_unpacklo_epi8(a, b), low1 = _mm256_unpacklo_epi8(c, d);
    const __m256i high0 = _mm256_unpackhi_epi8(a, b), high1 = _mm256_unpackhi_epi8(c, d);
    return {{_mm256_unpacklo_epi16(low0, low1), _mm256_unpackhi_epi16(low0, low1),
             _mm256_unpacklo_epi16(high0, high1), _mm256_unpackhi_epi16(high0, high1)}};
}

// The first `count` dwords of every row to its codes; nothing behind them is written.
inline void scatter_rows(const Four (&dwords)[4], size_t count, Codes<int8_t> codes) {
    const __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32(static_cast<int>(count)), _mm_setr_epi32(0, 1, 2, 3));
    for (size_t i = 0; i < 4; ++i) {
        const Four rows = transpose({{dwords[0].v[i], dwords[1].v[i], dwords[2].v[i], dwords[3].v[i]}});
        for (size_t j = 0; j < 4; ++j) {
            int8_t *low = codes.row(4 * i + j), *high = codes.row(16 + 4 * i + j);
            if (count == 4) {
                store_halves(low, high, rows.v[j]);
            } else {
                _mm_maskstore_epi32(reinterpret_cast<int *>(low), mask, _mm256_castsi256_si128(rows.v[j]));
                _mm_maskstore_epi32(reinterpret_cast<int *>(high), mask,
                                    _mm256_extracti128_si256(rows.v[j], 1));
            }
        }
    }
}

inline __m256i nibble(__m256i bytes, int shift) {
    return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), _mm256_set1_epi8(15));
}

// Unpacks columns and remembers whether a code was one that no packer produces.
struct Unpacker {
    __m256i unused = _mm256_setzero_si256();

    // Up to four columns of pair indices.
    void quads(const Four &columns, size_t count, Codes<int8_t> codes) {
        const __m256i w0 = twice(_mm_setr_epi8(-1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0));
        const __m256i w1 = twice(_mm_setr_epi8(-1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0, 0, 0, 0, 0, 0));
        Four dwords[4];
        for (size_t i = 0; i < 4; ++i) {
            const __m256i first = looked_up(columns.v[i], 4, 8), second = looked_up(columns.v[i], 0, 8);
            dwords[i] = zip(_mm256_shuffle_epi8(w0, first), _mm256_shuffle_epi8(w1, first),
                            _mm256_shuffle_epi8(w0, second), _mm256_shuffle_epi8(w1, second));
        }
        scatter_rows(dwords, count, codes);
    }

    // Four triples: two columns of magnitudes, and for each row the byte that holds its signs.
    void triples(__m256i first, __m256i second, __m256i signs, Codes<int8_t> codes) {
        const __m256i digits[3] = {
            twice(_mm_setr_epi8(0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)),
            twice(_mm_setr_epi8(0, 0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0)),
            twice(_mm_setr_epi8(0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0)),
        };
        __m256i column[12];
        for (int t = 0; t < 4; ++t) {
            const __m256i magnitude = looked_up(t < 2 ? first : second, t % 2 == 0 ? 4 : 0, 13);
            // -1 where the bit is set, else +1
            const __m256i bit = sign_bit(t);
            const __m256i sign =
                _mm256_or_si256(_mm256_cmpeq_epi8(_mm256_and_si256(signs, bit), bit), _mm256_set1_epi8(1));
            for (int digit = 0; digit < 3; ++digit) {
                column[3 * t + digit] = _mm256_sign_epi8(_mm256_shuffle_epi8(digits[digit], magnitude), sign);
            }
        }
        const __m256i *c = column;
        const Four dwords[4] = {
            zip(c[0], c[1], c[2], c[3]), zip(c[4], c[5], c[6], c[7]), zip(c[8], c[9], c[10], c[11]), {}};
        scatter_rows(dwords, 3, codes);
    }

    bool valid() const { return _mm256_testz_si256(unused, unused) != 0; }

  private:
    __m256i looked_up(__m256i bytes, int shift, char largest) {
        const __m256i index = nibble(bytes, shift);
        unused = _mm256_or_si256(unused, _mm256_cmpgt_epi8(index, _mm256_set1_epi8(largest)));
        return index;
    }
};

// Where the 16 rows of group 0, 1, ... of quad `quad` of a k-block stand, in bytes from the tile's first.
// TL1.
struct Tl1Cell {
    Tl1Cell(const bnb_layout &layout, size_t block, size_t row)
        : log_in_step(layout.by / 8), group(row % (256 / layout.by) / 16) {
        const size_t row_block = 256 / layout.by;
        first = (block * layout.bm + row / row_block * row_block) * (layout.bk / 4);
    }
    // Rows 0-15 of the pass, or 16-31.
    size_t at(size_t quad, size_t half) const {
        const size_t within = quad & ((size_t{1} << log_in_step) - 1);
        return first + (quad >> log_in_step) * 64 + (((group + half) << log_in_step) + within) * 16;
    }

    size_t log_in_step; // of the quads of a step of BY columns: BY is 4 or 8; a step is 64 bytes
    size_t group;
    size_t first;
};

void pack_tl1(const bnb_layout &layout, const int8_t *codes, uint8_t *bytes) {
    for (size_t row = 0; row < layout.bm; row += kRows) {
        for (size_t block = 0; block < layout.cols / layout.bk; ++block) {
            const Tl1Cell cell(layout, block, row);
            for (size_t k = 0; k < layout.bk; k += 16) {
                const Four columns =
                    quads_of({codes + row * layout.cols + block * layout.bk + k, layout.cols});
                for (size_t i = 0; i < 4 && k + 4 * i < layout.bk; ++i) {
                    store_halves(bytes + cell.at(k / 4 + i, 0), bytes + cell.at(k / 4 + i, 1), columns.v[i]);
                }
            }
        }
    }
}

bool unpack_tl1(const bnb_layout &layout, const uint8_t *bytes, int8_t *codes) {
    Unpacker unpacker;
    for (size_t row = 0; row < layout.bm; row += kRows) {
        for (size_t block = 0; block < layout.cols / layout.bk; ++block) {
            const Tl1Cell cell(layout, block, row);
            for (size_t k = 0; k < layout.bk; k += 16) {
                const size_t count = layout.bk - k < 16 ? (layout.bk - k) / 4 : 4;
                Four columns = {};
                for (size_t i = 0; i < count; ++i) {
                    columns.v[i] = load_halves(bytes + cell.at(k / 4 + i, 0), bytes + cell.at(k / 4 + i, 1));
                }
                unpacker.quads(columns, count,
                               {codes + row * layout.cols + block * layout.bk + k, layout.cols});
            }
        }
    }
    return unpacker.valid();
}

// The sections of one tile of TL2.
template <class Byte> struct Sections {
    Sections(const bnb_layout &layout, size_t three_cols, size_t tile, Byte *tensor) {
        const size_t all = three_cols * layout.rows, mine = three_cols * layout.bm;
        magnitudes = tensor + tile * (mine / 6);
        signs = tensor + all / 6 + tile * (mine / 24);
        pairs = tensor + all / 6 + all / 24 + tile * ((layout.cols - three_cols) * layout.bm / 4);
    }

    Byte *magnitudes;
    Byte *signs;
    Byte *pairs;
};

// Units of 24 columns in front of the one at column k of row block `row`: whole k-blocks, row blocks, units.
inline size_t triple_unit(const bnb_layout &layout, size_t k, size_t row) {
    const size_t cell = k / layout.bk * (layout.bm / kRows) + row / kRows;
    return cell * (layout.bk / 24) + k % layout.bk / 24;
}

// Bytes in front of the quad at column k of the pairs: blocks of 32 columns are 8 quads.
inline size_t pair_column(const bnb_layout &layout, size_t k, size_t row) {
    return ((k / 32 * (layout.bm / kRows) + row / kRows) * 8 + k % 32 / 4) * kRows;
}

// 24 columns are 4 columns of magnitudes and 16 words of signs; 16 columns of pairs are 4 columns.
void pack_tl2(const bnb_layout &layout, size_t three_cols, const int8_t *codes, const Sections<uint8_t> &to) {
    for (size_t row = 0; row < layout.bm; row += kRows) {
        const int8_t *band = codes + row * layout.cols;
        for (size_t k = 0; k < three_cols; k += 24) {
            const size_t unit = triple_unit(layout, k, row);
            const Four a = triples_of({band + k, layout.cols}), b = triples_of({band + k + 12, layout.cols});
            uint8_t *magnitudes = to.magnitudes + unit * 4 * kRows;
            store(magnitudes, tl2_order(magnitudes_of(a.v[0], a.v[1])));
            store(magnitudes + kRows, tl2_order(magnitudes_of(a.v[2], a.v[3])));
            store(magnitudes + 2 * kRows, tl2_order(magnitudes_of(b.v[0], b.v[1])));
            store(magnitudes + 3 * kRows, tl2_order(magnitudes_of(b.v[2], b.v[3])));
            const __m128i upper = sign_bytes(a), lower = sign_bytes(b);
            uint8_t *signs = to.signs + unit * kRows;
            store_halves(signs, signs + 16,
                         _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(lower, upper)),
                                                 _mm_unpackhi_epi8(lower, upper), 1));
        }
        for (size_t k = three_cols; k < layout.cols; k += 16) {
            const Four columns = quads_of({band + k, layout.cols});
            uint8_t *pairs = to.pairs + pair_column(layout, k - three_cols, row);
            for (size_t i = 0; i < 4; ++i) {
                store(pairs + i * kRows, tl2_order(columns.v[i]));
            }
        }
    }
}

bool unpack_tl2(const bnb_layout &layout, size_t three_cols, const Sections<const uint8_t> &from,
                int8_t *codes) {
    // Even bytes of the words are the lower halves, odd ones the upper.
    const __m256i by_half = twice(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    Unpacker unpacker;
    for (size_t row = 0; row < layout.bm; row += kRows) {
        int8_t *band = codes + row * layout.cols;
        for (size_t k = 0; k < three_cols; k += 24) {
            const size_t unit = triple_unit(layout, k, row);
            const uint8_t *magnitudes = from.magnitudes + unit * 4 * kRows;
            const __m256i words = _mm256_shuffle_epi8(load(from.signs + unit * kRows), by_half);
            const __m256i upper = _mm256_permute4x64_epi64(words, 0xdd);
            const __m256i lower = _mm256_permute4x64_epi64(words, 0x88);
            unpacker.triples(tl2_order(load(magnitudes)), tl2_order(load(magnitudes + kRows)), upper,
                             {band + k, layout.cols});
            unpacker.triples(tl2_order(load(magnitudes + 2 * kRows)), tl2_order(load(magnitudes + 3 * kRows)),
                             lower, {band + k + 12, layout.cols});
        }
        for (size_t k = three_cols; k < layout.cols; k += 16) {
            const uint8_t *pairs = from.pairs + pair_column(layout, k - three_cols, row);
            Four columns;
            for (size_t i = 0; i < 4; ++i) {
                columns.v[i] = tl2_order(load(pairs + i * kRows));
            }
            unpacker.quads(columns, 4, {band + k, layout.cols});
        }
    }
    return unpacker.valid();
}

} // namespace

void pack_tl_tile_avx2(const bnb_layout &layout, const Sizes &sizes, size_t tile, const int8_t *codes,
                       uint8_t *bytes) {
    if (layout.format == BNB_FORMAT_TL1) {
        pack_tl1(layout, codes, bytes + tile * (layout.bm * layout.cols / 4));
    } else {
        pack_tl2(layout, sizes.three_cols, codes, {layout, sizes.three_cols, tile, bytes});
    }
}

bool unpack_tl_tile_avx2(const bnb_layout &layout, const Sizes &sizes, size_t tile, const uint8_t *bytes,
                         int8_t *codes) {
    if (layout.format == BNB_FORMAT_TL1) {
        return unpack_tl1(layout, bytes + tile * (layout.bm * layout.cols / 4), codes);
    }
    return unpack_tl2(layout, sizes.three_cols, {layout, sizes.three_cols, tile, bytes}, codes);
}

} // namespace bnb
