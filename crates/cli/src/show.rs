//! What the director is asked and how its answers look.

use crate::args::{ExplainArgs, SetArgs, ShowArgs};
use crate::policy::change;
use api::{
    Change, ExplainRequest, Explanation, Refusal, SettingsView, Status, SyncDaemons, SyncRole, SyncView,
    Verdicts,
};
use runtime::control::{Client, ControlError};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;

/// Something could not be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    /// The director could not be asked.
    #[error("cannot ask the director")]
    Ask(#[source] ControlError),
    /// It was asked, and does not do it.
    #[error("the director refused")]
    Refused(#[source] Refusal),
    /// The answer could not be printed.
    #[error("cannot print the answer")]
    Print(#[source] io::Error),
    /// The words make no sense together.
    #[error("{0}")]
    Words(String),
    /// The two addresses are of different families.
    #[error(
        "the client {client} and the VIP {virtual_address} are of different address families; use both IPv4 or both IPv6"
    )]
    Families {
        /// As typed.
        client: std::net::SocketAddr,
        /// As typed.
        virtual_address: std::net::SocketAddr,
    },
}

impl ShowError {
    /// What became of a question.
    pub(crate) fn asking(error: ControlError) -> Self {
        match error {
            ControlError::Refused(refusal) => Self::Refused(refusal),
            error => Self::Ask(error),
        }
    }
}

/// `sluice status`.
pub(crate) fn status(args: &ShowArgs) -> Result<(), ShowError> {
    let status: Status = Client::new(&args.socket).get("/v1/status").map_err(ShowError::asking)?;
    print(args, &status, status_text)
}

/// `sluice verdicts`.
pub(crate) fn verdicts(args: &ShowArgs) -> Result<(), ShowError> {
    let verdicts: Verdicts = Client::new(&args.socket).get("/v1/verdicts").map_err(ShowError::asking)?;
    print(args, &verdicts, verdicts_text)
}

/// `sluice sync`.
pub(crate) fn sync(args: &ShowArgs) -> Result<(), ShowError> {
    let daemons: SyncDaemons = Client::new(&args.socket).get("/v1/sync").map_err(ShowError::asking)?;
    print(args, &daemons, sync_text)
}

/// `sluice set`.
pub(crate) fn set(args: &SetArgs) -> Result<(), ShowError> {
    let client = Client::new(&args.show.socket);
    match (&args.name, args.value) {
        (Some(name), Some(value)) => change(&client, Change::SetSetting { name: name.clone(), value }),
        _ => {
            let settings: SettingsView = client.get("/v1/settings").map_err(ShowError::asking)?;
            print(&args.show, &settings, settings_text)
        }
    }
}

/// `sluice explain`.
pub(crate) fn explain(args: &ExplainArgs) -> Result<(), ShowError> {
    let (client, virtual_address) = (args.client, args.virtual_address);
    if client.is_ipv4() != virtual_address.is_ipv4() {
        return Err(ShowError::Families { client, virtual_address });
    }
    let request = ExplainRequest { protocol: args.protocol, client, virtual_address };
    let answer: Explanation =
        Client::new(&args.show.socket).post("/v1/explain", &request).map_err(ShowError::asking)?;
    print(&args.show, &answer, explanation_text)
}

pub(crate) fn print<T: Serialize>(
    args: &ShowArgs,
    value: &T,
    text: fn(&T) -> String,
) -> Result<(), ShowError> {
    let shown = if args.json {
        serde_json::to_string(value).map_err(|error| ShowError::Print(error.into()))? + "\n"
    } else {
        text(value)
    };
    write_out(&shown).map_err(ShowError::Print)
}

/// Writes to standard output.
pub(crate) fn write_out(text: &str) -> io::Result<()> {
    write_on(text).map(|_| ())
}

/// The same; `false` when the reader has seen enough, as in `sluice verdicts | head`.
pub(crate) fn write_on(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}

fn status_text(status: &Status) -> String {
    let mut text = String::new();
    let adopted = if status.adopted { ", packet path adopted from an earlier daemon" } else { "" };
    let _ = writeln!(
        text,
        "sluice {} (pid {}), up {} s, generation {}{adopted}",
        status.version, status.pid, status.uptime_s, status.generation
    );
    for interface in &status.interfaces {
        let _ = writeln!(text, "{:<16} XDP {}", interface.name, interface.mode);
    }
    let flows = [
        ("embryonic flows", status.embryonic_flows, status.embryonic_flows_max),
        ("established flows", status.established_flows, status.established_flows_max),
        ("templates", status.templates, status.templates_max),
    ];
    for (name, now, most) in flows {
        let _ = writeln!(text, "{name:<17} {now:>10} of {most}");
    }
    text + &states_text(status)
}

/// The three states, which are never mixed.
fn states_text(status: &Status) -> String {
    let (configured, health, traffic) = (&status.configured, &status.health, &status.traffic);
    let mut text = format!(
        "{:<16} {} services with {} real servers in all",
        "configured", configured.services, configured.real_servers
    );
    if let Some(until_ms) = configured.confirm_until_ms {
        let until = std::time::UNIX_EPOCH + std::time::Duration::from_millis(until_ms);
        let _ = write!(text, ", to be confirmed until {}", humantime::format_rfc3339_seconds(until));
    }
    let mut words: Vec<String> =
        health.standings.iter().map(|(standing, reals)| format!("{reals} {standing}")).collect();
    if words.is_empty() {
        words.push("nothing is examined".to_owned());
    }
    for (services, what) in [
        (health.panicking_services, "services with too many failed"),
        (health.services_on_fallback, "services on their fallback"),
    ] {
        if services > 0 {
            words.push(format!("{services} {what}"));
        }
    }
    let _ = writeln!(text, "\n{:<16} {}", "health", words.join(", "));
    let counters = &traffic.counters;
    let _ = writeln!(
        text,
        "{:<16} {} connections, {} packets in and {} out a second; {} packets dropped so far{}",
        "traffic",
        counters.connections_per_s,
        counters.in_packets_per_s,
        counters.out_packets_per_s,
        traffic.dropped_packets,
        if traffic.capturing { "; packets are captured now" } else { "" }
    );
    text
}

fn verdicts_text(verdicts: &Verdicts) -> String {
    let mut text = format!("{:<26} {:>14}  {}\n", "VERDICT", "PACKETS", "MEANING");
    for verdict in &verdicts.verdicts {
        let _ = writeln!(text, "{:<26} {:>14}  {}", verdict.name, verdict.packets, verdict.sentence);
    }
    text
}

fn sync_text(all: &SyncDaemons) -> String {
    if all.daemons.is_empty() {
        return "no daemon of connection synchronisation was started: see ipvsadm --start-daemon\n"
            .to_owned();
    }
    let mut text = format!(
        "{:<7} {:<15} {:<22} {:>6} {:<8} {:>10} {:>12} {:>9} {:>9}\n",
        "ROLE", "INTERFACE", "GROUP", "SYNCID", "STATE", "MESSAGES", "FLOWS", "REFUSED", "UNKNOWN"
    );
    for SyncView { daemon, running, counts } in &all.daemons {
        let role = match daemon.role {
            SyncRole::Master => "master",
            SyncRole::Backup => "backup",
        };
        let group = match (daemon.group, daemon.port) {
            (Some(group), Some(port)) => SocketAddr::new(group, port).to_string(),
            _ => "-".to_owned(),
        };
        let state = if *running { "runs" } else { "waits" };
        let _ = writeln!(
            text,
            "{role:<7} {:<15} {group:<22} {:>6} {state:<8} {:>10} {:>12} {:>9} {:>9}",
            daemon.interface, daemon.syncid, counts.messages, counts.records, counts.refused, counts.unknown
        );
    }
    text
}

fn settings_text(settings: &SettingsView) -> String {
    let mut text = format!("{:<26} {:>10} {:>10}  {}\n", "SETTING", "VALUE", "DEFAULT", "MEANING");
    for it in &settings.settings {
        let _ = writeln!(text, "{:<26} {:>10} {:>10}  {}", it.name, it.value, it.default, it.meaning);
    }
    text
}

fn explanation_text(answer: &Explanation) -> String {
    let mut text = String::new();
    for (number, step) in answer.steps.iter().enumerate() {
        let _ = writeln!(text, "{:>2}. {step}", number + 1);
    }
    let _ = match answer.real {
        Some(real) => writeln!(text, "=> {real}: {} ({})", answer.sentence, answer.verdict),
        None => writeln!(text, "=> {} ({})", answer.sentence, answer.verdict),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_states_are_told_apart() {
        let status =
            r#"{"version":"1","pid":1,"generation":7,"uptime_s":61,"adopted":false,"interfaces":[],"#;
        let status = status.to_owned()
            + r#""embryonic_flows":3,"embryonic_flows_max":10,"established_flows":4,"established_flows_max":20,"#
            + r#""configured":{"services":2,"real_servers":5,"confirm_until_ms":1000},"#
            + r#""health":{"standings":{"down":1,"up":4},"panicking_services":0,"services_on_fallback":1}}"#;
        let status: Status = serde_json::from_str(&status).expect("a status");
        assert_eq!(
            states_text(&status),
            "configured       2 services with 5 real servers in all, to be confirmed until 1970-01-01T00:00:01Z\n\
             health           1 down, 4 up, 1 services on their fallback\n\
             traffic          0 connections, 0 packets in and 0 out a second; 0 packets dropped so far\n"
        );
        assert!(
            states_text(&Status { health: api::HealthStatus::default(), ..status })
                .contains("nothing is examined")
        );
    }

    #[test]
    fn an_explanation_reads_as_steps_and_an_end() {
        let answer = Explanation {
            verdict: "forward_new".into(),
            sentence: "sent on".into(),
            real: Some("10.0.0.1:80".parse().expect("an address")),
            steps: vec!["a VIP".into(), "a service".into()],
        };
        assert_eq!(
            explanation_text(&answer),
            " 1. a VIP\n 2. a service\n=> 10.0.0.1:80: sent on (forward_new)\n"
        );
    }
}
