//! `sluice plan`, `apply`, `confirm`, `rollback`, `history`: cluster files and the director that runs one.

use crate::args::{ShowArgs, number};
use crate::file::{self, FileError};
use crate::show::{ShowError, print};
use api::{Applied, ApplyRequest, History, Plan, PlanLine, Refusal, RollbackRequest, Saved};
use runtime::control::{Client, ControlError};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sluice plan cluster.toml")]
pub(crate) struct PlanArgs {
    /// The cluster file, or `-` for standard input.
    file: PathBuf,
    /// Where and how to show.
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sluice apply cluster.toml
  # Taken back after five minutes, unless you say `sluice confirm':
  sluice apply cluster.toml --confirm 5m
  # Only if configuration 41, which was planned with, is still the present one:
  sluice apply cluster.toml --expect 41")]
pub(crate) struct ApplyArgs {
    /// The cluster file, or `-` for standard input.
    file: PathBuf,
    /// Take it back unless it is confirmed within this time (10s to 24h), and at once when traffic gets much worse.
    #[arg(long, value_name = "TIME", value_parser = confirm_time, allow_hyphen_values = true)]
    confirm: Option<Duration>,
    /// Refuse if the present configuration has another number.
    #[arg(long, value_name = "NUMBER", value_parser = number::<u64>, allow_negative_numbers = true)]
    expect: Option<u64>,
    /// Where and how to show.
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sluice history       # lists the numbers\n  sluice rollback 41")]
pub(crate) struct RollbackArgs {
    /// Number of the configuration to go back to.
    #[arg(value_parser = number::<u64>, allow_negative_numbers = true)]
    generation: u64,
    /// Where and how to show.
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It is the file that was applied last, comments, names and templates kept; what was changed by hand since is written into it, \
and listed on top.\n\nExample:\n  sluice save > cluster.toml\n  sluice plan cluster.toml     # has nothing to change"
)]
pub(crate) struct SaveArgs {
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    socket: PathBuf,
}

/// A cluster file could not be planned or applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The director.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// Findings, each on a line with its place.
    #[error("nothing was changed:{}{}", before(.0), .0)]
    Refused(String),
}

/// Findings begin on a line of their own, so that editors find their places.
fn before(refused: &str) -> char {
    if refused.contains('\n') || refused.contains(": error: ") { '\n' } else { ' ' }
}

fn confirm_time(text: &str) -> Result<Duration, String> {
    let is_allowed =
        |time: &Duration| api::CONFIRM_S.contains(&u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    let time = humantime::parse_duration(text).ok().filter(is_allowed);
    time.ok_or_else(|| "give a time of 10s to 24h with its unit, such as 90s, 5m or 1h".to_owned())
}

/// `sluice plan`.
pub(crate) fn plan(args: &PlanArgs) -> Result<(), ApplyError> {
    let request = request(&args.file)?;
    let plan: Plan = ask(&args.show, "/v1/plan", &request)?;
    Ok(print(&args.show, &plan, plan_text)?)
}

/// `sluice apply`.
pub(crate) fn apply(args: &ApplyArgs) -> Result<(), ApplyError> {
    let confirm_s = args.confirm.map(|it| u32::try_from(it.as_secs()).unwrap_or(u32::MAX));
    let request = ApplyRequest { confirm_s, expect_generation: args.expect, ..request(&args.file)? };
    let applied: Applied = ask(&args.show, "/v1/apply", &request)?;
    Ok(print(&args.show, &applied, applied_text)?)
}

/// `sluice rollback`.
pub(crate) fn roll_back(args: &RollbackArgs) -> Result<(), ApplyError> {
    let request = RollbackRequest { generation: args.generation };
    let applied: Applied = ask(&args.show, "/v1/rollback", &request)?;
    Ok(print(&args.show, &applied, applied_text)?)
}

/// `sluice confirm`.
pub(crate) fn confirm(args: &ShowArgs) -> Result<(), ApplyError> {
    let history: History = ask(args, "/v1/confirm", &())?;
    let text = |history: &History| format!("configuration {} stays\n", history.generation);
    Ok(print(args, &history, text)?)
}

/// `sluice history`.
pub(crate) fn history(args: &ShowArgs) -> Result<(), ApplyError> {
    let history: History = Client::new(&args.socket).get("/v1/history").map_err(ShowError::asking)?;
    Ok(print(args, &history, history_text)?)
}

/// `sluice save`.
pub(crate) fn save(args: &SaveArgs) -> Result<(), ApplyError> {
    let saved: Saved = Client::new(&args.socket).get("/v1/saved").map_err(ShowError::asking)?;
    let text = text_of(&saved).map_err(|refusal| ApplyError::Refused(refusal.message))?;
    Ok(file::print(&text)?)
}

/// What is declared, as a cluster file.
fn text_of(saved: &Saved) -> Result<String, Refusal> {
    // Whatever limits the director has, it took this.
    let limits = abi::Limits { services_max: u32::MAX, reals_max: u32::MAX, ..abi::Limits::default() };
    let mut model = plan::Model::new(plan::Options { limits, ..plan::Options::default() });
    saved.declared.changes.iter().try_for_each(|change| model.apply(change))?;
    Ok(cluster::save(&model, saved.file.as_ref()))
}

fn request(path: &std::path::Path) -> Result<ApplyRequest, ApplyError> {
    let bytes = file::read(path)?;
    let name = file::shown(path);
    match cluster::decode(&bytes) {
        Ok(text) => {
            Ok(ApplyRequest { name, text: text.to_owned(), confirm_s: None, expect_generation: None })
        }
        Err((before, finding)) => {
            Err(ApplyError::Refused(finding.text(&name, &cluster::Lines::new(before)).trim_end().to_owned()))
        }
    }
}

fn ask<Q: serde::Serialize + Sync, A: serde::de::DeserializeOwned>(
    args: &ShowArgs,
    path: &str,
    request: &Q,
) -> Result<A, ApplyError> {
    match Client::new(&args.socket).post(path, request) {
        Ok(answer) => Ok(answer),
        Err(ControlError::Refused(refusal)) => Err(ApplyError::Refused(refusal.message)),
        Err(error) => Err(ShowError::Ask(error).into()),
    }
}

fn lines_text(lines: &[PlanLine]) -> String {
    let mut text = String::new();
    for PlanLine { action, level, text: line } in lines {
        let indent = usize::from(*level) * 4;
        let _ = writeln!(text, "{:indent$}{} {line}", "", action.sign());
    }
    text
}

fn plan_text(plan: &Plan) -> String {
    if plan.lines.is_empty() {
        return format!("nothing to change: configuration {} is as the file says\n", plan.generation);
    }
    let mut text = lines_text(&plan.lines);
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let of = |action| plan.lines.iter().filter(|it| it.action == action).count();
    let (new, changed) = (of(api::PlanAction::Add), of(api::PlanAction::Change));
    let gone = of(api::PlanAction::Remove);
    let _ = writeln!(
        text,
        "{new} new, {changed} changed, {gone} removed, against configuration {}",
        plan.generation
    );
    text
}

fn applied_text(applied: &Applied) -> String {
    if applied.plan.lines.is_empty() {
        return plan_text(&applied.plan);
    }
    let mut text = lines_text(&applied.plan.lines);
    for warning in &applied.plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let Applied { generation, plan, confirm_s } = applied;
    let _ = writeln!(
        text,
        "configuration {generation} holds now; `sluice rollback {}' takes it back",
        plan.generation
    );
    if let Some(seconds) = confirm_s {
        let _ = writeln!(text, "say `sluice confirm' within {seconds} s, or it is taken back");
    }
    text
}

fn history_text(history: &History) -> String {
    if history.entries.is_empty() {
        return format!(
            "no configuration was applied as a whole yet; the present one is number {}\n",
            history.generation
        );
    }
    let mut text = format!("{:>10}  {:<24}  {:>8}  {}\n", "NUMBER", "APPLIED", "SERVICES", "FROM");
    for entry in &history.entries {
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(entry.time_ms));
        let now = if entry.generation == history.generation { "  (now)" } else { "" };
        let time = time.to_string();
        let _ = writeln!(
            text,
            "{:>10}  {time:<24}  {:>8}  {}{now}",
            entry.generation, entry.services, entry.source
        );
    }
    if history.entries.last().is_some_and(|it| it.generation != history.generation) {
        let _ = writeln!(text, "{:>10}  changed one by one since (now)", history.generation);
    }
    if let Some(pending) = history.pending {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let left = Duration::from_millis(pending.deadline_ms).saturating_sub(now).as_secs();
        let _ = writeln!(
            text,
            "configuration {} is taken back to {} in {left} s unless you say `sluice confirm'",
            pending.generation, pending.back_to
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{AppliedFile, HistoryEntry, PlanAction};

    #[test]
    fn a_plan_is_a_list_of_signs_with_a_sum() {
        let line = |action, level, text: &str| PlanLine { action, level, text: text.to_owned() };
        let lines = vec![
            line(PlanAction::Change, 0, "service TCP 192.0.2.1:80"),
            line(PlanAction::Add, 1, "real server 10.0.0.1:80: weight 1, NAT"),
        ];
        let plan = Plan { generation: 7, lines, warnings: vec!["mind the gap".to_owned()] };
        assert_eq!(
            plan_text(&plan),
            "~ service TCP 192.0.2.1:80\n    + real server 10.0.0.1:80: weight 1, NAT\nwarning: mind the gap\n\
             1 new, 1 changed, 0 removed, against configuration 7\n"
        );
        let same = Plan { lines: Vec::new(), warnings: Vec::new(), ..plan.clone() };
        assert_eq!(plan_text(&same), "nothing to change: configuration 7 is as the file says\n");
        let applied = applied_text(&Applied { generation: 8, plan, confirm_s: Some(300) });
        assert!(applied.ends_with(
            "configuration 8 holds now; `sluice rollback 7' takes it back\n\
             say `sluice confirm' within 300 s, or it is taken back\n"
        ));
    }

    #[test]
    fn what_is_declared_is_saved_as_a_file_that_says_the_same() {
        let text = "[service.www]\nvip = \"192.0.2.10\"\nports = \"tcp/80\"\nscheduler = \"rr\"\nservers = [\"10.0.0.1\"]\n";
        let parsed = cluster::parse(text, &plan::Options::default());
        let model = parsed.cluster.expect("good").model;
        let declared = model.to_changes();
        let plain = text_of(&Saved { declared: declared.clone(), file: None }).expect("good");
        let again = cluster::parse(&plain, &plan::Options::default()).cluster.expect("good").model;
        assert_eq!(again, model, "{plain}");
        let text = format!("# By Eve.\n{text}");
        let file = AppliedFile { generation: 3, source: "web.toml".to_owned(), text: text.clone() };
        assert_eq!(text_of(&Saved { declared, file: Some(file) }).expect("good"), text);
    }

    #[test]
    fn a_history_says_which_one_holds() {
        let entry =
            |generation| HistoryEntry { generation, time_ms: 0, source: "web.toml".to_owned(), services: 2 };
        let history = History { generation: 4, entries: vec![entry(3), entry(4)], pending: None };
        assert_eq!(
            history_text(&history),
            "    NUMBER  APPLIED                   SERVICES  FROM\n         3  1970-01-01T00:00:00Z             2  web.toml\n         \
             4  1970-01-01T00:00:00Z             2  web.toml  (now)\n"
        );
    }
}
