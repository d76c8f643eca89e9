//! A model as the cluster file it came from: `sluice save`.
//!
//! ```text
//! model + text of the file applied last -> what differs -> text, changed where it differs and nowhere else
//! ```
//!
//! A file says more than a model has: names of servers, templates, clusters, comments, an order. So the text that was applied
//! is kept, and what was changed since by hand is written into it, plainly, with a comment on top that lists it. Three ways
//! are tried, from the one that keeps most: the text changed in place; all written anew with the names of the file; all
//! written anew. Each is read again before it counts, so what is saved always says what holds.

mod document;
mod drift;
mod edit;
mod named;

use crate::render::{self, Hints};
use crate::resolve::parse;
use api::{AppliedFile, PlanLine};
use plan::{Model, describe, difference};
use std::fmt::Write as _;

/// How the comment on top begins, by which an earlier one is known.
const MARK: &str = "# Saved by sluice: ";
/// Lines that say what was changed.
const LINES_MAX: usize = 40;

/// The model as a cluster file: the text of the file that was applied last, where the model is still as it says.
#[must_use]
pub fn save(model: &Model, applied: Option<&AppliedFile>) -> String {
    let plain = || render::render(model, &Hints::default());
    let Some(applied) = applied else { return plain() };
    let AppliedFile { generation, source, text } = applied;
    let Some(base) = parse(text, model.options()).cluster else {
        let why = format!(
            "configuration {generation} ({source}) cannot be read any more,\n# so its names and templates are not here"
        );
        return headed(&format!("{MARK}{why}\n"), &plain());
    };
    if difference(model, &base.model).is_empty() {
        return text.clone();
    }
    let says_the_same = |text: &String| {
        let read = parse(text, model.options()).cluster;
        read.is_some_and(|it| difference(model, &it.model).is_empty())
    };
    let lines = describe(&base.model, &difference(&base.model, model), |_, _| 0).lines;
    let body = without_header(text);
    let (lost, text) = match edit::edited(&body, model).filter(says_the_same) {
        Some(text) => ("", text),
        None => match named::named(&body, model).filter(says_the_same) {
            Some(text) => {
                ("# These could not be written into it; its templates and comments are not here.\n", text)
            }
            None => {
                ("# These could not be written into it; its names and templates are not here.\n", plain())
            }
        },
    };
    headed(&header(applied, &lines, lost), &text)
}

/// What the file is, and what was changed since it was applied.
fn header(applied: &AppliedFile, lines: &[PlanLine], lost: &str) -> String {
    let AppliedFile { generation, source, .. } = applied;
    let source: String = source.chars().filter(|c| !c.is_control()).collect();
    let mut header =
        format!("{MARK}configuration {generation} ({source}), with what was changed since\n{lost}");
    for PlanLine { action, level, text } in lines.iter().take(LINES_MAX) {
        let (indent, sign) = (usize::from(*level) * 4, action.sign());
        // What is quoted in a line may be of more than one.
        let text = text.replace(char::is_control, " ");
        // Writing to a String does not fail.
        let _ = writeln!(header, "# {:indent$}{sign} {text}", "");
    }
    if let Some(more @ 1..) = lines.len().checked_sub(LINES_MAX) {
        let _ = writeln!(header, "# and {more} more");
    }
    header
}

/// A line for editors, which only counts as the first one, and the rest.
fn split(text: &str) -> (&str, &str) {
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    if first.starts_with("#:schema") { text.split_at(first.len()) } else { ("", text) }
}

/// With a comment on top.
fn headed(header: &str, text: &str) -> String {
    let (first, rest) = split(text);
    let gap = if rest.starts_with('\n') { "" } else { "\n" };
    format!("{first}{header}{gap}{rest}")
}

/// Without the comment on top of an earlier save, which would be about what was applied.
fn without_header(text: &str) -> String {
    let (first, rest) = split(text);
    if !rest.starts_with(MARK) {
        return text.to_owned();
    }
    let end = rest.split_inclusive('\n').take_while(|line| line.starts_with('#')).map(str::len).sum();
    let rest = rest.get(end..).unwrap_or_default();
    format!("{first}{}", rest.strip_prefix('\n').unwrap_or(rest))
}
