//! Connection synchronisation with the kernel's own IPVS at the other end, both ways, on Debian's kernel in the virtual machine:
//! the one that announces is Sluice, then IPVS.

#[path = "selftest/world.rs"]
mod world;

use host::netns::Namespace;
use lab::command;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use world::World;

/// Set in the virtual machine.
const IN_VM: &str = "SLUICE_SYNCHRONISE_IN_VM";
const VIP: &str = "207.175.44.110:8080";
const REAL: &str = "10.0.0.3:8080";
/// A service of IPVS in its own namespace, whose real server is the director's machine.
const OTHER_VIP: &str = "172.17.0.2:9090";
const OTHER_REAL: &str = "172.17.0.1:9090";
/// An emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace with IPVS, linked to the director's.
struct Kernel {
    space: Namespace,
}

impl Kernel {
    fn new(world: &World) -> Self {
        let name = world.new_namespace("kernel");
        let space = Namespace::open(&name).expect("a namespace");
        command::ip(&format!(
            "link add veth13 netns {} type veth peer name veth31 netns {name}",
            world.director_name
        ))
        .expect("a link");
        let batch = |name: &str, lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            command::ip_batch(name, &lines).expect("lines of ip");
        };
        batch(&world.director_name, &["link set veth13 up", "address add 172.17.0.1/24 dev veth13"]);
        batch(&name, &["link set lo up", "link set veth31 up", "address add 172.17.0.2/24 dev veth31"]);
        Self { space }
    }

    /// Runs the classic `ipvsadm` against it.
    fn ipvsadm(&self, words: &str) -> String {
        let mut command = self.space.command(command::find("ipvsadm", "ipvsadm").expect("ipvsadm"));
        command.args(words.split_whitespace());
        command::output(command, None).unwrap_or_else(|error| panic!("{words}: {}", runtime::Chain(&error)))
    }
}

/// Polls a listing until a line of it holds all these words.
fn wait_for_line(what: &str, mut list: impl FnMut() -> String, words: &[&str]) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let listing = list();
        if let Some(line) = listing.lines().find(|line| words.iter().all(|word| line.contains(word))) {
            return line.to_owned();
        }
        assert!(Instant::now() < end, "{what}: no line with {words:?} in\n{listing}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// An open connection that has carried a few segments each way.
fn connect(from: &Namespace, vip: &str) -> TcpStream {
    let target: SocketAddr = vip.parse().expect("an address");
    let mut stream = from
        .run(|| TcpStream::connect_timeout(&target, PATIENCE))
        .expect("the namespace")
        .expect("a connection to the VIP");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    for byte in *b"abc" {
        stream.write_all(&[byte]).expect("a byte");
        let mut back = [0];
        stream.read_exact(&mut back).expect("the byte");
        assert_eq!(back, [byte]);
    }
    stream
}

/// Sends every byte back, until the process ends.
fn serve(space: &Namespace, at: &str) {
    let listener = space.run(|| TcpListener::bind(at)).expect("the namespace").expect("a free port");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

/// Seconds until a line of `-Lcn` ends, `14:59` in its second column.
fn expires_s(line: &str) -> u32 {
    let time = line.split_whitespace().nth(1).expect("a column");
    let (minutes, seconds) = time.split_once(':').expect("MINUTES:SECONDS");
    minutes.parse::<u32>().expect("minutes") * 60 + seconds.parse::<u32>().expect("seconds")
}

fn ipvs_takes_over_what_sluice_announces(world: &World, kernel: &Kernel) {
    kernel.ipvsadm(&format!("-A -t {VIP} -s rr"));
    kernel.ipvsadm(&format!("-a -t {VIP} -r {REAL} -g"));
    kernel.ipvsadm("--start-daemon backup --mcast-interface veth31 --syncid 5");
    world.sluice(&format!("ipvsadm -A -t {VIP} -s rr -p 300"));
    world.sluice(&format!("ipvsadm -a -t {VIP} -r {REAL} -g"));
    // Its backup asks for everything, by a message that IPVS has to pass over.
    world.sluice("ipvsadm --start-daemon backup --mcast-interface veth13 --syncid 5");
    world.sluice("ipvsadm --start-daemon master --mcast-interface veth13 --syncid 5");
    let shown = |role| {
        format!(
            "{role} sync daemon (mcast=veth13, syncid=5, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n"
        )
    };
    assert_eq!(world.sluice("ipvsadm -L --daemon"), [shown("master"), shown("backup")].concat());
    serve(&world.server, "0.0.0.0:8080");
    let stream = connect(&world.client, VIP);
    let client = stream.local_addr().expect("an address").to_string();
    let list = || kernel.ipvsadm("-Lcn");
    let line = wait_for_line("a connection in IPVS", list, &["TCP", "ESTABLISHED", &client, VIP, REAL]);
    assert!((600..=900).contains(&expires_s(&line)), "{line}");
    // Counted for the real server there, as an active connection; and its template beside it.
    let counted = wait_for_line("the real server", || kernel.ipvsadm("-Ln"), &["-> 10.0.0.3:8080"]);
    assert_eq!(counted.split_whitespace().nth(4), Some("1"), "{counted}");
    let template = wait_for_line("a template in IPVS", list, &["TCP", "ASSURED", "10.0.0.2:0", VIP, REAL]);
    assert!((200..=300).contains(&expires_s(&template)), "{template}");
    // An end is told as well.
    drop(stream);
    wait_for_line("the end of the connection", list, &["TCP", "FIN_WAIT", &client, VIP, REAL]);
    world.sluice("ipvsadm --stop-daemon master");
    world.sluice("ipvsadm --stop-daemon backup");
    kernel.ipvsadm("--stop-daemon backup");
}

fn sluice_takes_over_what_ipvs_announces(world: &World, kernel: &Kernel) {
    for words in [format!("-A -t {OTHER_VIP} -s rr"), format!("-a -t {OTHER_VIP} -r {OTHER_REAL} -m")] {
        kernel.ipvsadm(&words);
        world.sluice(&format!("ipvsadm {words}"));
    }
    world.sluice("ipvsadm --start-daemon backup --mcast-interface veth13 --syncid 9");
    kernel.ipvsadm("--start-daemon master --mcast-interface veth31 --syncid 9");
    serve(&world.director_space, OTHER_REAL);
    let stream = connect(&kernel.space, OTHER_VIP);
    let client = stream.local_addr().expect("an address").to_string();
    let list = || world.sluice("ipvsadm -Lcn");
    let line = wait_for_line(
        "a connection in Sluice",
        list,
        &["TCP", "ESTABLISHED", &client, OTHER_VIP, OTHER_REAL],
    );
    assert!((600..=900).contains(&expires_s(&line)), "{line}");
    let counted = || world.sluice("ipvsadm -Ln");
    let counted = wait_for_line("the real server", counted, &[&format!("-> {OTHER_REAL}")]);
    assert_eq!(counted.split_whitespace().nth(4), Some("1"), "{counted}");
    world.sluice("ipvsadm --stop-daemon backup");
    kernel.ipvsadm("--stop-daemon master");
    assert_eq!(world.sluice("ipvsadm -L --daemon"), "");
}

fn both_ways() {
    let modules = "modprobe -a ip_vs ip_vs_rr";
    let done = Command::new("sh").args(["-c", modules]).status().expect("sh");
    assert!(done.success(), "{modules}: {done}");
    let world = World::new(&[
        "address add 207.175.44.110/32 dev lo",
        "link set veth20 up",
        "address add 10.0.0.3/24 dev veth20",
    ]);
    let kernel = Kernel::new(&world);
    ipvs_takes_over_what_sluice_announces(&world, &kernel);
    sluice_takes_over_what_ipvs_announces(&world, &kernel);
}

#[test]
fn kernel_ipvs_and_sluice_take_over_each_others_connections() {
    if std::env::var_os(IN_VM).is_some() {
        both_ways();
        return;
    }
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let vm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/vm");
    let ready = Command::new(&vm).arg("setup").output().expect("tools/vm");
    if !ready.status.success() {
        testkit::skip!("{}", String::from_utf8_lossy(&ready.stderr).trim());
    }
    let mut command = Command::new(vm);
    command.args(["run", "--timeout", "480", "--mem", "1024", "--env", &format!("{IN_VM}=1"), "--"]);
    command.arg(std::env::current_exe().expect("this program"));
    command.args(["--exact", "kernel_ipvs_and_sluice_take_over_each_others_connections", "--nocapture"]);
    let done = command.output().expect("tools/vm");
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success() && said.contains("1 passed"), "in the virtual machine:\n{said}");
}
