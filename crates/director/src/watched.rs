//! Addresses whose next hops the packet path needs or may need: those of all declared real servers and fallbacks, those
//! that failed their checks too, so that a next hop is there when one comes back. Each is counted.
//!
//! Deliberately absent: asking for the next hops (`host`).

use plan::{Before, Model, ServiceEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The addresses, and what is new about them.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Real servers of each address.
    counts: BTreeMap<IpAddr, usize>,
    /// Whether each address that came or went is needed now.
    news: BTreeMap<IpAddr, bool>,
}

impl Watched {
    /// Those of a model; nothing is new.
    pub(crate) fn of(model: &Model) -> Self {
        let mut watched = Self::default();
        model.services().for_each(|(_, entry)| watched.add(entry));
        watched.news.clear();
        watched
    }

    /// All addresses.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.counts.keys().copied().collect()
    }

    /// Follows changes of the model.
    pub(crate) fn follow(&mut self, before: &Before, model: &Model) {
        // What is needed again must not go in between.
        for (id, _) in before.services() {
            model.service(id).into_iter().for_each(|entry| self.add(entry));
        }
        for (_, entry) in before.services() {
            entry.into_iter().for_each(|entry| self.remove(entry));
        }
    }

    /// Takes what is new since it was asked last: addresses that are needed, and those that are no longer.
    pub(crate) fn take_news(&mut self) -> BTreeMap<IpAddr, bool> {
        std::mem::take(&mut self.news)
    }

    fn add(&mut self, entry: &ServiceEntry) {
        for address in addresses(entry) {
            let count = self.counts.entry(address).or_default();
            *count += 1;
            if *count == 1 {
                self.news.insert(address, true);
            }
        }
    }

    fn remove(&mut self, entry: &ServiceEntry) {
        for address in addresses(entry) {
            let Some(count) = self.counts.get_mut(&address) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&address);
                self.news.insert(address, false);
            }
        }
    }
}

fn addresses(entry: &ServiceEntry) -> impl Iterator<Item = IpAddr> {
    let fallback = entry.health().fallback.map(|it| it.real);
    entry.reals().map(|(real, _)| *real).chain(fallback).map(|real| real.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Change, Protocol, RealId, RealSpec, ServiceId, ServiceSpec};
    use plan::Options;

    #[test]
    fn an_address_is_watched_from_its_first_real_server_to_its_last() {
        let service =
            |port| ServiceId::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 1].into(), port };
        let add_service = |port| {
            let spec: ServiceSpec = serde_json::from_str(r#"{"scheduler":"rr"}"#).expect("a service");
            Change::AddService { service: service(port), spec }
        };
        let real = |number: u8, port| RealId { address: [10, 0, 0, number].into(), port };
        let add = |number, port| {
            let spec = r#"{"forwarding":"direct_routing","weight":1}"#;
            let spec: RealSpec = serde_json::from_str(spec).expect("a real server");
            Change::AddReal { service: service(port), real: real(number, port), spec }
        };
        let delete = |number, port| Change::DeleteReal { service: service(port), real: real(number, port) };
        let mut model = Model::new(Options::default());
        let mut watched = Watched::of(&model);
        let mut news = |changes: &[Change]| {
            let (refusals, before) = model.change(changes, true);
            assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
            watched.follow(&before, &model);
            assert_eq!(watched.addresses(), Watched::of(&model).addresses());
            watched.take_news().into_iter().map(|(address, is)| (address.to_string(), is)).collect::<Vec<_>>()
        };
        let of = |number, is| (format!("10.0.0.{number}"), is);
        assert_eq!(news(&[add_service(80), add_service(81), add(1, 80)]), [of(1, true)]);
        assert_eq!(news(&[add(1, 81), add(2, 81)]), [of(2, true)]);
        assert_eq!(news(&[delete(1, 80)]), []);
        assert_eq!(news(&[delete(1, 81), add(3, 80)]), [of(1, false), of(3, true)]);
        assert_eq!(news(&[delete(2, 81), add(2, 80)]), []);
        assert_eq!(news(&[Change::Flush, add_service(80), add(3, 80)]), [of(2, false)]);
    }
}
