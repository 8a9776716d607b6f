//! One CPU for one launch: the least busy one at its start.
//!
//! Sides that alternate in one thread meet the same CPU anyway; pinning keeps a migration from falling between two
//! samples of a block. A pinned thread cannot flee a CPU that becomes busy, which is why the choice is made anew for
//! every launch, by what /proc/stat saw over 200 ms.

/// A thread on one CPU.
#[derive(Debug)]
pub struct Pin {
    cpu: u32,
    /// The CPUs that the thread might use before.
    #[cfg(target_os = "linux")]
    allowed: nix::sched::CpuSet,
}

impl Pin {
    /// The CPU.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Lets the calling thread, which is the pinned one, use all its CPUs again until the guard is dropped: for work on
    /// several threads, which start where the thread that starts them may run.
    pub fn lifted(&self) -> Lifted<'_> {
        self.allow_all();
        Lifted(self)
    }

    #[cfg(target_os = "linux")]
    fn allow_all(&self) {
        // Refused, the thread stays where it is; it could be there before.
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &self.allowed);
    }

    #[cfg(not(target_os = "linux"))]
    fn allow_all(&self) {}

    #[cfg(target_os = "linux")]
    fn allow_one(&self) {
        let mut only = nix::sched::CpuSet::new();
        if only.set(self.cpu as usize).is_ok() {
            let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &only);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn allow_one(&self) {}
}

/// While it lives, the pinned thread may use all its CPUs.
#[derive(Debug)]
pub struct Lifted<'a>(&'a Pin);

impl Drop for Lifted<'_> {
    fn drop(&mut self) {
        self.0.allow_one();
    }
}

/// Pins the calling thread to the least busy CPU that it may use, by `seed` among equals. `None`, and nothing changed,
/// where the platform has no such call or does not tell.
#[cfg(target_os = "linux")]
pub fn pin_to_least_busy_cpu(seed: u64) -> Option<Pin> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).ok()?;
    let before = busy_ticks(&std::fs::read_to_string("/proc/stat").ok()?);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let after = busy_ticks(&std::fs::read_to_string("/proc/stat").ok()?);
    let usable = |cpu: &u32| allowed.is_set(*cpu as usize).unwrap_or(false);
    let cpu = least_busy(&before, &after, usable, seed)?;
    let mut only = CpuSet::new();
    only.set(cpu as usize).ok()?;
    sched_setaffinity(this_thread, &only).ok()?;
    Some(Pin { cpu, allowed })
}

/// Pins the calling thread: not done on this platform.
#[cfg(not(target_os = "linux"))]
pub fn pin_to_least_busy_cpu(_seed: u64) -> Option<Pin> {
    None
}

/// CPU numbers and the ticks each has spent on anything but idling and waiting for input or output.
fn busy_ticks(stat: &str) -> Vec<(u32, u64)> {
    let cpu = |line: &str| {
        let mut fields = line.strip_prefix("cpu")?.split_ascii_whitespace();
        let number = fields.next().filter(|_| !line.starts_with("cpu "))?.parse().ok()?;
        let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        // user nice system idle iowait irq softirq steal
        let busy = ticks.iter().take(8).enumerate().filter(|(i, _)| *i != 3 && *i != 4);
        Some((number, busy.map(|(_, ticks)| ticks).sum()))
    };
    stat.lines().filter_map(cpu).collect()
}

fn least_busy(
    before: &[(u32, u64)],
    after: &[(u32, u64)],
    usable: impl Fn(&u32) -> bool,
    seed: u64,
) -> Option<u32> {
    let since = |cpu: u32| {
        let at =
            |ticks: &[(u32, u64)]| ticks.iter().find(|(number, _)| *number == cpu).map(|(_, ticks)| *ticks);
        Some(at(after)?.saturating_sub(at(before)?))
    };
    let known: Vec<(u64, u32)> = after
        .iter()
        .filter(|(cpu, _)| usable(cpu))
        .filter_map(|(cpu, _)| Some((since(*cpu)?, *cpu)))
        .collect();
    let least = known.iter().map(|(ticks, _)| *ticks).min()?;
    let equals: Vec<u32> = known.iter().filter(|(ticks, _)| *ticks == least).map(|(_, cpu)| *cpu).collect();
    Some(equals[(seed % equals.len() as u64) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_usable_cpu_is_chosen() {
        let before =
            "cpu  9 9 9 9\ncpu0 10 0 5 100 7 0 0 0\ncpu1 10 0 5 100 0 0 0 0\ncpu2 0 0 0 0 0 0 0 0\nintr 5\n";
        let after =
            "cpu  9 9 9 9\ncpu0 10 0 5 300 90 0 0 0\ncpu1 19 0 6 101 0 0 0 3\ncpu2 50 0 0 0 0 0 0 0\n";
        let (before, after) = (busy_ticks(before), busy_ticks(after));
        assert_eq!(before, [(0, 15), (1, 15), (2, 0)]);
        assert_eq!(after, [(0, 15), (1, 28), (2, 50)], "idle and iowait do not count, steal does");
        assert_eq!(least_busy(&before, &after, |_| true, 7), Some(0));
        assert_eq!(least_busy(&before, &after, |cpu| *cpu != 0, 7), Some(1));
        assert_eq!(least_busy(&before, &after, |_| false, 7), None);
        let both: Vec<Option<u32>> =
            (0..2).map(|seed| least_busy(&before, &before, |cpu| *cpu < 2, seed)).collect();
        assert_eq!(both, [Some(0), Some(1)], "the seed decides among equals");
        for hostile in ["", "cpu", "cpux 1 2", "cpu0 a b", "cpu99999999999 1"] {
            assert!(busy_ticks(hostile).is_empty(), "{hostile:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_is_pinned_and_its_neighbours_are_not() {
        let allowed = || nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("Linux tells");
        let count = |set: &nix::sched::CpuSet| {
            (0..nix::sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count()
        };
        let before = count(&allowed());
        std::thread::spawn(move || {
            let pin = pin_to_least_busy_cpu(1).expect("Linux pins");
            let pinned = || {
                assert!(allowed().is_set(pin.cpu() as usize).expect("a CPU"));
                assert_eq!(count(&allowed()), 1);
            };
            pinned();
            let lifted = pin.lifted();
            assert_eq!(count(&allowed()), before, "lifted, it may go everywhere again");
            drop(lifted);
            pinned();
        })
        .join()
        .expect("the thread ends well");
        assert_eq!(count(&allowed()), before);
    }
}
