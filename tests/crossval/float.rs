//! Float products of every backend against the oracle, bit for bit; only a NaN may be any NaN.

use bitnet_perfgate::backends::{Arithmetic, Availability, Backend, BackendError, FloatMatmul};
use bitnet_perfgate::bitnet::model::{FloatMatrix, FloatType};
use bitnet_perfgate::rng::Rng;
use half::{bf16, f16};
use proptest::prelude::*;
use std::sync::Arc;

use super::support::{Fenced, Misaligned, ORACLE, subjects};

const TYPES: [FloatType; 5] =
    [FloatType::F32, FloatType::F16, FloatType::Bf16, FloatType::Q8_0, FloatType::Q6K];
const ROWS: [usize; 9] = [1, 2, 3, 4, 5, 7, 8, 13, 31];
const COLS: [usize; 14] = [1, 7, 31, 32, 33, 63, 64, 65, 256, 511, 512, 513, 1536, 2080];
/// Falling, so that scratch left by a larger batch would show.
const BATCHES: [usize; 9] = [13, 9, 8, 7, 6, 4, 3, 2, 1];

/// The backends that offer float products; every backend in Rust does.
fn float_subjects() -> Vec<Arc<dyn Backend>> {
    let matrix = FloatMatrix::new(FloatType::F32, 1, 1, &[0; 4]).unwrap();
    let mut all = subjects();
    all.retain(|backend| match backend.prepare_float_matmul(matrix, Arithmetic::F32, 1, 1) {
        Err(BackendError::Unsupported { what, .. }) if !backend.name().starts_with("rust-") => {
            eprintln!("{} is not tested: it does not support {what}", backend.name());
            false
        }
        answer => answer.map(|_| true).unwrap_or_else(|error| panic!("{}: {error}", backend.name())),
    });
    all
}

/// A float of any magnitude that the type's scales can hold, small ones and zeros among them.
fn wide(rng: &mut Rng) -> f32 {
    let exponent = (rng.next_u64() % 40) as i32 - 30;
    match rng.next_u64() % 16 {
        0 => 0.0,
        1 => -0.0,
        _ => (rng.normal() * 2.0_f64.powi(exponent)) as f32,
    }
}

/// A matrix in its bytes; every byte pattern of the codes occurs.
fn matrix_bytes(rng: &mut Rng, float_type: FloatType, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; float_type.bytes_of(n)];
    match float_type {
        FloatType::F32 => bytes.as_chunks_mut().0.iter_mut().for_each(|b| *b = wide(rng).to_le_bytes()),
        FloatType::F16 => {
            bytes.as_chunks_mut().0.iter_mut().for_each(|b| *b = f16::from_f32(wide(rng)).to_le_bytes());
        }
        FloatType::Bf16 => {
            bytes.as_chunks_mut().0.iter_mut().for_each(|b| *b = bf16::from_f32(wide(rng)).to_le_bytes());
        }
        FloatType::Q8_0 | FloatType::Q6K => {
            let (size, d_at) = if float_type == FloatType::Q8_0 { (34, 0) } else { (210, 208) };
            bytes.iter_mut().for_each(|byte| *byte = rng.next_u64() as u8);
            for block in bytes.chunks_exact_mut(size) {
                block[d_at..d_at + 2].copy_from_slice(&f16::from_f32(wide(rng)).to_le_bytes());
            }
        }
    }
    bytes
}

fn run(matmul: &mut dyn FloatMatmul, x: &[f32], len: usize, what: &str) -> Vec<f32> {
    let mut y = Fenced::new(len, -7.25);
    matmul.matmul_f32(x, y.inside()).unwrap_or_else(|error| panic!("{what}: {error}"));
    y.take(what)
}

fn assert_same(expected: &[f32], actual: &[f32], what: &str) {
    let same = |e: f32, a: f32| e.to_bits() == a.to_bits() || (e.is_nan() && a.is_nan());
    let first = expected.iter().zip(actual).position(|(&e, &a)| !same(e, a));
    if let Some(at) = first {
        panic!("{what}: output {at} is {:e}, expected {:e}", actual[at], expected[at]);
    }
    assert_eq!(expected.len(), actual.len(), "{what}");
}

/// Every batch up to that of `x`, on every number of threads, of misaligned bytes and floats.
fn check(float_type: FloatType, (rows, cols): (usize, usize), bytes: &[u8], x: &[f32]) {
    let n_max = x.len() / cols;
    let bytes = Misaligned::new(bytes);
    let matrix = FloatMatrix::new(float_type, rows, cols, bytes.get()).expect("a legal shape");
    let what = format!("{float_type:?} {rows}x{cols}");
    let mut oracle = ORACLE.prepare_float_matmul(matrix, Arithmetic::F32, n_max, 1).unwrap();
    let expected = run(&mut *oracle, x, n_max * rows, &what);
    let x = Misaligned::new(x);
    for backend in float_subjects() {
        let one_thread = backend.isa() == "scalar";
        for threads in 1..=if one_thread { 1 } else { 3 } {
            let what = format!("{} {what} t{threads}", backend.name());
            let mut matmul = backend
                .prepare_float_matmul(matrix, Arithmetic::F32, n_max, threads)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            for n in [n_max].into_iter().chain(BATCHES).filter(|&n| n <= n_max) {
                let ours = run(&mut *matmul, &x.get()[..n * cols], n * rows, &what);
                assert_same(&expected[..n * rows], &ours, &format!("{what} n={n}"));
            }
        }
    }
}

/// Shapes at every lane, block and panel boundary.
#[test]
fn products_are_the_oracles_on_every_shape() {
    let mut rng = Rng::new(31);
    for float_type in TYPES {
        let legal = |cols: &usize| cols.is_multiple_of(float_type.block_len());
        for cols in COLS.into_iter().filter(legal).chain([2048, 2304]) {
            for rows in ROWS {
                let bytes = matrix_bytes(&mut rng, float_type, rows * cols);
                let x: Vec<f32> = (0..13 * cols).map(|_| wide(&mut rng)).collect();
                check(float_type, (rows, cols), &bytes, &x);
            }
        }
    }
}

/// Wide and far: more than one panel with a tail, more rows of x than any tile has.
#[test]
fn products_are_the_oracles_on_long_rows_and_wide_batches() {
    let mut rng = Rng::new(32);
    for (float_type, rows, cols, n) in [
        (FloatType::F16, 6, 6913, 5),
        (FloatType::Bf16, 5, 4127, 41),
        (FloatType::F32, 9, 2079, 40),
        (FloatType::Q6K, 5, 6912, 7),
        (FloatType::Q8_0, 17, 6912, 33),
    ] {
        let bytes = matrix_bytes(&mut rng, float_type, rows * cols);
        let x: Vec<f32> = (0..n * cols).map(|_| wide(&mut rng)).collect();
        check(float_type, (rows, cols), &bytes, &x);
    }
}

/// Subnormals are not flushed, results underflow to either zero, and what is infinite or no number stays so.
#[test]
fn extreme_floats_are_computed_as_they_are() {
    let extremes = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::from_bits(1),
        -f32::from_bits(0x7f_ffff),
        f32::MIN_POSITIVE,
        f32::MAX,
        -f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        6.0e-8,
        -5.0e-37,
        65504.0,
        9.0e6,
    ];
    let mut rng = Rng::new(33);
    let (rows, cols, n) = (7, 512 + 256, 5);
    for float_type in TYPES {
        // With the first few of them everything stays finite; with all of them nearly nothing does.
        for kinds in [2, 5, 7, 9, 12, 16] {
            let mut one = || extremes[(rng.next_u64() % kinds) as usize];
            let x: Vec<f32> = (0..n * cols).map(|_| one()).collect();
            let mut bytes = match float_type {
                FloatType::F32 => (0..rows * cols).flat_map(|_| one().to_le_bytes()).collect(),
                FloatType::F16 => (0..rows * cols).flat_map(|_| f16::from_f32(one()).to_le_bytes()).collect(),
                FloatType::Bf16 => {
                    (0..rows * cols).flat_map(|_| bf16::from_f32(one()).to_le_bytes()).collect()
                }
                FloatType::Q8_0 | FloatType::Q6K => matrix_bytes(&mut rng, float_type, rows * cols),
            };
            check(float_type, (rows, cols), &bytes, &x);
            // One bad scale among good ones.
            if matches!(float_type, FloatType::Q8_0) {
                bytes[..2].copy_from_slice(&f16::NEG_INFINITY.to_le_bytes());
                check(float_type, (rows, cols), &bytes, &x);
            }
        }
    }
}

/// One extreme value in an ordinary row of x, at every place of a block.
#[test]
fn one_extreme_value_spoils_its_own_row_only() {
    let mut rng = Rng::new(34);
    let (rows, cols) = (3, 64);
    for float_type in [FloatType::F32, FloatType::Q8_0] {
        let bytes = matrix_bytes(&mut rng, float_type, rows * cols);
        for extreme in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1.2e9, 1e-38] {
            for at in 0..cols {
                let mut x: Vec<f32> = (0..3 * cols).map(|_| rng.normal() as f32).collect();
                x[cols + at] = extreme;
                check(float_type, (rows, cols), &bytes, &x);
            }
        }
    }
}

/// The smallest results underflow, and a row of them is -0 only if every lane is.
#[test]
fn the_sign_of_an_underflow_is_kept() {
    for cols in [31, 32, 33, 64, 65] {
        for rows in [1, 4, 5] {
            let bytes: Vec<u8> = (0..rows * cols).flat_map(|_| (-1e-30_f32).to_le_bytes()).collect();
            check(FloatType::F32, (rows, cols), &bytes, &vec![1e-30; 4 * cols]);
        }
    }
}

#[test]
fn wrong_lengths_and_wishes_are_refused_before_anything_is_written() {
    let bytes = [0; 4 * 3 * 5];
    let matrix = FloatMatrix::new(FloatType::F32, 3, 5, &bytes).unwrap();
    for backend in float_subjects() {
        let name = backend.name().to_owned();
        let mut matmul = backend.prepare_float_matmul(matrix, Arithmetic::F32, 2, 1).unwrap();
        for (n_x, n_y) in [(4, 3), (6, 3), (5, 2), (5, 4), (15, 9), (0, 3), (5, 0)] {
            let mut y = Fenced::new(n_y, -7.25);
            let answer = matmul.matmul_f32(&vec![1.0; n_x], y.inside());
            assert!(matches!(answer, Err(BackendError::Length { .. })), "{name} {n_x} {n_y}: {answer:?}");
            y.assert_untouched(&name);
        }
        assert_eq!(matmul.matmul_f32(&[], &mut []), Ok(()), "{name}");
        let answer = backend.prepare_float_matmul(matrix, Arithmetic::F32, 1, 0).err();
        assert!(matches!(answer, Some(BackendError::Unsupported { .. })), "{name}: {answer:?}");
        let absurd = backend.prepare_float_matmul(matrix, Arithmetic::F32, usize::MAX, 1).err();
        let scratch = ["scalar", "portable"].contains(&backend.isa());
        assert!(scratch || matches!(absurd, Some(BackendError::OutOfMemory { .. })), "{name}: {absurd:?}");
        assert_eq!(backend.availability(), Availability::Ready);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_are_the_oracles_on_any_shape(
        kind in 0_usize..5, rows in 1_usize..40, blocks in 1_usize..20, n in 1_usize..9, seed: u64,
    ) {
        let float_type = TYPES[kind];
        let cols = match float_type.block_len() {
            1 => blocks * 37,
            block_len => blocks * block_len,
        };
        let mut rng = Rng::new(seed);
        let bytes = matrix_bytes(&mut rng, float_type, rows * cols);
        let x: Vec<f32> = (0..n * cols).map(|_| wide(&mut rng)).collect();
        check(float_type, (rows, cols), &bytes, &x);
    }
}
