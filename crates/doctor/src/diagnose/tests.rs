use super::*;
use crate::facts::{Answerer, Filling, Secret, ServiceState};
use api::{Protocol, RealId, ServiceId};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn attached(name: &str) -> Attached {
    let name = name.to_owned();
    Attached { name, up: true, carrier: true, mtu: 1500, rp_filter: Some(0), ..Attached::default() }
}

fn server(address: &str) -> Server {
    Server {
        address: ip(address),
        is_local: false,
        mac: Some("02:00:00:00:00:01".to_owned()),
        is_on_link: true,
        mtu: 1500,
        ahead_ms: Some(20),
        way_back: None,
        unfinished_checksums: false,
    }
}

fn service() -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: ip("192.0.2.10"), port: 80 }
}

fn path(tunnel: Option<Tunnel>, result: PathResult) -> ForwardedPath {
    let real = RealId { address: ip("10.0.0.1"), port: 80 };
    ForwardedPath { service: service(), real, vip: ip("192.0.2.10"), tunnel, result: Some(result) }
}

fn healthy() -> Facts {
    Facts {
        attached: vec![attached("eth0")],
        vips: vec![Vip { address: ip("192.0.2.10"), is_own: true, on_link: None, answers: Vec::new() }],
        servers: vec![server("10.0.0.1")],
        services: vec![ServiceState { id: service(), declared: 1, working: 1 }],
        paths: vec![path(None, PathResult::Open { mss: Some(1460) })],
        masquerades: [true, false],
        forwards: [Some(true), Some(false)],
        default_interface: Some("eth0".to_owned()),
        fillings: vec![Filling { what: "flows", option: "flows-max", used: 89, max: 100 }],
        secret: Some(Secret { path: "/s".to_owned(), mode: 0o100_600 }),
    }
}

/// What is found when this is done to a healthy cluster: the examination, and whether it is an error.
fn after(mistake: impl Fn(&mut Facts)) -> Vec<(Examination, bool)> {
    let mut facts = healthy();
    mistake(&mut facts);
    let findings = diagnose(&facts, &Examination::ALL);
    assert!(findings.iter().all(|it| !it.place.is_empty() && !it.fix.is_empty() && !it.what.ends_with('.')));
    findings.into_iter().map(|it| (it.examination, it.severity == Severity::Error)).collect()
}

#[test]
fn each_mistake_is_one_finding_and_a_healthy_cluster_has_none() {
    use Examination::{
        Arp, Clock, Forwarding, Interface, Limits, Mtu, Neighbour, Offload, Path, RpFilter, Secret, Service,
        Xdp,
    };
    assert_eq!(after(|_| ()), []);
    assert_eq!(after(|facts| facts.attached[0].up = false), [(Interface, true)]);
    assert_eq!(after(|facts| facts.attached[0].carrier = false), [(Interface, true)]);
    assert_eq!(after(|facts| facts.attached[0].generic = true), [(Xdp, false)]);
    assert_eq!(after(|facts| facts.attached[0].joins_segments = true), [(Offload, true)]);
    assert_eq!(after(|facts| facts.servers[0].unfinished_checksums = true), [(Offload, true)]);
    assert_eq!(after(|facts| facts.servers[0].mac = None), [(Neighbour, true)]);
    assert_eq!(after(|facts| facts.services[0].working = 0), [(Service, true)]);
    let answer = |mac: &str| Answerer { interface: "eth0".to_owned(), mac: mac.to_owned() };
    for mac in ["02:00:00:00:00:01", "02:00:00:00:00:99"] {
        assert_eq!(after(|facts| facts.vips[0].answers = vec![answer(mac)]), [(Arp, true)]);
    }
    let orphan = |facts: &mut Facts| {
        (facts.vips[0].is_own, facts.vips[0].on_link) = (false, Some("eth0".to_owned()));
    };
    assert_eq!(after(orphan), [(Arp, true)]);
    for result in [PathResult::Closed, PathResult::Silent] {
        assert_eq!(after(|facts| facts.paths = vec![path(None, result.clone())]), [(Path, true)]);
    }
    assert_eq!(
        after(|facts| facts.servers[0].way_back = Some(WayBack::Elsewhere)),
        [(Examination::WayBack, true)]
    );
    assert_eq!(after(|facts| facts.servers[0].way_back = Some(WayBack::Silent { port: 1 })), []);
    assert_eq!(after(|facts| facts.forwards[0] = Some(false)), [(Forwarding, false)]);
    let strict = |facts: &mut Facts| {
        facts.attached[0].rp_filter = Some(1);
    };
    assert_eq!(after(strict), []);
    let elsewhere = |facts: &mut Facts| {
        strict(facts);
        facts.default_interface = Some("eth9".to_owned());
    };
    assert_eq!(after(elsewhere), [(RpFilter, false)]);
    let mut facts = healthy();
    elsewhere(&mut facts);
    facts.attached[0].name = "eth0.7".to_owned();
    let fixes: Vec<String> = diagnose(&facts, &[RpFilter]).into_iter().map(|finding| finding.fix).collect();
    assert_eq!(fixes, ["sysctl -w net/ipv4/conf/eth0.7/rp_filter=2"]);
    for ahead in [1001, -1001] {
        assert_eq!(after(|facts| facts.servers[0].ahead_ms = Some(ahead)), [(Clock, false)]);
    }
    assert_eq!(after(|facts| facts.fillings[0].used = 90), [(Limits, false)]);
    for mode in [0o100_640, 0o100_604] {
        assert_eq!(after(|facts| facts.secret.as_mut().expect("one").mode = mode), [(Secret, false)]);
    }
    let tunnel = |mss| path(Some(Tunnel::Ipip), PathResult::Open { mss });
    assert_eq!(after(|facts| facts.paths = vec![tunnel(None), tunnel(None)]), [(Mtu, false)], "told once");
    assert_eq!(after(|facts| facts.paths = vec![tunnel(Some(1441))]), [(Mtu, false)]);
    assert_eq!(after(|facts| facts.paths = vec![tunnel(Some(1440))]), []);
}

#[test]
fn a_gateway_is_no_real_server_that_answers() {
    let mut facts = healthy();
    facts.servers[0].is_on_link = false;
    let answer = Answerer { interface: "eth0".to_owned(), mac: "02:00:00:00:00:01".to_owned() };
    facts.vips[0].answers = vec![answer];
    let findings = diagnose(&facts, &[Examination::Arp]);
    assert!(findings[0].what.contains("two machines have this address"), "{findings:?}");
    assert_eq!(diagnose(&facts, &[Examination::Path]), []);
}

#[test]
fn a_tunnel_takes_its_headers() {
    let (none, full) = (TunnelChecksum::None, TunnelChecksum::Full);
    let of = |tunnel| [overhead(tunnel, ip("10.0.0.1")), overhead(tunnel, ip("2001:db8::1"))];
    assert_eq!(of(Tunnel::Ipip), [20, 40]);
    assert_eq!(of(Tunnel::Gre { checksum: none }), [24, 44]);
    assert_eq!(of(Tunnel::Gre { checksum: full }), [28, 48]);
    assert_eq!(of(Tunnel::Gue { port: 6080, checksum: none }), [32, 52]);
}

#[test]
fn names_are_found_again() {
    for it in Examination::ALL {
        assert_eq!(Examination::from_name(it.name()), Some(it));
        assert!(it.sentence().ends_with(['.', '?']), "{}", it.sentence());
        assert_eq!(format!("{it:<12}|").len(), 13);
    }
    assert_eq!(Examination::from_name("nonsense"), None);
}
