//! Rings of the hash and cursor schedulers, written down from the behaviour of IPVS.
//!
//! Deliberately a second opinion: crate `plan` makes the rings a director runs with, and this module
//! shares no code with it. Slow and plain where that one is quick.

use std::hash::Hasher;

use abi::{Address, Slot};
use siphasher::sip::SipHasher13;

/// Slots of a source-hash ring [`ip_vs_sh.c`].
const SH_SLOTS: usize = 256;
/// Slots of a Maglev ring: the default prime [`ip_vs_mh.c`].
const MH_SLOTS: usize = 4093;
/// Half the bits of the table size, by which large weights are scaled down [`ip_vs_mh.c`].
const MH_WEIGHT_BITS: u32 = 6;
/// The two constant keys [`ip_vs_mh.c`].
const MH_KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// A member of a pool, newest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) slot: Slot,
    pub(super) address: Address,
    /// Host order.
    pub(super) port: u16,
    /// The last weight that was not 0.
    pub(super) last_weight: u32,
}

/// Round robin: every member that may be chosen, once.
pub(super) fn rr(pool: &[Member]) -> Vec<Slot> {
    pool.iter().map(|member| member.slot).filter(|slot| slot.weight > 0).collect()
}

/// Weighted round robin: one full cycle from `cw = mw`.
pub(super) fn wrr(pool: &[Member]) -> Vec<Slot> {
    let highest = pool.iter().map(|member| member.slot.weight).max().unwrap_or(0);
    let step = pool.iter().map(|member| member.slot.weight).fold(0, gcd).max(1);
    let levels = (1..=highest / step).rev().map(|level| level * step);
    levels.flat_map(|level| pool.iter().map(|m| m.slot).filter(move |slot| slot.weight >= level)).collect()
}

/// Source hashing: each member takes as many buckets in a row as its weight, at least one.
pub(super) fn sh(pool: &[Member]) -> Vec<Slot> {
    let round = pool.iter().flat_map(|m| std::iter::repeat_n(m.slot, m.slot.weight.max(1) as usize));
    let round: Vec<Slot> = round.take(SH_SLOTS).collect();
    round.iter().copied().cycle().take(if round.is_empty() { 0 } else { SH_SLOTS }).collect()
}

/// Destination hashing: one bucket each.
pub(super) fn dh(pool: &[Member]) -> Vec<Slot> {
    pool.iter().map(|m| m.slot).cycle().take(if pool.is_empty() { 0 } else { SH_SLOTS }).collect()
}

/// Power of two choices: every member that may be chosen, with the sum of the weights up to it.
pub(super) fn twos(pool: &[Member]) -> Vec<Slot> {
    let up_to = |place: usize| pool.iter().take(place + 1).map(|member| member.slot.weight).sum();
    let slot = |(place, member): (usize, &Member)| Slot { weight: up_to(place), ..member.slot };
    let with_weight = pool.iter().enumerate().filter(|(_, member)| member.slot.weight > 0);
    with_weight.map(slot).collect()
}

/// Maglev: members take turns in claiming the next free slot of their permutation.
pub(super) fn mh(pool: &[Member]) -> Vec<Slot> {
    let divisor = pool.iter().map(|member| member.last_weight).fold(0, gcd).max(1);
    let highest = pool.iter().map(|member| member.last_weight / divisor).max().unwrap_or(0);
    if highest == 0 {
        return Vec::new();
    }
    let shift = (u32::BITS - highest.leading_zeros()).saturating_sub(MH_WEIGHT_BITS);
    let mut ring: Vec<Option<Slot>> = vec![None; MH_SLOTS];
    let mut taken = 0;
    let mut places: Vec<usize> =
        pool.iter().map(|member| hash(member, MH_KEYS[0]) as usize % MH_SLOTS).collect();
    while taken < MH_SLOTS {
        for (member, place) in pool.iter().zip(&mut places).filter(|(member, _)| member.last_weight > 0) {
            let skip = hash(member, MH_KEYS[1]) as usize % (MH_SLOTS - 1) + 1;
            for _ in 0..((member.last_weight / divisor) >> shift).max(1) {
                if taken == MH_SLOTS {
                    break;
                }
                while ring[*place].is_some() {
                    *place = (*place + skip) % MH_SLOTS;
                }
                ring[*place] = Some(member.slot);
                taken += 1;
            }
        }
    }
    ring.into_iter().flatten().collect()
}

fn hash(member: &Member, key: u64) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&member.address.fold().wrapping_add(u32::from(member.port)).to_le_bytes());
    hasher.finish() as u32
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(weights: &[u32]) -> Vec<Member> {
        // Newest first: .3, .2, .1, as the test vectors list them.
        let last = weights.len() as u8;
        let members = weights.iter().enumerate().map(|(index, weight)| Member {
            slot: Slot { real: index as u32, weight: *weight },
            address: Address::v4([10, 0, 0, last - index as u8]),
            port: 80,
            last_weight: *weight,
        });
        members.collect()
    }

    fn shares(ring: &[Slot]) -> Vec<usize> {
        let reals = ring.iter().map(|slot| slot.real).max().map_or(0, |most| most + 1);
        (0..reals).map(|real| ring.iter().filter(|slot| slot.real == real).count()).collect()
    }

    #[test]
    fn maglev_matches_the_vectors_of_the_specification() {
        let ring = mh(&pool(&[1, 1, 1]));
        assert_eq!(shares(&ring), [1365, 1364, 1364]);
        // Slots of clients 198.51.100.1, 203.0.113.77 and 10.9.8.7.
        assert_eq!([ring[2374].real, ring[2731].real, ring[3544].real], [0, 1, 2]);
        assert_eq!(shares(&mh(&pool(&[3, 2, 1]))), [2047, 1364, 682]);
    }

    #[test]
    fn weighted_round_robin_interleaves_from_the_highest_weight() {
        let order: Vec<u32> = wrr(&pool(&[4, 3, 2])).iter().map(|slot| slot.real).collect();
        assert_eq!(order, [0, 0, 1, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn source_hash_gives_a_bucket_even_to_weight_zero() {
        assert_eq!(shares(&sh(&pool(&[3, 0, 2]))), [129, 43, 84]);
        assert_eq!(sh(&[]), []);
    }
}
