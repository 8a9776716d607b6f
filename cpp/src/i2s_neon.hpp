// I2_S products on aarch64: exact int32, read in place. Two instruction sets differ only in how sixteen codes
// meet sixteen activations, so the products are written once over that:
//
//   struct Dot { void clear(); void add(uint8x16_t codes, int8x16_t q); uint32x4_t take(); }
//   kFlushBlocks    blocks that `add` bears between two `take`
//   kRows, kCells   weight rows taken at a time for one activation row; dots kept in registers
//
// The codes are used as they stand, u = code + 1 in 0, 1, 2, and the sum of the activations is taken off at
// the end: sum (u - 1) q = sum u q - sum q. Sums of u q are kept modulo 2^32, where the difference is exact.
//
// A tile of weight rows and activation rows shares its loads: a vector of codes, once unpacked, meets every
// activation row, a vector of activations every weight row. One activation row (decode) is bound by reading
// the weights once; more (prefill) by arithmetic, and there strips of at most 2048 columns keep four
// activation rows in the L1 cache while every weight row passes.
#pragma once

#include <arm_neon.h>

#include "layout.hpp"
#include "product.hpp"

namespace bnb {
namespace neon {

// `static`: a copy compiled with +dotprod must not serve the whole program.

constexpr size_t kStripBlocks = 16; // prefill: blocks of a strip

// Sum of n activations, a multiple of 16.
static inline uint32_t sum_codes(const int8_t *q, size_t n) {
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t k = 0; k < n; k += 16) {
        sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(q + k)));
    }
    return static_cast<uint32_t>(vaddvq_s32(sum));
}

// No code 3 anywhere. n is a multiple of 32.
static inline bool i2s_valid(const uint8_t *bytes, size_t n) {
    uint8x16_t unused = vdupq_n_u8(0);
    for (size_t i = 0; i < n; i += 16) {
        const uint8x16_t packed = vld1q_u8(bytes + i);
        unused = vorrq_u8(unused, vandq_u8(packed, vshrq_n_u8(packed, 1)));
    }
    return vmaxvq_u8(vandq_u8(unused, vdupq_n_u8(0x55))) == 0;
}

template <class Dot> class I2sProduct final : public Product {
  public:
    explicit I2sProduct(const bnb_weights &weights)
        : bytes_(weights.bytes), rows_(weights.layout.rows), cols_(weights.layout.cols) {}

    size_t row_step(size_t) const noexcept override { return Dot::kRows; }
    void reserve(size_t) override {}
    uint64_t bytes() const noexcept override { return 0; }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t) noexcept override {
        size_t done = 0;
        for (; done + 4 <= n; done += 4) {
            columns<4>(q + done * cols_, out + done * rows_, first, last, kStripBlocks);
        }
        if (done + 2 <= n) {
            columns<2>(q + done * cols_, out + done * rows_, first, last, kStripBlocks);
            done += 2;
        }
        if (done < n) {
            columns<1>(q + done * cols_, out + done * rows_, first, last, cols_ / kI2sBlock);
        }
    }

  private:
    // Blocks [start, start + strip) of kColumns activation rows.
    struct Strip {
        const int8_t *q;
        size_t start, blocks;
    };

    template <int kColumns>
    void columns(const int8_t *q, int32_t *out, size_t first, size_t last, size_t strip_blocks) const {
        constexpr int kTileRows = Dot::kCells / kColumns < Dot::kRows ? Dot::kCells / kColumns : Dot::kRows;
        uint32_t sums[kColumns];
        for (int c = 0; c < kColumns; ++c) {
            sums[c] = sum_codes(q + static_cast<size_t>(c) * cols_, cols_);
        }
        const size_t blocks = cols_ / kI2sBlock;
        for (size_t start = 0; start < blocks; start += strip_blocks) {
            const Strip strip = {q, start, blocks - start < strip_blocks ? blocks - start : strip_blocks};
            size_t row = first;
            for (; row + kTileRows <= last; row += kTileRows) {
                tile<kTileRows, kColumns>(row, strip, sums, out);
            }
            for (; row < last; ++row) {
                tile<1, kColumns>(row, strip, sums, out);
            }
        }
    }

    // Adds the strip's share of kRows weight rows to out, which begins with minus the sums.
    template <int kRows, int kColumns>
    void tile(size_t row, const Strip &strip, const uint32_t (&sums)[kColumns], int32_t *out) const {
        uint32x4_t total[kRows][kColumns];
        for (int r = 0; r < kRows; ++r) {
            for (int c = 0; c < kColumns; ++c) {
                total[r][c] = vdupq_n_u32(0);
            }
        }
        for (size_t done = 0; done < strip.blocks; done += Dot::kFlushBlocks) {
            const size_t left = strip.blocks - done;
            add_blocks<kRows, kColumns>(row, strip, done, left < Dot::kFlushBlocks ? left : Dot::kFlushBlocks,
                                        total);
        }
        for (int r = 0; r < kRows; ++r) {
            for (int c = 0; c < kColumns; ++c) {
                int32_t *to = out + static_cast<size_t>(c) * rows_ + row + static_cast<size_t>(r);
                const uint32_t before = strip.start == 0 ? 0u - sums[c] : static_cast<uint32_t>(*to);
                *to = static_cast<int32_t>(before + vaddvq_u32(total[r][c]));
            }
        }
    }

    // `count` blocks of a strip, from `done` on.
    template <int kRows, int kColumns>
    void add_blocks(size_t row, const Strip &strip, size_t done, size_t count,
                    uint32x4_t (&total)[kRows][kColumns]) const {
        Dot dots[kRows][kColumns];
        const uint8_t *bytes = bytes_ + row * (cols_ / 4) + (strip.start + done) * kI2sBlockBytes;
        const int8_t *q = strip.q + (strip.start + done) * kI2sBlock;
        // Sixteen bytes: columns 0-15 (or 16-31) of each of the four groups of a block.
        for (size_t half = 0; half < 2 * count; ++half) {
            const int8_t *activations = q + half / 2 * kI2sBlock + half % 2 * 16;
            uint8x16_t packed[kRows];
            for (int r = 0; r < kRows; ++r) {
                packed[r] = vld1q_u8(bytes + static_cast<size_t>(r) * (cols_ / 4) + 16 * half);
            }
#pragma GCC unroll 4
            for (int group = 0; group < 4; ++group, activations += 32) {
                uint8x16_t codes[kRows];
                for (int r = 0; r < kRows; ++r) {
                    codes[r] = group_of(packed[r], group);
                }
                for (int c = 0; c < kColumns; ++c) {
                    const int8x16_t values = vld1q_s8(activations + static_cast<size_t>(c) * cols_);
                    for (int r = 0; r < kRows; ++r) {
                        dots[r][c].add(codes[r], values);
                    }
                }
            }
        }
        for (int r = 0; r < kRows; ++r) {
            for (int c = 0; c < kColumns; ++c) {
                total[r][c] = vaddq_u32(total[r][c], dots[r][c].take());
            }
        }
    }

    static uint8x16_t group_of(uint8x16_t packed, int group) {
        const uint8x16_t three = vdupq_n_u8(3);
        switch (group) {
        case 0:
            return vshrq_n_u8(packed, 6);
        case 1:
            return vandq_u8(vshrq_n_u8(packed, 4), three);
        case 2:
            return vandq_u8(vshrq_n_u8(packed, 2), three);
        default:
            return vandq_u8(packed, three);
        }
    }

    const uint8_t *bytes_; // the caller's, packed [rows, cols]
    size_t rows_;
    size_t cols_;
};

template <class Dot> bnb_status make_i2s(const bnb_weights &weights, Product **product) {
    if (!i2s_valid(weights.bytes, weights.layout.rows * weights.layout.cols / 4)) {
        return BNB_INVALID_DATA;
    }
    *product = new I2sProduct<Dot>(weights);
    return BNB_OK;
}

} // namespace neon
} // namespace bnb
