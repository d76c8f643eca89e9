//! The flows of the packet path: which are asked for, and how each looks.

use crate::names::Protocol;
use crate::service::{Forwarding, ServiceId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The names of states that a flow can have: those of TCP and SCTP, `UDP`, and `NONE` and `ASSURED` of templates.
pub const FLOW_STATES: [&str; 26] = [
    "ASSURED",
    "C-ECHOED",
    "C-REPLIED",
    "C-SENT",
    "C-WAIT",
    "CLOSE",
    "CLOSED",
    "CLOSE_WAIT",
    "COOKIE",
    "ESTABLISHED",
    "FIN_WAIT",
    "INIT",
    "INIT1",
    "LAST_ACK",
    "LISTEN",
    "NONE",
    "REJECTED",
    "S-ACK-SENT",
    "S-RECEIVED",
    "S-SENT",
    "SYNACK",
    "SYN_RECV",
    "SYN_SENT",
    "TIME_WAIT",
    "UDP",
    "ERR!",
];

/// A network, and a port of its addresses; such as `198.51.100.0/24`, `198.51.100.7:40000` or `[2001:db8::/32]:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFilter {
    /// The network; a single address is one of its own.
    pub network: IpNet,
    /// The port, 0 to 65535; every one without.
    #[serde(default)]
    pub port: Option<u16>,
}

/// An address, and perhaps a port; such as `192.0.2.10` or `[2001:db8::10]:443`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointFilter {
    /// The address.
    pub address: IpAddr,
    /// The port, 0 to 65535; every one without.
    #[serde(default)]
    pub port: Option<u16>,
}

/// What stands before and behind the port of an endpoint.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']')?;
        return match behind.strip_prefix(':') {
            Some(port) => Some((inside, Some(port.parse().ok()?))),
            None if behind.is_empty() => Some((inside, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        // More than one colon: an address of IPv6.
        Some((address, port)) if !port.contains(':') => Some((address, Some(port.parse().ok()?))),
        _ => Some((text, None)),
    }
}

impl FromStr for ClientFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (inside, port) = split_port(text)?;
            let network = match inside.parse::<IpAddr>() {
                Ok(address) => IpNet::from(address),
                Err(_) => inside.parse().ok()?,
            };
            Some(Self { network, port })
        };
        read().ok_or_else(|| {
            format!(
                "`{text}' is no network or address: give one such as 198.51.100.0/24, 198.51.100.7:40000 or \
                 [2001:db8::/32]:53"
            )
        })
    }
}

impl FromStr for EndpointFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (inside, port) = split_port(text)?;
            Some(Self { address: inside.parse().ok()?, port })
        };
        read().ok_or_else(|| {
            format!(
                "`{text}' is no address: give one such as 192.0.2.10, 192.0.2.10:80 or [2001:db8::10]:443"
            )
        })
    }
}

/// The tables that flows are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowTable {
    /// Flows that have proved themselves.
    Established,
    /// Flows that have not.
    Embryonic,
    /// Templates of persistence: no flows, but what new ones follow.
    Templates,
}

impl FlowTable {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Embryonic => "embryonic",
            Self::Templates => "templates",
        }
    }
}

impl fmt::Display for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FlowTable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Established, Self::Embryonic, Self::Templates];
        all.into_iter()
            .find(|table| table.name() == text)
            .ok_or_else(|| format!("there is no table `{text}': say established, embryonic or templates"))
    }
}

/// Which flows are asked for: those that everything here is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Their clients.
    #[serde(default)]
    pub client: Option<ClientFilter>,
    /// Their VIP.
    #[serde(default)]
    pub vip: Option<EndpointFilter>,
    /// Their real server.
    #[serde(default)]
    pub real: Option<EndpointFilter>,
    /// Their transport protocol.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Their state, one of [`FLOW_STATES`].
    #[serde(default)]
    pub state: Option<String>,
    /// The service of their real server.
    #[serde(default)]
    pub service: Option<ServiceId>,
    /// The table they are in; without, established and embryonic ones.
    #[serde(default)]
    pub table: Option<FlowTable>,
}

/// What flows are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowGroup {
    /// The client's address.
    Client,
    /// The real server, address and port.
    Real,
    /// The state.
    State,
    /// The VIP and its port.
    Vip,
}

/// What is made of the flows that match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowShow {
    /// They are listed.
    #[default]
    List,
    /// They are counted.
    Count,
    /// They are counted by this.
    CountBy(FlowGroup),
}

/// A question about flows. The answer covers a piece of the tables; the next piece begins at its cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowRequest {
    /// Which.
    #[serde(default)]
    pub filter: FlowFilter,
    /// What is made of them.
    #[serde(default)]
    pub show: FlowShow,
    /// Where to go on: [`FlowPage::next_cursor`] of the answer before; 0 begins.
    #[serde(default)]
    pub cursor: u64,
}

/// What a piece of the tables holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPage {
    /// The flows, if they were to be listed.
    #[serde(default)]
    pub flows: Vec<FlowView>,
    /// How many there are of each, if they were to be counted by something; in no order.
    #[serde(default)]
    pub counts: Vec<FlowCount>,
    /// How many match.
    pub matched: u64,
    /// Ask again with this cursor; `None` at the end.
    pub next_cursor: Option<u64>,
}

/// How many flows have something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// What: a client, a real server, a state or a VIP.
    pub name: String,
    /// How many.
    pub flows: u64,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// `TCP`, `UDP`, `SCTP`, or `IP` for a template of a service by firewall mark.
    pub protocol: String,
    /// The client.
    pub client: SocketAddr,
    /// The VIP and its port.
    pub vip: SocketAddr,
    /// The real server, with the port that it gets the packets at.
    pub real: SocketAddr,
    /// How its packets reach the real server.
    pub method: Forwarding,
    /// The service of its real server; `None` when that was deleted.
    pub service: Option<ServiceId>,
    /// State, one of [`FLOW_STATES`].
    pub state: String,
    /// Seconds until it ends unless another packet comes.
    pub expires_s: u64,
    /// Seconds since its first packet.
    pub age_s: u64,
    /// Packets from the client; stays at 4294967295.
    pub packets: u32,
    /// Where it is.
    pub table: FlowTable,
    /// It belongs to a persistence template.
    pub persistent: bool,
    /// Its replies come through the director.
    pub translated: bool,
    /// With source translation, the port that stands for the client's.
    pub source_port: Option<u16>,
    /// It counts as inactive in its real server's load.
    pub inactive: bool,
    /// Its real server was deleted.
    pub deleted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_networks_or_addresses_with_or_without_a_port() {
        let client = |text: &str| text.parse::<ClientFilter>().map(|it| (it.network.to_string(), it.port));
        assert_eq!(client("198.51.100.0/24"), Ok(("198.51.100.0/24".into(), None)));
        assert_eq!(client("198.51.100.7"), Ok(("198.51.100.7/32".into(), None)));
        assert_eq!(client("198.51.100.0/24:53"), Ok(("198.51.100.0/24".into(), Some(53))));
        assert_eq!(client("2001:db8::/32"), Ok(("2001:db8::/32".into(), None)));
        assert_eq!(client("[2001:db8::7]:443"), Ok(("2001:db8::7/128".into(), Some(443))));
        assert_eq!(client("[2001:db8::/32]"), Ok(("2001:db8::/32".into(), None)));
        for wrong in ["", "web1", "10.0.0.0/33", "10.0.0.1:99999", "[2001:db8::1", "[::1]80", "10.0.0.1:"] {
            let said = client(wrong).expect_err(wrong);
            assert!(
                said.starts_with(&format!("`{wrong}' is no network or address: give one such as")),
                "{said}"
            );
        }
    }

    #[test]
    fn endpoints_are_addresses_with_or_without_a_port() {
        let endpoint =
            |text: &str| text.parse::<EndpointFilter>().map(|it| (it.address.to_string(), it.port));
        assert_eq!(endpoint("192.0.2.10:80"), Ok(("192.0.2.10".into(), Some(80))));
        assert_eq!(endpoint("2001:db8::10"), Ok(("2001:db8::10".into(), None)));
        assert!(endpoint("192.0.2.0/24").expect_err("a network").contains("is no address: give one such as"));
    }
}
