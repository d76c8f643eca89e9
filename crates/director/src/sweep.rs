//! The sweep: goes through the tables of flows, templates and replies, a bounded slice at a time; removes what has expired,
//! counts the rest, and repairs the loads.
//!
//! An entry is read and removed while packets may revive it. So the removal returns what was removed, and a flow that
//! was revived in between is put back.

use crate::announcing::Announcing;
use crate::clients::Clients;
use crate::recount::Recount;
use crate::replies;
use crate::templates::{Controls, Fate};
use abi::{Flow, FlowKey, Load, REAL_AVAILABLE, SYSCTL_EXPIRE_NODEST_CONN};
use kernel::{Cursor, HashTable, Put, TableError, Tables as Maps};
use plan::Tables;

/// Entries looked at in one slice, over all tables.
const SLICE_MAX: usize = 262_144;
/// Entries read from the kernel in one go.
const PAGE: usize = 4096;

/// What a pass over all tables found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Live flows that have not proved themselves.
    pub(crate) embryonic: u64,
    /// Live flows that have.
    pub(crate) established: u64,
    /// Live persistence templates.
    pub(crate) templates: u64,
}

/// Which table the sweep is in. A flow on its way from the embryonic to the established table is met at least once, and
/// templates come when all flows are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Embryonic,
    Established,
    Templates,
    /// The ways back of translated flows, last: they come and go with their flows, and what is left over of a flow that
    /// the kernel evicted is found here.
    EmbryonicReplies,
    Replies,
}

/// Where the sweep stands.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    recount: Recount,
    clients: Clients,
    controls: Controls,
    /// Of the tables that `controls` was told the services of.
    version: Option<u64>,
    cursor: Cursor,
    phase: Phase,
    counting: Found,
    last: Found,
    /// While this director is a master of connection synchronisation.
    pub(crate) announcing: Option<Announcing>,
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

    /// Does one slice. At the end of a pass over all tables, tells which of `deleted` had no flows. `tables` is what
    /// the maps hold, with a number that is another whenever they are.
    pub(crate) fn slice(
        &mut self,
        maps: &Maps,
        (tables, version): (&Tables, u64),
        now_ns: u64,
        deleted: impl Iterator<Item = u32>,
    ) -> Result<Option<Pass>, TableError> {
        if self.version != Some(version) {
            self.version = Some(version);
            self.controls.set_services(tables.services.values());
        }
        if let Some(announcing) = &mut self.announcing {
            announcing.begin(tables, version, now_ns);
        }
        let done = self.go_on(maps, tables, now_ns, deleted);
        if let Some(announcing) = &mut self.announcing {
            announcing.flush();
        }
        done
    }

    fn go_on(
        &mut self,
        maps: &Maps,
        tables: &Tables,
        now_ns: u64,
        deleted: impl Iterator<Item = u32>,
    ) -> Result<Option<Pass>, TableError> {
        let mut looked_at = 0;
        while looked_at < SLICE_MAX {
            if self.phase == Phase::Embryonic && self.cursor == Cursor::Start {
                self.controls.start(now_ns);
            }
            let (of_flows, of_replies) = match self.phase {
                Phase::Embryonic => (Some(&maps.embryonic), None),
                Phase::Established => (Some(&maps.established), None),
                Phase::Templates => (Some(&maps.templates), None),
                Phase::EmbryonicReplies => (None, Some(&maps.embryonic_replies)),
                Phase::Replies => (None, Some(&maps.replies)),
            };
            // An empty table costs nothing and must not be gone through for ever: a page counts as something.
            looked_at += 1;
            if let Some(table) = of_replies {
                looked_at += replies::page(maps, tables, table, &mut self.cursor, PAGE)?;
            }
            if let Some(table) = of_flows {
                looked_at += self.page(&At { maps, tables, table, now_ns })?;
            }
            if self.cursor == Cursor::End {
                self.cursor = Cursor::Start;
                self.phase = match self.phase {
                    Phase::Embryonic => Phase::Established,
                    Phase::Established => Phase::Templates,
                    Phase::Templates => Phase::EmbryonicReplies,
                    Phase::EmbryonicReplies => Phase::Replies,
                    Phase::Replies => Phase::Embryonic,
                };
                if self.phase == Phase::Embryonic {
                    return self.finish(maps, tables, deleted).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Looks at one page of flows or templates; tells how many they were.
    fn page(&mut self, at: &At<'_>) -> Result<usize, TableError> {
        let mut cursor = self.cursor;
        let page = at.table.scan(&mut cursor, PAGE)?;
        self.cursor = cursor;
        for (key, flow) in &page {
            if self.phase == Phase::Templates {
                self.look_at_template(at, key, flow)?;
            } else {
                self.look_at(at, key, flow)?;
            }
        }
        Ok(page.len())
    }

    fn look_at(&mut self, at: &At<'_>, key: &FlowKey, flow: &Flow) -> Result<(), TableError> {
        if at.now_ns < flow.expires_ns && !at.has_lost_its_server(flow) {
            self.count(at, key, flow);
            return Ok(());
        }
        let Some(removed) = at.table.take(key)? else { return Ok(()) };
        let lives = at.now_ns < removed.expires_ns && !at.has_lost_its_server(&removed);
        if lives && put_back(at.table, key, &removed)? {
            self.count(at, key, &removed);
            return Ok(());
        }
        replies::forget(at.maps, at.tables, key, &removed)?;
        at.unbind(&removed)
    }

    fn look_at_template(&mut self, at: &At<'_>, key: &FlowKey, found: &Flow) -> Result<(), TableError> {
        let service = at.service_of(found);
        match self.controls.fate(key, found, service, at.now_ns) {
            Fate::Stays => self.count(at, key, found),
            Fate::Until(expires_ns) => {
                // As it is now: a packet may have restarted it meanwhile.
                let Some(now) = at.table.get(key)? else { return Ok(()) };
                if now.expires_ns == found.expires_ns {
                    at.table.put(key, &Flow { expires_ns, ..now }, Put::Any)?;
                }
                self.count(at, key, &now);
            }
            Fate::Ends => {
                let Some(removed) = at.table.take(key)? else { return Ok(()) };
                if removed.expires_ns != found.expires_ns && put_back(at.table, key, &removed)? {
                    self.count(at, key, &removed);
                    return Ok(());
                }
                at.maps.calls.delete(key)?;
                at.unbind(&removed)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, at: &At<'_>, key: &FlowKey, flow: &Flow) {
        self.recount.count(flow);
        if let (Phase::Established | Phase::Templates, Some(announcing)) = (self.phase, &mut self.announcing)
        {
            announcing.see(at.tables, key, flow);
        }
        match self.phase {
            Phase::Embryonic => self.counting.embryonic += 1,
            Phase::Established => self.counting.established += 1,
            Phase::Templates => {
                self.counting.templates += 1;
                return;
            }
            Phase::EmbryonicReplies | Phase::Replies => return,
        }
        if let Some(real) = at.tables.reals.get(&flow.real).filter(|real| real.counts_clients != 0) {
            self.clients.count(real.service, key, flow);
        }
        self.controls.see(key, flow, at.service_of(flow));
    }

    fn finish(
        &mut self,
        maps: &Maps,
        tables: &Tables,
        deleted: impl Iterator<Item = u32>,
    ) -> Result<Pass, TableError> {
        self.last = std::mem::take(&mut self.counting);
        if let Some(announcing) = &mut self.announcing {
            announcing.end_of_pass();
        }
        let idle = deleted.filter(|real| !self.recount.has_flows(*real)).collect();
        let reals = tables.reals.last_key_value().map_or(0, |(index, _)| index.saturating_add(1));
        let repairs = self.recount.finish(&maps.loads.get_range(0, reals)?);
        for (real, repair) in &repairs {
            maps.loads.add(*real, *repair)?;
            recover(maps, tables, *real)?;
        }
        let limits = |service| tables.client_limits.get(&service).is_some_and(|it| it.connections != 0);
        if tables.client_limits.values().any(|it| it.connections != 0) {
            self.clients.finish(&maps.client_connections, limits)?;
        }
        Ok(Pass { idle, repaired: repairs.len() })
    }
}

/// One page of a table.
struct At<'a> {
    maps: &'a Maps,
    tables: &'a Tables,
    table: &'a HashTable<FlowKey, Flow>,
    now_ns: u64,
}

impl At<'_> {
    /// Whether the flow's real server was deleted and `expire_nodest_conn` says that its flows go with it.
    fn has_lost_its_server(&self, flow: &Flow) -> bool {
        let expires = self.tables.settings.sysctls.switches & SYSCTL_EXPIRE_NODEST_CONN != 0;
        expires && self.tables.reals.get(&flow.real).is_none_or(|real| real.flags & REAL_AVAILABLE == 0)
    }

    /// Index of the service that the flow's real server belongs to.
    fn service_of(&self, flow: &Flow) -> Option<u32> {
        self.tables.reals.get(&flow.real).map(|real| real.service)
    }

    /// Takes an entry that is over from its real server's load.
    fn unbind(&self, flow: &Flow) -> Result<(), TableError> {
        self.maps.loads.add(flow.real, Load::of(flow).negated())?;
        recover(self.maps, self.tables, flow.real)
    }
}

/// Lets a real server take new flows again that has fallen below its threshold.
fn recover(maps: &Maps, tables: &Tables, index: u32) -> Result<(), TableError> {
    let load = maps.loads.get(index)?.unwrap_or_default();
    let has_recovered = tables.reals.get(&index).is_none_or(|real| forward::bind::has_recovered(real, load));
    if load.overloaded != 0 && has_recovered {
        maps.loads.set_overloaded(index, false)?;
    }
    Ok(())
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
