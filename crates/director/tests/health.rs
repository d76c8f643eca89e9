//! Health checks end to end: servers that stop answering lose their work, and get it back by themselves.

mod support;

use api::{
    Change, Check, CheckKind, EventKind, Events, Fallback, HealthSpec, HealthView, OnFailure, Persistence,
    RealHealth, RealHealthView, Rhythm, ServiceSpec, Services, Standing, Status,
};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{Daemon, Lab, add_service, connect, real, real_spec, service, wait_for};
use testkit::netns::NetNs;

/// A server that tells every client its number, until it is dropped.
struct Server {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(netns: &NetNs, number: u8) -> Self {
        let listener = netns.run(|| TcpListener::bind("0.0.0.0:8080")).expect("inside").expect("listen");
        listener.set_nonblocking(true).expect("without blocking");
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let serve = move || {
            while !told.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Whoever only looks has gone before it could be told.
                    Ok((mut stream, _)) => drop(stream.write_all(&[number])),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        };
        Self { end, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server");
        }
    }
}

fn ask(client: &NetNs) -> u8 {
    let mut number = [0];
    connect(client).read_exact(&mut number).expect("a number");
    number[0]
}

/// The same of a server that may have gone.
fn try_ask(client: &NetNs) -> Option<u8> {
    let address = support::VIP.parse().expect("an address");
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
    let mut stream = client.run(connect).expect("inside").ok()?;
    let mut number = [0];
    stream.read_exact(&mut number).ok()?;
    Some(number[0])
}

fn fast() -> Rhythm {
    Rhythm { interval_ms: 100, timeout_ms: 500, rise: 2, fall: 2, jitter_percent: 10, grace_ms: 0 }
}

fn watch(spec: HealthSpec) -> Change {
    let check = Check { kind: CheckKind::Tcp, address: None, port: None, rhythm: fast() };
    Change::SetHealth { service: service(), health: HealthSpec { checks: vec![check], ..spec } }
}

fn done(daemon: &Daemon, changes: impl IntoIterator<Item = Change>) {
    for change in changes {
        assert_eq!(daemon.change(change.clone()).refusals, [None], "{change:?}");
    }
}

fn add_real(place: u8) -> Change {
    Change::AddReal { service: service(), real: real(place), spec: real_spec() }
}

fn health(daemon: &Daemon, place: u8) -> RealHealthView {
    let view: HealthView = daemon.get("/v1/health");
    let reals = view.services.into_iter().flat_map(|it| it.reals);
    reals.into_iter().find(|it| it.real == real(place)).expect("a real server that is examined")
}

fn wait_until(daemon: &Daemon, place: u8, standing: Standing) -> RealHealthView {
    wait_for(standing.name(), || Some(health(daemon, place)).filter(|it| it.standing == standing))
}

/// Addresses and weights in the packet path.
fn weights(daemon: &Daemon) -> Vec<(u8, u32)> {
    let services: Services = daemon.get("/v1/services");
    let mut weights: Vec<_> = services.services[0]
        .reals
        .iter()
        .map(|it| ((0..9).find(|place| real(*place) == it.id).expect("one of ours"), it.spec.weight))
        .collect();
    weights.sort_unstable();
    weights
}

fn next_hops(daemon: &Daemon) {
    wait_for("the next hops", || {
        let services: Services = daemon.get("/v1/services");
        services.services[0].reals.iter().all(|real| real.neighbour.is_some()).then_some(())
    });
}

#[test]
fn a_failed_server_gets_no_new_work_and_a_recovered_one_comes_back_by_itself() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    let mut servers: Vec<_> =
        lab.servers.iter().zip(0..).map(|(it, number)| Some(Server::start(it, number))).collect();
    let daemon = lab.start();
    done(&daemon, [add_service(), watch(HealthSpec::default()), add_real(0), add_real(1)]);
    for place in 0..2 {
        wait_until(&daemon, place, Standing::Up);
    }
    next_hops(&daemon);
    let mut answers: Vec<u8> = (0..4).map(|_| ask(&lab.client)).collect();
    answers.sort_unstable();
    assert_eq!(answers, [0, 0, 1, 1]);

    servers[1] = None;
    let down = wait_until(&daemon, 1, Standing::Down);
    assert!(down.reason.starts_with("tcp check of 192.0.2.4:8080: connection refused"), "{}", down.reason);
    assert_eq!((down.weight, weights(&daemon)), (None, vec![(0, 1)]));
    assert!((0..6).all(|_| ask(&lab.client) == 0));

    servers[1] = Some(Server::start(&lab.servers[1], 1));
    wait_until(&daemon, 1, Standing::Up);
    let mut answers: Vec<u8> = (0..4).map(|_| ask(&lab.client)).collect();
    answers.sort_unstable();
    assert_eq!(answers, [0, 0, 1, 1]);

    let events: Events = daemon.get("/v1/events");
    let of_one: Vec<_> = events
        .events
        .iter()
        .filter_map(|it| match it.what {
            EventKind::Standing { real: of, from, to, .. } if of == real(1) => Some((from, to)),
            _ => None,
        })
        .collect();
    use Standing::{Down, Unknown, Up};
    assert_eq!(of_one, [(Unknown, Up), (Up, Down), (Down, Up)]);
    let metrics: String = daemon.get("/v1/metrics");
    let up = "sluice_real_up{service=\"TCP 192.0.2.10:8080\",real=\"192.0.2.4:8080\"} 1";
    assert!(metrics.lines().any(|line| line == up), "{metrics}");
    let last = events.events.last().expect("events").number;
    let later: Events = daemon.get(&format!("/v1/events?after={last}"));
    assert_eq!(later, Events::default());
}

#[test]
fn what_failed_stays_out_when_the_director_is_killed_and_started_again() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    let _first = Server::start(&lab.servers[0], 0);
    let mut daemon = lab.start();
    done(&daemon, [add_service(), watch(HealthSpec::default()), add_real(0), add_real(1)]);
    wait_until(&daemon, 0, Standing::Up);
    wait_until(&daemon, 1, Standing::Down);
    next_hops(&daemon);
    daemon.signal(Signal::SIGKILL);
    drop(daemon);

    let daemon = lab.start();
    assert_eq!(weights(&daemon), [(0, 1)], "at once, before any check");
    assert_eq!(ask(&lab.client), 0);
    wait_until(&daemon, 0, Standing::Up);
    let _second = Server::start(&lab.servers[1], 1);
    wait_until(&daemon, 1, Standing::Up);
    assert_eq!(weights(&daemon), [(0, 1), (1, 1)]);
}

#[test]
fn the_fallback_says_sorry_and_a_drained_server_gets_no_work() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(3);
    let mut servers: Vec<_> =
        lab.servers.iter().zip(0..).map(|(it, number)| Some(Server::start(it, number))).collect();
    let daemon = lab.start();
    let fallback = Fallback { real: real(2), spec: real_spec() };
    let spec = HealthSpec { fallback: Some(fallback), ..HealthSpec::default() };
    done(&daemon, [add_service(), watch(spec), add_real(0), add_real(1)]);
    wait_until(&daemon, 0, Standing::Up);
    wait_until(&daemon, 1, Standing::Up);
    let drain = |drain| Change::SetRealHealth {
        service: service(),
        real: real(0),
        health: RealHealth { drain, ..RealHealth::default() },
    };
    done(&daemon, [drain(true)]);
    next_hops(&daemon);
    assert_eq!(weights(&daemon), [(0, 0), (1, 1)]);
    assert!((0..4).all(|_| ask(&lab.client) == 1));

    servers[1] = None;
    wait_until(&daemon, 1, Standing::Down);
    next_hops(&daemon);
    assert_eq!(weights(&daemon), [(0, 0), (2, 1)]);
    assert!((0..4).all(|_| ask(&lab.client) == 2));
    // The same server cannot be both.
    let refused = daemon.change(add_real(2)).refusals;
    assert!(refused[0].as_ref().expect("refused").to_string().contains("is the fallback of"), "{refused:?}");

    done(&daemon, [drain(false)]);
    assert_eq!(weights(&daemon), [(0, 1)]);
    assert!((0..4).all(|_| ask(&lab.client) == 0));
}

/// Starts the daemon anew, and gives how many entries of tables the new one changed.
fn restarted(lab: &Lab, mut daemon: Daemon) -> (Daemon, u64) {
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    let daemon = lab.start();
    let status: Status = daemon.get("/v1/status");
    assert!(status.adopted);
    (daemon, status.tables_changed)
}

#[test]
fn a_daemon_that_is_started_anew_changes_nothing_while_the_servers_are_as_they_were() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(4);
    let mut servers: Vec<_> =
        lab.servers.iter().zip(0..).map(|(it, number)| Some(Server::start(it, number))).collect();
    let mut daemon = lab.start();
    let fallback = Fallback { real: real(3), spec: real_spec() };
    let spec = |on_failure| {
        watch(HealthSpec { fallback: Some(fallback), on_failure, drain_ms: 100, ..HealthSpec::default() })
    };
    let reals = [add_real(0), add_real(1), add_real(2)];
    done(&daemon, [add_service(), spec(OnFailure::Remove)].into_iter().chain(reals));
    (0..3).for_each(|place| drop(wait_until(&daemon, place, Standing::Up)));
    // One that came back stands last in the packet path, and first in what is declared.
    servers[0] = None;
    wait_until(&daemon, 0, Standing::Down);
    servers[0] = Some(Server::start(&lab.servers[0], 0));
    wait_until(&daemon, 0, Standing::Up);
    next_hops(&daemon);
    let (again, changed) = restarted(&lab, daemon);
    daemon = again;
    assert_eq!(changed, 0, "all of them up");

    let drain = RealHealth { drain: true, ..RealHealth::default() };
    done(&daemon, [Change::SetRealHealth { service: service(), real: real(2), health: drain }]);
    wait_until(&daemon, 2, Standing::Drained);
    for (on_failure, left) in
        [(OnFailure::Remove, vec![(3, 1)]), (OnFailure::Quiesce, vec![(0, 0), (1, 0), (3, 1)])]
    {
        for (place, server) in (0..2).zip(&mut servers) {
            // The port must be free before it is taken again.
            *server = None;
            *server = Some(Server::start(&lab.servers[usize::from(place)], place));
        }
        (0..2).for_each(|place| drop(wait_until(&daemon, place, Standing::Up)));
        done(&daemon, [spec(on_failure)]);
        servers[..2].fill_with(|| None);
        (0..2).for_each(|place| drop(wait_until(&daemon, place, Standing::Down)));
        next_hops(&daemon);
        assert_eq!(weights(&daemon), left, "{on_failure:?}");
        let (again, changed) = restarted(&lab, daemon);
        daemon = again;
        assert_eq!((changed, weights(&daemon)), (0, left.clone()), "{on_failure:?}");
        assert_eq!(ask(&lab.client), 3);
        (0..2).for_each(|place| drop(wait_until(&daemon, place, Standing::Down)));
        let status: Status = daemon.get("/v1/status");
        assert_eq!(status.tables_changed, 0, "{on_failure:?}: what its own checks say is the same");
        let events: Events = daemon.get("/v1/events");
        let is_news = |kind: &EventKind| !matches!(kind, EventKind::Standing { .. });
        assert!(!events.events.iter().any(|it| is_news(&it.what)), "{on_failure:?}: {events:?}");
    }
    // And then it goes by its checks.
    servers[0] = Some(Server::start(&lab.servers[0], 0));
    wait_until(&daemon, 0, Standing::Up);
    assert_eq!(ask(&lab.client), 0);
}

#[test]
fn clients_leave_a_server_that_failed_and_stay_with_one_that_is_drained() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    let mut servers: Vec<_> =
        lab.servers.iter().zip(0..).map(|(it, number)| Some(Server::start(it, number))).collect();
    let mut daemon = lab.start();
    let Change::AddService { service: id, spec } = add_service() else { unreachable!("made there") };
    let persistence = Some(Persistence { timeout_s: 300, mask: u32::MAX });
    let add_service = Change::AddService { service: id, spec: ServiceSpec { persistence, ..spec } };
    let health = HealthSpec { on_failure: OnFailure::Quiesce, ..HealthSpec::default() };
    done(&daemon, [add_service, watch(health), add_real(0), add_real(1)]);
    (0..2).for_each(|place| drop(wait_until(&daemon, place, Standing::Up)));
    next_hops(&daemon);
    let first = ask(&lab.client);
    assert!((0..4).all(|_| ask(&lab.client) == first), "persistence");

    servers[usize::from(first)] = None;
    assert_eq!(wait_until(&daemon, first, Standing::Down).weight, Some(0));
    let second = 1 - first;
    assert!((0..4).all(|_| ask(&lab.client) == second), "its templates are let go");
    // The next daemon knows it from the tables.
    let (again, changed) = restarted(&lab, daemon);
    daemon = again;
    assert_eq!(changed, 0);
    wait_until(&daemon, second, Standing::Up);

    servers[usize::from(first)] = Some(Server::start(&lab.servers[usize::from(first)], first));
    wait_until(&daemon, first, Standing::Up);
    assert_eq!(ask(&lab.client), second, "the client has a template there now");
    let drained = RealHealth { drain: true, ..RealHealth::default() };
    done(&daemon, [Change::SetRealHealth { service: service(), real: real(second), health: drained }]);
    let weights_of = [(first, 1), (second, 0)].into_iter().collect::<std::collections::BTreeMap<_, _>>();
    assert_eq!(weights(&daemon), weights_of.into_iter().collect::<Vec<_>>());
    assert!((0..4).all(|_| ask(&lab.client) == second), "the operator's weight of 0 keeps its clients");
    // One that is drained and dies keeps nobody.
    servers[usize::from(second)] = None;
    wait_for("the other server", || (try_ask(&lab.client) == Some(first)).then_some(()));
}
