//! What a command line asks for.

use crate::daemon::{Daemon, DaemonRole};
use crate::listing::ListServices;
use api::Change;

/// A command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Print this text and end the program with exit code 0 (help and version).
    Print(String),
    /// One change of the model.
    Change(Change),
    /// List services.
    List(ListServices),
    /// List flows.
    ListConnections {
        /// No names.
        numeric: bool,
        /// With the columns of persistence engines.
        engine_data: bool,
    },
    /// List the three timeouts.
    ListTimeouts,
    /// List the synchronisation daemons.
    ListDaemons,
    /// Start a synchronisation daemon.
    StartDaemon(Daemon),
    /// Stop a synchronisation daemon.
    StopDaemon(DaemonRole),
    /// Write the services as command lines.
    Save {
        /// No names.
        numeric: bool,
    },
    /// Read command lines from standard input.
    Restore,
}
