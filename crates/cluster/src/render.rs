//! A model as a cluster file: `sluice save`, and what imports end in. Reading the text again makes an equal model.
//!
//! What only a file has is not in a model and so not in the text: templates, clusters, comments, names of servers; but for
//! what is [`Known`] of them from a file that was applied ([`crate::save`]). Services that differ in their VIPs and ports
//! alone share a table.

mod checks;
mod known;
mod services;

pub(crate) use checks::Checks;
pub(crate) use known::{Known, Servers};
pub(crate) use services::{
    Common, PortSet, common_of, item_texts, marks_of, own_port, ranges, services, table, unique,
};

use crate::file::{Director, File, Gone, Placement, Policy, Timeouts};
use crate::format::format;
use crate::read::{At, Record, Section, Sections, Value as _, write_key};
use crate::resolve::DeclaredDirector;
use crate::settings::{MarksTable, SettingsTable};
use crate::values::{Address, Int, Many, Match, Text, Time};
use api::{PolicyChoices, SETTINGS, ServiceId};
use indexmap::IndexMap;
use plan::Model;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// What a file has and a model has not.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Names of services; those without get one made of VIP and port.
    pub names: HashMap<ServiceId, String>,
    /// The directors.
    pub directors: Vec<DeclaredDirector>,
}

/// The model as a cluster file in its canonical layout.
#[must_use]
pub fn render(model: &Model, hints: &Hints) -> String {
    let names = hints.names.iter().map(|(id, name)| (*id, services::clean(name)));
    let known = Known { services: names.collect(), ..Known::default() };
    let rest = File { director: directors(&hints.directors).map(At::from), ..File::default() };
    render_with(model, known, rest)
}

/// The model as a cluster file that calls things by the names which are known, with the tables of `rest` that a model
/// knows nothing of.
pub(crate) fn render_with(model: &Model, mut known: Known, rest: File) -> String {
    let (services, marks) = services(model, model.marks(), &mut known, &mut HashSet::new(), |_| true);
    let file = File {
        timeouts: timeouts(model).map(At::from),
        settings: settings(model).map(At::from),
        policy: policy(model.default_policy_choices()).map(At::from),
        check: known.checks.sections().map(At::from),
        service: (!services.is_empty()).then(|| Sections(services).into()),
        marks: marks.map(At::from),
        ..rest
    };
    let text = text(&file);
    format(&text).unwrap_or(text)
}

/// A table of this name.
fn section<T>(name: String, record: T) -> Section<T> {
    Section { name: name.into(), broken: false, record: Some(record) }
}

pub(crate) fn timeouts(model: &Model) -> Option<Timeouts> {
    let (now, new) = (model.timeouts(), Model::new(*model.options()).timeouts());
    let changed = |now: u32, new: u32| (now != new).then(|| Time(now).into());
    let timeouts = Timeouts {
        tcp: changed(now.tcp_s, new.tcp_s),
        tcp_fin: changed(now.tcp_fin_s, new.tcp_fin_s),
        udp: changed(now.udp_s, new.udp_s),
    };
    (timeouts != Timeouts::default()).then_some(timeouts)
}

fn settings(model: &Model) -> Option<SettingsTable> {
    let changed = |setting: &api::Setting| {
        let value = model.setting(setting.name);
        (value != setting.default).then(|| (setting.name, At::from(value)))
    };
    let settings: Vec<_> = SETTINGS.iter().filter_map(changed).collect();
    (!settings.is_empty()).then_some(SettingsTable(settings))
}

pub(crate) fn policy(choices: PolicyChoices) -> Option<Policy> {
    let (gone, rescue, source_nat, placement) = policy_fields(choices);
    (!choices.is_empty()).then_some(Policy { gone, rescue, source_nat, placement })
}

type PolicyFields = (Option<At<Gone>>, Option<At<bool>>, Option<At<bool>>, Option<At<Placement>>);

fn policy_fields(choices: PolicyChoices) -> PolicyFields {
    let gone = choices.gone.map(|gone| match gone {
        api::Gone::Keep => Gone::Keep,
        api::Gone::Reschedule => Gone::Reschedule,
        api::Gone::Reset => Gone::Reset,
    });
    let placement = choices.placement.map(|placement| match placement {
        api::Placement::Keyed => Placement::Keyed,
        api::Placement::Exact => Placement::Exact,
    });
    (
        gone.map(At::from),
        choices.rescue.map(At::from),
        choices.source_nat.map(At::from),
        placement.map(At::from),
    )
}

fn directors(directors: &[DeclaredDirector]) -> Option<Sections<Director>> {
    let one = |director: &DeclaredDirector| {
        let interfaces = Many::of(director.interfaces.iter().cloned().map(Text));
        let record = Director {
            address: Many::of(director.addresses.iter().copied().map(Address)).into(),
            interfaces: (!interfaces.0.is_empty()).then(|| interfaces.into()),
            priority: (director.priority != 100).then(|| Int(director.priority.into()).into()),
        };
        section(director.name.clone(), record)
    };
    (!directors.is_empty()).then(|| Sections(directors.iter().map(one).collect()))
}

fn marks_table(marks: IndexMap<u32, Vec<Match>>) -> Option<MarksTable> {
    let table = marks.into_iter().map(|(mark, matches)| (mark.into(), Many::of(matches)));
    let table = MarksTable(table.collect());
    (!table.0.is_empty()).then_some(table)
}

/// The tables of a file, one after the other.
fn text(file: &File) -> String {
    let mut text = String::new();
    pairs(&mut text, "timeouts", file.timeouts.as_ref().map(|at| at.value.pairs()));
    let settings = file.settings.iter().flat_map(|at| &at.value.0);
    for (n, (name, at)) in settings.enumerate() {
        let header = if n == 0 { "[settings]\n" } else { "" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{header}{name} = {}", at.value);
    }
    pairs(&mut text, "policy", file.policy.as_ref().map(|at| at.value.pairs()));
    sections(&mut text, "director", file.director.as_ref());
    sections(&mut text, "server", file.server.as_ref());
    sections(&mut text, "cluster", file.cluster.as_ref());
    sections(&mut text, "check", file.check.as_ref());
    sections(&mut text, "template", file.template.as_ref());
    let marks = file.marks.iter().flat_map(|at| &at.value.0);
    for (n, (mark, matches)) in marks.enumerate() {
        let header = if n == 0 { "[marks]\n" } else { "" };
        let _ = writeln!(text, "{header}{} = {}", mark.value, matches.write());
    }
    sections(&mut text, "service", file.service.as_ref());
    text
}

fn sections<T: Record>(text: &mut String, table: &str, sections: Option<&At<Sections<T>>>) {
    for section in sections.iter().flat_map(|at| &at.value.0) {
        let header = format!("{table}.{}", write_key(&section.name.value));
        pairs(text, &header, section.record.as_ref().map(Record::pairs));
    }
}

fn pairs(text: &mut String, header: &str, pairs: Option<Vec<(&'static str, String)>>) {
    let Some(pairs) = pairs else { return };
    // Writing to a String does not fail.
    let _ = writeln!(text, "[{header}]");
    for (key, value) in pairs {
        let _ = writeln!(text, "{} = {value}", write_key(key));
    }
}
