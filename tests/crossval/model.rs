//! A real file of bitnet.cpp: every tensor, and every quantised product of layer 0 as bitnet.cpp computed it.

use super::npz::{Npz, golden_dir};
use super::support::{bits, linear_bits, prepare, subjects, takes_part};
use bitnet_perfgate::bitnet::formats::{self, Layout};
use bitnet_perfgate::bitnet::model::gguf::{Gguf, GgufWriter, Metadata, TensorPlan, TensorType, Value};
use bitnet_perfgate::campaign::{self, CampaignError, Cast, Request};
use bitnet_perfgate::record::Recording;
use bitnet_perfgate::workloads::catalog::Profile;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

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
    let recording = agreement(&golden_dir().join("tiny-i2s.gguf")).expect("the model runs");
    assert!(recording.agreements.iter().all(|row| row.exact && row.compared > 0));
    let tensors: std::collections::HashSet<&str> = recording
        .plan
        .workloads
        .iter()
        .filter_map(|workload| workload.id.split_once("+tensor="))
        .map(|(_, name)| name)
        .collect();
    assert_eq!(tensors.len(), 14, "{tensors:?}");
    let others = &subjects()[1..];
    let taken = |id: &str| others.iter().filter(|backend| takes_part(&***backend, id)).count();
    let pairs = recording.plan.workloads.iter().map(|workload| taken(&workload.id)).sum::<usize>();
    assert_eq!(recording.agreements.len(), pairs);
}

/// The main job over the file at `path`, agreement only.
fn agreement(path: &Path) -> Result<Recording, CampaignError> {
    let request = Request {
        profile: Profile::Quick,
        seed: 42,
        categories: Vec::new(),
        workloads: Vec::new(),
        model: Some(path.into()),
        timing: None,
    };
    let cast = Cast::new(bitnet_perfgate::backends::all());
    campaign::run(&request, &cast, &mut |_| ControlFlow::Continue(()))
}

/// A tensor to be written: name, sides (K first), type, bytes (zeros where `None`).
type Planned<'a> = (&'a str, &'a [u64], TensorType, Option<&'a [u8]>);

/// A file at `path` with these tensors.
fn write_file(path: &Path, tensors: &[Planned<'_>]) {
    let mut metadata = Metadata::new();
    metadata.push("general.architecture", Value::String("bitnet".into()));
    let plan = |&(name, dims, tensor_type, _): &Planned<'_>| TensorPlan {
        name: name.into(),
        dims: dims.into(),
        tensor_type,
    };
    let plans: Vec<TensorPlan> = tensors.iter().map(plan).collect();
    let mut writer =
        GgufWriter::new(File::create(path).expect("writable"), &metadata, &plans).expect("a legal plan");
    for (plan, (name, .., bytes)) in plans.iter().zip(tensors) {
        let zeros = vec![0; plan.n_bytes().expect("legal") as usize];
        writer.append(name, bytes.unwrap_or(&zeros)).expect("its turn");
    }
    writer.finish().expect("whole");
}

/// An I2_S tensor of 4 x 256 weights.
fn i2s_4x256() -> Vec<u8> {
    let layout = Layout::i2s(4, 256).expect("legal");
    let codes: Vec<i8> = (0..4 * 256).map(|index| (index % 3) as i8 - 1).collect();
    let mut bytes = vec![0; layout.packed_bytes()];
    formats::pack(&layout, &codes, 0.5, &mut bytes).expect("packs");
    bytes
}

/// Whoever reads the recording must see which part of the file was not compared, and why.
#[test]
fn what_a_file_holds_and_nobody_compares_is_named() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("mixed.gguf");
    let good = i2s_4x256();
    write_file(
        &path,
        &[
            ("embd", &[128, 4], TensorType::F16, None),
            ("norm", &[128], TensorType::F32, None),
            ("odd", &[160, 4], TensorType::I2S, None),
            ("stack", &[128, 2, 2], TensorType::I2S, None),
            ("good", &[256, 4], TensorType::I2S, Some(&good)),
            ("q8", &[32, 4], TensorType::Q8_0, None),
            ("q6", &[256, 2], TensorType::Q6K, None),
            ("tq1", &[256, 2], TensorType::Other(34), None),
            ("tq2", &[256, 2], TensorType::Other(35), None),
        ],
    );
    let recording = agreement(&path).expect("one tensor can be compared");
    assert!(!recording.agreements.is_empty());
    assert!(recording.agreements.iter().all(|row| row.exact && row.compared > 0));
    assert!(recording.plan.workloads.iter().all(|workload| workload.id.ends_with("+tensor=good")));
    let named = ["odd", "stack", "q8", "q6", "tq1", "tq2", "embd", "norm", "good"];
    let skipped: Vec<(&str, &str)> = recording
        .skipped
        .iter()
        .filter(|skipped| named.contains(&skipped.what.as_str()))
        .map(|skipped| (skipped.what.as_str(), skipped.reason.as_str()))
        .collect();
    let reasons: [(&str, &str); 6] = [
        ("odd", "K % 128 = 32"),
        ("stack", "sides [128, 2, 2]"),
        ("q8", "type Q8_0 is not one this version compares"),
        ("q6", "type Q6_K is not one this version compares"),
        ("tq1", "type TQ1_0 is not one this version compares"),
        ("tq2", "type TQ2_0 is not one this version compares"),
    ];
    assert_eq!(skipped.len(), reasons.len(), "{skipped:?}");
    for ((what, reason), (name, part)) in skipped.iter().zip(reasons) {
        assert!(*what == name && reason.contains(part), "{what}: {reason}, expected {name}: {part}");
    }
}

/// Nothing comparable, or damaged bytes: an error that names the file and the tensor, never an empty result.
#[test]
fn a_file_without_evidence_is_an_error_that_names_it() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let good = i2s_4x256();
    let mut nan = good.clone();
    nan[256..260].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut damaged = good.clone();
    damaged[17] = 0xff;
    let none: [Planned<'_>; 2] =
        [("odd", &[160, 4], TensorType::I2S, None), ("stack", &[128, 2, 2], TensorType::I2S, None)];
    let nan: [Planned<'_>; 2] =
        [("good", &[256, 4], TensorType::I2S, Some(&good)), ("nan", &[256, 4], TensorType::I2S, Some(&nan))];
    let damaged: [Planned<'_>; 1] = [("damaged", &[256, 4], TensorType::I2S, Some(&damaged))];
    for (file, tensors, parts) in [
        ("none.gguf", &none[..], ["odd", "K % 128 = 32"]),
        ("nan.gguf", &nan[..], ["nan", "scale"]),
        ("damaged.gguf", &damaged[..], ["damaged", "byte 17"]),
    ] {
        let path = folder.path().join(file);
        write_file(&path, tensors);
        let why = agreement(&path).expect_err("no evidence").to_string();
        assert!(why.starts_with(&path.display().to_string()), "{why}");
        assert!(parts.iter().all(|part| why.contains(part)), "{why} does not say {parts:?}");
    }
}
