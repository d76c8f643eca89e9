//! What a service does beyond the classic options: chosen beside them, so that `ipvsadm -E`, which replaces a
//! service's whole record, does not lose it.

use crate::names::{Family, Protocol};
use crate::service::ServiceId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// What becomes of a flow whose real server was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gone {
    /// Its packets are dropped until it expires or the real server is added again, as IPVS does by default.
    Keep,
    /// A packet that may open a flow is scheduled anew; others are dropped.
    #[default]
    Reschedule,
    /// The client's next TCP segment is answered with a reset; a packet that may open a flow is scheduled anew.
    Reset,
}

impl Gone {
    /// Every choice, with the word that names it.
    pub const ALL: [(&str, Self); 3] =
        [("keep", Self::Keep), ("reschedule", Self::Reschedule), ("reset", Self::Reset)];

    /// The word that names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, gone)| *gone == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Gone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, gone)| gone);
        found.ok_or_else(|| format!("`{text}' is no such choice: use keep, reschedule or reset"))
    }
}

/// Which real server the hash schedulers (sh, dh, mh) give a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// By the directors' secret: nobody else can work it out, and so choose addresses that all meet one real server.
    #[default]
    Keyed,
    /// Exactly the one that IPVS gives it.
    Exact,
}

impl Placement {
    /// Every choice, with the word that names it.
    pub const ALL: [(&str, Self); 2] = [("keyed", Self::Keyed), ("exact", Self::Exact)];

    /// The word that names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, placement)| *placement == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, placement)| placement);
        found.ok_or_else(|| format!("`{text}' is no such choice: use keyed or exact"))
    }
}

/// The choices somebody made; what is `None` was left open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChoices {
    /// What becomes of a flow whose real server was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
    /// Whether a repeated SYN of a connection that never got on goes to another real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<bool>,
    /// Whether masqueraded packets get the director's own address as source, so that real servers need no route
    /// through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_nat: Option<bool>,
    /// Which real server the hash schedulers give a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl PolicyChoices {
    /// Whether nothing was chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These choices where there are any, else the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            gone: self.gone.or(others.gone),
            rescue: self.rescue.or(others.rescue),
            source_nat: self.source_nat.or(others.source_nat),
            placement: self.placement.or(others.placement),
        }
    }
}

/// A policy with every choice made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What becomes of a flow whose real server was deleted.
    pub gone: Gone,
    /// Whether a repeated SYN of a connection that never got on goes to another real server.
    pub rescue: bool,
    /// Whether masqueraded packets get the director's own address as source.
    pub source_nat: bool,
    /// Which real server the hash schedulers give a client.
    #[serde(default)]
    pub placement: Placement,
}

impl Default for Policy {
    fn default() -> Self {
        Self { gone: Gone::default(), rescue: true, source_nat: false, placement: Placement::default() }
    }
}

impl Policy {
    /// The choices, with the built-in ones where there are none.
    #[must_use]
    pub fn of(choices: PolicyChoices) -> Self {
        let Self { gone, rescue, source_nat, placement } = Self::default();
        Self {
            gone: choices.gone.unwrap_or(gone),
            rescue: choices.rescue.unwrap_or(rescue),
            source_nat: choices.source_nat.unwrap_or(source_nat),
            placement: choices.placement.unwrap_or(placement),
        }
    }
}

/// Every service's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// For services that left a choice open.
    pub default: Policy,
    /// The services, in the order they were added.
    pub services: Vec<ServicePolicy>,
}

/// One service's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePolicy {
    /// Which.
    pub service: ServiceId,
    /// What holds for it.
    pub policy: Policy,
    /// What was chosen for it and does not come from the default.
    pub chosen: PolicyChoices,
}

/// A service as words: `tcp 192.0.2.1:80`, `udp [2001:db8::1]:53`, `fwm 7`, `fwm 7 ipv6`.
impl FromStr for ServiceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = || {
            format!(
                "`{text}' names no service: give a protocol with VIP and port, such as tcp 192.0.2.1:80, or fwm with a mark, such as fwm 7 (fwm 7 ipv6)"
            )
        };
        let words: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match *words.as_slice() {
            ["fwm", mark] => {
                mark.parse().map(|mark| Self::Fwmark { mark, family: Family::Ipv4 }).map_err(|_| help())
            }
            ["fwm", mark, "ipv6"] => {
                mark.parse().map(|mark| Self::Fwmark { mark, family: Family::Ipv6 }).map_err(|_| help())
            }
            [protocol, at] => {
                let protocol: Protocol = protocol.parse().map_err(|_| help())?;
                let at: SocketAddr = at.parse().map_err(|_| help())?;
                Ok(Self::Address { protocol, address: at.ip(), port: at.port() })
            }
            _ => Err(help()),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switch = |on| if on { "on" } else { "off" };
        write!(
            f,
            "gone {}, rescue {}, source-nat {}, placement {}",
            self.gone.name(),
            switch(self.rescue),
            switch(self.source_nat),
            self.placement.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_they_are_written() {
        for text in ["TCP 192.0.2.1:80", "UDP [2001:db8::1]:53", "SCTP 192.0.2.1:0", "FWM 7", "FWM 7 IPv6"] {
            let service: ServiceId = text.parse().expect("a service");
            assert_eq!(service.to_string(), text);
        }
        for text in ["", "tcp", "tcp 192.0.2.1", "icmp 192.0.2.1:1", "fwm x", "fwm 7 ipv4 x"] {
            let error = text.parse::<ServiceId>().expect_err("no service");
            assert!(error.contains("such as tcp 192.0.2.1:80"), "{error}");
        }
    }

    #[test]
    fn an_own_choice_goes_before_the_default_and_that_before_the_built_in_one() {
        let own = PolicyChoices { gone: Some(Gone::Reset), ..PolicyChoices::default() };
        let default =
            PolicyChoices { gone: Some(Gone::Keep), source_nat: Some(true), ..PolicyChoices::default() };
        let policy = Policy::of(own.or(default));
        assert_eq!(
            policy,
            Policy { gone: Gone::Reset, rescue: true, source_nat: true, placement: Placement::Keyed }
        );
        assert_eq!(policy.to_string(), "gone reset, rescue on, source-nat on, placement keyed");
        assert_eq!("reset".parse(), Ok(Gone::Reset));
        assert!("never".parse::<Gone>().is_err());
        assert_eq!("exact".parse(), Ok(Placement::Exact));
        assert!("random".parse::<Placement>().is_err());
    }
}
