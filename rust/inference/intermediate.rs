//! The named intermediates of a model, in the order in which they are computed: the names of bitnet.cpp's graph with the
//! operation (`docs/NUMERICS.md`, whole models).

use super::{Activation, Graph};
use std::fmt;

/// Which value of a layer, or of the ends of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Rows of the embedding.
    Embedding,
    /// The norm before attention, before its weights.
    AttnRms,
    /// Times its weights: the input of q, k and v.
    AttnNorm,
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Queries, rotated.
    QueryRope,
    /// Keys, rotated.
    KeyRope,
    /// What the heads mixed.
    Attention,
    /// The norm after attention, before its weights.
    AttnSubRms,
    /// Times its weights: the input of attn_output.
    AttnSubNorm,
    /// The output of attention.
    AttnOutput,
    /// Added to the residual stream.
    FfnInput,
    /// The norm before the feed-forward block, before its weights.
    FfnRms,
    /// Times its weights: the input of gate and up.
    FfnNorm,
    /// Gate.
    Gate,
    /// What the activation makes of gate.
    Activated,
    /// Up.
    Up,
    /// Activated gate times up.
    Gated,
    /// The norm inside the feed-forward block, before its weights.
    FfnSubRms,
    /// Times its weights: the input of ffn_down.
    FfnSubNorm,
    /// Down.
    Down,
    /// Added to the residual stream: what the layer leaves.
    LayerOutput,
    /// The last norm, of the tokens whose logits are kept.
    ResultNorm,
    /// Their logits.
    Logits,
}

impl Operation {
    /// Every operation of a layer, in the order of the names in `docs/NUMERICS.md`.
    const OF_A_LAYER: [Self; 22] = [
        Self::AttnRms,
        Self::AttnNorm,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::QueryRope,
        Self::KeyRope,
        Self::Attention,
        Self::AttnSubRms,
        Self::AttnSubNorm,
        Self::AttnOutput,
        Self::FfnInput,
        Self::FfnRms,
        Self::FfnNorm,
        Self::Gate,
        Self::Activated,
        Self::Up,
        Self::Gated,
        Self::FfnSubRms,
        Self::FfnSubNorm,
        Self::Down,
        Self::LayerOutput,
    ];

    /// Whether a graph has it.
    fn exists(self, graph: &Graph) -> bool {
        let of_sub_norms =
            matches!(self, Self::AttnSubRms | Self::AttnSubNorm | Self::FfnSubRms | Self::FfnSubNorm);
        graph.sub_norms || !of_sub_norms
    }

    /// Whether it is what a linear layer quantises.
    pub fn is_quantised(self, graph: &Graph) -> bool {
        match self {
            Self::AttnNorm | Self::AttnSubNorm | Self::FfnNorm | Self::FfnSubNorm => true,
            Self::Attention | Self::Gated => !graph.sub_norms,
            _ => false,
        }
    }
}

/// One value of one layer. Ordered as computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Intermediate {
    /// The layer; 0 for the embedding, the number of layers for the end of the graph.
    pub layer: usize,
    /// Which of its values.
    pub operation: Operation,
}

impl Intermediate {
    /// Every intermediate of a graph, in the order in which they are computed.
    pub fn all(graph: &Graph) -> Vec<Self> {
        let mut all = vec![Self { layer: 0, operation: Operation::Embedding }];
        for layer in 0..graph.layers {
            let of_layer = Operation::OF_A_LAYER.into_iter().filter(|operation| operation.exists(graph));
            all.extend(of_layer.map(|operation| Self { layer, operation }));
        }
        let end = |operation| Self { layer: graph.layers, operation };
        all.extend([end(Operation::ResultNorm), end(Operation::Logits)]);
        all
    }

    /// The one of that name.
    pub fn by_name(graph: &Graph, name: &str) -> Option<Self> {
        Self::all(graph).into_iter().find(|intermediate| intermediate.name(graph) == name)
    }

    /// Its name: `Qcur-0.MUL_MAT`.
    pub fn name(self, graph: &Graph) -> String {
        let layer = self.layer;
        let of_layer = |name: &str, operation: &str| format!("{name}-{layer}.{operation}");
        // A repeated name counts on: without sub-norms the norm of the feed-forward block is the second one.
        let rms = |nth: usize| match nth {
            1 => of_layer("norm", "RMS_NORM"),
            _ => format!("norm-{layer}.RMS_NORM.{nth}"),
        };
        match self.operation {
            Operation::Embedding => "inp_embd.GET_ROWS".to_string(),
            Operation::AttnRms => rms(1),
            Operation::AttnNorm => of_layer("attn_norm", "MUL"),
            Operation::Query => of_layer("Qcur", "MUL_MAT"),
            Operation::Key => of_layer("Kcur", "MUL_MAT"),
            Operation::Value => of_layer("Vcur", "MUL_MAT"),
            Operation::QueryRope => of_layer("Qcur", "ROPE"),
            Operation::KeyRope => of_layer("Kcur", "ROPE"),
            Operation::Attention => of_layer("kqv_out", "CONT"),
            Operation::AttnSubRms => rms(2),
            Operation::AttnSubNorm => of_layer("attn_sub_norm", "MUL"),
            Operation::AttnOutput => of_layer("attn_o_out", "MUL_MAT"),
            Operation::FfnInput => of_layer("ffn_inp", "ADD"),
            Operation::FfnRms => rms(if graph.sub_norms { 3 } else { 2 }),
            Operation::FfnNorm => of_layer("ffn_norm", "MUL"),
            Operation::Gate => of_layer("ffn_gate", "MUL_MAT"),
            Operation::Activated => match graph.activation {
                Activation::Silu => of_layer("ffn_silu", "UNARY"),
                Activation::ReluSquared => of_layer("ffn_sqr(relu)", "SQR"),
            },
            Operation::Up => of_layer("ffn_up", "MUL_MAT"),
            Operation::Gated => of_layer("ffn_sub_out", "MUL"),
            Operation::FfnSubRms => rms(4),
            Operation::FfnSubNorm => of_layer("ffn_sub_norm", "MUL"),
            Operation::Down => of_layer("ffn_down", "MUL_MAT"),
            Operation::LayerOutput => of_layer("l_out", "ADD"),
            Operation::ResultNorm => "result_norm.MUL".to_string(),
            Operation::Logits => "result_output.MUL_MAT".to_string(),
        }
    }

    /// Values per token.
    pub fn width(self, graph: &Graph) -> usize {
        match self.operation {
            Operation::Query | Operation::QueryRope => graph.q_dim(),
            Operation::Key | Operation::KeyRope | Operation::Value => graph.kv_dim(),
            Operation::Attention | Operation::AttnSubRms | Operation::AttnSubNorm => graph.q_dim(),
            Operation::Gate
            | Operation::Activated
            | Operation::Up
            | Operation::Gated
            | Operation::FfnSubRms
            | Operation::FfnSubNorm => graph.ffn,
            Operation::Logits => graph.vocab,
            _ => graph.hidden,
        }
    }

    /// Whether it has a row for each token whose logits are kept, not for each token.
    pub fn of_outputs(self) -> bool {
        matches!(self.operation, Operation::ResultNorm | Operation::Logits)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitnet::model::config::{Architecture, ModelConfig};

    fn graph(architecture: Architecture) -> Graph {
        let tiny = ModelConfig::preset("tiny").expect("a preset");
        Graph::of(&ModelConfig { architecture, ..tiny })
    }

    #[test]
    fn names_are_unique_ordered_and_found_again() {
        for architecture in [Architecture::Bitnet, Architecture::BitnetB158, Architecture::Llama] {
            let graph = graph(architecture);
            let all = Intermediate::all(&graph);
            let mut names: Vec<String> = all.iter().map(|value| value.name(&graph)).collect();
            assert!(all.is_sorted());
            for (value, name) in all.iter().zip(&names) {
                assert_eq!(Intermediate::by_name(&graph, name), Some(*value), "{name}");
                assert!(value.width(&graph) > 0);
            }
            let n = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), n, "{architecture:?}");
        }
    }

    #[test]
    fn sub_norms_and_the_activation_decide_what_there_is() {
        let (silu, llama) = (graph(Architecture::Bitnet), graph(Architecture::Llama));
        assert_eq!(Intermediate::all(&silu).len(), 2 * 22 + 3);
        assert_eq!(Intermediate::all(&llama).len(), 2 * 18 + 3);
        let ffn_norm = Intermediate { layer: 1, operation: Operation::FfnRms };
        assert_eq!(ffn_norm.name(&silu), "norm-1.RMS_NORM.3");
        assert_eq!(ffn_norm.name(&llama), "norm-1.RMS_NORM.2");
        assert!(Intermediate::by_name(&llama, "norm-0.RMS_NORM.4").is_none());
        assert!(Intermediate::by_name(&silu, "l_out-2.ADD").is_none());
        assert!(Intermediate::by_name(&graph(Architecture::BitnetB158), "ffn_sqr(relu)-0.SQR").is_some());
    }
}
