//! The sweep: goes through both flow tables, a bounded slice each second; removes what has expired, counts the
//! rest, and repairs the loads.
//!
//! An entry is read and removed while packets may revive it. So the removal returns what was removed, and a flow that
//! was revived in between is put back.

use crate::recount::Recount;
use abi::{Flow, FlowKey, Load};
use kernel::{Cursor, HashTable, Put, TableError, Tables as Maps};

/// Entries looked at in one slice, over both tables.
const SLICE_MAX: usize = 262_144;
/// Entries read from the kernel in one go.
const PAGE: usize = 4096;

/// What a pass over both tables found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Live flows that have not proved themselves.
    pub(crate) embryonic: u64,
    /// Live flows that have.
    pub(crate) established: u64,
}

/// Where the sweep stands.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    recount: Recount,
    cursor: Cursor,
    in_established: bool,
    counting: Found,
    last: Found,
}

/// What the caller does at the end of a pass.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Real servers, of those asked about, without a flow in the whole pass.
    pub(crate) idle: Vec<u32>,
    /// Loads that were repaired.
    pub(crate) repaired: usize,
}

impl Sweep {
    /// Flows of the last whole pass.
    pub(crate) fn found(&self) -> Found {
        self.last
    }

    /// Does one slice. At the end of a pass over both tables, tells which of `deleted` had no flows.
    /// `reals` is one more than the highest index of a real server.
    pub(crate) fn slice(
        &mut self,
        maps: &Maps,
        now_ns: u64,
        reals: u32,
        deleted: impl Iterator<Item = u32>,
    ) -> Result<Option<Pass>, TableError> {
        let mut looked_at = 0;
        while looked_at < SLICE_MAX {
            let table = if self.in_established { &maps.established } else { &maps.embryonic };
            let mut cursor = self.cursor;
            let page = table.scan(&mut cursor, PAGE)?;
            self.cursor = cursor;
            // An empty table costs nothing and must not be gone through for ever: a page counts as something.
            looked_at += page.len().max(1);
            for (key, flow) in page {
                self.look_at(maps, table, &key, &flow, now_ns)?;
            }
            if self.cursor == Cursor::End {
                self.cursor = Cursor::Start;
                self.in_established = !self.in_established;
                if !self.in_established {
                    return self.finish(maps, reals, deleted).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn look_at(
        &mut self,
        maps: &Maps,
        table: &HashTable<FlowKey, Flow>,
        key: &FlowKey,
        flow: &Flow,
        now_ns: u64,
    ) -> Result<(), TableError> {
        if now_ns < flow.expires_ns {
            self.count(flow);
            return Ok(());
        }
        let Some(removed) = table.take(key)? else { return Ok(()) };
        if now_ns < removed.expires_ns && put_back(table, key, &removed)? {
            self.count(&removed);
            return Ok(());
        }
        maps.loads.add(removed.real, Load::of(&removed).negated())
    }

    fn count(&mut self, flow: &Flow) {
        self.recount.count(flow);
        if self.in_established {
            self.counting.established += 1;
        } else {
            self.counting.embryonic += 1;
        }
    }

    fn finish(
        &mut self,
        maps: &Maps,
        reals: u32,
        deleted: impl Iterator<Item = u32>,
    ) -> Result<Pass, TableError> {
        self.last = std::mem::take(&mut self.counting);
        let idle = deleted.filter(|real| !self.recount.has_flows(*real)).collect();
        let repairs = self.recount.finish(&maps.loads.get_range(0, reals)?);
        for (real, repair) in &repairs {
            maps.loads.add(*real, *repair)?;
        }
        Ok(Pass { idle, repaired: repairs.len() })
    }
}

/// Puts a flow back that was revived while it was removed. `false` when a packet has opened a new flow of
/// that key meanwhile (or the table is full), so that the removed one is over.
fn put_back(table: &HashTable<FlowKey, Flow>, key: &FlowKey, flow: &Flow) -> Result<bool, TableError> {
    match table.put(key, flow, Put::New) {
        Ok(()) => Ok(true),
        // EEXIST, E2BIG.
        Err(error) if error.is_full() || error.source.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
