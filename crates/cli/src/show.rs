//! What the director is asked and how its answers look.

use crate::args::{ExplainArgs, SetArgs, ShowArgs};
use crate::policy::change;
use api::{Change, ExplainRequest, Explanation, SettingsView, Status, Verdicts};
use runtime::control::{Client, ControlError};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Something could not be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    /// The director could not be asked.
    #[error("cannot ask the director")]
    Ask(#[source] ControlError),
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

/// `sluice status`.
pub(crate) fn status(args: &ShowArgs) -> Result<(), ShowError> {
    let status: Status = Client::new(&args.socket).get("/v1/status").map_err(ShowError::Ask)?;
    print(args, &status, status_text)
}

/// `sluice verdicts`.
pub(crate) fn verdicts(args: &ShowArgs) -> Result<(), ShowError> {
    let verdicts: Verdicts = Client::new(&args.socket).get("/v1/verdicts").map_err(ShowError::Ask)?;
    print(args, &verdicts, verdicts_text)
}

/// `sluice set`.
pub(crate) fn set(args: &SetArgs) -> Result<(), ShowError> {
    let client = Client::new(&args.show.socket);
    match (&args.name, args.value) {
        (Some(name), Some(value)) => change(&client, Change::SetSetting { name: name.clone(), value }),
        _ => {
            let settings: SettingsView = client.get("/v1/settings").map_err(ShowError::Ask)?;
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
        Client::new(&args.show.socket).post("/v1/explain", &request).map_err(ShowError::Ask)?;
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
    text
}

fn verdicts_text(verdicts: &Verdicts) -> String {
    let mut text = format!("{:<26} {:>14}  {}\n", "VERDICT", "PACKETS", "MEANING");
    for verdict in &verdicts.verdicts {
        let _ = writeln!(text, "{:<26} {:>14}  {}", verdict.name, verdict.packets, verdict.sentence);
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
