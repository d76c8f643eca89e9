//! Scans: every real server of the pool gets a score, the lowest wins, the first of equals.

use super::added;
use crate::tables::Scan;
use crate::{Tables, hash};
use abi::{FlowKey, Load, SERVICE_THRESHOLDS, Service, Span};

/// Which score. A score is a fraction, compared by cross-multiplication, as IPVS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// `lc`: overhead.
    LeastConnections,
    /// `wlc`: overhead / weight.
    WeightedLeastConnections,
    /// `sed`: (active + 1) / weight.
    ShortestDelay,
    /// `nq`: an idle real server first, else as `sed`.
    NeverQueue,
    /// `fo`: highest weight.
    Failover,
    /// `ovf`: highest weight among those with no more active flows than weight.
    Overflow,
    /// That of an added scheduler.
    Added,
    /// Weighted rendezvous hashing, for flows that are not tracked.
    Rendezvous,
}

/// The score of a real server as (numerator, denominator); `None` when it may not be chosen. The denominator
/// is never 0.
#[inline(always)]
#[must_use]
pub fn score(which: Score, load: Load, weight: u32) -> Option<(u64, u64)> {
    if weight == 0 {
        return None;
    }
    let (active, inactive) = load.clamped();
    let (active, inactive, weight) = (u64::from(active), u64::from(inactive), u64::from(weight));
    // Overhead of kernel 6.1: an active flow costs 256 inactive ones.
    let overhead = (active << 8).wrapping_add(inactive);
    Some(match which {
        Score::LeastConnections => (overhead, 1),
        Score::WeightedLeastConnections => (overhead, weight),
        Score::NeverQueue if active == 0 => (0, 1),
        Score::ShortestDelay | Score::NeverQueue => (active.wrapping_add(1), weight),
        Score::Overflow if active > weight => return None,
        Score::Failover | Score::Overflow => (1, weight),
        // Made from the hash by `rendezvous_score`, and by the scheduler's own file.
        Score::Rendezvous | Score::Added => return None,
    })
}

/// No real server has this index. A number and not an option: of an option the compiler leaves one half undefined where
/// it is `None`, and the verifier refuses to see that copied.
pub(super) const NOBODY: u32 = u32::MAX;

/// Laid out so that `but` and `real` stand together and aligned: both start as [`NOBODY`], which the compiler writes with
/// one store of eight bytes, and the verifier wants those aligned on the stack.
#[repr(C, align(8))]
struct Contest {
    key: [u64; 2],
    /// The score of the best so far.
    numerator: u64,
    denominator: u64,
    /// Not chosen.
    but: u32,
    /// The best so far.
    real: u32,
    pool: Span,
    word: u32,
    scheduler: u16,
    which: Score,
    /// Real servers that have reached their thresholds stand aside.
    thresholds: bool,
}

/// The real server with the lowest score.
#[inline(always)]
pub fn lowest<T: Tables>(tables: &T, service: &Service, which: Score) -> Option<u32> {
    let real = run(tables, service, which, 0, [0, 0], NOBODY);
    (real != NOBODY).then_some(real)
}

/// The real server that rendezvous hashing gives this flow, `but` left out; [`NOBODY`] when there is none.
#[inline(always)]
pub fn rendezvous<T: Tables>(tables: &T, service: &Service, key: &FlowKey, but: u32) -> u32 {
    let ports = u32::from(key.client_port_be) << 16 | u32::from(key.virtual_port_be);
    let word = key.client.fold() ^ ports.rotate_left(7);
    let secret = tables.settings().map(|s| s.overflow_key).unwrap_or_default();
    run(tables, service, Score::Rendezvous, word, secret, but)
}

#[inline(always)]
fn run<T: Tables>(tables: &T, service: &Service, which: Score, word: u32, key: [u64; 2], but: u32) -> u32 {
    let pool = service.pool;
    // A consistent choice would not be one if it went by loads.
    let thresholds = which != Score::Rendezvous && service.flags & SERVICE_THRESHOLDS != 0;
    let (real, numerator, denominator) = (NOBODY, 0, 1);
    let scheduler = service.scheduler;
    let mut contest =
        Contest { pool, scheduler, thresholds, which, word, key, but, real, numerator, denominator };
    tables.scan(pool.len, &mut contest);
    contest.real
}

impl Scan for Contest {
    #[inline(always)]
    fn step<T: Tables>(&mut self, tables: &T, i: u32) -> bool {
        let Some(slot) = tables.slot(self.pool.start.wrapping_add(i)) else { return false };
        if slot.real == self.but {
            return true;
        }
        let scored = match self.which {
            Score::Rendezvous => rendezvous_score(tables, slot.real, slot.weight, self),
            which => {
                let load = tables.load(slot.real);
                if self.thresholds && load.overloaded != 0 {
                    return true;
                }
                match which {
                    Score::Added => added::score(self.scheduler, load, slot.weight),
                    which => score(which, load, slot.weight),
                }
            }
        };
        let Some((numerator, denominator)) = scored else { return true };
        let first = self.real == NOBODY;
        if first || numerator.wrapping_mul(self.denominator) < self.numerator.wrapping_mul(denominator) {
            (self.real, self.numerator, self.denominator) = (slot.real, numerator, denominator);
        }
        true
    }
}

/// `-log2(hash) / weight`: exponential variables, so each real server wins in proportion to its weight. The
/// hash takes the address, not the index, so that several directors agree.
#[inline(always)]
fn rendezvous_score<T: Tables>(tables: &T, real: u32, weight: u32, contest: &Contest) -> Option<(u64, u64)> {
    if weight == 0 {
        return None;
    }
    let address = tables.real(real)?.address.fold();
    let hash = hash::siphash13_pair(contest.key, contest.word, address) as u32;
    Some((hash::minus_log2(hash), u64::from(weight)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn load(active: i32, inactive: i32) -> Load {
        Load { active, inactive, persistent: 0, overloaded: 0 }
    }

    #[test]
    fn scores_are_those_of_the_specification() {
        use Score::*;
        assert_eq!(score(LeastConnections, load(2, 3), 9), Some((515, 1)));
        assert_eq!(score(WeightedLeastConnections, load(2, 3), 9), Some((515, 9)));
        assert_eq!(score(ShortestDelay, load(2, 3), 9), Some((3, 9)));
        assert_eq!(score(NeverQueue, load(2, 3), 9), Some((3, 9)));
        assert_eq!(score(NeverQueue, load(0, 3), 9), Some((0, 1)));
        assert_eq!(score(Failover, load(2, 3), 9), Some((1, 9)));
        assert_eq!(score(Overflow, load(9, 3), 9), Some((1, 9)));
        assert_eq!(score(Overflow, load(10, 3), 9), None);
    }

    #[test]
    fn a_quiesced_real_server_is_never_chosen() {
        for which in [Score::LeastConnections, Score::WeightedLeastConnections, Score::Failover] {
            assert_eq!(score(which, load(0, 0), 0), None);
        }
    }

    #[test]
    fn a_load_below_zero_counts_as_none() {
        assert_eq!(score(Score::LeastConnections, load(-1, -5), 1), Some((0, 1)));
    }
}
