//! `coldest`: the fewest connections by weight, whether or not anything goes on in them.

use crate::schedule::added::Candidate;

/// Its number in the tables.
pub const NUMBER: u16 = 1000;

/// All connections / weight; the lowest wins, and the first of equals.
#[inline(always)]
#[must_use]
pub fn score(server: &Candidate) -> Option<(u64, u64)> {
    Some((server.active.wrapping_add(server.inactive), server.weight))
}
