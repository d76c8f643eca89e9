//! The daemon as a service: what it tells the service manager, the capabilities it keeps, its lines in the journal.
//!
//! Needs root. Everything is made by the test and goes with it.

mod support;

use api::{Change, Check, CheckKind, HealthSpec, HealthView, Rhythm, Standing};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Daemon, Lab, WAIT, add_real, add_service, connect, echo, first_real, serve_echo, wait_for};

/// What the test's service manager waits for a sign of life; the daemon gives one in half of it.
const WATCHDOG: Duration = Duration::from_millis(400);

/// A service manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    fn new(lab: &Lab) -> Self {
        Self(UnixDatagram::bind(lab.path("notify")).expect("socket"))
    }

    /// The next message, if one comes in time.
    fn next(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).expect("time-out");
        let mut bytes = [0; 4096];
        match self.0.recv(&mut bytes) {
            Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message with this line.
    fn wait_for(&self, wanted: &str) -> String {
        let deadline = Instant::now() + WAIT;
        let mut last = None;
        while Instant::now() < deadline {
            match self.next(WATCHDOG) {
                Some(message) if message.lines().any(|line| line == wanted) => return message,
                other => last = other.or(last),
            }
        }
        panic!("waited in vain for {wanted}; the last message was {last:?}");
    }
}

/// Starts a director with more words and variables, and waits until it answers.
fn start(lab: &Lab, words: &[&str], variables: &[(&str, &str)]) -> Daemon {
    let mut command = lab.command(&Lab::limits());
    command.args(["-i", "eth0"]).args(words).envs(variables.iter().copied());
    let child = lab.director.run(move || command.spawn()).expect("inside").expect("start");
    let daemon = Daemon { child, client: lab.api() };
    let pid = daemon.child.id();
    wait_for("the director", || {
        daemon.client.get::<api::Status>("/v1/status").ok().filter(|it| it.pid == pid)
    });
    daemon
}

#[test]
fn the_service_manager_hears_of_start_life_and_end_and_nothing_while_the_owner_hangs() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let manager = Manager::new(&lab);
    let socket = lab.path("notify");
    let watchdog = WATCHDOG.as_micros().to_string();
    let variables = [("NOTIFY_SOCKET", socket.to_str().expect("text")), ("WATCHDOG_USEC", watchdog.as_str())];
    let mut daemon = start(&lab, &[], &variables);
    let first = manager.next(WAIT).expect("a message");
    let status = "STATUS=balancing 0 services over 0 real servers on 1 interface, configuration 0";
    assert_eq!(first, format!("READY=1\n{status}\n"));
    for _ in 0..3 {
        assert_eq!(manager.next(WAIT).expect("a sign of life"), format!("WATCHDOG=1\n{status}\n"));
    }

    // The owner writes a new configuration to a pipe that nobody reads, and hangs there.
    let pipe = lab.path("state/model.json.next");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).expect("pipe");
    let daemon = &mut daemon;
    std::thread::scope(|scope| {
        let client = &daemon.client;
        let change = scope.spawn(move || {
            let changes = api::Changes { atomic: true, changes: vec![add_service()] };
            client.post::<_, api::Outcomes>("/v1/changes", &changes)
        });
        let deadline = Instant::now() + WAIT;
        while manager.next(WATCHDOG * 8).is_some() {
            assert!(Instant::now() < deadline, "it goes on saying that it is alive");
        }
        assert!(!change.is_finished(), "the owner hangs");
        let mut reader = std::fs::File::options()
            .read(true)
            .custom_flags_nonblocking()
            .open(&pipe)
            .expect("the pipe's other end");
        manager.wait_for("WATCHDOG=1");
        // A pipe cannot be synchronized, so this was refused.
        let refusals = change.join().expect("no panic").expect("an answer").refusals;
        assert!(refusals[0].is_some(), "{refusals:?}");
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        assert!(text.contains("192.0.2.10"), "{text}");
    });
    std::fs::remove_file(&pipe).expect("remove");

    assert_eq!(daemon.change(add_service()).refusals, [None]);
    assert_eq!(daemon.change(add_real()).refusals, [None]);
    manager.wait_for("STATUS=balancing 1 service over 1 real server on 1 interface, configuration 2");
    assert!(daemon.signal(Signal::SIGTERM).success());
    assert_eq!(manager.wait_for("STOPPING=1"), "STOPPING=1\n");
    assert_eq!(manager.next(WATCHDOG), None, "that was the last word");
}

/// So that a pipe without a writer opens.
trait NonBlocking {
    fn custom_flags_nonblocking(&mut self) -> &mut Self;
}

impl NonBlocking for std::fs::OpenOptions {
    fn custom_flags_nonblocking(&mut self) -> &mut Self {
        use std::os::unix::fs::OpenOptionsExt;
        self.custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
    }
}

/// `CAP_KILL`, `CAP_SETGID`, `CAP_SETUID`, `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_BPF` [uapi/linux/capability.h].
const KEPT: u64 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 12 | 1 << 13 | 1 << 39 | 1 << 38;

/// The lines of a process's threads that tell their capabilities, without those that are alike.
fn capabilities(pid: u32) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let lines = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
        found.extend(
            lines.map(|(name, bits)| (name.to_owned(), u64::from_str_radix(bits, 16).expect("bits"))),
        );
    }
    found.sort();
    found.dedup();
    found
}

fn expected(bits: u64) -> Vec<(String, u64)> {
    [("Amb", 0), ("Bnd", bits), ("Eff", bits), ("Inh", 0), ("Prm", bits)]
        .map(|(name, bits)| (name.to_owned(), bits))
        .to_vec()
}

/// A service with a real server whose checks need each capability: a ping, and a program that says who it is and what it may.
fn checked() -> [Change; 3] {
    let rhythm =
        Rhythm { interval_ms: 100, timeout_ms: 2000, rise: 1, fall: 2, jitter_percent: 10, grace_ms: 0 };
    let script = "[ \"$(id -un)\" = nobody ] && grep -q 'CapEff:.0000000000000000' /proc/self/status";
    let kinds = [
        CheckKind::Ping,
        CheckKind::Program {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            user: "nobody".to_owned(),
        },
    ];
    let checks = kinds.map(|kind| Check { kind, address: None, port: None, rhythm }).to_vec();
    let health = HealthSpec { checks, ..HealthSpec::default() };
    [add_service(), Change::SetHealth { service: support::service(), health }, add_real()]
}

fn wait_until_up(daemon: &Daemon) {
    let mut last = String::new();
    let deadline = Instant::now() + WAIT;
    loop {
        let view: HealthView = daemon.get("/v1/health");
        for real in view.services.into_iter().flat_map(|it| it.reals) {
            if real.standing == Standing::Up {
                return;
            }
            last = real.reason;
        }
        assert!(Instant::now() < deadline, "it does not get up: {last}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_running_director_keeps_few_capabilities_and_does_all_its_work_with_them() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    serve_echo(&lab.servers[0]);
    let mut daemon = lab.start();
    assert_eq!(capabilities(daemon.child.id()), expected(KEPT));
    for change in checked() {
        assert_eq!(daemon.change(change).refusals, [None]);
    }
    wait_for("the next hop", || first_real(&daemon).neighbour);
    wait_until_up(&daemon);
    echo(&mut connect(&lab.client), b'a');
    assert_eq!(capabilities(daemon.child.id()), expected(KEPT), "threads made since have no more");

    // Again, by the bounding set of the unit: what a start takes and what it keeps.
    daemon.signal(Signal::SIGTERM);
    let full = lab.command(&Lab::limits());
    let mut bounded = std::process::Command::new("setpriv");
    bounded.arg("--bounding-set=-all,+bpf,+net_admin,+perfmon,+net_raw,+setuid,+setgid,+kill");
    bounded.arg("--no-new-privs").arg(full.get_program()).args(full.get_args()).args(["-i", "eth0"]);
    // Other programs must be loaded and exchanged, not only found.
    std::fs::remove_file(lab.path("bpffs/sluice/programs/schedule")).expect("unpin");
    let child =
        lab.director.run(move || bounded.stdout(Stdio::null()).spawn()).expect("inside").expect("start");
    let daemon = Daemon { child, client: lab.api() };
    wait_for("the director", || UnixStream::connect(lab.path("director.sock")).ok());
    wait_until_up(&daemon);
    let found = capabilities(daemon.child.id());
    assert_eq!(found, expected(KEPT));
    echo(&mut connect(&lab.client), b'b');
}

#[test]
fn another_user_than_root_runs_a_director_with_three_capabilities() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    serve_echo(&lab.servers[0]);
    // The user must reach the program and the bpffs.
    for (path, mode) in [("", 0o777), ("bpffs", 0o1777)] {
        std::fs::set_permissions(lab.path(path), std::fs::Permissions::from_mode(mode)).expect("mode");
    }
    let full = lab.command(&Lab::limits());
    std::fs::copy(full.get_program(), lab.path("director")).expect("copy");
    let mut command = std::process::Command::new("unshare");
    // A directory for locks of its own, in place of root's.
    let script = "mount -t tmpfs -o mode=1777 tmpfs /run && exec setpriv --reuid nobody --regid nogroup --clear-groups \
                  --inh-caps=+bpf,+net_admin,+perfmon --ambient-caps=+bpf,+net_admin,+perfmon \"$@\"";
    command.args(["--mount", "sh", "-c", script, "-"]).arg(lab.path("director"));
    command.args(full.get_args()).args(["-i", "eth0"]).stdin(Stdio::null()).stdout(Stdio::null());
    let child = lab.director.run(move || command.spawn()).expect("inside").expect("start");
    let daemon = Daemon { child, client: lab.api() };
    wait_for("the director", || daemon.client.get::<api::Status>("/v1/status").ok());
    let mut expected = expected(1 << 12 | 1 << 38 | 1 << 39);
    // It may not lower that, and it means nothing without programs that give capabilities.
    expected.retain(|(name, _)| name != "Bnd");
    let mut found = capabilities(daemon.child.id());
    found.retain(|(name, _)| name != "Bnd");
    assert_eq!(found, expected);
    assert_eq!(daemon.change(add_service()).refusals, [None]);
    assert_eq!(daemon.change(add_real()).refusals, [None]);
    wait_for("the next hop", || first_real(&daemon).neighbour);
    echo(&mut connect(&lab.client), b'a');
}

#[test]
fn lines_for_the_journal_have_their_priority_and_others_do_not() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    // Standard error is a pipe, whose number stands in for the journal's.
    let said = |words: &[&str], is_journal: bool| {
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let number = nix::sys::stat::fstat(writer.as_fd()).expect("pipe");
        let journal = if is_journal { number.st_ino } else { number.st_ino + 1 };
        let mut command = lab.command(words);
        command.env("JOURNAL_STREAM", format!("{}:{journal}", number.st_dev)).stderr(writer);
        let child = lab.director.run(move || command.spawn()).expect("inside");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        let success = child.expect("start").wait().expect("end").success();
        assert_eq!(success, words.contains(&"--remove"), "{text}");
        text
    };
    let line = said(&["--remove"], true);
    assert!(line.starts_with("<6>") && line.contains("removed the packet path interfaces=0"), "{line}");
    let line = said(&["--remove"], false);
    assert!(line.starts_with("20") && line.contains(" INFO "), "{line}");
    let line = said(&["--remove", "--log-format", "journal"], false);
    assert!(line.starts_with("<6>"), "{line}");
    let line = said(&["--remove", "--log-format", "json"], true);
    assert!(line.starts_with('{'), "{line}");
    // Why it did not start at all is an error there, too.
    let line = said(&["-i", "eth9"], true);
    assert!(
        line.lines().last().is_some_and(|it| it.starts_with("<3>error: cannot start the director: ")),
        "{line}"
    );
    let line = said(&["-i", "eth9"], false);
    assert!(line.lines().last().is_some_and(|it| it.starts_with("error: ")), "{line}");
}
