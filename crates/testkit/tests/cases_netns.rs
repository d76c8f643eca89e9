//! Chosen golden cases (`wire = true`) with real frames: a client, a director and a server network, each in
//! a namespace of its own, joined by veth pairs.
//!
//! ```text
//! client: c0 ---- d0 (programs) director d1 ---- s0: servers
//! ```
//! What is sent on goes out of `s0`, an answer comes back out of `c0`, what passes is met by the
//! director's host stack behind `d0`.

mod support;

use std::os::fd::OwnedFd;
use std::time::Duration;

use support::{Runner, now_ns, verdict};
use testkit::case::{Case, Compiled, Seen, directory, read_all};
use testkit::{Frames, NetNs, need_bpf, skip};

/// How long a frame that must come may take.
const WAIT: Duration = Duration::from_secs(5);
/// How long a frame that must not come is waited for, after the programs have counted the packet.
const SILENCE: Duration = Duration::from_millis(20);
/// Programs run within this time after the frame was sent.
const COUNT_WAIT: Duration = Duration::from_secs(5);
const CLOCK_SLACK_NS: u64 = 10_000_000_000;

/// The three namespaces, with sockets on every link.
struct Net {
    runner: Runner,
    client: Frames,
    host: Frames,
    servers: Frames,
    server_ifindex: u32,
    /// A veth delivers what XDP sends to it only when its peer runs a program too.
    _pass: Vec<OwnedFd>,
    /// Last, so that sockets and programs are closed before.
    _namespaces: [NetNs; 3],
}

impl Net {
    fn new() -> Self {
        let client = NetNs::new("client").expect("namespace");
        let director = NetNs::new("director").expect("namespace");
        let servers = NetNs::new("servers").expect("namespace");
        client.veth("c0", &director, "d0").expect("pair");
        servers.veth("s0", &director, "d1").expect("pair");
        let mut runner = Runner::new(false);
        let attached = director.run(|| runner.datapath.attach("d0")).expect("enter").expect("attach");
        assert_eq!(attached, kernel::Mode::Native, "a veth has native XDP");
        let pass = |netns: &NetNs, link: &str| {
            let attached = netns.run(|| kernel::attach_pass(link)).expect("enter");
            attached.expect("attach the pass program").0
        };
        let index = director.run(|| nix::net::if_::if_nametoindex("d1")).expect("enter").expect("d1");
        let open =
            |netns: &NetNs, link: &str| netns.run(|| Frames::open(link)).expect("enter").expect("socket");
        Self {
            runner,
            client: open(&client, "c0"),
            host: open(&director, "d0"),
            servers: open(&servers, "s0"),
            server_ifindex: index,
            _pass: vec![pass(&client, "c0"), pass(&servers, "s0")],
            _namespaces: [client, director, servers],
        }
    }

    fn run(&self, case: &Case) -> Result<(), String> {
        let mut tables = Compiled::new(&case.tables, now_ns()).map_err(|error| error.to_string())?;
        for real in &mut tables.reals {
            real.ifindex = self.server_ifindex;
        }
        self.runner.fill(&tables).map_err(|error| error.to_string())?;
        for (number, step) in case.steps.iter().enumerate() {
            // The case's interface numbers are made up; which link the frame came out of is looked at instead.
            let step = testkit::case::Step { interface: None, ..step.clone() };
            let packet = step.packet()?.to_bytes();
            let seen = self.send(&tables, &packet, step.key().as_ref())?;
            let problems = step.check(&tables, &seen);
            if !problems.is_empty() {
                return Err(format!("step {}: {}", number + 1, problems.join("\n  ")));
            }
        }
        Ok(())
    }

    /// Sends a frame, waits for the programs to count it, and for the frame where the verdict says.
    fn send(&self, tables: &Compiled, packet: &[u8], key: Option<&abi::FlowKey>) -> Result<Seen, String> {
        let table = |error: kernel::TableError| format!("{error}: {:?}", error.source);
        let socket = |error: std::io::Error| format!("socket: {error}");
        let before = self.runner.reading(tables).map_err(table)?;
        self.client.send(packet).map_err(socket)?;
        let deadline = std::time::Instant::now() + COUNT_WAIT;
        let (verdict, after) = loop {
            let after = self.runner.reading(tables).map_err(table)?;
            match verdict(&before, &after) {
                Ok(verdict) => break (verdict, after),
                Err(problem) if std::time::Instant::now() > deadline => return Err(problem),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let mut bytes = Vec::new();
        for (name, link, expected) in [
            ("servers", &self.servers, verdict.is_forward()),
            ("client", &self.client, verdict.is_answer()),
            ("host", &self.host, verdict.is_pass()),
        ] {
            let wait = if expected { WAIT } else { SILENCE };
            match (expected, link.receive(wait, is_ours).map_err(socket)?) {
                (true, Some(frame)) => bytes = frame,
                (true, None) => return Err(format!("{} and nothing came out at {name}", verdict.name())),
                (false, Some(frame)) => {
                    let frame = testkit::packet::read(&frame);
                    return Err(format!("{}, but at {name} came {frame}", verdict.name()));
                }
                (false, None) => {}
            }
        }
        if bytes.is_empty() {
            bytes = packet.to_vec();
        }
        Ok(Seen {
            verdict,
            bytes,
            ifindex: verdict.is_forward().then_some(self.server_ifindex),
            flow: key.map(|key| self.runner.flow(key)).transpose().map_err(table)?.flatten(),
            loads: self.runner.loads(tables).map_err(table)?,
            added: testkit::memory::added(&before.counters, &after.counters),
            templates: self.runner.templates().map_err(table)?,
            now_ns: now_ns(),
            clock_slack_ns: CLOCK_SLACK_NS,
        })
    }
}

/// Frames of the cases are between made-up MAC addresses; the rest is chatter of the kernel's IPv6.
fn is_ours(frame: &[u8]) -> bool {
    let ours = |mac: Option<&[u8]>| mac.is_some_and(|mac| mac.starts_with(&[2, 0, 0, 0]));
    ours(frame.get(..6)) || ours(frame.get(6..12))
}

#[test]
fn chosen_cases_hold_between_namespaces() {
    if let Err(reason) = need_bpf() {
        skip!("{reason}");
    }
    let cases: Vec<Case> =
        read_all(&directory()).expect("cases").into_iter().filter(|case| case.wire).collect();
    assert!(cases.len() >= 20, "only {} cases are chosen", cases.len());
    let net = Net::new();
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|case| net.run(case).err().map(|problem| format!("{}\n  {problem}", case.name)))
        .collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
