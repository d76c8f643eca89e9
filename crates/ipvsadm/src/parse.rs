//! One command line to one [`Request`].

use crate::daemon::{Daemon, DaemonRole};
use crate::draft::{Draft, timeout};
use crate::endpoint::Names;
use crate::failure::Failure;
use crate::flags::parse_flags;
use crate::listing::{BigNumbers, Format, ListServices};
use crate::matrix;
use crate::option::{Command, Kind, Meaning};
use crate::request::Request;
use crate::scan::{Found, Scanner};
use crate::{texts, tunnel};
use api::{
    Change, Family, Forwarding, Persistence, Protocol, RealId, RealSpec, ServiceId, ServiceSpec, Timeouts,
};

/// Where a command line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the arguments of the program.
    CommandLine,
    /// In the input of a restore, where another restore is no command.
    Restore,
}

/// Reads one command line, without the program's name. `program` is that name, for one of the messages. No
/// words at all ask for the plain listing.
///
/// # Errors
/// The classic text and exit code of the first mistake, in the order in which the classic tool looks for
/// them.
pub fn parse(program: &str, words: &[String], place: Place, names: &dyn Names) -> Result<Request, Failure> {
    if words.is_empty() {
        return Ok(Request::List(ListServices::default()));
    }
    let mut scanner = Scanner::new(words);
    let (command, role) = first_command(&mut scanner, program)?;
    if command == Command::Restore && place == Place::Restore {
        return Err(Failure::try_help(program));
    }
    match command {
        Command::Help => return Ok(Request::Print(texts::help())),
        Command::Version => return Ok(Request::Print(texts::version())),
        _ => {}
    }
    let mut draft = Draft::default();
    while let Some(found) = scanner.next_option() {
        let found = found.map_err(|error| {
            let (word, what) = error.parts();
            Failure::scanner(word, what)
        })?;
        draft.take(&found, names)?;
    }
    let timeouts = left_over(command, &scanner.left_over)?;
    let flags = parse_flags(&draft.flag_list, &draft.scheduler)?;
    matrix::check(command, draft.given)?;
    let spec = ServiceSpec {
        scheduler: draft.scheduler.clone(),
        scheduler_flags: flags,
        persistence: draft
            .given
            .has(Kind::Persistent)
            .then_some(Persistence { timeout_s: draft.persistence_s, mask: draft.netmask }),
        persistence_engine: draft.engine.clone(),
        one_packet: draft.given.has(Kind::OnePacket),
    };
    build(command, role, timeouts, spec, &draft)
}

/// The first option, which must be a command, and the role of a daemon command.
fn first_command(scanner: &mut Scanner<'_>, program: &str) -> Result<(Command, Option<DaemonRole>), Failure> {
    let Some(Ok(Found { meaning: Meaning::Command(command), argument, .. })) = scanner.next_option() else {
        return Err(Failure::try_help(program));
    };
    let illegal = match command {
        Command::StartDaemon => "illegal start-daemon parameter specified",
        Command::StopDaemon => "illegal start_daemon specified",
        _ => return Ok((command, None)),
    };
    let role = match argument {
        Some("master") => DaemonRole::Master,
        Some("backup") => DaemonRole::Backup,
        _ => return Err(Failure::usage(illegal)),
    };
    Ok((command, Some(role)))
}

/// Words that are no options: the three timeouts of `--set`, and nothing else.
fn left_over(command: Command, words: &[&str]) -> Result<Option<Timeouts>, Failure> {
    let (timeouts, rest) = match (command, words) {
        (Command::Set, [tcp, tcp_fin, udp, rest @ ..]) => {
            let (tcp_s, tcp_fin_s, udp_s) = (timeout(tcp, 0)?, timeout(tcp_fin, 0)?, timeout(udp, 0)?);
            (Some(Timeouts { tcp_s, tcp_fin_s, udp_s }), rest)
        }
        (Command::Set, _) => return Err(Failure::usage("--set option requires 3 timeout values")),
        (_, rest) => (None, rest),
    };
    match rest.first() {
        Some(word) => Err(Failure::usage(format!("unexpected argument {word}"))),
        None => Ok(timeouts),
    }
}

/// The last checks of each command, and the request. The matrix has made sure that what is needed is there; a
/// missing piece gives the same text as the matrix would.
fn build(
    command: Command,
    role: Option<DaemonRole>,
    timeouts: Option<Timeouts>,
    spec: ServiceSpec,
    draft: &Draft,
) -> Result<Request, Failure> {
    let need = |kind: Kind| {
        let text =
            format!("You need to supply the '{}' option for the '{}' command", kind.name(), command.name());
        Failure::usage(text)
    };
    let service = draft.service.ok_or_else(|| need(Kind::Service));
    let real = draft.real.ok_or_else(|| need(Kind::Server));
    let numeric = draft.given.has(Kind::Numeric);
    Ok(match (command, role, timeouts) {
        (Command::AddService, ..) => {
            let service = check_service(service?, &spec)?;
            Request::Change(Change::AddService { service, spec })
        }
        (Command::EditService, ..) => {
            let service = check_service(service?, &spec)?;
            Request::Change(Change::EditService { service, spec })
        }
        (Command::DeleteService, ..) => Request::Change(Change::DeleteService { service: service? }),
        (Command::Flush, ..) => Request::Change(Change::Flush),
        (Command::AddServer, ..) => {
            let (service, real) = (service?, real?);
            let (real, spec) = real_server(service, real, draft)?;
            Request::Change(Change::AddReal { service, real, spec })
        }
        (Command::EditServer, ..) => {
            let (service, real) = (service?, real?);
            let (real, spec) = real_server(service, real, draft)?;
            Request::Change(Change::EditReal { service, real, spec })
        }
        (Command::DeleteServer, ..) => Request::Change(Change::DeleteReal { service: service?, real: real? }),
        (Command::Zero, ..) => Request::Change(Change::Zero { service: draft.service }),
        (Command::Set, _, Some(timeouts)) => Request::Change(Change::SetTimeouts { timeouts }),
        (Command::StartDaemon, Some(role), _) => Request::StartDaemon(daemon(role, draft)),
        (Command::StopDaemon, Some(role), _) => Request::StopDaemon(role),
        (Command::Save, ..) => Request::Save { numeric },
        (Command::Restore, ..) => Request::Restore,
        (Command::Version, ..) => Request::Print(texts::version()),
        (Command::Help, ..) => Request::Print(texts::help()),
        (Command::List, ..)
        | (Command::Set, _, None)
        | (Command::StartDaemon | Command::StopDaemon, None, _) => list(numeric, draft),
    })
}

fn check_service(service: ServiceId, spec: &ServiceSpec) -> Result<ServiceId, Failure> {
    if matches!(service, ServiceId::Address { port: 0, .. }) && spec.persistence.is_none() {
        return Err(Failure::usage("Zero port specified for non-persistent service"));
    }
    let one_packet_fits =
        matches!(service, ServiceId::Fwmark { .. } | ServiceId::Address { protocol: Protocol::Udp, .. });
    if spec.one_packet && !one_packet_fits {
        return Err(Failure::usage("One-Packet Scheduling is only for UDP virtual services"));
    }
    Ok(service)
}

fn real_server(service: ServiceId, real: RealId, draft: &Draft) -> Result<(RealId, RealSpec), Failure> {
    let port = match service {
        // Direct routing and tunnels cannot change ports, so the service's port silently wins.
        ServiceId::Address { port, .. } if draft.forwarding != Forwarding::Masquerade => port,
        ServiceId::Address { .. } | ServiceId::Fwmark { .. } => real.port,
    };
    let is_tunnel = draft.forwarding == Forwarding::Tunnel;
    if Family::of(real.address) != service.family() && !is_tunnel {
        return Err(Failure::usage("Different address family is allowed only for tunneling servers"));
    }
    let tunnel_options = [Kind::TunType, Kind::TunPort, Kind::TunNocsum, Kind::TunCsum, Kind::TunRemcsum];
    let tunnel = if is_tunnel {
        tunnel::build(draft.tunnel_type, draft.tunnel_port, draft.given)?
    } else if draft.given.has_any(&tunnel_options) {
        return Err(Failure::usage("Tunnel options conflict with forward method"));
    } else {
        api::Tunnel::Ipip
    };
    let spec = RealSpec {
        forwarding: draft.forwarding,
        weight: draft.weight,
        upper_threshold: draft.upper_threshold,
        lower_threshold: draft.lower_threshold,
        tunnel,
    };
    Ok((RealId { address: real.address, port }, spec))
}

fn daemon(role: DaemonRole, draft: &Draft) -> Daemon {
    Daemon {
        role,
        interface: draft.interface.clone(),
        syncid: draft.syncid,
        maxlen: draft.sync_maxlen,
        group: draft.mcast_group,
        port: draft.mcast_port,
        ttl: draft.mcast_ttl,
    }
}

fn list(numeric: bool, draft: &Draft) -> Request {
    let given = draft.given;
    if given.has(Kind::Connection) {
        return Request::ListConnections { numeric, engine_data: given.has(Kind::PersistentConn) };
    }
    if given.has(Kind::Timeout) {
        return Request::ListTimeouts;
    }
    if given.has(Kind::Daemon) {
        return Request::ListDaemons;
    }
    let formats = [
        (Kind::Stats, Format::Stats),
        (Kind::Rate, Format::Rate),
        (Kind::Thresholds, Format::Thresholds),
        (Kind::PersistentConn, Format::PersistentConn),
        (Kind::TunInfo, Format::TunInfo),
    ];
    let format = formats.into_iter().find(|(kind, _)| given.has(*kind)).map_or(Format::Plain, |(_, f)| f);
    Request::List(ListServices {
        only: draft.service,
        format,
        numeric,
        sorted: !given.has(Kind::NoSort),
        big_numbers: if given.has(Kind::Exact) { BigNumbers::Exact } else { BigNumbers::Rounded },
    })
}
