//! `sluice flows` over many flows: nothing is left out, and the director answers others meanwhile. Needs root. With other
//! numbers of flows it measures time, memory, and how long the director lets others wait:
//!
//! `SLUICE_FLOWS='1000000 4000000' cargo test --release -p sluice-cli --test many_flows -- --nocapture`

use abi::{Address, Flow, FlowKey, Limits, TcpState};
use kernel::Datapath;
use runtime::control::Client;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::NetNs;

/// Names the numbers of flows; multiples of [`PAGE`].
const SIZES: &str = "SLUICE_FLOWS";
/// Flows written in one go.
const PAGE: u32 = 10_000;
const REALS: u32 = 4;
/// Flows of each client.
const EACH: u32 = 4;
const WAIT: Duration = Duration::from_secs(30);

/// A director on a link that leads nowhere, with a service and its real servers.
struct World {
    directory: tempfile::TempDir,
    netns: NetNs,
    daemon: Option<Child>,
    limits: Limits,
}

impl World {
    fn start(flows: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let bpffs = directory.path().join("bpffs");
        std::fs::create_dir(&bpffs).expect("a directory");
        nix::mount::mount(Some("bpf"), &bpffs, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
            .expect("a bpffs");
        let netns = NetNs::new("mf").expect("namespace");
        let limits = Limits { established_flows_max: flows, embryonic_flows_max: 64, ..Limits::default() };
        let mut world = Self { directory, netns, daemon: None, limits };
        world.netns.ip("link add br0 type bridge").expect("a link");
        let mut command = world.command(&["director", "-i", "br0", "--embryonic-flows-max", "64"]);
        command.arg("--established-flows-max").arg(flows.to_string()).stderr(Stdio::null());
        command.arg("--pin").arg(bpffs.join("sluice")).arg("--state").arg(world.path("state"));
        let daemon = world.netns.run(move || command.spawn()).expect("inside").expect("a director");
        world.daemon = Some(daemon);
        let deadline = Instant::now() + WAIT;
        while !world.command(&["status"]).output().expect("sluice").status.success() {
            assert!(Instant::now() < deadline, "waited in vain for the director");
            std::thread::sleep(Duration::from_millis(50));
        }
        world.lines(&["ipvsadm", "-A", "-t", "192.0.2.10:80"]);
        for real in 0..REALS {
            world.lines(&["ipvsadm", "-a", "-t", "192.0.2.10:80", "-r", &format!("10.1.0.{real}"), "-g"]);
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(words).env("SLUICE_SOCKET", self.path("s")).stdin(Stdio::null());
        command
    }

    fn lines(&self, words: &[&str]) -> Vec<String> {
        let output = self.command(words).output().expect("sluice");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Writes flows as the packet path would, without a packet for each.
    fn fill(&self, flows: u32) {
        let pinned = Datapath::open_pinned(&self.path("bpffs/sluice"), &self.limits).expect("what is pinned");
        assert!(pinned.adopted());
        let expires_ns = runtime::clock::monotonic_coarse_ns() + 900_000_000_000;
        let flow = |number: u32| Flow {
            expires_ns,
            state: TcpState::Established as u8,
            real: number % REALS,
            packets: number,
            ..Flow::default()
        };
        for first in (0..flows).step_by(PAGE as usize) {
            let keys: Vec<FlowKey> = (first..first + PAGE).map(key).collect();
            let values: Vec<Flow> = (first..first + PAGE).map(flow).collect();
            pinned.tables().established.put_batch(&keys, &values).expect("put");
        }
    }

    /// Runs the command and hands on its lines, as a pipe would.
    fn measure(&self, words: &[&str], mut take: impl FnMut(&str)) {
        let pid = self.daemon.as_ref().expect("a director").id();
        // From here on the highest use of memory is counted anew (proc(5), clear_refs).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("clear_refs");
        let others = Others::start(&self.path("s"));
        let begun = Instant::now();
        let mut child = self.command(words).stdout(Stdio::piped()).spawn().expect("sluice");
        let memory = Memory::watch(child.id());
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            take(&line.expect("a line"));
        }
        let status = child.wait().expect("the end");
        let took = begun.elapsed();
        let others = others.end();
        assert!(status.success(), "{words:?}");
        println!(
            "{:<42} {:>8} {:>14} {:>14} {others}",
            words.join(" "),
            format!("{:.2} s", took.as_secs_f64()),
            format!("{:.1} MB", memory.end() as f64 / 1e3),
            format!("{:.1} MB", highest_kb(pid).unwrap_or_default() as f64 / 1e3),
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let pid = nix::unistd::Pid::from_raw(daemon.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + WAIT;
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

fn key(number: u32) -> FlowKey {
    FlowKey {
        client: Address::v4((0x0a80_0000 + number / EACH).to_be_bytes()),
        client_port_be: (4000 + (number % EACH) as u16).to_be(),
        virtual_address: Address::v4([192, 0, 2, 10]),
        virtual_port_be: 80_u16.to_be(),
        protocol: 6,
    }
}

/// The most memory that a process had so far, in kB.
fn highest_kb(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// Looks at the memory of a process until it ends.
struct Memory(JoinHandle<u64>);

impl Memory {
    fn watch(pid: u32) -> Self {
        Self(std::thread::spawn(move || {
            let mut highest = 0;
            // One that has ended has none.
            while let Some(now) = highest_kb(pid) {
                highest = now.max(highest);
                std::thread::sleep(Duration::from_millis(5));
            }
            highest
        }))
    }

    fn end(self) -> u64 {
        self.0.join().expect("the watch")
    }
}

/// Somebody who asks the director something else all the time.
struct Others {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Others {
    fn start(socket: &Path) -> Self {
        let (end, socket) = (Arc::new(AtomicBool::new(false)), socket.to_owned());
        let told = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let client = Client::new(socket);
            let mut took = Vec::new();
            while !told.load(Ordering::Relaxed) || took.is_empty() {
                let begun = Instant::now();
                client.get::<Value>("/v1/services").expect("an answer");
                took.push(begun.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            took
        });
        Self { end, thread }
    }

    /// Stops asking. How long answers took.
    fn end(self) -> String {
        self.end.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().expect("the others");
        took.sort();
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        format!(
            "{:>8.1} {:>6.0} ms of {}",
            ms(&took[took.len() / 2]),
            ms(took.last().expect("one")),
            took.len()
        )
    }
}

#[test]
fn many_flows_are_listed_and_counted_piece_by_piece_while_others_are_answered() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let sizes = std::env::var(SIZES).unwrap_or_else(|_| "20000".to_owned());
    for flows in sizes.split_whitespace().map(|size| size.parse::<u32>().expect("a number of flows")) {
        let world = World::start(flows);
        world.fill(flows);
        println!(
            "{flows} flows: time, memory of the command and of the director, median and longest answer to others"
        );
        // What they wait for anyway: the sweep, and the machine.
        let others = Others::start(&world.path("s"));
        std::thread::sleep(Duration::from_millis(if flows > PAGE * 10 { 5_000 } else { 0 }));
        let others = others.end();
        println!("{:<80} {others}", "nothing");
        let mut listed = 0;
        world.measure(&["flows", "--limit", "20"], |line| listed += usize::from(line.starts_with("TCP ")));
        assert_eq!(listed, 20);
        let mut counted = String::new();
        world.measure(&["flows", "--count"], |line| counted = line.to_owned());
        assert_eq!(counted, flows.to_string());
        let mut groups = 0;
        world.measure(&["flows", "--count", "--by", "client", "--limit", "20"], |line| {
            let mut words = line.split_whitespace().skip(1);
            assert_eq!(words.next(), Some(EACH.to_string().as_str()), "{line}");
            groups += 1;
        });
        assert_eq!(groups, 20);
        let mut most = Vec::new();
        world.measure(&["flows", "--sort", "packets", "--limit", "3", "--json"], |line| {
            let flow: Value = serde_json::from_str(line).expect("JSON");
            most.push(flow["packets"].as_u64().expect("packets"));
        });
        assert_eq!(most, [flows - 1, flows - 2, flows - 3].map(u64::from));
        let mut lines = 0;
        world.measure(&["flows", "--json", "--limit", "4294967295"], |line| {
            assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
            lines += 1;
        });
        assert_eq!(lines, flows);
        // The classic listing, which keeps all of them until it prints.
        let mut lines = 0;
        world.measure(&["ipvsadm", "-L", "-n", "-c"], |line| lines += u32::from(line.starts_with("TCP ")));
        assert_eq!(lines, flows);
    }
}
