//! What the acts tell the screen.

use super::report::Outcome;
use crate::load::LoadWatch;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far an act is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActState {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// Ended.
    Done(Outcome),
}

/// An act as the screen shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActLine {
    /// Its name.
    pub name: String,
    /// What is done in it.
    pub plan: String,
    /// How far it is.
    pub state: ActState,
}

#[derive(Debug, Default)]
struct State {
    acts: Vec<ActLine>,
    watch: Option<LoadWatch>,
    table: String,
    table_is_old: bool,
    notes: Vec<String>,
}

/// The state of the demo, shared by the acts and the screen; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<State>>);

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names every act and what is done in it, in order.
    pub fn announce<'a>(&self, acts: impl Iterator<Item = (&'a str, &'a str)>) {
        let line = |(name, plan): (&str, &str)| ActLine {
            name: name.to_owned(),
            plan: plan.to_owned(),
            state: ActState::Waiting,
        };
        self.state().acts = acts.map(line).collect();
    }

    /// An act begins.
    pub fn begin(&self, name: &str) {
        self.set(name, ActState::Running);
    }

    /// An act has ended.
    pub fn end(&self, outcome: Outcome) {
        let name = outcome.act.clone();
        self.set(&name, ActState::Done(outcome));
    }

    fn set(&self, name: &str, to: ActState) {
        for act in &mut self.state().acts {
            if act.name == name {
                act.state = to.clone();
            }
        }
    }

    /// The load to show.
    pub fn show_load(&self, watch: LoadWatch) {
        self.state().watch = Some(watch);
    }

    /// The `ipvsadm` table to show.
    pub fn show_table(&self, table: String) {
        let mut state = self.state();
        (state.table, state.table_is_old) = (table, false);
    }

    /// The table cannot be read; the one before stays.
    pub fn show_no_table(&self) {
        self.state().table_is_old = true;
    }

    /// Something to print after the screen is gone.
    pub fn note(&self, note: String) {
        self.state().notes.push(note);
    }

    /// Every act and how far it is.
    #[must_use]
    pub fn acts(&self) -> Vec<ActLine> {
        self.state().acts.clone()
    }

    /// The outcomes so far.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let ended = |act: ActLine| match act.state {
            ActState::Done(outcome) => Some(outcome),
            ActState::Waiting | ActState::Running => None,
        };
        self.acts().into_iter().filter_map(ended).collect()
    }

    /// The load to show, if there is one yet.
    #[must_use]
    pub fn watch(&self) -> Option<LoadWatch> {
        self.state().watch.clone()
    }

    /// The table as read last.
    #[must_use]
    pub fn table(&self) -> String {
        self.state().table.clone()
    }

    /// Whether the last reading of the table failed, so that it is one from before.
    #[must_use]
    pub fn table_is_old(&self) -> bool {
        self.state().table_is_old
    }

    /// Everything noted.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.state().notes.clone()
    }
}
