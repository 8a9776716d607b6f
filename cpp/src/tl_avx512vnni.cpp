// TL1 and TL2 in AVX-512 VNNI. The bytes stand in docs/FORMATS.md.
//
// One or two activation rows are looked up, by the AVX2 kernels: 512-bit shuffles run on one port, 256-bit
// ones on two, so there is nothing to win. More rows are multiplied: 64 weight rows of a strip of columns are
// decoded to a panel of u = code + 1 once, and every activation row is multiplied by it, see
// panel_avx512vnni.hpp. A vector of the panel is 16 rows by four columns:
//   pairs    a byte holds two indices, four columns of one row. Each becomes a 16-bit lane, and vpermw looks
//            up the two codes of every lane.
//   triples  a nibble of magnitude and a bit of sign are a 5-bit index; vpermt2d looks up the three codes of
//            16 rows. Four triples, shifted together, are three vectors.
//
// Compiled with its own flags and free of the standard library, see quantize_avx2.cpp.

#include "panel_avx512vnni.hpp"
#include "product.hpp"

namespace bnb {
namespace {

using namespace avx512;

constexpr size_t kLane = 32;     // rows that stand together
constexpr size_t kFewRows = 2;   // activation rows up to which looking up is faster
constexpr size_t kUnit = 24;     // columns of eight triples
constexpr size_t kPairCols = 32; // columns of a block of pairs in TL2

inline __m256i load32(const uint8_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}
inline __m128i low(__m256i v) {
    return _mm256_castsi256_si128(v);
}
inline __m128i high(__m256i v) {
    return _mm256_extracti128_si256(v, 1);
}

// 32 bytes that hold rows 0-7, 16-23, 8-15, 24-31, in order.
inline __m256i in_order(__m256i bytes) {
    return _mm256_permute4x64_epi64(bytes, 0xd8);
}

// 16 bytes of two pair indices each, a row per byte -> u of four columns per row. vpermw looks at five bits
// of a lane, of which the fifth belongs to the other index: the table stands there twice.
inline __m512i decode_pairs(__m128i bytes) {
    // u of the first and the second column for index 0 .. 8, low and high byte
    const __m256i nine = _mm256_setr_epi16(0x0000, 0x0100, 0x0200, 0x0001, 0x0101, 0x0201, 0x0002, 0x0102,
                                           0x0202, 0, 0, 0, 0, 0, 0, 0);
    const __m512i table = _mm512_broadcast_i64x4(nine);
    const __m512i spread = // byte i as both 16-bit halves of 32-bit lane i
        _mm512_set_epi32(
            static_cast<int>(0x800f800f), static_cast<int>(0x800e800e), static_cast<int>(0x800d800d),
            static_cast<int>(0x800c800c), static_cast<int>(0x800b800b), static_cast<int>(0x800a800a),
            static_cast<int>(0x80098009), static_cast<int>(0x80088008), static_cast<int>(0x80078007),
            static_cast<int>(0x80068006), static_cast<int>(0x80058005), static_cast<int>(0x80048004),
            static_cast<int>(0x80038003), static_cast<int>(0x80028002), static_cast<int>(0x80018001),
            static_cast<int>(0x80008000));
    const __m512i words = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), spread);
    return _mm512_permutexvar_epi16(_mm512_srlv_epi16(words, _mm512_set1_epi32(4)), table);
}

class Tl1 {
  public:
    size_t rows, cols;

    explicit Tl1(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows_(weights.layout.bm),
          bk_(weights.layout.bk), by_(weights.layout.by), bytes_(weights.bytes) {}

    // Columns of the strip that starts at column k.
    size_t strip(size_t k) const { return cols - k < kStripCols ? cols - k : kStripCols; }

    // Columns [k, k + count) of 32 rows as two vectors of the panel.
    void fill(size_t lane, size_t k, size_t count, uint8_t *panel) const {
        // An inner block is 64 bytes: BY 4: rows 0-15, 16-31, 32-47, 48-63 of four columns; BY 8: rows 0-15
        // of columns 0-3 and 4-7, then rows 16-31.
        const size_t row = lane * kLane, block_rows = 256 / by_, inner = bk_ / by_;
        const size_t tile = row / tile_rows_, row_block = row % tile_rows_ / block_rows;
        const size_t half = row % block_rows / kLane * kLane; // bytes to the rows of BY 4
        for (size_t at = k; at < k + count; at += by_) {
            const size_t block = (tile * (cols / bk_) + at / bk_) * (tile_rows_ / block_rows) + row_block;
            const uint8_t *bytes = bytes_ + (block * inner + at % bk_ / by_) * 64 + half;
            const __m256i first = load32(bytes);
            if (by_ == 4) {
                store(low(first), high(first), panel);
            } else {
                const __m256i second = load32(bytes + 32);
                store(low(first), low(second), panel);
                store(high(first), high(second), panel + kPanelStep);
            }
            panel += by_ / 4 * kPanelStep;
        }
    }

  private:
    static void store(__m128i upper_rows, __m128i lower_rows, uint8_t *panel) {
        _mm512_store_si512(panel, decode_pairs(upper_rows));
        _mm512_store_si512(panel + 64, decode_pairs(lower_rows));
    }

    size_t tile_rows_, bk_, by_;
    const uint8_t *bytes_;
};

class Tl2 {
  public:
    size_t rows, cols;

    explicit Tl2(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows_(weights.layout.bm),
          units_(weights.layout.bk / kUnit), triple_cols_(cols / weights.layout.bk * weights.layout.bk),
          magnitudes_(weights.bytes), signs_(magnitudes_ + triple_cols_ / 6 * rows),
          pairs_(signs_ + triple_cols_ / 24 * rows) {}

    size_t strip(size_t k) const {
        const size_t end = k < triple_cols_ ? triple_cols_ : cols;
        const size_t most = k < triple_cols_ ? kStripCols / kUnit * kUnit : kStripCols;
        return end - k < most ? end - k : most;
    }

    void fill(size_t lane, size_t k, size_t count, uint8_t *panel) const {
        const size_t tile = lane / (tile_rows_ / kLane), in_tile = lane % (tile_rows_ / kLane);
        if (k >= triple_cols_) {
            const size_t blocks = (cols - triple_cols_) / kPairCols;
            const size_t from = (k - triple_cols_) / kPairCols;
            for (size_t b = from; b < from + count / kPairCols; ++b) {
                const uint8_t *bytes = pairs_ + ((tile * blocks + b) * (tile_rows_ / kLane) + in_tile) * 256;
                for (size_t at = 0; at < 256; at += 32, panel += kPanelStep) {
                    const __m256i ordered = in_order(load32(bytes + at));
                    _mm512_store_si512(panel, decode_pairs(low(ordered)));
                    _mm512_store_si512(panel + 64, decode_pairs(high(ordered)));
                }
            }
            return;
        }
        const size_t blocks = triple_cols_ / kUnit / units_;
        for (size_t unit = k / kUnit; unit < (k + count) / kUnit; ++unit) {
            const size_t block = (tile * blocks + unit / units_) * (tile_rows_ / kLane) + in_tile;
            const size_t at = block * units_ + unit % units_;
            decode_unit(magnitudes_ + at * 128, signs_ + at * 32, panel);
            panel += kUnit / 4 * kPanelStep;
        }
    }

  private:
    // u of the three columns of a signed magnitude, the sign as bit 4: what a 32-bit lane becomes.
    struct Table {
        __m512i plus, minus;
        __m512i of(__m512i index) const { return _mm512_permutex2var_epi32(plus, index, minus); }
    };
    static Table table() {
        // Balanced ternary digits of 0 .. 13, plus 1, the most significant in the lowest byte. Magnitudes 14
        // and 15 were refused.
        const __m512i plus =
            _mm512_setr_epi32(0x010101, 0x020101, 0x000201, 0x010201, 0x020201, 0x000002, 0x010002, 0x020002,
                              0x000102, 0x010102, 0x020102, 0x000202, 0x010202, 0x020202, 0, 0);
        return {plus, _mm512_sub_epi32(_mm512_set1_epi32(0x020202), plus)};
    }

    // 24 columns of 32 rows.
    static void decode_unit(const uint8_t *magnitudes, const uint8_t *signs, uint8_t *panel) {
        const Table codes = table();
        // Bit 15 - 2g of word i is the sign of row i in triple g, bit 14 - 2g that of row 16 + i.
        const __m512i sign_bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(load32(signs)), 16);
        for (int quad = 0; quad < 2; ++quad, magnitudes += 64, panel += 3 * kPanelStep) {
            const __m256i first = in_order(load32(magnitudes)), second = in_order(load32(magnitudes + 32));
            decode_quad(codes, low(first), low(second), _mm512_slli_epi32(sign_bits, 8 * quad), panel);
            decode_quad(codes, high(first), high(second), _mm512_slli_epi32(sign_bits, 8 * quad + 1),
                        panel + 64);
        }
    }

    // Four triples of 16 rows; bits 31, 29, 27, 25 of `signs` are theirs.
    static void decode_quad(const Table &codes, __m128i first, __m128i second, __m512i signs,
                            uint8_t *panel) {
        const __m512i nibble = _mm512_set1_epi32(15);
        const __m512i a = _mm512_cvtepu8_epi32(first), b = _mm512_cvtepu8_epi32(second);
        // Bits 0-3 of the magnitude, bit 4 of the shifted signs; the lookup ignores those above.
        const auto decode = [&](__m512i magnitude, __m512i sign) {
            return codes.of(_mm512_ternarylogic_epi32(nibble, magnitude, sign, 0xca));
        };
        const __m512i t0 = decode(_mm512_srli_epi32(a, 4), _mm512_srli_epi32(signs, 27));
        const __m512i t1 = decode(a, _mm512_srli_epi32(signs, 25));
        const __m512i t2 = decode(_mm512_srli_epi32(b, 4), _mm512_srli_epi32(signs, 23));
        const __m512i t3 = decode(b, _mm512_srli_epi32(signs, 21));
        _mm512_store_si512(panel, _mm512_or_si512(t0, _mm512_slli_epi32(t1, 24)));
        _mm512_store_si512(panel + kPanelStep,
                           _mm512_or_si512(_mm512_srli_epi32(t1, 8), _mm512_slli_epi32(t2, 16)));
        _mm512_store_si512(panel + 2 * kPanelStep,
                           _mm512_or_si512(_mm512_srli_epi32(t2, 16), _mm512_slli_epi32(t3, 8)));
    }

    size_t tile_rows_;
    size_t units_; // per block of BK columns
    size_t triple_cols_;
    const uint8_t *magnitudes_, *signs_, *pairs_;
};

// Format knows the bytes: rows, cols, strip(k), fill(lane, k, count, panel).
template <class Format> class TlAvx512Vnni final : public Product {
  public:
    using Make = bnb_status (*)(const bnb_weights &weights, size_t n_max, Product **product);

    // `make_few` checks the layout and the codes, and makes the product for few activation rows.
    static bnb_status make(const bnb_weights &weights, size_t n_max, Make make_few, Product **product) {
        Owned few = {nullptr};
        const bnb_status status = make_few(weights, n_max < kFewRows ? n_max : kFewRows, &few.product);
        if (status == BNB_OK) {
            *product = new TlAvx512Vnni(weights, few);
        }
        return status;
    }

    ~TlAvx512Vnni() override { delete few_; }
    TlAvx512Vnni(const TlAvx512Vnni &) = delete;
    TlAvx512Vnni &operator=(const TlAvx512Vnni &) = delete;

    size_t row_step(size_t n) const noexcept override {
        return n <= kFewRows ? few_->row_step(n) : kPanelRows;
    }
    void reserve(size_t workers) override { few_->reserve(workers); }
    uint64_t bytes() const noexcept override { return few_->bytes(); }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t worker) noexcept override {
        if (n <= kFewRows) {
            few_->run_rows(q, n, out, first, last, worker);
            return;
        }
        for (size_t i = 0; i < n; i += kPassRows) {
            const size_t pass = n - i < kPassRows ? n - i : kPassRows;
            multiply_rows(q + i * format_.cols, pass, out + i * format_.rows, first, last);
        }
    }

  private:
    struct Owned {
        Product *product;
        ~Owned() { delete product; }
    };

    TlAvx512Vnni(const bnb_weights &weights, Owned &few) : format_(weights), few_(few.product) {
        few.product = nullptr;
    }

    void multiply_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last) const {
        alignas(64) uint8_t panel[kPanelRows * kStripCols];
        int32_t sums[kPassRows];
        negated_sums(q, format_.cols, n, sums);
        for (size_t row = first; row < last; row += kPanelRows) {
            const size_t count = last - row < kPanelRows ? last - row : kPanelRows;
            for (size_t k = 0, strip; k < format_.cols; k += strip) {
                strip = format_.strip(k);
                // Where half a panel is left, its 32 rows stand there twice.
                format_.fill(row / kLane, k, strip, panel);
                format_.fill((row + count - 1) / kLane, k, strip, panel + 128);
                const Target target = {out + row, format_.rows, count, k == 0 ? sums : nullptr};
                multiply_panel_rows(panel, strip / 4, q + k, format_.cols, n, target);
            }
        }
    }

    Format format_;
    Product *few_;
};

} // namespace

bnb_status make_tl1_avx512vnni(const bnb_weights &weights, size_t n_max, Product **product) {
    return TlAvx512Vnni<Tl1>::make(weights, n_max, make_tl1_avx2, product);
}

bnb_status make_tl2_avx512vnni(const bnb_weights &weights, size_t n_max, Product **product) {
    return TlAvx512Vnni<Tl2>::make(weights, n_max, make_tl2_avx2, product);
}

} // namespace bnb
