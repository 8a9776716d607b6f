//! The tiny model of the real bitnet.cpp: its logits, and every intermediate of its first layer.

use super::npz::{Npz, golden_dir, golden_names};
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::backends::{self, Availability, Backend};
use bitnet_perfgate::bitnet::formats::{Layout, Weights};
use bitnet_perfgate::bitnet::model::gguf::Gguf;
use bitnet_perfgate::bitnet::quant::absmax;
use bitnet_perfgate::inference::{
    Engine, Graph, Intermediate, NamedTensor, RunOptions, Transformer, read_model,
};
use std::sync::Arc;

/// Every backend that runs here. The others are named on stderr with their reasons.
pub fn subjects() -> Vec<Arc<dyn Backend>> {
    let mut all = backends::all();
    all.retain(|backend| match backend.availability() {
        Availability::Ready => true,
        Availability::Unavailable(why) => {
            eprintln!("{} is not tested: {why}", backend.name());
            false
        }
    });
    assert!(all.iter().any(|backend| backend.name() == "rust-scalar"), "the oracle is always there");
    all
}

/// The golden model file.
pub fn tiny_file() -> Gguf<'static> {
    Gguf::open(&golden_dir().join("tiny-i2s.gguf")).expect("the golden model")
}

/// The golden prompt.
pub fn prompt() -> Vec<u32> {
    Npz::golden("tiny_logits.npz").data::<i64>("prompt").into_iter().map(|token| token as u32).collect()
}

/// Options that hold the prompt and all its logits.
pub fn options() -> RunOptions {
    RunOptions { context: 16, batch: 12, outputs: 12, ..RunOptions::default() }
}

/// An engine of ours.
pub fn engine<'a>(
    backend: &'a dyn Backend,
    (graph, tensors): &(Graph, Vec<NamedTensor<'a>>),
    options: RunOptions,
) -> Transformer<'a> {
    Transformer::new(backend, graph, tensors, &options)
        .unwrap_or_else(|why| panic!("{}: {why}", backend.name()))
}

/// Logits of every token, one at a time.
pub fn step(engine: &mut dyn Engine, tokens: &[u32]) -> Vec<f32> {
    tokens
        .iter()
        .flat_map(|&token| {
            engine.decode(token).expect("a token of the vocabulary");
            engine.logits().to_vec()
        })
        .collect()
}

/// Logits of every token, all at once.
pub fn batch(engine: &mut dyn Engine, tokens: &[u32]) -> Vec<f32> {
    engine.prefill(tokens, tokens.len()).expect("tokens of the vocabulary");
    engine.logits().to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Every golden file of a whole model is read by a test of this target.
#[test]
fn golden_files_of_models_are_these() {
    assert_eq!(golden_names("tiny_", ".npz"), ["tiny_logits.npz", "tiny_nodes_layer0.npz"]);
}

/// The scale that products are multiplied by stands where bitnet.cpp put it.
#[test]
fn the_scale_of_a_golden_matrix_is_found() {
    let mut golden = Npz::golden("i2s_m3_k256_n1.npz");
    let mut bytes = golden.data::<u8>("packed");
    bytes.resize(Layout::i2s(3, 256).expect("legal").packed_bytes(), 0);
    let weights = Weights::new(Layout::i2s(3, 256).expect("legal"), &bytes).expect("legal");
    assert_eq!(weights.scale(), golden.scalar::<f32>("w_scale"));
}

/// The values of bitnet.cpp at all 12 positions, in both modes, and the same bits from every backend.
#[test]
fn logits_are_those_of_bitnet_cpp_on_every_backend() {
    let file = tiny_file();
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    let model = (graph, tensors);
    let mut golden = Npz::golden("tiny_logits.npz");
    let (batch_golden, step_golden) = (golden.data::<f32>("batch"), golden.data::<f32>("step"));
    let mut first: Option<(Vec<f32>, Vec<f32>)> = None;
    for backend in subjects() {
        let name = backend.name();
        let mut engine = engine(backend.as_ref(), &model, options());
        let batch = batch(&mut engine, &prompt());
        engine.reset().expect("ours resets");
        let step = step(&mut engine, &prompt());
        for (what, ours, golden) in [("batch", &batch, &batch_golden), ("step", &step, &step_golden)] {
            let difference = largest_difference(ours, golden);
            println!("{name} {what}: {difference:e}");
            assert!(difference <= 1e-3, "{name}, {what}: {difference}");
        }
        let (batch_first, step_first) = first.get_or_insert_with(|| (batch.clone(), step.clone()));
        assert!(bits(&batch) == bits(batch_first) && bits(&step) == bits(step_first), "{name}");
    }
}

/// Every intermediate of the first layer and of the end of the graph, all tokens at once.
///
/// Bounds. Up to the products of q, k and v every operation is stated to the bit, so those are equal. From the rotation
/// on bitnet.cpp's float32 cosines, its order of sums and its exp differ from ours by a few ulp: dots of 64 values and
/// sums over 12 positions, each term rounded once on either side, stay within (64 + 12 + 8) * 2^-23 = 1e-5 of the
/// size of what is added, here the root mean square of the node. That holds as long as no int8 code flips, so none may.
#[test]
fn intermediates_are_those_of_bitnet_cpp() {
    const EXACT: usize = 6;
    let file = tiny_file();
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    let model = (graph, tensors);
    let mut engine = engine(&RustScalar, &model, options());
    let mut golden = Npz::golden("tiny_nodes_layer0.npz");
    let all = Intermediate::all(&model.0);
    let mut compared = 0;
    for of in &all {
        engine.tap(&of.name(&model.0)).expect("its own name");
    }
    batch(&mut engine, &prompt());
    for (index, of) in all.iter().enumerate() {
        let name = of.name(&model.0);
        if !golden.contains(&name) {
            assert!(of.layer == 1, "{name} is not among the golden nodes");
            continue;
        }
        let expected = golden.array::<f32>(&name);
        let ours = engine.tapped(&name).expect("tapped");
        assert_eq!((expected.shape[0], expected.data.len()), (12, 12 * of.width(&model.0)), "{name}");
        let rms = (expected.data.iter().map(|x| f64::from(x * x)).sum::<f64>() / ours.len() as f64).sqrt();
        let bound = if index < EXACT { 0.0 } else { 1e-5 * rms };
        let difference = largest_difference(&expected.data, ours);
        assert!(f64::from(difference) <= bound, "{name}: {difference:e}, at most {bound:e}");
        if of.operation.is_quantised(&model.0) {
            assert_eq!(codes(&expected.data, of.width(&model.0)), codes(ours, of.width(&model.0)), "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 26, "the golden file has 28 nodes, two of which are views of others");
}

fn codes(rows: &[f32], width: usize) -> Vec<i8> {
    let mut q = vec![0; rows.len()];
    for (row, q) in rows.chunks_exact(width).zip(q.chunks_exact_mut(width)) {
        absmax::quantize_row(row, q).expect("finite");
    }
    q
}
