// Legal layouts of packed ternary weights and their sizes; packing and unpacking (docs/FORMATS.md 2, 5, 6).
#pragma once

#include <cstddef>
#include <cstdint>

#include "bitnet_backend.h"

namespace bnb {

// What follows from a legal layout.
struct Sizes {
    size_t weights;      // rows * cols
    size_t code_bytes;   // bytes that hold codes; padding up to scale_offset follows
    size_t scale_offset; // where the little-endian float32 scale stands
    size_t packed_bytes; // the whole tensor: codes, padding, scale, 28 bytes of tail
    size_t three_cols;   // TL2: columns held as 3-weight groups; 0 for the other formats
};

constexpr size_t kTailBytes = 32;
constexpr size_t kI2sBlock = 128; // columns per I2_S block
constexpr size_t kI2sBlockBytes = 32;

// BNB_INVALID_ARGUMENT for an unknown format, BNB_UNSUPPORTED for a shape or tile the format cannot hold.
bnb_status check_layout(const bnb_layout &layout, Sizes *sizes);

// Codes [rows, cols] of -1, 0, +1 -> the code bytes of `layout` (sizes.code_bytes of them, nothing behind).
void pack_codes(const bnb_layout &layout, const Sizes &sizes, const int8_t *codes, uint8_t *dst);

// The inverse; BNB_INVALID_DATA at the first code that no packer produces.
bnb_status unpack_codes(const bnb_layout &layout, const Sizes &sizes, const uint8_t *bytes, int8_t *codes);

// The I2_S layout knows no rows: any number of whole blocks of 128 codes <-> 32 bytes.
void pack_i2s_portable(const int8_t *codes, size_t blocks, uint8_t *dst);
bool unpack_i2s_portable(const uint8_t *bytes, size_t blocks, int8_t *codes);

} // namespace bnb
