//! Whether a client may open a flow, for services that do not serve everybody any number of times.
//!
//! Known flows never come here: who is let in stays in, and the established hit pays nothing. What one client does is
//! remembered in tables that give up the least recently used entry, so a crowd of clients makes the limits forgetful, and nothing
//! else.

use crate::decide::{Onward, Outcome};
use crate::find;
use crate::packet::{MARK_ADMITTED, STALE_RESCUED, Unserved, Work, is_tcp};
use crate::place::may_open;
use crate::tables::Tables;
use abi::{
    ACCESS_BITS, ACCESS_DENY, AccessKey, Address, ClientKey, ClientLimits, Program, SERVICE_ADMITS,
    SERVICE_ALLOWS, SERVICE_ONE_PACKET, Service, Verdict,
};

const SECOND_NS: u64 = 1_000_000_000;

/// Whether a packet is to be looked at by [`admit`] before it is placed.
#[inline(always)]
pub(crate) fn is_due(service: &Service, work: &Work) -> bool {
    service.flags & SERVICE_ADMITS != 0 && work.marks & MARK_ADMITTED == 0
}

/// Lets a packet of no known flow go on to its service, or drops it.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = serve(tables, work, now_ns);
    Onward::of(tables, served)
}

#[inline(always)]
fn serve<T: Tables>(tables: &T, work: &mut Work, now_ns: u64) -> Result<Outcome, Unserved> {
    let Some(service) = find::service(tables, &work.key) else {
        return Err(Verdict::PassNoService.into());
    };
    if !is_let_in(tables, &service, &work.key.client) {
        return Err(Verdict::DropDenied.into());
    }
    // A packet that is served without a flow is no new connection, and a SYN that is rescued is none more.
    if may_open(tables, work) && work.stale & STALE_RESCUED == 0 {
        let limits = tables.client_limits(service.index);
        within(tables, &service, limits, work, now_ns)?;
    }
    work.marks |= MARK_ADMITTED;
    Err(Unserved::Next(Program::Schedule))
}

/// Whether the service serves this client at all: by the narrowest network that it is in, and where it is in none, unless
/// the service lets in by name only.
#[inline(always)]
fn is_let_in<T: Tables>(tables: &T, service: &Service, client: &Address) -> bool {
    let key = AccessKey { prefix_len: ACCESS_BITS, service: service.index, address: *client };
    match tables.access(&key) {
        0 => service.flags & SERVICE_ALLOWS == 0,
        access => access != ACCESS_DENY,
    }
}

/// Counts a new flow of a client, unless it is one too many.
#[inline(always)]
fn within<T: Tables>(
    tables: &T,
    service: &Service,
    limits: ClientLimits,
    work: &Work,
    now_ns: u64,
) -> Result<(), Verdict> {
    let key = ClientKey::new(service.index, &work.key.client);
    if limits.connections != 0 && tables.client_connections(&key) >= limits.connections.cast_signed() {
        return Err(Verdict::DropClientConnections);
    }
    if let Some(interval_ns) = SECOND_NS.checked_div(u64::from(limits.rate)) {
        // The generic cell rate algorithm (ITU-T I.371), with a second's worth of flows at once. Two CPUs may read the same time
        // and let one flow too many through.
        let due_ns = tables.client_due_ns(&key).max(now_ns);
        if due_ns.wrapping_sub(now_ns).wrapping_add(interval_ns) > SECOND_NS {
            return Err(Verdict::DropClientRate);
        }
        tables.set_client_due_ns(&key, due_ns.wrapping_add(interval_ns));
    }
    let untracked = service.flags & SERVICE_ONE_PACKET != 0 && !is_tcp(&work.key);
    if limits.connections != 0 && !untracked {
        tables.add_client_connection(&key);
    }
    Ok(())
}

/// A connection of a client has ended, as far as it counts.
#[inline(always)]
pub(crate) fn end<T: Tables>(tables: &T, service: u32, client: &Address) {
    tables.end_client_connection(&ClientKey::new(service, client));
}
