// TL2 on AVX2: 5 bits per three weights (a magnitude nibble and a sign bit), pairs for the last cols % BK
// columns. The bytes stand in docs/FORMATS.md, the two algorithms in tl_avx2.hpp. 32 rows lie in the order
// 0-7, 16-23, 8-15, 24-31, so that unpacking bytes to words gives rows 0-15 and 16-31.
#include "product.hpp"

#if defined(__x86_64__)

#include "tl_avx2.hpp"

namespace bnb {
namespace {

using namespace tl;

constexpr size_t kUnit = 24;       // columns of one 16-word sign vector: 8 groups of three
constexpr size_t kPairBlock = 32;  // columns of one block of pairs
constexpr size_t kUnitBytes = 128; // magnitudes of a unit, 32 rows
constexpr size_t kSignBytes = 32;
constexpr size_t kPairBlockBytes = 256;
constexpr size_t kFlushUnits = 10;  // 10 * 24 columns * 128 = 30720 fits int16
constexpr size_t kStretchUnits = 4; // 48 pairs of columns
constexpr size_t kAhead = 2048;     // bytes prefetched ahead

// The signs of 8 groups: two byte vectors in the row order of the magnitudes. Bits 7, 5, 3, 1 of a byte are
// the signs of 4 groups; the bits between are set, so that no byte is 0 when the wanted sign is shifted to
// the top.
struct Signs {
    __m256i four[2];

    explicit Signs(const uint8_t *words) {
        const __m256i low_rows = load(words), high_rows = _mm256_slli_epi16(low_rows, 1);
        const __m256i byte = _mm256_set1_epi16(255), between = _mm256_set1_epi8(0x55);
        four[0] = _mm256_packus_epi16(_mm256_srli_epi16(low_rows, 8), _mm256_srli_epi16(high_rows, 8));
        four[1] = _mm256_packus_epi16(_mm256_and_si256(low_rows, byte), _mm256_and_si256(high_rows, byte));
        four[0] = _mm256_or_si256(four[0], between);
        four[1] = _mm256_or_si256(four[1], between);
    }
    __m256i of(int group) const { return _mm256_slli_epi16(four[group / 4], 2 * (group % 4)); }
};

// The 16 table entries of a group of three: entry i holds the balanced ternary digits of i times q, 0 from 14
// on.
__m256i triple_values(const int8_t *q) {
    const __m256i first_two = _mm256_setr_epi8(0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 1, -1, 1, -1, 1, -1, 1, 0, 1, 0,
                                               1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m256i third = _mm256_setr_epi8(0, 0, 1, 0, -1, 0, 0, 0, 1, 0, -1, 0, 0, 0, 1, 0, -1, 0, 0, 0, 1,
                                           0, -1, 0, 0, 0, 1, 0, 0, 0, 0, 0);
    const __m256i offset =
        _mm256_setr_epi16(0, 128, 0, 128, 256, -128, 0, 128, 0, 128, 256, 128, 256, 384, 0, 0);
    const __m256i v = _mm256_add_epi16(_mm256_maddubs_epi16(broadcast_two(q), first_two),
                                       _mm256_maddubs_epi16(broadcast_one(q + 2), third));
    return _mm256_sub_epi16(v, offset);
}

class Tl2 {
  public:
    static constexpr size_t kOrder[4] = {0, 8, 16, 24};
    size_t rows, cols, tile_rows;

    explicit Tl2(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows(weights.layout.bm),
          units_(weights.layout.bk / kUnit), triple_blocks_(cols / weights.layout.bk),
          triple_cols_(triple_blocks_ * weights.layout.bk), pair_blocks_((cols - triple_cols_) / kPairBlock),
          magnitudes_(weights.bytes), signs_(magnitudes_ + triple_cols_ / 6 * rows),
          pairs_(signs_ + triple_cols_ / 24 * rows) {}

    bool fits(uint64_t n_bytes) const { return data_bytes() <= n_bytes; }
    bool valid() const {
        return nibbles_within(magnitudes_, triple_cols_ / 6 * rows, 13) &&
               nibbles_within(pairs_, (cols - triple_cols_) / 4 * rows, 8);
    }

    // 32 bytes of digits for each group.
    size_t table_bytes() const { return triple_cols_ / 3 * 32 + (cols - triple_cols_) / 2 * 32; }
    void build(const int8_t *q, uint8_t *tables) const {
        for (size_t k = 0; k < triple_cols_; k += 3, tables += 32)
            store(tables, split(triple_values(q + k)));
        for (size_t k = triple_cols_; k < cols; k += 2, tables += 32)
            store(tables, split(pair_values(q + k)));
    }

    size_t blocks() const { return triple_blocks_ + pair_blocks_; }
    void look_up(size_t tile, size_t block, const uint8_t *tables, int32_t *sums, size_t stride) const {
        if (block < triple_blocks_)
            look_up_triples(tile, block, tables, sums, stride);
        else
            look_up_pairs(tile, block - triple_blocks_, tables, sums, stride);
    }

    // A block of triples is decoded in parts of a few units, a block of pairs at once.
    size_t parts(size_t block) const {
        return block < triple_blocks_ ? (units_ + kStretchUnits - 1) / kStretchUnits : 1;
    }
    Stretch stretch(size_t block, size_t part) const {
        if (block >= triple_blocks_)
            return {triple_cols_ + (block - triple_blocks_) * kPairBlock, kPairBlock / 2};
        const size_t unit = part * kStretchUnits;
        return {(block * units_ + unit) * kUnit, part_units(unit) * kUnit / 2};
    }
    void decode(size_t tile, size_t block, size_t part, size_t lane, int8_t *codes) const {
        if (block >= triple_blocks_) {
            const uint8_t *bytes = pair_bytes(tile, block - triple_blocks_) + lane * kPairBlockBytes;
            for (size_t b = 0; b < kPairBlockBytes; b += 32, codes += 128) {
                decode_pair(nibble_high(load(bytes + b)), codes);
                decode_pair(nibble_low(load(bytes + b)), codes + 64);
            }
            return;
        }
        const size_t from = part * kStretchUnits, unit = first_unit(tile, block) + lane * units_ + from;
        const size_t count = part_units(from);
        for (size_t u = 0; u < count; u++)
            decode_unit(magnitudes_ + (unit + u) * kUnitBytes, signs_ + (unit + u) * kSignBytes,
                        codes + u * kUnit * kLane);
    }

  private:
    size_t data_bytes() const { return triple_cols_ / 24 * 5 * rows + (cols - triple_cols_) / 4 * rows; }
    size_t part_units(size_t from) const {
        return units_ - from < kStretchUnits ? units_ - from : kStretchUnits;
    }
    // Index of the first unit of a block, counted through the whole matrix.
    size_t first_unit(size_t tile, size_t block) const {
        return (tile * triple_blocks_ + block) * (tile_rows / kLane) * units_;
    }
    const uint8_t *pair_bytes(size_t tile, size_t block) const {
        return pairs_ + (tile * pair_blocks_ + block) * (tile_rows / kLane) * kPairBlockBytes;
    }

    void look_up_triples(size_t tile, size_t block, const uint8_t *tables, int32_t *sums,
                         size_t stride) const {
        const uint8_t *magnitudes = magnitudes_ + first_unit(tile, block) * kUnitBytes;
        const uint8_t *signs = signs_ + first_unit(tile, block) * kSignBytes;
        tables += block * units_ * 256;
        for (size_t row = 0; row < tile_rows; row += kLane, sums += stride)
            for (size_t from = 0; from < units_; from += kFlushUnits) {
                const size_t to = units_ - from < kFlushUnits ? units_ : from + kFlushUnits;
                Sums s;
                for (size_t u = from; u < to; u++, magnitudes += kUnitBytes, signs += kSignBytes)
                    s.add(look_up_unit(magnitudes, signs, tables + u * 256));
                s.flush(sums);
            }
    }

    static Digits look_up_unit(const uint8_t *magnitudes, const uint8_t *signs, const uint8_t *tables) {
        _mm_prefetch((const char *)magnitudes + kAhead, _MM_HINT_T0);
        _mm_prefetch((const char *)magnitudes + kAhead + 64, _MM_HINT_T0);
        _mm_prefetch((const char *)signs + kAhead / 4, _MM_HINT_T0);
        const Signs sign(signs);
        Digits d;
#pragma GCC unroll 4
        for (int b = 0; b < 4; b++, tables += 64) {
            const __m256i bytes = load(magnitudes + 32 * b);
            d.add_signed(broadcast16(tables), broadcast16(tables + 16), nibble_high(bytes), sign.of(2 * b));
            d.add_signed(broadcast16(tables + 32), broadcast16(tables + 48), nibble_low(bytes),
                         sign.of(2 * b + 1));
        }
        return d;
    }

    // A block holds 16 pairs: two runs of 8.
    void look_up_pairs(size_t tile, size_t block, const uint8_t *tables, int32_t *sums, size_t stride) const {
        const uint8_t *bytes = pair_bytes(tile, block);
        tables += triple_cols_ / 3 * 32 + block * (kPairBlock / 2) * 32;
        for (size_t row = 0; row < tile_rows; row += kLane, bytes += kPairBlockBytes, sums += stride) {
            Sums s;
            for (size_t run = 0; run < 2; run++) {
                Digits d;
                for (size_t b = 4 * run; b < 4 * run + 4; b++) {
                    const uint8_t *t = tables + 64 * b;
                    _mm_prefetch((const char *)bytes + kAhead + 32 * b, _MM_HINT_T0);
                    const __m256i v = load(bytes + 32 * b);
                    d.add(broadcast16(t), broadcast16(t + 16), nibble_high(v));
                    d.add(broadcast16(t + 32), broadcast16(t + 48), nibble_low(v));
                }
                s.add(d);
            }
            s.flush(sums);
        }
    }

    static void decode_triple(__m256i magnitude, __m256i sign, __m256i columns[3]) {
        const __m256i table[3] = {
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)),
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0)),
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0))};
        for (int i = 0; i < 3; i++)
            columns[i] = _mm256_sign_epi8(_mm256_shuffle_epi8(table[i], magnitude), sign);
    }

    static void decode_unit(const uint8_t *magnitudes, const uint8_t *signs, int8_t *codes) {
        const Signs sign(signs);
#pragma GCC unroll 4
        for (int b = 0; b < 4; b++, codes += 192) {
            const __m256i bytes = load(magnitudes + 32 * b);
            __m256i c[6];
            decode_triple(nibble_high(bytes), sign.of(2 * b), c);
            decode_triple(nibble_low(bytes), sign.of(2 * b + 1), c + 3);
            for (int i = 0; i < 6; i += 2) {
                store(codes + 32 * i, _mm256_unpacklo_epi8(c[i], c[i + 1]));
                store(codes + 32 * i + 32, _mm256_unpackhi_epi8(c[i], c[i + 1]));
            }
        }
    }

    size_t units_; // per block
    size_t triple_blocks_;
    size_t triple_cols_; // columns in groups of three
    size_t pair_blocks_;
    const uint8_t *magnitudes_, *signs_, *pairs_;
};

} // namespace

bnb_status make_tl2_avx2(const bnb_weights &weights, size_t n_max, Product **product) {
    const bnb_layout &l = weights.layout;
    if (l.bm == 0 || l.bk == 0 || l.bm % kLane || l.bk % kUnit || l.rows % l.bm || l.cols % l.bk % kPairBlock)
        return BNB_UNSUPPORTED;
    const Tl2 format(weights);
    if (!format.fits(weights.n_bytes))
        return BNB_UNSUPPORTED;
    if (!format.valid())
        return BNB_INVALID_DATA;
    *product = new TlProduct<Tl2>(format, n_max);
    return BNB_OK;
}

} // namespace bnb

#else

bnb_status bnb::make_tl2_avx2(const bnb_weights &, size_t, Product **) {
    return BNB_UNAVAILABLE;
}

#endif
