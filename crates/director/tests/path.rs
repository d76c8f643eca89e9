//! Path checks end to end: what a cluster file declares finds out a server that lost its VIP, and takes it back.

mod support;

use api::{Applied, ApplyRequest, HealthView, RealHealthView, Services, Standing};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::{Daemon, Lab, real, wait_for};
use testkit::NetNs;

const FILE: &str = r#"
[server.web1]
address = "192.0.2.3"
[server.web2]
address = "192.0.2.4"

[check.way]
type = "path"
interval = "200ms"
timeout = "800ms"
rise = 1
fall = 2

[service.www]
vip = "192.0.2.10"
ports = "tcp/8080"
scheduler = "rr"
checks = "way"
servers = ["web1", "web2"]
"#;

fn health(daemon: &Daemon, place: u8) -> RealHealthView {
    let view: HealthView = daemon.get("/v1/health");
    let reals = view.services.into_iter().flat_map(|it| it.reals);
    reals.into_iter().find(|it| it.real == real(place)).expect("a real server that is examined")
}

fn wait_until(daemon: &Daemon, place: u8, standing: Standing) -> RealHealthView {
    wait_for(standing.name(), || Some(health(daemon, place)).filter(|it| it.standing == standing))
}

fn listen(netns: &NetNs) -> TcpListener {
    netns.run(|| TcpListener::bind("0.0.0.0:8080")).expect("inside").expect("listen")
}

fn in_packet_path(daemon: &Daemon) -> usize {
    daemon.get::<Services>("/v1/services").services[0].reals.len()
}

#[test]
fn a_server_that_lost_its_vip_gets_no_work_until_it_has_it_again() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    let _listeners: Vec<TcpListener> = lab.servers.iter().map(listen).collect();
    let daemon = lab.start();
    let request = ApplyRequest {
        name: "web.toml".to_owned(),
        text: FILE.to_owned(),
        confirm_s: None,
        expect_generation: None,
    };
    let _: Applied = daemon.client.post("/v1/apply", &request).expect("applied");
    wait_until(&daemon, 0, Standing::Up);
    wait_until(&daemon, 1, Standing::Up);

    // The server itself answers as before; only packets for the VIP are lost on it.
    lab.servers[1].ip("addr del 192.0.2.10/32 dev lo").expect("VIP taken off");
    let down = wait_until(&daemon, 1, Standing::Down);
    let begin = "path check of 192.0.2.4:8080: nobody answered for VIP 192.0.2.10 at 192.0.2.4 (";
    assert!(down.reason.starts_with(begin), "{}", down.reason);
    assert!(down.reason.contains("look whether the VIP is on its loopback"), "{}", down.reason);
    assert_eq!(in_packet_path(&daemon), 1);

    // As a router it sends what it gets for the VIP back to the director, whose other server must not answer for it.
    let server = &lab.servers[1];
    let route = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
    server.run(route).expect("inside").expect("a router");
    server.ip("route add 192.0.2.10/32 dev eth0 via 192.0.2.2").expect("a route");
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert_eq!(health(&daemon, 1).standing, Standing::Down);
        std::thread::sleep(Duration::from_millis(50));
    }
    server.ip("route del 192.0.2.10/32").expect("no route");

    server.ip("addr add 192.0.2.10/32 dev lo").expect("the VIP again");
    wait_until(&daemon, 1, Standing::Up);
    assert_eq!(in_packet_path(&daemon), 2);
}
