//! Packets that follow a flow which is not their own: ICMP errors, and the AH and ESP packets of IPsec, which go where the
//! key exchange of the same two addresses went.
//!
//! An ICMP error quotes the packet it is about. To the VIP, that is one that the real server sent from the VIP, so its
//! source and destination are those of the flow exchanged: the error is sent to the real server as any packet of the
//! flow, and the real server's stack finds the connection. It neither moves the flow's state nor restarts its timer, as in
//! IPVS [`ip_vs_core.c`, `ip_vs_in_icmp`]. To anybody else, it may be about a packet that was translated or tunnelled on its way
//! to the real server: [`crate::error()`] and [`crate::unwrap()`] find out.

use crate::decide::{Onward, Outcome};
use crate::deliver::send;
use crate::fragment::{leave_to_host, remember};
use crate::packet::{
    MARK_FROM_SERVER, MARK_ICMP_ERROR, MARK_NO_PORTS, MARK_OPENS, TRANSLATE_KEEPS_PORT, TRANSLATE_KNOWN,
    Unserved, Work, has_addresses, or_pass, truncated,
};
use crate::tables::Tables;
use abi::{
    Address, FLOW_KEEPS_PORT, FLOW_TRANSLATED, Flow, FlowKey, Program, REAL_AVAILABLE, SYSCTL_SCHEDULE_ICMP,
    Verdict, protocol,
};
use wire::{Bytes, icmp, ipv4, ipv6};

/// UDP port of the key exchange of IPsec (RFC 7296), as IPVS looks it up [`ip_vs_proto_ah_esp.c`].
const KEY_EXCHANGE_PORT: u16 = 500;

/// Serves a packet of another flow.
#[inline(always)]
pub fn related<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = serve(bytes, tables, work, now_ns);
    if let Err(Unserved::Stop(verdict)) = served
        && verdict.is_pass()
    {
        // Passed before the key of the flow took the place of the packet's own.
        leave_to_host(tables, work, now_ns);
    }
    Onward::of(tables, or_pass(work, served))
}

#[inline(always)]
fn serve<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    has_addresses(bytes)?;
    let v4 = work.key.virtual_address.is_v4();
    match work.key.protocol as u8 {
        protocol::ICMP if v4 => error(bytes, tables, work, now_ns),
        protocol::ICMPV6 if !v4 => error(bytes, tables, work, now_ns),
        protocol::AH | protocol::ESP => ipsec(bytes, tables, work, now_ns),
        _ => Err(other(work).into()),
    }
}

/// What is served by nobody here.
#[inline(always)]
const fn other(work: &Work) -> Verdict {
    if work.marks & MARK_FROM_SERVER != 0 { Verdict::PassNotVip } else { Verdict::PassProtocol }
}

/// An ICMP message.
#[inline(always)]
fn error<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    let l4 = work.l4();
    let v4 = work.key.virtual_address.is_v4();
    if work.room(l4) < icmp::HEADER_LEN {
        return Err(other(work).into());
    }
    let kind = icmp::kind(bytes, l4).map_err(truncated)?;
    if !(if v4 { icmp::is_error(kind) } else { icmp::is_error_v6(kind) }) {
        return Err(other(work).into());
    }
    let quote = quoted(bytes, work, l4.wrapping_add(icmp::HEADER_LEN))?;
    // What its reader did not send is no packet of ours: whoever sent the error made it up.
    if quote.virtual_address != work.key.virtual_address {
        return Err(Verdict::PassUnrelated.into());
    }
    if !has_ports(&quote) {
        return elsewhere(tables, work, &quote, Program::Unwrap, now_ns);
    }
    let found = if work.marks & MARK_FROM_SERVER == 0 { flow(tables, &quote, now_ns) } else { None };
    let Some((_, flow)) = found else {
        let may_be_request = work.marks & MARK_FROM_SERVER != 0 || tables.may_be_masqueraded(&quote.client);
        if may_be_request || !schedules(tables) {
            return elsewhere(tables, work, &quote, Program::Error, now_ns);
        }
        // The note of a first piece would be under the error's own addresses.
        work.key = quote;
        work.marks = MARK_ICMP_ERROR | MARK_OPENS;
        return Err(Unserved::Next(Program::Schedule));
    };
    translate(work, &flow);
    remember(tables, work, flow.real, now_ns);
    work.key = quote;
    work.marks = MARK_ICMP_ERROR;
    follow(bytes, tables, work, &flow)
}

/// An error that is about no reply: of a request, if anything.
#[inline(always)]
fn elsewhere<T: Tables>(
    tables: &T,
    work: &mut Work,
    quote: &FlowKey,
    program: Program,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    leave_to_host(tables, work, now_ns);
    work.key = *quote;
    work.marks = MARK_FROM_SERVER | MARK_ICMP_ERROR;
    Err(Unserved::Next(program))
}

#[inline(always)]
const fn has_ports(key: &FlowKey) -> bool {
    matches!(key.protocol as u8, protocol::TCP | protocol::UDP | protocol::SCTP)
}

/// The ends of the packet quoted at `offset`, exchanged, as those of the flow that it may be a reply of. Leaves in `work` where
/// its transport header is.
///
/// # Errors
/// The verdict, when it is cut before its ports, or is a later fragment.
#[inline(always)]
fn quoted<B: Bytes>(bytes: &B, work: &mut Work, offset: usize) -> Result<FlowKey, Verdict> {
    let (source, destination, protocol, l4) = if work.key.virtual_address.is_v4() {
        if work.room(offset) < ipv4::HEADER_LEN {
            return Err(Verdict::PassUnrelated);
        }
        let header = ipv4::Header::read(bytes, offset).map_err(truncated)?;
        let header_len = header.header_len();
        if header.version() != 4 || header_len < ipv4::HEADER_LEN || header.fragment_offset() != 0 {
            return Err(Verdict::PassUnrelated);
        }
        let l4 = offset.wrapping_add(header_len);
        (Address::v4(header.source()), Address::v4(header.destination()), header.protocol(), l4)
    } else {
        if work.room(offset) < ipv6::HEADER_LEN {
            return Err(Verdict::PassUnrelated);
        }
        let header = ipv6::Header::read(bytes, offset).map_err(truncated)?;
        if header.version() != 6 {
            return Err(Verdict::PassUnrelated);
        }
        let behind = offset.wrapping_add(ipv6::HEADER_LEN);
        let (protocol, l4) = quoted_transport(bytes, header.next_header(), behind)?;
        (Address(header.source()), Address(header.destination()), protocol, l4)
    };
    let wrapped = matches!(protocol, protocol::IPIP | protocol::IPV6 | protocol::GRE);
    let mut key = FlowKey {
        client: destination,
        virtual_address: source,
        client_port_be: 0,
        virtual_port_be: 0,
        protocol: u32::from(protocol),
    };
    if !(wrapped || has_ports(&key)) || work.room(l4) < 4 {
        return Err(Verdict::PassUnrelated);
    }
    if !wrapped {
        let [a, b, c, d] = bytes.get::<4>(l4).map_err(truncated)?;
        key.client_port_be = u16::from_ne_bytes([c, d]);
        key.virtual_port_be = u16::from_ne_bytes([a, b]);
    }
    work.quoted = l4 as u32;
    Ok(key)
}

/// Protocol and offset of the transport header of a quoted IPv6 packet.
#[inline(always)]
fn quoted_transport<B: Bytes>(bytes: &B, next: u8, offset: usize) -> Result<(u8, usize), Verdict> {
    match ipv6::transport(bytes, next, offset).map_err(truncated)? {
        ipv6::Chain::Transport { protocol, offset } => Ok((protocol, offset)),
        ipv6::Chain::Fragment { offset } => {
            let piece = ipv6::Piece::read(bytes, offset).map_err(truncated)?;
            let behind = offset.wrapping_add(ipv6::FRAGMENT_LEN);
            if piece.offset == 0 { Ok((piece.next, behind)) } else { Err(Verdict::PassUnrelated) }
        }
        ipv6::Chain::TooDeep => Err(Verdict::PassUnrelated),
    }
}

/// An AH or ESP packet to the VIP. Part of the key exchange's flow, so it restarts its timer.
#[inline(always)]
fn ipsec<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    work.marks |= MARK_NO_PORTS;
    if work.marks & MARK_FROM_SERVER != 0 {
        return Err(Unserved::Next(Program::Reply));
    }
    let exchange = exchange_of(&work.key);
    let (handle, mut flow) = flow(tables, &exchange, now_ns).ok_or(Verdict::PassUnrelated)?;
    let settings = tables.settings().ok_or(Verdict::DropInternal)?;
    translate(work, &flow);
    remember(tables, work, flow.real, now_ns);
    let served = follow(bytes, tables, work, &flow);
    let leaves = match served {
        Err(Unserved::Stop(verdict)) => verdict.is_forward(),
        Ok(_) | Err(Unserved::Next(_)) => true,
    };
    if leaves {
        flow.packets = flow.packets.saturating_add(1);
        flow.expires_ns = now_ns.wrapping_add(settings.udp_timeout_ns);
        tables.set_flow(handle, &flow);
    }
    served
}

/// The key exchange that an AH or ESP packet with these ends follows.
#[inline(always)]
pub(crate) const fn exchange_of(ends: &FlowKey) -> FlowKey {
    FlowKey {
        client_port_be: KEY_EXCHANGE_PORT.to_be(),
        virtual_port_be: KEY_EXCHANGE_PORT.to_be(),
        protocol: protocol::UDP as u32,
        ..*ends
    }
}

/// How the packet is translated. The way back is known to the flow's own packets.
#[inline(always)]
const fn translate(work: &mut Work, flow: &Flow) {
    if flow.flags & FLOW_TRANSLATED != 0 {
        let keeps_port = if flow.flags & FLOW_KEEPS_PORT != 0 { TRANSLATE_KEEPS_PORT } else { 0 };
        work.source_port_be = flow.source_port_be;
        work.translate = TRANSLATE_KNOWN | keeps_port;
    }
}

/// A flow that is not over.
#[inline(always)]
pub(crate) fn flow<T: Tables>(tables: &T, key: &FlowKey, now_ns: u64) -> Option<(T::Flow, Flow)> {
    let handle = tables.established(key).or_else(|| tables.embryonic(key))?;
    let flow = tables.flow(handle);
    (now_ns < flow.expires_ns).then_some((handle, flow))
}

/// Sends the packet to the real server of the flow.
#[inline(always)]
fn follow<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    flow: &Flow,
) -> Result<Outcome, Unserved> {
    let real = tables.real(flow.real).ok_or(Verdict::DropInternal)?;
    if real.flags & REAL_AVAILABLE == 0 {
        return Err(Verdict::DropRealGone.into());
    }
    work.real = flow.real;
    tables.count_in(flow.real, work.ip_len, false);
    send(bytes, tables, work, &real, Verdict::ForwardRelated)
}

/// Whether an ICMP error of no flow may open one (`schedule_icmp`).
#[inline(always)]
fn schedules<T: Tables>(tables: &T) -> bool {
    tables.settings().is_some_and(|settings| settings.sysctls.switches & SYSCTL_SCHEDULE_ICMP != 0)
}
