//! Backends in Rust with SIMD intrinsics. The generic parts (checks, activation quantisation into scratch, the
//! final scaling, the parts of several threads) are written once here; each instruction set adds its kernels.
//!
//! A kernel of one format is a [`Product`]: exact integers and nothing else. What every format shares is
//! [`Elementwise`]: the loops over floats. [`linear`] joins the two to a [`Matmul`]. An instruction set is an [`Isa`],
//! and takes from a narrower one whatever it does not do better.

#[cfg(target_arch = "x86_64")]
pub(super) mod ceilings;
#[cfg(target_arch = "x86_64")]
mod ceilings_avx2;
#[cfg(target_arch = "x86_64")]
mod ceilings_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod ceilings_avxvnni;
#[cfg(target_arch = "aarch64")]
pub(super) mod ceilings_neon;
mod codes;
mod float;
#[cfg(target_arch = "x86_64")]
mod float_avx2;
#[cfg(target_arch = "x86_64")]
mod float_avx512;
#[cfg(target_arch = "x86_64")]
mod float_avx512bf16;
#[cfg(target_arch = "x86_64")]
mod float_avx512fp16;
#[cfg(target_arch = "x86_64")]
mod float_native;
#[cfg(target_arch = "aarch64")]
mod float_neon;
#[cfg(target_arch = "x86_64")]
mod i2s_avx2;
#[cfg(target_arch = "x86_64")]
mod i2s_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod i2s_avxvnni;
#[cfg(target_arch = "aarch64")]
mod i2s_neon;
#[cfg(target_arch = "x86_64")]
mod i2s_pack_avx2;
#[cfg(target_arch = "aarch64")]
mod i2s_pack_neon;
#[cfg(target_arch = "x86_64")]
mod i2s_packed_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod i2s_some_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod i2s_transpose_avx512;
mod isa;
#[cfg(target_arch = "aarch64")]
mod isa_neon;
#[cfg(target_arch = "x86_64")]
mod isa_x86;
mod linear;
#[cfg(target_arch = "x86_64")]
mod panel_avx2;
#[cfg(target_arch = "x86_64")]
mod panel_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod panel_avxvnni;
#[cfg(test)]
mod product_tests;
#[cfg(target_arch = "x86_64")]
mod quantize_avx2;
#[cfg(target_arch = "aarch64")]
mod quantize_neon;
#[cfg(target_arch = "x86_64")]
mod repacked_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod t5_avx512vnni;
mod ternary;
#[cfg(target_arch = "x86_64")]
mod tl1_avx2;
#[cfg(target_arch = "aarch64")]
mod tl1_neon;
#[cfg(test)]
mod tl1_tests;
#[cfg(target_arch = "x86_64")]
mod tl2_avx2;
#[cfg(target_arch = "aarch64")]
mod tl2_neon;
#[cfg(test)]
mod tl2_tests;
#[cfg(target_arch = "x86_64")]
mod tl_avx2;
#[cfg(target_arch = "x86_64")]
mod tl_avx512;
#[cfg(target_arch = "aarch64")]
mod tl_neon;
#[cfg(target_arch = "x86_64")]
mod tl_pack_avx2;
#[cfg(target_arch = "x86_64")]
mod tl_panel_avx512;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "decoding to panels takes more of it"))]
mod tl_region;
mod vector;
#[cfg(target_arch = "x86_64")]
mod vector_avx2;
#[cfg(target_arch = "aarch64")]
mod vector_neon;

use std::ops::Range;

use crate::bitnet::formats::repacked::Repacked;
use crate::bitnet::formats::{Layout, WeightFormat, Weights};
use crate::team::{self, Outputs};

#[cfg(target_arch = "x86_64")]
use super::detect::{Avx2, Avx512Vnni, AvxVnni};
#[cfg(target_arch = "aarch64")]
use super::detect::{Neon, NeonDotprod};
use super::{
    Arithmetic, Availability, Backend, BackendError, BuildInfo, FloatMatmul, Matmul, WeightRule, build_info,
    checks,
};
use crate::bitnet::model::FloatMatrix;
use isa::Isa;
use linear::Linear;

#[cfg(target_arch = "x86_64")]
use repacked_avx512vnni::Repacking;

/// Prepared rows of weights of one format on one instruction set: exact int32 products and nothing else. What is
/// common to every format (length checks, quantising activations, scaling) stands around it.
trait Product: Send {
    /// `out` `[n, rows]` = codes times `q` `[n, cols]`, signed form, exact for every int8. Lengths were checked
    /// and n >= 1 is at most the n_max given to prepare. Allocates nothing; builds its look-up tables inside.
    fn run(&mut self, q: &[i8], n: usize, out: &mut Outputs<'_, i32>);

    /// Bytes it allocated.
    fn bytes(&self) -> usize;
}

/// The loops over floats that every format needs, on one instruction set; bit for bit `docs/NUMERICS.md`.
/// The token that unlocks the instruction set implements it.
trait Elementwise: Copy {
    /// The largest |x|; where there is a NaN or an infinity, the index of the first one.
    fn max_abs(self, x: &[f32]) -> Result<f32, usize>;

    /// `q` = clamp(round_half_even(x * scale), -128, 127) for |x * scale| < 2^31. Returns the sum of `q`.
    fn quantize(self, x: &[f32], scale: f32, q: &mut [i8]) -> i32;

    /// `y` = f32(dot) / activation_scale * weight_scale.
    fn rescale(self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]);
}

/// 127 / absmax for a row whose largest magnitude is `max_abs`: the multiplier of the format's activation rule.
fn activation_scale(format: WeightFormat, max_abs: f32) -> f32 {
    if format != WeightFormat::I2S {
        let without_floor = 127.0 / max_abs;
        if without_floor.is_finite() {
            return without_floor;
        }
    }
    (127.0 / f64::from(max_abs).max(1e-5)) as f32
}

/// Index and value of the first NaN or infinity as the error that names it.
fn non_finite(x: &[f32], index: usize) -> BackendError {
    BackendError::NonFinite { index, value: x[index] }
}

/// 0..n in as few ranges of at most `most` as fit, all of about the same size.
fn shares(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = n.div_ceil(most);
    let (least, more) = (n / parts.max(1), n % parts.max(1));
    (0..parts).map(move |part| {
        let start = part * least + part.min(more);
        start..start + least + usize::from(part < more)
    })
}

/// Threads of one product at most: more is a mistake, not a machine.
const MOST_THREADS: usize = 1024;

/// A backend on one instruction set.
#[derive(Clone, Debug)]
pub struct RustSimd<T> {
    token: Result<T, String>,
}

/// AVX2, FMA and F16C kernels.
#[cfg(target_arch = "x86_64")]
pub type RustAvx2 = RustSimd<Avx2>;

/// AVX-VNNI kernels: 256 bits, for CPUs without AVX-512.
#[cfg(target_arch = "x86_64")]
pub type RustAvxVnni = RustSimd<AvxVnni>;

/// AVX-512 kernels with VNNI.
#[cfg(target_arch = "x86_64")]
pub type RustAvx512Vnni = RustSimd<Avx512Vnni>;

/// The same kernels over I2_S that preparing repacks to two bits in the order of their use.
#[cfg(target_arch = "x86_64")]
pub type RustAvx512VnniR64 = RustSimd<Repacking<4>>;

/// The same over I2_S that preparing repacks to five trits per byte.
#[cfg(target_arch = "x86_64")]
pub type RustAvx512VnniT5 = RustSimd<Repacking<5>>;

/// NEON kernels, which every AArch64 CPU runs.
#[cfg(target_arch = "aarch64")]
pub type RustNeon = RustSimd<Neon>;

/// The same with SDOT.
#[cfg(target_arch = "aarch64")]
pub type RustNeonDotprod = RustSimd<NeonDotprod>;

#[allow(private_bounds, reason = "instruction sets are this module's own; the backends on them are not")]
impl<T: Isa> RustSimd<T> {
    /// Looks at the CPU once.
    pub fn new() -> Self {
        Self { token: T::detect() }
    }

    fn token(&self) -> Result<T, BackendError> {
        self.token.clone().map_err(|why| BackendError::Unavailable { backend: T::NAME.to_string(), why })
    }
}

#[allow(private_bounds, reason = "as above")]
impl<T: Isa> Default for RustSimd<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(private_bounds, reason = "as above")]
impl<T: Isa> Backend for RustSimd<T> {
    fn name(&self) -> &str {
        T::NAME
    }

    fn isa(&self) -> &str {
        T::ISA
    }

    fn build_info(&self) -> BuildInfo {
        build_info::build_info()
    }

    fn availability(&self) -> Availability {
        match &self.token {
            Ok(_) => Availability::Ready,
            Err(why) => Availability::Unavailable(why.clone()),
        }
    }

    fn threads(&self) -> usize {
        MOST_THREADS
    }

    fn repacks(&self) -> Option<Repacked> {
        T::REPACKS
    }

    fn quantize_weights(
        &self,
        layout: &Layout,
        rule: WeightRule,
        src: &[f32],
        dst: &mut [u8],
    ) -> Result<f32, BackendError> {
        let token = self.token()?;
        checks::length("src", src.len(), layout.n_weights())?;
        checks::length("dst", dst.len(), layout.packed_bytes())?;
        token.pack(layout, rule, src, dst)
    }

    fn dequantize_weights(&self, weights: &Weights<'_>, dst: &mut [f32]) -> Result<(), BackendError> {
        let token = self.token()?;
        checks::length("dst", dst.len(), weights.layout().n_weights())?;
        token.dequantize(weights, dst)
    }

    fn quantize_activations(
        &self,
        x: &[f32],
        cols: usize,
        q: &mut [i8],
        scale: &mut [f32],
        sum: &mut [i32],
    ) -> Result<(), BackendError> {
        let token = self.token()?;
        checks::activations(T::NAME, cols, (x.len(), q.len(), scale.len(), sum.len()))?;
        // All rows are looked at before anything is written; what is learnt of the first ones is kept.
        let mut known = [0.0; 256];
        for (row, values) in x.chunks_exact(cols).enumerate() {
            let max_abs = token.max_abs(values).map_err(|index| non_finite(x, row * cols + index))?;
            if let Some(known) = known.get_mut(row) {
                *known = max_abs;
            }
        }
        let outputs = q.chunks_exact_mut(cols).zip(scale).zip(sum);
        for (row, (x, ((q, scale), sum))) in x.chunks_exact(cols).zip(outputs).enumerate() {
            let known = known.get(row).copied().map_or_else(|| token.max_abs(x), Ok);
            let max_abs = known.map_err(|index| non_finite(x, index))?;
            *scale = activation_scale(WeightFormat::I2S, max_abs);
            *sum = token.quantize(x, *scale, q);
        }
        Ok(())
    }

    fn prepare_matmul<'a>(
        &'a self,
        weights: Weights<'a>,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn Matmul + 'a>, BackendError> {
        let token = self.token()?;
        let format = weights.layout().format();
        if T::REPACKS.is_some() && format != WeightFormat::I2S {
            return Err(checks::unsupported(T::NAME, format!("{format}: it repacks i2_s and nothing else")));
        }
        checks::prepare(T::NAME, weights.layout(), threads, MOST_THREADS)?;
        // The scratch comes first: an absurd n_max is refused there, before a kernel allocates its own.
        let linear = Linear::new(token, &weights, n_max)?;
        let whole = token.check(&weights)?;
        linear.with_parts(threads, whole, |rows| token.part(&weights, rows, n_max))
    }

    fn quiesce(&self) {
        team::quiesce();
    }

    fn prepare_float_matmul<'a>(
        &'a self,
        matrix: FloatMatrix<'a>,
        arithmetic: Arithmetic,
        n_max: usize,
        threads: usize,
    ) -> Result<Box<dyn FloatMatmul + 'a>, BackendError> {
        let token = self.token()?;
        match arithmetic {
            Arithmetic::F32 => float::prepare(T::NAME, token.floats(), matrix, (n_max, threads)),
            Arithmetic::Native => token.native(matrix, (n_max, threads)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitnet::model::FloatType;

    /// Where an instruction set is missing, nothing but the reason may come back, whatever is called.
    #[test]
    fn without_the_token_every_call_is_unavailable() {
        #[cfg(target_arch = "x86_64")]
        every_call_is_unavailable::<Avx2>();
        #[cfg(target_arch = "aarch64")]
        every_call_is_unavailable::<NeonDotprod>();
    }

    fn every_call_is_unavailable<T: Isa>() {
        let backend = RustSimd::<T> { token: Err("this CPU lacks it".to_string()) };
        let unavailable = |answer: Result<(), BackendError>| {
            let why = "this CPU lacks it".to_string();
            assert_eq!(answer, Err(BackendError::Unavailable { backend: T::NAME.to_string(), why }));
        };
        assert_eq!(backend.availability(), Availability::Unavailable("this CPU lacks it".to_string()));
        let layout = Layout::i2s(1, 128).unwrap();
        let mut bytes = vec![0; layout.packed_bytes()];
        let src = vec![1.0; 128];
        unavailable(backend.quantize_weights(&layout, WeightRule::AbsMean, &src, &mut bytes).map(|_| ()));
        let weights = Weights::new(layout, &bytes).unwrap();
        unavailable(backend.dequantize_weights(&weights, &mut [0.0; 128]));
        unavailable(backend.quantize_activations(&src, 128, &mut [0; 128], &mut [0.0], &mut [0]));
        unavailable(backend.prepare_matmul(weights, 1, 1).map(|_| ()));
        let matrix = FloatMatrix::new(FloatType::Q8_0, 1, 32, &bytes[..34]).unwrap();
        unavailable(backend.prepare_float_matmul(matrix, Arithmetic::F32, 1, 1).map(|_| ()));
    }
}
