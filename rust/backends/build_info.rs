//! How this crate was compiled, as its own backends report it. The values come from `build.rs` at compile time;
//! what it did not say is an empty string.

use super::BuildInfo;

/// Compiler, flags and identity of the Rust backends.
pub(super) fn build_info() -> BuildInfo {
    let known = |value: Option<&str>| value.unwrap_or_default().to_string();
    BuildInfo {
        compiler: "rustc".to_string(),
        version: known(option_env!("BITNET_RUSTC_VERSION")),
        flags: known(option_env!("BITNET_RUSTFLAGS")),
        optimisation: known(option_env!("BITNET_OPT_LEVEL")),
        source_hash: known(option_env!("BITNET_SOURCE_HASH")),
        git_revision: known(option_env!("BITNET_GIT_REVISION")),
    }
}
