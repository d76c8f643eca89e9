//! Whether health checks can be made as they were declared.

use api::{
    Check, CheckKind, Exchange, Expect, HealthSpec, Http, Refusal, RefusalKind, Rhythm, ServiceId, Tls,
    Transport,
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
    range(service, "panic_percent", spec.panic_percent.into(), 0, 100)?;
    range(service, "slow_start_ms", spec.slow_start_ms, 0, HOUR_MS)?;
    range(service, "drain_ms", spec.drain_ms, 0, DAY_MS)?;
    if let Some(hold) = spec.hold_down {
        range(service, "hold_down failures", hold.failures.into(), 2, 100)?;
        range(service, "hold_down within_ms", hold.within_ms, 1000, DAY_MS)?;
        range(service, "hold_down hold_ms", hold.hold_ms, 1000, DAY_MS)?;
    }
    if let Some(passive) = spec.passive {
        range(service, "passive flows_min", passive.flows_min, 1, 1_000_000)?;
        range(service, "passive failed_percent", passive.failed_percent.into(), 1, 100)?;
    }
    if let Some(fallback) = spec.fallback
        && fallback.spec.weight == 0
    {
        return Err(invalid(
            service,
            format!("the fallback {} has weight 0 and would get no work", fallback.real),
        ));
    }
    Ok(())
}

/// Whether these checks can be made.
pub(crate) fn check_checks(service: &ServiceId, checks: &[Check]) -> Result<(), Refusal> {
    if checks.len() > CHECKS_MAX {
        return Err(invalid(service, format!("{} checks are too many: at most {CHECKS_MAX}", checks.len())));
    }
    for check in checks {
        rhythm(service, &check.rhythm)?;
        kind(service, &check.kind)?;
        if check.port == Some(0) {
            return Err(invalid(service, "a check of port 0: leave the port out, or give 1 to 65535"));
        }
    }
    Ok(())
}

fn rhythm(service: &ServiceId, rhythm: &Rhythm) -> Result<(), Refusal> {
    range(service, "interval_ms", rhythm.interval_ms, 100, DAY_MS)?;
    range(service, "timeout_ms", rhythm.timeout_ms, 10, HOUR_MS)?;
    range(service, "rise", rhythm.rise.into(), 1, 1000)?;
    range(service, "fall", rhythm.fall.into(), 1, 1000)?;
    range(service, "jitter_percent", rhythm.jitter_percent.into(), 0, 50)?;
    range(service, "grace_ms", rhythm.grace_ms, 0, DAY_MS)
}

fn kind(service: &ServiceId, kind: &CheckKind) -> Result<(), Refusal> {
    match kind {
        CheckKind::Tcp | CheckKind::Ping | CheckKind::Load | CheckKind::Path => Ok(()),
        CheckKind::Exchange(exchange) => self::exchange(service, exchange),
        CheckKind::Http(http) => self::http(service, http),
        CheckKind::Smtp { hello, tls } => {
            word(service, "the name for EHLO", hello)?;
            tls.iter().try_for_each(|tls| self::tls(service, tls))
        }
        CheckKind::Dns { name, record, .. } => {
            let is_name = name == "."
                || name.len() <= 253
                    && name.trim_end_matches('.').split('.').all(|label| (1..=63).contains(&label.len()));
            if !is_name {
                return Err(invalid(service, format!("`{name}' is no domain name that can be asked for")));
            }
            if !RECORDS.contains(&record.as_str()) {
                let known = RECORDS.join(", ");
                return Err(invalid(service, format!("no record type `{record}': use one of {known}")));
            }
            Ok(())
        }
        CheckKind::Program { command, user } => {
            if !command.first().is_some_and(|program| program.starts_with('/')) {
                return Err(invalid(service, "the program of a check must be an absolute path"));
            }
            if user.is_empty() || user == "root" {
                return Err(invalid(service, "a check runs as a user without rights, not as root"));
            }
            Ok(())
        }
    }
}

fn exchange(service: &ServiceId, exchange: &Exchange) -> Result<(), Refusal> {
    if let Transport::Tls(tls) = &exchange.over {
        self::tls(service, tls)?;
    }
    let expected = match &exchange.expect {
        Expect::Nothing => 0,
        Expect::Begins(octets) | Expect::Contains(octets) => octets.0.len(),
        Expect::Matches(pattern) => return self::pattern(service, pattern),
    };
    if exchange.send.0.len().max(expected) > OCTETS_MAX {
        return Err(invalid(service, format!("at most {OCTETS_MAX} bytes can be sent or expected")));
    }
    if exchange.over == Transport::Udp && exchange.send.0.is_empty() {
        return Err(invalid(service, "a check over UDP must send something"));
    }
    Ok(())
}

fn http(service: &ServiceId, http: &Http) -> Result<(), Refusal> {
    if !matches!(http.version, 1 | 2) {
        return Err(invalid(service, format!("no HTTP version {}: use 1 or 2", http.version)));
    }
    let is_token = !http.method.is_empty() && http.method.bytes().all(|byte| byte.is_ascii_alphabetic());
    if !is_token {
        return Err(invalid(service, format!("`{}' is no HTTP method", http.method)));
    }
    if !http.path.starts_with('/') || http.path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(invalid(
            service,
            format!("`{}' is no path: it begins with / and has no blanks", http.path),
        ));
    }
    if let Some(host) = &http.host {
        word(service, "the host", host)?;
    }
    if http.status.is_empty() || http.status.iter().any(|(low, high)| low > high || *low < 100 || *high > 599)
    {
        return Err(invalid(service, "status codes are from 100 to 599, the lower one of a range first"));
    }
    if let Some(body) = &http.body {
        pattern(service, body)?;
    }
    if let Some(digest) = &http.digest
        && (digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(invalid(service, format!("`{digest}' is no SHA-256: it has 64 hexadecimal digits")));
    }
    http.tls.iter().try_for_each(|tls| self::tls(service, tls))
}

fn tls(service: &ServiceId, tls: &Tls) -> Result<(), Refusal> {
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err(invalid(service, "a client certificate needs its key, and a key its certificate"));
    }
    tls.name.iter().try_for_each(|name| word(service, "the TLS name", name))
}

fn pattern(service: &ServiceId, pattern: &str) -> Result<(), Refusal> {
    match regex::Regex::new(pattern) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(service, format!("`{pattern}' is no regular expression: {error}"))),
    }
}

/// What goes into a line of a protocol.
fn word(service: &ServiceId, what: &str, text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > 253 || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(invalid(service, format!("`{text}' cannot be {what}: up to 253 letters without blanks")));
    }
    Ok(())
}

fn range(service: &ServiceId, name: &str, value: u32, low: u32, high: u32) -> Result<(), Refusal> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(invalid(service, format!("{name} of {value} is out of range: {low} to {high}")))
}

fn invalid(service: &ServiceId, message: impl fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::Invalid, format!("{service}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Fallback, Octets, Protocol, RealId, RealSpec, Tunnel};

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
