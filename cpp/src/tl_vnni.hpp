// TL1 and TL2 where there is vpdpbusd, in 256 or 512 bits. The bytes stand in docs/FORMATS.md.
//
// A few activation rows are looked up, by the AVX2 kernels. More rows are multiplied: some weight rows of a
// strip of columns are decoded to a panel of u = code + 1 once, and every activation row is multiplied by it.
// A panel holds for every four columns its rows one after the other, four bytes of a row together, which is
// what a lane of vpdpbusd eats. How bytes become panels and what multiplies them is the instruction set's:
//
//   kRows, kStripCols   weight rows of a panel, a multiple of 32, and the most columns
//   kFewRows            activation rows up to which looking up is faster
//   kPassRows           activation rows that meet a panel before it is made anew
//   Target              {out, rows, count, before}: out[activation row][weight row], `rows` apart, of the
//                       panel's first row; weight rows that exist; what sums start from, or NULL: `out`
//   pairs(bytes, panel)               32 bytes of two pair indices, rows in order -> four columns of 32 rows
//   triples(magnitudes, signs, panel) a unit of TL2 -> 24 columns of 32 rows
//   multiply(panel, steps, q, cols, n, target)    n activation rows, `cols` apart; steps of four columns
//   negated_sums(q, cols, n, sums)
#pragma once

#include <immintrin.h>

#include "product.hpp"

namespace bnb {
namespace tl_vnni {

constexpr size_t kLane = 32;             // rows that stand together
constexpr size_t kLaneBytes = 4 * kLane; // of four columns in a panel
constexpr size_t kUnit = 24;             // columns of eight triples
constexpr size_t kPairCols = 32;         // columns of a block of pairs in TL2

// `static`: a copy compiled with wider flags must not serve the whole program.

static inline __m256i load32(const uint8_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}

// 32 bytes that hold rows 0-7, 16-23, 8-15, 24-31, in order.
static inline __m256i in_order(__m256i bytes) {
    return _mm256_permute4x64_epi64(bytes, 0xd8);
}

template <class Panel> class Tl1 {
    static constexpr size_t kStep = 4 * Panel::kRows; // bytes of four columns

  public:
    size_t rows, cols;

    explicit Tl1(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows_(weights.layout.bm),
          bk_(weights.layout.bk), by_(weights.layout.by), bytes_(weights.bytes) {}

    // Columns of the strip that starts at column k.
    size_t strip(size_t k) const { return cols - k < Panel::kStripCols ? cols - k : Panel::kStripCols; }

    // Columns [k, k + count) of 32 rows of the panel.
    void fill(size_t lane, size_t k, size_t count, uint8_t *panel) const {
        // An inner block is 64 bytes: BY 4: rows 0-15, 16-31, 32-47, 48-63 of four columns; BY 8: rows 0-15
        // of columns 0-3 and 4-7, then rows 16-31.
        const size_t row = lane * kLane, block_rows = 256 / by_, inner = bk_ / by_;
        const size_t tile = row / tile_rows_, row_block = row % tile_rows_ / block_rows;
        const size_t half = row % block_rows / kLane * kLane;           // bytes to the rows of BY 4
        const size_t next = (tile_rows_ / block_rows - 1) * inner * 64; // from block to block of BK columns
        const size_t block = (tile * (cols / bk_) + k / bk_) * (tile_rows_ / block_rows) + row_block;
        size_t in_block = k % bk_ / by_;
        const uint8_t *bytes = bytes_ + (block * inner + in_block) * 64 + half;
        for (size_t done = 0; done < count; done += by_, bytes += 64) {
            if (in_block++ == inner) {
                in_block = 1;
                bytes += next;
            }
            const __m256i first = load32(bytes);
            if (by_ == 4) {
                Panel::pairs(first, panel);
            } else {
                const __m256i second = load32(bytes + 32);
                Panel::pairs(_mm256_permute2x128_si256(first, second, 0x20), panel);
                Panel::pairs(_mm256_permute2x128_si256(first, second, 0x31), panel + kStep);
            }
            panel += by_ / 4 * kStep;
        }
    }

  private:
    size_t tile_rows_, bk_, by_;
    const uint8_t *bytes_;
};

template <class Panel> class Tl2 {
    static constexpr size_t kStep = 4 * Panel::kRows;

  public:
    size_t rows, cols;

    explicit Tl2(const bnb_weights &weights)
        : rows(weights.layout.rows), cols(weights.layout.cols), tile_rows_(weights.layout.bm),
          units_(weights.layout.bk / kUnit), triple_cols_(cols / weights.layout.bk * weights.layout.bk),
          magnitudes_(weights.bytes), signs_(magnitudes_ + triple_cols_ / 6 * rows),
          pairs_(signs_ + triple_cols_ / 24 * rows) {}

    size_t strip(size_t k) const {
        const size_t end = k < triple_cols_ ? triple_cols_ : cols;
        const size_t most = k < triple_cols_ ? Panel::kStripCols / kUnit * kUnit : Panel::kStripCols;
        return end - k < most ? end - k : most;
    }

    void fill(size_t lane, size_t k, size_t count, uint8_t *panel) const {
        const size_t tile = lane / (tile_rows_ / kLane), in_tile = lane % (tile_rows_ / kLane);
        if (k >= triple_cols_) {
            const size_t blocks = (cols - triple_cols_) / kPairCols;
            const size_t from = (k - triple_cols_) / kPairCols;
            for (size_t b = from; b < from + count / kPairCols; ++b) {
                const uint8_t *bytes = pairs_ + ((tile * blocks + b) * (tile_rows_ / kLane) + in_tile) * 256;
                for (size_t at = 0; at < 256; at += 32, panel += kStep) {
                    Panel::pairs(in_order(load32(bytes + at)), panel);
                }
            }
            return;
        }
        const size_t lanes = tile_rows_ / kLane, first = k / kUnit;
        size_t in_block = first % units_;
        size_t at =
            ((tile * (triple_cols_ / kUnit / units_) + first / units_) * lanes + in_tile) * units_ + in_block;
        for (size_t done = 0; done < count; done += kUnit, ++at, panel += kUnit / 4 * kStep) {
            if (in_block++ == units_) { // the next block of BK columns stands behind those of the other rows
                in_block = 1;
                at += (lanes - 1) * units_;
            }
            Panel::triples(magnitudes_ + at * 128, signs_ + at * 32, panel);
        }
    }

  private:
    size_t tile_rows_;
    size_t units_; // per block of BK columns
    size_t triple_cols_;
    const uint8_t *magnitudes_, *signs_, *pairs_;
};

// Format knows the bytes: rows, cols, strip(k), fill(lane, k, count, panel).
template <class Format, class Panel> class TlVnni final : public Product {
  public:
    using Make = bnb_status (*)(const bnb_weights &weights, size_t n_max, Product **product);

    // `make_few` checks the layout and the codes, and makes the product for few activation rows.
    static bnb_status make(const bnb_weights &weights, size_t n_max, Make make_few, Product **product) {
        Owned few = {nullptr};
        const size_t few_rows = n_max < Panel::kFewRows ? n_max : Panel::kFewRows;
        const bnb_status status = make_few(weights, few_rows, &few.product);
        if (status == BNB_OK) {
            *product = new TlVnni(weights, few);
        }
        return status;
    }

    ~TlVnni() override { delete few_; }
    TlVnni(const TlVnni &) = delete;
    TlVnni &operator=(const TlVnni &) = delete;

    size_t row_step(size_t n) const noexcept override {
        return n <= Panel::kFewRows ? few_->row_step(n) : Panel::kRows;
    }
    void reserve(size_t workers) override { few_->reserve(workers); }
    uint64_t bytes() const noexcept override { return few_->bytes(); }

    void run_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last,
                  size_t worker) noexcept override {
        if (n <= Panel::kFewRows) {
            few_->run_rows(q, n, out, first, last, worker);
            return;
        }
        for (size_t i = 0; i < n; i += Panel::kPassRows) {
            const size_t pass = n - i < Panel::kPassRows ? n - i : Panel::kPassRows;
            multiply_rows(q + i * format_.cols, pass, out + i * format_.rows, first, last);
        }
    }

  private:
    struct Owned {
        Product *product;
        ~Owned() { delete product; }
    };

    TlVnni(const bnb_weights &weights, Owned &few) : format_(weights), few_(few.product) {
        few.product = nullptr;
    }

    void multiply_rows(const int8_t *q, size_t n, int32_t *out, size_t first, size_t last) const {
        alignas(64) uint8_t panel[Panel::kRows * Panel::kStripCols];
        int32_t sums[Panel::kPassRows];
        Panel::negated_sums(q, format_.cols, n, sums);
        for (size_t row = first; row < last; row += Panel::kRows) {
            const size_t count = last - row < Panel::kRows ? last - row : Panel::kRows;
            for (size_t k = 0, strip; k < format_.cols; k += strip) {
                strip = format_.strip(k);
                for (size_t lane = 0; lane < Panel::kRows / kLane; ++lane) {
                    // Where the panel has more rows than are left, the last 32 stand there again.
                    const size_t at = lane * kLane < count ? row + lane * kLane : last - kLane;
                    format_.fill(at / kLane, k, strip, panel + lane * kLaneBytes);
                }
                const typename Panel::Target target = {out + row, format_.rows, count,
                                                       k == 0 ? sums : nullptr};
                Panel::multiply(panel, strip / 4, q + k, format_.cols, n, target);
            }
        }
    }

    Format format_;
    Product *few_;
};

} // namespace tl_vnni
} // namespace bnb
