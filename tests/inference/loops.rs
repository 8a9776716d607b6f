//! Vector loops: all that run here against the plain ones, bit for bit at every length around the lanes; and the
//! plain ones against f64.

use super::golden::bits;
use bitnet_perfgate::backends::vector::{Portable, VectorLoops, available_loops};
use bitnet_perfgate::bitnet::formats::WeightFormat;
use bitnet_perfgate::rng::Rng;
use half::f16;

/// Lengths on both sides of every vector, half-vector and group of lanes.
const LENGTHS: [usize; 18] = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 130, 137];

fn values(n: usize, scale: f64, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (scale * rng.normal()) as f32).collect()
}

fn halves(values: &[f32]) -> Vec<f16> {
    values.iter().map(|&x| f16::from_f32(x)).collect()
}

/// All loops on the same inputs, `n` values to write, first filled with what must be overwritten.
fn same(what: &str, n: usize, run: impl Fn(&dyn VectorLoops, &mut [f32])) {
    let results = available_loops().iter().map(|loops| {
        let mut out = values(n, 3.0, 99);
        run(&**loops, &mut out);
        bits(&out)
    });
    let results: Vec<_> = results.collect();
    assert!(results.iter().all(|result| *result == results[0]), "{what}, {n} values");
}

#[test]
fn fast_loops_have_the_bits_of_the_plain_ones() {
    for n in LENGTHS {
        let (x, w) = (values(n, 2.0, 1), values(n, 0.1, 2));
        same("scale", n, |loops, out| loops.scale(&x, 0.37, out));
        same("scale_weighted", n, |loops, out| loops.scale_weighted(&x, 0.37, &w, out));
        same("multiply", n, |loops, out| loops.multiply(&x, out));
        same("add", n, |loops, out| loops.add(&x, out));
        same("silu", n, |loops, out| loops.silu(out));
        same("relu_squared", n, |loops, out| loops.relu_squared(out));
        same("round_to_f16", n, |loops, out| loops.round_to_f16(out));
        same("softmax", n, |loops, out| loops.softmax(out));
        let dots: Vec<i32> = (0..n as i32).map(|i| (i - 40) * 9973).collect();
        same("rescale", n, |loops, out| loops.rescale(&dots, 3.7, 0.011, out));
        same("to_f16", n, |loops, out| {
            let mut narrow = vec![f16::ZERO; n];
            loops.to_f16(&x, &mut narrow);
            out.iter_mut().zip(narrow).for_each(|(out, half)| *out = half.to_f32());
        });
        same("rotate_halves", 2 * n, |loops, out| loops.rotate_halves(&values(2 * n, 1.0, 3), out));
        same("rotate_neighbours", 2 * n, |loops, out| loops.rotate_neighbours(&values(2 * n, 1.0, 4), out));
        for positions in [1, 2, 5, 33] {
            let kept = values(positions * n, 1.0, 5);
            let p = values(positions, 1.0, 6);
            same("scores_f32", positions, |loops, out| loops.scores_f32(&kept, &x, 0.125, out));
            same("scores_f16", positions, |loops, out| loops.scores_f16(&halves(&kept), &x, 0.125, out));
            same("mix_f32", n, |loops, out| loops.mix_f32(&kept, &p, out));
            same("mix_f16", n, |loops, out| loops.mix_f16(&halves(&kept), &p, out));
        }
    }
}

/// Rows go together in fours: each is to be summed as if it were alone, in index order.
#[test]
fn the_norm_of_a_row_does_not_depend_on_the_rows_beside_it() {
    for n in LENGTHS {
        for rows in 0..=9 {
            let x = values(rows * n, 2.0, 11);
            let expected: Vec<u32> = x
                .chunks_exact(n)
                .map(|x| {
                    let sum = x.iter().fold(0.0, |sum, &x| sum + f64::from(x * x));
                    (1.0 / ((sum / n as f64) as f32 + 1e-5).sqrt()).to_bits()
                })
                .collect();
            for loops in available_loops() {
                let mut multipliers = values(rows, 3.0, 99);
                loops.norm_multipliers(&x, 1e-5, &mut multipliers);
                assert_eq!(bits(&multipliers), expected, "{rows} rows of {n}");
            }
        }
    }
}

#[test]
fn quantisation_agrees_and_names_the_first_bad_value() {
    for format in WeightFormat::ALL {
        for n in LENGTHS {
            for scale in [0.0, 1e-9, 1.0, 1e30] {
                let x = values(n, scale, 7);
                let results = available_loops().iter().map(|loops| {
                    let mut q = vec![99; n];
                    (loops.quantize(format, &x, &mut q).map(f32::to_bits), q)
                });
                let results: Vec<_> = results.collect();
                assert!(
                    results.iter().all(|result| *result == results[0]),
                    "{format} {n} {scale}: {results:?}"
                );
            }
            let mut x = values(n, 1.0, 8);
            (x[n / 2], x[n - 1]) = (f32::NAN, f32::INFINITY);
            let first = if n / 2 == n - 1 { n - 1 } else { n / 2 };
            for loops in available_loops() {
                assert_eq!(loops.quantize(format, &x, &mut vec![0; n]), Err(first), "{format} {n}");
            }
        }
    }
}

/// The exponential within 2 ulp, seen through `silu(g) = g / (1 + exp(-g))` where the 1 does not hide it: two roundings
/// more, so within 4 ulp of f64. And its ends: 0 and infinity, not garbage.
#[test]
fn silu_is_that_of_f64_within_its_ulps() {
    let mut rng = Rng::new(5);
    for _ in 0..20_000 {
        let g = (rng.unit_f64() * 180.0 - 90.0) as f32;
        let mut out = [g];
        Portable.silu(&mut out);
        let exact = f64::from(g) / (1.0 + (-f64::from(g)).exp());
        // Where exp(-g) leaves f32 the result is a zero.
        let smallest = f64::from(f32::MIN_POSITIVE) * 128.0;
        let allowed = (exact.abs() * 4.0 * f64::from(f32::EPSILON)).max(smallest);
        assert!((f64::from(out[0]) - exact).abs() <= allowed, "silu({g}) = {}, exactly {exact}", out[0]);
    }
    for (g, expected) in
        [(-1000.0, -0.0), (1000.0, 1000.0), (0.0, 0.0), (-f32::MAX, -0.0), (f32::MAX, f32::MAX)]
    {
        let mut out = [g];
        Portable.silu(&mut out);
        assert_eq!(out[0].to_bits(), f32::to_bits(expected), "silu({g}) = {}", out[0]);
    }
}

#[test]
fn softmax_and_the_norm_are_those_of_f64() {
    let scores = values(500, 6.0, 9);
    let mut p = scores.clone();
    Portable.softmax(&mut p);
    let m = scores.iter().fold(f64::MIN, |m, &s| m.max(f64::from(s)));
    let sum: f64 = scores.iter().map(|&s| (f64::from(s) - m).exp()).sum();
    for (&s, &p) in scores.iter().zip(&p) {
        let exact = (f64::from(s) - m).exp() / sum;
        // s - m is rounded to half an ulp of up to 64: 2^-19 relative, times the exponential's own 2 ulp.
        assert!((f64::from(p) - exact).abs() <= exact * 4e-6 + 1e-38, "{s}: {p}, exactly {exact}");
    }
    let x = values(257, 2.0, 10);
    let mean = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / 257.0;
    let exact = 1.0 / (mean + 1e-5).sqrt();
    let mut multiplier = [0.0];
    Portable.norm_multipliers(&x, 1e-5, &mut multiplier);
    assert!((f64::from(multiplier[0]) / exact - 1.0).abs() < 4e-7);
}

/// Every float16, and what lies at, between and beside each and the next: conversions are those of the type, whichever
/// instruction or table makes them.
#[test]
fn every_half_is_widened_and_rounded_as_the_type_says() {
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let mut floats = vec![f32::MAX, f32::MIN, f32::INFINITY, f32::NAN, f32::from_bits(1), 65519.996, 65520.0];
    for pair in halves.windows(2) {
        let (value, next) = (pair[0].to_f32(), pair[1].to_f32());
        let between = (value + next) / 2.0;
        floats.extend([value, between, between.next_up(), between.next_down()]);
    }
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    for (index, loops) in available_loops().iter().enumerate() {
        let mut wide = vec![0.0; halves.len()];
        loops.widen_f16(&halves, &mut wide);
        for (half, &wide) in halves.iter().zip(&wide) {
            assert!(same(wide, half.to_f32()), "loops {index}: {:#06x} became {wide}", half.to_bits());
        }
        let mut narrow = vec![f16::ZERO; floats.len()];
        loops.to_f16(&floats, &mut narrow);
        for (&float, narrow) in floats.iter().zip(&narrow) {
            let expected = f16::from_f32(float).to_f32();
            assert!(same(narrow.to_f32(), expected), "loops {index}: {float} became {narrow}");
        }
        let mut rounded = floats.clone();
        loops.round_to_f16(&mut rounded);
        for (&float, &rounded) in floats.iter().zip(&rounded) {
            let expected = f16::from_f32(float).to_f32();
            assert!(same(rounded, expected), "loops {index}: {float} became {rounded}");
        }
    }
}
