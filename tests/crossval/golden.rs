//! The Rust backends against what the real bitnet.cpp computed (tests/golden).

use super::npz::{Npz, golden_names};
use super::support::{Fenced, activations, bits, linear_bits, packed, prepare, prepares, products, subjects};
use bitnet_perfgate::backends::{Backend, WeightRule};
use bitnet_perfgate::bitnet::formats::{Layout, Tile, Weights, unpack};

/// The number behind the letter(s) `key` in a name like `tl2_m128_k256_bm128_bk96.npz`.
fn number(name: &str, key: &str) -> usize {
    name.trim_end_matches(".npz")
        .split('_')
        .find_map(|part| part.strip_prefix(key)?.parse().ok())
        .unwrap_or_else(|| panic!("{name}: no {key}"))
}

/// What one golden I2_S file holds.
struct I2sCase {
    name: String,
    layout: Layout,
    bytes: Vec<u8>,
    w: Option<Vec<f32>>,
    x: Vec<f32>,
    x_q8: Vec<i8>,
    x_scale: Vec<f32>,
    x_sum: Vec<i32>,
    /// In offset form, as the reference has it.
    dot: Vec<i32>,
    y: Vec<f32>,
}

impl I2sCase {
    fn read(name: &str) -> Self {
        let layout = Layout::i2s(number(name, "m"), number(name, "k")).unwrap();
        let mut file = Npz::golden(name);
        let mut bytes: Vec<u8> = file.data("packed");
        bytes.resize(layout.packed_bytes(), 0);
        let scale: f32 = file.scalar("w_scale");
        assert_eq!(Weights::new(layout, &bytes).unwrap().scale(), scale, "{name}");
        Self {
            name: name.to_string(),
            layout,
            bytes,
            w: file.contains("w").then(|| file.data("w")),
            x: file.data("x"),
            x_q8: file.data("x_q8"),
            x_scale: file.data("x_scale"),
            x_sum: file.data("x_sum"),
            dot: file.data("dot"),
            y: file.data("y"),
        }
    }

    fn all() -> Vec<Self> {
        let cases: Vec<Self> = golden_names("i2s_", ".npz").iter().map(|name| Self::read(name)).collect();
        assert_eq!(cases.len(), 11);
        cases
    }

    fn weights(&self) -> Weights<'_> {
        Weights::new(self.layout, &self.bytes).unwrap()
    }

    fn n(&self) -> usize {
        self.x_scale.len()
    }

    fn overflows(&self) -> bool {
        self.name.starts_with("i2s_overflow")
    }

    /// The reference's products in signed form.
    fn signed_dot(&self) -> Vec<i32> {
        let sums = self.x_sum.iter().flat_map(|&sum| std::iter::repeat_n(sum, self.layout.rows()));
        self.dot.iter().zip(sums).map(|(dot, sum)| dot - sum).collect()
    }
}

fn check_activations(backend: &dyn Backend, case: &I2sCase) {
    let what = format!("{} {}", backend.name(), case.name);
    let (q, scale, sum) = activations(backend, &case.x, case.layout.cols(), &what);
    assert_eq!(q, case.x_q8, "{what}");
    assert_eq!(scale, bits(&case.x_scale), "{what}");
    assert_eq!(sum, case.x_sum, "{what}");
}

#[test]
fn activations_are_those_of_bitnet_cpp() {
    for backend in subjects() {
        for case in I2sCase::all() {
            check_activations(&*backend, &case);
        }
    }
}

#[test]
fn packed_and_dequantised_weights_are_those_of_bitnet_cpp() {
    for backend in subjects() {
        let mut compared = 0;
        for case in I2sCase::all() {
            let Some(w) = &case.w else { continue };
            let what = format!("{} {}", backend.name(), case.name);
            let mut dst = Fenced::new(case.layout.packed_bytes(), 0x5a);
            let scale = backend.quantize_weights(&case.layout, WeightRule::MaxAbs, w, dst.inside()).unwrap();
            assert_eq!(scale.to_bits(), case.weights().scale().to_bits(), "{what}");
            assert_eq!(dst.take(&what), case.bytes, "{what}");
            let mut back = Fenced::new(w.len(), -7.25);
            backend.dequantize_weights(&case.weights(), back.inside()).unwrap();
            assert_eq!(&back.take(&what), w, "{what}");
            compared += 1;
        }
        assert!(compared >= 5, "{}: only {compared} golden files hold weights", backend.name());
    }
}

#[test]
fn products_and_outputs_are_those_of_bitnet_cpp() {
    for backend in subjects() {
        let mut compared = 0;
        for case in I2sCase::all().iter().filter(|case| !case.overflows()) {
            let what = format!("{} {}", backend.name(), case.name);
            let mut matmul = prepare(&*backend, case.weights(), case.n());
            let (rows, n) = (case.layout.rows(), case.n());
            assert_eq!(products(&mut *matmul, rows, n, &case.x_q8, &what), case.signed_dot(), "{what}");
            assert_eq!(linear_bits(&mut *matmul, rows, n, &case.x, &what), bits(&case.y), "{what}");
            compared += 1;
        }
        assert_eq!(compared, 9);
    }
}

/// The reference's AVX2 sum in offset form: 16 lanes of int16, lane l taking columns 2l and 2l + 1 of each group of
/// 32, wrapping within every 32 blocks (docs/FORMATS.md 4).
fn wrapping_dot(codes: &[i8], q: &[i8]) -> i32 {
    let lanes = |(codes, q): (&[i8], &[i8])| {
        let mut lanes = [0_i16; 16];
        for (column, (code, q)) in codes.iter().zip(q).enumerate() {
            let lane = &mut lanes[column % 32 / 2];
            *lane = lane.wrapping_add((code + 1) as i16 * *q as i16);
        }
        lanes.iter().map(|&lane| i32::from(lane)).sum::<i32>()
    };
    codes.chunks(32 * 128).zip(q.chunks(32 * 128)).map(lanes).sum()
}

/// Where the reference wraps, our backends must give the exact number, and the wrap alone must explain the rest.
#[test]
fn overflow_cases_differ_from_bitnet_cpp_by_its_wrapped_lanes_only() {
    for case in I2sCase::all().iter().filter(|case| case.overflows()) {
        let (rows, cols) = (case.layout.rows(), case.layout.cols());
        let mut codes = vec![0; rows * cols];
        unpack(&case.weights(), &mut codes).unwrap();
        let mut exact = Vec::new();
        for (q, sum) in case.x_q8.chunks(cols).zip(&case.x_sum) {
            for codes in codes.chunks(cols) {
                let wrapped = wrapping_dot(codes, q);
                assert_eq!(wrapped, case.dot[exact.len()], "{}: output {}", case.name, exact.len());
                let dot: i64 = codes.iter().zip(q).map(|(&code, &q)| i64::from(code) * i64::from(q)).sum();
                exact.push((dot as i32, wrapped - sum));
            }
        }
        let differing = exact.iter().filter(|(exact, wrapped)| exact != wrapped).count();
        assert!(differing > 0, "{}: nothing wraps", case.name);
        let exact: Vec<i32> = exact.into_iter().map(|(exact, _)| exact).collect();
        for backend in subjects() {
            let what = format!("{} {}", backend.name(), case.name);
            let mut matmul = prepare(&*backend, case.weights(), case.n());
            assert_eq!(products(&mut *matmul, rows, case.n(), &case.x_q8, &what), exact, "{what}");
            let y = linear_bits(&mut *matmul, rows, case.n(), &case.x, &what);
            for (i, &dot) in exact.iter().enumerate() {
                let expected = dot as f32 / case.x_scale[i / rows] * case.weights().scale();
                assert_eq!(y[i], expected.to_bits(), "{what}: output {i}");
            }
        }
    }
}

#[test]
fn tl2_outputs_are_those_of_bitnet_cpp() {
    let names = golden_names("tl2_", ".npz");
    assert_eq!(names.len(), 2);
    for name in names {
        let tile = Tile { bm: number(&name, "bm"), bk: number(&name, "bk"), by: 8 };
        let layout = Layout::tl2(number(&name, "m"), number(&name, "k"), tile).unwrap();
        let mut file = Npz::golden(&name);
        let (bytes, x, y): (Vec<u8>, Vec<f32>, Vec<f32>) =
            (file.data("packed"), file.data("x"), file.data("y"));
        for backend in subjects().iter().filter(|backend| prepares(&***backend, &layout)) {
            let what = format!("{} {name}", backend.name());
            let weights = Weights::new(layout, &bytes).unwrap();
            let mut matmul = prepare(&**backend, weights, 1);
            assert_eq!(linear_bits(&mut *matmul, layout.rows(), 1, &x, &what), bits(&y), "{what}");
        }
    }
}

/// No ARM machine wrote outputs for TL1; its golden codes under packing of ours, multiplied, follow from integers.
#[test]
fn tl1_products_follow_from_the_golden_codes() {
    let names = golden_names("tl1_", ".npz");
    assert_eq!(names.len(), 2);
    for name in names {
        let tile = Tile { bm: number(&name, "bm"), bk: number(&name, "bk"), by: 256 / number(&name, "bmm") };
        let layout = Layout::tl1(number(&name, "m"), number(&name, "k"), tile).unwrap();
        let mut file = Npz::golden(&name);
        let codes: Vec<i8> = file.data("q");
        let mut bytes = packed(&layout, &codes, 0.5);
        let golden: Vec<u8> = file.data("packed");
        bytes[..golden.len()].copy_from_slice(&golden);
        let q: Vec<i8> = (0..layout.cols()).map(|column| (column * 37 % 251) as u8 as i8).collect();
        let dots: Vec<i32> = codes
            .chunks(layout.cols())
            .map(|codes| codes.iter().zip(&q).map(|(&code, &q)| i32::from(code) * i32::from(q)).sum())
            .collect();
        for backend in subjects().iter().filter(|backend| prepares(&***backend, &layout)) {
            let what = format!("{} {name}", backend.name());
            let weights = Weights::new(layout, &bytes).unwrap();
            let mut matmul = prepare(&**backend, weights, 1);
            assert_eq!(products(&mut *matmul, layout.rows(), 1, &q, &what), dots, "{what}");
        }
    }
}
