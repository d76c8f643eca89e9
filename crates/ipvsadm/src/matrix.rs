//! Which options a command needs, allows or excludes.

use crate::failure::Failure;
use crate::option::{Command, Kind, Kinds};

/// One command's row.
struct Row {
    needed: &'static [Kind],
    allowed: &'static [Kind],
    /// At most one of these.
    exclusive: &'static [Kind],
}

fn row(command: Command) -> Row {
    let (needed, allowed, exclusive): (&[Kind], &[Kind], &[Kind]) = match command {
        Command::AddService | Command::EditService => (
            &[Kind::Service],
            &[
                Kind::Scheduler,
                Kind::Persistent,
                Kind::Netmask,
                Kind::OnePacket,
                Kind::Engine,
                Kind::SchedFlags,
            ],
            &[],
        ),
        Command::DeleteService => (&[Kind::Service], &[], &[]),
        Command::Flush | Command::Restore | Command::Set | Command::Help | Command::Version => {
            (&[], &[], &[])
        }
        Command::Save => (&[], &[Kind::Numeric], &[]),
        Command::AddServer | Command::EditServer => (
            &[Kind::Service, Kind::Server],
            &[
                Kind::Forward,
                Kind::Weight,
                Kind::UpperThreshold,
                Kind::LowerThreshold,
                Kind::TunType,
                Kind::TunPort,
                Kind::TunNocsum,
                Kind::TunCsum,
                Kind::TunRemcsum,
            ],
            &[],
        ),
        Command::DeleteServer => (&[Kind::Service, Kind::Server], &[], &[]),
        Command::List => (
            &[],
            &[
                Kind::Numeric,
                Kind::Stats,
                Kind::Rate,
                Kind::Thresholds,
                Kind::PersistentConn,
                Kind::NoSort,
                Kind::Exact,
                // Accepted although it has no effect.
                Kind::SyncId,
                Kind::TunInfo,
            ],
            &[Kind::Connection, Kind::Service, Kind::Timeout, Kind::Daemon],
        ),
        Command::Zero => (&[], &[Kind::Service], &[]),
        Command::StartDaemon => (
            &[],
            &[
                Kind::McastInterface,
                Kind::SyncId,
                Kind::McastGroup,
                Kind::McastPort,
                Kind::McastTtl,
                Kind::SyncMaxlen,
            ],
            &[],
        ),
        Command::StopDaemon => (&[], &[Kind::SyncId], &[]),
    };
    Row { needed, allowed, exclusive }
}

/// Checks the options of a command; the first offence in report order wins.
pub(crate) fn check(command: Command, given: Kinds) -> Result<(), Failure> {
    let row = row(command);
    let (needed, allowed, exclusive) =
        (Kinds::of(row.needed), Kinds::of(row.allowed), Kinds::of(row.exclusive));
    let mut chosen: Option<&str> = None;
    for (kind, name) in Kind::NAMES {
        let text = if !given.has(kind) {
            if !needed.has(kind) {
                continue;
            }
            format!("You need to supply the '{name}' option for the '{}' command", command.name())
        } else if exclusive.has(kind) {
            let Some(other) = chosen.replace(name) else {
                continue;
            };
            format!(
                "The option '{name}' conflicts with the '{other}' option in the '{}' command",
                command.name()
            )
        } else if needed.has(kind) || allowed.has(kind) {
            continue;
        } else {
            format!("Illegal '{name}' option with the '{}' command", command.name())
        };
        return Err(Failure::usage(text));
    }
    if command == Command::List { check_list(given) } else { Ok(()) }
}

/// Formats make no sense for connections, timeouts and daemons.
fn check_list(given: Kinds) -> Result<(), Failure> {
    let counters = given.has_any(&[Kind::Stats, Kind::Rate, Kind::Thresholds]);
    let conflict = given.has_any(&[Kind::Connection, Kind::Timeout, Kind::Daemon]) && counters
        || given.has_any(&[Kind::Timeout, Kind::Daemon]) && given.has(Kind::PersistentConn);
    if conflict { Err(Failure::usage("options conflicts in the list command")) } else { Ok(()) }
}
