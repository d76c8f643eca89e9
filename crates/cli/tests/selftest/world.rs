//! Three namespaces as in the kernel's own self-test of IPVS [`tools/testing/selftests/net/netfilter/ipvs.sh`]:
//!
//! ```text
//! client                 director               server
//! br0 10.0.0.2 --------- veth10 10.0.0.1
//!   |                    veth12 172.16.0.1 ---- veth21 172.16.0.2
//!   +------------------------------------------ veth20 10.0.0.3
//! ```
//!
//! IPv6 beside it: fd00:10::/64 and fd00:172::/64 with the same last numbers. The VIP is local on the director.

#![allow(dead_code, reason = "each test binary uses another part")]

use host::Interface;
use host::netlink::Netlink;
use host::netns::Namespace;
use lab::command;
use lab::process::Process;
use lab::run::Run;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(30);

/// The namespaces, and a director in the one in the middle.
pub struct World {
    // The director ends before its pins and its namespace go.
    director: Process,
    pins: PathBuf,
    socket: PathBuf,
    pub client: Namespace,
    pub server: Namespace,
    server_name: String,
    pub director_space: Namespace,
    pub director_name: String,
    run: Run,
}

impl World {
    /// Makes it. `server` are the lines of `ip` that are particular to the server.
    pub fn new(server: &[&str]) -> Self {
        let run = Run::create().expect("a run");
        let names = ["client", "director", "server"].map(|node| run.namespace(node));
        for name in &names {
            command::ip(&format!("netns add {name}")).expect("a namespace");
        }
        let [client, director_space, server_space] =
            [0, 1, 2].map(|at: usize| Namespace::open(&names[at]).expect("a namespace"));
        link_up(&names, [&client, &director_space, &server_space]);
        set(&client, "ipv4/conf/all/rp_filter=0");
        set(&director_space, "ipv4/ip_forward=1 ipv6/conf/all/forwarding=1");
        // As the self-test has it: only the director answers for the VIP.
        set(
            &server_space,
            "ipv4/conf/all/arp_ignore=1 ipv4/conf/all/arp_announce=2 ipv4/conf/all/rp_filter=0",
        );
        command::ip_batch(&names[2], &server.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
            .expect("the server's own lines");
        let pins = run.directory().join("bpf");
        std::fs::create_dir_all(&pins).expect("a directory");
        mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpffs");
        let socket = run.directory().join("director.sock");
        let mut command = director_space.command(env!("CARGO_BIN_EXE_sluice"));
        command.args(["director", "--interface", "veth10", "--interface", "veth12"]);
        command.arg("--socket").arg(&socket).arg("--pin").arg(pins.join("sluice"));
        command.arg("--state").arg(run.directory().join("state"));
        // Small tables: the virtual machine has little memory.
        command.args(["--established-flows-max", "4096", "--embryonic-flows-max", "4096"]);
        let mut director = Process::start("director", command, &run.directory().join("director.log"))
            .expect("the director starts");
        let end = Instant::now() + START_MAX;
        // It listens before it has loaded its programs, which takes a while in an emulated machine.
        let asked = runtime::control::Client::new(&socket);
        while asked.get::<api::Status>("/v1/status").is_err() {
            let ended = director.exit_status();
            assert!(ended.is_none() && Instant::now() < end, "{ended:?}: {}", director.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        let [_, director_name, server_name] = names;
        Self {
            director,
            pins,
            socket,
            client,
            server: server_space,
            server_name,
            director_space,
            director_name,
            run,
        }
    }

    /// Makes another namespace, which goes with the others.
    pub fn new_namespace(&self, node: &str) -> String {
        let name = self.run.namespace(node);
        command::ip(&format!("netns add {name}")).expect("a namespace");
        name
    }

    /// Runs `sluice` with these words against the director; what it prints.
    pub fn sluice(&self, words: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(words.split_whitespace()).env("SLUICE_SOCKET", &self.socket);
        command::output(command, None).unwrap_or_else(|error| panic!("{words}: {}", runtime::Chain(&error)))
    }

    /// Runs `ip` in the server's namespace.
    pub fn server_ip(&self, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        command::ip_batch(&self.server_name, &lines).expect("lines of ip");
    }

    /// Sets sysctls of the server, `PATH=VALUE` under `/proc/sys/net`.
    pub fn set_server(&self, settings: &str) {
        set(&self.server, settings);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.director.stop(Duration::from_secs(5));
        let _gone_with_the_run = umount2(&self.pins, MntFlags::MNT_DETACH);
    }
}

fn link_up(names: &[String; 3], [client, director, server]: [&Namespace; 3]) {
    for name in [client, director, server] {
        set(
            name,
            "ipv6/conf/all/accept_dad=0 ipv6/conf/default/accept_dad=0 ipv6/conf/default/dad_transmits=0",
        );
    }
    let [one, two, three] = names;
    for (left, at, right, there) in
        [("veth01", one, "veth10", two), ("veth02", one, "veth20", three), ("veth12", two, "veth21", three)]
    {
        command::ip(&format!("link add {left} netns {at} type veth peer name {right} netns {there}"))
            .expect("a link");
    }
    let batch = |name: &str, text: &str| {
        let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        command::ip_batch(name, &lines).expect("lines of ip");
    };
    batch(
        one,
        "link set lo up
        link add br0 type bridge forward_delay 0 mcast_snooping 0
        link set veth01 master br0 up
        link set veth02 master br0 up
        link set br0 up
        address add 10.0.0.2/24 dev br0
        address add fd00:10::2/64 dev br0 nodad
        route add 207.175.44.110 via 10.0.0.1
        route add 2001:db8:44::110 via fd00:10::1",
    );
    batch(
        two,
        "link set lo up
        link set veth10 up
        link set veth12 up
        address add 10.0.0.1/24 dev veth10
        address add 172.16.0.1/24 dev veth12
        address add fd00:10::1/64 dev veth10 nodad
        address add fd00:172::1/64 dev veth12 nodad
        address add 207.175.44.110/32 dev lo
        address add 2001:db8:44::110/128 dev lo",
    );
    batch(
        three,
        "link set lo up
        link set veth21 up
        address add 172.16.0.2/24 dev veth21
        address add fd00:172::2/64 dev veth21 nodad",
    );
    for (space, link) in [
        (client, "veth01"),
        (client, "veth02"),
        (client, "br0"),
        (director, "veth10"),
        (director, "veth12"),
        (server, "veth20"),
        (server, "veth21"),
    ] {
        let mut command = space.command(command::find("ethtool", "ethtool").expect("ethtool"));
        command.args(["-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
        command::output(command, None).expect("offloads off");
    }
    // A veth takes what its peer redirects only with a program of its own.
    attach_pass(client, "veth01");
    attach_pass(server, "veth21");
}

fn attach_pass(space: &Namespace, link: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let attach = async {
        let netlink = Netlink::open().expect("netlink");
        let port = Interface::by_name(&netlink, link).await.expect("the link");
        host::xdp::attach_pass(&netlink, port.index).await.expect("attached");
    };
    space.run(move || runtime.block_on(attach)).expect("the namespace");
}

/// Writes sysctls of a namespace, `PATH=VALUE` under `/proc/sys/net`.
fn set(space: &Namespace, settings: &str) {
    let write = || {
        for setting in settings.split_whitespace() {
            let (name, value) = setting.split_once('=').expect("NAME=VALUE");
            std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| {
                panic!("{name}: {error}");
            });
        }
    };
    space.run(write).expect("the namespace");
}
