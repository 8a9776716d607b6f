//! Faults planted in a model, each found at the operation where it sits; and nothing found where there is none.

use super::golden::subjects;
use super::models::{Made, Model, small};
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::inference::divergence::{Divergence, diverge};
use bitnet_perfgate::inference::{
    Engine, EngineError, Graph, NamedTensor, Operation, RopePairs, RunOptions, Transformer,
};

const TOKENS: [u32; 6] = [1, 44, 7, 300, 2, 99];

fn options() -> RunOptions {
    RunOptions { context: 8, batch: 6, outputs: 6, ..RunOptions::default() }
}

/// The model as it is against the model as `spoil` leaves it, in two calls.
fn planted(
    spoil: impl FnOnce(&mut Graph, &mut Vec<NamedTensor<'_>>),
    bytes: impl FnOnce(&mut Model),
) -> Divergence {
    let (whole, mut spoilt) = (small().model(), small().model());
    bytes(&mut spoilt);
    let (graph, tensors) = whole.parts();
    let (mut spoilt_graph, mut spoilt_tensors) = spoilt.parts();
    spoil(&mut spoilt_graph, &mut spoilt_tensors);
    let mut reference = Transformer::new(&RustScalar, &graph, &tensors, &options()).expect("made");
    let mut subject =
        Transformer::new(&RustScalar, &spoilt_graph, &spoilt_tensors, &options()).expect("made");
    diverge(&mut reference, &mut subject, &[&TOKENS[..4], &TOKENS[4..]], 0.0).expect("runs")
}

fn found(divergence: &Divergence) -> (&str, usize) {
    let first = divergence.first.as_ref().expect("a fault was planted");
    assert!(first.reference != first.subject);
    let before = divergence.operations.iter().take_while(|operation| operation.name != first.name);
    // Everything before it is equal in the call where it shows, and so is everything that the fault cannot reach.
    assert!(
        before.filter(|operation| operation.of.layer == 0 && first.of.layer == 1).all(|o| o.differing == 0)
    );
    (&first.name, first.position)
}

/// Exchanges the values of two tensors.
fn exchange(tensors: &mut [NamedTensor<'_>], a: &str, b: &str) {
    for tensor in tensors {
        if tensor.name == a {
            tensor.name = b.to_string();
        } else if tensor.name == b {
            tensor.name = a.to_string();
        }
    }
}

#[test]
fn equal_engines_do_not_part_on_any_backend() {
    let model = small().model();
    let (graph, tensors) = model.parts();
    for backend in subjects() {
        let mut reference = Transformer::new(&RustScalar, &graph, &tensors, &options()).expect("made");
        let mut subject = Transformer::new(backend.as_ref(), &graph, &tensors, &options()).expect("made");
        let divergence = diverge(&mut reference, &mut subject, &[&TOKENS], 0.0).expect("runs");
        assert!(divergence.first.is_none() && divergence.not_shown.is_empty(), "{:?}", divergence.first);
        assert_eq!(divergence.operations.len(), 2 * 22 + 3);
        assert!(divergence.operations.iter().all(|o| o.differing == 0 && o.values > 0 && o.relative == 0.0));
        let logits = divergence.logits;
        assert_eq!((logits.tokens, logits.top1, logits.top5, logits.kl_max), (6, 6, 6, 0.0));
        assert!(reference.tapped("l_out-0.ADD").is_none() && subject.tapped("l_out-0.ADD").is_none());
    }
}

/// One code of one weight of 131072.
#[test]
fn one_wrong_code_is_found_in_its_tensor() {
    for (tensor, expected) in [
        ("blk.1.ffn_up.weight", "ffn_up-1.MUL_MAT"),
        ("blk.0.attn_v.weight", "Vcur-0.MUL_MAT"),
        ("blk.1.attn_output.weight", "attn_o_out-1.MUL_MAT"),
        ("blk.0.ffn_down.weight", "ffn_down-0.MUL_MAT"),
    ] {
        let divergence = planted(
            |_, _| (),
            |model| {
                let byte = &mut model.bytes_mut(tensor)[100];
                // The lowest code of the byte: 0 and 1 go up, 2 goes down.
                *byte = if *byte & 3 == 2 { *byte - 1 } else { *byte + 1 };
            },
        );
        let (name, position) = found(&divergence);
        assert_eq!((name, position), (expected, 0), "{tensor}");
        let operation = divergence.operations.iter().find(|o| o.name == expected).expect("listed");
        // One output row of 6 tokens.
        assert!((1..=6).contains(&operation.differing), "{tensor}: {} values", operation.differing);
        assert!(operation.relative > 0.0 && operation.relative < 0.1, "{tensor}: {}", operation.relative);
    }
}

#[test]
fn wrong_pairs_are_found_at_the_rotation() {
    let divergence = planted(|graph, _| graph.rope = RopePairs::Neighbours, |_| ());
    // Position 0 is not rotated.
    assert_eq!(found(&divergence), ("Qcur-0.ROPE", 1));
}

#[test]
fn a_wrong_epsilon_is_found_at_the_norm() {
    let divergence = planted(|graph, _| graph.norm_eps = 1e-3, |_| ());
    assert_eq!(found(&divergence), ("norm-0.RMS_NORM", 0));
    let flips: u64 = divergence.operations.iter().filter_map(|o| o.codes_flipped).sum();
    assert!(flips > 0, "a norm off by a thousandth flips codes");
    let quantised = divergence.operations.iter().filter(|o| o.codes_flipped.is_some());
    assert_eq!(quantised.count(), 2 * 4, "four linear inputs in each layer");
}

#[test]
fn swapped_gate_and_up_are_found_at_the_gate() {
    let swap = |_: &mut Graph, tensors: &mut Vec<NamedTensor<'_>>| {
        exchange(tensors, "blk.1.ffn_gate.weight", "blk.1.ffn_up.weight");
    };
    let divergence = planted(swap, |_| ());
    assert_eq!(found(&divergence), ("ffn_gate-1.MUL_MAT", 0));
    assert!(divergence.logits.kl_max > 0.0 && divergence.logits.max_abs > 0.0);
}

/// The rows of the two key heads, or of the two value heads, exchanged.
#[test]
fn transposed_kv_heads_are_found_at_their_product() {
    for (tensor, expected) in
        [("blk.0.attn_k.weight", "Kcur-0.MUL_MAT"), ("blk.1.attn_v.weight", "Vcur-1.MUL_MAT")]
    {
        let divergence = planted(
            |_, _| (),
            |model| {
                // 128 rows of 64 bytes each: two heads of 64 rows.
                let codes = &mut model.bytes_mut(tensor)[..128 * 64];
                let (first, second) = codes.split_at_mut(64 * 64);
                first.swap_with_slice(second);
            },
        );
        assert_eq!(found(&divergence), (expected, 0), "{tensor}");
    }
}

/// A bound hides what is small, and shows what is not.
#[test]
fn a_bound_is_a_share_of_the_reference() {
    let model = small().model();
    let (graph, tensors) = model.parts();
    let other = Graph { norm_eps: 1.01e-5, ..graph.clone() };
    let mut reference = Transformer::new(&RustScalar, &graph, &tensors, &options()).expect("made");
    let mut subject = Transformer::new(&RustScalar, &other, &tensors, &options()).expect("made");
    let mut first = |bound| {
        let divergence = diverge(&mut reference, &mut subject, &[&TOKENS[..1]], bound).expect("runs");
        divergence.first.map(|first| first.of.operation)
    };
    assert_eq!(first(0.0), Some(Operation::AttnRms));
    assert_eq!(first(1.0), None);
}

#[test]
fn models_of_other_sides_are_not_compared() {
    let (a, b) = (small().model(), Made { ffn: 256, ..small() }.model());
    let ((graph_a, tensors_a), (graph_b, tensors_b)) = (a.parts(), b.parts());
    let mut reference = Transformer::new(&RustScalar, &graph_a, &tensors_a, &options()).expect("made");
    let mut subject = Transformer::new(&RustScalar, &graph_b, &tensors_b, &options()).expect("made");
    let answer = diverge(&mut reference, &mut subject, &[&TOKENS], 0.0);
    assert!(matches!(answer, Err(EngineError::Option { .. })), "{answer:?}");
    assert_eq!(reference.position(), 0);
}
