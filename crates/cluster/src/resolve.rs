//! From the tables of the file to the model.
//!
//! ```text
//! text -> File -> (templates filled in, names looked up) -> Change -> plan::Model
//! ```
//!
//! What a change may be is decided by the model, here as in the director; a refusal becomes a finding at the place in
//! the file that the change came from.

mod checks;
mod marks;
mod names;
mod reals;
mod services;
mod templates;

pub(crate) use reals::tunnel_of;

use crate::file::{File, Policy, Timeouts};
use crate::finding::{FINDINGS_MAX, Finding, Lines, Severity, tidy};
use crate::read::{At, Reader, Record};
use api::{Change, RefusalKind, ServiceId};
use marks::MarkPlaces;
use plan::{Model, Options};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use toml::de::DeTable;

/// A file that was taken.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What it declares.
    pub model: Model,
    /// The services with the names they have in the file, in its order.
    pub names: Vec<(ServiceId, String)>,
    /// The directors, for hot standby.
    pub directors: Vec<DeclaredDirector>,
}

impl Cluster {
    /// The changes that make all of it out of a new model.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.model.to_changes().changes
    }
}

/// A director of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredDirector {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// The interfaces it balances on.
    pub interfaces: Vec<String>,
    /// Which goes first: the highest, 1 to 254.
    pub priority: u8,
}

/// What came of a file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it declares; `None` if there is an error.
    pub cluster: Option<Cluster>,
    /// Errors and warnings in the order of the file, at most [`crate::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

/// Reads a file whole and finds everything that is wrong with it. The options are those of the director it is for; only
/// their limits matter.
#[must_use]
pub fn parse(text: &str, options: &Options) -> Parsed {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let syntax = in_words(text, &errors);
    let mut reader = Reader { source: text, findings: Vec::new() };
    let file = File::read_table(tree.get_ref(), 0..0, &mut reader);
    let mut findings = reader.findings;
    let mut cluster = None;
    if let Some(file) = &file {
        let mut resolver = Resolver::new(file, text, options);
        resolver.resolve();
        // Where something is wrong, it may be what would use the rest.
        if syntax.is_empty() && findings.is_empty() && resolver.told.is_empty() {
            resolver.warn_of_unused();
            resolver.warn_of_nothing();
        }
        findings.append(&mut resolver.findings);
        cluster = Some(resolver.finish());
    }
    // Where the text itself is wrong, what was made of it says nothing.
    let apart = |finding: &Finding| {
        syntax.iter().all(|it| it.span.end < finding.span.start || finding.span.end < it.span.start)
    };
    findings.retain(apart);
    findings.extend(syntax);
    let findings = tidy(findings);
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    Parsed { cluster: cluster.filter(|_| !wrong), findings }
}

/// The tables of a text that was found to be good.
pub(crate) fn read(text: &str) -> Option<File> {
    let (tree, _) = DeTable::parse_recoverable(text);
    File::read_table(tree.get_ref(), 0..0, &mut Reader { source: text, findings: Vec::new() })
}

/// Where the text is no TOML.
pub(crate) fn syntax_errors(text: &str) -> Vec<Finding> {
    let (_, errors) = DeTable::parse_recoverable(text);
    in_words(text, &errors)
}

/// As many errors of the parser as are shown, and one more, so that it is told that there are more.
fn in_words(text: &str, errors: &[toml::de::Error]) -> Vec<Finding> {
    errors.iter().take(FINDINGS_MAX + 1).map(|error| syntax_error(text, error)).collect()
}

/// An error of the parser in the words of this house.
fn syntax_error(text: &str, error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or(text.len()..text.len());
    let at = text.get(span.clone()).unwrap_or_default();
    let message = error.message();
    if message == "duplicate key" {
        return Finding::error(span, format!("`{at}' stands here for the second time: keep one"));
    }
    // Words without quotes, which the parser takes for numbers that went wrong somewhere inside.
    let is_bare = message.starts_with("string values must be quoted")
        || ["float", "integer", "datetime", "boolean"]
            .iter()
            .any(|it| message.starts_with(&format!("invalid {it}")));
    if !is_bare {
        return Finding::error(span, message);
    }
    let is_end = |c: char| c.is_whitespace() || ",=[]{}#\"'".contains(c);
    let (before, after) =
        (text.get(..span.start).unwrap_or_default(), text.get(span.start..).unwrap_or_default());
    let start =
        before.rfind(is_end).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let end = span.start + after.find(is_end).unwrap_or(after.len());
    match text.get(start..end).unwrap_or_default() {
        "" => {
            let message = "a value is missing here: text in quotes, a number, true, false, or a list in [ ]";
            Finding::error(span, message)
        }
        word => {
            let message = format!("`{word}' is no value: text stands in quotes, as \"{word}\"");
            Finding::error(start..end, message)
        }
    }
}

/// The work on one file.
pub(crate) struct Resolver<'a> {
    file: &'a File,
    lines: Lines<'a>,
    findings: Vec<Finding>,
    /// Where an error was found.
    told: HashSet<(usize, usize)>,
    names: names::Names<'a>,
    pub(crate) checks: HashMap<&'a str, Option<api::Check>>,
    marks: MarkPlaces,
    /// A limit was reached.
    is_full: bool,
    /// Services that there are: the table they came from, and where it said so.
    taken: HashMap<ServiceId, (String, Range<usize>)>,
    /// In the order of the file.
    pub(crate) services: Vec<(ServiceId, String)>,
    pub(crate) model: Model,
}

impl<'a> Resolver<'a> {
    /// The work on a file that was found to be good.
    pub(crate) fn done(file: &'a File, text: &'a str, options: &Options) -> Self {
        let mut resolver = Self::new(file, text, options);
        resolver.resolve();
        resolver
    }

    fn new(file: &'a File, text: &'a str, options: &Options) -> Self {
        Self {
            file,
            lines: Lines::new(text),
            findings: Vec::new(),
            told: HashSet::new(),
            names: names::Names::default(),
            checks: HashMap::new(),
            marks: MarkPlaces::default(),
            is_full: false,
            taken: HashMap::new(),
            services: Vec::new(),
            model: Model::new(*options),
        }
    }

    fn resolve(&mut self) {
        let file = self.file;
        self.resolve_names();
        self.resolve_checks();
        if let Some(timeouts) = &file.timeouts {
            self.apply_timeouts(timeouts);
        }
        if let Some(policy) = &file.policy {
            self.apply_policy(policy);
        }
        for (name, at) in file.settings.iter().flat_map(|at| &at.value.0) {
            let change = Change::SetSetting { name: (*name).to_owned(), value: at.value };
            self.apply(&change, &at.span);
        }
        for (mark, matches) in file.marks.iter().flat_map(|at| &at.value.0) {
            for at in &matches.0 {
                self.add_mark(at.value.0, mark.value, &at.span);
            }
        }
        for section in file.service.iter().flat_map(|at| &at.value.0) {
            self.resolve_service(section);
        }
        self.warn_of_shadows();
    }

    /// An empty file is a good one, but more often what a program left that failed to write it.
    fn warn_of_nothing(&mut self) {
        if self.model.services().len() == 0 {
            self.warn(
                &(0..0),
                "no service is declared: applied, this file takes away every service there is",
            );
        }
    }

    fn finish(self) -> Cluster {
        let sections = self.file.director.iter().flat_map(|at| &at.value.0);
        let directors = sections.filter_map(|section| {
            let director = section.record.as_ref()?;
            let interfaces = director.interfaces.iter().flat_map(|at| at.value.values());
            Some(DeclaredDirector {
                name: section.name.value.clone(),
                addresses: director.address.value.values().map(|address| address.0).collect(),
                interfaces: interfaces.map(|text| text.0.clone()).collect(),
                priority: director.priority.as_ref().map_or(100, |at| at.value.byte()),
            })
        });
        let directors = directors.collect();
        Cluster { model: self.model, names: self.services, directors }
    }

    fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.told.insert((span.start, span.end));
        self.findings.push(Finding::error(span.clone(), message));
    }

    /// Whether an error was found there.
    fn is_told(&self, span: &Range<usize>) -> bool {
        self.told.contains(&(span.start, span.end))
    }

    fn warn(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let (severity, span, message) = (Severity::Warning, span.clone(), message.into());
        self.findings.push(Finding { severity, span, message });
    }

    /// Line of a place, for messages that name two.
    fn line(&self, span: &Range<usize>) -> usize {
        self.lines.place(span.start).line
    }

    /// Applies a change; a refusal is a finding there, unless there was one already: a service that was refused for one
    /// of its ports is so for all.
    fn apply(&mut self, change: &Change, span: &Range<usize>) -> bool {
        let Err(refusal) = self.model.apply(change) else { return true };
        // What does not fit any more is said once, not of all the rest of the file.
        let is_known = refusal.kind == RefusalKind::Limit && std::mem::replace(&mut self.is_full, true);
        if !is_known && !self.is_told(span) {
            let twice = if refusal.kind == RefusalKind::RealExists { ": keep one" } else { "" };
            self.error(span, refusal.message + twice);
        }
        false
    }

    fn apply_timeouts(&mut self, at: &At<Timeouts>) {
        let Timeouts { tcp, tcp_fin, udp } = &at.value;
        let timeouts = api::Timeouts {
            tcp_s: tcp.as_ref().map_or(0, |at| at.value.0),
            tcp_fin_s: tcp_fin.as_ref().map_or(0, |at| at.value.0),
            udp_s: udp.as_ref().map_or(0, |at| at.value.0),
        };
        self.apply(&Change::SetTimeouts { timeouts }, &at.span);
    }

    fn apply_policy(&mut self, at: &At<Policy>) {
        let Policy { gone, rescue, source_nat, placement } = &at.value;
        let choices = services::choices(gone, rescue, source_nat, placement);
        self.apply(&Change::SetPolicy { service: None, forget: true, choices }, &at.span);
    }
}
