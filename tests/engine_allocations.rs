//! Once made, an engine allocates nothing: every allocation of this process is counted while tokens run.
//!
//! A target of its own, because the counter sees all threads.

use bitnet_perfgate::backends::{self, Availability};
use bitnet_perfgate::bitnet::model::gguf::Gguf;
use bitnet_perfgate::inference::{CacheType, Engine, RunOptions, Transformer, read_model};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's word is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Allocations while `work` runs.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    work();
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

#[test]
fn running_tokens_allocates_nothing_on_any_backend() {
    assert!(allocations(|| drop(black_box(vec![1_u8; 64]))) > 0, "the counter counts");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-i2s.gguf");
    let file = Gguf::open(&path).expect("the golden model");
    let (_, graph, tensors) = read_model(&file).expect("the golden model");
    for backend in backends::all() {
        if let Availability::Unavailable(why) = backend.availability() {
            eprintln!("{} is not tested: {why}", backend.name());
            continue;
        }
        for (threads, cache) in [(1, CacheType::F16), (2, CacheType::F32)] {
            let options =
                RunOptions { threads, cache, context: 32, batch: 8, outputs: 2, ..RunOptions::default() };
            let mut engine = Transformer::new(backend.as_ref(), &graph, &tensors, &options).expect("made");
            engine.tap("Qcur-1.ROPE").expect("a name");
            engine.watch(Some(Box::new(|of| {
                black_box(of);
            })));
            // The first round of a team may set up what the threads need.
            engine.decode(1).expect("runs");
            let n = allocations(|| {
                for round in 0..3 {
                    engine.reset().expect("ours resets");
                    engine.prefill(&[1, 2, 3, 4, 5, 6, 7, 8], 2).expect("runs");
                    for token in 0..8 {
                        engine.decode(token + round).expect("runs");
                        black_box(engine.logits());
                    }
                }
            });
            assert_eq!(n, 0, "{}, {threads} threads, {cache:?}", backend.name());
        }
    }
}
