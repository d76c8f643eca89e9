//! Schedulers that were added, each by one file in the directory `schedulers`: see docs/schedulers.md.
//!
//! `build.rs` makes a module of each file, and the tables here. Without any, nothing of this is left in the programs.

use abi::Load;

/// A real server that a score is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Active flows.
    pub active: u64,
    /// All other flows.
    pub inactive: u64,
    /// Weight, never 0.
    pub weight: u64,
}

/// A real server that a ring is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its index: what a slot holds.
    pub real: u32,
    /// Its weight; 0 for one that is drained.
    pub weight: u32,
    /// Its address as one number, see [`abi::Address::fold`].
    pub address: u32,
    /// Its port, host order.
    pub port: u16,
}

/// How the packet path finds a slot of an added ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// The next one.
    Cursor,
    /// The one that the client's address names, by the directors' secret.
    Hash,
}

/// What an added scheduler consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A score: the lowest wins.
    Score,
    /// A ring.
    Ring(Ring),
}

/// An added scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub name: &'static str,
    /// Its number in the tables.
    pub number: u16,
    /// What it consists of.
    pub kind: Kind,
}

/// The lowest number of an added scheduler; those below are for the ones that come with Sluice.
pub const NUMBER_MIN: u16 = 1000;

include!(concat!(env!("OUT_DIR"), "/added.rs"));

/// The added scheduler of this number.
#[inline(always)]
#[must_use]
pub const fn of(number: u16) -> Option<Added> {
    let mut rest = ADDED;
    while let [first, after @ ..] = rest {
        if first.number == number {
            return Some(*first);
        }
        rest = after;
    }
    None
}

/// The added scheduler of this name.
#[must_use]
pub fn named(name: &str) -> Option<Added> {
    ADDED.iter().find(|added| added.name == name).copied()
}

/// The score that an added scheduler gives a real server.
#[inline(always)]
pub(super) fn score(number: u16, load: Load, weight: u32) -> Option<(u64, u64)> {
    if weight == 0 {
        return None;
    }
    let (active, inactive) = load.clamped();
    let candidate = Candidate { active: active.into(), inactive: inactive.into(), weight: weight.into() };
    score_of(number, &candidate).filter(|(_, denominator)| *denominator != 0)
}

/// The ring that an added scheduler makes of these real servers, slot by slot.
pub fn ring(number: u16, members: &[Member], push: &mut dyn FnMut(u32)) {
    ring_of(number, members, push);
}

const _: () = {
    let mut rest = ADDED;
    while let [first, after @ ..] = rest {
        assert!(first.number >= NUMBER_MIN, "the number of an added scheduler is 1000 or higher");
        let mut others = after;
        while let [other, more @ ..] = others {
            assert!(first.number != other.number, "two added schedulers have the same number");
            others = more;
        }
        rest = after;
    }
};
