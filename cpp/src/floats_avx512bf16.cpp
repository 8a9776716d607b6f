// BF16 products in AVX-512 BF16: vdpbf16ps adds two products to each of sixteen floats, one after the other,
// rounding to nearest even; it takes subnormal numbers for zeros and gives zeros for them.

#include "floats_native_avx512.hpp"

namespace bnb {
namespace {

struct Bf16 {
    using Acc = __m512;
    static constexpr size_t kBlock = SIZE_MAX; // a float loses nothing to speak of
    static __m512 zero() { return _mm512_setzero_ps(); }
    static void add(__m512 &acc, __m512i w, __m512i x) {
        acc = _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
    }
    static __m512 wide(__m512 acc) { return acc; }
};

// The exponents of BF16 are those of float32.
int exponent(int, const float *, size_t) {
    return 0;
}

void round(const float *x, size_t n, int, uint16_t *rounded) {
    for (size_t at = 0; at < (n + kNativeGroup - 1) / kNativeGroup * kNativeGroup; at += 16) {
        const __m512 values = _mm512_maskz_loadu_ps(floats_below(at < n ? n - at : 0), x + at);
        _mm256_store_si256(reinterpret_cast<__m256i *>(rounded + at),
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
    }
}

} // namespace

const NativeKernels kNativeBf16 = {exponent, round, native_dots<Bf16>};

} // namespace bnb
