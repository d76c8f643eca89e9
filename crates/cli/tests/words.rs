//! What `sluice` says to words that are wrong, to no director, and to a request for help. Needs neither root nor a kernel.

use std::process::{Command, Output};

fn sluice(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(words)
        .env_remove("SLUICE_SOCKET")
        .output()
        .expect("the program to start")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_words_name_themselves_and_what_would_be_right() {
    let vip = "192.0.2.10:80";
    let long = "s".repeat(200);
    let cases: [(&[&str], i32, &str); 43] = [
        (&["director"], 2, "--interface <NAME>"),
        (&["director", "--interfce", "eth0"], 2, "a similar argument exists: '--interface'"),
        (&["director", "-i", "eth0", "--reals-max", "0"], 2, "0 is not in 1..=268435456"),
        (&["director", "-i", "eth0", "--log-format", "xml"], 2, "say auto, text, journal or json"),
        (&["director", "-i", "eth0", "--remove"], 2, "cannot be used with"),
        (&["director", "-i", "eth0", "--otlp", "https://collector"], 2, "TLS is not spoken here"),
        (&["directr"], 2, "'director'"),
        (&["explain", "icmp", "192.0.2.1:1", vip], 2, "use tcp, udp or sctp"),
        (
            &["explain", "tcp", "192.0.2.1", vip],
            2,
            "give an address with its port, such as 198.51.100.7:40000",
        ),
        (&["explain", "tcp", "192.0.2.1:1", "192.0.2.10:99999"], 2, "give an address with its port"),
        (&["explain", "tcp", "192.0.2.1:1", "[2001:db8::1]:80"], 1, "use both IPv4 or both IPv6"),
        (&["policy", "list", "--gone", "keep"], 1, "a list takes no choices"),
        (&["policy", "tcp", "192.0.2.1", "--gone", "keep"], 1, "names no service: give a protocol"),
        (&["policy", "default"], 1, "nothing chosen for default"),
        (&["policy", "default", "--rescue", "maybe"], 2, "say on or off"),
        (&["set", "conn_reuse_mode"], 2, "<VALUE>"),
        (&["set", "conn_reuse_mode", "many"], 2, "invalid value 'many'"),
        (&["doctor", "--only", "apr"], 2, "no examination of this name: use interface, xdp,"),
        (&["flows", "--client", "web1"], 2, "`web1' is no network or address: give one such as"),
        (&["flows", "--vip", "192.0.2.0/24"], 2, "`192.0.2.0/24' is no address: give one such as"),
        (&["flows", "--state", "OPEN"], 2, "[possible values: ASSURED, C-ECHOED"),
        (&["flows", "--table", "dead"], 2, "say established, embryonic or templates"),
        (&["flows", "--limit", "0"], 2, "0 is not in 1.."),
        (&["flows", "--by", "client"], 2, "--count"),
        (&["flows", "--client", "192.0.2.1", "--vip", "2001:db8::1"], 1, "use both IPv4 or both IPv6"),
        (&["capture", "--sample", "2"], 2, "give a part such as 1/1000"),
        (&["capture", "--client", "192.0.2.1:80"], 2, "a capture does not look at ports"),
        (
            &["capture", "--verdict", "dropped"],
            2,
            "there is no verdict `dropped': `sluice verdicts' lists them",
        ),
        (&["capture", "--snaplen", "9000"], 2, "9000 is not in 1..=8192"),
        (&["capture", "--end", "--count", "1"], 2, "cannot be used with"),
        (&["demo", "--end", "1x"], 1, "there is no run 1x"),
        (&["top"], 1, "standard output is no terminal, and `sluice top' draws on one"),
        (&["apply", "c.toml", "--confirm", "0s"], 2, "give a time of 10s to 24h with its unit"),
        (&["apply", "c.toml", "--confirm", "5"], 2, "give a time of 10s to 24h with its unit"),
        (&["apply", "c.toml", "--confirm", "-5m"], 2, "give a time of 10s to 24h with its unit"),
        (&["apply", "c.toml", "--confirm", "9000000000y"], 2, "give a time of 10s to 24h with its unit"),
        (&["apply", "c.toml", "--expect", "-1"], 2, "give a whole number from 0 up"),
        (&["rollback", "last"], 2, "give a whole number from 0 up"),
        (&["set", "drop_packet", "-1"], 2, "give a whole number from 0 up"),
        (&["events", "--after", "x"], 2, "give a whole number from 0 up"),
        (&["health", "--socket", "/proc"], 1, "/proc is no socket: start a director"),
        (&["health", "--socket", &long], 1, "the path of a socket has at most 107 bytes"),
        (&["man", "/nonexistent"], 1, "cannot write man pages to /nonexistent: No such file"),
    ];
    for (words, code, expected) in cases {
        let output = sluice(words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}: {}", text(&output.stdout));
    }
}

#[test]
fn without_a_director_it_says_where_it_looked_and_how_to_start_one() {
    let socket = "/nonexistent/s";
    for words in [
        vec!["status", "--socket", socket],
        vec!["verdicts", "--socket", socket],
        vec!["policy", "list", "--socket", socket],
        vec!["set", "--socket", socket],
        vec!["explain", "--socket", socket, "udp", "192.0.2.1:1", "192.0.2.10:53"],
    ] {
        let output = sluice(&words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(
            text(&output.stderr),
            "error: cannot ask the director: no director listens on /nonexistent/s: start it with \
             `sluice director`, or name its socket in SLUICE_SOCKET\n"
        );
    }
}

#[test]
fn the_doctor_lists_what_it_does_and_says_that_it_can_do_nothing_without_a_director() {
    let listed = sluice(&["doctor", "--list"]);
    assert!(listed.status.success());
    assert!(text(&listed.stdout).lines().any(|line| line.starts_with("arp         Does nobody but")));
    let output = sluice(&["doctor", "--socket", "/nonexistent/s"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no director listens on /nonexistent/s"));
}

#[test]
fn every_command_has_an_example_in_its_help() {
    let commands: [&[&str]; 15] = [
        &[],
        &["director"],
        &["status"],
        &["verdicts"],
        &["flows"],
        &["capture"],
        &["explain"],
        &["policy"],
        &["set"],
        &["demo"],
        &["doctor"],
        &["bench", "packet"],
        &["bench", "upgrade"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let mut words = command.to_vec();
        words.push("--help");
        let output = sluice(&words);
        let (help, last) = (text(&output.stdout), command.first().copied().unwrap_or("director"));
        assert!(output.status.success(), "{command:?}");
        let examples = help.split_once("Example").map(|(_, examples)| examples).unwrap_or_default();
        assert!(examples.contains(&format!("  sluice {last}")), "{command:?}: {help}");
    }
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let output = sluice(&["completions", shell]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("explain"), "{shell}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = sluice(&["man", folder.path().to_str().expect("a name")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let read = |page: &str| std::fs::read_to_string(folder.path().join(page)).expect(page);
    for page in ["sluice.8", "sluice-director.8", "sluice-explain.8", "sluice-bench-packet.8"] {
        let page = read(page);
        assert!(page.contains(".SH NAME") && page.contains("Example"), "{page}");
    }
    let page = read("ipvsadm.8");
    assert!(page.contains(".SH NAME") && page.contains("add\\-service SERVICE"), "{page}");
    for page in ["ipvsadm-save.8", "ipvsadm-restore.8"] {
        assert_eq!(read(page), ".so man8/ipvsadm.8\n");
    }
}

#[test]
fn whoever_stops_reading_or_cannot_write_gets_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.toml");
    std::fs::write(&bad, "page = 1\n").expect("written");
    let bad = bad.to_str().expect("a name");
    let commands: [&[&str]; 14] = [
        &["--help"],
        &["--no-such"],
        &["help", "flows"],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["schema"],
        &["doctor", "--list"],
        &["validate", bad],
        &["validate", bad, "--json"],
        &["fmt", bad],
        &["import", "keepalived", bad],
        &["ipvsadm", "-h"],
        &["ipvsadm", "-A"],
        &["status", "--socket", "/nonexistent/s"],
    ];
    // One whose reader has gone, as behind `| head`, and a disk that is full.
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        std::process::Stdio::from(writer)
    };
    let full = || {
        let file = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        std::process::Stdio::from(file)
    };
    for words in commands {
        let run = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
            command.args(words).stdin(std::process::Stdio::null());
            command
        };
        let expected = run().output().expect("the program to start").status.code();
        for (closed, output) in [
            ("standard output", run().stdout(gone()).output()),
            ("standard error", run().stderr(gone()).output()),
            ("both", run().stdout(gone()).stderr(gone()).output()),
            ("standard error on a full disk", run().stderr(full()).output()),
        ] {
            let output = output.expect("the program to start");
            assert!(!text(&output.stderr).contains("panicked"), "{words:?} without {closed}");
            assert_eq!(output.status.code(), expected, "{words:?} without {closed}");
        }
        let output = run().stdout(full()).output().expect("the program to start");
        assert!(!text(&output.stderr).contains("panicked"), "{words:?}: {}", text(&output.stderr));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(["completions", "fish"]).stdout(full()).output().expect("the program to start");
    assert_eq!(
        (output.status.code(), text(&output.stderr).as_str()),
        (Some(1), "error: cannot print the answer: No space left on device (os error 28)\n")
    );
}
