//! Services -> the table that the packet path looks them up in.
//!
//! A service by mark stands under what its matches name, so that a mark costs no look-up of its own. It comes before an
//! exact service [`ip_vs_ctl.c`, `ip_vs_service_find`], which is kept under a key that no packet has: a later daemon
//! finds all services there, and their indices.

use crate::admission;
use crate::before::Touched;
use crate::compile::{address, scheduler_number};
use crate::layout::{Layout, Placed};
use crate::model::{Model, ServiceEntry};
use abi::{
    Address, SERVICE_EXACT, SERVICE_ONE_PACKET, SERVICE_SIP, SERVICE_THRESHOLDS, SETTING_FTP,
    SETTING_PORT_ZERO, Service, ServiceKey,
};
use api::{Family, Mark, MarkMatch, Placement, Ports, Protocol, Scheduler, ServiceId};
use forward::schedule::added::{self, Kind, Ring};
use std::collections::{BTreeMap, BTreeSet};

/// In the protocol of a key: an exact service whose place a mark has taken.
pub(crate) const OVERRIDDEN: u16 = 0x8000;
/// FTP's control port.
const FTP: u16 = 21;

/// Where a service stands: of a mark under no protocol, which no packet has.
fn home(id: &ServiceId) -> ServiceKey {
    match *id {
        ServiceId::Address { protocol, address: vip, port } => {
            ServiceKey { address: address(vip), port_be: port.to_be(), protocol: protocol.number().into() }
        }
        ServiceId::Fwmark { mark, family } => {
            ServiceKey { address: Address::of_mark(mark, family == Family::Ipv4), port_be: 0, protocol: 0 }
        }
    }
}

/// Whether packets find a service under this key.
pub(crate) fn is_found(key: &ServiceKey) -> bool {
    key.protocol != 0 && key.protocol & OVERRIDDEN == 0
}

/// Whether a service under a key that is found is FTP's.
pub(crate) fn is_ftp(key: &ServiceKey, service: &Service) -> bool {
    key.port_be == FTP.to_be() && key.protocol == u16::from(Protocol::Tcp.number()) && service.mark == 0
}

/// Whether a key that is found is for every port.
pub(crate) fn is_port_zero(key: &ServiceKey) -> bool {
    key.port_be == 0
}

/// The places that touched services and matches may have changed, whether there is a service of that place or not.
/// `table` is what there was before.
pub(crate) fn places(
    model: &Model,
    touched: &Touched,
    table: &BTreeMap<ServiceKey, Service>,
) -> BTreeSet<ServiceId> {
    let mut places = touched.services.clone();
    let of_mark = |id: &ServiceId| match *id {
        ServiceId::Fwmark { mark, family } => Some((mark, family)),
        ServiceId::Address { .. } => None,
    };
    let matches = touched.services.iter().filter_map(of_mark).flat_map(|(mark, family)| {
        model.marks.of_mark(mark).filter(move |matched| Family::of(matched.address) == family)
    });
    for &MarkMatch { protocol, address: vip, ports } in matches.chain(&touched.marks) {
        let id = |port| ServiceId::Address { protocol, address: vip, port };
        match ports {
            Ports::Range { first, last } => places.extend((first..=last).map(id)),
            Ports::Any => {
                let address = address(vip);
                let at = |port_be, protocol| ServiceKey { address, port_be, protocol };
                let same = table.range(at(0, 0)..=at(u16::MAX, u16::MAX)).map(|(key, _)| key);
                let same = same.filter(|key| key.protocol == u16::from(protocol.number()));
                places.extend(same.map(|key| id(u16::from_be(key.port_be))));
                places.insert(id(0));
            }
        }
    }
    places
}

/// The rows of a place: of a mark the one it stands under; of an address and port the one that packets find, and the
/// one where an exact service stands aside for a mark.
pub(crate) fn rows(
    layout: &Layout,
    model: &Model,
    place: &ServiceId,
) -> impl Iterator<Item = (ServiceKey, Option<Service>)> + use<> {
    let of = |id: &ServiceId| service(layout, model, id, model.service(id)?);
    let key = home(place);
    let own = of(place);
    let ServiceId::Address { protocol, address: vip, port } = *place else {
        return std::iter::once((key, own)).chain(None);
    };
    let marked = |mark| of(&ServiceId::Fwmark { mark, family: Family::of(vip) });
    let any = MarkMatch { protocol, address: vip, ports: Ports::Any };
    let any = || model.marks.get(&any).filter(|_| port == 0 || own.is_some());
    let by_mark =
        model.marks.of_port(protocol, vip, port).and_then(marked).or_else(|| any().and_then(marked));
    let aside = ServiceKey { protocol: key.protocol | OVERRIDDEN, ..key };
    std::iter::once((key, by_mark.or(own))).chain(Some((aside, by_mark.and(own))))
}

/// The table of services.
pub(crate) fn table(layout: &Layout, model: &Model) -> BTreeMap<ServiceKey, Service> {
    let row = |(id, entry): (&ServiceId, &ServiceEntry)| Some((home(id), service(layout, model, id, entry)?));
    let mut table: BTreeMap<ServiceKey, Service> = model.services().filter_map(row).collect();
    // What a match of any port leaves open first, so that others come before it.
    let (any, ranges): (Vec<Mark>, Vec<Mark>) =
        model.marks().partition(|mark| mark.matched.ports == Ports::Any);
    for Mark { matched, mark } in any.into_iter().chain(ranges) {
        let id = ServiceId::Fwmark { mark, family: Family::of(matched.address) };
        let Some(service) = table.get(&home(&id)).copied() else { continue };
        for key in keys(&matched, &table) {
            if let Some(exact) = table.insert(key, service)
                && exact.mark == 0
            {
                table.insert(ServiceKey { protocol: key.protocol | OVERRIDDEN, ..key }, exact);
            }
        }
    }
    table
}

/// The keys that a match takes: with any port, those of all services of the address too.
fn keys(matched: &MarkMatch, table: &BTreeMap<ServiceKey, Service>) -> Vec<ServiceKey> {
    let MarkMatch { protocol, address: vip, ports } = *matched;
    let id = |port| home(&ServiceId::Address { protocol, address: vip, port });
    match ports {
        Ports::Range { first, last } => (first..=last).map(id).collect(),
        Ports::Any => {
            let all = id(0);
            let same = |key: &&ServiceKey| key.address == all.address && key.protocol == all.protocol;
            let mut keys: Vec<ServiceKey> = table.keys().filter(same).copied().collect();
            keys.push(all);
            keys
        }
    }
}

fn service(layout: &Layout, model: &Model, id: &ServiceId, entry: &ServiceEntry) -> Option<Service> {
    row(model, id, entry, layout.services.get(id)?)
}

/// Where a service stands, and its row there, whatever marks make of it.
pub(crate) fn own_row(
    model: &Model,
    id: &ServiceId,
    entry: Option<&ServiceEntry>,
    placed: Option<&Placed>,
) -> (ServiceKey, Option<Service>) {
    let row = entry.zip(placed).and_then(|(entry, placed)| row(model, id, entry, placed));
    (home(id), row)
}

fn row(model: &Model, id: &ServiceId, entry: &ServiceEntry, placed: &Placed) -> Option<Service> {
    let laid = placed.laid.as_ref()?;
    let mut service = Service {
        index: placed.index,
        scheduler: scheduler_number(laid.scheduler),
        flags: flags(entry, model.policy(entry).placement) | admission::flags(entry.admission()),
        ring: laid.ring,
        pool: laid.pool,
        ..Service::default()
    };
    match *id {
        ServiceId::Address { port, .. } => service.port_be = port.to_be(),
        ServiceId::Fwmark { mark, .. } => service.mark = mark,
    }
    if let Some(persistence) = entry.spec().persistence {
        service.persistence_s = persistence.timeout_s;
        let is_v4 = id.family() == Family::Ipv4;
        service.mask = if is_v4 { persistence.mask.to_be() } else { persistence.mask };
    }
    Some(service)
}

/// What its options mean. The flags of the scheduler mean nothing to schedulers without flags.
fn flags(entry: &ServiceEntry, placement: Placement) -> u16 {
    let spec = entry.spec();
    let given = spec.scheduler_flags;
    let has_flags = match entry.scheduler() {
        Scheduler::Sh | Scheduler::Mh => true,
        Scheduler::Added(number) => added::of(number).is_some_and(|it| it.kind == Kind::Ring(Ring::Hash)),
        _ => false,
    };
    let hashes = matches!(entry.scheduler(), Scheduler::Sh | Scheduler::Dh | Scheduler::Mh);
    // The engine means nothing without persistence.
    let is_sip = spec.persistence.is_some() && spec.persistence_engine.as_deref() == Some("sip");
    let flags = [
        (has_flags && given.flag_1, abi::SERVICE_FALLBACK),
        (has_flags && given.flag_2, abi::SERVICE_PORT),
        (spec.one_packet, SERVICE_ONE_PACKET),
        (is_sip, SERVICE_SIP),
        (hashes && placement == Placement::Exact, SERVICE_EXACT),
        (entry.reals().any(|(_, real)| real.spec.upper_threshold > 0), SERVICE_THRESHOLDS),
    ];
    flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag)
}

/// The switches that say which look-ups may find something.
pub(crate) fn switches(table: &BTreeMap<ServiceKey, Service>) -> u32 {
    let mut switches = 0;
    for (key, service) in table.iter().filter(|(key, _)| is_found(key)) {
        if is_ftp(key, service) {
            switches |= SETTING_FTP;
        }
        if is_port_zero(key) {
            switches |= SETTING_PORT_ZERO;
        }
    }
    switches
}

/// The filter in front of the look-ups.
pub(crate) fn vip_filter(table: &BTreeMap<ServiceKey, Service>) -> BTreeMap<u32, u64> {
    let mut words = BTreeMap::new();
    for key in table.keys().filter(|key| is_found(key)) {
        let (word, mask) = abi::vip_filter_bit(&key.address);
        *words.entry(word).or_default() |= mask;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Cursors, Neighbours, compile};
    use crate::samples::{service_spec, small_options};
    use crate::tables::Tables;
    use api::{Change, Persistence, RealId, RealSpec, ServiceSpec};

    const VIP: [u8; 4] = [192, 0, 2, 1];

    fn address_id(port: u16) -> ServiceId {
        ServiceId::Address { protocol: Protocol::Tcp, address: VIP.into(), port }
    }

    fn marked(mark: u32) -> ServiceId {
        ServiceId::Fwmark { mark, family: Family::Ipv4 }
    }

    fn add(service: ServiceId, spec: ServiceSpec) -> Change {
        Change::AddService { service, spec }
    }

    fn persistent(timeout_s: u32) -> ServiceSpec {
        let mask = 0xffff_ff00;
        ServiceSpec { persistence: Some(Persistence { timeout_s, mask }), ..service_spec("rr") }
    }

    fn mark(text: &str, mark: u32) -> Change {
        let matched = MarkMatch::parse(Protocol::Tcp, text).expect("a match");
        Change::AddMark { matched, mark }
    }

    fn compiled(changes: &[Change]) -> (Layout, Tables) {
        let mut options = small_options();
        options.limits.services_max = 16;
        let mut model = Model::new(options);
        changes.iter().for_each(|change| model.apply(change).expect("a change"));
        let mut layout = Layout::new(model.options().limits);
        let compiled = compile(&mut layout, &model, &Neighbours::new(), &Cursors::new()).expect("room");
        (layout, compiled.tables)
    }

    /// The mark, or else the port, of the service that a packet to this port finds exactly.
    fn at(tables: &Tables, port: u16) -> Option<(u32, u16)> {
        let service = tables.services.get(&home(&address_id(port)))?;
        Some((service.mark, u16::from_be(service.port_be)))
    }

    #[test]
    fn a_match_comes_before_an_exact_service_and_gives_it_back() {
        let services = [
            add(address_id(80), service_spec("rr")),
            add(address_id(81), service_spec("rr")),
            add(marked(7), persistent(300)),
        ];
        let with = |more: &[Change]| compiled(&[&services, more].concat()).1;
        let tables = with(&[mark("192.0.2.1:80", 7), mark("192.0.2.1:90-92", 7), mark("192.0.2.1:99", 8)]);
        assert_eq!(
            [80, 81, 90, 92, 93, 99].map(|port| at(&tables, port)),
            [Some((7, 0)), Some((0, 81)), Some((7, 0)), Some((7, 0)), None, None]
        );
        let tables = with(&[mark("192.0.2.1:*", 7)]);
        assert_eq!([80, 81, 0].map(|port| at(&tables, port)), [Some((7, 0)); 3]);
        assert_eq!(tables.settings.sysctls.switches & (SETTING_FTP | SETTING_PORT_ZERO), SETTING_PORT_ZERO);
        let tables = with(&[]);
        assert_eq!([80, 90].map(|port| at(&tables, port)), [Some((0, 80)), None]);
        assert_eq!(tables.settings.sysctls.switches & (SETTING_FTP | SETTING_PORT_ZERO), 0);
    }

    #[test]
    fn only_found_services_are_in_the_filter() {
        let (_, tables) = compiled(&[add(marked(7), service_spec("rr"))]);
        assert!(tables.vip_filter.is_empty(), "no match, no VIP");
        let (_, tables) = compiled(&[add(marked(7), service_spec("rr")), mark("192.0.2.1:80", 7)]);
        let (word, bits) = abi::vip_filter_bit(&Address::v4(VIP));
        assert_eq!(tables.vip_filter, BTreeMap::from([(word, bits)]));
    }

    #[test]
    fn options_become_flags_and_fields() {
        let sip = Some("sip".to_owned());
        let call = ServiceSpec { persistence_engine: sip.clone(), one_packet: true, ..persistent(60) };
        let stored = ServiceSpec { persistence_engine: sip, ..service_spec("rr") };
        let real = RealId { address: [10, 0, 0, 1].into(), port: 21 };
        let spec = RealSpec { upper_threshold: 3, ..crate::samples::real_spec(1) };
        let (_, tables) = compiled(&[
            add(address_id(5060), call),
            add(address_id(5061), stored),
            add(address_id(21), persistent(30)),
            Change::AddReal { service: address_id(21), real, spec },
        ]);
        let get = |port| tables.services[&home(&address_id(port))];
        assert_eq!(get(5060).flags, SERVICE_SIP | SERVICE_ONE_PACKET);
        assert_eq!((get(5060).persistence_s, get(5060).mask), (60, 0xffff_ff00_u32.to_be()));
        assert_eq!((get(5061).flags, get(5061).persistence_s), (0, 0));
        assert_eq!((get(21).flags, get(21).port_be), (SERVICE_THRESHOLDS, 21_u16.to_be()));
        assert_eq!(tables.settings.sysctls.switches & SETTING_FTP, SETTING_FTP);
    }

    #[test]
    fn services_behind_a_mark_are_adopted() {
        let real = RealId { address: [10, 0, 0, 1].into(), port: 80 };
        let spec = crate::samples::real_spec(1);
        let (layout, tables) = compiled(&[
            add(address_id(80), service_spec("rr")),
            Change::AddReal { service: address_id(80), real, spec },
            add(marked(7), service_spec("rr")),
            Change::AddReal { service: marked(7), real, spec },
            add(marked(9), service_spec("rr")),
            mark("192.0.2.1:80-89", 7),
        ]);
        let adopted = Layout::adopt(layout.limits, &tables, &Cursors::new()).expect("sound");
        for id in [address_id(80), marked(7), marked(9)] {
            assert_eq!(adopted.service_index(&id), layout.service_index(&id), "{id}");
            assert_eq!(adopted.real_index(&id, &real), layout.real_index(&id, &real), "{id}");
        }
    }
}
