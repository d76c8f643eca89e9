//! Fragments and ICMP errors, with real sockets: what the kernels of client, router and servers make of them.

mod support;

use api::{Change, Connections, Protocol, ServiceId};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use support::{
    DATAGRAM, Daemon, Lab, PATIENCE, VIP, add_service, connect, far_client, first_real, real, real_spec,
    serve_datagrams, udp_socket, verdict, wait_for,
};
use testkit::netns::NetNs;
use testkit::{Frames, packet};

/// What a client downloads over the narrow way.
const DOWNLOAD: usize = 300_000;

fn service_of(protocol: Protocol) -> ServiceId {
    let vip: SocketAddr = VIP.parse().expect("address");
    ServiceId::Address { protocol, address: vip.ip(), port: vip.port() }
}

/// Starts a director whose service has the lab's servers.
fn start(lab: &Lab, service: ServiceId) -> Daemon {
    let daemon = lab.start();
    let Change::AddService { spec, .. } = add_service() else { unreachable!("it adds a service") };
    assert_eq!(daemon.change(Change::AddService { service, spec }).refusals, [None]);
    for place in (0..).take(lab.servers.len()) {
        let added = Change::AddReal { service, real: real(place), spec: real_spec() };
        assert_eq!(daemon.change(added).refusals, [None]);
    }
    wait_for("the next hops", || {
        let services: api::Services = daemon.get("/v1/services");
        services.services[0].reals.iter().all(|real| real.neighbour.is_some()).then_some(())
    });
    daemon
}

#[test]
fn a_datagram_of_many_pieces_reaches_one_server_whole() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    for (name, server) in (b'0'..).zip(&lab.servers) {
        serve_datagrams(server, VIP, name);
    }
    let daemon = start(&lab, service_of(Protocol::Udp));
    let sent: Vec<u8> = (0..DATAGRAM).map(|at| (at % 251) as u8).collect();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let client = udp_socket(&lab.client, "0.0.0.0:0");
        let mut names = Vec::new();
        for _ in 0..3 {
            client.send_to(&sent, VIP).expect("send");
            let mut answer = vec![0; 2 * DATAGRAM];
            let length = client.recv(&mut answer).expect("an answer");
            assert!(answer[1..length] == sent, "the datagram came back changed");
            names.push(answer[0]);
        }
        assert!(names.iter().all(|name| *name == names[0]), "a flow goes to one server");
        seen.push(names[0]);
    }
    assert_ne!(seen[0], seen[1], "two flows go to two servers");
    // 5,008 bytes in pieces of at most 1,480.
    assert_eq!(verdict(&daemon, "forward_fragment"), 2 * 3 * 3);
    assert_eq!(verdict(&daemon, "pass_fragment_lost"), 0);
}

#[test]
fn a_server_learns_that_its_client_has_gone() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let server = udp_socket(&lab.servers[0], VIP);
    let daemon = start(&lab, service_of(Protocol::Udp));
    let client = udp_socket(&lab.client, "0.0.0.0:0");
    client.send_to(b"a", VIP).expect("send");
    let mut byte = [0];
    let (_, from) = server.recv_from(&mut byte).expect("the datagram");
    drop(client);
    server.connect(from).expect("connect");
    server.send(b"b").expect("send");
    let refused = server.recv(&mut byte).expect_err("nobody listens there any more");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(verdict(&daemon, "forward_related"), 1);
}

/// Sends every connection `DOWNLOAD` bytes. The thread ends with the process.
fn serve_download(server: &NetNs) {
    let listener = server.run(|| TcpListener::bind(VIP)).expect("inside").expect("listen");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(&vec![7; DOWNLOAD]);
        }
    });
}

#[test]
fn a_download_over_a_narrow_way_comes_through() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let far = far_client(&lab, "192.0.2.1");
    serve_download(&lab.servers[0]);
    let daemon = start(&lab, service_of(Protocol::Tcp));
    let mut stream = connect(&far);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("all of it, in time");
    assert_eq!(got.len(), DOWNLOAD);
    assert!(verdict(&daemon, "forward_related") >= 1, "the router has said that the way is narrow");
}

/// The director's hardware address in the frames made here.
const DIRECTOR_MAC: &str = "02:00:00:00:00:fe";

#[test]
fn an_association_is_served_and_listed() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    lab.director.ip(&format!("link set eth0 address {DIRECTOR_MAC}")).expect("address");
    let daemon = start(&lab, service_of(Protocol::Sctp));
    let open = |netns: &NetNs| netns.run(|| Frames::open("eth0")).expect("inside").expect("packet socket");
    let (client, server) = (open(&lab.client), open(&lab.servers[0]));
    let head = format!("eth 02:00:00:00:00:01 > {DIRECTOR_MAC} / ip4 192.0.2.1 > 192.0.2.10");
    // INIT, then COOKIE ECHO, DATA and ABORT; what the server would answer goes to the client directly.
    for (chunk, state, least, most, active) in [
        ("hex 010000140000000100010000000a000a00000001", "INIT1", 2, 4, 0),
        ("hex 0a000008aabbccdd", "ESTABLISHED", 898, 900, 1),
        ("hex 00030014000000010000000000000000aabbccdd", "ESTABLISHED", 898, 900, 1),
        ("hex 06000004", "CLOSED", 59, 61, 0),
    ] {
        client.send(&packet(&format!("{head} / sctp 5000 > 8080 tag 1 / {chunk}"))).expect("sent");
        let arrived = server.receive(PATIENCE, |frame| frame.get(23) == Some(&132)).expect("receive");
        assert!(arrived.is_some(), "{chunk} reached the server");
        let page: Connections = daemon.get("/v1/connections");
        let [connection] = &page.connections[..] else { panic!("one connection: {page:?}") };
        assert_eq!((connection.protocol.as_str(), connection.state.as_str()), ("SCTP", state));
        assert!((least..=most).contains(&connection.expires_s), "{state}: {}", connection.expires_s);
        assert_eq!(connection.client, "192.0.2.1:5000".parse().expect("address"));
        let real = first_real(&daemon);
        assert_eq!((real.active, real.inactive), (active, 1 - active), "{state}");
    }
}
