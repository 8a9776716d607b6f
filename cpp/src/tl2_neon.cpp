// TL2 on NEON: 5 bits per three weights (a magnitude nibble and a sign bit), pairs for the last cols % BK
// columns, both looked up (tl_neon.hpp). The bytes stand in docs/FORMATS.md. 32 rows lie in the order 0-7,
// 16-23, 8-15, 24-31, so a vector of magnitudes holds eight rows and the eight rows 16 further, whose signs
// stand side by side in one vector of words.
//
// A sign is applied as (x ^ mask) - mask, with mask -1 where it is negative; the subtractions are put off and
// counted, once for both digits. Before that a digit is at most 15, or at least -16: 8 of them fit int8.

#include "tl_neon.hpp"

namespace bnb {
namespace {

using namespace neon;

constexpr size_t kLane = 32;       // rows that lie together
constexpr size_t kUnit = 24;       // columns of one 16-word vector of signs: 8 triples, which is a run
constexpr size_t kUnitBytes = 128; // magnitudes of a unit, 32 rows
constexpr size_t kSignBytes = 32;
constexpr size_t kFlushUnits = 10; // 10 * 24 columns * 128 = 30720 fits int16
constexpr size_t kPairBlock = 32;  // columns of one block of pairs
constexpr size_t kPairBlockBytes = 256;

// Entry i of a triple is the sum of q weighted with the balanced ternary digits of i, 0 from 14 on.
void build_triple(const int8_t *q, int8_t *table) {
    static constexpr int16_t kDigits[3][16] = {{0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1},
                                               {0, 0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 1, 1, 1},
                                               {0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1}};
    const auto values = [&](size_t from) {
        int16x8_t sum = vmulq_n_s16(vld1q_s16(kDigits[0] + from), q[0]);
        sum = vmlaq_n_s16(sum, vld1q_s16(kDigits[1] + from), q[1]);
        return vmlaq_n_s16(sum, vld1q_s16(kDigits[2] + from), q[2]);
    };
    store_table(values(0), values(8), table);
}

// The signs of 8 triples in the row order of a vector of magnitudes: bits 7, 5, 3, 1 of a byte belong to
// four.
struct Signs {
    uint8x16_t four[2];

    // Eight words: the odd bits for the first eight rows, the even ones for the rows 16 further.
    explicit Signs(const uint8_t *words) {
        const uint8x8x2_t bytes = vld2_u8(words); // lower and upper bytes
        four[0] = vcombine_u8(bytes.val[1], vshl_n_u8(bytes.val[1], 1));
        four[1] = vcombine_u8(bytes.val[0], vshl_n_u8(bytes.val[0], 1));
    }
    // -1 where the sign of triple `triple` is negative.
    int8x16_t of(size_t triple) const {
        const uint8x16_t bit = vdupq_n_u8(static_cast<uint8_t>(128 >> 2 * (triple % 4)));
        return vreinterpretq_s8_u8(vtstq_u8(four[triple / 4], bit));
    }
};

// Digit sums of 16 rows, less the number of negative ones.
struct SignedDigits {
    int8x16_t low = vdupq_n_s8(0), high = vdupq_n_s8(0), negative = vdupq_n_s8(0);

    void add(const int8_t *table, uint8x16_t index, int8x16_t mask) {
        low = vaddq_s8(low, veorq_s8(vqtbl1q_s8(vld1q_s8(table), index), mask));
        high = vaddq_s8(high, veorq_s8(vqtbl1q_s8(vld1q_s8(table + 16), index), mask));
        negative = vsubq_s8(negative, mask);
    }
    void add_to(Sums &sums) const { sums.add(vaddq_s8(low, negative), vaddq_s8(high, negative)); }
};

class Tl2 {
  public:
    size_t rows, cols, tile_rows;

    explicit Tl2(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows(weights.layout.bm),
          units_(weights.layout.bk / kUnit), triple_blocks_(cols / weights.layout.bk),
          triple_cols_(triple_blocks_ * weights.layout.bk), pair_blocks_((cols - triple_cols_) / kPairBlock),
          magnitudes_(weights.bytes), signs_(magnitudes_ + triple_cols_ / 6 * rows),
          pairs_(signs_ + triple_cols_ / 24 * rows) {}

    bool fits(uint64_t n_bytes) const {
        return triple_cols_ / 6 * rows + triple_cols_ / 24 * rows + (cols - triple_cols_) / 4 * rows <=
               n_bytes;
    }
    bool valid() const {
        return nibbles_within(magnitudes_, triple_cols_ / 6 * rows, 13) &&
               nibbles_within(pairs_, (cols - triple_cols_) / 4 * rows, 8);
    }

    size_t table_bytes() const { return (triple_cols_ / 3 + (cols - triple_cols_) / 2) * kTableBytes; }
    void build(const int8_t *q, int8_t *tables) const {
        for (size_t k = 0; k < triple_cols_; k += 3, tables += kTableBytes) {
            build_triple(q + k, tables);
        }
        for (size_t k = triple_cols_; k < cols; k += 2, tables += kTableBytes) {
            build_pair(q + k, tables);
        }
    }

    size_t blocks() const { return triple_blocks_ + pair_blocks_; }
    void look_up(size_t tile, size_t block, const int8_t *tables, int32_t *out) const {
        if (block < triple_blocks_) {
            look_up_triples(tile, block, tables + block * units_ * 8 * kTableBytes, out);
        } else {
            block -= triple_blocks_;
            tables += (triple_cols_ / 3 + block * kPairBlock / 2) * kTableBytes;
            look_up_pairs(tile, block, tables, out);
        }
    }

  private:
    void look_up_triples(size_t tile, size_t block, const int8_t *tables, int32_t *out) const {
        const size_t before = (tile * triple_blocks_ + block) * (tile_rows / kLane) * units_;
        const uint8_t *magnitudes = magnitudes_ + before * kUnitBytes, *signs = signs_ + before * kSignBytes;
        for (size_t row = 0; row < tile_rows; row += kLane) {
            for (size_t from = 0; from < units_; from += kFlushUnits) {
                const size_t count = units_ - from < kFlushUnits ? units_ - from : kFlushUnits;
                Sums sums[2];
                for (size_t unit = from; unit < from + count; ++unit) {
                    add_unit(magnitudes, signs, tables + unit * 8 * kTableBytes, sums);
                    magnitudes += kUnitBytes;
                    signs += kSignBytes;
                }
                flush(sums, out + row);
            }
        }
    }

    // 8 triples of 32 rows.
    static void add_unit(const uint8_t *magnitudes, const uint8_t *words, const int8_t *tables,
                         Sums (&sums)[2]) {
        const Signs signs[2] = {Signs(words), Signs(words + 16)};
        SignedDigits digits[2];
        for (size_t triple = 0; triple < 8; triple += 2, magnitudes += kLane) {
            const int8_t *table = tables + triple * kTableBytes;
            for (size_t v = 0; v < 2; ++v) {
                const uint8x16_t packed = vld1q_u8(magnitudes + 16 * v);
                digits[v].add(table, high_nibbles(packed), signs[v].of(triple));
                digits[v].add(table + kTableBytes, low_nibbles(packed), signs[v].of(triple + 1));
            }
        }
        digits[0].add_to(sums[0]);
        digits[1].add_to(sums[1]);
    }

    void look_up_pairs(size_t tile, size_t block, const int8_t *tables, int32_t *out) const {
        const uint8_t *bytes = pairs_ + (tile * pair_blocks_ + block) * (tile_rows / kLane) * kPairBlockBytes;
        for (size_t row = 0; row < tile_rows; row += kLane, bytes += kPairBlockBytes) {
            Sums sums[2]; // 16 pairs * 256 = 4096
            for (size_t v = 0; v < 2; ++v) {
                for (size_t run = 0; run < 2; ++run) { // 8 pairs
                    Digits digits;
                    for (size_t quad = 4 * run; quad < 4 * run + 4; ++quad) {
                        const uint8x16_t packed = vld1q_u8(bytes + quad * kLane + 16 * v);
                        const int8_t *table = tables + quad * 2 * kTableBytes;
                        digits.add(table, high_nibbles(packed));
                        digits.add(table + kTableBytes, low_nibbles(packed));
                    }
                    sums[v].add(digits.low, digits.high);
                }
            }
            flush(sums, out + row);
        }
    }

    // To rows 0-7 and 16-23, then 8-15 and 24-31.
    static void flush(const Sums (&sums)[2], int32_t *out) {
        sums[0].flush(out, out + 16);
        sums[1].flush(out + 8, out + 24);
    }

    size_t units_; // per block of triples
    size_t triple_blocks_;
    size_t triple_cols_; // columns in groups of three
    size_t pair_blocks_;
    const uint8_t *magnitudes_, *signs_, *pairs_;
};

} // namespace

bnb_status make_tl2_neon(const bnb_weights &weights, size_t n_max, Product **product) {
    const bnb_layout &l = weights.layout;
    if (l.bm == 0 || l.bk == 0 || l.bm % kLane || l.bk % kUnit || l.rows % l.bm ||
        l.cols % l.bk % kPairBlock) {
        return BNB_UNSUPPORTED;
    }
    const Tl2 format(weights);
    if (!format.fits(weights.n_bytes)) {
        return BNB_UNSUPPORTED;
    }
    if (!format.valid()) {
        return BNB_INVALID_DATA;
    }
    *product = new TlProduct<Tl2>(format, n_max);
    return BNB_OK;
}

} // namespace bnb
