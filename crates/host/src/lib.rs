//! This machine's network as the director needs it: interfaces, routes, neighbours, namespaces, and a pass
//! program for XDP.
//!
//! Everything speaks netlink in the network namespace of the calling thread. Deliberately absent: the
//! director's own programs and maps (`kernel`), and making virtual networks (`lab` drives the `ip` command
//! for that).

pub mod address;
pub mod interface;
pub mod mac;
pub mod multicast;
pub mod neighbours;
pub mod netlink;
pub mod netns;
pub mod offload;
pub mod route;
pub mod xdp;

pub use address::{OwnAddress, own_addresses};
pub use interface::{Interface, XdpMode};
pub use mac::MacAddress;
pub use neighbours::{Hop, NeighbourEvent, Neighbours, Resolved};
pub use netns::Namespace;
pub use route::Route;
