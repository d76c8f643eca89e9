//! The cluster without a director: servers, load, downloads, UDP, and that nothing is left behind. Needs root
//! and nginx; without them every test says so and does nothing.

use lab::address::{HTTP_PORT, Node, UDP_PORT, vip};
use lab::{Lab, LabError, LabOptions, LoadMode, LoadOptions};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

fn cluster(reals: u32) -> Option<Lab> {
    match Lab::new(LabOptions { reals, ..LabOptions::default() }) {
        Err(LabError::NotRoot | LabError::Command(lab::command::CommandError::Missing { .. })) => {
            eprintln!("SKIPPED: needs root, iproute2, ethtool and nginx");
            None
        }
        made => Some(made.expect("a cluster")),
    }
}

fn real(number: u32, ipv6: bool, port: u16) -> SocketAddr {
    let node = Node::Real(number);
    if ipv6 { SocketAddr::from((node.v6(), port)) } else { SocketAddr::from((node.v4(), port)) }
}

/// Sends the client's packets for the VIP straight to one real server, as a director would.
fn stand_in_for_director(lab: &Lab, number: u32) {
    let link = lab.exec_in(Node::Real(number), "ip", &["-o", "link", "show", "eth0"]).expect("ip link");
    let mac =
        link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("a MAC").to_owned();
    for ipv6 in [false, true] {
        let vip = vip(ipv6, 0).ip().to_string();
        lab.exec_in(Node::Client, "ip", &["neighbour", "replace", &vip, "lladdr", &mac, "dev", "eth0"])
            .expect("neighbour");
    }
}

#[test]
fn a_load_is_counted_for_each_server() {
    let Some(lab) = cluster(2) else { return };
    for (mode, ipv6) in [(LoadMode::NewConnection, false), (LoadMode::KeepAlive, true)] {
        let options = LoadOptions {
            mode,
            rate_per_s: 500,
            requests_max: 100,
            ..LoadOptions::new(real(2, ipv6, HTTP_PORT))
        };
        let stats = lab.start_load(options).expect("load").wait();
        assert_eq!((stats.answered, stats.failed), (100, 0), "{:?}", stats.failures);
        assert_eq!(stats.share.get("real2"), Some(&100));
        assert!(stats.p50_us > 0 && stats.p50_us <= stats.p99_us);
    }
    let nobody = LoadOptions { requests_max: 3, ..LoadOptions::new(real(2, false, 81)) };
    let stats = lab.start_load(nobody).expect("load").wait();
    assert_eq!((stats.answered, stats.failed), (0, 3));
    assert!(stats.failures[0].starts_with("cannot connect: "), "{:?}", stats.failures);
}

#[test]
fn real_servers_answer_for_the_vip() {
    let Some(lab) = cluster(1) else { return };
    stand_in_for_director(&lab, 1);
    for ipv6 in [false, true] {
        let options = LoadOptions { requests_max: 5, ..LoadOptions::new(vip(ipv6, HTTP_PORT)) };
        let stats = lab.start_load(options).expect("load").wait();
        assert_eq!((stats.answered, stats.failed), (5, 0), "{:?}", stats.failures);
        let client = lab.namespace(Node::Client).expect("client");
        let asked = lab::udp::ask(client, vip(ipv6, UDP_PORT), 5, Duration::from_secs(2)).expect("asked");
        assert_eq!((asked.lost, asked.share.get("real1")), (0, Some(&5)));
    }
}

#[test]
fn only_the_director_answers_for_the_vip_on_the_switch() {
    let Some(lab) = cluster(2) else { return };
    for ipv6 in [false, true] {
        let vip = vip(ipv6, 0).ip().to_string();
        // Nothing listens there: the question itself is what matters.
        let _ = lab.exec_in(Node::Client, "ip", &["neighbour", "flush", "all"]);
        let options = LoadOptions {
            requests_max: 1,
            ..LoadOptions::new(SocketAddr::new(vip.parse().expect("an address"), HTTP_PORT))
        };
        assert_eq!(lab.start_load(options).expect("load").wait().failed, 1);
        let shown = lab.exec_in(Node::Client, "ip", &["neighbour", "show", &vip]).expect("ip");
        let link = lab.exec_in(Node::Director, "ip", &["-o", "link", "show", "eth0"]).expect("ip");
        let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("a MAC");
        assert!(shown.contains(mac), "{shown} should have {mac}");
    }
}

#[test]
fn downloads_run_slowly_to_the_end_and_notice_a_cut() {
    let Some(mut lab) = cluster(1) else { return };
    let whole = lab.start_downloads(real(1, false, HTTP_PORT), 3, 200_000).expect("downloads");
    assert!(whole.wait_until(lab::Downloads::all_begun, Duration::from_secs(5)));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!whole.all_ended(), "a slow download takes its time");
    assert!(whole.wait_until(lab::Downloads::all_ended, Duration::from_secs(15)));
    for one in whole.progress() {
        assert_eq!((one.server.as_deref(), &one.outcome), (Some("real1"), &Some(Ok(()))));
    }
    let cut = lab.start_downloads(real(1, false, HTTP_PORT), 1, 10_000).expect("downloads");
    assert!(cut.wait_until(lab::Downloads::all_begun, Duration::from_secs(5)));
    lab.remove_real(1).expect("removed");
    assert!(cut.wait_until(lab::Downloads::all_ended, Duration::from_secs(15)));
    assert!(matches!(cut.progress()[0].outcome, Some(Err(_))), "{:?}", cut.progress());
}

#[test]
fn nothing_is_left_behind() {
    let Some(mut lab) = cluster(1) else { return };
    let added = lab.add_real().expect("a second one");
    assert_eq!((added, lab.reals()), (2, vec![1, 2]));
    lab.remove_real(1).expect("removed");
    assert!(matches!(lab.remove_real(1), Err(LabError::NoSuchReal(1))));
    assert_eq!(lab.add_real().expect("a third one"), 3);
    let prefix = format!("sl-{}-", lab.run_id());
    let directory = lab.directory().to_owned();
    let sleeper = lab.start("sleeper", {
        let mut command = lab.command_in(Node::Director, "sleep").expect("director");
        command.arg("600");
        command
    });
    let mut sleeper = sleeper.expect("started");
    let pid = sleeper.pid().expect("running");
    // As if its owner had forgotten it.
    sleeper.release();
    drop(lab);
    let left: Vec<_> = std::fs::read_dir("/run/netns")
        .expect("namespaces")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!directory.exists());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn a_kept_cluster_stays_until_it_is_ended() {
    let Some(lab) = cluster(1) else { return };
    let (id, directory) = (lab.run_id().to_owned(), lab.directory().to_owned());
    assert!(lab::run::end(&id).expect_err("still ours").to_string().contains("still going on"));
    lab.keep().expect("kept");
    lab::run::remove_stale().expect("nothing stale");
    let namespace = format!("/run/netns/sl-{id}-client");
    assert!(Path::new(&namespace).exists() && directory.exists());
    lab::run::end(&id).expect("ended");
    assert!(!Path::new(&namespace).exists() && !directory.exists());
}
