//! Who may open connections to a service, with real TCP clients, and what the packet path itself sees of a server that does
//! not answer.

mod support;

use api::{Admission, Change, HealthSpec, HealthView, OnFailure, Passive, Standing, Verdicts};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;
use support::{Daemon, Lab, VIP, add_service, connect, echo, real, real_spec, serve_echo, service, wait_for};
use testkit::netns::NetNs;

/// A director with real servers that are reached.
fn start(lab: &Lab) -> Daemon {
    let daemon = lab.start();
    change(&daemon, add_service());
    for place in 0..lab.servers.len() {
        let place = u8::try_from(place).expect("few servers");
        change(&daemon, Change::AddReal { service: service(), real: real(place), spec: real_spec() });
    }
    wait_for("the next hops", || {
        let services: api::Services = daemon.get("/v1/services");
        services.services[0].reals.iter().all(|real| real.neighbour.is_some()).then_some(())
    });
    daemon
}

fn change(daemon: &Daemon, change: Change) {
    assert_eq!(daemon.change(change.clone()).refusals, [None], "{change:?}");
}

fn admit(daemon: &Daemon, admission: Admission) {
    change(daemon, Change::SetAdmission { service: service(), admission });
}

fn verdict(daemon: &Daemon, name: &str) -> u64 {
    let verdicts: Verdicts = daemon.get("/v1/verdicts");
    verdicts.verdicts.iter().find(|it| it.name == name).map_or(0, |it| it.packets)
}

/// One attempt, which nobody answers.
fn in_vain(client: &NetNs) {
    let address = VIP.parse().expect("address");
    let patience = Duration::from_millis(300);
    let tried = client.run(|| TcpStream::connect_timeout(&address, patience)).expect("inside");
    assert_eq!(tried.expect_err("nobody answers").kind(), ErrorKind::TimedOut);
}

#[test]
fn a_denied_client_opens_no_connection_and_keeps_those_it_has() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(1);
    serve_echo(&lab.servers[0]);
    let daemon = start(&lab);
    let mut before = connect(&lab.client);
    echo(&mut before, b'a');
    let all = vec!["0.0.0.0/0".parse().expect("a network")];
    admit(&daemon, Admission { deny: all, ..Admission::default() });
    in_vain(&lab.client);
    assert!(verdict(&daemon, "drop_denied") >= 1);
    echo(&mut before, b'b');
    admit(&daemon, Admission::default());
    echo(&mut connect(&lab.client), b'c');
    drop(daemon);
}

#[test]
fn a_client_gets_as_many_connections_as_it_may_have_and_another_when_one_has_ended() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(1);
    serve_echo(&lab.servers[0]);
    let daemon = start(&lab);
    admit(&daemon, Admission { connections_per_client: 2, ..Admission::default() });
    let mut first = connect(&lab.client);
    let mut second = connect(&lab.client);
    echo(&mut first, b'a');
    echo(&mut second, b'b');
    in_vain(&lab.client);
    assert!(verdict(&daemon, "drop_client_connections") >= 1);
    drop(first);
    // Its FIN is on the way.
    let mut third = wait_for("room for another connection", || {
        let address = VIP.parse().expect("address");
        let patience = Duration::from_millis(300);
        lab.client.run(|| TcpStream::connect_timeout(&address, patience)).expect("inside").ok()
    });
    echo(&mut third, b'c');
    // Connections that there were before the limit count too: the sweep finds them.
    admit(&daemon, Admission::default());
    let _fourth = connect(&lab.client);
    admit(&daemon, Admission { connections_per_client: 3, ..Admission::default() });
    wait_for("the limit to be reached", || {
        let address = VIP.parse().expect("address");
        let patience = Duration::from_millis(300);
        lab.client.run(|| TcpStream::connect_timeout(&address, patience)).expect("inside").err()
    });
}

#[test]
fn a_server_that_answers_no_syn_is_taken_out_by_what_the_packet_path_sees() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    serve_echo(&lab.servers[0]);
    let daemon = start(&lab);
    let passive = Some(Passive { flows_min: 3, failed_percent: 50 });
    let health = HealthSpec { passive, on_failure: OnFailure::Quiesce, ..HealthSpec::default() };
    change(&daemon, Change::SetHealth { service: service(), health });
    // It drops packets to the VIP; its next hop stays.
    lab.servers[1].ip("addr del 192.0.2.10/32 dev lo").expect("no VIP");
    let address = VIP.parse().expect("address");
    let reason = wait_for("the verdict", || {
        // Half of them meet the deaf server, and go to the other at their first retry.
        let patience = Duration::from_secs(3);
        let ask = || lab.client.run(|| TcpStream::connect_timeout(&address, patience).map(drop));
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            clients.into_iter().for_each(|client| drop(client.join().expect("a client")));
        });
        let view: HealthView = daemon.get("/v1/health");
        let reals = view.services.into_iter().flat_map(|it| it.reals);
        let deaf = reals.into_iter().find(|it| it.real == real(1))?;
        (deaf.standing == Standing::Down).then_some(deaf.reason)
    });
    assert!(reason.ends_with("new flows did not get on"), "{reason}");
    let services: api::Services = daemon.get("/v1/services");
    let weight =
        |place| services.services[0].reals.iter().find(|it| it.id == real(place)).expect("there").spec.weight;
    assert_eq!((weight(0), weight(1)), (1, 0));
}
