//! The in-tree C++ reference: a statically linked supplier of the contract.

use super::contract::safe::ContractBackend;
use super::contract::{supplier, sys};

/// Every backend of the C++ reference, from the plainest to the fastest.
pub fn reference() -> Vec<ContractBackend> {
    supplier::enumerate(sys::bitnet_cpp_reference, &None, str::to_owned)
        .expect("the reference is compiled from the header that this crate was compiled from")
}
