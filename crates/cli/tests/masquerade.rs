//! Masquerading and full NAT through a real director, with real sockets in namespaces: the real servers are behind the
//! director, on ports of their own. Needs root, nginx and curl.

use lab::address::{HTTP_PORT, Node, UDP_PORT, VIP_V4, VIP_V6};
use lab::demo::Cancel;
use lab::demo::director::Director;
use lab::inside::Inside;
use lab::udp::{Echo, ask};
use lab::{Lab, LabError, LabOptions};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Port of the services; the real servers have others.
const PORT: u16 = 8000;
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections of each kind: more than one, so that ports and ways back are used again.
const ROUNDS: u32 = 5;

struct World {
    lab: Lab,
    insides: Vec<Inside>,
    _echoes: Vec<Echo>,
}

/// A cluster with `reals` real servers behind the director; `None` where something is missing.
fn world(reals: u32) -> Option<World> {
    if !Path::new("/usr/bin/curl").exists() {
        testkit::skip::announce("needs /usr/bin/curl; ./dev setup installs it");
        return None;
    }
    let mut lab = match Lab::new(LabOptions { reals, ..LabOptions::default() }) {
        Err(LabError::NotRoot | LabError::Command(lab::command::CommandError::Missing { .. })) => {
            testkit::skip::announce("needs root, iproute2, ethtool and nginx");
            return None;
        }
        made => made.expect("a cluster"),
    };
    let insides: Vec<Inside> = (1..=reals).map(|number| lab.put_inside(number).expect("a network")).collect();
    let echo = |number: u32| {
        let inside = Inside::of(number);
        let at = [(inside.real_v4, UDP_PORT).into(), (inside.real_v6, UDP_PORT).into()];
        let node = Node::Real(number);
        Echo::start(lab.namespace(node).expect("a namespace"), &node.name(), &at).expect("an echo")
    };
    let echoes = (1..=reals).map(echo).collect();
    Some(World { lab, insides, _echoes: echoes })
}

impl World {
    fn start(&self) -> Director {
        Director::start(&self.lab, env!("CARGO_BIN_EXE_sluice").into(), &Cancel::default()).expect("director")
    }

    fn forwarding(&self, on: bool) {
        let value = u8::from(on);
        let line = format!(
            "echo {value} > /proc/sys/net/ipv4/ip_forward; echo {value} > /proc/sys/net/ipv6/conf/all/forwarding"
        );
        self.lab.exec_in(Node::Director, "sh", &["-c", &line]).expect("forwarding");
    }

    fn get(&self, from: Node, url: &str) -> Result<String, String> {
        let words = ["--silent", "--show-error", "--max-time", "10", "--globoff", url];
        let got = self.lab.exec_in(from, "curl", &words);
        got.map(|text| text.trim().to_owned()).map_err(|error| runtime::Chain(&error).to_string())
    }

    /// Pages and datagrams, of both families, come from this real server.
    fn check(&self, name: &str) {
        for _ in 0..ROUNDS {
            for host in [VIP_V4.to_string(), format!("[{VIP_V6}]")] {
                let got = self.get(Node::Client, &format!("http://{host}:{PORT}/"));
                assert_eq!(got.as_deref(), Ok(name), "{host}");
            }
        }
        for vip in [IpAddr::V4(VIP_V4), VIP_V6.into()] {
            let client = self.lab.namespace(Node::Client).expect("a namespace");
            let stats = ask(client, SocketAddr::new(vip, PORT), ROUNDS, PATIENCE).expect("datagrams");
            assert_eq!(stats.share.get(name), Some(&u64::from(ROUNDS)), "{vip}: {stats:?}");
        }
    }
}

fn ipvsadm(director: &Director, words: &str) -> String {
    match director.front().ipvsadm(words) {
        Ok(text) => text,
        Err(error) => panic!("{words}: {}", runtime::Chain(&error)),
    }
}

fn sluice(director: &Director, words: &str) {
    let mut command = Command::new(director.front().program());
    command.args(words.split_whitespace()).env("SLUICE_SOCKET", director.front().socket());
    let done = command.output().expect("sluice");
    assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Services of both families and protocols, with this real server.
fn serve(director: &Director, inside: &Inside, before: impl Fn(&str)) {
    for (option, protocol, real_port) in [("-t", "tcp", HTTP_PORT), ("-u", "udp", UDP_PORT)] {
        let ends = [
            (format!("{VIP_V4}:{PORT}"), format!("{}:{real_port}", inside.real_v4)),
            (format!("[{VIP_V6}]:{PORT}"), format!("[{}]:{real_port}", inside.real_v6)),
        ];
        for (vip, real) in ends {
            ipvsadm(director, &format!("-A {option} {vip} -s rr"));
            before(&format!("{protocol} {vip}"));
            ipvsadm(director, &format!("-a {option} {vip} -r {real} -m"));
        }
    }
}

/// The counters of a real server once it has so many connections: they are read every two seconds.
fn counted(director: &Director, real: &str, connections: u32) -> (String, Vec<u64>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let stats = ipvsadm(director, "-L -n --stats --exact");
        let line = stats.lines().find(|line| line.contains(real)).expect("the real server");
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if numbers.first() == Some(&u64::from(connections)) || Instant::now() > end {
            return (stats, numbers);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn replies_come_back_through_the_director_and_everything_else_is_routed_as_before() {
    let Some(world) = world(1) else { return };
    let inside = world.insides[0];
    world.lab.route_through_director(1).expect("a route");
    let director = world.start();
    serve(&director, &inside, |_| ());
    // Without forwarding, replies go back where the client's packets came from; with it, by the routing table.
    for on in [false, true] {
        world.forwarding(on);
        world.check("real1");
    }
    let listed = ipvsadm(&director, "-L -n");
    assert!(
        listed.contains(&format!("{}:{HTTP_PORT}", inside.real_v4)) && listed.contains("Masq"),
        "{listed}"
    );
    let (stats, numbers) = counted(&director, &format!("{}:{HTTP_PORT}", inside.real_v4), 2 * ROUNDS);
    let [connections, in_packets, out_packets, in_bytes, out_bytes] = numbers[..] else { panic!("{stats}") };
    assert_eq!(connections, u64::from(2 * ROUNDS), "{stats}");
    assert!(in_packets >= 3 * connections && out_packets >= 3 * connections, "{stats}");
    assert!(out_bytes > in_bytes, "{stats}");
    // The server's FIN was seen: no connection stays open.
    let connections = ipvsadm(&director, "-L -c -n");
    assert!(!connections.contains("ESTABLISHED") && connections.contains("TIME_WAIT"), "{connections}");

    // The director is a router for the rest: the real server's own address, and the real server as a client.
    let to_inside = format!("{}/32", inside.real_v4);
    let director_v4 = Node::Director.v4().to_string();
    world.lab.exec_in(Node::Client, "ip", &["route", "add", &to_inside, "via", &director_v4]).expect("route");
    let url = format!("http://{}:{HTTP_PORT}/", inside.real_v4);
    assert_eq!(world.get(Node::Client, &url).as_deref(), Ok("real1"));
    let at = SocketAddr::from((Node::Client.v4(), UDP_PORT));
    let client = world.lab.namespace(Node::Client).expect("a namespace");
    let _echo = Echo::start(client, "client", &[at]).expect("an echo");
    let real = world.lab.namespace(Node::Real(1)).expect("a namespace");
    let stats = ask(real, at, ROUNDS, PATIENCE).expect("datagrams");
    assert_eq!(stats.share.get("client"), Some(&u64::from(ROUNDS)), "{stats:?}");
}

#[test]
fn with_full_nat_a_real_server_needs_no_route_to_the_clients() {
    let Some(world) = world(1) else { return };
    let director = world.start();
    world.forwarding(true);
    serve(&director, &world.insides[0], |service| {
        sluice(&director, &format!("policy {service} --source-nat on"));
    });
    world.check("real1");
    let listed = ipvsadm(&director, "-L -c -n");
    let client = Node::Client.v4().to_string();
    assert!(listed.contains(&client), "the client's own address is listed\n{listed}");
    // Nothing else can reach it: it has no route.
    let to_inside = format!("{}/32", world.insides[0].real_v4);
    let director_v4 = Node::Director.v4().to_string();
    world.lab.exec_in(Node::Client, "ip", &["route", "add", &to_inside, "via", &director_v4]).expect("route");
    let url = format!("http://{}:{HTTP_PORT}/", world.insides[0].real_v4);
    world.get(Node::Client, &url).expect_err("no route back");
}

#[test]
fn several_servers_share_a_service_and_one_is_taken_out() {
    let Some(world) = world(2) else { return };
    let director = world.start();
    world.forwarding(true);
    for number in [1, 2] {
        world.lab.route_through_director(number).expect("a route");
    }
    let vip = format!("{VIP_V4}:{PORT}");
    ipvsadm(&director, &format!("-A -t {vip} -s rr"));
    for inside in &world.insides {
        ipvsadm(&director, &format!("-a -t {vip} -r {}:{HTTP_PORT} -m", inside.real_v4));
    }
    let url = format!("http://{vip}/");
    let mut names: Vec<String> = (0..4).map(|_| world.get(Node::Client, &url).expect("a page")).collect();
    names.sort();
    assert_eq!(names, ["real1", "real1", "real2", "real2"]);
    // A server taken out: its clients come to the other one, and nobody waits.
    ipvsadm(&director, &format!("-d -t {vip} -r {}:{HTTP_PORT}", world.insides[0].real_v4));
    for _ in 0..4 {
        assert_eq!(world.get(Node::Client, &url).as_deref(), Ok("real2"));
    }
}

/// Longer than three links can carry at once.
const DATAGRAM: usize = 5_000;

/// A socket in a node's namespace.
fn socket(world: &World, node: Node, at: SocketAddr) -> UdpSocket {
    let namespace = world.lab.namespace(node).expect("a namespace");
    namespace.run(|| UdpSocket::bind(at)).expect("inside").expect("a socket")
}

/// What comes of a datagram. The first ones may come before the real server's next hop is known.
fn outcome(client: &UdpSocket, datagram: &[u8]) -> std::io::Result<Vec<u8>> {
    client.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
    let end = Instant::now() + PATIENCE;
    let mut back = vec![0; 2 * DATAGRAM];
    loop {
        client.send(datagram)?;
        match client.recv(&mut back) {
            Ok(length) => return Ok(back[..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {}
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn pieces_and_refusals_cross_in_both_families() {
    let Some(world) = world(1) else { return };
    let inside = world.insides[0];
    world.lab.route_through_director(1).expect("a route");
    let director = world.start();
    world.forwarding(true);
    for (vip, real) in
        [(IpAddr::V4(VIP_V4), IpAddr::V4(inside.real_v4)), (VIP_V6.into(), inside.real_v6.into())]
    {
        // Somebody listens behind the one service, and nobody behind the other.
        let [(served, at), (refused, nobody)] = [(9000, 9090), (9001, 9091)]
            .map(|(port, to)| (SocketAddr::new(vip, port), SocketAddr::new(real, to)));
        for (service, real) in [(served, at), (refused, nobody)] {
            ipvsadm(&director, &format!("-A -u {service} -s rr"));
            ipvsadm(&director, &format!("-a -u {service} -r {real} -m"));
        }
        let server = socket(&world, Node::Real(1), at);
        std::thread::spawn(move || {
            let mut bytes = vec![0; 2 * DATAGRAM];
            while let Ok((length, from)) = server.recv_from(&mut bytes) {
                let _ = server.send_to(&bytes[..length], from);
            }
        });
        let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let [whole, lost] = [served, refused].map(|service| {
            let client = socket(&world, Node::Client, any.parse().expect("an address"));
            // Connected: only what comes from the VIP and its port is heard.
            client.connect(service).expect("a route");
            client
        });
        let sent: Vec<u8> = (0..DATAGRAM).map(|at| (at % 251) as u8).collect();
        let back = outcome(&whole, &sent).expect("its echo");
        assert!(back == sent, "{vip}: {} bytes came back", back.len());
        let error = outcome(&lost, b"a").expect_err("port unreachable");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{vip}");
    }
}
