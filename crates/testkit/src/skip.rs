//! Tests that need more than a compiler: root, eBPF. They say so instead of passing in silence.

use std::io::Write;

/// When this variable is set, a skipped test fails: for machines that must be able to run them all.
pub const NO_SKIP: &str = "SLUICE_NO_SKIP";

/// Ends the calling test: prints `SKIPPED <test name>: reason` to standard error and returns.
///
/// ```no_run
/// # fn test() {
/// if let Err(reason) = testkit::need_root() {
///     testkit::skip!("{reason}");
/// }
/// # }
/// ```
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skip::announce(&format!($($reason)*));
        return;
    }};
}

/// Prints the line of [`skip!`](crate::skip!).
///
/// # Panics
/// When the environment variable [`NO_SKIP`] is set.
pub fn announce(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed test");
    assert!(std::env::var_os(NO_SKIP).is_none(), "{test} would be skipped ({reason}), but {NO_SKIP} is set");
    // Not eprintln!: the test harness would swallow that for tests that pass. A closed stderr
    // leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// Fails unless the test runs as root.
///
/// # Errors
/// The reason, fit for [`skip!`](crate::skip!).
pub fn need_root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("needs root".to_owned()) }
}

/// Fails unless the test may load eBPF programs: root, and a kernel that answers the `bpf` call.
///
/// # Errors
/// The reason, fit for [`skip!`](crate::skip!).
pub fn need_bpf() -> Result<(), String> {
    need_root()?;
    // An unknown command on an empty attribute: E2BIG or EINVAL where eBPF works, EPERM or ENOSYS
    // where it is forbidden or not built.
    // SAFETY: the attribute pointer is null and its size zero, so the kernel reads no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_bpf, libc::c_long::MAX, 0_usize, 0_usize) };
    match nix::errno::Errno::last() {
        error @ (nix::errno::Errno::EPERM | nix::errno::Errno::ENOSYS) if result < 0 => {
            Err(format!("needs eBPF, but the kernel answers {error}"))
        }
        _ => Ok(()),
    }
}

/// Fails unless a program is on the path.
///
/// # Errors
/// The reason, fit for [`skip!`](crate::skip!).
pub fn need_tool(name: &str) -> Result<(), String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&paths).any(|folder| folder.join(name).is_file());
    if is_there { Ok(()) } else { Err(format!("needs {name}, which `./dev setup' installs")) }
}
