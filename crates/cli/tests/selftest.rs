//! The scenarios of the kernel's own self-test of IPVS with Sluice in its place: direct routing, masquerading, a tunnel.
//! Beyond it: GRE and GUE, IPv6, more bytes than a segment holds, and back. Tunnels end in the kernel's own devices, which
//! only Debian's kernel in the virtual machine has for sure; so there everything is played.

#[path = "selftest/world.rs"]
mod world;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use world::World;

const VIP: &str = "207.175.44.110:8080";
const VIP_V6: &str = "[2001:db8:44::110]:8080";
/// How long an exchange may take. The first SYN may come before the real server's address is known.
const EXCHANGE_MAX: Duration = Duration::from_secs(20);
/// The self-test sends 32 bytes; these fill many segments as well.
const BYTES: [usize; 2] = [32, 100_000];

const TO_VIP: [&str; 2] = ["address add 207.175.44.110/32 dev lo", "address add 2001:db8:44::110/128 dev lo"];
/// Replies go to the client directly.
const DIRECT_WAY: [&str; 3] = [
    "link set veth20 up",
    "address add 10.0.0.3/24 dev veth20",
    "address add fd00:10::3/64 dev veth20 nodad",
];

/// Replies go back through the director.
const ROUTED_WAY: [&str; 2] = ["route add default via 172.16.0.1", "route add default via fd00:172::1"];

/// Whether the machine can do it; says why when not.
fn can_run() -> bool {
    if let Err(reason) = testkit::need_root() {
        testkit::skip::announce(&reason);
        return false;
    }
    true
}

/// Sends bytes to the VIP, and compares what arrives at the server and what comes back.
fn exchange(world: &World, vip: &str) {
    let target: SocketAddr = vip.parse().expect("an address");
    let any = if target.is_ipv4() { "0.0.0.0:8080" } else { "[::]:8080" };
    let listener =
        world.server.run(|| TcpListener::bind(any)).expect("the namespace").expect("port 8080 is free");
    listener.set_nonblocking(true).expect("a mode");
    for len in BYTES {
        let sent: Vec<u8> = (0..len).map(|at| (at * 31 + len) as u8).collect();
        let server = std::thread::scope(|scope| {
            let server = scope.spawn(|| serve(&listener));
            let back = world.client.run(|| send(target, &sent)).expect("the namespace");
            assert!(back == sent, "{len} bytes to {vip}: {} came back", back.len());
            server.join().expect("the server")
        });
        assert!(server == sent, "{len} bytes to {vip}: {} arrived", server.len());
    }
}

fn serve(listener: &TcpListener) -> Vec<u8> {
    let end = Instant::now() + EXCHANGE_MAX;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) => assert!(Instant::now() < end, "no connection reached the server: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    stream.set_nonblocking(false).expect("a mode");
    stream.set_read_timeout(Some(EXCHANGE_MAX)).expect("a time-out");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("bytes of the client");
    stream.write_all(&bytes).expect("bytes to the client");
    bytes
}

fn send(target: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&target, EXCHANGE_MAX).expect("a connection to the VIP");
    stream.set_read_timeout(Some(EXCHANGE_MAX)).expect("a time-out");
    stream.write_all(bytes).expect("bytes to the VIP");
    stream.shutdown(std::net::Shutdown::Write).expect("an end");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("bytes of the server");
    back
}

fn service(world: &World, vip: &str, real: &str, method: &str) {
    world.sluice(&format!("ipvsadm -A -t {vip} -s rr"));
    world.sluice(&format!("ipvsadm -a -t {vip} -r {real} {method}"));
}

fn direct_routing() {
    let world = World::new(&[&TO_VIP[..], &DIRECT_WAY[..]].concat());
    for (vip, real) in [(VIP, "172.16.0.2:8080"), (VIP_V6, "[fd00:172::2]:8080")] {
        service(&world, vip, real, "-g");
        exchange(&world, vip);
    }
}

fn masquerading() {
    let world = World::new(&ROUTED_WAY);
    for (vip, real) in [(VIP, "172.16.0.2:8080"), (VIP_V6, "[fd00:172::2]:8080")] {
        service(&world, vip, real, "-m");
        exchange(&world, vip);
    }
}

fn tunnels() {
    let modules = "modprobe -a ipip ip6_tunnel ip_gre fou sit";
    let done = Command::new("sh").args(["-c", modules]).status().expect("sh");
    assert!(done.success(), "{modules}: {done}");
    let world = World::new(&[&TO_VIP[..], &DIRECT_WAY[..]].concat());
    world.server_ip(&[
        "link set tunl0 up",
        "link set ip6tnl0 up",
        "link set sit0 up",
        "link add gre1 type gre local 172.16.0.2",
        "link set gre1 up",
        "fou add port 6080 gue",
    ]);
    world.set_server("ipv4/conf/tunl0/rp_filter=0 ipv4/conf/gre1/rp_filter=0 ipv4/conf/veth21/rp_filter=0");
    for (vip, real, method) in [
        (VIP, "172.16.0.2", "-i"),
        (VIP, "172.16.0.2", "-i --tun-type gre"),
        (VIP, "172.16.0.2", "-i --tun-type gue --tun-port 6080"),
        (VIP_V6, "fd00:172::2", "-i"),
        (VIP_V6, "172.16.0.2", "-i"),
    ] {
        let port = if real.contains(':') { format!("[{real}]:8080") } else { format!("{real}:8080") };
        service(&world, vip, &port, method);
        eprintln!("{vip} -> {real} {method}");
        exchange(&world, vip);
        world.sluice(&format!("ipvsadm -D -t {vip}"));
    }
    // Full segments do not fit a tunnel: the clients were told, and sent smaller ones.
    let verdicts = world.sluice("verdicts --json");
    let verdicts: api::Verdicts = serde_json::from_str(&verdicts).expect("JSON");
    let told = verdicts.verdicts.iter().find(|it| it.name == "answer_too_big").map_or(0, |it| it.packets);
    assert!(told >= 5, "{told} answers");
}

#[test]
fn direct_routing_carries_bytes_both_ways() {
    if can_run() {
        direct_routing();
    }
}

#[test]
fn masquerading_carries_bytes_both_ways() {
    if can_run() {
        masquerading();
    }
}

#[test]
fn every_method_works_on_debians_kernel() {
    if testkit::vm::is_inside() {
        direct_routing();
        masquerading();
        tunnels();
        return;
    }
    if !can_run() {
        return;
    }
    if let Err(reason) = testkit::vm::play("every_method_works_on_debians_kernel") {
        testkit::skip!("{reason}");
    }
}
