//! Whether traffic got much worse since a configuration was applied: compared with the minutes before.

use std::collections::VecDeque;

/// Looks before a trial that are remembered, one every two seconds: five minutes.
const BEFORE_MAX: usize = 150;
/// Fewer attempts than this say nothing.
const ATTEMPTS_MIN: u64 = 20;
/// So much more of the attempts may fail than before, in hundredths.
const WORSE_PERCENT: u64 = 10;

/// What was counted since the start, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Flows that were opened.
    pub(crate) opened: u64,
    /// Attempts that went wrong: a SYN repeated in vain, a client reset or told that nobody serves, a packet dropped for
    /// want of its real server.
    pub(crate) failed: u64,
    /// Real servers that failed their checks.
    pub(crate) falls: u64,
}

impl Look {
    fn since(self, before: Self) -> Self {
        Self {
            opened: self.opened.saturating_sub(before.opened),
            failed: self.failed.saturating_sub(before.failed),
            falls: self.falls.saturating_sub(before.falls),
        }
    }

    /// Hundredths of the attempts that failed.
    fn percent(self) -> u64 {
        let attempts = self.opened.saturating_add(self.failed);
        self.failed.saturating_mul(100).checked_div(attempts).unwrap_or(0)
    }
}

/// The looks of the last minutes, and the trial under way.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    before: VecDeque<Look>,
    /// What was usual, and the counts when the trial began.
    begun: Option<(Look, Look)>,
}

impl Trial {
    /// A configuration is tried from now on.
    pub(crate) fn begin(&mut self, now: Look) {
        let usual = self.before.front().map(|first| now.since(*first)).unwrap_or_default();
        self.begun = Some((usual, now));
    }

    /// Whether one is tried.
    pub(crate) fn is_under_way(&self) -> bool {
        self.begun.is_some()
    }

    /// It was confirmed or taken back.
    pub(crate) fn end(&mut self) {
        self.begun = None;
        self.before.clear();
    }

    /// Takes a look. While something is tried: why it should be taken back, if it should.
    pub(crate) fn look(&mut self, now: Look, servers: u64) -> Option<String> {
        let Some((usual, start)) = self.begun else {
            if self.before.len() >= BEFORE_MAX {
                self.before.pop_front();
            }
            self.before.push_back(now);
            return None;
        };
        let since = now.since(start);
        let (percent, before) = (since.percent(), usual.percent());
        if since.opened + since.failed >= ATTEMPTS_MIN && percent >= before + WORSE_PERCENT {
            return Some(format!(
                "{percent} % of {} attempts failed since it was applied, {before} % before",
                since.opened + since.failed
            ));
        }
        // One may fall by chance; half of them do not.
        if since.falls > 1 && since.falls * 2 >= servers && since.falls > usual.falls {
            return Some(format!("{} of {servers} real servers failed since it was applied", since.falls));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(opened: u64, failed: u64, falls: u64) -> Look {
        Look { opened, failed, falls }
    }

    #[test]
    fn traffic_that_fails_much_more_than_before_ends_a_trial() {
        let mut trial = Trial::default();
        assert_eq!(trial.look(look(0, 0, 0), 4), None);
        assert_eq!(trial.look(look(1000, 50, 0), 4), None);
        trial.begin(look(1000, 50, 0));
        assert_eq!(trial.look(look(1010, 59, 0), 4), None, "nineteen attempts");
        assert_eq!(trial.look(look(1090, 60, 0), 4), None, "a tenth of a hundred, and a twentieth before");
        let why = trial.look(look(1090, 75, 0), 4).expect("much worse");
        assert_eq!(why, "21 % of 115 attempts failed since it was applied, 4 % before");
        trial.end();
        assert_eq!(trial.look(look(1090, 500, 0), 4), None, "nothing is tried");
    }

    #[test]
    fn what_was_usual_is_no_reason() {
        let mut trial = Trial::default();
        trial.look(look(0, 0, 0), 4);
        trial.begin(look(100, 100, 2));
        assert_eq!(trial.look(look(200, 200, 2), 4), None);
        assert_eq!(trial.look(look(200, 200, 4), 4), None, "as many fell before");
    }

    #[test]
    fn half_of_the_servers_failing_ends_a_trial() {
        let mut trial = Trial::default();
        trial.begin(look(0, 0, 0));
        assert_eq!(trial.look(look(0, 0, 1), 1), None);
        assert_eq!(trial.look(look(0, 0, 2), 5), None);
        assert!(trial.look(look(0, 0, 2), 4).is_some());
    }
}
