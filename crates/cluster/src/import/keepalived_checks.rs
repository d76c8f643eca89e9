//! The health checks of `keepalived.conf`.

use super::draft::{Draft, UNKNOWN, check as plain, seconds};
use super::lines::Node;
use api::{Check, CheckKind, Http, Protocol, Rhythm, Tls};

/// What checks say if they do not say it themselves: the virtual server's, then the real server's.
#[derive(Clone)]
pub(super) struct Defaults {
    rhythm: Rhythm,
    virtualhost: Option<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        // A server is good again at its first pass; connections may take five seconds.
        Self { rhythm: Rhythm { rise: 1, timeout_ms: 5_000, ..Rhythm::default() }, virtualhost: None }
    }
}

impl Defaults {
    /// Whether it is one of these.
    pub(super) fn knows(key: &str) -> bool {
        matches!(
            key,
            "delay_loop"
                | "retry"
                | "nb_get_retry"
                | "connect_timeout"
                | "virtualhost"
                | "delay_before_retry"
                | "warmup"
        )
    }

    /// Takes one over.
    pub(super) fn take(&mut self, node: &Node, draft: &mut Draft) {
        let taken = match node.key() {
            "delay_loop" => seconds(node.argument()).map(|ms| self.rhythm.interval_ms = ms),
            "connect_timeout" => seconds(node.argument()).map(|ms| self.rhythm.timeout_ms = ms),
            // So many failures more than one.
            "retry" | "nb_get_retry" => {
                let retries = node.argument().parse::<u16>().ok();
                retries.and_then(|retries| retries.checked_add(1)).map(|fall| self.rhythm.fall = fall)
            }
            "virtualhost" => {
                self.virtualhost = Some(node.argument().to_owned());
                Some(())
            }
            key => {
                let why = match key {
                    "delay_before_retry" => "a check is repeated at its interval, failed or not",
                    _ => "the first check comes at once; `jitter_percent' spreads the others",
                };
                draft.leave(node.line, &node.text(), why);
                Some(())
            }
        };
        if taken.is_none() {
            draft.leave(node.line, &node.text(), "expected a number");
        }
    }
}

/// A check, or several: one for each page.
pub(super) fn check(node: &Node, defaults: &Defaults, draft: &mut Draft) -> Vec<Check> {
    let mut defaults = defaults.clone();
    let mut draw = Drawn::default();
    for it in node.inside() {
        if !draw.common(it, &mut defaults, draft) {
            draw.own(node.key(), it, draft);
        }
    }
    // The time that the program may take is that of the whole check.
    if let Some(ms) =
        draw.texts.iter().find(|(key, _)| key == "misc_timeout").and_then(|(_, text)| seconds(text))
    {
        defaults.rhythm.timeout_ms = ms;
    }
    let kinds = match node.key() {
        "TCP_CHECK" => vec![CheckKind::Tcp],
        "PING_CHECK" => vec![CheckKind::Ping],
        "SMTP_CHECK" => vec![CheckKind::Smtp { hello: draw.text("helo_name", "localhost"), tls: None }],
        "DNS_CHECK" => {
            vec![CheckKind::Dns {
                name: draw.text("name", "."),
                record: draw.text("type", "SOA"),
                expect: String::new(),
            }]
        }
        "MISC_CHECK" => draw.program(),
        "HTTP_GET" | "SSL_GET" => draw.pages(node, &defaults, draft),
        _ => {
            draft.leave(node.line, &node.text(), "there is no such check here");
            return Vec::new();
        }
    };
    let make = |kind| Check { address: draw.address, port: draw.port, ..plain(kind, defaults.rhythm) };
    let checks: Vec<Check> = kinds.into_iter().map(make).collect();
    let good = checks.into_iter().filter(|check| match plan::health_check(check) {
        Ok(()) => true,
        Err(why) => {
            draft.leave(node.line, &node.text(), why);
            false
        }
    });
    good.collect()
}

/// What the statements of a check say.
#[derive(Default)]
struct Drawn {
    address: Option<std::net::IpAddr>,
    port: Option<u16>,
    texts: Vec<(String, String)>,
}

impl Drawn {
    /// What checks of all types know.
    fn common(&mut self, node: &Node, defaults: &mut Defaults, draft: &mut Draft) -> bool {
        match node.key() {
            key if Defaults::knows(key) => defaults.take(node, draft),
            "connect_ip" => {
                self.address = draft.host(node.argument());
                if self.address.is_none() {
                    draft.leave(node.line, &node.text(), "expected an address");
                }
            }
            "connect_port" => {
                self.port = draft.port(node.argument(), Protocol::Tcp).filter(|port| *port > 0);
                if self.port.is_none() {
                    draft.leave(node.line, &node.text(), "expected a port, 1 to 65535");
                }
            }
            "bindto" | "bind_if" | "bind_port" | "fwmark" => {
                draft.leave(node.line, &node.text(), "a check leaves by the route of its target");
            }
            "alpha" => {}
            _ => return false,
        }
        true
    }

    /// What only some know.
    fn own(&mut self, kind: &str, node: &Node, draft: &mut Draft) {
        let known = matches!(
            (kind, node.key()),
            ("SMTP_CHECK", "helo_name")
                | ("DNS_CHECK", "name" | "type")
                | ("MISC_CHECK", "misc_path" | "misc_timeout" | "user")
                | ("HTTP_GET" | "SSL_GET", "url" | "enable_sni")
        );
        match (kind, node.key()) {
            (_, "misc_path") if known => self.texts.push((node.key().to_owned(), node.arguments().join(" "))),
            _ if known => self.texts.push((node.key().to_owned(), node.argument().to_owned())),
            ("MISC_CHECK", "misc_dynamic") => {
                let why = "here a program prints `weight N', and the service says `adaptive = true'";
                draft.leave(node.line, &node.text(), why);
            }
            _ => draft.leave(node.line, &node.text(), UNKNOWN),
        }
    }

    fn text(&self, key: &str, default: &str) -> String {
        let found = self.texts.iter().find(|(known, _)| known == key);
        found.map_or(default, |(_, value)| value).to_owned()
    }

    fn program(&self) -> Vec<CheckKind> {
        let command: Vec<String> = self.text("misc_path", "").split_whitespace().map(str::to_owned).collect();
        vec![CheckKind::Program { command, user: self.text("user", "nobody") }]
    }

    /// A check for each `url`.
    fn pages(&self, node: &Node, defaults: &Defaults, draft: &mut Draft) -> Vec<CheckKind> {
        let urls: Vec<&Node> = node.inside().iter().filter(|it| it.key() == "url").collect();
        if urls.is_empty() {
            draft.leave(node.line, &node.text(), "it asks for no page: give a `url'");
        }
        let tls = (node.key() == "SSL_GET").then(Tls::default);
        urls.into_iter().map(|url| CheckKind::Http(page(url, tls.clone(), defaults, draft))).collect()
    }
}

fn page(url: &Node, tls: Option<Tls>, defaults: &Defaults, draft: &mut Draft) -> Http {
    let mut http = Http {
        version: 1,
        tls,
        method: "GET".to_owned(),
        host: defaults.virtualhost.clone(),
        path: "/".to_owned(),
        status: vec![(200, 299)],
        body: None,
        digest: None,
    };
    for it in url.inside() {
        match it.key() {
            "path" => http.path = it.argument().to_owned(),
            "virtualhost" => http.host = Some(it.argument().to_owned()),
            "status_code" => match statuses(it.arguments()) {
                Some(status) => http.status = status,
                None => draft.leave(it.line, &it.text(), "expected status codes from 100 to 599"),
            },
            "regex" => http.body = Some(it.argument().to_owned()),
            "digest" => {
                draft.leave(
                    it.line,
                    &it.text(),
                    "it is of MD5: give the page's SHA-256 as `digest' of the check",
                );
            }
            _ => draft.leave(it.line, &it.text(), UNKNOWN),
        }
    }
    http
}

fn statuses(words: &[String]) -> Option<Vec<(u16, u16)>> {
    let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
    let one = |word: &String| {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        Some((code(low)?, code(high)?))
    };
    words.iter().map(one).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
}
