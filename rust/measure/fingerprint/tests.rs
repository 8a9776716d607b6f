use super::*;

const X86: &str = "processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Processor @ 2.50GHz
stepping\t: 4
cpu MHz\t\t: 2499.998
flags\t\t: fpu avx avx2 fma f16c avx512f hypervisor
vmx flags\t: avx512_vnni
bogomips\t: 4999.99

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Processor @ 2.50GHz
stepping\t: 4
cpu MHz\t\t: 1200.000
flags\t\t: fpu avx avx2 fma f16c hypervisor
";

const ARM: &str = "processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimdhp asimddp sve
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
processor\t: 1
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd40
CPU revision\t: 1
";

fn of(text: &str) -> Fingerprint {
    let cpu = parse_cpuinfo(text);
    Fingerprint { cpu_model: cpu.model, stepping: cpu.stepping, isa: cpu.isa, ..Fingerprint::default() }
}

#[test]
fn x86_categories() {
    let cpu = parse_cpuinfo(X86);
    assert_eq!(cpu.vendor, "GenuineIntel");
    assert_eq!(cpu.model, "Intel(R) Xeon(R) Processor @ 2.50GHz");
    assert_eq!((cpu.family.as_str(), cpu.stepping.as_str(), cpu.cores), ("6/85", "4", 2));
    // avx512f is on one processor only, avx512_vnni not among the flags proper.
    assert_eq!(cpu.isa, ["avx", "avx2", "fma", "f16c"]);
    assert_eq!(cpu.hypervisor, Some(true));
    assert_eq!(parse_cpuinfo(&X86.replace("hypervisor", "")).hypervisor, Some(false));
}

#[test]
fn arm_categories() {
    let cpu = parse_cpuinfo(ARM);
    assert_eq!((cpu.vendor.as_str(), cpu.model.as_str()), ("0x41", "0xd0c + 0xd40"));
    assert_eq!((cpu.family.as_str(), cpu.stepping.as_str(), cpu.cores), ("8/0x3", "1", 2));
    assert_eq!(cpu.isa, ["asimd", "asimddp"]);
    assert_eq!(cpu.hypervisor, None, "ARM lists no such flag");
}

#[test]
fn readings_that_flicker_do_not_enter() {
    let later = X86.replace("2499.998", "3100.123").replace("4999.99", "5000.01");
    assert_eq!(parse_cpuinfo(&later), parse_cpuinfo(X86));
}

#[test]
fn every_known_field_enters_the_id_and_no_unknown_one() {
    let base = Fingerprint { isa: vec!["avx".into(), "avx2".into()], ..Fingerprint::default() };
    let text = || "x".to_owned();
    let compiler = Compiler { language: text(), ..Compiler::default() };
    let changed = [
        Fingerprint { os: text(), ..base.clone() },
        Fingerprint { arch: text(), ..base.clone() },
        Fingerprint { cpu_vendor: text(), ..base.clone() },
        Fingerprint { cpu_model: text(), ..base.clone() },
        Fingerprint { cpu_family: text(), ..base.clone() },
        Fingerprint { stepping: text(), ..base.clone() },
        Fingerprint { cores: 1, ..base.clone() },
        Fingerprint { isa: vec!["avx,avx2".into()], ..base.clone() },
        Fingerprint { hypervisor: Some(false), ..base.clone() },
        Fingerprint { kernel_major: Some(6), ..base.clone() },
        Fingerprint { governor: Some(text()), ..base.clone() },
        Fingerprint { compilers: vec![Compiler::default()], ..base.clone() },
        Fingerprint { compilers: vec![compiler], ..base.clone() },
        Fingerprint {
            compilers: vec![Compiler { opt_level: text(), ..Compiler::default() }],
            ..base.clone()
        },
        Fingerprint { gpu: Some(text()), ..base.clone() },
    ];
    let mut ids: Vec<String> = changed.iter().map(Fingerprint::id).collect();
    ids.push(base.id());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), changed.len() + 1, "two different fingerprints have one id");
    let mut extended = base.clone();
    extended.extra.insert("later".into(), Value::from(1));
    assert_eq!(extended.id(), base.id());
}

/// The id names folders of stored baselines: it must not change between versions of this tool.
#[test]
fn id_is_stable() {
    let fingerprint = Fingerprint { cores: 2, kernel_major: Some(6), ..of(X86) };
    let canonical = r#"["","","","Intel(R) Xeon(R) Processor @ 2.50GHz","","4",2,["avx","avx2","fma","f16c"],null,6,null,[],null]"#;
    let digest = Sha256::digest(canonical.as_bytes());
    let expected: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(fingerprint.id(), expected);
    assert_eq!(fingerprint.id(), "04a3bfce8a6a7d1c");
}

#[test]
fn hostile_texts_give_bounded_clean_facts() {
    let long = format!("model name: {}\n", "x".repeat(1 << 20));
    assert_eq!(parse_cpuinfo(&long).model.chars().count(), MAX_FIELD_CHARS);
    let many: String = (0..5000).map(|i| format!("processor: {i}\nmodel name: cpu{i}\n")).collect();
    let cpu = parse_cpuinfo(&many);
    assert_eq!((cpu.cores, cpu.model.chars().count()), (5000, MAX_FIELD_CHARS));
    let control = parse_cpuinfo("model name: a\u{1b}[31m\u{0}b\u{7f}\nflags:\n");
    assert_eq!(control.model, "a [31m b");
    assert_eq!((control.isa.len(), control.hypervisor), (0, Some(false)));
    for text in ["", ":", ":::\n:\n", "\u{0}", "processor", "\r\n\r\n", "model name"] {
        assert_eq!(parse_cpuinfo(text), CpuFacts::default(), "{text:?}");
    }
    assert_eq!(parse_cpuinfo("cpu family: 6\n").family, "6/");
}

#[test]
fn kernel_major_is_the_first_number() {
    assert_eq!(leading_number("6.18.44-fc\n"), Some(6));
    assert_eq!(leading_number("Linux"), None);
    assert_eq!(leading_number("99999999999.1"), None);
}

#[cfg(target_os = "linux")]
#[test]
fn this_machine_has_one() {
    let compilers = vec![Compiler { compiler: "rustc".into(), opt_level: "3".into(), ..Compiler::default() }];
    let fingerprint = Fingerprint::of_this_machine(compilers, None);
    assert_eq!(fingerprint.os, "linux");
    assert!(fingerprint.cores >= 1 && fingerprint.kernel_major.is_some());
    assert_eq!(fingerprint.id().len(), 16);
    let text = serde_json::to_string(&fingerprint).expect("serialises");
    let back: Fingerprint = serde_json::from_str(&text).expect("reads back");
    assert_eq!((back.id(), &back), (fingerprint.id(), &fingerprint));
}
