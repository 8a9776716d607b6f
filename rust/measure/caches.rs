//! The data caches of this machine, as the operating system lists them.

use serde::{Deserialize, Serialize};

/// One level of data cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// 1 is the nearest to the CPU.
    pub level: u32,
    /// Its size; for a level that several CPUs share, of the whole.
    pub size_bytes: u64,
}

/// Entries of a CPU that are looked at: more than any CPU has.
const MOST_ENTRIES: usize = 16;

/// Data caches of the first CPU, the nearest first; empty where the operating system does not tell.
pub fn data_caches() -> Vec<Cache> {
    let entry = |index: usize| {
        let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
        parse(&read("level")?, &read("type")?, &read("size")?)
    };
    let mut caches: Vec<Cache> = (0..MOST_ENTRIES).filter_map(entry).collect();
    caches.sort_by_key(|cache| cache.level);
    caches.dedup_by_key(|cache| cache.level);
    caches
}

/// A cache that holds data, from the texts `1`, `Data`, `32K`.
fn parse(level: &str, kind: &str, size: &str) -> Option<Cache> {
    if !matches!(kind.trim(), "Data" | "Unified") {
        return None;
    }
    let size = size.trim();
    let digits = size.trim_end_matches(['K', 'M', 'G']);
    let unit: u64 = match &size[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    let size_bytes = digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)?;
    Some(Cache { level: level.trim().parse().ok().filter(|level| *level > 0)?, size_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_caches_are_read_and_nothing_else_is() {
        let cache = |level, size_bytes| Some(Cache { level, size_bytes });
        assert_eq!(parse("1\n", "Data\n", "32K\n"), cache(1, 32 << 10));
        assert_eq!(parse("3", "Unified", "266240K"), cache(3, 260 << 20));
        assert_eq!(parse("2", "Unified", "2M"), cache(2, 2 << 20));
        assert_eq!(parse("1", "Instruction", "32K"), None);
        for (level, size) in [
            ("x", "32K"),
            ("0", "32K"),
            ("1", ""),
            ("1", "K"),
            ("1", "0K"),
            ("1", "9KK"),
            ("1", "-1K"),
            ("1", "99999999999999999999G"),
        ] {
            assert_eq!(parse(level, "Data", size), None, "{level:?} {size:?}");
        }
    }

    #[test]
    fn levels_of_this_machine_grow_outwards() {
        let caches = data_caches();
        assert!(caches.windows(2).all(|pair| pair[0].level < pair[1].level));
        assert!(caches.iter().all(|cache| cache.size_bytes > 0));
    }
}
