//! The backends under test, and outputs fenced so that a stray write shows.

use bitnet_perfgate::backends;
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::backends::{Availability, Backend, BackendError, Matmul};
use bitnet_perfgate::bitnet::formats::{Layout, WeightFormat, Weights};
use std::sync::Arc;

/// The backend whose word counts.
pub const ORACLE: RustScalar = RustScalar;

/// Every backend that runs here, the oracle first. The others are named on stderr with their reasons.
pub fn subjects() -> Vec<Arc<dyn Backend>> {
    let mut all = backends::all();
    all.retain(|backend| match backend.availability() {
        Availability::Ready => true,
        Availability::Unavailable(why) => {
            eprintln!("{} is not tested: {why}", backend.name());
            false
        }
    });
    assert!(all.iter().any(|backend| backend.name() == ORACLE.name()), "the oracle is always there");
    all
}

/// `len` elements, initially `fill`, with a fence on both sides; starts at an odd multiple of the element size.
pub struct Fenced<T> {
    all: Vec<T>,
    fill: T,
}

const FENCE: usize = 33;

impl<T: Copy + PartialEq + std::fmt::Debug> Fenced<T> {
    /// Everything is `fill`, a value that no test expects as a result everywhere.
    pub fn new(len: usize, fill: T) -> Self {
        Self { all: vec![fill; len + 2 * FENCE], fill }
    }

    /// The part to be written.
    pub fn inside(&mut self) -> &mut [T] {
        let end = self.all.len() - FENCE;
        &mut self.all[FENCE..end]
    }

    /// What was written, once the fences are found whole.
    pub fn take(self, what: &str) -> Vec<T> {
        let end = self.all.len() - FENCE;
        let (low, high) = (&self.all[..FENCE], &self.all[end..]);
        assert!(low.iter().chain(high).all(|value| *value == self.fill), "{what}: wrote outside its output");
        self.all[FENCE..end].to_vec()
    }

    /// Nothing at all was written.
    pub fn assert_untouched(&self, what: &str) {
        assert!(self.all.iter().all(|value| *value == self.fill), "{what}: wrote although it refused");
    }
}

/// A copy that starts one element behind an allocation's start, so that vectors in it are misaligned.
pub struct Misaligned<T>(Vec<T>);

impl<T: Copy + Default> Misaligned<T> {
    /// Copies `values`.
    pub fn new(values: &[T]) -> Self {
        Self(std::iter::once(T::default()).chain(values.iter().copied()).collect())
    }

    /// The values.
    pub fn get(&self) -> &[T] {
        &self.0[1..]
    }
}

/// Exact products, `[n, rows]`.
pub fn products(matmul: &mut dyn Matmul, rows: usize, n: usize, q: &[i8], what: &str) -> Vec<i32> {
    let mut out = Fenced::new(n * rows, 0x5a5a_5a5a);
    matmul.matmul_i8_i32(q, out.inside()).unwrap_or_else(|error| panic!("{what}: {error}"));
    out.take(what)
}

/// The bits of the outputs of a linear layer, `[n, rows]`.
pub fn linear_bits(matmul: &mut dyn Matmul, rows: usize, n: usize, x: &[f32], what: &str) -> Vec<u32> {
    let mut y = Fenced::new(n * rows, -7.25);
    matmul.linear_f32_f32(x, y.inside()).unwrap_or_else(|error| panic!("{what}: {error}"));
    bits(&y.take(what))
}

/// Codes, scales (their bits) and sums of activations.
pub fn activations(
    backend: &dyn Backend,
    x: &[f32],
    cols: usize,
    what: &str,
) -> (Vec<i8>, Vec<u32>, Vec<i32>) {
    let rows = x.len() / cols;
    let (mut q, mut scale, mut sum) =
        (Fenced::new(x.len(), 0x5a), Fenced::new(rows, -7.25), Fenced::new(rows, 0x5a5a_5a5a));
    backend
        .quantize_activations(x, cols, q.inside(), scale.inside(), sum.inside())
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    (q.take(what), bits(&scale.take(what)), sum.take(what))
}

/// Packs `codes` with `scale` and gives the whole tensor.
pub fn packed(layout: &Layout, codes: &[i8], scale: f32) -> Vec<u8> {
    let mut bytes = vec![0xa5; layout.packed_bytes()];
    bitnet_perfgate::bitnet::formats::pack(layout, codes, scale, &mut bytes).expect("codes are ternary");
    bytes
}

/// Whether a backend prepares weights of this layout: every one of ours does, but those that repack I2_S.
pub fn prepares(backend: &dyn Backend, layout: &Layout) -> bool {
    backend.repacks().is_none() || layout.format() == WeightFormat::I2S
}

/// Whether a backend takes part in that workload without being asked for: those that repack I2_S do in its products.
pub fn takes_part(backend: &dyn Backend, workload: &str) -> bool {
    let is_product = ["matmul/", "linear/", "prefill/", "decode/"].iter().any(|kind| workload.contains(kind));
    backend.repacks().is_none() || is_product && workload.contains("/i2_s/")
}

/// Prepared weights of a layout that [`prepares`] allows.
pub fn prepare<'a>(backend: &'a dyn Backend, weights: Weights<'a>, n_max: usize) -> Box<dyn Matmul + 'a> {
    backend.prepare_matmul(weights, n_max, 1).unwrap_or_else(|error| panic!("{}: {error}", backend.name()))
}

/// The same on several threads; `None` where the backend does not offer them.
pub fn prepare_threads<'a>(
    backend: &'a dyn Backend,
    weights: Weights<'a>,
    n_max: usize,
    threads: usize,
) -> Option<Box<dyn Matmul + 'a>> {
    match backend.prepare_matmul(weights, n_max, threads) {
        Ok(matmul) => Some(matmul),
        Err(BackendError::Unsupported { .. }) if threads > 1 => None,
        Err(error) => panic!("{} on {threads} threads: {error}", backend.name()),
    }
}

/// Bit patterns, to compare floats as what they are.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
