//! Backends that repack weights beside the one that reads I2_S as it comes, alternating in one process: products from
//! cache and from memory, one activation row and many, one thread and two. Ids are those of the catalogue.
//!
//! Each block times every side once, in an order that rotates; what is shown is the median time of a side and the median
//! over blocks of its ratio to the first side. "Cold" here rotates over more than a gigabyte of weights, as there are
//! caches that hold the catalogue's 300 MB. A side with other products than the first one is not measured.
//!
//! Then whole models of the 2B4T shape, over each backend's products and otherwise equal: what is left of it there.
//!
//! `cargo bench --bench layouts_bench -- b1/ cold` runs the ids that contain one of the words.

use bitnet_perfgate::backends::{self, Availability, Backend, Matmul};
use bitnet_perfgate::bitnet::formats::{Layout, Weights, pack};
use bitnet_perfgate::rng::Rng;
use bitnet_perfgate::workloads::{Output, Run, catalog};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of I2_S over which cold products rotate.
const COLD_BYTES: usize = 1 << 30;
/// Blocks of a workload, and the least time of a side in each.
const BLOCKS: usize = 15;
const SAMPLE_NS: u128 = 20_000_000;
/// Copies that a sample of a cold product passes.
const COLD_SAMPLE: usize = 24;
/// Whole models, and the blocks of each.
const MODELS: [&str; 4] = [
    "decode/2b4t/i2_s/tg16/t1",
    "decode/2b4t/i2_s/tg16/t2",
    "prefill/2b4t/i2_s/pp128/t1",
    "prefill/2b4t/i2_s/pp128/t2",
];
const MODEL_BLOCKS: usize = 5;

/// A product to be timed.
struct Work {
    rows: usize,
    cols: usize,
    batch: usize,
    threads: usize,
    cold: bool,
}

impl Work {
    fn id(&self) -> String {
        let Self { rows, cols, batch, threads, cold } = self;
        format!("matmul/i2_s/{rows}x{cols}/b{batch}/t{threads}/{}", if *cold { "cold" } else { "hot" })
    }

    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for threads in [1, 2] {
            let work = |(rows, cols), batch, cold| Self { rows, cols, batch, threads, cold };
            for shape in [(2560, 2560), (6912, 2560), (2560, 6912)] {
                all.push(work(shape, 1, false));
            }
            all.push(work((6912, 2560), 1, true));
            for batch in [2, 4, 8, 16, 32, 64, 128, 512] {
                all.push(work((2560, 2560), batch, false));
            }
            all.extend([16, 128].map(|batch| work((2560, 6912), batch, false)));
        }
        all
    }
}

/// A backend, its product of each copy, and the one that is next.
struct Side<'a> {
    name: &'a str,
    /// Bytes that one product reads.
    bytes: usize,
    products: Vec<Box<dyn Matmul + 'a>>,
    next: usize,
    sample_ns: Vec<f64>,
}

impl Side<'_> {
    fn run(&mut self, q: &[i8], out: &mut [i32]) {
        self.products[self.next].matmul_i8_i32(q, out).expect("lengths fit");
        self.next = (self.next + 1) % self.products.len();
    }

    /// Mean time of `calls` calls.
    fn sample(&mut self, calls: usize, q: &[i8], out: &mut [i32]) -> f64 {
        let begin = Instant::now();
        (0..calls).for_each(|_| self.run(q, out));
        begin.elapsed().as_nanos() as f64 / calls as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Times one product on every side and prints a line for each.
fn measure(work: &Work, sides: &[Arc<dyn Backend>]) {
    let layout = Layout::i2s(work.rows, work.cols).expect("a legal shape");
    let mut rng = Rng::new(42);
    let codes: Vec<i8> = (0..layout.n_weights()).map(|_| rng.ternary()).collect();
    let mut one = vec![0; layout.packed_bytes()];
    pack(&layout, &codes, 1.0, &mut one).expect("codes are ternary");
    let copies = vec![one; if work.cold { COLD_BYTES.div_ceil(layout.code_bytes()) } else { 1 }];
    let q: Vec<i8> = (0..work.batch * work.cols).map(|_| rng.next_u64() as i8).collect();
    let (mut out, mut expected) = (vec![0; work.batch * work.rows], Vec::new());
    let mut timed: Vec<Side<'_>> = Vec::new();
    for backend in sides {
        let products = copies.iter().map(|bytes| {
            let weights = Weights::new(layout, bytes).expect("just packed");
            backend.prepare_matmul(weights, work.batch, work.threads).expect("it takes I2_S")
        });
        let order = backend.repacks();
        let bytes = order.map_or(layout.code_bytes(), |order| order.packed_bytes(work.rows, work.cols));
        let mut side = Side {
            name: backend.name(),
            bytes,
            products: products.collect(),
            next: 0,
            sample_ns: Vec::new(),
        };
        out.fill(0x5a5a_5a5a);
        side.run(&q, &mut out);
        if expected.is_empty() {
            expected.clone_from(&out);
        }
        assert!(out == expected, "{} on {}: other products than {}", work.id(), side.name, sides[0].name());
        timed.push(side);
    }
    let once = timed[0].sample(1, &q, &mut out).max(1.0);
    let calls = if work.cold { COLD_SAMPLE } else { (SAMPLE_NS as f64 / once).ceil() as usize };
    for block in 0..BLOCKS {
        for i in 0..timed.len() {
            let index = (i + block) % timed.len();
            let side = &mut timed[index];
            if !work.cold {
                // What another side left in the caches is not this one's time.
                side.sample(1 + calls / 10, &q, &mut out);
            }
            let ns = side.sample(calls, &q, &mut out);
            side.sample_ns.push(ns);
        }
        sides.iter().for_each(|backend| backend.quiesce());
    }
    println!("{}", work.id());
    for side in &timed {
        let ns = median(side.sample_ns.clone());
        let ratios = side.sample_ns.iter().zip(&timed[0].sample_ns).map(|(ns, base)| base / ns);
        let ops = 2.0 * (work.rows * work.cols * work.batch) as f64;
        println!(
            "    {:<22} {:>9.1} us {:>6.1} GB/s of its own bytes {:>5.0} GOPS  {:.3} times as fast",
            side.name,
            ns / 1e3,
            side.bytes as f64 / ns,
            ops / ns,
            median(ratios.collect())
        );
    }
}

/// Runs a whole model on every side and prints a line for each.
fn measure_model(id: &str, sides: &[Arc<dyn Backend>]) {
    let workload = catalog::by_id(id).expect("in the catalogue");
    let inputs = workload.inputs(42).expect("a legal layout");
    let mut runs: Vec<Box<dyn Run + '_>> = Vec::new();
    let mut times = vec![Vec::new(); sides.len()];
    for backend in sides {
        let begin = Instant::now();
        runs.push(workload.prepare(&inputs, backend.as_ref()).expect("it takes I2_S"));
        let prepared = runs[runs.len() - 1].prepared_bytes().expect("it says") as f64;
        println!(
            "{id}: {} prepared in {:.2} s, {:.0} MB beside the weights",
            backend.name(),
            begin.elapsed().as_secs_f64(),
            prepared / 1e6
        );
    }
    for block in 0..MODEL_BLOCKS {
        for i in 0..runs.len() {
            let index = (i + block) % runs.len();
            let begin = Instant::now();
            runs[index].run().expect("it runs");
            times[index].push(begin.elapsed().as_nanos() as f64);
            sides[index].quiesce();
        }
        if block == 0 {
            let logits = |run: &dyn Run| match run.outputs()[0] {
                (_, Output::F32(logits)) => logits.iter().map(|logit| logit.to_bits()).collect::<Vec<u32>>(),
                (name, _) => panic!("{id}: {name} are no floats"),
            };
            let expected = logits(runs[0].as_ref());
            assert!(runs.iter().all(|run| logits(run.as_ref()) == expected), "{id}: other logits");
        }
    }
    for (backend, own) in sides.iter().zip(&times) {
        let ratios = own.iter().zip(&times[0]).map(|(ns, base)| base / ns).collect();
        let rate = workload.work.tokens as f64 / median(own.clone()) * 1e9;
        println!("    {:<22} {rate:>7.2} tokens/s  {:.3} times as fast", backend.name(), median(ratios));
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let mut sides = vec![backends::by_name("rust-avx512vnni").expect("in every build with SIMD backends")];
    sides.extend(backends::all().into_iter().filter(|backend| backend.repacks().is_some()));
    for backend in &sides {
        if let Availability::Unavailable(why) = backend.availability() {
            panic!("nothing was measured: {} is not available here: {why}", backend.name());
        }
    }
    let wanted = |id: &str| words.is_empty() || words.iter().any(|word| id.contains(word.as_str()));
    let works: Vec<Work> = Work::all().into_iter().filter(|work| wanted(&work.id())).collect();
    let models: Vec<&str> = MODELS.into_iter().filter(|id| wanted(id)).collect();
    assert!(works.len() + models.len() > 0, "nothing was measured: no id contains any of {words:?}");
    works.iter().for_each(|work| measure(work, &sides));
    models.iter().for_each(|id| measure_model(id, &sides));
}
