//! The clocks: a coarse monotonic one shared with the kernel programs, and the wall clock as text.
//!
//! Only tiers 2 and 3 read clocks; everything below takes `now` as an argument.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: the clock `bpf_ktime_get_coarse_ns` reads.
///
/// Its step is one kernel tick (1 to 10 ms). It stands still while the machine is suspended.
#[must_use]
pub fn monotonic_coarse_ns() -> u64 {
    // The clock exists on every Linux since 2.6.32 and the pointer is ours, so the call cannot fail.
    match clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) {
        Ok(t) => {
            let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
            let nanos = u64::try_from(t.tv_nsec()).unwrap_or(0);
            seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
        }
        Err(_) => 0,
    }
}

/// `CLOCK_MONOTONIC`, the precise one, since its start.
#[must_use]
pub fn monotonic() -> Duration {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(t) => t.into(),
        // As above, it cannot fail.
        Err(_) => Duration::ZERO,
    }
}

/// The wall clock as text, UTC, whole seconds: `2026-01-31T12:00:00Z`.
#[must_use]
pub fn wall_clock_text() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_moves_forward() {
        let before = monotonic_coarse_ns();
        std::thread::sleep(Duration::from_millis(30));
        let after = monotonic_coarse_ns();
        let passed = after - before;
        assert!((10_000_000..5_000_000_000).contains(&passed), "passed {passed} ns");
    }

    #[test]
    fn the_wall_clock_text_reads_back_as_now() {
        let text = wall_clock_text();
        let read = humantime::parse_rfc3339(&text).expect("text parses");
        let age = SystemTime::now().duration_since(read).expect("not in the future");
        assert!(age < Duration::from_secs(5), "{text}");
        assert_eq!(text.len(), "2026-01-31T12:00:00Z".len());
    }
}
