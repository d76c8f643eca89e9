//! Rings of schedulers that were added by a file: `forward/src/schedule/added.rs`.

use super::{Carry, Entry, RING_SLOTS_MAX, RingScheduler, Shape};
use crate::ring::mh::TableSize;
use forward::schedule::added::{self, ADDED, Kind, Member, Ring};
use std::sync::LazyLock;

/// An added scheduler that has a ring.
struct AddedRing {
    number: u16,
    ring: Ring,
}

/// The ring scheduler of this number, if it was added and has a ring.
pub(super) fn of(number: u16) -> Option<&'static dyn RingScheduler> {
    static RINGS: LazyLock<Vec<AddedRing>> = LazyLock::new(|| {
        let ring = |added: &added::Added| match added.kind {
            Kind::Ring(ring) => Some(AddedRing { number: added.number, ring }),
            Kind::Score => None,
        };
        ADDED.iter().filter_map(ring).collect()
    });
    let found = RINGS.iter().find(|ring| ring.number == number)?;
    Some(found)
}

impl RingScheduler for AddedRing {
    fn shape(&self) -> Shape {
        match self.ring {
            Ring::Cursor => Shape::Cursor,
            Ring::Hash => Shape::Hash,
        }
    }

    /// Slots beyond [`RING_SLOTS_MAX`] are left out, and so are those of real servers that are not there; with a cursor,
    /// those of drained ones too, which the packet path would not pass over.
    fn sequence(&self, reals: &[Entry], _carry: Carry, _table: TableSize) -> Vec<u32> {
        let member =
            |it: &Entry| Member { real: it.real, weight: it.weight, address: it.address, port: it.port };
        let members: Vec<Member> = reals.iter().map(member).collect();
        let mut slots = Vec::new();
        added::ring(self.number, &members, &mut |real| {
            let member = members.iter().find(|member| member.real == real);
            let fits = member.is_some_and(|member| member.weight > 0 || self.ring == Ring::Hash);
            if fits && slots.len() < RING_SLOTS_MAX as usize {
                slots.push(real);
            }
        });
        slots
    }
}
