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

// All codes [rows, cols] of a tensor; BNB_INVALID_DATA where there is a code that no packer produces.
bnb_status unpack_codes(const bnb_layout &layout, const Sizes &sizes, const uint8_t *bytes, int8_t *codes);

// Tile `tile` of TL1 or TL2: codes [bm, cols] <-> its part of the code bytes of the tensor `bytes`. False at
// a code that no packer produces. kCodePadding codes behind the tile's may be read, and must be there.
constexpr size_t kCodePadding = 16;
void pack_tl_tile_portable(const bnb_layout &layout, const Sizes &sizes, size_t tile, const int8_t *codes,
                           uint8_t *bytes);
bool unpack_tl_tile_portable(const bnb_layout &layout, const Sizes &sizes, size_t tile, const uint8_t *bytes,
                             int8_t *codes);
void pack_tl_tile_avx2(const bnb_layout &layout, const Sizes &sizes, size_t tile, const int8_t *codes,
                       uint8_t *bytes);
bool unpack_tl_tile_avx2(const bnb_layout &layout, const Sizes &sizes, size_t tile, const uint8_t *bytes,
                         int8_t *codes);

// The I2_S layout knows no rows: any number of whole blocks of 128 codes <-> 32 bytes.
void pack_i2s_portable(const int8_t *codes, size_t blocks, uint8_t *dst);
bool unpack_i2s_portable(const uint8_t *bytes, size_t blocks, int8_t *codes);

} // namespace bnb
