//! The daemon as a process, in namespaces, with real TCP connections: a client, a director and a server on one switch.
//!
//! Needs root. Everything is made by the test and goes with it.

mod support;

use api::{
    Change, Changes, Connections, ExplainRequest, Explanation, Outcomes, Protocol, ServiceId, Services,
    Status, Verdicts,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Lab, REAL, VIP, WAIT, add_real, add_service, connect, echo, first_real, serve_echo, wait_for};

#[test]
fn flows_live_through_kill_and_restart() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    serve_echo(&lab.servers[0]);
    let mut daemon = lab.start();
    assert_eq!(daemon.change(add_service()).refusals, [None]);
    assert_eq!(daemon.change(add_real()).refusals, [None]);
    let neighbour = wait_for("the next hop", || first_real(&daemon).neighbour);
    assert!(neighbour.ends_with(" dev eth0"), "{neighbour}");

    let mut first = connect(&lab.client);
    echo(&mut first, b'a');
    assert_eq!(first_real(&daemon).active, 1);

    // Dead: the flow goes on, and new ones are scheduled.
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    echo(&mut first, b'b');
    let mut second = connect(&lab.client);
    echo(&mut second, b'c');

    let mut daemon = lab.start();
    let status: Status = daemon.get("/v1/status");
    assert!(status.adopted);
    assert_eq!((status.generation, status.interfaces.len()), (2, 1));
    assert_eq!(status.interfaces[0].mode, "native");
    echo(&mut first, b'd');
    echo(&mut second, b'e');
    let real = first_real(&daemon);
    assert_eq!((real.active, real.inactive), (2, 0));
    assert!(real.neighbour.is_some(), "the next hop was not forgotten");

    let page: Connections = daemon.get("/v1/connections");
    assert_eq!(page.next_cursor.map(|_| page.connections.len()).unwrap_or(2), 2);
    for connection in &page.connections {
        assert_eq!((connection.state.as_str(), connection.embryonic), ("ESTABLISHED", false));
        assert_eq!(connection.real.to_string(), REAL);
    }
    let verdicts: Verdicts = daemon.get("/v1/verdicts");
    let packets = |name: &str| verdicts.verdicts.iter().find(|it| it.name == name).map(|it| it.packets);
    assert_eq!(packets("forward_new"), Some(2));
    assert!(packets("forward_known").is_some_and(|known| known >= 8), "{verdicts:?}");
    let drops: u64 =
        verdicts.verdicts.iter().filter(|it| it.number >= 32 && it.number < 48).map(|it| it.packets).sum();
    assert_eq!(drops, 0, "{verdicts:?}");

    let ended = daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(ended.success());
    echo(&mut first, b'f');
    for gone in ["director.sock", "director.sock.lock", "state/lock"] {
        assert!(!lab.path(gone).exists(), "{gone} is left");
    }

    let removed = lab.run_to_end(&["--remove"]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert!(!lab.path("bpffs/sluice").exists());
    first.set_read_timeout(Some(Duration::from_millis(500))).expect("time-out");
    first.write_all(b"g").expect("into the void");
    assert!(first.read(&mut [0]).is_err(), "nobody balances any more");
}

#[test]
fn a_second_director_is_refused_with_the_process_id_of_the_first() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let daemon = lab.start();
    let pid = daemon.child.id();
    for words in [&["-i", "eth0"][..], &["--remove"][..]] {
        let refused = lab.run_to_end(words);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("is locked by process {pid}")), "{text}");
    }
    // Another pin directory, socket and state: still the same interface.
    let [pin, socket, state] = ["bpffs/other", "other.sock", "other"]
        .map(|place| lab.path(place).to_str().expect("text").to_owned());
    let words = ["-i", "eth0", "--pin", &pin, "--socket", &socket, "--state", &state];
    let refused = lab.run_to_end(&words);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("interface eth0 has another XDP program already: program director"), "{text}");
    assert!(text.contains(&format!("of process {pid} (director)")), "{text}");
    assert!(!lab.path("bpffs/other").exists(), "nothing of it is left");
    let status: Status = daemon.get("/v1/status");
    assert_eq!(status.pid, pid);
}

#[test]
fn bad_starts_say_what_is_wrong_and_leave_nothing() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let no_bpffs = lab.path("no-bpffs");
    let no_bpffs = no_bpffs.to_str().expect("text").to_owned();
    std::fs::create_dir_all(lab.path("state")).expect("directory");
    let file = lab.path("file");
    std::fs::write(&file, "precious").expect("write");
    let file = file.to_str().expect("text").to_owned();
    let cases: [(&[&str], &str); 6] = [
        (&["-i", "eth0", "--state", &file], "cannot make the directory "),
        (&["-i", "eth0", "--state", "/proc/state"], "cannot make the directory /proc/state: "),
        (&["-i", "eth0", "--socket", &file], "it is there and not a socket"),
        (&["-i", "eth0", "--secret-file", &file], "is no secret: expected 64 hexadecimal digits"),
        (&["-i", "eth9"], "there is no interface 'eth9'; there are: lo, eth0"),
        (&["-i", "eth0", "--pin", &no_bpffs], "is not on a bpffs: mount one with `mount -t bpf bpf "),
    ];
    for (words, expected) in cases {
        let refused = lab.run_to_end(words);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!lab.path("bpffs/sluice").exists() && !lab.path("director.sock").exists());
    }
    assert_eq!(std::fs::read_to_string(&file).expect("read"), "precious");
    // Directories it had to make go again.
    let [socket, state] =
        ["new/run/s", "new/state"].map(|place| lab.path(place).to_str().expect("text").to_owned());
    for words in [["-i", "eth9"], ["--pin", &no_bpffs]] {
        let refused =
            lab.run_to_end(&[&words[..], &["-i", "eth0", "--socket", &socket, "--state", &state]].concat());
        assert_eq!(refused.status.code(), Some(1));
        assert!(!lab.path("new").exists(), "{words:?}");
    }
    // Root without its capabilities.
    let full = lab.command(&["-i", "eth0"]);
    let mut unprivileged = Command::new("setpriv");
    unprivileged.arg("--bounding-set=-all").arg(full.get_program()).args(full.get_args());
    let refused = unprivileged.output().expect("run");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(
        text.contains(
            "no permission: this needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        ),
        "{text}"
    );

    std::fs::write(lab.path("state/model.json"), "{").expect("write");
    let refused = lab.run_to_end(&["-i", "eth0"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("cannot understand") && text.contains("model.json"), "{text}");
    assert!(!lab.path("bpffs/sluice").exists());
}

#[test]
fn garbage_harms_nobody_and_what_a_killed_director_left_is_removed() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let mut daemon = lab.start();
    let garbage: [&[u8]; 4] = [
        &[0; 300],
        b"nonsense\r\n\r\n",
        b"POST /v1/changes HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
        b"POST /v1/changes HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\xff\xfe{[",
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(lab.path("director.sock")).expect("connect");
        stream.set_read_timeout(Some(WAIT)).expect("time-out");
        stream.write_all(bytes).expect("write");
        stream.shutdown(std::net::Shutdown::Write).expect("end of the words");
        let mut answer = Vec::new();
        // It may close before it has read everything, which the kernel calls a reset; and when it sees the end of the words
        // before it has answered, it need not answer any more.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(daemon.get::<Status>("/v1/status").generation, 0);

    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(lab.path("bpffs/sluice").exists() && lab.path("director.sock").exists());
    let removed = lab.run_to_end(&["--remove"]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    for gone in ["bpffs/sluice", "director.sock", "director.sock.lock"] {
        assert!(!lab.path(gone).exists(), "{gone}");
    }
    assert!(lab.run_to_end(&["--remove"]).status.success(), "nothing to remove is no error");
}

#[test]
fn the_model_is_edited_and_explained() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let daemon = lab.start();
    // Refused as a whole, and nothing is changed.
    let changes = Changes { atomic: true, changes: vec![add_service(), add_service(), add_real()] };
    let outcomes: Outcomes = daemon.client.post("/v1/changes", &changes).expect("answer");
    assert_eq!(outcomes.generation, 0);
    let kinds: Vec<_> = outcomes.refusals.iter().map(|it| it.as_ref().map(|it| it.kind)).collect();
    use api::RefusalKind::{Aborted, ServiceExists};
    assert_eq!(kinds, [Some(Aborted), Some(ServiceExists), Some(Aborted)]);
    // In part: the good ones stand.
    let changes = Changes { atomic: false, ..changes };
    let outcomes: Outcomes = daemon.client.post("/v1/changes", &changes).expect("answer");
    assert_eq!((outcomes.generation, outcomes.refusals.iter().flatten().count()), (1, 1));
    wait_for("the next hop", || first_real(&daemon).neighbour);
    // The number in the first line of listings.
    assert_eq!(daemon.get::<Services>("/v1/services").connection_table_size, 4096);

    let question = ExplainRequest {
        protocol: Protocol::Tcp,
        client: "192.0.2.1:4000".parse().expect("address"),
        virtual_address: VIP.parse().expect("address"),
    };
    let told: Explanation = daemon.client.post("/v1/explain", &question).expect("answer");
    assert_eq!((told.verdict.as_str(), told.real), ("forward_new", REAL.parse().ok()), "{told:?}");
    assert!(told.steps.iter().any(|step| step.contains("scheduler rr and 1 real servers")), "{told:?}");
    let elsewhere = ExplainRequest { virtual_address: "192.0.2.77:1".parse().expect("address"), ..question };
    let told: Explanation = daemon.client.post("/v1/explain", &elsewhere).expect("answer");
    assert_eq!((told.verdict.as_str(), told.real), ("pass_not_vip", None), "{told:?}");
    let by_udp = ExplainRequest { protocol: Protocol::Udp, ..question };
    let told: Explanation = daemon.client.post("/v1/explain", &by_udp).expect("answer");
    assert_eq!(told.verdict, "pass_no_service");
    assert!(told.steps.contains(&format!("no UDP service on {VIP}")), "{told:?}");
    let mixed = ExplainRequest { client: "[2001:db8::1]:1".parse().expect("address"), ..question };
    let error = daemon.client.post::<_, Explanation>("/v1/explain", &mixed).expect_err("two families");
    assert!(runtime::Chain(&error).to_string().contains("different address families"), "{error:?}");
    let error = daemon.client.get::<Status>("/v1/nowhere").expect_err("no such path");
    assert!(runtime::Chain(&error).to_string().contains("there is no /v1/nowhere"), "{error:?}");
    let error = daemon.client.post::<_, Outcomes>("/v1/changes", &7).expect_err("no changes");
    assert!(runtime::Chain(&error).to_string().contains("the request body"), "{error:?}");
}

/// A UDP service beside the TCP one, on the same VIP and port.
fn add_udp() -> [Change; 2] {
    let vip: SocketAddr = VIP.parse().expect("address");
    let id = ServiceId::Address { protocol: Protocol::Udp, address: vip.ip(), port: vip.port() };
    match (add_service(), add_real()) {
        (Change::AddService { spec, .. }, Change::AddReal { real, spec: real_spec, .. }) => {
            [Change::AddService { service: id, spec }, Change::AddReal { service: id, real, spec: real_spec }]
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn not_one_datagram_is_lost_while_director_and_programs_are_replaced() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let mut daemon = lab.start();
    for change in add_udp() {
        assert_eq!(daemon.change(change).refusals, [None]);
    }
    wait_for("the next hop", || first_real(&daemon).neighbour);
    let server = lab.servers[0].run(|| UdpSocket::bind(VIP)).expect("inside").expect("bind");
    server.set_read_timeout(Some(Duration::from_secs(2))).expect("time-out");
    // On a busy machine the receiver has to wait for a processor longer than the usual buffer lasts.
    nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20))
        .expect("buffer");
    let client = lab.client.run(|| UdpSocket::bind("192.0.2.1:0")).expect("inside").expect("bind");
    client.connect(VIP).expect("connect");

    let over = AtomicBool::new(false);
    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut count = 0_u64;
            // Ends two seconds after the last datagram.
            while server.recv(&mut [0; 8]).is_ok() {
                count += 1;
            }
            count
        });
        let sender = scope.spawn(|| {
            let mut count = 0_u64;
            while !over.load(Ordering::Relaxed) {
                client.send(&count.to_be_bytes()).expect("send");
                count += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            count
        });
        std::thread::sleep(Duration::from_millis(300));
        for round in 0..3 {
            daemon.signal(nix::sys::signal::Signal::SIGKILL);
            // Without this pin the next director has to exchange the programs of the attached interface.
            std::fs::remove_file(lab.path("bpffs/sluice/programs/schedule")).expect("unpin");
            daemon = lab.start();
            assert!(daemon.get::<Status>("/v1/status").adopted, "round {round}");
        }
        over.store(true, Ordering::Relaxed);
        (sender.join().expect("sender"), receiver.join().expect("receiver"))
    });
    assert!(sent > 300, "{sent}");
    assert_eq!(received, sent);
}

#[test]
fn a_new_hardware_address_of_a_server_is_followed() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    serve_echo(&lab.servers[0]);
    let daemon = lab.start();
    assert_eq!(daemon.change(add_service()).refusals, [None]);
    assert_eq!(daemon.change(add_real()).refusals, [None]);
    wait_for("the next hop", || first_real(&daemon).neighbour);
    let mut stream = connect(&lab.client);
    echo(&mut stream, b'a');
    // As a server replaced by another does: it announces its address.
    lab.servers[0]
        .run(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/arp_notify", "1").expect("arp_notify"))
        .expect("inside");
    lab.servers[0].ip("link set dev eth0 address 02:00:00:00:77:01").expect("address");
    wait_for("the new address", || {
        first_real(&daemon).neighbour.filter(|it| it.starts_with("02:00:00:00:77:01 "))
    });
    echo(&mut stream, b'b');
    let mut another = connect(&lab.client);
    echo(&mut another, b'c');
}
