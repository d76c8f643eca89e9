//! What belongs to a firewall mark. Packets meet the packet path before netfilter could mark them, so the matches are
//! declared to the director itself.

use crate::names::Protocol;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A protocol, an address, and ports: packets to them have the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MarkMatch {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The VIP.
    pub address: IpAddr,
    /// Which ports.
    pub ports: Ports,
}

/// Ports of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ports {
    /// All that no other match of the address names.
    Any,
    /// From one to another, 1 to 65535.
    Range {
        /// The lowest.
        first: u16,
        /// The highest.
        last: u16,
    },
}

impl MarkMatch {
    /// Reads `VIP:PORT`, `VIP:FIRST-LAST` or `VIP:*`, the VIP in brackets if it is an IPv6 address.
    ///
    /// # Errors
    /// What was wrong, and what would be right.
    pub fn parse(protocol: Protocol, text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}' is no match: give VIP:PORT, VIP:FIRST-LAST or VIP:*, such as 192.0.2.10:80");
        let (address, ports) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match bracketed {
            Some(v6) => IpAddr::V6(v6.parse::<Ipv6Addr>().map_err(|_| wrong())?),
            None => IpAddr::V4(address.parse().map_err(|_| wrong())?),
        };
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(wrong);
        let ports = match ports.split_once('-') {
            _ if ports == "*" => Ports::Any,
            None => Ports::Range { first: port(ports)?, last: port(ports)? },
            Some((first, last)) => Ports::Range { first: port(first)?, last: port(last)? },
        };
        match ports {
            Ports::Range { first, last } if first > last => Err(wrong()),
            _ => Ok(Self { protocol, address, ports }),
        }
    }
}

impl fmt::Display for MarkMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(v4) => write!(f, "{v4}:{}", self.ports),
            IpAddr::V6(v6) => write!(f, "[{v6}]:{}", self.ports),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Range { first, last } if first == last => write!(f, "{first}"),
            Self::Range { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// All matches with their marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Sorted by protocol, address and ports.
    pub marks: Vec<Mark>,
}

/// A match with its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What matches.
    #[serde(rename = "match")]
    pub matched: MarkMatch,
    /// The mark, 1 to 4294967295.
    pub mark: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_read_as_they_are_written() {
        for text in ["192.0.2.10:80", "192.0.2.10:*", "[2001:db8::1]:1024-65535", "192.0.2.10:1-2"] {
            assert_eq!(MarkMatch::parse(Protocol::Tcp, text).map(|it| it.to_string()).as_deref(), Ok(text));
        }
        for text in
            ["192.0.2.10", "192.0.2.10:0", "192.0.2.10:9-8", "2001:db8::1:80", "[192.0.2.1]:80", "a:80"]
        {
            let error = MarkMatch::parse(Protocol::Tcp, text).expect_err(text);
            assert!(error.contains("VIP:FIRST-LAST"), "{error}");
        }
    }
}
