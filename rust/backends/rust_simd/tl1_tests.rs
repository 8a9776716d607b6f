//! What the products of TL1 must keep on every instruction set, one way of preparing them after the other.

use super::product_tests::{
    Npz, Prepare, batches, check, check_extremes, check_invalid, golden_names, number, random_activations,
    random_codes,
};
use crate::bitnet::formats::{Layout, Tile, Weights};
use crate::rng::Rng;
use crate::team::Outputs;

fn layout(rows: usize, cols: usize, bm: usize, bk: usize, by: usize) -> Layout {
    Layout::tl1(rows, cols, Tile { bm, bk, by }).unwrap()
}

/// Both inner blocks; k-blocks of 1, 3, 4, 5 and more steps, up to and beyond the 60 of one run and the 64 quads
/// of one panel; columns that are no multiple of 16.
const SHAPES: [(usize, usize, usize, usize, usize); 16] = [
    (64, 4, 64, 4, 4),
    (32, 8, 32, 8, 8),
    (64, 20, 64, 20, 4),
    (32, 24, 32, 24, 8),
    (64, 12, 64, 4, 4),
    (32, 40, 32, 8, 8),
    (128, 128, 128, 64, 4),
    (128, 128, 64, 32, 8),
    (64, 240, 64, 240, 4),
    (64, 244, 64, 244, 4),
    (64, 260, 64, 260, 4),
    (32, 480, 32, 480, 8),
    (32, 488, 32, 488, 8),
    (32, 264, 32, 24, 8),
    (192, 512, 64, 128, 4),
    (192, 1024, 96, 512, 8),
];

pub(super) fn every_shape_and_batch_is_exact(prepares: &[Prepare]) {
    let mut rng = Rng::for_part(1, "tl1 shapes");
    let sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 33];
    for (i, (rows, cols, bm, bk, by)) in SHAPES.into_iter().enumerate() {
        let layout = layout(rows, cols, bm, bk, by);
        let codes = random_codes(&layout, &mut rng);
        let batches = batches(&layout, &sizes, &mut rng);
        for &prepare in prepares {
            check(prepare, &layout, &codes, &batches, i);
        }
    }
}

pub(super) fn extremes_are_exact(prepares: &[Prepare]) {
    for (rows, cols, bm, bk, by) in [(64, 512, 64, 512, 4), (32, 1024, 32, 1024, 8), (64, 512, 64, 4, 4)] {
        for &prepare in prepares {
            check_extremes(prepare, &layout(rows, cols, bm, bk, by));
        }
    }
}

/// The packed bytes of the real program, read as the codes they were made from.
pub(super) fn packed_bytes_of_bitnet_cpp_are_understood(prepares: &[Prepare]) {
    let mut rng = Rng::for_part(1, "tl1 golden");
    let names = golden_names("tl1_", ".npz");
    assert_eq!(names.len(), 2);
    for name in names {
        let (rows, cols, by) = (number(&name, "m"), number(&name, "k"), 256 / number(&name, "bmm"));
        let layout = layout(rows, cols, number(&name, "bm"), number(&name, "bk"), by);
        let mut file = Npz::golden(&name);
        let mut bytes: Vec<u8> = file.data("packed");
        bytes.resize(layout.packed_bytes(), 0);
        let codes: Vec<i8> = file.data("q");
        for n in [1, 3, 8, 9] {
            let q = random_activations(n * cols, &mut rng);
            for prepare in prepares {
                let mut out = vec![0; n * rows];
                let weights = Weights::new(layout, &bytes).unwrap();
                prepare(weights, n).unwrap().run(&q, n, &mut Outputs::whole(&mut out, rows));
                for (i, out) in out.into_iter().enumerate() {
                    let (w, q) = (&codes[i % rows * cols..][..cols], &q[i / rows * cols..][..cols]);
                    let dot: i32 = w.iter().zip(q).map(|(&w, &q)| i32::from(w) * i32::from(q)).sum();
                    assert_eq!(out, dot, "{name}: output {i} of n = {n}");
                }
            }
        }
    }
}

pub(super) fn codes_that_no_packer_makes_are_refused(prepares: &[Prepare]) {
    let layout = layout(128, 128, 64, 64, 4);
    for &prepare in prepares {
        check_invalid(prepare, &layout, 0..layout.code_bytes(), 8);
    }
}
