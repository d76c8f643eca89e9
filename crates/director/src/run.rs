//! Start, loop and end of the daemon.

use crate::actor::{ActorError, Director, log_error};
use crate::connections;
use crate::http;
use crate::listen::{ListenError, Socket, lock_pins, lock_state};
use crate::messages::{Mailbox, Request, mailbox};
use crate::options::Options;
use crate::probing::Probing;
use crate::secret::{Held, SecretError};
use crate::service::{drop_privileges, report};
use crate::state::{StateError, StateFile};
use crate::statistics::PERIOD;
use crate::trace::Traces;
use api::{Refusal, RefusalKind};
use host::neighbours::machine::Timing;
use host::netlink::Netlink;
use host::{Interface, NeighbourEvent, Neighbours};
use kernel::{AttachError, Datapath, TableError};
use plan::Resolved;
use runtime::clock::monotonic_coarse_ns;
use runtime::signals::Shutdown;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Between two slices of the sweep: at least, and at most. Counts of connections, which thresholds look at, are late by
/// as much; a sweep of large tables takes longer and is done less often.
const SWEEP_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A pause is so many times as long as the slice before it took, within those bounds: a slice of up to 20 ms costs two hundredths
/// of a CPU at most, a longer one its own length each second.
const SWEEP_SHARE: u32 = 50;
/// Between two looks at what changes around the director.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How long open requests may still take at the end.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Neighbour events taken at once.
const EVENTS_MAX: usize = 1024;

/// Why the director ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Log set-up.
    #[error("cannot write logs")]
    Logging(#[from] runtime::logging::LoggingError),
    /// The machine refused threads or timers.
    #[error("cannot start the director")]
    Runtime(#[source] std::io::Error),
    /// Signals.
    #[error("cannot start the director")]
    Signals(#[from] runtime::signals::SignalError),
    /// Socket or locks.
    #[error("cannot start the director")]
    Listen(#[from] ListenError),
    /// Locks, for `--remove`.
    #[error("cannot remove the packet path: end that director first")]
    InUse(#[source] ListenError),
    /// Kernel or permission.
    #[error("cannot run a director here")]
    Requirement(#[from] kernel::RequirementError),
    /// The cluster's secret.
    #[error("cannot start the director")]
    Secret(#[from] SecretError),
    /// The directory of the configuration.
    #[error("cannot start the director")]
    State(#[from] StateError),
    /// Programs and tables.
    #[error("cannot start the director")]
    Open(#[from] kernel::OpenError),
    /// Pins.
    #[error("cannot remove the packet path")]
    Pins(#[from] kernel::PinError),
    /// Tables and model.
    #[error("cannot start the director")]
    Actor(#[from] ActorError),
    /// An interface.
    #[error("cannot start the director")]
    Attach(#[from] AttachError),
    /// The neighbour service.
    #[error("cannot start the director")]
    Neighbours(#[from] host::neighbours::NeighboursError),
    /// Capabilities.
    #[error("cannot start the director")]
    Privileges(#[from] runtime::privileges::PrivilegeError),
    /// The control socket broke.
    #[error("cannot serve the control socket")]
    Serve(#[source] std::io::Error),
    /// The neighbour service ended by itself.
    #[error("the watch on the neighbours has ended")]
    NeighboursEnded,
}

/// Sets up logs and runs the director until a signal, in the network namespace of the calling thread.
///
/// # Errors
/// [`Error`], boxed.
pub fn main(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    runtime::logging::init(options.log_format).map_err(Error::from)?;
    Ok(run(&options)?)
}

/// Runs the director until SIGTERM or SIGINT; with `remove`, removes everything from the kernel instead.
///
/// # Errors
/// [`Error`]. After a failed start nothing of it is left behind; what an earlier director left still works.
pub fn run(options: &Options) -> Result<(), Error> {
    // First, so that who lacks permission is told that and not which file could not be made.
    kernel::check_requirements()?;
    if options.remove {
        return remove(options);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(begin_thread)
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let ended = runtime.block_on(start(options));
    runtime.shutdown_timeout(END_TIMEOUT);
    ended
}

/// No thread but the one that starts the director ever has more than it needs.
fn begin_thread() {
    if let Err(error) = drop_privileges() {
        log_error("a thread would have had too many privileges", &error);
        std::process::exit(1);
    }
}

fn remove(options: &Options) -> Result<(), Error> {
    let _lock = lock_pins(&options.pin).map_err(Error::InUse)?;
    let detached = kernel::detach_all(&options.pin)?;
    if let Err(error) = Socket::remove_stale(&options.socket) {
        log_error("the control socket of a killed director stays", &error);
    }
    tracing::info!(interfaces = detached, pins = %options.pin.display(), "removed the packet path");
    Ok(())
}

async fn start(options: &Options) -> Result<(), Error> {
    // Before anything that a signal could leave half done.
    let shutdown = Shutdown::install()?;
    let _pins = lock_pins(&options.pin)?;
    let _state = lock_state(&options.state)?;
    let state = StateFile::in_directory(&options.state)?;
    let (_socket, listener) = Socket::listen(&options.socket)?;

    let limits = options.limits.into();
    let datapath = Datapath::open_pinned(&options.pin, &limits)?;
    let is_new = !datapath.adopted();
    let started = match take_over(options, datapath, state).await {
        Ok(started) => started,
        Err(error) => {
            if is_new && let Err(error) = kernel::detach_all(&options.pin) {
                log_error("not everything was removed", &error);
            }
            return Err(error);
        }
    };
    serve(started, listener, shutdown).await
}

/// What runs from here on.
struct Started {
    director: Director,
    interfaces: Vec<String>,
    neighbours: Neighbours,
    events: mpsc::Receiver<NeighbourEvent>,
}

async fn take_over(options: &Options, datapath: Datapath, state: StateFile) -> Result<Started, Error> {
    let held = Held::load_or_make(&options.secret_path())?;
    let plan_options = plan::Options {
        limits: *datapath.limits(),
        placement_key: held.secret.placement_key,
        overflow_key: held.secret.overflow_key,
        ..plan::Options::default()
    };
    let mut director = Director::new(datapath, state, plan_options)?;
    if let Some(collector) = options.otlp.clone() {
        director.traces = Traces::to(collector);
    }
    attach(&mut director.datapath, &options.interfaces).await?;
    let (neighbours, events) = Neighbours::start(Timing::default()).await?;
    neighbours.watch(director.watched.addresses()).await?;
    held.keep()?;
    drop_privileges()?;
    tracing::info!(
        generation = director.generation,
        services = director.model.services().len(),
        adopted = director.adopted,
        tables_changed = director.tables_changed,
        socket = %options.socket.display(),
        "the director is ready"
    );
    runtime::notify::ready(&director.summary());
    Ok(Started { director, interfaces: options.interfaces.clone(), neighbours, events })
}

/// Attaches to exactly these interfaces. When one is refused, those attached here are detached again.
async fn attach(datapath: &mut Datapath, names: &[String]) -> Result<(), Error> {
    let before: BTreeSet<u32> = datapath.attachments().iter().map(|it| it.interface).collect();
    for name in names {
        if let Err(error) = datapath.attach(name) {
            detach_all_but(datapath, |interface| before.contains(&interface));
            return Err(name_holder(error).await.into());
        }
    }
    let names_now = kernel::interface_names();
    let is_wanted = |interface: u32| names_now.get(&interface).is_some_and(|name| names.contains(name));
    detach_all_but(datapath, is_wanted);
    for attachment in datapath.attachments() {
        let name = names_now.get(&attachment.interface);
        tracing::info!(interface = name, mode = %attachment.mode, "attached");
    }
    Ok(())
}

/// Attaches again to interfaces that were deleted and made anew. Those still missing are tried again each time.
fn attach_returned(datapath: &mut Datapath, names: &[String]) {
    match datapath.forget_gone() {
        Ok(0) => {}
        Ok(gone) => tracing::warn!(interfaces = gone, "interfaces are gone"),
        Err(error) => log_error("the pin of an interface that is gone could not be removed", &error),
    }
    if datapath.attachments().len() >= names.len() {
        return;
    }
    for name in names {
        match datapath.attach(name) {
            Ok(mode) => tracing::debug!(interface = name, %mode, "attached"),
            Err(error) => tracing::debug!(interface = name, error = %runtime::Chain(&error), "not attached"),
        }
    }
}

fn detach_all_but(datapath: &mut Datapath, keep: impl Fn(u32) -> bool) {
    let others: Vec<u32> =
        datapath.attachments().iter().map(|it| it.interface).filter(|it| !keep(*it)).collect();
    for interface in others {
        match datapath.detach(interface) {
            Ok(_) => tracing::info!(interface, "detached"),
            Err(error) => log_error("not detached", &error),
        }
    }
}

/// Adds whose program it is to the error that an interface is in use.
async fn name_holder(error: AttachError) -> AttachError {
    let AttachError::Busy { name, holder: None } = error else { return error };
    let program = match Netlink::open() {
        Ok(netlink) => {
            let interface = Interface::by_name(&netlink, &name).await.ok();
            interface.and_then(|interface| interface.xdp_program_id)
        }
        Err(_) => None,
    };
    AttachError::Busy { name, holder: program.and_then(kernel::holder_of) }
}

async fn serve(started: Started, listener: UnixListener, mut shutdown: Shutdown) -> Result<(), Error> {
    let (mailbox, requests) = mailbox();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let _reports = AbortOnDrop(tokio::spawn(report(mailbox.clone())));
    let api = tokio::spawn(serve_api(listener, mailbox.clone(), ended));
    let done = tokio::select! {
        signal = shutdown.wait() => {
            tracing::info!(signal, "ending; packets go on being balanced");
            runtime::notify::stopping();
            Ok(())
        }
        done = own(started, requests, mailbox) => done,
    };
    drop(end);
    match tokio::time::timeout(END_TIMEOUT, api).await {
        Ok(Ok(served)) => done.and(served.map_err(Error::Serve)),
        // Requests that do not end, or a task that was cut off: the daemon ends all the same.
        Ok(Err(_)) | Err(_) => done,
    }
}

async fn serve_api(
    listener: UnixListener,
    mailbox: Mailbox,
    ended: tokio::sync::oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let until = async {
        // The sender is dropped to end it.
        let _ = ended.await;
    };
    axum::serve(listener, http::router(mailbox)).with_graceful_shutdown(until).await
}

/// The one task that owns the director.
async fn own(started: Started, mut requests: mpsc::Receiver<Request>, mailbox: Mailbox) -> Result<(), Error> {
    let Started { mut director, interfaces, neighbours, mut events } = started;
    for daemon in director.sync.saved()? {
        director.sync.resume(daemon, &mailbox);
    }
    // A task of its own: waiting for the neighbour service here, while that waits for its events to be
    // taken here, would be for ever.
    let to_tell = Arc::new(News::default());
    let watcher = AbortOnDrop(tokio::spawn(tell_neighbours(neighbours, Arc::clone(&to_tell))));
    let mut sweep_at = Instant::now();
    let mut look = interval(LOOK_PERIOD);
    let mut statistics = interval(PERIOD);
    for timer in [&mut look, &mut statistics] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let (mut probing, mut outcomes) = Probing::new(director.traces.clone());
    let mut probed = Vec::new();
    let mut batch = Vec::new();
    loop {
        let probe_at = director.next_probe().map_or_else(|| Instant::now() + LOOK_PERIOD, Instant::from_std);
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => handle(&mut director, request),
                None => return Ok(()),
            },
            taken = events.recv_many(&mut batch, EVENTS_MAX) => {
                if taken == 0 {
                    return Err(Error::NeighboursEnded);
                }
                director.neighbours_changed(batch.drain(..).map(news).collect());
            }
            // Its sender lives as long as this loop.
            _ = outcomes.recv_many(&mut probed, EVENTS_MAX) => director.probed(probed.drain(..)),
            () = sleep_until(probe_at) => {
                let orders = director.due_probes();
                probing.start(orders, |id| director.probe_services(id));
            }
            () = sleep_until(sweep_at) => {
                let start = Instant::now();
                director.sweep(monotonic_coarse_ns());
                sweep_at = Instant::now() + sweep_pause(start.elapsed());
            }
            _ = look.tick() => {
                director.memory_changed(runtime::memory::free_pages());
                attach_returned(&mut director.datapath, &interfaces);
                director.tidy_state();
            }
            _ = statistics.tick() => {
                if let Err(error) = director.run_statistics() {
                    log_error("counters not read", &error);
                }
                director.watch_failures();
                director.watch_trial();
            }
        }
        to_tell.add(director.watched.take_news());
        if watcher.0.is_finished() {
            return Err(Error::NeighboursEnded);
        }
    }
}

/// How long to pause after a slice of the sweep that took so long.
fn sweep_pause(took: Duration) -> Duration {
    let (least, most) = SWEEP_PAUSE;
    took.saturating_mul(SWEEP_SHARE).clamp(least, most)
}

/// What the neighbour service has not been told yet: addresses, and whether each is to be watched. There are never more
/// than addresses that were watched or are to be.
#[derive(Debug, Default)]
struct News {
    waiting: Mutex<BTreeMap<IpAddr, bool>>,
    come: Notify,
}

impl News {
    fn add(&self, news: BTreeMap<IpAddr, bool>) {
        if !news.is_empty() {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
            self.come.notify_one();
        }
    }

    fn take(&self) -> BTreeMap<IpAddr, bool> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Hands news of addresses to the neighbour service.
async fn tell_neighbours(neighbours: Neighbours, news: Arc<News>) {
    loop {
        news.come.notified().await;
        if let Err(error) = neighbours.change(news.take()).await {
            log_error("addresses not watched", &error);
            return;
        }
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn news(event: NeighbourEvent) -> (IpAddr, Option<Resolved>) {
    let address = event.address;
    let resolved = match event.resolved {
        Some(host::Resolved::Hop(hop)) => {
            tracing::info!(
                %address, mac = %crate::convert::mac(&hop.destination.0), interface = hop.interface_index,
                mtu = hop.mtu, "next hop"
            );
            Some(Resolved {
                local: false,
                ifindex: hop.interface_index,
                destination_mac: hop.destination.0,
                source_mac: hop.source.0,
                mtu: hop.mtu,
                source: hop.source_address,
            })
        }
        Some(host::Resolved::Local) => {
            tracing::info!(%address, "an address of this machine: packets are left to it");
            Some(Resolved { local: true, ..Resolved::default() })
        }
        None => {
            tracing::warn!(%address, "next hop lost");
            None
        }
    };
    (address, resolved)
}

fn handle(director: &mut Director, request: Request) {
    // A client that went away does not want its answer.
    match request {
        Request::Summary(reply) => drop(reply.send(Ok(director.summary()))),
        Request::Status(reply) => drop(reply.send(Ok(director.status()))),
        Request::Services(reply) => drop(reply.send(director.services().map_err(unreadable))),
        Request::Change(changes, reply) => drop(reply.send(Ok(director.change(&changes)))),
        Request::Connections(cursor, reply) => {
            let page = connections::page(director.datapath.tables(), cursor, monotonic_coarse_ns());
            drop(reply.send(page.map_err(unreadable)));
        }
        Request::Flows(question, reply) => {
            drop(reply.send(director.flows(&question, monotonic_coarse_ns())));
        }
        Request::Marks(reply) => {
            drop(reply.send(Ok(api::Marks { marks: director.model.marks().collect() })));
        }
        Request::Verdicts(reply) => drop(reply.send(director.verdicts().map_err(unreadable))),
        Request::Policies(reply) => drop(reply.send(Ok(director.policies()))),
        Request::Plan(request, reply) => drop(reply.send(director.plan(&request))),
        Request::Apply(request, reply) => drop(reply.send(director.apply(request))),
        Request::RollBack(request, reply) => drop(reply.send(director.roll_back(request))),
        Request::Confirm(reply) => drop(reply.send(director.confirm())),
        Request::History(reply) => drop(reply.send(director.history_view())),
        Request::Declared(reply) => drop(reply.send(Ok(director.declared.to_changes()))),
        Request::Saved(reply) => drop(reply.send(director.saved())),
        Request::Metrics(reply) => drop(reply.send(metrics(director).map_err(unreadable))),
        Request::Health(reply) => drop(reply.send(Ok(director.health_view()))),
        Request::Events(after, reply) => drop(reply.send(Ok(director.events.after(after)))),
        Request::Settings(reply) => drop(reply.send(Ok(director.model.settings_view()))),
        Request::CaptureClaim(request, reply) => drop(reply.send(director.claim_capture(request))),
        Request::CaptureBegin(capture, reply) => drop(reply.send(director.begin_capture(*capture))),
        Request::CaptureEnd(reply) => drop(reply.send(director.end_capture())),
        Request::CaptureStop(reply) => drop(reply.send(Ok(director.stop_capture()))),
        Request::RealNames(indices, reply) => drop(reply.send(Ok(director.real_names(&indices)))),
        Request::SyncStart(ready, reply) => drop(reply.send(director.start_sync(*ready))),
        Request::SyncStop(role, reply) => drop(reply.send(director.stop_sync(role))),
        Request::SyncDaemons(reply) => drop(reply.send(Ok(director.sync.view()))),
        Request::Synchronise(records) => director.synchronise(&records, monotonic_coarse_ns()),
        Request::Explain(question, reply) => {
            drop(reply.send(director.explain(&question, monotonic_coarse_ns())));
        }
    }
}

fn metrics(director: &Director) -> Result<String, TableError> {
    let (services, verdicts) = (director.services()?, director.verdicts()?);
    let health = director.health_view();
    Ok(crate::metrics::render(
        &director.status(),
        &services,
        &health,
        &verdicts,
        &director.sync.view(),
        director.traces.counts(),
    ))
}

pub(crate) fn unreadable(error: TableError) -> Refusal {
    log_error("a table could not be read", &error);
    Refusal::new(RefusalKind::Kernel, runtime::Chain(&error).to_string())
}
