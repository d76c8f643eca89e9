//! `sluice doctor`: looks for the classic mistakes of a cluster, and says what to do about each.
//!
//! ```text
//! director's answers + looks at the network (gather) -> doctor::Facts -> doctor::diagnose -> lines
//! ```

mod gather;
mod network;

use crate::args::ShowArgs;
use crate::show::write_out;
use api::{Changes, Services, Status};
use doctor::{Examination, Finding, Missed, Severity, diagnose};
use gather::{Answers, Gathered, gather};
use host::Interface;
use host::interface::InterfaceError;
use host::netlink::Netlink;
use runtime::control::{Client, ControlError};
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

/// Exit code if something is wrong.
const FOUND: u8 = 1;
/// Exit code if something could not be examined, and nothing else was found.
const MISSED: u8 = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice doctor
  sluice doctor --only arp --only path --json
  sluice doctor --list

Run it as root on the director, while that runs. The exit code is 0 if nothing is wrong, 1 if something is, 2 if something could \
not be examined and nothing else is wrong.")]
pub(crate) struct DoctorArgs {
    /// Only this examination; may be given several times. `--list' names them.
    #[arg(long, value_name = "NAME", value_parser = examination)]
    only: Vec<Examination>,
    /// List the examinations, and what each asks.
    #[arg(long)]
    list: bool,
    /// Where and how to show.
    #[command(flatten)]
    show: ShowArgs,
}

fn examination(name: &str) -> Result<Examination, String> {
    Examination::from_name(name).ok_or_else(|| {
        let known = Examination::ALL.map(Examination::name).join(", ");
        format!("no examination of this name: use {known}")
    })
}

/// Why nothing was examined.
#[derive(Debug, thiserror::Error)]
enum DoctorError {
    /// The director could not be asked.
    #[error("cannot ask the director")]
    Ask(#[source] ControlError),
    /// It is in another network namespace.
    #[error(
        "the director is in another network namespace, which is not this one's to examine: nsenter --net=/proc/{pid}/ns/net sluice doctor"
    )]
    Elsewhere {
        /// The director's process.
        pid: u32,
    },
    /// Its configuration makes no sense to this program.
    #[error("the director's configuration is not understood: {0}; use the `sluice' of its version")]
    Configuration(String),
    /// No runtime or netlink.
    #[error("cannot look at the network")]
    Network(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer could not be printed.
    #[error("cannot print the answer")]
    Print(#[source] io::Error),
}

/// `sluice doctor`.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    match examine(args) {
        Ok(code) => code,
        Err(error) => {
            runtime::print_error(&error);
            ExitCode::from(MISSED)
        }
    }
}

fn examine(args: &DoctorArgs) -> Result<ExitCode, DoctorError> {
    if args.list {
        write_out(&list(args.show.json)).map_err(DoctorError::Print)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = if args.only.is_empty() { Examination::ALL.to_vec() } else { args.only.clone() };
    let answers = ask(&Client::new(&args.show.socket))?;
    let progress: fn(&str) =
        if args.show.json { |_| {} } else { |what| runtime::tell(format_args!("{what} ...")) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| DoctorError::Network(error.into()))?;
    if !runtime.block_on(is_here(&answers.status)) {
        return Err(DoctorError::Elsewhere { pid: answers.status.pid });
    }
    let gathered = runtime.block_on(gather(&answers, &wanted, progress)).map_err(DoctorError::Network)?;
    let Gathered { facts, mut missed } = gathered;
    missed.retain(|it| wanted.contains(&it.examination));
    missed.sort();
    let findings = diagnose(&facts, &wanted);
    let shown = if args.show.json {
        format!("{}\n", serde_json::json!({ "findings": findings, "not_examined": missed }))
    } else {
        text(&findings, &missed, wanted.len())
    };
    write_out(&shown).map_err(DoctorError::Print)?;
    Ok(match (findings.is_empty(), missed.is_empty()) {
        (false, _) => ExitCode::from(FOUND),
        (true, false) => ExitCode::from(MISSED),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// Asks the director for all that it knows.
fn ask(client: &Client) -> Result<Answers, DoctorError> {
    let status: Status = client.get("/v1/status").map_err(DoctorError::Ask)?;
    let services: Services = client.get("/v1/services").map_err(DoctorError::Ask)?;
    let declared: Changes = client.get("/v1/declared").map_err(DoctorError::Ask)?;
    // Whatever limits the director has, it took this.
    let limits = abi::Limits { services_max: u32::MAX, reals_max: u32::MAX, ..abi::Limits::default() };
    let mut model = plan::Model::new(plan::Options { limits, ..plan::Options::default() });
    let applied = declared.changes.iter().try_for_each(|change| model.apply(change));
    applied.map_err(|refusal| DoctorError::Configuration(refusal.message))?;
    Ok(Answers { status, services, model })
}

/// Whether the director is in this network namespace. Who may not look where it is can tell by its interfaces.
async fn is_here(status: &Status) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    if let Some(theirs) = namespace(&status.pid.to_string()) {
        return Some(theirs) == namespace("self");
    }
    let Ok(netlink) = Netlink::open() else { return true };
    for it in &status.interfaces {
        match Interface::by_index(&netlink, it.index).await {
            Ok(found) if found.name == it.name => {}
            Ok(_) | Err(InterfaceError::NoSuchIndex { .. }) => return false,
            Err(_) => {}
        }
    }
    true
}

fn list(json: bool) -> String {
    let all = Examination::ALL.iter();
    if json {
        let one = |it: &Examination| serde_json::json!({ "name": it.name(), "what": it.sentence() });
        return format!("{}\n", serde_json::Value::from_iter(all.map(one)));
    }
    all.map(|it| format!("{it:<11} {}\n", it.sentence())).collect()
}

fn text(findings: &[Finding], missed: &[Missed], examinations: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { severity, examination, place, what, fix } = finding;
        let _ = writeln!(text, "{severity}: {examination}: {place}: {what}");
        let _ = writeln!(text, "    fix: {fix}");
    }
    for Missed { examination, why } in missed {
        let _ = writeln!(text, "not examined: {examination}: {why}");
    }
    let of = |severity| findings.iter().filter(|it| it.severity == severity).count();
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let _ = writeln!(
        text,
        "{}: {}, {}",
        count(examinations, "examination"),
        count(of(Severity::Error), "error"),
        count(of(Severity::Warning), "warning")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_fix_and_what_was_missed_is_said() {
        let finding = Finding {
            severity: Severity::Error,
            examination: Examination::Arp,
            place: "192.0.2.10".to_owned(),
            what: "somebody else has it".to_owned(),
            fix: "take it off".to_owned(),
        };
        let missed = Missed { examination: Examination::Clock, why: "no permission".to_owned() };
        assert_eq!(
            text(&[finding], &[missed], 14),
            "error: arp: 192.0.2.10: somebody else has it\n    fix: take it off\nnot examined: clock: no permission\n\
             14 examinations: 1 error, 0 warnings\n"
        );
        assert_eq!(text(&[], &[], 1), "1 examination: 0 errors, 0 warnings\n");
        assert_eq!(list(false).lines().count(), Examination::ALL.len());
        assert!(examination("arp").is_ok() && examination("apr").is_err_and(|it| it.contains("arp, path")));
    }
}
