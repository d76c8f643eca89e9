//! Rings: the order in which a service's real servers get new flows, worked out ahead.
//!
//! A ring scheduler is one file here that implements [`RingScheduler`], and one line in [`of`]. It sees a
//! list of [`Entry`] (newest first, as IPVS keeps it) and gives back a sequence of real servers. Scan
//! schedulers have no ring; what they do is a score in `forward`.
//!
//! What IPVS remembers between two changes of a service (the last real server chosen, the present level of
//! `wrr`) is not stored while packets flow: it follows from how many flows were scheduled since the ring was
//! laid, which the packet path counts in the service's cursor. See [`RingState`].

mod added;
pub mod dh;
pub mod mh;
pub mod rr;
pub mod sh;
pub mod twos;
pub mod wrr;

use abi::Slot;
use api::Scheduler;
use mh::TableSize;
use std::collections::BTreeMap;

/// Most slots of a ring with a cursor. Longer exact cycles are shortened, see [`wrr`].
pub const RING_SLOTS_MAX: u32 = 65_536;

/// A real server as a ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the real server.
    pub real: u32,
    /// Its weight; 0 makes it ineligible.
    pub weight: u32,
    /// Its last weight that was not 0.
    pub last_weight: u32,
    /// Its address as one number, see [`abi::Address::fold`].
    pub address: u32,
    /// Its port, host order.
    pub port: u16,
}

/// How the packet path finds a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The next one.
    Cursor,
    /// The one a hash names.
    Hash,
    /// One drawn by weight.
    Draw,
}

/// What a scheduler remembers when no flow has been scheduled since the ring was laid; only the scheduler
/// itself knows what the number means.
pub type Carry = Option<u32>;

/// A scheduler whose choices are worked out ahead.
pub trait RingScheduler: Sync {
    /// How the packet path finds a slot.
    fn shape(&self) -> Shape;

    /// The sequence of real servers from the next choice on. For [`Shape::Cursor`] it repeats for ever; for
    /// [`Shape::Hash`] it is the table, for [`Shape::Draw`] those that may be drawn. Empty when no real server may be chosen.
    fn sequence(&self, reals: &[Entry], carry: Carry, table: TableSize) -> Vec<u32>;

    /// The slots of a sequence, each with the weight that the packet path reads there.
    fn slots(&self, ring: &[u32], weight: &dyn Fn(u32) -> u32) -> Vec<Slot> {
        ring.iter().map(|real| Slot { real: *real, weight: weight(*real) }).collect()
    }

    /// What it remembers when it takes over a service that has these real servers already.
    fn start(&self, _reals: &[Entry]) -> Carry {
        None
    }

    /// What it remembers after the service changed: `earlier` is how the present ring was laid and `picks`
    /// how many flows were scheduled since.
    fn change(&self, _earlier: &RingState, _picks: u64, _reals: &[Entry]) -> Carry {
        None
    }

    /// What it must have remembered to lay this ring, and how many flows were scheduled since, as far as the
    /// ring tells. `cursor` is the service's.
    fn recover(&self, _reals: &[Entry], _ring: &[u32], _cursor: u64) -> (Carry, u64) {
        (None, 0)
    }
}

/// The ring scheduler of this name; `None` for one that has no ring.
#[must_use]
pub fn of(scheduler: Scheduler) -> Option<&'static dyn RingScheduler> {
    match scheduler {
        Scheduler::Rr => Some(&rr::RoundRobin),
        Scheduler::Wrr => Some(&wrr::WeightedRoundRobin),
        Scheduler::Sh => Some(&sh::SourceHash),
        Scheduler::Dh => Some(&dh::DestinationHash),
        Scheduler::Mh => Some(&mh::Maglev),
        Scheduler::Twos => Some(&twos::PowerOfTwo),
        Scheduler::Lc
        | Scheduler::Wlc
        | Scheduler::Sed
        | Scheduler::Nq
        | Scheduler::Fo
        | Scheduler::Ovf
        | Scheduler::Lblc
        | Scheduler::Lblcr
        | Scheduler::None => None,
        Scheduler::Added(number) => added::of(number),
    }
}

/// How a ring was laid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingState {
    /// The real servers then, newest first.
    pub reals: Vec<Entry>,
    /// What the scheduler remembered then.
    pub carry: Carry,
    /// The service's cursor then.
    pub cursor: u64,
}

/// Lays a ring. `earlier` is how the present one was laid, [`RingState::default`] for a new service, `None`
/// when the service had another scheduler. `cursor` is the service's cursor now.
///
/// A ring with a cursor is turned so that the next choice is in the slot `cursor` names: the packet path's
/// cursor is never written, and flows scheduled while the ring is being replaced are no more than steps on it.
#[must_use]
pub fn lay(
    scheduler: &dyn RingScheduler,
    earlier: Option<&RingState>,
    reals: Vec<Entry>,
    cursor: u64,
    table: TableSize,
) -> (Vec<u32>, RingState) {
    let carry = match earlier {
        None => scheduler.start(&reals),
        Some(earlier) => scheduler.change(earlier, cursor.wrapping_sub(earlier.cursor), &reals),
    };
    let mut ring = scheduler.sequence(&reals, carry, table);
    if scheduler.shape() == Shape::Cursor {
        let turn = place(cursor, ring.len());
        ring.rotate_right(turn);
    }
    (ring, RingState { reals, carry, cursor })
}

/// `count` modulo a ring's length, 0 for an empty ring.
fn place(count: u64, len: usize) -> usize {
    count.checked_rem(len as u64).and_then(|place| usize::try_from(place).ok()).unwrap_or_default()
}

/// How the list of a service changed: entries of `new` that were in `old`, in the order of `new`.
///
/// A real server that was deleted and added again has moved to the front, so the ones that stayed are those
/// whose order, oldest first, is that of `old`.
fn stayed(old: &[Entry], new: &[Entry]) -> Vec<Entry> {
    let ages: BTreeMap<u32, usize> = old.iter().rev().enumerate().map(|(age, e)| (e.real, age)).collect();
    let mut oldest_next = 0;
    let mut stayed: Vec<Entry> = new
        .iter()
        .rev()
        .map_while(|entry| {
            let age = *ages.get(&entry.real).filter(|&&age| age >= oldest_next)?;
            oldest_next = age + 1;
            Some(*entry)
        })
        .collect();
    stayed.reverse();
    stayed
}
