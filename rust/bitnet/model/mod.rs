//! Models as files: the GGUF container, the shapes of the public models, and seeded models made to measure.

pub mod config;
pub mod float_blocks;
pub mod gguf;
pub mod graph;
pub(crate) mod map;
pub mod weights;

pub use float_blocks::{FloatMatrix, FloatType};
pub use graph::{
    Activation, CacheType, Graph, GraphError, NamedTensor, Numerics, RopePairs, RunOptions, TensorData,
    read_model,
};
