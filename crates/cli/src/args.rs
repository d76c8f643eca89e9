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
  sluice demo                                    a whole cluster on this machine, shown live
  sluice director --interface eth0               balance what arrives on eth0
  sluice ipvsadm -A -t 192.0.2.10:80 -s wlc      the classic command line (or link it as ipvsadm)
  sluice explain tcp 198.51.100.7:40000 192.0.2.10:80
  sluice validate cluster.toml                   everything that is wrong with a cluster file";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the director: attach the packet path and serve the control socket.
    Director(director::Options),
    /// The classic command line of Linux Virtual Server; `ipvsadm -h` lists its options.
    #[command(disable_help_flag = true)]
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
