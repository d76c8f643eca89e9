//! From bytes to the few facts that decisions need.

use abi::{Address, FlowKey, Verdict, protocol};
use bytemuck::{Pod, Zeroable};
use wire::{Bytes, Short, ethernet, ipv4, ipv6, tcp};

/// The parsed packet and what was found out about it so far. Plain data: the eBPF programs hand it from one
/// to the next in a per-CPU map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Work {
    /// Identity of its flow.
    pub key: FlowKey,
    /// Length from the network header on, in bytes.
    pub ip_len: u32,
    /// Offset of the network header.
    pub l3: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// Flag byte of the TCP header, or 0.
    pub tcp_flags: u8,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// [`STALE_EMBRYONIC`] or [`STALE_ESTABLISHED`]: a finished flow with this key stands in that table.
    pub stale: u8,
    /// Number of the verdict that [`crate::answer`] is to carry out.
    pub answer: u8,
}

impl Work {
    /// Offset of the network header. It is at most 22; the mask says so to the verifier, which cannot know
    /// it of a number that came through memory.
    #[inline(always)]
    #[must_use]
    pub const fn l3(&self) -> usize {
        (self.l3 & 31) as usize
    }
}

/// The embryonic table has a finished flow with this key.
pub const STALE_EMBRYONIC: u8 = 1;
/// The established table has a finished flow with this key.
pub const STALE_ESTABLISHED: u8 = 2;

/// The network header, either family.
#[derive(Clone, Copy)]
pub struct Network {
    header: Header,
    l3: usize,
    /// Where the packet comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
}

#[derive(Clone, Copy)]
enum Header {
    V4(ipv4::Header),
    V6(ipv6::Header),
}

/// Whether the flow is a TCP connection.
#[inline(always)]
#[must_use]
pub const fn is_tcp(key: &FlowKey) -> bool {
    key.protocol == protocol::TCP as u32
}

/// Reads the link and network headers as far as the addresses. The rest is checked by [`transport`], only
/// for packets to a VIP: a packet that is nobody's business must cost little and pass untouched.
///
/// # Errors
/// The verdict, when there is nothing to balance.
#[inline(always)]
pub fn network<B: Bytes>(bytes: &B) -> Result<Network, Verdict> {
    let frame = ethernet::parse(bytes).map_err(truncated)?;
    let l3 = frame.payload;
    let network = match frame.ethertype {
        ethernet::TYPE_IPV4 => {
            let header = ipv4::Header::read(bytes, l3).map_err(truncated)?;
            let source = Address::v4(header.source());
            let destination = Address::v4(header.destination());
            Network { header: Header::V4(header), l3, source, destination }
        }
        ethernet::TYPE_IPV6 => {
            let header = ipv6::Header::read(bytes, l3).map_err(truncated)?;
            let source = Address::v6(header.source());
            let destination = Address::v6(header.destination());
            Network { header: Header::V6(header), l3, source, destination }
        }
        tag if ethernet::is_tag(tag) => return Err(Verdict::PassTooDeep),
        _ => return Err(Verdict::PassNotIp),
    };
    if frame.group { Err(Verdict::PassGroup) } else { Ok(network) }
}

#[inline(always)]
fn truncated(_: Short) -> Verdict {
    Verdict::DropTruncated
}

/// Reads the rest of the headers of a packet to a VIP.
///
/// # Errors
/// The verdict, when it cannot be balanced.
#[inline(always)]
pub fn transport<B: Bytes>(bytes: &B, network: &Network) -> Result<Work, Verdict> {
    let work = match network.header {
        Header::V4(header) => transport_v4(bytes, network, &header)?,
        Header::V6(header) => transport_v6(bytes, network, &header)?,
    };
    // A length that says more than the frame holds would send a lie to the real server.
    let end = (work.l3 as usize).wrapping_add(work.ip_len as usize);
    if end > bytes.len() {
        return Err(Verdict::DropBadLength);
    }
    ports(bytes, work)
}

#[inline(always)]
fn transport_v4<B: Bytes>(bytes: &B, network: &Network, header: &ipv4::Header) -> Result<Work, Verdict> {
    let header_len = header.header_len();
    let ip_len = u32::from(header.total_len());
    if header.version() != 4 || header_len < ipv4::HEADER_LEN || (ip_len as usize) < header_len {
        return Err(Verdict::DropBadLength);
    }
    if header.is_fragment() {
        return Err(Verdict::PassFragment);
    }
    let l4 = network.l3.wrapping_add(header_len);
    if l4 > bytes.len() {
        return Err(Verdict::DropTruncated);
    }
    Ok(work(network, header.protocol(), ip_len, l4, header.ttl()))
}

#[inline(always)]
fn transport_v6<B: Bytes>(bytes: &B, network: &Network, header: &ipv6::Header) -> Result<Work, Verdict> {
    // IPv4-mapped addresses would be taken for IPv4 flows; RFC 4038 section 4.2 forbids them on the wire.
    if header.version() != 6 {
        return Err(Verdict::DropBadLength);
    }
    if network.source.is_v4() || network.destination.is_v4() {
        return Err(Verdict::DropBadAddress);
    }
    let first = network.l3.wrapping_add(ipv6::HEADER_LEN);
    let ip_len = u32::from(header.payload_len()).wrapping_add(ipv6::HEADER_LEN as u32);
    match ipv6::transport(bytes, header.next_header(), first).map_err(truncated)? {
        ipv6::Chain::Transport { protocol, offset } => {
            if offset.wrapping_sub(network.l3) > ip_len as usize {
                return Err(Verdict::DropBadLength);
            }
            Ok(work(network, protocol, ip_len, offset, header.hop_limit()))
        }
        ipv6::Chain::Fragment => Err(Verdict::PassFragment),
        ipv6::Chain::TooDeep => Err(Verdict::PassTooDeep),
    }
}

#[inline(always)]
fn work(network: &Network, protocol: u8, ip_len: u32, l4: usize, ttl: u8) -> Work {
    let key = FlowKey {
        client: network.source,
        virtual_address: network.destination,
        client_port_be: 0,
        virtual_port_be: 0,
        protocol: u32::from(protocol),
    };
    Work { key, ip_len, l3: network.l3 as u16, l4: l4 as u16, tcp_flags: 0, ttl, stale: 0, answer: 0 }
}

/// Reads the ports, and the flags of TCP.
#[inline(always)]
fn ports<B: Bytes>(bytes: &B, mut work: Work) -> Result<Work, Verdict> {
    let l4 = work.l4 as usize;
    let room = (work.ip_len as usize).wrapping_add(work.l3 as usize).wrapping_sub(l4);
    if work.key.protocol == u32::from(protocol::TCP) {
        let header = tcp::parse(bytes, l4).map_err(truncated)?;
        if header.header_len < tcp::HEADER_LEN || header.header_len > room {
            return Err(Verdict::DropBadLength);
        }
        work.key.client_port_be = header.source_be;
        work.key.virtual_port_be = header.destination_be;
        work.tcp_flags = header.flags;
    } else if work.key.protocol == u32::from(protocol::UDP) {
        let header = tcp::parse_udp(bytes, l4).map_err(truncated)?;
        let len = header.len as usize;
        if len < tcp::UDP_HEADER_LEN || len > room {
            return Err(Verdict::DropBadLength);
        }
        work.key.client_port_be = header.source_be;
        work.key.virtual_port_be = header.destination_be;
    } else {
        return Err(Verdict::PassProtocol);
    }
    Ok(work)
}
