//! What is wrong with a file, where, and how it is shown.

use std::fmt::Write as _;
use std::ops::Range;

/// Findings that are reported; a file with more has another problem than the next one.
pub const FINDINGS_MAX: usize = 200;
/// Characters of a line that are shown beside a finding.
const SHOWN_MAX: usize = 160;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, but may not do what was meant.
    Warning,
}

impl Severity {
    /// The word that stands before the message.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: bytes of the file.
    pub span: Range<usize>,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A place for people: both numbers count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The lines of a file.
pub struct Lines<'a> {
    text: &'a str,
    /// Byte at which each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Looks for the lines once.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The place of a byte; past the end, that of the end.
    #[must_use]
    pub fn place(&self, byte: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..byte.min(self.text.len())).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    /// A line without its end, counted from 1.
    #[must_use]
    pub fn line(&self, number: usize) -> &'a str {
        let start = number.checked_sub(1).and_then(|at| self.starts.get(at));
        let line = start.and_then(|start| self.text.get(*start..)).unwrap_or_default();
        line.split('\n').next().unwrap_or_default().trim_end_matches('\r')
    }
}

impl Finding {
    /// Why a file is refused.
    pub(crate) fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span, message: message.into() }
    }

    /// `FILE:LINE:COLUMN: error: ...`, and the line with a mark below it.
    #[must_use]
    pub fn text(&self, file: &str, lines: &Lines) -> String {
        let Place { line, column } = lines.place(self.span.start);
        let mut text = format!("{file}:{line}:{column}: {}: {}\n", self.severity.name(), self.message);
        let shown: String = lines.line(line).chars().take(SHOWN_MAX).collect();
        if shown.trim().is_empty() || column > SHOWN_MAX {
            return text;
        }
        let end = lines.place(self.span.end.max(self.span.start));
        let until = if end.line == line { end.column } else { shown.chars().count() + 1 };
        let width = until.min(SHOWN_MAX).saturating_sub(column).max(1);
        let number = line.to_string();
        // Tabs stay tabs, so that the mark stands below what it means.
        let indent: String =
            shown.chars().take(column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
        // Writing to a String does not fail.
        let _ = writeln!(text, " {number} | {shown}");
        let _ = writeln!(text, " {:1$} | {indent}{2}", "", number.len(), "^".repeat(width));
        text
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self, file: &str, lines: &Lines) -> serde_json::Value {
        let (start, end) = (lines.place(self.span.start), lines.place(self.span.end));
        serde_json::json!({
            "file": file,
            "line": start.line,
            "column": start.column,
            "end_line": end.line,
            "end_column": end.column,
            "severity": self.severity.name(),
            "message": self.message,
        })
    }
}

/// Sorts findings by their place, drops what is said twice, and cuts the list.
pub(crate) fn tidy(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end, finding.severity));
    findings.dedup();
    // An error must not be cut away by warnings before it.
    if findings.len() > FINDINGS_MAX {
        findings.sort_by_key(|finding| finding.severity);
        findings.truncate(FINDINGS_MAX - 1);
        let span = findings.last().map_or(0..0, |last| last.span.clone());
        findings.push(Finding::error(span, "there are more, which are not shown: correct these first"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_line_and_a_mark_below() {
        let text = "a = 1\n\tb = \"äö\" # c\n";
        let at = text.find("\"ä").expect("there");
        let finding = Finding::error(at..at + "\"äö\"".len(), "found a string, expected a whole number");
        let lines = Lines::new(text);
        assert_eq!(
            finding.text("cluster.toml", &lines),
            "cluster.toml:2:6: error: found a string, expected a whole number\n \
             2 | \tb = \"äö\" # c\n   | \t    ^^^^\n"
        );
        assert_eq!(finding.json("f", &lines)["end_column"], 10);
    }

    #[test]
    fn a_finding_past_the_end_has_a_place() {
        let lines = Lines::new("a = 1\n");
        assert_eq!(lines.place(6), Place { line: 2, column: 1 });
        assert_eq!(lines.place(600), Place { line: 2, column: 1 });
        assert_eq!(Finding::error(6..6, "m").text("f", &lines), "f:2:1: error: m\n");
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let findings = (0..FINDINGS_MAX + 5).map(|at| Finding::error(at..at, "m")).collect();
        let findings = tidy(findings);
        assert_eq!(findings.len(), FINDINGS_MAX);
        assert_eq!(
            findings.last().map(|it| it.message.as_str()),
            Some("there are more, which are not shown: correct these first")
        );
    }
}
