//! `sluice mark`: which packets have which firewall mark.

use crate::args::ShowArgs;
use crate::policy::change_all;
use crate::show::{ShowError, print};
use api::{Change, MarkMatch, Marks, Protocol};
use runtime::control::Client;
use std::fmt::Write as _;

const EXAMPLES: &str = "\
Examples:
  sluice mark add tcp 192.0.2.10:80 192.0.2.10:443 --mark 1
  sluice mark add tcp '192.0.2.10:*' --mark 2     # all other ports
  sluice mark add tcp 192.0.2.10:21 192.0.2.10:50000-50099 --mark 3
  sluice mark list --json
  sluice mark delete tcp 192.0.2.10:443
  sluice ipvsadm -A -f 1 -s wlc -p                # the service that gets them";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MarkArgs {
    #[command(subcommand)]
    command: MarkCommand,
}

#[derive(Debug, clap::Subcommand)]
enum MarkCommand {
    /// Give packets a mark.
    #[command(after_help = "Example:\n  sluice mark add tcp 192.0.2.10:80 192.0.2.10:443 --mark 1")]
    Add {
        /// Which packets.
        #[command(flatten)]
        matches: MatchArgs,
        /// The mark, as `ipvsadm -f` takes it.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        mark: u32,
    },
    /// Take the mark away again; say the matches as they were added.
    #[command(after_help = "Example:\n  sluice mark delete tcp 192.0.2.10:443")]
    Delete {
        /// Which packets.
        #[command(flatten)]
        matches: MatchArgs,
    },
    /// List what has a mark.
    #[command(after_help = "Example:\n  sluice mark list --json")]
    List {
        /// Where and how to show.
        #[command(flatten)]
        show: ShowArgs,
    },
}

#[derive(Debug, clap::Args)]
struct MatchArgs {
    /// Transport protocol: tcp, udp or sctp.
    protocol: Protocol,
    /// VIP:PORT, VIP:FIRST-LAST, or VIP:* for all ports that no other match names; several are done together or not at all.
    #[arg(required = true, value_name = "MATCH")]
    matches: Vec<String>,
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    socket: std::path::PathBuf,
}

impl MatchArgs {
    fn each(&self, change: impl Fn(MarkMatch) -> Change) -> Result<(), ShowError> {
        let matches = self.matches.iter().map(|text| MarkMatch::parse(self.protocol, text).map(&change));
        let changes = matches.collect::<Result<_, _>>().map_err(ShowError::Words)?;
        change_all(&Client::new(&self.socket), changes)
    }
}

/// `sluice mark`.
pub(crate) fn run(args: &MarkArgs) -> Result<(), ShowError> {
    match &args.command {
        MarkCommand::Add { matches, mark } => {
            matches.each(|matched| Change::AddMark { matched, mark: *mark })
        }
        MarkCommand::Delete { matches } => matches.each(|matched| Change::DeleteMark { matched }),
        MarkCommand::List { show } => {
            let marks: Marks = Client::new(&show.socket).get("/v1/marks").map_err(ShowError::asking)?;
            print(show, &marks, text)
        }
    }
}

fn text(marks: &Marks) -> String {
    let mut text = String::new();
    for mark in &marks.marks {
        let protocol = mark.matched.protocol.to_string().to_lowercase();
        let _ = writeln!(text, "{protocol:<4} {:<40} mark {}", mark.matched.to_string(), mark.mark);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Mark;

    #[test]
    fn a_list_has_a_line_for_each_match() {
        let mark =
            |protocol, text, mark| Mark { matched: MarkMatch::parse(protocol, text).expect("a match"), mark };
        let marks = vec![mark(Protocol::Tcp, "192.0.2.1:80", 1), mark(Protocol::Udp, "[2001:db8::1]:*", 7)];
        assert_eq!(
            text(&Marks { marks }),
            "tcp  192.0.2.1:80                             mark 1\n\
             udp  [2001:db8::1]:*                          mark 7\n"
        );
    }
}
