//! What a service manager is told of this process, by the protocol of sd_notify(3). Without one, nobody is told.

use sd_notify::NotifyState;
use std::time::Duration;

/// How long the service manager waits for a sign of life before it restarts the process; `None` when it does not.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}

/// The start is over; what it does is said in a sentence.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A sign of life for the watchdog, and what the process does now in a sentence.
pub fn alive(status: &str) {
    tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // The service manager notices by itself what it is not told: it waits in vain, and says so.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
