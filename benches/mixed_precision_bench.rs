//! criterion over the float products of the catalogue, F32, F16 and BF16 beside each other, and arithmetic `native` beside
//! `f32`, under the catalogue's ids, for every backend that runs here, the plain loops included where they are affordable.

#[path = "support/agreeing.rs"]
mod agreeing;

use agreeing::bench;
use bitnet_perfgate::workloads::Category;
use bitnet_perfgate::workloads::catalog::Profile;
use criterion::{Criterion, criterion_group, criterion_main};

fn mixed_precision(criterion: &mut Criterion) {
    let chosen =
        |id: &str| ["640x2560/b1/", "640x2560/b16/", "2560x2560/b1/"].iter().any(|part| id.contains(part));
    bench(criterion, Profile::Full, |workload| {
        workload.category == Category::MixedPrecision && chosen(&workload.id)
    });
}

criterion_group! {
    name = benches;
    config = agreeing::config();
    targets = mixed_precision
}
criterion_main!(benches);
