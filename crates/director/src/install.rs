//! From the model into the kernel: what was touched is compiled and put into the maps, and undone if it cannot be.

use crate::actor::{ActorError, Director, log_error};
use crate::tables::{self, runs};
use abi::{AffinityKey, Counters, Failures, REAL_AVAILABLE, Real, Verdict};
use forward::schedule::affinity::is_affine;
use kernel::TableError;
use plan::{Compiled, Cursors, Recompiled, TableChange, Touched, compile, diff, recompile};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Counters read one run of indices at a time at most; more of them are read all together.
const RUNS_MAX: usize = 64;

/// What undoes an installation, as long as it is not settled.
#[must_use = "settle it or take it back"]
pub(crate) struct Installed {
    undo: Vec<TableChange>,
}

impl Installed {
    /// It will not be taken back.
    fn stays(self) {}
}

impl Director {
    /// Makes the kernel have all of what the model compiles to, whatever it has.
    pub(crate) fn install_all(&mut self) -> Result<(), ActorError> {
        let (tables, cursors) = tables::read(self.maps())?;
        self.tables = tables;
        self.install_whole(&cursors)
    }

    /// The same, when it is known what the kernel has.
    pub(crate) fn install_whole(&mut self, cursors: &Cursors) -> Result<(), ActorError> {
        let before = self.layout.clone();
        let Compiled { tables, new_reals } =
            compile(&mut self.layout, &self.model, &self.neighbours, cursors)?;
        let recompiled = Recompiled { changes: diff(&self.tables, &tables), new_reals };
        match self.put(recompiled) {
            Ok(_) => {
                self.settle();
                self.unsure = false;
                Ok(())
            }
            Err(error) => {
                self.layout = before;
                Err(error)
            }
        }
    }

    /// Makes the kernel have what the touched part of the model compiles to. Then [`Self::settle`] it, or
    /// [`Self::take_back`]. After an error kernel and layout are as they were.
    pub(crate) fn install(&mut self, touched: &Touched) -> Result<Installed, ActorError> {
        let indices = self.layout.cursors_of(touched.services.iter());
        let cursors = tables::cursors(self.maps(), &indices)?;
        let start = Instant::now();
        let recompiled =
            recompile(&mut self.layout, &self.model, touched, &self.neighbours, &cursors, &self.tables)?;
        self.took.compile += start.elapsed();
        let start = Instant::now();
        let put = self.put(recompiled).inspect_err(|_| self.layout.revert());
        self.took.kernel += start.elapsed();
        put
    }

    /// The same, for good: what was touched, or everything after a disturbance.
    pub(crate) fn install_now(&mut self, touched: &Touched) -> Result<(), ActorError> {
        if self.unsure {
            return self.install_all();
        }
        self.install(touched)?.stays();
        self.settle();
        Ok(())
    }

    /// Puts changes into the kernel. After an error it has what it had.
    fn put(&mut self, Recompiled { changes, new_reals }: Recompiled) -> Result<Installed, ActorError> {
        self.clear_indices(&new_reals)?;
        let reals = changes.iter().filter_map(|change| match change {
            TableChange::PutReal(index, now) => Some((*index, *self.tables.reals.get(index)?, *now)),
            _ => None,
        });
        let reals: Vec<(u32, Real, Real)> = reals.collect();
        let remembering = self.remembering(&changes);
        self.tables_changed += changes.len() as u64;
        match tables::apply(self.datapath.tables(), &mut self.tables, &changes) {
            Ok(undo) => {
                let reconsidered = self.forget_destinations(&remembering).and_then(|()| {
                    reals.iter().try_for_each(|(index, before, now)| self.reconsider(*index, before, now))
                });
                match reconsidered {
                    Ok(()) => Ok(Installed { undo }),
                    Err(error) => {
                        self.undo(&undo);
                        Err(error.into())
                    }
                }
            }
            Err(tables::Refused { undo, error }) => {
                self.undo(&undo);
                Err(error.into())
            }
        }
    }

    /// What was installed stays.
    pub(crate) fn settle(&mut self) {
        self.layout.settle();
        self.tables_version += 1;
    }

    /// Makes kernel and layout what they were before the installation.
    pub(crate) fn take_back(&mut self, Installed { undo }: Installed) {
        self.undo(&undo);
        self.layout.revert();
    }

    fn undo(&mut self, undo: &[TableChange]) {
        self.tables_changed += undo.len() as u64;
        if let Err(tables::Refused { error, .. }) =
            tables::apply(self.datapath.tables(), &mut self.tables, undo)
        {
            log_error("the tables could not be restored: they are read again before the next change", &error);
            self.unsure = true;
        }
        self.tables_version += 1;
    }

    /// A real server with new thresholds goes by the flows it has [`ip_vs_ctl.c`, `__ip_vs_update_dest`], as does one that
    /// is added again with flows.
    fn reconsider(&self, index: u32, before: &Real, now: &Real) -> Result<(), TableError> {
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

    /// Services that these changes touch and that remember destinations: index and scheduler.
    fn remembering(&self, changes: &[TableChange]) -> BTreeSet<(u32, u16)> {
        let keys = changes.iter().filter_map(|change| match change {
            TableChange::PutService(key, _) | TableChange::RemoveService(key) => Some(key),
            _ => None,
        });
        let services = keys.filter_map(|key| self.tables.services.get(key));
        services.filter(|it| is_affine(it)).map(|it| (it.index, it.scheduler)).collect()
    }

    /// Takes away the destinations that a service remembers by a scheduler it has no longer: IPVS gives the memory up with
    /// the scheduler [`ip_vs_lblc.c`, `ip_vs_lblc_done_svc`].
    fn forget_destinations(&self, before: &BTreeSet<(u32, u16)>) -> Result<(), TableError> {
        if before.is_empty() {
            return Ok(());
        }
        // A service of a mark is there under several keys.
        let now: BTreeSet<(u32, u16)> = self
            .tables
            .services
            .values()
            .filter(|it| is_affine(it))
            .map(|it| (it.index, it.scheduler))
            .collect();
        let ended: BTreeSet<u32> = before.difference(&now).map(|(index, _)| *index).collect();
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

    /// Forgets what former real servers of these indices counted. Their packets go on counting as forwarded: the packet
    /// path does not count that verdict, it is the rest of the real servers' packets, so they move to its place.
    fn clear_indices(&self, indices: &[u32]) -> Result<(), TableError> {
        let maps = self.maps();
        let sorted: BTreeSet<u32> = indices.iter().copied().collect();
        for (start, len) in runs(sorted) {
            let counters = maps.counters.fold_range(start, len, add_counters)?;
            for (index, counters) in (start..).zip(counters).filter(|(_, it)| *it != Counters::default()) {
                let place = Verdict::ForwardKnown.number();
                let sum: u64 =
                    maps.verdicts.get(place)?.iter().fold(counters.in_packets, |a, b| a.wrapping_add(*b));
                maps.verdicts.put_sum(place, &sum)?;
                maps.counters.put_sum(index, &Counters::default())?;
            }
            maps.progress.put_range(start, &vec![0; len as usize])?;
            maps.failures.put_range(start, &vec![Failures::default(); len as usize])?;
            maps.loads.clear_range(start, len)?;
        }
        Ok(())
    }

    /// One more than the highest index of a real server in the tables.
    fn reals_end(&self) -> u32 {
        self.tables.reals.last_key_value().map_or(0, |(index, _)| index.saturating_add(1))
    }

    /// Counters by index, all CPUs together.
    pub(crate) fn counters(&self) -> Result<Vec<Counters>, TableError> {
        self.maps().counters.fold_range(0, self.reals_end(), add_counters)
    }

    /// The counters of these indices.
    pub(crate) fn counters_of(&self, indices: BTreeSet<u32>) -> Result<BTreeMap<u32, Counters>, TableError> {
        let all = |start, len| {
            let counters = self.maps().counters.fold_range(start, len, add_counters)?;
            Ok::<_, TableError>((start..).zip(counters))
        };
        let found = runs(indices.iter().copied());
        if found.len() > RUNS_MAX {
            return Ok(all(0, self.reals_end())?.filter(|(index, _)| indices.contains(index)).collect());
        }
        let mut counters = BTreeMap::new();
        for (start, len) in found {
            counters.extend(all(start, len)?);
        }
        Ok(counters)
    }
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
