//! The state machine behind [`super::Neighbours`]: no sockets, no clock, no tasks.
//!
//! ```text
//!              valid(mac)             failed             failed again / too long
//!   Unknown ------------> Valid(mac) --------> Doubtful(mac) --------> Gone
//!      ^                    ^  ^                 |  valid               |
//!      | path changed       |  +-----------------+                      |
//!      +-- any state        +-------------------------------------------+ valid
//! ```
//!
//! A Valid entry is confirmed every [`Timing::refresh`] by a question to its last MAC. When that fails, the
//! entry is Doubtful: the question goes to everybody once, and packets still go to the last MAC, for a
//! machine replaced by another under the same address must not look lost in between. Unknown and Gone entries
//! are asked for again with growing pauses.
//!
//! What happens costs the targets that it concerns, however many there are beside them.
//!
//! `now` is a monotonic time since any fixed point.

use crate::interface::Interface;
use crate::mac::MacAddress;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The first and the last address in the order of addresses.
const LOWEST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const HIGHEST: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// To this machine itself: the address is one of its own, and no neighbour is needed.
    Local,
    /// Over a link.
    Hop(Hop),
}

/// What a packet to an address must carry, and how it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Interface it leaves by.
    pub interface_index: u32,
    /// Its Ethernet destination: the next hop's MAC.
    pub destination: MacAddress,
    /// Its Ethernet source: the interface's MAC.
    pub source: MacAddress,
    /// Largest IP packet on the way, in bytes: what the route says, or else the interface.
    pub mtu: u32,
    /// Address this machine would send from, of the same family as the address; if the kernel names one.
    pub source_address: Option<IpAddr>,
}

/// A change worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourEvent {
    /// The watched address.
    pub address: IpAddr,
    /// Where its packets go now; `None` when it was lost.
    pub resolved: Option<Resolved>,
}

/// The first step towards a watched address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Interface packets leave by.
    pub interface_index: u32,
    /// Whose MAC is needed: the address itself or a gateway.
    pub next_hop: IpAddr,
}

/// The way to a watched address, by the kernel's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// There is none to go: it is an address of this machine.
    Local,
    /// Over a link.
    Link {
        /// The first step.
        path: Path,
        /// Largest packet in bytes, where the route has a limit of its own.
        mtu: Option<u32>,
        /// Address this machine would send from, if the kernel names one.
        source_address: Option<IpAddr>,
    },
}

/// What the kernel says of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It has this MAC.
    Valid(MacAddress),
    /// An operator fixed this MAC; it needs no confirmation.
    Permanent(MacAddress),
    /// The kernel is asking for it.
    Pending,
    /// It does not answer, or the entry was removed.
    Failed,
    /// It could not be asked at its known MAC, because the kernel's entry has none any more. That says less than
    /// [`Report::Failed`]: the kernel reports the loss itself, and one loss must not count twice.
    Unasked,
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look up the route to this address and answer with [`Machine::on_way`].
    LookUp(IpAddr),
    /// Have the kernel ask everybody on the link for this neighbour's MAC.
    Resolve(Path),
    /// Have the kernel ask the neighbour at its known MAC.
    Confirm(Path),
    /// Tell the owner.
    Tell(NeighbourEvent),
}

/// Pauses and patience.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two confirmations of a valid entry.
    pub refresh: Duration,
    /// Before the second question for an entry that does not answer; doubles with each.
    pub retry_min: Duration,
    /// Longest pause between two questions.
    pub retry_max: Duration,
    /// How long a doubtful entry is still used without news.
    pub doubt_max: Duration,
    /// Between two look-ups of the route, when no event asks for one.
    pub route_refresh: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(10),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(15),
            doubt_max: Duration::from_secs(5),
            route_refresh: Duration::from_secs(30),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Unknown,
    Valid(MacAddress),
    Doubtful(MacAddress, Duration),
    Gone,
}

#[derive(Debug)]
struct Target {
    way: Option<Way>,
    entry: Entry,
    route_due: Duration,
    /// When to ask next; `None` for an entry an operator fixed, and without a path.
    ask_due: Option<Duration>,
    pause: Duration,
    told: Option<Resolved>,
    /// When it is looked at next; its place in [`Machine::due`].
    due: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    up: bool,
    mac: Option<MacAddress>,
    mtu: u32,
}

/// The machine. Feed it, then take its [`Machine::actions`].
#[derive(Debug)]
pub struct Machine {
    timing: Timing,
    targets: BTreeMap<IpAddr, Target>,
    /// Every target by when it is looked at next.
    due: BTreeSet<(Duration, IpAddr)>,
    /// Targets by their first step.
    by_path: BTreeSet<(Path, IpAddr)>,
    links: BTreeMap<u32, Link>,
    actions: Vec<Action>,
}

impl Machine {
    /// A machine that watches nothing yet.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            targets: BTreeMap::new(),
            due: BTreeSet::new(),
            by_path: BTreeSet::new(),
            links: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    /// Watches exactly these addresses from now on. Those watched before keep their state; no event is told
    /// for those dropped.
    pub fn watch(&mut self, addresses: &[IpAddr], now: Duration) {
        let wanted: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        let dropped: Vec<IpAddr> =
            self.targets.keys().filter(|address| !wanted.contains(address)).copied().collect();
        dropped.into_iter().for_each(|address| self.forget(address));
        wanted.into_iter().for_each(|address| self.start(address, now));
    }

    /// Watches an address from now on. One that is watched already keeps its state.
    pub fn start(&mut self, address: IpAddr, now: Duration) {
        if self.targets.contains_key(&address) {
            return;
        }
        let target = Target {
            way: None,
            entry: Entry::Unknown,
            route_due: now,
            ask_due: None,
            pause: self.timing.retry_min,
            told: None,
            due: now,
        };
        self.targets.insert(address, target);
        self.due.insert((now, address));
        self.change(address, now, |_, _| ());
    }

    /// Ceases to watch an address. No event is told for it any more.
    pub fn forget(&mut self, address: IpAddr) {
        let Some(target) = self.targets.remove(&address) else { return };
        self.due.remove(&(target.due, address));
        if let Some(path) = target.path() {
            self.by_path.remove(&(path, address));
        }
    }

    /// Routes, addresses or links changed: looks every route up again.
    pub fn on_routes_changed(&mut self, now: Duration) {
        let all: Vec<IpAddr> = self.targets.keys().copied().collect();
        for address in all {
            self.change(address, now, |target, _| target.route_due = now);
        }
    }

    /// The answer to [`Action::LookUp`]; `None` when there is no way.
    pub fn on_way(&mut self, address: IpAddr, way: Option<Way>, now: Duration) {
        self.change(address, now, |target, timing| {
            let before = target.path();
            target.way = way;
            let path = target.path();
            if before != path {
                target.entry = Entry::Unknown;
                target.pause = timing.retry_min;
                target.ask_due = path.map(|_| now);
            }
        });
    }

    /// An interface appeared or changed.
    pub fn on_link(&mut self, link: &Interface, now: Duration) {
        let Interface { index, up, mac, mtu, .. } = *link;
        let before = self.links.insert(index, Link { up, mac, mtu });
        let came_up = up && !before.is_some_and(|link| link.up);
        for address in self.through(index) {
            self.change(address, now, |target, timing| {
                if came_up {
                    target.ask_due = Some(now);
                    target.pause = timing.retry_min;
                }
            });
        }
    }

    /// An interface went away.
    pub fn on_link_gone(&mut self, index: u32) {
        self.links.remove(&index);
        for address in self.through(index) {
            self.settle(address);
        }
    }

    /// Targets whose packets leave by an interface.
    fn through(&self, interface_index: u32) -> Vec<IpAddr> {
        let at = |next_hop: IpAddr| Path { interface_index, next_hop };
        let (first, last) = (at(LOWEST), at(HIGHEST));
        self.by_path.range((first, LOWEST)..=(last, HIGHEST)).map(|(_, address)| *address).collect()
    }

    /// The kernel's state of a neighbour.
    pub fn on_report(&mut self, interface_index: u32, next_hop: IpAddr, report: Report, now: Duration) {
        let path = Path { interface_index, next_hop };
        let concerned = self.by_path.range((path, LOWEST)..=(path, HIGHEST));
        let concerned: Vec<IpAddr> = concerned.map(|(_, address)| *address).collect();
        for address in concerned {
            self.change(address, now, |target, timing| target.report(report, timing, now));
        }
    }

    /// Time passed: asks what is due.
    pub fn tick(&mut self, now: Duration) {
        let due: Vec<IpAddr> = self.due.range(..=(now, HIGHEST)).map(|(_, address)| *address).collect();
        for address in due {
            self.change(address, now, |_, _| ());
        }
    }

    /// When [`Self::tick`] should be called at the latest, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Changes a target, does what is due for it, and tells the owner what follows.
    fn change(&mut self, address: IpAddr, now: Duration, change: impl FnOnce(&mut Target, &Timing)) {
        let Some(target) = self.targets.get_mut(&address) else { return };
        let (path, due) = (target.path(), target.due);
        change(target, &self.timing);
        self.actions.extend(target.settle(address, &self.links));
        target.tick(address, &self.timing, now, &mut self.actions);
        self.actions.extend(target.settle(address, &self.links));
        target.due = target.next(&self.timing);
        if target.due != due {
            self.due.remove(&(due, address));
            self.due.insert((target.due, address));
        }
        let new_path = target.path();
        if new_path != path {
            path.map(|path| self.by_path.remove(&(path, address)));
            new_path.map(|path| self.by_path.insert((path, address)));
        }
    }

    /// Takes what is to be done, oldest first.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Tells the owner when what it was told last is no longer so.
    fn settle(&mut self, address: IpAddr) {
        let Some(target) = self.targets.get_mut(&address) else { return };
        self.actions.extend(target.settle(address, &self.links));
    }
}

impl Target {
    /// The first step towards it, if there is one to go.
    fn path(&self) -> Option<Path> {
        match self.way? {
            Way::Local => None,
            Way::Link { path, .. } => Some(path),
        }
    }

    /// What to tell the owner, when what it was told last is no longer so.
    fn settle(&mut self, address: IpAddr, links: &BTreeMap<u32, Link>) -> Option<Action> {
        let resolved = self.resolved(links);
        if resolved == self.told {
            return None;
        }
        self.told = resolved;
        Some(Action::Tell(NeighbourEvent { address, resolved }))
    }

    fn resolved(&self, links: &BTreeMap<u32, Link>) -> Option<Resolved> {
        let (path, mtu, source_address) = match self.way? {
            Way::Local => return Some(Resolved::Local),
            Way::Link { path, mtu, source_address } => (path, mtu, source_address),
        };
        let link = links.get(&path.interface_index).filter(|link| link.up)?;
        let destination = match self.entry {
            Entry::Valid(mac) | Entry::Doubtful(mac, _) => mac,
            Entry::Unknown | Entry::Gone => return None,
        };
        Some(Resolved::Hop(Hop {
            interface_index: path.interface_index,
            destination,
            source: link.mac?,
            mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            source_address,
        }))
    }

    fn report(&mut self, report: Report, timing: &Timing, now: Duration) {
        match report {
            Report::Valid(mac) => {
                // Confirming an entry makes the kernel report it several times; the pause runs from the
                // first.
                if self.entry != Entry::Valid(mac) || self.ask_due.is_none() {
                    self.ask_due = Some(now + timing.refresh);
                }
                self.entry = Entry::Valid(mac);
                self.pause = timing.retry_min;
            }
            Report::Permanent(mac) => {
                self.entry = Entry::Valid(mac);
                self.ask_due = None;
            }
            Report::Pending => {}
            Report::Failed => match self.entry {
                Entry::Valid(mac) => {
                    self.entry = Entry::Doubtful(mac, now);
                    self.ask_due = Some(now);
                }
                Entry::Doubtful(..) => {
                    self.entry = Entry::Gone;
                    self.ask_due = Some(now + self.pause);
                }
                // The pause already runs.
                Entry::Unknown | Entry::Gone => {}
            },
            Report::Unasked => {
                if let Entry::Valid(mac) = self.entry {
                    self.entry = Entry::Doubtful(mac, now);
                    self.ask_due = Some(now);
                }
            }
        }
    }

    /// Does what is due.
    fn tick(&mut self, address: IpAddr, timing: &Timing, now: Duration, actions: &mut Vec<Action>) {
        if self.route_due <= now {
            self.route_due = now + timing.route_refresh;
            actions.push(Action::LookUp(address));
        }
        if let Entry::Doubtful(_, since) = self.entry
            && now >= since + timing.doubt_max
        {
            self.entry = Entry::Gone;
        }
        actions.extend(self.ask(timing, now));
    }

    /// When something is due next.
    fn next(&self, timing: &Timing) -> Duration {
        let doubt = match self.entry {
            Entry::Doubtful(_, since) => Some(since + timing.doubt_max),
            _ => None,
        };
        let ask = self.ask_due.filter(|_| self.path().is_some());
        [ask, doubt].into_iter().flatten().fold(self.route_due, Duration::min)
    }

    /// The question that is due, if one is.
    fn ask(&mut self, timing: &Timing, now: Duration) -> Option<Action> {
        let path = self.path()?;
        if self.ask_due? > now {
            return None;
        }
        match self.entry {
            Entry::Valid(_) => {
                self.ask_due = Some(now + timing.refresh);
                Some(Action::Confirm(path))
            }
            Entry::Unknown | Entry::Doubtful(..) | Entry::Gone => {
                self.ask_due = Some(now + self.pause);
                self.pause = (self.pause * 2).min(timing.retry_max);
                Some(Action::Resolve(path))
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
