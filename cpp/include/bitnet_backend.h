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
#define BNB_ABI_MINOR 1u /* 1: float products, whole models, memory of prepared weights */

/* What a call answers. */
typedef int32_t bnb_status;
#define BNB_OK 0               /* done */
#define BNB_UNSUPPORTED 1      /* this backend cannot do this shape, format, option or scale */
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

/* Types of tensors, by their ids in GGUF files. */
#define BNB_TYPE_F32 0u
#define BNB_TYPE_F16 1u
#define BNB_TYPE_Q8_0 8u  /* 34 bytes per 32 values */
#define BNB_TYPE_Q6_K 14u /* 210 bytes per 256 values */
#define BNB_TYPE_BF16 30u
#define BNB_TYPE_I2_S 36u
#define BNB_TYPE_TL1 38u
#define BNB_TYPE_TL2 39u

/* How float products are computed (docs/NUMERICS.md, float products). */
#define BNB_ARITHMETIC_F32 1u    /* float32, fused, in 32 lanes: the same bits on every backend */
#define BNB_ARITHMETIC_NATIVE 2u /* the hardware's own products of the matrix's type; within a bound */

/* A float matrix [rows, cols] as it stands in a GGUF file: F32, F16, BF16, Q8_0 or Q6_K, rows contiguous. */
typedef struct bnb_float_matrix {
    uint32_t type;       /* BNB_TYPE_* */
    uint32_t arithmetic; /* BNB_ARITHMETIC_* */
    uint64_t rows;
    uint64_t cols;
    const uint8_t *bytes; /* no alignment is promised */
    uint64_t n_bytes;
} bnb_float_matrix;

/* A prepared float matrix. Opaque; made by float_prepare, ended by float_free. */
typedef struct bnb_float_matmul bnb_float_matmul;

/* ---- Whole models (docs/NUMERICS.md, whole models) ---- */

/* What stands between ffn_gate and ffn_up. */
#define BNB_ACTIVATION_SILU 1u
#define BNB_ACTIVATION_RELU_SQUARED 2u

/* Which two values of a head rotate together. */
#define BNB_ROPE_HALVES 1u     /* i and i + d/2 ("NeoX"): bitnet, bitnet-b1.58 */
#define BNB_ROPE_NEIGHBOURS 2u /* 2i and 2i + 1: llama */

/* Where values are rounded to float16. */
#define BNB_NUMERICS_GGML 1u     /* where bitnet.cpp does, which depends on the number of columns */
#define BNB_NUMERICS_PURE_F32 2u /* nowhere but in a float16 cache */

/* The shape of a model and how it is run. */
typedef struct bnb_model {
    uint32_t activation; /* BNB_ACTIVATION_* */
    uint32_t rope;       /* BNB_ROPE_* */
    uint32_t sub_norms;  /* 1: attn_sub_norm and ffn_sub_norm exist; 0: they do not */
    uint32_t numerics;   /* BNB_NUMERICS_* */
    uint32_t kv_type;    /* of the cache: BNB_TYPE_F16 or BNB_TYPE_F32 */
    uint32_t threads;
    float rope_base;
    float norm_eps;
    uint64_t hidden;
    uint64_t ffn;
    uint64_t layers;
    uint64_t heads;
    uint64_t kv_heads; /* query head h reads key and value head h / (heads / kv_heads) */
    uint64_t head_dim; /* even */
    uint64_t vocab;
    uint64_t context; /* positions the cache holds */
    uint64_t batch;   /* most tokens of one engine_prefill */
    uint64_t outputs; /* most tokens of one call whose logits are kept */
} bnb_model;

/* A tensor of the model by its GGUF name. The text is read during engine_create only; the bytes stay valid
 * and unchanged until engine_free, so that an engine may read them in place. */
typedef struct bnb_tensor {
    const char *name; /* "blk.0.attn_q.weight"; NUL-terminated */
    uint32_t type;    /* BNB_TYPE_* */
    uint32_t bm;      /* tile parameters of TL1 and TL2, else 0 */
    uint32_t bk;
    uint32_t by;
    uint64_t rows; /* 1 for norms and scales */
    uint64_t cols;
    const uint8_t *bytes;
    uint64_t n_bytes;
} bnb_tensor;

/* A model with its cache. Opaque; made by engine_create, ended by engine_free. */
typedef struct bnb_engine bnb_engine;

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
     * n_dst must be exactly the packed size of the layout; bytes after the scale are zeroed. BNB_UNSUPPORTED,
     * and nothing written, where the scale would be infinite. */
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

    /* ---- since minor 1 ---- */

    /* Bytes that matmul_prepare allocated for this handle: what repacking costs in memory. */
    uint64_t (*matmul_bytes)(const bnb_matmul *handle);

    /* Makes a float matrix ready for products with up to n_max rows of x on `threads` threads.
     * matrix->bytes stay valid and unchanged until float_free. */
    bnb_status (*float_prepare)(const bnb_float_matrix *matrix, uint64_t n_max, uint32_t threads,
                                bnb_float_matmul **handle);

    /* y[n][m] = sum over k of w[m][k] * x[n][k]; x is not looked at for NaN. n <= n_max; n = 0 does nothing.
     * Allocates nothing. */
    bnb_status (*float_matmul)(bnb_float_matmul *handle, const float *x, uint64_t n_x, uint64_t n, float *y,
                               uint64_t n_y);

    /* Ends a handle; NULL is allowed. */
    void (*float_free)(bnb_float_matmul *handle);

    /* Makes a model ready: every tensor present once with the right sides and type, norms finite, no unused
     * code in ternary bytes (else BNB_INVALID_ARGUMENT, BNB_NON_FINITE, BNB_INVALID_DATA). Packing and
     * allocating belong here; running allocates nothing. Tensors (layer N): token_embd.weight [vocab,
     * hidden], output_norm.weight, output.weight (absent: token_embd.weight serves), blk.N.attn_norm.weight,
     * blk.N.attn_q.weight [heads * head_dim, hidden], blk.N.attn_k.weight and blk.N.attn_v.weight [kv_heads *
     * head_dim, hidden], blk.N.attn_output.weight [hidden, heads * head_dim], blk.N.ffn_norm.weight,
     * blk.N.ffn_gate.weight and blk.N.ffn_up.weight [ffn, hidden], blk.N.ffn_down.weight [hidden, ffn]; with
     * sub_norms blk.N.attn_sub_norm.weight [heads * head_dim] and blk.N.ffn_sub_norm.weight [ffn]; optionally
     * the name of a ternary tensor with .scale for .weight, one F32 by which its products are multiplied.
     * Other names are refused. */
    bnb_status (*engine_create)(const bnb_model *model, const bnb_tensor *tensors, uint64_t n_tensors,
                                bnb_engine **engine);

    /* Runs n tokens (1 .. batch) as n columns at once, at the positions after those already run, and keeps
     * the logits of the last n_outputs of them (0 .. min(n, outputs)). BNB_INVALID_ARGUMENT for a token that
     * is not in the vocabulary or a context that is full: then nothing was run. BNB_NON_FINITE when a value
     * inside the model is no number any more: then reset it. */
    bnb_status (*engine_prefill)(bnb_engine *engine, const uint32_t *tokens, uint64_t n, uint64_t n_outputs);

    /* engine_prefill of one token with one output. */
    bnb_status (*engine_decode)(bnb_engine *engine, uint32_t token);

    /* Copies the logits kept by the last call: n_logits must be its n_outputs * vocab. */
    bnb_status (*engine_logits)(bnb_engine *engine, float *logits, uint64_t n_logits);

    /* From now on each call also writes the intermediate of that name to dst, [n tokens, width] row-major, as
     * far as n_dst values go; dst stays valid until the tap is changed or the engine freed. dst = NULL ends
     * that tap, name = NULL all. Names are listed in docs/NUMERICS.md; BNB_UNSUPPORTED for others. The name
     * is copied. */
    bnb_status (*engine_tap)(bnb_engine *engine, const char *name, float *dst, uint64_t n_dst);

    /* Forgets every token: the next call starts at position 0. Taps stay. */
    bnb_status (*engine_reset)(bnb_engine *engine);

    /* Ends an engine; NULL is allowed. */
    void (*engine_free)(bnb_engine *engine);
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
