//! Rings: slots that `plan` wrote, picked by a cursor or by a hash.

use super::{is_eligible, is_overloaded};
use crate::tables::Scan;
use crate::{Tables, hash};
use abi::{FlowKey, SERVICE_EXACT, SERVICE_FALLBACK, SERVICE_PORT, SERVICE_THRESHOLDS, Service, Slot, Span};

/// Which hash names the slot. The first three are those of IPVS, which everybody can work out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// `sh`: client address, multiplicative, 256 slots [`ip_vs_sh.c`].
    Source,
    /// `dh`: virtual address, multiplicative, 256 slots [`ip_vs_dh.c`].
    Destination,
    /// `mh`: client address, `SipHash`, a prime number of slots [`ip_vs_mh.c`].
    Maglev,
    /// `SipHash` with the director's secret; the slot is known, and the following ones come after it.
    Keyed,
}

/// Key of the look-up in a Maglev ring [`ip_vs_mh.c`].
const MAGLEV_KEY: [u64; 2] = [2_654_435_761; 2];
const BUCKET_BITS: u32 = 8;
const BUCKET_MASK: u32 = 255;

/// The next slot of a ring with a cursor. `plan` leaves real servers of weight 0 out; those that have reached their
/// thresholds are walked past, at most once round.
#[inline(always)]
pub fn next<T: Tables>(tables: &T, service: &Service) -> Option<u32> {
    let first = step(tables, service.ring, service.index)?;
    if !is_overloaded(tables, service, first) {
        return Some(first);
    }
    let mut round = Round { ring: service.ring, index: service.index, found: None };
    tables.scan(service.ring.len.wrapping_sub(1), &mut round);
    round.found
}

/// Moves the cursor by one.
#[inline(always)]
fn step<T: Tables>(tables: &T, ring: Span, index: u32) -> Option<u32> {
    let len = u64::from(ring.len);
    // The cursor may be far along; the ring is what it is now.
    let place = tables.advance_cursor(index).checked_rem(len)?;
    slot(tables, ring, place as u32).map(|slot| slot.real)
}

struct Round {
    ring: Span,
    /// Of the service: whose cursor it is.
    index: u32,
    found: Option<u32>,
}

impl Scan for Round {
    #[inline(always)]
    fn step<T: Tables>(&mut self, tables: &T, _: u32) -> bool {
        let Some(real) = step(tables, self.ring, self.index) else { return false };
        if tables.load(real).overloaded != 0 {
            return true;
        }
        self.found = Some(real);
        false
    }
}

/// The slot that a hash names; with the fallback flag, the first eligible one after it.
#[inline(always)]
pub fn hashed<T: Tables>(tables: &T, service: &Service, key: &FlowKey, hash: Hash) -> Option<u32> {
    let (address, port) = match hash {
        Hash::Destination => (&key.virtual_address, 0),
        _ if service.flags & SERVICE_PORT != 0 => (&key.client, u16::from_be(key.client_port_be)),
        _ => (&key.client, 0),
    };
    let ring = service.ring;
    let (hash, word) = if service.flags & SERVICE_EXACT != 0 && hash != Hash::Keyed {
        (hash, address.fold().wrapping_add(u32::from(port)))
    } else {
        let secret = tables.settings()?.placement_key;
        let keyed = hash::siphash13_endpoint(secret, address, port) as u32;
        (Hash::Keyed, keyed.checked_rem(ring.len)?)
    };
    let thresholds = service.flags & SERVICE_THRESHOLDS != 0;
    let mut walk = Walk { ring, thresholds, hash, word, first: 0, found: None };
    walk.first = walk.place(0)?;
    let slot = slot(tables, ring, walk.first)?;
    if is_eligible(tables, thresholds, &slot) {
        return Some(slot.real);
    }
    if service.flags & SERVICE_FALLBACK == 0 {
        return None;
    }
    tables.scan(ring.len, &mut walk);
    walk.found
}

struct Walk {
    ring: Span,
    thresholds: bool,
    hash: Hash,
    word: u32,
    first: u32,
    found: Option<u32>,
}

impl Walk {
    /// The place in the ring for the hash at an offset.
    #[inline(always)]
    fn place(&self, offset: u32) -> Option<u32> {
        match self.hash {
            Hash::Source | Hash::Destination => {
                let place = hash::hash32(self.word, BUCKET_BITS).wrapping_add(offset) & BUCKET_MASK;
                (place < self.ring.len).then_some(place)
            }
            Hash::Maglev => {
                let hash = hash::siphash13(MAGLEV_KEY, self.word.wrapping_add(offset)) as u32;
                hash.checked_rem(self.ring.len)
            }
            Hash::Keyed => self.word.wrapping_add(offset).checked_rem(self.ring.len),
        }
    }
}

impl Scan for Walk {
    /// One try of the fallback: offset (i + first place) mod ring length, as IPVS does.
    #[inline(always)]
    fn step<T: Tables>(&mut self, tables: &T, i: u32) -> bool {
        let Some(offset) = i.wrapping_add(self.first).checked_rem(self.ring.len) else { return false };
        let Some(place) = self.place(offset) else { return false };
        let Some(slot) = slot(tables, self.ring, place) else { return false };
        let eligible = is_eligible(tables, self.thresholds, &slot);
        if eligible {
            self.found = Some(slot.real);
        }
        !eligible
    }
}

#[inline(always)]
fn slot<T: Tables>(tables: &T, span: Span, place: u32) -> Option<Slot> {
    tables.slot(span.start.wrapping_add(place))
}
