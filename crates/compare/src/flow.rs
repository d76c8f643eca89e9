//! Flows as a listing of connections names them, and when their timers began.

use crate::diff::without_time;
use crate::mac;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// IKE, whose flow the packets of IPsec follow.
const IKE_PORT: u16 = 500;

/// When packets of flows were sent.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    seen: BTreeMap<String, Times>,
}

/// When packets of one flow were sent: any, and those that reached a server or a client, which surely began or went on with
/// a flow. Of others that is not known: the director may have dropped or answered them.
#[derive(Clone, Copy, Debug)]
struct Times {
    first: Instant,
    last: Instant,
    sure: Option<(Instant, Instant)>,
}

/// For how long timers have run, in seconds, by flow.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// At least.
    pub(crate) least_s: BTreeMap<String, f64>,
    /// At most, where that is more.
    pub(crate) most_s: BTreeMap<String, f64>,
}

impl Flows {
    /// Notes a packet, and what came of it: a reply that leaves for a client belongs to the client's flow.
    pub(crate) fn note(&mut self, sent: &[u8], led_to: &[Vec<u8>], now: Instant) {
        let own = ends(sent).map(|ends| name(ends, false));
        let is_reply = sent.get(6..).and_then(mac::server).is_some();
        let is_sure = is_reply || led_to.iter().any(|frame| mac::server(frame).is_some());
        let replies =
            led_to.iter().filter(|_| is_reply).filter_map(|frame| ends(frame)).map(|ends| name(ends, true));
        for flow in own.into_iter().chain(replies) {
            let times = self.seen.entry(flow).or_insert(Times { first: now, last: now, sure: None });
            times.last = now;
            if is_sure {
                times.sure = Some((times.sure.map_or(now, |(first, _)| first), now));
            }
        }
    }

    /// How long the timers of a listing's rows have run: since the last packet of a flow; since the last beginning of a flow
    /// for a template.
    pub(crate) fn ages(&self, listing: &str) -> Ages {
        let age = |at: Instant| at.elapsed().as_secs_f64();
        let mut ages = Ages::default();
        for (flow, times) in &self.seen {
            let most = times.sure.map_or(times.first, |(_, last)| last);
            ages.add(flow, age(times.last), age(most));
        }
        for row in listing.lines().filter_map(row) {
            if row.client.port() == 0 && !self.seen.contains_key(&row.name) {
                let fitting = self.seen.iter().filter_map(|(flow, times)| Some((fit(&row, flow)?, times)));
                let fitting: Vec<(u32, &Times)> = fitting.collect();
                let best = fitting.iter().map(|(fit, _)| *fit).max();
                let begun = fitting.iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, times)| times);
                let Some(last) = begun.clone().map(|times| times.first).max() else { continue };
                let sure = begun.clone().filter_map(|times| Some(times.sure?.0)).max();
                let most = sure.or_else(|| begun.map(|times| times.first).min()).unwrap_or(last);
                ages.add(&row.name, age(last), age(most));
            }
        }
        ages
    }
}

impl Ages {
    fn add(&mut self, flow: &str, least_s: f64, most_s: f64) {
        self.least_s.insert(flow.to_owned(), least_s);
        // Two readings of the clock, of one moment, are no difference.
        if most_s > least_s + 0.001 {
            self.most_s.insert(flow.to_owned(), most_s);
        }
    }
}

/// One row of a listing of connections.
struct Row {
    name: String,
    protocol: String,
    client: SocketAddr,
    destination: SocketAddr,
}

fn row(line: &str) -> Option<Row> {
    let (line, time) = without_time(line);
    time?;
    let mut words = line.split_whitespace();
    let (protocol, _, client, destination) = (words.next()?, words.next()?, words.next()?, words.next()?);
    Some(Row {
        name: format!("{protocol} {client} {destination}"),
        protocol: protocol.to_owned(),
        client: client.parse().ok()?,
        destination: destination.parse().ok()?,
    })
}

/// How well a flow fits a template, whose client's address is masked: by bits that are the same.
fn fit(template: &Row, flow: &str) -> Option<u32> {
    let mut words = flow.split(' ');
    let protocol = words.next()?;
    let (client, to): (SocketAddr, SocketAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_same = template.protocol == "IP"
        || template.protocol == protocol
            && template.destination.ip() == to.ip()
            && [0, to.port()].contains(&template.destination.port());
    let bits = match (template.client.ip(), client.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => return None,
    };
    is_same.then_some(bits)
}

/// Protocol, source and destination of a frame.
type Ends = (&'static str, SocketAddr, SocketAddr);

fn name((protocol, from, to): Ends, is_reply: bool) -> String {
    let (client, address) = if is_reply { (to, from) } else { (from, to) };
    format!("{protocol} {client} {address}")
}

fn ends(frame: &[u8]) -> Option<Ends> {
    let ip = frame.get(ETHERNET..)?;
    let (protocol, size, from, to): (u8, usize, IpAddr, IpAddr) = match ip.first()? >> 4 {
        4 => {
            let at = |from: usize| <[u8; 4]>::try_from(ip.get(from..from + 4)?).ok().map(IpAddr::from);
            if ip.get(6)? & 0x1f != 0 || *ip.get(7)? != 0 {
                return None;
            }
            (*ip.get(9)?, usize::from(ip[0] & 15) * 4, at(12)?, at(16)?)
        }
        _ => {
            let at = |from: usize| <[u8; 16]>::try_from(ip.get(from..from + 16)?).ok().map(IpAddr::from);
            (*ip.get(6)?, 40, at(8)?, at(24)?)
        }
    };
    let name = match protocol {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        50 | 51 => return Some(("UDP", SocketAddr::new(from, IKE_PORT), SocketAddr::new(to, IKE_PORT))),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(ip.get(size + at..size + at + 2)?.try_into().ok()?));
    Some((name, SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use testkit::packet;

    const CLIENT: &str = "eth 02:00:00:00:00:0c > 02:00:00:00:00:0d";

    fn named(text: &str) -> Option<String> {
        ends(&packet(&format!("{CLIENT} / {text}"))).map(|ends| name(ends, false))
    }

    #[test]
    fn a_flow_is_named_as_in_a_listing() {
        let tcp = named("ip4 198.51.100.1 > 192.0.2.10 ttl 3 / tcp 5 > 80 syn");
        assert_eq!(tcp.as_deref(), Some("TCP 198.51.100.1:5 192.0.2.10:80"));
        let udp = named("ip6 2001:db8:1::1 > 2001:db8::10 / udp 5 > 53");
        assert_eq!(udp.as_deref(), Some("UDP [2001:db8:1::1]:5 [2001:db8::10]:53"));
        assert_eq!(named("ip4 198.51.100.1 > 192.0.2.10 / icmp 8 0"), None);
        assert_eq!(named("ip4 198.51.100.1 > 192.0.2.10 off 8 proto 17 / bytes 16"), None);
        let esp = named("ip4 198.51.100.1 > 192.0.2.10 proto 50 / bytes 16");
        assert_eq!(esp.as_deref(), Some("UDP 198.51.100.1:500 192.0.2.10:500"));
    }

    #[test]
    fn a_reply_restarts_the_timer_of_the_clients_flow() {
        let now = Instant::now().checked_sub(Duration::from_secs(50)).expect("a clock that runs");
        let mut flows = Flows::default();
        let sent = packet(&format!("{CLIENT} / ip4 198.51.100.1 > 192.0.2.10 / tcp 5 > 80 syn"));
        flows.note(&sent, &[], now);
        let reply =
            "eth 02:00:00:00:01:01 > 02:00:00:00:00:0d / ip4 10.0.0.1 > 198.51.100.1 / tcp 80 > 5 syn ack";
        let led_to = reply.replace("10.0.0.1 ", "192.0.2.10 ");
        let later = now + Duration::from_secs(10);
        flows.note(&packet(reply), &[packet(&led_to)], later);
        let age = flows.ages("").least_s["TCP 198.51.100.1:5 192.0.2.10:80"];
        assert!((40.0..41.0).contains(&age), "{age}");
        let template = "TCP 05:12  NONE        198.51.100.0:0     192.0.2.10:80      10.0.0.1:80\n\
                        IP  05:12  NONE        198.51.100.0:0     0.0.0.7:0          10.0.0.1:0\n";
        let ages = flows.ages(template).least_s;
        for row in ["TCP 198.51.100.0:0 192.0.2.10:80", "IP 198.51.100.0:0 0.0.0.7:0"] {
            assert!((50.0..51.0).contains(&ages[row]), "{ages:?}");
        }
    }

    #[test]
    fn a_packet_that_reached_nobody_may_or_may_not_restart_the_timer() {
        let then = |ago| Instant::now().checked_sub(Duration::from_secs(ago)).expect("a clock that runs");
        let sent = packet(&format!("{CLIENT} / ip4 198.51.100.1 > 192.0.2.10 / tcp 5 > 80 ack"));
        let forwarded = packet(
            "eth 02:00:00:00:00:0d > 02:00:00:00:01:01 / ip4 198.51.100.1 > 192.0.2.10 ttl 63 / tcp 5 > 80 ack",
        );
        let mut flows = Flows::default();
        flows.note(&sent, std::slice::from_ref(&forwarded), then(50));
        let name = "TCP 198.51.100.1:5 192.0.2.10:80";
        let ages = flows.ages("");
        assert!((50.0..51.0).contains(&ages.least_s[name]) && ages.most_s.is_empty(), "{ages:?}");
        flows.note(&sent, &[], then(20));
        let ages = flows.ages("");
        assert!((20.0..21.0).contains(&ages.least_s[name]), "{ages:?}");
        assert!((50.0..51.0).contains(&ages.most_s[name]), "{ages:?}");
    }
}
