//! `ladder`: each real server takes as many connections in a row as it has weight, the oldest first.

use crate::schedule::added::{Member, Ring};

/// Its number in the tables.
pub const NUMBER: u16 = 1001;
/// The next slot is the next choice.
pub const RING: Ring = Ring::Cursor;

/// One slot for each connection of a round. Members come newest first.
pub fn ring(members: &[Member], push: &mut dyn FnMut(u32)) {
    for member in members.iter().rev() {
        for _ in 0..member.weight {
            push(member.real);
        }
    }
}
