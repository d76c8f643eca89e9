//! Connection synchronisation between two directors, with real connections that outlive the first.

mod support;

use api::{
    Change, Connection, Connections, Forwarding, Persistence, RealSpec, RefusalKind, ServiceSpec, SyncDaemon,
    SyncDaemons, SyncRole, SyncStop,
};
use runtime::control::{Client, ControlError};
use std::net::{IpAddr, TcpStream};
use std::process::Command;
use support::{
    Daemon, Lab, add_service, connect, echo, real, real_spec, serve_echo_at, service, verdict, wait_for,
};

/// Number of the machine among the lab's servers that is the second director.
const OTHER: usize = 2;

/// A lab of two servers and two directors.
fn lab() -> Lab {
    let lab = Lab::with_servers(3);
    for server in &lab.servers[..OTHER] {
        // At its own address too, for masquerading.
        serve_echo_at(server, "0.0.0.0:8080");
    }
    lab.servers[OTHER].ip("addr del 192.0.2.10/32 dev lo").expect("no VIP yet");
    lab
}

/// Starts the second director; it has pins and files of its own.
fn start_other(lab: &Lab) -> Daemon {
    let path = |name: &str| lab.path(name).to_str().expect("a path").to_owned();
    let (pin, socket, state) = (path("bpffs/other"), path("other.sock"), path("other"));
    let words = ["--pin", &pin, "--socket", &socket, "--state", &state, "-i", "eth0"];
    let start = || -> std::io::Result<_> { Command::spawn(lab.command(&words).args(Lab::limits())) };
    let child = lab.servers[OTHER].run(start).expect("inside").expect("start");
    let daemon = Daemon { child, client: Client::new(lab.path("other.sock")) };
    wait_for("the other director", || daemon.client.get::<api::Status>("/v1/status").ok());
    daemon
}

/// Ends both, and takes the second one's programs away, which the lab does not know of.
fn end(lab: &Lab, daemons: [Daemon; 2]) {
    drop(daemons);
    kernel::detach_all(&lab.path("bpffs/other")).expect("detached");
}

fn configure(daemon: &Daemon, service_change: &Change, spec: &RealSpec) {
    let mut changes = vec![service_change.clone()];
    for place in 0..2 {
        changes.push(Change::AddReal { service: service(), real: real(place), spec: *spec });
    }
    for change in changes {
        assert_eq!(daemon.change(change.clone()).refusals, [None], "{change:?}");
    }
    wait_for("the next hops", || {
        let services: api::Services = daemon.get("/v1/services");
        services.services[0].reals.iter().all(|real| real.neighbour.is_some()).then_some(())
    });
}

fn asked(role: SyncRole) -> SyncDaemon {
    let interface = "eth0".to_owned();
    SyncDaemon { role, interface, syncid: 7, maxlen: None, group: None, port: None, ttl: None }
}

fn start_sync(daemon: &Daemon, asked: &SyncDaemon) {
    let started: Result<(), _> = daemon.client.post("/v1/sync/start", asked);
    started.unwrap_or_else(|error| panic!("{}", runtime::Chain(&error)));
}

/// Flows and templates, which are on pages of their own.
fn flows(daemon: &Daemon) -> Vec<Connection> {
    let mut all = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page: Connections = daemon.get(&format!("/v1/connections?cursor={at}"));
        all.extend(page.connections);
        cursor = page.next_cursor;
    }
    all
}

/// What is the same of a flow on both directors.
fn identity(flow: &Connection) -> String {
    format!("{} {} {} {} {}", flow.protocol, flow.client, flow.virtual_address, flow.real, flow.state)
}

/// Waits until the other director has all flows of the first.
fn wait_until_synchronised(first: &Daemon, other: &Daemon, count: usize) {
    let all = |daemon: &Daemon| {
        let mut all: Vec<String> = flows(daemon).iter().map(identity).collect();
        all.sort();
        all
    };
    let mut seen = (Vec::new(), Vec::new());
    let deadline = std::time::Instant::now() + support::WAIT;
    while std::time::Instant::now() < deadline {
        seen = (all(first), all(other));
        if seen.0 == seen.1 && seen.0.len() == count {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the first director has {:#?}, the other {:#?}", seen.0, seen.1);
}

/// The first director dies, its programs too; the other one gets the VIP.
fn fail_over(lab: &Lab, first: &mut Daemon) {
    first.signal(nix::sys::signal::Signal::SIGKILL);
    kernel::detach_all(&lab.path("bpffs/sluice")).expect("detached");
    lab.director.ip("addr del 192.0.2.10/32 dev eth0").expect("no VIP");
    lab.servers[OTHER].ip("addr add 192.0.2.10/32 dev eth0").expect("the VIP");
    lab.client.ip("neigh flush dev eth0").expect("ask anew");
}

fn pair(service_change: &Change, spec: &RealSpec, group: Option<IpAddr>) -> (Lab, Daemon, Daemon) {
    let lab = lab();
    let (first, other) = (lab.start(), start_other(&lab));
    configure(&first, service_change, spec);
    configure(&other, service_change, spec);
    start_sync(&first, &SyncDaemon { group, ..asked(SyncRole::Master) });
    start_sync(&other, &SyncDaemon { group, ..asked(SyncRole::Backup) });
    (lab, first, other)
}

#[test]
fn connections_of_direct_routing_outlive_their_director() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let (lab, mut first, other) = pair(&add_service(), &real_spec(), None);
    let mut streams: Vec<TcpStream> = (0..6).map(|_| connect(&lab.client)).collect();
    streams.iter_mut().for_each(|stream| echo(stream, b'a'));
    wait_until_synchronised(&first, &other, 6);
    let counts = counts(&other, SyncRole::Backup);
    assert_eq!((counts.refused, counts.unknown), (0, 0));
    fail_over(&lab, &mut first);
    for stream in &mut streams {
        echo(stream, b'b');
    }
    assert!(verdict(&other, "forward_known") >= 6);
    end(&lab, [first, other]);
}

#[test]
fn masqueraded_connections_outlive_their_director() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let spec = RealSpec { forwarding: Forwarding::Masquerade, ..real_spec() };
    let lab = lab();
    let reply_by = |gateway: u8| {
        for server in &lab.servers[..OTHER] {
            let route = format!("route replace 192.0.2.1/32 via 192.0.2.{gateway} dev eth0");
            server.ip(&route).expect("route");
        }
    };
    for server in &lab.servers[..OTHER] {
        server.ip("addr del 192.0.2.10/32 dev lo").expect("no VIP");
    }
    for director in [&lab.director, &lab.servers[OTHER]] {
        director
            .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .expect("inside")
            .expect("a router");
    }
    reply_by(2);
    let (mut first, other) = (lab.start(), start_other(&lab));
    for daemon in [&first, &other] {
        configure(daemon, &add_service(), &spec);
    }
    start_sync(&first, &asked(SyncRole::Master));
    start_sync(&other, &asked(SyncRole::Backup));
    let mut streams: Vec<TcpStream> = (0..6).map(|_| connect(&lab.client)).collect();
    streams.iter_mut().for_each(|stream| echo(stream, b'a'));
    wait_until_synchronised(&first, &other, 6);
    fail_over(&lab, &mut first);
    reply_by(5);
    for stream in &mut streams {
        echo(stream, b'b');
    }
    assert!(verdict(&other, "forward_reply") >= 6);
    end(&lab, [first, other]);
}

#[test]
fn a_client_keeps_its_server_by_a_template_that_was_announced() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let Change::AddService { service, spec } = add_service() else { panic!("a service") };
    let persistence = Some(Persistence { timeout_s: 300, mask: u32::MAX });
    let persistent = Change::AddService { service, spec: ServiceSpec { persistence, ..spec } };
    // By a group of IPv6 this time.
    let group = Some("ff02::81".parse().expect("an address"));
    let (lab, mut first, other) = pair(&persistent, &real_spec(), group);
    let mut stream = connect(&lab.client);
    echo(&mut stream, b'a');
    wait_until_synchronised(&first, &other, 2);
    let template = |daemon: &Daemon| flows(daemon).into_iter().find(|flow| flow.state == "ASSURED");
    let before = template(&other).expect("a template");
    fail_over(&lab, &mut first);
    // Round robin would give every other one to the other server.
    for _ in 0..4 {
        echo(&mut connect(&lab.client), b'b');
    }
    let reals: Vec<_> = flows(&other).into_iter().map(|flow| flow.real).collect();
    assert!(reals.len() >= 5 && reals.iter().all(|real| *real == before.real), "{reals:?}");
    end(&lab, [first, other]);
}

fn counts(daemon: &Daemon, role: SyncRole) -> api::SyncCounts {
    let all: SyncDaemons = daemon.get("/v1/sync");
    all.daemons.iter().find(|view| view.daemon.role == role).expect("it was started").counts
}

fn refusal(result: Result<(), ControlError>) -> RefusalKind {
    match result {
        Err(ControlError::Refused(refusal)) => refusal.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_directors_that_are_master_and_backup_at_once_need_no_change_of_roles() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let (lab, mut first, other) = pair(&add_service(), &real_spec(), None);
    start_sync(&first, &asked(SyncRole::Backup));
    start_sync(&other, &asked(SyncRole::Master));
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(&lab.client)).collect();
    streams.iter_mut().for_each(|stream| echo(stream, b'a'));
    wait_until_synchronised(&first, &other, 4);
    // A few passes of the sweep. What was received is sent back only where a backup that starts has asked for everything, which it gets
    // twice at most in this time; sent to and fro it would be forty records a second.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (sent, received) =
        (counts(&other, SyncRole::Master).records, counts(&first, SyncRole::Backup).records);
    assert!(sent <= 8 && received <= 8, "{sent} sent, {received} received");
    fail_over(&lab, &mut first);
    streams.iter_mut().for_each(|stream| echo(stream, b'b'));
    // The first one comes back, without the VIP: it asks for all that there is, and learns what begins now.
    let first = lab.start();
    wait_for("its next hops", || {
        let services: api::Services = first.get("/v1/services");
        services.services[0].reals.iter().all(|real| real.neighbour.is_some()).then_some(())
    });
    wait_until_synchronised(&other, &first, 4);
    streams.push(connect(&lab.client));
    wait_until_synchronised(&other, &first, 5);
    end(&lab, [first, other]);
}

#[test]
fn a_backup_hears_an_interface_that_was_made_anew() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = lab();
    let other = &lab.servers[OTHER];
    let make = || {
        lab.director.veth("sync0", other, "sync0").expect("a link");
        lab.director.ip("addr add 198.51.100.1/24 dev sync0").expect("an address");
        other.ip("addr add 198.51.100.2/24 dev sync0").expect("an address");
    };
    make();
    let (first, other_daemon) = (lab.start(), start_other(&lab));
    for daemon in [&first, &other_daemon] {
        configure(daemon, &add_service(), &real_spec());
    }
    let by = |role| SyncDaemon { interface: "sync0".to_owned(), ..asked(role) };
    start_sync(&first, &by(SyncRole::Master));
    start_sync(&other_daemon, &by(SyncRole::Backup));
    let mut streams = vec![connect(&lab.client)];
    wait_until_synchronised(&first, &other_daemon, 1);
    lab.director.ip("link del sync0").expect("both ends go");
    // What is announced now waits.
    streams.push(connect(&lab.client));
    wait_for("the master to notice", || (counts(&first, SyncRole::Master).refused > 0).then_some(()));
    make();
    // A message may go before the backup listens again; later ones do not.
    wait_for("a flow after it", || {
        streams.push(connect(&lab.client));
        std::thread::sleep(std::time::Duration::from_millis(500));
        (flows(&other_daemon).len() >= 2).then_some(())
    });
    end(&lab, [first, other_daemon]);
}

#[test]
fn daemons_are_started_once_and_go_on_after_a_kill() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let mut daemon = lab.start();
    let post = |daemon: &Daemon, asked: &SyncDaemon| refusal(daemon.client.post("/v1/sync/start", asked));
    let missing = SyncDaemon { interface: "eth7".to_owned(), ..asked(SyncRole::Master) };
    assert_eq!(post(&daemon, &missing), RefusalKind::NoSuchInterface);
    for role in [SyncRole::Backup, SyncRole::Master] {
        start_sync(&daemon, &asked(role));
        assert_eq!(post(&daemon, &asked(role)), RefusalKind::DaemonRuns);
    }
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    let daemon = lab.start();
    let running = wait_for("both daemons", || {
        let all: SyncDaemons = daemon.get("/v1/sync");
        all.daemons.iter().all(|view| view.running).then_some(all.daemons)
    });
    let roles: Vec<SyncRole> = running.iter().map(|view| view.daemon.role).collect();
    assert_eq!(roles, [SyncRole::Master, SyncRole::Backup]);
    assert!(running.iter().all(|view| view.daemon.syncid == 7 && view.daemon.maxlen == Some(1472)));
    for role in roles {
        let stop = SyncStop { role };
        daemon.client.post::<_, ()>("/v1/sync/stop", &stop).expect("it runs");
        assert_eq!(refusal(daemon.client.post("/v1/sync/stop", &stop)), RefusalKind::NoSuchDaemon);
    }
    assert!(daemon.get::<SyncDaemons>("/v1/sync").daemons.is_empty());
}
