//! From bytes to the few facts that decisions need.

use abi::{Address, FlowKey, Program, Verdict, protocol};
use bytemuck::{Pod, Zeroable};
use wire::{Bytes, Short, ethernet, ipv4, ipv6, tcp};

/// The parsed packet and what was found out about it so far. Plain data: the eBPF programs hand it from one
/// to the next in a per-CPU map.
///
/// What starts as zero stands in aligned pairs of eight bytes, with something else between any two pairs. The compiler clears a
/// pair with one store, which the verifier wants aligned on the stack; of two neighbouring pairs it makes a call of `memset`,
/// which takes a known flow five instructions a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Work {
    /// Identity of its flow.
    pub key: FlowKey,
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
    /// Length from the network header on, in bytes.
    pub ip_len: u32,
    /// Offset of the network header.
    pub l3: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// `MARK_*` bits; none of them for what the entry serves itself.
    pub marks: u32,
    /// Identification of the datagram that the packet is a piece of.
    pub identification: u32,
    /// Flag byte of the TCP header; of SCTP, the number of the [`crate::sctp_state::Event`]; or 0.
    pub tcp_flags: u32,
    /// TTL or hop limit as received.
    pub ttl: u32,
    /// `TRANSLATE_*`: whether the packet's flow is translated, and where the way back is to be kept.
    pub translate: u32,
    /// Of an ICMP error, the offset of what follows the network header that it quotes.
    pub quoted: u32,
}

/// The packet is the first piece of a fragmented datagram.
pub const MARK_FIRST_PIECE: u32 = 1;
/// The packet is a later piece: there is no transport header in it.
pub const MARK_LATER_PIECE: u32 = 2;
/// The packet is an ICMP error about its flow: ports stand in the quoted header only.
pub const MARK_ICMP_ERROR: u32 = 4;
/// Whatever its flags, the packet may open a flow.
pub const MARK_OPENS: u32 = 8;
/// The packet has no ports of its own, but those of the flow it follows.
pub const MARK_NO_PORTS: u32 = 32;
/// The packet is for no VIP: it comes from a real server, or is none of ours.
pub const MARK_FROM_SERVER: u32 = 64;
/// It comes from an address that may be a masqueraded real server's, but is no reply.
pub const MARK_NO_REPLY: u32 = 16;
/// Its client was let in to its service.
pub const MARK_ADMITTED: u32 = 128;

impl Work {
    /// Offset of the network header. It is at most 22; the mask says so to the verifier, which cannot know
    /// it of a number that came through memory.
    #[inline(always)]
    #[must_use]
    pub const fn l3(&self) -> usize {
        (self.l3 & 31) as usize
    }

    /// Offset of the transport header, or of the fragment header of a piece. Six extension headers of 2,056 bytes
    /// behind the longest link and network headers end below the mask.
    #[inline(always)]
    #[must_use]
    pub const fn l4(&self) -> usize {
        (self.l4 & 0x3fff) as usize
    }

    /// Offset of what follows the quoted network header; masked for the same reason.
    #[inline(always)]
    #[must_use]
    pub const fn quoted(&self) -> usize {
        (self.quoted & 0x7fff) as usize
    }

    /// Bytes of the IP packet from `offset` of the frame on.
    #[inline(always)]
    #[must_use]
    pub const fn room(&self, offset: usize) -> usize {
        (self.ip_len as usize).wrapping_add(self.l3()).saturating_sub(offset)
    }
}

/// The embryonic table has a finished flow with this key.
pub const STALE_EMBRYONIC: u8 = 1;
/// The established table has a finished flow with this key.
pub const STALE_ESTABLISHED: u8 = 2;
/// Set beside: the flow's real server, `Work::real`, did not answer; another one is to be chosen.
pub const STALE_RESCUED: u8 = 4;
/// Set beside: `Work::real` was chosen already, by its service's memory of destinations; the client's template is to follow.
pub const STALE_CHOSEN: u8 = 8;

/// The flow is not translated.
pub const TRANSLATE_NOT: u32 = 0;
/// It is, and the way back is known.
pub const TRANSLATE_KNOWN: u32 = 1;
/// It is, and the way back goes to the embryonic replies.
pub const TRANSLATE_EMBRYONIC: u32 = 2;
/// It is, and the way back moves to the established replies.
pub const TRANSLATE_ESTABLISHED: u32 = 3;
/// Set beside: the real server gets the packet at the port that the client wrote to, whatever its own is.
pub const TRANSLATE_KEEPS_PORT: u32 = 4;

/// A network header as read, before it is checked. Two types and not one with two cases: everything behind
/// is then compiled for each family alone, which is a third of the cost of a packet.
pub trait Network: Copy {
    /// Reads the fixed part at `l3`.
    ///
    /// # Errors
    /// [`Short`] when the frame ends inside it.
    fn read<B: Bytes>(bytes: &B, l3: usize) -> Result<Self, Short>;

    /// Where the packet comes from.
    fn source(&self) -> Address;

    /// Where the packet goes.
    fn destination(&self) -> Address;

    /// Whether ICMP follows at once.
    fn is_icmp(&self) -> bool;

    /// Checks the header: addresses, lengths and offsets.
    ///
    /// # Errors
    /// The verdict, when the packet cannot be balanced.
    fn check<B: Bytes>(&self, bytes: &B, l3: usize) -> Result<Work, Verdict>;

    /// Whether what was found out so far is about a piece of a datagram.
    fn is_piece(&self, work: &Work) -> bool;
}

/// Reads the transport header. The program that serves the packet, if that is not the entry. In place: a value with both is
/// put together anew on each way that leads here.
///
/// # Errors
/// As for [`Network::check`].
#[inline(always)]
pub fn transport<B: Bytes, N: Network>(
    bytes: &B,
    network: &N,
    work: &mut Work,
) -> Result<Option<Program>, Verdict> {
    if network.is_piece(work) { Ok(Some(Program::Fragment)) } else { ports(bytes, work) }
}

/// Why a program does not serve a packet itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// It cannot be balanced.
    Stop(Verdict),
    /// Another program can.
    Next(Program),
}

impl From<Verdict> for Unserved {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Stop(verdict)
    }
}

/// What cannot be read and is for no VIP is no reply, and none of ours.
#[inline(always)]
pub fn or_pass<T>(work: &Work, served: Result<T, Unserved>) -> Result<T, Unserved> {
    match served {
        Err(Unserved::Stop(verdict)) if work.marks & MARK_FROM_SERVER != 0 => {
            let other = verdict.is_pass() && verdict != Verdict::PassFragmentLost;
            Err(Unserved::Stop(if other { verdict } else { Verdict::PassNoReply }))
        }
        other => other,
    }
}

/// Whether the flow is a TCP connection.
#[inline(always)]
#[must_use]
pub const fn is_tcp(key: &FlowKey) -> bool {
    key.protocol == protocol::TCP as u32
}

/// Whether the flow is an SCTP association.
#[inline(always)]
#[must_use]
pub const fn is_sctp(key: &FlowKey) -> bool {
    key.protocol == protocol::SCTP as u32
}

/// Checks that the frame has the hardware addresses that are replaced at the end. The entry has read them; but once a
/// program behind it has read a later byte, the compiler knows that they are there and drops the check when they are
/// written, which the verifier wants to see.
///
/// # Errors
/// The verdict, when it has not.
#[inline(always)]
pub fn has_addresses<B: Bytes>(bytes: &B) -> Result<(), Verdict> {
    bytes.get::<12>(0).map(|_| ()).map_err(truncated)
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
    fn source(&self) -> Address {
        Address::v4(self.source())
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address::v4(self.destination())
    }

    #[inline(always)]
    fn is_icmp(&self) -> bool {
        self.protocol() == protocol::ICMP
    }

    #[inline(always)]
    fn check<B: Bytes>(&self, bytes: &B, l3: usize) -> Result<Work, Verdict> {
        let header_len = self.header_len();
        let ip_len = u32::from(self.total_len());
        if self.version() != 4 || header_len < ipv4::HEADER_LEN || (ip_len as usize) < header_len {
            return Err(Verdict::DropBadLength);
        }
        let l4 = l3.wrapping_add(header_len);
        if l4 > bytes.len() {
            return Err(Verdict::DropTruncated);
        }
        let key = key(Address::v4(self.source()), Address::v4(self.destination()), self.protocol());
        Ok(work(key, ip_len, l3, l4, self.ttl()))
    }

    #[inline(always)]
    fn is_piece(&self, _work: &Work) -> bool {
        self.is_fragment()
    }
}

impl Network for ipv6::Header {
    #[inline(always)]
    fn read<B: Bytes>(bytes: &B, l3: usize) -> Result<Self, Short> {
        Self::read(bytes, l3)
    }

    #[inline(always)]
    fn source(&self) -> Address {
        Address(self.source())
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address(self.destination())
    }

    #[inline(always)]
    fn is_icmp(&self) -> bool {
        self.next_header() == protocol::ICMPV6
    }

    #[inline(always)]
    fn check<B: Bytes>(&self, bytes: &B, l3: usize) -> Result<Work, Verdict> {
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
        let (protocol, offset) = match ipv6::transport(bytes, self.next_header(), first).map_err(truncated)? {
            ipv6::Chain::Transport { protocol, offset } => (protocol, offset),
            ipv6::Chain::Fragment { offset } => (ipv6::NEXT_FRAGMENT, offset),
            ipv6::Chain::TooDeep => return Err(Verdict::PassTooDeep),
        };
        if protocol != ipv6::NEXT_FRAGMENT && offset.wrapping_sub(l3) > ip_len as usize {
            return Err(Verdict::DropBadLength);
        }
        Ok(work(key(source, destination, protocol), ip_len, l3, offset, self.hop_limit()))
    }

    #[inline(always)]
    fn is_piece(&self, work: &Work) -> bool {
        work.key.protocol == u32::from(ipv6::NEXT_FRAGMENT)
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

/// Nothing read yet.
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
    marks: 0,
    identification: 0,
    translate: TRANSLATE_NOT,
    quoted: 0,
};

/// Reads the ports, and the flags of TCP.
#[inline(always)]
fn ports<B: Bytes>(bytes: &B, work: &mut Work) -> Result<Option<Program>, Verdict> {
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
    } else if work.key.protocol == u32::from(protocol::SCTP) {
        return Ok(Some(Program::Sctp));
    } else {
        return Ok(Some(Program::Related));
    }
    Ok(None)
}
