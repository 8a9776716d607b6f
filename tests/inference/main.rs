//! Whole models: our engine over every backend, against the golden logits of the real bitnet.cpp, against itself under
//! other threads, batches and caches, and against bad input.

#[path = "../support/npz.rs"]
mod npz;

mod divergence;
mod foreign;
mod golden;
mod invariants;
mod loops;
mod models;
mod refusals;
