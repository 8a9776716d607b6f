//! The C contract seen from Rust: [`safe`] wraps one `bnb_api` as a [`Backend`](super::Backend), [`supplier`]
//! enumerates what an entry point offers. The raw bindings of `cpp/include/bitnet_backend.h` stay private.

mod floats;
pub(super) mod fp_mode;
mod models;
pub mod safe;
pub mod supplier;

/// bindgen's output, unread by people.
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, dead_code, clippy::all)]
pub(crate) mod sys {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

/// How the bindings came about in this build: `bindgen` or `checked-in`.
pub const BINDINGS_ORIGIN: &str = env!("BITNET_BINDINGS_ORIGIN");
