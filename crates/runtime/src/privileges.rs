//! Gives up capabilities.
//!
//! Capabilities belong to threads: each thread gives up its own, and threads that it starts later have no others.
//!
//! Deliberately absent: which ones a program needs.

pub use caps::Capability;
use caps::{CapSet, CapsHashSet};

/// Capabilities could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up capabilities")]
pub struct PrivilegeError(#[from] caps::errors::CapsError);

/// Keeps at most these capabilities of the calling thread, also in its bounding set if it may lower that (`CAP_SETPCAP`).
/// Programs that it starts as another user than root inherit none. Capabilities that it lacks are not missed here.
///
/// # Errors
/// [`PrivilegeError`]; some may be gone then.
pub fn keep_only(wanted: &[Capability]) -> Result<(), PrivilegeError> {
    let wanted: CapsHashSet = wanted.iter().copied().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    // What is no longer inheritable is no longer ambient.
    caps::clear(None, CapSet::Inheritable)?;
    let kept = caps::read(None, CapSet::Permitted)?.intersection(&wanted).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of the calling thread's capabilities: name and bits.
    fn lines() -> Vec<(String, u64)> {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let lines = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
        lines.map(|(name, bits)| (name.to_owned(), u64::from_str_radix(bits, 16).expect("bits"))).collect()
    }

    #[test]
    fn a_thread_keeps_what_it_wants_and_others_keep_theirs() {
        let before = lines();
        let wanted = [Capability::CAP_KILL, Capability::CAP_NET_RAW];
        let bits = wanted.iter().map(|it| 1_u64 << it.index()).sum::<u64>();
        std::thread::spawn(move || {
            let had = lines();
            let is_root = had.iter().any(|(name, had)| name == "Eff" && had & 1 << 8 != 0);
            keep_only(&wanted).expect("given up");
            for ((name, now), (_, had)) in lines().into_iter().zip(had) {
                let expected = match name.as_str() {
                    "Prm" | "Eff" => had & bits,
                    "Bnd" if is_root => had & bits,
                    "Bnd" => had,
                    _ => 0,
                };
                assert_eq!(now, expected, "Cap{name}");
            }
            // A second time there is nothing left to give up.
            keep_only(&wanted).expect("given up");
        })
        .join()
        .expect("the thread");
        assert_eq!(lines(), before, "this thread was not asked");
    }
}
