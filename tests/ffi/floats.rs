//! Float products and the memory of prepared weights through plugins: what came with minor 1 of the contract.

use super::plugins::{matrix, plugin_of, refused};
use bitnet_perfgate::backends::plugin;
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::backends::{Arithmetic, Backend, BackendError};
use bitnet_perfgate::bitnet::formats::Weights;
use bitnet_perfgate::bitnet::model::{FloatMatrix, FloatType};
use bitnet_perfgate::rng::Rng;

/// A backend with nothing but float products and `more`.
fn fields(more: &str) -> String {
    format!(
        ".abi_major = BNB_ABI_MAJOR, .abi_minor = 1, .struct_size = sizeof(bnb_api), .name = \"c-floats\", .isa = \"x\", \
         .build_info = &build, .available = ready, {more}"
    )
}

const OFFERED: &str = ".float_prepare = prepare, .float_matmul = product, .float_free = release";

/// Products of F32 as docs/NUMERICS.md states them.
const KERNEL: &str = "#include <math.h>\n#include <stdlib.h>\n#include <string.h>\n\
    struct bnb_float_matmul { bnb_float_matrix m; uint64_t n_max; };\n\
    static bnb_status prepare(const bnb_float_matrix *m, uint64_t n_max, uint32_t threads, bnb_float_matmul **handle) {\n\
        if (m->type != BNB_TYPE_F32 || m->arithmetic != BNB_ARITHMETIC_F32 || threads != 1) return BNB_UNSUPPORTED;\n\
        if (m->n_bytes != 4 * m->rows * m->cols) return BNB_INVALID_ARGUMENT;\n\
        bnb_float_matmul *made = malloc(sizeof *made);\n\
        if (!made) return BNB_OUT_OF_MEMORY;\n\
        made->m = *m; made->n_max = n_max; *handle = made;\n\
        return BNB_OK;\n\
    }\n\
    static bnb_status product(bnb_float_matmul *h, const float *x, uint64_t n_x, uint64_t n, float *y, uint64_t n_y) {\n\
        const uint64_t rows = h->m.rows, cols = h->m.cols;\n\
        if (n > h->n_max || n_x != n * cols || n_y != n * rows) return BNB_INVALID_ARGUMENT;\n\
        for (uint64_t i = 0; i < n * rows; ++i) {\n\
            float lanes[32] = {0}, w;\n\
            for (uint64_t k = 0; k < cols; ++k) {\n\
                memcpy(&w, h->m.bytes + 4 * (i % rows * cols + k), 4);\n\
                lanes[k % 32] = fmaf(w, x[i / rows * cols + k], lanes[k % 32]);\n\
            }\n\
            for (int half = 16; half; half /= 2)\n\
                for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];\n\
            y[i] = lanes[0];\n\
        }\n\
        return BNB_OK;\n\
    }\n\
    static void release(bnb_float_matmul *h) { free(h); }";

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// One F32 matrix of ones.
const ONES: [u8; 4 * 64] = {
    let mut bytes = [0; 4 * 64];
    let mut at = 0;
    while at < 64 {
        let one = 1.0_f32.to_le_bytes();
        (bytes[4 * at + 2], bytes[4 * at + 3]) = (one[2], one[3]);
        at += 1;
    }
    bytes
};

fn ones() -> FloatMatrix<'static> {
    FloatMatrix::new(FloatType::F32, 2, 32, &ONES).expect("legal")
}

#[test]
fn a_plugin_with_float_products_agrees_with_the_oracle() {
    let (_folder, library) = plugin_of("floats", KERNEL, &fields(OFFERED));
    let backend = &plugin::load(&library).expect("loads")[0];
    let mut rng = Rng::new(3);
    let mut normals = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    for (rows, cols, n) in [(1, 1, 1), (3, 31, 2), (5, 33, 4), (2, 100, 1)] {
        let bytes = bytes_of(&normals(rows * cols));
        let matrix = FloatMatrix::new(FloatType::F32, rows, cols, &bytes).expect("legal");
        let x = normals(n * cols);
        let run = |backend: &dyn Backend| {
            let mut y = vec![f32::NAN; n * rows];
            let mut matmul = backend.prepare_float_matmul(matrix, Arithmetic::F32, n, 1).expect("supported");
            matmul.matmul_f32(&x, &mut y).expect("runs");
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(run(backend), run(&RustScalar), "{rows}x{cols} b{n}");
    }
    let half = FloatMatrix::new(FloatType::F16, 1, 64, &ONES[..128]).expect("legal");
    for (matrix, arithmetic, threads) in
        [(half, Arithmetic::F32, 1), (ones(), Arithmetic::Native, 1), (ones(), Arithmetic::F32, 2)]
    {
        let answer = backend.prepare_float_matmul(matrix, arithmetic, 1, threads).err();
        assert!(matches!(answer, Some(BackendError::Unsupported { .. })), "{answer:?}");
    }
    let answer = backend.prepare_float_matmul(ones(), Arithmetic::F32, usize::MAX, 1).err();
    assert!(matches!(answer, Some(BackendError::OutOfMemory { .. })), "{answer:?}");
    let mut matmul = backend.prepare_float_matmul(ones(), Arithmetic::F32, 1, 1).expect("supported");
    for (n_x, n_y) in [(31, 2), (32, 1), (64, 4), (33, 2)] {
        let answer = matmul.matmul_f32(&vec![1.0; n_x], &mut vec![0.0; n_y]);
        assert!(matches!(answer, Err(BackendError::Length { .. })), "{n_x} {n_y}: {answer:?}");
    }
}

/// A structure of minor 0 ends before these functions; what lies behind it must not be called.
#[test]
fn an_older_minor_offers_no_float_products() {
    let kernel = KERNEL.replace("static bnb_status prepare(", "static bnb_status kept(");
    let before = format!(
        "{kernel}\nstatic bnb_status prepare(const bnb_float_matrix *m, uint64_t n, uint32_t t, bnb_float_matmul **h) \
         {{ (void)kept; (void)m; (void)n; (void)t; (void)h; *(volatile int *)0 = 1; return BNB_OK; }}\n\
         static uint64_t counted(const bnb_matmul *h) {{ (void)h; *(volatile int *)0 = 1; return 1; }}"
    );
    let fields = fields(&format!("{OFFERED}, .matmul_bytes = counted"))
        .replace(".abi_minor = 1", ".abi_minor = 0")
        .replace("sizeof(bnb_api)", "offsetof(bnb_api, matmul_bytes)");
    let (_folder, library) = plugin_of("minor0", &before, &fields);
    let backends = plugin::load(&library).expect("an older minor is welcome");
    assert_eq!(backends[0].abi_minor(), 0);
    let answer = backends[0].prepare_float_matmul(ones(), Arithmetic::F32, 1, 1).err();
    assert!(matches!(answer, Some(BackendError::Unsupported { .. })), "{answer:?}");
}

#[test]
fn a_float_prepare_without_a_free_is_refused() {
    let before = "static bnb_status prepare(const bnb_float_matrix *m, uint64_t n, uint32_t t, bnb_float_matmul **h) \
        { (void)m; (void)n; (void)t; (void)h; return BNB_UNSUPPORTED; }";
    let (_folder, library) = plugin_of("unfreed_floats", before, &fields(".float_prepare = prepare"));
    let why = refused(&library);
    assert!(why.contains("float_prepare but no float_free"), "{why}");
}

/// What a backend answers is never taken for success unless it is.
#[test]
fn strange_answers_of_float_products_are_typed_errors() {
    let before = "static bnb_status prepare(const bnb_float_matrix *m, uint64_t n, uint32_t t, bnb_float_matmul **h) \
        { (void)n; if (t == 1) return BNB_OK; if (t == 2) return BNB_OUT_OF_MEMORY; if (t == 3) return BNB_INVALID_DATA; \
          if (t == 4) return 77; *h = (bnb_float_matmul *)m->bytes; return BNB_OK; }\n\
        static bnb_status product(bnb_float_matmul *h, const float *x, uint64_t a, uint64_t n, float *y, uint64_t b) \
        { (void)h; (void)a; (void)n; (void)b; y[0] = 1; return x[0] == 0 ? BNB_NON_FINITE : x[0] == 1 ? -3 : BNB_INTERNAL; }\n\
        static void release(bnb_float_matmul *h) { (void)h; }";
    let (_folder, library) = plugin_of("odd_floats", before, &fields(OFFERED));
    let backend = &plugin::load(&library).expect("loads")[0];
    let why = |threads| {
        let answer = backend.prepare_float_matmul(ones(), Arithmetic::F32, 1, threads);
        answer.map(drop).expect_err("an error").to_string()
    };
    assert!(why(1).contains("OK without a handle"), "{}", why(1));
    assert!(why(2).contains("ran out of memory"), "{}", why(2));
    assert!(why(3).contains("unknown status 4"), "{}", why(3));
    assert!(why(4).contains("unknown status 77"), "{}", why(4));
    assert!(why(usize::MAX).contains("does not support"), "{}", why(usize::MAX));
    let mut matmul = backend.prepare_float_matmul(ones(), Arithmetic::F32, 1, 5).expect("a handle of a kind");
    for (x, expected) in [(0.0, "all are finite"), (1.0, "unknown status -3"), (2.0, "exception was caught")]
    {
        let why = matmul.matmul_f32(&[x; 32], &mut [0.0; 2]).expect_err("an error").to_string();
        assert!(why.contains(expected), "{why}");
    }
}

/// What preparing allocated is what the plugin says, and nothing where it does not say.
#[test]
fn bytes_of_prepared_weights_are_the_plugins_word() {
    let before = "static bnb_status prepare(const bnb_weights *w, uint64_t n, uint32_t t, bnb_matmul **h) \
        { (void)n; (void)t; *h = (bnb_matmul *)w->bytes; return BNB_OK; }\n\
        static void release(bnb_matmul *h) { (void)h; }\n\
        static uint64_t counted(const bnb_matmul *h) { return h ? 12345 : 0; }";
    let offered = ".matmul_prepare = prepare, .matmul_free = release";
    let (layout, bytes) = matrix(1, 128);
    for (name, more, expected) in
        [("counted", ", .matmul_bytes = counted", Some(12345)), ("uncounted", "", None)]
    {
        let before = if expected.is_some() {
            before.to_owned()
        } else {
            before.replace("static uint64_t", "uint64_t")
        };
        let (_folder, library) = plugin_of(name, &before, &fields(&format!("{offered}{more}")));
        let backend = &plugin::load(&library).expect("loads")[0];
        let weights = Weights::new(layout, &bytes).expect("legal");
        let matmul = backend.prepare_matmul(weights, 1, 1).expect("prepares");
        assert_eq!(matmul.prepared_bytes(), expected, "{name}");
    }
}

/// As for every other function: a changed mode is an error of that backend and affects nothing here.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_changed_floating_point_mode_is_found() {
    let before = "#include <xmmintrin.h>\n#define FLUSH _mm_setcsr(_mm_getcsr() | 0x8040)\n\
        static bnb_status prepare(const bnb_float_matrix *m, uint64_t n, uint32_t t, bnb_float_matmul **h) \
        { (void)t; *h = (bnb_float_matmul *)m->bytes; if (n == 2) FLUSH; return BNB_OK; }\n\
        static bnb_status product(bnb_float_matmul *h, const float *x, uint64_t a, uint64_t n, float *y, uint64_t b) \
        { (void)h; (void)x; (void)a; (void)n; (void)y; (void)b; FLUSH; return BNB_OK; }\n\
        static void release(bnb_float_matmul *h) { (void)h; FLUSH; }";
    let (_folder, library) = plugin_of("moody_floats", before, &fields(OFFERED));
    let backend = &plugin::load(&library).expect("loads")[0];
    let caught = |answer: Result<(), BackendError>| {
        assert!(
            matches!(&answer, Err(BackendError::Internal { what, .. }) if what.contains("floating-point mode")),
            "{answer:?}"
        );
        assert!(std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5) > 0.0, "subnormals live");
    };
    caught(backend.prepare_float_matmul(ones(), Arithmetic::F32, 2, 1).map(drop));
    let mut matmul = backend.prepare_float_matmul(ones(), Arithmetic::F32, 1, 1).expect("changes nothing");
    caught(matmul.matmul_f32(&[1.0; 32], &mut [0.0; 2]));
    drop(matmul);
    assert!(std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5) > 0.0, "subnormals live");
}
