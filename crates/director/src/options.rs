//! The words of `sluice director`.

use abi::Limits;
use runtime::logging::LogFormat;
use std::path::PathBuf;

/// Options of the director.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  sluice director --interface eth0
  sluice director --interface eth0 --interface eth1 --log-format json
  sluice director --remove     # stop balancing, take all out of the kernel")]
pub struct Options {
    /// Interface that client packets arrive on; may be given several times, or several with commas between.
    #[arg(
        long = "interface",
        short = 'i',
        value_name = "NAME",
        value_delimiter = ',',
        required_unless_present = "remove"
    )]
    pub interfaces: Vec<String>,
    /// Unix socket of the control API; mode 0660.
    #[arg(long, value_name = "PATH", env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    pub socket: PathBuf,
    /// Directory on a bpffs where programs, tables and attachments outlive the daemon.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sluice")]
    pub pin: PathBuf,
    /// Directory of the configuration last accepted; the director starts from it alone.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sluice")]
    pub state: PathBuf,
    /// File of the cluster's secret, by which sh, dh and mh place clients; every director of a cluster needs the same one.
    /// Made when it is missing [default: `secret' in the directory of --state]
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// How many of everything.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// How log lines on standard error look: text, journal (each with its priority in front), json, or auto: journal where
    /// standard error is the journal of systemd, else text.
    #[arg(long, value_name = "FORMAT", default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
    /// Send traces of health checks and of configurations to this collector, by OTLP over HTTP, such as http://127.0.0.1:4318.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<crate::trace::Collector>,
    /// Detach from every interface, remove programs and tables from the kernel, and end. The configuration stays.
    #[arg(long, conflicts_with = "interfaces")]
    pub remove: bool,
}

impl Options {
    /// The file of the cluster's secret.
    #[must_use]
    pub fn secret_path(&self) -> PathBuf {
        self.secret_file.clone().unwrap_or_else(|| self.state.join("secret"))
    }
}

/// Capacity of each table; fixed when the tables are made.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LimitOptions {
    /// Most virtual services.
    #[arg(long, value_name = "N", default_value_t = Limits::default().services_max, value_parser = at_least_one())]
    pub services_max: u32,
    /// Most real servers over all services, deleted ones with flows left included.
    #[arg(long, value_name = "N", default_value_t = Limits::default().reals_max, value_parser = at_least_one())]
    pub reals_max: u32,
    /// Most slots of all rings and pools together.
    #[arg(long, value_name = "N", default_value_t = Limits::default().slots_max, value_parser = at_least_one())]
    pub slots_max: u32,
    /// Most flows that have not proved themselves; beyond it the least recently used goes.
    #[arg(long, value_name = "N", default_value_t = Limits::default().embryonic_flows_max, value_parser = at_least_one())]
    pub embryonic_flows_max: u32,
    /// Most flows that have; beyond it new flows are placed by consistent hash.
    #[arg(long, value_name = "N", default_value_t = Limits::default().established_flows_max, value_parser = at_least_one())]
    pub established_flows_max: u32,
    /// Most persistence templates; beyond it clients are served without.
    #[arg(long, value_name = "N", default_value_t = Limits::default().templates_max, value_parser = at_least_one())]
    pub templates_max: u32,
    /// Most fragmented datagrams whose later pieces are awaited; beyond it the least recently used goes.
    #[arg(long, value_name = "N", default_value_t = Limits::default().fragments_max, value_parser = at_least_one())]
    pub fragments_max: u32,
    /// Most destination addresses that lblc and lblcr remember over all services; beyond it the least recently used goes.
    #[arg(long, value_name = "N", default_value_t = Limits::default().affinities_max, value_parser = at_least_one())]
    pub affinities_max: u32,
    /// Most networks that services allow or deny, over all services.
    #[arg(long, value_name = "N", default_value_t = Limits::default().networks_max, value_parser = at_least_one())]
    pub networks_max: u32,
    /// Most clients of services with limits for each client; beyond it the least recently used one is forgotten.
    #[arg(long, value_name = "N", default_value_t = Limits::default().clients_max, value_parser = at_least_one())]
    pub clients_max: u32,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1 << 28)
}

impl From<LimitOptions> for Limits {
    fn from(options: LimitOptions) -> Self {
        Self {
            services_max: options.services_max,
            reals_max: options.reals_max,
            slots_max: options.slots_max,
            embryonic_flows_max: options.embryonic_flows_max,
            established_flows_max: options.established_flows_max,
            templates_max: options.templates_max,
            fragments_max: options.fragments_max,
            affinities_max: options.affinities_max,
            networks_max: options.networks_max,
            clients_max: options.clients_max,
        }
    }
}

impl From<Limits> for LimitOptions {
    fn from(limits: Limits) -> Self {
        Self {
            services_max: limits.services_max,
            reals_max: limits.reals_max,
            slots_max: limits.slots_max,
            embryonic_flows_max: limits.embryonic_flows_max,
            established_flows_max: limits.established_flows_max,
            templates_max: limits.templates_max,
            fragments_max: limits.fragments_max,
            affinities_max: limits.affinities_max,
            networks_max: limits.networks_max,
            clients_max: limits.clients_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        let command = Options::augment_args(Command::new("director").no_binary_name(true));
        Options::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn an_interface_is_needed_unless_everything_goes() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--remove", "--interface", "eth0"]).is_err());
        assert!(parse(&["--remove"]).expect("remove").remove);
        let options =
            parse(&["--interface", "eth0", "-i", "eth1", "--reals-max", "7"]).expect("two interfaces");
        assert_eq!(options.interfaces, ["eth0", "eth1"]);
        assert_eq!(parse(&["-i", "eth0,eth1"]).expect("two at once").interfaces, ["eth0", "eth1"]);
        assert_eq!(Limits::from(options.limits), Limits { reals_max: 7, ..Limits::default() });
        assert_eq!(options.pin.to_str(), Some("/sys/fs/bpf/sluice"));
        assert_eq!(options.secret_path().to_str(), Some("/var/lib/sluice/secret"));
        let options = parse(&["-i", "eth0", "--secret-file", "/etc/sluice.secret"]).expect("a secret");
        assert_eq!(options.secret_path().to_str(), Some("/etc/sluice.secret"));
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        assert!(parse(&["-i", "eth0", "--slots-max", "0"]).is_err());
        assert!(parse(&["-i", "eth0", "--slots-max", "many"]).is_err());
    }
}
