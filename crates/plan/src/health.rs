//! Whether health checks can be made as they were declared.

use crate::before::Before;
use crate::model::{Model, ServiceEntry};
use crate::{check, supported};
use api::{
    Check, CheckKind, Exchange, Expect, Fallback, Family, Forwarding, HealthSpec, Http, Protocol, RealId,
    RealSpec, Refusal, RefusalKind, Rhythm, ServiceId, Tls, Transport,
};
use std::fmt;

/// Checks of one real server.
const CHECKS_MAX: usize = 16;
/// Milliseconds of a day.
const DAY_MS: u32 = 86_400_000;
/// Milliseconds of an hour.
const HOUR_MS: u32 = 3_600_000;
/// Bytes sent or expected.
const OCTETS_MAX: usize = 4096;
/// Record types that the DNS check knows.
const RECORDS: [&str; 9] = ["A", "AAAA", "NS", "SOA", "MX", "TXT", "CNAME", "PTR", "SRV"];

/// Whether all of it is within its ranges.
pub(crate) fn check_spec(service: &ServiceId, spec: &HealthSpec) -> Result<(), Refusal> {
    check_checks(service, &spec.checks)?;
    numbers(spec).map_err(|message| invalid(service, message))?;
    let Some(Fallback { real, spec }) = &spec.fallback else { return Ok(()) };
    if spec.weight == 0 {
        return Err(invalid(service, format!("the fallback {real} has weight 0 and would get no work")));
    }
    check::real_family(service, real, spec)?;
    check::real_numbers(real, spec)?;
    check::real_unicast(real)?;
    supported::real(real, spec)?;
    check::real_tunnel(real, spec)?;
    check::real_port(service, real, spec)
}

fn numbers(spec: &HealthSpec) -> Result<(), String> {
    range("panic_percent", spec.panic_percent.into(), 0, 100)?;
    range("slow_start_ms", spec.slow_start_ms, 0, HOUR_MS)?;
    range("drain_ms", spec.drain_ms, 0, DAY_MS)?;
    if let Some(hold) = spec.hold_down {
        range("hold_down failures", hold.failures.into(), 2, 100)?;
        range("hold_down within_ms", hold.within_ms, 1000, DAY_MS)?;
        range("hold_down hold_ms", hold.hold_ms, 1000, DAY_MS)?;
    }
    if let Some(passive) = spec.passive {
        range("passive flows_min", passive.flows_min, 1, 1_000_000)?;
        range("passive failed_percent", passive.failed_percent.into(), 1, 100)?;
    }
    Ok(())
}

/// Whether these checks can be made.
pub(crate) fn check_checks(service: &ServiceId, checks: &[Check]) -> Result<(), Refusal> {
    if checks.len() > CHECKS_MAX {
        return Err(invalid(service, format!("{} checks are too many: at most {CHECKS_MAX}", checks.len())));
    }
    checks.iter().try_for_each(|check| {
        health_check(check).and_then(|()| way(service, check)).map_err(|message| invalid(service, message))
    })
}

/// Whether a path check finds its VIP and port by the service.
fn way(service: &ServiceId, check: &Check) -> Result<(), String> {
    if check.kind != CheckKind::Path {
        return Ok(());
    }
    match *service {
        ServiceId::Address { protocol: Protocol::Tcp, port, .. } if port != 0 || check.port.is_some() => {}
        ServiceId::Address { protocol: Protocol::Tcp, .. } => {
            return Err("a path check of a service of every port needs the `port' to look at".to_owned());
        }
        ServiceId::Address { .. } => {
            return Err("a path check opens a TCP connection, so it is for services of TCP: use another \
                        kind of check"
                .to_owned());
        }
        ServiceId::Fwmark { .. } if check.address.is_some() && check.port.is_some() => {}
        ServiceId::Fwmark { .. } => {
            return Err("a path check of a service by mark needs one of its VIPs as `address', and a TCP \
                        `port' of it"
                .to_owned());
        }
    }
    match check.address {
        Some(vip) if Family::of(vip) != service.family() => {
            Err(format!("the `address' of a path check is a VIP of the service's family, which {vip} is not"))
        }
        _ => Ok(()),
    }
}

/// Whether these checks can be made of a real server.
pub(crate) fn checks_reach(
    service: &ServiceId,
    checks: &[Check],
    real: &RealId,
    spec: &RealSpec,
) -> Result<(), Refusal> {
    if spec.forwarding != Forwarding::Masquerade || checks.iter().all(|check| check.kind != CheckKind::Path) {
        return Ok(());
    }
    Err(invalid(
        service,
        format!(
            "real server {real} is masqueraded and has no VIP to look at, so a path check says nothing of it: use checks of \
             another kind"
        ),
    ))
}

/// Whether a check can be made.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn health_check(check: &Check) -> Result<(), String> {
    rhythm(&check.rhythm)?;
    kind(&check.kind)?;
    match check.port {
        Some(0) => Err("a check of port 0: leave the port out, or give 1 to 65535".to_owned()),
        _ => Ok(()),
    }
}

fn invalid(service: &ServiceId, message: impl fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::Invalid, format!("{service}: {message}"))
}

fn rhythm(rhythm: &Rhythm) -> Result<(), String> {
    range("interval_ms", rhythm.interval_ms, 100, DAY_MS)?;
    range("timeout_ms", rhythm.timeout_ms, 10, HOUR_MS)?;
    range("rise", rhythm.rise.into(), 1, 1000)?;
    range("fall", rhythm.fall.into(), 1, 1000)?;
    range("jitter_percent", rhythm.jitter_percent.into(), 0, 50)?;
    range("grace_ms", rhythm.grace_ms, 0, DAY_MS)
}

fn kind(kind: &CheckKind) -> Result<(), String> {
    match kind {
        CheckKind::Tcp | CheckKind::Ping | CheckKind::Load | CheckKind::Path => Ok(()),
        CheckKind::Exchange(exchange) => self::exchange(exchange),
        CheckKind::Http(http) => self::http(http),
        CheckKind::Smtp { hello, tls } => {
            word("the name for EHLO", hello)?;
            tls.iter().try_for_each(self::tls)
        }
        CheckKind::Dns { name, record, .. } => {
            let is_name = name == "."
                || name.len() <= 253
                    && name.trim_end_matches('.').split('.').all(|label| (1..=63).contains(&label.len()));
            if !is_name {
                return Err(format!("`{name}' is no domain name that can be asked for"));
            }
            if !RECORDS.contains(&record.as_str()) {
                let known = RECORDS.join(", ");
                return Err(format!("no record type `{record}': use one of {known}"));
            }
            Ok(())
        }
        CheckKind::Program { command, user } => {
            if !command.first().is_some_and(|program| program.starts_with('/')) {
                return Err("the program of a check must be an absolute path".to_owned());
            }
            if user.is_empty() || user == "root" {
                return Err("a check runs as a user without rights, not as root".to_owned());
            }
            Ok(())
        }
    }
}

fn exchange(exchange: &Exchange) -> Result<(), String> {
    if let Transport::Tls(tls) = &exchange.over {
        self::tls(tls)?;
    }
    let expected = match &exchange.expect {
        Expect::Nothing => 0,
        Expect::Begins(octets) | Expect::Contains(octets) => octets.0.len(),
        Expect::Matches(pattern) => return self::pattern(pattern),
    };
    if exchange.send.0.len().max(expected) > OCTETS_MAX {
        return Err(format!("at most {OCTETS_MAX} bytes can be sent or expected"));
    }
    if exchange.over == Transport::Udp && exchange.send.0.is_empty() {
        return Err("a check over UDP must send something".to_owned());
    }
    Ok(())
}

fn http(http: &Http) -> Result<(), String> {
    if !matches!(http.version, 1 | 2) {
        return Err(format!("no HTTP version {}: use 1 or 2", http.version));
    }
    let is_token = !http.method.is_empty() && http.method.bytes().all(|byte| byte.is_ascii_alphabetic());
    if !is_token {
        return Err(format!("`{}' is no HTTP method", http.method));
    }
    if !http.path.starts_with('/') || http.path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!("`{}' is no path: it begins with / and has no blanks", http.path));
    }
    if let Some(host) = &http.host {
        word("the host", host)?;
    }
    if http.status.is_empty() || http.status.iter().any(|(low, high)| low > high || *low < 100 || *high > 599)
    {
        return Err("status codes are from 100 to 599, the lower one of a range first".to_owned());
    }
    if let Some(body) = &http.body {
        pattern(body)?;
    }
    if let Some(digest) = &http.digest
        && (digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(format!("`{digest}' is no SHA-256: it has 64 hexadecimal digits"));
    }
    http.tls.iter().try_for_each(self::tls)
}

fn tls(tls: &Tls) -> Result<(), String> {
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err("a client certificate needs its key, and a key its certificate".to_owned());
    }
    tls.name.iter().try_for_each(|name| word("the TLS name", name))
}

fn pattern(pattern: &str) -> Result<(), String> {
    let Err(error) = regex::Regex::new(pattern) else { return Ok(()) };
    // The lines before the last draw a picture of it.
    let text = error.to_string();
    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    Err(format!("`{pattern}' is no regular expression: {why}"))
}

/// What goes into a line of a protocol.
fn word(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 253 || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(format!("`{text}' cannot be {what}: up to 253 letters without blanks"));
    }
    Ok(())
}

fn range(name: &str, value: u32, low: u32, high: u32) -> Result<(), String> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} of {value} is out of range: {low} to {high}"))
}

impl Model {
    /// Notes that the weight of a real server is 0 because it failed, or no longer so. Only the model of a packet path has
    /// this: clients whose persistence ties them to such a real server are scheduled anew. Where there is none of that
    /// name nothing happens.
    pub fn set_failed(&mut self, service: &ServiceId, real: &RealId, failed: bool, before: &mut Before) {
        let is_other = |entry: &ServiceEntry| entry.real(real).is_some_and(|it| it.failed != failed);
        if self.service(service).is_some_and(is_other)
            && let Some(it) = self.entry(service, before).and_then(|entry| entry.reals.get_mut(real))
        {
            it.failed = failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Octets, Tunnel};

    fn service() -> ServiceId {
        ServiceId::Address {
            protocol: Protocol::Tcp,
            address: "192.0.2.1".parse().expect("address"),
            port: 80,
        }
    }

    fn refused(kind: CheckKind) -> String {
        let check = Check { kind, address: None, port: None, rhythm: Rhythm::default() };
        check_checks(&service(), &[check]).map_or_else(|refusal| refusal.to_string(), |()| String::new())
    }

    fn page() -> Http {
        Http {
            version: 1,
            tls: None,
            method: "GET".to_owned(),
            host: None,
            path: "/".to_owned(),
            status: vec![(200, 299)],
            body: None,
            digest: None,
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_what_would_be_right() {
        assert_eq!(refused(CheckKind::Tcp), "");
        assert_eq!(refused(CheckKind::Http(page())), "");
        let wrong = [
            (CheckKind::Http(Http { version: 3, ..page() }), "use 1 or 2"),
            (CheckKind::Http(Http { path: "index".to_owned(), ..page() }), "begins with /"),
            (CheckKind::Http(Http { status: vec![(300, 200)], ..page() }), "the lower one of a range first"),
            (CheckKind::Http(Http { body: Some("(".to_owned()), ..page() }), "no regular expression"),
            (CheckKind::Http(Http { digest: Some("ab".to_owned()), ..page() }), "64 hexadecimal digits"),
            (CheckKind::Http(Http { host: Some("a\r\nb".to_owned()), ..page() }), "without blanks"),
            (
                CheckKind::Program { command: vec!["true".to_owned()], user: "nobody".to_owned() },
                "absolute path",
            ),
            (
                CheckKind::Program { command: vec!["/bin/true".to_owned()], user: "root".to_owned() },
                "not as root",
            ),
            (
                CheckKind::Dns { name: "a..b".to_owned(), record: "A".to_owned(), expect: String::new() },
                "no domain name",
            ),
            (
                CheckKind::Dns { name: "a.b".to_owned(), record: "B".to_owned(), expect: String::new() },
                "use one of A,",
            ),
            (
                CheckKind::Exchange(Exchange {
                    over: Transport::Udp,
                    send: Octets::default(),
                    expect: Expect::Nothing,
                }),
                "must send something",
            ),
        ];
        for (kind, part) in wrong {
            let text = refused(kind.clone());
            assert!(text.contains(part) && text.contains("192.0.2.1:80"), "{kind:?}: {text}");
        }
    }

    #[test]
    fn a_path_check_needs_a_vip_and_a_port_of_tcp() {
        let path = |address: Option<&str>, port| Check {
            kind: CheckKind::Path,
            address: address.map(|it| it.parse().expect("an address")),
            port,
            rhythm: Rhythm::default(),
        };
        let of = |protocol, port| ServiceId::Address { protocol, address: [192, 0, 2, 1].into(), port };
        let mark = ServiceId::Fwmark { mark: 7, family: Family::Ipv4 };
        for (service, check, part) in [
            (of(Protocol::Tcp, 80), path(None, None), ""),
            (of(Protocol::Tcp, 0), path(None, Some(80)), ""),
            (mark, path(Some("192.0.2.1"), Some(80)), ""),
            (of(Protocol::Tcp, 0), path(None, None), "needs the `port'"),
            (of(Protocol::Udp, 53), path(None, None), "for services of TCP"),
            (mark, path(Some("192.0.2.1"), None), "needs one of its VIPs"),
            (mark, path(Some("2001:db8::1"), Some(80)), "which 2001:db8::1 is not"),
        ] {
            let said =
                check_checks(&service, &[check]).map_or_else(|refusal| refusal.message, |()| String::new());
            assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{service}: {said}");
            assert!(said.is_empty() || said.starts_with(&service.to_string()), "{said}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let tunnel = Tunnel::default();
        let spec = RealSpec {
            forwarding: api::Forwarding::DirectRouting,
            weight: 0,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel,
        };
        let real = RealId { address: "10.0.0.1".parse().expect("address"), port: 80 };
        let good = HealthSpec::default();
        let slow = Rhythm { interval_ms: 99, ..Rhythm::default() };
        let check = Check { kind: CheckKind::Tcp, address: None, port: None, rhythm: slow };
        for (spec, part) in [
            (
                HealthSpec { panic_percent: 101, ..good.clone() },
                "panic_percent of 101 is out of range: 0 to 100",
            ),
            (HealthSpec { checks: vec![check], ..good.clone() }, "interval_ms of 99"),
            (HealthSpec { fallback: Some(Fallback { real, spec }), ..good.clone() }, "weight 0"),
        ] {
            let text = check_spec(&service(), &spec).expect_err(part).to_string();
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(check_spec(&service(), &good), Ok(()));
    }
}
