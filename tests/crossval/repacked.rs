//! Backends that repack weights, over shapes drawn at random: tiles and steps that are whole or not, streams that are even
//! or not, activations with or without a panel.

use super::support::{Misaligned, ORACLE, linear_bits, packed, prepare, prepare_threads, products, subjects};
use bitnet_perfgate::bitnet::formats::{Layout, Weights};
use bitnet_perfgate::rng::Rng;
use proptest::prelude::*;

/// Extremes more often than their share.
fn activation(rng: &mut Rng) -> i8 {
    match rng.below(8) {
        0 => -128,
        1 => 127,
        2 => -127,
        _ => rng.next_u64() as i8,
    }
}

/// Batches 1 to 17 and 33, most of them drawn, falling: scratch left by a larger batch would show.
const BATCHES: [usize; 18] = [33, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1];

proptest! {
    // Shrinking a failure is not worth minutes: the message has the shape.
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_over_drawn_shapes_equal_the_oracle(
        rows in prop_oneof![1_usize..=70, 240_usize..=460, Just(127), Just(257), Just(331)],
        blocks in 1_usize..=23,
        threads in 1_usize..=3,
        codes in prop_oneof![Just(None), Just(Some(-1_i8)), Just(Some(0)), Just(Some(1))],
        seed in any::<u64>(),
    ) {
        let (mut rng, cols) = (Rng::new(seed), 128 * blocks);
        let layout = Layout::i2s(rows, cols).unwrap();
        let codes: Vec<i8> = (0..rows * cols).map(|_| codes.unwrap_or_else(|| rng.ternary())).collect();
        let bytes = Misaligned::new(&packed(&layout, &codes, 0.037));
        let weights = Weights::new(layout, bytes.get()).unwrap();
        let q: Vec<i8> = (0..BATCHES[0] * cols).map(|_| activation(&mut rng)).collect();
        let x: Vec<f32> = (0..BATCHES[0] * cols).map(|_| rng.normal() as f32).collect();
        let mut oracle = prepare(&ORACLE, weights, BATCHES[0]);
        let dots = products(&mut *oracle, rows, BATCHES[0], &q, "oracle");
        let outputs = linear_bits(&mut *oracle, rows, BATCHES[0], &x, "oracle");
        for backend in subjects().iter().filter(|backend| backend.repacks().is_some()) {
            let mut matmul = prepare_threads(&**backend, weights, BATCHES[0], threads).expect("any number of threads");
            for n in BATCHES {
                let what = format!("{} {rows}x{cols} n={n} on {threads} threads", backend.name());
                let q = Misaligned::new(&q[..n * cols]);
                let ours = products(&mut *matmul, rows, n, q.get(), &what);
                prop_assert!(ours == dots[..n * rows], "{what}: products differ");
                let ours = linear_bits(&mut *matmul, rows, n, &x[..n * cols], &what);
                prop_assert!(ours == outputs[..n * rows], "{what}: outputs differ");
            }
            backend.quiesce();
        }
    }
}

/// The copy that preparing makes is counted: 2 bits a weight, or 1.6.
#[test]
fn the_repacked_copy_is_counted() {
    let layout = Layout::i2s(640, 2560).unwrap();
    let bytes = packed(&layout, &vec![1; layout.n_weights()], 1.0);
    for backend in subjects() {
        let Some(order) = backend.repacks() else { continue };
        let weights = Weights::new(layout, &bytes).unwrap();
        let said = prepare(&*backend, weights, 1).prepared_bytes().expect("it says");
        let copy = 640 * 2560 / order.codes_per_byte();
        assert_eq!(order.packed_bytes(640, 2560), copy);
        assert!((copy..copy + (64 << 10)).contains(&said), "{}: {said}, {copy}", backend.name());
    }
}
