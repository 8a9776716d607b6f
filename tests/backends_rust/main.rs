//! The Rust backends: against bitnet.cpp, against the oracle, and against bad input. Every test takes the backends
//! from the list in support; none names an instruction set.

#[path = "../support/backends.rs"]
mod support;

#[path = "../support/npz.rs"]
mod npz;

mod golden;
mod oracle;
mod refusals;
