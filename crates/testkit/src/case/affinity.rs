//! Which real servers serve a destination, in cases.

use std::net::IpAddr;

use abi::{Affinity, AffinityKey};
use serde::Deserialize;

use super::Compiled;
use super::compile::{CompileError, SECOND_NS, address, wrong};

/// What lblc or lblcr remembers of a destination before the first packet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// The destination address.
    pub to: IpAddr,
    /// Its real servers; the one added first comes first.
    pub reals: Vec<IpAddr>,
    /// How many seconds ago a flow was scheduled by it.
    #[serde(default)]
    pub used_ago: u64,
    /// How many seconds ago a real server was added or removed.
    #[serde(default)]
    pub modified_ago: u64,
}

impl Compiled {
    pub(super) fn remember(
        &mut self,
        written: &Remembered,
        service: u32,
        now_ns: u64,
    ) -> Result<(), CompileError> {
        let ago = |seconds: u64| now_ns.saturating_sub(seconds * SECOND_NS);
        let mut entry = Affinity {
            used_ns: ago(written.used_ago),
            modified_ns: ago(written.modified_ago),
            len: written.reals.len() as u32,
            ..Affinity::default()
        };
        if written.reals.len() > entry.reals.len() {
            return Err(wrong("remembered real servers", written.reals.len(), "more than fit"));
        }
        for (member, real) in entry.reals.iter_mut().zip(&written.reals) {
            *member = self.real(*real)?;
        }
        let key = AffinityKey { address: address(written.to), service, reserved: 0 };
        self.affinities.push((key, entry));
        Ok(())
    }
}
