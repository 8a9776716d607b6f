//! Hostile GGUF files: every named defect has its own error with the byte it stands at; truncations and mutations of a
//! seed corpus never panic, and never make the reader allocate more than a small multiple of the file.

#[path = "support/gguf_bytes.rs"]
mod gguf_bytes;

use bitnet_perfgate::bitnet::formats;
use bitnet_perfgate::bitnet::model::config::ModelConfig;
use bitnet_perfgate::bitnet::model::gguf::{Gguf, GgufErrorKind};
use bitnet_perfgate::rng::Rng;
use gguf_bytes::{RawFile, small_file, string};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts the bytes that the current thread holds.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only thread-local cells that need no
// initialisation, hence allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.get().saturating_add(layout.size());
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Result of `work`, and the most bytes it held at a time beyond what was held before.
fn with_peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// Reads everything that can be read of a file. Panics and oversized allocations fail the test that calls this.
fn read_all(bytes: &[u8]) -> Result<(), String> {
    // A tensor entry of 25 bytes or more is held twice, listed and placed, in 88 bytes each, and ordered in three lists of
    // 8: eight times its bytes. Keys take five times, decoded values (f32 from 6.6 bits, i8 from 1.6) five times.
    let allowed = 9 * bytes.len() + (16 << 10);
    let (outcome, peak) = with_peak(|| {
        let gguf = Gguf::parse(bytes)?;
        for info in gguf.tensors() {
            assert_eq!(gguf.tensor_bytes(info).len() as u64, info.n_bytes());
            assert!(gguf.tensor(info.name()).is_ok_and(|found| found == info));
            let _ = gguf.floats(info);
            if let Ok(weights) = gguf.ternary(info) {
                let _ = formats::unpack(&weights, &mut vec![0; info.rows() * info.cols()]);
            }
        }
        let _ = ModelConfig::from_gguf(&gguf);
        Ok::<(), bitnet_perfgate::bitnet::model::gguf::GgufError>(())
    });
    assert!(peak <= allowed, "{peak} bytes allocated for a file of {}", bytes.len());
    outcome.map_err(|error| {
        let message = error.to_string();
        assert!(!message.contains('\n') && message.len() < 1000, "not one clear line: {message}");
        message
    })
}

#[test]
fn every_named_defect_has_its_own_error() {
    let f32_tensor = || RawFile::default().tensor("w", &[8], 0, 0).data(32);
    let nested = |depth: usize| {
        let mut value = [9_u32.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat().repeat(depth);
        value.extend(4_u32.to_le_bytes());
        value.extend(0_u64.to_le_bytes());
        RawFile { keys: vec![(b"deep".to_vec(), 9, value)], ..RawFile::default() }
    };
    let array_of = |element: u32, count: u64| {
        let value = [element.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
        RawFile { keys: vec![(b"list".to_vec(), 9, value)], ..RawFile::default() }
    };
    let with_key = |type_id: u32, value: Vec<u8>| RawFile {
        keys: vec![(b"key".to_vec(), type_id, value)],
        ..RawFile::default()
    };
    // File, byte of the fault, what the message has to say.
    let cases: Vec<(&str, RawFile, u64, &[&str])> = vec![
        ("magic", RawFile { magic: *b"GGML", ..f32_tensor() }, 0, &["GGML", "\"GGUF\""]),
        ("version 1", RawFile { version: 1, ..f32_tensor() }, 4, &["version 1", "version 3"]),
        ("version 2", RawFile { version: 2, ..f32_tensor() }, 4, &["version 2", "version 3"]),
        ("version 4", RawFile { version: 4, ..f32_tensor() }, 4, &["version 4"]),
        ("big-endian", RawFile { version: 3_u32.swap_bytes(), ..f32_tensor() }, 4, &["big-endian"]),
        (
            "tensors",
            RawFile { n_tensors: Some(u64::MAX), ..f32_tensor() },
            8,
            &["number of tensors", "at most"],
        ),
        ("keys", RawFile { n_keys: Some(1 << 40), ..f32_tensor() }, 16, &["number of keys", "at most"]),
        ("key type", with_key(13, vec![0]), 35, &["key", "13", "0 to 12"]),
        ("boolean", with_key(7, vec![2]), 39, &["key", "found 2", "0 or 1"]),
        ("string length", with_key(8, u64::MAX.to_le_bytes().to_vec()), 47, &["key", "18446744073709551615"]),
        ("not UTF-8 value", with_key(8, string(b"ab\xffc")), 49, &["key", "0xff", "UTF-8"]),
        ("array length", array_of(0, u64::MAX), 44, &["list", "18446744073709551615", "at most"]),
        ("array of doubles", array_of(12, 1 << 61), 44, &["list", "at most"]),
        ("array of strings", array_of(8, 1 << 32), 44, &["list", "at most"]),
        ("array of arrays", array_of(9, 1 << 32), 44, &["list", "at most"]),
        ("array of what", array_of(77, 0), 40, &["list", "77"]),
        ("nested too deep", nested(20), 136, &["deep", "nested 9", "at most 8"]),
        ("duplicate key", f32_tensor().key_u32("k", 1).key_u32("k", 2), 41, &["\"k\"", "earlier"]),
        ("duplicate tensor", f32_tensor().tensor("w", &[8], 0, 0), 57, &["\"w\"", "earlier"]),
        ("five sides", RawFile::default().tensor("w", &[1; 5], 0, 0).data(32), 33, &["found 5", "at most 4"]),
        ("side 0", RawFile::default().tensor("w", &[8, 0], 0, 0).data(32), 37, &["side of 0"]),
        ("huge", RawFile::default().tensor("w", &[1 << 32, 1 << 32], 0, 0).data(32), 37, &["2^60"]),
        (
            "large",
            RawFile::default().tensor("w", &[1 << 40], 0, 0).data(32),
            24,
            &["32 bytes", "4398046511104"],
        ),
        (
            "past the end",
            RawFile::default().tensor("w", &[8], 0, 64).data(32),
            24,
            &["offset 64", "32 bytes"],
        ),
        (
            "offset overflow",
            RawFile::default().tensor("w", &[8], 0, !31).data(32),
            24,
            &["offset", "less than"],
        ),
        (
            "unaligned",
            RawFile::default().tensor("w", &[4], 0, 16).data(32),
            24,
            &["offset 16", "alignment 32"],
        ),
        ("overlap", f32_tensor().tensor("v", &[8], 0, 0), 24, &["\"w\"", "0 bytes", "the 32"]),
        (
            "tail overlap",
            f32_tensor().tensor("v", &[64], 0, 32).tensor("u", &[8], 0, 64).data(512),
            57,
            &["\"v\""],
        ),
        ("blocks", RawFile::default().tensor("w", &[33], 8, 0).data(64), 24, &["K = 33", "multiple of 32"]),
        (
            "unknown type",
            RawFile::default().tensor("w", &[32], 99, 0).data(64),
            24,
            &["type id 99", "0 to 39"],
        ),
        ("removed type", RawFile::default().tensor("w", &[32], 4, 0).data(64), 24, &["type id 4"]),
        (
            "alignment 0",
            f32_tensor().key_u32("general.alignment", 0),
            24,
            &["general.alignment", "power of two"],
        ),
        ("alignment 48", f32_tensor().key_u32("general.alignment", 48), 24, &["U32(48)", "power of two"]),
        ("alignment text", f32_tensor().key_string("general.alignment", b"32"), 24, &["a string of 2 bytes"]),
        (
            "alignment 2^31",
            f32_tensor().key_u32("general.alignment", 1 << 31),
            90,
            &["data from byte 2147483648"],
        ),
    ];
    for (what, file, byte, words) in cases {
        let bytes = file.bytes();
        let error = Gguf::parse(&bytes).err().unwrap_or_else(|| panic!("{what} was accepted"));
        let GgufErrorKind::Malformed { offset, .. } = error.kind() else {
            panic!("{what}: {error}");
        };
        assert_eq!(*offset, byte, "{what}: {error}");
        for word in words {
            assert!(error.to_string().contains(word), "{what}: {error} does not say {word}");
        }
        assert!(read_all(&bytes).is_err());
    }
}

#[test]
fn keys_and_names_that_are_not_utf8_are_errors() {
    let key = RawFile { keys: vec![(b"\xc3\x28".to_vec(), 0, vec![0])], ..RawFile::default() };
    let name = RawFile { tensors: vec![(b"\xff".to_vec(), vec![8], 0, 0)], ..RawFile::default() }.data(32);
    for file in [key, name] {
        assert!(read_all(&file.bytes()).is_err_and(|message| message.contains("UTF-8")));
    }
}

#[test]
fn a_long_hostile_name_does_not_flood_the_message() {
    let name = "\n".repeat(100_000);
    let file = RawFile::default().tensor(&name, &[8], 99, 0).data(32).key_string(&name, b"");
    assert!(read_all(&file.bytes()).is_err());
    let file = RawFile::default().key_string("general.architecture", name.as_bytes());
    let bytes = file.bytes();
    let error = ModelConfig::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap_err().to_string();
    assert!(!error.contains('\n') && error.len() < 1000);
}

#[test]
fn masses_of_tiny_things_take_memory_in_proportion() {
    let name = |index: u64| format!("{index:x}");
    let tensors =
        (0..50_000).fold(RawFile::default(), |file, index| file.tensor(&name(index), &[], 0, 32 * index));
    assert!(read_all(&tensors.bytes()).is_err_and(|message| message.contains("offset")));
    let placed =
        (0..5000).fold(RawFile::default(), |file, index| file.tensor(&name(index), &[], 0, 32 * index));
    assert_eq!(read_all(&placed.data(5000 * 32).bytes()), Ok(()));
    // A model of as many layers as there are tensors.
    let mut layers =
        (0..5000).fold(RawFile::default(), |file, index| file.tensor(&name(index), &[], 0, 32 * index));
    for (key, _) in ModelConfig::preset("tiny").unwrap().metadata(40).iter() {
        layers = match key {
            "general.architecture" => layers.key_string(key, b"bitnet"),
            "bitnet.attention.layer_norm_rms_epsilon" => {
                layers.keys.push((key.into(), 6, 1e-5_f32.to_le_bytes().to_vec()));
                layers
            }
            "bitnet.block_count" => layers.key_u32(key, 4096),
            "bitnet.rope.dimension_count" | "bitnet.embedding_length" => layers.key_u32(key, 8),
            "bitnet.rope.freq_base" => layers,
            _ => layers.key_u32(key, 1),
        };
    }
    let layers = layers.data(5000 * 32).bytes();
    let error = ModelConfig::from_gguf(&Gguf::parse(&layers).unwrap()).unwrap_err().to_string();
    assert!(error.contains("those of 4096 layers"), "{error}");
    assert_eq!(read_all(&layers), Ok(()));
    let keys = (0..50_000).map(|index| (name(index).into_bytes(), 0, vec![0])).collect();
    assert_eq!(read_all(&RawFile { keys, ..RawFile::default() }.bytes()), Ok(()));
    let empty_strings =
        [8_u32.to_le_bytes().to_vec(), 50_000_u64.to_le_bytes().to_vec(), vec![0; 400_000]].concat();
    let keys = vec![(b"words".to_vec(), 9, empty_strings)];
    assert_eq!(read_all(&RawFile { keys, ..RawFile::default() }.bytes()), Ok(()));
    let empty_array = [0_u8; 12].repeat(50_000);
    let nested = [9_u32.to_le_bytes().to_vec(), 50_000_u64.to_le_bytes().to_vec(), empty_array].concat();
    let keys = vec![(b"lists".to_vec(), 9, nested)];
    assert_eq!(read_all(&RawFile { keys, ..RawFile::default() }.bytes()), Ok(()));
}

#[test]
fn counts_that_lie_take_memory_in_proportion() {
    let n_bytes = 1 << 18;
    // From what could just be true to what could not.
    for count in [n_bytes / 32, n_bytes / 24, n_bytes / 12, n_bytes / 8, n_bytes / 4, n_bytes, 3 * n_bytes] {
        let lying =
            |n_tensors, n_keys| RawFile { n_tensors, n_keys, ..RawFile::default() }.data(n_bytes as usize);
        assert!(read_all(&lying(Some(count), None).bytes()).is_err(), "{count} tensors");
        assert!(read_all(&lying(None, Some(count)).bytes()).is_err(), "{count} keys");
        for element in 0..=12_u32 {
            let array = [element.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
            let keys = vec![(b"list".to_vec(), 9, array)];
            // Whole or not: the memory is asserted inside.
            let _ = read_all(&RawFile { keys, ..RawFile::default() }.data(n_bytes as usize).bytes());
        }
    }
}

#[test]
fn a_small_file_cut_anywhere_is_an_error() {
    let whole = small_file();
    assert_eq!(read_all(&whole), Ok(()));
    for length in 0..whole.len() {
        assert!(read_all(&whole[..length]).is_err(), "{length} of {} bytes were accepted", whole.len());
    }
}

#[test]
fn the_golden_file_cut_anywhere_in_its_header_is_an_error() {
    let whole = std::fs::read("tests/golden/tiny-i2s.gguf").unwrap();
    for length in (0..9568).chain((9568..whole.len()).step_by(997)) {
        assert!(Gguf::parse(&whole[..length]).is_err(), "{length} of {} bytes were accepted", whole.len());
    }
}

#[test]
fn changing_any_single_byte_does_no_harm() {
    let mut bytes = small_file();
    let mut refused = 0;
    for at in 0..bytes.len() {
        let original = bytes[at];
        let changes =
            [original ^ 0x80, 0xff, 0, original ^ 1, original.wrapping_add(1), original.wrapping_sub(1)];
        // Behind the header stand codes and scales only.
        for &changed in &changes[..if at < 2000 { 6 } else { 2 }] {
            bytes[at] = changed;
            refused += usize::from(read_all(&bytes).is_err());
        }
        bytes[at] = original;
    }
    assert!(refused > 1000, "only {refused} changes were noticed: the test does not reach the header");
}

#[test]
fn random_mutations_do_no_harm() {
    let golden = std::fs::read("tests/golden/tiny-i2s.gguf").unwrap();
    // The golden file's header with little data, so that thousands of its mutants take seconds.
    let corpus = [small_file(), golden[..12_000].to_vec(), RawFile::default().key_u32("a", 1).bytes()];
    let mut rng = Rng::for_part(42, "hostile gguf");
    let mut accepted = 0;
    for _ in 0..8000 {
        let mut bytes = corpus[rng.below(corpus.len() as u64) as usize].clone();
        for _ in 0..=rng.below(4) {
            mutate(&mut bytes, &mut rng);
        }
        accepted += usize::from(read_all(&bytes).is_ok());
    }
    assert!(accepted > 100, "only {accepted} mutants were accepted: the test does not get past the header");
}

/// One change of the kinds that break parsers: bits, lengths of interesting sizes, cuts, repetitions.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    // Half of the changes go to the first 2000 bytes, where the structure is.
    let reach = if rng.coin() { bytes.len().min(2000) } else { bytes.len() };
    let at = rng.below(reach as u64) as usize;
    match rng.below(5) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => {
            let length = bytes.len() as u64;
            let sizes = [0, 1, length - 1, length, length + 1, 1 << 31, 1 << 32, 1 << 60, 1 << 63, u64::MAX];
            let size = sizes[rng.below(sizes.len() as u64) as usize].to_le_bytes();
            let end = bytes.len().min(at + if rng.coin() { 8 } else { 4 });
            bytes[at..end].copy_from_slice(&size[..end - at]);
        }
        2 => bytes.truncate(at),
        3 => {
            let end = bytes.len().min(at + rng.below(64) as usize);
            bytes.drain(at..end);
        }
        _ => {
            let end = bytes.len().min(at + rng.below(64) as usize);
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}
