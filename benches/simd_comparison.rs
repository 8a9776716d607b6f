//! criterion over one product of each format and kind, under the catalogue's ids, on every instruction set that runs
//! here and on the plain loops: what SIMD gives.

#[path = "support/agreeing.rs"]
mod agreeing;

use agreeing::bench;
use bitnet_perfgate::workloads::catalog::Profile;
use criterion::{Criterion, criterion_group, criterion_main};

/// The plain loops take some tens of milliseconds for each of them.
const IDS: [&str; 6] = [
    "matmul/i2_s/2560x2560/b1/t1/hot",
    "matmul/tl1/2560x2560/b1/t1/hot",
    "matmul/tl2/2560x2560/b1/t1/hot",
    "linear/i2_s/2560x2560/b1/t1/hot",
    "quantize/i2_s/640x2560",
    "activation/int8/2560x1",
];

fn simd_comparison(criterion: &mut Criterion) {
    bench(criterion, Profile::Full, |workload| IDS.contains(&workload.id.as_str()));
}

criterion_group! {
    name = benches;
    config = agreeing::config();
    targets = simd_comparison
}
criterion_main!(benches);
