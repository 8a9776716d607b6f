//! THE list of workloads. Ids are permanent names; a new workload is a new line here.
//!
//! Shapes are `[outputs, inputs]` of the public models. What a format cannot hold is not dropped: it is listed
//! with the reason, under the id it would have.

use super::inference::{Inference, Phase};
use super::{Kind, Temperature, Workload};
use crate::backends::{Arithmetic, WeightRule};
use crate::bitnet::formats::{Layout, WeightFormat};
use crate::bitnet::model::FloatType;

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The main questions in about a minute.
    Quick,
    /// Every shape, format and batch.
    Full,
}

impl Profile {
    /// The name on the command line: `quick`, `full`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    /// The profile of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Quick, Self::Full].into_iter().find(|profile| profile.name() == name)
    }
}

/// Matrices of bitnet-b1.58-2B-4T.
pub const SHAPES_2B4T: [(usize, usize); 4] = [(2560, 2560), (640, 2560), (6912, 2560), (2560, 6912)];
/// Matrices of bitnet_b1_58-3B.
pub const SHAPES_3B: [(usize, usize); 3] = [(3200, 3200), (8640, 3200), (3200, 8640)];
/// Matrices of bitnet_b1_58-large (700M).
pub const SHAPES_LARGE: [(usize, usize); 3] = [(1536, 1536), (4096, 1536), (1536, 4096)];
/// Activation rows of a product.
pub const BATCHES: [usize; 6] = [1, 4, 16, 32, 128, 512];

/// What a profile asks for.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The workloads, in the order tables show them.
    pub workloads: Vec<Workload>,
    /// Ids that a format cannot hold, with the reason.
    pub unsupported: Vec<(String, String)>,
}

/// The catalogue of a profile.
pub fn catalog(profile: Profile) -> Catalog {
    let mut catalog = Catalog::default();
    match profile {
        Profile::Quick => catalog.add_quick(),
        Profile::Full => catalog.add_full(),
    }
    catalog
}

/// The workload of that id, from either profile.
pub fn by_id(id: &str) -> Option<Workload> {
    let find = |profile| catalog(profile).workloads.into_iter().find(|workload| workload.id == id);
    find(Profile::Quick).or_else(|| find(Profile::Full))
}

/// A kind of workload that needs a layout.
type OfLayout = fn(Layout) -> Kind;

fn quantize(layout: Layout) -> Kind {
    Kind::Quantize { layout, rule: WeightRule::AbsMean }
}

fn dequantize(layout: Layout) -> Kind {
    Kind::Dequantize { layout }
}

fn matmul<const BATCH: usize>(layout: Layout) -> Kind {
    Kind::Matmul { layout, batch: BATCH, threads: 1, temperature: Temperature::Hot }
}

fn matmul_cold(layout: Layout) -> Kind {
    Kind::Matmul { layout, batch: 1, threads: 1, temperature: Temperature::Cold }
}

/// The same on two threads.
fn on_two_threads(kind: OfLayout) -> impl Fn(Layout) -> Kind {
    move |layout| match kind(layout) {
        Kind::Matmul { layout, batch, temperature, .. } => {
            Kind::Matmul { layout, batch, threads: 2, temperature }
        }
        other => other,
    }
}

fn linear<const BATCH: usize>(layout: Layout) -> Kind {
    Kind::Linear { layout, batch: BATCH, threads: 1, temperature: Temperature::Hot }
}

const MATMUL_OF_BATCH: [OfLayout; 6] =
    [matmul::<1>, matmul::<4>, matmul::<16>, matmul::<32>, matmul::<128>, matmul::<512>];

/// Precisions in which matrices of heads and of whole models are stored, each with what it is multiplied in.
pub const PRECISIONS: [(FloatType, Arithmetic); 5] = [
    (FloatType::F32, Arithmetic::F32),
    (FloatType::F16, Arithmetic::F32),
    (FloatType::F16, Arithmetic::Native),
    (FloatType::Bf16, Arithmetic::F32),
    (FloatType::Bf16, Arithmetic::Native),
];

impl Catalog {
    fn add(&mut self, format: WeightFormat, (rows, cols): (usize, usize), kind: impl Fn(Layout) -> Kind) {
        match Layout::published(format, rows, cols) {
            Ok(layout) => self.workloads.push(Workload::new(kind(layout))),
            Err(why) => {
                // The id it would have: the kind's verb on a layout that exists, with this shape in its place.
                let stand_in = Layout::published(format, 2560, 2560).expect("2560x2560 fits every format");
                let id = Workload::new(kind(stand_in)).id.replace("2560x2560", &format!("{rows}x{cols}"));
                self.unsupported.push((id, why.to_string()));
            }
        }
    }

    /// Each precision, each batch of it in turn, on one thread.
    fn add_mixed_precision(
        &mut self,
        precisions: &[(FloatType, Arithmetic)],
        (rows, cols): (usize, usize),
        batches: &[usize],
    ) {
        for &(float_type, arithmetic) in precisions {
            for &batch in batches {
                let kind = Kind::MixedPrecision { float_type, rows, cols, batch, threads: 1, arithmetic };
                self.workloads.push(Workload::new(kind));
            }
        }
    }

    fn add_quick(&mut self) {
        use WeightFormat::{I2S, Tl1, Tl2};
        for format in WeightFormat::ALL {
            self.add(format, (640, 2560), quantize);
            self.add(format, (640, 2560), dequantize);
        }
        for (cols, rows) in [(2560, 1), (6912, 16)] {
            self.workloads.push(Workload::new(Kind::Activation { cols, rows }));
        }
        for shape in SHAPES_2B4T {
            self.add(I2S, shape, matmul::<1>);
        }
        self.add(I2S, (6912, 2560), matmul_cold);
        for kind in [matmul::<4> as OfLayout, matmul::<16>, matmul::<128>] {
            self.add(I2S, (2560, 2560), kind);
        }
        for format in [Tl1, Tl2] {
            self.add(format, (2560, 2560), matmul::<1>);
            self.add(format, (2560, 6912), matmul::<1>);
            self.add(format, (6912, 2560), matmul_cold);
            self.add(format, (2560, 2560), matmul::<16>);
        }
        for format in WeightFormat::ALL {
            self.add(format, (2560, 2560), linear::<1>);
        }
        // One row is bound by memory in every precision; of more rows, each of the halves in either arithmetic.
        self.add_mixed_precision(&PRECISIONS[1..2], (640, 2560), &[1]);
        self.add_mixed_precision(&PRECISIONS[1..], (640, 2560), &[16]);
        self.workloads.push(Workload::new(Kind::Overhead));
        self.add_model("125m", I2S, Phase::Prefill, 32, 1);
        self.add_model("125m", I2S, Phase::Decode, 16, 1);
    }

    fn add_model(
        &mut self,
        preset: &'static str,
        format: WeightFormat,
        phase: Phase,
        tokens: usize,
        threads: usize,
    ) {
        let work = Inference::of_preset(preset, format, phase, tokens, threads);
        let work = work.expect("the catalogue names presets that exist, in formats that hold them");
        self.workloads.push(Workload::new(Kind::Inference(work)));
    }

    /// Every phase of a model, on one thread and on two.
    fn add_phases(&mut self, preset: &'static str, format: WeightFormat) {
        for threads in [1, 2] {
            for tokens in [32, 128, 512] {
                self.add_model(preset, format, Phase::Prefill, tokens, threads);
            }
            for tokens in [16, 64] {
                self.add_model(preset, format, Phase::Decode, tokens, threads);
            }
            self.add_model(preset, format, Phase::FirstToken, 32, threads);
        }
    }

    fn add_full(&mut self) {
        let shapes = || SHAPES_2B4T.into_iter().chain(SHAPES_3B).chain(SHAPES_LARGE);
        for format in WeightFormat::ALL {
            for shape in shapes() {
                self.add(format, shape, quantize);
                self.add(format, shape, |layout| Kind::Quantize { layout, rule: WeightRule::MaxAbs });
                self.add(format, shape, dequantize);
            }
        }
        for cols in [1536, 2560, 3200, 4096, 6912, 8640] {
            for rows in BATCHES {
                self.workloads.push(Workload::new(Kind::Activation { cols, rows }));
            }
        }
        for format in WeightFormat::ALL {
            for shape in shapes() {
                for kind in MATMUL_OF_BATCH {
                    self.add(format, shape, kind);
                }
                self.add(format, shape, matmul_cold);
                self.add(format, shape, linear::<1>);
                self.add(format, shape, linear::<16>);
            }
        }
        for format in WeightFormat::ALL {
            for shape in SHAPES_2B4T {
                for kind in [matmul::<1> as OfLayout, matmul_cold, matmul::<128>] {
                    self.add(format, shape, on_two_threads(kind));
                }
            }
        }
        for shape in SHAPES_2B4T {
            self.add_mixed_precision(&PRECISIONS, shape, &[1, 4, 16]);
        }
        self.add_mixed_precision(&PRECISIONS, (640, 2560), &[128]);
        self.workloads.push(Workload::new(Kind::Overhead));
        for preset in ["tiny", "125m", "700m", "2b4t"] {
            self.add_phases(preset, WeightFormat::I2S);
        }
        for format in [WeightFormat::Tl1, WeightFormat::Tl2] {
            self.add_phases("125m", format);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_quick_is_part_of_full() {
        let full: HashSet<String> =
            catalog(Profile::Full).workloads.into_iter().map(|workload| workload.id).collect();
        assert_eq!(full.len(), catalog(Profile::Full).workloads.len());
        for workload in catalog(Profile::Quick).workloads {
            assert!(
                full.contains(&workload.id) || workload.id == "activation/int8/6912x16",
                "{}",
                workload.id
            );
        }
    }

    /// Permanent names: a change here breaks everybody's baselines.
    #[test]
    fn ids_follow_the_published_grammar() {
        for id in [
            "quantize/i2_s/640x2560",
            "dequantize/tl2/640x2560",
            "activation/int8/2560x1",
            "matmul/i2_s/6912x2560/b1/t1/hot",
            "matmul/tl2/6912x2560/b1/t1/cold",
            "matmul/i2_s/6912x2560/b1/t2/cold",
            "matmul/tl1/2560x2560/b128/t2/hot",
            "linear/tl1/2560x2560/b1/t1/hot",
            "overhead/call",
            "mixed_precision/f16/2560x2560/b1/t1",
            "mixed_precision/bf16/6912x2560/b16/t1",
            "mixed_precision/f32/640x2560/b128/t1",
            "mixed_precision/f16/640x2560/b16/t1+arithmetic=native",
            "mixed_precision/bf16/2560x6912/b1/t1+arithmetic=native",
            "quantize/i2_s/2560x2560+rule=maxabs",
            "prefill/125m/i2_s/pp32/t1",
            "decode/2b4t/i2_s/tg16/t2",
            "ttft/tiny/i2_s/pp32/t1",
        ] {
            assert_eq!(by_id(id).map(|workload| workload.id).as_deref(), Some(id));
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_listed_with_the_reason() {
        let unsupported = catalog(Profile::Full).unsupported;
        let reason = unsupported.iter().find(|(id, _)| id == "matmul/i2_s/3200x8640/b1/t1/hot");
        assert!(reason.is_some_and(|(_, why)| why.contains("K % 128 = 64")), "{unsupported:?}");
    }

    #[test]
    fn work_counts_are_those_of_the_shape() {
        let gemm = by_id("matmul/i2_s/2560x2560/b16/t1/hot").expect("in the catalogue");
        assert_eq!((gemm.work.weights, gemm.work.bytes, gemm.work.ops), (6_553_600, 1_638_400, 209_715_200));
        let half = by_id("mixed_precision/bf16/2560x2560/b4/t1").expect("in the catalogue");
        assert_eq!((half.work.weights, half.work.bytes, half.work.ops), (6_553_600, 13_107_200, 52_428_800));
    }
}
