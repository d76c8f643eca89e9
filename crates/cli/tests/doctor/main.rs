//! `sluice doctor` beside a running director: each mistake is made in a cluster of namespaces, found, put right, and gone.

mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testkit::{Frames, NetNs};
use world::{FILE, World, ip, write};

#[test]
fn a_healthy_cluster_has_no_findings() {
    let Some(world) = World::start(FILE, &[]) else { return };
    // Neighbour entries of IPv6 may take a moment.
    world.is_healthy("path");
    let output = world.doctor(&[]);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.ends_with("14 examinations: 0 errors, 0 warnings\n"), "{said}");
    assert!(said.contains("asking who has the VIPs ..."), "{said}");
}

#[test]
fn who_else_answers_for_a_vip_is_found() {
    let Some(world) = World::start(FILE, &[]) else { return };
    world.is_healthy("arp");
    let server = &world.servers[0];
    // The classic: a server that answers for every address that it has.
    write(server, "ipv4/conf/all/arp_ignore", "0");
    world.finds("arp", &["error arp 192.0.2.10: real server 192.0.2.3 ("]);
    let (findings, _) = world.examine(&["arp"]);
    assert!(findings[0].contains("on 192.0.2.3: sysctl -w net.ipv4.conf.all.arp_ignore=1"), "{findings:?}");
    write(server, "ipv4/conf/all/arp_ignore", "1");
    // The same of IPv6 is a VIP on the wrong interface.
    ip(server, "addr add 2001:db8::10/128 dev eth0 nodad");
    world.finds("arp", &["error arp 2001:db8::10: real server 2001:db8::3 ("]);
    ip(server, "addr del 2001:db8::10/128 dev eth0");
    // A machine that has no business with it.
    ip(&world.client, "addr add 192.0.2.10/32 dev eth0");
    world.finds("arp", &["which is no real server, answers ARP for it on eth0"]);
    ip(&world.client, "addr del 192.0.2.10/32 dev eth0");
    world.is_healthy("arp");
    ip(&world.director, "addr del 192.0.2.10/32 dev eth0");
    world.finds("arp", &["nobody answers ARP for it on eth0, of whose network it is"]);
}

/// Whether this kernel has VLAN interfaces.
fn has_vlans() -> bool {
    let probe = NetNs::new("pr").expect("namespace");
    ip(&probe, "link add br0 type bridge");
    probe.ip("link add link br0 name br0.7 type vlan id 7").is_ok()
}

#[test]
fn who_else_answers_in_a_vlan_above_an_attached_interface_is_found() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    if testkit::vm::is_inside() {
        let modules = "modprobe -a bridge veth 8021q";
        let done = Command::new("sh").args(["-c", modules]).status().expect("sh");
        assert!(done.success(), "{modules}: {done}");
    }
    if !has_vlans() {
        let played = testkit::vm::play("who_else_answers_in_a_vlan_above_an_attached_interface_is_found");
        if let Err(reason) = played {
            testkit::skip!("no VLAN interfaces in this kernel, and {reason}");
        }
        return;
    }
    let Some(world) = World::start(FILE, &[]) else { return };
    let server = &world.servers[0];
    for netns in [&world.director, server] {
        ip(netns, "link add link eth0 name eth0.7 type vlan id 7");
        ip(netns, "link set eth0.7 up");
    }
    // Clients of this VIP are in the VLAN; a second tag is nothing else.
    ip(&world.director, "addr add 198.51.100.2/24 dev eth0.7");
    ip(&world.director, "link add link eth0.7 name eth0.7.8 type vlan id 8");
    ip(&world.director, "link set eth0.7.8 up");
    ip(server, "addr add 198.51.100.10/32 dev lo");
    world.ipvsadm("-A -t 198.51.100.10:8080");
    world.ipvsadm("-a -t 198.51.100.10:8080 -r 192.0.2.3 -g");
    let nobody = "error arp 198.51.100.10: nobody answers ARP for it on eth0.7, of whose network it is";
    world.finds("arp", &[nobody]);
    ip(&world.director, "addr add 198.51.100.10/32 dev eth0.7");
    world.is_healthy("arp");
    // It keeps quiet without a tag, and answers for every address that it has in the VLAN.
    write(server, "ipv4/conf/eth0/arp_ignore", "1");
    write(server, "ipv4/conf/all/arp_ignore", "0");
    // For the VIP of the network without a tag as well as for that of the VLAN.
    world.finds("arp", &[") answers ARP for it on eth0.7: "; 2]);
    write(server, "ipv4/conf/all/arp_ignore", "1");
    world.is_healthy("arp");
}

#[test]
fn a_server_without_the_vip_the_port_or_the_tunnel_is_found() {
    let Some(mut world) = World::start(FILE, &[]) else { return };
    world.is_healthy("path");
    let server = &world.servers[1];
    ip(server, "addr del 192.0.2.10/32 dev lo");
    ip(server, "addr del 2001:db8::10/128 dev lo");
    world.finds(
        "path",
        &[
            "TCP 192.0.2.10:8080 at 192.0.2.4: nobody answers for VIP 192.0.2.10 there",
            "TCP [2001:db8::10]:8080 at 2001:db8::4: nobody answers for VIP 2001:db8::10 there",
        ],
    );
    let (findings, _) = world.examine(&["path"]);
    assert!(findings[0].contains("=> on 192.0.2.4: ip addr add 192.0.2.10/32 dev lo"), "{findings:?}");
    ip(server, "addr add 192.0.2.10/32 dev lo");
    ip(server, "addr add 2001:db8::10/128 dev lo nodad");
    world.is_healthy("path");
    // No tunnel ends there.
    world.ipvsadm("-A -t 192.0.2.10:9000");
    world.ipvsadm("-a -t 192.0.2.10:9000 -r 192.0.2.3 -i");
    world.finds("path", &["nobody answers for VIP 192.0.2.10 through the tunnel"]);
    world.ipvsadm("-D -t 192.0.2.10:9000");
    world.close();
    let refused = "the server refuses connections to the VIP";
    world.finds("path", &[refused; 4]);
}

#[test]
fn replies_that_go_another_way_and_unfinished_checksums_are_found() {
    let Some(world) = World::start(FILE, &[]) else { return };
    world.is_healthy("way-back");
    let inside = &world.inside;
    ip(inside, "route del default");
    world.finds(
        "way-back",
        &["error way-back 10.0.0.9: its answers to clients do not come through this machine"],
    );
    let done = world.doctor(&["--only", "way-back"]);
    assert!(String::from_utf8_lossy(&done.stdout).contains("    fix: on 10.0.0.9: ip route replace default"));
    // Full NAT needs no such way.
    world.sluice("policy tcp 192.0.2.10:8081 --source-nat on");
    world.is_healthy("way-back");
    world.sluice("policy tcp 192.0.2.10:8081 --source-nat off");
    ip(inside, "route add default via 10.0.0.1");
    world.is_healthy("way-back");

    // A link whose far end leaves checksums to a card that is not there.
    world.is_healthy("offload");
    let set = |value: &'static str| {
        let run = || Command::new("ethtool").args(["-K", "eth0", "tx", value]).output();
        assert!(inside.run(run).expect("inside").expect("ethtool").status.success());
    };
    set("on");
    world.finds("offload", &["error offload 10.0.0.9: its packets come with unfinished checksums"]);
    set("off");
    world.is_healthy("offload");
}

#[test]
fn settings_of_this_machine_that_are_in_the_way_are_found() {
    let Some(world) = World::start(FILE, &[]) else { return };
    let director = &world.director;
    world.is_healthy("forwarding");
    write(director, "ipv4/ip_forward", "0");
    world.finds("forwarding", &["=> sysctl -w net.ipv4.ip_forward=1"]);
    write(director, "ipv4/ip_forward", "1");
    world.is_healthy("forwarding");

    // Clients from afar come by the switch, and the way to them is a link of its own.
    ip(director, "route del default");
    director.veth("mgmt", &world.switch, "other").expect("veth");
    ip(director, "addr add 203.0.113.2/24 dev mgmt");
    ip(director, "route add default via 203.0.113.1");
    world.is_healthy("rp-filter");
    write(director, "ipv4/conf/eth0/rp_filter", "1");
    world.finds("rp-filter", &["=> sysctl -w net.ipv4.conf.eth0.rp_filter=2"]);
    write(director, "ipv4/conf/eth0/rp_filter", "2");
    world.is_healthy("rp-filter");

    let secret = world.path("state/secret");
    world.is_healthy("secret");
    let mode = |mode| std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).expect("mode");
    mode(0o644);
    world.finds("secret", &[&format!("=> chmod 600 {}", secret.display())]);
    mode(0o600);
    world.is_healthy("secret");
}

#[test]
fn links_that_are_down_and_servers_that_are_not_there_are_found() {
    let Some(world) = World::start(FILE, &[]) else { return };
    world.is_healthy("interface");
    ip(&world.switch, "link set p2 down");
    world.finds("interface", &["error interface eth0: the interface is up, but its other end is not"]);
    ip(&world.switch, "link set p2 up");
    ip(&world.director, "link set eth1 down");
    world.finds("interface", &["=> ip link set eth1 up"]);
    ip(&world.director, "link set eth1 up");
    world.is_healthy("interface");

    world.is_healthy("neighbour");
    world.is_healthy("service");
    world.ipvsadm("-A -t 192.0.2.10:9000");
    world.finds("service", &["error service TCP 192.0.2.10:9000: the service has no real servers"]);
    world.ipvsadm("-a -t 192.0.2.10:9000 -r 192.0.2.77 -g -w 0");
    world.finds("service", &["no real server of this service may get work"]);
    world.finds("neighbour", &["error neighbour 192.0.2.77: no MAC address is known for this real server"]);
    let (findings, missed) = world.examine(&["path"]);
    assert_eq!((findings, missed.len()), (vec![], 1), "{missed:?}");
    assert!(missed[0].starts_with("no MAC address is known for 192.0.2.77"), "{missed:?}");
    world.ipvsadm("-D -t 192.0.2.10:9000");
    world.is_healthy("service");
    world.is_healthy("neighbour");
}

#[test]
fn a_tunnel_that_is_too_narrow_is_found() {
    let Some(world) = World::start(FILE, &[]) else { return };
    world.is_healthy("mtu");
    // A link with room for the tunnel's header.
    let wide = NetNs::new("wi").expect("namespace");
    world.director.veth("eth2", &wide, "eth0").expect("veth");
    ip(&world.director, "addr add 10.0.1.1/24 dev eth2");
    ip(&wide, "addr add 10.0.1.9/24 dev eth0");
    for netns in [(&world.director, "eth2"), (&wide, "eth0")] {
        ip(netns.0, &format!("link set {} mtu 1520", netns.1));
    }
    world.ipvsadm("-A -t 192.0.2.10:9000");
    world.ipvsadm("-a -t 192.0.2.10:9000 -r 10.0.1.9 -i");
    world.is_healthy("mtu");
    ip(&world.director, "link set eth2 mtu 1500");
    world.finds(
        "mtu",
        &["warning mtu 10.0.1.9: packets of 1500 bytes do not fit its tunnel, which takes 1480"],
    );
}

/// A machine that answers ARP and ICMP timestamps, and whose clock is five seconds ahead.
fn fast_clock(netns: &NetNs, end: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let frames = netns.run(|| Frames::open("eth0")).expect("inside").expect("a link");
    let end = Arc::clone(end);
    let own = [192, 0, 2, 88];
    let mac = [2, 0, 0, 0, 0, 88];
    std::thread::spawn(move || {
        let is_arp =
            |frame: &[u8]| frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == own;
        let is_question = |frame: &[u8]| {
            frame[12..14] == [8, 0] && frame[23] == 1 && frame[30..34] == own && frame[34] == 13
        };
        while !end.load(Ordering::Relaxed) {
            let wanted = |frame: &[u8]| frame.len() >= 42 && (is_arp(frame) || is_question(frame));
            let Some(asked) = frames.receive(Duration::from_millis(50), wanted).expect("frames") else {
                continue;
            };
            let mut answer = asked.clone();
            answer[..6].copy_from_slice(&asked[6..12]);
            answer[6..12].copy_from_slice(&mac);
            if is_arp(&asked) {
                answer[21] = 2;
                answer[22..28].copy_from_slice(&mac);
                answer[28..32].copy_from_slice(&own);
                answer[32..42].copy_from_slice(&asked[22..32]);
            } else {
                answer[26..30].copy_from_slice(&asked[30..34]);
                answer[30..34].copy_from_slice(&asked[26..30]);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date").as_millis();
                let ahead = ((now + 5_000) % 86_400_000) as u32;
                for at in [46, 50] {
                    answer[at..at + 4].copy_from_slice(&ahead.to_be_bytes());
                }
                answer[34] = 14;
                answer[36..38].fill(0);
                let sum = testkit::packet::checksum::internet(&[&answer[34..54]]);
                answer[36..38].copy_from_slice(&sum.to_be_bytes());
            }
            frames.send(&answer).expect("sent");
        }
    })
}

#[test]
fn a_clock_that_is_off_is_found() {
    let Some(world) = World::start(FILE, &[]) else { return };
    world.is_healthy("clock");
    let odd = NetNs::new("od").expect("namespace");
    world.switch.veth("p9", &odd, "eth0").expect("veth");
    ip(&world.switch, "link set p9 master br0");
    let end = Arc::new(AtomicBool::new(false));
    let answering = fast_clock(&odd, &end);
    world.ipvsadm("-A -t 192.0.2.10:9000");
    world.ipvsadm("-a -t 192.0.2.10:9000 -r 192.0.2.88 -g");
    // What both machines took for the answer counts, too.
    world.finds("clock", &["warning clock 192.0.2.88: its clock is "]);
    let (findings, _) = world.examine(&["clock"]);
    end.store(true, Ordering::Relaxed);
    answering.join().expect("the odd machine");
    let seconds = findings[0].split("clock is ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds: f64 = seconds.and_then(|text| text.parse().ok()).expect("seconds");
    assert!(
        (3.0..7.0).contains(&seconds) && findings[0].contains("s ahead of this machine's"),
        "{findings:?}"
    );
}

#[test]
fn generic_mode_is_found() {
    let Some(mut world) = World::without_director() else { return };
    ip(&world.director, "link add br9 type bridge");
    world.serve(&["-i", "br9"]);
    world.finds("xdp", &["warning xdp br9: its driver has no native XDP"]);
}

#[test]
fn a_table_that_fills_up_is_found() {
    let Some(world) = World::start(FILE, &["--established-flows-max", "40"]) else { return };
    world.is_healthy("limits");
    world.ipvsadm("-A -u 192.0.2.10:53");
    world.ipvsadm("-a -u 192.0.2.10:53 -r 192.0.2.3 -g");
    world.is_healthy("neighbour");
    world.send_datagrams("192.0.2.10:53", 60);
    world.finds("limits", &["of 40 established flows are used => sluice director --remove"]);
}

#[test]
fn what_may_not_be_examined_is_said_and_so_is_another_network() {
    let Some(world) = World::start(FILE, &[]) else { return };
    // As root without any capability.
    let words =
        ["--bounding-set=-all", env!("CARGO_BIN_EXE_sluice"), "doctor", "--only", "arp", "--only", "clock"];
    let mut command = Command::new("setpriv");
    command.args(words).env("SLUICE_SOCKET", world.path("director.sock"));
    let output = world.director.run(move || command.output()).expect("inside").expect("setpriv");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let line = "not examined: arp: asking on eth0 needs CAP_NET_RAW: run this as root";
    assert!(said.lines().any(|it| it == line), "{said}");
    assert!(said.contains("not examined: clock: asking on raw sockets of ICMP needs CAP_NET_RAW"), "{said}");

    // Who may see where the director is, and who may not, but sees that its second interface is not here.
    for program in [vec!["env"], vec!["setpriv", "--bounding-set=-all"]] {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args([env!("CARGO_BIN_EXE_sluice"), "doctor"]);
        command.env("SLUICE_SOCKET", world.path("director.sock"));
        let output = world.client.run(move || command.output()).expect("inside").expect("sluice");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("the director is in another network namespace"), "{said}");
    }
}
