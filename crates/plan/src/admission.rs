//! Who may open flows to a service: what of it can be declared, and what becomes of it in the tables.

use crate::before::Before;
use crate::compile::address;
use crate::diff::Patch;
use crate::layout::Placed;
use crate::model::{Model, ServiceEntry, no_such_service};
use crate::tables::Tables;
use abi::{
    ACCESS_ALLOW, ACCESS_DENY, ACCESS_SERVICE_BITS, AccessKey, Address, ClientLimits, SERVICE_ADMITS,
    SERVICE_ALLOWS,
};
use api::{Admission, Family, Refusal, RefusalKind, ServiceId, ServiceSpec};
use ipnet::IpNet;
use std::collections::BTreeSet;

/// Most flows that one client may be let open a second: more are no limit, and the interval between two is counted in ns.
const RATE_MAX: u32 = 1_000_000;

/// Whether it can be done for this service.
pub(crate) fn check(service: &ServiceId, spec: &ServiceSpec, admission: &Admission) -> Result<(), Refusal> {
    let invalid = |message: String| Err(Refusal::new(RefusalKind::Invalid, format!("{service}: {message}")));
    let mut seen = BTreeSet::new();
    for network in admission.allow.iter().chain(&admission.deny) {
        if network.trunc() != *network {
            let right = network.trunc();
            return invalid(format!("{network} has bits behind its prefix: use {right}"));
        }
        if !seen.insert(*network) {
            return invalid(format!("the network {network} is named twice in `allow' and `deny'"));
        }
    }
    if admission.rate_per_client > RATE_MAX {
        let rate = admission.rate_per_client;
        return invalid(format!("rate_per_client of {rate} is out of range: 1 to {RATE_MAX}"));
    }
    if i32::try_from(admission.connections_per_client).is_err() {
        let connections = admission.connections_per_client;
        return invalid(format!("connections_per_client of {connections} is out of range: 1 to 2147483647"));
    }
    if admission.connections_per_client != 0 && spec.one_packet {
        return invalid(
            "connections_per_client cannot be kept where each packet is scheduled for itself (one-packet): use rate_per_client"
                .to_owned(),
        );
    }
    Ok(())
}

impl Model {
    /// Declares who may open flows to a service.
    pub(crate) fn set_admission(
        &mut self,
        id: &ServiceId,
        admission: &Admission,
        before: &mut Before,
    ) -> Result<(), Refusal> {
        let entry = self.service(id).ok_or_else(|| no_such_service(id))?;
        self::check(id, entry.spec(), admission)?;
        let others = self.networks - networks(&entry.admission);
        let all = others + networks(admission);
        let max = self.options().limits.networks_max;
        crate::check::limit("networks_max", "networks that services allow or deny", all, max)?;
        if let Some(entry) = self.entry(id, before) {
            entry.admission = admission.clone();
            self.networks = all;
        }
        Ok(())
    }
}

/// How many networks it has.
pub(crate) fn networks(admission: &Admission) -> usize {
    admission.allow.len() + admission.deny.len()
}

/// The flags of the service.
pub(crate) fn flags(admission: &Admission) -> u16 {
    let admits = if *admission == Admission::default() { 0 } else { SERVICE_ADMITS };
    admits | if admission.allow.is_empty() { 0 } else { SERVICE_ALLOWS }
}

/// The networks of a service that its packets can come from.
pub(crate) fn access<'a>(
    id: &ServiceId,
    entry: &'a ServiceEntry,
    placed: &Placed,
) -> impl Iterator<Item = (AccessKey, u32)> + use<'a> {
    let (service, family) = (placed.index, id.family());
    let Admission { allow, deny, .. } = entry.admission();
    let of = move |networks: &'a [IpNet], access| {
        let own = networks.iter().filter(move |network| Family::of(network.addr()) == family);
        own.map(move |network| (key(service, network), access))
    };
    of(allow, ACCESS_ALLOW).chain(of(deny, ACCESS_DENY))
}

fn key(service: u32, network: &IpNet) -> AccessKey {
    let mapped = if network.addr().is_ipv4() { 96 } else { 0 };
    AccessKey {
        prefix_len: ACCESS_SERVICE_BITS + mapped + u32::from(network.prefix_len()),
        service,
        address: address(network.addr()),
    }
}

/// What each client of a service may have; `None` for anything.
pub(crate) fn limits(entry: &ServiceEntry) -> Option<ClientLimits> {
    let Admission { connections_per_client: connections, rate_per_client: rate, .. } = *entry.admission();
    Some(ClientLimits { connections, rate }).filter(|limits| *limits != ClientLimits::default())
}

/// Notes what becomes of the rows of a service that was touched.
pub(crate) fn patch(
    patch: &mut Patch,
    tables: &Tables,
    id: &ServiceId,
    old: Option<&Placed>,
    new: Option<(&Placed, &ServiceEntry)>,
) {
    if let Some(old) = old {
        patch.client_limits.entry(old.index).or_insert(None);
        let at = |service| AccessKey { prefix_len: 0, service, address: Address::default() };
        let until = old.index.checked_add(1).map(at);
        let after = tables.access.range(at(old.index)..).map(|(key, _)| *key);
        for key in after.take_while(|key| until.is_none_or(|until| *key < until)) {
            patch.access.entry(key).or_insert(None);
        }
    }
    if let Some((placed, entry)) = new {
        patch.client_limits.insert(placed.index, limits(entry));
        patch.access.extend(access(id, entry, placed).map(|(key, access)| (key, Some(access))));
    }
}
