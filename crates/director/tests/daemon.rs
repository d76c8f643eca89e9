//! The daemon as a process, in namespaces, with real TCP connections: a client, a director and a server on one switch.
//!
//! Needs root. Everything is made by the test and goes with it.

use api::{
    Change, Changes, Connections, ExplainRequest, Explanation, Forwarding, Outcomes, Protocol, RealId,
    RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Services, Status, Tunnel, Verdicts,
};
use runtime::control::Client;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::netns::NetNs;

const VIP: &str = "192.0.2.10:8080";
const REAL: &str = "192.0.2.3:8080";
const WAIT: Duration = Duration::from_secs(20);

/// Polls until the closure gives something.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Three machines on a switch, a bpffs, and directories.
struct Lab {
    directory: tempfile::TempDir,
    client: NetNs,
    director: NetNs,
    server: NetNs,
    _switch: NetNs,
    /// Pass programs at the far ends of the links: without them a veth delivers nothing that XDP sends.
    _pass: Vec<OwnedFd>,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bpffs = directory.path().join("bpffs");
        std::fs::create_dir(&bpffs).expect("directory");
        nix::mount::mount(Some("bpf"), &bpffs, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
            .expect("mount a bpffs");
        let new = |name| NetNs::new(name).expect("namespace");
        let (switch, client, director, server) = (new("sw"), new("cl"), new("di"), new("se"));
        let ip = |netns: &NetNs, words: &str| netns.ip(words).expect(words);
        ip(&switch, "link add br0 type bridge");
        ip(&switch, "link set br0 up");
        let mut pass = Vec::new();
        for (number, netns) in [(1, &client), (2, &director), (3, &server)] {
            let port = format!("p{number}");
            switch.veth(&port, netns, "eth0").expect("veth");
            ip(&switch, &format!("link set {port} master br0"));
            ip(netns, &format!("addr add 192.0.2.{number}/24 dev eth0"));
            let attached = switch.run(|| kernel::attach_pass(&port)).expect("inside").expect("pass program");
            pass.push(attached.0);
        }
        ip(&director, "addr add 192.0.2.10/32 dev eth0");
        server
            .run(|| {
                for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "0")] {
                    std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).expect(key);
                }
            })
            .expect("inside");
        ip(&server, "addr add 192.0.2.10/32 dev lo");
        Self { directory, client, director, server, _switch: switch, _pass: pass }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A director of these words. Pins, socket and state are the lab's own unless the words say otherwise.
    fn command(&self, words: &[&str]) -> Command {
        let test = std::env::current_exe().expect("own path");
        let target = test.parent().and_then(Path::parent).expect("target directory");
        let mut command = Command::new(target.join("examples/director"));
        for (name, place) in [("--pin", "bpffs/sluice"), ("--socket", "director.sock"), ("--state", "state")]
        {
            if !words.contains(&name) {
                command.arg(name).arg(self.path(place));
            }
        }
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn limits() -> [&'static str; 6] {
        ["--reals-max", "256", "--slots-max", "20000", "--established-flows-max", "4096"]
    }

    /// Starts a director and waits until it answers.
    fn start(&self) -> Daemon {
        let child = self.director.run(|| self.command(&Self::limits()).args(["-i", "eth0"]).spawn());
        let daemon = Daemon { child: child.expect("inside").expect("start"), client: self.api() };
        let pid = daemon.child.id();
        wait_for("the director", || {
            daemon.client.get::<Status>("/v1/status").ok().filter(|it| it.pid == pid)
        });
        daemon
    }

    /// Runs a director that is to end by itself.
    fn run_to_end(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        self.director
            .run(move || command.stderr(Stdio::piped()).spawn().and_then(Child::wait_with_output))
            .expect("inside")
            .expect("run")
    }

    fn api(&self) -> Client {
        Client::new(self.path("director.sock"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = kernel::detach_all(&self.path("bpffs/sluice"));
        let _ = nix::mount::umount2(&self.path("bpffs"), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A running director; ended on drop, and killed if it does not.
struct Daemon {
    child: Child,
    client: Client,
}

impl Daemon {
    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        self.client.get(path).unwrap_or_else(|error| panic!("{path}: {}", runtime::Chain(&error)))
    }

    fn change(&self, change: Change) -> Outcomes {
        let changes = Changes { atomic: true, changes: vec![change] };
        self.client.post("/v1/changes", &changes).expect("answer")
    }

    fn signal(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("signal");
        wait_for("the end of the director", || self.child.try_wait().expect("wait"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let deadline = Instant::now() + WAIT;
        // An end that was waited for leaves no process of this number.
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers every byte on any number of connections. The thread ends with the namespace's listener: never, so it is left to
/// the end of the process.
fn serve_echo(netns: &NetNs) {
    let listener = netns.run(|| TcpListener::bind(VIP)).expect("inside").expect("listen");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut byte = [0];
                while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

fn connect(netns: &NetNs) -> TcpStream {
    let address: SocketAddr = VIP.parse().expect("address");
    let stream = netns.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)));
    let stream = stream.expect("inside").expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("time-out");
    stream
}

fn echo(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[byte]).expect("write");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("answer");
    assert_eq!(answer[0], byte);
}

fn service() -> ServiceId {
    let vip: SocketAddr = VIP.parse().expect("address");
    ServiceId::Address { protocol: Protocol::Tcp, address: vip.ip(), port: vip.port() }
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

fn add_real() -> Change {
    let real: SocketAddr = REAL.parse().expect("address");
    let spec = RealSpec {
        forwarding: Forwarding::DirectRouting,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel: Tunnel::Ipip,
    };
    Change::AddReal { service: service(), real: RealId { address: real.ip(), port: real.port() }, spec }
}

fn first_real(daemon: &Daemon) -> api::RealView {
    let services: Services = daemon.get("/v1/services");
    services.services[0].reals[0].clone()
}

#[test]
fn flows_live_through_kill_and_restart() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    serve_echo(&lab.server);
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
    let cases: [(&[&str], &str); 5] = [
        (&["-i", "eth0", "--state", &file], "cannot make the directory "),
        (&["-i", "eth0", "--state", "/proc/state"], "cannot make the directory /proc/state: "),
        (&["-i", "eth0", "--socket", &file], "it is there and not a socket"),
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
        text.contains("no permission: this needs root, or the capabilities CAP_BPF and CAP_NET_ADMIN"),
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
        // It may close before it has read everything, which the kernel calls a reset.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
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
    let server = lab.server.run(|| UdpSocket::bind(VIP)).expect("inside").expect("bind");
    server.set_read_timeout(Some(Duration::from_secs(2))).expect("time-out");
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
    serve_echo(&lab.server);
    let daemon = lab.start();
    assert_eq!(daemon.change(add_service()).refusals, [None]);
    assert_eq!(daemon.change(add_real()).refusals, [None]);
    wait_for("the next hop", || first_real(&daemon).neighbour);
    let mut stream = connect(&lab.client);
    echo(&mut stream, b'a');
    // As a server replaced by another does: it announces its address.
    lab.server
        .run(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/arp_notify", "1").expect("arp_notify"))
        .expect("inside");
    lab.server.ip("link set dev eth0 address 02:00:00:00:77:01").expect("address");
    wait_for("the new address", || {
        first_real(&daemon).neighbour.filter(|it| it.starts_with("02:00:00:00:77:01 "))
    });
    echo(&mut stream, b'b');
    let mut another = connect(&lab.client);
    echo(&mut another, b'c');
}
