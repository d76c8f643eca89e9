//! What must hold before anything is loaded: a kernel new enough, and the privileges.

use std::io;

/// Oldest kernel the programs are verified on: major and minor version.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF` [uapi/linux/capability.h]. Without `CAP_PERFMON` the verifier refuses
/// arithmetic with pointers that the programs do.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// This process cannot load eBPF programs.
#[derive(Debug, thiserror::Error)]
pub enum RequirementError {
    /// The kernel is too old.
    #[error("kernel {found} is too old: {}.{} or newer is needed", KERNEL_MIN.0, KERNEL_MIN.1)]
    KernelTooOld {
        /// The release it names.
        found: String,
    },
    /// Privileges are missing.
    #[error(
        "no permission: this needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (missing: {missing})"
    )]
    NoPermission {
        /// The capabilities that are missing.
        missing: String,
    },
    /// The kernel would not say.
    #[error("cannot read {what}")]
    Unknown {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Checks the kernel's version and this process's capabilities.
///
/// # Errors
/// [`RequirementError`], the first that fails.
pub fn check() -> Result<(), RequirementError> {
    let unknown = |what| move |source| RequirementError::Unknown { what, source };
    let names =
        nix::sys::utsname::uname().map_err(io::Error::from).map_err(unknown("the version of the kernel"))?;
    check_release(&names.release().to_string_lossy())?;
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(unknown("the capabilities of this process in /proc/self/status"))?;
    check_capabilities(effective_capabilities(&status))
}

fn check_release(release: &str) -> Result<(), RequirementError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN {
        return Ok(());
    }
    Err(RequirementError::KernelTooOld { found: release.to_owned() })
}

/// The bits of `CapEff:` in `/proc/self/status`; none when the line is missing.
fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

fn check_capabilities(bits: u64) -> Result<(), RequirementError> {
    let has = |capability: u32| bits & (1 << capability) != 0;
    let needed = [
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
    ];
    let missing: Vec<&str> = needed.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(RequirementError::NoPermission { missing: missing.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_below_6_1_are_refused_by_name() {
        for release in ["6.1.0-56-amd64", "6.1", "6.18.44-fc-v669", "7.0.0-rc1", "10.0"] {
            check_release(release).unwrap_or_else(|error| panic!("{release}: {error}"));
        }
        for release in ["6.0.19", "5.15.0-generic", "4.19", "", "linux"] {
            let error = check_release(release).expect_err(release);
            assert_eq!(error.to_string(), format!("kernel {release} is too old: 6.1 or newer is needed"));
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let bits = effective_capabilities("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n");
        check_capabilities(bits).expect("root has all");
        check_capabilities(1 << 39 | 1 << 38 | 1 << 12).expect("the three suffice");
        check_capabilities(1 << 21 | 1 << 12).expect("as before there were finer ones");
        let error = check_capabilities(1 << 38 | 1 << 12).expect_err("no CAP_BPF");
        assert!(error.to_string().ends_with("(missing: CAP_BPF)"), "{error}");
        let error = check_capabilities(effective_capabilities("no such line")).expect_err("nothing");
        assert!(error.to_string().ends_with("(missing: CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON)"), "{error}");
    }
}
