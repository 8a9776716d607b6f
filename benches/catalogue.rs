//! criterion over the quick profile of the catalogue, under the catalogue's ids, for every backend that runs here.
//!
//! A bench runs the same prepared object that parity compares and `run` times, and it is compared with the oracle
//! first: a fast wrong backend is not measured. These numbers are unpaired; for a comparison of two sides use
//! `python -m bitnet_perfgate run`, which interleaves them.

#[path = "support/agreeing.rs"]
mod agreeing;

use agreeing::bench;
use bitnet_perfgate::workloads::catalog::Profile;
use criterion::{Criterion, criterion_group, criterion_main};

fn catalogue(criterion: &mut Criterion) {
    bench(criterion, Profile::Quick, |_| true);
}

criterion_group! {
    name = benches;
    config = agreeing::config();
    targets = catalogue
}
criterion_main!(benches);
