//! Every backend against the oracle, bit for bit: shapes around every block and lane, extreme codes, floats that
//! round badly.

use bitnet_perfgate::backends::{Backend, BackendError, WeightRule};
use bitnet_perfgate::bitnet::formats::{FormatError, Layout, Tile, WeightFormat, Weights};
use bitnet_perfgate::rng::Rng;

use super::support::{
    Fenced, Misaligned, ORACLE, activations, bits, linear_bits, packed, prepare, prepare_threads, prepares,
    products, subjects,
};

const ROWS: [usize; 12] = [1, 2, 3, 4, 5, 7, 8, 9, 13, 31, 64, 65];
const COLS: [usize; 8] = [128, 256, 384, 1920, 2048, 2176, 4096, 8192];
/// Falling, so that scratch left by a larger batch would show.
const BATCHES: [usize; 15] = [33, 31, 17, 16, 15, 13, 9, 8, 7, 6, 5, 4, 3, 2, 1];

fn random_codes(rng: &mut Rng, n: usize) -> Vec<i8> {
    (0..n).map(|_| rng.ternary()).collect()
}

fn random_i8(rng: &mut Rng, n: usize) -> Vec<i8> {
    (0..n).map(|_| rng.next_u64() as i8).collect()
}

fn random_normal(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// A layout of each tiled format, two shapes each.
fn tiled_layouts() -> Vec<Layout> {
    let tile = |bm, bk, by| Tile { bm, bk, by };
    vec![
        Layout::tl1(128, 256, tile(64, 64, 8)).unwrap(),
        Layout::tl1(256, 128, tile(128, 64, 4)).unwrap(),
        Layout::tl2(64, 256, tile(32, 96, 8)).unwrap(),
        Layout::tl2(128, 384, tile(128, 192, 8)).unwrap(),
    ]
}

/// Tiles that end within a step of packing: k-blocks that are no multiple of 16 columns, an odd number of row
/// blocks, both halves of a 64-row block, TL2 without triples, without pairs, and with few and many of either.
fn ragged_layouts() -> Vec<Layout> {
    let tl1 = [(32, 8, 32, 8, 8), (96, 72, 96, 24, 8), (96, 80, 32, 40, 8), (128, 112, 64, 56, 8)];
    let tl1_of_64 = [(64, 4, 64, 4, 4), (192, 60, 192, 20, 4), (128, 36, 64, 12, 4), (64, 28, 64, 28, 4)];
    let tl2 = [
        (32, 288, 32, 288),
        (32, 256, 32, 288),
        (32, 288, 32, 24),
        (96, 320, 32, 96),
        (96, 288, 96, 72),
        (64, 416, 64, 96),
        (128, 512, 64, 96),
        (64, 1536, 32, 192),
        (32, 3104, 32, 1536),
    ];
    let tl1 = tl1.into_iter().chain(tl1_of_64);
    let tl1 = tl1.map(|(m, k, bm, bk, by)| Layout::tl1(m, k, Tile { bm, bk, by }).unwrap());
    tl1.chain(tl2.map(|(m, k, bm, bk)| Layout::tl2(m, k, Tile { bm, bk, by: 8 }).unwrap())).collect()
}

/// Integer products and linear layers of one matrix, batch after batch on the same prepared weights.
fn check_matrix(backend: &dyn Backend, layout: Layout, codes: &[i8], q: &[i8], x: &[f32]) {
    let (rows, cols) = (layout.rows(), layout.cols());
    let n_max = q.len() / cols;
    let bytes = Misaligned::new(&packed(&layout, codes, 0.037));
    let weights = Weights::new(layout, bytes.get()).unwrap();
    let mut oracle = prepare(&ORACLE, weights, n_max);
    let mut matmul = prepare(backend, weights, n_max);
    let what = format!("{} {} {rows}x{cols}", backend.name(), layout.format());
    let dots = products(&mut *oracle, rows, n_max, q, &what);
    let outputs = linear_bits(&mut *oracle, rows, n_max, x, &what);
    let (q, x) = (Misaligned::new(q), Misaligned::new(x));
    for n in BATCHES.into_iter().filter(|&n| n <= n_max) {
        let what = format!("{what} n={n}");
        let ours = products(&mut *matmul, rows, n, &q.get()[..n * cols], &what);
        assert!(ours == dots[..n * rows], "{what}: products differ");
        let ours = linear_bits(&mut *matmul, rows, n, &x.get()[..n * cols], &what);
        assert!(ours == outputs[..n * rows], "{what}: outputs differ");
    }
}

#[test]
fn i2s_products_equal_the_oracle_over_shapes() {
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "i2s shapes");
        for cols in COLS {
            let q = random_i8(&mut rng, BATCHES[0] * cols);
            let x = random_normal(&mut rng, BATCHES[0] * cols);
            for rows in ROWS {
                let codes = random_codes(&mut rng, rows * cols);
                check_matrix(&*backend, Layout::i2s(rows, cols).unwrap(), &codes, &q, &x);
            }
        }
    }
}

/// More weights than kernels keep in a cache at once, and one row after a number of rows that tiles of 2, 3 and 4 divide.
#[test]
fn i2s_products_of_large_matrices_equal_the_oracle() {
    let (rows, cols, n) = (133, 16384, 7);
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "i2s large");
        let (q, x) = (random_i8(&mut rng, n * cols), random_normal(&mut rng, n * cols));
        let codes = random_codes(&mut rng, rows * cols);
        check_matrix(&*backend, Layout::i2s(rows, cols).unwrap(), &codes, &q, &x);
    }
}

#[test]
fn tiled_products_equal_the_oracle() {
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "tiled");
        for layout in tiled_layouts().into_iter().filter(|layout| prepares(&*backend, layout)) {
            let codes = random_codes(&mut rng, layout.n_weights());
            let q = random_i8(&mut rng, 17 * layout.cols());
            let x = random_normal(&mut rng, 17 * layout.cols());
            check_matrix(&*backend, layout, &codes, &q, &x);
        }
    }
}

/// Products and layers on 1, 2 and 3 threads, for rows around the groups that threads divide: as many bits as on one.
#[test]
fn threads_change_no_bit() {
    let tl1 = Layout::tl1(192, 256, Tile { bm: 64, bk: 64, by: 8 }).unwrap();
    let tl2 = Layout::tl2(96, 544, Tile { bm: 32, bk: 96, by: 8 }).unwrap();
    let i2s = [1, 15, 16, 17, 47, 131, 257].map(|rows| Layout::i2s(rows, 384).unwrap());
    let mut on_several = 0;
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "threads");
        for layout in i2s.into_iter().chain([tl1, tl2]).filter(|layout| prepares(&*backend, layout)) {
            let (rows, cols) = (layout.rows(), layout.cols());
            let bytes = packed(&layout, &random_codes(&mut rng, rows * cols), 0.037);
            let weights = Weights::new(layout, &bytes).unwrap();
            let (q, x) = (random_i8(&mut rng, 33 * cols), random_normal(&mut rng, 33 * cols));
            let what = format!("{} {layout:?}", backend.name());
            let mut oracle = prepare(&ORACLE, weights, 33);
            let dots = products(&mut *oracle, rows, 33, &q, &what);
            let outputs = linear_bits(&mut *oracle, rows, 33, &x, &what);
            for threads in 1..=3 {
                let Some(mut matmul) = prepare_threads(&*backend, weights, 33, threads) else { continue };
                on_several += usize::from(threads > 1);
                for n in [33, 7, 3, 2, 1] {
                    let what = format!("{what} n={n} on {threads} threads");
                    let ours = products(&mut *matmul, rows, n, &q[..n * cols], &what);
                    assert!(ours == dots[..n * rows], "{what}: products differ");
                    let ours = linear_bits(&mut *matmul, rows, n, &x[..n * cols], &what);
                    assert!(ours == outputs[..n * rows], "{what}: outputs differ");
                }
            }
        }
        backend.quiesce();
    }
    let simd = subjects().iter().any(|backend| backend.name() == "rust-avx2");
    assert!(on_several > 0 || !simd, "no backend ran on several threads");
}

/// The first bad value of all rows is named whichever thread meets it, before anything is written.
#[test]
fn several_threads_name_the_first_bad_value() {
    let layout = Layout::i2s(40, 128).unwrap();
    let bytes = packed(&layout, &[1; 40 * 128], 1.0);
    for backend in subjects() {
        for threads in 1..=3 {
            let weights = Weights::new(layout, &bytes).unwrap();
            let Some(mut matmul) = prepare_threads(&*backend, weights, 5, threads) else { continue };
            for first in [0, 130, 4 * 128 + 127] {
                let mut x = vec![1.0; 5 * 128];
                (x[first], x[5 * 128 - 1]) = (f32::INFINITY, f32::NEG_INFINITY);
                let mut y = Fenced::new(5 * 40, -7.25);
                let answer = matmul.linear_f32_f32(&x, y.inside());
                let value = x[first];
                assert_eq!(
                    answer,
                    Err(BackendError::NonFinite { index: first, value }),
                    "{}",
                    backend.name()
                );
                y.assert_untouched(backend.name());
            }
        }
    }
}

/// What preparing says it took is at least the codes of the activations it must hold.
#[test]
fn prepared_bytes_count_the_scratch() {
    let layout = Layout::i2s(64, 1024).unwrap();
    let bytes = packed(&layout, &[0; 64 * 1024], 1.0);
    for backend in subjects().iter().filter(|backend| backend.name().starts_with("rust-avx")) {
        let said = |n: usize| prepare(&**backend, Weights::new(layout, &bytes).unwrap(), n).prepared_bytes();
        let (one, many) = (said(1).expect("it says"), said(9).expect("it says"));
        assert!(one >= 1024 + 4 + 4 * 64, "{}: {one}", backend.name());
        assert!(many >= one + 8 * (1024 + 4 + 4 * 64), "{}: {one}, {many}", backend.name());
    }
}

/// Constant codes against constant activations: the largest sums there are, in every partial sum. The expected
/// number is a product, not a loop of ours.
#[test]
fn extreme_constants_are_exact() {
    for backend in subjects() {
        for cols in [128, 896, 1024, 1152, 1920, 2048, 2176, 4096, 8192] {
            let layout = Layout::i2s(5, cols).unwrap();
            for code in [-1_i8, 0, 1] {
                let bytes = packed(&layout, &vec![code; 5 * cols], 1.0);
                let weights = Weights::new(layout, &bytes).unwrap();
                let mut matmul = prepare(&*backend, weights, 7);
                for value in [-128_i8, -127, -1, 0, 1, 127] {
                    for n in [7, 5, 4, 2, 1] {
                        let what = format!("{} 5x{cols} n={n}: {code} times {value}", backend.name());
                        let ours = products(&mut *matmul, 5, n, &vec![value; n * cols], &what);
                        assert_eq!(
                            ours,
                            vec![i32::from(code) * i32::from(value) * cols as i32; 5 * n],
                            "{what}"
                        );
                    }
                }
            }
        }
    }
}

/// Activations whose sign follows the code, so that nothing cancels although both change.
#[test]
fn aligned_signs_are_exact() {
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "aligned signs");
        let layout = Layout::i2s(9, 4096).unwrap();
        let row = random_codes(&mut rng, 4096);
        let bytes = packed(&layout, &row.repeat(9), 1.0);
        let mut matmul = prepare(&*backend, Weights::new(layout, &bytes).unwrap(), 6);
        let nonzero = row.iter().filter(|&&code| code != 0).count() as i32;
        for n in [1, 6] {
            let q: Vec<i8> = row.iter().map(|&code| if code < 0 { -128 } else { 127 * code }).collect();
            let minus = row.iter().filter(|&&code| code < 0).count() as i32;
            let ours = products(&mut *matmul, 9, n, &q.repeat(n), backend.name());
            assert_eq!(ours, vec![127 * nonzero + minus; 9 * n], "{} n={n}", backend.name());
        }
    }
}

/// The largest K there is: 128 * K just fits int32.
#[test]
fn the_largest_k_is_exact_and_the_next_is_refused() {
    let cols = (1 << 24) - 128;
    let layout = Layout::i2s(1, cols).unwrap();
    let q = vec![-128; cols];
    for code in [-1_i8, 1] {
        let bytes = packed(&layout, &vec![code; cols], 1.0);
        for backend in subjects() {
            let mut matmul = prepare(&*backend, Weights::new(layout, &bytes).unwrap(), 1);
            let ours = products(&mut *matmul, 1, 1, &q, backend.name());
            assert_eq!(ours, [-128 * i32::from(code) * cols as i32], "{}", backend.name());
        }
    }
    let layout = Layout::i2s(1, 1 << 24).unwrap();
    let bytes = vec![0; layout.packed_bytes()];
    for backend in subjects() {
        let answer = backend.prepare_matmul(Weights::new(layout, &bytes).unwrap(), 1, 1).map(|_| ());
        assert!(matches!(answer, Err(BackendError::Unsupported { .. })), "{}", backend.name());
    }
}

/// Rows that round badly or sit at the edge of a rule; each `cols` long.
fn hard_rows(cols: usize) -> Vec<Vec<f32>> {
    let cycle = |values: &[f32]| -> Vec<f32> { values.iter().copied().cycle().take(cols).collect() };
    // With 127 as the largest, the scale is 1 and these are ties as they stand.
    let mut ties: Vec<f32> = (0..cols).map(|i| (i % 254) as f32 - 126.5).collect();
    ties[cols - 1] = -127.0;
    let mut near_ties = ties.clone();
    for (i, value) in near_ties.iter_mut().take(cols - 1).enumerate() {
        *value = if i % 2 == 0 { value.next_up() } else { value.next_down() };
    }
    let mut outlier = cycle(&[0.1, -0.3, 0.7]);
    outlier[cols / 2] = 1e4;
    vec![
        cycle(&[0.0]),
        cycle(&[-0.0]),
        cycle(&[0.0, -0.0]),
        cycle(&[f32::from_bits(1), -f32::from_bits(77), 0.0]),
        cycle(&[f32::MIN_POSITIVE, -f32::MIN_POSITIVE, f32::MIN_POSITIVE / 3.0]),
        cycle(&[1e-5, -1e-5, 5e-6, 1e-5_f32.next_up()]),
        cycle(&[3.7e-37, -3.8e-37, 1e-38]),
        cycle(&[f32::MAX, -f32::MAX, f32::MAX / 254.0, -0.0]),
        cycle(&[1.0, -1.0, 0.5]),
        cycle(&[1.0]),
        ties,
        near_ties,
        outlier,
    ]
}

/// Lengths around the 32 values of a step and the 8 of a vector.
#[test]
fn activations_equal_the_oracle() {
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "activations");
        for cols in (1..=70).chain([127, 128, 129, 255, 256, 2559, 2560]) {
            let mut x: Vec<f32> = hard_rows(cols).concat();
            x.extend(random_normal(&mut rng, 3 * cols));
            // Any bits at all, as long as they are finite.
            let finite = |bits: u64| Some(f32::from_bits(bits as u32)).filter(|value| value.is_finite());
            x.extend((0..3 * cols).map(|_| finite(rng.next_u64()).unwrap_or(0.5)));
            let what = format!("{} K={cols}", backend.name());
            let misaligned = Misaligned::new(&x);
            let ours = activations(&*backend, misaligned.get(), cols, &what);
            assert!(ours == activations(&ORACLE, &x, cols, &what), "{what}");
        }
    }
}

#[test]
fn linear_layers_of_hard_rows_equal_the_oracle() {
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "hard rows");
        let mut layouts = tiled_layouts();
        layouts.push(Layout::i2s(7, 128).unwrap());
        layouts.push(Layout::i2s(33, 384).unwrap());
        for layout in layouts.into_iter().filter(|layout| prepares(&*backend, layout)) {
            let (rows, cols) = (layout.rows(), layout.cols());
            let rows_of_x = hard_rows(cols);
            let (n, x) = (rows_of_x.len(), rows_of_x.concat());
            for scale in [0.0, f32::from_bits(3), 0.037, 1.7e38] {
                let bytes = packed(&layout, &random_codes(&mut rng, layout.n_weights()), scale);
                let weights = Weights::new(layout, &bytes).unwrap();
                let what = format!("{} {} {rows}x{cols}", backend.name(), layout.format());
                let mut matmul = prepare(&*backend, weights, n);
                let mut oracle = prepare(&ORACLE, weights, n);
                let expected = linear_bits(&mut *oracle, rows, n, &x, &what);
                assert!(linear_bits(&mut *matmul, rows, n, &x, &what) == expected, "{what} scale {scale}");
            }
        }
    }
}

/// A row of zeros gives +0 everywhere, whatever the format.
#[test]
fn a_row_of_zeros_gives_plus_zero() {
    for backend in subjects() {
        let mut layouts = tiled_layouts();
        layouts.push(Layout::i2s(9, 256).unwrap());
        for layout in layouts.into_iter().filter(|layout| prepares(&*backend, layout)) {
            let bytes = packed(&layout, &vec![-1; layout.n_weights()], 2.0);
            let weights = Weights::new(layout, &bytes).unwrap();
            let mut matmul = prepare(&*backend, weights, 2);
            let x = vec![-0.0; 2 * layout.cols()];
            let y = linear_bits(&mut *matmul, layout.rows(), 2, &x, backend.name());
            assert!(y.iter().all(|&bits| bits == 0), "{} {}", backend.name(), layout.format());
        }
    }
}

/// Weights of every kind that the rules tell apart, `n` of each.
fn hard_weights(rng: &mut Rng, n: usize) -> Vec<(&'static str, Vec<f32>)> {
    let mut cycle = |values: &[f32]| -> Vec<f32> {
        (0..n).map(|_| values[rng.below(values.len() as u64) as usize]).collect()
    };
    let edge = 1e-6_f32;
    let halves = [0.5, 0.5_f32.next_up(), 0.5_f32.next_down(), 1.5, 2.0];
    let halves: Vec<f32> = halves.iter().flat_map(|&half| [half, -half]).collect();
    vec![
        ("ternary", cycle(&[0.02, -0.02, 0.0, -0.0])),
        ("zeros", cycle(&[0.0, -0.0])),
        (
            "around 1e-6",
            cycle(&[edge, edge.next_up(), edge.next_down(), -edge, -edge.next_up(), -edge.next_down()]),
        ),
        ("below the floor", cycle(&[1e-7, -1e-6, 4.9e-6])),
        ("at the floor", cycle(&[5e-6, -5e-6, 5e-6_f32.next_up(), -1e-5])),
        ("subnormal", cycle(&[f32::from_bits(1), -f32::from_bits(9)])),
        ("huge", cycle(&[f32::MAX, -f32::MAX, 1e38, 0.0])),
        ("one huge among small", cycle(&[1e-30, -1e-30, 1e-30, 1e-30, 1e-30, 3e38])),
        ("ties", halves.iter().copied().cycle().take(n).collect()),
        // Every magnitude but the smallest pair is 1, so that the mean, hence the tie, is exact.
        ("exact ties", (0..n).map(|i| [0.5, 1.5, -0.5, -1.5][i % 4]).collect()),
    ]
}

#[test]
fn quantised_weights_equal_the_oracle() {
    for backend in subjects() {
        let mut rng = Rng::for_part(7, "weights");
        let mut layouts = tiled_layouts();
        layouts.extend(ragged_layouts());
        // 31, 32, 33 and 65 blocks: packing takes 32 at a time.
        let i2s = [(1, 128), (3, 256), (5, 384), (2, 2176), (31, 128), (1, 4096), (11, 384), (13, 640)];
        layouts.extend(i2s.map(|(m, k)| Layout::i2s(m, k).unwrap()));
        for layout in layouts {
            let mut cases = hard_weights(&mut rng, layout.n_weights());
            cases.push(("normal", random_normal(&mut rng, layout.n_weights())));
            for (kind, w) in cases {
                for rule in [WeightRule::AbsMean, WeightRule::MaxAbs] {
                    let what = format!("{} {:?} {rule:?} of {kind}", backend.name(), layout);
                    check_weights(&*backend, &layout, rule, &w, &what);
                }
            }
        }
    }
}

/// 1 / (1 / mean) leaves the range of float32 where the mean is within two ulp of its end: no tensor can have that scale, and
/// none is written.
#[test]
fn a_scale_beyond_float32_is_refused() {
    let mut subjects = subjects();
    subjects.push(std::sync::Arc::new(ORACLE));
    for backend in subjects {
        for layout in [vec![Layout::i2s(3, 256).unwrap()], tiled_layouts()].concat() {
            let what = format!("{} {layout:?}", backend.name());
            let w: Vec<f32> = [f32::MAX, -f32::MAX].into_iter().cycle().take(layout.n_weights()).collect();
            let mut bytes = Fenced::new(layout.packed_bytes(), 0x5a);
            let refused = backend.quantize_weights(&layout, WeightRule::AbsMean, &w, bytes.inside());
            let why = refused.expect_err(&what);
            let said = matches!(
                why,
                BackendError::Format(FormatError::Scale { .. }) | BackendError::Unsupported { .. }
            );
            assert!(said, "{what}: {why}");
            assert!(bytes.take(&what).iter().all(|&byte| byte == 0x5a), "{what}: bytes were written");
            // The signs alone have a scale that fits.
            let mut bytes = vec![0; layout.packed_bytes()];
            let scale = backend.quantize_weights(&layout, WeightRule::MaxAbs, &w, &mut bytes);
            assert_eq!(scale, Ok(f32::MAX), "{what}");
        }
    }
}

/// Bytes, scale, and the floats they stand for.
fn check_weights(backend: &dyn Backend, layout: &Layout, rule: WeightRule, w: &[f32], what: &str) {
    let mut ours = Fenced::new(layout.packed_bytes(), 0x5a);
    let mut expected = vec![0xa5; layout.packed_bytes()];
    let w = Misaligned::new(w);
    let scale = backend.quantize_weights(layout, rule, w.get(), ours.inside());
    let expected_scale = ORACLE.quantize_weights(layout, rule, w.get(), &mut expected).expect("finite");
    assert_eq!(scale.expect("finite").to_bits(), expected_scale.to_bits(), "{what}");
    assert!(ours.take(what) == expected, "{what}: bytes differ");

    let weights = Weights::new(*layout, &expected).unwrap();
    let mut back = Fenced::new(layout.n_weights(), -7.25);
    backend.dequantize_weights(&weights, back.inside()).unwrap();
    let mut expected_back = vec![0.0; layout.n_weights()];
    ORACLE.dequantize_weights(&weights, &mut expected_back).unwrap();
    assert!(bits(&back.take(what)) == bits(&expected_back), "{what}: floats differ");
}

/// The oracle itself on numbers worked out by hand.
#[test]
fn the_oracle_agrees_with_pencil_and_paper() {
    let layout = Layout::i2s(2, 128).unwrap();
    let mut codes = vec![0_i8; 256];
    (codes[0], codes[1], codes[127], codes[128]) = (1, -1, 1, -1);
    let bytes = packed(&layout, &codes, 0.5);
    let mut matmul = prepare(&ORACLE, Weights::new(layout, &bytes).unwrap(), 1);
    let mut q = vec![0_i8; 128];
    (q[0], q[1], q[127]) = (10, 3, -128);
    assert_eq!(products(&mut *matmul, 2, 1, &q, "oracle"), [10 - 3 - 128, -10]);
    // Largest 2: scale 63.5; 2 -> 127, 1 -> 63.5 -> 64, -1 -> -64. Row 0: 127 - 64 - 64 = -1, row 1: -127.
    let mut x = vec![0.0_f32; 128];
    (x[0], x[1], x[127]) = (2.0, 1.0, -1.0);
    let y = linear_bits(&mut *matmul, 2, 1, &x, "oracle");
    assert_eq!(y, bits(&[-1.0 / 63.5 * 0.5, -127.0 / 63.5 * 0.5]));
    assert!(WeightFormat::ALL.len() == 3, "a format was added: the layouts above must cover it");
}

/// Kernels that add codes where they stand in their byte add up to 64 times too much before they shift: a row this wide,
/// with the largest codes and activations, would leave int32 if such sums were not folded in time.
#[test]
fn very_wide_rows_stay_within_int32() {
    let cols = 128 * 120_001;
    let layout = Layout::i2s(2, cols).unwrap();
    let bytes = packed(&layout, &[vec![1; cols], vec![-1; cols]].concat(), 0.5);
    let weights = Weights::new(layout, &bytes).unwrap();
    let q = vec![-128_i8; cols];
    let expected = -128 * cols as i32;
    for backend in subjects() {
        let mut matmul = prepare(backend.as_ref(), weights, 1);
        let found = products(matmul.as_mut(), 2, 1, &q, backend.name());
        assert_eq!(found, [expected, -expected], "{}", backend.name());
    }
}
