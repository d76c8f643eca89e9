//! The owner of the director on tables of its own in the running kernel, without sockets and tasks. Needs root.

use super::*;
use abi::{FLOW_INACTIVE, Flow, FlowKey, Limits, REAL_AVAILABLE, REAL_RESOLVED, TcpState};
use api::{Forwarding, Protocol, RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Timeouts, Tunnel};
use kernel::Put;

const LIMITS: Limits = Limits {
    services_max: 4,
    reals_max: 3,
    slots_max: 64,
    embryonic_flows_max: 256,
    established_flows_max: 256,
};
const SECOND_NS: u64 = 1_000_000_000;

fn director(directory: &tempfile::TempDir) -> Director {
    let options = Options { limits: LIMITS, ..Options::default() };
    let state = StateFile::in_directory(directory.path()).expect("state");
    let datapath = Datapath::load(&LIMITS).expect("load");
    Director::new(datapath, state, options).expect("director")
}

fn service() -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 1].into(), port: 80 }
}

fn add_service() -> Change {
    let spec = ServiceSpec {
        scheduler: "rr".to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    };
    Change::AddService { service: service(), spec }
}

fn real(number: u8) -> RealId {
    RealId { address: [10, 0, 0, number].into(), port: 80 }
}

fn add_real(number: u8) -> Change {
    let spec = RealSpec {
        forwarding: Forwarding::DirectRouting,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel: Tunnel::Ipip,
    };
    Change::AddReal { service: service(), real: real(number), spec }
}

fn delete_real(number: u8) -> Change {
    Change::DeleteReal { service: service(), real: real(number) }
}

fn change(director: &mut Director, changes: Vec<Change>) -> Vec<Option<RefusalKind>> {
    let outcomes = director.change(&Changes { atomic: false, changes });
    outcomes.refusals.into_iter().map(|refusal| refusal.map(|refusal| refusal.kind)).collect()
}

fn key(number: u8) -> FlowKey {
    FlowKey { client_port_be: u16::from(number), protocol: 6, ..FlowKey::default() }
}

fn flow(real: u32, expires_ns: u64, flags: u8) -> Flow {
    Flow { expires_ns, real, state: TcpState::Established as u8, flags, reserved: 0 }
}

/// A director with one service of three real servers.
fn with_three(directory: &tempfile::TempDir) -> Director {
    let mut director = director(directory);
    let changes = vec![add_service(), add_real(1), add_real(2), add_real(3)];
    assert_eq!(change(&mut director, changes), [None; 4]);
    director
}

fn load(director: &Director, index: u32) -> (i32, i32) {
    let load = director.maps().loads.get(index).expect("read").expect("inside");
    (load.active, load.inactive)
}

#[test]
fn the_sweep_removes_what_has_expired_and_repairs_what_two_passes_see() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let maps = director.maps();
    let put = |number, flow: Flow| maps.established.put(&key(number), &flow, Put::Any).expect("put");
    put(1, flow(0, 100, 0));
    put(2, flow(0, 300, 0));
    put(3, flow(1, 300, FLOW_INACTIVE));
    maps.embryonic.put(&key(4), &flow(1, 100, FLOW_INACTIVE), Put::Any).expect("put");
    // As the packet path would have it, but for real server 2: its flow was evicted unseen.
    for (index, active, inactive) in [(0, 2, 0), (1, 0, 2), (2, 1, 0)] {
        maps.loads.set(index, Load { active, inactive }).expect("set");
    }
    director.sweep(200);
    assert_eq!([load(&director, 0), load(&director, 1), load(&director, 2)], [(1, 0), (0, 1), (1, 0)]);
    let found = director.sweep.found();
    assert_eq!((found.established, found.embryonic), (2, 0));
    assert_eq!(director.maps().established.get(&key(1)).expect("read"), None);
    assert!(director.maps().established.get(&key(2)).expect("read").is_some());
    assert_eq!(director.maps().embryonic.get(&key(4)).expect("read"), None);
    // The second pass agrees with the first.
    director.sweep(200);
    assert_eq!([load(&director, 0), load(&director, 1), load(&director, 2)], [(1, 0), (0, 1), (0, 0)]);
}

#[test]
fn a_real_server_deleted_and_added_again_is_the_same_one() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let index = director.layout.real_index(&service(), &real(2)).expect("index");
    director.maps().established.put(&key(1), &flow(index, u64::MAX, 0), Put::Any).expect("put");
    director.maps().counters.put_sum(index, &Counters { in_packets: 5, ..Counters::default() }).expect("put");
    director.run_statistics().expect("statistics");
    assert_eq!(director.statistics.real(index).in_packets, 5);

    let flags = |director: &Director| director.maps().reals.get(index).expect("read").expect("inside").flags;
    assert_eq!(change(&mut director, vec![delete_real(2)]), [None]);
    assert_eq!(flags(&director) & REAL_AVAILABLE, 0);
    director.sweep(1);
    assert_eq!(change(&mut director, vec![add_real(2)]), [None]);
    assert_eq!(director.layout.real_index(&service(), &real(2)), Some(index));
    assert_ne!(flags(&director) & REAL_AVAILABLE, 0);
    // Its own line starts anew; its service goes on.
    director.run_statistics().expect("statistics");
    assert_eq!(director.statistics.real(index).in_packets, 0);
    assert_eq!(director.statistics.service(&service()).in_packets, 5);
    assert_eq!(change(&mut director, vec![Change::Zero { service: None }]), [None]);
    assert_eq!(director.statistics.service(&service()).in_packets, 0);
}

#[test]
fn an_index_given_up_takes_its_counts_along_but_not_its_packets() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let index = director.layout.real_index(&service(), &real(2)).expect("index");
    director.maps().counters.put_sum(index, &Counters { in_packets: 9, ..Counters::default() }).expect("put");
    director.run_statistics().expect("statistics");
    let known = |director: &Director| director.verdicts().expect("verdicts").verdicts[0].packets;
    assert_eq!(known(&director), 9);
    change(&mut director, vec![delete_real(2)]);
    director.sweep(1);
    assert!(director.idle_since.contains_key(&index), "no flow points at it");
    director.idle_since.insert(index, Instant::now() - KEEP_DELETED);
    director.sweep(1);
    assert_eq!(director.layout.identify(index), None, "given up");
    assert_eq!(director.maps().reals.get(index).expect("read"), Some(abi::Real::default()));
    director.run_statistics().expect("statistics");
    assert_eq!(director.statistics.service(&service()).in_packets, 9, "the service keeps them");

    assert_eq!(change(&mut director, vec![add_real(4)]), [None]);
    assert_eq!(director.layout.real_index(&service(), &real(4)), Some(index), "used again");
    assert_eq!(director.counters().expect("counters")[index as usize], Counters::default());
    assert_eq!(known(&director), 9);
}

#[test]
fn what_does_not_fit_is_refused_and_the_rest_stands() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    assert_eq!(change(&mut director, vec![add_real(4)]), [Some(RefusalKind::Limit)]);
    // A deleted one keeps its index for a while, so there is no room for another one either.
    let refused = change(&mut director, vec![delete_real(3), add_real(4), add_real(1)]);
    assert_eq!(refused, [None, Some(RefusalKind::Limit), Some(RefusalKind::RealExists)]);
    assert_eq!(director.model.reals_len(), 2);
    assert_eq!(director.maps().services.entries().expect("entries").len(), 1);
}

#[test]
fn a_change_that_cannot_be_saved_is_undone() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let (generation, tables) = (director.generation, director.tables.clone());
    // A directory in the place of the file that is written first.
    std::fs::create_dir(directory.path().join("model.json.next")).expect("obstacle");
    assert_eq!(change(&mut director, vec![delete_real(1)]), [Some(RefusalKind::Kernel)]);
    assert_eq!((director.generation, director.model.reals_len()), (generation, 3));
    let (read, _) = tables::read(director.maps()).expect("read");
    assert_eq!((&read.services, &read.reals), (&director.tables.services, &director.tables.reals));
    assert_eq!(read.reals, tables.reals);
}

#[test]
fn next_hops_and_timeouts_reach_the_tables() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let index = director.layout.real_index(&service(), &real(1)).expect("index");
    let read = |director: &Director| director.maps().reals.get(index).expect("read").expect("inside");
    assert_eq!(read(&director).flags & REAL_RESOLVED, 0);
    let next_hop = Resolved { ifindex: 7, destination_mac: [2; 6], source_mac: [4; 6] };
    director.neighbours_changed(vec![(real(1).address, Some(next_hop))]);
    let found = read(&director);
    assert_eq!((found.ifindex, found.destination_mac, found.source_mac), (7, [2; 6], [4; 6]));
    assert_ne!(found.flags & REAL_RESOLVED, 0);
    director.neighbours_changed(vec![(real(1).address, None)]);
    assert_eq!(read(&director).flags & REAL_RESOLVED, 0);

    let timeouts = Timeouts { tcp_s: 10, tcp_fin_s: 0, udp_s: 30 };
    assert_eq!(change(&mut director, vec![Change::SetTimeouts { timeouts }]), [None]);
    let settings = director.maps().settings.get(0).expect("read").expect("one");
    assert_eq!(settings.tcp_timeout_ns[TcpState::Established as usize], 10 * SECOND_NS);
    assert_eq!(settings.tcp_timeout_ns[TcpState::FinWait as usize], 120 * SECOND_NS);
    assert_eq!(settings.udp_timeout_ns, 30 * SECOND_NS);
    assert_eq!(settings.layout_version, abi::LAYOUT_VERSION);
}
