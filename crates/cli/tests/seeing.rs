//! `sluice flows` and `sluice capture` with a real director, real connections, and real readers of what they write. Needs root, nginx
//! and tcpdump.

use lab::address::{HTTP_PORT, Node, UDP_PORT, vip};
use lab::demo::Cancel;
use lab::demo::director::Director;
use lab::udp::ask;
use lab::{Lab, LabError, LabOptions, LoadOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    director: Director,
    lab: Lab,
}

/// A cluster with two real servers and services of both families; `None` where something is missing.
fn world() -> Option<World> {
    if !Path::new("/usr/bin/tcpdump").exists() {
        testkit::skip::announce("needs /usr/bin/tcpdump; ./dev setup installs it");
        return None;
    }
    let lab = match Lab::new(LabOptions { reals: 2, ..LabOptions::default() }) {
        Err(LabError::NotRoot | LabError::Command(lab::command::CommandError::Missing { .. })) => {
            testkit::skip::announce("needs root, iproute2, ethtool and nginx");
            return None;
        }
        made => made.expect("a cluster"),
    };
    let director =
        Director::start(&lab, env!("CARGO_BIN_EXE_sluice").into(), &Cancel::default()).expect("director");
    let world = World { director, lab };
    for (option, port) in [("-t", HTTP_PORT), ("-u", UDP_PORT)] {
        for ipv6 in [false, true] {
            world.ipvsadm(&format!("-A {option} {} -s rr", vip(ipv6, port)));
            for number in 1..=2 {
                let node = Node::Real(number);
                let real: SocketAddr = if ipv6 { (node.v6(), port).into() } else { (node.v4(), port).into() };
                world.ipvsadm(&format!("-a {option} {} -r {real} -g", vip(ipv6, port)));
            }
        }
    }
    Some(world)
}

impl World {
    fn ipvsadm(&self, words: &str) {
        if let Err(error) = self.director.front().ipvsadm(words) {
            panic!("{words}: {}", runtime::Chain(&error));
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.director.front().program());
        command.args(words).env("SLUICE_SOCKET", self.director.front().socket());
        command
    }

    fn sluice(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("sluice")
    }

    fn lines(&self, words: &[&str]) -> Vec<String> {
        let output = self.sluice(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Requests of these families, all of which must be answered.
    fn load(&self, requests: u64) {
        for ipv6 in [false, true] {
            let options = LoadOptions {
                requests_max: requests,
                rate_per_s: 500,
                ..LoadOptions::new(vip(ipv6, HTTP_PORT))
            };
            let stats = self.lab.start_load(options).expect("load").wait();
            assert_eq!((stats.answered, stats.failed), (requests, 0), "{:?}", stats.failures);
        }
    }

    fn datagrams(&self, count: u32) {
        let client = self.lab.namespace(Node::Client).expect("a namespace");
        let asked = ask(client, vip(false, UDP_PORT), count, Duration::from_secs(5)).expect("datagrams");
        assert_eq!(asked.lost, 0);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.directory().join(name)
    }

    /// Starts a capture and waits until its file has begun.
    fn capture(&self, file: &Path, words: &[&str]) -> Running {
        let mut command = self.command(&["capture", "-w"]);
        command.arg(file).args(words).stdout(Stdio::null()).stderr(Stdio::piped());
        let running = Running(Some(command.spawn().expect("sluice")));
        wait_for("the capture", || file.exists().then_some(()));
        // The header comes before the programs are exchanged.
        wait_for("programs that record", || self.records().then_some(()));
        running
    }

    fn mac(&self, node: Node) -> String {
        let link = self.lab.exec_in(node, "ip", &["-o", "link", "show", "eth0"]).expect("ip link");
        let mut words = link.split_whitespace().skip_while(|word| *word != "link/ether");
        words.nth(1).expect("an address").to_owned()
    }

    /// Whether the interface has the programs that record.
    fn records(&self) -> bool {
        let shown =
            self.lab.exec_in(Node::Director, "ip", &["-details", "link", "show", "eth0"]).expect("ip link");
        program_of(&shown).is_some_and(|id| program_name(id) == "watch")
    }
}

/// The id in `prog/xdp id 7 ...`.
fn program_of(shown: &str) -> Option<u32> {
    let behind = shown.split_once("prog/xdp id ")?.1;
    behind.split_whitespace().next()?.parse().ok()
}

fn program_name(id: u32) -> String {
    kernel::holder_of(id).map(|holder| holder.program).unwrap_or_default()
}

/// A `sluice capture`; killed on drop if it has not ended.
struct Running(Option<Child>);

impl Running {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it runs")
    }

    fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child().id().cast_signed()), signal).expect("signal");
    }

    /// Waits for its end. Gives what it said.
    fn wait(mut self) -> (bool, String) {
        let mut child = self.0.take().expect("it runs");
        let status = wait_for("the end of the capture", || child.try_wait().expect("wait"));
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut said).expect("read");
        (status.success(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The packets of a file: comment and frame.
fn packets(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut reader = PcapNgReader::new(std::fs::File::open(file).expect("open")).expect("pcapng");
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a block") {
            let comment = packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                _ => None,
            });
            packets.push((comment.expect("a comment"), packet.data.to_vec()));
        }
    }
    packets
}

/// Lines of tcpdump for a file.
fn dumped(file: &Path, filter: &str) -> Vec<String> {
    let output = Command::new("/usr/bin/tcpdump").arg("-nr").arg(file).arg(filter).output().expect("tcpdump");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn flows_are_listed_filtered_and_counted() {
    let Some(world) = world() else { return };
    world.load(20);
    world.datagrams(4);
    let all: u64 = world.lines(&["flows", "--count"])[0].parse().expect("a number");
    // 20 connections of each family, and a flow or two of UDP.
    assert!(all >= 41, "{all}");
    let tcp = world.lines(&["flows", "--protocol", "tcp", "--client", "192.0.2.0/24", "--json"]);
    assert_eq!(tcp.len(), 20);
    let reals: Vec<String> = tcp
        .iter()
        .map(|line| {
            let flow: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!((&flow["vip"], &flow["method"]), (&"192.0.2.10:80".into(), &"direct_routing".into()));
            assert_eq!(flow["service"]["address"]["port"], 80);
            assert!(flow["packets"].as_u64() >= Some(3), "{line}");
            flow["real"].as_str().expect("a real server").to_owned()
        })
        .collect();
    let of = |real: &str| reals.iter().filter(|it| *it == real).count();
    assert_eq!((of("192.0.2.101:80"), of("192.0.2.102:80")), (10, 10));
    let counted =
        world.lines(&["flows", "--count", "--by", "real", "--protocol", "tcp", "--vip", "192.0.2.10"]);
    assert_eq!(
        counted,
        [
            "192.0.2.101:80          10   50.0 %  ##############################",
            "192.0.2.102:80          10   50.0 %  ##############################"
        ]
    );
    let one = world.lines(&["flows", "--real", "192.0.2.101:80", "--limit", "3", "--sort", "packets"]);
    assert_eq!((one.len(), one[0].starts_with("PRO  CLIENT")), (4, true), "{one:?}");
    let limited = world.sluice(&["flows", "--vip", "2001:db8::10", "--limit", "5"]);
    assert_eq!(text(&limited.stdout).lines().count(), 6);
    assert!(
        text(&limited.stderr).contains("the first 5 are shown; more flows match"),
        "{}",
        text(&limited.stderr)
    );
    let none = world.lines(&["flows", "--state", "syn_sent"]);
    assert!(none.is_empty(), "{none:?}");
    let unknown = world.sluice(&["flows", "--service", "tcp 192.0.2.99:80"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        text(&unknown.stderr).contains("there is no service TCP 192.0.2.99:80"),
        "{}",
        text(&unknown.stderr)
    );
    world.ipvsadm("-d -t 192.0.2.10:80 -r 192.0.2.101");
    let deleted = world.lines(&["flows", "--real", "192.0.2.101", "--protocol", "tcp", "--limit", "1"]);
    assert!(deleted[1].ends_with("server deleted"), "{deleted:?}");
}

#[test]
fn a_capture_has_every_packet_with_its_verdict_and_nothing_is_lost() {
    let Some(world) = world() else { return };
    let file = world.path("all.pcapng");
    // The load runs on while captures begin and end.
    let options = LoadOptions { rate_per_s: 300, ..LoadOptions::new(vip(false, HTTP_PORT)) };
    let load = world.lab.start_load(options).expect("load");
    for _ in 0..3 {
        let (done, said) = world.capture(&file, &["--seconds", "1"]).wait();
        assert!(done && said.contains(" 0 lost for want of room"), "{said}");
        assert!(!world.records());
        std::fs::remove_file(&file).expect("remove");
    }
    let stats = load.stop();
    assert_eq!(stats.failed, 0, "{:?}", stats.failures);
    assert!(stats.answered > 100, "{stats:?}");

    let mut running = world.capture(&file, &["--vip", "2001:db8::10"]);
    world.load(10);
    world.datagrams(3);
    let busy = world.sluice(&["capture", "--count", "1"]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(text(&busy.stderr).contains("somebody else captures packets now"), "{}", text(&busy.stderr));
    running.signal(Signal::SIGINT);
    let (done, said) = running.wait();
    assert!(done, "{said}");
    assert!(!world.records());
    let packets = packets(&file);
    assert!(said.starts_with(&format!("{0} packets captured, {0} matched", packets.len())), "{said}");
    let new: Vec<_> = packets.iter().filter(|(comment, _)| comment.starts_with("forward_new: ")).collect();
    assert_eq!(new.len(), 10, "one SYN of each connection to the IPv6 VIP");
    let real = |number: u32| {
        format!("; real server [2001:db8::10{number}]:80 of TCP [2001:db8::10]:80 (direct); leaves by eth0")
    };
    assert!(
        new[..].iter().all(|(comment, _)| comment.ends_with(&real(1)) || comment.ends_with(&real(2))),
        "{new:?}"
    );
    // Other programs read it too. Every connection has a SYN and a FIN at least.
    assert_eq!(dumped(&file, "").len(), packets.len());
    assert_eq!(dumped(&file, "ip6 and tcp and ip6[53] & 2 != 0").len(), 10);
    assert!(dumped(&file, "ip").is_empty());
    // Frames that leave have the hardware address of their real server.
    let to_first = dumped(&file, &format!("ether dst {}", world.mac(Node::Real(1)))).len();
    assert_eq!(to_first, packets.iter().filter(|(comment, _)| comment.ends_with(&real(1))).count());
    assert!(to_first > 0);
}

#[test]
fn captures_filter_sample_and_limit() {
    let Some(world) = world() else { return };
    let file = world.path("some.pcapng");
    let status = || -> Value { serde_json::from_str(&world.lines(&["status", "--json"])[0]).expect("JSON") };
    let before = status();
    assert_eq!(
        (&before["traffic"]["capturing"], &before["configured"]["services"]),
        (&false.into(), &4.into())
    );
    let running = world
        .capture(&file, &["--verdict", "forward_new", "--count", "5", "--snaplen", "64", "--as-it-came"]);
    assert_eq!(status()["traffic"]["capturing"], true);
    world.load(10);
    let (done, said) = running.wait();
    assert!(done && said.starts_with("5 packets captured"), "{said}");
    let found = packets(&file);
    assert!(found.iter().all(|(comment, frame)| comment.starts_with("forward_new") && frame.len() == 64));
    assert_eq!(dumped(&file, &format!("ether dst {}", world.mac(Node::Director))).len(), 5, "as they came");
    std::fs::remove_file(&file).expect("remove");

    let running = world.capture(&file, &["--verdict", "forward_new", "--sample", "1/10"]);
    world.load(50);
    assert_eq!(world.lines(&["capture", "--end"]), ["ended"]);
    let (_, said) = running.wait();
    // Each CPU counts by itself.
    assert!(packets(&file).len() <= 10 && said.contains(" 100 matched"), "{said}");
    std::fs::remove_file(&file).expect("remove");

    let running = world.capture(&file, &["--client", "192.0.2.1", "--per-second", "1"]);
    world.load(50);
    assert_eq!(world.lines(&["capture", "--end"]), ["ended"]);
    let (_, said) = running.wait();
    assert!(!said.contains(" 0 dropped by the limit"), "{said}");
    std::fs::remove_file(&file).expect("remove");

    world.ipvsadm("-A -t 192.0.2.10:81 -s rr");
    let running = world.capture(&file, &["--verdict", "answer_port_unreachable", "--count", "1"]);
    let nobody = LoadOptions { requests_max: 1, ..LoadOptions::new(vip(false, 81)) };
    assert_eq!(world.lab.start_load(nobody).expect("load").wait().failed, 1);
    let (done, said) = running.wait();
    assert!(done, "{said}");
    let answers = dumped(&file, "icmp[icmptype] = icmp-unreach");
    assert!(answers.len() == 1 && answers[0].contains("192.0.2.10 tcp port 81 unreachable"), "{answers:?}");
    let lines = world.lines(&["capture", "--seconds", "1", "--verdict", "drop_unresolved"]);
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn a_director_that_is_killed_while_it_captures_is_not_missed_and_the_next_one_tidies_up() {
    let Some(mut world) = world() else { return };
    let file = world.path("killed.pcapng");
    let running = world.capture(&file, &[]);
    world.director.crash();
    let (_, said) = running.wait();
    assert!(world.records(), "{said}");
    // New connections too: the tail-call table is pinned.
    world.load(10);
    world.director.start_again(&world.lab, &Cancel::default()).expect("a director");
    // It answers when it has taken over, and not when it listens.
    assert!(world.director.front().adopted().expect("status"));
    assert!(!world.records());
    world.load(10);
    // Whoever captures and goes without a word ends it too.
    std::fs::remove_file(&file).expect("remove");
    let mut running = world.capture(&file, &[]);
    running.signal(Signal::SIGKILL);
    wait_for("the end of recording", || (!world.records()).then_some(()));
    assert!(!packets(&file).iter().any(|(comment, _)| comment.is_empty()));
    world.load(10);
}
