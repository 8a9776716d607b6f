//! Every backend, Rust and C++: against bitnet.cpp, against the oracle, over the catalogue, and against bad input.
//! Every test takes the backends from the list in support; none names an instruction set.

#[path = "../support/backends.rs"]
mod support;

#[path = "../support/npz.rs"]
mod npz;

mod catalogue;
mod float;
mod golden;
mod model;
mod native;
mod oracle;
mod refusals;
mod repacked;
