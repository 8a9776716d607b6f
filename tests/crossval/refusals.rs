//! What a backend must refuse, with which error, and that it then wrote nothing.

use bitnet_perfgate::backends::{Backend, BackendError, WeightRule};
use bitnet_perfgate::bitnet::formats::{FormatError, Layout, Tile, Weights};

use super::support::{Fenced, ORACLE, packed, prepare, prepares, subjects};

const BAD: [f32; 4] = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

fn layouts() -> [Layout; 3] {
    [
        Layout::i2s(5, 384).unwrap(),
        Layout::tl1(64, 128, Tile { bm: 64, bk: 64, by: 4 }).unwrap(),
        Layout::tl2(32, 256, Tile { bm: 32, bk: 96, by: 8 }).unwrap(),
    ]
}

/// First, middle and last index, and those around vectors of 8 and 32.
fn places(n: usize) -> impl Iterator<Item = usize> {
    [0, 7, 8, 31, 32, 33, n / 2, n - 2, n - 1].into_iter()
}

fn assert_non_finite<T: std::fmt::Debug>(result: Result<T, BackendError>, at: usize, bad: f32, what: &str) {
    match result {
        Err(BackendError::NonFinite { index, value }) => {
            assert_eq!((index, value.to_bits()), (at, bad.to_bits()), "{what}");
        }
        other => panic!("{what}: {other:?}, expected NonFinite at {at}"),
    }
}

fn assert_length<T: std::fmt::Debug>(result: Result<T, BackendError>, name: &str, actual: usize, what: &str) {
    match result {
        Err(BackendError::Length { what: buffer, expected, actual: found }) => {
            assert_eq!((buffer, found), (name, actual), "{what}");
            assert_ne!(expected, actual, "{what}");
        }
        other => panic!("{what}: {other:?}, expected a wrong length of {name}"),
    }
}

#[test]
fn bad_activations_are_named_and_nothing_is_written() {
    let (cols, rows) = (75, 3);
    for backend in subjects() {
        for at in places(rows * cols) {
            for bad in BAD {
                let mut x = vec![1.0; rows * cols];
                (x[rows * cols - 1], x[at]) = (f32::NAN, bad);
                let (mut q, mut scale, mut sum) =
                    (Fenced::new(rows * cols, 0x5a), Fenced::new(rows, -7.25), Fenced::new(rows, 99));
                let answer = backend.quantize_activations(&x, cols, q.inside(), scale.inside(), sum.inside());
                assert_non_finite(answer, at, x[at], backend.name());
                q.assert_untouched(backend.name());
                scale.assert_untouched(backend.name());
                sum.assert_untouched(backend.name());
            }
        }
    }
}

#[test]
fn bad_inputs_of_a_linear_layer_are_named_and_nothing_is_written() {
    for backend in subjects() {
        for layout in layouts().into_iter().filter(|layout| prepares(&*backend, layout)) {
            let bytes = packed(&layout, &vec![1; layout.n_weights()], 1.0);
            let mut matmul = prepare(&*backend, Weights::new(layout, &bytes).unwrap(), 7);
            for n in [1, 7] {
                for at in places(n * layout.cols()) {
                    for bad in BAD {
                        let mut x = vec![-0.25; n * layout.cols()];
                        x[at] = bad;
                        let mut y = Fenced::new(n * layout.rows(), -7.25);
                        let answer = matmul.linear_f32_f32(&x, y.inside());
                        assert_non_finite(answer, at, bad, backend.name());
                        y.assert_untouched(backend.name());
                    }
                }
            }
        }
    }
}

#[test]
fn bad_weights_are_named_and_nothing_is_written() {
    for backend in subjects() {
        for layout in layouts() {
            for rule in [WeightRule::AbsMean, WeightRule::MaxAbs] {
                for at in places(layout.n_weights()) {
                    for bad in BAD {
                        let mut src = vec![0.5; layout.n_weights()];
                        src[at] = bad;
                        let mut dst = Fenced::new(layout.packed_bytes(), 0x5a);
                        let answer = backend.quantize_weights(&layout, rule, &src, dst.inside());
                        assert_non_finite(answer, at, bad, backend.name());
                        dst.assert_untouched(backend.name());
                    }
                }
            }
        }
    }
}

/// Lengths around the right one.
fn wrong(n: usize) -> [usize; 4] {
    [0, n - 1, n + 1, 2 * n]
}

#[test]
fn wrong_lengths_of_weights_are_refused() {
    for backend in subjects() {
        for layout in layouts() {
            let (n, size) = (layout.n_weights(), layout.packed_bytes());
            let bytes = packed(&layout, &vec![1; n], 1.0);
            for len in wrong(n) {
                let mut dst = Fenced::new(size, 0x5a);
                let answer =
                    backend.quantize_weights(&layout, WeightRule::MaxAbs, &vec![1.0; len], dst.inside());
                assert_length(answer, "src", len, backend.name());
                dst.assert_untouched(backend.name());
                let mut back = Fenced::new(len, -7.25);
                let weights = Weights::new(layout, &bytes).unwrap();
                assert_length(
                    backend.dequantize_weights(&weights, back.inside()),
                    "dst",
                    len,
                    backend.name(),
                );
                back.assert_untouched(backend.name());
            }
            for len in wrong(size) {
                let mut dst = Fenced::new(len, 0x5a);
                let answer =
                    backend.quantize_weights(&layout, WeightRule::AbsMean, &vec![1.0; n], dst.inside());
                assert_length(answer, "dst", len, backend.name());
                dst.assert_untouched(backend.name());
            }
        }
    }
}

#[test]
fn wrong_lengths_of_activations_are_refused() {
    let (cols, rows) = (40, 3);
    for backend in subjects() {
        let refuse = |x_len: usize, cols: usize, q_len: usize, sum_len: usize| {
            let (mut q, mut scale, mut sum) =
                (Fenced::new(q_len, 0x5a), Fenced::new(rows, -7.25), Fenced::new(sum_len, 99));
            let x = vec![1.0; x_len];
            let answer = backend.quantize_activations(&x, cols, q.inside(), scale.inside(), sum.inside());
            q.assert_untouched(backend.name());
            scale.assert_untouched(backend.name());
            sum.assert_untouched(backend.name());
            answer
        };
        for len in wrong(rows * cols) {
            assert_length(refuse(len, cols, rows * cols, rows), "x", len, backend.name());
            assert_length(refuse(rows * cols, cols, len, rows), "q", len, backend.name());
        }
        for len in wrong(rows) {
            assert_length(refuse(rows * cols, cols, rows * cols, len), "sum", len, backend.name());
        }
        assert!(matches!(refuse(0, 0, 0, rows), Err(BackendError::Unsupported { .. })), "{}", backend.name());
        assert_length(refuse(1, usize::MAX, 1, rows), "x", 1, backend.name());
        assert_eq!(backend.quantize_activations(&[], cols, &mut [], &mut [], &mut []), Ok(()));
    }
}

#[test]
fn wrong_lengths_of_products_are_refused() {
    for backend in subjects() {
        for layout in layouts().into_iter().filter(|layout| prepares(&*backend, layout)) {
            let (rows, cols) = (layout.rows(), layout.cols());
            let bytes = packed(&layout, &vec![1; layout.n_weights()], 1.0);
            let mut matmul = prepare(&*backend, Weights::new(layout, &bytes).unwrap(), 2);
            // One row more than n_max is as wrong as half a row.
            for len in [1, cols - 1, cols + 1, 2 * cols + 1, 3 * cols] {
                let (mut out, mut y) = (Fenced::new(2 * rows, 99), Fenced::new(2 * rows, -7.25));
                assert_length(matmul.matmul_i8_i32(&vec![1; len], out.inside()), "q", len, backend.name());
                assert_length(matmul.linear_f32_f32(&vec![1.0; len], y.inside()), "x", len, backend.name());
                out.assert_untouched(backend.name());
                y.assert_untouched(backend.name());
            }
            for len in wrong(2 * rows) {
                let (mut out, mut y) = (Fenced::new(len, 99), Fenced::new(len, -7.25));
                let answer = matmul.matmul_i8_i32(&vec![1; 2 * cols], out.inside());
                assert_length(answer, "out", len, backend.name());
                let answer = matmul.linear_f32_f32(&vec![1.0; 2 * cols], y.inside());
                assert_length(answer, "y", len, backend.name());
                out.assert_untouched(backend.name());
                y.assert_untouched(backend.name());
            }
            assert_length(matmul.matmul_i8_i32(&[], &mut [9]), "out", 1, backend.name());
            assert_eq!(matmul.matmul_i8_i32(&[], &mut []), Ok(()));
            assert_eq!(matmul.linear_f32_f32(&[], &mut []), Ok(()));
        }
    }
}

#[test]
fn absurd_thread_counts_and_batches_are_refused() {
    for backend in subjects() {
        for layout in layouts().into_iter().filter(|layout| prepares(&*backend, layout)) {
            let bytes = packed(&layout, &vec![1; layout.n_weights()], 1.0);
            let weights = Weights::new(layout, &bytes).unwrap();
            let threads = [0, usize::MAX].into_iter().chain((backend.isa() == "scalar").then_some(2));
            for threads in threads {
                let answer = backend.prepare_matmul(weights, 1, threads).map(|_| ());
                assert!(matches!(answer, Err(BackendError::Unsupported { .. })), "{}", backend.name());
            }
            prepare(&*backend, weights, 0);
            // A backend may need no memory per row; one that does must say so instead of aborting.
            match backend.prepare_matmul(weights, usize::MAX, 1).map(|_| ()) {
                Ok(()) | Err(BackendError::OutOfMemory { .. }) => {}
                Err(other) => panic!("{}: {other}", backend.name()),
            }
        }
    }
}

/// Code 3 in each of the four places of a byte, at the ends and in the middle, and two of them.
#[test]
fn i2s_code_3_is_refused_where_it_stands() {
    let layout = Layout::i2s(5, 384).unwrap();
    let good = packed(&layout, &vec![1; layout.n_weights()], 1.0);
    let n = layout.code_bytes();
    for backend in subjects() {
        for at in [0, 1, 31, 32, 63, n / 2, n - 33, n - 32, n - 1] {
            for group in 0..4 {
                let mut bytes = good.clone();
                bytes[at] |= 3 << (2 * group);
                bytes[n - 1] |= 0xc0;
                let weights = Weights::new(layout, &bytes).unwrap();
                let expected = ORACLE.dequantize_weights(&weights, &mut vec![0.0; layout.n_weights()]);
                let Err(BackendError::Format(FormatError::InvalidCode { offset, .. })) = &expected else {
                    panic!("the oracle answers {expected:?}");
                };
                assert_eq!(*offset, at);
                let prepared = backend.prepare_matmul(weights, 1, 1).map(|_| ());
                assert_eq!(prepared, expected, "{}", backend.name());
                let mut dst = Fenced::new(layout.n_weights(), -7.25);
                assert_eq!(
                    backend.dequantize_weights(&weights, dst.inside()),
                    expected,
                    "{}",
                    backend.name()
                );
                dst.assert_untouched(backend.name());
            }
        }
    }
}

/// Bytes of ones are unused codes of TL1 and of TL2's magnitudes and pairs, but signs like any others of TL2.
#[test]
fn unused_codes_of_tiled_formats_are_refused_where_they_stand() {
    for backend in subjects() {
        for layout in layouts()[1..].iter().filter(|layout| prepares(&*backend, layout)) {
            let good = packed(layout, &vec![1; layout.n_weights()], 1.0);
            let mut refused = 0;
            for at in (0..layout.scale_offset()).step_by(7).chain([layout.code_bytes() - 1]) {
                let mut bytes = good.clone();
                bytes[at] = 0xff;
                let weights = Weights::new(*layout, &bytes).unwrap();
                let expected = ORACLE.prepare_matmul(weights, 1, 1).map(|_| ());
                refused += usize::from(expected.is_err());
                let what = format!("{} {} byte {at}", backend.name(), layout.format());
                assert_eq!(backend.prepare_matmul(weights, 1, 1).map(|_| ()), expected, "{what}");
                let mut dst = Fenced::new(layout.n_weights(), -7.25);
                assert_eq!(backend.dequantize_weights(&weights, dst.inside()), expected, "{what}");
                if expected.is_err() {
                    dst.assert_untouched(&what);
                }
            }
            assert!(refused > 100, "{}: only {refused} damaged bytes were refused", layout.format());
        }
    }
}

/// The 28 bytes behind the scale mean nothing.
#[test]
fn the_tail_is_ignored() {
    for backend in subjects() {
        for layout in layouts() {
            let mut bytes = packed(&layout, &vec![1; layout.n_weights()], 1.0);
            let from = layout.scale_offset() + 4;
            bytes[from..].fill(0xff);
            let weights = Weights::new(layout, &bytes).unwrap();
            let mut dst = vec![0.0; layout.n_weights()];
            assert_eq!(backend.dequantize_weights(&weights, &mut dst), Ok(()), "{}", backend.name());
            assert!(dst.iter().all(|&w| w == 1.0), "{}", backend.name());
            if prepares(&*backend, &layout) {
                prepare(&*backend, weights, 1);
            }
        }
    }
}

/// What repacks I2_S says so when it is given something else, and quantises like the backend that it is made of.
#[test]
fn repacking_backends_refuse_other_formats_by_name() {
    for backend in subjects().iter().filter(|backend| backend.repacks().is_some()) {
        for layout in &layouts()[1..] {
            let bytes = packed(layout, &vec![1; layout.n_weights()], 1.0);
            let answer = backend.prepare_matmul(Weights::new(*layout, &bytes).unwrap(), 1, 1).map(|_| ());
            let what = format!("{}: it repacks i2_s and nothing else", layout.format());
            assert_eq!(answer, Err(BackendError::Unsupported { backend: backend.name().to_owned(), what }));
        }
    }
}
