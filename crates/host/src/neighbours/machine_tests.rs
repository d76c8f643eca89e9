use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const ETH: u32 = 2;
const OURS: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const THEIRS: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn address() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))
}

fn path() -> Path {
    Path { interface_index: ETH, next_hop: address() }
}

fn link(up: bool, mac: MacAddress, mtu: u32) -> Interface {
    let name = "eth0".to_owned();
    Interface {
        index: ETH,
        name,
        mac: Some(mac),
        up,
        carrier: up,
        mtu,
        vlan_of: None,
        xdp: None,
        xdp_program_id: None,
    }
}

/// A way without limits or a source of its own.
fn way(path: Path) -> Option<Way> {
    Some(Way::Link { path, mtu: None, source_address: None })
}

fn hop(destination: MacAddress) -> Hop {
    Hop { interface_index: ETH, destination, source: OURS, mtu: 1500, source_address: None }
}

fn resolved(destination: MacAddress) -> Option<Resolved> {
    Some(Resolved::Hop(hop(destination)))
}

fn tell(resolved: Option<Resolved>) -> Action {
    Action::Tell(NeighbourEvent { address: address(), resolved })
}

/// A machine at second 0 that watches one address with a valid entry.
fn valid() -> Machine {
    let mut machine = Machine::new(Timing::default());
    machine.on_link(&link(true, OURS, 1500), s(0));
    machine.watch(&[address()], s(0));
    assert_eq!(machine.actions(), [Action::LookUp(address())]);
    machine.on_way(address(), way(path()), s(0));
    assert_eq!(machine.actions(), [Action::Resolve(path())]);
    machine.on_report(ETH, address(), Report::Valid(THEIRS), s(0));
    assert_eq!(machine.actions(), [tell(resolved(THEIRS))]);
    machine
}

#[test]
fn a_valid_entry_is_confirmed_again_and_again() {
    let mut machine = valid();
    assert_eq!(machine.next_deadline(), Some(s(10)));
    machine.tick(s(9));
    assert_eq!(machine.actions(), []);
    machine.tick(s(10));
    assert_eq!(machine.actions(), [Action::Confirm(path())]);
    machine.on_report(ETH, address(), Report::Valid(THEIRS), s(11));
    assert_eq!(machine.actions(), []);
    machine.tick(s(20));
    assert_eq!(machine.actions(), [Action::Confirm(path())]);
}

#[test]
fn a_new_mac_is_told_once() {
    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Valid(OTHER), s(1));
    machine.on_report(ETH, address(), Report::Valid(OTHER), s(2));
    assert_eq!(machine.actions(), [tell(resolved(OTHER))]);
}

#[test]
fn one_failure_is_doubt_and_asks_everybody() {
    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Failed, s(3));
    assert_eq!(machine.actions(), [Action::Resolve(path())]);
    machine.on_report(ETH, address(), Report::Pending, s(3));
    machine.on_report(ETH, address(), Report::Valid(OTHER), s(4));
    assert_eq!(machine.actions(), [tell(resolved(OTHER))]);
}

#[test]
fn a_second_failure_is_a_loss() {
    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Failed, s(3));
    machine.actions();
    machine.on_report(ETH, address(), Report::Failed, s(6));
    assert_eq!(machine.actions()[0], tell(None));
}

#[test]
fn one_loss_that_is_noticed_twice_is_still_one() {
    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Unasked, s(3));
    assert_eq!(machine.actions(), [Action::Resolve(path())]);
    machine.on_report(ETH, address(), Report::Unasked, s(3));
    assert_eq!(machine.actions(), []);

    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Failed, s(3));
    machine.actions();
    machine.on_report(ETH, address(), Report::Unasked, s(3));
    assert_eq!(machine.actions(), []);
}

#[test]
fn doubt_without_news_ends() {
    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Failed, s(3));
    machine.actions();
    assert!(machine.next_deadline().is_some_and(|at| at <= s(8)));
    machine.tick(s(8));
    assert!(machine.actions().contains(&tell(None)));
}

#[test]
fn questions_for_the_lost_come_slower_and_slower() {
    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Failed, s(0));
    machine.on_report(ETH, address(), Report::Failed, s(0));
    machine.actions();
    let mut asked = Vec::new();
    for second in 1..100 {
        machine.tick(s(second));
        if machine.actions().contains(&Action::Resolve(path())) {
            asked.push(second);
            machine.on_report(ETH, address(), Report::Failed, s(second));
            assert_eq!(machine.actions(), []);
        }
    }
    let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted() && pauses.ends_with(&[15, 15]), "{pauses:?}");
    assert!(asked[0] <= 2, "{asked:?}");
}

#[test]
fn an_entry_an_operator_fixed_is_left_alone() {
    let mut machine = valid();
    machine.on_report(ETH, address(), Report::Permanent(THEIRS), s(1));
    machine.tick(s(25));
    assert_eq!(machine.actions(), []);
}

#[test]
fn the_link_decides_too() {
    let mut machine = valid();
    machine.on_link(&link(false, OURS, 1500), s(1));
    assert_eq!(machine.actions(), [tell(None)]);
    machine.on_link(&link(true, OTHER, 1500), s(2));
    let expected = Resolved::Hop(Hop { source: OTHER, ..hop(THEIRS) });
    assert_eq!(machine.actions()[0], tell(Some(expected)));
    machine.on_link_gone(ETH);
    assert!(machine.actions().contains(&tell(None)));
}

#[test]
fn a_gateway_stands_for_all_behind_it() {
    let gateway = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let far: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))];
    let mut machine = Machine::new(Timing::default());
    machine.on_link(&link(true, OURS, 1500), s(0));
    machine.watch(&far, s(0));
    for address in far {
        machine.on_way(address, way(Path { interface_index: ETH, next_hop: gateway }), s(0));
    }
    machine.actions();
    machine.on_report(ETH, gateway, Report::Valid(THEIRS), s(0));
    let told: Vec<Action> = machine.actions();
    let expected = far.map(|address| Action::Tell(NeighbourEvent { address, resolved: resolved(THEIRS) }));
    assert_eq!(told, expected);
}

#[test]
fn another_route_starts_over_and_no_route_is_a_loss() {
    let mut machine = valid();
    machine.on_routes_changed(s(1));
    assert_eq!(machine.actions(), [Action::LookUp(address())]);
    machine.on_way(address(), way(path()), s(1));
    assert_eq!(machine.actions(), [], "the same route changes nothing");
    let other = Path { interface_index: 3, next_hop: address() };
    machine.on_way(address(), way(other), s(2));
    assert_eq!(machine.actions(), [tell(None), Action::Resolve(other)]);
    machine.on_way(address(), None, s(3));
    machine.tick(s(4));
    assert_eq!(machine.actions(), []);
}

#[test]
fn the_way_says_how_long_packets_may_be_and_where_they_come_from() {
    let mut machine = valid();
    let told = |machine: &mut Machine, mtu, source_address| {
        let expected = Resolved::Hop(Hop { mtu, source_address, ..hop(THEIRS) });
        assert_eq!(machine.actions(), [tell(Some(expected))]);
    };
    machine.on_link(&link(true, OURS, 9000), s(1));
    told(&mut machine, 9000, None);
    // The route's own limit, then one that the interface cannot keep.
    let source_address = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)));
    machine.on_way(address(), Some(Way::Link { path: path(), mtu: Some(1400), source_address }), s(2));
    told(&mut machine, 1400, source_address);
    machine.on_way(address(), Some(Way::Link { path: path(), mtu: Some(65_535), source_address }), s(3));
    told(&mut machine, 9000, source_address);
    // Nothing of it asks for the neighbour again.
    machine.on_way(address(), way(path()), s(4));
    told(&mut machine, 9000, None);
}

#[test]
fn an_address_of_this_machine_needs_no_neighbour() {
    let mut machine = valid();
    machine.on_way(address(), Some(Way::Local), s(1));
    assert_eq!(machine.actions(), [tell(Some(Resolved::Local))]);
    machine.tick(s(20));
    assert_eq!(machine.actions(), [], "nobody is asked");
    machine.on_link_gone(ETH);
    assert_eq!(machine.actions(), []);
    machine.on_way(address(), way(path()), s(21));
    assert_eq!(machine.actions(), [tell(None), Action::Resolve(path())]);
}

#[test]
fn what_is_no_longer_watched_is_forgotten() {
    let mut machine = valid();
    machine.watch(&[], s(1));
    machine.on_report(ETH, address(), Report::Failed, s(2));
    machine.tick(s(100));
    assert_eq!(machine.actions(), []);
    assert_eq!(machine.next_deadline(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Report(Report),
    Link(bool, MacAddress),
    Path(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let mac = prop_oneof![Just(THEIRS), Just(OTHER)];
    prop_oneof![
        mac.clone().prop_map(|m| Step::Report(Report::Valid(m))),
        mac.clone().prop_map(|m| Step::Report(Report::Permanent(m))),
        Just(Step::Report(Report::Pending)),
        Just(Step::Report(Report::Failed)),
        Just(Step::Report(Report::Unasked)),
        (any::<bool>(), mac).prop_map(|(up, m)| Step::Link(up, m)),
        any::<bool>().prop_map(Step::Path),
        (0u64..20).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens: no event repeats the one before, an unresolved entry with a path is asked for before
    /// long, and a tick at the deadline moves the deadline.
    #[test]
    fn random_histories_keep_the_promises(steps in proptest::collection::vec(step(), 1..60)) {
        let mut machine = valid();
        let mut now = s(0);
        let mut told = resolved(THEIRS);
        let mut has_path = true;
        for step in steps {
            match step {
                Step::Report(report) => machine.on_report(ETH, address(), report, now),
                Step::Link(up, mac) => machine.on_link(&link(up, mac, 1500), now),
                Step::Path(there) => {
                    has_path = there;
                    machine.on_way(address(), there.then(path).and_then(way), now);
                }
                Step::Wait(seconds) => {
                    now += s(seconds);
                    machine.tick(now);
                }
            }
            for action in machine.actions() {
                if let Action::Tell(event) = action {
                    prop_assert_ne!(event.resolved, told);
                    told = event.resolved;
                }
            }
            let deadline = machine.next_deadline().expect("something is watched");
            prop_assert!(deadline > now);
            if !has_path {
                prop_assert_eq!(told, None);
            }
        }
    }
}
