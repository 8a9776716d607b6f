//! Float products in the hardware's own arithmetic: exact where everything can be represented, else within the bounds of
//! docs/NUMERICS.md, "Native float products", for every backend that offers them here.

use bitnet_perfgate::backends::detect::{Avx512Bf16, Avx512Fp16};
use bitnet_perfgate::backends::{Arithmetic, Backend, BackendError, FloatMatmul};
use bitnet_perfgate::bitnet::model::{FloatMatrix, FloatType};
use bitnet_perfgate::rng::Rng;
use half::{bf16, f16};
use proptest::prelude::*;
use std::sync::Arc;

use super::support::{Fenced, Misaligned, ORACLE, subjects};

const TYPES: [FloatType; 2] = [FloatType::F16, FloatType::Bf16];
const ROWS: [usize; 9] = [1, 2, 3, 4, 5, 7, 8, 13, 31];
/// A vector has 32 columns, a block of F16 has 12 of them, and a panel 4096 columns.
const COLS: [usize; 17] = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 383, 384, 385, 767, 768, 800];

/// The backends that offer it for a type, the oracle first; where the CPU has the instructions, those in Rust and C++ of its
/// widest instruction set do.
fn native_subjects(float_type: FloatType) -> Vec<Arc<dyn Backend>> {
    let bytes = [0; 2];
    let matrix = FloatMatrix::new(float_type, 1, 1, &bytes).unwrap();
    let mut all = subjects();
    all.retain(|backend| match backend.prepare_float_matmul(matrix, Arithmetic::Native, 1, 1) {
        Ok(_) => true,
        Err(BackendError::Unsupported { what, .. }) => {
            eprintln!("{} is not tested: it does not support {what}", backend.name());
            false
        }
        Err(error) => panic!("{}: {error}", backend.name()),
    });
    let missing = match float_type {
        FloatType::F16 => Avx512Fp16::detect().err(),
        _ => Avx512Bf16::detect().err(),
    };
    let mut expected = vec!["rust-scalar"];
    if missing.is_none() {
        expected.extend(cfg!(feature = "cpu").then_some("rust-avx512vnni"));
        expected.extend(cfg!(feature = "ffi").then_some("cpp-avx512vnni"));
    }
    assert_eq!(all.iter().map(|backend| backend.name()).collect::<Vec<_>>(), expected, "{missing:?}");
    all
}

/// A value as it is stored, and what is stored.
fn stored(float_type: FloatType, value: f32) -> ([u8; 2], f32) {
    match float_type {
        FloatType::F16 => (f16::from_f32(value).to_le_bytes(), f16::from_f32(value).to_f32()),
        _ => (bf16::from_f32(value).to_le_bytes(), bf16::from_f32(value).to_f32()),
    }
}

/// A matrix: its bytes among others that are NaN in either type, and its values.
struct Stored {
    float_type: FloatType,
    cols: usize,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

const AROUND: usize = 2 * 97 + 1;

impl Stored {
    fn new(float_type: FloatType, cols: usize, values: impl Iterator<Item = f32>) -> Self {
        let (bytes, values): (Vec<[u8; 2]>, Vec<f32>) = values.map(|value| stored(float_type, value)).unzip();
        let around = [0xff; AROUND];
        let bytes = [&around[..], bytes.as_flattened(), &around].concat();
        Self { float_type, cols, bytes, values }
    }

    fn matrix(&self) -> FloatMatrix<'_> {
        let bytes = &self.bytes[AROUND..self.bytes.len() - AROUND];
        FloatMatrix::new(self.float_type, self.values.len() / self.cols, self.cols, bytes).expect("a shape")
    }

    fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.cols)
    }
}

fn run(matmul: &mut dyn FloatMatmul, x: &[f32], len: usize, what: &str) -> Vec<f32> {
    let mut y = Fenced::new(len, -7.25);
    matmul.matmul_f32(x, y.inside()).unwrap_or_else(|error| panic!("{what}: {error}"));
    y.take(what)
}

/// Calls `judge` with the outputs `[n, rows]` of every backend, for batches of 1 to that of `x`, on one to three threads.
fn each_result(matrix: &Stored, x: &[f32], judge: &dyn Fn(&str, usize, &[f32])) {
    let (rows, cols) = (matrix.matrix().rows(), matrix.cols);
    let n_max = x.len() / cols;
    let misaligned = Misaligned::new(&[x, &[f32::NAN; 40]].concat());
    for backend in native_subjects(matrix.float_type) {
        for threads in 1..=if backend.isa() == "scalar" { 1 } else { 3 } {
            let what = format!("{} {:?} {rows}x{cols} t{threads}", backend.name(), matrix.float_type);
            let mut matmul = backend
                .prepare_float_matmul(matrix.matrix(), Arithmetic::Native, n_max, threads)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            // Falling, so that what a larger batch left would show.
            for n in (1..=n_max).rev() {
                let y = run(&mut *matmul, &misaligned.get()[..n * cols], n * rows, &what);
                judge(&format!("{what} n={n}"), n, &y);
            }
        }
    }
}

/// Small integers, and their sums, are values of either type: no order of additions rounds anything.
#[test]
fn integers_are_multiplied_exactly_on_every_shape() {
    let mut rng = Rng::new(41);
    let mut small = || (rng.next_u64() % 5) as f32 - 2.0;
    for float_type in TYPES {
        let shapes = COLS.iter().flat_map(|&cols| ROWS.map(|rows| (rows, cols, 5)));
        let wide = [(5, 4095, 17), (6, 4096, 9), (3, 4097, 6), (130, 96, 17), (9, 8225, 8)];
        for (rows, cols, n) in shapes.chain(wide) {
            let matrix = Stored::new(float_type, cols, (0..rows * cols).map(|_| small()));
            let x: Vec<f32> = (0..n * cols).map(|_| small()).collect();
            let products = x.chunks_exact(cols).flat_map(|x| matrix.rows().map(move |w| dot(w, x)));
            let expected: Vec<f64> = products.map(|product| product.exact).collect();
            each_result(&matrix, &x, &|what, _, y| {
                let first = y.iter().zip(&expected).position(|(&y, &e)| f64::from(y) != e);
                let at = first.map(|at| (at, y[at], expected[at]));
                assert_eq!(at, None, "{what}: where, what, and what was expected");
            });
        }
    }
}

/// One output in f64, and what its bound depends on.
struct Dot {
    exact: f64,
    /// Sums of |w x|, |w| and |x|.
    products: f64,
    weights: f64,
    activations: f64,
    largest_x: f64,
}

fn dot(w: &[f32], x: &[f32]) -> Dot {
    let sum = |value: &dyn Fn(f64, f64) -> f64| {
        w.iter().zip(x).map(|(&w, &x)| value(f64::from(w), f64::from(x))).sum::<f64>()
    };
    Dot {
        exact: sum(&|w, x| w * x),
        products: sum(&|w, x| (w * x).abs()),
        weights: sum(&|w, _| w.abs()),
        activations: sum(&|_, x| x.abs()),
        largest_x: x.iter().fold(0.0, |largest, x| largest.max(f64::from(x.abs()))),
    }
}

fn largest(values: &[f32]) -> f64 {
    values.iter().filter(|value| value.is_finite()).fold(0.0, |most, value| most.max(f64::from(value.abs())))
}

/// docs/NUMERICS.md, "Native float products": how far an output may be from the product of the stored weights with x as it
/// was before it was rounded.
fn bound(float_type: FloatType, cols: usize, largest_weight: f64, dot: &Dot) -> f64 {
    let roundings = (2 * cols.div_ceil(32) + 8) as f64;
    let u = 2.0_f64.powi(-24);
    let growth = 1.0 / (1.0 - roundings * u);
    let last = 2.0_f64.powi(-149) + u * dot.exact.abs();
    last + match float_type {
        FloatType::Bf16 => {
            let relative = (1.0 + 2.0_f64.powi(-8)) * growth - 1.0;
            let flushed = 2.0_f64.powi(-126) * (dot.weights + dot.activations + 2.0 * cols as f64);
            relative * dot.products + 2.0 * flushed
        }
        _ => {
            let exponent = |value: f64, least: i32| (least..).find(|&e| value < 2.0_f64.powi(e)).unwrap();
            let (a, b) = (exponent(largest_weight, -14), exponent(dot.largest_x, -126));
            let unit = 2.0_f64.powi(-25) * 2.0_f64.powi(-(15 - b).min(10 - a - b));
            let relative = (1.0 + 2.0_f64.powi(-11)).powi(14) * growth - 1.0;
            relative * dot.products + 2.0 * unit * (dot.weights + 2.0 * cols as f64)
        }
    }
}

/// Every output is a number within its bound. Returns the largest share of a bound that was used.
fn assert_within_bounds(matrix: &Stored, x: &[f32]) -> f64 {
    let largest_weight = largest(&matrix.values);
    let dots: Vec<Dot> =
        x.chunks_exact(matrix.cols).flat_map(|x| matrix.rows().map(move |w| dot(w, x))).collect();
    let bounds: Vec<f64> =
        dots.iter().map(|dot| bound(matrix.float_type, matrix.cols, largest_weight, dot)).collect();
    let share = std::cell::Cell::new(0.0_f64);
    each_result(matrix, x, &|what, _, y| {
        for (at, &y) in y.iter().enumerate() {
            let (error, bound) = ((f64::from(y) - dots[at].exact).abs(), bounds[at]);
            assert!(
                y.is_finite() && error <= bound,
                "{what}: output {at} is {y:e}, {error:e} from {:e}: beyond {bound:e}",
                dots[at].exact
            );
            share.set(share.get().max(error / bound));
        }
    });
    share.get()
}

/// Small, ordinary and large inputs stay finite and within the bound, on one row and on many; some of the bound is used, and
/// the bound of arithmetic f32, a hundred times narrower, is not always kept: this is another arithmetic.
#[test]
fn native_products_are_stable_on_scaled_inputs() {
    for float_type in TYPES {
        for scale in [1e-3_f32, 1.0, 1e3] {
            let mut rng = Rng::new(42);
            let (rows, cols, n) = (16, 2560, 5);
            let matrix = Stored::new(float_type, cols, (0..rows * cols).map(|_| rng.normal() as f32));
            let x: Vec<f32> = (0..n * cols).map(|_| rng.normal() as f32 * scale).collect();
            let share = assert_within_bounds(&matrix, &x);
            assert!((1e-3..1.0).contains(&share), "{float_type:?} x {scale:e}: {share} of the bound");
            for backend in native_subjects(float_type) {
                let mut matmul =
                    backend.prepare_float_matmul(matrix.matrix(), Arithmetic::Native, 1, 1).unwrap();
                let y = run(&mut *matmul, &x[..cols], rows, backend.name());
                let beyond = y.iter().zip(matrix.rows()).filter(|(y, w)| {
                    let dot = dot(w, &x[..cols]);
                    (f64::from(**y) - dot.exact).abs() > 85.0 * 2.0_f64.powi(-24) * dot.products
                });
                assert!(beyond.count() > 0, "{} {float_type:?} is as exact as f32", backend.name());
            }
        }
    }
}

/// The largest weights of a type with large, small and ordinary activations: whatever can be represented is.
#[test]
fn extremes_neither_overflow_on_the_way_nor_vanish() {
    let (rows, cols, n) = (5, 12 * 32 * 2 + 7, 3);
    let most = |float_type| match float_type {
        FloatType::F16 => f16::MAX.to_f32(),
        _ => bf16::MAX.to_f32(),
    };
    for float_type in TYPES {
        let most = most(float_type);
        let tiny = if float_type == FloatType::F16 { f16::MIN_POSITIVE_SUBNORMAL.to_f32() } else { 1e-39 };
        for (weight, activation) in [
            (most, 1e-4),
            (most, f32::from_bits(1)),
            (most, f32::MIN_POSITIVE),
            (1.0, 3e35),
            (1e-4, 3.3e38),
            (tiny, 1.0),
            (tiny, 3e38),
            (tiny, 1e-20),
            (0.0, 3e38),
            (1.0, 0.0),
        ] {
            // All of one sign: the sum is as large as it gets.
            let matrix = Stored::new(float_type, cols, (0..rows * cols).map(|_| weight));
            assert_within_bounds(&matrix, &vec![activation; n * cols]);
            // One of them among ordinary values, of either sign.
            let mut rng = Rng::new(43);
            let mixed = (0..rows * cols).map(|at| if at % 97 == 5 { -weight } else { rng.normal() as f32 });
            let matrix = Stored::new(float_type, cols, mixed);
            let x: Vec<f32> =
                (0..n * cols).map(|at| if at % 89 == 7 { activation } else { rng.normal() as f32 }).collect();
            // Ordinary values meet the extreme ones, too.
            if weight.max(activation) < 1e36 {
                assert_within_bounds(&matrix, &x);
            }
        }
    }
}

/// What is no number stays where it is: outputs of its row of the matrix, or of its row of x, are none, and all others are as
/// good as ever.
#[test]
fn what_is_no_number_spoils_its_own_row_only() {
    let (rows, cols, n) = (7, 70, 6);
    for float_type in TYPES {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 31, 32, 63, 64, 69] {
                let mut rng = Rng::new(44);
                let mut weights: Vec<f32> = (0..rows * cols).map(|_| rng.normal() as f32).collect();
                let mut x: Vec<f32> = (0..n * cols).map(|_| rng.normal() as f32).collect();
                (weights[2 * cols + at], x[4 * cols + at]) = (bad, bad);
                let matrix = Stored::new(float_type, cols, weights.into_iter());
                let most = largest(&matrix.values);
                each_result(&matrix, &x, &|what, n, y| {
                    for column in 0..n {
                        for (row, w) in matrix.rows().enumerate() {
                            let y = y[column * rows + row];
                            if column == 4 || row == 2 {
                                assert!(!y.is_finite(), "{what} {bad} at {at}: {column} {row} is {y}");
                                continue;
                            }
                            let dot = dot(w, &x[column * cols..][..cols]);
                            let error = (f64::from(y) - dot.exact).abs();
                            assert!(error <= bound(float_type, cols, most, &dot), "{what} {bad} at {at}");
                        }
                    }
                });
            }
        }
    }
}

/// Against the oracle, which rounds x as hardware must, there is no rounding of x in the bound: an x that were rounded
/// otherwise, or not at all, would be beyond it.
#[test]
fn x_is_rounded_to_the_type_as_the_oracle_rounds_it() {
    let (rows, cols) = (8, 1);
    for float_type in TYPES {
        let mut rng = Rng::new(45);
        let matrix = Stored::new(float_type, cols, (0..rows * cols).map(|_| 1.0));
        let edges = [1.0 + 2.0_f32.powi(-8), 1.0 + 3.0 * 2.0_f32.powi(-8), 1.0 + 2.0_f32.powi(-11)];
        let x: Vec<f32> = edges.into_iter().chain((0..14).map(|_| rng.normal() as f32 * 37.0)).collect();
        let mut oracle =
            ORACLE.prepare_float_matmul(matrix.matrix(), Arithmetic::Native, x.len(), 1).unwrap();
        let expected = run(&mut *oracle, &x, x.len() * rows, "the oracle");
        for (x, y) in x.iter().zip(expected.chunks_exact(rows)) {
            assert_eq!(y, [stored(float_type, *x).1; 8], "the oracle rounds {x} half to even");
        }
        each_result(&matrix, &x, &|what, n, y| assert_eq!(y, &expected[..n * rows], "{what}"));
    }
}

#[test]
fn native_arithmetic_is_refused_where_it_is_none_and_says_why() {
    let bytes = [0; 4 * 256];
    for backend in subjects() {
        let refusal = |float_type: FloatType, n_max, threads| {
            let matrix = FloatMatrix::new(float_type, 1, 256, &bytes[..float_type.bytes_of(256)]).unwrap();
            match backend.prepare_float_matmul(matrix, Arithmetic::Native, n_max, threads).err() {
                Some(BackendError::Unsupported { what, .. }) => what,
                Some(BackendError::OutOfMemory { .. }) => "memory".into(),
                other => panic!("{} {float_type:?}: {other:?}", backend.name()),
            }
        };
        for float_type in [FloatType::F32, FloatType::Q8_0, FloatType::Q6K] {
            let what = refusal(float_type, 1, 1);
            let named = what.contains("native") || what.contains("arithmetic Native");
            assert!(
                named && (what.contains("F32") || !backend.name().ends_with("scalar") || what.contains("Q"))
            );
        }
        let offers = native_subjects(FloatType::Bf16).iter().any(|other| other.name() == backend.name());
        if offers {
            assert!(refusal(FloatType::Bf16, 1, 0).contains("0 threads"), "{}", backend.name());
            assert_eq!(refusal(FloatType::Bf16, usize::MAX, 1), "memory", "{}", backend.name());
            let matrix = FloatMatrix::new(FloatType::Bf16, 2, 5, &bytes[..20]).unwrap();
            let mut matmul = backend.prepare_float_matmul(matrix, Arithmetic::Native, 2, 1).unwrap();
            for (n_x, n_y) in [(4, 2), (6, 2), (5, 1), (5, 3), (15, 6), (0, 2), (5, 0)] {
                let mut y = Fenced::new(n_y, -7.25);
                let answer = matmul.matmul_f32(&vec![1.0; n_x], y.inside());
                assert!(matches!(answer, Err(BackendError::Length { .. })), "{n_x} {n_y}: {answer:?}");
                y.assert_untouched(backend.name());
            }
            assert_eq!(matmul.matmul_f32(&[], &mut []), Ok(()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn native_products_are_within_their_bounds_on_any_shape(
        kind in 0_usize..2, rows in 1_usize..40, cols in 1_usize..900, n in 1_usize..18,
        w_exponent in -14_i32..8, x_exponent in -60_i32..60, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let mut wide = |exponent: i32| {
            let spread = (rng.next_u64() % 12) as i32;
            (rng.normal() * 2.0_f64.powi(exponent - spread)) as f32
        };
        let matrix = Stored::new(TYPES[kind], cols, (0..rows * cols).map(|_| wide(w_exponent)));
        let x: Vec<f32> = (0..n * cols).map(|_| wide(x_exponent)).collect();
        assert_within_bounds(&matrix, &x);
    }
}
