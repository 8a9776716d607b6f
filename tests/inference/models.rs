//! Small models from a seed, in memory: every architecture, every ternary format, every kind of head.

use bitnet_perfgate::bitnet::formats::{self, Layout, WeightFormat, Weights};
use bitnet_perfgate::bitnet::model::config::{Architecture, ModelConfig};
use bitnet_perfgate::bitnet::model::{FloatMatrix, FloatType};
use bitnet_perfgate::inference::{Graph, NamedTensor, TensorData};
use bitnet_perfgate::rng::Rng;
use half::{bf16, f16};

/// What a model is made of.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub architecture: Architecture,
    pub format: WeightFormat,
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Of the head, and of the embedding where they are one.
    pub head: FloatType,
    pub tied: bool,
    /// Whether linear layers have `.scale` tensors, of value 2.
    pub scales: bool,
    /// Times the scales of ternary weights.
    pub weight_factor: f32,
}

/// Two layers of I2_S with a tied F16 head.
pub fn small() -> Made {
    Made {
        architecture: Architecture::Bitnet,
        format: WeightFormat::I2S,
        hidden: 256,
        ffn: 512,
        heads: 4,
        kv_heads: 2,
        head: FloatType::F16,
        tied: true,
        scales: false,
        weight_factor: 1.0,
    }
}

enum Kind {
    Ternary(Layout),
    Floats(FloatType, usize, usize),
}

/// A model with the bytes of its tensors.
pub struct Model {
    graph: Graph,
    tensors: Vec<(String, Kind, Vec<u8>)>,
}

impl Made {
    /// Makes it; the same one every time.
    pub fn model(&self) -> Model {
        let config = ModelConfig {
            architecture: self.architecture,
            hidden: self.hidden,
            ffn: self.ffn,
            heads: self.heads,
            kv_heads: self.kv_heads,
            tied_head: self.tied,
            // Published tiles are of large matrices: one layer of them is enough.
            layers: if self.format == WeightFormat::I2S { 2 } else { 1 },
            ..ModelConfig::preset("tiny").expect("a preset")
        };
        let mut tensors = Vec::new();
        for tensor in config.tensors() {
            let mut rng = Rng::for_part(7, &tensor.name);
            let (cols, rows) = (tensor.dims[0] as usize, tensor.dims.get(1).map_or(1, |&m| m as usize));
            let name = tensor.name.clone();
            if name.contains("norm") {
                let values: Vec<f32> = (0..cols).map(|_| (0.9 + 0.2 * rng.unit_f64()) as f32).collect();
                tensors.push((name, Kind::Floats(FloatType::F32, 1, cols), encode(FloatType::F32, &values)));
            } else if name.starts_with("blk") {
                if self.scales {
                    let scale = name.replace(".weight", ".scale");
                    tensors.push((scale, Kind::Floats(FloatType::F32, 1, 1), 2.0_f32.to_le_bytes().to_vec()));
                }
                let layout = Layout::published(self.format, rows, cols).expect("a published shape");
                let codes: Vec<i8> = (0..rows * cols).map(|_| rng.ternary()).collect();
                let scale = (1.5 / cols as f32).sqrt() * self.weight_factor;
                let mut bytes = vec![0; layout.packed_bytes()];
                formats::pack(&layout, &codes, scale, &mut bytes).expect("packs");
                tensors.push((name, Kind::Ternary(layout), bytes));
            } else {
                let is_head = self.tied || name == "output.weight";
                let float_type = if is_head { self.head } else { FloatType::F16 };
                let values: Vec<f32> = (0..rows * cols).map(|_| 0.5 * rng.normal() as f32).collect();
                tensors.push((name, Kind::Floats(float_type, rows, cols), encode(float_type, &values)));
            }
        }
        Model { graph: Graph::of(&config), tensors }
    }
}

impl Model {
    /// What an engine is given.
    pub fn parts(&self) -> (Graph, Vec<NamedTensor<'_>>) {
        let tensors = self.tensors.iter().map(|(name, kind, bytes)| NamedTensor {
            name: name.clone(),
            data: match kind {
                Kind::Ternary(layout) => TensorData::Ternary(Weights::new(*layout, bytes).expect("legal")),
                Kind::Floats(float_type, rows, cols) => {
                    TensorData::Floats(FloatMatrix::new(*float_type, *rows, *cols, bytes).expect("legal"))
                }
            },
        });
        (self.graph.clone(), tensors.collect())
    }

    /// The bytes of that tensor, to be spoilt.
    pub fn bytes_mut(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.tensors.iter_mut().find(|(other, ..)| other == name);
        &mut found.unwrap_or_else(|| panic!("no tensor {name}")).2
    }
}

/// Values in the storage of `float_type`: rounded, or for blocks quantised by the largest magnitude.
fn encode(float_type: FloatType, values: &[f32]) -> Vec<u8> {
    match float_type {
        FloatType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        FloatType::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        FloatType::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        FloatType::Q8_0 => values.chunks_exact(32).flat_map(q8_0).collect(),
        FloatType::Q6K => values.chunks_exact(256).flat_map(q6_k).collect(),
    }
}

fn q8_0(block: &[f32]) -> Vec<u8> {
    let d = block.iter().fold(0.0_f32, |m, x| m.max(x.abs())) / 127.0;
    let codes = block.iter().map(|x| (x / d).round() as i8 as u8);
    f16::from_f32(d).to_le_bytes().into_iter().chain(codes).collect()
}

/// Not the best codes, but legal ones: every bit pattern of a block is.
fn q6_k(block: &[f32]) -> Vec<u8> {
    let low = (0..128).map(|i| (block[i] * 37.0) as i32 as u8);
    let high = (128..192).map(|i| (block[i] * 91.0) as i32 as u8);
    let scales = (0..16).map(|i| (block[192 + i] * 20.0) as i8 as u8);
    low.chain(high).chain(scales).chain(f16::from_f32(1.0 / 512.0).to_le_bytes()).collect()
}
