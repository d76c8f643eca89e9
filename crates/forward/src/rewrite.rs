//! Changing the packet. Never sees tables.

use crate::Work;
use abi::{FlowKey, Real, protocol};
use wire::checksum::Change;
use wire::{Bytes, Short, ethernet, ipv4, ipv6, tcp};

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
    let (l3, l4) = (work.l3(), work.l4());
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
    translate_ports(bytes, l4, from, to, change)?;
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

/// Replaces the ports of a TCP or UDP header at `l4` and mends its checksum, for them and for the addresses.
///
/// # Errors
/// As for [`direct_routing`].
#[inline(always)]
pub fn translate_ports<B: Bytes>(
    bytes: &mut B,
    l4: usize,
    from: &FlowKey,
    to: &FlowKey,
    addresses: Change,
) -> Result<(), Short> {
    let change =
        addresses.half(from.client_port_be, to.client_port_be).half(from.virtual_port_be, to.virtual_port_be);
    tcp::set_ports(bytes, l4, to.client_port_be, to.virtual_port_be)?;
    if from.protocol == u32::from(protocol::TCP) {
        tcp::mend_checksum(bytes, l4, change)
    } else {
        tcp::mend_udp_checksum(bytes, l4, change)
    }
}
