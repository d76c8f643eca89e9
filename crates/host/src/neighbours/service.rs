//! The task that drives [`Machine`] through netlink.
//!
//! One task owns the machine and both connections. It waits for a kernel event, a new set of addresses, or
//! the machine's deadline, feeds the machine, and carries its actions out. Stopping it at any await loses
//! nothing but unsent questions. Everything is read again every [`RESYNC`] and after an overrun, so a lost
//! event is a delay, not an error.

use super::machine::{Action, Machine, NeighbourEvent, Path, Report, Timing, Way};
use crate::interface::Interface;
use crate::mac::MacAddress;
use crate::netlink::{Event, Events, Netlink, NetlinkError, failed};
use crate::route::Route;
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Between two full readings of the kernel's tables.
const RESYNC: Duration = Duration::from_secs(30);
/// After a route, address or link event, until the routes are looked up again: such events come in bursts.
const ROUTE_SETTLE: Duration = Duration::from_millis(100);
/// Events waiting for their reader; the task waits when it is full.
const EVENTS_MAX: usize = 1024;
/// Commands waiting for the task.
const COMMANDS_MAX: usize = 16;
/// Kernel events handled before the machine's actions are carried out.
const BATCH_MAX: usize = 256;

/// The service could not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// Netlink refused.
    #[error("cannot watch neighbours")]
    Netlink(#[source] NetlinkError),
    /// Interfaces cannot be listed.
    #[error("cannot watch neighbours")]
    Interfaces(#[source] crate::interface::InterfaceError),
    /// The task ended, because the reader of the events did.
    #[error("the neighbour service has ended")]
    Ended,
}

/// A running neighbour service; dropping it ends the task.
#[derive(Debug)]
pub struct Neighbours {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

/// What the task is told.
#[derive(Debug)]
enum Command {
    /// Watch exactly these.
    Watch(BTreeSet<IpAddr>),
    /// Watch these or not any more.
    Change(BTreeMap<IpAddr, bool>),
}

impl Neighbours {
    /// Starts the service in the namespace of the calling thread, inside a tokio runtime. The receiver gets
    /// an event for each change; an address starts out unresolved without an event saying so.
    ///
    /// # Errors
    /// [`NeighboursError`].
    pub async fn start(timing: Timing) -> Result<(Self, mpsc::Receiver<NeighbourEvent>), NeighboursError> {
        let (events_out, events) = mpsc::channel(EVENTS_MAX);
        let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (listener, kernel) = Netlink::open_with_events(&groups).map_err(NeighboursError::Netlink)?;
        let netlink = Netlink::open().map_err(NeighboursError::Netlink)?;
        let mut driver = Driver {
            machine: Machine::new(timing),
            netlink,
            _listener: listener,
            epoch: Instant::now(),
            routes_due: None,
            resync_due: Instant::now() + RESYNC,
            events_out,
        };
        driver.read_links().await?;
        driver.read_neighbours().await.map_err(NeighboursError::Netlink)?;
        let task = tokio::spawn(driver.run(kernel, commands_in));
        Ok((Self { commands, task }, events))
    }

    /// Watches exactly these addresses from now on.
    ///
    /// # Errors
    /// [`NeighboursError::Ended`].
    pub async fn watch(&self, addresses: BTreeSet<IpAddr>) -> Result<(), NeighboursError> {
        self.send(Command::Watch(addresses)).await
    }

    /// Watches those that say so from now on, and those that say not no more. The others stay as they are.
    ///
    /// # Errors
    /// [`NeighboursError::Ended`].
    pub async fn change(&self, addresses: BTreeMap<IpAddr, bool>) -> Result<(), NeighboursError> {
        self.send(Command::Change(addresses)).await
    }

    async fn send(&self, command: Command) -> Result<(), NeighboursError> {
        self.commands.send(command).await.map_err(|_| NeighboursError::Ended)
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Driver {
    machine: Machine,
    netlink: Netlink,
    /// Keeps the connection open that carries the kernel's events.
    _listener: Netlink,
    epoch: Instant,
    routes_due: Option<Instant>,
    resync_due: Instant,
    events_out: mpsc::Sender<NeighbourEvent>,
}

impl Driver {
    async fn run(mut self, mut kernel: Events, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                event = kernel.next() => match event {
                    Some(event) => self.take_batch(event, &mut kernel).await,
                    None => return warn!("the kernel's neighbour events ended"),
                },
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = tokio::time::sleep_until(self.deadline()) => self.on_time().await,
            }
            if self.act().await.is_err() {
                return;
            }
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn deadline(&self) -> Instant {
        let machine = self.machine.next_deadline().map(|at| self.epoch + at);
        [machine, self.routes_due].into_iter().flatten().fold(self.resync_due, Instant::min)
    }

    fn obey(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Watch(addresses) => {
                self.machine.watch(&addresses.into_iter().collect::<Vec<_>>(), now);
            }
            Command::Change(addresses) => {
                for (address, watched) in addresses {
                    if watched {
                        self.machine.start(address, now);
                    } else {
                        self.machine.forget(address);
                    }
                }
            }
        }
    }

    async fn on_time(&mut self) {
        let instant = Instant::now();
        if self.routes_due.is_some_and(|at| at <= instant) {
            self.routes_due = None;
            self.machine.on_routes_changed(self.now());
        }
        if self.resync_due <= instant {
            // Every route is looked up again at its own time.
            self.read_again().await;
        }
        self.machine.tick(self.now());
    }

    /// Events were lost.
    async fn resync(&mut self) {
        self.read_again().await;
        self.machine.on_routes_changed(self.now());
    }

    async fn read_again(&mut self) {
        self.resync_due = Instant::now() + RESYNC;
        if let Err(error) = self.read_links().await {
            warn!(error = &error as &dyn std::error::Error, "interfaces not read");
        }
        if let Err(error) = self.read_neighbours().await {
            warn!(error = &error as &dyn std::error::Error, "neighbours not read");
        }
    }

    /// Feeds one event and those already waiting behind it.
    async fn take_batch(&mut self, first: Event, kernel: &mut Events) {
        let mut next = Some(first);
        for _ in 0..BATCH_MAX {
            match next {
                Some(Event::Message(message)) => self.on_message(message),
                Some(Event::Overrun) => self.resync().await,
                None => return,
            }
            next = futures_util::FutureExt::now_or_never(kernel.next()).flatten();
        }
        if let Some(Event::Message(message)) = next {
            self.on_message(message);
        }
    }

    fn on_message(&mut self, message: RouteNetlinkMessage) {
        let now = self.now();
        match message {
            RouteNetlinkMessage::NewNeighbour(message) => self.on_neighbour(&message, false),
            RouteNetlinkMessage::DelNeighbour(message) => self.on_neighbour(&message, true),
            RouteNetlinkMessage::NewLink(message) => {
                let link = Interface::from_message(&message);
                self.machine.on_link(&link, now);
                self.routes_soon();
            }
            RouteNetlinkMessage::DelLink(message) => {
                self.machine.on_link_gone(message.header.index);
                self.routes_soon();
            }
            _ => self.routes_soon(),
        }
    }

    fn routes_soon(&mut self) {
        self.routes_due.get_or_insert_with(|| Instant::now() + ROUTE_SETTLE);
    }

    fn on_neighbour(&mut self, message: &NeighbourMessage, deleted: bool) {
        let Some((address, report)) = report(message, deleted) else { return };
        debug!(%address, interface = message.header.ifindex, ?report, "neighbour");
        let now = self.now();
        self.machine.on_report(message.header.ifindex, address, report, now);
    }

    /// Carries the machine's actions out; fails when nobody reads the events any more.
    async fn act(&mut self) -> Result<(), NeighboursError> {
        // A look-up may lead to a question and that to more; each round is caused by the one before, three
        // are the longest chain.
        for _ in 0..4 {
            let actions = self.machine.actions();
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                match action {
                    Action::LookUp(address) => self.look_up(address).await,
                    Action::Resolve(path) => self.resolve(path).await,
                    Action::Confirm(path) => self.confirm(path).await,
                    Action::Tell(event) => {
                        self.events_out.send(event).await.map_err(|_| NeighboursError::Ended)?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn look_up(&mut self, address: IpAddr) {
        let way = match Route::to(&self.netlink, address).await {
            Ok(route) if route.local => Some(Way::Local),
            Ok(Route { interface_index, next_hop, source, mtu, .. }) => {
                let path = Path { interface_index, next_hop };
                Some(Way::Link { path, mtu, source_address: source })
            }
            Err(error) => {
                debug!(%address, error = &error as &dyn std::error::Error, "no route");
                None
            }
        };
        self.machine.on_way(address, way, self.now());
    }

    /// Has the kernel resolve the address as if it had a packet for it.
    async fn resolve(&mut self, path: Path) {
        // An entry that is there already tells more than a question would: above all one an operator fixed
        // must not be touched.
        if let Some(known @ (Report::Valid(_) | Report::Permanent(_))) = self.known(path).await {
            let now = self.now();
            self.machine.on_report(path.interface_index, path.next_hop, known, now);
            if matches!(known, Report::Permanent(_)) {
                return;
            }
        }
        let request = self.netlink.handle.neighbours().add(path.interface_index, path.next_hop).replace();
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
        if let Err(error) = request.execute().await.map_err(failed("ask for a neighbour")) {
            debug!(?path, error = &error as &dyn std::error::Error, "not asked");
        }
    }

    /// Has the kernel ask the neighbour whether it is still there.
    async fn confirm(&mut self, path: Path) {
        let request = self.netlink.handle.neighbours().add(path.interface_index, path.next_hop).replace();
        let request = request.state(NeighbourState::Probe);
        if let Err(error) = request.execute().await.map_err(failed("confirm a neighbour")) {
            // The entry lost its MAC meanwhile, or went away: then it must be asked for.
            debug!(?path, error = &error as &dyn std::error::Error, "not confirmed");
            let now = self.now();
            self.machine.on_report(path.interface_index, path.next_hop, Report::Unasked, now);
        }
    }

    /// The kernel's present entry for a path.
    async fn known(&self, path: Path) -> Option<Report> {
        let mut question = NeighbourMessage::default();
        question.header.ifindex = path.interface_index;
        let (family, address) = match path.next_hop {
            IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        question.header.family = family;
        question.attributes.push(NeighbourAttribute::Destination(address));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(question));
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.netlink.handle.clone().request(request).ok()?;
        // One entry, or the error that there is none.
        match answers.next().await?.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                report(&message, false).map(|(_, report)| report)
            }
            _ => None,
        }
    }

    async fn read_links(&mut self) -> Result<(), NeighboursError> {
        let links = Interface::list(&self.netlink).await.map_err(NeighboursError::Interfaces)?;
        for link in links {
            let now = self.now();
            self.machine.on_link(&link, now);
        }
        Ok(())
    }

    async fn read_neighbours(&mut self) -> Result<(), NetlinkError> {
        let entries = self.netlink.handle.neighbours().get().execute();
        let entries: Vec<NeighbourMessage> =
            entries.try_collect().await.map_err(failed("list neighbours"))?;
        for entry in entries {
            self.on_neighbour(&entry, false);
        }
        Ok(())
    }
}

/// What a neighbour message says; `None` for those without an IP address and those of bridges.
fn report(message: &NeighbourMessage, deleted: bool) -> Option<(IpAddr, Report)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = MacAddress::from_slice(bytes),
            _ => {}
        }
    }
    let state = message.header.state;
    let report = match (state, mac) {
        _ if deleted => Report::Failed,
        (NeighbourState::Failed, _) => Report::Failed,
        (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Report::Permanent(mac),
        (
            NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe,
            Some(mac),
        ) => Report::Valid(mac),
        _ => Report::Pending,
    };
    Some((address?, report))
}
