//! FTP through the director, passive and active, by the recipes of docs/persistence.md: with the service on port 21, and
//! with a mark, by direct routing and masquerading. A real server (vsftpd) and a real client (curl) in namespaces. Needs root, nginx, vsftpd and curl.

use lab::address::{Node, VIP_V4};
use lab::demo::Cancel;
use lab::demo::director::Director;
use lab::inside::Inside;
use lab::process::Process;
use lab::{Lab, LabError, LabOptions};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const REALS: u32 = 2;
/// A second address of the client's machine, for another client.
const SECOND: &str = "192.0.2.21";
const START_MAX: Duration = Duration::from_secs(10);

/// The ways curl gets the data connection: EPSV, PASV, EPRT, PORT.
const MODES: [&[&str]; 4] =
    [&[], &["--disable-epsv"], &["--ftp-port", "-"], &["--ftp-port", "-", "--disable-eprt"]];

/// Where the real servers are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reals {
    /// On the clients' network.
    Beside,
    /// Behind the director, which is their way to the clients.
    Behind,
}

/// A cluster with an FTP server on each real server; `None` where something is missing.
fn cluster(reals: Reals) -> Option<(Lab, Vec<Process>)> {
    for program in ["/usr/sbin/vsftpd", "/usr/bin/curl", "/usr/sbin/nft"] {
        if !Path::new(program).exists() {
            testkit::skip::announce(&format!("needs {program}; ./dev setup installs it"));
            return None;
        }
    }
    let mut lab = match Lab::new(LabOptions { reals: REALS, ..LabOptions::default() }) {
        Err(LabError::NotRoot | LabError::Command(lab::command::CommandError::Missing { .. })) => {
            testkit::skip::announce("needs root, iproute2, ethtool and nginx");
            return None;
        }
        made => made.expect("a cluster"),
    };
    lab.exec_in(Node::Client, "ip", &["address", "add", &format!("{SECOND}/24"), "dev", "eth0"])
        .expect("address");
    // The server works as another user inside the run's directory.
    open_to_all(lab.directory());
    if reals == Reals::Behind {
        put_behind(&mut lab);
    }
    let servers = (1..=REALS).map(|number| serve(&lab, number, reals)).collect();
    Some((lab, servers))
}

fn open_to_all(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("permissions");
}

/// Puts the real servers behind the director, which forwards, and translates the data connections that they open to the
/// VIP and FTP's data port.
fn put_behind(lab: &mut Lab) {
    for number in 1..=REALS {
        lab.put_inside(number).expect("a network");
        lab.route_through_director(number).expect("a route");
    }
    let rules = format!(
        "table ip ftp {{ chain out {{ type nat hook postrouting priority srcnat; \
         ip saddr 203.0.113.0/24 tcp sport 20 snat to {VIP_V4}; }}; }}"
    );
    let line = format!("echo 1 > /proc/sys/net/ipv4/ip_forward && nft '{rules}'");
    lab.exec_in(Node::Director, "sh", &["-c", &line]).expect("forwarding and rules");
}

/// An anonymous FTP server whose only file holds the server's name.
fn serve(lab: &Lab, number: u32, reals: Reals) -> Process {
    let name = Node::Real(number).name();
    let directory = lab.directory().join(format!("ftp-{name}"));
    let (root, empty) = (directory.join("root"), directory.join("empty"));
    for place in [&root, &empty] {
        fs::create_dir_all(place).expect("directory");
        open_to_all(place);
    }
    open_to_all(&directory);
    fs::write(root.join("name"), format!("{name}\n")).expect("the file");
    let configuration = directory.join("vsftpd.conf");
    let text = format!(
        "listen=YES\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\nanon_root={}\n\
         secure_chroot_dir={}\nnopriv_user=nobody\nconnect_from_port_20=YES\n\
         pasv_min_port=50000\npasv_max_port=50009\nseccomp_sandbox=NO\nxferlog_enable=NO\n",
        root.display(),
        empty.display()
    );
    let text = match reals {
        Reals::Beside => text,
        // The address that the client knows, not the server's own.
        Reals::Behind => text + &format!("pasv_address={VIP_V4}\n"),
    };
    fs::write(&configuration, text).expect("the configuration");
    let mut command = lab.command_in(Node::Real(number), "/usr/sbin/vsftpd").expect("namespace");
    command.arg(configuration);
    let mut server = lab.start(&format!("vsftpd-{name}"), command).expect("vsftpd");
    let end = Instant::now() + START_MAX;
    let listening = || lab.exec_in(Node::Real(number), "ss", &["-Hltn", "sport = :21"]).expect("ss");
    while listening().is_empty() {
        assert!(server.exit_status().is_none() && Instant::now() < end, "vsftpd: {}", server.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// Gets the file through the VIP from this address of the client; what it holds.
fn get(lab: &Lab, from: &str, mode: &[&str]) -> String {
    let url = format!("ftp://{VIP_V4}/name");
    let mut words = vec!["--silent", "--show-error", "--max-time", "10", "--interface", from];
    // An address and not a dash: the data connection must come to this client.
    words.extend(mode.iter().map(|word| if *word == "-" { from } else { *word }));
    words.push(&url);
    match lab.exec_in(Node::Client, "curl", &words) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => panic!("{mode:?} from {from}: {}", runtime::Chain(&error)),
    }
}

/// Both clients, every way: each client always gets the same server, and they get different ones.
fn check(lab: &Lab, director: &Director) {
    let mut seen = BTreeSet::new();
    for client in ["192.0.2.1", SECOND] {
        let names: BTreeSet<String> = MODES.iter().map(|mode| get(lab, client, mode)).collect();
        assert_eq!(names.len(), 1, "{client} got {names:?}");
        seen.extend(names);
    }
    assert_eq!(seen, BTreeSet::from(["real1".to_owned(), "real2".to_owned()]));
    let listed = director.front().ipvsadm("-L -c -n").expect("connections");
    let templates = listed.lines().filter(|line| line.contains("ASSURED")).count();
    assert_eq!(templates, 2, "{listed}");
    // Control and data connections, passive and active, of which the last are kept longest.
    for port in [":21 ", ":20 ", ":5000"] {
        assert!(listed.contains(port), "no connection to {port}\n{listed}");
    }
}

fn start(lab: &Lab) -> Director {
    Director::start(lab, env!("CARGO_BIN_EXE_sluice").into(), &Cancel::default()).expect("director")
}

fn ipvsadm(director: &Director, words: &str) {
    if let Err(error) = director.front().ipvsadm(words) {
        panic!("{words}: {}", runtime::Chain(&error));
    }
}

/// Mark 1 for FTP's control and data ports.
fn add_mark(director: &Director) {
    let mut command = Command::new(director.front().program());
    command.args(["mark", "add", "tcp", "--mark", "1"]).env("SLUICE_SOCKET", director.front().socket());
    command.args(["20", "21", "50000-50009"].map(|ports| format!("{VIP_V4}:{ports}")));
    let done = command.output().expect("sluice mark");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_persistent_service_on_port_21_carries_ftp() {
    let Some((lab, _servers)) = cluster(Reals::Beside) else { return };
    let director = start(&lab);
    ipvsadm(&director, &format!("-A -t {VIP_V4}:21 -s rr -p 60"));
    for number in 1..=REALS {
        ipvsadm(&director, &format!("-a -t {VIP_V4}:21 -r {}:21 -g", Node::Real(number).v4()));
    }
    check(&lab, &director);
}

#[test]
fn a_mark_carries_ftp() {
    let Some((lab, _servers)) = cluster(Reals::Beside) else { return };
    let director = start(&lab);
    add_mark(&director);
    ipvsadm(&director, "-A -f 1 -s rr -p 60");
    for number in 1..=REALS {
        ipvsadm(&director, &format!("-a -f 1 -r {} -g", Node::Real(number).v4()));
    }
    check(&lab, &director);
}

#[test]
fn masqueraded_servers_carry_ftp_by_a_persistent_service_on_port_21() {
    let Some((lab, _servers)) = cluster(Reals::Behind) else { return };
    let director = start(&lab);
    ipvsadm(&director, &format!("-A -t {VIP_V4}:21 -s rr -p 60"));
    for number in 1..=REALS {
        ipvsadm(&director, &format!("-a -t {VIP_V4}:21 -r {}:21 -m", Inside::of(number).real_v4));
    }
    check(&lab, &director);
}

#[test]
fn masqueraded_servers_carry_ftp_by_a_mark() {
    let Some((lab, _servers)) = cluster(Reals::Behind) else { return };
    let director = start(&lab);
    add_mark(&director);
    ipvsadm(&director, "-A -f 1 -s rr -p 60");
    for number in 1..=REALS {
        ipvsadm(&director, &format!("-a -f 1 -r {} -m", Inside::of(number).real_v4));
    }
    check(&lab, &director);
}
