//! A SYN flood: 100,000 spoofed SYNs against a table of 1,024 half-open connections, while connections that are established go
//! on and honest clients connect. Counts only.

mod support;

use api::{Status, Verdicts};
use std::net::TcpStream;
use support::{Lab, add_real, add_service, connect, echo, first_real, serve_echo, wait_for};
use testkit::{Frames, Syns};

/// Spoofed SYNs.
const SYNS: u32 = 100_000;
/// How many at a time.
const WAVE: u32 = 2_000;
/// Connections established before.
const BEFORE: usize = 50;
/// Room for half-open connections.
const EMBRYONIC_MAX: &str = "1024";
const DIRECTOR_MAC: &str = "02:00:00:00:00:d1";

#[test]
fn a_flood_of_syns_cuts_no_connection_and_keeps_no_honest_client_out() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    lab.director.ip(&format!("link set dev eth0 address {DIRECTOR_MAC}")).expect("MAC");
    serve_echo(&lab.servers[0]);
    let daemon = lab.start_with(&["--embryonic-flows-max", EMBRYONIC_MAX]);
    for change in [add_service(), add_real()] {
        assert_eq!(daemon.change(change).refusals, [None]);
    }
    wait_for("the next hop", || first_real(&daemon).neighbour);
    let mut before: Vec<TcpStream> = (0..BEFORE).map(|_| connect(&lab.client)).collect();
    before.iter_mut().for_each(|stream| echo(stream, b'a'));

    let frames = lab.client.run(|| Frames::open("eth0")).expect("inside").expect("packet socket");
    let mut syns = Syns::new(DIRECTOR_MAC, "192.0.2.10", 8080);
    let mut honest = Vec::new();
    // Each wave is more than the table holds. Between two of them a client connects: while a handshake is under way, a
    // half-open connection lives for as long as it takes the flood to fill the table.
    for _ in 0..SYNS / WAVE {
        syns.send(&frames, WAVE).expect("the link");
        before.iter_mut().for_each(|stream| echo(stream, b'b'));
        let mut stream = connect(&lab.client);
        echo(&mut stream, b'h');
        honest.push(stream);
    }
    // All of them, those that came in the flood included, go on after it.
    before.iter_mut().chain(&mut honest).for_each(|stream| echo(stream, b'c'));

    let verdicts: Verdicts = daemon.get("/v1/verdicts");
    let packets = |name: &str| verdicts.verdicts.iter().find(|it| it.name == name).map_or(0, |it| it.packets);
    let opened = u64::from(SYNS) + (BEFORE + honest.len()) as u64;
    // Of two packets that meet the same free place in the table, one may be refused: its client asks again.
    assert!(packets("forward_new") + packets("drop_flow_table") >= opened, "{verdicts:?}");
    assert_eq!(packets("forward_table_full") + packets("forward_stateless"), 0, "{verdicts:?}");
    let established = (BEFORE + honest.len()) as u64;
    let status = wait_for("the sweep to count", || {
        let status: Status = daemon.get("/v1/status");
        (status.established_flows == established && status.embryonic_flows > 0).then_some(status)
    });
    let limit: u64 = EMBRYONIC_MAX.parse().expect("a number");
    assert!(status.embryonic_flows <= limit, "{} half-open connections", status.embryonic_flows);
    eprintln!(
        "{SYNS} spoofed SYNs, room for {limit}: {BEFORE} of {BEFORE} established connections went on, {} of {} honest clients got in",
        honest.len(),
        honest.len()
    );
}
