// TL1 and TL2 in AVX-VNNI (tl_vnni.hpp): panels of 32 weight rows, four vectors for every four columns.
//
// Codes are looked up with vpshufb, 32 rows of a column at a time, and four columns are interleaved. The 128-
// bit halves of a register never mix there, so that vector v of a panel holds rows 4v .. 4v + 3 and the same
// sixteen further on; outputs are stored accordingly.
//
// Two vectors meet up to six activation rows, of which four neighbours are broadcast: 12 sums, the vectors
// and the activations fill 15 of the 16 registers.
//
// Compiled with its own flags and free of the standard library, see quantize_avx2.cpp.

#include "tl_vnni.hpp"

#include <cstring>

#include "avxvnni.hpp"

namespace bnb {
namespace {

using avxvnni::add_products;
using avxvnni::load;

constexpr size_t kStep = tl_vnni::kLaneBytes; // bytes of four columns of a panel
constexpr size_t kTileColumns = 6;            // activation rows whose sums stay in registers

// Where the products of a panel go.
struct PanelTarget {
    int32_t *out;
    size_t rows;
    size_t count; // always a whole panel
    const int32_t *before;
};

inline void store(void *p, __m256i v) {
    _mm256_storeu_si256(static_cast<__m256i *>(p), v);
}

inline __m256i table(__m128i sixteen) {
    return _mm256_broadcastsi128_si256(sixteen);
}

// Four columns of 32 rows -> one step of a panel.
inline void interleave(const __m256i *columns, uint8_t *panel) {
    const __m256i a = _mm256_unpacklo_epi8(columns[0], columns[1]);
    const __m256i b = _mm256_unpackhi_epi8(columns[0], columns[1]);
    const __m256i c = _mm256_unpacklo_epi8(columns[2], columns[3]);
    const __m256i d = _mm256_unpackhi_epi8(columns[2], columns[3]);
    store(panel, _mm256_unpacklo_epi16(a, c));
    store(panel + 32, _mm256_unpackhi_epi16(a, c));
    store(panel + 64, _mm256_unpacklo_epi16(b, d));
    store(panel + 96, _mm256_unpackhi_epi16(b, d));
}

// u of the three columns of 32 triples; the sign is the highest bit of each byte, none of which may be 0.
inline void decode_triples(__m256i magnitude, __m256i sign, __m256i *columns) {
    const __m256i digits[3] = {table(_mm_setr_epi8(0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)),
                               table(_mm_setr_epi8(0, 0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0)),
                               table(_mm_setr_epi8(0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0))};
    for (int i = 0; i < 3; ++i) {
        const __m256i code = _mm256_sign_epi8(_mm256_shuffle_epi8(digits[i], magnitude), sign);
        columns[i] = _mm256_add_epi8(code, _mm256_set1_epi8(1));
    }
}

// Two vectors of a panel times kColumns activation rows.
template <int kColumns>
void multiply_half(const uint8_t *panel, size_t steps, const int8_t *q, size_t cols,
                   const PanelTarget &target, size_t first) {
    __m256i sums[kColumns][2];
#pragma GCC unroll 6
    for (int c = 0; c < kColumns; ++c) {
        sums[c][0] = sums[c][1] = _mm256_setzero_si256();
    }
    for (const uint8_t *end = panel + steps * kStep; panel != end; panel += kStep, q += 4) {
        const __m256i u[2] = {load(panel), load(panel + 32)};
#pragma GCC unroll 6
        for (int c = 0; c < kColumns; ++c) {
            int32_t four;
            std::memcpy(&four, q + static_cast<size_t>(c) * cols, sizeof four);
            const __m256i activations = _mm256_set1_epi32(four);
            add_products(sums[c][0], u[0], activations);
            add_products(sums[c][1], u[1], activations);
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < kColumns; ++c) {
        const size_t row = first + static_cast<size_t>(c);
        int32_t *out = target.out + row * target.rows;
        // Rows 0-7 of the two vectors together, then rows 16-23.
        const __m256i sixteen[2] = {_mm256_permute2x128_si256(sums[c][0], sums[c][1], 0x20),
                                    _mm256_permute2x128_si256(sums[c][0], sums[c][1], 0x31)};
        for (int half = 0; half < 2; ++half, out += 16) {
            const __m256i before =
                target.before == nullptr ? load(out) : _mm256_set1_epi32(target.before[row]);
            store(out, _mm256_add_epi32(before, sixteen[half]));
        }
    }
}

struct AvxVnniPanel {
    static constexpr size_t kRows = 32;
    static constexpr size_t kStripCols = 768; // 24 KB of panel, half of the L1 cache
    static constexpr size_t kFewRows = 3;
    static constexpr size_t kPassRows = 256;
    using Target = PanelTarget;

    static void negated_sums(const int8_t *q, size_t cols, size_t n, int32_t *sums) {
        avxvnni::negated_sums(q, cols, n, sums);
    }

    static void pairs(__m256i bytes, uint8_t *panel) {
        const __m256i first = table(_mm_setr_epi8(0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0));
        const __m256i second = table(_mm_setr_epi8(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0));
        const __m256i nibble = _mm256_set1_epi8(15);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
        const __m256i low = _mm256_and_si256(bytes, nibble);
        const __m256i columns[4] = {_mm256_shuffle_epi8(first, high), _mm256_shuffle_epi8(second, high),
                                    _mm256_shuffle_epi8(first, low), _mm256_shuffle_epi8(second, low)};
        interleave(columns, panel);
    }

    static void triples(const uint8_t *magnitudes, const uint8_t *signs, uint8_t *panel) {
        // Bit 15 - 2g of word i is the sign of row i in triple g, bit 14 - 2g that of row 16 + i. In bytes,
        // triples 0-3 and 4-7: bits 7, 5, 3, 1 are the signs; those between are set, so that no byte is 0
        // when the wanted one is shifted to the top.
        const __m256i upper_rows = load(signs), lower_rows = _mm256_slli_epi16(upper_rows, 1);
        const __m256i byte = _mm256_set1_epi16(255), between = _mm256_set1_epi8(0x55);
        const __m256i four[2] = {
            _mm256_packus_epi16(_mm256_srli_epi16(upper_rows, 8), _mm256_srli_epi16(lower_rows, 8)),
            _mm256_packus_epi16(_mm256_and_si256(upper_rows, byte), _mm256_and_si256(lower_rows, byte))};
        const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 2
        for (int quad = 0; quad < 2; ++quad) {
            const __m256i sign = _mm256_or_si256(tl_vnni::in_order(four[quad]), between);
            __m256i columns[12];
#pragma GCC unroll 2
            for (int two = 0; two < 2; ++two, magnitudes += 32) {
                const __m256i bytes = tl_vnni::in_order(load(magnitudes));
                decode_triples(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble),
                               _mm256_slli_epi16(sign, 4 * two), columns + 6 * two);
                decode_triples(_mm256_and_si256(bytes, nibble), _mm256_slli_epi16(sign, 4 * two + 2),
                               columns + 6 * two + 3);
            }
            for (int at = 0; at < 12; at += 4, panel += kStep) {
                interleave(columns + at, panel);
            }
        }
    }

    // The last tiles share evenly, so that none is left with few sums to hide the latency of an addition.
    static void multiply(const uint8_t *panel, size_t steps, const int8_t *q, size_t cols, size_t n,
                         const PanelTarget &target) {
        using Multiply =
            void (*)(const uint8_t *, size_t, const int8_t *, size_t, const PanelTarget &, size_t);
        static constexpr Multiply kMultiply[kTileColumns + 1] = {
            nullptr,          multiply_half<1>, multiply_half<2>, multiply_half<3>,
            multiply_half<4>, multiply_half<5>, multiply_half<6>};
        const PanelTarget second = {target.out + 8, target.rows, target.count, target.before};
        const size_t tiles = (n + kTileColumns - 1) / kTileColumns;
        for (size_t tile = 0; tile < tiles; ++tile) {
            const size_t from = n * tile / tiles, columns = n * (tile + 1) / tiles - from;
            kMultiply[columns](panel, steps, q + from * cols, cols, target, from);
            kMultiply[columns](panel + 64, steps, q + from * cols, cols, second, from);
        }
    }
};

template <template <class> class Format>
using TlAvxVnni = tl_vnni::TlVnni<Format<AvxVnniPanel>, AvxVnniPanel>;

} // namespace

bnb_status make_tl1_avxvnni(const bnb_weights &weights, size_t n_max, Product **product) {
    return TlAvxVnni<tl_vnni::Tl1>::make(weights, n_max, make_tl1_avx2, product);
}

bnb_status make_tl2_avxvnni(const bnb_weights &weights, size_t n_max, Product **product) {
    return TlAvxVnni<tl_vnni::Tl2>::make(weights, n_max, make_tl2_avx2, product);
}

} // namespace bnb
