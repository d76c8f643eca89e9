//! Lost packets and dead servers, with real TCP clients: how many SYNs it takes until a client is served again.
//!
//! Counts only, no times: how long a client waits between two SYNs is its own business (one second, RFC 6298).

mod support;

use api::{Change, Gone, PolicyChoices, Verdicts};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use support::{
    Daemon, Lab, VIP, add_service, connect, echo, first_real, real, real_spec, serve_echo, service, wait_for,
};
use testkit::Frames;
use testkit::netns::NetNs;

/// Starts a director with two real servers, which both are reached; the second is asked first.
fn start(lab: &Lab) -> Daemon {
    let daemon = lab.start();
    let add_real = |place| Change::AddReal { service: service(), real: real(place), spec: real_spec() };
    for change in [add_service(), add_real(0), add_real(1)] {
        assert_eq!(daemon.change(change).refusals, [None]);
    }
    wait_for("the next hops", || {
        let services: api::Services = daemon.get("/v1/services");
        services.services[0].reals.iter().all(|real| real.neighbour.is_some()).then_some(())
    });
    daemon
}

fn choose(daemon: &Daemon, choices: PolicyChoices) {
    let change = Change::SetPolicy { service: None, forget: false, choices };
    assert_eq!(daemon.change(change).refusals, [None]);
}

/// A socket that sees every frame on the machine's link from now on.
fn listen_in(netns: &NetNs) -> Frames {
    netns.run(|| Frames::open("eth0")).expect("inside").expect("packet socket")
}

/// SYNs of clients that came by until now.
fn syns(frames: &Frames) -> usize {
    let is_syn = |frame: &[u8]| {
        let [ipv4, tcp] = [frame.get(12..14) == Some(&[8, 0]), frame.get(23) == Some(&6)];
        ipv4 && tcp && frame.get(36..38) == Some(&8080_u16.to_be_bytes()) && frame.get(47) == Some(&2)
    };
    std::iter::from_fn(|| frames.receive(Duration::from_millis(50), is_syn).expect("receive")).count()
}

fn verdict(daemon: &Daemon, name: &str) -> u64 {
    let verdicts: Verdicts = daemon.get("/v1/verdicts");
    verdicts.verdicts.iter().find(|it| it.name == name).map_or(0, |it| it.packets)
}

/// Makes a server deaf: packets to the VIP are none of its business any more, so that it drops them. Its next hop stays.
fn deafen(server: &NetNs) {
    server.ip("addr del 192.0.2.10/32 dev lo").expect("no VIP");
}

#[test]
fn a_client_of_a_deaf_server_is_served_by_another_at_its_first_retry() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    serve_echo(&lab.servers[0]);
    let daemon = start(&lab);
    deafen(&lab.servers[1]);
    let (good, deaf) = (listen_in(&lab.servers[0]), listen_in(&lab.servers[1]));
    let mut stream = connect(&lab.client);
    echo(&mut stream, b'a');
    assert_eq!((syns(&deaf), syns(&good)), (1, 1), "one SYN was lost, the next one was answered");
    assert_eq!((verdict(&daemon, "forward_new"), verdict(&daemon, "forward_rescued")), (1, 1));
}

#[test]
fn without_rescue_a_client_goes_on_asking_the_deaf_server() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    serve_echo(&lab.servers[0]);
    let daemon = start(&lab);
    choose(&daemon, PolicyChoices { rescue: Some(false), ..PolicyChoices::default() });
    deafen(&lab.servers[1]);
    let (good, deaf) = (listen_in(&lab.servers[0]), listen_in(&lab.servers[1]));
    let patience = Duration::from_millis(1500);
    let address = VIP.parse().expect("address");
    let tried = lab.client.run(|| TcpStream::connect_timeout(&address, patience)).expect("inside");
    assert_eq!(tried.expect_err("nobody answers").kind(), ErrorKind::TimedOut);
    assert_eq!((syns(&deaf), syns(&good)), (2, 0), "the retry went where the first SYN went");
    assert_eq!(verdict(&daemon, "forward_rescued"), 0);
}

/// A connection whose real server is taken out, and what the client's next segment comes to.
fn cut(lab: &Lab, daemon: &Daemon) -> (TcpStream, std::io::Result<usize>) {
    let mut stream = connect(&lab.client);
    echo(&mut stream, b'a');
    assert_eq!(first_real(daemon).active, 1, "the newest is asked first");
    let removed = Change::DeleteReal { service: service(), real: real(1) };
    assert_eq!(daemon.change(removed).refusals, [None]);
    stream.set_read_timeout(Some(Duration::from_millis(700))).expect("time-out");
    stream.write_all(b"b").expect("taken by the kernel");
    let read = stream.read(&mut [0]);
    (stream, read)
}

#[test]
fn a_client_of_a_server_taken_out_is_reset_at_its_first_segment_and_connects_anew() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    lab.servers.iter().for_each(serve_echo);
    let daemon = start(&lab);
    choose(&daemon, PolicyChoices { gone: Some(Gone::Reset), ..PolicyChoices::default() });
    let (_cut, read) = cut(&lab, &daemon);
    assert_eq!(read.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!((verdict(&daemon, "answer_reset"), verdict(&daemon, "drop_real_gone")), (1, 0));
    let good = listen_in(&lab.servers[0]);
    let mut again = connect(&lab.client);
    echo(&mut again, b'c');
    assert_eq!(syns(&good), 1);
}

#[test]
fn by_default_segments_to_a_server_taken_out_are_dropped_and_a_new_connection_is_served() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    lab.servers.iter().for_each(serve_echo);
    let daemon = start(&lab);
    let (_cut, read) = cut(&lab, &daemon);
    let kind = read.expect_err("nothing comes").kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
    assert_eq!(verdict(&daemon, "answer_reset"), 0);
    // The segment, and what the client's kernel repeats of it.
    assert!(verdict(&daemon, "drop_real_gone") >= 2);
    let good = listen_in(&lab.servers[0]);
    let mut again = connect(&lab.client);
    echo(&mut again, b'c');
    assert_eq!(syns(&good), 1);
}
