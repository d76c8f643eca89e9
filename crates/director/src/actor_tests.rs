//! The owner of the director on tables of its own in the running kernel, without sockets and tasks. Needs root.

use super::*;
use abi::{Counters, Load};
use abi::{FLOW_INACTIVE, Flow, FlowKey, Limits, REAL_AVAILABLE, REAL_RESOLVED, TcpState};
use api::{FlowFilter, FlowGroup, FlowPage, FlowRequest, FlowShow, FlowTable};
use api::{Forwarding, Protocol, RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Timeouts, Tunnel};
use kernel::Put;

const LIMITS: Limits = Limits {
    services_max: 4,
    reals_max: 3,
    slots_max: 64,
    embryonic_flows_max: 256,
    established_flows_max: 256,
    templates_max: 64,
    fragments_max: 1024,
    affinities_max: 64,
    networks_max: 64,
    clients_max: 64,
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
    Flow { expires_ns, real, state: TcpState::Established as u8, flags, ..Flow::default() }
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
        maps.loads.set(index, Load { active, inactive, ..Load::default() }).expect("set");
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
fn flows_of_a_deleted_server_go_with_expire_nodest_conn() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let index = |director: &Director, number| director.layout.real_index(&service(), &real(number));
    let [gone, stays] = [2, 3].map(|number| index(&director, number).expect("index"));
    for (number, real) in [(1, gone), (2, gone), (3, stays)] {
        director.maps().established.put(&key(number), &flow(real, u64::MAX, 0), Put::Any).expect("put");
        director.maps().loads.add(real, Load { active: 1, ..Load::default() }).expect("add");
    }
    assert_eq!(change(&mut director, vec![delete_real(2)]), [None]);
    director.sweep(1);
    assert_eq!(director.sweep.found().established, 3, "they may come back");
    let set = Change::SetSetting { name: "expire_nodest_conn".to_owned(), value: 1 };
    assert_eq!(change(&mut director, vec![set]), [None]);
    director.sweep(1);
    assert_eq!(director.sweep.found().established, 1);
    assert_eq!((load(&director, gone), load(&director, stays)), ((0, 0), (1, 0)));
    assert_eq!(director.maps().established.get(&key(1)).expect("read"), None);
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
    // Its line goes on, as that of its service.
    director.run_statistics().expect("statistics");
    assert_eq!(director.statistics.real(index).in_packets, 5);
    let line = |director: &Director| {
        let index = director.layout.service_index(&service()).expect("index");
        director.statistics.service(index).in_packets
    };
    assert_eq!(line(&director), 5);
    assert_eq!(change(&mut director, vec![Change::Zero { service: None }]), [None]);
    assert_eq!(line(&director), 0);
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
    let service_index = director.layout.service_index(&service()).expect("index");
    assert_eq!(director.statistics.service(service_index).in_packets, 9, "the service keeps them");

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
    let (model, layout) = (director.model.clone(), director.layout.clone());
    let declared = director.declared.clone();
    // Directories in the places of what is written first: the journal, and the whole.
    for (obstacle, changes) in [
        ("model.journal", vec![delete_real(1)]),
        ("model.json.next", vec![delete_real(1), Change::Flush, add_service(), add_real(2)]),
    ] {
        let path = directory.path().join(obstacle);
        std::fs::create_dir(&path).expect("obstacle");
        let atomic = Changes { atomic: true, changes };
        let refusals = director.change(&atomic).refusals;
        assert!(refusals.iter().flatten().all(|refusal| refusal.kind == RefusalKind::Kernel), "{refusals:?}");
        assert_eq!(refusals.iter().flatten().count(), atomic.changes.len());
        assert_eq!((director.generation, &director.model), (generation, &model));
        assert_eq!(director.declared, declared);
        assert_eq!(director.layout, layout);
        let (read, _) = tables::read(director.maps()).expect("read");
        assert_eq!((&read.services, &read.reals), (&tables.services, &tables.reals));
        assert_eq!((&read.slots, &read.vip_filter), (&tables.slots, &tables.vip_filter));
        assert_eq!(director.tables, tables);
        std::fs::remove_dir(&path).expect("remove");
    }
    assert_eq!(change(&mut director, vec![delete_real(1)]), [None]);
    assert_eq!(director.model.reals_len(), 2);
}

#[test]
fn what_the_kernel_refuses_in_the_middle_is_undone() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let (model, layout, tables) = (director.model.clone(), director.layout.clone(), director.tables.clone());
    // Others fill the table of services, so that real servers and slots are written, and then the second service is not.
    let (key, stray) = director.maps().services.entries().expect("entries")[0];
    for port_be in 1..LIMITS.services_max as u16 {
        director.maps().services.put(&abi::ServiceKey { port_be, ..key }, &stray, Put::Any).expect("put");
    }
    let other = ServiceId::Address { protocol: Protocol::Udp, address: [192, 0, 2, 2].into(), port: 53 };
    let Change::AddService { spec, .. } = add_service() else { unreachable!("made above") };
    let list = vec![delete_real(1), Change::AddService { service: other, spec }];
    let refusals = director.change(&Changes { atomic: true, changes: list.clone() }).refusals;
    assert!(refusals.iter().flatten().count() == 2, "{refusals:?}");
    assert_eq!((&director.model, &director.layout, &director.tables), (&model, &layout, &tables));
    assert_eq!(director.declared, model);
    let read = |director: &Director| tables::read(director.maps()).expect("read").0;
    assert_eq!((read(&director).reals, read(&director).slots), (tables.reals, tables.slots));
    assert!(!director.unsure);
    // Unsure of the kernel, it reads everything again before the next change, and throws out what is not declared.
    director.unsure = true;
    assert_eq!(change(&mut director, list), [None; 2]);
    assert!(!director.unsure);
    assert_eq!(read(&director).services, director.tables.services);
    assert_eq!(director.tables.services.len(), 2);
}

/// A next hop behind the interface of this index.
fn next_hop(ifindex: u32) -> Resolved {
    let source = Some([10, 0, 0, 254].into());
    Resolved { ifindex, destination_mac: [2; 6], source_mac: [4; 6], mtu: 1500, source, local: false }
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
    let to_7 = next_hop(7);
    director.neighbours_changed(vec![(real(1).address, Some(to_7))]);
    let found = read(&director);
    assert_eq!((found.ifindex, found.destination_mac(), found.source_mac()), (7, [2; 6], [4; 6]));
    assert_ne!(found.flags & REAL_RESOLVED, 0);
    assert_eq!((found.mtu, found.source), (1500, crate::convert::address([10, 0, 0, 254].into())));
    director.neighbours_changed(vec![(real(1).address, None)]);
    assert_eq!(read(&director).flags & REAL_RESOLVED, 0);
    let local = Resolved { local: true, ..Resolved::default() };
    director.neighbours_changed(vec![(real(1).address, Some(local))]);
    assert_eq!(read(&director).flags & (REAL_RESOLVED | abi::REAL_LOCAL), abi::REAL_LOCAL);

    let timeouts = Timeouts { tcp_s: 10, tcp_fin_s: 0, udp_s: 30 };
    assert_eq!(change(&mut director, vec![Change::SetTimeouts { timeouts }]), [None]);
    let settings = director.maps().settings.get(0).expect("read").expect("one");
    assert_eq!(settings.tcp_timeout_ns[TcpState::Established as usize], 10 * SECOND_NS);
    assert_eq!(settings.tcp_timeout_ns[TcpState::FinWait as usize], 120 * SECOND_NS);
    assert_eq!(settings.udp_timeout_ns, 30 * SECOND_NS);
    assert_eq!(settings.layout_version, abi::LAYOUT_VERSION);
}

/// A bpffs mounted on a temporary directory, unmounted on drop.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let none: Option<&str> = None;
        nix::mount::mount(Some("bpf"), directory.path(), Some("bpf"), nix::mount::MsFlags::empty(), none)
            .expect("mount a bpffs");
        Self(directory)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn taking_over_changes_nothing_that_is_right_and_mends_what_is_not() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let (bpffs, directory) = (Bpffs::new(), tempfile::tempdir().expect("temporary directory"));
    let pin = bpffs.0.path().join("sluice");
    // Room for the real servers that lose their service below.
    let limits = Limits { reals_max: 8, ..LIMITS };
    let options = Options { limits, ..Options::default() };
    let open = || {
        let state = StateFile::in_directory(directory.path()).expect("state");
        Director::new(Datapath::open_pinned(&pin, &limits).expect("open"), state, options)
    };
    let mut first = open().expect("new");
    assert!(!first.adopted);
    change(&mut first, vec![add_service(), add_real(1), add_real(2), add_real(3), delete_real(2)]);
    let to_7 = next_hop(7);
    first.neighbours_changed(vec![(real(1).address, Some(to_7)), (real(3).address, Some(to_7))]);
    let index = first.layout.service_index(&service()).expect("index");
    first.maps().cursors.put(index, &12_345).expect("put");
    let before = tables::read(first.maps()).expect("read");
    let reals: Vec<_> = (1..=3).map(|number| first.layout.real_index(&service(), &real(number))).collect();
    drop(first);

    let second = open().expect("taken over");
    assert!(second.adopted);
    assert_eq!((second.generation, second.model.reals_len()), (1, 2));
    assert_eq!(tables::read(second.maps()).expect("read"), before);
    let again: Vec<_> = (1..=3).map(|number| second.layout.real_index(&service(), &real(number))).collect();
    assert_eq!(again, reals);
    // Somebody meddles: a service that is not declared, and the declared one gone.
    let (key, stray) = second.maps().services.entries().expect("entries")[0];
    let stray_key = abi::ServiceKey { port_be: 1, ..key };
    second
        .maps()
        .services
        .put(
            &stray_key,
            &abi::Service { index: 3, ring: abi::Span::default(), pool: abi::Span::default(), ..stray },
            Put::Any,
        )
        .expect("put");
    second.maps().services.delete(&key).expect("delete");
    drop(second);

    let third = open().expect("taken over");
    let keys: Vec<_> =
        third.maps().services.entries().expect("entries").iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [key]);
    drop(third);

    std::fs::remove_file(directory.path().join("model.json")).expect("remove");
    let error = open().err().expect("nothing to go by");
    assert!(matches!(error, ActorError::Lost { services: 1 }), "{error:?}");
    kernel::detach_all(&pin).expect("remove");
}

#[test]
fn a_known_flow_and_a_new_one_are_explained() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    let to_1 = Some(next_hop(1));
    let reals: [IpAddr; 2] = [real(2).address, "2001:db8::2".parse().expect("address")];
    director.neighbours_changed(reals.map(|address| (address, to_1)).to_vec());

    let index = director.layout.real_index(&service(), &real(2)).expect("index");
    let known = FlowKey {
        client: crate::convert::address([198, 51, 100, 1].into()),
        virtual_address: crate::convert::address([192, 0, 2, 1].into()),
        client_port_be: 4000_u16.to_be(),
        virtual_port_be: 80_u16.to_be(),
        protocol: 6,
    };
    director.maps().established.put(&known, &flow(index, 1000, 0), Put::Any).expect("put");
    let ask = |protocol, client: &str, vip: &str| api::ExplainRequest {
        protocol,
        client: client.parse().expect("address"),
        virtual_address: vip.parse().expect("address"),
    };
    let question = ask(Protocol::Tcp, "198.51.100.1:4000", "192.0.2.1:80");
    let told = director.explain(&question, 10).expect("explained");
    assert_eq!((told.verdict.as_str(), told.real), ("forward_known", "10.0.0.2:80".parse().ok()), "{told:?}");
    assert!(
        told.steps.iter().any(|step| step == "a flow in state ESTABLISHED in the established table"),
        "{told:?}"
    );
    // Asking changes nothing.
    assert_eq!(director.maps().established.get(&known).expect("read"), Some(flow(index, 1000, 0)));
    assert_eq!(
        director.maps().verdicts.fold_range(0, 64, |a, b| a + b).expect("read").iter().sum::<u64>(),
        0
    );
    // Later it has expired, and is scheduled like a new one: to one whose next hop is unknown.
    let told = director.explain(&question, 2000).expect("explained");
    assert_eq!((told.verdict.as_str(), told.real), ("drop_unresolved", None), "{told:?}");

    let service = ServiceId::Address {
        protocol: Protocol::Udp,
        address: "2001:db8::1".parse().expect("address"),
        port: 53,
    };
    let real = RealId { address: reals[1], port: 53 };
    let Change::AddService { spec, .. } = add_service() else { unreachable!("made above") };
    let Change::AddReal { spec: real_spec, .. } = add_real(1) else { unreachable!("made above") };
    let changes = vec![
        delete_real(3),
        Change::AddService { service, spec },
        Change::AddReal { service, real, spec: real_spec },
    ];
    assert_eq!(change(&mut director, changes), [None, None, Some(RefusalKind::Limit)]);
    let question = ask(Protocol::Udp, "[2001:db8::9]:4000", "[2001:db8::1]:53");
    let told = director.explain(&question, 10).expect("explained");
    assert_eq!(told.verdict, "answer_port_unreachable", "{told:?}");
    let told = director.explain(&ask(Protocol::Udp, "[2001:db8::9]:4000", "[2001:db8::1]:54"), 10);
    assert_eq!(told.expect("explained").verdict, "pass_no_service");
    let told = director.explain(&ask(Protocol::Sctp, "198.51.100.1:1", "192.0.2.1:36412"), 10);
    assert_eq!(told.expect("explained").verdict, "pass_no_service");
}

/// A hundred flows of TCP to the first and the third real server, which is deleted then; one of UDP, one that is over, and a template.
fn fill_with_flows(director: &mut Director) {
    let index = |number| director.layout.real_index(&service(), &real(number)).expect("index");
    let (first, gone) = (index(1), index(3));
    let ends = |number: u8, port: u16| FlowKey {
        client: abi::Address::v4([198, 51, 100, number]),
        virtual_address: abi::Address::v4([192, 0, 2, 1]),
        client_port_be: port.to_be(),
        virtual_port_be: 80_u16.to_be(),
        protocol: 6,
    };
    let maps = director.maps();
    for port in 0..100 {
        let half = if port % 2 == 0 { first } else { gone };
        maps.established.put(&ends(7, port), &flow(half, 60 * SECOND_NS, 0), Put::Any).expect("put");
    }
    maps.established.put(&ends(8, 1), &flow(first, 1, 0), Put::Any).expect("expired");
    let udp = FlowKey { protocol: 17, ..ends(9, 1) };
    maps.embryonic.put(&udp, &flow(first, 60 * SECOND_NS, abi::FLOW_CONTROLLED), Put::Any).expect("put");
    let template = FlowKey { client_port_be: 0, ..ends(7, 0) };
    let flags = abi::FLOW_TEMPLATE | abi::FLOW_ASSURED;
    maps.templates.put(&template, &flow(first, 60 * SECOND_NS, flags), Put::Any).expect("put");
    assert_eq!(change(director, vec![delete_real(3)]), [None]);
}

/// All pieces of an answer.
fn ask_all(director: &Director, filter: FlowFilter, show: FlowShow) -> FlowPage {
    let mut request = FlowRequest { filter, show, cursor: 0 };
    let mut all = FlowPage::default();
    loop {
        let mut page = director.flows(&request, 2 * SECOND_NS).expect("a page");
        all.flows.append(&mut page.flows);
        all.counts.append(&mut page.counts);
        all.matched += page.matched;
        match page.next_cursor {
            Some(cursor) => request.cursor = cursor,
            None => return all,
        }
    }
}

#[test]
fn flows_are_found_by_every_filter_and_counted_piece_by_piece() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut director = with_three(&directory);
    fill_with_flows(&mut director);
    let ask = |filter, show| ask_all(&director, filter, show);
    let count = |filter| ask(filter, FlowShow::Count).matched;
    let none = FlowFilter::default;
    assert_eq!(count(none()), 101);
    let client = |text: &str| Some(text.parse().expect("a client"));
    let end = |text: &str| Some(text.parse().expect("an end"));
    assert_eq!(count(FlowFilter { client: client("198.51.100.0/29"), ..none() }), 100);
    assert_eq!(count(FlowFilter { client: client("198.51.100.0/24:1"), ..none() }), 2);
    assert_eq!(count(FlowFilter { client: client("2001:db8::/32"), ..none() }), 0);
    assert_eq!(count(FlowFilter { real: end("10.0.0.1"), ..none() }), 51);
    assert_eq!(count(FlowFilter { real: end("10.0.0.3:81"), ..none() }), 0);
    assert_eq!(count(FlowFilter { vip: end("192.0.2.1:80"), ..none() }), 101);
    assert_eq!(count(FlowFilter { protocol: Some(Protocol::Udp), ..none() }), 1);
    assert_eq!(count(FlowFilter { state: Some("ESTABLISHED".to_owned()), ..none() }), 100);
    assert_eq!(count(FlowFilter { service: Some(service()), ..none() }), 101);
    assert_eq!(count(FlowFilter { table: Some(FlowTable::Embryonic), ..none() }), 1);
    let templates = ask(FlowFilter { table: Some(FlowTable::Templates), ..none() }, FlowShow::List).flows;
    assert_eq!(
        (templates.len(), templates[0].state.as_str(), templates[0].persistent),
        (1, "ASSURED", false)
    );

    let listed = ask(FlowFilter { client: client("198.51.100.7:3"), ..none() }, FlowShow::List).flows;
    let only = &listed[0];
    assert_eq!((listed.len(), only.expires_s, only.deleted, only.service), (1, 58, true, None));
    assert!(ask(FlowFilter { protocol: Some(Protocol::Udp), ..none() }, FlowShow::List).flows[0].persistent);
    let mut counts = ask(none(), FlowShow::CountBy(FlowGroup::Client)).counts;
    counts.sort_by(|a, b| a.name.cmp(&b.name));
    let counts: Vec<_> = counts.iter().map(|it| (it.name.as_str(), it.flows)).collect();
    assert_eq!(counts, [("198.51.100.7", 100), ("198.51.100.9", 1)]);

    let refused = |request: FlowRequest| director.flows(&request, 0).expect_err("refused").message;
    let state = FlowFilter { state: Some("OPEN".to_owned()), ..none() };
    assert!(
        refused(FlowRequest { filter: state, ..FlowRequest::default() })
            .starts_with("there is no state `OPEN'")
    );
    let text = refused(FlowRequest { cursor: u64::MAX, ..FlowRequest::default() });
    assert!(text.ends_with("begin with 0"), "{text}");
}
