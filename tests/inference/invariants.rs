//! What must not change a bit: the backend, the number of threads, the vector loops, and under `pure-f32` how tokens are
//! split into calls. Models are made from seeds, in every architecture, format and kind of head.

use bitnet_perfgate::backends::Backend;
use std::sync::Arc;

use super::golden::{batch, bits, engine, options, prompt, step, subjects, tiny_file};
use super::models::{Made, small};
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::backends::vector::{Portable, available_loops};
use bitnet_perfgate::bitnet::formats::WeightFormat;
use bitnet_perfgate::bitnet::model::FloatType;
use bitnet_perfgate::bitnet::model::config::Architecture;
use bitnet_perfgate::inference::{CacheType, Engine, Numerics, RunOptions, Transformer, read_model};

/// Tokens for the made models.
fn tokens() -> Vec<u32> {
    (0..11).map(|index| index * 29 % 300).collect()
}

#[test]
fn thread_counts_and_caches_give_the_same_bits_on_every_backend() {
    let file = tiny_file();
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    let model = (graph, tensors);
    for cache in [CacheType::F16, CacheType::F32] {
        for numerics in [Numerics::Ggml, Numerics::PureF32] {
            let options = RunOptions { cache, numerics, ..options() };
            let mut oracle = engine(&RustScalar, &model, options);
            let expected = bits(&batch(&mut oracle, &prompt()));
            oracle.reset().expect("ours resets");
            let expected_step = bits(&step(&mut oracle, &prompt()));
            // Rounding differs with the number of columns under `ggml` with a float16 cache, and for the F16 head.
            assert_eq!(expected == expected_step, numerics == Numerics::PureF32, "{cache:?} {numerics:?}");
            for backend in subjects() {
                for threads in [1, 2, 3] {
                    let mut engine = engine(backend.as_ref(), &model, RunOptions { threads, ..options });
                    let what = format!("{} {cache:?} {numerics:?} {threads} threads", backend.name());
                    assert!(bits(&batch(&mut engine, &prompt())) == expected, "{what}, batch");
                    engine.reset().expect("ours resets");
                    assert!(bits(&step(&mut engine, &prompt())) == expected_step, "{what}, step");
                }
            }
        }
    }
}

/// A split anywhere changes nothing where nothing is rounded by the number of columns.
#[test]
fn batches_split_anywhere_give_the_same_bits_under_pure_f32() {
    let file = tiny_file();
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    let model = (graph, tensors);
    let tokens = prompt();
    for cache in [CacheType::F16, CacheType::F32] {
        let options = RunOptions { numerics: Numerics::PureF32, cache, ..options() };
        for backend in subjects() {
            let mut engine = engine(backend.as_ref(), &model, options);
            let expected = bits(&batch(&mut engine, &tokens));
            for split in 1..tokens.len() {
                engine.reset().expect("ours resets");
                let first = batch(&mut engine, &tokens[..split]);
                assert_eq!(engine.position(), split);
                let second = batch(&mut engine, &tokens[split..]);
                assert!(bits(&[first, second].concat()) == expected, "{} split at {split}", backend.name());
            }
        }
    }
}

/// Logits of some tokens are those of the same tokens when all are asked for.
#[test]
fn the_last_outputs_are_kept() {
    let file = tiny_file();
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    let vocab = graph.vocab;
    let model = (graph, tensors);
    let options = RunOptions { numerics: Numerics::PureF32, ..options() };
    let mut engine = engine(&RustScalar, &model, options);
    let all = batch(&mut engine, &prompt());
    for n_outputs in [0, 1, 5] {
        engine.reset().expect("ours resets");
        engine.prefill(&prompt(), n_outputs).expect("tokens of the vocabulary");
        assert!(bits(engine.logits()) == bits(&all[all.len() - n_outputs * vocab..]), "{n_outputs}");
    }
}

/// Every architecture, head and format: each backend and both vector loops, against the oracle.
#[test]
fn architectures_heads_and_formats_give_the_same_bits_on_every_backend() {
    let mut cases: Vec<Made> = Vec::new();
    for architecture in [Architecture::Bitnet, Architecture::BitnetB158, Architecture::Llama] {
        cases.push(Made { architecture, ..small() });
    }
    for head in [FloatType::F32, FloatType::F16, FloatType::Bf16, FloatType::Q8_0, FloatType::Q6K] {
        for tied in [true, false] {
            cases.push(Made { architecture: Architecture::Llama, head, tied, ..small() });
        }
    }
    for format in [WeightFormat::Tl1, WeightFormat::Tl2] {
        cases.push(Made { format, hidden: 1536, ffn: 4096, heads: 16, kv_heads: 16, ..small() });
    }
    cases.push(Made { scales: true, ..small() });
    // Heads whose values are no multiple of the lanes.
    cases.push(Made { heads: 16, kv_heads: 4, ..small() });
    for case in cases {
        let model = case.model();
        let (graph, tensors) = model.parts();
        let options = RunOptions { context: 12, batch: 8, outputs: 8, ..RunOptions::default() };
        let run = |mut engine: Transformer<'_>| {
            engine.prefill(&tokens()[..8], 8).expect("tokens of the vocabulary");
            let mut logits = engine.logits().to_vec();
            logits.extend(step(&mut engine, &tokens()[8..]));
            bits(&logits)
        };
        let expected =
            run(Transformer::with_loops(&RustScalar, &Portable, &graph, &tensors, &options).expect("made"));
        assert!(expected.iter().any(|bits| *bits != expected[0]), "{case:?}: all logits are equal");
        for (index, loops) in available_loops().iter().enumerate() {
            let loops = &**loops;
            let fast = Transformer::with_loops(&RustScalar, loops, &graph, &tensors, &options).expect("made");
            assert!(run(fast) == expected, "{case:?}: vector loops {index}");
        }
        // What repacks I2_S takes nothing else.
        let takes =
            |backend: &&Arc<dyn Backend>| backend.repacks().is_none() || case.format == WeightFormat::I2S;
        for backend in subjects().iter().filter(takes) {
            let options = RunOptions { threads: 2, ..options };
            let answer = run(Transformer::new(backend.as_ref(), &graph, &tensors, &options).expect("made"));
            assert!(answer == expected, "{case:?}: {}", backend.name());
        }
    }
}

/// A `.scale` of 2 is a weight scale of 2 times as much, as powers of two round nothing.
#[test]
fn scale_tensors_multiply_their_products() {
    let options = RunOptions { context: 8, batch: 8, outputs: 8, ..RunOptions::default() };
    let logits = |made: &Made| {
        let model = made.model();
        let (graph, tensors) = model.parts();
        let mut engine = Transformer::new(&RustScalar, &graph, &tensors, &options).expect("made");
        bits(&batch(&mut engine, &tokens()[..8]))
    };
    let plain = logits(&Made { scales: false, ..small() });
    let scaled = logits(&Made { scales: true, ..small() });
    let halved = logits(&Made { scales: true, weight_factor: 0.5, ..small() });
    assert!(plain != scaled, "the scale tensors were not looked at");
    assert!(plain == halved, "twice the products of half the weights");
}
