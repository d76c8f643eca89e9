//! The frames of the cases, and what they must look like afterwards.

use super::case::Case;
use super::error::BenchError;
use super::reset::{
    ADDRESS_V4, ADDRESS_V6, CLIENT_BASE, CLIENT_PORT, CLIENTS_PER_PORT, PORT_V4, PORT_V6, WORDS_FROM,
    WORDS_V4, WORDS_V6, client,
};
use api::{Family, Protocol};
use etherparse::PacketBuilder;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The IPv4 VIP.
pub(super) const VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The IPv6 VIP.
pub(super) const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Network of the IPv6 clients; the low four bytes are the client's own.
pub(super) const CLIENTS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
/// An address that is no VIP, and not by accident one for the filter.
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

/// Port of the TCP hit service.
pub(super) const TCP_PORT: u16 = 80;
/// Port of the UDP hit service.
pub(super) const UDP_PORT: u16 = 53;

/// Hardware address of the director in the frames.
pub(super) const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TTL: u8 = 64;

/// Length of an IPv4 or non-IP frame.
const LEN_V4: usize = WORDS_FROM + WORDS_V4 * 8;
/// Length of an IPv6 frame.
const LEN_V6: usize = WORDS_FROM + WORDS_V6 * 8;

/// A frame, and where its client stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    pub(super) family: Family,
}

impl Frame {
    /// Offsets of the low four bytes of the client address, and of the port.
    fn client_at(&self) -> (usize, usize) {
        match self.family {
            Family::Ipv4 => (ADDRESS_V4, PORT_V4),
            Family::Ipv6 => (ADDRESS_V6, PORT_V6),
        }
    }

    /// The frame of another client. The transport checksum is left: nobody on the path looks at it.
    pub(super) fn with_client(&self, number: u64) -> Self {
        let mut frame = self.clone();
        let (address_at, port_at) = self.client_at();
        let (address, port) = client(number);
        frame.bytes[address_at..address_at + 4].copy_from_slice(&address.to_be_bytes());
        frame.bytes[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
        frame
    }

    /// The client of a frame that came out.
    pub(super) fn client_of(&self, out: &[u8]) -> Option<u64> {
        let (address_at, port_at) = self.client_at();
        let address = u32::from_be_bytes(*out.get(address_at..)?.first_chunk()?);
        let port = u16::from_be_bytes(*out.get(port_at..)?.first_chunk()?);
        let turn = u64::from(port.checked_sub(CLIENT_PORT)?);
        Some(turn * CLIENTS_PER_PORT + u64::from(address.checked_sub(CLIENT_BASE)?))
    }

    /// The frame as direct routing must leave it.
    pub(super) fn routed(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..6].copy_from_slice(&destination);
        bytes[6..12].copy_from_slice(&source);
        match self.family {
            Family::Ipv6 => bytes[21] -= 1,
            Family::Ipv4 => {
                bytes[22] -= 1;
                // One off the high byte of a word adds 0x0100 to the sum's complement (RFC 1624).
                let old = u32::from(u16::from_be_bytes([bytes[24], bytes[25]])) + 0x100;
                let new = (old & 0xffff) as u16 + (old >> 16) as u16;
                bytes[24..26].copy_from_slice(&new.to_be_bytes());
            }
        }
        bytes
    }
}

/// The frame of a case, from client 0.
pub(super) fn of(case: &Case, port: u16) -> Result<Frame, BenchError> {
    match *case {
        Case::FloorTx | Case::FloorParse => tcp(Family::Ipv4, VIP_V4, TCP_PORT, false),
        Case::Hit { family, protocol: Protocol::Tcp, .. } => tcp(family, VIP_V4, TCP_PORT, false),
        Case::Hit { family, .. } => udp(family),
        Case::SynAgain => tcp(Family::Ipv4, VIP_V4, TCP_PORT, true),
        Case::New { .. } => tcp(Family::Ipv4, VIP_V4, port, true),
        Case::PassNoVip => tcp(Family::Ipv4, OTHER_V4, TCP_PORT, false),
        Case::PassNonIp => tcp(Family::Ipv4, VIP_V4, TCP_PORT, false).map(|mut frame| {
            // An ethertype for local experiments (IEEE 802).
            frame.bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
            frame
        }),
    }
}

fn tcp(family: Family, v4: Ipv4Addr, port: u16, opens: bool) -> Result<Frame, BenchError> {
    let link = PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC);
    let ip = match family {
        Family::Ipv4 => link.ipv4(CLIENT_BASE.to_be_bytes(), v4.octets(), TTL),
        Family::Ipv6 => link.ipv6(CLIENTS_V6.octets(), VIP_V6.octets(), TTL),
    };
    let tcp = ip.tcp(CLIENT_PORT, port, 1, 1024);
    let tcp = if opens { tcp.syn() } else { tcp.ack(1) };
    let len = len_of(family);
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &vec![0; len - tcp_headers(family)])
        .map_err(|e| BenchError::Frame(e.to_string()))?;
    finish(family, bytes, len)
}

fn udp(family: Family) -> Result<Frame, BenchError> {
    let link = PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC);
    let ip = match family {
        Family::Ipv4 => link.ipv4(CLIENT_BASE.to_be_bytes(), VIP_V4.octets(), TTL),
        Family::Ipv6 => link.ipv6(CLIENTS_V6.octets(), VIP_V6.octets(), TTL),
    };
    let len = len_of(family);
    let payload = vec![0; len - tcp_headers(family) + 12];
    let mut bytes = Vec::new();
    ip.udp(CLIENT_PORT, UDP_PORT)
        .write(&mut bytes, &payload)
        .map_err(|e| BenchError::Frame(e.to_string()))?;
    finish(family, bytes, len)
}

fn finish(family: Family, bytes: Vec<u8>, len: usize) -> Result<Frame, BenchError> {
    if bytes.len() != len {
        return Err(BenchError::Frame(format!("it has {} bytes, not {len}", bytes.len())));
    }
    Ok(Frame { bytes, family }.with_client(0))
}

const fn len_of(family: Family) -> usize {
    match family {
        Family::Ipv4 => LEN_V4,
        Family::Ipv6 => LEN_V6,
    }
}

const fn tcp_headers(family: Family) -> usize {
    match family {
        Family::Ipv4 => 14 + 20 + 20,
        Family::Ipv6 => 14 + 40 + 20,
    }
}
