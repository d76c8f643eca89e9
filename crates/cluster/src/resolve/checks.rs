//! `[check.NAME]` -> [`api::Check`].

use super::Resolver;
use crate::check_table::{Check, CheckType, Expect, Octets, Over, Tls};
use crate::finding::Finding;
use crate::read::{At, Section, Word, one_of};
use crate::values::{Short, Text};
use api::{CheckKind, Exchange, Http, Rhythm, Transport};
use std::ops::Range;
use std::path::PathBuf;

impl Resolver<'_> {
    /// Makes every check once, so that what is wrong with one is said once.
    pub(super) fn resolve_checks(&mut self) {
        for section in self.file.check.iter().flat_map(|at| &at.value.0) {
            let check = section.record.as_ref().and_then(|check| self.resolve_check(section, check));
            self.checks.insert(&section.name.value, check);
        }
    }

    fn resolve_check(&mut self, section: &Section<Check>, check: &Check) -> Option<api::Check> {
        let mut wrong = Vec::new();
        strangers(check, &mut wrong);
        let kind = kind(check, &mut wrong);
        let made = api::Check {
            kind,
            address: check.address.as_ref().map(|at| at.value.0),
            port: check.port.as_ref().map(|at| at.value.short()),
            rhythm: rhythm(check),
        };
        if wrong.is_empty()
            && !section.broken
            && let Err(message) = plan::health_check(&made)
        {
            wrong.push(Finding::error(blamed(check, &message, &section.name.span), message));
        }
        let good = wrong.is_empty() && !section.broken;
        self.findings.append(&mut wrong);
        good.then_some(made)
    }
}

/// A key, where it stands if it does, and the types of checks that it is for.
type Key = (&'static str, Option<Range<usize>>, &'static [CheckType]);

/// Keys that say nothing to a check of this type.
fn strangers(check: &Check, wrong: &mut Vec<Finding>) {
    use CheckType::{Dns, Exchange, Http, Program, Smtp};
    fn of<T>(field: &Option<At<T>>) -> Option<Range<usize>> {
        field.as_ref().map(|at| at.span.clone())
    }
    let keys: [Key; 16] = [
        ("tls", of(&check.tls), &[Exchange, Http, Smtp]),
        ("over", of(&check.over), &[Exchange]),
        ("send", of(&check.send), &[Exchange]),
        ("expect", of(&check.expect), &[Exchange, Http]),
        ("version", of(&check.version), &[Http]),
        ("method", of(&check.method), &[Http]),
        ("host", of(&check.host), &[Http]),
        ("path", of(&check.path), &[Http]),
        ("status", of(&check.status), &[Http]),
        ("digest", of(&check.digest), &[Http]),
        ("hello", of(&check.hello), &[Smtp]),
        ("name", of(&check.name), &[Dns]),
        ("record", of(&check.record), &[Dns]),
        ("answer", of(&check.answer), &[Dns]),
        ("command", of(&check.command), &[Program]),
        ("user", of(&check.user), &[Program]),
    ];
    let own = check.r#type.value;
    for (key, span, types) in keys {
        let Some(span) = span.filter(|_| !types.contains(&own)) else { continue };
        let types = one_of(types.iter().map(|it| it.word()));
        let message =
            format!("`{key}' says nothing to a check of type \"{}\": it is for {types}", own.word());
        wrong.push(Finding::error(span, message));
    }
}

/// The key whose value the message quotes, or else the whole check.
fn blamed(check: &Check, message: &str, whole: &Range<usize>) -> Range<usize> {
    let matches = check.expect.as_ref().and_then(|at| at.value.0.matches.as_ref());
    let tls_name = check.tls.as_ref().and_then(|at| at.value.0.name.as_ref());
    let texts = [
        check.path.as_ref(),
        check.method.as_ref(),
        check.host.as_ref(),
        check.digest.as_ref(),
        check.hello.as_ref(),
        check.name.as_ref(),
        check.record.as_ref(),
        check.user.as_ref(),
        matches,
        tls_name,
    ];
    let quoted = |at: &&At<Text>| message.contains(&format!("`{}'", at.value.0));
    texts.into_iter().flatten().find(quoted).map_or_else(|| whole.clone(), |at| at.span.clone())
}

fn rhythm(check: &Check) -> Rhythm {
    let default = Rhythm::default();
    Rhythm {
        interval_ms: check.interval.as_ref().map_or(default.interval_ms, |at| at.value.0),
        timeout_ms: check.timeout.as_ref().map_or(default.timeout_ms, |at| at.value.0),
        rise: check.rise.as_ref().map_or(default.rise, |at| at.value.short()),
        fall: check.fall.as_ref().map_or(default.fall, |at| at.value.short()),
        jitter_percent: check.jitter_percent.as_ref().map_or(default.jitter_percent, |at| at.value.byte()),
        grace_ms: check.grace.as_ref().map_or(default.grace_ms, |at| at.value.0),
    }
}

fn text(field: &Option<At<Text>>) -> Option<String> {
    field.as_ref().map(|at| at.value.0.clone())
}

fn kind(check: &Check, wrong: &mut Vec<Finding>) -> CheckKind {
    match check.r#type.value {
        CheckType::Tcp => CheckKind::Tcp,
        CheckType::Ping => CheckKind::Ping,
        CheckType::Load => CheckKind::Load,
        CheckType::Path => CheckKind::Path,
        CheckType::Exchange => CheckKind::Exchange(exchange(check, wrong)),
        CheckType::Http => CheckKind::Http(http(check, wrong)),
        CheckType::Smtp => CheckKind::Smtp {
            hello: text(&check.hello).unwrap_or_else(|| "localhost".to_owned()),
            tls: tls(check),
        },
        CheckType::Dns => {
            let name = text(&check.name).unwrap_or_else(|| ".".to_owned());
            let record = if name == "." { "NS" } else { "A" };
            CheckKind::Dns {
                record: text(&check.record).unwrap_or_else(|| record.to_owned()),
                expect: text(&check.answer).unwrap_or_default(),
                name,
            }
        }
        CheckType::Program => {
            let command = check.command.iter().flat_map(|at| at.value.values());
            CheckKind::Program {
                command: command.map(|word| word.0.clone()).collect(),
                user: text(&check.user).unwrap_or_else(|| "nobody".to_owned()),
            }
        }
    }
}

fn tls(check: &Check) -> Option<api::Tls> {
    let tls: &Tls = &check.tls.as_ref()?.value.0;
    let path =
        |field: &Option<At<crate::values::FilePath>>| field.as_ref().map(|at| PathBuf::from(&at.value.0));
    tls.on.as_ref().is_none_or(|at| at.value).then(|| api::Tls {
        name: text(&tls.name),
        verify: tls.verify.as_ref().is_some_and(|at| at.value),
        authorities: path(&tls.authorities),
        certificate: path(&tls.certificate),
        key: path(&tls.key),
    })
}

fn exchange(check: &Check, wrong: &mut Vec<Finding>) -> Exchange {
    let over = match (check.over.as_ref().map(|at| at.value), tls(check)) {
        (Some(Over::Udp), Some(_)) => {
            let span = check.tls.as_ref().map_or(0..0, |at| at.span.clone());
            wrong.push(Finding::error(span, "TLS goes over TCP: leave out `tls', or `over = \"udp\"'"));
            Transport::Udp
        }
        (Some(Over::Udp), None) => Transport::Udp,
        (_, Some(tls)) => Transport::Tls(tls),
        (_, None) => Transport::Tcp,
    };
    let send = check.send.as_ref().map(|at| octets(at, wrong)).unwrap_or_default();
    let expect = check.expect.as_ref().map_or(api::Expect::Nothing, |at| expect(at, wrong));
    Exchange { over, send, expect }
}

fn octets(at: &At<Short<Octets>>, wrong: &mut Vec<Finding>) -> api::Octets {
    match (&at.value.0.text, &at.value.0.hex) {
        (Some(text), None) => api::Octets(text.value.0.clone().into_bytes()),
        (None, Some(hex)) => api::Octets(hex.value.0.clone()),
        (None, None) | (Some(_), Some(_)) => {
            wrong.push(Finding::error(at.span.clone(), "bytes are given by one of `text' and `hex'"));
            api::Octets::default()
        }
    }
}

fn expect(at: &At<Short<Expect>>, wrong: &mut Vec<Finding>) -> api::Expect {
    match &at.value.0 {
        Expect { contains: Some(bytes), begins: None, matches: None } => {
            api::Expect::Contains(octets(bytes, wrong))
        }
        Expect { contains: None, begins: Some(bytes), matches: None } => {
            api::Expect::Begins(octets(bytes, wrong))
        }
        Expect { contains: None, begins: None, matches: Some(text) } => {
            api::Expect::Matches(text.value.0.clone())
        }
        _ => {
            let message = "what is expected is given by one of `contains', `begins' and `matches'";
            wrong.push(Finding::error(at.span.clone(), message));
            api::Expect::Nothing
        }
    }
}

fn http(check: &Check, wrong: &mut Vec<Finding>) -> Http {
    let body = check.expect.as_ref().and_then(|at| match &at.value.0 {
        Expect { contains: None, begins: None, matches: Some(text) } => Some(text.value.0.clone()),
        Expect { contains: Some(bytes), begins: None, matches: None } => {
            match bytes.value.0.text.as_ref().filter(|_| bytes.value.0.hex.is_none()) {
                Some(text) => Some(escaped(&text.value.0)),
                None => {
                    let message = "the body of a page is text: give `text', or `matches'";
                    wrong.push(Finding::error(bytes.span.clone(), message));
                    None
                }
            }
        }
        _ => {
            let message = "what the body must have is given by one of `contains' and `matches'";
            wrong.push(Finding::error(at.span.clone(), message));
            None
        }
    });
    let status = check.status.as_ref().map(|at| at.value.values().map(|it| (it.0, it.1)).collect());
    Http {
        version: check.version.as_ref().map_or(1, |at| at.value.byte()),
        tls: tls(check),
        method: text(&check.method).unwrap_or_else(|| "GET".to_owned()),
        host: text(&check.host),
        path: text(&check.path).unwrap_or_else(|| "/".to_owned()),
        status: status.unwrap_or_else(|| vec![(200, 299)]),
        body,
        digest: text(&check.digest),
    }
}

/// A regular expression that this text alone fits.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$#&-~".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
