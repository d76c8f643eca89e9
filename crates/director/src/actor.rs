//! The one owner of model, layout and packet path. Everything that changes any of them goes through here, one
//! thing at a time.
//!
//! Synchronous: each call is a bounded number of system calls. The loop that feeds it is in `run`.

use crate::events::Log;
use crate::health::{Health, effective_at_start, effective_change};
use crate::history::HistoryFiles;
use crate::state::{StateError, StateFile};
use crate::statistics::Statistics;
use crate::sweep::Sweep;
use crate::tables;
use crate::trial::Trial;
use abi::{AffinityKey, Counters, Load, REAL_AVAILABLE, Real, Verdict};
use api::{Change, Changes, EventKind, Outcomes, Refusal, RefusalKind, ServiceId};
use kernel::{Datapath, TableError, Tables as Maps};
use plan::{AdoptError, Layout, Model, Neighbours, Options, Resolved, TableChange, Tables, compile, diff};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a deleted real server without flows keeps its index, so that it is the same one when it is added
/// again. IPVS keeps it as long.
const KEEP_DELETED: Duration = Duration::from_secs(120);
/// How long the next hops of a former daemon are believed without being confirmed.
const BELIEVE_INHERITED: Duration = Duration::from_secs(20);

/// The director could not take over the tables or fill them.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// A table could not be read or written.
    #[error("cannot bring the tables in the kernel up to date")]
    Table(#[from] TableError),
    /// The state on disk.
    #[error("cannot read the configuration")]
    Load(#[source] StateError),
    /// The state on disk.
    #[error("nothing was changed: the new configuration could not be kept on disk")]
    Save(#[source] StateError),
    /// The tables in the kernel make no sense.
    #[error(
        "the tables in the kernel cannot be taken over: remove them (and their flows) with `sluice director --remove`"
    )]
    Adopt(#[from] AdoptError),
    /// What follows from health checks was refused.
    #[error("what follows from health checks was refused")]
    Effective(#[source] Refusal),
    /// The configuration does not fit.
    #[error("the configuration does not fit into the tables")]
    Full(#[from] plan::LayoutFull),
    /// There are services in the kernel, but no configuration on disk.
    #[error(
        "the kernel balances {services} services, but there is no configuration on disk: restore it, or start anew with \
         `sluice director --remove`"
    )]
    Lost {
        /// How many.
        services: usize,
    },
}

/// The director without its sockets and tasks.
pub(crate) struct Director {
    pub(crate) datapath: Datapath,
    /// What the operator declared.
    pub(crate) declared: Model,
    /// What the packet path has: what is declared, less what failed.
    pub(crate) model: Model,
    pub(crate) health: Health,
    pub(crate) events: Log,
    pub(crate) history: HistoryFiles,
    pub(crate) trial: Trial,
    pub(crate) layout: Layout,
    pub(crate) neighbours: Neighbours,
    pub(crate) generation: u64,
    pub(crate) statistics: Statistics,
    pub(crate) sweep: Sweep,
    pub(crate) started: Instant,
    pub(crate) adopted: bool,
    /// What the kernel has now.
    tables: Tables,
    state: StateFile,
    /// Next hops of a former daemon that nobody has confirmed yet.
    inherited: BTreeSet<IpAddr>,
    /// Since when each deleted real server was seen without flows.
    idle_since: BTreeMap<u32, Instant>,
}

impl Director {
    /// Takes over what the kernel has, and brings it to what the disk says.
    pub(crate) fn new(datapath: Datapath, state: StateFile, options: Options) -> Result<Self, ActorError> {
        let adopted = datapath.adopted();
        let saved = state.load(options).map_err(ActorError::Load)?;
        let (tables, cursors) = if adopted { tables::read(datapath.tables())? } else { Default::default() };
        if saved.is_none() && !tables.services.is_empty() {
            return Err(ActorError::Lost { services: tables.services.len() });
        }
        let layout = Layout::adopt(options.limits, &tables, &cursors)?;
        let neighbours = inherited_neighbours(&tables);
        let (declared, generation) = saved.unwrap_or_else(|| (Model::new(options), 0));
        let model = effective_at_start(&declared, &layout, &tables, adopted);
        let mut director = Self {
            datapath,
            declared,
            model: Model::new(options),
            health: Health::new(),
            events: Log::default(),
            history: HistoryFiles::in_directory(state.directory(), generation).map_err(ActorError::Load)?,
            trial: Trial::default(),
            layout,
            inherited: neighbours.keys().copied().collect(),
            neighbours,
            generation,
            statistics: Statistics::default(),
            sweep: Sweep::default(),
            started: Instant::now(),
            adopted,
            tables,
            state,
            idle_since: BTreeMap::new(),
        };
        director.install(&model)?;
        director.model = model;
        let services: Vec<ServiceId> = director.declared.services().map(|(id, _)| *id).collect();
        director.declare_health(services);
        director.run_statistics()?;
        Ok(director)
    }

    fn maps(&self) -> &Maps {
        self.datapath.tables()
    }

    /// Addresses whose next hops the packet path needs.
    pub(crate) fn real_addresses(&self) -> BTreeSet<IpAddr> {
        // Those that failed too, so that a next hop is there when one comes back.
        let reals = self.declared.services().flat_map(|(_, service)| service.reals());
        let fallbacks = self.declared.services().filter_map(|(_, service)| service.health().fallback);
        reals.map(|(id, _)| id.address).chain(fallbacks.map(|it| it.real.address)).collect()
    }

    /// Does a list of changes: model, kernel, disk, in that order; what fails is undone.
    pub(crate) fn change(&mut self, changes: &Changes) -> Outcomes {
        let mut next = self.declared.clone();
        let mut refusals = next.apply_all(changes);
        let accepted = refusals.iter().any(Option::is_none);
        if accepted && let Err(refusal) = self.commit(next, changes, &refusals) {
            if changes.atomic || changes.changes.len() == 1 {
                refusals.iter_mut().filter(|it| it.is_none()).for_each(|it| *it = Some(refusal.clone()));
            } else {
                // One of them does not fit; find out which by doing them one by one.
                return self.change_singly(changes);
            }
        }
        Outcomes { generation: self.generation, refusals }
    }

    fn change_singly(&mut self, changes: &Changes) -> Outcomes {
        let mut refusals = Vec::with_capacity(changes.changes.len());
        for change in &changes.changes {
            let one = Changes { atomic: true, changes: vec![change.clone()] };
            refusals.extend(self.change(&one).refusals);
        }
        Outcomes { generation: self.generation, refusals }
    }

    fn commit(
        &mut self,
        next: Model,
        changes: &Changes,
        refusals: &[Option<Refusal>],
    ) -> Result<(), Refusal> {
        let done =
            changes.changes.iter().zip(refusals).filter(|(_, no)| no.is_none()).map(|(it, _)| it.clone());
        let done: Vec<Change> = done.collect();
        let is_change = next != self.declared || done.iter().any(|it| !matches!(it, Change::Zero { .. }));
        if !is_change {
            self.count_changes(done.iter());
            return Ok(());
        }
        let mut effective = self.model.clone();
        let mut effects = Vec::new();
        for change in &done {
            if let Some(change) = effective_change(&next, &effective, change) {
                effective.apply(&change)?;
                effects.push(change);
            }
        }
        for change in &effects {
            if let Change::EditReal { service, .. } = change {
                self.layout.edited(service);
            }
        }
        self.install(&effective).map_err(refusal)?;
        let generation = self.generation + 1;
        if let Err(error) = self.state.save(&next, generation) {
            let before = self.model.clone();
            if let Err(error) = self.install(&before) {
                log_error("the tables could not be restored", &error);
            }
            return Err(refusal(ActorError::Save(error)));
        }
        self.generation = generation;
        let touched = Self::touched(&done, &self.declared);
        self.declared = next;
        self.model = effective;
        self.count_changes(effects.iter());
        self.events
            .add(EventKind::Generation { generation }, format!("{} changes were accepted", done.len()));
        self.declare_health(touched);
        Ok(())
    }

    /// Starts and zeroes lines of the statistics.
    pub(crate) fn count_changes<'a>(&mut self, done: impl Iterator<Item = &'a Change>) {
        let mut counters = None;
        for change in done {
            match change {
                Change::Zero { service } => self.statistics.zero(service.as_ref(), &self.layout),
                Change::AddService { .. } | Change::AddReal { .. } => {
                    let counters = counters.get_or_insert_with(|| match self.counters() {
                        Ok(counters) => counters,
                        Err(error) => {
                            log_error("counters not read", &error);
                            Vec::new()
                        }
                    });
                    match change {
                        Change::AddService { service, .. } => {
                            self.statistics.add_service(*service, counters, &self.layout);
                        }
                        Change::AddReal { service, real, .. } => {
                            if let Some(index) = self.layout.real_index(service, real) {
                                let total = counters.get(index as usize).copied().unwrap_or_default();
                                self.statistics.add_real(index, total);
                            }
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// Makes the kernel have what a model compiles to. After an error the kernel has what it had.
    pub(crate) fn install(&mut self, model: &Model) -> Result<(), ActorError> {
        let mut layout = self.layout.clone();
        let cursors = tables::cursors(self.maps(), &self.tables)?;
        let compiled = compile(&mut layout, model, &self.neighbours, &cursors)?;
        for index in &compiled.new_reals {
            self.clear_index(*index)?;
        }
        let before = self.tables.clone();
        let changes = diff(&self.tables, &compiled.tables);
        if let Err(error) = tables::apply(self.datapath.tables(), &mut self.tables, &changes) {
            let undo = diff(&self.tables, &before);
            if let Err(error) = tables::apply(self.datapath.tables(), &mut self.tables, &undo) {
                log_error("the tables could not be restored", &error);
            }
            return Err(error.into());
        }
        self.layout = layout;
        self.layout.settle();
        self.forget_destinations(&before)?;
        for change in &changes {
            if let TableChange::PutReal(index, real) = change {
                self.reconsider(*index, before.reals.get(index), real)?;
            }
        }
        Ok(())
    }

    /// Takes away the destinations that a service remembers by a scheduler it has no longer: IPVS gives the memory up with
    /// the scheduler [`ip_vs_lblc.c`, `ip_vs_lblc_done_svc`].
    fn forget_destinations(&self, before: &Tables) -> Result<(), TableError> {
        let remembering = |tables: &Tables| -> BTreeSet<(u32, u16)> {
            let services = tables.services.values().filter(|it| forward::schedule::affinity::is_affine(it));
            services.map(|it| (it.index, it.scheduler)).collect()
        };
        let now = remembering(&self.tables);
        let ended: BTreeSet<u32> =
            remembering(before).difference(&now).map(|(index, _scheduler)| *index).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let affinities = &self.maps().affinities;
        let entries = affinities.entries()?;
        let keys: Vec<AffinityKey> =
            entries.into_iter().map(|(key, _)| key).filter(|key| ended.contains(&key.service)).collect();
        affinities.delete_batch(&keys)?;
        Ok(())
    }

    /// A real server with new thresholds goes by the flows it has [`ip_vs_ctl.c`, `__ip_vs_update_dest`], as does one that
    /// is added again with flows.
    fn reconsider(&self, index: u32, before: Option<&Real>, now: &Real) -> Result<(), TableError> {
        let Some(before) = before else { return Ok(()) };
        let what_counts =
            |real: &Real| (real.flags & REAL_AVAILABLE, real.upper_threshold, real.lower_threshold);
        if now.flags & REAL_AVAILABLE == 0 || what_counts(before) == what_counts(now) {
            return Ok(());
        }
        let load = self.maps().loads.get(index)?.unwrap_or_default();
        let was = load.overloaded != 0;
        let is = forward::bind::is_reached(now, load) || was && !forward::bind::has_recovered(now, load);
        if is != was {
            self.maps().loads.set_overloaded(index, is)?;
        }
        Ok(())
    }

    /// Forgets what a former real server of this index counted. Its packets go on counting as forwarded: the packet path
    /// does not count that verdict, it is the rest of the real servers' packets, so they move to its place.
    fn clear_index(&self, index: u32) -> Result<(), TableError> {
        let maps = self.maps();
        let [counters] = *maps.counters.fold_range(index, 1, add_counters)? else { return Ok(()) };
        if counters != Counters::default() {
            let place = Verdict::ForwardKnown.number();
            let sum: u64 =
                maps.verdicts.get(place)?.iter().fold(counters.in_packets, |a, b| a.wrapping_add(*b));
            maps.verdicts.put_sum(place, &sum)?;
            maps.counters.put_sum(index, &Counters::default())?;
        }
        maps.progress.put(index, &0)?;
        maps.loads.set(index, Load::default())
    }

    /// Next hops have changed; `None` is one that was lost.
    pub(crate) fn neighbours_changed(&mut self, news: Vec<(IpAddr, Option<Resolved>)>) {
        for (address, resolved) in news {
            self.inherited.remove(&address);
            match resolved {
                Some(resolved) => drop(self.neighbours.insert(address, resolved)),
                None => drop(self.neighbours.remove(&address)),
            }
        }
        self.reinstall();
    }

    /// So many pages of memory are free now. Something is done only if a setting asks for it.
    pub(crate) fn memory_changed(&mut self, free_pages: u64) {
        let before = self.model.sysctls();
        self.model.set_free_pages(free_pages);
        self.declared.set_free_pages(free_pages);
        let after = self.model.sysctls();
        if after != before {
            tracing::warn!(
                free_pages,
                drop_rate = after.drop_rate,
                secure_tcp = after.secure_tcp,
                "defence changed"
            );
            self.reinstall();
        }
    }

    /// Compiles the same model again, because something around it changed.
    fn reinstall(&mut self) {
        let model = self.model.clone();
        if let Err(error) = self.install(&model) {
            log_error("next hops not written", &error);
        }
    }

    /// One slice of the sweep.
    pub(crate) fn sweep(&mut self, now_ns: u64) {
        if !self.inherited.is_empty() && self.started.elapsed() > BELIEVE_INHERITED {
            let doubted = std::mem::take(&mut self.inherited);
            tracing::warn!(addresses = ?doubted, "next hops of the former director were not confirmed: not used any more");
            self.neighbours_changed(doubted.into_iter().map(|address| (address, None)).collect());
        }
        let deleted = self.layout.deleted();
        match self.sweep.slice(self.datapath.tables(), &self.tables, now_ns, deleted.iter().copied()) {
            Ok(Some(pass)) => {
                if pass.repaired > 0 {
                    tracing::debug!(real_servers = pass.repaired, "repaired loads");
                }
                self.release(&pass.idle);
            }
            Ok(None) => {}
            Err(error) => log_error("the sweep stopped", &error),
        }
    }

    /// Gives up the indices of deleted real servers that had no flows for long enough.
    fn release(&mut self, idle: &[u32]) {
        let now = Instant::now();
        self.idle_since.retain(|index, _| idle.contains(index));
        let due: Vec<u32> = idle
            .iter()
            .copied()
            .filter(|index| now - *self.idle_since.entry(*index).or_insert(now) >= KEEP_DELETED)
            .collect();
        if due.is_empty() {
            return;
        }
        let counters = self.counters().unwrap_or_else(|error| {
            log_error("counters not read", &error);
            Vec::new()
        });
        for index in due {
            let service = self.layout.identify(index).map(|identity| identity.service);
            let total = counters.get(index as usize).copied().unwrap_or_default();
            if self.layout.release(index) {
                self.statistics.release_real(index, service, total);
                self.idle_since.remove(&index);
            }
        }
        self.reinstall();
        // Next hops of addresses that nothing in the tables has any more.
        let used: BTreeSet<IpAddr> =
            self.tables.reals.values().map(|real| crate::convert::ip(&real.address)).collect();
        self.neighbours.retain(|address, _| used.contains(address));
    }

    /// One more than the highest index of a real server in the tables.
    fn reals_end(&self) -> u32 {
        self.tables.reals.last_key_value().map_or(0, |(index, _)| index.saturating_add(1))
    }

    /// Counters by index, all CPUs together.
    pub(crate) fn counters(&self) -> Result<Vec<Counters>, TableError> {
        self.maps().counters.fold_range(0, self.reals_end(), add_counters)
    }

    /// One run of the two-second estimator.
    pub(crate) fn run_statistics(&mut self) -> Result<(), TableError> {
        if self.model.setting("run_estimation") == 0 {
            return Ok(());
        }
        let counters = self.counters()?;
        self.statistics.run(&counters, &self.layout, self.model.services().map(|(id, _)| id));
        Ok(())
    }
}

/// The next hops in the tables.
fn inherited_neighbours(tables: &Tables) -> Neighbours {
    let reachable = abi::REAL_RESOLVED | abi::REAL_LOCAL;
    let resolved = tables.reals.values().filter(|real| real.flags & reachable != 0);
    resolved
        .map(|real| {
            let source = (real.source != abi::Address::default()).then(|| crate::convert::ip(&real.source));
            let resolved = Resolved {
                local: real.flags & abi::REAL_LOCAL != 0,
                ifindex: real.ifindex,
                destination_mac: real.destination_mac(),
                source_mac: real.source_mac(),
                mtu: real.mtu,
                source,
            };
            (crate::convert::ip(&real.address), resolved)
        })
        .collect()
}

fn add_counters(a: Counters, b: Counters) -> Counters {
    Counters {
        connections: a.connections.wrapping_add(b.connections),
        in_packets: a.in_packets.wrapping_add(b.in_packets),
        in_bytes: a.in_bytes.wrapping_add(b.in_bytes),
        out_packets: a.out_packets.wrapping_add(b.out_packets),
        out_bytes: a.out_bytes.wrapping_add(b.out_bytes),
    }
}

/// What the client is told of a failure; the log has the causes.
fn refusal(error: ActorError) -> Refusal {
    if let ActorError::Full(full) = error {
        return full.into();
    }
    log_error("a change was refused", &error);
    Refusal::new(RefusalKind::Kernel, runtime::Chain(&error).to_string())
}

pub(crate) fn log_error(what: &'static str, error: &(dyn Error + 'static)) {
    tracing::error!(error = %runtime::Chain(error), "{what}");
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
