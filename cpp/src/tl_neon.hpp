// What the NEON kernels of TL1 and TL2 share. Both formats keep 16 rows side by side, one index of a few
// weights per nibble, and NEON's TBL reads sixteen bytes of a table of sixteen at once. The sum a group of
// two or three weights can contribute, |v| <= 3 * 128, does not fit a byte, so it is kept as two signed
// digits, v = low + 31 * high with |low| <= 15 and |high| <= 12. Digits of 8 groups are added in int8 (a
// run), then widened to the int16 sums of the run; those are added to int32 outputs before they could wrap.
//
// The tables of a block of columns serve every row of a tile, and the bytes of a tile serve every activation
// row of a panel, so both are read again while they are near. Many activation rows are looked up like one: a
// look-up of two digits serves 16 rows and two columns, where plain NEON multiplies 8 int8 at once. Which is
// faster was not measured.
#pragma once

#include <arm_neon.h>

#include <cstring>
#include <memory>

#include "product.hpp"

namespace bnb {
namespace neon {

constexpr size_t kPanelRows = 8;   // activation rows whose tables are made at once
constexpr size_t kTableBytes = 32; // of a group: 16 low digits, 16 high digits
constexpr int16_t kBase = 31;      // of the digits

// The table of 16 values |v| <= 384 (eight in each vector). 1057 / 2^15 is so close to 1 / 31 that
// high = round(v / 31) for each of them.
inline void store_table(int16x8_t first, int16x8_t second, int8_t *table) {
    const auto high_of = [](int16x8_t v) { return vqrdmulhq_n_s16(v, 1057); };
    const int16x8_t high0 = high_of(first), high1 = high_of(second);
    const int16x8_t low0 = vmlsq_n_s16(first, high0, kBase), low1 = vmlsq_n_s16(second, high1, kBase);
    vst1q_s8(table, vcombine_s8(vmovn_s16(low0), vmovn_s16(low1)));
    vst1q_s8(table + 16, vcombine_s8(vmovn_s16(high0), vmovn_s16(high1)));
}

// Entry i of a pair is (i / 3 - 1) * q[0] + (i % 3 - 1) * q[1], 0 from 9 on.
inline void build_pair(const int8_t *q, int8_t *table) {
    static constexpr int16_t kFirst[16] = {-1, -1, -1, 0, 0, 0, 1, 1, 1};
    static constexpr int16_t kSecond[16] = {-1, 0, 1, -1, 0, 1, -1, 0, 1};
    const auto values = [&](size_t from) {
        const int16x8_t first = vmulq_n_s16(vld1q_s16(kFirst + from), q[0]);
        return vmlaq_n_s16(first, vld1q_s16(kSecond + from), q[1]);
    };
    store_table(values(0), values(8), table);
}

// Digit sums of 16 rows.
struct Digits {
    int8x16_t low = vdupq_n_s8(0), high = vdupq_n_s8(0);

    void add(const int8_t *table, uint8x16_t index) {
        low = vaddq_s8(low, vqtbl1q_s8(vld1q_s8(table), index));
        high = vaddq_s8(high, vqtbl1q_s8(vld1q_s8(table + 16), index));
    }
};

// int16 sums of 16 rows.
struct Sums {
    int16x8_t first = vdupq_n_s16(0), second = vdupq_n_s16(0);

    void add(int8x16_t low, int8x16_t high) {
        const int8x8_t base = vdup_n_s8(kBase);
        first = vaddw_s8(vmlal_s8(first, vget_low_s8(high), base), vget_low_s8(low));
        second = vaddw_high_s8(vmlal_s8(second, vget_high_s8(high), base), low);
    }
    // Adds to the int32 sums of the first eight rows, and of the others.
    void flush(int32_t *first_rows, int32_t *second_rows) const {
        flush(first, first_rows);
        flush(second, second_rows);
    }

  private:
    static void flush(int16x8_t sums, int32_t *rows) {
        vst1q_s32(rows, vaddw_s16(vld1q_s32(rows), vget_low_s16(sums)));
        vst1q_s32(rows + 4, vaddw_high_s16(vld1q_s32(rows + 4), sums));
    }
};

inline uint8x16_t high_nibbles(uint8x16_t bytes) {
    return vshrq_n_u8(bytes, 4);
}
inline uint8x16_t low_nibbles(uint8x16_t bytes) {
    return vandq_u8(bytes, vdupq_n_u8(15));
}

// Whether every nibble is at most `limit`; n is a multiple of 16.
inline bool nibbles_within(const uint8_t *bytes, size_t n, uint8_t limit) {
    uint8x16_t largest = vdupq_n_u8(0);
    for (size_t i = 0; i < n; i += 16) {
        const uint8x16_t packed = vld1q_u8(bytes + i);
        largest = vmaxq_u8(largest, vmaxq_u8(high_nibbles(packed), low_nibbles(packed)));
    }
    return vmaxvq_u8(largest) <= limit;
}

// Products of one format. Format knows the bytes:
//   rows, cols, tile_rows      the matrix; a tile is tile_rows rows (BM)
//   table_bytes(), build(q, tables)
//   blocks(), look_up(tile, block, tables, out)      adds the block's share to the tile's rows of out
template <class Format> class TlProduct final : public Product {
  public:
    TlProduct(const Format &format, size_t n_max)
        : format_(format), panel_(n_max < kPanelRows ? n_max : kPanelRows),
          tables_(new int8_t[panel_bytes()]) {}

    size_t row_step(size_t) const noexcept override { return format_.tile_rows; }
    void reserve(size_t workers) override {
        tables_.reset(new int8_t[workers * panel_bytes()]);
        workers_ = workers;
    }
    uint64_t bytes() const noexcept override { return workers_ * panel_bytes(); }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t worker) noexcept override {
        int8_t *const tables = tables_.get() + worker * panel_bytes();
        for (size_t done = 0; done < n; done += panel_) {
            const size_t count = n - done < panel_ ? n - done : panel_;
            for (size_t i = 0; i < count; ++i) {
                format_.build(q + (done + i) * format_.cols, tables + i * format_.table_bytes());
            }
            for (size_t row = first; row < last; row += format_.tile_rows) {
                tile_products(row, count, tables, out + done * format_.rows + row);
            }
        }
    }

  private:
    size_t panel_bytes() const { return panel_ * format_.table_bytes(); }

    // out: the tile's rows for the first of `count` activation rows.
    void tile_products(size_t row, size_t count, const int8_t *tables, int32_t *out) const {
        for (size_t i = 0; i < count; ++i) {
            std::memset(out + i * format_.rows, 0, format_.tile_rows * sizeof *out);
        }
        for (size_t block = 0; block < format_.blocks(); ++block) {
            for (size_t i = 0; i < count; ++i) {
                format_.look_up(row / format_.tile_rows, block, tables + i * format_.table_bytes(),
                                out + i * format_.rows);
            }
        }
    }

    Format format_;
    size_t panel_; // activation rows per pass
    std::unique_ptr<int8_t[]> tables_;
    size_t workers_ = 1;
};

} // namespace neon
} // namespace bnb
