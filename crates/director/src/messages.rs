//! Messages from the control API to the owner of the director.

use crate::capture::Claim;
use crate::sync::Ready;
use api::{
    Applied, ApplyRequest, CaptureRequest, Changes, Connections, Events, ExplainRequest, Explanation,
    FlowPage, FlowRequest, HealthView, History, Marks, Outcomes, Plan, Policies, Refusal, RefusalKind,
    RollbackRequest, Saved, Services, SettingsView, Status, SyncDaemons, SyncRole, Verdicts,
};
use connsync::Record;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{mpsc, oneshot};

/// Requests waiting for the owner; more wait in their sockets.
const WAITING_MAX: usize = 64;

/// Where the answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the API asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// What the director does, in a sentence.
    Summary(Reply<String>),
    Status(Reply<Status>),
    Services(Reply<Services>),
    Change(Changes, Reply<Outcomes>),
    Connections(u64, Reply<Connections>),
    Flows(FlowRequest, Reply<FlowPage>),
    Marks(Reply<Marks>),
    Verdicts(Reply<Verdicts>),
    Policies(Reply<Policies>),
    Settings(Reply<SettingsView>),
    Health(Reply<HealthView>),
    Metrics(Reply<String>),
    Declared(Reply<Changes>),
    Saved(Reply<Saved>),
    Plan(ApplyRequest, Reply<Plan>),
    Apply(ApplyRequest, Reply<Applied>),
    RollBack(RollbackRequest, Reply<Applied>),
    Confirm(Reply<History>),
    History(Reply<History>),
    Events(u64, Reply<Events>),
    CaptureClaim(CaptureRequest, Reply<Claim>),
    CaptureBegin(Box<kernel::Capture>, Reply<()>),
    CaptureEnd(Reply<Option<kernel::Capture>>),
    CaptureStop(Reply<bool>),
    RealNames(BTreeSet<u32>, Reply<BTreeMap<u32, String>>),
    Explain(ExplainRequest, Reply<Explanation>),
    SyncStart(Box<Ready>, Reply<()>),
    SyncStop(SyncRole, Reply<()>),
    SyncDaemons(Reply<SyncDaemons>),
    /// What another director announces; nobody waits for an answer.
    Synchronise(Vec<Record>),
}

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox(mpsc::Sender<Request>);

/// A mailbox and its receiving end.
pub(crate) fn mailbox() -> (Mailbox, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Mailbox(sender), receiver)
}

impl Mailbox {
    /// Whether its owner has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Says something. Waits only for room.
    pub(crate) async fn tell(&self, request: Request) -> Result<(), Refusal> {
        self.0.send(request).await.map_err(|_| ending())
    }

    /// Asks and waits.
    pub(crate) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}

fn ending() -> Refusal {
    Refusal::new(RefusalKind::Aborted, "the director is ending")
}
