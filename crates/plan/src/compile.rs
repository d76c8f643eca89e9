//! Model -> tables.
//!
//! Only a service whose real servers, weights or scheduler changed is laid anew, in slots nobody uses; all
//! others keep their slots, and their rings go on undisturbed.
//!
//! This is the whole way, for the start and for whoever wants to be sure. [`crate::recompile`] goes the same way for what
//! a change touched, and must come to the same.

use crate::admission;
use crate::counted::Counted;
use crate::layout::{Laid, Layout, LayoutFull, Owner, Placed, PlacedReal};
use crate::model::{Model, RealEntry, ServiceEntry};
use crate::ring::{self, Entry, RingState};
use crate::services;
use crate::tables::Tables;
use abi::{
    Address, METHOD_DIRECT_ROUTING, METHOD_MASQUERADE, METHOD_TUNNEL, REAL_AVAILABLE, REAL_GONE_KEEP,
    REAL_GONE_RESET, REAL_LOCAL, REAL_RESCUE, REAL_RESOLVED, REAL_TRANSLATE_SOURCE, REAL_TRANSLATED, Real,
    Settings, Slot, Span, TcpState,
};
use api::{
    Family, Forwarding, Gone, Placement, Policy, RealId, RealSpec, Scheduler, ServiceId, Timeouts, Tunnel,
    TunnelChecksum,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// How to reach an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Whether it is an address of this machine; then nothing else here means anything.
    pub local: bool,
    /// Index of the interface packets leave by.
    pub ifindex: u32,
    /// Hardware address of the next hop.
    pub destination_mac: [u8; 6],
    /// Hardware address of that interface.
    pub source_mac: [u8; 6],
    /// Largest IP packet on the way, in bytes; 0 when unknown.
    pub mtu: u32,
    /// The director's own address on the way, of the same family.
    pub source: Option<IpAddr>,
}

/// Addresses whose next hop is known, and those of this machine.
pub type Neighbours = BTreeMap<IpAddr, Resolved>;

/// The packet path's cursors, by service index; a missing one is 0.
pub type Cursors = BTreeMap<u32, u64>;

/// What a compilation gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The tables.
    pub tables: Tables,
    /// Indices that were given to real servers now: what the loads and counters have there is somebody
    /// else's, and must be zeroed before the changes are done.
    pub new_reals: Vec<u32>,
}

/// Compiles a model.
///
/// When all changes that follow from it are in the kernel, call [`Layout::settle`].
///
/// `cursors` should be read just before: flows scheduled meanwhile count as steps on the new rings.
///
/// # Errors
/// When a table has no room; the layout is then as before.
pub fn compile(
    layout: &mut Layout,
    model: &Model,
    neighbours: &Neighbours,
    cursors: &Cursors,
) -> Result<Compiled, LayoutFull> {
    let mut next = layout.clone();
    next.retire(model);
    let mut new_reals = Vec::new();
    for (id, entry) in model.services() {
        next.place(id, entry, model, cursors, &mut new_reals)?;
    }
    let services = services::table(&next, model);
    let mut settings = settings(model);
    settings.sysctls.switches |= services::switches(&services);
    let tables = Tables {
        settings,
        slots: slots(&next),
        reals: reals(&next, model, neighbours),
        vip_filter: services::vip_filter(&services),
        services,
        access: placed_entries(&next, model)
            .flat_map(|(id, entry, placed)| admission::access(id, entry, placed))
            .collect(),
        client_limits: placed_entries(&next, model)
            .filter_map(|(_, entry, placed)| Some((placed.index, admission::limits(entry)?)))
            .collect(),
        masquerade_filter: BTreeMap::new(),
    };
    let masquerade_filter = masquerade_filter(&tables.reals);
    let tables = Tables { masquerade_filter, ..tables };
    next.counted = Counted::of(&tables);
    next.forget_steps();
    *layout = next;
    Ok(Compiled { tables, new_reals })
}

impl Layout {
    /// Takes the slots of services that the model no longer has, and marks what it no longer has as deleted.
    fn retire(&mut self, model: &Model) {
        let gone = |id: &&ServiceId| model.service(id).is_none();
        let ids: Vec<ServiceId> = self.services.keys().filter(gone).copied().collect();
        ids.iter().for_each(|id| self.retire_one(id));
    }

    /// Does it for one service, which the model no longer has.
    pub(crate) fn retire_one(&mut self, id: &ServiceId) {
        let Some(placed) = self.services.get(id) else { return };
        let Some(laid) = &placed.laid else { return };
        let (ring, pool) = (laid.ring, laid.pool);
        let mut placed = Placed { laid: None, ..Placed::clone(placed) };
        placed.reals.values_mut().for_each(|real| real.present = false);
        self.give_span(ring);
        self.give_span(pool);
        if placed.reals.is_empty() {
            self.give_service_index(placed.index);
            self.set_service(*id, None);
        } else {
            self.set_service(*id, Some(Arc::new(placed)));
        }
    }

    /// Gives a service its indices, and slots if it needs new ones.
    pub(crate) fn place(
        &mut self,
        id: &ServiceId,
        entry: &ServiceEntry,
        model: &Model,
        cursors: &Cursors,
        new_reals: &mut Vec<u32>,
    ) -> Result<(), LayoutFull> {
        let mut placed = match self.services.get(id) {
            Some(placed) => Arc::clone(placed),
            None => {
                let index = self.take_service_index()?;
                Arc::new(Placed { index, reals: BTreeMap::new(), laid: None, edited: false })
            }
        };
        self.place_reals(id, entry, &mut placed, new_reals)?;
        let placement = model.policy(entry).placement;
        let hashed = |real: &RealId| hashed_address(id, real, placement);
        let entries: Vec<Entry> = entry
            .reals()
            .filter_map(|(real, it)| Some(ring_entry(placed.reals.get(real)?.index, real, it, hashed(real))))
            .collect();
        let table = match placement {
            Placement::Keyed => model.options().mh_table.free(),
            Placement::Exact => model.options().mh_table,
        };
        let is_laid = placed.laid.as_ref().is_some_and(|laid| laid.is_for(entry.scheduler(), table));
        if !is_laid || placed.edited || placed.entries() != entries {
            let cursor = cursors.get(&placed.index).copied().unwrap_or_default();
            let laid = self.lay(id, placed.laid.as_ref(), entry.scheduler(), entries, cursor, table)?;
            let placed = Arc::make_mut(&mut placed);
            (placed.laid, placed.edited) = (Some(laid), false);
        }
        self.set_service(*id, Some(placed));
        Ok(())
    }

    fn place_reals(
        &mut self,
        id: &ServiceId,
        entry: &ServiceEntry,
        placed: &mut Arc<Placed>,
        new_reals: &mut Vec<u32>,
    ) -> Result<(), LayoutFull> {
        let gone: Vec<RealId> = placed
            .reals
            .iter()
            .filter(|(real, it)| it.present && entry.real(real).is_none())
            .map(|(real, _)| *real)
            .collect();
        for real in gone {
            if let Some(it) = Arc::make_mut(placed).reals.get_mut(&real) {
                it.present = false;
            }
        }
        for (real, _) in entry.reals().rev() {
            match placed.reals.get(real) {
                Some(it) if it.present => continue,
                Some(it) => {
                    let revived = PlacedReal { present: true, ..*it };
                    Arc::make_mut(placed).reals.insert(*real, revived);
                }
                None => {
                    let index = self.take_real_index()?;
                    Arc::make_mut(placed)
                        .reals
                        .insert(*real, PlacedReal { index, present: true, translated: false });
                    self.set_owner(index, Some(Owner::Known(*id, *real)));
                    new_reals.push(index);
                }
            }
        }
        for (real, it) in entry.reals() {
            let masqueraded = it.spec.forwarding == Forwarding::Masquerade;
            if masqueraded && placed.reals.get(real).is_some_and(|placed| !placed.translated) {
                Arc::make_mut(placed).reals.entry(*real).and_modify(|placed| placed.translated = true);
            }
        }
        Ok(())
    }

    /// Lays a service's ring and pool; keeps the slots if they would say the same.
    fn lay(
        &mut self,
        id: &ServiceId,
        before: Option<&Laid>,
        scheduler: Scheduler,
        entries: Vec<Entry>,
        cursor: u64,
        table: ring::mh::TableSize,
    ) -> Result<Laid, LayoutFull> {
        let weights: BTreeMap<u32, u32> = entries.iter().map(|entry| (entry.real, entry.weight)).collect();
        let pool_slots: Vec<Slot> =
            entries.iter().map(|entry| Slot { real: entry.real, weight: entry.weight }).collect();
        let (ring, state) = match ring::of(scheduler) {
            None => (Vec::new(), RingState { reals: entries, carry: None, cursor }),
            Some(of) => {
                let new_service = RingState { cursor, ..RingState::default() };
                let earlier = match before {
                    None => Some(&new_service),
                    Some(before) => (before.scheduler == scheduler).then_some(&before.state),
                };
                ring::lay(of, earlier, entries, cursor, table)
            }
        };
        let weight = |real: u32| weights.get(&real).copied().unwrap_or_default();
        let ring_slots = ring::of(scheduler).map_or(Vec::new(), |of| of.slots(&ring, &weight));
        let old = |of: fn(&Laid) -> (Span, &Vec<Slot>)| before.map(of);
        let ring = self.span(id, old(|laid| (laid.ring, &laid.ring_slots)), &ring_slots)?;
        let pool = self.span(id, old(|laid| (laid.pool, &laid.pool_slots)), &pool_slots)?;
        Ok(Laid { scheduler, state, ring, pool, ring_slots, pool_slots })
    }

    fn span(
        &mut self,
        id: &ServiceId,
        before: Option<(Span, &Vec<Slot>)>,
        slots: &Vec<Slot>,
    ) -> Result<Span, LayoutFull> {
        match before {
            Some((span, same)) if same == slots => return Ok(span),
            Some((span, _)) => self.give_span(span),
            None => {}
        }
        let needed = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        self.take_span(needed).ok_or_else(|| LayoutFull::Slots {
            max: self.limits.slots_max,
            service: *id,
            needed,
            free: self.spans.longest_free(),
        })
    }
}

/// What the hash schedulers know a real server by. IPVS takes its address for one of the service's family
/// [`ip_vs_mh.c`, `ip_vs_mh_permutate`]: of an IPv6 address behind an IPv4 service the first word.
fn hashed_address(service: &ServiceId, id: &RealId, placement: Placement) -> u32 {
    let address = address(id.address);
    let is_cut = service.family() == Family::Ipv4 && id.address.is_ipv6();
    if is_cut && placement == Placement::Exact { u32::from_be(address.0[0]) } else { address.fold() }
}

fn ring_entry(index: u32, id: &RealId, entry: &RealEntry, address: u32) -> Entry {
    Entry { real: index, weight: entry.spec.weight, last_weight: entry.last_weight, address, port: id.port }
}

/// An address as the tables have it.
pub(crate) fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    }
}

/// The settings, but for the switches that follow from the services.
pub(crate) fn settings(model: &Model) -> Settings {
    const SECOND_NS: u64 = 1_000_000_000;
    let options = model.options();
    let Timeouts { tcp_s, tcp_fin_s, udp_s } = model.timeouts();
    let mut settings = Settings {
        udp_timeout_ns: u64::from(udp_s) * SECOND_NS,
        placement_key: options.placement_key,
        answers_per_second_max: options.answers_per_second_max,
        overflow_key: options.overflow_key,
        sysctls: model.sysctls(),
        source_ports: options.source_ports,
        ..Settings::default()
    };
    settings.tcp_timeout_ns[TcpState::Established as usize] = u64::from(tcp_s) * SECOND_NS;
    settings.tcp_timeout_ns[TcpState::FinWait as usize] = u64::from(tcp_fin_s) * SECOND_NS;
    settings
}

/// The number of a scheduler in the tables.
pub(crate) fn scheduler_number(scheduler: Scheduler) -> u16 {
    match scheduler {
        Scheduler::Rr => abi::SCHEDULER_RR,
        Scheduler::Wrr => abi::SCHEDULER_WRR,
        Scheduler::Lc => abi::SCHEDULER_LC,
        Scheduler::Wlc => abi::SCHEDULER_WLC,
        Scheduler::Sh => abi::SCHEDULER_SH,
        Scheduler::Mh => abi::SCHEDULER_MH,
        Scheduler::Dh => abi::SCHEDULER_DH,
        Scheduler::Sed => abi::SCHEDULER_SED,
        Scheduler::Nq => abi::SCHEDULER_NQ,
        Scheduler::Fo => abi::SCHEDULER_FO,
        Scheduler::Ovf => abi::SCHEDULER_OVF,
        Scheduler::Lblc => abi::SCHEDULER_LBLC,
        Scheduler::Lblcr => abi::SCHEDULER_LBLCR,
        Scheduler::Twos => abi::SCHEDULER_TWOS,
        Scheduler::None => abi::SCHEDULER_NONE,
        Scheduler::Added(number) => number,
    }
}

/// The scheduler with this number in the tables.
#[must_use]
pub fn scheduler_of(number: u16) -> Option<Scheduler> {
    Scheduler::all().find(|scheduler| scheduler_number(*scheduler) == number)
}

/// The services with their entries and places.
fn placed_entries<'a>(
    layout: &'a Layout,
    model: &'a Model,
) -> impl Iterator<Item = (&'a ServiceId, &'a ServiceEntry, &'a Placed)> {
    model.services().filter_map(|(id, entry)| Some((id, entry, &**layout.services.get(id)?)))
}

fn slots(layout: &Layout) -> BTreeMap<u32, Slot> {
    let laid = layout.services.values().filter_map(|placed| placed.laid.as_ref());
    laid.flat_map(|laid| {
        let ring = (laid.ring.start..).zip(laid.ring_slots.iter().copied());
        let pool = (laid.pool.start..).zip(laid.pool_slots.iter().copied());
        ring.chain(pool)
    })
    .collect()
}

fn reals(layout: &Layout, model: &Model, neighbours: &Neighbours) -> BTreeMap<u32, Real> {
    let row = |(index, owner): (&u32, &Owner)| Some((*index, real(layout, model, neighbours, owner)?));
    layout.owners.iter().filter_map(row).collect()
}

/// The row of an index.
pub(crate) fn real(layout: &Layout, model: &Model, neighbours: &Neighbours, owner: &Owner) -> Option<Real> {
    let (service, id) = match owner {
        Owner::Orphan(real) => return Some(*real),
        Owner::Known(service, id) => (service, id),
    };
    let placed = layout.services.get(service)?;
    Some(known_real(model, neighbours, placed, model.service(service), id))
}

/// The row of a real server of a service, which the model may have no more.
pub(crate) fn known_real(
    model: &Model,
    neighbours: &Neighbours,
    placed: &Placed,
    service: Option<&ServiceEntry>,
    id: &RealId,
) -> Real {
    let translated = placed.reals.get(id).is_some_and(|real| real.translated);
    let entry = service.and_then(|entry| entry.real(id));
    let mut real = real_row(placed.index, id, entry.map(|entry| &entry.spec), neighbours);
    real.flags |= if translated { REAL_TRANSLATED } else { 0 };
    real.failed = entry.map_or(0, |it| it.failed.into());
    real.counts_clients = service.map_or(0, |it| it.admission().connections_per_client.min(1));
    real.flags |= service.map_or(0, |service| policy_flags(&model.policy(service), real.method));
    real
}

/// What a service's policy means for its real servers, deleted ones included: on them alone it depends what
/// becomes of a packet whose flow is known, so that no service need be looked up for it.
fn policy_flags(policy: &Policy, method: u8) -> u8 {
    let gone = match policy.gone {
        Gone::Keep => REAL_GONE_KEEP,
        Gone::Reschedule => 0,
        Gone::Reset => REAL_GONE_RESET,
    };
    let rescue = if policy.rescue { REAL_RESCUE } else { 0 };
    let source_nat = policy.source_nat && method == METHOD_MASQUERADE;
    gone | rescue | if source_nat { REAL_TRANSLATE_SOURCE } else { 0 }
}

/// The entry of a real server; without a spec, of a deleted one.
fn real_row(service: u32, id: &RealId, spec: Option<&RealSpec>, neighbours: &Neighbours) -> Real {
    let mut real = Real {
        address: address(id.address),
        port_be: id.port.to_be(),
        method: METHOD_DIRECT_ROUTING,
        service,
        ..Real::default()
    };
    if let Some(spec) = spec {
        real.method = match spec.forwarding {
            Forwarding::DirectRouting => METHOD_DIRECT_ROUTING,
            Forwarding::Tunnel => METHOD_TUNNEL,
            // The host itself is reached without a neighbour; the model refuses it (`supported.rs`).
            Forwarding::Masquerade | Forwarding::Local => METHOD_MASQUERADE,
        };
        real.flags |= REAL_AVAILABLE;
        (real.tunnel, real.tunnel_port_be, real.tunnel_flags) = tunnel(spec.tunnel);
        real.weight = spec.weight;
        real.upper_threshold = spec.upper_threshold;
        real.lower_threshold = spec.lower_threshold;
    }
    match neighbours.get(&id.address) {
        None => {}
        Some(Resolved { local: true, .. }) => real.flags |= REAL_LOCAL,
        Some(next_hop) => {
            real.flags |= REAL_RESOLVED;
            real.ifindex = next_hop.ifindex;
            real.macs = Real::macs_of(next_hop.destination_mac, next_hop.source_mac);
            real.mtu = next_hop.mtu;
            real.source = next_hop.source.map(address).unwrap_or_default();
        }
    }
    real
}

/// Kind, port in network order and flags of an encapsulation.
fn tunnel(tunnel: Tunnel) -> (u8, u16, u8) {
    let flags = |checksum| match checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => abi::TUNNEL_CHECKSUM,
        TunnelChecksum::Remote => abi::TUNNEL_REMOTE_CHECKSUM,
    };
    match tunnel {
        Tunnel::Ipip => (abi::TUNNEL_IPIP, 0, 0),
        Tunnel::Gue { port, checksum } => (abi::TUNNEL_GUE, port.to_be(), flags(checksum)),
        Tunnel::Gre { checksum } => (abi::TUNNEL_GRE, 0, flags(checksum)),
    }
}

/// Deleted real servers included: replies of their flows go on.
fn masquerade_filter(reals: &BTreeMap<u32, Real>) -> BTreeMap<u32, u64> {
    let mut words = BTreeMap::new();
    for real in reals.values().filter(|real| real.flags & REAL_TRANSLATED != 0) {
        let (word, mask) = abi::vip_filter_bit(&real.address);
        *words.entry(word).or_default() |= mask;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{real_spec, service, service_spec, small_options};
    use api::{Change, PolicyChoices};

    #[test]
    fn an_edit_that_changes_nothing_sends_wrr_back_to_the_head_of_its_list() {
        let mut model = Model::new(small_options());
        let id = service(1);
        let real = |number: u8| RealId { address: [10, 0, 0, number].into(), port: 80 };
        let add =
            |number, weight| Change::AddReal { service: id, real: real(number), spec: real_spec(weight) };
        for change in
            [Change::AddService { service: id, spec: service_spec("wrr") }, add(1, 5), add(2, 3), add(3, 1)]
        {
            model.apply(&change).expect("change");
        }
        let mut layout = Layout::new(model.options().limits);
        compile(&mut layout, &model, &Neighbours::new(), &Cursors::new()).expect("room");
        // Five flows: a round over all three, then 1 at level 5 and 1 at level 4.
        let cursors = Cursors::from([(0, 5)]);
        let next = |layout: &mut Layout| {
            let tables = compile(layout, &model, &Neighbours::new(), &cursors).expect("room").tables;
            let ring = tables.services.values().next().expect("service").ring;
            let slots = tables.span(ring).expect("slots");
            let index = slots[5 % slots.len()].real;
            let slot_after = slots[6 % slots.len()].real;
            (layout.identify(index).expect("real").real, layout.identify(slot_after).expect("real").real)
        };
        // Nothing edited: level 3 comes next, of 2 and 1.
        assert_eq!(next(&mut layout), (real(2), real(1)));
        layout.edited(&id);
        // Edited: level 4 comes again, of 1 alone.
        assert_eq!(next(&mut layout), (real(1), real(2)));
        assert_eq!(next(&mut layout), (real(1), real(2)), "once");
    }

    #[test]
    fn that_a_real_server_failed_changes_its_row_alone_and_ends_with_its_weight_of_0() {
        let mut model = Model::new(small_options());
        let (id, real) = (service(1), RealId { address: [10, 0, 0, 1].into(), port: 80 });
        for change in [
            Change::AddService { service: id, spec: service_spec("wrr") },
            Change::AddReal { service: id, real, spec: real_spec(0) },
        ] {
            model.apply(&change).expect("change");
        }
        let mut layout = Layout::new(model.options().limits);
        let (neighbours, cursors) = (Neighbours::new(), Cursors::new());
        let tables = compile(&mut layout, &model, &neighbours, &cursors).expect("room").tables;
        let healthy = model.clone();
        let mut before = model.note();
        model.set_failed(&id, &real, true, &mut before);
        let touched = model.touched(&before);
        let recompiled = crate::recompile(&mut layout, &model, &touched, &neighbours, &cursors, &tables);
        let row = tables.reals[&0];
        let expected = [crate::TableChange::PutReal(0, Real { failed: 1, ..row })];
        assert_eq!(recompiled.expect("room").changes, expected);
        let failed = model.clone();
        model.undo(before);
        assert_eq!(model, healthy);
        // The operator's edits leave it as long as the weight is 0.
        for (weight, expected) in [(0, true), (1, false), (0, false)] {
            let mut model = failed.clone();
            let mut edit = |weight| {
                let change = Change::EditReal { service: id, real, spec: real_spec(weight) };
                model.apply(&change).expect("an edit");
            };
            edit(weight.max(u32::from(!expected)));
            edit(weight);
            let entry = model.service(&id).and_then(|entry| entry.real(&real)).expect("a real server");
            assert_eq!(entry.failed, expected);
        }
        // What was noted of nothing is nothing.
        let mut before = model.note();
        model.set_failed(&service(2), &real, true, &mut before);
        model.set_failed(&id, &real, false, &mut before);
        assert_eq!(model.touched(&before).services.len(), 0);
    }

    #[test]
    fn a_policy_is_a_flag_of_every_real_server_deleted_ones_too_and_outlives_an_edit() {
        let mut model = Model::new(small_options());
        let id = service(1);
        let real = RealId { address: [10, 0, 0, 1].into(), port: 80 };
        let mut layout = Layout::new(model.options().limits);
        let mut flags = |model: &Model| {
            let tables =
                compile(&mut layout, model, &Neighbours::new(), &Cursors::new()).expect("room").tables;
            tables.reals.values().next().expect("a real server").flags
        };
        let policy = |service, gone, rescue| {
            let choices = PolicyChoices { gone, rescue, ..PolicyChoices::default() };
            Change::SetPolicy { service, forget: false, choices }
        };
        for change in [
            Change::AddService { service: id, spec: service_spec("wrr") },
            Change::AddReal { service: id, real, spec: real_spec(1) },
        ] {
            model.apply(&change).expect("change");
        }
        assert_eq!(flags(&model), REAL_AVAILABLE | REAL_RESCUE, "the built-in choices");
        model.apply(&policy(None, Some(Gone::Keep), Some(false))).expect("default");
        assert_eq!(flags(&model), REAL_AVAILABLE | REAL_GONE_KEEP);
        model.apply(&policy(Some(id), Some(Gone::Reset), None)).expect("its own");
        model.apply(&Change::EditService { service: id, spec: service_spec("rr") }).expect("edit");
        assert_eq!(flags(&model), REAL_AVAILABLE | REAL_GONE_RESET);
        model.apply(&Change::DeleteReal { service: id, real }).expect("delete");
        assert_eq!(flags(&model), REAL_GONE_RESET);
        let forget = Change::SetPolicy { service: Some(id), forget: true, choices: PolicyChoices::default() };
        model.apply(&forget).expect("forget");
        assert_eq!(flags(&model), REAL_GONE_KEEP);
        model.apply(&policy(Some(service(2)), None, None)).expect_err("there is no such service");
    }

    #[test]
    fn only_masqueraded_packets_have_their_source_translated() {
        let policy = Policy { source_nat: true, ..Policy::default() };
        assert_eq!(policy_flags(&policy, METHOD_MASQUERADE), REAL_RESCUE | REAL_TRANSLATE_SOURCE);
        assert_eq!(policy_flags(&policy, METHOD_DIRECT_ROUTING), REAL_RESCUE);
    }
}
