//! From bytes to the few facts that decisions need.

use abi::{Address, FlowKey, Verdict, protocol};
use bytemuck::{Pod, Zeroable};
use wire::{Bytes, Short, ethernet, ipv4, ipv6, tcp};

/// The parsed packet and what was found out about it so far. Plain data: the eBPF programs hand it from one
/// to the next in a per-CPU map.
///
/// What starts as zero stands together and aligned: the compiler clears it with stores of eight bytes, and the
/// verifier wants those aligned on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Work {
    /// Identity of its flow.
    pub key: FlowKey,
    /// Length from the network header on, in bytes.
    pub ip_len: u32,
    /// Offset of the network header.
    pub l3: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// Index of the real server that the packet goes to or comes from, where that is known.
    pub real: u32,
    /// With source translation, the port that the client's port is replaced by, network order; else 0.
    pub source_port_be: u16,
    /// [`STALE_EMBRYONIC`] or [`STALE_ESTABLISHED`]: a finished flow with this key stands in that table. With
    /// [`STALE_RESCUED`], it is given up because its real server did not answer. Once a real server is chosen and the old flow
    /// gone: `FLOW_*` bits that the new one starts with.
    pub stale: u8,
    /// Number of the verdict that the next program is to carry out: which answer to send, or what to count
    /// when the packet has left.
    pub verdict: u8,
    /// Flag byte of the TCP header, or 0.
    pub tcp_flags: u32,
    /// TTL or hop limit as received.
    pub ttl: u32,
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
/// Set beside: the flow's real server, `Work::real`, did not answer; another one is to be chosen.
pub const STALE_RESCUED: u8 = 4;

/// A network header as read, before it is checked. Two types and not one with two cases: everything behind
/// is then compiled for each family alone, which is a third of the cost of a packet.
pub trait Network: Copy {
    /// Reads the fixed part at `l3`.
    ///
    /// # Errors
    /// [`Short`] when the frame ends inside it.
    fn read<B: Bytes>(bytes: &B, l3: usize) -> Result<Self, Short>;

    /// Where the packet goes.
    fn destination(&self) -> Address;

    /// Checks the header and reads the rest of the packet.
    ///
    /// # Errors
    /// The verdict, when the packet cannot be balanced.
    fn transport<B: Bytes>(&self, bytes: &B, l3: usize) -> Result<Work, Verdict>;
}

/// Whether the flow is a TCP connection.
#[inline(always)]
#[must_use]
pub const fn is_tcp(key: &FlowKey) -> bool {
    key.protocol == protocol::TCP as u32
}

/// Reads the link-layer header.
///
/// # Errors
/// The verdict, when nothing behind it can be balanced.
#[inline(always)]
pub fn link<B: Bytes>(bytes: &B) -> Result<ethernet::Frame, Verdict> {
    let frame = ethernet::parse(bytes).map_err(truncated)?;
    if frame.ethertype != ethernet::TYPE_IPV4 && frame.ethertype != ethernet::TYPE_IPV6 {
        let deep = ethernet::is_tag(frame.ethertype);
        return Err(if deep { Verdict::PassTooDeep } else { Verdict::PassNotIp });
    }
    if frame.group { Err(Verdict::PassGroup) } else { Ok(frame) }
}

#[inline(always)]
pub fn truncated(_: Short) -> Verdict {
    Verdict::DropTruncated
}

impl Network for ipv4::Header {
    #[inline(always)]
    fn read<B: Bytes>(bytes: &B, l3: usize) -> Result<Self, Short> {
        Self::read(bytes, l3)
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address::v4(self.destination())
    }

    #[inline(always)]
    fn transport<B: Bytes>(&self, bytes: &B, l3: usize) -> Result<Work, Verdict> {
        let header_len = self.header_len();
        let ip_len = u32::from(self.total_len());
        if self.version() != 4 || header_len < ipv4::HEADER_LEN || (ip_len as usize) < header_len {
            return Err(Verdict::DropBadLength);
        }
        if self.is_fragment() {
            return Err(Verdict::PassFragment);
        }
        let l4 = l3.wrapping_add(header_len);
        if l4 > bytes.len() {
            return Err(Verdict::DropTruncated);
        }
        let key = key(Address::v4(self.source()), Address::v4(self.destination()), self.protocol());
        ports(bytes, work(key, ip_len, l3, l4, self.ttl()))
    }
}

impl Network for ipv6::Header {
    #[inline(always)]
    fn read<B: Bytes>(bytes: &B, l3: usize) -> Result<Self, Short> {
        Self::read(bytes, l3)
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address(self.destination())
    }

    #[inline(always)]
    fn transport<B: Bytes>(&self, bytes: &B, l3: usize) -> Result<Work, Verdict> {
        if self.version() != 6 {
            return Err(Verdict::DropBadLength);
        }
        let (source, destination) = (Address(self.source()), Address(self.destination()));
        // IPv4-mapped addresses would be taken for IPv4 flows; RFC 4038 section 4.2 forbids them on the wire.
        if source.is_v4() || destination.is_v4() {
            return Err(Verdict::DropBadAddress);
        }
        let first = l3.wrapping_add(ipv6::HEADER_LEN);
        let ip_len = u32::from(self.payload_len()).wrapping_add(ipv6::HEADER_LEN as u32);
        match ipv6::transport(bytes, self.next_header(), first).map_err(truncated)? {
            ipv6::Chain::Transport { protocol, offset } => {
                if offset.wrapping_sub(l3) > ip_len as usize {
                    return Err(Verdict::DropBadLength);
                }
                let key = key(source, destination, protocol);
                ports(bytes, work(key, ip_len, l3, offset, self.hop_limit()))
            }
            ipv6::Chain::Fragment => Err(Verdict::PassFragment),
            ipv6::Chain::TooDeep => Err(Verdict::PassTooDeep),
        }
    }
}

#[inline(always)]
fn key(client: Address, virtual_address: Address, protocol: u8) -> FlowKey {
    let protocol = u32::from(protocol);
    FlowKey { client, virtual_address, client_port_be: 0, virtual_port_be: 0, protocol }
}

#[inline(always)]
fn work(key: FlowKey, ip_len: u32, l3: usize, l4: usize, ttl: u8) -> Work {
    Work { key, ip_len, l3: l3 as u16, l4: l4 as u16, ttl: u32::from(ttl), ..EMPTY }
}

const EMPTY: Work = Work {
    key: FlowKey {
        client: Address([0; 4]),
        virtual_address: Address([0; 4]),
        client_port_be: 0,
        virtual_port_be: 0,
        protocol: 0,
    },
    ip_len: 0,
    l3: 0,
    l4: 0,
    real: 0,
    source_port_be: 0,
    stale: 0,
    verdict: 0,
    tcp_flags: 0,
    ttl: 0,
};

/// Reads the ports, and the flags of TCP.
#[inline(always)]
fn ports<B: Bytes>(bytes: &B, mut work: Work) -> Result<Work, Verdict> {
    let l4 = work.l4 as usize;
    // A length that says more than the frame holds would send a lie to the real server.
    if !bytes.holds((work.l3 as usize).wrapping_add(work.ip_len as usize)) {
        return Err(Verdict::DropBadLength);
    }
    let room = (work.ip_len as usize).wrapping_add(work.l3 as usize).wrapping_sub(l4);
    if work.key.protocol == u32::from(protocol::TCP) {
        let header = tcp::parse(bytes, l4).map_err(truncated)?;
        if header.header_len < tcp::HEADER_LEN || header.header_len > room {
            return Err(Verdict::DropBadLength);
        }
        work.key.client_port_be = header.source_be;
        work.key.virtual_port_be = header.destination_be;
        work.tcp_flags = u32::from(header.flags);
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
