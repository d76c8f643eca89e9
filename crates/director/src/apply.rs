//! Whole configurations: what a cluster file would change, changing it, taking it back.

use crate::actor::{Director, log_error};
use crate::history::{OnTrial, Record};
use crate::state::StateError;
use crate::trace::{Attribute, Began, Span, Took};
use crate::trial::Look;
use abi::Verdict;
use api::{
    Applied, ApplyRequest, CONFIRM_S, Change, Changes, History, HistoryEntry, Pending, Plan, Refusal,
    RefusalKind, RollbackRequest, Saved,
};
use cluster::{Cluster, Lines};
use plan::{Model, describe, difference};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A configuration to be applied, and where it comes from.
struct Wanted {
    model: Model,
    source: String,
    text: Option<String>,
    confirm_s: Option<u32>,
    /// Why, if nobody asked for it.
    why: Option<String>,
}

impl Director {
    /// What a cluster file would change.
    pub(crate) fn plan(&self, request: &ApplyRequest) -> Result<Plan, Refusal> {
        let cluster = self.read(request)?;
        Ok(self.plan_of(&difference(&self.declared, &cluster.model)))
    }

    /// Makes a cluster file the configuration.
    pub(crate) fn apply(&mut self, request: ApplyRequest) -> Result<Applied, Refusal> {
        let cluster = self.read(&request)?;
        if let Some(expected) = request.expect_generation
            && expected != self.generation
        {
            let message = format!(
                "the configuration is number {} now, not {expected} any more: look at a new plan first",
                self.generation
            );
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        if let Some(seconds) = request.confirm_s
            && !CONFIRM_S.contains(&seconds)
        {
            let message =
                format!("{seconds} s to confirm: it must be {} to {} s", CONFIRM_S.start(), CONFIRM_S.end());
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        let ApplyRequest { name, text, confirm_s, .. } = request;
        let text = Some(text);
        self.install_wanted(Wanted { model: cluster.model, source: name, text, confirm_s, why: None })
    }

    /// Goes back to an earlier configuration, as a new one.
    pub(crate) fn roll_back(&mut self, request: RollbackRequest) -> Result<Applied, Refusal> {
        self.go_back(request.generation, None)
    }

    fn go_back(&mut self, generation: u64, why: Option<String>) -> Result<Applied, Refusal> {
        let record = self.history.get(generation).map_err(|error| unreadable(&error))?;
        let Some(record) = record else {
            let message = format!(
                "configuration {generation} is not in the history: `sluice history' lists those that are"
            );
            return Err(Refusal::new(RefusalKind::Invalid, message));
        };
        let mut model = Model::new(*self.declared.options());
        for change in &record.configuration.changes {
            model.apply(change)?;
        }
        let source = format!("rollback to {generation} ({})", record.entry.source);
        // What was changed by hand has the names of the file before.
        let text = match record.text {
            Some(text) => Some(text),
            None => self.history.file_at(generation).map_err(|error| unreadable(&error))?.map(|it| it.text),
        };
        let applied = self.install_wanted(Wanted { model, source, text, confirm_s: None, why })?;
        self.settle_pending();
        Ok(applied)
    }

    /// Keeps what was applied.
    pub(crate) fn confirm(&mut self) -> Result<History, Refusal> {
        if self.history.pending().map_err(|error| unreadable(&error))?.is_none() {
            return Err(Refusal::new(RefusalKind::Invalid, "there is nothing to confirm"));
        }
        self.settle_pending();
        self.history_view()
    }

    /// The configurations that can be gone back to.
    pub(crate) fn history_view(&self) -> Result<History, Refusal> {
        let entries = self.history.entries().map_err(|error| unreadable(&error))?;
        let pending = self.history.pending().map_err(|error| unreadable(&error))?;
        Ok(History { generation: self.generation, entries, pending })
    }

    /// What is declared, and the cluster file that it came from.
    pub(crate) fn saved(&self) -> Result<Saved, Refusal> {
        let file = self.history.file_at(self.generation).map_err(|error| unreadable(&error))?;
        Ok(Saved { declared: self.declared.to_changes(), file })
    }

    /// Takes back what was not confirmed in time, or what made traffic much worse, with what was changed by hand since. To be
    /// called every two seconds.
    pub(crate) fn watch_trial(&mut self) {
        let look = self.look();
        let servers: usize = if self.trial.is_under_way() {
            self.health_view().services.iter().map(|it| it.reals.len()).sum()
        } else {
            0
        };
        let worse = self.trial.look(look, servers as u64);
        let on_trial = match self.history.on_trial() {
            Ok(Some(on_trial)) => on_trial,
            Ok(None) => return,
            Err(error) => return log_error("what is to be confirmed could not be read", &error),
        };
        if let Some(baseline) = self.trial.news_to_keep(look)
            && let Err(error) =
                self.history.set_on_trial(Some(&OnTrial { baseline: Some(baseline), ..on_trial }))
        {
            log_error("what the next daemon would have to know of the trial could not be kept", &error);
        }
        let pending = on_trial.pending;
        let why = if epoch_ms() >= pending.deadline_ms {
            Some("it was not confirmed in time".to_owned())
        } else {
            worse
        };
        let Some(why) = why else { return };
        let why = format!("configuration {} was taken back: {why}", pending.generation);
        if let Err(error) = self.go_back(pending.back_to, Some(why)) {
            log_error("a configuration could not be taken back", &error);
        }
    }

    /// Goes on with what a former daemon tried.
    pub(crate) fn resume_trial(&mut self) {
        match self.history.on_trial() {
            Ok(Some(OnTrial { baseline: Some(baseline), .. })) => {
                let look = self.look();
                self.trial.resume(baseline, look, self.adopted);
            }
            Ok(_) => {}
            Err(error) => log_error("what is to be confirmed could not be read", &error),
        }
    }

    fn settle_pending(&mut self) {
        self.trial.end();
        if let Err(error) = self.history.set_on_trial(None) {
            log_error("what is to be confirmed could not be forgotten", &error);
        }
    }

    fn read(&self, request: &ApplyRequest) -> Result<Cluster, Refusal> {
        let parsed = cluster::parse(&request.text, self.declared.options());
        parsed.cluster.ok_or_else(|| {
            let lines = Lines::new(&request.text);
            let told: Vec<String> = parsed
                .findings
                .iter()
                .map(|finding| {
                    let place = lines.place(finding.span.start);
                    let severity = finding.severity.name();
                    format!(
                        "{}:{}:{}: {severity}: {}",
                        request.name, place.line, place.column, finding.message
                    )
                })
                .collect();
            Refusal::new(RefusalKind::Invalid, told.join("\n"))
        })
    }

    fn plan_of(&self, changes: &[Change]) -> Plan {
        let flows = |service: &_, real: &_| {
            let index = self.layout.real_index(service, real);
            let load = index
                .and_then(|index| self.datapath.tables().loads.get(index).ok().flatten())
                .unwrap_or_default();
            let (active, inactive) = load.clamped();
            active.saturating_add(inactive)
        };
        let description = describe(&self.declared, changes, flows);
        Plan { generation: self.generation, lines: description.lines, warnings: description.warnings }
    }

    /// The one way for whole configurations, with a span of how it went.
    fn install_wanted(&mut self, wanted: Wanted) -> Result<Applied, Refusal> {
        self.took = Took::default();
        let (began, source) = (Began::now(), wanted.source.clone());
        let applied = self.record_and_install(wanted);
        if self.traces.are_wanted() {
            let changes = applied.as_ref().map_or(0, |it| it.plan.lines.len() as u64);
            self.traces.add(Span {
                name: "apply",
                start: began.at,
                took: began.took(),
                attributes: vec![
                    ("sluice.source", Attribute::Text(source)),
                    ("sluice.generation", Attribute::Number(self.generation)),
                    ("sluice.changes", Attribute::Number(changes)),
                    (
                        "sluice.result",
                        Attribute::Text(if applied.is_ok() { "applied" } else { "refused" }.to_owned()),
                    ),
                    ("sluice.compile_ms", Attribute::Time(self.took.compile)),
                    ("sluice.kernel_ms", Attribute::Time(self.took.kernel)),
                    ("sluice.disk_ms", Attribute::Time(self.took.disk)),
                ],
                failure: applied.as_ref().err().map(|refusal| refusal.message.clone()),
            });
        }
        applied
    }

    /// Records, then the configuration itself, each of them whole or not at all.
    fn record_and_install(&mut self, wanted: Wanted) -> Result<Applied, Refusal> {
        let changes = difference(&self.declared, &wanted.model);
        let plan = self.plan_of(&changes);
        let unkept = |error: StateError| unreadable(&error);
        if changes.is_empty() {
            self.keep_text(wanted).map_err(unkept)?;
            return Ok(Applied { generation: self.generation, plan, confirm_s: None });
        }
        let (back_to, generation) = (self.generation, self.generation + 1);
        // What is now must be there to go back to, whoever made it.
        if self.history.get(back_to).map_err(unkept)?.is_none() {
            let entry = self.entry(back_to, "changes one by one".to_owned(), &self.declared);
            let configuration = self.declared.to_changes();
            self.history.add(&Record { entry, configuration, text: None }).map_err(unkept)?;
        }
        let entry = self.entry(generation, wanted.source.clone(), &wanted.model);
        let configuration = wanted.model.to_changes();
        self.history.add(&Record { entry, configuration, text: wanted.text }).map_err(unkept)?;
        let former = self.history.on_trial().map_err(unkept)?;
        let baseline = self.trial.baseline(self.look());
        let on_trial = match (wanted.confirm_s, former) {
            (Some(seconds), former) => {
                let pending = Pending {
                    generation,
                    // What was never confirmed itself is nothing to go back to.
                    back_to: former.map_or(back_to, |it| it.pending.back_to),
                    deadline_ms: epoch_ms() + u64::from(seconds) * 1000,
                    replaced_by: None,
                };
                Some(OnTrial { pending, baseline: Some(baseline) })
            }
            (None, former) => former
                .map(|it| OnTrial { pending: Pending { replaced_by: Some(generation), ..it.pending }, ..it }),
        };
        if on_trial != former {
            self.history.set_on_trial(on_trial.as_ref()).map_err(unkept)?;
        }
        let cause = match &wanted.why {
            Some(why) => format!("{}, {why}", wanted.source),
            None => format!("{} was applied", wanted.source),
        };
        let outcomes = self.change_because(&Changes { atomic: true, changes }, Some(&cause));
        if let Some(refusal) =
            outcomes.refusals.into_iter().flatten().find(|it| it.kind != RefusalKind::Aborted)
        {
            if let Err(error) =
                self.history.remove(generation).and_then(|()| self.history.set_on_trial(former.as_ref()))
            {
                log_error(
                    "the record of a configuration that was refused stays until the next start",
                    &error,
                );
            }
            return Err(refusal);
        }
        if wanted.confirm_s.is_some() {
            self.trial.begin(baseline);
        } else if former.is_some() {
            self.settle_pending();
        }
        Ok(Applied { generation: self.generation, plan, confirm_s: wanted.confirm_s.map(u64::from) })
    }

    /// Another file for the present configuration: new names, templates or comments, which `sluice save` gives back.
    fn keep_text(&self, wanted: Wanted) -> Result<(), StateError> {
        let known = self.history.file_at(self.generation)?;
        if wanted.text.is_none() || known.is_some_and(|it| Some(it.text) == wanted.text) {
            return Ok(());
        }
        let entry = self.entry(self.generation, wanted.source, &wanted.model);
        let configuration = self.declared.to_changes();
        self.history.add(&Record { entry, configuration, text: wanted.text })
    }

    fn entry(&self, generation: u64, source: String, model: &Model) -> HistoryEntry {
        HistoryEntry { generation, time_ms: epoch_ms(), source, services: model.services().len() }
    }

    fn look(&self) -> Look {
        let counts = self.counted_verdicts().unwrap_or_else(|error| {
            log_error("verdicts not read", &error);
            Vec::new()
        });
        let sum = |of: &[Verdict]| of.iter().filter_map(|it| counts.get(it.number() as usize)).sum();
        Look {
            opened: sum(&[Verdict::ForwardNew, Verdict::ForwardOnePacket]),
            failed: sum(&[
                Verdict::ForwardRescued,
                Verdict::AnswerPortUnreachable,
                Verdict::AnswerReset,
                Verdict::DropRealGone,
                Verdict::DropUnresolved,
            ]),
            falls: self.events.falls(),
        }
    }
}

fn unreadable(error: &StateError) -> Refusal {
    Refusal::new(RefusalKind::Kernel, runtime::Chain(error).to_string())
}

fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
