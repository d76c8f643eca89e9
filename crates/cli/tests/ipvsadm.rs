//! The binary under its second name, against a small director on a real socket.

use api::{
    Change, Changes, Connection, Connections, Counters, Outcomes, RealView, Refusal, RefusalKind,
    ServiceView, Services, SyncCounts, SyncDaemon, SyncDaemons, SyncStop, SyncView, Timeouts,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A folder with the tool's three names, and a director's socket; removed at the end.
struct Place {
    folder: PathBuf,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sluice-ipvsadm-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        for name in ["ipvsadm", "ipvsadm-save", "ipvsadm-restore"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), folder.join(name)).expect("a link");
        }
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// Runs a program of this place; words are split at blanks.
    fn run(&self, program: &str, words: &str, input: &str) -> Output {
        self.spawn(&self.folder.join(program), words, input)
    }

    fn spawn(&self, program: &Path, words: &str, input: &str) -> Output {
        let mut child = Command::new(program)
            .args(words.split_whitespace())
            .env("SLUICE_SOCKET", self.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program to start");
        // Programs that need no input may be gone before they are given any.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("the program to end")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[derive(Default)]
struct State {
    services: Vec<ServiceView>,
    requests: Vec<String>,
    /// Answers every change request with this, as a whole.
    refuse_all: Option<Refusal>,
    daemons: Vec<SyncView>,
}

/// Serves a director for as long as the test runs.
fn serve(place: &Place) -> Arc<Mutex<State>> {
    let listener = UnixListener::bind(place.socket()).expect("a socket");
    let state = Arc::new(Mutex::new(State::default()));
    let shared = Arc::clone(&state);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &shared);
        }
    });
    state
}

fn answer(mut stream: UnixStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let request = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let mut state = state.lock().expect("the state");
    state.requests.push(request.clone());
    let (status, text) = match request.as_str() {
        "GET /v1/services" => ("200 OK", json(&listing(&state))),
        "POST /v1/changes" => match &state.refuse_all {
            Some(refusal) => ("503 Service Unavailable", json(refusal)),
            None => {
                let changes: Changes = serde_json::from_slice(&body).expect("changes");
                assert!(!changes.atomic);
                let refusals = changes.changes.into_iter().map(|c| apply(&mut state.services, c)).collect();
                ("200 OK", json(&Outcomes { generation: 1, refusals }))
            }
        },
        "GET /v1/connections" => ("200 OK", json(&page("192.0.2.1:1000", Some(77)))),
        "GET /v1/connections?cursor=77" => ("200 OK", json(&page("192.0.2.2:2000", None))),
        "GET /v1/sync" => ("200 OK", json(&SyncDaemons { daemons: state.daemons.clone() })),
        "POST /v1/sync/start" => start_daemon(&mut state.daemons, &body),
        "POST /v1/sync/stop" => stop_daemon(&mut state.daemons, &body),
        other => panic!("unexpected request {other:?}"),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", text.len());
    stream.write_all((head + &text).as_bytes()).expect("the answer to be taken");
}

fn refused(kind: RefusalKind) -> (&'static str, String) {
    ("400 Bad Request", json(&Refusal::new(kind, "for a test")))
}

fn start_daemon(daemons: &mut Vec<SyncView>, body: &[u8]) -> (&'static str, String) {
    let daemon: SyncDaemon = serde_json::from_slice(body).expect("a daemon");
    if daemon.interface != "lo" {
        return refused(RefusalKind::NoSuchInterface);
    }
    if daemons.iter().any(|view| view.daemon.role == daemon.role) {
        return refused(RefusalKind::DaemonRuns);
    }
    daemons.push(SyncView { daemon, running: true, counts: SyncCounts::default() });
    daemons.sort_by_key(|view| view.daemon.role);
    ("200 OK", "null".to_owned())
}

fn stop_daemon(daemons: &mut Vec<SyncView>, body: &[u8]) -> (&'static str, String) {
    let SyncStop { role } = serde_json::from_slice(body).expect("a role");
    let before = daemons.len();
    daemons.retain(|view| view.daemon.role != role);
    if daemons.len() == before { refused(RefusalKind::NoSuchDaemon) } else { ("200 OK", "null".to_owned()) }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("JSON")
}

fn listing(state: &State) -> Services {
    let timeouts = Timeouts { tcp_s: 900, tcp_fin_s: 120, udp_s: 300 };
    Services { connection_table_size: 4096, timeouts, services: state.services.clone() }
}

fn page(client: &str, next_cursor: Option<u64>) -> Connections {
    let connection = Connection {
        protocol: "TCP".into(),
        expires_s: 60,
        state: "ESTABLISHED".into(),
        client: client.parse().expect("an endpoint"),
        virtual_address: "10.0.0.1:80".parse().expect("an endpoint"),
        real: "10.1.1.1:80".parse().expect("an endpoint"),
        embryonic: false,
        engine: None,
        engine_data: None,
    };
    Connections { connections: vec![connection], next_cursor }
}

/// Adds and flushes; everything else is refused.
fn apply(services: &mut Vec<ServiceView>, change: Change) -> Option<Refusal> {
    match change {
        Change::AddService { service, .. } if services.iter().any(|s| s.id == service) => {
            return Some(Refusal::new(RefusalKind::ServiceExists, "there is one"));
        }
        Change::AddService { service: id, spec } => {
            services.push(ServiceView { id, spec, counters: Counters::default(), reals: Vec::new() });
        }
        Change::AddReal { service, real: id, spec } => {
            let Some(found) = services.iter_mut().rev().find(|s| s.id == service) else {
                return Some(Refusal::new(RefusalKind::NoSuchService, "there is none"));
            };
            let counters = Counters::default();
            let view =
                RealView { id, spec, active: 0, inactive: 0, persistent: 0, neighbour: None, counters };
            found.reals.insert(0, view);
        }
        Change::Flush => services.clear(),
        _ => return Some(Refusal::new(RefusalKind::Unsupported, "not in this test")),
    }
    None
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out, &*err), (Some(code), stdout, stderr));
}

#[test]
fn without_a_director_it_says_what_to_start() {
    let place = Place::new();
    let socket = place.socket();
    let text = format!(
        "Can't initialize ipvs: no director listens on {}: start it with `sluice director`, or name its socket in \
         SLUICE_SOCKET\n",
        socket.display()
    );
    check(&place.run("ipvsadm", "", ""), 2, "", &text);
    check(&place.run("ipvsadm", "-A -t 10.0.0.1:80", ""), 2, "", &text);
    check(&place.run("ipvsadm-restore", "", "-A -t 10.0.0.1:80\n"), 2, "", &text);
    // What needs no director works without one.
    check(
        &place.run("ipvsadm", "-v", ""),
        0,
        "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n",
        "",
    );
    check(
        &place.run("ipvsadm", "-A", ""),
        2,
        "",
        "You need to supply the 'service-address' option for the 'add-service' command\n",
    );
    let program = place.folder.join("ipvsadm");
    let text = format!("Try `{0} -h' or '{0} --help' for more information.\n", program.display());
    check(&place.run("ipvsadm", "-q", ""), 255, "", &text);
}

#[test]
fn changes_and_listings() {
    let place = Place::new();
    let state = serve(&place);
    let program = Path::new(env!("CARGO_BIN_EXE_sluice"));
    check(&place.spawn(program, "ipvsadm -A -t 10.0.0.1:80 -s rr", ""), 0, "", "");
    check(&place.run("ipvsadm", "-A -t 10.0.0.1:80", ""), 255, "", "Service already exists\n");
    check(&place.run("ipvsadm", "-a -t 10.0.0.1:80 -r 10.1.1.1", ""), 0, "", "");
    check(&place.run("ipvsadm", "-a -t 10.0.0.2:80 -r 10.1.1.1", ""), 255, "", "Service not defined\n");
    check(&place.run("ipvsadm", "-Z", ""), 255, "", "not in this test\n");
    check(&place.run("ipvsadm", "-Ln -t 10.0.0.9:80", ""), 1, "", "No such service\n");
    let list = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  10.0.0.1:80 rr\n  -> 10.1.1.1:80                  Route   1      0          0         \n";
    check(&place.run("ipvsadm", "-Ln", ""), 0, list, "");
    let flows = "IPVS connection entries\npro expire state       source             virtual            destination\nTCP 01:00  ESTABLISHED 192.0.2.1:1000     10.0.0.1:80        10.1.1.1:80\nTCP 01:00  ESTABLISHED 192.0.2.2:2000     10.0.0.1:80        10.1.1.1:80\n";
    check(&place.run("ipvsadm", "-Lcn", ""), 0, flows, "");
    check(&place.run("ipvsadm", "-L --timeout", ""), 0, "Timeout (tcp tcpfin udp): 900 120 300\n", "");
    check(&place.run("ipvsadm", "-L --daemon", ""), 0, "", "");
    state.lock().expect("the state").refuse_all =
        Some(Refusal::new(RefusalKind::Limit, "at most 3 services; raise services_max"));
    check(&place.run("ipvsadm", "-C", ""), 255, "", "at most 3 services; raise services_max\n");
}

#[test]
fn the_synchronisation_daemon_is_started_listed_and_stopped() {
    let place = Place::new();
    let state = serve(&place);
    let options = "--mcast-interface lo --syncid 3 --sync-maxlen 1400 --mcast-group 224.0.0.82 --mcast-port 8849 --mcast-ttl 2";
    check(&place.run("ipvsadm", "-L --daemon", ""), 0, "", "");
    for role in ["backup", "master"] {
        check(&place.run("ipvsadm", &format!("--stop-daemon {role}"), ""), 255, "", "No daemon is running\n");
        check(&place.run("ipvsadm", &format!("--start-daemon {role} {options}"), ""), 0, "", "");
        let again = place.run("ipvsadm", &format!("--start-daemon {role} {options}"), "");
        check(&again, 255, "", "Daemon has already run\n");
    }
    let line = |role| {
        format!("{role} sync daemon (mcast=lo, syncid=3, maxlen=1400, group=224.0.0.82, port=8849, ttl=2)\n")
    };
    check(&place.run("ipvsadm", "-L --daemon", ""), 0, &[line("master"), line("backup")].concat(), "");
    check(&place.run("ipvsadm", "--stop-daemon master", ""), 0, "", "");
    check(&place.run("ipvsadm", "-L --daemon", ""), 0, &line("backup"), "");
    let missing = place.run("ipvsadm", "--start-daemon master --mcast-interface sl-no-such", "");
    check(&missing, 255, "", "No such device\n");
    let before = state.lock().expect("the state").requests.len();
    let text = "illegal syncid specified\n";
    check(&place.run("ipvsadm", "--start-daemon master --syncid 256", ""), 2, "", text);
    assert_eq!(state.lock().expect("the state").requests.len(), before, "nobody was asked");
}

#[test]
fn save_and_restore() {
    let place = Place::new();
    let state = serve(&place);
    let saved = "-A -t 10.0.0.1:80 -s rr -p 60\n-a -t 10.0.0.1:80 -r 10.1.1.1:80 -g -w 3\n";
    let input = format!("# a comment\n{saved}");
    check(&place.run("ipvsadm-restore", "", &input), 0, "", "");
    check(&place.run("ipvsadm-save", "-n", ""), 0, saved, "");
    check(&place.run("ipvsadm", "-S -n", ""), 0, saved, "");
    // Restoring again starts from nothing.
    check(&place.run("ipvsadm-restore", "", &input), 0, "", "");
    check(&place.run("ipvsadm", "-R", saved), 0, "", "Service already exists\n");
    let help = place.run("ipvsadm-save", "--help", "");
    assert_eq!((help.status.code(), help.stdout.len()), (Some(1), 0));
    assert_eq!(help.stderr.iter().filter(|byte| **byte == b'\n').count(), 2);
    // A usage error ends the restore, after the lines before it.
    let broken = "-A -t 10.0.0.2:80\n-A -t bad\n-A -t 10.0.0.3:80\n";
    check(&place.run("ipvsadm", "-R", broken), 2, "", "illegal virtual server address[:port] specified\n");
    assert_eq!(state.lock().expect("the state").services.len(), 2);
}

#[test]
fn ten_thousand_lines_take_one_request() {
    let place = Place::new();
    let state = serve(&place);
    let mut input = "-A -t 10.0.0.1:80 -s rr\n".to_owned();
    for n in 0..10_000_u32 {
        input +=
            &format!("-a -t 10.0.0.1:80 -r 10.{}.{}.{}:80 -g -w 1\n", 1 + (n >> 16), n >> 8 & 255, n & 255);
    }
    let start = Instant::now();
    check(&place.run("ipvsadm", "-R", &input), 0, "", "");
    // Most of it is this test's own director; the bound only catches one request a line.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let state = state.lock().expect("the state");
    assert_eq!(state.services[0].reals.len(), 10_000);
    assert_eq!(state.requests.len(), 1, "{:?}", state.requests);
}
