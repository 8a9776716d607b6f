//! The C contract from outside: plugins that are complete, older, broken or hostile, and the bindings themselves.
#![cfg(feature = "ffi")]

mod bindings;
mod engines;
mod floats;
mod plugins;
