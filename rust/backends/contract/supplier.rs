//! A supplier is whatever answers `bnb_api` structures by index: the in-tree C++ reference, or the
//! `bitnet_backend_v1` of a shared library. This enumerates one.

use super::safe::{ContractBackend, ContractError, KeepAlive};
use super::sys;

/// A library that never answers NULL would be enumerated for ever; no real one has this many backends.
const MAX_BACKENDS: u32 = 64;

/// The entry point of a supplier.
pub(in crate::backends) type Entry = unsafe extern "C" fn(u32) -> *const sys::bnb_api;

/// Every backend behind `entry`, named by `rename(name)`, keeping `library` loaded as long as one of them lives.
pub(in crate::backends) fn enumerate(
    entry: Entry,
    library: &KeepAlive,
    rename: impl Fn(&str) -> String,
) -> Result<Vec<ContractBackend>, ContractError> {
    let mut backends = Vec::new();
    for index in 0..MAX_BACKENDS {
        match ContractBackend::from_entry(entry, index, library, &rename)? {
            Some(backend) => backends.push(backend),
            None => return Ok(backends),
        }
    }
    Err(ContractError::Endless { limit: MAX_BACKENDS })
}
