//! A layout out of tables that a former daemon left in the kernel.
//!
//! So that flows find their real servers again, every index must be what it was. What the tables do not
//! tell is given up: which service a deleted service's real servers belonged to (they cannot be revived, only
//! released), and last weights (the first compilation has them from the model).

use crate::compile::{Cursors, scheduler_of};
use crate::layout::{Laid, Layout, Owner, Placed, PlacedReal};
use crate::ring::{self, Entry, RingState};
use crate::services::OVERRIDDEN;
use crate::tables::Tables;
use abi::{Address, Limits, Real, Service, ServiceKey, Slot};
use api::{Family, Protocol, RealId, Scheduler, ServiceId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Service index of a real server whose service is not known.
const NO_SERVICE: u32 = u32::MAX;

/// The tables contradict themselves or the limits; start with new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// A service of no known protocol.
    #[error("the tables have a service of protocol {0}, which this release does not know")]
    Protocol(u16),
    /// A service of no known scheduler.
    #[error("the tables have a service of scheduler number {0}, which this release does not know")]
    Scheduler(u16),
    /// An index that is too high or taken twice.
    #[error("service index {0} is above the limit or used twice")]
    ServiceIndex(u32),
    /// An index that is too high.
    #[error("real server index {0} is above the limit")]
    RealIndex(u32),
    /// Slots that are missing, too high or used twice.
    #[error("slots {start} to {start}+{len} are missing, above the limit or used twice")]
    Slots {
        /// The first.
        start: u32,
        /// How many.
        len: u32,
    },
    /// A slot that points nowhere.
    #[error("a slot points at real server {0}, which is not there or not of the slot's service")]
    SlotReal(u32),
    /// Two entries of one real server.
    #[error("real server {0} of service index {1} is there twice")]
    Twice(RealId, u32),
}

impl Layout {
    /// Takes over what the kernel has. `tables` need only have the slots that services point at; an all-zero
    /// entry of the array of real servers counts as absent and must be left out.
    ///
    /// # Errors
    /// When the tables contradict themselves or the limits.
    pub fn adopt(limits: Limits, tables: &Tables, cursors: &Cursors) -> Result<Self, AdoptError> {
        let mut layout = Self::new(limits);
        let mut by_index = BTreeMap::new();
        let homes = homes(tables)?;
        for (id, service) in &homes {
            let id = *id;
            let taken = by_index.insert(service.index, id).is_some();
            if taken || !layout.service_indices.reserve(service.index) {
                return Err(AdoptError::ServiceIndex(service.index));
            }
        }
        let mut reals: BTreeMap<u32, BTreeMap<RealId, PlacedReal>> = BTreeMap::new();
        for (&index, real) in &tables.reals {
            layout.adopt_real(index, real, &by_index, &mut reals)?;
        }
        for (id, service) in homes {
            let cursor = cursors.get(&service.index).copied().unwrap_or_default();
            let laid = layout.adopt_slots(service, tables, cursor)?;
            let mut reals = reals.remove(&service.index).unwrap_or_default();
            let pool: BTreeSet<u32> = laid.pool_slots.iter().map(|slot| slot.real).collect();
            reals.values_mut().for_each(|real| real.present = pool.contains(&real.index));
            for slot in laid.ring_slots.iter().chain(&laid.pool_slots) {
                if tables.reals.get(&slot.real).is_none_or(|real| real.service != service.index) {
                    return Err(AdoptError::SlotReal(slot.real));
                }
            }
            let placed = Placed { index: service.index, reals, laid: Some(laid), edited: false };
            layout.set_service(id, Some(Arc::new(placed)));
        }
        layout.forget_steps();
        Ok(layout)
    }

    fn adopt_real(
        &mut self,
        index: u32,
        real: &Real,
        by_index: &BTreeMap<u32, ServiceId>,
        reals: &mut BTreeMap<u32, BTreeMap<RealId, PlacedReal>>,
    ) -> Result<(), AdoptError> {
        if !self.real_indices.reserve(index) {
            return Err(AdoptError::RealIndex(index));
        }
        let Some(service) = by_index.get(&real.service) else {
            let flags = real.flags & !abi::REAL_AVAILABLE;
            // Its service's index is free now and may become another's.
            let orphan = Owner::Orphan(Real { flags, service: NO_SERVICE, ..*real });
            self.set_owner(index, Some(orphan));
            return Ok(());
        };
        let id = RealId { address: ip_address(&real.address), port: u16::from_be(real.port_be) };
        let placed = PlacedReal { index, present: false, translated: real.flags & abi::REAL_TRANSLATED != 0 };
        if reals.entry(real.service).or_default().insert(id, placed).is_some() {
            return Err(AdoptError::Twice(id, real.service));
        }
        self.set_owner(index, Some(Owner::Known(*service, id)));
        Ok(())
    }

    fn adopt_slots(&mut self, service: &Service, tables: &Tables, cursor: u64) -> Result<Laid, AdoptError> {
        let scheduler = scheduler_of(service.scheduler).ok_or(AdoptError::Scheduler(service.scheduler))?;
        let mut slots = |span: abi::Span| {
            let found = tables.span(span).filter(|_| self.spans.reserve(span));
            found.ok_or(AdoptError::Slots { start: span.start, len: span.len })
        };
        let ring_slots = slots(service.ring)?;
        let pool_slots = slots(service.pool)?;
        let state = recover(scheduler, &ring_slots, &pool_slots, tables, cursor);
        Ok(Laid { scheduler, state, ring: service.ring, pool: service.pool, ring_slots, pool_slots })
    }
}

fn recover(scheduler: Scheduler, ring: &[Slot], pool: &[Slot], tables: &Tables, cursor: u64) -> RingState {
    let entry = |slot: &Slot| {
        let real = tables.reals.get(&slot.real).copied().unwrap_or_default();
        Entry {
            real: slot.real,
            weight: slot.weight,
            last_weight: slot.weight,
            address: real.address.fold(),
            port: u16::from_be(real.port_be),
        }
    };
    let reals: Vec<Entry> = pool.iter().map(entry).collect();
    let ring: Vec<u32> = ring.iter().map(|slot| slot.real).collect();
    let (carry, picks) = ring::of(scheduler).map_or((None, 0), |of| of.recover(&reals, &ring, cursor));
    RingState { reals, carry, cursor: cursor.wrapping_sub(picks) }
}

/// Every service once: not where a match of its mark puts it, but where it stands itself.
fn homes(tables: &Tables) -> Result<Vec<(ServiceId, &Service)>, AdoptError> {
    let is_home = |key: &ServiceKey, service: &Service| service.mark == 0 || key.protocol == 0;
    let homes = tables.services.iter().filter(|(key, service)| is_home(key, service));
    homes.map(|(key, service)| Ok((service_id(key, service)?, service))).collect()
}

fn service_id(key: &ServiceKey, service: &Service) -> Result<ServiceId, AdoptError> {
    let address = ip_address(&key.address);
    if key.protocol == 0 {
        return Ok(ServiceId::Fwmark { mark: service.mark, family: Family::of(address) });
    }
    let number = u8::try_from(key.protocol & !OVERRIDDEN).ok();
    let protocol = number.and_then(Protocol::from_number).ok_or(AdoptError::Protocol(key.protocol))?;
    Ok(ServiceId::Address { protocol, address, port: u16::from_be(key.port_be) })
}

fn ip_address(address: &Address) -> IpAddr {
    let octets = address.octets();
    if address.is_v4() {
        IpAddr::V4(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]))
    } else {
        IpAddr::V6(Ipv6Addr::from(octets))
    }
}
