//! What the tests of the daemon share: machines in namespaces, the daemon as a process, real TCP connections.
#![allow(dead_code, reason = "each test binary uses another part")]

use api::{
    Change, Changes, Forwarding, Outcomes, Protocol, RealId, RealSpec, SchedulerFlags, ServiceId,
    ServiceSpec, Services, Status, Tunnel,
};
use runtime::control::Client;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use testkit::netns::NetNs;

pub const VIP: &str = "192.0.2.10:8080";
pub const REAL: &str = "192.0.2.3:8080";
pub const WAIT: Duration = Duration::from_secs(20);
/// How long a socket waits.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a datagram that is longer than three links can carry at once.
pub const DATAGRAM: usize = 5_000;

/// Polls until the closure gives something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The daemon's program beside this test. A test run by name does not build it, so that is done here; where there is no
/// cargo, the one that is there is taken.
fn example() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let test = std::env::current_exe().expect("own path");
        let target = test.parent().and_then(Path::parent).expect("target directory");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args([
            "build",
            "--quiet",
            "--offline",
            "--package",
            "sluice-director",
            "--example",
            "director",
        ]);
        build.arg("--target-dir").arg(target.parent().expect("target directory"));
        if target.ends_with("release") {
            build.arg("--release");
        }
        let built = build.stdin(Stdio::null()).status().is_ok_and(|status| status.success());
        let path = target.join("examples/director");
        assert!(built || path.exists(), "cannot build {}", path.display());
        path
    })
}

/// Machines on a switch, a bpffs, and directories.
pub struct Lab {
    pub directory: tempfile::TempDir,
    pub client: NetNs,
    pub director: NetNs,
    /// 192.0.2.3, .4, ...; each has the VIP on its loopback.
    pub servers: Vec<NetNs>,
    _switch: NetNs,
    /// Pass programs at the far ends of the links: without them a veth delivers nothing that XDP sends.
    _pass: Vec<OwnedFd>,
}

impl Lab {
    /// With one server.
    pub fn new() -> Self {
        Self::with_servers(1)
    }

    pub fn with_servers(count: usize) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bpffs = directory.path().join("bpffs");
        std::fs::create_dir(&bpffs).expect("directory");
        nix::mount::mount(Some("bpf"), &bpffs, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
            .expect("mount a bpffs");
        let new = |name| NetNs::new(name).expect("namespace");
        let (switch, client, director) = (new("sw"), new("cl"), new("di"));
        let servers: Vec<NetNs> = (0..count).map(|_| new("se")).collect();
        let ip = |netns: &NetNs, words: &str| netns.ip(words).expect(words);
        ip(&switch, "link add br0 type bridge");
        ip(&switch, "link set br0 up");
        let mut pass = Vec::new();
        for (number, netns) in (1..).zip([&client, &director].into_iter().chain(&servers)) {
            let port = format!("p{number}");
            switch.veth(&port, netns, "eth0").expect("veth");
            ip(&switch, &format!("link set {port} master br0"));
            ip(netns, &format!("addr add 192.0.2.{number}/24 dev eth0"));
            let attached = switch.run(|| kernel::attach_pass(&port)).expect("inside").expect("pass program");
            pass.push(attached.0);
        }
        ip(&director, "addr add 192.0.2.10/32 dev eth0");
        servers.iter().for_each(take_vip);
        Self { directory, client, director, servers, _switch: switch, _pass: pass }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A director of these words. Pins, socket and state are the lab's own unless the words say otherwise.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(example());
        for (name, place) in [("--pin", "bpffs/sluice"), ("--socket", "director.sock"), ("--state", "state")]
        {
            if !words.contains(&name) {
                command.arg(name).arg(self.path(place));
            }
        }
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    pub fn limits() -> [&'static str; 6] {
        ["--reals-max", "256", "--slots-max", "20000", "--established-flows-max", "4096"]
    }

    /// Starts a director and waits until it answers.
    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    /// The same with these words too.
    pub fn start_with(&self, words: &[&str]) -> Daemon {
        let start = || self.command(&Self::limits()).args(["-i", "eth0"]).args(words).spawn();
        let child = self.director.run(start);
        let daemon = Daemon { child: child.expect("inside").expect("start"), client: self.api() };
        let pid = daemon.child.id();
        wait_for("the director", || {
            daemon.client.get::<Status>("/v1/status").ok().filter(|it| it.pid == pid)
        });
        daemon
    }

    /// Runs a director that is to end by itself.
    pub fn run_to_end(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        self.director
            .run(move || command.stderr(Stdio::piped()).spawn().and_then(Child::wait_with_output))
            .expect("inside")
            .expect("run")
    }

    pub fn api(&self) -> Client {
        Client::new(self.path("director.sock"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = kernel::detach_all(&self.path("bpffs/sluice"));
        let _ = nix::mount::umount2(&self.path("bpffs"), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// As a real server of direct routing does: the VIP is its own, and it does not say so.
fn take_vip(server: &NetNs) {
    server
        .run(|| {
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "0")] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).expect(key);
            }
        })
        .expect("inside");
    server.ip("addr add 192.0.2.10/32 dev lo").expect("VIP");
}

/// A running director; ended on drop, and killed if it does not.
pub struct Daemon {
    pub child: Child,
    pub client: Client,
}

impl Daemon {
    pub fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        self.client.get(path).unwrap_or_else(|error| panic!("{path}: {}", runtime::Chain(&error)))
    }

    pub fn change(&self, change: Change) -> Outcomes {
        let changes = Changes { atomic: true, changes: vec![change] };
        self.client.post("/v1/changes", &changes).expect("answer")
    }

    pub fn signal(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
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
pub fn serve_echo(netns: &NetNs) {
    serve_echo_at(netns, VIP);
}

/// The same at another address.
pub fn serve_echo_at(netns: &NetNs, at: &str) {
    let listener = netns.run(|| TcpListener::bind(at)).expect("inside").expect("listen");
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

pub fn connect(netns: &NetNs) -> TcpStream {
    let address: SocketAddr = VIP.parse().expect("address");
    let stream = netns.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)));
    let stream = stream.expect("inside").expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("time-out");
    stream
}

pub fn echo(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[byte]).expect("write");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("answer");
    assert_eq!(answer[0], byte);
}

pub fn service() -> ServiceId {
    let vip: SocketAddr = VIP.parse().expect("address");
    ServiceId::Address { protocol: Protocol::Tcp, address: vip.ip(), port: vip.port() }
}

pub fn add_service() -> Change {
    let spec = ServiceSpec {
        scheduler: "rr".to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    };
    Change::AddService { service: service(), spec }
}

pub fn add_real() -> Change {
    Change::AddReal { service: service(), real: real(0), spec: real_spec() }
}

/// The real server of this place among the lab's servers.
pub fn real(place: u8) -> RealId {
    let first: SocketAddr = REAL.parse().expect("address");
    let SocketAddr::V4(first) = first else { panic!("{first}") };
    let [a, b, c, d] = first.ip().octets();
    RealId { address: [a, b, c, d + place].into(), port: first.port() }
}

pub fn real_spec() -> RealSpec {
    RealSpec {
        forwarding: Forwarding::DirectRouting,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel: Tunnel::Ipip,
    }
}

pub fn first_real(daemon: &Daemon) -> api::RealView {
    let services: Services = daemon.get("/v1/services");
    services.services[0].reals[0].clone()
}

/// Packets that ended so.
pub fn verdict(daemon: &Daemon, name: &str) -> u64 {
    let verdicts: api::Verdicts = daemon.get("/v1/verdicts");
    verdicts.verdicts.iter().find(|it| it.name == name).map_or(0, |it| it.packets)
}

pub fn udp_socket(netns: &NetNs, address: &str) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind(address)).expect("inside").expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("time-out");
    socket
}

/// Sends every datagram back, with its own first byte in front. The thread ends with the process.
pub fn serve_datagrams(server: &NetNs, at: &str, name: u8) {
    let socket = udp_socket(server, at);
    socket.set_read_timeout(None).expect("no time-out");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 2 * DATAGRAM];
        while let Ok((length, from)) = socket.recv_from(&mut buffer[1..]) {
            buffer[0] = name;
            let _ = socket.send_to(&buffer[..=length], from);
        }
    });
}

/// A client behind a way that carries shorter packets than it knows of. The lab's own client is the router before it; the
/// servers' packets to it go to `gateway`.
pub fn far_client(lab: &Lab, gateway: &str) -> NetNs {
    let far = NetNs::new("fa").expect("namespace");
    let router = &lab.client;
    router.veth("narrow", &far, "eth0").expect("veth");
    router.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("inside").expect("a router");
    for (netns, words) in [
        (router, "addr add 198.51.100.1/24 dev narrow"),
        (router, "link set narrow mtu 1300"),
        (&far, "addr add 198.51.100.2/24 dev eth0"),
        (&far, "route add default via 198.51.100.1"),
        (&lab.director, "route add 198.51.100.0/24 via 192.0.2.1"),
    ] {
        netns.ip(words).expect(words);
    }
    for server in &lab.servers {
        server.ip(&format!("route add 198.51.100.0/24 via {gateway}")).expect("route");
    }
    far
}
