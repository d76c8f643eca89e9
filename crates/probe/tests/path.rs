//! Path checks against servers that have the VIP or the tunnel's end, and servers that do not, across namespaces.
//!
//! This machine may have no tunnels in its kernel, so the server's end of them is a small program here, which gives what is
//! inside to the server's own TCP over a link of its own.

use api::{CheckKind, Tunnel, TunnelChecksum};
use health::{Outcome, Probe, Way};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use probe::{Hop, NextHop, Prober};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::{Frames, NetNs};
use tokio::task::JoinSet;

const VIP: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const DIRECTOR: [&str; 2] = ["10.0.0.1", "2001:db8:1::1"];
const SERVER: [&str; 2] = ["10.0.0.2", "2001:db8:1::2"];
const PORT: u16 = 8080;
/// Until silence is taken for no answer.
const SILENCE_MS: u32 = 1000;
/// Checks a second where nothing else is said, and for how long.
const CHECKS: u64 = 500;
const SECONDS: u64 = 3;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// Index and Ethernet address of an interface.
fn interface(netns: &NetNs, name: &str) -> (u32, [u8; 6]) {
    let look = || {
        let index = nix::net::if_::if_nametoindex(name).expect("an interface");
        let mut all = nix::ifaddrs::getifaddrs().expect("interfaces");
        let of_it = |it: nix::ifaddrs::InterfaceAddress| {
            (it.interface_name == name).then(|| it.address?.as_link_addr()?.addr()).flatten()
        };
        (index, all.find_map(of_it).expect("Ethernet"))
    };
    netns.run(look).expect("inside")
}

/// A director that has the VIPs, as most have, and a server that has them on its loopback.
struct World {
    director: NetNs,
    server: NetNs,
    hop: Hop,
}

impl World {
    fn new() -> Self {
        let (director, server) = (NetNs::new("di").expect("namespace"), NetNs::new("se").expect("namespace"));
        director.veth("eth0", &server, "eth0").expect("veth");
        for (netns, own, vips) in [(&director, DIRECTOR, "eth0"), (&server, SERVER, "lo")] {
            netns.ip(&format!("addr add {}/24 dev eth0", own[0])).expect("address");
            netns.ip(&format!("addr add {}/64 dev eth0 nodad", own[1])).expect("address");
            netns.ip(&format!("addr add {}/32 dev {vips}", VIP[0])).expect("VIP");
            netns.ip(&format!("addr add {}/128 dev {vips} nodad", VIP[1])).expect("VIP");
        }
        let quiet =
            |(key, value)| std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).expect(key);
        server
            .run(|| [("arp_ignore", "1"), ("arp_announce", "2")].into_iter().for_each(quiet))
            .expect("inside");
        let ((interface, source), (_, destination)) =
            (interface(&director, "eth0"), interface(&server, "eth0"));
        let hop = Hop { interface, destination, source, address: None };
        Self { director, server, hop }
    }

    fn listen(&self) -> TcpListener {
        self.server.run(|| TcpListener::bind(("::", PORT))).expect("inside").expect("listen")
    }

    /// Asks for one VIP by one address of the server: 0 for IPv4, 1 for IPv6.
    fn ask(&self, vip: usize, real: usize, tunnel: Option<Tunnel>) -> Result<(), String> {
        let hop = Hop { address: Some(ip(DIRECTOR[real])), ..self.hop };
        self.ask_by(&order(VIP[vip], SERVER[real], tunnel), Some(NextHop::Link(hop)))
    }

    fn ask_by(&self, probe: &Probe, next_hop: Option<NextHop>) -> Result<(), String> {
        let ask = || block_on(async { Prober::default().probe(probe, next_hop.as_ref()).await });
        match self.director.run(ask).expect("inside") {
            Outcome::Passed { .. } => Ok(()),
            Outcome::Failed { reason } => Err(reason),
        }
    }

    /// The same until it gives this: neighbour entries of IPv6 may take a moment.
    fn wait(&self, vip: usize, real: usize, tunnel: Option<Tunnel>) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let asked = self.ask(vip, real, tunnel);
            if asked.is_ok() || Instant::now() > deadline {
                return asked;
            }
        }
    }
}

fn order(vip: &str, real: &str, tunnel: Option<Tunnel>) -> Probe {
    let way = Some(Way { vip: ip(vip), real: ip(real), tunnel });
    Probe { kind: CheckKind::Path, address: ip(real), port: PORT, timeout_ms: SILENCE_MS, way }
}

#[test]
fn a_server_with_the_vip_passes_and_is_left_without_a_connection() {
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let world = World::new();
    let listener = world.listen();
    assert_eq!(world.wait(0, 0, None), Ok(()));
    assert_eq!(world.wait(1, 1, None), Ok(()));
    // All that the server sees of one is a SYN, and the reset that ends it: none from the director's kernel.
    let seen = world.server.run(|| Frames::open("eth0")).expect("inside").expect("a packet socket");
    for (family, tcp) in [(0, 14 + 20), (1, 14 + 40)] {
        assert_eq!(world.ask(family, family, None), Ok(()));
        let is_tcp = |frame: &[u8]| {
            let kind = if family == 0 { ([8, 0], 23) } else { ([0x86, 0xdd], 20) };
            frame.get(12..14) == Some(&kind.0) && frame.get(kind.1) == Some(&6)
        };
        let mut flags = Vec::new();
        while let Some(frame) = seen.receive(Duration::from_millis(200), is_tcp).expect("frames") {
            flags.push(frame[tcp + 13]);
        }
        assert_eq!(flags, [0x02, 0x04], "SYN, RST");
    }
    // Nobody was connected.
    listener.set_nonblocking(true).expect("without blocking");
    assert!(listener.accept().is_err());
    let open = world.server.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp6")).expect("inside");
    // State 03 is a connection half open; what listens is 0A.
    let open = open.expect("sockets");
    assert!(!open.lines().any(|line| line.split_whitespace().nth(3) == Some("03")), "{open}");
}

#[test]
fn a_server_without_the_vip_or_with_a_closed_port_fails_with_what_to_look_at() {
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let world = World::new();
    for family in 0..2 {
        let listener = world.listen();
        assert_eq!(world.wait(family, family, None), Ok(()));
        drop(listener);
        let vip = VIP[family];
        assert_eq!(
            world.ask(family, family, None),
            Err(format!("port {PORT} of VIP {vip} is closed there: it was refused"))
        );
        let _listener = world.listen();
        let prefix = if family == 0 { 32 } else { 128 };
        world.server.ip(&format!("addr del {vip}/{prefix} dev lo")).expect("VIP taken off");
        let (_, mac) = interface(&world.server, "eth0");
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let real = SERVER[family];
        let arp = if family == 0 { ", and arp_announce is 2" } else { "" };
        assert_eq!(
            world.ask(family, family, None),
            Err(format!(
                "nobody answered for VIP {vip} at {real} ({mac}): look whether the VIP is on its loopback{arp}"
            ))
        );
    }
}

#[test]
fn what_cannot_be_asked_is_said() {
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let world = World::new();
    let probe = order(VIP[0], SERVER[0], None);
    assert_eq!(world.ask_by(&probe, None), Err("no MAC address is known for 10.0.0.2: is it up?".to_owned()));
    assert_eq!(
        world.ask_by(&Probe { way: None, ..probe.clone() }, Some(NextHop::Local)),
        Err("the service has no VIP to ask for".to_owned())
    );
    // The director as its own real server: by its own stack, so that somebody must listen here.
    assert_eq!(world.ask_by(&probe, Some(NextHop::Local)), Err("connection refused".to_owned()));
    let bind = || TcpListener::bind((VIP[0], PORT));
    let _own = world.director.run(bind).expect("inside").expect("listen");
    assert_eq!(world.ask_by(&probe, Some(NextHop::Local)), Ok(()));
    assert_eq!(
        world.ask_by(&order("192.0.2.11", SERVER[0], None), Some(NextHop::Local)),
        Err("this machine is the real server itself, and does not have VIP 192.0.2.11".to_owned())
    );
}

/// The end of tunnels at the server: takes packets for the server out of what they came in, and puts them on a link to it.
struct Decapsulator {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Decapsulator {
    fn start(server: &NetNs, tunnel: Tunnel) -> Self {
        let open = |link: &'static str| server.run(|| Frames::open(link)).expect("inside").expect("a link");
        let (outside, inside) = (open("eth0"), open("in0"));
        let (_, mac) = interface(server, "in1");
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let work = move || {
            while !told.load(Ordering::Relaxed) {
                let wait = Duration::from_millis(50);
                let is_tunneled = |frame: &[u8]| inner(frame, tunnel).is_some();
                let Some(frame) = outside.receive(wait, is_tunneled).expect("frames") else { continue };
                let packet = inner(&frame, tunnel).expect("looked at above");
                let kind = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
                inside.send(&[&mac[..], &[2, 0, 0, 0, 0, 9], &kind, packet].concat()).expect("sent");
            }
        };
        Self { end, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the tunnel's end");
        }
    }
}

/// The packet in a tunnel of this kind.
fn inner(frame: &[u8], tunnel: Tunnel) -> Option<&[u8]> {
    let (next, payload) = match frame.get(12..14)? {
        [8, 0] => (*frame.get(23)?, frame.get(34..)?),
        [0x86, 0xdd] => (*frame.get(20)?, frame.get(54..)?),
        _ => return None,
    };
    match (tunnel, next) {
        (Tunnel::Ipip, 4 | 41) => Some(payload),
        (Tunnel::Gre { checksum: TunnelChecksum::None }, 47) => payload.get(4..),
        (Tunnel::Gre { .. }, 47) => payload.get(8..),
        (Tunnel::Gue { port, .. }, 17) if payload.get(2..4)? == port.to_be_bytes() => payload.get(12..),
        _ => None,
    }
}

#[test]
fn a_tunnel_is_gone_through_and_a_missing_end_is_found_out() {
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let world = World::new();
    let _listener = world.listen();
    let server = &world.server;
    server.veth("in0", server, "in1").expect("veth");
    let set = |path: &str, value: &str| {
        server.run(|| std::fs::write(path, value)).expect("inside").expect("a setting");
    };
    // What comes out of a tunnel is from addresses that are reached another way.
    for link in ["all", "in1"] {
        set(&format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "0");
    }
    let full = TunnelChecksum::Full;
    for (tunnel, name) in [
        (Tunnel::Ipip, "IPIP"),
        (Tunnel::Gre { checksum: TunnelChecksum::None }, "GRE"),
        (Tunnel::Gre { checksum: full }, "GRE"),
        (Tunnel::Gue { port: 6080, checksum: TunnelChecksum::None }, "GUE"),
        (Tunnel::Gue { port: 6080, checksum: full }, "GUE"),
    ] {
        for (vip, real) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let end = Decapsulator::start(server, tunnel);
            assert_eq!(world.wait(vip, real, Some(tunnel)), Ok(()), "{tunnel:?} {vip} {real}");
            drop(end);
        }
        let (vip, real) = (VIP[0], SERVER[0]);
        let why = world.ask(0, 0, Some(tunnel)).expect_err("nobody takes it out of the tunnel");
        let begin =
            format!("nobody answered for VIP {vip} through the {name} tunnel to {real}: look whether");
        assert!(why.starts_with(&begin), "{why}");
    }
}

/// What it costs to make many: counts are asserted, the cost is only printed.
///
/// `SLUICE_PATH_CHECKS=500 cargo test --release -p sluice-probe --test path many -- --nocapture`
#[test]
fn many_path_checks_are_made_at_a_time() {
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let checks = std::env::var("SLUICE_PATH_CHECKS").map_or(CHECKS, |text| text.parse().expect("a number"));
    let world = World::new();
    let _listener = world.listen();
    assert_eq!(world.wait(0, 0, None), Ok(()));
    let probe = Probe { timeout_ms: 10_000, ..order(VIP[0], SERVER[0], None) };
    let hop = NextHop::Link(Hop { address: Some(ip(DIRECTOR[0])), ..world.hop });
    let before = cpu_ms();
    let all = async {
        let prober = Arc::new(Prober::default());
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..checks * SECONDS {
            let at = begun + Duration::from_micros(number * 1_000_000 / checks);
            tokio::time::sleep_until(at.into()).await;
            let (prober, probe) = (Arc::clone(&prober), probe.clone());
            tasks.spawn(async move { prober.probe(&probe, Some(&hop)).await });
        }
        tasks.join_all().await
    };
    let outcomes = world.director.run(|| block_on(all)).expect("inside");
    println!(
        "{checks} path checks a second: {} ms of a processor a second",
        (cpu_ms() - before) / SECONDS.cast_signed()
    );
    let failed: Vec<_> = outcomes.iter().filter(|it| matches!(it, Outcome::Failed { .. })).collect();
    assert!(failed.is_empty(), "{} failed, such as {:?}", failed.len(), failed[0]);
    assert_eq!(outcomes.len() as u64, checks * SECONDS);
}

fn cpu_ms() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
}
