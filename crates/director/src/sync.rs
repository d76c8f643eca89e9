//! Connection synchronisation: the daemons that were asked for, their sockets and tasks.
//!
//! The sweep meets every flow and hands what is due to the master ([`crate::announcing`]); what a backup receives comes to the owner of
//! the tables as a message ([`crate::received`]). What was asked for is kept on disk, so that a restarted director goes on.

use crate::announcing::Announcing;
use crate::history;
use crate::messages::{Mailbox, Request};
use crate::run::AbortOnDrop;
use crate::state::StateError;
use api::{Refusal, RefusalKind, SyncCounts, SyncDaemon, SyncDaemons, SyncRole, SyncView};
use connsync::{DEFAULT_PORT, Message, ReadError, Record, Writer, question, read};
use host::interface::{Interface, InterfaceError};
use host::multicast::Group;
use host::netlink::Netlink;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Group unless another one is asked for.
const DEFAULT_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
/// What the headers before a message take of a packet.
const HEADERS: (u32, u32) = (28, 48);
/// Longest message of a master that was told none: an Ethernet frame's, whatever the interface carries.
const ETHERNET_MTU: u32 = 1500;
/// Shortest room that a backup makes when it is told one.
const BACKUP_BYTES_MIN: u16 = 1024;
/// Longest payload of UDP.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Messages that wait to be sent. While they do, no more flows are announced: they are due again in the next pass.
pub(crate) const QUEUE: usize = 1024;
/// Messages sent at once, and the pause then: some 100,000 flows a second, which a backup keeps up with.
const BURST: (usize, Duration) = (32, Duration::from_millis(10));
/// How often a backup that starts asks for everything.
const QUESTIONS: usize = 3;
/// Between two tries to start what could not be started yet.
const RETRY: Duration = Duration::from_secs(1);

/// What a daemon has done.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
}

/// Adds to a count that nobody orders by.
pub(crate) fn count(place: &AtomicU64, more: usize) {
    place.fetch_add(more as u64, Ordering::Relaxed);
}

impl Counts {
    fn view(&self) -> SyncCounts {
        let of = |place: &AtomicU64| place.load(Ordering::Relaxed);
        SyncCounts {
            messages: of(&self.messages),
            records: of(&self.records),
            refused: of(&self.refused),
            unknown: of(&self.unknown),
        }
    }
}

/// A daemon that was asked for.
#[derive(Debug)]
struct Asked {
    daemon: SyncDaemon,
    running: bool,
    counts: Arc<Counts>,
    /// They send and listen, receive, or wait until it can run.
    _tasks: Vec<AbortOnDrop>,
}

/// The daemons that were asked for.
#[derive(Debug)]
pub(crate) struct Synchronisation {
    path: PathBuf,
    asked: Vec<Asked>,
}

/// A daemon with its socket, ready to run.
#[derive(Debug)]
pub(crate) struct Ready {
    daemon: SyncDaemon,
    socket: UdpSocket,
    mailbox: Mailbox,
}

impl Synchronisation {
    /// None yet; those that are asked for are kept in this directory.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("sync.json"), asked: Vec::new() }
    }

    /// What was asked for before the director was restarted.
    pub(crate) fn saved(&self) -> Result<Vec<SyncDaemon>, StateError> {
        Ok(history::read(&self.path)?.unwrap_or_default())
    }

    /// Waits, in a task, until what was asked for before can run.
    pub(crate) fn resume(&mut self, daemon: SyncDaemon, mailbox: &Mailbox) {
        let wait = wait(daemon.clone(), mailbox.clone());
        let tasks = vec![AbortOnDrop(tokio::spawn(wait))];
        self.asked.push(Asked { daemon, running: false, counts: Arc::default(), _tasks: tasks });
    }

    /// Lets a daemon run. What announces flows, for a master.
    pub(crate) fn start(&mut self, ready: Ready) -> Result<Option<Announcing>, Refusal> {
        let role = ready.daemon.role;
        if self.asked.iter().any(|asked| asked.daemon.role == role && asked.running) {
            return Err(Refusal::new(
                RefusalKind::DaemonRuns,
                format!("a {} daemon runs already", name(role)),
            ));
        }
        let mut saved: Vec<SyncDaemon> = self.others(role);
        saved.push(ready.daemon.clone());
        history::write(&self.path, &saved).map_err(|error| unsaved(&error))?;
        self.asked.retain(|asked| asked.daemon.role != role);
        let counts = Arc::<Counts>::default();
        let Ready { daemon, socket, mailbox } = ready;
        let mut tasks = Vec::new();
        let mut announcing = None;
        match role {
            SyncRole::Master => {
                let (queue, messages) = mpsc::channel(QUEUE);
                let writer = Writer::new(daemon.syncid, daemon.maxlen.unwrap_or_default());
                let asked = Arc::<AtomicBool>::default();
                announcing = Some(Announcing::new(writer, queue, Arc::clone(&counts), Arc::clone(&asked)));
                tasks.push(tokio::spawn(send(socket, daemon.clone(), messages, Arc::clone(&counts))));
                tasks.push(tokio::spawn(listen(daemon.clone(), asked)));
            }
            SyncRole::Backup => {
                tasks.push(tokio::spawn(receive(socket, daemon.clone(), mailbox, Arc::clone(&counts))));
            }
        }
        tracing::info!(
            role = name(role),
            interface = daemon.interface,
            syncid = daemon.syncid,
            "synchronising"
        );
        let tasks = tasks.into_iter().map(AbortOnDrop).collect();
        self.asked.push(Asked { daemon, running: true, counts, _tasks: tasks });
        self.asked.sort_by_key(|asked| asked.daemon.role);
        Ok(announcing)
    }

    /// Ends a daemon.
    pub(crate) fn stop(&mut self, role: SyncRole) -> Result<(), Refusal> {
        if !self.asked.iter().any(|asked| asked.daemon.role == role) {
            return Err(Refusal::new(RefusalKind::NoSuchDaemon, format!("no {} daemon runs", name(role))));
        }
        history::write(&self.path, &self.others(role)).map_err(|error| unsaved(&error))?;
        self.asked.retain(|asked| asked.daemon.role != role);
        tracing::info!(role = name(role), "synchronising no more");
        Ok(())
    }

    /// What each has done.
    pub(crate) fn view(&self) -> SyncDaemons {
        let view = |asked: &Asked| SyncView {
            daemon: asked.daemon.clone(),
            running: asked.running,
            counts: asked.counts.view(),
        };
        SyncDaemons { daemons: self.asked.iter().map(view).collect() }
    }

    /// The counts of the backup, for what becomes of its records later.
    pub(crate) fn backup_counts(&self) -> Option<&Counts> {
        self.asked.iter().find(|asked| asked.daemon.role == SyncRole::Backup).map(|asked| &*asked.counts)
    }

    fn others(&self, role: SyncRole) -> Vec<SyncDaemon> {
        self.asked.iter().map(|asked| asked.daemon.clone()).filter(|it| it.role != role).collect()
    }
}

fn name(role: SyncRole) -> &'static str {
    match role {
        SyncRole::Master => "master",
        SyncRole::Backup => "backup",
    }
}

fn unsaved(error: &StateError) -> Refusal {
    Refusal::new(RefusalKind::Kernel, format!("nothing was changed: {}", runtime::Chain(error)))
}

/// Makes the choices that were left open, and opens the socket.
pub(crate) async fn prepare(mut daemon: SyncDaemon, mailbox: Mailbox) -> Result<Ready, Refusal> {
    let invalid = |message: String| Refusal::new(RefusalKind::Invalid, message);
    let group = *daemon.group.get_or_insert(DEFAULT_GROUP.into());
    if !group.is_multicast() {
        return Err(invalid(format!("{group} is no multicast group: 224.0.0.81 is the usual one")));
    }
    let port = *daemon.port.get_or_insert(DEFAULT_PORT);
    daemon.ttl.get_or_insert(1);
    let mtu = mtu_of(&daemon.interface).await?;
    let longest = longest(&daemon, mtu);
    daemon.maxlen = Some(longest);
    let socket = open(&daemon);
    let socket = socket.map_err(|error| {
        let text = format!("no socket for {group} port {port} on {}: {error}", daemon.interface);
        Refusal::new(RefusalKind::Kernel, text)
    })?;
    Ok(Ready { daemon, socket, mailbox })
}

async fn mtu_of(interface: &str) -> Result<u32, Refusal> {
    let netlink = Netlink::open().map_err(|error| Refusal::new(RefusalKind::Kernel, error.to_string()))?;
    let found = Interface::by_name(&netlink, interface).await;
    found.map(|found| found.mtu).map_err(|error| {
        let kind = match error {
            InterfaceError::NoSuchName { .. } | InterfaceError::NoSuchIndex { .. } => {
                RefusalKind::NoSuchInterface
            }
            InterfaceError::Netlink(_) => RefusalKind::Kernel,
        };
        Refusal::new(kind, error.to_string())
    })
}

/// Longest message in bytes [`ip_vs_sync.c`, `start_sync_thread`].
fn longest(daemon: &SyncDaemon, mtu: u32) -> u16 {
    let headers = if daemon.group.is_some_and(|group| group.is_ipv6()) { HEADERS.1 } else { HEADERS.0 };
    let of_packet =
        |mtu: u32| u16::try_from((mtu - headers).min(DATAGRAM_BYTES_MAX as u32)).unwrap_or(u16::MAX);
    match (daemon.role, daemon.maxlen.filter(|asked| *asked != 0)) {
        (SyncRole::Master, None) => of_packet(ETHERNET_MTU),
        (SyncRole::Master, Some(asked)) => asked,
        (SyncRole::Backup, None) => of_packet(mtu.max(ETHERNET_MTU)),
        (SyncRole::Backup, Some(asked)) => asked.max(BACKUP_BYTES_MIN),
    }
}

/// Starts a daemon as soon as its interface is there.
async fn wait(daemon: SyncDaemon, mailbox: Mailbox) {
    let mut told = false;
    while !mailbox.is_closed() {
        let started = match prepare(daemon.clone(), mailbox.clone()).await {
            Ok(ready) => mailbox.ask(|reply| Request::SyncStart(Box::new(ready), reply)).await,
            Err(refusal) => Err(refusal),
        };
        match started {
            Ok(()) => return,
            // Somebody was faster.
            Err(refusal) if refusal.kind == RefusalKind::DaemonRuns => return,
            Err(refusal) if !told => {
                tracing::warn!(interface = daemon.interface, error = %refusal, "cannot synchronise yet");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Where the messages of a daemon go, all choices made.
fn group_of(daemon: &SyncDaemon) -> Group {
    Group {
        interface: daemon.interface.clone(),
        address: daemon.group.unwrap_or(DEFAULT_GROUP.into()),
        port: daemon.port.unwrap_or(DEFAULT_PORT),
    }
}

fn open(daemon: &SyncDaemon) -> io::Result<UdpSocket> {
    match daemon.role {
        SyncRole::Master => group_of(daemon).sender(daemon.ttl.unwrap_or(1)),
        SyncRole::Backup => group_of(daemon).receiver(),
    }
}

/// Sends what is announced. What cannot be sent waits; the queue fills, and no more is announced.
async fn send(
    mut socket: UdpSocket,
    daemon: SyncDaemon,
    mut messages: mpsc::Receiver<Vec<u8>>,
    counts: Arc<Counts>,
) {
    let mut burst = Vec::new();
    while messages.recv_many(&mut burst, BURST.0).await > 0 {
        for message in burst.drain(..) {
            while let Err(error) = socket.send(&message).await {
                count(&counts.refused, 1);
                tracing::debug!(%error, "flows not announced yet");
                tokio::time::sleep(RETRY).await;
                if let Ok(fresh) = open(&daemon) {
                    socket = fresh;
                }
            }
            count(&counts.messages, 1);
        }
        tokio::time::sleep(BURST.1).await;
    }
}

/// Listens to a group.
struct Ear {
    group: Group,
    socket: UdpSocket,
    /// Of the interface that it listens at.
    index: Option<u32>,
    buffer: Vec<u8>,
    /// Datagrams since the last pause.
    heard: usize,
}

/// What an ear heard.
enum Heard<'a> {
    Datagram(&'a [u8]),
    /// Nothing for a while.
    Nothing,
    /// The interface was made anew: from here on it hears again.
    Anew,
}

impl Ear {
    fn new(group: Group, socket: UdpSocket, longest: usize) -> Self {
        Self { index: group.index().ok(), group, socket, buffer: vec![0; longest], heard: 0 }
    }

    async fn hear(&mut self) -> Heard<'_> {
        // A stranger who floods the group has no more of the director than a master.
        self.heard += 1;
        if self.heard.is_multiple_of(BURST.0) {
            tokio::time::sleep(BURST.1).await;
        }
        match timeout(RETRY, self.socket.recv(&mut self.buffer)).await {
            Ok(Ok(length)) => Heard::Datagram(self.buffer.get(..length).unwrap_or_default()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "nothing received");
                tokio::time::sleep(RETRY).await;
                Heard::Nothing
            }
            // A quiet second: is the interface still the one that is listened to?
            Err(_) => {
                let now = self.group.index().ok();
                if now.is_some()
                    && now != self.index
                    && let Ok(fresh) = self.group.receiver()
                {
                    (self.socket, self.index) = (fresh, now);
                    return Heard::Anew;
                }
                Heard::Nothing
            }
        }
    }
}

/// Receives what another director announces.
async fn receive(socket: UdpSocket, daemon: SyncDaemon, mailbox: Mailbox, counts: Arc<Counts>) {
    let longest = usize::from(daemon.maxlen.unwrap_or(u16::MAX));
    let mut ear = Ear::new(group_of(&daemon), socket, longest);
    let ask_now = || AbortOnDrop(tokio::spawn(ask(daemon.clone())));
    let mut _asking = ask_now();
    loop {
        let received = match ear.hear().await {
            Heard::Datagram(datagram) => read(datagram),
            Heard::Nothing => continue,
            Heard::Anew => {
                _asking = ask_now();
                continue;
            }
        };
        if let Some(records) = accept(received, daemon.syncid, &counts)
            && mailbox.tell(Request::Synchronise(records)).await.is_err()
        {
            return;
        }
    }
}

/// Asks the masters of the group for everything, more than once: a message may be lost.
async fn ask(daemon: SyncDaemon) {
    for _ in 0..QUESTIONS {
        let sent = match group_of(&daemon).sender(daemon.ttl.unwrap_or(1)) {
            Ok(socket) => socket.send(&question(daemon.syncid)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "could not ask for everything");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Listens, for a master, whether a backup asks for everything.
async fn listen(daemon: SyncDaemon, asked: Arc<AtomicBool>) {
    let group = group_of(&daemon);
    let socket = loop {
        match group.receiver() {
            Ok(socket) => break socket,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    // Longer ones are not questions.
    let mut ear = Ear::new(group, socket, question(0).len() + 1);
    loop {
        if let Heard::Datagram(datagram) = ear.hear().await
            && let Ok(message) = read(datagram)
            && message.is_question()
            && [0, daemon.syncid].contains(&message.syncid)
        {
            asked.store(true, Ordering::Relaxed);
        }
    }
}

/// The records of a message that is for this group of directors.
fn accept(received: Result<Message, ReadError>, syncid: u8, counts: &Counts) -> Option<Vec<Record>> {
    match received {
        Ok(message) if syncid == 0 || message.syncid == syncid => {
            // A question is for masters.
            let says_something = !message.is_question();
            count(&counts.messages, usize::from(says_something));
            count(&counts.unknown, message.skipped);
            says_something.then_some(message.records)
        }
        Ok(_) => {
            count(&counts.refused, 1);
            None
        }
        Err(error) => {
            count(&counts.refused, 1);
            tracing::debug!(%error, "a message was refused");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn daemon(role: SyncRole, maxlen: Option<u16>, group: Option<IpAddr>) -> SyncDaemon {
        SyncDaemon { role, interface: "eth0".to_owned(), syncid: 1, maxlen, group, port: None, ttl: None }
    }

    #[test]
    fn messages_are_as_long_as_those_of_ipvs() {
        let v6 = Some("ff02::81".parse().expect("an address"));
        for (role, asked, group, mtu, expected) in [
            (SyncRole::Master, None, None, 9000, 1472),
            (SyncRole::Master, None, v6, 9000, 1452),
            (SyncRole::Master, Some(600), None, 1500, 600),
            (SyncRole::Backup, None, None, 1500, 1472),
            (SyncRole::Backup, None, None, 9000, 8972),
            (SyncRole::Backup, None, None, 576, 1472),
            (SyncRole::Backup, None, None, 65_536, 65_507),
            (SyncRole::Backup, Some(600), None, 1500, 1024),
            (SyncRole::Backup, Some(0), None, 1500, 1472),
        ] {
            assert_eq!(longest(&daemon(role, asked, group), mtu), expected, "{role:?} {asked:?} {mtu}");
        }
    }

    #[tokio::test]
    async fn wrong_groups_and_interfaces_are_refused_with_the_reason() {
        let (mailbox, _requests) = crate::messages::mailbox();
        let group = Some([192, 0, 2, 1].into());
        let refusal =
            prepare(daemon(SyncRole::Master, None, group), mailbox.clone()).await.expect_err("refused");
        assert_eq!(refusal.message, "192.0.2.1 is no multicast group: 224.0.0.81 is the usual one");
        let missing =
            SyncDaemon { interface: "sl-no-such".to_owned(), ..daemon(SyncRole::Backup, None, None) };
        let refusal = prepare(missing, mailbox).await.expect_err("refused");
        assert_eq!(refusal.kind, RefusalKind::NoSuchInterface);
    }
}
