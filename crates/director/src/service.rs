//! The director as a service of the machine: signs of life for the service manager, and the privileges it keeps.

use crate::messages::{Mailbox, Request};
use runtime::privileges::{Capability, PrivilegeError, keep_only};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Between two reports to a service manager that expects no sign of life.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// What the daemon needs for as long as it runs.
const NEEDED: [Capability; 7] = [
    // Tables, and programs for an interface that comes back.
    Capability::CAP_BPF,
    // Loading the programs that record packets, when somebody captures.
    Capability::CAP_PERFMON,
    // The same, and neighbours.
    Capability::CAP_NET_ADMIN,
    // Checks of kind ping, where the machine has no unprivileged ICMP sockets.
    Capability::CAP_NET_RAW,
    // Checks of kind program run as another user, and are killed when their time is over.
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_KILL,
];

/// Keeps what the daemon needs from here on, for the calling thread. Naming the holder of an
/// interface that is in use takes more; so the thread that starts everything does this at the end of its start, the
/// others at their beginning.
pub(crate) fn drop_privileges() -> Result<(), PrivilegeError> {
    keep_only(&NEEDED)
}

/// Tells the service manager that the director is alive, for as long as its owner answers.
pub(crate) async fn report(mailbox: Mailbox) {
    // Half of the time, as sd_watchdog_enabled(3) advises.
    let period = runtime::notify::watchdog().map_or(REPORT_PERIOD, |patience| patience / 2);
    report_by(mailbox, period, runtime::notify::alive).await;
}

/// Each period, asks the owner what it does and tells that. No answer, no word.
async fn report_by(mailbox: Mailbox, period: Duration, tell: impl Fn(&str)) {
    let mut turn = interval(period);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        match mailbox.ask(Request::Summary).await {
            Ok(summary) => tell(&summary),
            // It is ending, which is said elsewhere.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::mailbox;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn no_sign_of_life_without_an_answer_of_the_owner() {
        let period = Duration::from_secs(15);
        let (mailbox, mut requests) = mailbox();
        let told = Arc::new(AtomicUsize::new(0));
        let teller = Arc::clone(&told);
        let reports = tokio::spawn(report_by(mailbox, period, move |summary| {
            assert_eq!(summary, "fine");
            teller.fetch_add(1, Ordering::Relaxed);
        }));
        // Nobody answers.
        tokio::time::sleep(period * 10).await;
        assert_eq!(told.load(Ordering::Relaxed), 0);
        let answer = |request| match request {
            Some(Request::Summary(reply)) => drop(reply.send(Ok("fine".to_owned()))),
            other => panic!("{other:?}"),
        };
        for count in 1..=3 {
            answer(requests.recv().await);
            tokio::time::sleep(period / 4).await;
            assert_eq!(told.load(Ordering::Relaxed), count, "one for each answer");
        }
        // It answers no more: a request waits, and no word is said.
        tokio::time::sleep(period * 10).await;
        assert_eq!(told.load(Ordering::Relaxed), 3);
        drop(requests);
        tokio::time::timeout(period, reports).await.expect("ended with the owner").expect("no panic");
    }
}
