//! Masqueraded real servers from the command to the packet and back to the listing, with the programs in the running
//! kernel. Needs root.

use crate::actor::Director;
use crate::persistence_tests::{SECOND_NS, change, director, lines, real, real_spec, send, service};
use api::{Change, Forwarding, PolicyChoices, Protocol, RealSpec, SchedulerFlags, ServiceId, ServiceSpec};
use runtime::clock::monotonic_coarse_ns;

/// A service of scheduler rr with one masqueraded real server, on port 8080.
fn add(director: &mut Director, service: ServiceId, source_nat: bool) {
    let spec = ServiceSpec {
        scheduler: "rr".to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    };
    let choices = PolicyChoices { source_nat: Some(source_nat), ..PolicyChoices::default() };
    let real_spec = RealSpec { forwarding: Forwarding::Masquerade, ..real_spec(0) };
    change(
        director,
        vec![
            Change::AddService { service, spec },
            Change::SetPolicy { service: Some(service), forget: false, choices },
            Change::AddReal { service, real: real(1, 8080), spec: real_spec },
        ],
    );
}

/// Ways back, embryonic and established.
fn replies(director: &Director) -> (usize, usize) {
    let maps = director.datapath.tables();
    let count = |table: &kernel::HashTable<_, abi::Reply>| table.entries().expect("entries").len();
    (count(&maps.embryonic_replies), count(&maps.replies))
}

#[test]
fn a_way_back_comes_and_ends_with_its_flow() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    add(&mut director, service(Protocol::Tcp, 80), false);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 syn");
    assert_eq!(replies(&director), (1, 0));
    send(&director, "ip4 10.0.0.1 > 198.51.100.7 / tcp 8080 > 40000 syn ack");
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 ack");
    assert_eq!(replies(&director), (0, 1));
    send(&director, "ip4 10.0.0.1 > 198.51.100.7 / tcp 8080 > 40000 ack");
    let now_ns = monotonic_coarse_ns();
    assert_eq!(lines(&director, now_ns), ["TCP ESTABLISHED 198.51.100.7:40000 192.0.2.10:80 10.0.0.1:8080"]);
    let shown = director.counters().expect("counters")[0];
    assert_eq!((shown.in_packets, shown.out_packets, shown.out_bytes), (2, 2, 80));
    // The server closes first: its FIN counts.
    send(&director, "ip4 10.0.0.1 > 198.51.100.7 / tcp 8080 > 40000 fin ack");
    assert_eq!(lines(&director, now_ns), ["TCP FIN_WAIT 198.51.100.7:40000 192.0.2.10:80 10.0.0.1:8080"]);
    director.sweep(monotonic_coarse_ns() + SECOND_NS);
    assert_eq!(replies(&director), (0, 1));
    director.sweep(monotonic_coarse_ns() + 121 * SECOND_NS);
    assert_eq!(replies(&director), (0, 0));
    assert!(lines(&director, monotonic_coarse_ns()).is_empty());
}

#[test]
fn a_way_back_without_a_flow_is_swept() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    add(&mut director, service(Protocol::Udp, 53), false);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / udp 40000 > 53");
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / udp 40000 > 53");
    send(&director, "ip4 198.51.100.8 > 192.0.2.10 / udp 40000 > 53");
    assert_eq!(replies(&director), (1, 1));
    let maps = director.datapath.tables();
    for table in [&maps.embryonic, &maps.established] {
        for (key, _) in table.entries().expect("entries") {
            table.delete(&key).expect("delete");
        }
    }
    director.sweep(monotonic_coarse_ns());
    assert_eq!(replies(&director), (0, 0));
}

#[test]
fn replies_of_a_deleted_real_server_still_go_back() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = director(&directory);
    let id = service(Protocol::Tcp, 80);
    add(&mut director, id, false);
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 syn");
    send(&director, "ip4 198.51.100.7 > 192.0.2.10 / tcp 40000 > 80 ack");
    change(&mut director, vec![Change::DeleteReal { service: id, real: real(1, 8080) }]);
    // The reply moves the state on, so it was found.
    send(&director, "ip4 10.0.0.1 > 198.51.100.7 / tcp 8080 > 40000 fin ack");
    let expected = ["TCP FIN_WAIT 198.51.100.7:40000 192.0.2.10:80 10.0.0.1:8080"];
    assert_eq!(lines(&director, monotonic_coarse_ns()), expected);
}
