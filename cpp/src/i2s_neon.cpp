// I2_S products in plain NEON (i2s_neon.hpp): widening multiply-accumulate, int8 times int8 onto int16.

#include "i2s_neon.hpp"

namespace bnb {
namespace {

// A lane takes one product of at most 2 * 128 from each vector, eight vectors from each block: after 16
// blocks it may be at -32768, which int16 just holds, or at 32512.
struct WideningDot {
    static constexpr size_t kFlushBlocks = 16;
    static constexpr int kRows = 4;
    static constexpr int kCells = 8; // sixteen accumulators

    int16x8_t low = vdupq_n_s16(0), high = vdupq_n_s16(0);

    void add(uint8x16_t codes, int8x16_t q) {
        const int8x16_t u = vreinterpretq_s8_u8(codes);
        low = vmlal_s8(low, vget_low_s8(u), vget_low_s8(q));
        high = vmlal_high_s8(high, u, q);
    }
    uint32x4_t take() const { return vreinterpretq_u32_s32(vpadalq_s16(vpaddlq_s16(low), high)); }
};

} // namespace

bnb_status make_i2s_neon(const bnb_weights &weights, size_t, Product **product) {
    return neon::make_i2s<WideningDot>(weights, product);
}

} // namespace bnb
