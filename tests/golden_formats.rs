//! Formats, quantisers and the arithmetic of a linear layer against the real bitnet.cpp: every byte it wrote for
//! tests/golden, both ways, and every number it computed from them.

#[path = "support/npz.rs"]
mod npz;

use bitnet_perfgate::bitnet::formats::{self, Layout, Tile, Weights, tl2};
use bitnet_perfgate::bitnet::quant::{absmax, absmean};
use npz::{Npz, golden_names};

/// The number behind the letter(s) `key` in a name like `tl2_m128_k256_bm128_bk96.npz`.
fn number(name: &str, key: &str) -> usize {
    name.trim_end_matches(".npz")
        .split('_')
        .find_map(|part| part.strip_prefix(key)?.parse().ok())
        .unwrap_or_else(|| panic!("{name}: no {key}"))
}

fn pack(layout: &Layout, codes: &[i8], scale: f32) -> Vec<u8> {
    let mut bytes = vec![0xa5; layout.packed_bytes()];
    formats::pack(layout, codes, scale, &mut bytes).unwrap();
    bytes
}

fn unpack(layout: Layout, bytes: &[u8]) -> Vec<i8> {
    let mut codes = vec![99; layout.n_weights()];
    formats::unpack(&Weights::new(layout, bytes).unwrap(), &mut codes).unwrap();
    codes
}

#[test]
fn i2s_bytes_are_those_of_bitnet_cpp() {
    let names = golden_names("i2s_", ".npz");
    assert_eq!(names.len(), 11);
    for name in names {
        let (rows, cols) = (number(&name, "m"), number(&name, "k"));
        let layout = Layout::i2s(rows, cols).unwrap();
        let mut file = Npz::golden(&name);
        let golden: Vec<u8> = file.data("packed");
        assert_eq!(golden.len(), layout.scale_offset() + 4, "{name}");
        let mut whole = golden.clone();
        whole.resize(layout.packed_bytes(), 0);
        let codes = unpack(layout, &whole);
        let scale = file.scalar("w_scale");
        assert_eq!(pack(&layout, &codes, scale)[..golden.len()], golden, "{name}");
        if file.contains("w") {
            let w: Vec<f32> = file.data("w");
            let mut from_floats = vec![99; w.len()];
            assert_eq!(absmean::max_abs(&w, &mut from_floats), Ok(scale), "{name}");
            assert_eq!(codes, from_floats, "{name}");
        }
    }
}

/// What one golden I2_S file holds, as far as products need it.
struct I2sCase {
    name: String,
    cols: usize,
    codes: Vec<i8>,
    w_scale: f32,
    x: Vec<f32>,
    q: Vec<i8>,
    x_scale: Vec<f32>,
    sum: Vec<i32>,
    dot: Vec<i32>,
    y: Vec<f32>,
}

fn i2s_cases() -> Vec<I2sCase> {
    let read = |name: String| {
        let layout = Layout::i2s(number(&name, "m"), number(&name, "k")).unwrap();
        let mut file = Npz::golden(&name);
        let mut packed: Vec<u8> = file.data("packed");
        packed.resize(layout.packed_bytes(), 0);
        I2sCase {
            cols: layout.cols(),
            codes: unpack(layout, &packed),
            w_scale: file.scalar("w_scale"),
            x: file.data("x"),
            q: file.data("x_q8"),
            x_scale: file.data("x_scale"),
            sum: file.data("x_sum"),
            dot: file.data("dot"),
            y: file.data("y"),
            name,
        }
    };
    golden_names("i2s_", ".npz").into_iter().map(read).collect()
}

/// The exact product of one weight row and one activation row, codes -1, 0, +1.
fn exact_dot(codes: &[i8], q: &[i8]) -> i32 {
    codes.iter().zip(q).map(|(&w, &q)| i32::from(w) * i32::from(q)).sum()
}

/// The same in offset form (codes 0, 1, 2) as bitnet.cpp's AVX2 kernel computes it (docs/FORMATS.md): 16 int16
/// lanes; lane l adds columns 2l and 2l+1 of the four groups of every block, modulo 2^16, and is widened to
/// int32 after every 32 blocks. Returns the product and how often a lane left the range of int16.
fn lane_model(codes: &[i8], q: &[i8]) -> (i32, usize) {
    let (mut dot, mut wraps) = (0, 0);
    for (codes, q) in codes.chunks(32 * 128).zip(q.chunks(32 * 128)) {
        let mut lanes = [0_i16; 16];
        for (pair, (codes, q)) in codes.chunks_exact(2).zip(q.chunks_exact(2)).enumerate() {
            let product: i16 = codes.iter().zip(q).map(|(&w, &q)| (i16::from(w) + 1) * i16::from(q)).sum();
            let (sum, wrapped) = lanes[pair % 16].overflowing_add(product);
            lanes[pair % 16] = sum;
            wraps += usize::from(wrapped);
        }
        dot += lanes.iter().map(|&lane| i32::from(lane)).sum::<i32>();
    }
    (dot, wraps)
}

#[test]
fn activations_are_those_of_bitnet_cpp() {
    for case in i2s_cases() {
        for (row, x) in case.x.chunks_exact(case.cols).enumerate() {
            let mut q = vec![99; case.cols];
            let activation = absmax::quantize_row(x, &mut q).unwrap();
            assert_eq!(q, case.q[row * case.cols..][..case.cols], "{} row {row}", case.name);
            assert_eq!(activation.scale.to_bits(), case.x_scale[row].to_bits(), "{} row {row}", case.name);
            assert_eq!(activation.sum, case.sum[row], "{} row {row}", case.name);
        }
    }
}

/// The exact product equals bitnet.cpp's wherever no int16 lane of its kernel wraps; where lanes wrap, its
/// value is that of the lane model, so the wrap is the whole difference. Only the two files made for it wrap.
#[test]
fn products_are_those_of_bitnet_cpp_up_to_its_int16_lanes() {
    for case in i2s_cases() {
        let rows = case.codes.len() / case.cols;
        let (mut exact_rows, mut wrapped_rows) = (0, 0);
        for (n, q) in case.q.chunks_exact(case.cols).enumerate() {
            for (row, codes) in case.codes.chunks_exact(case.cols).enumerate() {
                let at = format!("{} activation {n} row {row}", case.name);
                let golden = case.dot[n * rows + row];
                let exact = exact_dot(codes, q) + case.sum[n];
                let (modelled, wraps) = lane_model(codes, q);
                assert_eq!(modelled, golden, "{at}");
                assert_eq!((exact - golden) % 65536, 0, "{at}");
                if wraps == 0 {
                    assert_eq!(exact, golden, "{at}");
                    exact_rows += 1;
                } else if exact != golden {
                    wrapped_rows += 1;
                }
            }
        }
        assert_eq!(wrapped_rows > 0, case.name.starts_with("i2s_overflow"), "{}", case.name);
        assert!(exact_rows > 0 || wrapped_rows > 0, "{}: nothing was compared", case.name);
    }
}

/// bitnet.cpp's formula from its own product, and ours from the exact one: the same bits.
#[test]
fn outputs_are_those_of_bitnet_cpp() {
    for case in i2s_cases() {
        let rows = case.codes.len() / case.cols;
        for (n, q) in case.q.chunks_exact(case.cols).enumerate() {
            for (row, codes) in case.codes.chunks_exact(case.cols).enumerate() {
                let at = format!("{} activation {n} row {row}", case.name);
                let (golden_dot, golden) = (case.dot[n * rows + row], case.y[n * rows + row]);
                let theirs = (golden_dot as f32 - case.sum[n] as f32) / case.x_scale[n] * case.w_scale;
                assert_eq!(theirs.to_bits(), golden.to_bits(), "{at}");
                let dot = exact_dot(codes, q);
                if dot + case.sum[n] == golden_dot {
                    let ours = dot as f32 / case.x_scale[n] * case.w_scale;
                    assert_eq!(ours.to_bits(), golden.to_bits(), "{at}");
                }
            }
        }
    }
}

#[test]
fn tl1_bytes_are_those_of_bitnet_cpp() {
    let names = golden_names("tl1_", ".npz");
    assert_eq!(names.len(), 2);
    for name in names {
        let tile = Tile { bm: number(&name, "bm"), bk: number(&name, "bk"), by: 256 / number(&name, "bmm") };
        let layout = Layout::tl1(number(&name, "m"), number(&name, "k"), tile).unwrap();
        let mut file = Npz::golden(&name);
        let codes: Vec<i8> = file.data("q");
        let golden: Vec<u8> = file.data("packed");
        let ours = pack(&layout, &codes, 0.5);
        assert_eq!(ours[..layout.code_bytes()], golden, "{name}");
        assert_eq!(unpack(layout, &ours), codes, "{name}");
    }
}

#[test]
fn tl2_bytes_are_those_of_bitnet_cpp() {
    let names = golden_names("tl2_", ".npz");
    assert_eq!(names.len(), 2);
    for name in names {
        let tile = Tile { bm: number(&name, "bm"), bk: number(&name, "bk"), by: 8 };
        let layout = Layout::tl2(number(&name, "m"), number(&name, "k"), tile).unwrap();
        let mut file = Npz::golden(&name);
        let codes: Vec<i8> = file.data("q");
        let golden: Vec<u8> = file.data("packed");
        let scale = file.scalar("w_scale");
        let ours = pack(&layout, &codes, scale);
        let fixed = layout.scale_offset() + 4;
        assert_eq!(ours.len(), golden.len(), "{name}");
        assert_eq!(ours[..fixed], golden[..fixed], "{name}");
        assert_eq!(unpack(layout, &golden), codes, "{name}");
    }
}

/// Activation codes, scale, both look-up tables byte for byte, and the outputs bit for bit.
#[test]
fn tl2_tables_and_outputs_are_those_of_bitnet_cpp() {
    for name in golden_names("tl2_", ".npz") {
        let tile = Tile { bm: number(&name, "bm"), bk: number(&name, "bk"), by: 8 };
        let layout = Layout::tl2(number(&name, "m"), number(&name, "k"), tile).unwrap();
        let mut file = Npz::golden(&name);
        let x: Vec<f32> = file.data("x");
        let mut q = vec![99; x.len()];
        let activation = absmax::quantize_row_tl(&x, &mut q).unwrap();
        assert_eq!(q, file.data::<i8>("x_q"), "{name}");
        assert_eq!(activation.scale.to_bits(), file.scalar::<f32>("lut_scale").to_bits(), "{name}");
        let (three, two) = q.split_at(layout.three_cols());
        assert_eq!(tl2::lut3(three).unwrap(), file.data::<u8>("lut3"), "{name}");
        assert_eq!(tl2::lut2(two).unwrap(), file.data::<u8>("lut2"), "{name}");
        let w_scale: f32 = file.scalar("w_scale");
        let codes: Vec<i8> = file.data("q");
        let golden: Vec<f32> = file.data("y");
        assert_eq!(golden.len(), layout.rows(), "{name}");
        for (row, codes) in codes.chunks_exact(layout.cols()).enumerate() {
            let ours = exact_dot(codes, &q) as f32 / activation.scale * w_scale;
            assert_eq!(ours.to_bits(), golden[row].to_bits(), "{name} row {row}");
        }
    }
}
