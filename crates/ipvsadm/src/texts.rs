//! Fixed texts: version, help, refusals, timeouts.

use api::{Change, Refusal, RefusalKind, Timeouts};

/// Refusal of a request for a service that is not there.
pub(crate) const NO_SUCH_SERVICE: &str = "No such service";

/// The version line. Programs that read it expect the classic tool's.
pub(crate) fn version() -> String {
    "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n".to_owned()
}

/// The help text: the version line and our own words.
pub(crate) fn help() -> String {
    version() + HELP
}

/// The line of `-L --timeout`.
#[must_use]
pub fn timeouts_text(timeouts: &Timeouts) -> String {
    format!("Timeout (tcp tcpfin udp): {} {} {}\n", timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s)
}

/// The classic text for a refused change. Refusals the classic kernel does not know give their own sentence.
#[must_use]
pub fn refusal_text(change: &Change, refusal: &Refusal) -> String {
    let of_real =
        matches!(change, Change::AddReal { .. } | Change::EditReal { .. } | Change::DeleteReal { .. });
    let text = match refusal.kind {
        RefusalKind::ServiceExists => "Service already exists",
        RefusalKind::NoSuchService if of_real => "Service not defined",
        RefusalKind::NoSuchService => NO_SUCH_SERVICE,
        RefusalKind::RealExists => "Destination already exists",
        RefusalKind::NoSuchReal => "No such destination",
        RefusalKind::NoSuchScheduler => "Scheduler or persistence engine not found",
        RefusalKind::OutOfRange => "Numerical result out of range",
        // Of the daemons, which are started by a request of their own.
        RefusalKind::DaemonRuns => "Daemon has already run",
        RefusalKind::NoSuchDaemon => "No daemon is running",
        RefusalKind::NoSuchInterface => "No such device",
        RefusalKind::Invalid => "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        // The classic texts ("Operation not supported with IPv6", "Memory allocation problem") would mislead.
        RefusalKind::Unsupported | RefusalKind::Limit | RefusalKind::Aborted | RefusalKind::Kernel => {
            &refusal.message
        }
    };
    text.to_owned()
}

const HELP: &str = "\
Commands (the first option must be one):
  -A, --add-service SERVICE [service options]
  -E, --edit-service SERVICE [service options]      what is not given becomes the default
  -D, --delete-service SERVICE
  -C, --clear                                       delete everything
  -a, --add-server SERVICE -r HOST[:PORT] [server options]
  -e, --edit-server SERVICE -r HOST[:PORT] [server options]
  -d, --delete-server SERVICE -r HOST[:PORT]
  -L, -l, --list [SERVICE] [listing options]
  -Z, --zero [SERVICE]                              zero the counters
  -S, --save [-n]                                   write command lines to standard output
  -R, --restore                                     read command lines from standard input
      --set TCP TCPFIN UDP                          timeouts in seconds, 0 keeps the present one
      --start-daemon master|backup [daemon options]
      --stop-daemon master|backup
  -h, --help        -v, --version

SERVICE:
  -t, --tcp-service HOST[:PORT]     -u, --udp-service HOST[:PORT]     --sctp-service HOST[:PORT]
  -f, --fwmark-service MARK [-6]    firewall mark 1 to 4294967295; -6, --ipv6 for IPv6 packets

Service options:
  -s, --scheduler NAME       rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh (default wlc)
  -b, --sched-flags LIST     sh-fallback sh-port mh-fallback mh-port flag-1 flag-2 flag-3
  -p, --persistent [SECONDS] keep clients on their server (default 360)
  -M, --netmask MASK         group clients, after the address; a prefix length with IPv6
      --pe NAME              persistence engine
  -o, --ops                  one-packet scheduling (UDP)

Server options:
  -g, --gatewaying           direct routing (default)
  -i, --ipip                 tunneling
  -m, --masquerading         NAT
  -w, --weight N             default 1
  -x, --u-threshold N        most connections, 0 for no limit
  -y, --l-threshold N        again available below this many
      --tun-type ipip|gue|gre    --tun-port PORT    --tun-nocsum|--tun-csum|--tun-remcsum

Listing options:
  -n, --numeric              no names          -X, --exact     all digits
  -c, --connection           tracked flows     --timeout       the three timeouts
      --daemon               daemons           --nosort        the director's own order
      --stats  --rate  --thresholds  --persistent-conn  --tun-info

Daemon options:
  --mcast-interface NAME  --mcast-group ADDRESS  --mcast-port PORT  --mcast-ttl N
  --syncid N              --sync-maxlen BYTES
";
