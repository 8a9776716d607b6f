//! Which machine and builds a number belongs to: categories that decide speed, never readings that flicker.
//!
//! Two recordings whose fingerprints differ are not compared as if they came from one machine. Clock
//! frequencies and bogomips are left out on purpose: they differ between two readings of the same machine.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// CPU flags that change which kernel runs or how fast, as /proc/cpuinfo names them (x86, then arm64).
const ISA_OF_INTEREST: [&str; 25] = [
    "ssse3",
    "sse4_1",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "bmi2",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vbmi",
    "avx512_vnni",
    "avx_vnni",
    "avx_vnni_int8",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
];

/// Longest text kept of one field of a file that anybody may have written.
const MAX_FIELD_CHARS: usize = 128;

/// One compiler and how it was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compiler {
    /// `rust`, `c++`, `cuda`.
    pub language: String,
    /// `rustc`, `g++`, `clang++`.
    pub compiler: String,
    /// Its version.
    pub version: String,
    /// Flags that decide speed and rounding.
    pub flags: String,
    /// Optimisation level.
    pub opt_level: String,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The machine and the builds, in categories. Unknown texts are empty, unknown facts `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fingerprint {
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// `GenuineIntel`, `AuthenticAMD`, an ARM implementer code.
    pub cpu_vendor: String,
    /// Model name as the CPU states it; several, if the cores differ.
    pub cpu_model: String,
    /// Family and model numbers, `6/85`.
    pub cpu_family: String,
    /// Stepping.
    pub stepping: String,
    /// Logical CPUs.
    pub cores: u32,
    /// CPU flags that change which kernel runs, in a fixed order.
    pub isa: Vec<String>,
    /// Whether this is a virtual machine, as far as the CPU says.
    pub hypervisor: Option<bool>,
    /// First number of the kernel's version.
    pub kernel_major: Option<u32>,
    /// Frequency governor of CPU 0.
    pub governor: Option<String>,
    /// Compilers of all sides.
    pub compilers: Vec<Compiler>,
    /// GPU model and driver.
    pub gpu: Option<String>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Fingerprint {
    /// Reads this machine's categories; the builds come from the caller, who knows them.
    pub fn of_this_machine(compilers: Vec<Compiler>, gpu: Option<String>) -> Self {
        let read = |path: &str| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let cpu = read("/proc/cpuinfo").map(|text| parse_cpuinfo(&text)).unwrap_or_default();
        let visible_cpus = std::thread::available_parallelism().map_or(0, |n| n.get() as u32);
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cores: if cpu.cores > 0 { cpu.cores } else { visible_cpus },
            cpu_vendor: cpu.vendor,
            cpu_model: cpu.model,
            cpu_family: cpu.family,
            stepping: cpu.stepping,
            isa: cpu.isa,
            hypervisor: cpu.hypervisor,
            kernel_major: read("/proc/sys/kernel/osrelease").ok().and_then(|text| leading_number(&text)),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .ok()
                .map(|text| clean(&text))
                .filter(|text| !text.is_empty()),
            compilers,
            gpu,
            extra: Map::new(),
        }
    }

    /// A short name of all known fields, the same for equal fingerprints on every platform: the first 16 hex
    /// digits of the SHA-256 of their JSON array in the order of declaration. `extra` does not enter.
    pub fn id(&self) -> String {
        let compilers: Vec<[&str; 5]> = self
            .compilers
            .iter()
            .map(|c| [&c.language, &c.compiler, &c.version, &c.flags, &c.opt_level].map(String::as_str))
            .collect();
        let fields = serde_json::json!([
            self.os,
            self.arch,
            self.cpu_vendor,
            self.cpu_model,
            self.cpu_family,
            self.stepping,
            self.cores,
            self.isa,
            self.hypervisor,
            self.kernel_major,
            self.governor,
            compilers,
            self.gpu,
        ]);
        let digest = Sha256::digest(fields.to_string().as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What /proc/cpuinfo tells about the machine, in categories. Missing facts stay empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuFacts {
    /// Vendor, or ARM implementer code.
    pub vendor: String,
    /// Model name, or ARM part code; distinct ones joined by ` + `.
    pub model: String,
    /// `family/model` on x86, `architecture/variant` on ARM.
    pub family: String,
    /// Stepping on x86, revision on ARM.
    pub stepping: String,
    /// Processors listed.
    pub cores: u32,
    /// Flags of interest that every processor has.
    pub isa: Vec<String>,
    /// Whether the `hypervisor` flag is set; `None` where no flags are listed or the architecture has none.
    pub hypervisor: Option<bool>,
}

/// Reads the text of /proc/cpuinfo, x86 or ARM. Never fails: what is not there stays empty.
pub fn parse_cpuinfo(text: &str) -> CpuFacts {
    let fields: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(':').map(|(key, value)| (key.trim(), value.trim())))
        .collect();
    let distinct = |keys: &[&str]| {
        let mut values: Vec<String> =
            fields.iter().filter(|(key, _)| keys.contains(key)).map(|(_, value)| clean(value)).collect();
        values.sort();
        values.dedup();
        clean(&values.join(" + "))
    };
    let pair = |first: String, second: String| match (first.is_empty(), second.is_empty()) {
        (true, true) => String::new(),
        _ => format!("{first}/{second}"),
    };
    let flag_lists: Vec<Vec<&str>> = fields
        .iter()
        .filter(|(key, _)| *key == "flags" || *key == "Features")
        .map(|(_, value)| value.split_ascii_whitespace().collect())
        .collect();
    let everywhere =
        |flag: &str| !flag_lists.is_empty() && flag_lists.iter().all(|flags| flags.contains(&flag));
    let x86 = fields.iter().any(|(key, _)| *key == "flags");
    let cores = fields.iter().filter(|(key, _)| *key == "processor").count();
    CpuFacts {
        vendor: distinct(&["vendor_id", "CPU implementer"]),
        model: distinct(&["model name", "CPU part"]),
        family: pair(distinct(&["cpu family", "CPU architecture"]), distinct(&["model", "CPU variant"])),
        stepping: distinct(&["stepping", "CPU revision"]),
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        isa: ISA_OF_INTEREST.into_iter().filter(|flag| everywhere(flag)).map(str::to_owned).collect(),
        hypervisor: x86.then(|| everywhere("hypervisor")),
    }
}

/// One line of printable text of bounded length.
fn clean(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_FIELD_CHARS).collect()
}

fn leading_number(text: &str) -> Option<u32> {
    text.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests;
