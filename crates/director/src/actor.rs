//! The one owner of model, layout and packet path. Everything that changes any of them goes through here, one
//! thing at a time.
//!
//! Synchronous: each call is a bounded number of system calls. The loop that feeds it is in `run`.

use crate::at_start::effective_at_start;
use crate::capture::Switch;
use crate::events::Log;
use crate::health::{Health, effective_change};
use crate::history::HistoryFiles;
use crate::passive::Seen;
use crate::state::{StateError, StateFile};
use crate::statistics::Statistics;
use crate::sweep::Sweep;
use crate::sync::Synchronisation;
use crate::tables;
use crate::trace::{Took, Traces};
use crate::trial::Trial;
use crate::watched::Watched;
use api::{Change, Changes, EventKind, Outcomes, Refusal, RefusalKind, ServiceId};
use kernel::{Datapath, TableError, Tables as Maps};
use plan::{AdoptError, Before, Layout, Model, Neighbours, Options, Resolved, Tables, Touched};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
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
    /// What the packet path saw go wrong when last looked at.
    pub(crate) seen: Seen,
    pub(crate) started: Instant,
    pub(crate) adopted: bool,
    /// What the kernel has now.
    pub(crate) tables: Tables,
    /// Another number whenever that is something else.
    pub(crate) tables_version: u64,
    /// Entries of tables that this daemon has written or taken away.
    pub(crate) tables_changed: u64,
    /// Whether the kernel may have something else after all.
    pub(crate) unsure: bool,
    pub(crate) watched: Watched,
    pub(crate) traces: Traces,
    /// How long the parts of the last change took.
    pub(crate) took: Took,
    pub(crate) capture: Arc<Switch>,
    pub(crate) sync: Synchronisation,
    state: StateFile,
    /// Next hops of a former daemon that nobody has confirmed yet.
    inherited: BTreeSet<IpAddr>,
    /// Since when each deleted real server was seen without flows.
    idle_since: BTreeMap<u32, Instant>,
}

impl Director {
    /// Takes over what the kernel has, and brings it to what the disk says.
    pub(crate) fn new(
        datapath: Datapath,
        mut state: StateFile,
        options: Options,
    ) -> Result<Self, ActorError> {
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
            watched: Watched::of(&declared),
            capture: Arc::default(),
            sync: Synchronisation::in_directory(state.directory()),
            traces: Traces::default(),
            took: Took::default(),
            declared,
            model,
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
            seen: Seen::new(),
            started: Instant::now(),
            adopted,
            tables,
            tables_version: 0,
            tables_changed: 0,
            unsure: true,
            state,
            idle_since: BTreeMap::new(),
        };
        director.install_whole(&cursors)?;
        let services = director.model.services().filter_map(|(id, _)| director.layout.service_index(id));
        director.statistics = Statistics::of(services);
        let services: Vec<ServiceId> = director.declared.services().map(|(id, _)| *id).collect();
        director.remember_who_is_out();
        director.declare_health(services);
        director.run_statistics()?;
        director.resume_trial();
        Ok(director)
    }

    pub(crate) fn maps(&self) -> &Maps {
        self.datapath.tables()
    }

    /// Does a list of changes, in order: model, kernel, disk. What fails is undone in all three; what is done is on disk
    /// when this returns. An atomic list is done as a whole or not at all, and so is each piece of another one.
    pub(crate) fn change(&mut self, changes: &Changes) -> Outcomes {
        self.change_because(changes, None)
    }

    /// The same; the cause stands in the event of it.
    pub(crate) fn change_because(&mut self, changes: &Changes, cause: Option<&str>) -> Outcomes {
        let refusals = self.change_list(&changes.changes, changes.atomic, cause);
        Outcomes { generation: self.generation, refusals }
    }

    fn change_list(&mut self, changes: &[Change], atomic: bool, cause: Option<&str>) -> Vec<Option<Refusal>> {
        // After a disturbance the kernel is first brought to the configuration that holds.
        if self.unsure
            && let Err(error) = self.install_all()
        {
            return vec![Some(refusal(error)); changes.len()];
        }
        let (mut refusals, before) = self.declared.change(changes, atomic);
        let done = changes.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
        let done: Vec<&Change> = done.map(|(change, _)| change).collect();
        if let Err(refusal) = self.commit(&done, before, cause) {
            if !atomic && changes.len() > 1 {
                // Something does not fit. Halves of it may; in the end single changes are refused.
                let (first, second) = changes.split_at(changes.len() / 2);
                refusals = self.change_list(first, false, cause);
                refusals.extend(self.change_list(second, false, cause));
            } else {
                refusals.iter_mut().filter(|it| it.is_none()).for_each(|it| *it = Some(refusal.clone()));
            }
        }
        refusals
    }

    /// Makes changes that the declared model has taken last: in the model of the packet path, in the kernel, and on disk. If
    /// they cannot be made, all of these are as they were before them.
    fn commit(
        &mut self,
        done: &[&Change],
        declared_before: Before,
        cause: Option<&str>,
    ) -> Result<(), Refusal> {
        let lasting: Vec<&Change> =
            done.iter().copied().filter(|change| !matches!(change, Change::Zero { .. })).collect();
        if lasting.is_empty() {
            self.count_changes(done.iter().copied());
            return Ok(());
        }
        let mut before = self.model.note();
        let effects = match self.apply_effects(done, &mut before) {
            Ok(effects) => match self.commit_lasting(&lasting, &before) {
                Ok(()) => Ok(effects),
                Err(error) => Err(refusal(error)),
            },
            Err(refusal) => Err(refusal),
        };
        let effects = match effects {
            Ok(effects) => effects,
            Err(refusal) => {
                self.model.undo(before);
                self.declared.undo(declared_before);
                return Err(refusal);
            }
        };
        self.model.share(&self.declared, &before);
        self.watched.follow(&declared_before, &self.declared);
        self.count_changes(effects.iter().map(|effect| &**effect));
        let what = EventKind::Generation { generation: self.generation };
        let counted = || match done.len() {
            1 => "1 change was accepted".to_owned(),
            many => format!("{many} changes were accepted"),
        };
        self.events.add(what, cause.map_or_else(counted, ToOwned::to_owned));
        self.declare_health(declared_before.services().map(|(id, _)| *id));
        Ok(())
    }

    /// Applies what changes of the declaration mean for the packet path to its model.
    fn apply_effects<'a>(
        &mut self,
        done: &[&'a Change],
        before: &mut Before,
    ) -> Result<Vec<Cow<'a, Change>>, Refusal> {
        let mut effects = Vec::with_capacity(done.len());
        for change in done {
            if let Some(effect) = effective_change(&self.declared, &self.model, change) {
                self.model.apply_noting(&effect, before)?;
                effects.push(effect);
            }
        }
        Ok(effects)
    }

    fn commit_lasting(&mut self, changes: &[&Change], before: &Before) -> Result<(), ActorError> {
        let start = Instant::now();
        let touched = self.model.touched(before);
        let installed = self.install(&touched)?;
        let in_kernel = start.elapsed();
        let generation = self.generation + 1;
        if let Err(error) = self.state.keep(changes, &self.declared, generation) {
            self.take_back(installed);
            return Err(ActorError::Save(error));
        }
        self.settle();
        self.generation = generation;
        let (changes, on_disk) = (changes.len(), start.elapsed() - in_kernel);
        self.took.disk += on_disk;
        tracing::debug!(generation, changes, ?in_kernel, ?on_disk, "changed");
        Ok(())
    }

    /// Starts and zeroes lines of the statistics.
    pub(crate) fn count_changes<'a>(&mut self, done: impl Iterator<Item = &'a Change> + Clone) {
        let mut indices = BTreeSet::new();
        for change in done.clone() {
            match change {
                Change::AddService { service, .. } => indices.extend(self.layout.reals_of(service)),
                Change::AddReal { service, real, .. } => {
                    indices.extend(self.layout.real_index(service, real));
                }
                _ => {}
            }
        }
        let counters = self.counters_of(indices).unwrap_or_else(|error| {
            log_error("counters not read", &error);
            BTreeMap::new()
        });
        for change in done {
            match change {
                Change::Zero { service } => self.statistics.zero(service.as_ref(), &self.layout),
                Change::AddService { service, .. } => {
                    self.statistics.add_service(service, &counters, &self.layout);
                }
                Change::AddReal { service, real, .. } => {
                    if let Some(index) = self.layout.real_index(service, real) {
                        self.statistics.add_real(index, counters.get(&index).copied().unwrap_or_default());
                    }
                }
                _ => {}
            }
        }
    }

    /// Writes the configuration as a whole, if its journal has grown.
    pub(crate) fn tidy_state(&mut self) {
        if self.state.has_grown()
            && let Err(error) = self.state.save(&self.declared, self.generation)
        {
            log_error("the configuration could not be written as a whole", &error);
        }
    }

    /// Next hops have changed; `None` is one that was lost.
    pub(crate) fn neighbours_changed(&mut self, news: Vec<(IpAddr, Option<Resolved>)>) {
        let mut reals = BTreeSet::new();
        for (address, resolved) in news {
            self.inherited.remove(&address);
            reals.extend(self.layout.reals_at(address));
            match resolved {
                Some(resolved) => drop(self.neighbours.insert(address, resolved)),
                None => drop(self.neighbours.remove(&address)),
            }
        }
        self.reinstall(&Touched { reals, ..Touched::default() });
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
            self.reinstall(&Touched::default());
        }
    }

    /// Compiles what something around the model touched. Tells whether the kernel has it.
    fn reinstall(&mut self, touched: &Touched) -> bool {
        if let Err(error) = self.install_now(touched) {
            log_error("next hops not written", &error);
            self.unsure = true;
        }
        !self.unsure
    }

    /// One slice of the sweep.
    pub(crate) fn sweep(&mut self, now_ns: u64) {
        if !self.inherited.is_empty() && self.started.elapsed() > BELIEVE_INHERITED {
            let doubted = std::mem::take(&mut self.inherited);
            tracing::warn!(addresses = ?doubted, "next hops of the former director were not confirmed: not used any more");
            self.neighbours_changed(doubted.into_iter().map(|address| (address, None)).collect());
        }
        let at = (&self.tables, self.tables_version);
        let deleted = self.layout.deleted().iter().copied();
        match self.sweep.slice(self.datapath.tables(), at, now_ns, deleted) {
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
        // They come sorted, as the layout keeps them.
        self.idle_since.retain(|index, _| idle.binary_search(index).is_ok());
        let due: Vec<u32> = idle
            .iter()
            .copied()
            .filter(|index| now - *self.idle_since.entry(*index).or_insert(now) >= KEEP_DELETED)
            .collect();
        if due.is_empty() {
            return;
        }
        let counters = self.counters_of(due.iter().copied().collect()).unwrap_or_else(|error| {
            log_error("counters not read", &error);
            BTreeMap::new()
        });
        let identities: Vec<_> = due.iter().map(|index| self.layout.identify(*index)).collect();
        let services: Vec<_> = identities
            .iter()
            .map(|identity| identity.and_then(|it| self.layout.service_index(&it.service)))
            .collect();
        let reals: BTreeSet<u32> = due.iter().copied().filter(|index| self.layout.release(*index)).collect();
        if !self.reinstall(&Touched { reals: reals.clone(), ..Touched::default() }) {
            return;
        }
        for ((index, identity), service) in due.iter().zip(identities).zip(services) {
            if !reals.contains(index) {
                continue;
            }
            self.idle_since.remove(index);
            let total = counters.get(index).copied().unwrap_or_default();
            self.statistics.release_real(*index, service, total);
            // The next hop of an address that nothing in the tables has any more.
            if let Some(address) = identity.map(|identity| identity.real.address)
                && self.layout.reals_at(address).next().is_none()
            {
                self.neighbours.remove(&address);
            }
        }
    }

    /// One run of the two-second estimator.
    pub(crate) fn run_statistics(&mut self) -> Result<(), TableError> {
        if self.model.setting("run_estimation") == 0 {
            return Ok(());
        }
        let counters = self.counters()?;
        self.statistics.run(&counters, &self.tables.reals);
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
