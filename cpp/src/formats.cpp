// Where each ternary weight stands in the packed bytes. docs/FORMATS.md 2 (I2_S), 5 (TL2) and 6 (TL1).
//
// A tile (BM rows) of the two tiled formats is walked by one loop nest each, in the order of its bytes. The
// nest knows positions only, bytes and rows counted from the first of the tile; packing and unpacking hand it
// what to do at each of them, so that the two cannot disagree on the order.

#include "layout.hpp"

#include <cstring>

namespace bnb {
namespace {

// Rows of a 32-row block in the order TL2 emits them: 0-7, 16-23, 8-15, 24-31.
size_t tl2_row(size_t position) {
    constexpr size_t kStart[4] = {0, 16, 8, 24};
    return kStart[position / 8] + position % 8;
}

// Calls nibble(byte, shift, row, column) for every weight pair of TL1: the pair (column, column + 1) of `row`
// stands in bits shift..shift+3 of `byte`. Stops when it answers false.
template <class Nibble> bool walk_tl1(const bnb_layout &layout, Nibble nibble) {
    const size_t bm = layout.bm, bk = layout.bk, by = layout.by, row_block = 256 / by;
    size_t byte = 0;
    for (size_t block = 0; block < layout.cols; block += bk) {
        for (size_t rows = 0; rows < bm; rows += row_block) {
            for (size_t inner = block; inner < block + bk; inner += by) {
                for (size_t group = rows; group < rows + row_block; group += 16) {
                    for (size_t quad = inner; quad < inner + by; quad += 4) {
                        for (size_t row = group; row < group + 16; ++row, ++byte) {
                            if (!nibble(byte, 4, row, quad) || !nibble(byte, 0, row, quad + 2)) {
                                return false;
                            }
                        }
                    }
                }
            }
        }
    }
    return true;
}

// The nibbles of one section of TL2 (the triples' magnitudes, or the pairs): blocks of `block` columns in
// groups of `width` weights, two groups to a byte. Calls nibble(byte, shift, row, first column of the group).
template <class Nibble>
bool walk_tl2(const bnb_layout &layout, size_t from, size_t to, size_t block, size_t width, Nibble nibble) {
    size_t byte = 0;
    for (size_t start = from; start < to; start += block) {
        for (size_t rows = 0; rows < layout.bm; rows += 32) {
            for (size_t column = start; column < start + block; column += 2 * width) {
                for (size_t position = 0; position < 32; ++position, ++byte) {
                    const size_t row = rows + tl2_row(position);
                    if (!nibble(byte, 4, row, column) || !nibble(byte, 0, row, column + width)) {
                        return false;
                    }
                }
            }
        }
    }
    return true;
}

// The signs of the triples: little-endian 16-bit words, 8 groups of 3 columns for rows i and 16 + i each.
// Calls sign(byte, bit, row, first column of the group).
template <class Sign> void walk_tl2_signs(const bnb_layout &layout, size_t three_cols, Sign sign) {
    size_t byte = 0;
    for (size_t start = 0; start < three_cols; start += layout.bk) {
        for (size_t rows = 0; rows < layout.bm; rows += 32) {
            for (size_t column = start; column < start + layout.bk; column += 24) {
                for (size_t word = 0; word < 16; ++word, byte += 2) {
                    for (size_t group = 0; group < 8; ++group) {
                        const size_t upper = 15 - 2 * group, lower = upper - 1;
                        sign(byte + upper / 8, upper % 8, rows + word, column + 3 * group);
                        sign(byte + lower / 8, lower % 8, rows + 16 + word, column + 3 * group);
                    }
                }
            }
        }
    }
}

uint8_t pair_index(const int8_t *codes) {
    return static_cast<uint8_t>(3 * codes[0] + codes[1] + 4);
}

bool set_pair(unsigned index, int8_t *codes) {
    if (index > 8) {
        return false;
    }
    codes[0] = static_cast<int8_t>(index / 3) - 1;
    codes[1] = static_cast<int8_t>(index % 3) - 1;
    return true;
}

int triple_value(const int8_t *codes) {
    return 9 * codes[0] + 3 * codes[1] + codes[2];
}

// The balanced ternary digits of a magnitude 0..13.
bool set_triple(unsigned magnitude, int8_t *codes) {
    if (magnitude > 13) {
        return false;
    }
    int rest = static_cast<int>(magnitude);
    for (int digit = 2; digit >= 0; --digit) {
        const int code = (rest + 1) % 3 - 1;
        codes[digit] = static_cast<int8_t>(code);
        rest = (rest - code) / 3;
    }
    return true;
}

void pack_tl1(const bnb_layout &layout, size_t tile, const int8_t *codes, uint8_t *dst) {
    const size_t tile_bytes = layout.bm * layout.cols / 4;
    dst += tile * tile_bytes;
    std::memset(dst, 0, tile_bytes);
    walk_tl1(layout, [&](size_t byte, unsigned shift, size_t row, size_t column) {
        dst[byte] |= static_cast<uint8_t>(pair_index(codes + row * layout.cols + column) << shift);
        return true;
    });
}

bool unpack_tl1(const bnb_layout &layout, size_t tile, const uint8_t *bytes, int8_t *codes) {
    bytes += tile * (layout.bm * layout.cols / 4);
    return walk_tl1(layout, [&](size_t byte, unsigned shift, size_t row, size_t column) {
        return set_pair(bytes[byte] >> shift & 15u, codes + row * layout.cols + column);
    });
}

// The three sections of one tile of TL2, and their lengths.
struct Tl2Tile {
    Tl2Tile(const bnb_layout &layout, size_t three_cols, size_t tile)
        : n_magnitudes(three_cols * layout.bm / 6), n_signs(three_cols * layout.bm / 24),
          n_pairs((layout.cols - three_cols) * layout.bm / 4), magnitudes(tile * n_magnitudes),
          signs(three_cols * layout.rows / 6 + tile * n_signs),
          pairs(three_cols * layout.rows / 6 + three_cols * layout.rows / 24 + tile * n_pairs) {}

    size_t n_magnitudes, n_signs, n_pairs;
    size_t magnitudes, signs, pairs; // offsets in the tensor
};

void pack_tl2(const bnb_layout &layout, size_t three_cols, size_t tile, const int8_t *codes, uint8_t *dst) {
    const Tl2Tile at(layout, three_cols, tile);
    uint8_t *magnitudes = dst + at.magnitudes, *signs = dst + at.signs, *pairs = dst + at.pairs;
    std::memset(magnitudes, 0, at.n_magnitudes);
    std::memset(signs, 0, at.n_signs);
    std::memset(pairs, 0, at.n_pairs);
    walk_tl2(layout, 0, three_cols, layout.bk, 3,
             [&](size_t byte, unsigned shift, size_t row, size_t column) {
                 const int value = triple_value(codes + row * layout.cols + column);
                 magnitudes[byte] |= static_cast<uint8_t>((value < 0 ? -value : value) << shift);
                 return true;
             });
    walk_tl2_signs(layout, three_cols, [&](size_t byte, size_t bit, size_t row, size_t column) {
        const bool negative = triple_value(codes + row * layout.cols + column) < 0;
        signs[byte] |= static_cast<uint8_t>((negative ? 1u : 0u) << bit);
    });
    walk_tl2(layout, three_cols, layout.cols, 32, 2,
             [&](size_t byte, unsigned shift, size_t row, size_t column) {
                 pairs[byte] |= static_cast<uint8_t>(pair_index(codes + row * layout.cols + column) << shift);
                 return true;
             });
}

bool unpack_tl2(const bnb_layout &layout, size_t three_cols, size_t tile, const uint8_t *bytes,
                int8_t *codes) {
    const Tl2Tile at(layout, three_cols, tile);
    const uint8_t *magnitudes = bytes + at.magnitudes, *signs = bytes + at.signs, *pairs = bytes + at.pairs;
    const auto triple = [&](size_t byte, unsigned shift, size_t row, size_t column) {
        return set_triple(magnitudes[byte] >> shift & 15u, codes + row * layout.cols + column);
    };
    const auto pair = [&](size_t byte, unsigned shift, size_t row, size_t column) {
        return set_pair(pairs[byte] >> shift & 15u, codes + row * layout.cols + column);
    };
    if (!walk_tl2(layout, 0, three_cols, layout.bk, 3, triple)) {
        return false;
    }
    walk_tl2_signs(layout, three_cols, [&](size_t byte, size_t bit, size_t row, size_t column) {
        if (signs[byte] >> bit & 1u) {
            int8_t *code = codes + row * layout.cols + column;
            for (size_t i = 0; i < 3; ++i) {
                code[i] = static_cast<int8_t>(-code[i]);
            }
        }
    });
    return walk_tl2(layout, three_cols, layout.cols, 32, 2, pair);
}

// The tile rules of TL1 and TL2. rows * cols is known to stay below 2^60.
bool legal_tl1(const bnb_layout &layout) {
    if ((layout.by != 4 && layout.by != 8) || layout.bm == 0 || layout.bk == 0) {
        return false;
    }
    return layout.bm % (256 / layout.by) == 0 && layout.bk % layout.by == 0 && layout.rows % layout.bm == 0 &&
           layout.cols % layout.bk == 0;
}

bool legal_tl2(const bnb_layout &layout) {
    if (layout.by != 8 || layout.bm == 0 || layout.bk == 0) {
        return false;
    }
    return layout.bm % 32 == 0 && layout.bk % 24 == 0 && layout.rows % layout.bm == 0 &&
           layout.cols % layout.bk % 32 == 0 && layout.cols >= 256;
}

} // namespace

bnb_status check_layout(const bnb_layout &layout, Sizes *sizes) {
    if (layout.format != BNB_FORMAT_I2_S && layout.format != BNB_FORMAT_TL1 &&
        layout.format != BNB_FORMAT_TL2) {
        return BNB_INVALID_ARGUMENT;
    }
    // Five times the number of weights is the largest intermediate below; 2^60 leaves room for it.
    constexpr uint64_t kMaxWeights = uint64_t{1} << 60;
    if (layout.rows == 0 || layout.cols == 0 || layout.rows >= kMaxWeights / layout.cols) {
        return BNB_UNSUPPORTED;
    }
    const size_t rows = layout.rows, cols = layout.cols, weights = rows * cols;
    size_t code_bytes = weights / 4, scale_offset = weights / 4, three_cols = 0;
    switch (layout.format) {
    case BNB_FORMAT_I2_S:
        if (cols % kI2sBlock != 0 || layout.bm != 0 || layout.bk != 0 || layout.by != 0) {
            return BNB_UNSUPPORTED;
        }
        break;
    case BNB_FORMAT_TL1:
        if (!legal_tl1(layout)) {
            return BNB_UNSUPPORTED;
        }
        break;
    default: {
        if (!legal_tl2(layout)) {
            return BNB_UNSUPPORTED;
        }
        three_cols = cols / layout.bk * layout.bk;
        code_bytes = three_cols * rows / 6 + three_cols * rows / 24 + (cols - three_cols) * rows / 4;
        // The converter's size rule, integer arithmetic from left to right. It can fall short of the data.
        const size_t nominal = (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8;
        if (code_bytes > nominal) {
            return BNB_UNSUPPORTED;
        }
        scale_offset = (nominal + 31) / 32 * 32;
    }
    }
    *sizes = {weights, code_bytes, scale_offset, scale_offset + kTailBytes, three_cols};
    return BNB_OK;
}

void pack_i2s_portable(const int8_t *codes, size_t blocks, uint8_t *dst) {
    for (size_t block = 0; block < blocks; ++block) {
        const int8_t *code = codes + block * kI2sBlock;
        for (size_t byte = 0; byte < kI2sBlockBytes; ++byte) {
            const int packed = (code[byte] + 1) << 6 | (code[byte + 32] + 1) << 4 |
                               (code[byte + 64] + 1) << 2 | (code[byte + 96] + 1);
            dst[block * kI2sBlockBytes + byte] = static_cast<uint8_t>(packed);
        }
    }
}

bool unpack_i2s_portable(const uint8_t *bytes, size_t blocks, int8_t *codes) {
    unsigned unused = 0; // gathers bits of code 3
    for (size_t block = 0; block < blocks; ++block) {
        int8_t *code = codes + block * kI2sBlock;
        for (size_t byte = 0; byte < kI2sBlockBytes; ++byte) {
            const unsigned packed = bytes[block * kI2sBlockBytes + byte];
            unused |= packed & packed >> 1 & 0x55u;
            for (size_t group = 0; group < 4; ++group) {
                code[32 * group + byte] = static_cast<int8_t>((packed >> (6 - 2 * group) & 3u) - 1u);
            }
        }
    }
    return unused == 0;
}

void pack_tl_tile_portable(const bnb_layout &layout, const Sizes &sizes, size_t tile, const int8_t *codes,
                           uint8_t *bytes) {
    if (layout.format == BNB_FORMAT_TL1) {
        pack_tl1(layout, tile, codes, bytes);
    } else {
        pack_tl2(layout, sizes.three_cols, tile, codes, bytes);
    }
}

bool unpack_tl_tile_portable(const bnb_layout &layout, const Sizes &sizes, size_t tile, const uint8_t *bytes,
                             int8_t *codes) {
    return layout.format == BNB_FORMAT_TL1 ? unpack_tl1(layout, tile, bytes, codes)
                                           : unpack_tl2(layout, sizes.three_cols, tile, bytes, codes);
}

bnb_status unpack_codes(const bnb_layout &layout, const Sizes &sizes, const uint8_t *bytes, int8_t *codes) {
    if (layout.format == BNB_FORMAT_I2_S) {
        return unpack_i2s_portable(bytes, sizes.weights / kI2sBlock, codes) ? BNB_OK : BNB_INVALID_DATA;
    }
    for (size_t tile = 0; tile < layout.rows / layout.bm; ++tile) {
        if (!unpack_tl_tile_portable(layout, sizes, tile, bytes, codes + tile * layout.bm * layout.cols)) {
            return BNB_INVALID_DATA;
        }
    }
    return BNB_OK;
}

} // namespace bnb
