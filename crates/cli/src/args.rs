//! The words of `sluice`.

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A pool of ordinary servers that answers as one.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sluice demo                                # a whole cluster on this machine
  sluice director --interface eth0           # balance what arrives on eth0
  sluice ipvsadm -A -t 192.0.2.10:80 -s wlc  # or link it as ipvsadm
  sluice explain tcp 198.51.100.7:40000 192.0.2.10:80
  sluice validate cluster.toml               # all that is wrong with a file";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the director: attach the packet path and serve the control socket.
    Director(director::Options),
    /// The classic command line of Linux Virtual Server; `ipvsadm -h` lists its options.
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  sluice ipvsadm -A -t 192.0.2.10:80 -s wlc\n  sluice ipvsadm -L -n"
    )]
    Ipvsadm(IpvsadmArgs),
    /// Show the director: interfaces, flows, limits.
    #[command(after_help = "Example:\n  sluice status --json")]
    Status(ShowArgs),
    /// Count what became of packets, one line for each verdict.
    #[command(after_help = "Example:\n  sluice verdicts --json")]
    Verdicts(ShowArgs),
    /// Show the daemons of connection synchronisation, which `ipvsadm --start-daemon` starts, and what they have done.
    #[command(
        after_help = "Example:\n  ipvsadm --start-daemon master --mcast-interface eth1\n  sluice sync --json"
    )]
    Sync(ShowArgs),
    /// Say which real server a flow would go to, and why.
    #[command(after_help = "Example:\n  sluice explain tcp 198.51.100.7:40000 192.0.2.10:80")]
    Explain(ExplainArgs),
    /// List the flows of the packet path, or count them: top talkers.
    Flows(crate::flows::FlowsArgs),
    /// Capture packets with what became of them and their real server, for Wireshark or tcpdump.
    Capture(crate::capture::CaptureArgs),
    /// Give packets firewall marks, for the services of `ipvsadm -f`; and list them.
    Mark(crate::mark::MarkArgs),
    /// Choose what a service does beyond the classic options, and show what was chosen.
    Policy(crate::policy::PolicyArgs),
    /// Set what IPVS has as sysctls; without a name, list all with value, default and meaning.
    #[command(after_help = "Examples:\n  sluice set\n  sluice set conn_reuse_mode 3\n  sluice set --json")]
    Set(SetArgs),
    /// Show the health of real servers: what is thought of each, why, and which weight it has.
    #[command(after_help = "Example:\n  sluice health --json")]
    Health(ShowArgs),
    /// Show services and real servers live: weights, connections, rates, health; drain and undrain by a key.
    Top(crate::top::TopArgs),
    /// Print what is counted, in the text format of Prometheus.
    Metrics(crate::health::MetricsArgs),
    /// Show what happened: servers that failed or came back, configurations that were accepted.
    Events(crate::health::EventsArgs),
    /// Give a real server no new work; connections it has go on.
    Drain(crate::health::DrainArgs),
    /// Give a drained real server work again.
    Undrain(crate::health::DrainArgs),
    /// Look for the classic mistakes of a cluster, and say what to do about each.
    Doctor(crate::doctor::DoctorArgs),
    /// Find everything that is wrong with a cluster file; the exit code is 1 if it would be refused.
    #[command(
        after_help = "Examples:\n  sluice validate cluster.toml\n  sluice validate - --json < cluster.toml"
    )]
    Validate(crate::file::ValidateArgs),
    /// Give a cluster file its canonical layout; comments and order stay.
    #[command(after_help = "Examples:\n  sluice fmt cluster.toml\n  sluice fmt --check cluster.toml")]
    Fmt(crate::file::FmtArgs),
    /// Turn another program's file into a cluster file; what cannot be carried over is listed on standard error.
    #[command(after_help = "\
Examples:
  sluice import keepalived /etc/keepalived/keepalived.conf > cluster.toml
  sluice import ldirectord /etc/ha.d/ldirectord.cf > cluster.toml
  ipvsadm-save -n | sluice import ipvsadm-save - > cluster.toml

The exit code is 0 if all was carried over, 3 if something was left, 1 if the file cannot be read.")]
    Import(crate::file::ImportArgs),
    /// Print the JSON schema of the cluster file, for editors.
    #[command(after_help = "Example:\n  sluice schema > cluster-file.schema.json")]
    Schema,
    /// Show what a cluster file would change, and which connections it would break.
    Plan(crate::apply::PlanArgs),
    /// Make a cluster file the configuration, whole or not at all.
    Apply(crate::apply::ApplyArgs),
    /// Print what is declared as a cluster file.
    Save(crate::apply::SaveArgs),
    /// Keep what was applied with `--confirm`.
    #[command(after_help = "Example:\n  sluice confirm")]
    Confirm(ShowArgs),
    /// Go back to an earlier configuration.
    Rollback(crate::apply::RollbackArgs),
    /// List the configurations that can be gone back to.
    #[command(after_help = "Example:\n  sluice history --json")]
    History(ShowArgs),
    /// Build a whole cluster on this machine in network namespaces, drive it, and check what it does.
    Demo(lab::demo::Options),
    /// Measure the packet path.
    #[command(after_help = "Example:\n  sluice bench packet --json")]
    Bench(lab::bench::BenchArgs),
    /// Echo UDP datagrams inside a namespace of the demo.
    #[command(hide = true)]
    LabUdpEcho(lab::udp::EchoOptions),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  sluice completions bash > /etc/bash_completion.d/sluice")]
    Completions(CompletionsArgs),
    /// Write the man pages into a folder.
    #[command(after_help = "Example:\n  sluice man /usr/local/share/man/man8")]
    Man(ManArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IpvsadmArgs {
    /// As `ipvsadm` takes them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<OsString>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    pub(crate) socket: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SetArgs {
    /// Which setting.
    #[arg(requires = "value")]
    pub(crate) name: Option<String>,
    /// Its new value.
    #[arg(value_parser = number::<u32>, allow_negative_numbers = true)]
    pub(crate) value: Option<u32>,
    /// Where and how to show.
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    /// Transport protocol: tcp or udp.
    pub(crate) protocol: api::Protocol,
    /// Client address and port, such as 198.51.100.7:40000 or [2001:db8::7]:40000.
    #[arg(value_parser = endpoint)]
    pub(crate) client: SocketAddr,
    /// VIP and port.
    #[arg(value_parser = endpoint)]
    pub(crate) virtual_address: SocketAddr,
    /// Where and how to show.
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// A number of the command line, with an error that says what would be right.
pub(crate) fn number<N: std::str::FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse().map_err(|_| "give a whole number from 0 up, such as 41")
}

fn endpoint(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "give an address with its port, such as 198.51.100.7:40000 or [2001:db8::7]:40000")
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    pub(crate) shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Folder for the pages; it must exist.
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Columns of a terminal that breaks no example.
    const COLUMNS: usize = 80;

    /// The commands of a line of a shell, each in words. A comment is none; where output goes, and what follows, is not looked at.
    fn commands(line: &str) -> Vec<Vec<String>> {
        let (mut all, mut words) = (Vec::new(), Vec::new());
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with(['#', '>', '<', '&']) {
            if let Some(behind) = rest.strip_prefix('|') {
                all.push(std::mem::take(&mut words));
                rest = behind.trim_start();
                continue;
            }
            let (word, behind) = match rest.strip_prefix('\'') {
                Some(quoted) => quoted.split_once('\'').expect("the second quote"),
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            words.push(word.to_owned());
            rest = behind.trim_start();
        }
        all.push(words);
        all.retain(|words| !words.is_empty());
        all
    }

    /// Looks at the examples of a command, called by these words, and of those below it. Gives the number of commands.
    fn look(command: &clap::Command, path: &[String]) -> usize {
        let help = command.get_after_help().unwrap_or_else(|| panic!("{path:?} has no example")).to_string();
        let lines = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
        let mut is_there = false;
        for line in lines.take_while(|line| line.starts_with("  ")) {
            assert!(line.len() < COLUMNS, "{path:?}: a terminal would break {line:?}");
            for words in commands(line).into_iter().filter(|words| words[0] == "sluice") {
                is_there |= words.starts_with(path);
                if let Err(error) = Args::try_parse_from(&words) {
                    panic!("{path:?}: {line:?}: {error}");
                }
            }
        }
        assert!(is_there, "{path:?}: no example of its own in {help}");
        let below = command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help");
        1 + below.map(|it| look(it, &[path, &[it.get_name().to_owned()]].concat())).sum::<usize>()
    }

    /// What is typed in a line of a page, without the prompt and what is said about it behind two blanks.
    fn typed(line: &str) -> Option<&str> {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        // `sluice 0.1.0' is an answer.
        let is_typed = line.strip_prefix("sluice ").is_some_and(|rest| !rest.starts_with(char::is_numeric));
        is_typed.then(|| line.split_once("  ").map_or(line, |(typed, _)| typed))
    }

    #[test]
    fn every_command_in_the_documents_can_be_typed_as_it_stands() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pages = std::fs::read_dir(root.join("docs")).expect("docs").map(|it| it.expect("a page").path());
        let is_page = |path: &PathBuf| path.extension().is_some_and(|it| it == "md");
        let mut found = 0;
        for page in pages.filter(is_page).chain([root.join("README.md")]) {
            let text = std::fs::read_to_string(&page).expect("a page");
            // Every second part is inside of a fence.
            for line in text.split("```").skip(1).step_by(2).flat_map(str::lines).filter_map(typed) {
                for words in commands(line).into_iter().filter(|words| words[0] == "sluice") {
                    if let Err(error) = Args::try_parse_from(&words) {
                        panic!("{}: {line:?}: {error}", page.display());
                    }
                    found += 1;
                }
            }
        }
        assert!(found > 40, "{found} commands");
    }

    #[test]
    fn every_command_has_an_example_that_can_be_typed_as_it_stands() {
        let mut command = Args::command();
        command.build();
        let number = look(&command, &["sluice".to_owned()]);
        assert!(number > 30, "{number} commands");
        let line = "  sluice a 'b c' - | wc -l > d   # e";
        assert_eq!(commands(line), [vec!["sluice", "a", "b c", "-"], vec!["wc", "-l"]]);
        assert!(commands("  # sluice").is_empty());
    }
}
