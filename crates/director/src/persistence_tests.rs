//! Templates, marks and thresholds from the command to the packet and back to the listing, with the programs in the running
//! kernel. Needs root.

use crate::actor::Director;
use crate::connections;
use crate::state::StateFile;
use abi::{FlowKey, Limits, Load};
use api::{
    Change, Changes, Connection, ExplainRequest, Family, Forwarding, MarkMatch, Persistence, Protocol,
    RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Tunnel,
};
use kernel::Datapath;
use plan::{Options, Resolved};
use runtime::clock::monotonic_coarse_ns;

const LIMITS: Limits = Limits {
    services_max: 16,
    reals_max: 8,
    slots_max: 256,
    embryonic_flows_max: 256,
    established_flows_max: 256,
    templates_max: 64,
    fragments_max: 1024,
    affinities_max: 64,
    networks_max: 64,
    clients_max: 64,
};
pub(crate) const SECOND_NS: u64 = 1_000_000_000;
const CALL_ID: &str = "3848276298220188511@atlanta.example.com";

pub(crate) fn director(directory: &tempfile::TempDir) -> Director {
    let options = Options { limits: LIMITS, ..Options::default() };
    let state = StateFile::in_directory(directory.path()).expect("state");
    let datapath = Datapath::load(&LIMITS).expect("load");
    let mut director = Director::new(datapath, state, options).expect("director");
    let resolved = Resolved { ifindex: 7, ..Resolved::default() };
    director.neighbours_changed((1..4).map(|n| (real(n, 0).address, Some(resolved))).collect());
    director
}

pub(crate) fn service(protocol: Protocol, port: u16) -> ServiceId {
    ServiceId::Address { protocol, address: [192, 0, 2, 10].into(), port }
}

pub(crate) fn real(number: u8, port: u16) -> RealId {
    RealId { address: [10, 0, 0, number].into(), port }
}

pub(crate) fn real_spec(upper_threshold: u32) -> RealSpec {
    RealSpec {
        forwarding: Forwarding::DirectRouting,
        weight: 1,
        upper_threshold,
        lower_threshold: 0,
        tunnel: Tunnel::Ipip,
    }
}

fn service_spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    }
}

/// A service of scheduler rr with so many real servers.
pub(crate) fn add(
    director: &mut Director,
    service: ServiceId,
    timeout_s: u32,
    engine: Option<&str>,
    reals: u8,
) {
    let persistence = (timeout_s > 0).then_some(Persistence { timeout_s, mask: 0xffff_ff00 });
    let spec =
        ServiceSpec { persistence, persistence_engine: engine.map(str::to_owned), ..service_spec("rr") };
    let port = match service {
        ServiceId::Address { port, .. } => port,
        ServiceId::Fwmark { .. } => 0,
    };
    let mut changes = vec![Change::AddService { service, spec }];
    let add = |number| Change::AddReal { service, real: real(number, port), spec: real_spec(0) };
    changes.extend((1..=reals).map(add));
    change(director, changes);
}

pub(crate) fn change(director: &mut Director, changes: Vec<Change>) {
    let outcomes = director.change(&Changes { atomic: true, changes });
    assert!(outcomes.refusals.iter().all(Option::is_none), "{:?}", outcomes.refusals);
}

/// Sends a packet of the packet language, from the network header on.
pub(crate) fn send(director: &Director, text: &str) {
    let frame = format!("eth 02:00:00:00:00:01 > 02:00:00:00:00:fe / {text}");
    let frame = frame.parse::<testkit::packet::Packet>().expect("a packet").to_bytes();
    director.datapath.entry().test_run(&frame, 1).expect("run");
}

fn listed(director: &Director, now_ns: u64) -> Vec<Connection> {
    let mut cursor = 0;
    let mut all = Vec::new();
    loop {
        let page = connections::page(director.datapath.tables(), cursor, now_ns).expect("a page");
        all.extend(page.connections);
        match page.next_cursor {
            Some(next) => cursor = next,
            None => return all,
        }
    }
}

/// `PROTOCOL STATE CLIENT VIRTUAL REAL` of each, sorted.
pub(crate) fn lines(director: &Director, now_ns: u64) -> Vec<String> {
    let line = |it: Connection| {
        format!("{} {} {} {} {}", it.protocol, it.state, it.client, it.virtual_address, it.real)
    };
    let mut lines: Vec<String> = listed(director, now_ns).into_iter().map(line).collect();
    lines.sort();
    lines
}

fn load(director: &Director, index: u32) -> Load {
    director.datapath.tables().loads.get(index).expect("read").expect("inside")
}

#[test]
fn a_template_is_listed_assured_prolonged_and_ended() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    add(&mut director, service(Protocol::Tcp, 80), 300, None, 2);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 syn");
    let now_ns = monotonic_coarse_ns();
    let flow = "198.51.100.7:40000 192.0.2.10:80 10.0.0.2:80";
    let template = "198.51.100.0:0 192.0.2.10:80 10.0.0.2:80";
    assert_eq!(lines(&director, now_ns), [format!("TCP NONE {template}"), format!("TCP SYN_RECV {flow}")]);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 ack");
    let assured = [format!("TCP ASSURED {template}"), format!("TCP ESTABLISHED {flow}")];
    assert_eq!(lines(&director, now_ns), assured);
    let shown = director.services().expect("services");
    assert_eq!(shown.services[0].reals[0].persistent, 1, "{shown:?}");

    let sweep = |director: &mut Director, after_s| director.sweep(now_ns + after_s * SECOND_NS);
    let expires_s = |director: &Director, after_s| {
        let all = listed(director, now_ns + after_s * SECOND_NS);
        all.into_iter().find(|it| it.client.port() == 0).map(|it| it.expires_s)
    };
    // Over, but the flow lives: another minute.
    assert_eq!(expires_s(&director, 301), Some(0));
    sweep(&mut director, 302);
    assert!((57..=59).contains(&expires_s(&director, 302).expect("prolonged")));
    assert_eq!(director.sweep.found().templates, 1);
    // The flow is over, and the template ends with its minute.
    sweep(&mut director, 905);
    assert_eq!(lines(&director, now_ns + 905 * SECOND_NS), Vec::<String>::new());
    assert_eq!(load(&director, 1), Load::default());
}

#[test]
fn a_mark_takes_what_its_matches_name() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    let mark = ServiceId::Fwmark { mark: 7, family: Family::Ipv4 };
    add(&mut director, service(Protocol::Tcp, 80), 0, None, 1);
    add(&mut director, mark, 300, None, 2);
    let matched = |text| MarkMatch::parse(Protocol::Tcp, text).expect("a match");
    let add_mark = |text| Change::AddMark { matched: matched(text), mark: 7 };
    change(&mut director, vec![add_mark("192.0.2.10:80"), add_mark("192.0.2.10:443-444")]);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 syn");
    send(&director, "ip4 198.51.100.8 > 192.0.2.10 / tcp 40000 > 444 syn");
    assert_eq!(
        lines(&director, monotonic_coarse_ns()),
        [
            "IP NONE 198.51.100.0:0 0.0.0.7:0 10.0.0.2:0",
            "TCP SYN_RECV 198.51.100.7:40000 192.0.2.10:80 10.0.0.2:80",
            "TCP SYN_RECV 198.51.100.8:40000 192.0.2.10:444 10.0.0.2:444",
        ]
    );
    let question = ExplainRequest {
        protocol: Protocol::Tcp,
        client: "198.51.100.9:1".parse().expect("address"),
        virtual_address: "192.0.2.10:443".parse().expect("address"),
    };
    let told = director.explain(&question, monotonic_coarse_ns()).expect("explained");
    let says = |text: &str| told.steps.iter().any(|step| step.contains(text));
    assert!(says("belongs to mark 7") && says("a template for 10.0.0.2"), "{told:?}");
    assert_eq!(told.real, "10.0.0.2:443".parse().ok(), "{told:?}");
    // Without the match the exact service is back.
    change(&mut director, vec![Change::DeleteMark { matched: matched("192.0.2.10:80") }]);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40001 > 80 syn");
    let lines = lines(&director, monotonic_coarse_ns());
    assert!(
        lines.contains(&"TCP SYN_RECV 198.51.100.7:40001 192.0.2.10:80 10.0.0.1:80".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_call_is_listed_with_its_id_and_forgotten_with_its_template() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    add(&mut director, service(Protocol::Udp, 5060), 60, Some("sip"), 2);
    let message = format!("\"BYE sip:b SIP/2.0\r\nCall-ID: {CALL_ID}\r\n\r\n\"");
    send(&director, &format!("ip4 198.51.100.7 > 192.0.2.10 / udp 5060 > 5060 / {message}"));
    let now_ns = monotonic_coarse_ns();
    let template =
        listed(&director, now_ns).into_iter().find(|it| it.client.port() == 0).expect("a template");
    assert_eq!(template.client, "198.51.100.0:0".parse().expect("address"));
    assert_eq!(template.engine.as_deref(), Some("sip"));
    assert_eq!(template.engine_data.as_deref(), Some(CALL_ID));
    director.sweep(now_ns + 400 * SECOND_NS);
    let maps = director.datapath.tables();
    assert_eq!(maps.templates.entries().expect("read").len(), 0);
    assert_eq!(maps.calls.entries().expect("read").len(), 0);
}

#[test]
fn thresholds_are_set_by_packets_and_cleared_by_edits_and_by_the_sweep() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    let of = service(Protocol::Tcp, 80);
    add(&mut director, of, 0, None, 1);
    let edit = |upper| Change::EditReal { service: of, real: real(1, 80), spec: real_spec(upper) };
    let is_overloaded = |director: &Director| load(director, 0).overloaded != 0;
    change(&mut director, vec![edit(1)]);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 1 > 80 syn");
    assert!(is_overloaded(&director));
    // New thresholds count for the flows there are: one of three is fewer than three quarters, two of two are enough.
    change(&mut director, vec![edit(3)]);
    assert!(!is_overloaded(&director));
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 2 > 80 syn");
    change(&mut director, vec![edit(2)]);
    assert!(is_overloaded(&director));
    change(&mut director, vec![edit(0)]);
    assert!(!is_overloaded(&director));
    // Neither below the lower one nor at the upper one: as it was.
    change(&mut director, vec![edit(2)]);
    change(&mut director, vec![edit(3)]);
    assert!(!is_overloaded(&director), "2 < 3 - 3 / 4");
    change(&mut director, vec![edit(2)]);
    // Taken out and added again: as its two flows say.
    change(&mut director, vec![Change::DeleteReal { service: of, real: real(1, 80) }]);
    change(&mut director, vec![Change::AddReal { service: of, real: real(1, 80), spec: real_spec(2) }]);
    assert!(is_overloaded(&director));
    director.sweep(monotonic_coarse_ns() + 100 * SECOND_NS);
    assert!(!is_overloaded(&director), "its flows have ended");
    assert_eq!(director.datapath.tables().embryonic.get(&FlowKey::default()).expect("read"), None);
}

#[test]
fn destinations_are_forgotten_with_the_scheduler_that_remembers_them() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    let [of, other] = [80, 81].map(|port| service(Protocol::Tcp, port));
    for id in [of, other] {
        add(&mut director, id, 0, None, 2);
    }
    let schedule = |director: &mut Director, id: ServiceId, scheduler: &str| {
        change(director, vec![Change::EditService { service: id, spec: service_spec(scheduler) }]);
    };
    let remembered =
        |director: &Director| director.datapath.tables().affinities.entries().expect("read").len();
    for (id, scheduler) in [(of, "lblcr"), (other, "lblc")] {
        schedule(&mut director, id, scheduler);
    }
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 1 > 80 syn");
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 1 > 81 syn");
    assert_eq!(remembered(&director), 2);
    schedule(&mut director, of, "lblcr");
    assert_eq!(remembered(&director), 2, "the same scheduler");
    schedule(&mut director, of, "lblc");
    assert_eq!(remembered(&director), 1);
    change(&mut director, vec![Change::DeleteService { service: other }]);
    assert_eq!(remembered(&director), 0);
}
