//! Changing the packet. Never sees tables.

use crate::Work;
use abi::Real;
use wire::{Bytes, Short, ethernet, ipv4, ipv6};

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
