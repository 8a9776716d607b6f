//! Engines that other backends bring, against ours: written by other hands from the same text, equal to the bit.

use super::golden::{bits, options, prompt, step, subjects, tiny_file};
use super::models::{Made, Model, small};
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::backends::{Backend, BackendError};
use bitnet_perfgate::bitnet::model::FloatType;
use bitnet_perfgate::bitnet::model::config::Architecture;
use bitnet_perfgate::inference::divergence::diverge;
use bitnet_perfgate::inference::{
    CacheType, Engine, EngineError, ForeignEngine, Graph, NamedTensor, Numerics, RunOptions, Transformer,
    read_model,
};

/// The engine of `backend`, if it brings one.
fn foreign<'a>(
    backend: &'a dyn Backend,
    graph: &Graph,
    tensors: &[NamedTensor<'a>],
    options: &RunOptions,
) -> Option<ForeignEngine<'a>> {
    match ForeignEngine::new(backend, graph, tensors, options) {
        Ok(engine) => Some(engine),
        Err(EngineError::Backend(BackendError::Unsupported { .. })) => None,
        Err(why) => panic!("{}: {why}", backend.name()),
    }
}

/// Every intermediate in one batch, and logits one token at a time, of every engine there is; how many there were.
fn agree(graph: &Graph, tensors: &[NamedTensor<'_>], options: &RunOptions, what: &str) -> usize {
    let mut ours = Transformer::new(&RustScalar, graph, tensors, options).expect("made");
    let expected = bits(&step(&mut ours, &prompt()));
    let mut compared = 0;
    for backend in subjects() {
        for threads in [1, 2] {
            let options = RunOptions { threads, ..*options };
            let Some(mut theirs) = foreign(backend.as_ref(), graph, tensors, &options) else { continue };
            let what = format!("{what}, {}, {threads} threads", backend.name());
            let divergence = diverge(&mut ours, &mut theirs, &[&prompt()], 0.0).expect("runs");
            assert_eq!(divergence.first, None, "{what}");
            assert_eq!(divergence.not_shown, [], "{what}");
            theirs.reset().expect("resets");
            assert!(bits(&step(&mut theirs, &prompt())) == expected, "{what}, one at a time");
            compared += 1;
        }
    }
    compared
}

#[test]
fn engines_of_other_hands_are_equal_to_the_bit() {
    let file = tiny_file();
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    let mut compared = 0;
    for cache in [CacheType::F16, CacheType::F32] {
        for numerics in [Numerics::Ggml, Numerics::PureF32] {
            let options = RunOptions { cache, numerics, ..options() };
            compared += agree(&graph, &tensors, &options, &format!("golden {cache:?} {numerics:?}"));
        }
    }
    let mut cases = vec![Made { scales: true, ..small() }, Made { heads: 16, kv_heads: 4, ..small() }];
    for architecture in [Architecture::BitnetB158, Architecture::Llama] {
        cases.push(Made { architecture, ..small() });
    }
    for head in [FloatType::F32, FloatType::Bf16, FloatType::Q8_0, FloatType::Q6K] {
        cases.push(Made { head, tied: false, ..small() });
    }
    for case in &cases {
        let model: Model = case.model();
        let (graph, tensors) = model.parts();
        compared += agree(&graph, &tensors, &options(), &format!("{case:?}"));
    }
    println!("{compared} comparisons");
    let with_reference = cfg!(feature = "ffi");
    assert_eq!(compared > 0, with_reference, "the in-tree reference brings an engine");
}

#[test]
fn refusals_of_the_caller_come_before_the_engine() {
    let model = small().model();
    let (graph, tensors) = model.parts();
    for backend in subjects() {
        let Some(mut engine) = foreign(backend.as_ref(), &graph, &tensors, &options()) else { continue };
        assert!(matches!(engine.decode(320), Err(EngineError::Token { token: 320, .. })));
        assert!(matches!(engine.prefill(&[1; 13], 1), Err(EngineError::Batch { found: 13, .. })));
        let fewer: Vec<NamedTensor<'_>> =
            tensors.iter().filter(|tensor| tensor.name != "blk.0.ffn_up.weight").cloned().collect();
        let why = ForeignEngine::new(backend.as_ref(), &graph, &fewer, &options()).err().expect("refused");
        assert!(matches!(&why, EngineError::Tensor { name, .. } if name == "blk.0.ffn_up.weight"), "{why}");
    }
    let mut spoilt = small().model();
    spoilt.bytes_mut("blk.0.attn_v.weight")[77] = 0b11;
    let (graph, tensors) = spoilt.parts();
    for backend in subjects() {
        let answer = ForeignEngine::new(backend.as_ref(), &graph, &tensors, &options()).err();
        let unsupported = matches!(answer, Some(EngineError::Backend(BackendError::Unsupported { .. })));
        let located = answer.as_ref().is_some_and(|why| why.to_string().contains("77"));
        assert!(unsupported || located, "{}: {answer:?}", backend.name());
    }
}
