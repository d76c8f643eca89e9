//! Fragments, ICMP errors and path MTU discovery with masqueraded real servers and through a tunnel, with real sockets: what the
//! kernels of client, router and server make of what the director translates.

mod support;

use api::{Change, Forwarding, Protocol, RealId, RealSpec, ServiceId, Tunnel};
use nix::sys::socket::{getsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use support::{
    DATAGRAM, Daemon, Lab, PATIENCE, VIP, add_service, connect, far_client, first_real, real_spec,
    serve_datagrams, udp_socket, verdict, wait_for,
};
use testkit::netns::NetNs;
use testkit::{Frames, skip};

/// A real server's port is another one than the service's.
const REAL: &str = "192.0.2.3:9090";
/// A real server behind the lab's own server, which then is a router with a narrow link to it.
const FAR_REAL: &str = "203.0.113.2:9090";
/// MTU of narrow links.
const NARROW: u32 = 1300;
/// What an IPIP tunnel adds.
const IPIP: u32 = 20;
/// Bytes of a transfer: many segments.
const TRANSFER: usize = 300_000;

/// A director with one service and one real server, whose next hop is known.
fn start(lab: &Lab, protocol: Protocol, real: &str, forwarding: Forwarding) -> Daemon {
    let vip: SocketAddr = VIP.parse().expect("address");
    let service = ServiceId::Address { protocol, address: vip.ip(), port: vip.port() };
    let daemon = lab.start();
    let Change::AddService { spec, .. } = add_service() else { unreachable!("it adds a service") };
    let at: SocketAddr = real.parse().expect("address");
    // Only masquerading can map ports.
    let port = if forwarding == Forwarding::Masquerade { at.port() } else { vip.port() };
    let real = RealId { address: at.ip(), port };
    let added = RealSpec { forwarding, tunnel: Tunnel::Ipip, ..real_spec() };
    for change in [Change::AddService { service, spec }, Change::AddReal { service, real, spec: added }] {
        assert_eq!(daemon.change(change).refusals, [None]);
    }
    wait_for("the next hop", || first_real(&daemon).neighbour);
    daemon
}

/// One server, whose packets to the client pass the director.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.servers[0].ip("route add 192.0.2.1/32 via 192.0.2.2").expect("route");
    lab
}

/// A server behind a narrow link; the lab's own server is the router before it.
fn far_server(lab: &Lab) -> NetNs {
    let far = NetNs::new("fs").expect("namespace");
    let router = &lab.servers[0];
    router.veth("narrow", &far, "eth0").expect("veth");
    router.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("inside").expect("a router");
    for (netns, words) in [
        (router, "addr add 203.0.113.1/24 dev narrow".to_owned()),
        (router, format!("link set narrow mtu {NARROW}")),
        (&far, "addr add 203.0.113.2/24 dev eth0".to_owned()),
        (&far, format!("link set eth0 mtu {NARROW}")),
        (&far, "route add default via 203.0.113.1".to_owned()),
        (&lab.director, "route add 203.0.113.0/24 via 192.0.2.3".to_owned()),
    ] {
        netns.ip(&words).expect(&words);
    }
    far
}

#[test]
fn a_datagram_in_pieces_crosses_masquerading_both_ways() {
    if let Err(reason) = testkit::need_bpf() {
        skip!("{reason}");
    }
    let lab = lab();
    serve_datagrams(&lab.servers[0], REAL, b'0');
    let daemon = start(&lab, Protocol::Udp, REAL, Forwarding::Masquerade);
    let client = udp_socket(&lab.client, "0.0.0.0:0");
    // Connected: what does not come from the VIP and its port would not be heard.
    client.connect(VIP).expect("connect");
    let sent: Vec<u8> = (0..DATAGRAM).map(|at| (at % 251) as u8).collect();
    for _ in 0..3 {
        client.send(&sent).expect("send");
        let mut answer = vec![0; 2 * DATAGRAM];
        let length = client.recv(&mut answer).expect("an answer");
        assert!(answer[1..length] == sent, "the datagram came back changed");
    }
    // 5,008 bytes in pieces of at most 1,480: three after the first. Of the replies every piece is counted.
    assert_eq!((verdict(&daemon, "forward_fragment"), verdict(&daemon, "forward_reply")), (3 * 3, 3 * 4));
    assert_eq!(verdict(&daemon, "pass_fragment_lost"), 0);
}

#[test]
fn a_client_is_refused_by_a_masqueraded_server_that_does_not_listen() {
    if let Err(reason) = testkit::need_bpf() {
        skip!("{reason}");
    }
    let lab = lab();
    let daemon = start(&lab, Protocol::Udp, REAL, Forwarding::Masquerade);
    let client = udp_socket(&lab.client, "0.0.0.0:0");
    client.connect(VIP).expect("connect");
    client.send(b"a").expect("send");
    let refused = client.recv(&mut [0]).expect_err("nobody listens there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "ICMP port unreachable from the VIP");
    assert_eq!(verdict(&daemon, "forward_error"), 1);
    drop(daemon);
}

#[test]
fn a_client_is_reset_by_a_masqueraded_server_that_does_not_listen() {
    if let Err(reason) = testkit::need_bpf() {
        skip!("{reason}");
    }
    let lab = lab();
    let daemon = start(&lab, Protocol::Tcp, REAL, Forwarding::Masquerade);
    let vip: SocketAddr = VIP.parse().expect("address");
    let refused = lab.client.run(|| TcpStream::connect_timeout(&vip, PATIENCE)).expect("inside");
    assert_eq!(refused.expect_err("nobody listens there").kind(), ErrorKind::ConnectionRefused);
    assert_eq!(verdict(&daemon, "forward_reply"), 1);
}

#[test]
fn a_masqueraded_server_learns_that_the_way_to_its_client_is_narrow() {
    if let Err(reason) = testkit::need_bpf() {
        skip!("{reason}");
    }
    let lab = lab();
    let far = far_client(&lab, "192.0.2.2");
    let listener = lab.servers[0].run(|| TcpListener::bind(REAL)).expect("inside").expect("listen");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(&vec![7; TRANSFER]);
        }
    });
    let daemon = start(&lab, Protocol::Tcp, REAL, Forwarding::Masquerade);
    let mut stream = connect(&far);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("all of it, in time");
    assert_eq!(got.len(), TRANSFER);
    assert!(verdict(&daemon, "forward_related") >= 1, "the router has said that the way is narrow");
}

#[test]
fn a_client_learns_that_the_way_to_a_masqueraded_server_is_narrow() {
    if let Err(reason) = testkit::need_bpf() {
        skip!("{reason}");
    }
    let lab = lab();
    let far = far_server(&lab);
    let listener = far.run(|| TcpListener::bind(FAR_REAL)).expect("inside").expect("listen");
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("all of it, in time");
        got.len()
    });
    let daemon = start(&lab, Protocol::Tcp, FAR_REAL, Forwarding::Masquerade);
    // The server would tell the client how long segments may be: for once it does not know.
    far.ip("link set eth0 mtu 1500").expect("MTU");
    let mut stream = connect(&lab.client);
    stream.write_all(&vec![7; TRANSFER]).expect("sent");
    drop(stream);
    assert_eq!(served.join().expect("the server"), TRANSFER);
    assert!(verdict(&daemon, "forward_error") >= 1, "the router has said that the way is narrow");
}

/// The MTU of the way that a connected socket knows.
fn known_mtu(socket: &UdpSocket) -> u32 {
    getsockopt(socket, sockopt::IpMtu).expect("the MTU").cast_unsigned()
}

/// Waits until the socket is told that its last datagram was too long for a way of this MTU.
fn told(socket: &UdpSocket, mtu: u32) {
    let error = wait_for("word of the MTU", || socket.take_error().expect("the socket"));
    assert_eq!(error.raw_os_error(), Some(nix::libc::EMSGSIZE), "{error}");
    assert_eq!(known_mtu(socket), mtu);
}

#[test]
fn a_client_learns_how_narrow_the_way_through_a_tunnel_is() {
    if let Err(reason) = testkit::need_bpf() {
        skip!("{reason}");
    }
    let lab = lab();
    let far = far_server(&lab);
    // The word of a router behind the tunnel goes to the client by the routing table, which the kernel asks for routers only.
    lab.director
        .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("inside")
        .expect("a router");
    let daemon = start(&lab, Protocol::Udp, FAR_REAL, Forwarding::Tunnel);
    let client = udp_socket(&lab.client, "0.0.0.0:0");
    client.connect(VIP).expect("connect");
    assert_eq!(known_mtu(&client), 1500);
    // As long as the client's link takes: the director knows its own link and the tunnel.
    client.send(&[7; 1472]).expect("send");
    told(&client, 1500 - IPIP);
    assert_eq!(verdict(&daemon, "answer_too_big"), 1);
    // That goes into the tunnel; the router behind it tells the director, and the director the client.
    client.send(&[7; 1452]).expect("send");
    told(&client, NARROW - IPIP);
    assert_eq!(verdict(&daemon, "forward_error"), 1);
    // And that arrives: the packet of 1,280 bytes, with the 20 in front of it.
    let frames = far.run(|| Frames::open("eth0")).expect("inside").expect("packet socket");
    client.send(&[7; 1252]).expect("send");
    let is_ipip = |frame: &[u8]| frame.get(23) == Some(&4);
    let frame = frames.receive(PATIENCE, is_ipip).expect("receive").expect("the packet in its tunnel");
    assert_eq!(frame.len(), 14 + NARROW as usize);
}
