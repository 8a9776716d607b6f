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
#include "tl_vnni.hpp"

namespace bnb {
namespace {

using namespace avx512;

inline __m128i low(__m256i v) {
    return _mm256_castsi256_si128(v);
}
inline __m128i high(__m256i v) {
    return _mm256_extracti128_si256(v, 1);
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

class Avx512VnniPanel {
  public:
    static constexpr size_t kRows = kPanelRows;
    static constexpr size_t kStripCols = avx512::kStripCols;
    static constexpr size_t kPassRows = avx512::kPassRows;
    static constexpr size_t kFewRows = 2;
    using Target = avx512::Target;

    static void negated_sums(const int8_t *q, size_t cols, size_t n, int32_t *sums) {
        avx512::negated_sums(q, cols, n, sums);
    }
    static void multiply(const uint8_t *panel, size_t steps, const int8_t *q, size_t cols, size_t n,
                         const Target &target) {
        multiply_panel_rows(panel, steps, q, cols, n, target);
    }

    static void pairs(__m256i bytes, uint8_t *panel) {
        _mm512_store_si512(panel, decode_pairs(low(bytes)));
        _mm512_store_si512(panel + 64, decode_pairs(high(bytes)));
    }

    static void triples(const uint8_t *magnitudes, const uint8_t *signs, uint8_t *panel) {
        const Table codes = table();
        // Bit 15 - 2g of word i is the sign of row i in triple g, bit 14 - 2g that of row 16 + i.
        const __m512i sign_bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(tl_vnni::load32(signs)), 16);
        for (int quad = 0; quad < 2; ++quad, magnitudes += 64, panel += 3 * kPanelStep) {
            const __m256i first = tl_vnni::in_order(tl_vnni::load32(magnitudes)),
                          second = tl_vnni::in_order(tl_vnni::load32(magnitudes + 32));
            decode_quad(codes, low(first), low(second), _mm512_slli_epi32(sign_bits, 8 * quad), panel);
            decode_quad(codes, high(first), high(second), _mm512_slli_epi32(sign_bits, 8 * quad + 1),
                        panel + 64);
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
};

template <template <class> class Format>
using TlAvx512Vnni = tl_vnni::TlVnni<Format<Avx512VnniPanel>, Avx512VnniPanel>;

} // namespace

bnb_status make_tl1_avx512vnni(const bnb_weights &weights, size_t n_max, Product **product) {
    return TlAvx512Vnni<tl_vnni::Tl1>::make(weights, n_max, make_tl1_avx2, product);
}

bnb_status make_tl2_avx512vnni(const bnb_weights &weights, size_t n_max, Product **product) {
    return TlAvx512Vnni<tl_vnni::Tl2>::make(weights, n_max, make_tl2_avx2, product);
}

} // namespace bnb
