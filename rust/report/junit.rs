//! The answers as JUnit XML, in the form that both the common schemas accept: `properties`, cases, `system-out`,
//! `system-err` in each suite, counts that add up, no time zone in `timestamp`.
//!
//! A rule, a condition on the evidence, an agreement and a judged comparison are one case each. `fail` is a failure;
//! `neutral`, and what no rule judges, is skipped with its reason: a runner that counts skipped cases as green is told
//! nothing false, because the case says what it is.

use super::printable::printable;
use crate::gate::Verdict;
use crate::gate::verdict::{Answer, Comparison};
use crate::record::{AgreementRow, Meter, Recording};
use std::fmt::Write;

struct Case {
    class: &'static str,
    name: String,
    seconds: f64,
    answer: Option<Answer>,
    reason: String,
}

/// The whole document.
pub fn render(recording: &Recording, verdict: &Verdict) -> String {
    let agreements = recording.agreements.iter().map(agreement).collect();
    let comparisons = verdict.comparisons.iter().filter(|c| c.verdict.is_some()).map(comparison).collect();
    let rules = verdict.rules.iter().map(|rule| Case {
        class: "rule",
        name: rule.name.clone(),
        seconds: 0.0,
        answer: rule.verdict,
        reason: rule.reason.clone(),
    });
    let conditions = verdict.validation.iter().map(|condition| Case {
        class: "evidence",
        name: condition.name.clone(),
        seconds: 0.0,
        answer: Some(if condition.ok { Answer::Pass } else { Answer::Neutral }),
        reason: condition.reason.clone(),
    });
    let whole = Case {
        class: "gate",
        name: "verdict".into(),
        seconds: 0.0,
        answer: Some(verdict.verdict),
        reason: verdict.evidence.clone(),
    };
    let suites: [(&str, Vec<Case>); 5] = [
        ("verdict", vec![whole]),
        ("rules", rules.collect()),
        ("evidence", conditions.collect()),
        ("agreement", agreements),
        ("speed", comparisons),
    ];
    let total = Counts::of(suites.iter().flat_map(|(_, cases)| cases));
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<testsuites name=\"bitnet_perfgate\" tests=\"{}\" failures=\"{}\" errors=\"0\" time=\"{}\">",
        total.tests,
        total.failures,
        seconds(total.seconds)
    );
    for (id, (name, cases)) in suites.iter().enumerate() {
        let _ = suite(&mut out, id, name, cases, recording, verdict);
    }
    out.push_str("</testsuites>\n");
    out
}

#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    skipped: usize,
    seconds: f64,
}

impl Counts {
    fn of<'a>(cases: impl Iterator<Item = &'a Case>) -> Self {
        let mut counts = Self::default();
        for case in cases {
            counts.tests += 1;
            counts.failures += usize::from(case.answer == Some(Answer::Fail));
            counts.skipped += usize::from(matches!(case.answer, None | Some(Answer::Neutral)));
            counts.seconds += case.seconds;
        }
        counts
    }
}

fn agreement(row: &AgreementRow) -> Case {
    let place = row.first_mismatch.as_ref().map_or(String::new(), |first| {
        format!("; first at {}: expected {}, got {}", first.index, first.expected, first.actual)
    });
    let cause = row.cause.as_deref().unwrap_or("cause unknown");
    let reason = match row.holds() {
        true => String::new(),
        false => format!("{cause}: {} of {} values differ{place}", row.mismatches, row.compared),
    };
    Case {
        class: "agreement",
        name: format!("{} on {}", row.workload, row.backend),
        seconds: 0.0,
        answer: Some(if row.holds() { Answer::Pass } else { Answer::Fail }),
        reason,
    }
}

fn comparison(comparison: &Comparison) -> Case {
    let meter = match comparison.meter {
        Meter::WallNs => String::new(),
        _ => format!(" ({})", comparison.meter.name()),
    };
    Case {
        class: "speed",
        name: format!(
            "{} on {} against {} {}{meter}",
            comparison.workload,
            comparison.subject,
            comparison.against.name(),
            comparison.other
        ),
        seconds: comparison.subject_ns.unwrap_or(0.0) / 1e9,
        answer: comparison.verdict,
        reason: comparison.reason.clone(),
    }
}

fn suite(
    out: &mut String,
    id: usize,
    name: &str,
    cases: &[Case],
    recording: &Recording,
    verdict: &Verdict,
) -> std::fmt::Result {
    let counts = Counts::of(cases.iter());
    let when = recording.created.to_string();
    writeln!(
        out,
        "  <testsuite id=\"{id}\" package=\"bitnet_perfgate\" name=\"{name}\" timestamp=\"{}\" hostname=\"localhost\" \
         tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{}\">",
        xml(when.trim_end_matches('Z')),
        counts.tests,
        counts.failures,
        counts.skipped,
        seconds(counts.seconds)
    )?;
    let machine = &recording.fingerprint;
    let properties = [
        ("verdict", verdict.verdict.name().to_owned()),
        ("evidence", verdict.evidence.clone()),
        ("tool", format!("bitnet_perfgate {} {}", recording.tool.version, recording.tool.git)),
        ("cpu", machine.cpu_model.clone()),
        ("platform", format!("{}-{}", machine.os, machine.arch)),
    ];
    writeln!(out, "    <properties>")?;
    for (key, value) in properties {
        writeln!(out, "      <property name=\"{key}\" value=\"{}\"/>", xml(&value))?;
    }
    writeln!(out, "    </properties>")?;
    for case in cases {
        test_case(out, case)?;
    }
    writeln!(out, "    <system-out/>\n    <system-err/>\n  </testsuite>")
}

fn test_case(out: &mut String, case: &Case) -> std::fmt::Result {
    let head = format!(
        "    <testcase classname=\"bitnet_perfgate.{}\" name=\"{}\" time=\"{}\"",
        case.class,
        xml(&case.name),
        seconds(case.seconds)
    );
    let reason = xml(&case.reason);
    match case.answer {
        Some(Answer::Pass) => writeln!(out, "{head}/>"),
        Some(Answer::Fail) => writeln!(
            out,
            "{head}>\n      <failure type=\"fail\" message=\"{reason}\">{reason}</failure>\n    </testcase>"
        ),
        Some(Answer::Neutral) => {
            writeln!(out, "{head}>\n      <skipped message=\"neutral: {reason}\"/>\n    </testcase>")
        }
        None => {
            writeln!(out, "{head}>\n      <skipped message=\"not judged: {reason}\"/>\n    </testcase>")
        }
    }
}

fn seconds(value: f64) -> String {
    format!("{value:.9}")
}

/// Text for an attribute or an element. XML 1.0 has no way to write most control characters, and none is in what is
/// printable.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::xml;

    #[test]
    fn text_stays_text() {
        assert_eq!(xml("a<b & \"c\"\u{1b}\n"), "a&lt;b &amp; &quot;c&quot;\\u{1b}\\n");
    }
}
