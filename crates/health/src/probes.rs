//! The probes that are made, when, and what came of them.

use crate::history::History;
use api::{Check, CheckKind, Forwarding, RealId, RealSpec, Rhythm, ServiceId, Tunnel};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;

/// New probes that start at the same time are set off one after the other, so many milliseconds apart.
const SPREAD_MS: u64 = 1;

/// One examination of one machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// What is done.
    pub kind: CheckKind,
    /// Whom it is done to.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
    /// Milliseconds after which it has failed.
    pub timeout_ms: u32,
    /// For [`CheckKind::Path`]: the way it takes.
    pub way: Option<Way>,
}

/// The way of a path check: to a VIP through one real server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The VIP.
    pub vip: IpAddr,
    /// The address of the real server.
    pub real: IpAddr,
    /// Encapsulation; `None`: by the real server's own MAC address.
    pub tunnel: Option<Tunnel>,
}

/// Names a probe from its order to its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub(crate) u64);

/// A probe to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// To be given with the outcome.
    pub id: ProbeId,
    /// What to do.
    pub probe: Probe,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It passed.
    Passed {
        /// Milliseconds it took.
        latency_ms: f64,
        /// The share of its declared weight that it asks for, in hundredths, 0 to 1000.
        share: Option<u16>,
    },
    /// It failed.
    Failed {
        /// Why, as a part of a sentence: "connection refused".
        reason: String,
    },
}

/// A probe and its results.
#[derive(Debug)]
pub(crate) struct Probing {
    pub(crate) probe: Probe,
    rhythm: Rhythm,
    /// Whose verdict depends on it.
    users: BTreeSet<(ServiceId, RealId)>,
    pub(crate) history: History,
    under_way_since_ms: Option<u64>,
}

/// Everything that is probed.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    probes: BTreeMap<ProbeId, Probing>,
    ids: BTreeMap<(Probe, Rhythm), ProbeId>,
    due: BinaryHeap<Reverse<(u64, ProbeId)>>,
    last_id: u64,
    /// Until when first probes are already spread.
    spread_ms: u64,
    random: u64,
}

impl Probes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: seed, ..Self::default() }
    }

    pub(crate) fn get(&self, id: ProbeId) -> Option<&Probing> {
        self.probes.get(&id)
    }

    /// The probe that this check means, made if nobody wanted it before.
    pub(crate) fn want(
        &mut self,
        probe: Probe,
        rhythm: Rhythm,
        user: (ServiceId, RealId),
        now_ms: u64,
    ) -> ProbeId {
        let key = (probe, rhythm);
        if let Some(&id) = self.ids.get(&key) {
            if let Some(probing) = self.probes.get_mut(&id) {
                probing.users.insert(user);
            }
            return id;
        }
        self.last_id += 1;
        let id = ProbeId(self.last_id);
        let probing = Probing {
            probe: key.0.clone(),
            rhythm,
            users: BTreeSet::from([user]),
            history: History::new(rhythm, now_ms),
            under_way_since_ms: None,
        };
        self.probes.insert(id, probing);
        self.ids.insert(key, id);
        // All at once would be a burst to the network and make the first answers late.
        self.spread_ms = self.spread_ms.max(now_ms) + SPREAD_MS;
        // Round and round within the interval: what would come later must not come together at its end.
        let first = now_ms + (self.spread_ms - now_ms) % u64::from(rhythm.interval_ms.max(1));
        self.due.push(Reverse((first, id)));
        id
    }

    /// A user does not want it any more; what nobody wants is forgotten.
    pub(crate) fn release(&mut self, id: ProbeId, user: &(ServiceId, RealId)) {
        let Some(probing) = self.probes.get_mut(&id) else { return };
        probing.users.remove(user);
        if probing.users.is_empty()
            && let Some(probing) = self.probes.remove(&id)
        {
            self.ids.remove(&(probing.probe, probing.rhythm));
        }
    }

    /// Those to be made now.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        while let Some(Reverse((due, id))) = self.due.peek().copied() {
            if due > now_ms {
                break;
            }
            self.due.pop();
            // One that was forgotten stays in the heap until its time.
            let Some(probing) = self.probes.get_mut(&id) else { continue };
            probing.under_way_since_ms = Some(now_ms);
            orders.push(Order { id, probe: probing.probe.clone() });
        }
        orders
    }

    /// When the next one is due.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Whom a probe is made for.
    pub(crate) fn users(&self, id: ProbeId) -> impl Iterator<Item = (ServiceId, RealId)> {
        self.probes.get(&id).into_iter().flat_map(|probing| probing.users.iter().copied())
    }

    /// Takes an outcome and says whose verdict may have changed. One that was not ordered, or is not wanted any more, is
    /// ignored.
    pub(crate) fn record(&mut self, id: ProbeId, outcome: Outcome, now_ms: u64) -> Vec<(ServiceId, RealId)> {
        let random = self.random();
        let Some(probing) = self.probes.get_mut(&id) else { return Vec::new() };
        let Some(start) = probing.under_way_since_ms.take() else { return Vec::new() };
        let next = start + jittered(probing.rhythm, random);
        self.due.push(Reverse((next.max(now_ms), id)));
        probing.history.record(outcome, now_ms);
        probing.users.iter().copied().collect()
    }

    /// A new random number; SplitMix64 [Steele, Lea, Flood 2014]: nothing depends on its being unpredictable.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.probes.len()
    }
}

/// The interval, longer or shorter by up to its jitter.
fn jittered(rhythm: Rhythm, random: u64) -> u64 {
    let interval = u64::from(rhythm.interval_ms);
    let width = interval * u64::from(rhythm.jitter_percent) / 100;
    interval - width + random % (2 * width + 1)
}

/// What a check means for one real server.
pub(crate) fn resolve(check: &Check, service: &ServiceId, real: &RealId, spec: &RealSpec) -> Probe {
    let service_port = match service {
        ServiceId::Address { port, .. } => *port,
        ServiceId::Fwmark { .. } => 0,
    };
    let own_port = if real.port == 0 { service_port } else { real.port };
    let vip = match service {
        ServiceId::Address { address, .. } => Some(*address),
        ServiceId::Fwmark { .. } => None,
    };
    let way = match (&check.kind, check.address.or(vip)) {
        (CheckKind::Path, Some(vip)) => {
            let tunnel = (spec.forwarding == Forwarding::Tunnel).then_some(spec.tunnel);
            Some(Way { vip, real: real.address, tunnel })
        }
        _ => None,
    };
    Probe {
        kind: check.kind.clone(),
        address: check.address.filter(|_| way.is_none()).unwrap_or(real.address),
        port: check.port.unwrap_or(own_port),
        timeout_ms: check.rhythm.timeout_ms,
        way,
    }
}
