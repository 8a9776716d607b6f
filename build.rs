//! Compiles the C++ reference, makes the bindings of its one header, and tells the crate how it was built.
//!
//! Nothing is downloaded, patched or generated elsewhere. Bindings come from bindgen when a libclang is found
//! (`LIBCLANG_PATH`, or the PyPI package `libclang` of the building Python), else from the checked-in copy;
//! `BITNET_BINDINGS=bindgen` makes a missing libclang an error, so that CI compares the two.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    export("BITNET_RUSTC_VERSION", &output(&env::var("RUSTC").unwrap_or("rustc".into()), &["--version"]));
    export("BITNET_OPT_LEVEL", &env::var("OPT_LEVEL").unwrap_or_default());
    export("BITNET_RUSTFLAGS", &env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\x1f', " "));
    let revision = output("git", &["rev-parse", "--short=12", "HEAD"]);
    export("BITNET_GIT_REVISION", &revision);
    let head_log = output("git", &["rev-parse", "--git-path", "logs/HEAD"]);
    if Path::new(&head_log).exists() {
        println!("cargo:rerun-if-changed={head_log}");
    }
    #[cfg(feature = "ffi")]
    {
        ffi::compile_reference(&revision);
        ffi::make_bindings();
    }
}

/// Makes `value` readable as `env!(name)`.
#[rustfmt::skip]
fn export(name: &str, value: &str) { println!("cargo:rustc-env={name}={value}"); }

/// First line a command prints, or "" when it cannot be run.
fn output(program: &str, args: &[&str]) -> String {
    let run = Command::new(program).args(args).output().ok().filter(|run| run.status.success());
    let text = run.map(|run| run.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_string()
}

/// The first 16 hex digits of the SHA-256 of files and texts.
#[cfg(feature = "ffi")]
fn hash(files: &[std::path::PathBuf], texts: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
    texts.iter().for_each(|text| hasher.update(text));
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(feature = "ffi")]
mod ffi {
    use super::*;
    use std::path::PathBuf;

    const HEADER: &str = "cpp/include/bitnet_backend.h";
    const CHECKED_IN: &str = "rust/backends/contract/bindings.rs";
    /// The reference is optimised in every cargo profile; contraction would change its results.
    const FLAGS: [&str; 4] = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"];
    /// Files whose name ends so are compiled for that instruction set and called only after detection.
    const ISAS: [(&str, &str); 7] = [
        ("_avx2.cpp", "-mavx2 -mfma -mf16c"),
        ("_avxvnni.cpp", "-mavx2 -mfma -mf16c -mavxvnni"),
        ("_avx512vnni.cpp", "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni"),
        ("_avx512bf16.cpp", "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512bf16"),
        ("_avx512fp16.cpp", "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512fp16"),
        ("_neon.cpp", "-march=armv8-a"),
        ("_neondotprod.cpp", "-march=armv8.2-a+dotprod"),
    ];

    pub fn compile_reference(revision: &str) {
        println!("cargo:rerun-if-changed=cpp/include\ncargo:rerun-if-changed=cpp/src");
        let sources = files_in("cpp/src");
        let program = base().get_compiler().path().to_string_lossy().into_owned();
        let version = output(&program, &["-dumpfullversion", "-dumpversion"]);
        let flags = FLAGS.join(" ") + &ISAS.map(|(suffix, flags)| format!("; {suffix}: {flags}")).concat();
        let source_hash = hash(&[&sources[..], &[HEADER.into()]].concat(), &[&flags, &program, &version]);
        let (mut build, mut plain) = (base(), sources);
        plain.retain(|path| path.extension().is_some_and(|extension| extension == "cpp"));
        let target = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
        let known = |flag: &&str| !flag.ends_with("fp16") || base().is_flag_supported(flag).unwrap_or(false);
        for (suffix, flags) in ISAS {
            let own: Vec<_> = plain.extract_if(.., |path| path.to_string_lossy().ends_with(suffix)).collect();
            if target == if suffix.contains("avx") { "x86_64" } else { "aarch64" } {
                build
                    .objects(base().flags(flags.split(' ').filter(known)).files(own).compile_intermediates());
            }
        }
        // The sources state their compiler and its version themselves, by its predefined macros.
        let texts = [flags.as_str(), "3", &source_hash, revision];
        for (name, text) in ["FLAGS", "OPT_LEVEL", "SOURCE_HASH", "GIT_REVISION"].iter().zip(texts) {
            build.define(&format!("BNB_{name}"), format!("\"{text}\"").as_str());
        }
        build.files(plain).compile("bitnet_cpp_reference");
    }

    fn base() -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").include("cpp/include").warnings(true).extra_warnings(true);
        build.opt_level(3).debug(false).flags(FLAGS);
        build
    }

    fn files_in(folder: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable folder").path()).collect();
        files.sort();
        files
    }

    pub fn make_bindings() {
        println!("cargo:rerun-if-env-changed=BITNET_BINDINGS\ncargo:rerun-if-env-changed=LIBCLANG_PATH");
        println!("cargo:rerun-if-changed={CHECKED_IN}");
        let target = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
        let wish = env::var("BITNET_BINDINGS").unwrap_or_default();
        let found = if wish == "checked-in" { Err("as asked for".to_string()) } else { load_libclang() };
        match &found {
            Ok(()) => bindings().write_to_file(&target).expect("OUT_DIR is writable"),
            Err(why) if wish == "bindgen" => panic!("{why}: set LIBCLANG_PATH, or pip install libclang"),
            Err(why) => {
                println!("cargo:warning=using the checked-in bindings: {why}");
                std::fs::copy(CHECKED_IN, &target).expect("the checked-in bindings are part of the sources");
            }
        }
        export("BITNET_BINDINGS_ORIGIN", if found.is_ok() { "bindgen" } else { "checked-in" });
    }

    fn bindings() -> bindgen::Bindings {
        // libclang from PyPI has no builtin headers; the compiler's own serve (stdint.h includes stddef.h).
        let include = output(&env::var("CC").unwrap_or("cc".into()), &["-print-file-name=include"]);
        bindgen::Builder::default()
            .header(HEADER)
            .clang_args(["-std=c99", "-idirafter", &include])
            .allowlist_item("(bnb|BNB|bitnet)_.*")
            .rust_edition(bindgen::RustEdition::Edition2024)
            .merge_extern_blocks(true)
            .formatter(bindgen::Formatter::Prettyplease)
            .generate()
            .expect("the header is valid C99")
    }

    /// Loads libclang from LIBCLANG_PATH, the building Python's `libclang` package, or the system.
    fn load_libclang() -> Result<(), String> {
        if env::var_os("LIBCLANG_PATH").is_none() {
            let script = "import clang.native, os; print(os.path.dirname(clang.native.__file__))";
            let of_env = |name: &str, tail: &str| env::var(name).ok().map(|value| value + tail);
            let folder = [of_env("PYO3_PYTHON", ""), of_env("VIRTUAL_ENV", "/bin/python")]
                .into_iter()
                .flatten()
                .chain([".venv/bin/python".to_string(), "python3".to_string()])
                .map(|python| output(&python, &["-c", script]))
                .find(|folder| !folder.is_empty());
            if let Some(folder) = folder {
                // SAFETY: a build script's main thread; no other thread reads the environment.
                unsafe { env::set_var("LIBCLANG_PATH", folder) };
            }
        }
        clang_sys::load()
            .map_err(|error| format!("libclang was not found ({})", error.lines().next().unwrap_or("")))
    }
}
