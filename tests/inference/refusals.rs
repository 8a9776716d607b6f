//! Bad models, bad options, bad tokens: one line that names the culprit, and nothing run.

use super::golden::{bits, step, subjects};
use super::models::{Made, small};
use bitnet_perfgate::backends::rust_scalar::RustScalar;
use bitnet_perfgate::bitnet::formats::{Layout, WeightFormat};
use bitnet_perfgate::bitnet::model::config::{Architecture, ModelConfig};
use bitnet_perfgate::bitnet::model::gguf::{
    Array, Gguf, GgufWriter, Metadata, TensorPlan, TensorType, Value,
};
use bitnet_perfgate::bitnet::model::weights::{ModelFormat, write_model_to};
use bitnet_perfgate::inference::{
    Engine, EngineError, Graph, NamedTensor, RunOptions, Transformer, read_model,
};

fn options() -> RunOptions {
    RunOptions { context: 4, batch: 3, outputs: 2, ..RunOptions::default() }
}

/// What making an engine of a changed model says, in one line.
fn refused(change: impl FnOnce(&mut Graph, &mut Vec<NamedTensor<'_>>, &mut RunOptions)) -> String {
    let model = small().model();
    let (mut graph, mut tensors) = model.parts();
    let mut options = options();
    change(&mut graph, &mut tensors, &mut options);
    one_line(Transformer::new(&RustScalar, &graph, &tensors, &options).err().expect("refused"))
}

fn one_line(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 300, "{text}");
    text
}

#[test]
fn calls_that_cannot_be_run_are_refused_and_change_nothing() {
    let model = small().model();
    let (graph, tensors) = model.parts();
    for backend in subjects() {
        let mut engine = Transformer::new(backend.as_ref(), &graph, &tensors, &options()).expect("made");
        let expected = bits(&step(&mut engine, &[5, 6, 7]));
        engine.reset().expect("ours resets");
        engine.decode(5).expect("runs");
        let says = |answer: Result<(), EngineError>, expected: &str| {
            let text = one_line(answer.expect_err(expected));
            assert!(text.contains(expected), "{text}");
        };
        says(engine.decode(320), "token 320 at index 0 is not in the vocabulary of 320");
        assert!(engine.logits().is_empty(), "logits of a refused call");
        says(engine.prefill(&[1, u32::MAX], 1), "token 4294967295 at index 1");
        says(engine.prefill(&[], 0), "0 tokens in one call, expected 1 to 3");
        says(engine.prefill(&[1; 4], 0), "4 tokens in one call, expected 1 to 3");
        says(engine.prefill(&[1], 2), "logits of 2 tokens were asked for, expected at most 1");
        says(engine.prefill(&[1; 3], 3), "logits of 3 tokens were asked for, expected at most 2");
        engine.decode(6).expect("runs");
        says(engine.prefill(&[1; 3], 1), "3 tokens from position 2 on do not fit the context of 4");
        assert_eq!(engine.position(), 2);
        engine.decode(7).expect("runs");
        assert!(
            bits(engine.logits()) == expected[2 * 320..],
            "{}: a refused call left a trace",
            backend.name()
        );
        says(engine.tap("Qcur-2.ROPE"), "\"Qcur-2.ROPE\"");
        says(engine.tap(&"x".repeat(10_000)), "no intermediate");
    }
}

#[test]
fn numbers_without_a_meaning_are_refused() {
    for (expected, change) in [
        ("the number of threads is 0", (|_, o| o.threads = 0) as fn(&mut Graph, &mut RunOptions)),
        ("the context is 0", |_, o| o.context = 0),
        ("the context is 18446744073709551615", |_, o| o.context = usize::MAX),
        ("the batch is 0", |_, o| o.batch = 0),
        ("the number of layers is 0", |g, _| g.layers = 0),
        ("the number of kv heads is 3, expected a divisor of the 4 heads", |g, _| g.kv_heads = 3),
        ("the number of values per head is 63", |g, _| g.head_dim = 63),
        ("the norm epsilon is NaN", |g, _| g.norm_eps = f32::NAN),
        ("the rope base is inf", |g, _| g.rope_base = f32::INFINITY),
        ("\"token_embd.weight\": found F16 [320, 256], expected floats [321, 256]", |g, _| g.vocab = 321),
        ("\"blk.2.attn_norm.weight\": found none", |g, _| g.layers = 3),
        ("\"blk.1.attn_k.weight\": found a tensor, expected none", |g, _| g.layers = 1),
        ("\"blk.0.attn_sub_norm.weight\": found a tensor", |g, _| g.sub_norms = false),
    ] {
        let text = refused(|graph, _, options| change(graph, options));
        // Which of several tensors too many is named depends on their order alone.
        let same =
            text.contains(expected) || expected.contains("found a tensor") && text.contains("found a tensor");
        assert!(same, "{text}\n{expected}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let without =
        |name: &'static str| refused(move |_, tensors, _| tensors.retain(|tensor| tensor.name != name));
    assert!(
        without("output_norm.weight").contains("\"output_norm.weight\": found none, expected F32 [1, 256]")
    );
    assert!(without("blk.1.ffn_up.weight").contains("found none, expected I2_S, TL1 or TL2 [512, 256]"));
    let doubled = refused(|_, tensors, _| tensors.push(tensors[3].clone()));
    assert!(doubled.contains("it twice"), "{doubled}");
    let strange = refused(|_, tensors, _| {
        let copy = NamedTensor { name: "rope_freqs.weight".to_string(), ..tensors[0].clone() };
        tensors.push(copy);
    });
    assert!(strange.contains("\"rope_freqs.weight\": found a tensor, expected none"), "{strange}");
    let floats = refused(|_, tensors, _| {
        let embedding = tensors[0].data;
        tensors.iter_mut().filter(|t| t.name == "blk.0.attn_q.weight").for_each(|t| t.data = embedding);
    });
    assert!(floats.contains("\"blk.0.attn_q.weight\": found F16 [320, 256], expected I2_S"), "{floats}");
}

#[test]
fn norms_that_are_no_numbers_and_codes_that_are_none_are_refused() {
    for (value, text) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let mut model = small().model();
        model.bytes_mut("blk.1.ffn_norm.weight")[40..44].copy_from_slice(&value.to_le_bytes());
        let (graph, tensors) = model.parts();
        let error = Transformer::new(&RustScalar, &graph, &tensors, &options()).err().expect("refused");
        assert_eq!(
            one_line(error),
            format!("tensor \"blk.1.ffn_norm.weight\": found {text} at index 10, expected finite numbers")
        );
    }
    let mut model = small().model();
    model.bytes_mut("blk.0.attn_v.weight")[77] = 0b11;
    let (graph, tensors) = model.parts();
    for backend in subjects() {
        let error = Transformer::new(backend.as_ref(), &graph, &tensors, &options()).err().expect("refused");
        let text = one_line(error);
        assert!(text.contains("\"blk.0.attn_v.weight\"") && text.contains("77"), "{text}");
    }
}

/// An embedding that is no number: found where it enters a product, and the engine wants a reset.
#[test]
fn values_that_become_no_numbers_are_found_where_they_enter() {
    let mut model = Made { tied: false, ..small() }.model();
    // Token 9, value 3: an F16 NaN.
    let at = 2 * (9 * 256 + 3);
    model.bytes_mut("token_embd.weight")[at..at + 2].copy_from_slice(&[0x00, 0x7e]);
    let (graph, tensors) = model.parts();
    for backend in subjects() {
        let mut engine = Transformer::new(backend.as_ref(), &graph, &tensors, &options()).expect("made");
        engine.decode(1).expect("runs");
        let error = engine.prefill(&[2, 9], 1).expect_err("a NaN");
        let expected = EngineError::NonFinite { at: "blk.0.attn_q.weight".to_string(), position: 2 };
        assert_eq!(error, expected, "{}", backend.name());
        assert_eq!(engine.decode(1), Err(EngineError::NeedsReset));
        engine.reset().expect("ours resets");
        engine.decode(1).expect("runs again");
    }
    // A head with the NaN: one logit is none.
    let mut model = small().model();
    model.bytes_mut("token_embd.weight")[at..at + 2].copy_from_slice(&[0x00, 0x7e]);
    let (graph, tensors) = model.parts();
    let mut engine = Transformer::new(&RustScalar, &graph, &tensors, &options()).expect("made");
    let expected = EngineError::NonFinite { at: "result_output.MUL_MAT".to_string(), position: 0 };
    assert_eq!(engine.decode(1), Err(expected));
}

/// A file made of the tiny preset, its metadata and tensors changed before it is written.
fn file(change: impl FnOnce(&mut Metadata, &mut Vec<TensorPlan>)) -> Vec<u8> {
    let config = ModelConfig::preset("tiny").expect("a preset");
    let mut metadata = config.metadata(40);
    metadata.push("tokenizer.ggml.tokens", Value::Array(Array::String(vec!["a".to_string(); config.vocab])));
    let mut plans: Vec<TensorPlan> = Vec::new();
    for tensor in config.tensors() {
        let tensor_type = match tensor.name.as_str() {
            name if name.contains("norm") => TensorType::F32,
            "token_embd.weight" => TensorType::F16,
            _ => TensorType::I2S,
        };
        plans.push(TensorPlan { name: tensor.name, dims: tensor.dims, tensor_type });
    }
    change(&mut metadata, &mut plans);
    let mut writer = GgufWriter::new(Vec::new(), &metadata, &plans).expect("a legal plan");
    for plan in &plans {
        let bytes = vec![0; plan.n_bytes().expect("a legal shape") as usize];
        writer.append(&plan.name, &bytes).expect("a vector takes everything");
    }
    writer.finish().expect("everything is written")
}

fn refused_file(change: impl FnOnce(&mut Metadata, &mut Vec<TensorPlan>)) -> String {
    let bytes = file(change);
    one_line(read_model(&Gguf::parse(&bytes).expect("a legal file")).expect_err("refused"))
}

/// The metadata with one value replaced.
fn replaced(metadata: &mut Metadata, key: &str, value: Value) {
    let old = std::mem::replace(metadata, Metadata::new());
    for (name, kept) in old.iter() {
        metadata.push(name.to_string(), if name == key { value.clone() } else { kept.clone() });
    }
}

#[test]
fn files_of_other_models_are_refused() {
    assert!(read_model(&Gguf::parse(&file(|_, _| ())).expect("a legal file")).is_ok());
    let architecture = refused_file(|metadata, _| {
        replaced(metadata, "general.architecture", Value::String("gpt2".to_string()));
    });
    assert!(
        architecture.contains("\"gpt2\", expected bitnet, bitnet-b1.58, bitnet-25 or llama"),
        "{architecture}"
    );
    let vocabulary = refused_file(|metadata, _| {
        let few = Value::Array(Array::String(vec!["a".to_string(); 319]));
        replaced(metadata, "tokenizer.ggml.tokens", few);
    });
    assert!(vocabulary.contains("found 319 tokens, expected 320"), "{vocabulary}");
    let embedding = refused_file(|_, plans| plans[0].dims[1] = 319);
    assert!(embedding.contains("\"token_embd.weight\": found sides [256, 319]"), "{embedding}");
    let missing = refused_file(|_, plans| plans.retain(|plan| plan.name != "blk.1.attn_k.weight"));
    assert!(missing.contains("\"blk.1.attn_k.weight\": found none"), "{missing}");
    let scaled = refused_file(|metadata, _| {
        replaced(metadata, "bitnet.rope.scaling.factor", Value::F32(4.0));
    });
    assert!(scaled.contains("\"bitnet.rope.scaling.factor\": found 4, expected 1"), "{scaled}");
    let yarn = refused_file(|metadata, _| {
        replaced(metadata, "bitnet.rope.scaling.type", Value::String("yarn".to_string()));
    });
    assert!(yarn.contains("\"yarn\", expected linear"), "{yarn}");
    let other = refused_file(|_, plans| plans[0].tensor_type = TensorType::Other(2));
    assert!(other.contains("\"token_embd.weight\": found type Q4_0"), "{other}");
}

/// K = 8640 is no multiple of 128: neither a layout nor a file of it comes into being.
#[test]
fn sides_that_i2_s_cannot_hold_are_refused() {
    let text = one_line(Layout::i2s(3200, 8640).expect_err("67.5 blocks"));
    assert!(text.contains("8640") && text.contains("128"), "{text}");
    let config = ModelConfig { ffn: 320, ..ModelConfig::preset("tiny").expect("a preset") };
    let format = ModelFormat::Ternary(WeightFormat::I2S);
    let error = write_model_to(&config, format, 1, Vec::new(), &mut |_, _| ()).expect_err("K = 320");
    assert!(one_line(error).contains("ffn_down"));
}

/// What a made file of the new architecture holds is what an engine asks for.
#[test]
fn made_llama_files_run() {
    for tied_head in [true, false] {
        let config = ModelConfig {
            architecture: Architecture::Llama,
            tied_head,
            ..ModelConfig::preset("tiny").expect("a preset")
        };
        let mut bytes = Vec::new();
        let format = ModelFormat::Ternary(WeightFormat::I2S);
        write_model_to(&config, format, 3, &mut bytes, &mut |_, _| ()).expect("writes");
        let file = Gguf::parse(&bytes).expect("a legal file");
        let (read, graph, tensors) = read_model(&file).expect("a model");
        assert_eq!(read, config);
        assert_eq!(tensors.iter().any(|tensor| tensor.name == "output.weight"), !tied_head);
        let mut engine = Transformer::new(&RustScalar, &graph, &tensors, &options()).expect("made");
        assert_eq!(step(&mut engine, &[1, 2]).len(), 2 * 320);
    }
    assert_eq!(Made { architecture: Architecture::Llama, ..small() }.model().parts().1.len(), 2 * 9 + 2);
}
