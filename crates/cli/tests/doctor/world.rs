//! A cluster in namespaces that is healthy until a test makes a mistake in it.

use serde_json::Value;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use testkit::NetNs;

pub const PORT: u16 = 8080;
/// How long anything is waited for; where the machine is emulated, ten times as long.
fn wait_max() -> Duration {
    Duration::from_secs(if testkit::vm::is_inside() { 200 } else { 20 })
}

/// Masqueraded servers are in a network behind the director.
const INSIDE: u8 = 9;

/// Machines on a switch: a client (192.0.2.1), the director (.2) with the VIPs, two servers of direct routing (.3, .4) with the
/// VIPs on their loopback, and one behind the director (10.0.0.9).
pub struct World {
    directory: tempfile::TempDir,
    pub client: NetNs,
    pub director: NetNs,
    pub servers: Vec<NetNs>,
    pub inside: NetNs,
    pub switch: NetNs,
    listeners: Vec<TcpListener>,
    daemon: Option<Child>,
}

pub const FILE: &str = r#"
[service.www]
vip = ["192.0.2.10", "2001:db8::10"]
ports = "tcp/8080"
servers = ["web1", "web2"]
[server.web1]
address = ["192.0.2.3", "2001:db8::3"]
[server.web2]
address = ["192.0.2.4", "2001:db8::4"]

[service.inside]
vip = "192.0.2.10"
ports = "tcp/8081"
forward = "nat"
servers = [{ server = "10.0.0.9", port = 8080 }]
"#;

pub fn write(netns: &NetNs, path: &str, value: &str) {
    netns.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value)).expect("inside").expect(path);
}

pub fn ip(netns: &NetNs, words: &str) {
    netns.ip(words).expect(words);
}

impl World {
    /// With this director, which has these words more; `None` where it cannot be.
    pub fn start(file: &str, words: &[&str]) -> Option<Self> {
        let mut world = Self::without_director()?;
        world.serve(words);
        world.apply(file);
        Some(world)
    }

    pub fn without_director() -> Option<Self> {
        if let Err(reason) = testkit::need_bpf() {
            testkit::skip::announce(&reason);
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let bpffs = directory.path().join("bpffs");
        std::fs::create_dir(&bpffs).expect("a directory");
        nix::mount::mount(Some("bpf"), &bpffs, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
            .expect("a bpffs");
        let new = |name| NetNs::new(name).expect("namespace");
        let (switch, client, director, inside) = (new("sw"), new("cl"), new("di"), new("in"));
        let servers: Vec<NetNs> = (0..2).map(|_| new("se")).collect();
        ip(&switch, "link add br0 type bridge mcast_snooping 0");
        ip(&switch, "link set br0 up");
        for (number, netns) in (1..).zip([&client, &director].into_iter().chain(&servers)) {
            let port = format!("p{number}");
            switch.veth(&port, netns, "eth0").expect("veth");
            ip(&switch, &format!("link set {port} master br0"));
            ip(netns, &format!("addr add 192.0.2.{number}/24 dev eth0"));
            ip(netns, &format!("addr add 2001:db8::{number}/64 dev eth0 nodad"));
        }
        ip(&director, "addr add 192.0.2.10/32 dev eth0");
        ip(&director, "addr add 2001:db8::10/128 dev eth0 nodad");
        ip(&director, "route add default via 192.0.2.1");
        write(&director, "ipv4/ip_forward", "1");
        for server in &servers {
            write(server, "ipv4/conf/all/arp_ignore", "1");
            write(server, "ipv4/conf/all/arp_announce", "2");
            ip(server, "addr add 192.0.2.10/32 dev lo");
            ip(server, "addr add 2001:db8::10/128 dev lo nodad");
        }
        director.veth("eth1", &inside, "eth0").expect("veth");
        ip(&director, "addr add 10.0.0.1/24 dev eth1");
        ip(&inside, &format!("addr add 10.0.0.{INSIDE}/24 dev eth0"));
        ip(&inside, "route add default via 10.0.0.1");
        let listen =
            |netns: &NetNs| netns.run(|| TcpListener::bind(("::", PORT))).expect("inside").expect("listen");
        let listeners = servers.iter().chain([&inside]).map(listen).collect();
        Some(Self { directory, client, director, servers, inside, switch, listeners, daemon: None })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(words).env("SLUICE_SOCKET", self.path("director.sock")).stdin(Stdio::null());
        command
    }

    /// Starts a director on the switch and the network behind it.
    pub fn serve(&mut self, words: &[&str]) {
        let mut command = self.command(&["director", "-i", "eth0", "-i", "eth1"]);
        command.args(["--reals-max", "256", "--slots-max", "20000"]).args(words);
        command.arg("--pin").arg(self.path("bpffs/sluice")).arg("--state").arg(self.path("state"));
        if !words.contains(&"--established-flows-max") {
            command.args(["--established-flows-max", "4096"]);
        }
        let child = self.director.run(move || command.spawn()).expect("inside").expect("a director");
        self.daemon = Some(child);
        let deadline = Instant::now() + wait_max();
        while !self.command(&["status"]).output().expect("sluice").status.success() {
            assert!(Instant::now() < deadline, "waited in vain for the director");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn apply(&self, file: &str) {
        let path = self.path("cluster.toml");
        std::fs::write(&path, file).expect("a file");
        let done = self.command(&["apply"]).arg(&path).output().expect("sluice");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn ipvsadm(&self, words: &str) {
        self.sluice(&format!("ipvsadm {words}"));
    }

    pub fn sluice(&self, words: &str) {
        let words_of: Vec<&str> = words.split(' ').collect();
        let done = self.command(&words_of).output().expect("sluice");
        assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Nobody listens at the servers any more.
    pub fn close(&mut self) {
        self.listeners.clear();
    }

    /// Runs `sluice doctor` beside the director.
    pub fn doctor(&self, words: &[&str]) -> Output {
        let mut command = self.command(&["doctor"]);
        command.args(words);
        self.director.run(move || command.output()).expect("inside").expect("sluice")
    }

    /// The findings of these examinations, one line each, and what was not examined.
    pub fn examine(&self, only: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut words = vec!["--json"];
        words.extend(only.iter().flat_map(|name| ["--only", name]));
        let output = self.doctor(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
        let text = |value: &Value, key: &str| value[key].as_str().expect(key).to_owned();
        let findings = report["findings"].as_array().expect("findings").iter().map(|it| {
            let of = |key| text(it, key);
            format!(
                "{} {} {}: {} => {}",
                of("severity"),
                of("examination"),
                of("place"),
                of("what"),
                of("fix")
            )
        });
        let findings: Vec<String> = findings.collect();
        let missed = report["not_examined"].as_array().expect("not examined").iter();
        let missed: Vec<String> = missed.map(|it| text(it, "why")).collect();
        let code = match (findings.is_empty(), missed.is_empty()) {
            (false, _) => 1,
            (true, false) => 2,
            (true, true) => 0,
        };
        assert_eq!(output.status.code(), Some(code), "{findings:?} {missed:?} {said}");
        (findings, missed)
    }

    /// Waits until there are findings with all of these parts, one of each.
    pub fn finds(&self, only: &str, parts: &[&str]) {
        self.wait(only, |findings| {
            findings.len() == parts.len()
                && findings.iter().zip(parts).all(|(finding, part)| finding.contains(part))
        });
    }

    /// Waits until nothing is wrong.
    pub fn is_healthy(&self, only: &str) {
        self.wait(only, <[String]>::is_empty);
    }

    fn wait(&self, only: &str, is_right: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + wait_max();
        loop {
            let (findings, missed) = self.examine(&[only]);
            if is_right(&findings) && missed.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{only}: {findings:?} {missed:?}");
        }
    }

    /// Sends two datagrams from each of so many ports.
    pub fn send_datagrams(&self, to: &str, flows: u16) {
        let send = || {
            for _ in 0..flows {
                let socket = UdpSocket::bind("192.0.2.1:0").expect("bind");
                for _ in 0..2 {
                    socket.send_to(b"?", to).expect("sent");
                }
            }
        };
        self.client.run(send).expect("inside");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let pid = nix::unistd::Pid::from_raw(daemon.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + wait_max();
            while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = kernel::detach_all(&self.path("bpffs/sluice"));
        let _ = nix::mount::umount2(&self.path("bpffs"), nix::mount::MntFlags::MNT_DETACH);
    }
}
