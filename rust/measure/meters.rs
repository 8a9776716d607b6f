//! The clocks and counters. What a platform does not offer is `None`, never a made-up number.

use std::sync::OnceLock;
use std::time::Instant;

/// Wall time in ns since the first call in this process (CLOCK_MONOTONIC on Linux, through [`Instant`]).
pub fn wall_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    // 2^64 ns are 584 years.
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// CPU time of the calling thread in ns (CLOCK_THREAD_CPUTIME_ID). Work on other threads is not in it.
#[cfg(target_os = "linux")]
pub fn thread_cpu_ns() -> Option<u64> {
    use nix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    let nanos = u64::try_from(time.tv_nsec()).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// CPU time of the calling thread in ns: not read on this platform.
#[cfg(not(target_os = "linux"))]
pub fn thread_cpu_ns() -> Option<u64> {
    None
}

/// Context switches of a thread since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// It waited for something.
    pub voluntary: u64,
    /// It was preempted.
    pub involuntary: u64,
}

/// Context switches of the calling thread (getrusage, RUSAGE_THREAD).
#[cfg(target_os = "linux")]
pub fn thread_switches() -> Option<Switches> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    Some(Switches {
        voluntary: u64::try_from(usage.voluntary_context_switches()).ok()?,
        involuntary: u64::try_from(usage.involuntary_context_switches()).ok()?,
    })
}

/// Context switches of the calling thread: not read on this platform.
#[cfg(not(target_os = "linux"))]
pub fn thread_switches() -> Option<Switches> {
    None
}

/// Peak resident memory of this process in bytes (VmHWM of /proc/self/status). It never falls.
pub fn peak_rss_bytes() -> Option<u64> {
    vm_hwm_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn vm_hwm_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Time the hypervisor took from all CPUs since boot, in clock ticks (usually 10 ms), from /proc/stat.
pub fn steal_ticks() -> Option<u64> {
    total_steal(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn total_steal(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal
    line.split_ascii_whitespace().nth(7)?.parse().ok()
}

/// The smallest step that the wall clock was seen to make, in ns; `None` if it stands still.
pub fn timer_resolution_ns() -> Option<u64> {
    observed_resolution_ns(wall_ns)
}

/// The smallest positive step in 1000 readings, or, if the clock is so coarse that there is none, the first
/// step of the next ten million.
pub(super) fn observed_resolution_ns(mut clock: impl FnMut() -> u64) -> Option<u64> {
    let mut last = clock();
    let mut smallest = None;
    for reading in 1..=10_000_000 {
        let now = clock();
        if now > last {
            smallest = Some(smallest.map_or(now - last, |least: u64| least.min(now - last)));
        }
        last = now;
        if reading >= 1000 && smallest.is_some() {
            break;
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_texts_are_read_and_hostile_ones_refused() {
        assert_eq!(vm_hwm_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        let bad = ["", "VmHWM:", "VmHWM: -1 kB", "VmHWM: 1 MB", "VmHWM: 99999999999999999999 kB"];
        for text in bad {
            assert_eq!(vm_hwm_bytes(text), None, "{text:?}");
        }
        assert_eq!(vm_hwm_bytes(&format!("VmHWM: {} kB", u64::MAX)), None, "overflow");
        assert_eq!(total_steal("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1\n"), Some(8));
        for text in ["", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"] {
            assert_eq!(total_steal(text), None, "{text:?}");
        }
    }

    #[test]
    fn resolution_is_the_smallest_positive_step() {
        let mut readings = [0, 0, 7, 7, 10, 10].into_iter().chain(std::iter::repeat(10));
        assert_eq!(observed_resolution_ns(|| readings.next().unwrap_or(10)), Some(3));
        assert_eq!(observed_resolution_ns(|| 5), None);
        let mut calls = 0_u64;
        let coarse = || {
            calls += 1;
            calls / 5000 * 16_000_000
        };
        assert_eq!(observed_resolution_ns(coarse), Some(16_000_000));
        assert!((1..1_000_000).contains(&timer_resolution_ns().expect("it moves")));
    }

    /// Working moves the CPU clock; sleeping moves the wall clock and the voluntary switches, and hardly the
    /// CPU clock.
    #[cfg(target_os = "linux")]
    #[test]
    fn clocks_tell_work_from_waiting() {
        let cpu = || thread_cpu_ns().expect("Linux has it");
        let start = cpu();
        let mut sum = 0_u64;
        while cpu() - start < 2_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        let (wall, worked) = (wall_ns(), cpu());
        let waits = thread_switches().expect("Linux has it").voluntary;
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(wall_ns() - wall >= 20_000_000);
        assert!(cpu() - worked < 10_000_000, "sleeping is not work");
        assert!(thread_switches().expect("Linux has it").voluntary > waits);
        assert!(peak_rss_bytes().expect("Linux has it") > 100_000);
    }
}
