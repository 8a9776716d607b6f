//! Plugins: any shared library that exports `bitnet_backend_v1`. Bring your own kernel.

use super::contract::fp_mode::FpMode;
use super::contract::safe::{ContractBackend, ContractError};
use super::contract::supplier::{self, Entry};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a file is not a usable plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The dynamic linker refuses the file.
    #[error("{path}: not a loadable shared library: {why}")]
    Load {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker said.
        why: String,
    },
    /// It is a shared library, but exports no entry point.
    #[error("{path}: exports no `bitnet_backend_v1`: is it built from cpp/include/bitnet_backend.h?")]
    NoEntry {
        /// The file.
        path: PathBuf,
    },
    /// The entry point answers something unusable.
    #[error("{path}: {why}")]
    Contract {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: ContractError,
    },
    /// The entry point answers NULL for index 0.
    #[error("{path}: offers no backend (bitnet_backend_v1(0) is NULL)")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its code changed how this thread rounds or treats subnormals; the mode is put back.
    #[error(
        "{path}: changed the floating-point mode while loading ({change}): built with -ffast-math? \
         Build it without, and restore the mode wherever it is set"
    )]
    FloatingPointMode {
        /// The file.
        path: PathBuf,
        /// The mode before and after.
        change: String,
    },
}

/// Every backend of the shared library at `path`, each called `<its name>@<file stem>`.
///
/// Loading runs the library's initialisers: load only what you would run. It runs in this process, which it can bring
/// down. If its code changes the floating-point mode of the calling thread, the mode is put back and the file refused.
pub fn load(path: &Path) -> Result<Vec<ContractBackend>, PluginError> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    load_as(path, &stem)
}

/// The same with names `<its name>@<label>`: two builds of one library are told apart by their labels.
pub fn load_as(path: &Path, label: &str) -> Result<Vec<ContractBackend>, PluginError> {
    let before = FpMode::now();
    let mut loaded = open(path, label);
    // Refused files are closed by now; their destructors are covered too.
    if let Some(after) = before.put_back() {
        let change = format!("{before} to {after}");
        loaded = Err(PluginError::FloatingPointMode { path: path.to_path_buf(), change });
        before.put_back();
    }
    loaded
}

/// Opens the file and asks for its backends.
fn open(path: &Path, label: &str) -> Result<Vec<ContractBackend>, PluginError> {
    let named = || path.to_path_buf();
    // A path without a separator would be searched in system folders; a plugin is always a file.
    let file =
        path.canonicalize().map_err(|why| PluginError::Load { path: named(), why: why.to_string() })?;
    // Opening a pipe waits for whoever writes to it.
    if !file.is_file() {
        return Err(PluginError::Load { path: named(), why: "not a regular file".into() });
    }
    // SAFETY: initialisers of a library the user names run with the user's rights, as documented.
    let library = unsafe { libloading::Library::new(&file) }
        .map_err(|why| PluginError::Load { path: named(), why: cause(&why) })?;
    // SAFETY: the symbol's type is fixed by the header; only its presence can be checked.
    let entry: Entry = *unsafe { library.get::<Entry>(c"bitnet_backend_v1") }
        .map_err(|_| PluginError::NoEntry { path: named() })?;
    let backends = supplier::enumerate(entry, &Some(Arc::new(library)), |name| format!("{name}@{label}"))
        .map_err(|why| PluginError::Contract { path: named(), why })?;
    if backends.is_empty() {
        return Err(PluginError::Empty { path: named() });
    }
    Ok(backends)
}

/// What the dynamic linker said; libloading keeps it beneath its own "dlopen failed".
fn cause(why: &libloading::Error) -> String {
    std::error::Error::source(why).unwrap_or(why).to_string()
}
