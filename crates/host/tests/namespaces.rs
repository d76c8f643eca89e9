//! Neighbours, routes and XDP between two network namespaces joined by a veth pair. Needs root; without it
//! every test says so and does nothing.

use host::neighbours::machine::Timing;
use host::netlink::Netlink;
use host::xdp::{PassError, attach_pass, detach};
use host::{Hop, Interface, Namespace, NeighbourEvent, Neighbours, Resolved, Route, XdpMode};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

const OURS_V4: &str = "192.0.2.1";
const THEIRS_V4: &str = "192.0.2.2";
const THEIRS_V6: &str = "2001:db8::2";
const WAIT: Duration = Duration::from_secs(15);

/// Two namespaces; removed with everything in them when dropped.
struct Pair {
    ours: String,
    theirs: String,
}

impl Pair {
    /// `None`, loudly, without root.
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let prefix = format!("sl-{}-host-{name}", std::process::id());
        let pair = Self { ours: format!("{prefix}-a"), theirs: format!("{prefix}-b") };
        let (a, b) = (&pair.ours, &pair.theirs);
        for ns in [a, b] {
            ip(&format!("netns add {ns}"));
            ip(&format!("-n {ns} link set lo up"));
        }
        ip(&format!(
            "link add eth0 netns {a} address 02:00:00:00:00:01 type veth \
             peer name eth0 netns {b} address 02:00:00:00:00:02"
        ));
        for (ns, host) in [(a, 1), (b, 2)] {
            ip(&format!("-n {ns} address add 192.0.2.{host}/24 dev eth0"));
            ip(&format!("-n {ns} address add 2001:db8::{host}/64 dev eth0 nodad"));
            ip(&format!("-n {ns} link set eth0 up"));
        }
        Some(pair)
    }

    /// Runs a future on a thread inside the first namespace.
    fn inside<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        let namespace = Namespace::open(&self.ours).expect("namespace");
        namespace
            .run(|| {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
                runtime.block_on(work())
            })
            .expect("enter")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for ns in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "delete", ns]).status();
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("ip runs");
    assert!(status.success(), "ip {arguments}: {status}");
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Confirmations come soon, but not before the kernel has given up on the last one (three questions, a second
/// apart): one failure would be seen twice and count as a loss.
fn timing() -> Timing {
    Timing { refresh: Duration::from_secs(4), ..Timing::default() }
}

/// The hop that the next event about `about` tells, others passed over.
async fn next(events: &mut Receiver<NeighbourEvent>, about: IpAddr) -> Option<Hop> {
    next_resolved(events, about).await.map(hop)
}

fn hop(resolved: Resolved) -> Hop {
    let Resolved::Hop(hop) = resolved else { panic!("{resolved:?}") };
    hop
}

/// What the next event about `about` tells, others passed over.
async fn next_resolved(events: &mut Receiver<NeighbourEvent>, about: IpAddr) -> Option<Resolved> {
    tokio::time::timeout(WAIT, async {
        loop {
            let event = events.recv().await.expect("service runs");
            if event.address == about {
                return event.resolved;
            }
        }
    })
    .await
    .expect("an event in time")
}

#[test]
fn both_families_are_resolved_and_followed() {
    let Some(pair) = Pair::new("follow") else { return };
    let theirs = pair.theirs.clone();
    pair.inside(async || {
        let (neighbours, mut events) = Neighbours::start(timing()).await.expect("service");
        let watched = [address(THEIRS_V4), address(THEIRS_V6)];
        neighbours.watch(BTreeSet::from(watched)).await.expect("watch");
        let mut seen = std::collections::BTreeMap::new();
        while seen.len() < 2 {
            let event = tokio::time::timeout(WAIT, events.recv()).await.expect("in time").expect("event");
            seen.insert(event.address, hop(event.resolved.expect("resolved")));
        }
        for resolved in seen.values() {
            assert_eq!(resolved.destination.to_string(), "02:00:00:00:00:02");
            assert_eq!(resolved.source.to_string(), "02:00:00:00:00:01");
        }
        // Another machine takes the addresses over and says nothing about it.
        ip(&format!("-n {theirs} link set eth0 address 02:00:00:00:00:99"));
        for _ in 0..2 {
            let event = tokio::time::timeout(WAIT, events.recv()).await.expect("in time").expect("event");
            let resolved = hop(event.resolved.expect("never lost in between"));
            assert_eq!(resolved.destination.to_string(), "02:00:00:00:00:99", "{event:?}");
        }
    });
}

#[test]
fn a_lost_neighbour_is_told_and_found_again() {
    let Some(pair) = Pair::new("lost") else { return };
    let theirs = pair.theirs.clone();
    pair.inside(async || {
        let (neighbours, mut events) = Neighbours::start(timing()).await.expect("service");
        let watched = address(THEIRS_V4);
        neighbours.watch(BTreeSet::from([watched])).await.expect("watch");
        assert!(next(&mut events, watched).await.is_some());
        ip(&format!("-n {theirs} address delete {THEIRS_V4}/24 dev eth0"));
        assert_eq!(next(&mut events, watched).await, None);
        ip(&format!("-n {theirs} address add {THEIRS_V4}/24 dev eth0"));
        assert!(next(&mut events, watched).await.is_some());
    });
}

#[test]
fn our_own_link_is_followed() {
    let Some(pair) = Pair::new("link") else { return };
    let ours = pair.ours.clone();
    pair.inside(async || {
        let (neighbours, mut events) = Neighbours::start(timing()).await.expect("service");
        let watched = address(THEIRS_V4);
        neighbours.watch(BTreeSet::from([watched])).await.expect("watch");
        assert!(next(&mut events, watched).await.is_some());
        ip(&format!("-n {ours} link set eth0 address 02:00:00:00:00:77"));
        let resolved = next(&mut events, watched).await.expect("still there");
        assert_eq!(resolved.source.to_string(), "02:00:00:00:00:77");
        ip(&format!("-n {ours} link set eth0 down"));
        assert_eq!(next(&mut events, watched).await, None);
        ip(&format!("-n {ours} link set eth0 up"));
        assert!(next(&mut events, watched).await.is_some());
    });
}

#[test]
fn a_fixed_entry_stays_as_the_operator_made_it() {
    let Some(pair) = Pair::new("fixed") else { return };
    let ours = pair.ours.clone();
    ip(&format!("-n {ours} neighbour add 192.0.2.50 lladdr 02:00:00:00:00:50 dev eth0 nud permanent"));
    pair.inside(async || {
        let (neighbours, mut events) = Neighbours::start(timing()).await.expect("service");
        let watched = address("192.0.2.50");
        neighbours.watch(BTreeSet::from([watched])).await.expect("watch");
        let resolved = next(&mut events, watched).await.expect("resolved");
        assert_eq!(resolved.destination.to_string(), "02:00:00:00:00:50");
        tokio::time::sleep(Duration::from_secs(3)).await;
    });
    let shown =
        Command::new("ip").args(["-n", &ours, "neighbour", "show", "192.0.2.50"]).output().expect("ip");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("PERMANENT"), "{shown:?}");
}

#[test]
fn routes_name_interface_next_hop_and_source() {
    let Some(pair) = Pair::new("route") else { return };
    let ours = pair.ours.clone();
    ip(&format!("-n {ours} route add 198.51.100.0/24 via {THEIRS_V4}"));
    ip(&format!("-n {ours} route add 203.0.113.0/24 via inet6 {THEIRS_V6} dev eth0"));
    pair.inside(async || {
        let netlink = Netlink::open().expect("netlink");
        let index = Interface::by_name(&netlink, "eth0").await.expect("eth0").index;
        let far = Route::to(&netlink, address("198.51.100.7")).await.expect("route");
        let expected = Route {
            interface_index: index,
            next_hop: address(THEIRS_V4),
            source: Some(address(OURS_V4)),
            local: false,
            mtu: None,
        };
        assert_eq!(far, expected);
        let near = Route::to(&netlink, address(THEIRS_V6)).await.expect("route");
        assert_eq!((near.interface_index, near.next_hop), (index, address(THEIRS_V6)));
        let mixed = Route::to(&netlink, address("203.0.113.7")).await.expect("route");
        assert_eq!(mixed.next_hop, address(THEIRS_V6));
        assert!(Route::to(&netlink, address(OURS_V4)).await.expect("route").local);
        for nowhere in ["10.9.9.9", "2001:db9::1"] {
            let error = Route::to(&netlink, address(nowhere)).await.expect_err("no route");
            assert_eq!(error.to_string(), format!("there is no route to {nowhere}"));
        }
    });
}

#[test]
fn mtu_source_and_locality_are_followed() {
    let Some(pair) = Pair::new("mtu") else { return };
    let ours = pair.ours.clone();
    let far = address("198.51.100.7");
    ip(&format!("-n {ours} route add 198.51.100.0/24 via {THEIRS_V4}"));
    pair.inside(async || {
        let (neighbours, mut events) = Neighbours::start(timing()).await.expect("service");
        neighbours.watch(BTreeSet::from([far])).await.expect("watch");
        let told = next(&mut events, far).await.expect("resolved");
        assert_eq!((told.mtu, told.source_address), (1500, Some(address(OURS_V4))));
        ip(&format!("-n {ours} route change 198.51.100.0/24 via {THEIRS_V4} mtu 1400"));
        assert_eq!(next(&mut events, far).await.expect("resolved").mtu, 1400);
        ip(&format!("-n {ours} link set eth0 mtu 1300"));
        assert_eq!(next(&mut events, far).await.expect("resolved").mtu, 1300);
        ip(&format!("-n {ours} address add 192.0.2.9/24 dev eth0"));
        ip(&format!("-n {ours} route change 198.51.100.0/24 via {THEIRS_V4} src 192.0.2.9"));
        let told = next(&mut events, far).await.expect("resolved");
        assert_eq!((told.mtu, told.source_address), (1300, Some(address("192.0.2.9"))));
        ip(&format!("-n {ours} address add {far}/32 dev lo"));
        assert_eq!(next_resolved(&mut events, far).await, Some(Resolved::Local));

        let theirs = address(THEIRS_V6);
        neighbours.watch(BTreeSet::from([theirs])).await.expect("watch");
        let told = next(&mut events, theirs).await.expect("resolved");
        assert_eq!((told.mtu, told.source_address), (1300, Some(address("2001:db8::1"))));
    });
}

#[test]
fn a_pass_program_is_attached_once_and_detached() {
    let Some(pair) = Pair::new("xdp") else { return };
    pair.inside(async || {
        let netlink = Netlink::open().expect("netlink");
        let interface = Interface::by_name(&netlink, "eth0").await.expect("eth0");
        assert_eq!(interface.xdp, None);
        attach_pass(&netlink, interface.index).await.expect("attach");
        let attached = Interface::by_index(&netlink, interface.index).await.expect("eth0");
        assert_eq!(attached.xdp, Some(XdpMode::Native));
        assert!(attached.xdp_program_id.is_some());
        let again = attach_pass(&netlink, interface.index).await;
        assert!(matches!(again, Err(PassError::Busy { .. })), "{again:?}");
        let ping = Command::new("ping").args(["-c", "1", "-W", "2", THEIRS_V4]).output();
        if let Ok(ping) = ping {
            assert!(ping.status.success(), "{ping:?}");
        }
        detach(&netlink, interface.index).await.expect("detach");
        let detached = Interface::by_index(&netlink, interface.index).await.expect("eth0");
        assert_eq!((detached.xdp, detached.xdp_program_id), (None, None));
    });
}
