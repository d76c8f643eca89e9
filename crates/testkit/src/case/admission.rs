//! Who may open flows to a service.

use super::Service;
use super::compile::{CompileError, Compiled, address, wrong};
use abi::{
    ACCESS_ALLOW, ACCESS_DENY, ACCESS_SERVICE_BITS, AccessKey, Address, ClientKey, ClientLimits,
    SERVICE_ADMITS, SERVICE_ALLOWS,
};
use serde::Deserialize;
use std::net::IpAddr;

/// What is known of a client of a service with limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Connections it has.
    #[serde(default)]
    pub connections: i32,
    /// So many milliseconds from now on it has opened as many flows as it may.
    #[serde(default)]
    pub busy_for: u64,
}

impl Compiled {
    /// Adds who may open flows to the service with this index; returns the service's flags for it.
    pub(super) fn admission(
        &mut self,
        service: u32,
        written: &Service,
        now_ns: u64,
    ) -> Result<u16, CompileError> {
        for (networks, access) in [(&written.allow, ACCESS_ALLOW), (&written.deny, ACCESS_DENY)] {
            for network in networks {
                let (network, len) = parse(network)?;
                self.access.push((
                    AccessKey { prefix_len: ACCESS_SERVICE_BITS + len, service, address: network },
                    access,
                ));
            }
        }
        let limits =
            ClientLimits { connections: written.connections_per_client, rate: written.rate_per_client };
        self.client_limits.push(limits);
        for client in &written.clients {
            let key = ClientKey::new(service, &address(client.address));
            self.client_connections.push((key, client.connections));
            self.client_rates.push((key, now_ns + client.busy_for * 1_000_000));
        }
        let listed = !written.allow.is_empty() || !written.deny.is_empty();
        let admits = if listed || limits != ClientLimits::default() { SERVICE_ADMITS } else { 0 };
        Ok(admits | if written.allow.is_empty() { 0 } else { SERVICE_ALLOWS })
    }
}

/// `10.0.0.0/8` as an address and how many of its 128 bits count.
fn parse(network: &str) -> Result<(Address, u32), CompileError> {
    let no = || wrong("network", network, "not ADDRESS/LENGTH");
    let (ip, len) = network.split_once('/').ok_or_else(no)?;
    let ip: IpAddr = ip.parse().map_err(|_| no())?;
    let len: u32 = len.parse().map_err(|_| no())?;
    Ok((address(ip), if ip.is_ipv4() { 96 + len } else { len }))
}
