//! The ways back of translated flows, in the sweep: they end with their flows.

use abi::{FLOW_KEEPS_PORT, FLOW_TRANSLATED, Flow, FlowKey, Real, Reply};
use kernel::{Cursor, HashTable, TableError, Tables as Maps};
use plan::Tables;

/// Asking for the flow of a reply costs about as much as this many entries of a page.
const COST: usize = 4;

/// The ends of a flow as its real server sees them.
fn real_side(key: &FlowKey, flow: &Flow, real: &Real) -> FlowKey {
    forward::real_side(key, real, flow.source_port_be, flow.flags & FLOW_KEEPS_PORT != 0)
}

/// Forgets the way back of a flow that is over, unless it leads to another flow by now.
pub(crate) fn forget(maps: &Maps, tables: &Tables, key: &FlowKey, flow: &Flow) -> Result<(), TableError> {
    if flow.flags & FLOW_TRANSLATED == 0 {
        return Ok(());
    }
    // A real server whose row is gone leaves it to `page`.
    let Some(real) = tables.reals.get(&flow.real) else { return Ok(()) };
    let ends = real_side(key, flow, real);
    for table in [&maps.replies, &maps.embryonic_replies] {
        if table.get(&ends)?.is_some_and(|reply| reply.flow_key(key.protocol) == *key) {
            table.delete(&ends)?;
        }
    }
    Ok(())
}

/// Looks at one page of ways back and removes those without a flow: the kernel evicts embryonic flows as it likes, and
/// the director's own address may change under a translated source. Tells how much that was, in entries of flows.
pub(crate) fn page(
    maps: &Maps,
    tables: &Tables,
    table: &HashTable<FlowKey, Reply>,
    cursor: &mut Cursor,
    size: usize,
) -> Result<usize, TableError> {
    let mut place = *cursor;
    let page = table.scan(&mut place, size)?;
    *cursor = place;
    for (ends, reply) in &page {
        if !leads(maps, tables, ends, reply)? {
            table.delete(ends)?;
        }
    }
    Ok(page.len().saturating_mul(COST))
}

/// Whether a way back leads to a flow that is there. One that is removed wrongly, because its flow was on the way from
/// table to table, is made anew by the next packet of an embryonic flow.
fn leads(maps: &Maps, tables: &Tables, ends: &FlowKey, reply: &Reply) -> Result<bool, TableError> {
    let key = reply.flow_key(ends.protocol);
    // In this order: a flow moves from the embryonic table to the established one.
    let flow = match maps.embryonic.get(&key)? {
        Some(flow) => Some(flow),
        None => maps.established.get(&key)?,
    };
    let Some(flow) = flow else { return Ok(false) };
    let real = tables.reals.get(&flow.real);
    let is_its = real.is_some_and(|real| real_side(&key, &flow, real) == *ends);
    Ok(flow.flags & FLOW_TRANSLATED != 0 && flow.real == reply.real && is_its)
}
