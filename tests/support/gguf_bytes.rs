//! GGUF files built field by field, so that tests can say things no writer would.

use bitnet_perfgate::bitnet::model::gguf::{Array, GgufWriter, Metadata, TensorPlan, TensorType, Value};

/// A header whose every field can lie.
pub struct RawFile {
    pub magic: [u8; 4],
    pub version: u32,
    pub n_tensors: Option<u64>,
    pub n_keys: Option<u64>,
    /// Key, value type, the value's bytes.
    pub keys: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// Name, sides, type id, offset.
    pub tensors: Vec<(Vec<u8>, Vec<u64>, u32, u64)>,
    pub data: Vec<u8>,
    pub alignment: usize,
}

impl Default for RawFile {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_keys: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
            alignment: 32,
        }
    }
}

impl RawFile {
    pub fn key_u32(mut self, key: &str, value: u32) -> Self {
        self.keys.push((key.into(), 4, value.to_le_bytes().to_vec()));
        self
    }

    pub fn key_string(mut self, key: &str, value: &[u8]) -> Self {
        self.keys.push((key.into(), 8, string(value)));
        self
    }

    pub fn tensor(mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        self.tensors.push((name.into(), dims.to_vec(), type_id, offset));
        self
    }

    pub fn data(mut self, n_bytes: usize) -> Self {
        self.data = vec![0; n_bytes];
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, type_id, value) in &self.keys {
            out.extend(string(key));
            out.extend(type_id.to_le_bytes());
            out.extend(value);
        }
        for (name, dims, type_id, offset) in &self.tensors {
            out.extend(string(name));
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|side| out.extend(side.to_le_bytes()));
            out.extend(type_id.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }
}

pub fn string(text: &[u8]) -> Vec<u8> {
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out
}

/// A small whole file with every value type and every tensor type that is read; its last tensor ends the file.
pub fn small_file() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.push("general.architecture", Value::String("bitnet".to_string()));
    metadata.push("u8", Value::U8(1));
    metadata.push("i8", Value::I8(-1));
    metadata.push("u16", Value::U16(2));
    metadata.push("i16", Value::I16(-2));
    metadata.push("i32", Value::I32(-3));
    metadata.push("f32", Value::F32(0.5));
    metadata.push("bool", Value::Bool(true));
    metadata.push("u64", Value::U64(5));
    metadata.push("i64", Value::I64(-5));
    metadata.push("f64", Value::F64(0.25));
    let words = Array::String(vec!["a".to_string(), String::new(), "\u{2581}b".to_string()]);
    let flags = Array::Bool(vec![true, false]);
    metadata.push("nested", Value::Array(Array::Array(vec![words, flags, Array::Array(vec![])])));
    metadata.push("floats", Value::Array(Array::F32(vec![1.0, 2.0])));
    let plan = |name: &str, dims: &[u64], tensor_type| TensorPlan {
        name: name.to_string(),
        dims: dims.to_vec(),
        tensor_type,
    };
    let plans = [
        plan("f32", &[3, 2], TensorType::F32),
        plan("scale", &[1], TensorType::F32),
        plan("f16", &[5], TensorType::F16),
        plan("bf16", &[2, 2, 2, 2], TensorType::Bf16),
        plan("q8_0", &[32, 2], TensorType::Q8_0),
        plan("q6_k", &[256], TensorType::Q6K),
        plan("q4_0", &[32], TensorType::Other(2)),
        plan("i2_s", &[128, 4], TensorType::I2S),
        plan("tl1", &[8, 32], TensorType::Tl1),
        plan("tl2", &[256, 32], TensorType::Tl2),
    ];
    let mut writer = GgufWriter::new(Vec::new(), &metadata, &plans).expect("the plan is legal");
    for plan in &plans {
        let n_bytes = plan.n_bytes().expect("the shape is legal") as usize;
        writer.append(&plan.name, &vec![0; n_bytes]).expect("a vector takes everything");
    }
    writer.finish().expect("everything is written")
}
