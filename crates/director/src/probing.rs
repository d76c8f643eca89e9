//! Makes the probes that the health machine orders, many at a time.

use crate::trace::{Attribute, Began, Span, Traces};
use health::{Order, Outcome, Probe, ProbeId};
use probe::{NextHop, Prober};
use std::net::SocketAddr;
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
    traces: Traces,
}

impl Probing {
    /// Nothing under way, and where outcomes come from.
    pub(crate) fn new(traces: Traces) -> (Self, mpsc::Receiver<(ProbeId, Outcome)>) {
        let (told, outcomes) = mpsc::channel(WAITING_MAX);
        let (prober, room) = (Arc::default(), Arc::new(Semaphore::new(UNDER_WAY_MAX)));
        (Self { prober, room, told, tasks: JoinSet::new(), traces }, outcomes)
    }

    /// Starts these, each with the next hop of the way that it takes. `services` names those that a probe is made for; it is
    /// asked only if somebody wants to know.
    pub(crate) fn start(
        &mut self,
        orders: Vec<(Order, Option<NextHop>)>,
        services: impl Fn(ProbeId) -> String,
    ) {
        while self.tasks.try_join_next().is_some() {}
        for (Order { id, probe }, next_hop) in orders {
            let (prober, room, told) = (Arc::clone(&self.prober), Arc::clone(&self.room), self.told.clone());
            let traces = self.traces.clone();
            let services = if traces.are_wanted() { services(id) } else { String::new() };
            self.tasks.spawn(async move {
                // Neither is ever closed while tasks live.
                let Ok(_place) = room.acquire_owned().await else { return };
                let began = Began::now();
                let outcome = prober.probe(&probe, next_hop.as_ref()).await;
                if traces.are_wanted() {
                    traces.add(span(&probe, services, &outcome, began));
                }
                let _ = told.send((id, outcome)).await;
            });
        }
    }
}

fn span(probe: &Probe, services: String, outcome: &Outcome, began: Began) -> Span {
    let (result, failure) = match outcome {
        Outcome::Passed { .. } => ("passed", None),
        Outcome::Failed { reason } => ("failed", Some(reason.clone())),
    };
    Span {
        name: "health check",
        start: began.at,
        took: began.took(),
        attributes: vec![
            ("sluice.service", Attribute::Text(services)),
            ("sluice.real", Attribute::Text(SocketAddr::new(probe.address, probe.port).to_string())),
            ("sluice.check", Attribute::Text(probe.kind.name().to_owned())),
            ("sluice.result", Attribute::Text(result.to_owned())),
        ],
        failure,
    }
}
