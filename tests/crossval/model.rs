//! A real file of bitnet.cpp: every tensor, and every quantised product of layer 0 as bitnet.cpp computed it.

use super::npz::{Npz, golden_dir};
use super::support::{bits, linear_bits, prepare, subjects};
use bitnet_perfgate::bitnet::model::gguf::Gguf;
use bitnet_perfgate::campaign::{self, Cast, Request};
use bitnet_perfgate::workloads::catalog::Profile;
use std::ops::ControlFlow;

/// Product nodes of layer 0: the node that goes in, the tensor, the node that comes out.
const PRODUCTS: [(&str, &str, &str); 7] = [
    ("attn_norm-0.MUL", "blk.0.attn_q.weight", "Qcur-0.MUL_MAT"),
    ("attn_norm-0.MUL", "blk.0.attn_k.weight", "Kcur-0.MUL_MAT"),
    ("attn_norm-0.MUL", "blk.0.attn_v.weight", "Vcur-0.MUL_MAT"),
    ("attn_sub_norm-0.MUL", "blk.0.attn_output.weight", "attn_o_out-0.MUL_MAT"),
    ("ffn_norm-0.MUL", "blk.0.ffn_gate.weight", "ffn_gate-0.MUL_MAT"),
    ("ffn_norm-0.MUL", "blk.0.ffn_up.weight", "ffn_up-0.MUL_MAT"),
    ("ffn_sub_norm-0.MUL", "blk.0.ffn_down.weight", "ffn_down-0.MUL_MAT"),
];

/// Twelve tokens through each linear layer, fed with bitnet.cpp's own inputs: bit for bit its outputs.
#[test]
fn every_linear_layer_of_the_golden_model_is_bit_equal_to_bitnet_cpp() {
    let gguf = Gguf::open(&golden_dir().join("tiny-i2s.gguf")).expect("the golden model");
    let mut nodes = Npz::golden("tiny_nodes_layer0.npz");
    for (input, tensor, output) in PRODUCTS {
        let info = gguf.tensor(tensor).expect("in the model");
        let weights = gguf.ternary(info).expect("I2_S");
        let (x, expected): (Vec<f32>, Vec<f32>) = (nodes.data(input), nodes.data(output));
        let n = x.len() / weights.layout().cols();
        assert_eq!(n, 12, "{input}");
        for backend in subjects() {
            let what = format!("{tensor} on {}", backend.name());
            let mut matmul = prepare(&*backend, weights, n);
            let y = linear_bits(&mut *matmul, weights.layout().rows(), n, &x, &what);
            assert!(y == bits(&expected), "{what}: differs from bitnet.cpp");
        }
    }
}

/// The main job over the file, agreement only: all 14 tensors on every backend.
#[test]
fn every_tensor_of_the_golden_model_agrees() {
    let request = Request {
        profile: Profile::Quick,
        seed: 42,
        categories: Vec::new(),
        workloads: Vec::new(),
        model: Some(golden_dir().join("tiny-i2s.gguf")),
        timing: None,
    };
    let cast = Cast::new(bitnet_perfgate::backends::all());
    let recording =
        campaign::run(&request, &cast, &mut |_| ControlFlow::Continue(())).expect("the model runs");
    assert!(recording.agreements.iter().all(|row| row.exact && row.compared > 0));
    let tensors: std::collections::HashSet<&str> = recording
        .plan
        .workloads
        .iter()
        .filter_map(|workload| workload.id.split_once("+tensor="))
        .map(|(_, name)| name)
        .collect();
    assert_eq!(tensors.len(), 14, "{tensors:?}");
    assert_eq!(recording.agreements.len(), recording.plan.workloads.len() * (subjects().len() - 1));
}
