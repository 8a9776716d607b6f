//! The machine's ceilings: what no kernel passes. Measured once in a run, at the end of its first launch, when peak memory
//! has been read: the bytes that are read here are nobody's.
//!
//! ```text
//! for each number of threads
//!     for each cache level      every thread reads bytes of its own, which fit there and not one level nearer
//!     memory                    every thread its share of what cold workloads rotate over, piece after piece
//!     for each instruction set  int8 products and f32 products in registers
//! ```
//!
//! Of several ways to read the fastest counts, and of several repetitions the fastest one (`measure::fastest_call_ns`):
//! a ceiling is a maximum. What could not be measured, or was disturbed, is absent and named.

use crate::backends::ceilings::{self, Arithmetic, READ_BYTES, Read};
use crate::measure::{self, Cache, Pin};
use crate::record::{CeilingSetting, arithmetic_name, bandwidth_name};
use crate::team::Team;
use crate::workloads::COLD_BYTES;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// By name, in GB/s and GOP/s.
    pub values: BTreeMap<String, f64>,
    /// What with.
    pub setting: CeilingSetting,
    /// Names of those that are absent, and why.
    pub absent: Vec<(String, String)>,
}

/// Bytes of memory that a thread reads in a call.
const PIECE_BYTES: usize = 1 << 20;
/// Alignment of what is read.
const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES.is_multiple_of(READ_BYTES));
/// Rounds of arithmetic in a call.
const ROUNDS: u64 = 1000;

/// Measures the ceilings of each of these numbers of threads, in about a third of a second each. `pin`, if the calling
/// thread has one, is lifted where several threads work.
pub fn measure_ceilings(threads: &[usize], pin: Option<&Pin>) -> Ceilings {
    let machine = Machine {
        caches: measure::data_caches(),
        reads: ceilings::reads(),
        arithmetic: ceilings::arithmetic(),
        bytes: bytes_to_read(),
    };
    let mut found = Ceilings::default();
    if machine.caches.is_empty() {
        found.absent.push(("cache levels".into(), "the operating system does not tell their sizes".into()));
    }
    for &threads in threads {
        let free = pin.filter(|_| threads > 1).map(Pin::lifted);
        let team = team(threads);
        let mut rates = machine.rates(threads, team.as_ref().map_err(String::as_str));
        if threads > 1 && !scaled(&rates, threads as u32, &found) {
            let why =
                format!("{threads} threads computed no more than one: they did not run at the same time");
            rates.iter_mut().filter(|(_, rate)| rate.is_ok()).for_each(|(_, rate)| *rate = Err(why.clone()));
        }
        for (name, rate) in rates {
            match rate {
                Ok(rate) => drop(found.values.insert(name, rate)),
                Err(why) => found.absent.push((name, why)),
            }
        }
        drop(team);
        drop(free);
    }
    let Machine { caches, .. } = machine;
    found.setting = CeilingSetting { repetitions: measure::REPETITIONS, caches, ..CeilingSetting::default() };
    found
}

/// More arithmetic than one thread's, as a ratio, is what several threads do at least.
const LEAST_SCALING: f64 = 1.2;

/// Whether any arithmetic became faster by more threads; also where there is nothing to compare.
fn scaled(rates: &[(String, Rate)], threads: u32, found: &Ceilings) -> bool {
    let of = |name: &str| {
        let many = rates.iter().find(|(known, _)| *known == arithmetic_name(name, threads));
        Some((many?.1.as_ref().ok()?, found.values.get(&arithmetic_name(name, 1))?))
    };
    let mut ratios =
        ceilings::arithmetic().into_iter().filter_map(|one| of(one.name).map(|(n, one)| n / one)).peekable();
    ratios.peek().is_none() || ratios.any(|ratio| ratio >= LEAST_SCALING)
}

/// Threads that run at the same time.
fn team(threads: usize) -> Result<Team, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if threads > cpus {
        return Err(format!("{threads} threads need as many CPUs, {cpus} may be used"));
    }
    Team::new(threads).map_err(|why| format!("no {threads} threads: {why}"))
}

/// As many bytes as cold workloads rotate over, all written: what was never written is one page of zeros.
fn bytes_to_read() -> Result<Vec<u8>, String> {
    let (mut bytes, length) = (Vec::new(), COLD_BYTES + PAGE_BYTES);
    bytes.try_reserve_exact(length).map_err(|why| format!("no {length} bytes to read: {why}"))?;
    bytes.resize(length, 1);
    Ok(bytes)
}

/// What the ceilings are measured with.
struct Machine {
    caches: Vec<Cache>,
    reads: Vec<Read>,
    arithmetic: Vec<Arithmetic>,
    bytes: Result<Vec<u8>, String>,
}

type Rate = Result<f64, String>;

impl Machine {
    /// Every ceiling of a number of threads by name, or why there is none.
    fn rates(&self, threads: usize, team: Result<&Team, &str>) -> Vec<(String, Rate)> {
        let with_team = |rate: &dyn Fn(&Team) -> Rate| team.map_err(str::to_owned).and_then(rate);
        let n = threads as u32;
        let caches = self.caches.iter().enumerate().map(|(place, cache)| {
            (bandwidth_name(Some(cache.level), n), with_team(&|team| self.cache(team, place)))
        });
        let memory = (bandwidth_name(None, n), with_team(&|team| self.memory(team)));
        let arithmetic = self
            .arithmetic
            .iter()
            .map(|one| (arithmetic_name(one.name, n), with_team(&|team| operations(team, one))));
        caches.chain([memory]).chain(arithmetic).collect()
    }

    /// GB/s of one cache level, over all threads.
    fn cache(&self, team: &Team, place: usize) -> Rate {
        let own_bytes = own_bytes(&self.caches, place, team.threads())
            .ok_or("its share for a thread is hardly larger than a nearer cache")?;
        let parts = self.parts(team.threads())?;
        if parts.iter().any(|part| part.len() < own_bytes) {
            return Err(format!("{} threads would read more than {COLD_BYTES} bytes", team.threads()));
        }
        self.fastest(own_bytes * team.threads(), &|read, calls| {
            team.share(team.threads(), &|_, part| (0..calls).for_each(|_| read(&parts[part][..own_bytes])));
        })
    }

    /// GB/s of memory, over all threads: no piece comes back before the rest has passed.
    fn memory(&self, team: &Team) -> Rate {
        let parts = self.parts(team.threads())?;
        let largest = self.caches.last().map_or(0, |cache| cache.size_bytes);
        let pieces: Vec<Vec<&[u8]>> =
            parts.iter().map(|part| part.chunks_exact(PIECE_BYTES).collect()).collect();
        if largest >= COLD_BYTES as u64 || pieces.iter().any(Vec::is_empty) {
            return Err(format!("{COLD_BYTES} bytes are too few to pass the caches"));
        }
        let next: Vec<AtomicUsize> = pieces.iter().map(|_| AtomicUsize::new(0)).collect();
        self.fastest(PIECE_BYTES * team.threads(), &|read, calls| {
            team.share(team.threads(), &|_, part| {
                for _ in 0..calls {
                    let piece = next[part].fetch_add(1, Ordering::Relaxed);
                    read(pieces[part][piece % pieces[part].len()]);
                }
            });
        })
    }

    /// A part of the bytes for each thread, whole pages.
    fn parts(&self, threads: usize) -> Result<Vec<&[u8]>, String> {
        let bytes = self.bytes.as_ref().map_err(String::clone)?;
        let whole = &bytes[bytes.as_ptr().align_offset(PAGE_BYTES).min(bytes.len())..];
        let length = whole.len() / threads / PAGE_BYTES * PAGE_BYTES;
        Ok((0..threads).map(|part| &whole[part * length..][..length]).collect())
    }

    /// GB/s of the fastest way to read.
    fn fastest(&self, call_bytes: usize, run: &dyn Fn(&Read, u64)) -> Rate {
        let mut fastest = 0.0;
        for read in &self.reads {
            let call_ns = measure::fastest_call_ns(&mut |calls| run(read, calls));
            fastest = f64::max(fastest, call_bytes as f64 / call_ns.map_err(|why| why.to_string())?);
        }
        Ok(fastest)
    }
}

/// GOP/s of arithmetic, over all threads.
fn operations(team: &Team, arithmetic: &Arithmetic) -> Rate {
    let operations = (arithmetic.run)(ROUNDS) * team.threads() as u64;
    let call_ns = measure::fastest_call_ns(&mut |calls| {
        team.share(team.threads(), &|_, _| {
            (arithmetic.run)(calls * ROUNDS);
        });
    });
    Ok(operations as f64 / call_ns.map_err(|why| why.to_string())?)
}

/// Bytes that a thread reads again and again to read from a cache level and from none nearer: half of what it has there,
/// and not more than four times the next nearer one. `None` where that would not be twice the nearer one.
fn own_bytes(caches: &[Cache], place: usize, threads: usize) -> Option<usize> {
    let share = |cache: &Cache| match cache.level {
        // The two nearest levels are each core's own.
        1 | 2 => cache.size_bytes,
        _ => cache.size_bytes / threads as u64,
    };
    let nearer = place.checked_sub(1).map(|nearer| share(&caches[nearer]));
    let half = share(&caches[place]) / 2;
    let own = nearer.map_or(half, |nearer| half.min(4 * nearer));
    let enough = nearer.is_none_or(|nearer| own >= 2 * nearer);
    (enough && own >= PAGE_BYTES as u64).then(|| (own as usize) / PAGE_BYTES * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_lies_in_its_level_and_in_none_nearer() {
        let caches = |sizes: &[u64]| -> Vec<Cache> {
            (1..).zip(sizes).map(|(level, &kib)| Cache { level, size_bytes: kib << 10 }).collect()
        };
        let of = |sizes: &[u64], threads| -> Vec<Option<usize>> {
            let caches = caches(sizes);
            (0..caches.len())
                .map(|place| own_bytes(&caches, place, threads).map(|bytes| bytes >> 10))
                .collect()
        };
        assert_eq!(of(&[32, 512, 32 << 10], 1), [Some(16), Some(128), Some(2048)]);
        assert_eq!(of(&[48, 2048, 260 << 10], 2), [Some(24), Some(192), Some(8192)]);
        assert_eq!(of(&[32, 256], 4), [Some(16), Some(128)]);
        // Eight threads have 512 KB of it each, as much as in the level before it.
        assert_eq!(of(&[32, 512, 4096], 8), [Some(16), Some(128), None]);
        assert_eq!(of(&[4], 1), [None], "less than a page");
    }

    #[test]
    fn threads_that_took_turns_are_found_out() {
        let name = |threads| arithmetic_name("f32_fma_portable", threads);
        let mut found = Ceilings::default();
        let rates = |rate: f64| vec![(name(2), Ok(rate)), (bandwidth_name(None, 2), Ok(1.0))];
        assert!(scaled(&rates(10.0), 2, &found), "nothing to compare with");
        found.values.insert(name(1), 10.0);
        for (rate, expected) in [(10.1, false), (11.9, false), (12.1, true), (20.0, true)] {
            assert_eq!(scaled(&rates(rate), 2, &found), expected, "{rate}");
        }
        assert!(scaled(&[(name(2), Err("disturbed".into()))], 2, &found));
    }

    /// Complete or named, positive and finite: everything that does not depend on how fast or how busy this machine is.
    #[test]
    fn every_ceiling_of_this_machine_is_measured_or_named() {
        let too_many = 4096;
        let found = measure_ceilings(&[1, too_many], None);
        assert!(found.values.values().all(|rate| rate.is_finite() && *rate > 0.0), "{found:?}");
        let named: Vec<&String> =
            found.values.keys().chain(found.absent.iter().map(|(name, _)| name)).collect();
        let arithmetic = ceilings::arithmetic();
        let expected = measure::data_caches()
            .into_iter()
            .map(|cache| bandwidth_name(Some(cache.level), 1))
            .chain([bandwidth_name(None, 1)])
            .chain(
                arithmetic.iter().flat_map(|one| [1, too_many as u32].map(|n| arithmetic_name(one.name, n))),
            );
        for name in expected {
            assert_eq!(named.iter().filter(|known| ***known == name).count(), 1, "{name} in {named:?}");
        }
        assert!(found.absent.iter().all(|(_, why)| !why.is_empty()));
        let dram = bandwidth_name(None, too_many as u32);
        let why = &found.absent.iter().find(|(name, _)| *name == dram).expect("nobody has so many CPUs").1;
        assert!(why.contains("4096 threads need as many CPUs"), "{why}");
        assert_eq!(found.setting.repetitions, measure::REPETITIONS);
    }
}
