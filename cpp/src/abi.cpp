// The boundary: one bnb_api per instruction set over its table of kernels.
//
// Every entry does the same four things: refuse NULLs and counts that do not fit, refuse layouts the format
// does not know, do the work, and turn whatever was thrown into a status. Nothing is written before the
// checks passed.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "bitnet_backend.h"
#include "checks.hpp"
#include "engine_abi.hpp"
#include "floats_abi.hpp"
#include "kernels.hpp"
#include "layout.hpp"
#include "product.hpp"
#include "quantize.hpp"
#include "rows.hpp"
#include "team.hpp"

#if defined(__x86_64__)
#define BNB_X86_64 1
#else
#define BNB_X86_64 0
#endif
// Whether this compiler knows AVX512-FP16 by name.
#if defined(__clang__) ? __clang_major__ >= 14 : __GNUC__ >= 12
#define BNB_KNOWS_FP16 1
#else
#define BNB_KNOWS_FP16 0
#endif
#if defined(__aarch64__)
#define BNB_AARCH64 1
#else
#define BNB_AARCH64 0
#endif
#if BNB_X86_64
#include <cpuid.h>
#endif
#if BNB_AARCH64 && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

// The build says what it did; a build that says nothing is described by the compiler's own macros.
#ifndef BNB_COMPILER
#ifdef __clang__
#define BNB_COMPILER "clang++"
#else
#define BNB_COMPILER "g++"
#endif
#endif
#ifndef BNB_COMPILER_VERSION
#define BNB_COMPILER_VERSION __VERSION__
#endif
#ifndef BNB_FLAGS
#define BNB_FLAGS "unknown"
#endif
#ifndef BNB_OPT_LEVEL
#ifdef __OPTIMIZE__
#define BNB_OPT_LEVEL "unknown"
#else
#define BNB_OPT_LEVEL "0"
#endif
#endif
#ifndef BNB_SOURCE_HASH
#define BNB_SOURCE_HASH ""
#endif
#ifndef BNB_GIT_REVISION
#define BNB_GIT_REVISION ""
#endif

using bnb::fits_memory;
using bnb::FloatKernels;
using bnb::guarded;
using bnb::is_product;
using bnb::Kernels;
using bnb::kMaxCols;
using bnb::kMaxThreads;
using bnb::Product;
using bnb::Sizes;

// A prepared matrix and everything `linear` needs for n_max rows, allocated once.
struct bnb_matmul {
    const Kernels *kernels = nullptr;
    std::unique_ptr<Product> product;
    std::shared_ptr<bnb::Team> team; // none: the caller works alone
    bnb_layout layout = {};
    float weight_scale = 0.0f;
    size_t n_max = 0;
    std::unique_ptr<int8_t[]> codes;   // [n_max, cols]
    std::unique_ptr<float[]> scales;   // [n_max]
    std::unique_ptr<int32_t[]> dots;   // [n_max, rows]
    std::unique_ptr<uint32_t[]> peaks; // [n_max], bits of each row's max |x|

    // work(part, parts) for every part, each on its thread.
    template <class Work> void in_parts(const Work &work) const {
        if (team == nullptr) {
            work(size_t{0}, size_t{1});
        } else {
            team->run([&](size_t part) { work(part, team->threads()); });
        }
    }
};

namespace {

bnb_status check_weights(const bnb_weights *weights, Sizes *sizes) {
    if (weights == nullptr || weights->bytes == nullptr) {
        return BNB_INVALID_ARGUMENT;
    }
    const bnb_status status = bnb::check_layout(weights->layout, sizes);
    if (status != BNB_OK) {
        return status;
    }
    if (weights->n_bytes != sizes->packed_bytes || !std::isfinite(weights->scale) ||
        std::signbit(weights->scale)) {
        return BNB_INVALID_ARGUMENT;
    }
    // `scale` repeats what the bytes say; two different scales are no weights at all.
    const bool repeats =
        std::memcmp(weights->bytes + sizes->scale_offset, &weights->scale, sizeof weights->scale) == 0;
    return repeats ? BNB_OK : BNB_INVALID_ARGUMENT;
}

template <const Kernels &kernels>
bnb_status quantize_weights(const bnb_layout *layout, uint32_t rule, const float *src, uint64_t n_src,
                            uint8_t *dst, uint64_t n_dst, float *scale) noexcept {
    return guarded([&]() -> bnb_status {
        if (layout == nullptr || src == nullptr || dst == nullptr || scale == nullptr ||
            (rule != BNB_RULE_ABSMEAN && rule != BNB_RULE_MAXABS)) {
            return BNB_INVALID_ARGUMENT;
        }
        Sizes sizes;
        const bnb_status status = bnb::check_layout(*layout, &sizes);
        if (status != BNB_OK) {
            return status;
        }
        if (n_src != sizes.weights || n_dst != sizes.packed_bytes) {
            return BNB_INVALID_ARGUMENT;
        }
        return bnb::quantize_weights(kernels, *layout, sizes, rule, src, dst, scale);
    });
}

template <const Kernels &kernels>
bnb_status dequantize_weights(const bnb_weights *weights, float *dst, uint64_t n_dst) noexcept {
    return guarded([&]() -> bnb_status {
        Sizes sizes;
        const bnb_status status = check_weights(weights, &sizes);
        if (status != BNB_OK) {
            return status;
        }
        if (dst == nullptr || n_dst != sizes.weights) {
            return BNB_INVALID_ARGUMENT;
        }
        return bnb::dequantize_weights(kernels, *weights, sizes, dst);
    });
}

template <const Kernels &kernels>
bnb_status quantize_activations(const float *x, uint64_t n_x, uint64_t rows, uint64_t cols, int8_t *q,
                                uint64_t n_q, float *scale, uint64_t n_scale, int32_t *sum,
                                uint64_t n_sum) noexcept {
    return guarded([&]() -> bnb_status {
        if (!is_product(n_x, rows, cols) || n_q != n_x || n_scale != rows || n_sum != rows) {
            return BNB_INVALID_ARGUMENT;
        }
        if (cols == 0 || cols > kMaxCols) {
            return BNB_UNSUPPORTED;
        }
        if (rows == 0) {
            return BNB_OK;
        }
        if (x == nullptr || q == nullptr || scale == nullptr || sum == nullptr) {
            return BNB_INVALID_ARGUMENT;
        }
        return bnb::quantize_activations(kernels, x, rows, cols, q, scale, sum);
    });
}

template <const Kernels &kernels>
bnb_status matmul_prepare(const bnb_weights *weights, uint64_t n_max, uint32_t threads,
                          bnb_matmul **handle) noexcept {
    return guarded([&]() -> bnb_status {
        if (handle == nullptr) {
            return BNB_INVALID_ARGUMENT;
        }
        Sizes sizes;
        bnb_status status = check_weights(weights, &sizes);
        if (status != BNB_OK) {
            return status;
        }
        const bnb_layout &layout = weights->layout;
        if (threads == 0 || threads > kMaxThreads || layout.cols > kMaxCols) {
            return BNB_UNSUPPORTED;
        }
        if (!fits_memory(n_max, layout.rows, sizeof(int32_t)) || !fits_memory(n_max, layout.cols, 1) ||
            !fits_memory(n_max, 1, sizeof(float))) {
            return BNB_INVALID_ARGUMENT;
        }
        std::unique_ptr<bnb_matmul> made(new bnb_matmul);
        made->codes.reset(new int8_t[n_max * layout.cols]);
        made->scales.reset(new float[n_max]);
        made->dots.reset(new int32_t[n_max * layout.rows]);
        made->peaks.reset(new uint32_t[n_max]);
        const auto make = layout.format == BNB_FORMAT_I2_S  ? kernels.make_i2s
                          : layout.format == BNB_FORMAT_TL1 ? kernels.make_tl1
                                                            : kernels.make_tl2;
        Product *product = nullptr;
        status = make(*weights, n_max, &product);
        if (status != BNB_OK) {
            return status;
        }
        made->product.reset(product);
        if (threads > 1) {
            made->product->reserve(threads);
            made->team = bnb::Team::shared(threads);
        }
        made->kernels = &kernels;
        made->layout = layout;
        made->weight_scale = weights->scale;
        made->n_max = n_max;
        *handle = made.release();
        return BNB_OK;
    });
}

bnb_status matmul_i8_i32(bnb_matmul *handle, const int8_t *q, uint64_t n_q, uint64_t n, int32_t *out,
                         uint64_t n_out) noexcept {
    return guarded([&]() -> bnb_status {
        if (handle == nullptr || n > handle->n_max || !is_product(n_q, n, handle->layout.cols) ||
            !is_product(n_out, n, handle->layout.rows)) {
            return BNB_INVALID_ARGUMENT;
        }
        if (n == 0) {
            return BNB_OK;
        }
        if (q == nullptr || out == nullptr) {
            return BNB_INVALID_ARGUMENT;
        }
        handle->in_parts([&](size_t part, size_t parts) {
            bnb::run_part(*handle->product, handle->layout.rows, q, n, out, part, parts);
        });
        return BNB_OK;
    });
}

bnb_status linear_f32_f32(bnb_matmul *handle, const float *x, uint64_t n_x, uint64_t n, float *y,
                          uint64_t n_y) noexcept {
    return guarded([&]() -> bnb_status {
        if (handle == nullptr || n > handle->n_max || !is_product(n_x, n, handle->layout.cols) ||
            !is_product(n_y, n, handle->layout.rows)) {
            return BNB_INVALID_ARGUMENT;
        }
        if (n == 0) {
            return BNB_OK;
        }
        if (x == nullptr || y == nullptr) {
            return BNB_INVALID_ARGUMENT;
        }
        const Kernels &kernels = *handle->kernels;
        const size_t rows = handle->layout.rows, cols = handle->layout.cols;
        // One activation row is looked at by one thread; more are shared out.
        const auto for_each_row = [&](const auto &work) {
            if (n == 1) {
                work(size_t{0});
                return;
            }
            handle->in_parts([&](size_t part, size_t parts) {
                const bnb::Share share = bnb::share_of(n, part, parts);
                for (size_t i = share.begin; i < share.end; ++i) {
                    work(i);
                }
            });
        };
        for_each_row([&](size_t i) { handle->peaks[i] = kernels.max_abs_bits(x + i * cols, cols); });
        for (size_t i = 0; i < n; ++i) {
            if (handle->peaks[i] > bnb::kLargestFinite) {
                return BNB_NON_FINITE;
            }
        }
        const auto activation_scale =
            handle->layout.format == BNB_FORMAT_I2_S ? bnb::activation_scale_i2s : bnb::activation_scale_tl;
        for_each_row([&](size_t i) {
            handle->scales[i] = activation_scale(handle->peaks[i]);
            kernels.quantize_row(x + i * cols, cols, handle->scales[i], handle->codes.get() + i * cols);
        });
        handle->in_parts([&](size_t part, size_t parts) {
            int32_t *const dots = handle->dots.get();
            const bnb::Share share =
                bnb::run_part(*handle->product, rows, handle->codes.get(), n, dots, part, parts);
            for (size_t i = 0; i < n; ++i) {
                const size_t at = i * rows + share.begin;
                kernels.scale_dots(dots + at, share.end - share.begin, handle->scales[i],
                                   handle->weight_scale, y + at);
            }
        });
        return BNB_OK;
    });
}

void matmul_free(bnb_matmul *handle) noexcept {
    delete handle;
}

uint64_t matmul_bytes(const bnb_matmul *handle) noexcept {
    if (handle == nullptr) {
        return 0;
    }
    const uint64_t row_bytes = handle->layout.cols * sizeof(int8_t) + handle->layout.rows * sizeof(int32_t) +
                               sizeof(float) + sizeof(uint32_t);
    return sizeof *handle + handle->n_max * row_bytes + handle->product->bytes();
}

void quiesce() noexcept {
    bnb::quiesce_teams();
}

bnb_status portable_available(const char **why) noexcept {
    if (why != nullptr) {
        *why = "";
    }
    return BNB_OK;
}

bnb_status avx2_available(const char **why) noexcept {
#if BNB_X86_64
    const char *missing = "";
    if (!__builtin_cpu_supports("avx2")) {
        missing = "this CPU has no AVX2";
    } else if (!__builtin_cpu_supports("fma")) {
        missing = "this CPU has no FMA";
    } else if (!__builtin_cpu_supports("f16c")) {
        missing = "this CPU has no F16C";
    }
#else
    const char *missing = "AVX2 needs an x86-64 CPU";
#endif
    if (why != nullptr) {
        *why = missing;
    }
    return *missing == '\0' ? BNB_OK : BNB_UNAVAILABLE;
}

bnb_status avxvnni_available(const char **why) noexcept {
    const bnb_status status = avx2_available(why);
    if (status != BNB_OK) {
        return status;
    }
    const char *missing = "";
#if BNB_X86_64
    // Not every compiler's builtin knows this name. AVX2 being usable, so is its VEX-encoded extension.
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0 || (eax >> 4 & 1) == 0) {
        missing = "this CPU has no AVX-VNNI";
    }
#endif
    if (why != nullptr) {
        *why = missing;
    }
    return *missing == '\0' ? BNB_OK : BNB_UNAVAILABLE;
}

bnb_status avx512vnni_available(const char **why) noexcept {
    const bnb_status status = avx2_available(why);
    if (status != BNB_OK) {
        return status;
    }
    const char *missing = "";
#if BNB_X86_64
    // The builtin looks at XCR0 as well: without the system's help there are no 512-bit registers.
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
        missing = "this CPU or system has no AVX-512 F, BW, DQ and VL";
    } else if (!__builtin_cpu_supports("avx512vnni")) {
        missing = "this CPU has no AVX-512 VNNI";
    }
#endif
    if (why != nullptr) {
        *why = missing;
    }
    return *missing == '\0' ? BNB_OK : BNB_UNAVAILABLE;
}

bnb_status neon_available(const char **why) noexcept {
#if BNB_AARCH64 && defined(__linux__)
    const char *missing = (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0 ? "" : "this CPU has no NEON";
#elif BNB_AARCH64
    const char *missing = "";
#else
    const char *missing = "NEON needs an AArch64 CPU";
#endif
    if (why != nullptr) {
        *why = missing;
    }
    return *missing == '\0' ? BNB_OK : BNB_UNAVAILABLE;
}

bnb_status neondotprod_available(const char **why) noexcept {
    const bnb_status status = neon_available(why);
    if (status != BNB_OK) {
        return status;
    }
    const char *missing = "";
#if BNB_AARCH64 && defined(__linux__)
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) == 0) {
        missing = "this CPU has no SDOT";
    }
#elif BNB_AARCH64
    missing = "SDOT is looked for on Linux only";
#endif
    if (why != nullptr) {
        *why = missing;
    }
    return *missing == '\0' ? BNB_OK : BNB_UNAVAILABLE;
}

constexpr Kernels kPortable = {
    bnb::max_abs_bits_portable,    bnb::quantize_row_portable, bnb::ternarize_absmean_portable,
    bnb::ternarize_signs_portable, bnb::dequantize_portable,   bnb::scale_dots_portable,
    bnb::pack_i2s_portable,        bnb::unpack_i2s_portable,   bnb::pack_tl_tile_portable,
    bnb::unpack_tl_tile_portable,  bnb::make_i2s_portable,     bnb::make_tl1_portable,
    bnb::make_tl2_portable,
};

#if BNB_X86_64
constexpr Kernels kAvx2 = {
    bnb::max_abs_bits_avx2, bnb::quantize_row_avx2,   bnb::ternarize_absmean_avx2, bnb::ternarize_signs_avx2,
    bnb::dequantize_avx2,   bnb::scale_dots_avx2,     bnb::pack_i2s_avx2,          bnb::unpack_i2s_avx2,
    bnb::pack_tl_tile_avx2, bnb::unpack_tl_tile_avx2, bnb::make_i2s_avx2,          bnb::make_tl1_avx2,
    bnb::make_tl2_avx2,
};

// With VNNI, loops that memory bounds are the AVX2 ones.
constexpr Kernels kAvxVnni = {
    bnb::max_abs_bits_avx2, bnb::quantize_row_avx2,   bnb::ternarize_absmean_avx2, bnb::ternarize_signs_avx2,
    bnb::dequantize_avx2,   bnb::scale_dots_avx2,     bnb::pack_i2s_avx2,          bnb::unpack_i2s_avx2,
    bnb::pack_tl_tile_avx2, bnb::unpack_tl_tile_avx2, bnb::make_i2s_avxvnni,       bnb::make_tl1_avxvnni,
    bnb::make_tl2_avxvnni,
};

constexpr Kernels kAvx512Vnni = {
    bnb::max_abs_bits_avx2,    bnb::quantize_row_avx2,   bnb::ternarize_absmean_avx2,
    bnb::ternarize_signs_avx2, bnb::dequantize_avx2,     bnb::scale_dots_avx2,
    bnb::pack_i2s_avx2,        bnb::unpack_i2s_avx2,     bnb::pack_tl_tile_avx2,
    bnb::unpack_tl_tile_avx2,  bnb::make_i2s_avx512vnni, bnb::make_tl1_avx512vnni,
    bnb::make_tl2_avx512vnni,
};
constexpr const FloatKernels &kAvx2Floats = bnb::kFloatAvx2;
#else
constexpr const Kernels &kAvx2 = kPortable; // named, but never available
constexpr const Kernels &kAvxVnni = kPortable;
constexpr const Kernels &kAvx512Vnni = kPortable;
constexpr const FloatKernels &kAvx2Floats = bnb::kFloatPortable;
#endif

#if BNB_AARCH64
// Packing and unpacking tiles of TL1 and TL2, done once for a matrix, is left to the portable loops.
constexpr Kernels kNeon = {
    bnb::max_abs_bits_neon,       bnb::quantize_row_neon, bnb::ternarize_absmean_neon,
    bnb::ternarize_signs_neon,    bnb::dequantize_neon,   bnb::scale_dots_neon,
    bnb::pack_i2s_neon,           bnb::unpack_i2s_neon,   bnb::pack_tl_tile_portable,
    bnb::unpack_tl_tile_portable, bnb::make_i2s_neon,     bnb::make_tl1_neon,
    bnb::make_tl2_neon,
};

// SDOT serves I2_S; a look-up multiplies nothing.
constexpr Kernels kNeonDotprod = {
    bnb::max_abs_bits_neon,       bnb::quantize_row_neon,    bnb::ternarize_absmean_neon,
    bnb::ternarize_signs_neon,    bnb::dequantize_neon,      bnb::scale_dots_neon,
    bnb::pack_i2s_neon,           bnb::unpack_i2s_neon,      bnb::pack_tl_tile_portable,
    bnb::unpack_tl_tile_portable, bnb::make_i2s_neondotprod, bnb::make_tl1_neon,
    bnb::make_tl2_neon,
};
constexpr const FloatKernels &kNeonFloats = bnb::kFloatNeon;
#else
constexpr const Kernels &kNeon = kPortable; // named, but never available
constexpr const Kernels &kNeonDotprod = kPortable;
constexpr const FloatKernels &kNeonFloats = bnb::kFloatPortable;
#endif

constexpr bnb_build_info kBuildInfo = {BNB_COMPILER,  BNB_COMPILER_VERSION, BNB_FLAGS,
                                       BNB_OPT_LEVEL, BNB_SOURCE_HASH,      BNB_GIT_REVISION};

// The CPU may lack what a backend's own name does not imply: that is asked when a matrix comes.
const bnb::NativeKernels *native_avx512(uint32_t type) {
    const bnb::NativeKernels *loops = nullptr;
#if BNB_X86_64
    if (type == BNB_TYPE_BF16 && __builtin_cpu_supports("avx512bf16")) {
        loops = &bnb::kNativeBf16;
    }
#if BNB_KNOWS_FP16
    if (type == BNB_TYPE_F16 && __builtin_cpu_supports("avx512fp16") && bnb::kNativeF16.dots != nullptr) {
        loops = &bnb::kNativeF16;
    }
#endif
#endif
    (void)type;
    return loops;
}

const bnb::NativeKernels *no_native(uint32_t) {
    return nullptr;
}

template <const FloatKernels &floats, bnb::NativeChoice native>
bnb_status float_prepare(const bnb_float_matrix *matrix, uint64_t n_max, uint32_t threads,
                         bnb_float_matmul **handle) noexcept {
    return bnb::float_prepare(floats, native, matrix, n_max, threads, handle);
}

template <const Kernels &kernels, const FloatKernels &floats>
bnb_status engine_create(const bnb_model *model, const bnb_tensor *tensors, uint64_t n_tensors,
                         bnb_engine **engine) noexcept {
    return bnb::engine_create(kernels, floats, model, tensors, n_tensors, engine);
}

template <const Kernels &kernels, const FloatKernels &floats, bnb::NativeChoice native = no_native>
constexpr bnb_api api(const char *name, const char *isa, bnb_status (*available)(const char **)) {
    return {
        BNB_ABI_MAJOR,
        BNB_ABI_MINOR,
        sizeof(bnb_api),
        name,
        isa,
        &kBuildInfo,
        BNB_CAP_I2_S | BNB_CAP_TL1 | BNB_CAP_TL2 | BNB_CAP_THREADS,
        available,
        quantize_weights<kernels>,
        dequantize_weights<kernels>,
        quantize_activations<kernels>,
        matmul_prepare<kernels>,
        matmul_i8_i32,
        linear_f32_f32,
        matmul_free,
        quiesce,
        matmul_bytes,
        float_prepare<floats, native>,
        bnb::float_matmul,
        bnb::float_free,
        engine_create<kernels, floats>,
        bnb::engine_prefill,
        bnb::engine_decode,
        bnb::engine_logits,
        bnb::engine_tap,
        bnb::engine_reset,
        bnb::engine_free,
    };
}

constexpr bnb_api kBackends[] = {
    api<kPortable, bnb::kFloatPortable>("cpp-portable", "portable", portable_available),
    api<kAvx2, kAvx2Floats>("cpp-avx2", "avx2", avx2_available),
    api<kAvxVnni, kAvx2Floats>("cpp-avxvnni", "avxvnni", avxvnni_available),
    api<kAvx512Vnni, kAvx2Floats, native_avx512>("cpp-avx512vnni", "avx512vnni", avx512vnni_available),
    api<kNeon, kNeonFloats>("cpp-neon", "neon", neon_available),
    api<kNeonDotprod, kNeonFloats>("cpp-neondotprod", "neondotprod", neondotprod_available),
};

} // namespace

extern "C" const bnb_api *bitnet_cpp_reference(uint32_t index) {
    return index < sizeof kBackends / sizeof kBackends[0] ? &kBackends[index] : nullptr;
}

#ifdef BNB_EXPORT_PLUGIN
extern "C" __attribute__((visibility("default"))) const bnb_api *bitnet_backend_v1(uint32_t index) {
    return bitnet_cpp_reference(index);
}
#endif
