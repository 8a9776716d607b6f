/* A complete backend in one C99 file: I2_S matrix products, nothing else.
 *
 *     cc -O3 -ffp-contract=off -shared -fPIC -Icpp/include -o libmy_kernel.so cpp/examples/my_kernel.c -lm
 *
 * To bring your own kernel, replace dot_row; the checks around it are what the contract asks of everybody.
 * A kernel compiled elsewhere (C++, Rust, ...) is linked: -DMY_DOT_ROW=its_name (docs/CHECK_MY_KERNEL.md).
 */
#include <math.h>
#include <stdlib.h>

#include "bitnet_backend.h"

struct bnb_matmul {
    const uint8_t *bytes; /* the caller's, packed [rows, cols] */
    uint64_t rows, cols, n_max;
    float weight_scale;
    int8_t *codes; /* [cols], one quantised row */
};

/* The kernel: one packed row times one activation row. Byte b of a block of 128 columns holds the codes
 * u = weight + 1 of columns b, b + 32, b + 64 and b + 96, the first in the highest two bits. */
#ifdef MY_DOT_ROW
int32_t MY_DOT_ROW(const uint8_t *bytes, const int8_t *q, uint64_t cols);
#define dot_row MY_DOT_ROW
#else
static int32_t dot_row(const uint8_t *bytes, const int8_t *q, uint64_t cols) {
    int32_t dot = 0;
    for (uint64_t start = 0; start < cols; start += 128, bytes += 32, q += 128) {
        for (int b = 0; b < 32; ++b) {
            const int u = bytes[b];
            dot += ((u >> 6 & 3) - 1) * q[b] + ((u >> 4 & 3) - 1) * q[b + 32];
            dot += ((u >> 2 & 3) - 1) * q[b + 64] + ((u & 3) - 1) * q[b + 96];
        }
    }
    return dot;
}
#endif

static bnb_status available(const char **why) {
    if (why) {
        *why = "";
    }
    return BNB_OK;
}

static void matmul_free(bnb_matmul *handle) {
    free(handle ? handle->codes : NULL);
    free(handle);
}

static bnb_status matmul_prepare(const bnb_weights *weights, uint64_t n_max, uint32_t threads,
                                 bnb_matmul **handle) {
    if (!weights || !weights->bytes || !handle) {
        return BNB_INVALID_ARGUMENT;
    }
    const bnb_layout *l = &weights->layout;
    if (l->format != BNB_FORMAT_I2_S || l->bm || l->bk || l->by || l->rows == 0 || l->cols == 0 ||
        l->cols % 128 != 0 || l->cols >= 1u << 24 || l->rows >= UINT64_C(1) << 32 || threads != 1) {
        return BNB_UNSUPPORTED;
    }
    const uint64_t n_codes = l->rows * (l->cols / 4); /* below 2^54: the limits above saw to that */
    if (weights->n_bytes != n_codes + 32 || !isfinite(weights->scale) || signbit(weights->scale)) {
        return BNB_INVALID_ARGUMENT;
    }
    for (uint64_t i = 0; i < n_codes; ++i) {
        if (weights->bytes[i] & weights->bytes[i] >> 1 & 0x55) {
            return BNB_INVALID_DATA; /* code 3 */
        }
    }
    bnb_matmul *made = calloc(1, sizeof *made);
    if (made) {
        made->codes = malloc((size_t)l->cols);
    }
    if (!made || !made->codes) {
        matmul_free(made);
        return BNB_OUT_OF_MEMORY;
    }
    *made = (bnb_matmul){weights->bytes, l->rows, l->cols, n_max, weights->scale, made->codes};
    *handle = made;
    return BNB_OK;
}

/* n_in == n * cols and n_out == n * rows, without overflow. */
static int counts_fit(const bnb_matmul *h, uint64_t n, uint64_t n_in, uint64_t n_out) {
    return n <= h->n_max && n <= UINT64_MAX / h->cols && n <= UINT64_MAX / h->rows && n_in == n * h->cols &&
           n_out == n * h->rows;
}

static bnb_status matmul_i8_i32(bnb_matmul *handle, const int8_t *q, uint64_t n_q, uint64_t n, int32_t *out,
                                uint64_t n_out) {
    if (!handle || !counts_fit(handle, n, n_q, n_out) || (n && (!q || !out))) {
        return BNB_INVALID_ARGUMENT;
    }
    for (uint64_t i = 0; i < n; ++i) {
        for (uint64_t m = 0; m < handle->rows; ++m) {
            const uint8_t *row = handle->bytes + m * (handle->cols / 4);
            out[i * handle->rows + m] = dot_row(row, q + i * handle->cols, handle->cols);
        }
    }
    return BNB_OK;
}

static bnb_status linear_f32_f32(bnb_matmul *handle, const float *x, uint64_t n_x, uint64_t n, float *y,
                                 uint64_t n_y) {
    if (!handle || !counts_fit(handle, n, n_x, n_y) || (n && (!x || !y))) {
        return BNB_INVALID_ARGUMENT;
    }
    for (uint64_t i = 0; i < n_x; ++i) {
        if (!isfinite(x[i])) {
            return BNB_NON_FINITE;
        }
    }
    for (uint64_t i = 0; i < n; ++i, x += handle->cols, y += handle->rows) {
        double largest = 1e-5;
        for (uint64_t k = 0; k < handle->cols; ++k) {
            largest = fmax(largest, fabs((double)x[k]));
        }
        const float scale = (float)(127.0 / largest);
        for (uint64_t k = 0; k < handle->cols; ++k) { /* halves to even */
            handle->codes[k] = (int8_t)fminf(127.0f, fmaxf(-128.0f, nearbyintf(x[k] * scale)));
        }
        for (uint64_t m = 0; m < handle->rows; ++m) {
            const int32_t dot = dot_row(handle->bytes + m * (handle->cols / 4), handle->codes, handle->cols);
            y[m] = (float)dot / scale * handle->weight_scale;
        }
    }
    return BNB_OK;
}

static void quiesce(void) {} /* no threads */
static const bnb_build_info build = {"cc", __VERSION__, "-O3 -ffp-contract=off", "3", "", ""};
/* What is not named here is NULL: not offered. */
static const bnb_api api = {.abi_major = BNB_ABI_MAJOR,
                            .abi_minor = BNB_ABI_MINOR,
                            .struct_size = sizeof(bnb_api),
                            .name = "c-my-kernel",
                            .isa = "portable",
                            .build_info = &build,
                            .capabilities = BNB_CAP_I2_S,
                            .available = available,
                            .matmul_prepare = matmul_prepare,
                            .matmul_i8_i32 = matmul_i8_i32,
                            .linear_f32_f32 = linear_f32_f32,
                            .matmul_free = matmul_free,
                            .quiesce = quiesce};

const bnb_api *bitnet_backend_v1(uint32_t index) {
    return index == 0 ? &api : NULL;
}
