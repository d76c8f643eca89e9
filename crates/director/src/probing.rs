//! Makes the probes that the health machine orders, many at a time.

use health::{Order, Outcome, ProbeId};
use probe::{NextHop, Prober};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Probes under way at once; more wait, which counts towards their interval but not towards their time-out.
const UNDER_WAY_MAX: usize = 1024;
/// Outcomes waiting for the owner of the director.
const WAITING_MAX: usize = 4096;

/// The probes under way. Dropped, it ends them.
#[derive(Debug)]
pub(crate) struct Probing {
    prober: Arc<Prober>,
    room: Arc<Semaphore>,
    told: mpsc::Sender<(ProbeId, Outcome)>,
    tasks: JoinSet<()>,
}

impl Probing {
    /// Nothing under way, and where outcomes come from.
    pub(crate) fn new() -> (Self, mpsc::Receiver<(ProbeId, Outcome)>) {
        let (told, outcomes) = mpsc::channel(WAITING_MAX);
        let (prober, room) = (Arc::default(), Arc::new(Semaphore::new(UNDER_WAY_MAX)));
        (Self { prober, room, told, tasks: JoinSet::new() }, outcomes)
    }

    /// Starts these, each with the next hop of the way that it takes.
    pub(crate) fn start(&mut self, orders: Vec<(Order, Option<NextHop>)>) {
        while self.tasks.try_join_next().is_some() {}
        for (Order { id, probe }, next_hop) in orders {
            let (prober, room, told) = (Arc::clone(&self.prober), Arc::clone(&self.room), self.told.clone());
            self.tasks.spawn(async move {
                // Neither is ever closed while tasks live.
                let Ok(_place) = room.acquire_owned().await else { return };
                let outcome = prober.probe(&probe, next_hop.as_ref()).await;
                let _ = told.send((id, outcome)).await;
            });
        }
    }
}
