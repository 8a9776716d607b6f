// I2_S products with SDOT (i2s_neon.hpp): four int8 products at once onto an int32 lane, modulo 2^32.
// Compiled with +dotprod and called only after detection.

#include "i2s_neon.hpp"

namespace bnb {
namespace {

struct FourfoldDot {
    static constexpr size_t kFlushBlocks = SIZE_MAX; // never
    static constexpr int kRows = 4;
    static constexpr int kCells = 16; // accumulators

    int32x4_t sum = vdupq_n_s32(0);

    void add(uint8x16_t codes, int8x16_t q) { sum = vdotq_s32(sum, vreinterpretq_s8_u8(codes), q); }
    uint32x4_t take() const { return vreinterpretq_u32_s32(sum); }
};

} // namespace

bnb_status make_i2s_neondotprod(const bnb_weights &weights, size_t, Product **product) {
    return neon::make_i2s<FourfoldDot>(weights, product);
}

} // namespace bnb
