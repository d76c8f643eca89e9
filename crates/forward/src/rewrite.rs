//! Changing the packet. Never sees tables.

use crate::Work;
use crate::packet::{MARK_FIRST_PIECE, MARK_LATER_PIECE, MARK_NO_PORTS, is_sctp, is_tcp};
use abi::{FlowKey, Real};
use wire::checksum::Change;
use wire::{Bytes, Short, ethernet, icmp, ipv4, ipv6, sctp, tcp};

/// Direct routing: the frame goes to the real server's MAC, unchanged but for the TTL. VLAN tags stay: the
/// real server is in the VLAN that the packet came by.
///
/// # Errors
/// [`Short`] when the frame ends inside its headers; what was written until then stays.
#[inline(always)]
pub fn direct_routing<B: Bytes>(bytes: &mut B, work: &Work, real: &Real) -> Result<(), Short> {
    let l3 = work.l3();
    if work.key.virtual_address.is_v4() {
        ipv4::decrement_ttl(bytes, l3)?;
    } else {
        ipv6::decrement_hop_limit(bytes, l3)?;
    }
    ethernet::set_addresses(bytes, real.macs)
}

/// Translation: the packet gets the ends `to` in place of those in `work.key`, one hop less, and the first twelve bytes
/// `macs`. Both keys are read as the packet goes: `client` is its source.
///
/// # Errors
/// As for [`direct_routing`].
#[inline(always)]
pub fn translate<B: Bytes>(bytes: &mut B, work: &Work, to: &FlowKey, macs: [u32; 3]) -> Result<(), Short> {
    let l3 = work.l3();
    let from = &work.key;
    let change = if from.virtual_address.is_v4() {
        let ([.., source], [.., destination]) = (to.client.0, to.virtual_address.0);
        let change = address_change(from, to);
        ipv4::decrement_ttl_and(bytes, l3, change)?;
        ipv4::set_addresses(bytes, l3, [source, destination])?;
        change
    } else {
        let ([a, b, c, d], [e, f, g, h]) = (to.client.0, to.virtual_address.0);
        ipv6::decrement_hop_limit(bytes, l3)?;
        ipv6::set_addresses(bytes, l3, [a, b, c, d, e, f, g, h])?;
        address_change(from, to)
    };
    if has_ports(work) {
        translate_ports(bytes, work, to, change)?;
    }
    ethernet::set_addresses(bytes, macs)
}

/// What other addresses do to a checksum that covers them. In the form that IPv4 addresses are held in, all words but
/// the last are the same in both.
#[inline(always)]
pub fn address_change(from: &FlowKey, to: &FlowKey) -> Change {
    if from.virtual_address.is_v4() {
        let ([.., a], [.., b]) = (from.client.0, from.virtual_address.0);
        let ([.., c], [.., d]) = (to.client.0, to.virtual_address.0);
        Change::NONE.word(a, c).word(b, d)
    } else {
        Change::NONE.words(from.client.0, to.client.0).words(from.virtual_address.0, to.virtual_address.0)
    }
}

/// Whether the packet has the ports of its flow in a header of its own.
#[inline(always)]
const fn has_ports(work: &Work) -> bool {
    work.marks & (MARK_LATER_PIECE | MARK_NO_PORTS) == 0
}

/// Whether the packet can get these ends. The checksum of SCTP tells how long the packet is, and a piece does not.
#[inline(always)]
#[must_use]
pub const fn is_translatable(work: &Work, to: &FlowKey) -> bool {
    let from = &work.key;
    let same_ports = from.client_port_be == to.client_port_be && from.virtual_port_be == to.virtual_port_be;
    !is_sctp(from) || same_ports || work.marks & MARK_FIRST_PIECE == 0
}

/// Replaces the ports of the transport header and mends its checksum, for them and for the addresses.
#[inline(always)]
fn translate_ports<B: Bytes>(
    bytes: &mut B,
    work: &Work,
    to: &FlowKey,
    addresses: Change,
) -> Result<(), Short> {
    let (from, l4) = (&work.key, work.l4());
    if is_sctp(from) {
        let len = work.room(l4) as u32;
        return sctp::set_ports(bytes, l4, len, to.client_port_be, to.virtual_port_be);
    }
    let change =
        addresses.half(from.client_port_be, to.client_port_be).half(from.virtual_port_be, to.virtual_port_be);
    tcp::set_ports(bytes, l4, to.client_port_be, to.virtual_port_be)?;
    if is_tcp(from) {
        tcp::mend_checksum(bytes, l4, change)
    } else {
        tcp::mend_udp_checksum(bytes, l4, change)
    }
}

/// Translation of an ICMP error: the packet goes between the addresses of `outer`, and the one that it quotes between the
/// ends of `quoted`; one hop less, and the first twelve bytes are `macs`. Of the quoted transport header only the ports
/// change, as in IPVS: its checksum may not be there.
///
/// # Errors
/// As for [`direct_routing`].
#[inline(always)]
pub fn translate_error<B: Bytes>(
    bytes: &mut B,
    work: &Work,
    outer: &FlowKey,
    quoted: &FlowKey,
    macs: [u32; 3],
) -> Result<(), Short> {
    let (l3, l4) = (work.l3(), work.l4());
    let at = l4.wrapping_add(icmp::HEADER_LEN);
    let change = if outer.virtual_address.is_v4() {
        let ([.., source], [.., destination]) = (outer.client.0, outer.virtual_address.0);
        ipv4::translate(bytes, l3, [source, destination], 1)?;
        let ([.., source], [.., destination]) = (quoted.client.0, quoted.virtual_address.0);
        ipv4::translate(bytes, at, [source, destination], 0)?
    } else {
        let ([a, b, c, d], [e, f, g, h]) = (outer.client.0, outer.virtual_address.0);
        ipv6::decrement_hop_limit(bytes, l3)?;
        let outside = ipv6::translate(bytes, l3, [a, b, c, d, e, f, g, h])?;
        let ([a, b, c, d], [e, f, g, h]) = (quoted.client.0, quoted.virtual_address.0);
        outside.and(ipv6::translate(bytes, at, [a, b, c, d, e, f, g, h])?)
    };
    let ports = work.quoted();
    let [a, b, c, d] = bytes.get::<4>(ports)?;
    let change = change
        .half(u16::from_ne_bytes([a, b]), quoted.client_port_be)
        .half(u16::from_ne_bytes([c, d]), quoted.virtual_port_be);
    tcp::set_ports(bytes, ports, quoted.client_port_be, quoted.virtual_port_be)?;
    icmp::mend_checksum(bytes, l4, change)?;
    ethernet::set_addresses(bytes, macs)
}
