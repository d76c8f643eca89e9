//! What an act expected and saw, as a transcript or as JSON lines.

use serde::Serialize;
use std::io::Write;

/// The end of an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Which act.
    pub act: String,
    /// What should have happened.
    pub expected: String,
    /// What happened.
    pub seen: String,
    /// Whether the two agree.
    pub ok: bool,
}

/// How outcomes are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A transcript for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Not at all: the screen shows them.
    Silent,
}

/// Prints outcomes to standard output as they come.
#[derive(Debug)]
pub struct Reporter {
    style: Style,
    count: usize,
}

impl Reporter {
    /// A reporter in this style.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { style, count: 0 }
    }

    /// Prints which act begins. JSON readers get its outcome only.
    pub fn begin(&mut self, name: &str, plan: &str) {
        self.count += 1;
        if self.style == Style::Text {
            print(&format!("{}. {name}: {plan}\n", self.count));
        }
    }

    /// Prints how the act that began last has ended.
    pub fn outcome(&self, outcome: &Outcome) {
        print(&render(self.style, outcome));
    }

    /// Prints a note; JSON readers get none, their lines are acts.
    pub fn note(&self, note: &str) {
        match self.style {
            Style::Text => print(&format!("{note}\n")),
            Style::Json => runtime::tell(note),
            Style::Silent => {}
        }
    }
}

/// A reader that went away must not stop the cleaning up, so its absence is ignored.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// One line for each part of a sentence, below each other.
fn in_lines(text: &str) -> String {
    text.replace("; ", "\n").replace('\n', "\n             ")
}

fn render(style: Style, outcome: &Outcome) -> String {
    match style {
        Style::Silent => String::new(),
        Style::Json => match serde_json::to_string(outcome) {
            Ok(line) => format!("{line}\n"),
            // Strings and a truth value always serialise.
            Err(error) => format!("{error}\n"),
        },
        Style::Text => format!(
            "   expected: {}\n   seen:     {}\n   {}\n\n",
            in_lines(&outcome.expected),
            in_lines(&outcome.seen),
            if outcome.ok { "ok" } else { "NOT AS EXPECTED" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            act: "balance".into(),
            expected: "a \"third\"".into(),
            seen: "half; whole".into(),
            ok: false,
        }
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = render(Style::Json, &outcome());
        assert_eq!(
            line,
            "{\"act\":\"balance\",\"expected\":\"a \\\"third\\\"\",\"seen\":\"half; whole\",\"ok\":false}\n"
        );
    }

    #[test]
    fn the_transcript_has_expectation_and_sight() {
        let text = render(Style::Text, &outcome());
        let expected =
            "   expected: a \"third\"\n   seen:     half\n             whole\n   NOT AS EXPECTED\n\n";
        assert_eq!(text, expected);
        assert_eq!(render(Style::Silent, &outcome()), "");
    }
}
