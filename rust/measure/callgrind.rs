//! Instruction counts by callgrind: this process runs under valgrind, and talks to it.
//!
//! ```text
//! zero, collect on, n calls, collect off, dump under a label    one file, read and removed at once
//! ```
//!
//! Valgrind's client requests are a sequence of instructions that do nothing on a real CPU; under valgrind they are a call of
//! the tool. Counts come out through files only, so every count is a dump that carries its own label.
//! Source: valgrind's manual, 3.1 "The Client Request mechanism" and 6 "Callgrind"; `valgrind.h`, `callgrind.h`.

use std::path::{Path, PathBuf};

use super::counter::CountError;

/// `('C' << 24) | ('T' << 16)`: requests of callgrind.
const CALLGRIND: usize = 0x4354_0000;
const RUNNING_ON_VALGRIND: usize = 0x1001;
const ZERO_STATS: usize = CALLGRIND + 1;
const TOGGLE_COLLECT: usize = CALLGRIND + 2;
const DUMP_STATS_AT: usize = CALLGRIND + 3;
const START_INSTRUMENTATION: usize = CALLGRIND + 4;
const STOP_INSTRUMENTATION: usize = CALLGRIND + 5;

/// A dump of a few thousand functions has less than this.
const MAX_DUMP_BYTES: u64 = 64 << 20;

/// The file name below the folder of the dumps, as valgrind is told.
pub(super) const DUMP_NAME: &str = "count";

/// Whether this process runs under valgrind.
pub(super) fn running() -> bool {
    request(RUNNING_ON_VALGRIND, 0) != 0
}

/// Says something to valgrind; 0 outside of it and for requests without an answer.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn request(code: usize, argument: usize) -> usize {
    let arguments: [usize; 6] = [code, argument, 0, 0, 0, 0];
    let mut answer: usize = 0;
    // SAFETY: on a real CPU the sequence rotates a register by whole turns and exchanges or combines another with itself, so
    // nothing changes but the flags, which are not declared as preserved. Under valgrind it reads `arguments`, which lives
    // until after it, and writes the answer register alone. The one pointer that a request takes is to a text that ends
    // with a zero byte ([`dump`]).
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") answer,
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") arguments.as_ptr(),
            inout("x3") answer,
        );
    }
    answer
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn request(_code: usize, _argument: usize) -> usize {
    0
}

/// Counts by callgrind's dumps in one folder.
#[derive(Debug)]
pub(super) struct Callgrind {
    folder: PathBuf,
    dumps: u32,
}

impl Callgrind {
    /// The process must run under valgrind, told to write below `folder`.
    pub fn new(folder: &Path) -> Result<Self, CountError> {
        if running() {
            Ok(Self { folder: folder.to_owned(), dumps: 0 })
        } else {
            Err(CountError::Unavailable("this process does not run under valgrind".into()))
        }
    }

    /// Code runs several times slower from here on, and is understood.
    pub fn start(&self) {
        request(START_INSTRUMENTATION, 0);
    }

    /// Back to what valgrind costs at least.
    pub fn stop(&self) {
        request(STOP_INSTRUMENTATION, 0);
    }

    /// Instructions of `calls` calls and of the loop around them.
    pub fn count(&mut self, calls: u64, run: &mut dyn FnMut()) -> Result<u64, CountError> {
        self.dumps += 1;
        let label = format!("perfgate {}\0", self.dumps);
        request(ZERO_STATS, 0);
        request(TOGGLE_COLLECT, 0);
        for _ in 0..calls {
            run();
        }
        request(TOGGLE_COLLECT, 0);
        request(DUMP_STATS_AT, label.as_ptr() as usize);
        let path = self.folder.join(format!("{DUMP_NAME}.{}", self.dumps));
        let bad = |what: String| CountError::Dump { path: path.clone(), what };
        let length = std::fs::metadata(&path).map_err(|why| bad(why.to_string()))?.len();
        if length > MAX_DUMP_BYTES {
            return Err(bad(format!("has {length} bytes, expected at most {MAX_DUMP_BYTES}")));
        }
        let text = std::fs::read(&path).map_err(|why| bad(why.to_string()))?;
        let count = total(&String::from_utf8_lossy(&text), label.trim_end_matches('\0')).map_err(bad)?;
        std::fs::remove_file(&path).map_err(|why| CountError::Dump { path, what: why.to_string() })?;
        Ok(count)
    }
}

/// The total of a dump that was written for this label.
fn total(dump: &str, label: &str) -> Result<u64, String> {
    let trigger = dump.lines().find_map(|line| line.strip_prefix("desc: Trigger: "));
    let trigger = trigger.ok_or("holds no line `desc: Trigger: `, expected a dump of callgrind")?;
    if trigger.trim_end().strip_suffix(label).is_none_or(|before| !before.ends_with(' ')) {
        return Err(format!("was written for {trigger:?}, expected {label:?}"));
    }
    let events = dump.lines().find_map(|line| line.strip_prefix("events:")).map(str::trim);
    if events != Some("Ir") {
        return Err(format!("counts {:?}, expected \"Ir\"", events.unwrap_or_default()));
    }
    let totals = dump.lines().find_map(|line| line.strip_prefix("totals:"));
    let totals = totals.ok_or("holds no line `totals:`: it is not whole")?.trim();
    totals.parse().map_err(|_| format!("has totals {totals:?}, expected a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str =
        "version: 1\ndesc: Trigger: Client Request: perfgate 12\nevents: Ir\nsummary: 3\n\ntotals: 345\n";

    #[test]
    fn a_dump_is_read_by_its_own_label_only() {
        assert_eq!(total(DUMP, "perfgate 12"), Ok(345));
        for (text, label, words) in [
            (DUMP, "perfgate 2", "was written for"),
            (DUMP, "perfgate 1", "was written for"),
            ("", "perfgate 12", "expected a dump of callgrind"),
            (&DUMP[..60], "perfgate 12", "counts \"\""),
            (&DUMP[..82], "perfgate 12", "not whole"),
            (&DUMP.replace("Ir", "Ir Dr"), "perfgate 12", "counts \"Ir Dr\""),
            (&DUMP.replace("345", "-1"), "perfgate 12", "expected a number"),
            (&DUMP.replace("345", "99999999999999999999"), "perfgate 12", "expected a number"),
        ] {
            let error = total(text, label).expect_err(text);
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    /// Outside of valgrind nothing happens, and it says so.
    #[test]
    fn requests_do_nothing_on_a_real_cpu() {
        if !running() {
            let error = Callgrind::new(Path::new("/nowhere")).expect_err("no valgrind around this test");
            assert!(error.to_string().contains("does not run under valgrind"), "{error}");
            assert_eq!(request(ZERO_STATS, 0), 0);
        }
    }
}
