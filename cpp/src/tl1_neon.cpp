// TL1 on NEON: a nibble for each pair of weights, looked up (tl_neon.hpp). The bytes stand in
// docs/FORMATS.md; the format is bitnet.cpp's own for ARM. Sixteen bytes are a quad, four columns of 16 rows;
// an inner block of BY columns is 64 bytes:
//   BY 4: rows 0-15, 16-31, 32-47, 48-63 of the same 4 columns.
//   BY 8: rows 0-15 of columns 0-3, then of columns 4-7, then the same for rows 16-31.

#include "tl_neon.hpp"

namespace bnb {
namespace {

using namespace neon;

constexpr size_t kInnerBytes = 64;
constexpr size_t kQuadTables = 2 * kTableBytes; // two pairs
constexpr size_t kRunQuads = 4;                 // 8 pairs: digits reach 8 * 15 = 120
constexpr size_t kFlushQuads = 60;              // 120 pairs * 256 = 30720 fits int16

class Tl1 {
  public:
    size_t rows, cols, tile_rows;

    explicit Tl1(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows(weights.layout.bm),
          by_(weights.layout.by), bk_(weights.layout.bk), bytes_(weights.bytes) {}

    bool fits(uint64_t n_bytes) const { return cols / 4 * rows <= n_bytes; }
    bool valid() const { return nibbles_within(bytes_, cols / 4 * rows, 8); }

    size_t table_bytes() const { return cols / 4 * kQuadTables; }
    void build(const int8_t *q, int8_t *tables) const {
        for (size_t k = 0; k < cols; k += 2) {
            build_pair(q + k, tables + k / 2 * kTableBytes);
        }
    }

    size_t blocks() const { return cols / bk_; }
    void look_up(size_t tile, size_t block, const int8_t *tables, int32_t *out) const {
        const uint8_t *bytes = bytes_ + (tile * blocks() + block) * tile_rows * (bk_ / 4);
        tables += block * (bk_ / 4) * kQuadTables;
        if (by_ == 4) {
            look_up_rows<4>(bytes, tables, out);
        } else {
            look_up_rows<8>(bytes, tables, out);
        }
    }

  private:
    // One block of one tile.
    template <size_t kBy> void look_up_rows(const uint8_t *bytes, const int8_t *tables, int32_t *out) const {
        constexpr size_t kMost = kFlushQuads * 4 / kBy;
        const size_t inner = bk_ / kBy;
        for (size_t row = 0; row < tile_rows; row += 256 / kBy) {
            for (size_t from = 0; from < inner; from += kMost) {
                const size_t count = inner - from < kMost ? inner - from : kMost;
                look_up_inner<kBy>(bytes, count, tables + from * (kBy / 4) * kQuadTables, out + row);
                bytes += count * kInnerBytes;
            }
        }
    }

    // `count` inner blocks of one row block.
    template <size_t kBy>
    static void look_up_inner(const uint8_t *bytes, size_t count, const int8_t *tables, int32_t *out) {
        constexpr size_t kQuads = kBy / 4, kGroups = 4 / kQuads, kRun = kRunQuads / kQuads;
        Sums sums[kGroups];
        for (size_t from = 0; from < count; from += kRun) {
            const size_t end = from + kRun < count ? from + kRun : count;
            Digits digits[kGroups];
            for (size_t b = from; b < end; ++b) {
                for (size_t quad = 0; quad < kQuads; ++quad) {
                    const int8_t *pairs = tables + (b * kQuads + quad) * kQuadTables;
                    for (size_t group = 0; group < kGroups; ++group) {
                        const uint8x16_t packed =
                            vld1q_u8(bytes + b * kInnerBytes + (group * kQuads + quad) * 16);
                        digits[group].add(pairs, high_nibbles(packed));
                        digits[group].add(pairs + kTableBytes, low_nibbles(packed));
                    }
                }
            }
            for (size_t group = 0; group < kGroups; ++group) {
                sums[group].add(digits[group].low, digits[group].high);
            }
        }
        for (size_t group = 0; group < kGroups; ++group) {
            sums[group].flush(out + 16 * group, out + 16 * group + 8);
        }
    }

    size_t by_, bk_;
    const uint8_t *bytes_;
};

} // namespace

bnb_status make_tl1_neon(const bnb_weights &weights, size_t n_max, Product **product) {
    const bnb_layout &l = weights.layout;
    if ((l.by != 4 && l.by != 8) || l.bm == 0 || l.bk == 0 || l.bm % (256 / l.by) || l.bk % l.by ||
        l.rows % l.bm || l.cols % l.bk) {
        return BNB_UNSUPPORTED;
    }
    const Tl1 format(weights);
    if (!format.fits(weights.n_bytes)) {
        return BNB_UNSUPPORTED;
    }
    if (!format.valid()) {
        return BNB_INVALID_DATA;
    }
    *product = new TlProduct<Tl1>(format, n_max);
    return BNB_OK;
}

} // namespace bnb
