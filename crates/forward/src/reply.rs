//! Masquerading (NAT), the way back: a real server's packet gets the VIP as its source and goes to the client.
//!
//! The entry sends here what is for no VIP but comes from an address that may be a masqueraded real server. Most of it
//! may be none of ours: the director stays an ordinary router for it.

use crate::admit;
use crate::decide::{Onward, Outcome, Step};
use crate::enter::{advance_output, shift};
use crate::fragment::{note, remember_reply};
use crate::packet::{MARK_NO_PORTS, MARK_NO_REPLY, Unserved, Work, has_addresses, is_tcp, truncated};
use crate::persist::mark_assured;
use crate::related::exchange_of;
use crate::rewrite;
use crate::tables::{Route, Tables};
use abi::{
    Address, FLOW_CONTROLLED, FLOW_INACTIVE, FLOW_TRANSLATED, Failure, Flow, FlowKey, Program,
    REAL_AVAILABLE, Reply, TcpState, Verdict,
};
use wire::Bytes;
use wire::tcp::RST;

/// Translates a real server's packet, if it belongs to a flow.
#[inline(always)]
pub fn reply<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &mut Work, now_ns: u64) -> Onward {
    let served = serve(bytes, tables, work, now_ns);
    if served.is_ok() {
        tables.count_verdict(Verdict::ForwardReply);
    }
    Onward::of(tables, served)
}

#[inline(always)]
fn serve<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &mut Work,
    now_ns: u64,
) -> Result<Outcome, Unserved> {
    has_addresses(bytes)?;
    let ends = if work.marks & MARK_NO_PORTS != 0 { exchange_of(&work.key) } else { work.key };
    let Some(found) = find(tables, &ends, now_ns) else {
        // A real server may be a client of a VIP as well.
        if tables.may_be_vip(&work.key.virtual_address) && work.marks & MARK_NO_REPLY == 0 {
            work.marks |= MARK_NO_REPLY;
            return Err(Unserved::Next(Program::Schedule));
        }
        return Err(Verdict::PassNoReply.into());
    };
    if work.ttl <= 1 {
        // From the director's address on that way; where it is not known from the VIP, which is the director's too.
        let source = tables.real(found.flow.real).map(|real| real.source).unwrap_or_default();
        let is_known = source != Address([0; 4]);
        work.key.virtual_address = if is_known { source } else { found.way.virtual_address };
        work.verdict = Verdict::AnswerTimeExceeded as u8;
        return Err(Unserved::Next(Program::Answer));
    }
    Ok(send(bytes, tables, work, &found, now_ns)?)
}

/// The flow that a real server's packet belongs to.
pub struct Found<F> {
    /// Where it goes.
    pub way: Reply,
    /// Key of the flow.
    pub key: FlowKey,
    /// Its place.
    pub handle: F,
    /// What is known about it.
    pub flow: Flow,
}

/// The flow that a packet with these ends belongs to, read as they stand: `client` is the source.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, ends: &FlowKey, now_ns: u64) -> Option<Found<T::Flow>> {
    let way = tables.reply(&turned(ends))?;
    let key = way.flow_key(ends.protocol);
    let handle = tables.established(&key).or_else(|| tables.embryonic(&key))?;
    let flow = tables.flow(handle);
    let is_its = flow.flags & FLOW_TRANSLATED != 0 && flow.real == way.real && now_ns < flow.expires_ns;
    is_its.then_some(Found { way, key, handle, flow })
}

/// The same ends seen from the other side.
#[inline(always)]
#[must_use]
pub const fn turned(ends: &FlowKey) -> FlowKey {
    FlowKey {
        client: ends.virtual_address,
        virtual_address: ends.client,
        client_port_be: ends.virtual_port_be,
        virtual_port_be: ends.client_port_be,
        protocol: ends.protocol,
    }
}

#[inline(always)]
fn send<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &Work,
    found: &Found<T::Flow>,
    now_ns: u64,
) -> Result<Outcome, Verdict> {
    let settings = tables.settings().ok_or(Verdict::DropInternal)?;
    let mut flow = found.flow;
    advance_output::<false>(&mut flow, work, settings, now_ns);
    tables.set_flow(found.handle, &flow);
    if (flow.flags ^ found.flow.flags) & FLOW_INACTIVE != 0 {
        tables.add_load(flow.real, shift(&flow));
        let counts = flow.flags & FLOW_INACTIVE != 0;
        if let Some(real) = tables.real(flow.real).filter(|real| counts && real.counts_clients != 0) {
            admit::end(tables, real.service, &found.key.client);
        }
    }
    if is_refused(&found.flow, work) {
        tables.count_failure(flow.real, Failure::Refused);
    }
    // Of a connection, the packet that establishes it says so (here or in `assure`); of datagrams, each that comes back.
    let established = TcpState::Established as u8;
    let assures = !is_tcp(&work.key) || (flow.state == established && found.flow.state != established);
    if flow.flags & FLOW_CONTROLLED != 0 && assures {
        mark_assured(tables, &found.key, flow.real);
    }
    let to = turned(&found.key);
    if !rewrite::is_translatable(work, &to) {
        return Err(Verdict::DropMethod);
    }
    remember_reply(tables, work, &found.way, now_ns);
    go(bytes, tables, work, &to, &found.way)
}

/// Whether a real server's packet refuses the connection that its flow, as it was before, was to be.
#[inline(always)]
fn is_refused(before: &Flow, work: &Work) -> bool {
    is_tcp(&work.key) && before.state == TcpState::SynRecv as u8 && work.tcp_flags as u8 & RST != 0
}

/// Translates a later piece of a real server's packet as its first one.
#[inline(always)]
pub fn reply_piece<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &Work, now_ns: u64) -> Step {
    match later(bytes, tables, work, now_ns) {
        Ok(outcome) => {
            tables.count_verdict(outcome.verdict);
            Step::Done(outcome)
        }
        Err(verdict) => Step::stop(tables, verdict),
    }
}

#[inline(always)]
fn later<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &Work,
    now_ns: u64,
) -> Result<Outcome, Verdict> {
    has_addresses(bytes)?;
    let note = note(tables, work, now_ns).ok_or(Verdict::PassNoReply)?;
    if work.ttl <= 1 {
        return Err(Verdict::DropUnanswered);
    }
    let to = turned(&note.reply.flow_key(work.key.protocol));
    go(bytes, tables, work, &to, &note.reply)
}

#[inline(always)]
fn go<B: Bytes, T: Tables>(
    bytes: &mut B,
    tables: &T,
    work: &Work,
    to: &FlowKey,
    way: &Reply,
) -> Result<Outcome, Verdict> {
    let (ifindex, macs) = next_hop(tables, bytes.ingress(), to, work, way)?;
    rewrite::translate(bytes, work, to, macs).map_err(truncated)?;
    // Replies of a removed real server go on but are not counted, as in IPVS.
    if tables.real(way.real).is_some_and(|real| real.flags & REAL_AVAILABLE != 0) {
        tables.count_out(way.real, work.ip_len);
    }
    Ok(Outcome { verdict: Verdict::ForwardReply, ifindex })
}

/// Where a packet to the client leaves: as the routing table says, and where that knows nothing, where the client's
/// packets came from.
#[inline(always)]
pub fn next_hop<T: Tables>(
    tables: &T,
    ingress: u32,
    to: &FlowKey,
    work: &Work,
    way: &Reply,
) -> Result<(u32, [u32; 3]), Verdict> {
    match tables.route(ingress, to, work.ip_len) {
        Route::Known { ifindex, macs } => Ok((ifindex, macs)),
        Route::Unknown if way.ifindex != 0 => Ok((way.ifindex, way.macs)),
        Route::Unknown | Route::Refused => Err(Verdict::DropNoRoute),
    }
}
