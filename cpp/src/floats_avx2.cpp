// The float products in AVX2, FMA and F16C, to the bit those of floats_portable.cpp.
//
// The 32 lanes are four vectors of eight. One column of x (decode) is bound by reading the rows once: four
// rows a quarter of the matrix apart, so that four streams of memory run at once, two of them at a time in
// registers (eight accumulators) for 256 columns, then the other two; the accumulators wait in the L1 cache
// meanwhile.
//
// More columns are bound by arithmetic. Four rows are decoded to float32 once, and a tile of four rows and
// three columns runs over eight of the 32 lanes at a time: twelve accumulators, seven loads for twelve fused
// products. Rows and columns are first put in the order of their use, eight lanes of everything, then the
// next eight: side by side in memory, where rows of a matrix would meet in a few sets of the L1 cache. Rows
// beyond the end repeat the last one and are not stored.
//
// Compiled with -mavx2 -mfma -mf16c and free of the standard library, see quantize_avx2.cpp. Nothing is
// padded with zeros: fma(0, 0, -0) is +0, so lanes without a value are left as they are, by a blend.

#include <immintrin.h>

#include "model_avx2.hpp"

namespace bnb {
namespace {

constexpr size_t kVector = 8;
constexpr size_t kChunk = 256;          // columns between changes of the pair of rows
constexpr size_t kPrefetchBytes = 2048; // ahead in each stream

inline void prefetch(const uint8_t *p) {
    _mm_prefetch(reinterpret_cast<const char *>(p + kPrefetchBytes), _MM_HINT_T0);
}

// How eight values stand in memory, kBytes for one.
struct F32 {
    static constexpr uint32_t kId = BNB_TYPE_F32;
    static constexpr size_t kBytes = 4;
    static __m256 load8(const uint8_t *p) { return _mm256_loadu_ps(reinterpret_cast<const float *>(p)); }
};
struct F16 {
    static constexpr uint32_t kId = BNB_TYPE_F16;
    static constexpr size_t kBytes = 2;
    static __m256 load8(const uint8_t *p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }
};
struct Bf16 {
    static constexpr uint32_t kId = BNB_TYPE_BF16;
    static constexpr size_t kBytes = 2;
    static __m256 load8(const uint8_t *p) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
        return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
};

inline __m256i load(const void *p) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(p));
}

inline float half_to_float(const uint8_t *bytes) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bytes[0] | bytes[1] << 8)));
}

// All lanes below `rest`, which may be negative.
inline __m256i lanes_below(long rest) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(rest)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// lane[l] += lane[l + h] for h = 16, 8: four vectors to one.
inline __m256 add_vectors(__m256 a, __m256 b, __m256 c, __m256 d) {
    return _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d));
}

// h = 4, 2, 1 for four vectors at once.
inline __m128 add_lanes(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    const __m256 cd = _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
    const __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    const __m256 sums = _mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0xb1)); // a . c . | b . d .
    const __m128 mixed = _mm_shuffle_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1), 0x88);
    return _mm_permute_ps(mixed, 0xd8); // a c b d -> a b c d
}

struct Lanes {
    __m256 part[4];
};

// Two rows over `count` columns, a multiple of 32, onto their lanes.
template <class Type>
inline void accumulate_pair(const uint8_t *row_a, const uint8_t *row_b, const float *x, size_t count,
                            Lanes &a, Lanes &b) {
    __m256 a0 = a.part[0], a1 = a.part[1], a2 = a.part[2], a3 = a.part[3];
    __m256 b0 = b.part[0], b1 = b.part[1], b2 = b.part[2], b3 = b.part[3];
    constexpr size_t step = kVector * Type::kBytes;
    for (size_t k = 0; k < count; k += kFloatLanes, row_a += 4 * step, row_b += 4 * step) {
        prefetch(row_a);
        prefetch(row_b);
        if (Type::kBytes == 4) {
            prefetch(row_a + 64);
            prefetch(row_b + 64);
        }
        const __m256 x0 = _mm256_loadu_ps(x + k), x1 = _mm256_loadu_ps(x + k + 8);
        a0 = _mm256_fmadd_ps(Type::load8(row_a), x0, a0);
        b0 = _mm256_fmadd_ps(Type::load8(row_b), x0, b0);
        a1 = _mm256_fmadd_ps(Type::load8(row_a + step), x1, a1);
        b1 = _mm256_fmadd_ps(Type::load8(row_b + step), x1, b1);
        const __m256 x2 = _mm256_loadu_ps(x + k + 16), x3 = _mm256_loadu_ps(x + k + 24);
        a2 = _mm256_fmadd_ps(Type::load8(row_a + 2 * step), x2, a2);
        b2 = _mm256_fmadd_ps(Type::load8(row_b + 2 * step), x2, b2);
        a3 = _mm256_fmadd_ps(Type::load8(row_a + 3 * step), x3, a3);
        b3 = _mm256_fmadd_ps(Type::load8(row_b + 3 * step), x3, b3);
    }
    a.part[0] = a0, a.part[1] = a1, a.part[2] = a2, a.part[3] = a3;
    b.part[0] = b0, b.part[1] = b1, b.part[2] = b2, b.part[3] = b3;
}

// The last columns of a row, fewer than 32.
template <class Type>
inline void accumulate_tail(const uint8_t *row, const float *x, size_t count, Lanes &lanes) {
    alignas(32) uint8_t bytes[kFloatLanes * Type::kBytes] = {};
    for (size_t i = 0; i < count * Type::kBytes; ++i) {
        bytes[i] = row[i];
    }
    for (size_t v = 0; v < 4; ++v) {
        const __m256i valid = lanes_below(static_cast<long>(count) - static_cast<long>(kVector * v));
        const __m256 w = Type::load8(bytes + v * kVector * Type::kBytes);
        const __m256 values = _mm256_maskload_ps(x + v * kVector, valid);
        const __m256 sum = _mm256_fmadd_ps(w, values, lanes.part[v]);
        lanes.part[v] = _mm256_blendv_ps(lanes.part[v], sum, _mm256_castsi256_ps(valid));
    }
}

inline __m128 add_rows(const Lanes (&rows)[4]) {
    __m256 sums[4];
    for (size_t i = 0; i < 4; ++i) {
        sums[i] = add_vectors(rows[i].part[0], rows[i].part[1], rows[i].part[2], rows[i].part[3]);
    }
    return add_lanes(sums[0], sums[1], sums[2], sums[3]);
}

// Four rows times one column.
template <class Type> inline __m128 four_rows(const uint8_t *const (&rows)[4], const float *x, size_t cols) {
    Lanes lanes[4];
    for (Lanes &row : lanes) {
        row.part[0] = row.part[1] = row.part[2] = row.part[3] = _mm256_setzero_ps();
    }
    const size_t whole = cols / kFloatLanes * kFloatLanes;
    for (size_t k = 0; k < whole; k += kChunk) {
        const size_t count = whole - k < kChunk ? whole - k : kChunk;
        const size_t at = k * Type::kBytes;
        accumulate_pair<Type>(rows[0] + at, rows[1] + at, x + k, count, lanes[0], lanes[1]);
        accumulate_pair<Type>(rows[2] + at, rows[3] + at, x + k, count, lanes[2], lanes[3]);
    }
    for (size_t i = 0; i < 4 && whole < cols; ++i) {
        accumulate_tail<Type>(rows[i] + whole * Type::kBytes, x + whole, cols - whole, lanes[i]);
    }
    return add_rows(lanes);
}

template <class Type> void decode_plain(const uint8_t *bytes, size_t n, float *out) {
    size_t i = 0;
    for (; i + kVector <= n; i += kVector) {
        prefetch(bytes + i * Type::kBytes);
        _mm256_storeu_ps(out + i, Type::load8(bytes + i * Type::kBytes));
    }
    if (i < n) {
        kFloatPortable.decode(Type::kId, bytes + i * Type::kBytes, n - i, out + i);
    }
}

// 32 values of a Q6_K block, `q` as they are + 32; one scale for each 16. Vectors of them `stride` apart.
inline void store_q6(__m256i q, float first, float second, float *out, size_t stride) {
    const __m256i centred = _mm256_sub_epi8(q, _mm256_set1_epi8(32));
    const __m128i low = _mm256_castsi256_si128(centred), high = _mm256_extracti128_si256(centred, 1);
    const __m256 a = _mm256_set1_ps(first), b = _mm256_set1_ps(second);
    const __m256 v0 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
    const __m256 v1 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(low, 8)));
    const __m256 v2 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
    const __m256 v3 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(high, 8)));
    _mm256_storeu_ps(out, _mm256_mul_ps(a, v0));
    _mm256_storeu_ps(out + stride, _mm256_mul_ps(a, v1));
    _mm256_storeu_ps(out + 2 * stride, _mm256_mul_ps(b, v2));
    _mm256_storeu_ps(out + 3 * stride, _mm256_mul_ps(b, v3));
}

// Each 32 values begin 32 floats after those before, their vectors are `stride` apart.
void decode_q6(const uint8_t *bytes, size_t n, float *out, size_t stride) {
    const __m256i nibble = _mm256_set1_epi8(15), two = _mm256_set1_epi8(3);
    for (size_t block = 0; block < n / kQ6Block; ++block, bytes += kQ6BlockBytes) {
        prefetch(bytes);
        prefetch(bytes + 64);
        prefetch(bytes + 128);
        const float d = half_to_float(bytes + 208);
        for (size_t half = 0; half < 2; ++half) {
            const __m256i high = load(bytes + 128 + 32 * half);
            for (size_t quarter = 0; quarter < 4; ++quarter, out += 32) {
                const __m256i both = load(bytes + 64 * half + 32 * (quarter % 2));
                const __m256i low = _mm256_and_si256(quarter < 2 ? both : _mm256_srli_epi16(both, 4), nibble);
                const __m256i shifted =
                    _mm256_srl_epi16(high, _mm_cvtsi32_si128(static_cast<int>(2 * quarter)));
                const __m256i top = _mm256_slli_epi16(_mm256_and_si256(shifted, two), 4);
                const auto *scales = reinterpret_cast<const int8_t *>(bytes + 192 + 8 * half + 2 * quarter);
                store_q6(_mm256_or_si256(top, low), d * static_cast<float>(scales[0]),
                         d * static_cast<float>(scales[1]), out, stride);
            }
        }
    }
}

void decode(uint32_t type, const uint8_t *bytes, size_t n, float *out) {
    switch (type) {
    case BNB_TYPE_F32:
        return decode_plain<F32>(bytes, n, out);
    case BNB_TYPE_F16:
        return decode_plain<F16>(bytes, n, out);
    case BNB_TYPE_BF16:
        return decode_plain<Bf16>(bytes, n, out);
    case BNB_TYPE_Q6_K:
        return decode_q6(bytes, n, out, kVector);
    default:
        return kFloatPortable.decode(type, bytes, n, out);
    }
}

// Which rows make a group of four: a quarter apart, then what is left over, the last one repeated.
struct Group {
    size_t row[4];
    size_t used;
};
inline Group group_of(size_t index, size_t n_rows) {
    const size_t quarter = n_rows / 4;
    Group group;
    for (size_t i = 0; i < 4; ++i) {
        const size_t left = 4 * quarter + i;
        group.row[i] = index < quarter ? index + i * quarter : left < n_rows ? left : n_rows - 1;
    }
    group.used = index < quarter ? 4 : n_rows - 4 * quarter;
    return group;
}

inline void store_used(const Group &group, __m128 sums, float *y) {
    alignas(16) float values[4];
    _mm_store_ps(values, sums);
    for (size_t i = 0; i < group.used; ++i) {
        y[group.row[i]] = values[i];
    }
}

template <class Type> void one_column(const FloatRows &rows, size_t n_rows, const float *x, float *y) {
    for (size_t index = 0; index < (n_rows + 3) / 4; ++index) {
        const Group group = group_of(index, n_rows);
        const uint8_t *const at[4] = {
            rows.bytes + group.row[0] * rows.row_bytes, rows.bytes + group.row[1] * rows.row_bytes,
            rows.bytes + group.row[2] * rows.row_bytes, rows.bytes + group.row[3] * rows.row_bytes};
        store_used(group, four_rows<Type>(at, x, rows.cols), y);
    }
}

// Steps of 32 columns, and how far apart the sections of eight lanes of four decoded rows are: never a
// multiple of 4 KB, which stores to all four of them would be slow at.
struct Steps {
    size_t count;
    size_t section() const { return (count + 5) * kFloatLanes; }
};

template <class Type> inline void decode_four(const uint8_t *const (&rows)[4], Steps steps, float *decoded) {
    for (size_t step = 0; step < steps.count; ++step, decoded += kFloatLanes) {
        const size_t at = step * kFloatLanes * Type::kBytes;
        for (size_t r = 0; r < 4; ++r) {
            prefetch(rows[r] + at);
        }
        for (size_t v = 0; v < 4; ++v) {
            for (size_t r = 0; r < 4; ++r) {
                _mm256_storeu_ps(decoded + v * steps.section() + r * kVector,
                                 Type::load8(rows[r] + at + v * kVector * Type::kBytes));
            }
        }
    }
}

// Four rows -> [vector of lanes][step][row][8], and the last columns of each, fewer than 32.
void decode_group(uint32_t type, const uint8_t *const (&rows)[4], size_t cols, float *decoded,
                  float (&rest)[4][kFloatLanes]) {
    const Steps steps{cols / kFloatLanes};
    const size_t whole = steps.count * kFloatLanes;
    size_t value_bytes = 2;
    switch (type) {
    case BNB_TYPE_F32:
        decode_four<F32>(rows, steps, decoded);
        value_bytes = 4;
        break;
    case BNB_TYPE_F16:
        decode_four<F16>(rows, steps, decoded);
        break;
    case BNB_TYPE_BF16:
        decode_four<Bf16>(rows, steps, decoded);
        break;
    default: // Q6_K, whose rows are whole steps
        for (size_t block = 0; block < cols / kQ6Block; ++block) {
            for (size_t r = 0; r < 4; ++r) {
                decode_q6(rows[r] + block * kQ6BlockBytes, kQ6Block,
                          decoded + block * (kQ6Block / kFloatLanes) * kFloatLanes + r * kVector,
                          steps.section());
            }
        }
    }
    for (size_t r = 0; r < 4 && whole < cols; ++r) {
        kFloatPortable.decode(type, rows[r] + whole * value_bytes, cols - whole, rest[r]);
    }
}

// Columns of the next tile, of `left`: rather two and two than three and one.
constexpr size_t tile_columns(size_t left) {
    return left == 4 ? 2 : left < 3 ? left : 3;
}

// The whole steps of x, tile by tile: [vector of lanes][step][column][8].
void pack(const float *x, size_t x_stride, size_t n, Steps steps, float *packed) {
    for (size_t column = 0; column < n;) {
        const size_t width = tile_columns(n - column);
        for (size_t v = 0; v < 4; ++v) {
            for (size_t step = 0; step < steps.count; ++step) {
                const float *from = x + column * x_stride + step * kFloatLanes + v * kVector;
                for (size_t c = 0; c < width; ++c, packed += kVector) {
                    _mm256_storeu_ps(packed, _mm256_loadu_ps(from + c * x_stride));
                }
            }
        }
        column += width;
    }
}

// What a tile multiplies.
struct Operands {
    const float *decoded; // of decode_group
    const float (&rest)[4][kFloatLanes];
    const float *packed; // of pack, this tile's
    const float *x;      // the tile's first column
    size_t x_stride;
    size_t cols;
};

// Four rows times kColumns columns; columns[c] holds the sums of the four rows.
template <int kColumns> inline void tile(const Operands &o, __m128 (&columns)[kColumns]) {
    const Steps steps{o.cols / kFloatLanes};
    const size_t whole = steps.count * kFloatLanes;
    const float *x = o.packed;
    __m256 sums[4][kColumns][4]; // [vector of lanes][column][row]
    for (size_t v = 0; v < 4; ++v) {
        __m256 acc[kColumns][4];
        for (int c = 0; c < kColumns; ++c) {
            for (int r = 0; r < 4; ++r) {
                acc[c][r] = _mm256_setzero_ps();
            }
        }
        const float *w = o.decoded + v * steps.section();
        for (size_t step = 0; step < steps.count; ++step, w += 4 * kVector, x += kColumns * kVector) {
            const __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + kVector);
            const __m256 w2 = _mm256_loadu_ps(w + 2 * kVector);
            for (int c = 0; c < kColumns; ++c) {
                const __m256 values = _mm256_loadu_ps(x + c * static_cast<int>(kVector));
                acc[c][0] = _mm256_fmadd_ps(w0, values, acc[c][0]);
                acc[c][1] = _mm256_fmadd_ps(w1, values, acc[c][1]);
                acc[c][2] = _mm256_fmadd_ps(w2, values, acc[c][2]);
                acc[c][3] = _mm256_fmadd_ps(_mm256_loadu_ps(w + 3 * kVector), values, acc[c][3]);
            }
        }
        const long rest = static_cast<long>(o.cols - whole) - static_cast<long>(v * kVector);
        if (rest > 0) {
            const __m256i valid = lanes_below(rest);
            for (int c = 0; c < kColumns; ++c) {
                const float *tail = o.x + static_cast<size_t>(c) * o.x_stride + whole + v * kVector;
                const __m256 values = _mm256_maskload_ps(tail, valid);
                for (int r = 0; r < 4; ++r) {
                    const __m256 last = _mm256_maskload_ps(o.rest[r] + v * kVector, valid);
                    const __m256 sum = _mm256_fmadd_ps(last, values, acc[c][r]);
                    acc[c][r] = _mm256_blendv_ps(acc[c][r], sum, _mm256_castsi256_ps(valid));
                }
            }
        }
        for (int c = 0; c < kColumns; ++c) {
            for (int r = 0; r < 4; ++r) {
                sums[v][c][r] = acc[c][r];
            }
        }
    }
    for (int c = 0; c < kColumns; ++c) {
        __m256 row[4];
        for (int r = 0; r < 4; ++r) {
            row[r] = add_vectors(sums[0][c][r], sums[1][c][r], sums[2][c][r], sums[3][c][r]);
        }
        columns[c] = add_lanes(row[0], row[1], row[2], row[3]);
    }
}

template <int kColumns>
inline void tile_to(const Group &group, const Operands &operands, float *y, size_t y_stride) {
    __m128 columns[kColumns];
    tile<kColumns>(operands, columns);
    for (int c = 0; c < kColumns; ++c) {
        store_used(group, columns[c], y + static_cast<size_t>(c) * y_stride);
    }
}

void more_columns(const FloatRows &rows, size_t n_rows, const float *x, size_t x_stride, size_t n, float *y,
                  size_t y_stride, float *scratch) {
    const Steps steps{rows.cols / kFloatLanes};
    // Vectors that do not cross cache lines.
    float *const decoded = scratch + (64 - reinterpret_cast<uintptr_t>(scratch) % 64) / sizeof(float);
    float *const packed = decoded + 4 * steps.section();
    pack(x, x_stride, n, steps, packed);
    for (size_t index = 0; index < (n_rows + 3) / 4; ++index) {
        const Group group = group_of(index, n_rows);
        const uint8_t *const at[4] = {
            rows.bytes + group.row[0] * rows.row_bytes, rows.bytes + group.row[1] * rows.row_bytes,
            rows.bytes + group.row[2] * rows.row_bytes, rows.bytes + group.row[3] * rows.row_bytes};
        alignas(32) float rest[4][kFloatLanes];
        decode_group(rows.type, at, rows.cols, decoded, rest);
        for (size_t column = 0; column < n;) {
            const size_t width = tile_columns(n - column);
            const Operands operands = {
                decoded,  rest,     packed + column * steps.count * kFloatLanes, x + column * x_stride,
                x_stride, rows.cols};
            float *const to = y + column * y_stride;
            if (width == 3) {
                tile_to<3>(group, operands, to, y_stride);
            } else if (width == 2) {
                tile_to<2>(group, operands, to, y_stride);
            } else {
                tile_to<1>(group, operands, to, y_stride);
            }
            column += width;
        }
    }
}

void dots(const FloatRows &rows, size_t n_rows, const float *x, size_t x_stride, size_t n, float *y,
          size_t y_stride, float *scratch) {
    if (n == 1 && rows.type == BNB_TYPE_F16) {
        one_column<F16>(rows, n_rows, x, y);
    } else if (n == 1 && rows.type == BNB_TYPE_F32) {
        one_column<F32>(rows, n_rows, x, y);
    } else if (n == 1 && rows.type == BNB_TYPE_BF16) {
        one_column<Bf16>(rows, n_rows, x, y);
    } else {
        more_columns(rows, n_rows, x, x_stride, n, y, y_stride, scratch);
    }
}

void quantize_q8(const float *x, size_t n, int8_t *q, float *d) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (size_t block = 0; block < n / kQ8Block; ++block, x += kQ8Block, q += kQ8Block) {
        const __m256 v0 = _mm256_loadu_ps(x), v1 = _mm256_loadu_ps(x + 8);
        const __m256 v2 = _mm256_loadu_ps(x + 16), v3 = _mm256_loadu_ps(x + 24);
        // The bits of magnitudes order like the numbers, and a NaN is above them all.
        const __m256i ab = _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(v0), magnitude),
                                            _mm256_and_si256(_mm256_castps_si256(v1), magnitude));
        const __m256i cd = _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(v2), magnitude),
                                            _mm256_and_si256(_mm256_castps_si256(v3), magnitude));
        const __m256i all = _mm256_max_epi32(ab, cd);
        __m128i top = _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
        top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
        top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
        const int largest_bits = _mm_cvtsi128_si32(top);
        const float largest = _mm_cvtss_f32(_mm_castsi128_ps(top));
        d[block] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(largest / 127.0f), 0)));
        // Zeros for zeros, for next to nothing (d is 0 too), and where d is no number.
        const float inverse = 127.0f / largest;
        const bool zeros = inverse > 0x1.fffffep+127f || largest_bits >= 0x7f800000;
        const __m256 factor = _mm256_set1_ps(inverse);
        const __m256i p0 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(v0, factor)),
                                              _mm256_cvtps_epi32(_mm256_mul_ps(v1, factor)));
        const __m256i p1 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(v2, factor)),
                                              _mm256_cvtps_epi32(_mm256_mul_ps(v3, factor)));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(p0, p1), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(q), zeros ? _mm256_setzero_si256() : codes);
    }
}

// Eight sums of eight lanes each, in order.
inline __m256i sum_eight(const __m256i (&v)[8]) {
    const __m256i ab = _mm256_hadd_epi32(v[0], v[1]), cd = _mm256_hadd_epi32(v[2], v[3]);
    const __m256i ef = _mm256_hadd_epi32(v[4], v[5]), gh = _mm256_hadd_epi32(v[6], v[7]);
    const __m256i low = _mm256_hadd_epi32(ab, cd), high = _mm256_hadd_epi32(ef, gh);
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

// Eight Q8_0 rows times one column. vpmaddubsw wants an unsigned side: |w| (128 for -128), with the sign of w
// on q, which never is -128; a pair is at most 2 * 128 * 127 = 32512.
inline __m256 eight_rows_q8(const uint8_t *const (&rows)[8], const int8_t *q, const float *d, size_t blocks) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 sum = _mm256_setzero_ps();
    for (size_t b = 0; b < blocks; ++b) {
        const __m256i codes = load(q + b * kQ8Block);
        __m256i products[8];
        alignas(16) uint16_t halves[8];
        for (int i = 0; i < 8; ++i) {
            const uint8_t *block = rows[i] + b * kQ8BlockBytes;
            prefetch(block);
            const __m256i w = load(block + 2);
            const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(codes, w));
            products[i] = _mm256_madd_epi16(pairs, ones);
            halves[i] = static_cast<uint16_t>(block[0] | block[1] << 8);
        }
        const __m256 scales = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i *>(halves)));
        const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(d[b]));
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum_eight(products)), scale, sum);
    }
    return sum;
}

// Eight rows an eighth of the matrix apart; of what is left over, the last row repeated.
void dots_q8(const FloatRows &rows, size_t n_rows, const int8_t *q, const float *d, size_t n, float *y,
             size_t y_stride) {
    const size_t blocks = rows.cols / kQ8Block, eighth = n_rows / 8;
    for (size_t index = 0; index < (n_rows + 7) / 8; ++index) {
        size_t row[8];
        const uint8_t *at[8];
        for (size_t i = 0; i < 8; ++i) {
            const size_t left = 8 * eighth + i;
            row[i] = index < eighth ? index + i * eighth : left < n_rows ? left : n_rows - 1;
            at[i] = rows.bytes + row[i] * rows.row_bytes;
        }
        const size_t used = index < eighth ? 8 : n_rows - 8 * eighth;
        for (size_t column = 0; column < n; ++column) {
            alignas(32) float values[8];
            _mm256_store_ps(values, eight_rows_q8(at, q + column * rows.cols, d + column * blocks, blocks));
            for (size_t i = 0; i < used; ++i) {
                y[column * y_stride + row[i]] = values[i];
            }
        }
    }
}

} // namespace

const FloatKernels kFloatAvx2 = {
    decode,           dots,      quantize_q8, dots_q8,       avx2::to_half, avx2::round_to_half,
    avx2::exp_scores, avx2::mix, avx2::rope,  avx2::activate};

} // namespace bnb
