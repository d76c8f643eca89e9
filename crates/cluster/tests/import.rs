//! Files in the form of other programs, what becomes of them, and what is left.
//!
//! `SLUICE_BLESS=1 cargo test -p sluice-cluster --test import` writes the expected files anew.

use api::Protocol;
use cluster::{Format, Names, import, parse};
use plan::Options;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// What the name services of the samples' network know.
struct Hosts;

impl Names for Hosts {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "mail.example").then_some(Ipv4Addr::new(192, 0, 2, 25))
    }
    fn service_port(&self, name: &str, _: Protocol) -> Option<u16> {
        let known = [("http", 80), ("smtp", 25), ("telnet", 23), ("domain", 53)];
        known.into_iter().find(|(known, _)| *known == name).map(|(_, port)| port)
    }
    fn host_name(&self, _: IpAddr) -> Option<String> {
        None
    }
    fn service_name(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}

fn check(format: Format, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let sample = fs::read_to_string(folder.join(name)).expect("the sample is there");
    let imported = import(format, &sample, &Options::default(), &Hosts);
    let parsed = parse(&imported.text, &Options::default());
    assert!(parsed.cluster.is_some(), "{name}: {:?}\n{}", parsed.findings, imported.text);
    let mut left = String::new();
    for it in &imported.left {
        // What was left stands in the file.
        assert!(it.line >= 1 && it.line <= sample.lines().count(), "{name}: line {}", it.line);
        let _ = writeln!(left, "{}: {}: {}", it.line, it.what, it.why);
    }
    for (ending, found) in [("toml", &imported.text), ("left", &left)] {
        let path = folder.join(format!("{name}.{ending}"));
        if std::env::var_os("SLUICE_BLESS").is_some() {
            fs::write(&path, found).expect("the folder can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(expected == *found, "{} differs; run with SLUICE_BLESS=1 and look\n{found}", path.display());
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let text = "\u{feff}-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -g -w 1\n";
    let imported = import(Format::IpvsadmSave, text, &Options::default(), &Hosts);
    assert_eq!(imported.left, []);
    assert!(imported.text.contains("servers = [\"10.0.0.1\"]"), "{}", imported.text);
}

#[test]
fn ipvsadm_save_is_imported() {
    check(Format::IpvsadmSave, "ipvsadm-save.txt");
}

#[test]
fn keepalived_is_imported() {
    check(Format::Keepalived, "keepalived.conf");
}

#[test]
fn ldirectord_is_imported() {
    check(Format::Ldirectord, "ldirectord.cf");
}

#[test]
fn lvs_dr_is_imported() {
    check(Format::LvsDr, "lvs_dr.conf");
}

#[test]
fn piranha_is_imported() {
    check(Format::Piranha, "lvs.cf");
}
