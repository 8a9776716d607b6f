//! The loops over floats that a whole model needs beside its products: norm, rotation, attention, softmax, activation
//! (`docs/NUMERICS.md`, whole models). They belong to no backend: an engine may run over anybody's matrix products.
//!
//! Every loop is written once, here, in an order that is part of its definition: sums are sequential in f64, or 32 lanes
//! of f32. [`Portable`] is these loops as they stand. An instruction set compiles the same text again, wider, and brings
//! its own conversions and products ([`Vectors`]); Rust reorders and contracts no float operation, so the bits are the same.

use crate::bitnet::formats::WeightFormat;
use crate::bitnet::quant::{QuantError, absmax};
use half::f16;
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Partial sums of a product of floats.
const LANES: usize = 32;
/// How far ahead of their use keys and values are asked for, in bytes.
pub(super) const AHEAD_BYTES: usize = 2048;

/// Rows whose norms are computed together.
pub(crate) const NORM_ROWS: usize = 4;

/// Loops over floats, with the same bits on every instruction set. Slices that belong together have the same length.
pub trait VectorLoops: Send + Sync {
    /// `1 / sqrt(mean of squares + eps)`, by which a norm multiplies, of each of the rows that x consists of.
    fn norm_multipliers(&self, x: &[f32], eps: f32, multipliers: &mut [f32]);
    /// `y = x * s`.
    fn scale(&self, x: &[f32], s: f32, y: &mut [f32]);
    /// `y = (x * s) * w`.
    fn scale_weighted(&self, x: &[f32], s: f32, w: &[f32], y: &mut [f32]);
    /// `y = y * x`.
    fn multiply(&self, x: &[f32], y: &mut [f32]);
    /// `y = y + x`.
    fn add(&self, x: &[f32], y: &mut [f32]);
    /// `g / (1 + exp(-g))` in place.
    fn silu(&self, g: &mut [f32]);
    /// `max(g, 0)` squared, in place.
    fn relu_squared(&self, g: &mut [f32]);
    /// Activations to int8 by the rule of the weights' format. Returns the scale, by which products are divided, or the
    /// index of the first NaN or infinity.
    fn quantize(&self, format: WeightFormat, x: &[f32], q: &mut [i8]) -> Result<f32, usize>;
    /// `y = f32(dot) / activation_scale * weight_scale`.
    fn rescale(&self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]);
    /// Rotates `(i, i + d / 2)`; `angles` holds the d / 2 cosines, then the sines.
    fn rotate_halves(&self, angles: &[f32], head: &mut [f32]);
    /// Rotates `(2 i, 2 i + 1)`; `angles` as above.
    fn rotate_neighbours(&self, angles: &[f32], head: &mut [f32]);
    /// Rounds to float16 and back, in place.
    fn round_to_f16(&self, x: &mut [f32]);
    /// Rounds to float16.
    fn to_f16(&self, x: &[f32], y: &mut [f16]);
    /// float16 to float32, exactly.
    fn widen_f16(&self, x: &[f16], y: &mut [f32]);
    /// `scores[t] = dot(keys[t], q) * multiplier`, keys `[scores, q]`.
    fn scores_f32(&self, keys: &[f32], q: &[f32], multiplier: f32, scores: &mut [f32]);
    /// The same with keys in float16.
    fn scores_f16(&self, keys: &[f16], q: &[f32], multiplier: f32, scores: &mut [f32]);
    /// Scores to probabilities, in place.
    fn softmax(&self, scores: &mut [f32]);
    /// `out = sum over t of p[t] * values[t]`, t ascending, values `[p, out]`.
    fn mix_f32(&self, values: &[f32], p: &[f32], out: &mut [f32]);
    /// The same with values in float16.
    fn mix_f16(&self, values: &[f16], p: &[f32], out: &mut [f32]);
}

/// The fastest loops that run here.
pub fn vector_loops() -> &'static dyn VectorLoops {
    available_loops().last().map_or(&Portable, |loops| &**loops)
}

/// All loops that run here, from the plainest to the fastest.
pub fn available_loops() -> &'static [Box<dyn VectorLoops>] {
    static FOUND: OnceLock<Vec<Box<dyn VectorLoops>>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let plain: Box<dyn VectorLoops> = Box::new(Portable);
        std::iter::once(plain).chain(compiled_wider()).collect()
    })
}

/// Those of the instruction sets that this CPU has.
#[cfg(all(feature = "cpu", target_arch = "x86_64"))]
fn compiled_wider() -> impl Iterator<Item = Box<dyn VectorLoops>> {
    use super::detect::{Avx2, Avx512Vnni};
    let avx2 = Avx2::detect().map(|token| Box::new(token) as Box<dyn VectorLoops>);
    let avx512 = Avx512Vnni::detect().map(|token| Box::new(token) as Box<dyn VectorLoops>);
    [avx2, avx512].into_iter().flatten()
}

/// Those of this CPU.
#[cfg(all(feature = "cpu", target_arch = "aarch64"))]
fn compiled_wider() -> impl Iterator<Item = Box<dyn VectorLoops>> {
    let neon: Box<dyn VectorLoops> = Box::new(super::detect::Neon::implied());
    std::iter::once(neon)
}

/// None without them.
#[cfg(not(all(feature = "cpu", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn compiled_wider() -> [Box<dyn VectorLoops>; 0] {
    []
}

/// The loops as they stand below, for any CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

/// What an instruction set brings of its own: conversions between float16 and float32, both exact where they can be and
/// rounded to even where not, and products.
pub(super) trait Vectors {
    /// Eight at a time.
    fn widen(values: &[f16; 8]) -> [f32; 8];
    /// Eight at a time.
    fn narrow(values: &[f32; 8]) -> [f16; 8];
    /// Says that the cache line there, if there is one, will be needed: a cache of keys and values is read head by head,
    /// and comes from memory.
    fn ask_for(_: *const u8) {}
    /// [`product`] of each of four keys.
    fn products_f32(keys: [&[f32]; 4], q: &[f32]) -> [f32; 4]
    where
        Self: Sized,
    {
        keys.map(|key| product::<f32, Floats<Self>>(key, q))
    }
    /// The same of keys in float16.
    fn products_f16(keys: [&[f16]; 4], q: &[f32]) -> [f32; 4]
    where
        Self: Sized,
    {
        keys.map(|key| product::<f16, Self>(key, q))
    }
}

impl Vectors for Portable {
    fn widen(values: &[f16; 8]) -> [f32; 8] {
        values.map(f16::to_f32)
    }

    fn narrow(values: &[f32; 8]) -> [f16; 8] {
        values.map(f16::from_f32)
    }
}

impl VectorLoops for Portable {
    fn norm_multipliers(&self, x: &[f32], eps: f32, multipliers: &mut [f32]) {
        norm_multipliers(x, eps, multipliers);
    }

    fn scale(&self, x: &[f32], s: f32, y: &mut [f32]) {
        scale(x, s, y);
    }

    fn scale_weighted(&self, x: &[f32], s: f32, w: &[f32], y: &mut [f32]) {
        scale_weighted(x, s, w, y);
    }

    fn multiply(&self, x: &[f32], y: &mut [f32]) {
        multiply(x, y);
    }

    fn add(&self, x: &[f32], y: &mut [f32]) {
        add(x, y);
    }

    fn silu(&self, g: &mut [f32]) {
        silu(g);
    }

    fn relu_squared(&self, g: &mut [f32]) {
        relu_squared(g);
    }

    fn quantize(&self, format: WeightFormat, x: &[f32], q: &mut [i8]) -> Result<f32, usize> {
        let row = match format {
            WeightFormat::I2S => absmax::quantize_row(x, q),
            WeightFormat::Tl1 | WeightFormat::Tl2 => absmax::quantize_row_tl(x, q),
        };
        row.map(|activation| activation.scale).map_err(|error| match error {
            QuantError::NonFinite { index, .. } => index,
            QuantError::Length { .. } | QuantError::Empty { .. } => 0,
        })
    }

    fn rescale(&self, dot: &[i32], activation_scale: f32, weight_scale: f32, y: &mut [f32]) {
        for (y, &dot) in y.iter_mut().zip(dot) {
            *y = dot as f32 / activation_scale * weight_scale;
        }
    }

    fn rotate_halves(&self, angles: &[f32], head: &mut [f32]) {
        rotate_halves(angles, head);
    }

    fn rotate_neighbours(&self, angles: &[f32], head: &mut [f32]) {
        rotate_neighbours(angles, head);
    }

    fn round_to_f16(&self, x: &mut [f32]) {
        round_to_f16::<Self>(x);
    }

    fn to_f16(&self, x: &[f32], y: &mut [f16]) {
        to_f16::<Self>(x, y);
    }

    fn widen_f16(&self, x: &[f16], y: &mut [f32]) {
        widen_f16::<Self>(x, y);
    }

    fn scores_f32(&self, keys: &[f32], q: &[f32], multiplier: f32, scores: &mut [f32]) {
        scores_f32::<Self>(keys, q, multiplier, scores);
    }

    fn scores_f16(&self, keys: &[f16], q: &[f32], multiplier: f32, scores: &mut [f32]) {
        scores_f16::<Self>(keys, q, multiplier, scores);
    }

    fn softmax(&self, scores: &mut [f32]) {
        softmax(scores);
    }

    fn mix_f32(&self, values: &[f32], p: &[f32], out: &mut [f32]) {
        mix_f32::<Self>(values, p, out);
    }

    fn mix_f16(&self, values: &[f16], p: &[f32], out: &mut [f32]) {
        mix_f16::<Self>(values, p, out);
    }
}

// The loops themselves: inlined always, so that an instruction set compiles them with what it has.

#[inline(always)]
pub(super) fn norm_multipliers(x: &[f32], eps: f32, multipliers: &mut [f32]) {
    if multipliers.is_empty() {
        return;
    }
    let width = x.len() / multipliers.len();
    let from_sum = |sum: f64| 1.0 / ((sum / width as f64) as f32 + eps).sqrt();
    let (blocks, rest) = multipliers.as_chunks_mut::<NORM_ROWS>();
    let (x, x_rest) = x.split_at(blocks.len() * NORM_ROWS * width);
    for (multipliers, x) in blocks.iter_mut().zip(x.chunks_exact(NORM_ROWS * width)) {
        let rows: [&[f32]; NORM_ROWS] = std::array::from_fn(|row| &x[row * width..][..width]);
        *multipliers = sums_of_squares(rows, width).map(from_sum);
    }
    for (multiplier, x) in rest.iter_mut().zip(x_rest.chunks_exact(width)) {
        let [sum] = sums_of_squares([x], width);
        *multiplier = from_sum(sum);
    }
}

/// Every sum in index order. Each addition waits for the one before it, so several rows go together: some columns of each
/// row in turn, as many as a CPU has in work at a time. Column by column the compiler would gather one value from each row,
/// an instruction that takes several times as long as four loads.
#[inline(always)]
fn sums_of_squares<const N: usize>(rows: [&[f32]; N], width: usize) -> [f64; N] {
    const COLS: usize = 16;
    let mut sums = [0.0_f64; N];
    for first in (0..width).step_by(COLS) {
        for (sum, row) in sums.iter_mut().zip(rows) {
            let added = row[first..width.min(first + COLS)].iter();
            // Rows that it must not mix again.
            *sum = black_box(added.fold(*sum, |sum, x| sum + f64::from(x * x)));
        }
    }
    sums
}

#[inline(always)]
pub(super) fn scale(x: &[f32], s: f32, y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * s);
}

#[inline(always)]
pub(super) fn scale_weighted(x: &[f32], s: f32, w: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).zip(w).for_each(|((y, &x), &w)| *y = x * s * w);
}

#[inline(always)]
pub(super) fn multiply(x: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y *= x);
}

#[inline(always)]
pub(super) fn add(x: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
}

#[inline(always)]
pub(super) fn silu(g: &mut [f32]) {
    g.iter_mut().for_each(|g| *g /= 1.0 + exp(-*g));
}

#[inline(always)]
pub(super) fn relu_squared(g: &mut [f32]) {
    for g in g {
        let r = if *g < 0.0 { 0.0 } else { *g };
        *g = r * r;
    }
}

/// e^x within 2 ulp where the result is neither 0 nor infinite: the polynomial of `docs/NUMERICS.md`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number, which is its lowest bits.
    const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b); // 0x1.715476p+0
    const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200); // 0x1.62e4p-1
    const LN2_LOW: f32 = f32::from_bits(0x35bf_be8e); // 0x1.7f7d1cp-20
    const C1: f32 = f32::from_bits(0x3f7f_fff6); // 0x1.ffffecp-1
    const C2: f32 = f32::from_bits(0x3eff_fedb); // 0x1.fffdb6p-2
    const C3: f32 = f32::from_bits(0x3e2a_af33); // 0x1.555e66p-3
    const C4: f32 = f32::from_bits(0x3d2b_9f17); // 0x1.573e2ep-5
    const C5: f32 = f32::from_bits(0x3c07_2010); // 0x1.0e4020p-7
    let z = x.mul_add(LOG2_E, MAGIC);
    let n = z - MAGIC;
    let b = (-n).mul_add(LN2_LOW, (-n).mul_add(LN2_HIGH, x));
    let u = b * b;
    let j = C5.mul_add(b, C4).mul_add(u, C3.mul_add(b, C2)).mul_add(u, C1 * b);
    let k = f32::from_bits((z.to_bits() << 23).wrapping_add(0x3f80_0000));
    let y = k.mul_add(j, k);
    let y = if n < -126.0 { 0.0 } else { y };
    if n > 127.0 { f32::INFINITY } else { y }
}

/// The largest score; of whatever is no number, nothing. In lanes: any order finds the same.
#[inline(always)]
fn maximum(scores: &[f32]) -> f32 {
    let larger = |m: f32, s: f32| if s > m { s } else { m };
    let (groups, rest) = scores.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for group in groups {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], group[l]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &s| larger(m, s))
}

#[inline(always)]
pub(super) fn softmax(scores: &mut [f32]) {
    let m = maximum(scores);
    scores.iter_mut().for_each(|s| *s = exp(*s - m));
    let sum = scores.iter().fold(0.0_f64, |sum, &e| sum + f64::from(e));
    let multiplier = (1.0 / sum) as f32;
    scores.iter_mut().for_each(|e| *e *= multiplier);
}

#[inline(always)]
pub(super) fn rotate_halves(angles: &[f32], head: &mut [f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let (low, high) = head.split_at_mut(cos.len());
    for ((a, b), (&c, &s)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
        (*a, *b) = rotated(*a, *b, c, s);
    }
}

#[inline(always)]
pub(super) fn rotate_neighbours(angles: &[f32], head: &mut [f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    for ([a, b], (&c, &s)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
        (*a, *b) = rotated(*a, *b, c, s);
    }
}

#[inline(always)]
fn rotated(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a.mul_add(cos, -(b * sin)), a.mul_add(sin, b * cos))
}

#[inline(always)]
pub(super) fn round_to_f16<V: Vectors>(x: &mut [f32]) {
    let (eights, rest) = x.as_chunks_mut::<8>();
    eights.iter_mut().for_each(|eight| *eight = V::widen(&V::narrow(eight)));
    rest.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
}

#[inline(always)]
pub(super) fn widen_f16<V: Vectors>(x: &[f16], y: &mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (x.as_chunks::<8>(), y.as_chunks_mut::<8>());
    from.iter().zip(to).for_each(|(x, y)| *y = V::widen(x));
    from_rest.iter().zip(to_rest).for_each(|(x, y)| *y = x.to_f32());
}

#[inline(always)]
pub(super) fn to_f16<V: Vectors>(x: &[f32], y: &mut [f16]) {
    let ((from, from_rest), (to, to_rest)) = (x.as_chunks::<8>(), y.as_chunks_mut::<8>());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = V::narrow(from));
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = f16::from_f32(*from));
}

/// Keys or values as they are kept, and how they become float32.
trait Kept<T> {
    /// Says that what stands [`AHEAD_BYTES`] behind these will be needed.
    fn ask_for(_: &[T; LANES]) {}
    fn eight(values: &[T; 8]) -> [f32; 8];
    fn one(value: T) -> f32;
    fn products(keys: [&[T]; 4], q: &[f32]) -> [f32; 4];
}

/// Kept as float32.
struct Floats<V>(PhantomData<V>);

impl<V: Vectors> Kept<f32> for Floats<V> {
    #[inline(always)]
    fn eight(values: &[f32; 8]) -> [f32; 8] {
        *values
    }

    #[inline(always)]
    fn one(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn products(keys: [&[f32]; 4], q: &[f32]) -> [f32; 4] {
        V::products_f32(keys, q)
    }
}

impl<V: Vectors> Kept<f16> for V {
    #[inline(always)]
    fn ask_for(values: &[f16; LANES]) {
        V::ask_for(values.as_ptr().cast::<u8>().wrapping_add(AHEAD_BYTES));
    }

    #[inline(always)]
    fn eight(values: &[f16; 8]) -> [f32; 8] {
        V::widen(values)
    }

    #[inline(always)]
    fn one(value: f16) -> f32 {
        value.to_f32()
    }

    #[inline(always)]
    fn products(keys: [&[f16]; 4], q: &[f32]) -> [f32; 4] {
        V::products_f16(keys, q)
    }
}

#[inline(always)]
pub(super) fn scores_f32<V: Vectors>(keys: &[f32], q: &[f32], multiplier: f32, scores: &mut [f32]) {
    scores_of::<f32, Floats<V>>(keys, q, multiplier, scores);
}

#[inline(always)]
pub(super) fn scores_f16<V: Vectors>(keys: &[f16], q: &[f32], multiplier: f32, scores: &mut [f32]) {
    scores_of::<f16, V>(keys, q, multiplier, scores);
}

/// Four keys at a time where there are only whole groups of lanes.
#[inline(always)]
fn scores_of<T: Copy, K: Kept<T>>(keys: &[T], q: &[f32], multiplier: f32, scores: &mut [f32]) {
    let d = q.len();
    let together = if d.is_multiple_of(LANES) { scores.len() / 4 } else { 0 };
    let (fours, rest) = scores.split_at_mut(4 * together);
    let (four_keys, keys) = keys.split_at(4 * together * d);
    for (scores, keys) in fours.as_chunks_mut::<4>().0.iter_mut().zip(four_keys.chunks_exact(4 * d)) {
        let products = K::products([0, 1, 2, 3].map(|i| &keys[i * d..][..d]), q);
        for (score, product) in scores.iter_mut().zip(products) {
            *score = product * multiplier;
        }
    }
    for (score, key) in rest.iter_mut().zip(keys.chunks_exact(d)) {
        *score = product::<T, K>(key, q) * multiplier;
    }
}

/// The product of a key and a query, in lanes.
#[inline(always)]
fn product<T: Copy, K: Kept<T>>(key: &[T], q: &[f32]) -> f32 {
    let ((keys, keys_rest), (qs, q_rest)) = (key.as_chunks::<LANES>(), q.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (key, q) in keys.iter().zip(qs) {
        K::ask_for(key);
        let mut wide = [0.0; LANES];
        for (wide, key) in wide.as_chunks_mut::<8>().0.iter_mut().zip(key.as_chunks::<8>().0) {
            *wide = K::eight(key);
        }
        for l in 0..LANES {
            lanes[l] = wide[l].mul_add(q[l], lanes[l]);
        }
    }
    for (lane, (&key, q)) in lanes.iter_mut().zip(keys_rest.iter().zip(q_rest)) {
        *lane = K::one(key).mul_add(*q, *lane);
    }
    added_in_halves(lanes)
}

/// Written out with fixed sizes: a loop over halves is left as a loop over memory.
#[inline(always)]
fn added_in_halves(lanes: [f32; LANES]) -> f32 {
    let by_16: [f32; 16] = std::array::from_fn(|l| lanes[l] + lanes[l + 16]);
    let by_8: [f32; 8] = std::array::from_fn(|l| by_16[l] + by_16[l + 8]);
    let by_4: [f32; 4] = std::array::from_fn(|l| by_8[l] + by_8[l + 4]);
    (by_4[0] + by_4[2]) + (by_4[1] + by_4[3])
}

#[inline(always)]
pub(super) fn mix_f32<V: Vectors>(values: &[f32], p: &[f32], out: &mut [f32]) {
    mix_of::<f32, Floats<V>>(values, p, out);
}

#[inline(always)]
pub(super) fn mix_f16<V: Vectors>(values: &[f16], p: &[f32], out: &mut [f32]) {
    mix_of::<f16, V>(values, p, out);
}

#[inline(always)]
fn mix_of<T: Copy, K: Kept<T>>(values: &[T], p: &[f32], out: &mut [f32]) {
    let width = out.len();
    let wide = width / (2 * LANES) * 2 * LANES;
    for at in (0..wide).step_by(2 * LANES) {
        mix_columns::<T, K, { 2 * LANES }>((values, width), at, p, out);
    }
    let whole = width / LANES * LANES;
    if whole > wide {
        mix_columns::<T, K, LANES>((values, width), wide, p, out);
    }
    for (at, out) in out.iter_mut().enumerate().skip(whole) {
        *out =
            p.iter().zip(values.chunks_exact(width)).fold(0.0, |sum, (&p, v)| p.mul_add(K::one(v[at]), sum));
    }
}

/// `N` columns from `at` on, whose sums stay in registers while the positions pass.
#[inline(always)]
fn mix_columns<T: Copy, K: Kept<T>, const N: usize>(
    (values, width): (&[T], usize),
    at: usize,
    p: &[f32],
    out: &mut [f32],
) {
    let mut sums = [0.0; N];
    for (&p, value) in p.iter().zip(values.chunks_exact(width)) {
        for (sums, value) in sums.as_chunks_mut().0.iter_mut().zip(value[at..at + N].as_chunks().0) {
            K::ask_for(value);
            let sums: &mut [f32; LANES] = sums;
            for (sums, value) in sums.as_chunks_mut::<8>().0.iter_mut().zip(value.as_chunks::<8>().0) {
                let value = K::eight(value);
                for l in 0..8 {
                    sums[l] = p.mul_add(value[l], sums[l]);
                }
            }
        }
    }
    out[at..at + N].copy_from_slice(&sums);
}
