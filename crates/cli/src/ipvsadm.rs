//! The classic tool, `ipvsadm`, with its helpers `ipvsadm-save` and `ipvsadm-restore`: standard streams, the
//! director's socket and the machine's names around the crate `ipvsadm`.
//!
//! Unlike the classic tool it needs the director only once there is something to ask: usage errors, help and
//! version come without one.

use api::{
    Change, Changes, Connection, Connections, Outcomes, Protocol, Refusal, RefusalKind, Services, SyncDaemon,
    SyncDaemons, SyncRole, SyncStop,
};
use ipvsadm::{Daemon, DaemonRefusal, DaemonRole, Director, Names, Output, Unreachable};
use runtime::Chain;
use runtime::control::{Client, ControlError, SOCKET_VARIABLE};
use runtime::names::SystemNames;
use std::ffi::OsString;
use std::io::{self, Read as _, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitCode;

/// Longest input of a restore, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Most pages of flows asked for; a director that gives more has lost its way.
const CONNECTION_PAGES_MAX: usize = 100_000;

/// Exit code when the director cannot be used or the machine fails, as for a usage error.
const FAILED: u8 = 2;

/// Runs the tool. `args` starts with the name it was called by, which chooses between the tool and its
/// helpers.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let mut words = args.iter().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_else(|| "ipvsadm".to_owned());
    let words: Vec<String> = words.collect();
    let name = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    let code = match name.as_deref() {
        Some("ipvsadm-save") => save(&program, &words),
        Some("ipvsadm-restore") => restore(&program),
        _ => tool(&program, &words),
    };
    ExitCode::from(code)
}

/// The help text.
pub(crate) fn help() -> String {
    let mut nothing = String::new;
    let mut director = Remote::new();
    let words = ["-h".to_owned()];
    ipvsadm::run("ipvsadm", &words, &mut nothing, &mut director, &MachineNames::default()).stdout
}

/// `ipvsadm-save [-n]`: `-S`, with the one option it knows. Other words are ignored, other options are not.
fn save(program: &str, words: &[String]) -> u8 {
    if words.iter().any(|word| word.starts_with('-') && word != "-n") {
        let text = format!(
            "{program}: writes the services to standard output as lines of ipvsadm options\n   \
             -n: addresses and ports as numbers instead of names\n"
        );
        return print(&Output { stdout: String::new(), stderr: text, code: 1 });
    }
    let mut options = vec!["-S".to_owned()];
    if words.iter().any(|word| word == "-n") {
        options.push("-n".to_owned());
    }
    tool(program, &options)
}

/// `ipvsadm-restore`: input without comments, everything deleted, then the input restored.
fn restore(program: &str) -> u8 {
    let input = match read_input() {
        Ok(input) => input,
        Err(error) => return input_failure(&error),
    };
    let cleared = tool(program, &["-C".to_owned()]);
    if cleared != 0 {
        return cleared;
    }
    let mut director = Remote::new();
    let mut lines = || ipvsadm::drop_comments(&input);
    print(&ipvsadm::run(program, &["-R".to_owned()], &mut lines, &mut director, &MachineNames::default()))
}

/// One call of the tool.
fn tool(program: &str, words: &[String]) -> u8 {
    let mut director = Remote::new();
    let mut failed = None;
    let mut input = || {
        read_input().unwrap_or_else(|error| {
            failed = Some(error);
            String::new()
        })
    };
    let output = ipvsadm::run(program, words, &mut input, &mut director, &MachineNames::default());
    match failed {
        Some(error) => input_failure(&error),
        None => print(&output),
    }
}

fn read_input() -> io::Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(io::Error::other(format!("more than {INPUT_BYTES_MAX} bytes; split it")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn input_failure(error: &io::Error) -> u8 {
    runtime::tell(format_args!("cannot read standard input: {}", Chain(error)));
    FAILED
}

/// Prints and gives the exit code back. A reader that went away is no failure.
fn print(output: &Output) -> u8 {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(output.stdout.as_bytes()).and_then(|()| stdout.flush());
    // There is nobody left to tell when standard error itself fails.
    let _ = io::stderr().write_all(output.stderr.as_bytes());
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            runtime::tell(format_args!("cannot write to standard output: {}", Chain(&error)));
            FAILED
        }
        Ok(()) | Err(_) => output.code,
    }
}

/// The director behind the control socket.
struct Remote {
    client: Client,
}

impl Remote {
    fn new() -> Self {
        Self { client: Client::from_variable(std::env::var_os(SOCKET_VARIABLE)) }
    }
}

fn unreachable(error: ControlError) -> Unreachable {
    Unreachable(Chain(&error).to_string())
}

impl Director for Remote {
    fn change(&mut self, changes: Vec<Change>) -> Result<Vec<Option<Refusal>>, Unreachable> {
        let request = Changes { atomic: false, changes };
        match self.client.post::<_, Outcomes>("/v1/changes", &request) {
            Ok(outcomes) => Ok(outcomes.refusals),
            // A request refused as a whole is the refusal of each of its changes.
            Err(ControlError::Refused(refusal)) => Ok(vec![Some(refusal); request.changes.len()]),
            Err(error) => Err(unreachable(error)),
        }
    }

    fn services(&mut self) -> Result<Services, Unreachable> {
        self.client.get("/v1/services").map_err(unreachable)
    }

    fn connections(&mut self) -> Result<Vec<Connection>, Unreachable> {
        let mut all = Vec::new();
        let mut path = "/v1/connections".to_owned();
        for _ in 0..CONNECTION_PAGES_MAX {
            let page: Connections = self.client.get(&path).map_err(unreachable)?;
            all.extend(page.connections);
            let Some(cursor) = page.next_cursor else {
                return Ok(all);
            };
            path = format!("/v1/connections?cursor={cursor}");
        }
        Err(Unreachable(format!("the director gave more than {CONNECTION_PAGES_MAX} pages of connections")))
    }

    fn daemons(&mut self) -> Result<Vec<Daemon>, Unreachable> {
        let all: SyncDaemons = self.client.get("/v1/sync").map_err(unreachable)?;
        Ok(all.daemons.into_iter().map(|view| shown(view.daemon)).collect())
    }

    fn start_daemon(&mut self, daemon: &Daemon) -> Result<Option<DaemonRefusal>, Unreachable> {
        self.daemon_request("/v1/sync/start", &wished(daemon))
    }

    fn stop_daemon(&mut self, role: DaemonRole) -> Result<Option<DaemonRefusal>, Unreachable> {
        self.daemon_request("/v1/sync/stop", &SyncStop { role: sync_role(role) })
    }
}

impl Remote {
    fn daemon_request(
        &self,
        path: &str,
        request: &(impl serde::Serialize + Sync),
    ) -> Result<Option<DaemonRefusal>, Unreachable> {
        match self.client.post::<_, ()>(path, request) {
            Ok(()) => Ok(None),
            Err(ControlError::Refused(refusal)) => Ok(Some(match refusal.kind {
                RefusalKind::DaemonRuns => DaemonRefusal::AlreadyRuns,
                RefusalKind::NoSuchDaemon => DaemonRefusal::NotRunning,
                RefusalKind::NoSuchInterface => DaemonRefusal::NoSuchInterface,
                _ => DaemonRefusal::Other(refusal.message),
            })),
            Err(error) => Err(unreachable(error)),
        }
    }
}

fn sync_role(role: DaemonRole) -> SyncRole {
    match role {
        DaemonRole::Master => SyncRole::Master,
        DaemonRole::Backup => SyncRole::Backup,
    }
}

/// A daemon as the director is asked for it: what is 0 on the command line it chooses.
fn wished(daemon: &Daemon) -> SyncDaemon {
    SyncDaemon {
        role: sync_role(daemon.role),
        interface: daemon.interface.clone(),
        syncid: daemon.syncid,
        maxlen: Some(daemon.maxlen).filter(|it| *it != 0),
        group: daemon.group,
        port: Some(daemon.port).filter(|it| *it != 0),
        ttl: Some(daemon.ttl).filter(|it| *it != 0),
    }
}

/// A daemon as it is listed.
fn shown(daemon: SyncDaemon) -> Daemon {
    Daemon {
        role: match daemon.role {
            SyncRole::Master => DaemonRole::Master,
            SyncRole::Backup => DaemonRole::Backup,
        },
        interface: daemon.interface,
        syncid: daemon.syncid,
        maxlen: daemon.maxlen.unwrap_or_default(),
        group: daemon.group,
        port: daemon.port.unwrap_or_default(),
        ttl: daemon.ttl.unwrap_or_default(),
    }
}

/// The machine's names, in the form the crate `ipvsadm` asks for them.
#[derive(Default)]
pub(crate) struct MachineNames(SystemNames);

impl Names for MachineNames {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        self.0.host_address(name)
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.0.service_port(name, protocol)
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        self.0.host_name(address)
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.0.service_name(port, protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Forwarding, RealId, RealSpec, ServiceId, Tunnel, TunnelChecksum};

    /// What the director takes in one request (`director::http`).
    const BODY_BYTES_MAX: usize = 128 << 20;

    #[test]
    fn the_longest_request_of_a_restore_is_taken() {
        let address = IpAddr::V6("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("an address"));
        let longest = Change::AddReal {
            service: ServiceId::Address { protocol: Protocol::Sctp, address, port: u16::MAX },
            real: RealId { address, port: u16::MAX },
            spec: RealSpec {
                forwarding: Forwarding::Masquerade,
                weight: u32::MAX,
                upper_threshold: u32::MAX,
                lower_threshold: u32::MAX,
                tunnel: Tunnel::Gue { port: u16::MAX, checksum: TunnelChecksum::Remote },
            },
        };
        // With the comma behind it.
        let len = serde_json::to_vec(&longest).expect("JSON").len() + 1;
        assert!(len * ipvsadm::CHANGES_PER_REQUEST_MAX < BODY_BYTES_MAX, "{len} bytes a change");
    }
}
