//! The Debian package: built, looked at, installed on a machine of its own with systemd, used, upgraded, removed, purged.
//!
//! Needs root, cargo-deb and what `./dev setup package` installs. Everything is made by the test and goes with it.

#[path = "package/machine.rs"]
mod machine;

use machine::Machine;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Highest exposure that `systemd-analyze security` may find in the unit, in tenths.
const EXPOSURE_MAX: &str = "30";

/// `CAP_KILL`, `CAP_SETGID`, `CAP_SETUID`, `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_PERFMON`, `CAP_BPF`, as /proc shows them.
const CAPABILITIES: &str = "000000c0000030e0";

const INSTALL: &str = "apt-get install -y -qq -o DPkg::Options::=--path-include='/usr/share/man/*' \
    -o DPkg::Options::=--path-include='/usr/share/doc/*'";

fn lacks(programs: &[&str]) -> Option<String> {
    let is_there = |name: &&&str| {
        Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .output()
            .is_ok_and(|it| it.status.success())
    };
    let missing: Vec<&str> = programs.iter().filter(|name| !is_there(name)).copied().collect();
    (!missing.is_empty()).then(|| format!("{} missing; ./dev setup package installs it", missing.join(" ")))
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Makes the package of this very build, as two versions.
fn packages(folder: &Path) -> [PathBuf; 2] {
    ["0.1.0-1", "0.1.0-2"].map(|version| {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        build.args(["xtask", "package", "--fast", "--deb-version", version]);
        build.arg("--binary").arg(env!("CARGO_BIN_EXE_sluice")).arg("--output").arg(folder);
        let said = output(&mut build);
        let package = PathBuf::from(said.lines().last().expect("its name"));
        assert_eq!(package.parent(), Some(folder), "{said}");
        let name = package.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name.starts_with(&format!("sluice_{version}_")) && name.ends_with(".deb"), "{name}");
        package
    })
}

#[test]
fn the_package_is_built_installed_used_upgraded_removed_and_purged() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let programs = [
        "cargo-deb",
        "dpkg-shlibdeps",
        "lintian",
        "man",
        "systemctl",
        "systemd-analyze",
        "setpriv",
        "strip",
        "apt-get",
    ];
    if let Some(reason) = lacks(&programs) {
        testkit::skip!("{reason}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = packages(folder.path());
    says_what_it_is(&first);
    output(Command::new("lintian").args(["--fail-on", "warning"]).arg(&first));

    let machine = Machine::new();
    machine.put(&first);
    machine.put(&second);
    installs(&machine, &first);
    runs_as_a_service(&machine);
    is_upgraded(&machine, &second);
    goes(&machine);
}

fn says_what_it_is(package: &Path) {
    let info = output(Command::new("dpkg-deb").arg("--info").arg(package));
    for line in
        ["Package: sluice", "Provides: ipvsadm", "Conflicts: ipvsadm", "Replaces: ipvsadm", "Depends: libc6"]
    {
        assert!(info.lines().any(|it| it.trim().starts_with(line)), "{line}: {info}");
    }
    let contents = output(Command::new("dpkg-deb").arg("--contents").arg(package));
    let files = [
        "./usr/sbin/sluice",
        "./usr/sbin/ipvsadm -> sluice",
        "./usr/sbin/ipvsadm-save -> sluice",
        "./usr/sbin/ipvsadm-restore -> sluice",
        "./usr/lib/systemd/system/sluice-director.service",
        "./etc/default/sluice",
        "./usr/share/doc/sluice/operating.md",
        "./usr/share/doc/sluice/copyright",
        "./usr/share/doc/sluice/changelog.gz",
        "./usr/share/sluice/cluster-file.schema.json",
        "./usr/share/zsh/vendor-completions/_sluice",
        "./usr/share/fish/vendor_completions.d/sluice.fish",
    ];
    for file in files {
        assert!(contents.lines().any(|line| line.ends_with(&format!(" {file}"))), "{file}: {contents}");
    }
}

/// Installed, it is there with all its pages, and waits for its interfaces without failing.
fn installs(machine: &Machine, package: &Path) {
    let name = package.file_name().expect("a name").to_string_lossy().into_owned();
    let said = machine.run(&format!("{INSTALL} /tmp/{name}"));
    assert!(said.contains("to begin, set SLUICE_INTERFACES in /etc/default/sluice"), "{said}");
    assert_eq!(machine.run("dpkg --verify sluice"), "");
    assert_eq!(
        machine.run("dpkg-query -W -f '${Conffiles}' sluice").split(' ').next(),
        Some("/etc/default/sluice")
    );
    assert!(machine.run("sluice --version").starts_with("sluice "));
    assert!(machine.run("ipvsadm --version").starts_with("ipvsadm v1.31"));

    for page in ["sluice", "sluice-director", "sluice-apply", "ipvsadm", "ipvsadm-save", "ipvsadm-restore"] {
        machine.run(&format!("MANPAGER=cat man 8 {page} | grep -q NAME"));
    }
    // Every command has its page.
    machine.run(
        "sluice --help | sed -n '/^Commands:/,/^Options:/s/^  \\([a-z][a-z]*\\) .*/\\1/p' | grep -v '^help$' >/tmp/commands; \
         [ $(wc -l </tmp/commands) -gt 20 ]; while read -r name; do man -w 8 sluice-$name >/dev/null; done </tmp/commands",
    );
    machine.run("bash -n /usr/share/bash-completion/completions/sluice");

    machine.run("systemctl is-enabled sluice-director");
    let state = machine.run("systemctl show sluice-director -p ActiveState -p Result -p NRestarts");
    assert!(state.contains("ActiveState=inactive") && state.contains("NRestarts=0"), "{state}");
    let journal = machine.run("journalctl -u sluice-director -o cat --no-pager -p notice");
    assert!(journal.contains("not started: set SLUICE_INTERFACES in /etc/default/sluice"), "{journal}");

    assert_eq!(machine.run("systemd-analyze verify sluice-director.service"), "");
    let unit = "/usr/lib/systemd/system/sluice-director.service";
    machine.run(&format!("systemd-analyze security --offline=true --threshold={EXPOSURE_MAX} {unit}"));
}

/// The process of the service.
fn main_pid(machine: &Machine) -> String {
    machine.run("systemctl show sluice-director -p MainPID --value")
}

fn runs_as_a_service(machine: &Machine) {
    let options = "--reals-max 256 --slots-max 20000 --established-flows-max 4096";
    machine.run(&format!(
        "sed -i -e 's/^SLUICE_INTERFACES=.*/SLUICE_INTERFACES=\"eth0,eth1\"/' \
         -e 's/^SLUICE_OPTIONS=.*/SLUICE_OPTIONS=\"{options}\"/' /etc/default/sluice"
    ));
    machine.run(
        "systemctl start sluice-director || { journalctl -u sluice-director -o cat --no-pager; exit 1; }",
    );
    machine.run("ipvsadm -A -t 192.0.2.10:80 -s wlc && ipvsadm -a -t 192.0.2.10:80 -r 192.0.2.101 -g");
    for line in ["CapEff", "CapPrm"] {
        let found = machine.run(&format!("grep {line} /proc/{}/status", main_pid(machine)));
        assert_eq!(found.split_whitespace().last(), Some(CAPABILITIES), "{found}");
    }
    let journal = machine.run("journalctl -u sluice-director -o json --no-pager | grep 'director is ready'");
    assert!(journal.contains("\"PRIORITY\":\"6\""), "{journal}");
    // The kernel's settings are out of its reach.
    let pid = main_pid(machine);
    machine.run(&format!("! nsenter -t {pid} --mount sh -c 'echo 1 >/proc/sys/kernel/sysrq' 2>/dev/null"));

    // Killed, it is started again and takes over; so it is when it only hangs.
    let status = "systemctl show sluice-director -p StatusText --value";
    for (signal, watchdog) in [("KILL", ""), ("STOP", "WatchdogSec=3s")] {
        let place = "/run/systemd/system/sluice-director.service.d";
        machine.run(&format!("mkdir -p {place}; printf '[Service]\\n{watchdog}\\n' >{place}/test.conf"));
        machine.run("systemctl daemon-reload; systemctl restart sluice-director");
        let pid = main_pid(machine);
        machine.run(&format!("kill -{signal} {pid}"));
        machine.wait_for(&format!(
            "[ $(systemctl show sluice-director -p MainPID --value) != {pid} ] && systemctl is-active -q sluice-director"
        ));
        let expected = "balancing 1 service over 1 real server on 2 interfaces, configuration 2";
        assert_eq!(machine.run(status), expected, "after {signal}");
        assert!(machine.run("sluice status --json").contains("\"adopted\":true"));
        machine.run(&format!("rm -r {place}; systemctl daemon-reload"));
    }
}

/// Which program each interface runs, and what is configured.
const STATE: &str =
    "for i in eth0 eth1; do ip -d link show $i | grep -o 'prog/xdp id [0-9]*'; done; ipvsadm -Sn";

fn is_upgraded(machine: &Machine, package: &Path) {
    let (before, pid) = (machine.run(STATE), main_pid(machine));
    assert_eq!(before.lines().count(), 4, "{before}");
    let name = package.file_name().expect("a name").to_string_lossy().into_owned();
    machine.run(&format!("{INSTALL} /tmp/{name}"));
    assert_eq!(machine.run("dpkg-query -W -f '${Version}' sluice"), "0.1.0-2");
    machine.run("systemctl is-active sluice-director");
    assert_ne!(main_pid(machine), pid, "the new program runs");
    // The same programs were never detached: a program loaded anew has another number.
    assert_eq!(machine.run(STATE), before);
    machine.run("grep -q 'INTERFACES=\"eth0,eth1\"' /etc/default/sluice");
}

fn goes(machine: &Machine) {
    machine.run("apt-get remove -y -qq sluice");
    machine.run("! systemctl is-active -q sluice-director; ! pgrep -x sluice");
    machine.run("! ip -d link show | grep -q prog/xdp; [ ! -e /sys/fs/bpf/sluice ]; [ ! -e /run/sluice ]");
    machine.run("[ -e /var/lib/sluice/model.json ]; grep -q 'eth0,eth1' /etc/default/sluice; [ ! -e /usr/sbin/sluice ]");
    machine.run("apt-get purge -y -qq sluice");
    machine.run("[ ! -e /var/lib/sluice ]; [ ! -e /etc/default/sluice ]; [ ! -e /usr/share/doc/sluice ]");
    assert_eq!(
        machine.run(
            "find /etc/systemd /usr/lib/systemd /usr/share/man -name 'sluice*' -o -name 'ipvsadm.service'"
        ),
        ""
    );
    assert_eq!(machine.run("dpkg-query -W -f '${db:Status-Status}' sluice 2>/dev/null || true"), "");
}
