//! What the kernel counted at the client, the director and the real servers.

use super::UpgradeError;
use crate::address::Node;
use crate::cluster::{INTERFACE, Lab};
use crate::demo::director::Front;
use std::time::{Duration, Instant};

/// Counters that do not change for so long are at rest.
const REST: Duration = Duration::from_millis(300);

/// Sums since the cluster was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// TCP segments that the client sent, and all real servers received.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Segments that the client, or a real server, sent once more.
    pub(super) retransmitted: u64,
    /// SYNs among them.
    pub(super) syns_retransmitted: u64,
    /// Frames that met the director's program, that it sent on, and that its interface dropped or could not send.
    pub(super) frames_in: u64,
    pub(super) frames_out: u64,
    pub(super) frames_lost: u64,
    /// Packets by the director's own verdicts: forwarded, dropped.
    pub(super) forwarded: u64,
    pub(super) dropped: u64,
}

impl Counters {
    /// Reads them once they are at rest and both ends agree; when they do not in time, as they are.
    pub(super) fn settled(lab: &Lab, front: &Front, patience: Duration) -> Result<Self, UpgradeError> {
        let deadline = Instant::now() + patience;
        let mut last = Self::read(lab, front)?;
        loop {
            std::thread::sleep(REST);
            let now = Self::read(lab, front)?;
            if (now == last && now.sent == now.received) || Instant::now() > deadline {
                return Ok(now);
            }
            last = now;
        }
    }

    fn read(lab: &Lab, front: &Front) -> Result<Self, UpgradeError> {
        let mut counters = Self::default();
        let client = Tcp::read(lab, Node::Client)?;
        counters.sent = client.sent;
        counters.retransmitted = client.retransmitted;
        counters.syns_retransmitted = client.syns_retransmitted;
        for number in lab.reals() {
            let real = Tcp::read(lab, Node::Real(number))?;
            counters.received += real.received;
            counters.retransmitted += real.retransmitted;
        }
        let text = lab.exec_in(Node::Director, "ethtool", &["-S", INTERFACE])?;
        let sum = |names: &[&str]| sum_queues(&text, names);
        counters.frames_in = sum(&["xdp_packets"]);
        counters.frames_out = sum(&["xdp_tx", "xdp_redirect"]);
        counters.frames_lost = sum(&["drops", "xdp_drops", "xdp_tx_errors"]);
        let verdicts: api::Verdicts = serde_json::from_str(&front.sluice("verdicts --json")?)
            .map_err(|error| UpgradeError::Odd(format!("the director's verdicts: {error}")))?;
        let of = |start: &str| {
            let verdicts = verdicts.verdicts.iter().filter(|it| it.name.starts_with(start));
            verdicts.map(|it| it.packets).sum()
        };
        (counters.forwarded, counters.dropped) = (of("forward_"), of("drop_"));
        Ok(counters)
    }

    /// What was counted after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
            retransmitted: self.retransmitted - earlier.retransmitted,
            syns_retransmitted: self.syns_retransmitted - earlier.syns_retransmitted,
            frames_in: self.frames_in - earlier.frames_in,
            frames_out: self.frames_out - earlier.frames_out,
            frames_lost: self.frames_lost - earlier.frames_lost,
            forwarded: self.forwarded - earlier.forwarded,
            dropped: self.dropped - earlier.dropped,
        }
    }
}

/// Sums counters of these names over all receive queues, as `ethtool -S` prints them of a veth.
fn sum_queues(text: &str, names: &[&str]) -> u64 {
    let mut sum = 0;
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        let Some((_, name)) = name.strip_prefix("rx_queue_").and_then(|rest| rest.split_once('_')) else {
            continue;
        };
        if names.contains(&name) {
            sum += value.trim().parse::<u64>().unwrap_or(0);
        }
    }
    sum
}

/// The counters of TCP of one network namespace.
struct Tcp {
    sent: u64,
    received: u64,
    retransmitted: u64,
    syns_retransmitted: u64,
}

impl Tcp {
    fn read(lab: &Lab, node: Node) -> Result<Self, UpgradeError> {
        // The thread's own: /proc/net shows the namespace of the process.
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        let texts = lab.namespace(node)?.run(|| read("snmp") + &read("netstat"))?;
        let value = |group: &str, name: &str| {
            counter(&texts, group, name).ok_or_else(|| {
                UpgradeError::Odd(format!("the kernel's counters: there is no {group} {name}"))
            })
        };
        let retransmitted = value("Tcp", "RetransSegs")?;
        Ok(Self {
            // The kernel counts what is sent once more there only.
            sent: value("Tcp", "OutSegs")? + retransmitted,
            received: value("Tcp", "InSegs")?,
            retransmitted,
            syns_retransmitted: value("TcpExt", "TCPSynRetrans")?,
        })
    }
}

/// A value out of pairs of lines, names above values.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(": ")).filter(|(of, _)| *of == group);
    let (names, values) = (lines.next()?.1, lines.next()?.1);
    let at = names.split_whitespace().position(|it| it == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_group_and_name() {
        let text =
            "Ip: A B\nIp: 1 2\nTcp: MaxConn InSegs OutSegs\nTcp: -1 30 40\nTcpExt: InSegs\nTcpExt: 7\n";
        assert_eq!(counter(text, "Tcp", "InSegs"), Some(30));
        assert_eq!(counter(text, "Tcp", "OutSegs"), Some(40));
        assert_eq!(counter(text, "TcpExt", "InSegs"), Some(7));
        assert_eq!(counter(text, "Tcp", "RetransSegs"), None);
        assert_eq!(counter(text, "Udp", "InSegs"), None);
    }

    #[test]
    fn queues_are_summed() {
        let text = "NIC statistics:\n     peer_ifindex: 3\n     rx_queue_0_xdp_packets: 5\n     rx_queue_0_drops: 1\n     \
                    rx_queue_11_xdp_packets: 7\n     rx_queue_0_xdp_tx: 4\n     tx_queue_0_xdp_xmit: 9\n";
        assert_eq!(sum_queues(text, &["xdp_packets"]), 12);
        assert_eq!(sum_queues(text, &["xdp_tx", "drops"]), 5);
    }
}
