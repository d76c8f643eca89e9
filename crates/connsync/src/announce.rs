//! Which flow is announced when.
//!
//! IPVS counts packets: it announces the third of a connection and each fiftieth after it, and a change of state. Here the sweep meets
//! every flow once in a pass, so it goes by time: a flow is announced when it is met first, when its state or its real server is another,
//! and when half of its time-out has gone by since the last time and packets came. So also a short connection is there on the backup, and none ends there
//! while packets come.

use abi::{FLOW_TEMPLATE, Flow, FlowKey, TcpState, protocol};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

const SECOND_NS: u64 = 1_000_000_000;

/// States that are announced [`ip_vs_sync.c`, `ip_vs_sync_conn_needed`].
const TCP: [TcpState; 5] =
    [TcpState::Established, TcpState::FinWait, TcpState::TimeWait, TcpState::Close, TcpState::CloseWait];
/// ESTABLISHED, the three of the shutdown, CLOSED in [`abi::SCTP_STATES`].
const SCTP: [u8; 5] = [8, 9, 10, 11, 13];

/// A flow or template that may be announced.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Which.
    pub key: &'a FlowKey,
    /// As it is now.
    pub flow: &'a Flow,
    /// The time-out of its state in ns.
    pub timeout_ns: u64,
}

/// What was announced of a flow last, or received.
#[derive(Clone, Copy, Debug)]
struct Known {
    expires_s: u32,
    real: u32,
    state: u8,
    /// Of the pass it was met in last.
    pass: u8,
}

/// Remembers what was announced. Of the identity it keeps a keyed hash only: 24 bytes a flow, and the free places of the hash table.
#[derive(Debug, Default)]
pub struct Announcer {
    hasher: RandomState,
    known: HashMap<u64, Known>,
    pass: u8,
}

impl Announcer {
    /// Whether a flow is to be announced now. [`Announcer::told`] is to follow if it was.
    #[must_use]
    pub fn is_due(&mut self, candidate: &Candidate<'_>) -> bool {
        if !is_announced(candidate.key, candidate.flow) {
            return false;
        }
        let pass = self.pass;
        let place = self.place(candidate.key, candidate.flow);
        let Some(known) = self.known.get_mut(&place) else { return true };
        known.pass = pass;
        let half_s = candidate.timeout_ns / 2 / SECOND_NS;
        let later_s = seconds(candidate.flow.expires_ns).saturating_sub(known.expires_s);
        let is_old = later_s > 0 && u64::from(later_s) >= half_s;
        is_old || known.state != state(candidate.flow) || known.real != candidate.flow.real
    }

    /// A flow was announced, or came from another director, as it is now.
    pub fn told(&mut self, key: &FlowKey, flow: &Flow) {
        let known = Known {
            expires_s: seconds(flow.expires_ns),
            real: flow.real,
            state: state(flow),
            pass: self.pass,
        };
        let place = self.place(key, flow);
        self.known.insert(place, known);
    }

    /// All flows were met once: what was not met is over, and forgotten.
    pub fn end_of_pass(&mut self) {
        let pass = self.pass;
        self.known.retain(|_, known| known.pass == pass);
        self.pass = pass.wrapping_add(1);
    }

    /// Forgets what was announced: all is due again.
    pub fn forget(&mut self) {
        self.known = HashMap::new();
    }

    /// Flows that it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn place(&self, key: &FlowKey, flow: &Flow) -> u64 {
        self.hasher.hash_one((key, flow.flags & FLOW_TEMPLATE))
    }
}

fn seconds(ns: u64) -> u32 {
    u32::try_from(ns / SECOND_NS).unwrap_or(u32::MAX)
}

/// The state, and of a template whether it is assured.
fn state(flow: &Flow) -> u8 {
    if flow.flags & FLOW_TEMPLATE != 0 { flow.flags & abi::FLOW_ASSURED } else { flow.state }
}

/// Whether such a flow is announced at all.
fn is_announced(key: &FlowKey, flow: &Flow) -> bool {
    if flow.flags & FLOW_TEMPLATE != 0 {
        return true;
    }
    // A port of the director's own, which only it can translate back, has no place on the wire.
    if flow.source_port_be != 0 {
        return false;
    }
    match u8::try_from(key.protocol) {
        Ok(protocol::TCP) => TCP.iter().any(|it| *it as u8 == flow.state),
        Ok(protocol::SCTP) => SCTP.contains(&flow.state),
        Ok(protocol::UDP) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{Address, FLOW_ASSURED, UDP_STATE};

    const TIMEOUT_NS: u64 = 900 * SECOND_NS;

    fn key(port: u16) -> FlowKey {
        FlowKey {
            client: Address::v4([198, 51, 100, 1]),
            virtual_address: Address::v4([192, 0, 2, 10]),
            client_port_be: port.to_be(),
            virtual_port_be: 80_u16.to_be(),
            protocol: protocol::TCP.into(),
        }
    }

    fn flow(state: TcpState, expires_s: u64) -> Flow {
        Flow { state: state as u8, expires_ns: expires_s * SECOND_NS, real: 3, packets: 2, ..Flow::default() }
    }

    /// Asks, and tells if it is due.
    fn announce(announcer: &mut Announcer, key: &FlowKey, flow: &Flow) -> bool {
        let due = announcer.is_due(&Candidate { key, flow, timeout_ns: TIMEOUT_NS });
        if due {
            announcer.told(key, flow);
        }
        due
    }

    #[test]
    fn a_flow_is_announced_once_and_again_when_half_of_its_time_has_gone() {
        let mut announcer = Announcer::default();
        let established = |expires_s| flow(TcpState::Established, expires_s);
        assert!(announce(&mut announcer, &key(1), &established(1_000)));
        assert!(!announce(&mut announcer, &key(1), &established(1_000)));
        assert!(!announce(&mut announcer, &key(1), &established(1_449)));
        assert!(announce(&mut announcer, &key(1), &established(1_450)));
        assert!(!announce(&mut announcer, &key(1), &established(1_451)));
    }

    #[test]
    fn another_state_and_another_real_server_are_announced_at_once() {
        let mut announcer = Announcer::default();
        assert!(announce(&mut announcer, &key(1), &flow(TcpState::Established, 1_000)));
        assert!(announce(&mut announcer, &key(1), &flow(TcpState::FinWait, 220)));
        assert!(!announce(&mut announcer, &key(1), &flow(TcpState::FinWait, 221)));
        assert!(announce(&mut announcer, &key(1), &Flow { real: 4, ..flow(TcpState::FinWait, 221) }));
    }

    #[test]
    fn what_is_not_told_is_due_again() {
        let mut announcer = Announcer::default();
        let flow = flow(TcpState::Established, 1_000);
        for _ in 0..2 {
            assert!(announcer.is_due(&Candidate { key: &key(1), flow: &flow, timeout_ns: TIMEOUT_NS }));
        }
    }

    #[test]
    fn what_came_from_another_director_is_not_sent_back() {
        let mut announcer = Announcer::default();
        let received = flow(TcpState::Established, 1_000);
        announcer.told(&key(1), &received);
        assert!(!announce(&mut announcer, &key(1), &received));
        assert!(
            announce(&mut announcer, &key(1), &flow(TcpState::Established, 1_800)),
            "its packets come here now"
        );
    }

    #[test]
    fn flows_that_are_over_are_forgotten() {
        let mut announcer = Announcer::default();
        for port in 0..100 {
            assert!(announce(&mut announcer, &key(port), &flow(TcpState::Established, 1_000)));
        }
        announcer.end_of_pass();
        assert_eq!(announcer.len(), 100);
        assert!(!announce(&mut announcer, &key(7), &flow(TcpState::Established, 1_000)));
        announcer.end_of_pass();
        assert_eq!(announcer.len(), 1);
        assert!(announce(&mut announcer, &key(8), &flow(TcpState::Established, 1_000)));
    }

    #[test]
    fn states_without_a_connection_are_not_announced() {
        let mut announcer = Announcer::default();
        let announced: Vec<TcpState> = TcpState::ALL
            .into_iter()
            .filter(|state| announce(&mut announcer, &key(*state as u16), &flow(*state, 1_000)))
            .collect();
        let mut expected = TCP.to_vec();
        expected.sort_by_key(|state| *state as u8);
        assert_eq!(announced, expected);
        let of = |number: u8| FlowKey { protocol: number.into(), ..key(99) };
        let other = Flow { state: UDP_STATE, ..flow(TcpState::None, 1_000) };
        assert!(announce(&mut announcer, &of(protocol::UDP), &other));
        assert!(!announce(&mut announcer, &of(50), &other), "ESP");
        let own_port = Flow { source_port_be: 7, ..flow(TcpState::Established, 1_000) };
        assert!(!announce(&mut announcer, &key(98), &own_port));
    }

    #[test]
    fn a_template_stands_beside_flows_and_is_announced_when_it_becomes_assured() {
        let mut announcer = Announcer::default();
        let template = Flow { flags: FLOW_TEMPLATE, ..flow(TcpState::None, 360) };
        assert!(announce(&mut announcer, &key(0), &template));
        let assured = Flow { flags: FLOW_TEMPLATE | FLOW_ASSURED, ..template };
        assert!(announce(&mut announcer, &key(0), &assured));
        assert!(!announce(&mut announcer, &key(0), &assured));
    }
}
