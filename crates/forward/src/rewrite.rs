//! Changing the packet. Never sees tables.

use crate::Work;
use abi::{METHOD_DIRECT_ROUTING, REAL_RESOLVED, Real, Verdict};
use wire::{Bytes, Short, ethernet, ipv4, ipv6};

/// Makes the packet one for the real server.
///
/// # Errors
/// The verdict, when it cannot be sent; the packet is then as it was.
#[inline(always)]
pub fn rewrite<B: Bytes>(bytes: &mut B, work: &Work, real: &Real) -> Result<(), Verdict> {
    if real.method != METHOD_DIRECT_ROUTING {
        return Err(Verdict::DropMethod);
    }
    if real.flags & REAL_RESOLVED == 0 {
        return Err(Verdict::DropUnresolved);
    }
    direct_routing(bytes, work, real).map_err(|Short| Verdict::DropTruncated)
}

/// Direct routing: the frame goes to the real server's MAC, unchanged but for the TTL. VLAN tags stay: the
/// real server is in the VLAN that the packet came by.
#[inline(always)]
fn direct_routing<B: Bytes>(bytes: &mut B, work: &Work, real: &Real) -> Result<(), Short> {
    let l3 = work.l3();
    if work.key.virtual_address.is_v4() {
        ipv4::decrement_ttl(bytes, l3)?;
    } else {
        ipv6::decrement_hop_limit(bytes, l3)?;
    }
    ethernet::set_addresses(bytes, real.macs)
}
