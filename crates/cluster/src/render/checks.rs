//! [`api::Check`] -> `[check.NAME]`. Equal checks share a table.

use super::section;
use crate::check_table::{Check, CheckType, Expect, Octets, Over, Tls};
use crate::read::{At, Section, Sections};
use crate::values::{Address, FilePath, Hex, Int, Many, Name, Short, Shortened as _, Status, Text, Time};
use api::{CheckKind, Exchange, Http, Rhythm, Transport};
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The checks of a file, with their names.
#[derive(Default)]
pub(crate) struct Checks {
    checks: IndexMap<api::Check, String>,
    names: HashSet<String>,
    /// Names that a file has for some already.
    known: HashMap<api::Check, String>,
}

impl Checks {
    /// With names that a file has already; of two for one check the first is used.
    pub(crate) fn known<'a>(known: impl Iterator<Item = (&'a str, &'a api::Check)>) -> Self {
        let mut checks = Self::default();
        for (name, check) in known {
            checks.names.insert(name.to_owned());
            checks.known.entry(check.clone()).or_insert_with(|| name.to_owned());
        }
        checks
    }

    /// The name of a check; its type, and a number if there are more of the type.
    pub(super) fn name(&mut self, check: &api::Check) -> Name {
        if let Some(name) = self.checks.get(check) {
            return Name(name.clone());
        }
        if let Some(name) = self.known.get(check) {
            self.checks.insert(check.clone(), name.clone());
            return Name(name.clone());
        }
        let kind = check.kind.name();
        let mut names = std::iter::once(kind.to_owned()).chain((2_u32..).map(|n| format!("{kind}-{n}")));
        let name = names.find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        self.checks.insert(check.clone(), name.clone());
        Name(name)
    }

    /// The names of several.
    pub(super) fn names(&mut self, checks: &[api::Check]) -> Many<Name> {
        Many::of(checks.iter().map(|check| self.name(check)))
    }

    /// Tables of those that were used.
    pub(super) fn sections(self) -> Option<Sections<Check>> {
        let sections: Vec<_> =
            self.checks.iter().map(|(check, name)| section(name.clone(), table(check))).collect();
        (!sections.is_empty()).then_some(Sections(sections))
    }

    /// Tables of those that were used and that the file has not yet.
    pub(crate) fn new_sections(&self) -> Vec<Section<Check>> {
        let new = self.checks.iter().filter(|(check, _)| !self.known.contains_key(*check));
        new.map(|(check, name)| section(name.clone(), table(check))).collect()
    }
}

/// A value, unless it is the default.
fn unless<T: PartialEq, V>(value: T, default: T, make: impl Fn(T) -> V) -> Option<At<V>> {
    (value != default).then(|| make(value).into())
}

fn text(text: &str, default: &str) -> Option<At<Text>> {
    unless(text, default, |text| Text(text.to_owned()))
}

fn table(check: &api::Check) -> Check {
    let api::Check { kind, address, port, rhythm } = check;
    let mut table = match kind {
        CheckKind::Tcp => Check::of(CheckType::Tcp),
        CheckKind::Ping => Check::of(CheckType::Ping),
        CheckKind::Load => Check::of(CheckType::Load),
        CheckKind::Path => Check::of(CheckType::Path),
        CheckKind::Exchange(exchange) => of_exchange(exchange),
        CheckKind::Http(http) => of_http(http),
        CheckKind::Smtp { hello, tls } => {
            Check { hello: text(hello, "localhost"), tls: of_tls(tls.as_ref()), ..Check::of(CheckType::Smtp) }
        }
        CheckKind::Dns { name, record, expect } => Check {
            name: text(name, "."),
            record: text(record, if name == "." { "NS" } else { "A" }),
            answer: text(expect, ""),
            ..Check::of(CheckType::Dns)
        },
        CheckKind::Program { command, user } => Check {
            command: Some(Many::of(command.iter().cloned().map(Text)).into()),
            user: text(user, "nobody"),
            ..Check::of(CheckType::Program)
        },
    };
    let default = Rhythm::default();
    table.address = address.map(|address| Address(address).into());
    table.port = port.map(|port| Int(port.into()).into());
    table.interval = unless(rhythm.interval_ms, default.interval_ms, Time);
    table.timeout = unless(rhythm.timeout_ms, default.timeout_ms, Time);
    table.rise = unless(rhythm.rise.into(), default.rise.into(), Int);
    table.fall = unless(rhythm.fall.into(), default.fall.into(), Int);
    table.jitter_percent = unless(rhythm.jitter_percent.into(), default.jitter_percent.into(), Int);
    table.grace = unless(rhythm.grace_ms, default.grace_ms, Time);
    table
}

fn of_tls(tls: Option<&api::Tls>) -> Option<At<Short<Tls>>> {
    let tls = tls?;
    let path = |path: &Path| At::from(FilePath(path.to_string_lossy().into_owned()));
    let table = Tls {
        on: None,
        name: tls.name.as_ref().map(|name| Text(name.clone()).into()),
        verify: tls.verify.then(|| true.into()),
        authorities: tls.authorities.as_deref().map(path),
        certificate: tls.certificate.as_deref().map(path),
        key: tls.key.as_deref().map(path),
    };
    let table = if table == Tls::default() { Tls::from_alone(true.into()) } else { table };
    Some(Short(table).into())
}

fn of_octets(octets: &api::Octets) -> At<Short<Octets>> {
    let table = match std::str::from_utf8(&octets.0) {
        Ok(text) => Octets { text: Some(Text(text.to_owned()).into()), hex: None },
        Err(_) => Octets { text: None, hex: Some(Hex(octets.0.clone()).into()) },
    };
    Short(table).into()
}

fn of_exchange(exchange: &Exchange) -> Check {
    let Exchange { over, send, expect } = exchange;
    let nothing = Expect { contains: None, begins: None, matches: None };
    let expect = match expect {
        api::Expect::Nothing => None,
        api::Expect::Begins(octets) => Some(Expect { begins: Some(of_octets(octets)), ..nothing }),
        api::Expect::Contains(octets) => Some(Expect { contains: Some(of_octets(octets)), ..nothing }),
        api::Expect::Matches(pattern) => {
            Some(Expect { matches: Some(Text(pattern.clone()).into()), ..nothing })
        }
    };
    let tls = match over {
        Transport::Tls(tls) => Some(tls),
        Transport::Tcp | Transport::Udp => None,
    };
    Check {
        over: (*over == Transport::Udp).then(|| Over::Udp.into()),
        tls: of_tls(tls),
        send: (!send.0.is_empty()).then(|| of_octets(send)),
        expect: expect.map(|expect| Short(expect).into()),
        ..Check::of(CheckType::Exchange)
    }
}

fn of_http(http: &Http) -> Check {
    let matches = |pattern: &String| {
        let matches = Some(Text(pattern.clone()).into());
        At::from(Short(Expect { contains: None, begins: None, matches }))
    };
    let status = Many::of(http.status.iter().map(|(low, high)| Status(*low, *high)));
    Check {
        version: unless(http.version.into(), 1, Int),
        tls: of_tls(http.tls.as_ref()),
        method: text(&http.method, "GET"),
        host: http.host.as_ref().map(|host| Text(host.clone()).into()),
        path: text(&http.path, "/"),
        status: unless(status, Many::of([Status(200, 299)]), |it| it),
        expect: http.body.as_ref().map(matches),
        digest: http.digest.as_ref().map(|digest| Text(digest.clone()).into()),
        ..Check::of(CheckType::Http)
    }
}
