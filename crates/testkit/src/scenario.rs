//! Random tables and packets, and what must hold for all of them. Shared by property tests and the fuzzer.
//!
//! A scenario is made from bytes, so that whoever supplies bytes (proptest, libFuzzer, a corpus) drives it:
//! eight bytes of seed for the tables, then packets, each after its length in two bytes (little-endian).

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::Verdict;

use crate::case::{Compiled, Flow, Real, Seen, Service, Tables, Template};
use crate::packet::{checksum, read};
use crate::strict::Refused;

/// Most packets of a scenario.
pub const PACKETS_MAX: usize = 8;
/// Longest packet that the kernel's test run takes with room for an answer, in bytes.
pub const PACKET_BYTES_MAX: usize = 3000;

/// Without `twos`, which draws: no two runners would agree.
const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "sed", "nq", "fo", "ovf", "lblc", "lblcr", "none"];
const STATES: [&str; 11] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
];

const TUNNELS: [&str; 6] = ["ipip", "gre", "gre csum", "gue 6080", "gue 6080 csum", "gue 6080 remcsum"];
/// Some that every packet fits, some that few do, and the unknown one.
const MTUS: [u32; 6] = [0, 65_535, 1500, 1340, 120, 60];

/// Tables, and packets that meet them one after the other.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The state before the first packet.
    pub tables: Tables,
    /// The packets.
    pub packets: Vec<Vec<u8>>,
}

impl Scenario {
    /// The scenario that these bytes stand for. Any bytes stand for one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (seed, mut rest) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let mut packets = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<2>()
            && packets.len() < PACKETS_MAX
        {
            let length = usize::from(u16::from_le_bytes(*length)).min(after.len()).min(PACKET_BYTES_MAX);
            let (packet, after) = after.split_at(length);
            packets.push(packet.to_vec());
            rest = after;
        }
        Self { tables: tables(u64::from_le_bytes(*seed)), packets }
    }

    /// The bytes that stand for these packets with the tables of this seed.
    #[must_use]
    pub fn to_bytes(seed: u64, packets: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seed.to_le_bytes().to_vec();
        for packet in packets.iter().take(PACKETS_MAX) {
            let packet = &packet[..packet.len().min(PACKET_BYTES_MAX)];
            bytes.extend_from_slice(&(packet.len() as u16).to_le_bytes());
            bytes.extend_from_slice(packet);
        }
        bytes
    }
}

/// A stream of numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    /// The next number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// Tables around the addresses and ports that the golden cases use, so that their packets meet them.
fn tables(seed: u64) -> Tables {
    let mut numbers = Numbers(seed);
    let established_full = numbers.one_in(8);
    let mut tables = Tables {
        established_full,
        overflowed: numbers.one_in(8),
        answers_per_second_max: Some(if numbers.one_in(10) { 0 } else { u64::MAX }),
        settings: settings(&mut numbers),
        ..Tables::default()
    };
    let services = [
        ("tcp 192.0.2.10:80", "10.0.0.", "tcp 198.51.100.1:{} > 192.0.2.10:80"),
        ("udp 192.0.2.10:53", "10.0.1.", "udp 198.51.100.1:{} > 192.0.2.10:53"),
        ("tcp [2001:db8::10]:80", "fd00::", "tcp [2001:db8:1::1]:{} > [2001:db8::10]:80"),
        ("udp [2001:db8::10]:53", "fd01::", "udp [2001:db8:1::1]:{} > [2001:db8::10]:53"),
        ("sctp 192.0.2.10:36412", "10.0.6.", "sctp 198.51.100.1:{} > 192.0.2.10:36412"),
        ("sctp [2001:db8::10]:36412", "fd06::", "sctp [2001:db8:1::1]:{} > [2001:db8::10]:36412"),
        ("udp 192.0.2.10:500", "10.0.7.", "udp 198.51.100.1:{} > 192.0.2.10:500"),
        ("udp 192.0.2.10:5060", "10.0.2.", "udp 198.51.100.1:{} > 192.0.2.10:5060"),
        ("tcp 192.0.2.10:21", "10.0.3.", "tcp 198.51.100.1:{} > 192.0.2.10:21"),
        ("tcp 192.0.2.10:0", "10.0.4.", "tcp 198.51.100.1:{} > 192.0.2.10:443"),
        ("mark 7", "10.0.5.", "tcp 198.51.100.1:{} > 192.0.2.10:444"),
    ];
    for (at, prefix, flow) in services {
        // The last four are rarer: a match takes packets away from the others.
        let is_rare = ["5060", "21", "0", "mark 7"].iter().any(|last| at.rsplit(':').next() == Some(last));
        if numbers.one_in(10) || (is_rare && numbers.one_in(2)) {
            continue;
        }
        let reals: Vec<Real> =
            (1..=numbers.below(6)).filter_map(|last| real(&mut numbers, prefix, last)).collect();
        for port in [if at.ends_with(":500") { 500 } else { 1 }, 40_000] {
            let Some(of) = reals.get(numbers.below(8) as usize) else { continue };
            tables.flows.push(random_flow(&mut numbers, flow, port, of.address, established_full));
        }
        let flags =
            ["fallback", "port", "exact"].into_iter().filter(|_| numbers.one_in(2)).map(str::to_owned);
        let flags = flags.collect();
        let scheduler = SCHEDULERS[numbers.below(SCHEDULERS.len() as u64) as usize].to_owned();
        let cursor = numbers.below(1000) as u32;
        let mut service =
            Service { at: at.to_owned(), scheduler, flags, cursor, reals, ..Service::default() };
        persistence(&mut numbers, &mut service, &mut tables.templates);
        tables.services.push(service);
    }
    if established_full {
        // There is no room for any.
        tables.templates.clear();
    }
    tables
}

/// Options that only some services have, and a template of the client that most packets come from.
fn persistence(numbers: &mut Numbers, service: &mut Service, templates: &mut Vec<Template>) {
    if numbers.one_in(3) {
        service.persistence = 100 + numbers.below(300) as u32;
    }
    if numbers.one_in(8) {
        service.flags.push("one-packet".to_owned());
    }
    if service.at.ends_with(":5060") && numbers.one_in(2) {
        service.flags.push("sip".to_owned());
    }
    let (is_v6, is_mark) = (service.at.contains('['), service.at.starts_with("mark"));
    if numbers.one_in(2) {
        service.mask = Some(if is_v6 { "48" } else { "255.255.255.0" }.to_owned());
    }
    if is_mark {
        let all = ["tcp 192.0.2.10:80", "udp 192.0.2.10:53", "tcp 192.0.2.10:444", "tcp 192.0.2.10:0"];
        service.matches = all.into_iter().filter(|_| numbers.one_in(2)).map(str::to_owned).collect();
    }
    if numbers.one_in(3) {
        for real in &mut service.reals {
            real.upper_threshold = 1 + numbers.below(600) as u32;
            real.lower_threshold = numbers.below(u64::from(real.upper_threshold)) as u32;
            real.overloaded = numbers.one_in(3);
        }
    }
    let Some(of) = service.reals.get(numbers.below(4) as usize) else { return };
    let client = match (is_v6, service.mask.is_some()) {
        (true, true) => "2001:db8:1::",
        (true, false) => "2001:db8:1::1",
        (false, true) => "198.51.100.0",
        (false, false) => "198.51.100.1",
    };
    let key = match service.at.split_once(' ') {
        _ if is_mark => format!("mark 7 {client}"),
        Some((protocol, at)) => format!("{protocol} {client} > {}", at.replace(":21", ":0")),
        None => return,
    };
    if templates.iter().all(|template| template.key != key) {
        let expires_in = if numbers.one_in(3) { -100 } else { 1000 };
        templates.push(Template { key, real: of.address, expires_in, controls: numbers.one_in(2) });
    }
}

fn settings(numbers: &mut Numbers) -> BTreeMap<String, u32> {
    let mut settings = BTreeMap::from([("conn_reuse_mode".to_owned(), numbers.below(4) as u32)]);
    for switch in [
        "expire_nodest_conn",
        "sloppy_tcp",
        "sloppy_sctp",
        "schedule_icmp",
        "cache_bypass",
        "expire_quiescent_template",
    ] {
        if numbers.one_in(4) {
            settings.insert(switch.to_owned(), 1);
        }
    }
    settings
}

fn real(numbers: &mut Numbers, prefix: &str, last: u64) -> Option<Real> {
    let weight = numbers.below(5) as u32;
    Some(Real {
        address: format!("{prefix}{last}").parse().ok()?,
        weight,
        last_weight: Some(weight.max(numbers.below(2) as u32)),
        mac: None,
        // 1 is where the kernel's test run lets packets come from.
        ifindex: if numbers.one_in(4) { 1 } else { 7 },
        active: numbers.below(5) as i32 - 1,
        inactive: numbers.below(600) as i32,
        persistent: 0,
        overloaded: false,
        failed: weight == 0 && numbers.one_in(2),
        removed: numbers.one_in(12),
        unresolved: numbers.one_in(12),
        method: numbers.one_in(6).then(|| "tunnel".to_owned()),
        tunnel: Some(TUNNELS[numbers.below(TUNNELS.len() as u64) as usize].to_owned()),
        upper_threshold: 0,
        lower_threshold: 0,
        local: numbers.one_in(20),
        mtu: MTUS[numbers.below(MTUS.len() as u64) as usize],
        source: if numbers.one_in(12) { None } else { format!("{prefix}ff").parse().ok() },
        translate_source: false,
        port: None,
        policy: ["gone-keep", "gone-reset", "rescue"]
            .into_iter()
            .filter(|_| numbers.one_in(3))
            .map(str::to_owned)
            .collect(),
        progressed: numbers.one_in(4).then_some(10_000),
    })
}

fn random_flow(numbers: &mut Numbers, form: &str, port: u16, real: IpAddr, full: bool) -> Flow {
    let state = if form.starts_with("tcp") {
        STATES[numbers.below(STATES.len() as u64) as usize]
    } else if form.starts_with("sctp") {
        abi::SCTP_STATES[numbers.below(abi::SCTP_STATES.len() as u64) as usize].0
    } else {
        "UDP"
    };
    let embryonic = full || numbers.one_in(2);
    Flow {
        flow: form.replace("{}", &port.to_string()),
        real,
        state: state.to_owned(),
        // Far from now on either side: the kernel's clock runs on while the test does.
        expires_in: [-100, 30, 1000, 1000][numbers.below(4) as usize],
        table: Some(if embryonic { "embryonic" } else { "established" }.to_owned()),
        source_port: None,
        no_way_back: false,
    }
}

/// What must hold for every packet on every tables.
///
/// # Errors
/// What does not hold.
pub fn check(tables: &Compiled, packet: &[u8], seen: &Seen, refused: Option<Refused>) -> Result<(), String> {
    if let Some(refused) = refused {
        if refused.odd + refused.overlapping > 0 {
            return Err(format!("packet access: {refused:?}"));
        }
        // What is for no VIP is not ours to judge: what cannot be read of it is no reply of a real server.
        let is_passed = matches!(seen.verdict, Verdict::PassNotVip | Verdict::PassNoReply);
        if refused.short > 0 && seen.verdict != Verdict::DropTruncated && !is_passed {
            return Err(format!("{} bytes were missing, but {}", refused.short, seen.verdict.name()));
        }
    }
    let counted: u64 = seen.added.iter().map(|counters| counters.in_packets).sum();
    // What is answered or dropped may have been counted for its real server first.
    let (least, most) = match seen.verdict {
        verdict if verdict.is_forward() => (1, 1),
        verdict if verdict.is_pass() => (0, 0),
        _ => (0, 1),
    };
    if counted < least || counted > most {
        return Err(format!("{} with {counted} packets to real servers", seen.verdict.name()));
    }
    match seen.verdict {
        Verdict::DropInternal => Err("tables that fit together led nowhere".to_owned()),
        Verdict::ForwardLocal if seen.bytes != packet => {
            Err("a packet for the director's own stack was changed".to_owned())
        }
        Verdict::ForwardLocal => Ok(()),
        verdict if verdict.is_pass() && seen.bytes != packet => {
            Err("a packet that passes was changed".to_owned())
        }
        verdict if verdict.is_forward() => check_forwarded(tables, packet, seen),
        verdict if verdict.is_answer() => check_answer(packet, seen),
        _ => Ok(()),
    }
}

/// Only MAC addresses, the hop count and the IPv4 checksum over it may change, in the right way; in a tunnel of what is
/// inside.
fn check_forwarded(tables: &Compiled, packet: &[u8], seen: &Seen) -> Result<(), String> {
    let to = seen.added.iter().position(|counters| counters.in_packets > 0);
    let real = to.and_then(|real| tables.reals.get(real)).ok_or("sent to no real server")?;
    if seen.ifindex != Some(real.ifindex) {
        return Err(format!("interface {:?} in place of {}", seen.ifindex, real.ifindex));
    }
    if real.method == abi::METHOD_TUNNEL {
        let (shorter, unwrapped) = unwrap(real, packet, &seen.bytes)?;
        return check_hop(real, &shorter, &unwrapped);
    }
    check_hop(real, packet, &seen.bytes)
}

/// The packet without its padding, and the one inside a tunnel behind the same link header: whose outer headers must be
/// whole, and their checksums those of a full computation.
fn unwrap(real: &abi::Real, packet: &[u8], seen: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let outer = read(seen);
    let word = if real.address.is_v4() { "ip4" } else { "ip6" };
    for (word, field) in [
        (word, "len"),
        (word, "csum"),
        ("udp", "len"),
        ("gre", "type"),
        ("gresum", "type"),
        ("gresum", "csum"),
    ] {
        // The first header of the name: the outer one, but for the UDP header of what is in IPIP or GRE.
        let is_ours = word != "udp" || real.tunnel == abi::TUNNEL_GUE;
        if is_ours && outer.states(word, field) {
            return Err(format!("{word} {field} is wrong: {outer}"));
        }
    }
    // Remote checksum offload comes with the checksum of UDP.
    let has_sum = real.tunnel_flags & (abi::TUNNEL_CHECKSUM | abi::TUNNEL_REMOTE_CHECKSUM) != 0;
    if real.tunnel == abi::TUNNEL_GUE && outer.states("udp", "csum") == has_sum {
        return Err(format!("the checksum of GUE is wrong, or there for no reason: {outer}"));
    }
    let start = network_offset(packet).ok_or("forwarded a frame without a network header")?;
    let inner = start + forward::mtu::overhead(real);
    let (link, _) = seen.split_at_checked(start).ok_or("forwarded too little")?;
    let same = packet.get(12..start - 2) == link.get(12..start - 2);
    let largest = usize::try_from(forward::mtu::largest(real)).unwrap_or(usize::MAX);
    let ip_len = seen.len() - inner;
    if !same || ip_len > largest {
        return Err(format!("longer than the way allows, or other tags: {outer}"));
    }
    let mut unwrapped = link.to_vec();
    // The type of the packet inside, which the tunnel's headers name and `read` has followed.
    unwrapped.splice(start - 2.., packet[start - 2..start].iter().copied());
    unwrapped.extend_from_slice(seen.get(inner..).ok_or("forwarded too little")?);
    let shorter = packet.get(..start + ip_len).ok_or("the packet grew")?.to_vec();
    Ok((shorter, unwrapped))
}

/// As it came, but for the MAC addresses and one hop.
fn check_hop(real: &abi::Real, packet: &[u8], seen: &[u8]) -> Result<(), String> {
    let mut expected = packet.to_vec();
    let start = network_offset(packet).ok_or("forwarded a frame without a network header")?;
    let (addresses, rest) = expected.split_at_mut_checked(12).ok_or("forwarded less than two addresses")?;
    let (destination, source) = addresses.split_at_mut(6);
    destination.copy_from_slice(&real.destination_mac());
    source.copy_from_slice(&real.source_mac());
    let ip = rest.get_mut(start - 12..).unwrap_or_default();
    if ip.first().is_some_and(|first| first >> 4 == 4) {
        let size = usize::from(ip[0] & 15) * 4;
        let was_right = checksum::internet(&[&ip[..size]]) == 0;
        ip[8] -= 1;
        if was_right {
            ip[10..12].fill(0);
            let sum = checksum::internet(&[&ip[..size]]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            // What was wrong stays wrong by as much: nothing to recompute, so take it as seen.
            let place = start + 10..start + 12;
            ip[10..12].copy_from_slice(seen.get(place).ok_or("forwarded too little")?);
        }
    } else if let Some(hops) = ip.get_mut(7) {
        *hops -= 1;
    }
    match crate::packet::difference(&expected, seen) {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

/// An answer goes back where the packet came from, and its checksums are those of a full computation.
fn check_answer(packet: &[u8], seen: &Seen) -> Result<(), String> {
    let answer = read(&seen.bytes);
    let back = [packet.get(6..12), packet.get(..6)];
    if [seen.bytes.get(..6), seen.bytes.get(6..12)] != back {
        return Err(format!("the answer does not go back: {answer}"));
    }
    for word in ["ip4", "icmp", "icmp6", "tcp"] {
        // The segment that an ICMP message quotes is cut off.
        if word == "tcp" && seen.verdict != Verdict::AnswerReset {
            continue;
        }
        // Only the outer header: `states` looks at the first of that name.
        if answer.states(word, "csum") || answer.states(word, "len") {
            return Err(format!("the {word} header of the answer is wrong: {answer}"));
        }
    }
    if seen.verdict == Verdict::AnswerReset {
        return if answer.has("tcp") { Ok(()) } else { Err(format!("the answer is no reset: {answer}")) };
    }
    if !["icmp", "icmp6"].iter().any(|word| answer.has(word)) {
        return Err(format!("the answer is no ICMP message: {answer}"));
    }
    Ok(())
}

/// Where the network header starts, behind at most two tags.
fn network_offset(packet: &[u8]) -> Option<usize> {
    let mut offset = 12;
    for _ in 0..2 {
        match packet.get(offset..offset + 2)? {
            [0x81, 0x00] | [0x88, 0xa8] => offset += 4,
            _ => break,
        }
    }
    Some(offset + 2)
}
