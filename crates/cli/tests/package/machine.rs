//! A machine with systemd on it, in namespaces, over a copy of this machine's file system; everything that is written goes
//! with it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take: unpacking on a busy machine takes a while.
const COMMAND_S: u32 = 180;
/// How long systemd may take until it answers.
const BOOT_MAX: Duration = Duration::from_secs(60);

pub struct Machine {
    unshare: Child,
    directory: tempfile::TempDir,
    cgroup: String,
}

impl Machine {
    /// Boots it.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let cgroup = format!("sluice-test-{}", std::process::id());
        let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package/boot.sh");
        let unshare = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork"])
            .args(["--kill-child", "bash"])
            .arg(boot)
            .arg(directory.path())
            .arg(&cgroup)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare");
        let mut machine = Self { unshare, directory, cgroup };
        let deadline = Instant::now() + BOOT_MAX;
        while !machine.is_up() {
            if let Some(status) = machine.unshare.try_wait().expect("a child") {
                panic!("the machine does not boot: {status}");
            }
            assert!(Instant::now() < deadline, "systemd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        machine
    }

    fn is_up(&self) -> bool {
        self.first().is_some()
            && self
                .try_run("systemctl is-active --quiet systemd-journald")
                .is_ok_and(|it| it.status.success())
    }

    /// Process 1 of the machine, as seen from here.
    fn first(&self) -> Option<i32> {
        let pid = self.unshare.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn try_run(&self, script: &str) -> std::io::Result<Output> {
        let first = self.first().unwrap_or_default();
        let mut command = Command::new("timeout");
        command.args([
            "--kill-after=5",
            &COMMAND_S.to_string(),
            "nsenter",
            "--all",
            "-t",
            &first.to_string(),
        ]);
        command.arg(format!("--root=/proc/{first}/root")).arg(format!("--wd=/proc/{first}/root"));
        command.args(["bash", "-c", &format!("set -e\nexec 2>&1\n{script}")]).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("HOME", "/root").stdin(Stdio::null()).output()
    }

    /// Runs a script of bash that must succeed; gives what it wrote.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let output = self.try_run(script).expect("nsenter");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {}\n{text}", output.status);
        text.trim().to_owned()
    }

    /// Runs a condition of bash until it holds.
    #[track_caller]
    pub fn wait_for(&self, condition: &str) {
        self.run(&format!(
            "for i in $(seq 600); do if {condition}; then exit 0; fi; sleep 0.1; done; exit 1"
        ));
    }

    /// Hands a file in.
    pub fn put(&self, file: &Path) {
        let first = self.first().expect("it runs");
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        std::fs::copy(file, format!("/proc/{first}/root/tmp/{name}")).expect("copy");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(first) = self.first() {
            // With process 1 all others of its namespace go.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // Its mounts went with it; the control groups are the kernel's.
        let script = "mount -t cgroup2 cgroup2 \"$1\" && for i in $(seq 50); do \
            find \"$1/$2\" -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -e \"$1/$2\" ] && exit 0; sleep 0.1; done; exit 1";
        let mut clean = Command::new("unshare");
        clean.args(["--mount", "bash", "-c", script, "-"]).arg(self.directory.path()).arg(&self.cgroup);
        let cleaned = clean.status().is_ok_and(|status| status.success());
        assert!(cleaned || std::thread::panicking(), "control groups are left");
    }
}
