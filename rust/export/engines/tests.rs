use super::super::{bitnet_backend_v1, exported};
use super::*;
use crate::bitnet::model::gguf::Gguf;
use crate::inference::read_model;
use std::ffi::CString;

/// The golden model as a caller in C would hand it over.
struct Raw {
    model: sys::bnb_model,
    tensors: Vec<sys::bnb_tensor>,
    /// What `tensors` points to.
    _names: Vec<CString>,
}

fn raw(tensors: &[NamedTensor<'_>], graph: &Graph) -> Raw {
    let names: Vec<CString> =
        tensors.iter().map(|tensor| CString::new(tensor.name.as_str()).expect("no NUL")).collect();
    let raw = |(tensor, name): (&NamedTensor<'_>, &CString)| {
        let (type_, rows, cols, bytes) = match tensor.data {
            TensorData::Ternary(weights) => {
                (sys::BNB_TYPE_I2_S, weights.layout().rows(), weights.layout().cols(), weights.bytes())
            }
            TensorData::Floats(matrix) => {
                let f32s = matrix.float_type() == FloatType::F32;
                let type_ = if f32s { sys::BNB_TYPE_F32 } else { sys::BNB_TYPE_F16 };
                (type_, matrix.rows(), matrix.cols(), matrix.bytes())
            }
        };
        sys::bnb_tensor {
            name: name.as_ptr(),
            type_,
            bm: 0,
            bk: 0,
            by: 0,
            rows: rows as u64,
            cols: cols as u64,
            bytes: bytes.as_ptr(),
            n_bytes: bytes.len() as u64,
        }
    };
    let model = sys::bnb_model {
        activation: sys::BNB_ACTIVATION_SILU,
        rope: sys::BNB_ROPE_HALVES,
        sub_norms: 1,
        numerics: sys::BNB_NUMERICS_GGML,
        kv_type: sys::BNB_TYPE_F16,
        threads: 1,
        rope_base: graph.rope_base,
        norm_eps: graph.norm_eps,
        hidden: graph.hidden as u64,
        ffn: graph.ffn as u64,
        layers: graph.layers as u64,
        heads: graph.heads as u64,
        kv_heads: graph.kv_heads as u64,
        head_dim: graph.head_dim as u64,
        vocab: graph.vocab as u64,
        context: 8,
        batch: 4,
        outputs: 2,
    };
    Raw { model, tensors: tensors.iter().zip(&names).map(raw).collect(), _names: names }
}

/// Golden file, graph and tensors for one test.
fn with_golden(test: impl FnOnce(&Graph, &[NamedTensor<'_>])) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiny-i2s.gguf");
    let file = Gguf::open(path.as_ref()).expect("the golden model");
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    test(&graph, &tensors);
}

#[test]
fn exported_engines_give_the_bits_of_the_engine_and_write_taps() {
    with_golden(|graph, tensors| {
        let Raw { model, tensors: raw_tensors, _names } = raw(tensors, graph);
        let options = RunOptions { context: 8, batch: 4, outputs: 2, ..RunOptions::default() };
        let oracle = crate::backends::rust_scalar::RustScalar;
        let mut ours = Transformer::new(&oracle, graph, tensors, &options).expect("made");
        ours.tap("l_out-0.ADD").expect("a name");
        ours.prefill(&[1, 5, 9], 2).expect("runs");
        for (index, exported) in exported().iter().enumerate().filter(|(_, e)| e.why_not.is_none()) {
            // SAFETY: a static structure; buffers and counts are as the contract demands.
            unsafe {
                let api = *bitnet_backend_v1(index as u32);
                let mut engine = std::ptr::null_mut();
                let create = api.engine_create.expect("offered");
                let n = raw_tensors.len() as u64;
                assert_eq!(
                    create(&raw const model, raw_tensors.as_ptr(), n, &raw mut engine) as u32,
                    sys::BNB_OK
                );
                let (mut tapped, mut logits) = ([0.0_f32; 300], vec![0.0_f32; 2 * graph.vocab]);
                let tap = api.engine_tap.expect("offered");
                let name = c"l_out-0.ADD".as_ptr();
                assert_eq!(tap(engine, name, tapped.as_mut_ptr(), 300) as u32, sys::BNB_OK);
                let prefill = api.engine_prefill.expect("offered");
                assert_eq!(prefill(engine, [1, 5, 9].as_ptr(), 3, 2) as u32, sys::BNB_OK);
                let read = api.engine_logits.expect("offered");
                let n_logits = logits.len() as u64;
                assert_eq!(read(engine, logits.as_mut_ptr(), n_logits) as u32, sys::BNB_OK);
                assert_eq!(read(engine, logits.as_mut_ptr(), n_logits - 1) as u32, sys::BNB_INVALID_ARGUMENT);
                assert_eq!(logits, ours.logits(), "{}", exported.backend.name());
                assert_eq!(tapped[..], ours.tapped("l_out-0.ADD").expect("tapped")[..300]);
                // A tap that ended is not written any more, and its buffer may go.
                assert_eq!(tap(engine, name, std::ptr::null_mut(), 0) as u32, sys::BNB_OK);
                tapped.fill(7.0);
                assert_eq!(api.engine_decode.expect("offered")(engine, 3) as u32, sys::BNB_OK);
                assert_eq!(tapped, [7.0; 300]);
                assert_eq!(
                    tap(engine, c"no-such".as_ptr(), tapped.as_mut_ptr(), 1) as u32,
                    sys::BNB_UNSUPPORTED
                );
                assert_eq!(prefill(engine, [320].as_ptr(), 1, 1) as u32, sys::BNB_INVALID_ARGUMENT);
                assert_eq!(prefill(engine, [1; 5].as_ptr(), 5, 1) as u32, sys::BNB_INVALID_ARGUMENT);
                assert_eq!(prefill(engine, std::ptr::null(), 1, 1) as u32, sys::BNB_INVALID_ARGUMENT);
                assert_eq!(prefill(engine, [1; 4].as_ptr(), 4, 3) as u32, sys::BNB_INVALID_ARGUMENT);
                // 4 of 8 positions are used: 4 fit, then nothing.
                assert_eq!(prefill(engine, [1; 4].as_ptr(), 4, 0) as u32, sys::BNB_OK);
                assert_eq!(api.engine_decode.expect("offered")(engine, 3) as u32, sys::BNB_INVALID_ARGUMENT);
                assert_eq!(api.engine_reset.expect("offered")(engine) as u32, sys::BNB_OK);
                assert_eq!(api.engine_decode.expect("offered")(engine, 3) as u32, sys::BNB_OK);
                api.engine_free.expect("offered")(engine);
                api.engine_free.expect("offered")(std::ptr::null_mut());
            }
        }
    });
}

#[test]
fn hostile_models_are_answered_not_obeyed() {
    type Change = fn(&mut Raw);
    let refused: [(&str, Change, u32); 14] = [
        ("activation", |raw| raw.model.activation = 9, sys::BNB_INVALID_ARGUMENT),
        ("rope", |raw| raw.model.rope = 0, sys::BNB_INVALID_ARGUMENT),
        ("sub_norms", |raw| raw.model.sub_norms = 2, sys::BNB_INVALID_ARGUMENT),
        ("numerics", |raw| raw.model.numerics = 3, sys::BNB_INVALID_ARGUMENT),
        ("kv_type", |raw| raw.model.kv_type = 30, sys::BNB_INVALID_ARGUMENT),
        ("threads", |raw| raw.model.threads = 0, sys::BNB_INVALID_ARGUMENT),
        ("huge context", |raw| raw.model.context = u64::MAX, sys::BNB_INVALID_ARGUMENT),
        ("huge layers", |raw| raw.model.layers = u64::MAX / 8, sys::BNB_INVALID_ARGUMENT),
        ("a tensor twice", |raw| raw.tensors[1] = raw.tensors[0], sys::BNB_INVALID_ARGUMENT),
        ("a tensor less", |raw| raw.tensors.truncate(5), sys::BNB_INVALID_ARGUMENT),
        ("no name", |raw| raw.tensors[0].name = std::ptr::null(), sys::BNB_INVALID_ARGUMENT),
        ("a strange name", |raw| raw.tensors[0].name = c"strange".as_ptr(), sys::BNB_INVALID_ARGUMENT),
        ("fewer bytes", |raw| raw.tensors[0].n_bytes -= 1, sys::BNB_INVALID_ARGUMENT),
        ("overflowing sides", |raw| raw.tensors[0].rows = u64::MAX / 9, sys::BNB_INVALID_ARGUMENT),
    ];
    with_golden(|graph, tensors| {
        // SAFETY: a static structure; what is handed over is as the contract demands, but where a refusal is tested.
        unsafe {
            let create = (*bitnet_backend_v1(0)).engine_create.expect("offered");
            let mut engine = std::ptr::null_mut();
            for (what, change, expected) in refused {
                let mut raw = raw(tensors, graph);
                change(&mut raw);
                let n = raw.tensors.len() as u64;
                let answer = create(&raw const raw.model, raw.tensors.as_ptr(), n, &raw mut engine);
                assert_eq!(answer as u32, expected, "{what}");
                assert!(engine.is_null(), "{what}");
            }
            let raw = raw(tensors, graph);
            let n = raw.tensors.len() as u64;
            let invalid = |answer: sys::bnb_status| assert_eq!(answer as u32, sys::BNB_INVALID_ARGUMENT);
            invalid(create(std::ptr::null(), raw.tensors.as_ptr(), n, &raw mut engine));
            invalid(create(&raw const raw.model, std::ptr::null(), n, &raw mut engine));
            invalid(create(&raw const raw.model, raw.tensors.as_ptr(), n, std::ptr::null_mut()));
        }
    });
}
