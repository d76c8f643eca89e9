//! Masquerading (NAT), the way to the real server: the packet's destination becomes the real server.
//!
//! The way back of the replies is kept here and not where the flow is opened or promoted: only here all of it is
//! known, and a lost entry of an embryonic flow is made anew by its next packet. It is removed by user space, after its
//! flow: one that is left over leads to no flow, or to one of another real server, and counts as absent. The way
//! back is in [`crate::reply()`].

use crate::decide::Step;
use crate::deliver::leave;
use crate::packet::{TRANSLATE_ESTABLISHED, TRANSLATE_KEEPS_PORT, TRANSLATE_KNOWN, Work, truncated};
use crate::rewrite;
use crate::tables::Tables;
use abi::{FlowKey, Real, Reply, Verdict};
use wire::{Bytes, Short};

/// Sends a packet that was counted for its real server to it.
#[inline(always)]
pub fn masquerade<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &Work) -> Step {
    match send(bytes, tables, work) {
        Ok(ifindex) => Step::Done(leave(tables, work, ifindex)),
        Err(verdict) => {
            tables.take_back_known();
            Step::stop(tables, verdict)
        }
    }
}

#[inline(always)]
fn send<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &Work) -> Result<u32, Verdict> {
    let real = tables.real(work.real).ok_or(Verdict::DropInternal)?;
    let keeps_port = work.translate & TRANSLATE_KEEPS_PORT != 0;
    let to = real_side(&work.key, &real, work.source_port_be, keeps_port);
    if !rewrite::is_translatable(work, &to) {
        return Err(Verdict::DropMethod);
    }
    keep_way_back(bytes, tables, work, &to).map_err(truncated)?;
    rewrite::translate(bytes, work, &to, real.macs).map_err(truncated)?;
    Ok(real.ifindex)
}

/// A flow as its real server sees it: the ends of the packets that go there, and the key of their replies. A real
/// server without a port keeps the packet's, and so does a flow that says so (`FLOW_KEEPS_PORT`).
#[inline(always)]
#[must_use]
pub fn real_side(key: &FlowKey, real: &Real, source_port_be: u16, keeps_port: bool) -> FlowKey {
    let virtual_port_be = if real.port_be == 0 || keeps_port { key.virtual_port_be } else { real.port_be };
    let (client, client_port_be) =
        if source_port_be == 0 { (key.client, key.client_port_be) } else { (real.source, source_port_be) };
    FlowKey { client, virtual_address: real.address, client_port_be, virtual_port_be, protocol: key.protocol }
}

/// What the replies need to know, read off a packet from the client.
#[inline(always)]
pub(crate) fn way_back<B: Bytes>(bytes: &B, work: &Work) -> Result<Reply, Short> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes.get::<12>(0)?;
    Ok(Reply {
        client: work.key.client,
        virtual_address: work.key.virtual_address,
        client_port_be: work.key.client_port_be,
        virtual_port_be: work.key.virtual_port_be,
        real: work.real,
        ifindex: bytes.ingress(),
        macs: Real::macs_of([g, h, i, j, k, l], [a, b, c, d, e, f]),
    })
}

/// Where the way back is to be kept.
#[inline(always)]
const fn way_back_of(work: &Work) -> u32 {
    work.translate & !TRANSLATE_KEEPS_PORT
}

/// Keeps the way back of a flow whose real server sees `to`, where it is not known yet.
#[inline(always)]
pub(crate) fn keep_way_back<B: Bytes, T: Tables>(
    bytes: &B,
    tables: &T,
    work: &Work,
    to: &FlowKey,
) -> Result<(), Short> {
    if way_back_of(work) != TRANSLATE_KNOWN {
        let reply = way_back(bytes, work)?;
        keep(tables, work, to, &reply);
    }
    Ok(())
}

/// Keeps the way back where the flow is. One that the established table refuses stays with the embryonic ones.
#[inline(always)]
fn keep<T: Tables>(tables: &T, work: &Work, key: &FlowKey, reply: &Reply) {
    if way_back_of(work) == TRANSLATE_ESTABLISHED && tables.insert_reply(key, reply) {
        tables.remove_embryonic_reply(key);
    } else {
        tables.insert_embryonic_reply(key, reply);
    }
}
