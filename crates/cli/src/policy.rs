//! `sluice policy`: what a service does beyond the classic options.

use crate::args::ShowArgs;
use crate::show::{ShowError, print};
use api::{Change, Changes, Gone, Outcomes, Placement, Policies, PolicyChoices, RefusalKind, ServiceId};
use runtime::control::Client;
use std::fmt::Write as _;

const EXAMPLES: &str = "\
Examples:
  sluice policy list
  # Clients of a server that was taken out are reset, not left hanging:
  sluice policy tcp 192.0.2.10:80 --gone reset
  # Servers need no route back through the director (with -m):
  sluice policy tcp 192.0.2.10:80 --source-nat on
  # sh, dh and mh choose the servers that kernel IPVS chooses:
  sluice policy default --placement exact
  # What kernel IPVS does:
  sluice policy default --gone keep --rescue off";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PolicyArgs {
    /// The service, as `tcp VIP:PORT` or `fwm MARK`; or `default`, for all that chose nothing; or `list`.
    #[arg(num_args = 1..=3, required = true, value_name = "SERVICE")]
    service: Vec<String>,
    /// Flows of a deleted real server: keep (drop), reschedule when opened anew, or reset the client.
    #[arg(long, value_name = "CHOICE")]
    gone: Option<Gone>,
    /// Whether a repeated SYN whose real server never got on goes to another one.
    #[arg(long, value_name = "SWITCH", value_parser = switch)]
    rescue: Option<bool>,
    /// Whether masquerading replaces the client's address too.
    #[arg(long, value_name = "SWITCH", value_parser = switch)]
    source_nat: Option<bool>,
    /// How sh, dh and mh place clients: keyed by the directors' secret, or exact, as kernel IPVS does.
    #[arg(long, value_name = "CHOICE")]
    placement: Option<Placement>,
    /// Forget what was chosen before; what is not chosen now is as for all.
    #[arg(long)]
    forget: bool,
    /// Where and how to show.
    #[command(flatten)]
    show: ShowArgs,
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("say on or off"),
    }
}

/// `sluice policy`.
pub(crate) fn run(args: &PolicyArgs) -> Result<(), ShowError> {
    let client = Client::new(&args.show.socket);
    let PolicyArgs { gone, rescue, source_nat, placement, .. } = *args;
    let choices = PolicyChoices { gone, rescue, source_nat, placement };
    let nothing = choices.is_empty() && !args.forget;
    let words = args.service.join(" ");
    let service = match words.as_str() {
        "list" if nothing => {
            let policies: Policies = client.get("/v1/policies").map_err(ShowError::asking)?;
            return print(&args.show, &policies, text);
        }
        "list" => {
            return Err(ShowError::Words("a list takes no choices: name a service or `default'".to_owned()));
        }
        "default" => None,
        words => Some(words.parse::<ServiceId>().map_err(ShowError::Words)?),
    };
    if nothing {
        let text = format!(
            "nothing chosen for {words}: give --gone, --rescue, --source-nat, --placement or --forget"
        );
        return Err(ShowError::Words(text));
    }
    change(&client, Change::SetPolicy { service, forget: args.forget, choices })
}

/// Asks for one change.
pub(crate) fn change(client: &Client, change: Change) -> Result<(), ShowError> {
    change_all(client, vec![change])
}

/// Asks for several changes, all or none.
pub(crate) fn change_all(client: &Client, changes: Vec<Change>) -> Result<(), ShowError> {
    let request = Changes { atomic: true, changes };
    let outcomes: Outcomes = client.post("/v1/changes", &request).map_err(ShowError::asking)?;
    // That of the one that was refused, not of those that were therefore not done.
    match outcomes.refusals.into_iter().flatten().find(|it| it.kind != RefusalKind::Aborted) {
        Some(refusal) => Err(ShowError::Refused(refusal)),
        None => Ok(()),
    }
}

fn text(policies: &Policies) -> String {
    let mut text = format!("{:<32} {}\n", "default", policies.default);
    for it in &policies.services {
        let own = if it.chosen.is_empty() { " (default)" } else { "" };
        let _ = writeln!(text, "{:<32} {}{own}", it.service.to_string(), it.policy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Policy, ServicePolicy};

    #[test]
    fn a_list_has_a_line_for_the_default_and_for_each_service() {
        let chosen = PolicyChoices { gone: Some(Gone::Reset), ..PolicyChoices::default() };
        let one = |service: &str, chosen| ServicePolicy {
            service: service.parse().expect("a service"),
            policy: Policy::of(chosen),
            chosen,
        };
        let services = vec![one("tcp 192.0.2.1:80", chosen), one("fwm 7", PolicyChoices::default())];
        assert_eq!(
            text(&Policies { default: Policy::default(), services }),
            "default                          gone reschedule, rescue on, source-nat off, placement keyed\n\
             TCP 192.0.2.1:80                 gone reset, rescue on, source-nat off, placement keyed\n\
             FWM 7                            gone reschedule, rescue on, source-nat off, placement keyed (default)\n"
        );
    }
}
