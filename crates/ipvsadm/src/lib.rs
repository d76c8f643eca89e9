//! The classic command line of ipvsadm 1.31: words become requests, listings become text, byte for byte.
//!
//! [`parse`] reads one command line, [`run`] carries it out against a [`Director`] and returns what to
//! print and the exit code. Both are complete: they also know options whose effect a director may refuse.
//!
//! Deliberately absent: sockets, name services and standard streams (callers bring a [`Director`] and
//! [`Names`]), and every rule that the kernel checks in the classic system, such as unknown schedulers or
//! addresses that are not unicast; the director refuses those and this crate gives the refusal its classic
//! text.
//!
//! | file | noun |
//! | --- | --- |
//! | `option` | every option, its spellings and the word the messages call it |
//! | `scan` | words to options, glued and joined arguments, left-over words |
//! | `draft` | options to values, left to right |
//! | `matrix`, `tunnel` | which option goes with which command and tunnel type |
//! | `number`, `address`, `flags` | values of options |
//! | `request` | what a command line asks for |
//! | `sort`, `endpoint`, `listing`, `connections`, `daemon`, `save` | answers to text |
//! | `restore`, `run`, `texts` | many command lines, one command line, fixed texts |
#![forbid(unsafe_code)]

mod address;
mod connections;
mod daemon;
mod draft;
mod endpoint;
mod failure;
mod flags;
mod listing;
mod matrix;
mod number;
mod option;
mod parse;
mod request;
mod restore;
mod run;
mod save;
mod scan;
mod sort;
mod texts;
mod tunnel;

pub use connections::connections_text;
pub use daemon::{Daemon, DaemonRefusal, DaemonRole, daemons_text};
pub use endpoint::Names;
pub use failure::Failure;
pub use listing::{BigNumbers, Format, ListServices, services_text};
pub use parse::{Place, parse};
pub use request::Request;
pub use restore::{drop_comments, restore_lines};
pub use run::{CHANGES_PER_REQUEST_MAX, Director, Output, Unreachable, run};
pub use save::save_text;
pub use texts::{refusal_text, timeouts_text};
