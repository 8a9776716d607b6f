//! Engines behind the contract: a toy written in C, and toys that do not keep their word.

use super::plugins::{plugin_of, refused};
use bitnet_perfgate::backends::plugin;
use bitnet_perfgate::backends::{Backend, BackendError};
use bitnet_perfgate::bitnet::model::gguf::Gguf;
use bitnet_perfgate::inference::{
    CacheType, Engine, EngineError, ForeignEngine, Graph, NamedTensor, Numerics, RunOptions, read_model,
};
use std::path::Path;

fn fields(more: &str) -> String {
    format!(
        ".abi_major = BNB_ABI_MAJOR, .abi_minor = 1, .struct_size = sizeof(bnb_api), .name = \"c-toy\", .isa = \"x\", \
         .build_info = &build, .available = ready, {more}"
    )
}

const OFFERED: &str = ".engine_create = create, .engine_prefill = prefill, .engine_decode = decode, \
    .engine_logits = logits, .engine_tap = tap, .engine_reset = reset, .engine_free = release";

/// The logit of token v after token t at position p is 1000 t + p + v / 1024; the tap is the tokens.
const TOY: &str = "#include <stdlib.h>\n#include <string.h>\n\
    struct bnb_engine { bnb_model m; uint64_t position, n, n_outputs; uint32_t last[8]; float *dst; uint64_t n_dst; };\n\
    static bnb_status create(const bnb_model *m, const bnb_tensor *t, uint64_t n, bnb_engine **engine) {\n\
        if (m->hidden != 256 || m->ffn != 512 || m->layers != 2 || m->heads != 4 || m->kv_heads != 2 || m->head_dim != 64 ||\n\
            m->vocab != 320 || m->rope_base != 10000.0f || m->norm_eps != 1e-5f || m->sub_norms != 1 ||\n\
            m->activation != BNB_ACTIVATION_SILU || m->rope != BNB_ROPE_HALVES || m->numerics != BNB_NUMERICS_PURE_F32 ||\n\
            m->kv_type != BNB_TYPE_F32 || m->threads != 2 || m->context != 16 || m->batch != 8 || m->outputs != 3)\n\
            return BNB_UNSUPPORTED;\n\
        uint64_t seen = 0;\n\
        for (uint64_t i = 0; i < n; ++i) {\n\
            if (!strcmp(t[i].name, \"token_embd.weight\"))\n\
                seen += t[i].type == BNB_TYPE_F16 && t[i].rows == 320 && t[i].cols == 256 && t[i].n_bytes == 2 * 320 * 256;\n\
            if (!strcmp(t[i].name, \"blk.1.ffn_down.weight\"))\n\
                seen += t[i].type == BNB_TYPE_I2_S && t[i].rows == 256 && t[i].cols == 512 && t[i].n_bytes == 32768 + 32;\n\
            if (!strcmp(t[i].name, \"output_norm.weight\"))\n\
                seen += t[i].type == BNB_TYPE_F32 && t[i].rows == 1 && t[i].cols == 256 && t[i].n_bytes == 1024;\n\
        }\n\
        if (seen != 3) return BNB_INVALID_DATA;\n\
        bnb_engine *made = calloc(1, sizeof *made);\n\
        if (!made) return BNB_OUT_OF_MEMORY;\n\
        made->m = *m; *engine = made;\n\
        return BNB_OK;\n\
    }\n\
    static bnb_status prefill(bnb_engine *e, const uint32_t *tokens, uint64_t n, uint64_t n_outputs) {\n\
        if (n > 8 || n_outputs > 3) return BNB_INVALID_ARGUMENT;\n\
        for (uint64_t i = 0; i < n; ++i) {\n\
            if (tokens[i] == 13) return BNB_NON_FINITE;\n\
            if (tokens[i] == 42) return 42;\n\
            e->last[i] = tokens[i];\n\
            if (e->dst && i * 256 < e->n_dst) e->dst[i * 256] = (float)tokens[i];\n\
        }\n\
        e->position += n; e->n = n; e->n_outputs = n_outputs;\n\
        return BNB_OK;\n\
    }\n\
    static bnb_status decode(bnb_engine *e, uint32_t token) { return prefill(e, &token, 1, 1); }\n\
    static bnb_status logits(bnb_engine *e, float *out, uint64_t n) {\n\
        if (n != e->n_outputs * 320) return BNB_INVALID_ARGUMENT;\n\
        for (uint64_t i = 0; i < n; ++i) {\n\
            const uint64_t row = e->n - e->n_outputs + i / 320;\n\
            out[i] = 1000.0f * (float)e->last[row] + (float)(e->position - e->n + row) + (float)(i % 320) / 1024.0f;\n\
        }\n\
        return BNB_OK;\n\
    }\n\
    static bnb_status tap(bnb_engine *e, const char *name, float *dst, uint64_t n) {\n\
        if (name && strcmp(name, \"inp_embd.GET_ROWS\")) return BNB_UNSUPPORTED;\n\
        e->dst = name ? dst : NULL; e->n_dst = n;\n\
        return BNB_OK;\n\
    }\n\
    static bnb_status reset(bnb_engine *e) { e->position = 0; return BNB_OK; }\n\
    static void release(bnb_engine *e) { free(e); }";

fn options() -> RunOptions {
    RunOptions {
        numerics: Numerics::PureF32,
        cache: CacheType::F32,
        threads: 2,
        context: 16,
        batch: 8,
        outputs: 3,
    }
}

/// Runs `test` with the golden model.
fn with_golden(test: impl FnOnce(&Graph, &[NamedTensor<'_>])) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-i2s.gguf");
    let file = Gguf::open(&path).expect("the golden model");
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    test(&graph, &tensors);
}

#[test]
fn a_toy_engine_is_run_as_the_contract_says() {
    let (_folder, library) = plugin_of("toy", TOY, &fields(OFFERED));
    let backend = &plugin::load(&library).expect("a plugin")[0];
    with_golden(|graph, tensors| {
        let mut engine = ForeignEngine::new(backend, graph, tensors, &options()).expect("made");
        assert!(engine.name().starts_with("c-toy@") && engine.logits().is_empty());
        let logit = |token: u32, position: usize, v: usize| {
            1000.0 * token as f32 + position as f32 + v as f32 / 1024.0
        };
        engine.prefill(&[3, 1, 4, 1, 5], 2).expect("runs");
        assert_eq!((engine.position(), engine.logits().len()), (5, 640));
        assert_eq!((engine.logits()[7], engine.logits()[320 + 9]), (logit(1, 3, 7), logit(5, 4, 9)));
        engine.tap("inp_embd.GET_ROWS").expect("offered");
        engine.tap("inp_embd.GET_ROWS").expect("twice is once");
        engine.decode(9).expect("runs");
        assert_eq!(engine.logits()[319], logit(9, 5, 319));
        let tapped = engine.tapped("inp_embd.GET_ROWS").expect("tapped");
        assert_eq!((tapped.len(), tapped[0]), (256, 9.0));
        let answer = engine.tap("l_out-0.ADD");
        assert!(matches!(answer, Err(EngineError::Backend(BackendError::Unsupported { .. }))), "{answer:?}");
        assert_eq!(engine.tap("l_out-9.ADD"), Err(EngineError::Tap { name: "l_out-9.ADD".to_string() }));
        assert!(engine.tapped("l_out-0.ADD").is_none());
        engine.untap();
        assert!(engine.tapped("inp_embd.GET_ROWS").is_none());
        // What cannot be run never reaches the plugin.
        assert!(matches!(engine.decode(320), Err(EngineError::Token { token: 320, index: 0, vocab: 320 })));
        assert!(matches!(engine.prefill(&[1; 9], 0), Err(EngineError::Batch { found: 9, batch: 8 })));
        assert!(matches!(engine.prefill(&[1; 4], 4), Err(EngineError::Outputs { found: 4, most: 3 })));
        engine.prefill(&[1; 8], 0).expect("runs");
        assert!(engine.logits().is_empty());
        assert!(matches!(
            engine.prefill(&[1; 3], 0),
            Err(EngineError::Context { position: 14, tokens: 3, context: 16 })
        ));
        engine.reset().expect("offered");
        engine.decode(2).expect("runs");
        assert_eq!((engine.position(), engine.logits()[0]), (1, logit(2, 0, 0)));
    });
}

#[test]
fn what_a_toy_answers_becomes_an_error_and_wants_a_reset() {
    let (_folder, library) = plugin_of("moody", TOY, &fields(OFFERED));
    let backend = &plugin::load(&library).expect("a plugin")[0];
    with_golden(|graph, tensors| {
        let mut engine = ForeignEngine::new(backend, graph, tensors, &options()).expect("made");
        engine.decode(1).expect("runs");
        let answer = engine.decode(13);
        assert!(
            matches!(&answer, Err(EngineError::NonFinite { at, position: 1 }) if at.contains("c-toy@")),
            "{answer:?}"
        );
        assert_eq!(engine.decode(1), Err(EngineError::NeedsReset));
        engine.reset().expect("offered");
        let text = engine.decode(42).expect_err("status 42").to_string();
        assert!(
            text.contains("c-toy@") && text.contains("unknown status 42") && !text.contains('\n'),
            "{text}"
        );
        assert_eq!(engine.decode(1), Err(EngineError::NeedsReset));
        engine.reset().expect("offered");
        engine.decode(1).expect("runs");
        // Options that the toy does not know.
        let other = RunOptions { threads: 1, ..options() };
        let answer = ForeignEngine::new(backend, graph, tensors, &other).err();
        assert!(matches!(answer, Some(EngineError::Backend(BackendError::Unsupported { .. }))), "{answer:?}");
    });
}

#[test]
fn functions_that_are_missing_are_unsupported_or_refused() {
    let without = |name: &str| {
        let kept: Vec<&str> = OFFERED.split(", ").filter(|field| !field.starts_with(name)).collect();
        kept.join(", ")
    };
    let unused = "#pragma GCC diagnostic ignored \"-Wunused-function\"\n";
    let before = format!("{unused}{TOY}");
    with_golden(|graph, tensors| {
        for missing in [".engine_create", ".engine_prefill", ".engine_logits"] {
            let (_folder, library) = plugin_of("less", &before, &fields(&without(missing)));
            let backend = &plugin::load(&library).expect("a plugin")[0];
            let answer = ForeignEngine::new(backend, graph, tensors, &options()).err();
            assert!(
                matches!(answer, Some(EngineError::Backend(BackendError::Unsupported { .. }))),
                "{answer:?}"
            );
        }
        for missing in [".engine_decode", ".engine_tap", ".engine_reset"] {
            let (_folder, library) = plugin_of("some", &before, &fields(&without(missing)));
            let backend = &plugin::load(&library).expect("a plugin")[0];
            let mut engine = ForeignEngine::new(backend, graph, tensors, &options()).expect("made");
            engine.decode(7).expect("prefill serves where there is no decode");
            assert_eq!(engine.logits()[0], 7000.0);
            let unsupported =
                |answer| matches!(answer, Err(EngineError::Backend(BackendError::Unsupported { .. })));
            assert_eq!(unsupported(engine.tap("inp_embd.GET_ROWS")), missing == ".engine_tap");
            assert_eq!(unsupported(engine.reset()), missing == ".engine_reset");
        }
    });
    let (_folder, library) = plugin_of("free", &before, &fields(&without(".engine_free")));
    assert!(refused(&library).contains("engine_create but no engine_free"), "{}", refused(&library));
}

/// A structure of minor 0 ends before the engines: what lies behind it is not called.
#[test]
fn an_older_minor_has_no_engine() {
    let before = format!("#pragma GCC diagnostic ignored \"-Wunused-function\"\n{TOY}");
    let older = fields(OFFERED)
        .replace(".abi_minor = 1", ".abi_minor = 0")
        .replace("sizeof(bnb_api)", "offsetof(bnb_api, matmul_bytes)");
    let (_folder, library) = plugin_of("older", &before, &older);
    let backend = &plugin::load(&library).expect("an older minor is welcome")[0];
    with_golden(|graph, tensors| {
        let answer = ForeignEngine::new(backend, graph, tensors, &options()).err();
        assert!(matches!(answer, Some(EngineError::Backend(BackendError::Unsupported { .. }))), "{answer:?}");
        assert!(backend.prepare_model(graph, tensors, &options()).is_err());
    });
}

#[test]
fn engines_that_break_their_word_are_errors_of_theirs() {
    let before = format!("#pragma GCC diagnostic ignored \"-Wunused-function\"\n{TOY}");
    let making = |create: &str| {
        let body = format!(
            "{before}\nstatic bnb_status other(const bnb_model *m, const bnb_tensor *t, uint64_t n, bnb_engine **e) \
             {{ (void)m; (void)t; (void)n; (void)e; {create} }}"
        );
        let (folder, library) = plugin_of("liar", &body, &fields(&OFFERED.replace("= create", "= other")));
        let backend = plugin::load(&library).expect("a plugin").remove(0);
        let mut text = String::new();
        with_golden(|graph, tensors| {
            text =
                ForeignEngine::new(&backend, graph, tensors, &options()).err().expect("refused").to_string();
        });
        drop(folder);
        assert!(!text.contains('\n'), "{text}");
        text
    };
    assert!(making("return BNB_OK;").contains("answered OK without an engine"));
    assert!(making("return -5;").contains("unknown status -5"));
    assert!(making("return BNB_INVALID_DATA;").contains("refused weights whose codes are all legal"));
    assert!(making("return BNB_NON_FINITE;").contains("a norm is not finite"));
    assert!(making("return BNB_INVALID_ARGUMENT;").contains("refused checked arguments"));
    assert!(making("return BNB_OUT_OF_MEMORY;").contains("out of memory"));
}
