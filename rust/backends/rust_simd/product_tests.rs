//! What the tests of integer products share: the oracle, which unpacks and multiplies by plain loops, fences around outputs,
//! batches, extremes and damage.

#[path = "../../../tests/support/npz.rs"]
#[allow(dead_code, reason = "these tests need a part of it")]
mod npz;

use std::ops::Range;

use super::Product;
use crate::bitnet::formats::{FormatError, Layout, Weights, pack, unpack};
use crate::rng::Rng;
use crate::team::Outputs;

pub(super) use npz::{Npz, golden_names};

/// The number behind the letters `key` in the name of a golden file.
pub(super) fn number(name: &str, key: &str) -> usize {
    let mut parts = name.trim_end_matches(".npz").split('_');
    parts.find_map(|part| part.strip_prefix(key)?.parse().ok()).expect(key)
}

/// Checks and prepares all rows of the format under test for so many activation rows.
pub(super) type Prepare = for<'a> fn(Weights<'a>, usize) -> Result<Box<dyn Product + 'a>, FormatError>;

pub(super) fn random_codes(layout: &Layout, rng: &mut Rng) -> Vec<i8> {
    (0..layout.n_weights()).map(|_| rng.ternary()).collect()
}

pub(super) fn random_activations(count: usize, rng: &mut Rng) -> Vec<i8> {
    (0..count).map(|_| rng.next_u64() as i8).collect()
}

/// The oracle: codes as `unpack` reads them, multiplied by plain loops.
fn products(weights: &Weights<'_>, q: &[i8]) -> Vec<i32> {
    let mut codes = vec![0; weights.layout().n_weights()];
    unpack(weights, &mut codes).unwrap();
    let dot = |q: &[i8], w: &[i8]| q.iter().zip(w).map(|(&q, &w)| i32::from(q) * i32::from(w)).sum::<i32>();
    let cols = weights.layout().cols();
    q.chunks_exact(cols).flat_map(|q| codes.chunks_exact(cols).map(move |w| dot(q, w))).collect()
}

/// Packs `codes`, at every call to another misalignment, and checks the products with each `q` `[n, cols]`,
/// one after the other on the same prepared weights. Nothing but `out` may be written.
pub(super) fn check(prepare: Prepare, layout: &Layout, codes: &[i8], batches: &[Vec<i8>], misaligned: usize) {
    let mut bytes = vec![0xa5; misaligned + layout.packed_bytes()];
    pack(layout, codes, 0.5, &mut bytes[misaligned..]).unwrap();
    check_bytes(prepare, layout, &bytes[misaligned..], batches);
}

/// [`check`] for bytes that are packed already.
pub(super) fn check_bytes(prepare: Prepare, layout: &Layout, bytes: &[u8], batches: &[Vec<i8>]) {
    const CANARY: i32 = 0x5ca1_ab1e;
    let weights = Weights::new(*layout, bytes).unwrap();
    let rows_of = |q: &Vec<i8>| q.len() / layout.cols();
    let n_max = batches.iter().map(rows_of).max().unwrap();
    let mut product = prepare(weights, n_max).unwrap();
    for q in batches {
        let n = rows_of(q);
        let outputs = n * layout.rows();
        let mut fenced = vec![CANARY; outputs + 64];
        product.run(q, n, &mut Outputs::whole(&mut fenced[32..32 + outputs], layout.rows()));
        assert_eq!(fenced[32..32 + outputs], products(&weights, q), "{layout:?}, n = {n}");
        assert!(
            fenced[..32].iter().chain(&fenced[32 + outputs..]).all(|&c| c == CANARY),
            "{layout:?}: fence"
        );
    }
}

/// A random batch of every size.
pub(super) fn batches(layout: &Layout, sizes: &[usize], rng: &mut Rng) -> Vec<Vec<i8>> {
    sizes.iter().map(|n| random_activations(n * layout.cols(), rng)).collect()
}

/// All codes equal, all activations equal: the largest sums of either sign.
pub(super) fn check_extremes(prepare: Prepare, layout: &Layout) {
    for code in [-1, 0, 1] {
        let codes = vec![code; layout.n_weights()];
        for q in [-128, -127, -1, 1, 127] {
            let batches = [vec![q; layout.cols()], vec![q; 4 * layout.cols()], vec![q; 5 * layout.cols()]];
            check(prepare, layout, &codes, &batches, 0);
        }
    }
    // The largest products of one sign although codes and activations alternate.
    let codes: Vec<i8> = (0..layout.n_weights()).map(|i| 1 - 2 * (i % layout.cols() % 2) as i8).collect();
    let q: Vec<i8> = (0..layout.cols()).map(|i| if i % 2 == 0 { 127 } else { -128 }).collect();
    check(prepare, layout, &codes, &[q.clone(), q.repeat(33)], 0);
}

/// The largest nibble and every larger one, in either half of the first, a middle and the last byte of `bytes`.
pub(super) fn check_invalid(prepare: Prepare, layout: &Layout, region: Range<usize>, largest: u8) {
    let mut bytes = vec![0; layout.packed_bytes()];
    pack(layout, &vec![0; layout.n_weights()], 0.5, &mut bytes).unwrap();
    for offset in [region.start, region.start + region.len() / 2, region.end - 1] {
        for nibble in 0..16_u8 {
            for byte in [nibble << 4 | bytes[offset] & 15, bytes[offset] & 0xf0 | nibble] {
                let mut damaged = bytes.clone();
                damaged[offset] = byte;
                let weights = Weights::new(*layout, &damaged).unwrap();
                let error = prepare(weights, 1).err();
                let reference = unpack(&weights, &mut vec![0; layout.n_weights()]).err();
                assert_eq!(error, reference, "{layout:?}: byte {offset} = {byte:#x}");
                assert_eq!(error.is_some(), nibble > largest, "{layout:?}: byte {offset} = {byte:#x}");
            }
        }
    }
}
