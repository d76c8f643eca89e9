//! Packets of one line: `tcp 198.51.100.1:1024 > 192.0.2.10:80 syn x 100 port`.

use crate::mac::{self, DIRECTOR_MAC};
use crate::step::StepError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use testkit::Packet;

/// Most packets of one step.
const PACKETS_MAX: u32 = 5000;
/// Most bytes after the transport header.
const DATA_MAX: usize = 8900;

const FLAGS: [&str; 6] = ["syn", "ack", "fin", "rst", "psh", "urg"];
/// Words of SCTP chunks and their types [RFC 9260, 3.2].
const CHUNKS: [(&str, u8); 16] = [
    ("payload", 0),
    ("init", 1),
    ("init-ack", 2),
    ("sack", 3),
    ("heartbeat", 4),
    ("heartbeat-ack", 5),
    ("abort", 6),
    ("shutdown", 7),
    ("shutdown-ack", 8),
    ("error", 9),
    ("cookie-echo", 10),
    ("cookie-ack", 11),
    ("ecne", 12),
    ("cwr", 13),
    ("shutdown-complete", 14),
    ("unknown-chunk", 99),
];

/// What differs from one packet of a burst to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vary {
    /// The sender's port.
    Port,
    /// The sender's address.
    Address,
    /// The receiver's address.
    To,
    /// The receiver's port.
    ToPort,
}

/// Packets that differ in one thing.
#[derive(Clone, Debug)]
pub struct Burst {
    protocol: &'static str,
    from: SocketAddr,
    to: SocketAddr,
    ttl: u8,
    data: usize,
    is_unfragmentable: bool,
    flags: Vec<&'static str>,
    chunks: Vec<u8>,
    count: u32,
    stride: u32,
    vary: Vary,
}

impl Burst {
    pub(crate) fn read(words: &[String]) -> Result<Self, StepError> {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let address = |at: usize| word(at).parse::<SocketAddr>().map_err(|_| StepError::Addresses);
        let (from, to) = (address(1)?, address(3)?);
        if word(2) != ">" || from.is_ipv4() != to.is_ipv4() {
            return Err(StepError::Addresses);
        }
        let protocol = ["tcp", "udp", "sctp"].into_iter().find(|it| *it == word(0));
        let mut burst = Self {
            protocol: protocol.ok_or(StepError::Unknown)?,
            from,
            to,
            ttl: 64,
            data: 0,
            is_unfragmentable: false,
            flags: Vec::new(),
            chunks: Vec::new(),
            count: 1,
            stride: 1,
            vary: Vary::Port,
        };
        let mut rest = words.iter().skip(4).map(String::as_str);
        while let Some(word) = rest.next() {
            burst.word(word, &mut rest).ok_or_else(|| StepError::Word { word: word.to_owned() })?;
        }
        Ok(burst)
    }

    fn word<'a>(&mut self, word: &str, rest: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        match word {
            "ttl" => self.ttl = rest.next()?.parse().ok()?,
            "data" => self.data = rest.next()?.parse().ok().filter(|size| *size <= DATA_MAX)?,
            "step" => self.stride = rest.next()?.parse().ok()?,
            "df" => self.is_unfragmentable = self.from.is_ipv4().then_some(true)?,
            "none" => {}
            "x" => {
                self.count = rest.next()?.parse().ok().filter(|count| *count <= PACKETS_MAX)?;
                self.vary = match rest.next()? {
                    "port" => Vary::Port,
                    "address" => Vary::Address,
                    "to" => Vary::To,
                    "toport" => Vary::ToPort,
                    _ => return None,
                };
            }
            _ if self.protocol == "sctp" => {
                self.chunks.push(CHUNKS.iter().find(|(name, _)| *name == word)?.1);
            }
            _ => self.flags.push(FLAGS.into_iter().find(|flag| *flag == word)?),
        }
        Some(())
    }

    pub(crate) fn packets(&self) -> Result<Vec<Packet>, StepError> {
        (0..self.count).map(|number| self.packet(number.wrapping_mul(self.stride))).collect()
    }

    fn packet(&self, add: u32) -> Result<Packet, StepError> {
        let (mut from, mut to) = (self.from, self.to);
        match self.vary {
            Vary::Port => from.set_port(from.port().wrapping_add(add as u16)),
            Vary::Address => from.set_ip(plus(from.ip(), add)),
            Vary::To => to.set_ip(plus(to.ip(), add)),
            Vary::ToPort => to.set_port(to.port().wrapping_add(add as u16)),
        }
        let (ip, hops) = if from.is_ipv4() { ("ip4", "ttl") } else { ("ip6", "hoplimit") };
        let mut text = format!(
            "eth {} > {DIRECTOR_MAC} / {ip} {} > {} {hops} {} {} / {} {} > {} {}",
            mac::of_source(from.ip()),
            from.ip(),
            to.ip(),
            self.ttl,
            if self.is_unfragmentable { "df" } else { "" },
            self.protocol,
            from.port(),
            to.port(),
            self.flags.join(" ")
        );
        if !self.chunks.is_empty() {
            // Each holds eight bytes that stand for its parameters.
            let chunk = |kind: &u8| format!("{kind:02x}00000c0102030405060708");
            text.push_str(&format!(" / hex {}", self.chunks.iter().map(chunk).collect::<String>()));
        }
        if self.data > 0 {
            text.push_str(&format!(" / bytes {}", self.data));
        }
        Ok(text.parse()?)
    }
}

fn plus(address: IpAddr, add: u32) -> IpAddr {
    match address {
        IpAddr::V4(it) => Ipv4Addr::from(u32::from(it).wrapping_add(add)).into(),
        IpAddr::V6(it) => Ipv6Addr::from(u128::from(it).wrapping_add(add.into())).into(),
    }
}
