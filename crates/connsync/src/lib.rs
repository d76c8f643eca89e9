//! Connection synchronisation as IPVS does it: a master announces flows by UDP multicast, a backup takes them over, so that
//! connections outlive the director they came through.
//!
//! [`Message`] and [`Writer`] are the bytes on the wire [`ip_vs_sync.c`], versions 1 and, for reading only, 0. [`Announcer`] decides
//! which flow is announced when. Pure: sockets, tables and the clock are elsewhere.
#![forbid(unsafe_code)]

mod announce;
mod message;
mod read;
mod write;

pub use announce::{Announcer, Candidate};
pub use message::{
    DEFAULT_PORT, Ends, FLAG_INACTIVE, FLAG_MASQUERADE, FLAG_METHOD, FLAG_NO_CLIENT_PORT, FLAG_NO_OUTPUT,
    FLAG_SEQUENCES, FLAG_TEMPLATE, METHOD_DIRECT_ROUTING, METHOD_LOCAL, METHOD_TUNNEL, Message, Record,
};
pub use read::{ReadError, read};
pub use write::{Writer, question};
