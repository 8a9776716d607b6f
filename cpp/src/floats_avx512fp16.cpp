// F16 products in AVX512-FP16: 32 fused products at a time, added in F16 while that loses little: twelve to a
// lane, then the two halves of the vector, which are widened to float32. docs/NUMERICS.md counts the
// roundings. Activations are scaled so that 24 products of the largest values never overflow.
//
// Compilers before gcc 12 and clang 14 do not know these instructions; then nothing is offered.

#include "floats_native.hpp"

#ifdef __AVX512FP16__
#include "floats_native_avx512.hpp"

namespace bnb {
namespace {

constexpr int kBlockBits = 5; // 2 * kBlock < 2^5

struct F16 {
    using Acc = __m512h;
    static constexpr size_t kBlock = 12;
    static __m512h zero() { return _mm512_setzero_ph(); }
    static void add(__m512h &acc, __m512i w, __m512i x) {
        acc = _mm512_fmadd_ph(_mm512_castsi512_ph(w), _mm512_castsi512_ph(x), acc);
    }
    static __m512 wide(__m512h acc) {
        const __m256h upper = _mm256_castpd_ph(_mm512_extractf64x4_pd(_mm512_castph_pd(acc), 1));
        return _mm512_cvtxph_ps(_mm256_add_ph(_mm512_castph512_ph256(acc), upper));
    }
};

int exponent(int largest, const float *x, size_t n) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (size_t at = 0; at < n; at += 16) {
        const __m512 values = _mm512_maskz_loadu_ps(floats_below(n - at), x + at);
        most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(values), magnitude));
    }
    const int bits = _mm512_reduce_max_epi32(most);
    if (bits >= 0x7f800000) { // no scale makes numbers of these
        return 0;
    }
    const int of_x = (bits >> 23) - 126;
    const int room = 15 - of_x, room_for_products = 15 - kBlockBits - largest - of_x;
    return room < room_for_products ? room : room_for_products;
}

void round(const float *x, size_t n, int exponent, uint16_t *rounded) {
    const __m512 power = _mm512_set1_ps(static_cast<float>(exponent));
    for (size_t at = 0; at < (n + kNativeGroup - 1) / kNativeGroup * kNativeGroup; at += 16) {
        const __m512 values = _mm512_maskz_loadu_ps(floats_below(at < n ? n - at : 0), x + at);
        const __m256i half = _mm512_cvtps_ph(_mm512_scalef_ps(values, power), _MM_FROUND_TO_NEAREST_INT);
        _mm256_store_si256(reinterpret_cast<__m256i *>(rounded + at), half);
    }
}

} // namespace

const NativeKernels kNativeF16 = {exponent, round, native_dots<F16>};

} // namespace bnb
#else
namespace bnb {
const NativeKernels kNativeF16 = {nullptr, nullptr, nullptr};
} // namespace bnb
#endif
