//! Plugins are compiled here with the system's C compiler, from the header that a user would use.

use bitnet_perfgate::backends::plugin::{self, PluginError};
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::backends::{Availability, Backend, BackendError, WeightRule};
use bitnet_perfgate::bitnet::formats::{self, Layout, WeightFormat, Weights};
use bitnet_perfgate::rng::Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Compiles `source` to a shared library in `folder`.
fn compile(folder: &Path, name: &str, source: &Path, flags: &[&str]) -> PathBuf {
    let library = folder.join(format!("lib{name}.so"));
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    let output = Command::new(&compiler)
        .args(["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-ffp-contract=off"])
        .args(flags)
        .arg(format!("-I{ROOT}/cpp/include"))
        .arg("-o")
        .args([&library, &source.to_path_buf()])
        .arg("-lm")
        .output()
        .unwrap_or_else(|why| panic!("{compiler}: {why}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// A plugin with one backend whose structure is `fields`, after `before`.
pub(super) fn plugin_of(name: &str, before: &str, fields: &str) -> (TempDir, PathBuf) {
    let text = format!(
        "#include \"bitnet_backend.h\"\n#include <stddef.h>\n\
         static const bnb_build_info build = {{\"cc\", \"1\", \"-O2\", \"2\", \"hash\", \"\"}};\n\
         static bnb_status ready(const char **why) {{ (void)why; return BNB_OK; }}\n\
         {before}\n\
         static const bnb_api api = {{{fields}}};\n\
         const bnb_api *bitnet_backend_v1(uint32_t index) {{ (void)ready; (void)build; return index == 0 ? &api : NULL; }}\n"
    );
    plugin_from(name, &text)
}

fn plugin_from(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let source = folder.path().join(format!("{name}.c"));
    fs::write(&source, text).expect("writable");
    // Broken structures are the point of these.
    let library = compile(folder.path(), name, &source, &["-Wno-missing-field-initializers"]);
    (folder, library)
}

pub(super) fn refused(path: &Path) -> String {
    match plugin::load(path) {
        Ok(backends) => panic!("{} was loaded with {} backends", path.display(), backends.len()),
        Err(why) => why.to_string(),
    }
}

/// A seeded I2_S matrix.
pub(super) fn matrix(rows: usize, cols: usize) -> (Layout, Vec<u8>) {
    let layout = Layout::i2s(rows, cols).expect("legal");
    let mut rng = Rng::new(7);
    let codes: Vec<i8> = (0..rows * cols).map(|_| rng.ternary()).collect();
    let mut bytes = vec![0; layout.packed_bytes()];
    formats::pack(&layout, &codes, 0.5, &mut bytes).expect("packs");
    (layout, bytes)
}

#[test]
fn the_example_kernel_agrees_with_the_oracle() {
    let folder = TempDir::new().expect("a temporary folder");
    let source = Path::new(ROOT).join("cpp/examples/my_kernel.c");
    let lines = fs::read_to_string(&source).expect("the example").lines().count();
    assert!(lines < 150, "the example has {lines} lines: it should be readable at one sitting");
    let library = compile(folder.path(), "my_kernel", &source, &["-O3"]);
    let backends = plugin::load(&library).expect("a complete plugin");
    assert_eq!(backends.len(), 1);
    let kernel = &backends[0];
    assert!(kernel.name().ends_with("@libmy_kernel"), "{}", kernel.name());
    assert_eq!(kernel.availability(), Availability::Ready);
    let mut rng = Rng::new(11);
    for (rows, cols, n) in [(1, 128, 1), (3, 256, 2), (64, 2560, 1), (7, 384, 5)] {
        let (layout, bytes) = matrix(rows, cols);
        let weights = Weights::new(layout, &bytes).expect("legal");
        let q: Vec<i8> = (0..n * cols).map(|_| rng.below(256) as u8 as i8).collect();
        let (mut expected, mut actual) = (vec![0; n * rows], vec![-1; n * rows]);
        RustScalar.prepare_matmul(weights, n, 1).unwrap().matmul_i8_i32(&q, &mut expected).unwrap();
        kernel.prepare_matmul(weights, n, 1).unwrap().matmul_i8_i32(&q, &mut actual).unwrap();
        assert_eq!(expected, actual, "{rows}x{cols} b{n}");
    }
    let tl2 = Layout::published(WeightFormat::Tl2, 256, 256).expect("legal");
    let mut bytes = vec![0; tl2.packed_bytes()];
    formats::pack(&tl2, &vec![0; 256 * 256], 0.5, &mut bytes).expect("packs");
    let answer = kernel.prepare_matmul(Weights::new(tl2, &bytes).expect("legal"), 1, 1).err();
    assert!(matches!(answer, Some(BackendError::Unsupported { .. })), "{answer:?}");
}

#[test]
fn another_major_is_refused_by_number() {
    let (_folder, library) =
        plugin_of("major", "", "BNB_ABI_MAJOR + 1, 0, sizeof(bnb_api), \"x\", \"x\", &build, 0, ready");
    let why = refused(&library);
    assert!(why.contains("speaks ABI 2, this build speaks 1"), "{why}");
}

/// An older minor ends its structure early; whatever lies behind it must not be read.
#[test]
fn an_older_minor_works_with_what_it_has() {
    let before = "static bnb_status quantize(const float *x, uint64_t n_x, uint64_t rows, uint64_t cols, int8_t *q, \
        uint64_t n_q, float *scale, uint64_t n_scale, int32_t *sum, uint64_t n_sum) { (void)x; (void)n_x; (void)rows; \
        (void)cols; (void)n_scale; (void)n_sum; for (uint64_t i = 0; i < n_q; i++) q[i] = 3; scale[0] = 1; sum[0] = 9; return BNB_OK; }\n\
        static bnb_status poison(bnb_matmul *h, const int8_t *q, uint64_t n_q, uint64_t n, int32_t *out, uint64_t n_out) \
        { (void)h; (void)q; (void)n_q; (void)n; (void)out; (void)n_out; *(volatile int *)0 = 1; return BNB_OK; }";
    let fields = "BNB_ABI_MAJOR, 0, offsetof(bnb_api, matmul_prepare), \"old\", \"x\", &build, 0, ready, NULL, NULL, quantize, \
        NULL, poison, NULL, NULL, NULL";
    let (_folder, library) = plugin_of("old", before, fields);
    let backends = plugin::load(&library).expect("an older minor is welcome");
    let (mut q, mut scale, mut sum) = ([0; 3], [0.0], [0]);
    backends[0].quantize_activations(&[1.0; 3], 3, &mut q, &mut scale, &mut sum).expect("offered");
    assert_eq!((q, scale, sum), ([3; 3], [1.0], [9]));
    let (layout, bytes) = matrix(1, 128);
    let weights = Weights::new(layout, &bytes).expect("legal");
    let answer = backends[0].prepare_matmul(weights, 1, 1).err();
    assert!(matches!(answer, Some(BackendError::Unsupported { .. })), "{answer:?}");
    let answer = backends[0].quantize_weights(
        &layout,
        WeightRule::AbsMean,
        &[0.0; 128],
        &mut vec![0; layout.packed_bytes()],
    );
    assert!(matches!(answer, Err(BackendError::Unsupported { .. })), "{answer:?}");
}

#[test]
fn files_that_are_no_plugins_are_told_apart() {
    let folder = TempDir::new().expect("a temporary folder");
    let text = folder.path().join("libtext.so");
    fs::write(&text, "this is not a library").expect("writable");
    assert!(refused(&text).contains("not a loadable shared library"), "{}", refused(&text));
    let missing = folder.path().join("libmissing.so");
    assert!(matches!(plugin::load(&missing), Err(PluginError::Load { .. })));
    assert!(matches!(plugin::load(folder.path()), Err(PluginError::Load { .. })));
    let (_keep, library) = plugin_from("other", "int something_else(void) { return 1; }\n");
    assert!(refused(&library).contains("exports no `bitnet_backend_v1`"), "{}", refused(&library));
    let (_keep, library) = plugin_from(
        "empty",
        "#include \"bitnet_backend.h\"\n#include <stddef.h>\nconst bnb_api *bitnet_backend_v1(uint32_t i) { (void)i; return NULL; }\n",
    );
    assert!(refused(&library).contains("offers no backend"), "{}", refused(&library));
}

#[test]
fn malformed_structures_are_refused() {
    for (name, fields, expected) in [
        ("short", "BNB_ABI_MAJOR, 0, 16, \"x\", \"x\", &build, 0, ready", "struct_size is 16"),
        (
            "nameless",
            "BNB_ABI_MAJOR, 0, sizeof(bnb_api), NULL, \"x\", &build, 0, ready",
            "its name is missing",
        ),
        ("unnamed", "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"\", \"x\", &build, 0, ready", "has no name"),
        ("latin1", "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"\\xff\", \"x\", &build, 0, ready", "not UTF-8"),
        (
            "unbuilt",
            "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"x\", \"x\", NULL, 0, ready",
            "build_info is missing",
        ),
        (
            "halved",
            "BNB_ABI_MAJOR, 0, offsetof(bnb_api, available) + 4, \"x\", \"x\", &build, 0, ready",
            "struct_size is 52",
        ),
        ("isaless", "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"x\", NULL, &build, 0, ready", "its isa is missing"),
        (
            "flagless",
            "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"x\", \"x\", &(const bnb_build_info){\"cc\", \"1\", NULL, \"2\", \"\", \"\"}, 0, ready",
            "its build_info.flags is missing",
        ),
    ] {
        let (_folder, library) = plugin_of(name, "", fields);
        let why = refused(&library);
        assert!(why.contains(expected), "{name}: {why}");
    }
    let endless = "#include \"bitnet_backend.h\"\n\
        static const bnb_build_info build = {\"cc\", \"1\", \"\", \"2\", \"\", \"\"};\n\
        static bnb_status ready(const char **why) { (void)why; return BNB_OK; }\n\
        static const bnb_api api = {BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"x\", \"x\", &build, 0, ready, 0, 0, 0, 0, 0, 0, 0, 0};\n\
        const bnb_api *bitnet_backend_v1(uint32_t i) { (void)i; return &api; }\n";
    let (_folder, library) = plugin_from("endless", endless);
    assert!(refused(&library).contains("without a NULL"), "{}", refused(&library));
}

#[test]
fn an_unavailable_plugin_says_why_and_is_never_called() {
    let before = "static bnb_status never(const char **why) { *why = \"needs a quantum bit\"; return BNB_UNAVAILABLE; }";
    let (_folder, library) =
        plugin_of("never", before, "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"x\", \"x\", &build, 0, never");
    let backends = plugin::load(&library).expect("loads");
    assert_eq!(backends[0].availability(), Availability::Unavailable("needs a quantum bit".into()));
    let answer = backends[0].quantize_activations(&[], 1, &mut [], &mut [], &mut []);
    assert!(matches!(answer, Err(BackendError::Unavailable { .. })), "{answer:?}");
}

/// What a backend answers is never taken for success unless it is.
#[test]
fn strange_answers_are_typed_errors() {
    let before = "static bnb_status prepare(const bnb_weights *w, uint64_t n, uint32_t t, bnb_matmul **h) \
        { (void)w; (void)n; (void)h; return t == 1 ? BNB_OK : t == 2 ? BNB_OUT_OF_MEMORY : t == 3 ? BNB_INVALID_DATA : 77; }\n\
        static void release(bnb_matmul *h) { (void)h; }";
    let fields = "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"odd\", \"x\", &build, 0, ready, NULL, NULL, NULL, prepare, NULL, NULL, release, NULL";
    let (_folder, library) = plugin_of("odd", before, fields);
    let backend = &plugin::load(&library).expect("loads")[0];
    let (layout, bytes) = matrix(1, 128);
    let prepare = |threads| {
        let weights = Weights::new(layout, &bytes).expect("legal");
        backend.prepare_matmul(weights, 1, threads).map(drop).expect_err("an error").to_string()
    };
    assert!(prepare(1).contains("OK without a handle"), "{}", prepare(1));
    assert!(prepare(2).contains("ran out of memory"), "{}", prepare(2));
    assert!(prepare(3).contains("codes are all legal"), "{}", prepare(3));
    assert!(prepare(4).contains("unknown status 77"), "{}", prepare(4));
    assert!(prepare(usize::MAX).contains("does not support"), "{}", prepare(usize::MAX));
}

/// Handles that nobody can give back would leak, so such a backend is refused as a whole.
#[test]
fn a_prepare_without_a_free_is_refused() {
    let before = "static bnb_status prepare(const bnb_weights *w, uint64_t n, uint32_t t, bnb_matmul **h) \
        { (void)w; (void)n; (void)t; (void)h; return BNB_UNSUPPORTED; }";
    let fields =
        "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"x\", \"x\", &build, 0, ready, NULL, NULL, NULL, prepare";
    let (_folder, library) = plugin_of("unfreed", before, fields);
    let why = refused(&library);
    assert!(why.contains("matmul_prepare but no matmul_free"), "{why}");
}

/// The dynamic linker would wait for a writer of the pipe for ever.
#[cfg(unix)]
#[test]
fn a_pipe_is_refused_at_once() {
    let folder = TempDir::new().expect("a temporary folder");
    let pipe = folder.path().join("libpipe.so");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let (send, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(refused(&pipe)));
    let why = answer.recv_timeout(std::time::Duration::from_secs(20)).expect("an answer, not a wait");
    assert!(why.contains("not a regular file"), "{why}");
}

/// The floating-point mode belongs to whoever runs the oracle; a plugin that changes it is found out.
#[cfg(target_arch = "x86_64")]
mod floating_point_mode {
    use super::*;
    use std::hint::black_box;

    /// `FLUSH` does what the start-up code of `-ffast-math` does, `UPWARD` turns the rounding.
    const MODES: &str = "#include <xmmintrin.h>\n\
        #define FLUSH _mm_setcsr(_mm_getcsr() | 0x8040)\n\
        #define UPWARD _mm_setcsr((_mm_getcsr() & ~0x6000u) | 0x4000)\n";
    const FIELDS: &str = "BNB_ABI_MAJOR, 0, sizeof(bnb_api), \"moody\", \"x\", &build, 0, ready";

    /// Subnormals live and ties round to even on this thread.
    fn assert_untouched(after: &str) {
        let half = black_box(f32::MIN_POSITIVE) * black_box(0.5);
        assert!(half > 0.0, "{after}: subnormals are flushed");
        assert_eq!(black_box(1.0_f32) + black_box(f32::EPSILON / 4.0), 1.0, "{after}: rounds upwards");
        assert_eq!(black_box(-1.0_f32) - black_box(f32::EPSILON / 4.0), -1.0, "{after}: rounds downwards");
    }

    #[test]
    fn changed_while_loading_is_refused() {
        for (name, change) in [("flush", "FLUSH"), ("upward", "UPWARD")] {
            let before =
                format!("{MODES}__attribute__((constructor)) static void change(void) {{ {change}; }}");
            let (_folder, library) = plugin_of(name, &before, FIELDS);
            let why = refused(&library);
            assert!(why.contains("changed the floating-point mode while loading"), "{why}");
            assert_untouched(&format!("a constructor with {change}"));
        }
        let before = format!(
            "{MODES}static bnb_status moody(const char **why) {{ (void)why; FLUSH; return BNB_OK; }}"
        );
        let (_folder, library) = plugin_of("available", &before, &FIELDS.replace("ready", "moody"));
        assert!(refused(&library).contains("-ffast-math"), "{}", refused(&library));
        assert_untouched("available");
        let entry = format!(
            "#include \"bitnet_backend.h\"\n#include <stddef.h>\n{MODES}\
             const bnb_api *bitnet_backend_v1(uint32_t i) {{ (void)i; UPWARD; return NULL; }}\n"
        );
        let (_folder, library) = plugin_from("entry", &entry);
        assert!(refused(&library).contains("floating-point mode"), "{}", refused(&library));
        assert_untouched("bitnet_backend_v1");
    }

    /// A destructor runs when a refused library is closed.
    #[test]
    fn changed_while_unloading_a_refused_library_is_put_back() {
        let before = format!("{MODES}__attribute__((destructor)) static void change(void) {{ FLUSH; }}");
        let (_folder, library) = plugin_of("parting", &before, &FIELDS.replace("\"moody\"", "NULL"));
        let _ = refused(&library);
        assert_untouched("a destructor");
    }

    /// Every function: the result is not believed, and the next computation of this thread is not affected.
    #[test]
    fn changed_in_a_call_is_an_error_of_that_backend() {
        let before = format!(
            "{MODES}#include <stdlib.h>\n#define OK {{ UPWARD; return BNB_OK; }}\n#pragma GCC diagnostic ignored \"-Wunused-parameter\"\n\
            static bnb_status pack(const bnb_layout *l, uint32_t r, const float *s, uint64_t n, uint8_t *d, uint64_t m, float *c) OK\n\
            static bnb_status unpack(const bnb_weights *w, float *d, uint64_t n) OK\n\
            static bnb_status quantize(const float *x, uint64_t a, uint64_t r, uint64_t c, int8_t *q, uint64_t b, float *s, \
                uint64_t d, int32_t *t, uint64_t e) OK\n\
            static bnb_status prepare(const bnb_weights *w, uint64_t n, uint32_t t, bnb_matmul **h) \
                {{ *h = (bnb_matmul *)w->bytes; if (n == 2) FLUSH; return BNB_OK; }}\n\
            static bnb_status product(bnb_matmul *h, const int8_t *q, uint64_t a, uint64_t n, int32_t *o, uint64_t b) OK\n\
            static bnb_status linear(bnb_matmul *h, const float *x, uint64_t a, uint64_t n, float *y, uint64_t b) OK\n\
            static void release(bnb_matmul *h) {{ FLUSH; }}\n\
            static void quiesce(void) {{ FLUSH; }}"
        );
        let fields = format!("{FIELDS}, pack, unpack, quantize, prepare, product, linear, release, quiesce");
        let (_folder, library) = plugin_of("calls", &before, &fields);
        let backend = &plugin::load(&library).expect("loads")[0];
        let (layout, mut bytes) = matrix(1, 128);
        let packed = bytes.clone();
        let weights = Weights::new(layout, &packed).expect("legal");
        let caught = |what: &str, answer: Result<(), BackendError>| {
            assert!(
                matches!(&answer, Err(BackendError::Internal { what, .. }) if what.contains("floating-point mode")),
                "{what}: {answer:?}"
            );
            assert_untouched(what);
        };
        let x = [1.0; 128];
        let answer = backend.quantize_weights(&layout, WeightRule::AbsMean, &x, &mut bytes);
        caught("quantize_weights", answer.map(drop));
        caught("dequantize_weights", backend.dequantize_weights(&weights, &mut [0.0; 128]));
        let (mut q, mut scale, mut sum) = ([0; 128], [0.0], [0]);
        caught("quantize_activations", backend.quantize_activations(&x, 128, &mut q, &mut scale, &mut sum));
        caught("matmul_prepare", backend.prepare_matmul(weights, 2, 1).map(drop));
        let mut matmul = backend.prepare_matmul(weights, 1, 1).expect("changes nothing for n_max = 1");
        caught("matmul_i8_i32", matmul.matmul_i8_i32(&q, &mut [0]));
        caught("linear_f32_f32", matmul.linear_f32_f32(&x, &mut [0.0]));
        drop(matmul);
        assert_untouched("matmul_free");
        backend.quiesce();
        assert_untouched("quiesce");
    }
}
