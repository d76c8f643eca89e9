//! ICMP errors about packets of translated flows [`ip_vs_core.c`, `ip_vs_nat_icmp`]: both the error and the packet it quotes
//! get the ends that their reader knows.
//!
//! Towards the real server the error is about a reply, which the server sent from its own address. Towards the client it
//! is about a request, which the client sent to the VIP; the error comes from the VIP then, whoever found it.
//! Neither moves the flow's state nor restarts its timer.

use crate::decide::{Onward, Outcome};
use crate::deliver::leave;
use crate::masquerade::{keep_way_back, real_side};
use crate::packet::{MARK_FROM_SERVER, TRANSLATE_KEEPS_PORT, Unserved, Work, has_addresses, truncated};
use crate::reply::{Found, find, next_hop, turned};
use crate::rewrite;
use crate::tables::Tables;
use abi::{Failure, FlowKey, Program, REAL_AVAILABLE, Verdict, protocol};
use wire::{Bytes, icmp, ipv4, ipv6};

/// Translates an ICMP error: to the real server if one was found for it, else to the client if it is about a request.
#[inline(always)]
pub fn error<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    if work.marks & MARK_FROM_SERVER != 0 {
        let served = to_client(bytes, tables, work, now_ns);
        return Onward::of(tables, served);
    }
    match to_server(bytes, tables, work) {
        Ok(ifindex) => Onward::Done(leave(tables, work, ifindex)),
        Err(verdict) => {
            tables.take_back_known();
            Onward::Done(Outcome::count(tables, verdict))
        }
    }
}

/// `work.key` is that of the flow, and the packet was counted for its real server.
#[inline(always)]
fn to_server<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &Work) -> Result<u32, Verdict> {
    has_addresses(bytes)?;
    let real = tables.real(work.real).ok_or(Verdict::DropInternal)?;
    let keeps_port = work.translate & TRANSLATE_KEEPS_PORT != 0;
    let to = real_side(&work.key, &real, work.source_port_be, keeps_port);
    keep_way_back(bytes, tables, work, &to).map_err(truncated)?;
    let outer = FlowKey { virtual_address: real.address, ..outer(bytes, work)? };
    rewrite::translate_error(bytes, work, &outer, &turned(&to), real.macs).map_err(truncated)?;
    Ok(real.ifindex)
}

/// `work.key` has the ends of the quoted packet exchanged: those of a reply.
#[inline(always)]
fn to_client<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    has_addresses(bytes)?;
    let Some(found) = find(tables, &work.key, now_ns) else {
        // A tunnel by UDP is looked for last: a flow of the same ends is commoner.
        let udp = work.key.protocol == u32::from(protocol::UDP);
        return Err(if udp { Unserved::Next(Program::Unwrap) } else { Verdict::PassUnrelated.into() });
    };
    if work.ttl <= 1 {
        return Err(Verdict::DropUnanswered.into());
    }
    Ok(send(bytes, tables, work, &found)?)
}

#[inline(always)]
fn send<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &Work,
    found: &Found<T::Flow>,
) -> Result<Outcome, Verdict> {
    let outer = FlowKey {
        client: found.key.virtual_address,
        virtual_address: found.key.client,
        protocol: icmp_of(&found.key),
        ..FlowKey::default()
    };
    let [kind, code] = bytes.get::<2>(work.l4()).map_err(truncated)?;
    if is_unreachable(&found.key, kind, code) {
        tables.count_failure(found.flow.real, Failure::Unreachable);
    }
    let (ifindex, macs) = next_hop(tables, bytes.ingress(), &outer, work, &found.way)?;
    rewrite::translate_error(bytes, work, &outer, &found.key, macs).map_err(truncated)?;
    if tables.real(found.flow.real).is_some_and(|real| real.flags & REAL_AVAILABLE != 0) {
        tables.count_out(found.flow.real, work.ip_len);
    }
    Ok(Outcome::leave(tables, Verdict::ForwardError, ifindex))
}

/// Whether an ICMP error about a packet of this flow says that it cannot be delivered, whatever its size.
#[inline(always)]
pub(crate) fn is_unreachable(key: &FlowKey, kind: u8, code: u8) -> bool {
    if key.virtual_address.is_v4() {
        kind == icmp::UNREACHABLE && code != icmp::FRAGMENTATION_NEEDED
    } else {
        kind == icmp::V6_UNREACHABLE
    }
}

/// The addresses that the error goes between.
#[inline(always)]
fn outer<B: Bytes>(bytes: &B, work: &Work) -> Result<FlowKey, Verdict> {
    let (client, virtual_address) = if work.key.virtual_address.is_v4() {
        let header = ipv4::Header::read(bytes, work.l3()).map_err(truncated)?;
        (abi::Address::v4(header.source()), abi::Address::v4(header.destination()))
    } else {
        let header = ipv6::Header::read(bytes, work.l3()).map_err(truncated)?;
        (abi::Address(header.source()), abi::Address(header.destination()))
    };
    Ok(FlowKey { client, virtual_address, ..FlowKey::default() })
}

/// The ICMP of the flow's family.
#[inline(always)]
pub(crate) const fn icmp_of(key: &FlowKey) -> u32 {
    (if key.virtual_address.is_v4() { protocol::ICMP } else { protocol::ICMPV6 }) as u32
}
