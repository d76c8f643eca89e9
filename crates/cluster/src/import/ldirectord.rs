//! `ldirectord.cf`.

use super::draft::{
    ALERTS, Draft, OWN_RUNNING, Real, Service, UNKNOWN, check, persistence, real_spec, seconds, service_spec,
};
use super::lines::{pair, words};
use api::{
    Check, CheckKind, Exchange, Expect, Fallback, Family, Forwarding, HealthSpec, Http, Octets, OnFailure,
    Protocol, RealId, Rhythm, ServiceId, Tls, Transport,
};
use std::net::{IpAddr, Ipv4Addr};

/// Services that are known by their port.
const BY_PORT: [(u16, &str); 15] = [
    (21, "ftp"),
    (25, "smtp"),
    (53, "dns"),
    (80, "http"),
    (110, "pop"),
    (119, "nntp"),
    (143, "imap"),
    (389, "ldap"),
    (443, "https"),
    (587, "submission"),
    (993, "imaps"),
    (995, "pops"),
    (1812, "radius"),
    (3306, "mysql"),
    (5060, "sip"),
];

/// `key = value` with its line.
#[derive(Clone)]
struct Entry {
    line: usize,
    key: String,
    value: String,
}

impl Entry {
    fn text(&self) -> String {
        match self.key.as_str() {
            // What is secret is not shown.
            "passwd" | "secret" => format!("{} = ...", self.key),
            key => format!("{key} = {}", self.value),
        }
    }
}

/// A virtual service: its own entry, and those below it.
struct Section {
    head: Entry,
    entries: Vec<Entry>,
}

pub(super) fn import(text: &str, draft: &mut Draft) {
    let (mut general, mut sections) = (Vec::new(), Vec::<Section>::new());
    for (line, text) in (1..).zip(text.lines()) {
        let body = without_comment(text);
        if body.trim().is_empty() {
            continue;
        }
        let Some((key, value)) = pair(body) else {
            draft.leave(line, text, "expected KEY = VALUE");
            continue;
        };
        let entry = Entry { line, key: key.to_ascii_lowercase(), value: value.to_owned() };
        match (entry.key.as_str(), body.starts_with([' ', '\t']), sections.last_mut()) {
            ("virtual" | "virtual6", false, _) => sections.push(Section { head: entry, entries: Vec::new() }),
            (_, true, Some(section)) => section.entries.push(entry),
            _ => general.push(entry),
        }
    }
    for entry in &general {
        match entry.key.as_str() {
            "checktimeout" | "negotiatetimeout" | "connecttimeout" | "checkinterval" | "failurecount"
            | "fallback" | "fallback6" | "quiescent" => {}
            _ => leave(entry, draft),
        }
    }
    for section in &sections {
        virtual_service(section, &general, draft);
    }
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted && before.is_whitespace() => return line.get(..at).unwrap_or_default(),
            _ => {}
        }
        before = c;
    }
    line
}

/// Notes a key that means nothing here, with the reason.
fn leave(entry: &Entry, draft: &mut Draft) {
    let why = match entry.key.as_str() {
        "emailalert" | "emailalertfrom" | "emailalertfreq" | "emailalertstatus" | "smtp"
        | "fallbackcommand" | "monitorfile" => ALERTS,
        "autoreload" | "callback" | "logfile" | "execute" | "supervised" | "fork" | "cleanstop"
        | "readdquiescent" => OWN_RUNNING,
        "maintenancedir" => "drain a server by `drain = true' or on the command line",
        "login" | "passwd" | "database" | "secret" => "no check of this release logs in",
        "checkcount" => "`failurecount' says how many failures count",
        _ => UNKNOWN,
    };
    draft.leave(entry.line, &entry.text(), why);
}

/// What holds for a virtual service: its own entries before the general ones.
struct Values<'s> {
    own: &'s [Entry],
    general: &'s [Entry],
}

impl<'s> Values<'s> {
    fn entry(&self, key: &str) -> Option<&'s Entry> {
        let of = |entries: &'s [Entry]| entries.iter().rev().find(|entry| entry.key == key);
        of(self.own).or_else(|| of(self.general))
    }

    fn text(&self, key: &str) -> Option<&'s str> {
        self.entry(key).map(|entry| entry.value.as_str()).filter(|value| !value.is_empty())
    }

    /// A time; one that is none was reported.
    fn ms(&self, key: &str) -> Option<u32> {
        self.text(key).and_then(seconds)
    }

    fn is(&self, key: &str, word: &str) -> bool {
        self.text(key) == Some(word)
    }
}

fn virtual_service(section: &Section, general: &[Entry], draft: &mut Draft) {
    let head = &section.head;
    let values = Values { own: &section.entries, general };
    let Some((id, protocol)) = identity(head, &values, draft) else {
        draft.leave(head.line, &head.text(), "expected VIP:PORT or a mark; all of this service is left");
        return;
    };
    if values.is("checktype", "off") {
        draft.leave(head.line, &head.text(), "checktype off: none of its servers gets work");
        return;
    }
    let mut service = Service {
        line: head.line,
        ids: vec![id],
        name: None,
        spec: service_spec(values.text("scheduler").unwrap_or("wrr")),
        reals: Vec::new(),
        health: HealthSpec::default(),
    };
    service.spec.one_packet = values.is("ops", "yes");
    service.health.on_failure =
        if values.is("quiescent", "no") { OnFailure::Remove } else { OnFailure::Quiesce };
    persist(&values, &mut service, draft);
    let fallback = values.entry("fallback").or(values.entry("fallback6"));
    service.health.fallback = fallback.and_then(|entry| fallback_of(entry, &id, protocol, draft));
    let checker = Checker { values: &values, id, protocol };
    for entry in &section.entries {
        match entry.key.as_str() {
            "real" | "real6" => service.reals.extend(reals(entry, &checker, draft)),
            "scheduler" | "persistent" | "netmask" | "protocol" | "ops" | "quiescent" | "fallback"
            | "fallback6" | "service" | "request" | "receive" | "virtualhost" | "httpmethod"
            | "checktype" | "checkport" | "checkcommand" => {}
            "checktimeout" | "negotiatetimeout" | "checkinterval" | "failurecount"
                if entry.value.parse::<u32>().is_ok() => {}
            _ => leave(entry, draft),
        }
    }
    checker.tell(draft);
    draft.add(&service);
}

fn identity(head: &Entry, values: &Values, draft: &Draft) -> Option<(ServiceId, Protocol)> {
    if let Ok(mark) = head.value.parse::<u32>() {
        let family = if head.key == "virtual6" { Family::Ipv6 } else { Family::Ipv4 };
        return (mark > 0).then_some((ServiceId::Fwmark { mark, family }, Protocol::Tcp));
    }
    let given = values.text("protocol").and_then(|text| text.parse().ok());
    let (address, port) = draft.endpoint(&head.value, given.unwrap_or(Protocol::Tcp))?;
    let protocol = given.unwrap_or(if port == 53 { Protocol::Udp } else { Protocol::Tcp });
    Some((ServiceId::Address { protocol, address, port }, protocol))
}

fn persist(values: &Values, service: &mut Service, draft: &mut Draft) {
    let family = service.ids.first().map_or(Family::Ipv4, ServiceId::family);
    let Some(entry) = values.entry("persistent") else {
        if let Some(mask) = values.entry("netmask") {
            draft.leave(mask.line, &mask.text(), "it says nothing without `persistent'");
        }
        return;
    };
    let time = entry.value.parse().ok().filter(|time| *time > 0);
    service.spec.persistence = time.and_then(|time| persistence(time, values.text("netmask"), family));
    if service.spec.persistence.is_none() {
        draft.leave(entry.line, &entry.text(), "expected seconds, and a netmask or prefix length");
    }
}

/// `gate`, `masq` or `ipip`.
fn method(word: &str) -> Option<Forwarding> {
    match word {
        "gate" => Some(Forwarding::DirectRouting),
        "masq" => Some(Forwarding::Masquerade),
        "ipip" => Some(Forwarding::Tunnel),
        _ => None,
    }
}

fn fallback_of(entry: &Entry, id: &ServiceId, protocol: Protocol, draft: &mut Draft) -> Option<Fallback> {
    let words = words(&entry.value, &[]);
    let place = words.first().and_then(|text| draft.endpoint(text, protocol));
    let forwarding = words.get(1).map_or(Some(Forwarding::DirectRouting), |word| method(word));
    let (Some((address, given)), Some(forwarding)) = (place, forwarding) else {
        draft.leave(entry.line, &entry.text(), "expected ADDRESS:PORT, and gate, masq or ipip");
        return None;
    };
    if Family::of(address) != id.family() && forwarding != Forwarding::Tunnel {
        draft.leave(entry.line, &entry.text(), format!("its address family differs from {id}"));
        return None;
    }
    let own = match *id {
        ServiceId::Address { port, .. } => port,
        ServiceId::Fwmark { .. } => given,
    };
    let port = if forwarding == Forwarding::Masquerade && given != 0 { given } else { own };
    Some(Fallback { real: RealId { address, port }, spec: real_spec(forwarding, 1) })
}

/// One real server, or one for each address of a range.
fn reals(entry: &Entry, checker: &Checker, draft: &mut Draft) -> Vec<Real> {
    let words = words(&entry.value.replace(',', " , "), &[]);
    let mut words = words.iter().map(String::as_str).filter(|word| *word != ",");
    let place = words.next().unwrap_or_default();
    let (first, rest) = place.split_once("->").unwrap_or((place, ""));
    let forwarding = words.next().and_then(method);
    let mut rest_words: Vec<&str> = words.collect();
    let weight = rest_words.first().and_then(|word| word.parse::<u32>().ok());
    if weight.is_some() {
        rest_words.remove(0);
    }
    let last = if rest.is_empty() {
        draft.endpoint(first, checker.protocol)
    } else {
        draft.endpoint(rest, checker.protocol)
    };
    let first = if rest.is_empty() { last } else { draft.host(first).map(|address| (address, 0)) };
    let (Some((first, _)), Some((last, port)), Some(forwarding)) = (first, last, forwarding) else {
        draft.leave(entry.line, &entry.text(), "expected ADDRESS:PORT, gate, masq or ipip, and a weight");
        return Vec::new();
    };
    let Some(addresses) = range(first, last) else {
        draft.leave(entry.line, &entry.text(), "a range goes up, over 256 IPv4 addresses at most");
        return Vec::new();
    };
    let (request, receive) = (rest_words.first().copied(), rest_words.get(1).copied());
    let checks = checker.check(request, receive, entry, draft);
    let spec = real_spec(forwarding, weight.unwrap_or(1));
    let one = |address| Real { line: entry.line, id: RealId { address, port }, spec, checks: checks.clone() };
    addresses.into_iter().map(one).collect()
}

fn range(first: IpAddr, last: IpAddr) -> Option<Vec<IpAddr>> {
    match (first, last) {
        _ if first == last => Some(vec![first]),
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, last) = (first.to_bits(), last.to_bits());
            let fits = last.checked_sub(first).is_some_and(|more| more < 256);
            fits.then(|| (first..=last).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))).collect())
        }
        _ => None,
    }
}

/// Makes the checks of a virtual service.
struct Checker<'s> {
    values: &'s Values<'s>,
    id: ServiceId,
    protocol: Protocol,
}

impl Checker<'_> {
    fn checktype(&self) -> &str {
        self.values.text("checktype").unwrap_or("negotiate")
    }

    /// What it monitors by `negotiate`.
    fn service(&self) -> &str {
        let port = match self.id {
            ServiceId::Address { port, .. } => port,
            ServiceId::Fwmark { .. } => 0,
        };
        let by_port = BY_PORT.iter().find(|(known, _)| *known == port).map_or("none", |(_, name)| *name);
        self.values.text("service").unwrap_or(by_port)
    }

    fn negotiates(&self) -> bool {
        matches!(self.checktype(), "negotiate")
            || self.checktype().trim_start_matches("checktimeout").parse::<u32>().is_ok()
    }

    /// Says once of a service what its checks cannot do.
    fn tell(&self, draft: &mut Draft) {
        let entry = self.values.entry("checktype");
        let Some(entry) = entry.filter(|entry| entry.value != "negotiate" && self.negotiates()) else {
            return;
        };
        draft.leave(
            entry.line,
            &entry.text(),
            "connecting and negotiating do not take turns: each check negotiates",
        );
    }

    fn rhythm(&self) -> Rhythm {
        let (check, negotiate) = (self.values.ms("checktimeout"), self.values.ms("negotiatetimeout"));
        let timeout = match self.negotiates() {
            true => negotiate.or(self.values.ms("connecttimeout")).unwrap_or(30_000),
            false => check.or(negotiate).unwrap_or(5_000),
        };
        Rhythm {
            interval_ms: self.values.ms("checkinterval").unwrap_or(10_000),
            timeout_ms: timeout,
            rise: 1,
            fall: self.values.text("failurecount").and_then(|text| text.parse().ok()).unwrap_or(1),
            ..Rhythm::default()
        }
    }

    fn check(
        &self,
        request: Option<&str>,
        receive: Option<&str>,
        entry: &Entry,
        draft: &mut Draft,
    ) -> Vec<Check> {
        let request = request.or(self.values.text("request"));
        let receive = receive.or(self.values.text("receive"));
        let kind = match self.checktype() {
            "on" => None,
            "ping" => Some(CheckKind::Ping),
            "connect" if self.protocol == Protocol::Udp => Some(CheckKind::Ping),
            "connect" => Some(CheckKind::Tcp),
            "external" | "external-perl" => Some(self.program()),
            _ if self.negotiates() => self.negotiate(request, receive, entry, draft),
            other => {
                draft.leave(entry.line, &entry.text(), format!("no check: there is no checktype {other}"));
                None
            }
        };
        let port = self
            .values
            .text("checkport")
            .and_then(|text| draft.port(text, self.protocol))
            .filter(|port| *port > 0);
        let made = kind.map(|kind| Check { port, ..check(kind, self.rhythm()) });
        match made.as_ref().map(plan::health_check) {
            Some(Err(why)) => {
                draft.leave(entry.line, &entry.text(), format!("its check: {why}"));
                Vec::new()
            }
            _ => made.into_iter().collect(),
        }
    }

    fn program(&self) -> CheckKind {
        let (vip, port) = match self.id {
            ServiceId::Address { address, port, .. } => (address.to_string(), port.to_string()),
            ServiceId::Fwmark { mark, .. } => (mark.to_string(), String::new()),
        };
        let command = self.values.text("checkcommand").unwrap_or("/bin/true").to_owned();
        let command = vec![command, vip, port, "{address}".to_owned(), "{port}".to_owned()];
        CheckKind::Program { command, user: "nobody".to_owned() }
    }

    fn negotiate(
        &self,
        request: Option<&str>,
        receive: Option<&str>,
        entry: &Entry,
        draft: &mut Draft,
    ) -> Option<CheckKind> {
        let service = self.service();
        match service {
            "http" | "https" => Some(CheckKind::Http(self.page(request, receive, service == "https"))),
            "smtp" | "submission" => Some(CheckKind::Smtp { hello: "localhost".to_owned(), tls: None }),
            "dns" => {
                let name = request.unwrap_or(".").to_owned();
                let record = if name == "." { "NS" } else { "A" }.to_owned();
                Some(CheckKind::Dns { name, record, expect: receive.unwrap_or_default().to_owned() })
            }
            "simpletcp" => {
                let send = Octets(request.unwrap_or_default().replace("\\n", "\n").into_bytes());
                let expect = receive.map_or(Expect::Nothing, |text| Expect::Matches(text.to_owned()));
                Some(CheckKind::Exchange(Exchange { over: Transport::Tcp, send, expect }))
            }
            "none" => None,
            "radius" | "sip" => {
                draft.leave(entry.line, &entry.text(), format!("no check: there is none of {service} here"));
                None
            }
            _ => {
                draft.leave(
                    entry.line,
                    &entry.text(),
                    format!("there is no check of {service} here: a TCP connection is tried instead"),
                );
                Some(CheckKind::Tcp)
            }
        }
    }

    fn page(&self, request: Option<&str>, receive: Option<&str>, is_tls: bool) -> Http {
        let path = request.unwrap_or("/");
        Http {
            version: 1,
            tls: is_tls.then(Tls::default),
            method: self.values.text("httpmethod").unwrap_or("GET").to_owned(),
            host: self.values.text("virtualhost").map(str::to_owned),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            status: vec![(200, 299)],
            body: receive.map(str::to_owned),
            digest: None,
        }
    }
}
