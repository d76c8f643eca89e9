//! What was seen against what a case expects. The same comparison for every runner.

use std::net::IpAddr;

use abi::{Counters, FlowKey, Load, Verdict};

use super::compile::{DIRECTOR_MAC, SECOND_NS, state};
use super::{Compiled, FlowAfter, FlowIs, StatsAdded, Step};
use crate::packet::{Header, Layer, Packet, difference};

/// What a runner saw of one step.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
    /// Interface it leaves by; `None` when the runner cannot tell.
    pub ifindex: Option<u32>,
    /// The packet's flow afterwards.
    pub flow: Option<SeenFlow>,
    /// Load of each real server afterwards.
    pub loads: Vec<Load>,
    /// What was added to the statistics of each real server.
    pub added: Vec<Counters>,
    /// The templates afterwards.
    pub templates: Vec<(FlowKey, abi::Flow)>,
    /// When it was looked at, in ns of the packet path's clock.
    pub now_ns: u64,
    /// How far a flow's end may be off, because the runner's clock went on.
    pub clock_slack_ns: u64,
}

/// A flow as a runner found it after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenFlow {
    /// What is known about it.
    pub flow: abi::Flow,
    /// From now until it ends.
    pub expires_in_ns: i64,
    /// Found in the embryonic table.
    pub embryonic: bool,
}

impl Step {
    /// The packet that comes in.
    ///
    /// # Errors
    /// The text is not in the packet language.
    pub fn packet(&self) -> Result<Packet, String> {
        self.input.parse::<Packet>().map_err(|error| format!("in: {error}"))
    }

    /// The key of the packet's flow, where it has one. Of an ICMP error it is that of the quoted packet, whose
    /// source is the VIP.
    #[must_use]
    pub fn key(&self) -> Option<FlowKey> {
        if let Some(of) = &self.of {
            return super::flow_key(of).ok();
        }
        let packet = self.packet().ok()?;
        let error = headers(&packet).position(|header| matches!(header.kind.word, "icmp" | "icmp6"));
        let key = key_of(headers(&packet).skip(error.unwrap_or(0)))?;
        Some(if error.is_none() {
            key
        } else {
            FlowKey {
                client: key.virtual_address,
                virtual_address: key.client,
                client_port_be: key.virtual_port_be,
                virtual_port_be: key.client_port_be,
                ..key
            }
        })
    }

    /// Everything that is not as expected, a line each; empty when all is.
    #[must_use]
    pub fn check(&self, tables: &Compiled, seen: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Err(problem) = self.check_all(tables, seen, &mut wrong) {
            wrong.push(problem);
        }
        wrong
    }

    fn check_all(&self, tables: &Compiled, seen: &Seen, wrong: &mut Vec<String>) -> Result<(), String> {
        if self.verdict != seen.verdict.name() {
            wrong.push(format!("verdict: expected {}, seen {}", self.verdict, seen.verdict.name()));
        }
        if let Some(expected) = self.expected_bytes(tables)?
            && let Some(said) = difference(&expected, &seen.bytes)
        {
            wrong.push(said);
        }
        let interface = match self.to {
            Some(to) => Some(tables.reals[index(tables, to)?].ifindex),
            None => self.interface,
        };
        if let (Some(expected), Some(ifindex)) = (interface, seen.ifindex)
            && expected != ifindex
        {
            wrong.push(format!("interface: expected {expected}, seen {ifindex}"));
        }
        self.check_flow(tables, seen, wrong)?;
        for (address, (active, inactive)) in &self.load {
            let load = seen.loads.get(index(tables, *address)?).copied().unwrap_or_default();
            if (load.active, load.inactive) != (*active, *inactive) {
                let seen = format!("seen {} active {} inactive", load.active, load.inactive);
                wrong.push(format!("load of {address}: expected {active} and {inactive}, {seen}"));
            }
        }
        self.check_persistence(tables, seen, wrong)?;
        for (real, address) in tables.addresses.iter().enumerate() {
            let counters = seen.added.get(real).copied().unwrap_or_default();
            let added = StatsAdded {
                connections: counters.connections,
                packets: counters.in_packets,
                bytes: counters.in_bytes,
                out_packets: counters.out_packets,
                out_bytes: counters.out_bytes,
            };
            let expected = self.expected_stats(*address)?;
            if added != expected {
                wrong.push(format!("statistics of {address}: expected {expected:?}, seen {added:?}"));
            }
        }
        Ok(())
    }

    /// The bytes expected after the step; `None` when they do not matter, as for a drop.
    pub(crate) fn expected_bytes(&self, tables: &Compiled) -> Result<Option<Vec<u8>>, String> {
        let packet = self.packet()?;
        if let Some(out) = &self.out {
            let out = out.parse::<Packet>().map_err(|error| format!("out: {error}"))?;
            return Ok(Some(out.to_bytes()));
        }
        if let Some(change) = &self.change {
            let out = packet.changed(change).map_err(|error| format!("change: {error}"))?;
            return Ok(Some(out.to_bytes()));
        }
        if let Some(to) = self.to {
            return Ok(Some(routed(packet, tables, to)?.to_bytes()));
        }
        Ok(self.verdict.starts_with("pass_").then(|| packet.to_bytes()))
    }

    fn check_flow(&self, tables: &Compiled, seen: &Seen, wrong: &mut Vec<String>) -> Result<(), String> {
        let expected = match &self.flow {
            None => return Ok(()),
            Some(FlowAfter::Word(word)) if word == "none" => None,
            Some(FlowAfter::Word(word)) => {
                return Err(format!("flow: {word:?} means nothing, only \"none\""));
            }
            Some(FlowAfter::Is(flow)) => Some(flow),
        };
        match (expected, &seen.flow) {
            (None, None) => {}
            (None, Some(flow)) => wrong.push(format!("flow: expected none, seen {flow:?}")),
            (Some(expected), None) => wrong.push(format!("flow: expected {expected:?}, seen none")),
            (Some(expected), Some(flow)) => {
                let protocol = self.key().map(|key| key.protocol).unwrap_or_default();
                same_flow(expected, flow, protocol, tables, (seen.clock_slack_ns, wrong))?
            }
        }
        Ok(())
    }

    /// Templates and thresholds.
    fn check_persistence(
        &self,
        tables: &Compiled,
        seen: &Seen,
        wrong: &mut Vec<String>,
    ) -> Result<(), String> {
        for (address, expected) in &self.persistent {
            let load = seen.loads.get(index(tables, *address)?).copied().unwrap_or_default();
            if load.persistent != *expected {
                wrong.push(format!("templates of {address}: expected {expected}, seen {}", load.persistent));
            }
        }
        if let Some(expected) = &self.overloaded {
            for (address, load) in tables.addresses.iter().zip(&seen.loads) {
                let is_expected = expected.contains(address);
                if is_expected != (load.overloaded != 0) {
                    wrong.push(format!("{address} overloaded: expected {is_expected}, seen {load:?}"));
                }
            }
        }
        match &self.expect_templates {
            Some(expected) => super::persistence::check(expected, tables, seen, wrong),
            None => Ok(()),
        }
    }

    fn expected_stats(&self, address: IpAddr) -> Result<StatsAdded, String> {
        if let Some(expected) = self.stats.get(&address) {
            return Ok(*expected);
        }
        if self.to != Some(address) {
            return Ok(StatsAdded::default());
        }
        let bytes = ip_length(&self.packet()?).ok_or("in: no IP header to count the bytes of")?;
        let opening = ["forward_new", "forward_rescued", "forward_one_packet", "forward_no_template"];
        let connections = u64::from(opening.contains(&self.verdict.as_str()));
        Ok(StatsAdded { connections, packets: 1, bytes, ..StatsAdded::default() })
    }
}

/// The key of the first packet among these headers, from its source to its destination.
fn key_of<'a>(headers: impl Iterator<Item = &'a Header> + Clone) -> Option<FlowKey> {
    let ip = headers.clone().find(|header| is_ip(header))?;
    let ports = headers.clone().find(|header| matches!(header.kind.word, "tcp" | "udp" | "sctp"))?;
    let field = |header: &Header, name: &str| header.fields.get(name).copied().unwrap_or(0);
    let address = |name: &str| {
        if ip.kind.word == "ip4" {
            abi::Address::v4((field(ip, name) as u32).to_be_bytes())
        } else {
            abi::Address::v6(field(ip, name).to_be_bytes())
        }
    };
    Some(FlowKey {
        client: address("src"),
        virtual_address: address("dst"),
        client_port_be: (field(ports, "src") as u16).to_be(),
        virtual_port_be: (field(ports, "dst") as u16).to_be(),
        protocol: u32::from(ports.kind.protocol?),
    })
}

fn index(tables: &Compiled, address: IpAddr) -> Result<usize, String> {
    tables.real(address).map(|index| index as usize).map_err(|error| error.to_string())
}

fn same_flow(
    expected: &FlowIs,
    seen: &SeenFlow,
    protocol: u32,
    tables: &Compiled,
    (slack_ns, wrong): (u64, &mut Vec<String>),
) -> Result<(), String> {
    let mut say = |what: &str, expected: &dyn std::fmt::Display, seen: &dyn std::fmt::Display| {
        wrong.push(format!("flow {what}: expected {expected}, seen {seen}"));
    };
    if index(tables, expected.real)? != seen.flow.real as usize {
        let real = tables.addresses.get(seen.flow.real as usize);
        say("real", &expected.real, &real.map_or("an unknown one".to_owned(), ToString::to_string));
    }
    let number = state(protocol, &expected.state).map_err(|error| error.to_string())?;
    if number != seen.flow.state {
        say("state", &expected.state, &seen.flow.state);
    }
    let off = (expected.expires_in * SECOND_NS as i64).abs_diff(seen.expires_in_ns);
    if off > slack_ns {
        say("expires_in", &expected.expires_in, &(seen.expires_in_ns as f64 / SECOND_NS as f64));
    }
    let table = if seen.embryonic { "embryonic" } else { "established" };
    if expected.table != table {
        say("table", &expected.table, &table);
    }
    let flagged = seen.flow.flags & abi::FLOW_EMBRYONIC != 0;
    if flagged != seen.embryonic {
        say("FLOW_EMBRYONIC flag", &seen.embryonic, &flagged);
    }
    Ok(())
}

/// The packet as direct routing sends it on.
fn routed(mut packet: Packet, tables: &Compiled, to: IpAddr) -> Result<Packet, String> {
    let real = &tables.reals[index(tables, to)?];
    let number = |mac: [u8; 6]| mac.iter().fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
    let mut outer = true;
    for layer in &mut packet.layers {
        let Layer::Header(header) = layer else { continue };
        let hops = match header.kind.word {
            "eth" => {
                header.fields.insert("src", number(DIRECTOR_MAC));
                header.fields.insert("dst", number(real.destination_mac()));
                continue;
            }
            "ip4" => "ttl",
            "ip6" => "hoplimit",
            _ => continue,
        };
        if outer {
            outer = false;
            let before = header.fields.get(hops).copied().unwrap_or(64);
            header.fields.insert(hops, before.checked_sub(1).ok_or("in: no hop left to route")?);
        }
    }
    Ok(packet)
}

fn headers(packet: &Packet) -> impl Iterator<Item = &Header> + Clone {
    packet.layers.iter().filter_map(|layer| match layer {
        Layer::Header(header) => Some(header),
        Layer::Payload(_) => None,
    })
}

fn is_ip(header: &Header) -> bool {
    matches!(header.kind.word, "ip4" | "ip6")
}

/// Length of the IP packet as its own header says.
fn ip_length(packet: &Packet) -> Option<u64> {
    let bytes = packet.to_bytes();
    let start: usize = headers(packet).take_while(|header| !is_ip(header)).map(Header::size).sum();
    let ip = headers(packet).find(|header| is_ip(header))?;
    let (at, extra) = if ip.kind.word == "ip4" { (start + 2, 0) } else { (start + 4, 40) };
    let field = bytes.get(at..at + 2)?;
    Some(u64::from(u16::from_be_bytes([field[0], field[1]])) + extra)
}
