//! Whatever the words are, the parser answers; what it understood, it can write down and read again.

use api::{Change, Protocol};
use ipvsadm::{Failure, Names, Place, Request, drop_comments, parse, restore_lines};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};

/// Every name is known.
struct Everywhere;

impl Names for Everywhere {
    fn host_address(&self, _name: &str) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::LOCALHOST)
    }

    fn service_port(&self, _name: &str, _protocol: Protocol) -> Option<u16> {
        Some(80)
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        Some(format!("host-{address}"))
    }

    fn service_name(&self, port: u16, _protocol: Protocol) -> Option<String> {
        Some(format!("port-{port}"))
    }
}

const COMMANDS: [&str; 20] = [
    "-A",
    "-E",
    "-D",
    "-C",
    "-R",
    "-S",
    "-a",
    "-e",
    "-d",
    "-L",
    "-l",
    "-Z",
    "--set",
    "--start-daemon",
    "--stop-daemon",
    "-h",
    "-v",
    "--list",
    "--add-service",
    "--add-server",
];

const WORDS: [&str; 60] = [
    "-t",
    "10.0.0.1:80",
    "-u",
    "[2001:db8::1]:80",
    "-f",
    "7",
    "-6",
    "-s",
    "rr",
    "sh",
    "-p",
    "60",
    "-M",
    "24",
    "--pe",
    "sip",
    "-o",
    "-b",
    "sh-port,,flag-3",
    ",",
    "-r",
    "10.1.1.1:http",
    "www",
    "-g",
    "-i",
    "-m",
    "-w",
    "5",
    "-x",
    "-y",
    "--tun-type",
    "gue",
    "gre",
    "--tun-port",
    "6080",
    "--tun-csum",
    "--tun-nocsum",
    "--tun-remcsum",
    "-n",
    "-c",
    "--timeout",
    "--daemon",
    "--stats",
    "--rate",
    "-X",
    "--nosort",
    "--sort",
    "--mcast-group",
    "224.0.0.1",
    "ff02::1",
    "--syncid=3",
    "--mcast-ttl",
    "master",
    "backup",
    "--",
    "-",
    "",
    "-Ln",
    "-w=",
    "[]:",
];

fn read(words: &[String]) -> Result<Request, Failure> {
    parse("ipvsadm", words, Place::CommandLine, &Everywhere)
}

fn likely_words() -> impl Strategy<Value = Vec<String>> {
    let command = prop::sample::select(&COMMANDS[..]);
    let word = prop_oneof![
        8 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => "-[a-zA-Z0-9=]{1,6}",
    ];
    (command, prop::collection::vec(word, 0..12)).prop_map(|(command, mut words)| {
        words.insert(0, command.to_owned());
        words
    })
}

/// The words for a change that a generator made, so that they can be read back.
fn server_words() -> impl Strategy<Value = (Vec<String>, u16, u32)> {
    (any::<u32>(), 1..=u16::MAX, 0..=i32::MAX as u32, prop::bool::ANY).prop_map(
        |(host, port, weight, glued)| {
            let host = Ipv4Addr::from(host);
            let words: Vec<String> = if glued {
                vec!["-at10.0.0.1:80".into(), format!("-r{host}:{port}"), format!("-mw{weight}")]
            } else {
                let words =
                    ["-a", "--tcp-service=10.0.0.1:80", "-r", &format!("{host}:{port}"), "-m", "--weight"];
                words.into_iter().map(str::to_owned).chain([weight.to_string()]).collect()
            };
            (words, port, weight)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn likely_words_never_panic(words in likely_words()) {
        if let Err(failure) = read(&words) {
            prop_assert!([2, 255].contains(&failure.code), "{failure:?}");
            prop_assert!(!failure.text.is_empty());
        }
    }

    #[test]
    fn any_words_never_panic(words in prop::collection::vec(any::<String>(), 0..6)) {
        let _ = read(&words);
    }

    #[test]
    fn any_input_never_panics(input in any::<String>()) {
        for words in restore_lines(&drop_comments(&input)) {
            prop_assert!(!words.is_empty());
            let _ = parse("ipvsadm", &words, Place::Restore, &Everywhere);
        }
    }

    #[test]
    fn spellings_agree((words, port, weight) in server_words()) {
        match read(&words) {
            Ok(Request::Change(Change::AddReal { real, spec, .. })) => {
                prop_assert_eq!((real.port, spec.weight), (port, weight));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn a_list_of_commas_is_an_empty_list() {
    // The classic tool crashes here.
    let words = ["-A", "-t", "1.1.1.1:80", "-b", ",,"].map(str::to_owned);
    assert!(matches!(read(&words), Ok(Request::Change(Change::AddService { .. }))));
}
