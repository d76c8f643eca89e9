//! Namespaces and raw frames.

use std::path::Path;
use std::time::Duration;

use testkit::{Frames, NetNs, need_root, packet, skip};

const WAIT: Duration = Duration::from_secs(5);

#[test]
fn a_frame_crosses_a_veth_pair_with_all_its_tags() {
    if let Err(reason) = need_root() {
        skip!("{reason}");
    }
    let left = NetNs::new("left").expect("namespace");
    let right = NetNs::new("right").expect("namespace");
    left.veth("a", &right, "b").expect("pair");
    let sender = left.run(|| Frames::open("a")).expect("enter").expect("socket");
    let receiver = right.run(|| Frames::open("b")).expect("enter").expect("socket");
    for tags in ["", "vlan 5 pcp 2 / ", "svlan 9 / vlan 5 / "] {
        let frame = packet(&format!(
            "eth 02:00:00:00:00:01 > 02:00:00:00:00:02 / {tags}ip4 192.0.2.1 > 192.0.2.2 / udp 1 > 2 / bytes 40"
        ));
        sender.send(&frame).expect("send");
        let got = receiver.receive(WAIT, |got| got[..12] == frame[..12]).expect("receive");
        assert_eq!(got.as_deref().and_then(|got| testkit::difference(&frame, got)), None);
        assert!(got.is_some(), "{tags} did not arrive");
    }
}

#[test]
fn receiving_ends_when_the_time_has_passed() {
    if let Err(reason) = need_root() {
        skip!("{reason}");
    }
    let netns = NetNs::new("quiet").expect("namespace");
    let frames = netns.run(|| Frames::open("lo")).expect("enter").expect("socket");
    let started = std::time::Instant::now();
    assert_eq!(frames.receive(Duration::from_millis(50), |_| true).expect("receive"), None);
    assert!(started.elapsed() < WAIT);
}

#[test]
fn a_namespace_is_gone_after_its_guard() {
    if let Err(reason) = need_root() {
        skip!("{reason}");
    }
    let netns = NetNs::new("brief").expect("namespace");
    let path = format!("/run/netns/{}", netns.name());
    assert!(Path::new(&path).exists());
    drop(netns);
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_refusal_names_the_command() {
    if let Err(reason) = need_root() {
        skip!("{reason}");
    }
    let netns = NetNs::new("refuse").expect("namespace");
    let error = netns.ip("link set nosuch up").expect_err("there is no such link");
    assert!(error.to_string().contains("link set nosuch up` failed: Cannot find device"), "{error}");
}
