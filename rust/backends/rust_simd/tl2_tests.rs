//! What the products of TL2 must keep on every instruction set, one way of preparing them after the other.

use super::product_tests::{
    Npz, Prepare, batches, check, check_bytes, check_extremes, check_invalid, golden_names, number,
    random_codes,
};
use crate::bitnet::formats::{Layout, Tile, Weights, pack};
use crate::rng::Rng;
use crate::team::Outputs;

fn layout(rows: usize, cols: usize, bm: usize, bk: usize) -> Layout {
    Layout::tl2(rows, cols, Tile { bm, bk, by: 8 }).unwrap()
}

/// Tiles of one and of several row blocks, and of row blocks in twos; k-blocks of 1, 4, 8, 9, 10, 11 and 21 units; no
/// pairs, no triples, and pairs up to and beyond the 14 units of one panel (more than 256 columns of them are not legal).
const SHAPES: [(usize, usize, usize, usize); 18] = [
    (32, 256, 32, 768),
    (32, 256, 32, 192),
    (32, 264, 32, 24),
    (32, 288, 32, 96),
    (32, 288, 32, 288),
    (64, 480, 32, 240),
    (64, 528, 64, 264),
    (64, 296, 32, 264),
    (96, 504, 32, 504),
    (96, 728, 32, 504),
    (32, 760, 32, 504),
    (128, 464, 64, 216),
    (320, 320, 160, 96),
    (256, 512, 128, 96),
    (64, 752, 32, 240),
    (64, 288, 64, 96),
    (128, 480, 64, 240),
    (256, 544, 128, 96),
];

pub(super) fn every_shape_and_batch_is_exact(prepares: &[Prepare]) {
    let mut rng = Rng::for_part(1, "tl2 shapes");
    let sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 33];
    for (i, (rows, cols, bm, bk)) in SHAPES.into_iter().enumerate() {
        let layout = layout(rows, cols, bm, bk);
        let codes = random_codes(&layout, &mut rng);
        let batches = batches(&layout, &sizes, &mut rng);
        for &prepare in prepares {
            check(prepare, &layout, &codes, &batches, i);
        }
    }
}

pub(super) fn extremes_are_exact(prepares: &[Prepare]) {
    for (rows, cols, bm, bk) in
        [(32, 288, 32, 96), (32, 760, 32, 504), (32, 720, 32, 720), (32, 256, 32, 768)]
    {
        for &prepare in prepares {
            check_extremes(prepare, &layout(rows, cols, bm, bk));
            check_extremes(prepare, &layout(2 * rows, cols, 2 * bm, bk));
        }
    }
}

/// The packed bytes and activations of the real program give its outputs to the bit.
pub(super) fn products_are_those_of_bitnet_cpp(prepares: &[Prepare]) {
    let names = golden_names("tl2_", ".npz");
    assert_eq!(names.len(), 2);
    for name in names {
        let layout = layout(number(&name, "m"), number(&name, "k"), number(&name, "bm"), number(&name, "bk"));
        let mut file = Npz::golden(&name);
        let mut bytes: Vec<u8> = file.data("packed");
        bytes.resize(layout.packed_bytes(), 0);
        let (codes, q): (Vec<i8>, Vec<i8>) = (file.data("q"), file.data("x_q"));
        let (y, lut_scale): (Vec<f32>, f32) = (file.data("y"), file.scalar("lut_scale"));
        let weights = Weights::new(layout, &bytes).unwrap();
        for &prepare in prepares {
            let mut out = vec![0; layout.rows()];
            prepare(weights, 1).unwrap().run(&q, 1, &mut Outputs::whole(&mut out, layout.rows()));
            for (row, codes) in codes.chunks_exact(layout.cols()).enumerate() {
                let dot: i32 = codes.iter().zip(&q).map(|(&w, &q)| i32::from(w) * i32::from(q)).sum();
                assert_eq!(out[row], dot, "{name}: row {row}");
                assert_eq!(dot as f32 / lut_scale * weights.scale(), y[row], "{name}: row {row}");
            }
            // More rows than are looked up on x86, and at once on NEON.
            check_bytes(prepare, &layout, &bytes, &[q.repeat(9)]);
        }
    }
}

pub(super) fn signs_of_zeros_and_padding_mean_nothing(prepares: &[Prepare]) {
    let layout = layout(64, 544, 32, 96);
    let mut rng = Rng::for_part(1, "tl2 signs");
    let mut bytes = vec![0; layout.packed_bytes()];
    pack(&layout, &vec![0; layout.n_weights()], 0.5, &mut bytes).unwrap();
    let three = layout.three_cols() * layout.rows();
    bytes[three / 6..three / 6 + three / 24].fill_with(|| rng.next_u64() as u8);
    let padding = layout.code_bytes()..layout.scale_offset();
    bytes[padding].fill(0xff);
    for &prepare in prepares {
        check_bytes(prepare, &layout, &bytes, &batches(&layout, &[1, 4, 5, 9], &mut rng));
    }
}

pub(super) fn codes_that_no_packer_makes_are_refused(prepares: &[Prepare]) {
    let layout = layout(64, 544, 32, 96);
    let three = layout.three_cols() * layout.rows();
    for &prepare in prepares {
        check_invalid(prepare, &layout, 0..three / 6, 13);
        check_invalid(prepare, &layout, three / 6 + three / 24..layout.code_bytes(), 8);
    }
}
