//! The GGUF reader and writer against the golden file of the real bitnet.cpp, against each other, and the
//! decoders of float tensors against blocks computed by hand.

#[path = "support/gguf_bytes.rs"]
mod gguf_bytes;

use bitnet_perfgate::bitnet::formats::{self, Layout, WeightFormat};
use bitnet_perfgate::bitnet::model::config::{Architecture, ModelConfig, TensorRole};
use bitnet_perfgate::bitnet::model::float_blocks::FloatType;
use bitnet_perfgate::bitnet::model::gguf::{
    Array, Gguf, GgufErrorKind, GgufWriter, Metadata, NewFile, TensorInfo, TensorPlan, TensorType, Value,
};
use bitnet_perfgate::bitnet::model::weights::{
    ModelError, ModelFormat, sha256_hex, write_model, write_model_to,
};
use bitnet_perfgate::rng::Rng;
use gguf_bytes::{RawFile, small_file};
use half::f16;
use proptest::prelude::*;
use std::path::Path;

fn golden() -> Gguf<'static> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-i2s.gguf");
    Gguf::open(&path).expect("the golden file is whole")
}

#[test]
fn the_golden_file_has_the_metadata_of_its_model() {
    let gguf = golden();
    let text = |key: &str| gguf.metadata().get(key).and_then(Value::as_str).map(str::to_string);
    let number = |key: &str| gguf.metadata().get(key).and_then(Value::as_u64);
    assert_eq!(gguf.metadata().len(), 26);
    assert_eq!(text("general.architecture").as_deref(), Some("bitnet"));
    assert_eq!(text("bitnet.rope.scaling.type").as_deref(), Some("linear"));
    assert_eq!(number("general.file_type"), Some(40));
    assert_eq!(number("bitnet.embedding_length"), Some(256));
    assert_eq!(number("bitnet.feed_forward_length"), Some(512));
    assert_eq!(number("bitnet.attention.head_count_kv"), Some(2));
    assert_eq!(gguf.metadata().get("bitnet.attention.layer_norm_rms_epsilon"), Some(&Value::F32(1e-5)));
    assert_eq!(gguf.metadata().get("tokenizer.ggml.add_bos_token"), Some(&Value::Bool(true)));
    let Some(Value::Array(Array::String(tokens))) = gguf.metadata().get("tokenizer.ggml.tokens") else {
        panic!("tokens are an array of strings")
    };
    assert_eq!((tokens.len(), tokens[3].as_str(), tokens[319].as_str()), (320, "<0x00>", "\u{2581}w60"));
}

#[test]
fn the_golden_file_has_the_tensors_of_its_model() {
    let gguf = golden();
    assert_eq!(gguf.tensors().len(), 24);
    let shape = |name: &str| {
        let info = gguf.tensor(name).expect(name);
        (info.tensor_type(), info.dims().to_vec(), info.offset(), info.n_bytes())
    };
    assert_eq!(shape("token_embd.weight"), (TensorType::F16, vec![256, 320], 0, 163_840));
    assert_eq!(shape("blk.0.attn_k.weight"), (TensorType::I2S, vec![256, 128], 185_376, 8224));
    assert_eq!(shape("blk.1.ffn_down.weight"), (TensorType::I2S, vec![512, 256], 436_640, 32_800));
    assert_eq!(shape("output_norm.weight"), (TensorType::F32, vec![256], 469_440, 1024));
    assert!(gguf.tensor("output.weight").is_err_and(|error| error.to_string().contains("no tensor")));
}

#[test]
fn every_ternary_tensor_of_the_golden_file_unpacks() {
    let gguf = golden();
    let mut ternary = 0;
    for info in gguf.tensors().iter().filter(|info| info.tensor_type() == TensorType::I2S) {
        let weights = gguf.ternary(info).unwrap();
        assert!(weights.scale() > 0.0, "{}", info.name());
        let mut codes = vec![9_i8; info.rows() * info.cols()];
        formats::unpack(&weights, &mut codes).unwrap();
        let nonzero = codes.iter().filter(|&&code| code != 0).count();
        assert!(codes.iter().all(|code| (-1..=1).contains(code)), "{}", info.name());
        assert!(nonzero * 4 > codes.len(), "{}: {nonzero} of {} are not zero", info.name(), codes.len());
        ternary += 1;
    }
    assert_eq!(ternary, 14);
}

#[test]
fn float_tensors_decode_by_rows_and_whole() {
    let gguf = golden();
    let embedding = gguf.tensor("token_embd.weight").unwrap();
    let whole = gguf.floats(embedding).unwrap();
    let mut row = vec![0.0; 256];
    gguf.rows_f32(embedding, 319, &mut row).unwrap();
    assert_eq!(row, whole[319 * 256..]);
    assert!(whole.iter().all(|value| value.is_finite()) && whole.iter().any(|&value| value != 0.0));
    assert!(gguf.rows_f32(embedding, 320, &mut row).is_err());
    assert!(gguf.rows_f32(embedding, usize::MAX, &mut row).is_err());
    assert!(gguf.rows_f32(embedding, 0, &mut row[..255]).is_err());
    let ternary = gguf.tensor("blk.0.attn_q.weight").unwrap();
    assert!(gguf.floats(ternary).is_err_and(|error| error.to_string().contains("I2_S")));
    assert!(gguf.ternary(embedding).is_err_and(|error| error.to_string().contains("F16")));
}

/// The file written again from what was read of it, with zeros as padding.
fn rewritten(gguf: &Gguf<'_>) -> Vec<u8> {
    let plan = |info: &TensorInfo| TensorPlan {
        name: info.name().to_string(),
        dims: info.dims().to_vec(),
        tensor_type: info.tensor_type(),
    };
    let plans: Vec<TensorPlan> = gguf.tensors().iter().map(plan).collect();
    let mut writer = GgufWriter::new(Vec::new(), gguf.metadata(), &plans).unwrap();
    for info in gguf.tensors() {
        writer.append(info.name(), gguf.tensor_bytes(info)).unwrap();
    }
    let (done, total) = writer.progress();
    assert_eq!(done, total);
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, total);
    bytes
}

#[test]
fn the_golden_file_written_again_is_the_same_to_the_byte() {
    let gguf = golden();
    assert!(rewritten(&gguf) == gguf.bytes(), "bytes differ");
    let small = small_file();
    assert!(rewritten(&Gguf::parse(&small).unwrap()) == small, "bytes differ");
}

fn any_array() -> impl Strategy<Value = Array> {
    use proptest::collection::vec;
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..5).prop_map(Array::U8),
        vec(any::<i8>(), 0..5).prop_map(Array::I8),
        vec(any::<u16>(), 0..5).prop_map(Array::U16),
        vec(any::<i16>(), 0..5).prop_map(Array::I16),
        vec(any::<u32>(), 0..5).prop_map(Array::U32),
        vec(any::<i32>(), 0..5).prop_map(Array::I32),
        vec(-1e9_f32..1e9, 0..5).prop_map(Array::F32),
        vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        vec(".{0,9}", 0..5).prop_map(Array::String),
        vec(any::<u64>(), 0..5).prop_map(Array::U64),
        vec(any::<i64>(), 0..5).prop_map(Array::I64),
        vec(-1e9_f64..1e9, 0..5).prop_map(Array::F64),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e9_f32..1e9).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::String),
        any_array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9_f64..1e9).prop_map(Value::F64),
    ]
}

fn any_tensor() -> impl Strategy<Value = (Vec<u64>, TensorType)> {
    let of = |tensor_type, k: u64| {
        (1_u64..=3, proptest::collection::vec(1_u64..=9, 0..=3)).prop_map(move |(blocks, mut dims)| {
            dims.insert(0, k * blocks);
            (dims, tensor_type)
        })
    };
    prop_oneof![
        of(TensorType::F32, 1),
        of(TensorType::F16, 1),
        of(TensorType::Bf16, 1),
        of(TensorType::Q8_0, 32),
        of(TensorType::Q6K, 256),
        of(TensorType::Other(35), 256),
        (1_u64..=3, 4_u64..=40).prop_map(|(blocks, m)| (vec![128 * blocks, m], TensorType::I2S)),
        (4_u64..=9, 1_u64..=4).prop_map(|(k, m)| (vec![16 * k, 32 * m], TensorType::Tl1)),
        (8_u64..=13, 1_u64..=4).prop_map(|(k, m)| (vec![32 * k, 32 * m], TensorType::Tl2)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read(
        values in proptest::collection::vec(any_value(), 0..8),
        tensors in proptest::collection::vec(any_tensor(), 0..6),
        alignment in proptest::option::of(5_u32..10),
        seed: u64,
    ) {
        let mut metadata = Metadata::new();
        for (index, value) in values.into_iter().enumerate() {
            metadata.push(format!("key.{index}"), value);
        }
        if let Some(log2) = alignment {
            metadata.push("general.alignment", Value::U32(1 << log2));
        }
        // The sizes of small I2_S tensors fit a stock type too; this decides.
        metadata.push("general.architecture", Value::String("bitnet".to_string()));
        let plan = |(index, (dims, tensor_type)): (usize, (Vec<u64>, TensorType))| TensorPlan {
            name: format!("tensor.{index}"),
            dims,
            tensor_type,
        };
        let plans: Vec<TensorPlan> = tensors.into_iter().enumerate().map(plan).collect();
        let mut rng = Rng::new(seed);
        let mut writer = GgufWriter::new(Vec::new(), &metadata, &plans).unwrap();
        let mut written = Vec::new();
        for plan in &plans {
            let data: Vec<u8> = (0..plan.n_bytes().unwrap()).map(|_| rng.next_u64() as u8).collect();
            for chunk in data.chunks(1 + rng.below(data.len() as u64) as usize) {
                writer.append(&plan.name, chunk).unwrap();
            }
            written.push(data);
        }
        let bytes = writer.finish().unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        prop_assert_eq!(gguf.metadata(), &metadata);
        prop_assert_eq!(gguf.tensors().len(), plans.len());
        for ((info, plan), data) in gguf.tensors().iter().zip(&plans).zip(&written) {
            prop_assert_eq!(info.name(), &plan.name);
            prop_assert_eq!(info.dims(), &plan.dims);
            prop_assert_eq!(info.tensor_type(), plan.tensor_type);
            prop_assert_eq!(info.offset() % gguf.alignment(), 0);
            prop_assert_eq!(gguf.tensor_bytes(info), data);
        }
        prop_assert!(rewritten(&gguf) == bytes);
    }
}

#[test]
fn a_writer_refuses_what_no_reader_accepts() {
    let plan = |name: &str, dims: &[u64], tensor_type| TensorPlan {
        name: name.to_string(),
        dims: dims.to_vec(),
        tensor_type,
    };
    let refused = |plans: &[TensorPlan], word: &str| {
        let mut out = Vec::new();
        let error =
            GgufWriter::new(&mut out, &Metadata::new(), plans).err().expect("it is refused").to_string();
        assert!(error.contains(word), "{error} does not say {word}");
        assert!(out.is_empty(), "something was written");
    };
    let f32_plan = plan("w", &[8], TensorType::F32);
    refused(&[f32_plan.clone(), f32_plan.clone()], "twice");
    refused(&[plan("", &[8], TensorType::F32)], "1 to 63");
    refused(&[plan(&"n".repeat(64), &[8], TensorType::F32)], "1 to 63");
    refused(&[plan("w", &[1; 5], TensorType::F32)], "at most 4");
    refused(&[plan("w", &[8, 0], TensorType::F32)], "side of 0");
    refused(&[plan("w", &[33], TensorType::Q8_0)], "K = 33");
    refused(&[plan("w", &[128, 32], TensorType::Tl2)], "at least 256");
    refused(&[plan("w", &[32], TensorType::Other(77))], "not known");

    let refused_key = |key: &str, value: Value, word: &str| {
        let mut metadata = Metadata::new();
        metadata.push("a", Value::U8(0));
        metadata.push(key, value);
        let error = GgufWriter::new(Vec::new(), &metadata, &[]).err().expect("it is refused").to_string();
        assert!(error.contains(word), "{error} does not say {word}");
    };
    refused_key("a", Value::U8(1), "twice");
    refused_key("", Value::U8(1), "1 to 65535");
    refused_key("general.alignment", Value::U32(48), "power of two");
    let deep = (0..8).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]));
    refused_key("deep", Value::Array(deep), "nested 9 deep");
}

#[test]
fn a_writer_holds_data_to_the_plan() {
    let plan =
        |name: &str| TensorPlan { name: name.to_string(), dims: vec![4], tensor_type: TensorType::F32 };
    let mut writer = GgufWriter::new(Vec::new(), &Metadata::new(), &[plan("a"), plan("b")]).unwrap();
    assert!(writer.append("b", &[0; 16]).is_err_and(|error| error.to_string().contains("\"a\"")));
    writer.append("a", &[0; 10]).unwrap();
    assert!(writer.append("a", &[0; 7]).is_err_and(|error| error.to_string().contains("7 more bytes")));
    writer.append("a", &[0; 6]).unwrap();
    assert!(writer.append("a", &[0; 1]).is_err());
    writer.append("b", &[0; 15]).unwrap();
    assert!(writer.finish().is_err_and(|error| error.to_string().contains("15 bytes")));
}

#[test]
fn a_new_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.gguf");
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    std::fs::write(&target, b"old").unwrap();
    let mut file = NewFile::create(&target).unwrap();
    std::io::Write::write_all(&mut file, b"half").unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    assert_eq!(names().len(), 2);
    drop(file);
    assert_eq!(names(), ["model.gguf"]);
    let mut file = NewFile::create(&target).unwrap();
    std::io::Write::write_all(&mut file, b"new").unwrap();
    file.commit().unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"new");
    assert_eq!(names(), ["model.gguf"]);
    let nowhere = folder.path().join("absent").join("model.gguf");
    assert!(NewFile::create(&nowhere).is_err_and(|error| error.to_string().contains("absent")));
}

#[cfg(unix)]
#[test]
fn a_new_file_replaces_nothing_but_regular_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::os::unix::fs::symlink("socket", at("to-socket")).unwrap();
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    for name in ["socket", "folder", "to-socket", "loop"] {
        let refused = NewFile::create(&at(name)).unwrap_err();
        assert!(matches!(refused.kind(), GgufErrorKind::Io { doing: "create", .. }), "{refused}");
        assert_eq!(refused.path(), Some(at(name).as_path()));
    }
    // A link to a file is replaced itself, as is one that leads nowhere; what it led to stays.
    std::fs::write(at("file"), b"old").unwrap();
    for (name, end) in [("to-file", "file"), ("dangling", "absent")] {
        std::os::unix::fs::symlink(end, at(name)).unwrap();
        let mut file = NewFile::create(&at(name)).unwrap();
        std::io::Write::write_all(&mut file, b"new").unwrap();
        file.commit().unwrap();
        assert!(std::fs::symlink_metadata(at(name)).unwrap().is_file());
        assert_eq!(std::fs::read(at(name)).unwrap(), b"new");
    }
    assert_eq!(std::fs::read(at("file")).unwrap(), b"old");
    assert!(!at("absent").exists());
}

#[test]
fn opening_names_the_path() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in
        [("empty.gguf", &b""[..]), ("short.gguf", b"GGUF"), ("other.gguf", b"PK\x03\x04....")]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = Gguf::open(&path).expect_err(name);
        assert!(error.to_string().contains(name) && error.to_string().contains("byte"), "{error}");
    }
    for path in [folder.path().to_path_buf(), folder.path().join("absent.gguf")] {
        let error = Gguf::open(&path).expect_err("not a file");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn disputed_type_ids_are_decided_by_evidence() {
    // K, M, id, bytes to the end of the file, file type, architecture; the type, or what the refusal says.
    type Case = ([u64; 2], u32, usize, Option<u32>, &'static str, Result<TensorType, &'static str>);
    let cases: [Case; 14] = [
        // Size alone, which also outweighs a file type of F16.
        ([256, 64], 36, 4128, None, "", Ok(TensorType::I2S)),
        ([256, 64], 36, 4128, Some(1), "llama", Ok(TensorType::I2S)),
        ([256, 64], 38, 4128, None, "", Ok(TensorType::Tl1)),
        ([512, 64], 39, 7552, None, "", Ok(TensorType::Tl2)),
        // Sizes of upstream's types, even where file type or architecture would allow ours.
        ([256, 64], 36, 9216, Some(40), "bitnet", Err("IQ4_NL_4_4")),
        ([256, 64], 38, 9216, Some(38), "", Err("IQ4_NL_8_8")),
        ([256, 64], 39, 8704, Some(38), "gpt-oss", Err("MXFP4 of stock GGUF")),
        // Neither size: an I2_S file quantised with several threads, say.
        ([256, 64], 36, 16416, Some(40), "bitnet", Err("found type id 36 and 16416 bytes")),
        // Both sizes: 64 of ours, 72 of IQ4_NL, in 72 bytes. Metadata decides.
        ([128, 1], 36, 72, None, "llama", Err("IQ4_NL_4_4")),
        ([128, 1], 36, 72, Some(40), "llama", Ok(TensorType::I2S)),
        ([128, 1], 36, 72, Some(38), "llama", Err("IQ4_NL_4_4")),
        ([128, 1], 36, 72, None, "bitnet-b1.58", Ok(TensorType::I2S)),
        // Neither meaning is one of weights.
        ([256, 64], 37, 16384, Some(40), "bitnet", Err("I8_S or IQ4_NL_4_8")),
        ([128, 64], 39, 4384, None, "bitnet", Err("at least 256")),
    ];
    for (dims, id, space, file_type, architecture, expected) in cases {
        let mut file = RawFile::default().tensor("w", &dims, id, 0).data(space);
        if let Some(file_type) = file_type {
            file = file.key_u32("general.file_type", file_type);
        }
        let bytes = file.key_string("general.architecture", architecture.as_bytes()).bytes();
        let found = Gguf::parse(&bytes)
            .map(|gguf| gguf.tensors()[0].tensor_type())
            .map_err(|error| error.to_string());
        match expected {
            Ok(tensor_type) => assert_eq!(found, Ok(tensor_type), "id {id}, {space} bytes"),
            Err(word) => {
                assert!(found.as_ref().is_err_and(|error| error.contains(word)), "{found:?}: {word}")
            }
        }
    }
}

#[test]
fn the_size_rules_of_files_and_of_layouts_agree() {
    let shapes = ModelConfig::PRESETS.iter().flat_map(|name| ModelConfig::preset(name).unwrap().tensors());
    let mut compared = 0;
    for tensor in shapes.filter(|tensor| tensor.role == TensorRole::Linear) {
        for (format, tensor_type) in [
            (WeightFormat::I2S, TensorType::I2S),
            (WeightFormat::Tl1, TensorType::Tl1),
            (WeightFormat::Tl2, TensorType::Tl2),
        ] {
            if let Ok(layout) = Layout::published(format, tensor.dims[1] as usize, tensor.dims[0] as usize) {
                assert_eq!(tensor_type.n_bytes(&tensor.dims), Ok(layout.packed_bytes() as u64), "{tensor:?}");
                compared += 1;
            }
        }
    }
    // 93 layers of 7 matrices in 3 formats, without ffn_down of 3b in I2_S.
    assert_eq!(compared, 93 * 7 * 3 - 26);
}

#[test]
fn q8_0_decodes_to_values_computed_by_hand() {
    let mut block = vec![0x00, 0x38]; // 0.5 as F16
    block.extend([1_u8, 0xff, 127, 0x80]);
    block.resize(34, 0);
    let mut out = [9.0; 32];
    FloatType::Q8_0.decode(&block, &mut out);
    assert_eq!(out[..5], [0.5, -0.5, 63.5, -64.0, 0.0]);
    assert!(out[5..].iter().all(|&value| value == 0.0));
}

#[test]
fn q6_k_decodes_to_values_computed_by_hand() {
    let mut block = vec![0_u8; 210];
    block[208..].copy_from_slice(&[0x00, 0x40]); // d = 2
    block[192..208].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 255, 254, 253, 252, 251, 250, 249, 248]);
    block[0] = 0xa5; // low nibble: value 0; high nibble: value 64
    block[32 + 17] = 0x3c; // values 32 + 17 and 96 + 17
    block[128] = 0b11_10_01_00; // high bits of values 0, 32, 64, 96
    block[64 + 31] = 0xf0; // value 128 + 31 (low 0), value 128 + 64 + 31 (low 15)
    block[128 + 32 + 31] = 0b00_11_00_10; // high bits of 128 + 31 (2) and 192 + 31 (3)
    let mut out = [9.0; 256];
    FloatType::Q6K.decode(&block, &mut out);
    // 2 * scale * (q - 32); scales in groups of 16 values.
    assert_eq!(out[0], 2.0 * 1.0 * (5.0 - 32.0));
    assert_eq!(out[32], 2.0 * 3.0 * (16.0 - 32.0));
    assert_eq!(out[64], 2.0 * 5.0 * (10.0 + 32.0 - 32.0));
    assert_eq!(out[96], 2.0 * 7.0 * (48.0 - 32.0));
    assert_eq!(out[32 + 17], 2.0 * 4.0 * (12.0 - 32.0));
    assert_eq!(out[96 + 17], 2.0 * 8.0 * (3.0 - 32.0));
    assert_eq!(out[128 + 31], 2.0 * -2.0 * (32.0 - 32.0));
    assert_eq!(out[192 + 31], 2.0 * -6.0 * (15.0 + 48.0 - 32.0));
    assert_eq!(out[1], 2.0 * 1.0 * -32.0);
    assert_eq!(out[255], 2.0 * -8.0 * -32.0);
}

/// The published loop of Q6_K, which walks 32 columns and stores four values at a time.
fn q6_k_by_quarters(block: &[u8]) -> Vec<f32> {
    let d = f16::from_le_bytes([block[208], block[209]]).to_f32();
    let mut out = vec![0.0; 256];
    for half in 0..2 {
        let (ql, qh) = (&block[64 * half..], &block[128 + 32 * half..]);
        let scale = |index: usize| d * f32::from(block[192 + 8 * half + index] as i8);
        for l in 0..32 {
            let q = [
                ql[l] & 15 | (qh[l] & 3) << 4,
                ql[l + 32] & 15 | (qh[l] >> 2 & 3) << 4,
                ql[l] >> 4 | (qh[l] >> 4 & 3) << 4,
                ql[l + 32] >> 4 | (qh[l] >> 6) << 4,
            ];
            for (quarter, q) in q.into_iter().enumerate() {
                let value = scale(l / 16 + 2 * quarter) * (f32::from(q) - 32.0);
                out[128 * half + 32 * quarter + l] = value;
            }
        }
    }
    out
}

#[test]
fn block_decoders_agree_with_an_independent_formula() {
    let mut rng = Rng::for_part(42, "float blocks");
    for blocks in [1, 2, 3, 7] {
        let mut bytes: Vec<u8> = (0..210 * blocks).map(|_| rng.next_u64() as u8).collect();
        for block in bytes.chunks_exact_mut(210) {
            block[208..].copy_from_slice(&f16::from_f64(rng.normal()).to_le_bytes());
        }
        let mut out = vec![0.0; 256 * blocks];
        FloatType::Q6K.decode(&bytes, &mut out);
        let expected: Vec<f32> = bytes.chunks_exact(210).flat_map(q6_k_by_quarters).collect();
        assert_eq!(out, expected);
    }
    let values = [0.0_f32, -0.0, 1.0, -2.5, 65504.0, 6e-8, f32::INFINITY];
    let mut out = [0.0; 7];
    let halves: Vec<u8> = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
    FloatType::F16.decode(&halves, &mut out);
    assert_eq!(out, values.map(|value| f16::from_f32(value).to_f32()));
    let upper: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec()).collect();
    FloatType::Bf16.decode(&upper, &mut out);
    assert_eq!(out.map(f32::to_bits), values.map(|value| value.to_bits() & 0xffff_0000));
}

/// A made model in memory.
fn made(config: &ModelConfig, format: ModelFormat, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write_model_to(config, format, seed, &mut bytes, &mut |_, _| ()).unwrap();
    assert_eq!((written.bytes, written.sha256), (bytes.len() as u64, sha256_hex(&bytes)));
    bytes
}

fn tiny() -> ModelConfig {
    ModelConfig::preset("tiny").unwrap()
}

const I2S: ModelFormat = ModelFormat::Ternary(WeightFormat::I2S);

#[test]
fn a_made_model_has_the_structure_of_the_golden_file() {
    let bytes = made(&tiny(), I2S, 42);
    let (ours, golden) = (Gguf::parse(&bytes).unwrap(), golden());
    assert_eq!(ours.tensors(), golden.tensors(), "names, sides, types, order and places");
    assert_eq!(ours.bytes().len(), golden.bytes().len());
    let different =
        |(ours, golden): ((&str, &Value), (&str, &Value))| (ours != golden).then(|| ours.0.to_string());
    let different: Vec<String> =
        ours.metadata().iter().zip(golden.metadata().iter()).filter_map(different).collect();
    assert_eq!(ours.metadata().len(), golden.metadata().len());
    assert_eq!(different, ["general.name"], "every other key and value is the same, in the same order");
}

#[test]
fn every_format_of_a_seed_holds_the_same_model() {
    let files = ModelFormat::ALL.map(|format| made(&tiny(), format, 42));
    let models = [&files[0], &files[1], &files[2], &files[3]].map(|bytes| Gguf::parse(bytes).unwrap());
    for (model, format) in models.iter().zip(ModelFormat::ALL) {
        assert_eq!(model.metadata().get("general.file_type"), Some(&Value::U32(format.file_type())));
        assert_eq!(ModelConfig::from_gguf(model).as_ref(), Ok(&tiny()));
    }
    for tensor in tiny().tensors() {
        let dense = models[3].floats(models[3].tensor(&tensor.name).unwrap()).unwrap();
        for model in &models[..3] {
            let info = model.tensor(&tensor.name).unwrap();
            let values = if tensor.role == TensorRole::Linear {
                let weights = model.ternary(info).unwrap();
                let mut codes = vec![0; dense.len()];
                formats::unpack(&weights, &mut codes).unwrap();
                codes.iter().map(|&code| f32::from(code) * weights.scale()).collect()
            } else {
                model.floats(info).unwrap()
            };
            assert!(values == dense, "{} differs", tensor.name);
        }
    }
}

#[test]
fn made_weights_have_the_promised_distributions() {
    let bytes = made(&tiny(), I2S, 42);
    let gguf = Gguf::parse(&bytes).unwrap();
    let mut counts = [0_u64; 3];
    for tensor in tiny().tensors() {
        let info = gguf.tensor(&tensor.name).unwrap();
        match tensor.role {
            TensorRole::Linear => {
                let weights = gguf.ternary(info).unwrap();
                let unit_gain = (1.5 / info.cols() as f32).sqrt();
                assert!((0.79..1.21).contains(&(weights.scale() / unit_gain)), "{}", tensor.name);
                let mut codes = vec![0; info.rows() * info.cols()];
                formats::unpack(&weights, &mut codes).unwrap();
                codes.iter().for_each(|&code| counts[(code + 1) as usize] += 1);
            }
            TensorRole::Norm => {
                let weights = gguf.floats(info).unwrap();
                assert!(weights.iter().all(|weight| (0.9..1.1).contains(weight)), "{}", tensor.name);
            }
            TensorRole::Embedding => {
                let values = gguf.floats(info).unwrap();
                let n = values.len() as f64;
                let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
                let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n;
                // Five standard errors; four times the kurtosis less one of this sum (2.7) is below 2.
                assert!(mean.abs() < 5.0 * 0.5 / n.sqrt(), "mean {mean}");
                assert!((variance - 0.25).abs() < 5.0 * 0.25 * (2.0 / n).sqrt(), "variance {variance}");
            }
        }
    }
    let n = counts.iter().sum::<u64>();
    assert_eq!(n, tiny().n_ternary_weights());
    // Pearson's chi-squared, two degrees of freedom: above 20 with probability 5e-5, were they uniform.
    let expected = n as f64 / 3.0;
    let chi_squared: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    assert!(chi_squared < 20.0, "{counts:?}: chi-squared {chi_squared}");
}

#[test]
fn a_made_model_depends_on_the_seed_alone() {
    let (first, again, other) = (made(&tiny(), I2S, 1), made(&tiny(), I2S, 1), made(&tiny(), I2S, 2));
    assert!(first == again, "the same seed gave other bytes");
    assert!(first != other, "another seed gave the same bytes");
    // Pinned: a change of these bytes is a change of every workload that is made from a seed.
    assert_eq!(
        sha256_hex(&made(&tiny(), I2S, 42)),
        "b9024e9b5bc2102c9821a870663b701f0b3c6a79ec34b41e15e404f71618396e"
    );
}

#[test]
fn a_made_file_reports_progress_and_appears_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut reports = Vec::new();
    let written =
        write_model(&tiny(), I2S, 42, &path, &mut |done, total| reports.push((done, total))).unwrap();
    assert_eq!(sha256_hex(&std::fs::read(&path).unwrap()), written.sha256);
    assert!(reports.len() > tiny().tensors().len());
    assert!(reports.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert!(reports.iter().all(|report| report.1 == written.bytes));
    assert_eq!(reports.last(), Some(&(written.bytes, written.bytes)));
    assert!(Gguf::open(&path).is_ok());
}

#[test]
fn what_a_format_cannot_hold_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("3b.gguf");
    let model = ModelConfig::preset("3b").unwrap();
    let error = write_model(&model, I2S, 42, &path, &mut |_, _| panic!("it began")).unwrap_err();
    let ModelError::Unsupported { tensor, .. } = &error else { panic!("{error}") };
    assert_eq!(tensor, "blk.0.ffn_down.weight");
    assert!(error.to_string().contains("K % 128 = 64"), "{error}");
    let few_tokens = ModelConfig { vocab: 258, ..tiny() };
    assert!(write_model(&few_tokens, I2S, 42, &path, &mut |_, _| ()).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn presets_are_the_public_shapes() {
    let preset = |name: &str| ModelConfig::preset(name).unwrap();
    for name in ModelConfig::PRESETS {
        assert_eq!(preset(name).validate(), Ok(()), "{name}");
        assert_eq!(preset(name).name, name);
    }
    assert_eq!(ModelConfig::preset("7b"), None);
    assert_eq!(preset("2b4t").tensors().len(), 332);
    assert_eq!(preset("2b4t").n_ternary_weights(), 2_084_044_800);
    assert_eq!(preset("2b4t").architecture, Architecture::BitnetB158);
    assert_eq!((preset("2b4t").head_dim(), preset("2b4t").kv_dim()), (128, 640));
    assert_eq!(preset("700m").n_ternary_weights(), 679_477_248);
    assert_eq!(
        ModelConfig { name: "dummy-tiny".to_string(), ..tiny() },
        ModelConfig::from_gguf(&golden()).unwrap()
    );
}

#[test]
fn the_other_architecture_round_trips() {
    let config = ModelConfig { architecture: Architecture::BitnetB158, rope_base: 5e5, heads: 2, ..tiny() };
    let bytes = made(&config, I2S, 7);
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.metadata().get("bitnet-b1.58.rope.freq_base"), Some(&Value::F32(5e5)));
    assert_eq!(ModelConfig::from_gguf(&gguf), Ok(config));
}

#[test]
fn shapes_that_do_not_go_together_are_refused() {
    let refused = |config: ModelConfig, word: &str| {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(word), "{error} does not say {word}");
    };
    refused(ModelConfig { heads: 3, ..tiny() }, "256 / 3 heads");
    refused(ModelConfig { heads: 256, ..tiny() }, "even");
    refused(ModelConfig { heads: 0, ..tiny() }, "number of heads");
    refused(ModelConfig { kv_heads: 3, ..tiny() }, "4 heads / 3 kv heads");
    refused(ModelConfig { kv_heads: 8, ..tiny() }, "4 heads / 8 kv heads");
    refused(ModelConfig { layers: usize::MAX, ..tiny() }, "number of layers");
    refused(ModelConfig { rope_base: f32::NAN, ..tiny() }, "rope base");
    refused(ModelConfig { norm_eps: 0.0, ..tiny() }, "norm epsilon");
}

#[test]
fn a_file_whose_tensors_do_not_match_its_shape_is_no_model() {
    let from = |change: &dyn Fn(&mut Metadata)| {
        let mut metadata = tiny().metadata(40);
        change(&mut metadata);
        let bytes = GgufWriter::new(Vec::new(), &metadata, &[]).unwrap().finish().unwrap();
        ModelConfig::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap_err().to_string()
    };
    assert!(from(&|_| ()).contains("0 tensors"));
    let without = |key: &'static str| {
        from(&move |metadata| {
            let kept: Vec<_> =
                metadata.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
            *metadata = Metadata::new();
            kept.into_iter()
                .filter(|(name, _)| name != key)
                .for_each(|(name, value)| metadata.push(name, value));
        })
    };
    assert!(without("general.architecture").contains("general.architecture"));
    assert!(without("bitnet.embedding_length").contains("\"bitnet.embedding_length\": found none"));
    let bytes = RawFile::default().key_string("general.architecture", b"qwen2").bytes();
    let error = ModelConfig::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap_err().to_string();
    assert!(error.contains("qwen2") && error.contains("bitnet-b1.58"), "{error}");
}
