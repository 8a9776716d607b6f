// TL1 on AVX2: a nibble for each pair of weights. The bytes stand in docs/FORMATS.md, the two algorithms in
// tl_avx2.hpp. An inner block is 64 bytes whichever BY is: four runs of 16 rows, each 16 rows by 4 columns.
//   BY 4: rows 0-15, 16-31, 32-47, 48-63 of the same 4 columns.
//   BY 8: rows 0-15 of columns 0-3, then of columns 4-7, then the same for rows 16-31.
// Both are read as two vectors with the same tables: with BY 4 the two 128-bit lanes of a table are equal;
// with BY 8 they belong to columns 0-3 and 4-7, and the lanes of the sums are added at the end.
#include "product.hpp"

#if defined(__x86_64__)

#include "tl_avx2.hpp"

namespace bnb {
namespace {

using namespace tl;

constexpr size_t kInnerBytes = 64;
constexpr size_t kInnerTableBytes = 128; // two pairs, two digits, two lanes of 16
constexpr size_t kRun = 4;               // inner blocks whose digits are added in int8: 8 pairs
constexpr size_t kFlushCols = 224;       // 224 * 128 = 28672 fits int16; whole runs for both BY
constexpr size_t kAhead = 2048;          // bytes prefetched ahead

class Tl1 {
  public:
    static constexpr size_t kOrder[4] = {0, 16, 8, 24};
    size_t rows, cols, tile_rows;

    explicit Tl1(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows(weights.layout.bm),
          by_(weights.layout.by), bk_(weights.layout.bk), blocks_(cols / bk_), inner_(bk_ / by_),
          lanes_(by_ == 8 ? 1 : 2), bytes_(weights.bytes) {}

    bool fits(uint64_t n_bytes) const { return cols / 4 * rows <= n_bytes; }
    bool valid() const { return nibbles_within(bytes_, cols / 4 * rows, 8); }

    size_t table_bytes() const { return cols / by_ * kInnerTableBytes; }
    void build(const int8_t *q, uint8_t *tables) const {
        const size_t other = by_ == 8 ? 4 : 0; // columns to the pair of the other lane
        for (size_t k = 0; k < cols; k += by_)
            for (size_t pair = 0; pair < 4; pair += 2, tables += 64) {
                const __m256i a = split(pair_values(q + k + pair));
                const __m256i b = other == 0 ? a : split(pair_values(q + k + pair + other));
                store(tables, _mm256_permute2x128_si256(a, b, 0x20));
                store(tables + 32, _mm256_permute2x128_si256(a, b, 0x31));
            }
    }

    size_t blocks() const { return blocks_; }
    void look_up(size_t tile, size_t block, const uint8_t *tables, int32_t *sums, size_t stride) const {
        const uint8_t *bytes = bytes_ + (tile * blocks_ + block) * tile_rows * (bk_ / 4);
        const size_t most = by_ == 8 ? kFlushCols / 8 : kFlushCols / 4;
        tables += block * inner_ * kInnerTableBytes;
        for (size_t row = 0; row < tile_rows; row += lanes_ * kLane, sums += lanes_ * stride)
            for (size_t from = 0; from < inner_; from += most) {
                const size_t count = inner_ - from < most ? inner_ - from : most;
                look_up_inner(bytes, count, tables + from * kInnerTableBytes, sums, stride);
                bytes += count * kInnerBytes;
            }
    }

    size_t parts(size_t) const { return (bk_ + 2 * kMaxPairs - 1) / (2 * kMaxPairs); }
    Stretch stretch(size_t block, size_t part) const {
        const size_t from = part * 2 * kMaxPairs;
        const size_t count = bk_ - from < 2 * kMaxPairs ? bk_ - from : 2 * kMaxPairs;
        return {block * bk_ + from, count / 2};
    }
    void decode(size_t tile, size_t block, size_t part, size_t lane, int8_t *codes) const {
        const size_t row_block = lanes_ == 1 ? lane : lane / 2;
        const size_t first = part * (by_ == 8 ? kMaxPairs / 4 : kMaxPairs / 2);
        const uint8_t *bytes = bytes_ + (tile * blocks_ + block) * tile_rows * (bk_ / 4) +
                               (row_block * inner_ + first) * kInnerBytes;
        const size_t pairs = stretch(block, part).pairs, count = by_ == 8 ? pairs / 4 : pairs / 2;
        for (size_t b = 0; b < count; b++, bytes += kInnerBytes) {
            if (by_ == 4) {
                codes = decode_quad(load(bytes + lane % 2 * 32), codes);
            } else {
                const __m256i low = load(bytes), high = load(bytes + 32);
                codes = decode_quad(_mm256_permute2x128_si256(low, high, 0x20), codes);
                codes = decode_quad(_mm256_permute2x128_si256(low, high, 0x31), codes);
            }
        }
    }

  private:
    static int8_t *decode_quad(__m256i bytes, int8_t *codes) {
        decode_pair(nibble_high(bytes), codes);
        decode_pair(nibble_low(bytes), codes + 64);
        return codes + 128;
    }

    // `count` inner blocks of one row block.
    void look_up_inner(const uint8_t *bytes, size_t count, const uint8_t *tables, int32_t *sums,
                       size_t stride) const {
        Sums s[2];
        for (; count >= kRun; count -= kRun, bytes += kRun * kInnerBytes, tables += kRun * kInnerTableBytes)
            add_run(bytes, kRun, tables, s);
        if (count > 0)
            add_run(bytes, count, tables, s);
        if (by_ == 4) {
            s[0].flush(sums);
            s[1].flush(sums + stride);
            return;
        }
        Sums folded;
        folded.first = add_lanes(s[0].first, s[1].first);
        folded.second = add_lanes(s[0].second, s[1].second);
        folded.flush(sums);
    }

    // `count` <= kRun inner blocks.
    static void add_run(const uint8_t *bytes, size_t count, const uint8_t *tables, Sums s[2]) {
        Digits d[2];
#pragma GCC unroll 4
        for (size_t b = 0; b < count; b++)
            add_inner(bytes + b * kInnerBytes, tables + b * kInnerTableBytes, d);
        s[0].add(d[0]);
        s[1].add(d[1]);
    }

    static void add_inner(const uint8_t *bytes, const uint8_t *tables, Digits d[2]) {
        _mm_prefetch((const char *)bytes + kAhead, _MM_HINT_T0);
        const __m256i v0 = load(bytes), v1 = load(bytes + 32);
        __m256i low = load(tables), high = load(tables + 32);
        d[0].add(low, high, nibble_high(v0));
        d[1].add(low, high, nibble_high(v1));
        low = load(tables + 64), high = load(tables + 96);
        d[0].add(low, high, nibble_low(v0));
        d[1].add(low, high, nibble_low(v1));
    }

    static __m256i add_lanes(__m256i a, __m256i b) {
        return _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
    }

    size_t by_, bk_;
    size_t blocks_; // of BK columns
    size_t inner_;  // inner blocks per block
    size_t lanes_;  // times 32 rows in a row block
    const uint8_t *bytes_;
};

} // namespace

bnb_status make_tl1_avx2(const bnb_weights &weights, size_t n_max, Product **product) {
    const bnb_layout &l = weights.layout;
    if ((l.by != 4 && l.by != 8) || l.bm == 0 || l.bk == 0 || l.bm % (256 / l.by) || l.bk % l.by ||
        l.rows % l.bm || l.cols % l.bk)
        return BNB_UNSUPPORTED;
    const Tl1 format(weights);
    if (!format.fits(weights.n_bytes))
        return BNB_UNSUPPORTED;
    if (!format.valid())
        return BNB_INVALID_DATA;
    *product = new TlProduct<Tl1>(format, n_max);
    return BNB_OK;
}

} // namespace bnb

#else

bnb_status bnb::make_tl1_avx2(const bnb_weights &, size_t, Product **) {
    return BNB_UNAVAILABLE;
}

#endif
