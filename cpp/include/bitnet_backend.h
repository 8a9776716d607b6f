/* bitnet_backend.h: the whole contract between bitnet_perfgate and a backend.
 *
 * A backend is something that can compute BitNet's quantisation and matrix
 * products. A shared library offers its backends through one exported symbol:
 *
 *     const bnb_api *bitnet_backend_v1(uint32_t index);
 *
 * index 0, 1, ... enumerates the backends of the library (typically one per
 * instruction set); NULL ends the enumeration. The structures returned are
 * static: they live as long as the library is loaded and never change.
 *
 * Rules that hold for every function below
 *  - Every pointer travels with an element count (not bytes, unless the elements
 *    are bytes). The callee checks the counts before it touches memory and
 *    answers BNB_INVALID_ARGUMENT when they do not fit.
 *  - The caller owns every buffer. Buffers need no alignment beyond that of
 *    their element type; weight bytes need none. Inputs and outputs do not overlap.
 *  - No exception, signal or abort crosses the boundary; no memory allocated on one
 *    side is freed on the other; the only strings are static, NUL-terminated text.
 *  - When a status other than BNB_OK is returned, outputs are unspecified.
 *  - Functions may be called from any thread, a handle from one thread at a time.
 *  - A NULL function pointer means: this backend does not offer the operation.
 *
 * Evolution: append only. New functions go to the end of bnb_api and raise
 * BNB_ABI_MINOR. A caller reads no field beyond the callee's struct_size; a
 * field that is missing counts as NULL. Only another abi_major is refused.
 *
 * Arithmetic is defined in docs/FORMATS.md and docs/NUMERICS.md, and is part of the
 * contract: integers are compared bit for bit, and so are the float results of
 * stated formulas. Compile without fast-math and without contraction
 * (-ffp-contract=off).
 */
#ifndef BITNET_BACKEND_H
#define BITNET_BACKEND_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BNB_ABI_MAJOR 1u
#define BNB_ABI_MINOR 0u

/* What a call answers. */
typedef int32_t bnb_status;
#define BNB_OK 0               /* done */
#define BNB_UNSUPPORTED 1      /* this backend cannot do this shape, format or option */
#define BNB_INVALID_ARGUMENT 2 /* NULL, a count that does not fit, an unknown enum value */
#define BNB_NON_FINITE 3       /* a NaN or an infinity in a float input; nothing was computed */
#define BNB_INVALID_DATA 4     /* weight bytes that no packer produces (an unused code) */
#define BNB_OUT_OF_MEMORY 5    /* an allocation failed */
#define BNB_UNAVAILABLE 6      /* the CPU or a device lacks what this backend needs */
#define BNB_INTERNAL 7         /* a defect of the backend (an exception was caught) */

/* Interchange formats of ternary weights (docs/FORMATS.md). Weights always travel in
 * one of these; a backend that prefers another order repacks in matmul_prepare. */
#define BNB_FORMAT_I2_S 1u /* 2 bits per weight, blocks of 128, x86 order */
#define BNB_FORMAT_TL1 2u  /* 4-bit indices of weight pairs, tiled */
#define BNB_FORMAT_TL2 3u  /* 5 bits per weight triple, tiled; pairs for the rest */

/* How float weights become ternary (docs/FORMATS.md, weight quantisation). */
#define BNB_RULE_ABSMEAN 1u /* the converter: divide by mean |w|, round to even, clamp */
#define BNB_RULE_MAXABS 2u  /* bitnet.cpp's packer: weights are already 0 or +-s; keep signs, s = max |w| */

/* bits of bnb_api.capabilities: which formats matmul_prepare accepts */
#define BNB_CAP_I2_S 1u
#define BNB_CAP_TL1 2u
#define BNB_CAP_TL2 4u
#define BNB_CAP_THREADS 8u /* matmul_prepare accepts threads > 1 */

/* Shape and order of a packed matrix of `rows` outputs x `cols` inputs.
 * bm, bk, by are the tile parameters of TL1 and TL2 (BM rows per tile, BK columns per
 * block, BY = 256 / rows per inner block); all three are 0 for I2_S. */
typedef struct bnb_layout {
    uint32_t format; /* BNB_FORMAT_* */
    uint32_t bm;
    uint32_t bk;
    uint32_t by;
    uint64_t rows;
    uint64_t cols;
} bnb_layout;

/* A packed matrix. `bytes` holds codes, padding, the float32 scale and the tail, exactly as
 * the tensor stands in a GGUF file; n_bytes is that whole size. `scale` repeats the scale. */
typedef struct bnb_weights {
    bnb_layout layout;
    const uint8_t *bytes;
    uint64_t n_bytes;
    float scale;
} bnb_weights;

/* How this backend was built; static text, never NULL. */
typedef struct bnb_build_info {
    const char *compiler;     /* "g++" */
    const char *version;      /* "12.2.0" */
    const char *flags;        /* what decides speed and rounding */
    const char *optimisation; /* "3"; "0" means: refuse to time this */
    const char *source_hash;  /* identity of sources, flags and compiler */
    const char *git_revision; /* "" when unknown */
} bnb_build_info;

/* Prepared weights. Opaque; made by matmul_prepare, ended by matmul_free. */
typedef struct bnb_matmul bnb_matmul;

typedef struct bnb_api {
    uint32_t abi_major;   /* BNB_ABI_MAJOR of the callee */
    uint32_t abi_minor;   /* BNB_ABI_MINOR of the callee */
    uint64_t struct_size; /* sizeof(bnb_api) as the callee was compiled */
    const char *name;     /* "<language>-<isa>": "cpp-avx2" */
    const char *isa;      /* "avx2", "portable", ... */
    const bnb_build_info *build_info;
    uint64_t capabilities; /* BNB_CAP_* */

    /* BNB_OK when this backend can run here; else BNB_UNAVAILABLE with *why set to static
     * text. Nothing else is called on a backend that is not available. */
    bnb_status (*available)(const char **why);

    /* float weights [rows, cols], row-major -> packed bytes and their scale.
     * n_dst must be exactly the packed size of the layout; bytes after the scale are zeroed. */
    bnb_status (*quantize_weights)(const bnb_layout *layout, uint32_t rule, const float *src, uint64_t n_src,
                                   uint8_t *dst, uint64_t n_dst, float *scale);

    /* packed bytes -> code * scale, float [rows, cols]. */
    bnb_status (*dequantize_weights)(const bnb_weights *weights, float *dst, uint64_t n_dst);

    /* float activations [rows, cols] -> int8 codes [rows, cols], and for each row the scale to
     * multiply by (127 / absmax) and the sum of the codes. */
    bnb_status (*quantize_activations)(const float *x, uint64_t n_x, uint64_t rows, uint64_t cols, int8_t *q,
                                       uint64_t n_q, float *scale, uint64_t n_scale, int32_t *sum,
                                       uint64_t n_sum);

    /* Makes weights ready for products with up to n_max activation rows on `threads` threads.
     * Packing, uploading and allocating belong here; products allocate nothing. weights->bytes
     * stay valid and unchanged until matmul_free, so a backend may keep reading them in place. */
    bnb_status (*matmul_prepare)(const bnb_weights *weights, uint64_t n_max, uint32_t threads,
                                 bnb_matmul **handle);

    /* Exact integer products: out[n][m] = sum over k of code[m][k] * q[n][k], codes -1, 0, +1
     * (signed form), q any int8 including -128. n <= n_max; n = 0 does nothing. Tables derived
     * from q are built inside. */
    bnb_status (*matmul_i8_i32)(bnb_matmul *handle, const int8_t *q, uint64_t n_q, uint64_t n, int32_t *out,
                                uint64_t n_out);

    /* The whole linear layer: quantise x [n, cols], multiply, scale: y [n, rows]. */
    bnb_status (*linear_f32_f32)(bnb_matmul *handle, const float *x, uint64_t n_x, uint64_t n, float *y,
                                 uint64_t n_y);

    /* Ends a handle; NULL is allowed. */
    void (*matmul_free)(bnb_matmul *handle);

    /* Returns when no thread of this backend is running or spinning, so that one side's
     * threads never run during the other side's turn. */
    void (*quiesce)(void);
} bnb_api;

/* The entry point a plugin exports. */
const bnb_api *bitnet_backend_v1(uint32_t index);

/* The type of that entry point. */
typedef const bnb_api *(*bitnet_backend_v1_fn)(uint32_t index);

/* The in-tree reference, linked statically under another name so that it cannot clash. */
const bnb_api *bitnet_cpp_reference(uint32_t index);

#ifdef __cplusplus
}
#endif

#endif /* BITNET_BACKEND_H */
