//! The report as Markdown, sections in the order of the source report. Names come from strangers' files: nothing in them
//! may start markup, break a table, end a code span or call somebody's attention.

use super::printable::printable;
use super::sections::{Item, MatrixRow, Report};
use std::fmt::Write;

/// The whole report.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, report);
    text
}

fn write_all(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "# {}\n", report.title)?;
    writeln!(out, "## Gate Decision: {}", report.decision)?;
    writeln!(out, "**Evidence**: {}\n", code(&report.evidence))?;
    writeln!(out, "{}\n", prose(&report.summary))?;
    items(out, &report.setting)?;
    writeln!(out, "\n## Neural Network Performance Summary")?;
    items(out, &report.performance)?;
    writeln!(out, "\n## Benchmark Results Matrix")?;
    writeln!(out, "| Component | Feature Flags | Baseline | Current | Delta | Status |")?;
    writeln!(out, "|-----------|---------------|----------|---------|-------|--------|")?;
    for row in &report.matrix {
        writeln!(out, "{}", matrix_row(row))?;
    }
    writeln!(out)?;
    for note in &report.matrix_notes {
        writeln!(out, "{}", prose(note))?;
    }
    writeln!(out, "\n## Commands Executed")?;
    match report.commands.as_slice() {
        [] => writeln!(out, "not recorded")?,
        commands => {
            let lines: Vec<String> = commands.iter().map(|line| printable(line)).collect();
            let fence = "`".repeat(longest_run(&lines.join("\n")).max(2) + 1);
            writeln!(out, "{fence}bash\n{}\n{fence}", lines.join("\n"))?;
        }
    }
    writeln!(out, "\n## Performance Analysis")?;
    items(out, &report.analysis)?;
    writeln!(out, "\n## Cross-Validation Status")?;
    items(out, &report.crossval)?;
    writeln!(out, "\n## Next Steps & Routing")?;
    items(out, &report.next)
}

fn items(out: &mut String, items: &[Item]) -> std::fmt::Result {
    items.iter().try_for_each(|item| writeln!(out, "- **{}**: {}", prose(&item.name), prose(&item.text)))
}

fn matrix_row(row: &MatrixRow) -> String {
    let status = match row.status {
        "PASS" => "✅ PASS",
        "FAIL" => "❌ FAIL",
        "NEUTRAL" => "⚠️ NEUTRAL",
        _ => "⏭️ SKIPPED",
    };
    let why = if row.status == "PASS" { String::new() } else { format!(": {}", row.reason) };
    let cells = [
        prose(&row.component),
        prose(&row.features),
        prose(&row.baseline),
        prose(&row.current),
        prose(&row.delta),
        format!("{status}{}", prose(&why)),
    ];
    format!("| {} |", cells.join(" | "))
}

/// The longest run of backticks.
fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A code span that holds the text, whatever backticks are in it.
fn code(text: &str) -> String {
    let text = printable(text);
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') || text.is_empty() { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// Text that is nothing but text: markup is escaped, `@name` calls nobody. Commands that a reason quotes in backticks
/// stay code.
fn prose(text: &str) -> String {
    let text = printable(text);
    let parts: Vec<&str> = text.split('`').collect();
    // An odd number of parts: every backtick has its partner.
    let paired = parts.len() % 2 == 1;
    let mut out = String::with_capacity(text.len() + 8);
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            out.push_str(if paired { "`" } else { "\\`" });
        }
        if paired && i % 2 == 1 {
            // Even inside code a bar ends a table's cell.
            out.push_str(&part.replace('|', "\\|"));
        } else {
            escape_into(&mut out, part);
        }
    }
    out
}

fn escape_into(out: &mut String, text: &str) {
    let mut before = ' ';
    for c in text.chars() {
        match c {
            '\\' | '*' | '<' | '>' | '|' | '#' | '[' | ']' | '~' | '!' => out.extend(['\\', c]),
            // Inside a word an underscore is no markup, and workloads are full of them.
            '_' if !before.is_alphanumeric() => out.push_str("\\_"),
            // An invisible word joiner keeps `@name` from calling somebody.
            '@' if !before.is_alphanumeric() => out.push_str("@\u{2060}"),
            '&' => out.push_str("&amp;"),
            _ => out.push(c),
        }
        before = c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_names_stay_names() {
        assert_eq!(prose("a|b"), "a\\|b");
        assert_eq!(prose("<img src=x> @all x@y"), "\\<img src=x\\> @\u{2060}all x@y");
        assert_eq!(prose("line\nbreak"), "line\\\\nbreak");
        assert_eq!(prose("i2_s _x_"), "i2_s \\_x_");
        assert_eq!(prose("try `run | tee`; *"), "try `run \\| tee`; \\*");
        assert_eq!(prose("one ` alone"), "one \\` alone");
        assert_eq!(code("a `b` c"), "``a `b` c``");
        assert_eq!(code("`b"), "`` `b ``");
        assert_eq!(code("plain"), "`plain`");
    }
}
