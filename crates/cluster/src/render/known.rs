//! What a file calls the servers, services and checks that a model knows by what they are.

use super::Checks;
use crate::file::Server;
use crate::read::Section;
use api::{Family, Forwarding, ServiceId};
use std::collections::HashMap;
use std::net::IpAddr;

/// Names.
#[derive(Default)]
pub(crate) struct Known<'a> {
    /// Of services.
    pub(crate) services: HashMap<ServiceId, String>,
    /// Of servers, with what their tables say.
    pub(crate) servers: Servers<'a>,
    /// Logical clusters whose servers a service uses, and no others.
    pub(crate) clusters: HashMap<ServiceId, String>,
    /// Of checks.
    pub(crate) checks: Checks,
}

/// Tables of servers by address.
#[derive(Default)]
pub(crate) struct Servers<'a>(HashMap<IpAddr, &'a Section<Server>>);

impl<'a> Servers<'a> {
    pub(crate) fn of(sections: impl Iterator<Item = &'a Section<Server>>) -> Self {
        let addresses = sections.flat_map(|section| {
            let addresses = section.record.iter().flat_map(|server| server.address.value.values());
            addresses.map(move |address| (address.0, section))
        });
        Self(addresses.collect())
    }

    /// The server that has an address, whatever it would be used for.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&'a Section<Server>> {
        self.0.get(&address).copied()
    }

    /// The server whose name stands for this address in a service of this family.
    pub(crate) fn named(
        &self,
        address: IpAddr,
        family: Family,
        forwarding: Forwarding,
    ) -> Option<&'a Section<Server>> {
        let section = self.at(address)?;
        let all = section.record.iter().flat_map(|server| server.address.value.values()).map(|it| it.0);
        let all: Vec<IpAddr> = all.collect();
        let first = all.first().copied().filter(|_| forwarding == Forwarding::Tunnel);
        let meant = all.iter().copied().find(|it| Family::of(*it) == family).or(first);
        (meant == Some(address)).then_some(section)
    }
}
