//! `bitnet_perfgate`: the cross-validation and performance gate for 1.58-bit (BitNet) kernels and inference.
//!
//! The folders read as a sentence: what a BitNet is ([`bitnet`]), who can compute it ([`backends`],
//! [`inference`]), what we
//! ask of them ([`workloads`]), do they agree ([`parity`]), how long did it take ([`measure`]), run it all
//! ([`campaign`]), what we keep ([`record`]), what the numbers mean ([`stats`]), what we conclude ([`gate`]),
//! what we say ([`report`]), which build ([`builds`]), who may ask (`python`). Who may import whom is in `docs/ARCHITECTURE.md` and is
//! enforced by `tests/architecture.rs`.
//!
//! The first law: no evidence is never a pass.

pub mod rng;
pub mod team;

pub mod bitnet;

pub mod backends;

pub mod inference;

pub mod parity;

pub mod workloads;

pub mod measure;

pub mod record;

pub mod campaign;

pub mod stats;

pub mod gate;

pub mod session;

pub mod report;

pub mod builds;

#[cfg(feature = "ffi")]
pub mod export;

#[cfg(feature = "python")]
mod python;
