//! Whether traffic got much worse since a configuration was applied: compared with the minutes before.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Looks before a trial that are remembered, one every two seconds: five minutes.
const BEFORE_MAX: usize = 150;
/// Fewer attempts than this say nothing.
const ATTEMPTS_MIN: u64 = 20;
/// So much more of the attempts may fail than before, in hundredths.
const WORSE_PERCENT: u64 = 10;

/// What was counted since the tables were made, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// Flows that were opened.
    pub(crate) opened: u64,
    /// Attempts that went wrong: a SYN repeated in vain, a client reset or told that nobody serves, a packet dropped for
    /// want of its real server.
    pub(crate) failed: u64,
    /// Real servers that failed their checks, since the start of the daemon.
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

/// What a trial is compared with. It is kept on disk, so that it outlives the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// What was usual before.
    usual: Look,
    /// The counts when it began.
    start: Look,
    /// Real servers that failed since, in the time of former daemons.
    fallen: u64,
}

impl Baseline {
    /// What was counted since it began.
    fn since(&self, now: Look) -> Look {
        let since = now.since(self.start);
        Look { falls: since.falls.saturating_add(self.fallen), ..since }
    }

    /// For a daemon that starts now. The packet path has counted on meanwhile, unless its tables were made anew.
    fn resumed(self, now: Look, adopted: bool) -> Self {
        let is_same = adopted && now.opened >= self.start.opened && now.failed >= self.start.failed;
        let start = if is_same { self.start } else { Look::default() };
        Self { start: Look { falls: now.falls, ..start }, ..self }
    }

    /// What the next daemon must know.
    fn handed_on(self, now: Look) -> Self {
        Self { fallen: self.since(now).falls, ..self }
    }
}

/// The looks of the last minutes, and the trial under way.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    before: VecDeque<Look>,
    begun: Option<Baseline>,
    /// What is on disk of it.
    kept: Option<Baseline>,
}

impl Trial {
    /// What a configuration that is tried from now on would be compared with.
    pub(crate) fn baseline(&self, now: Look) -> Baseline {
        let usual = self.before.front().map(|first| now.since(*first)).unwrap_or_default();
        Baseline { usual, start: now, fallen: 0 }
    }

    /// A configuration is tried from now on; the baseline is on disk.
    pub(crate) fn begin(&mut self, baseline: Baseline) {
        (self.begun, self.kept) = (Some(baseline), Some(baseline));
    }

    /// A former daemon's trial goes on. `adopted`: whether its tables do too.
    pub(crate) fn resume(&mut self, baseline: Baseline, now: Look, adopted: bool) {
        (self.begun, self.kept) = (Some(baseline.resumed(now, adopted)), Some(baseline));
    }

    /// What should be on disk and is not yet; it is taken to be so from now on.
    pub(crate) fn news_to_keep(&mut self, now: Look) -> Option<Baseline> {
        let wanted = self.begun?.handed_on(now);
        let is_kept = self.kept.is_some_and(|kept| kept.fallen == wanted.fallen);
        self.kept = Some(wanted);
        (!is_kept).then_some(wanted)
    }

    /// Whether one is tried.
    pub(crate) fn is_under_way(&self) -> bool {
        self.begun.is_some()
    }

    /// It was confirmed or taken back.
    pub(crate) fn end(&mut self) {
        (self.begun, self.kept) = (None, None);
        self.before.clear();
    }

    /// Takes a look. While something is tried: why it should be taken back, if it should.
    pub(crate) fn look(&mut self, now: Look, servers: u64) -> Option<String> {
        let Some(baseline) = self.begun else {
            if self.before.len() >= BEFORE_MAX {
                self.before.pop_front();
            }
            self.before.push_back(now);
            return None;
        };
        let (usual, since) = (baseline.usual, baseline.since(now));
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
        trial.begin(trial.baseline(look(1000, 50, 0)));
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
        trial.begin(trial.baseline(look(100, 100, 2)));
        assert_eq!(trial.look(look(200, 200, 2), 4), None);
        assert_eq!(trial.look(look(200, 200, 4), 4), None, "as many fell before");
    }

    #[test]
    fn half_of_the_servers_failing_ends_a_trial() {
        let mut trial = Trial::default();
        trial.begin(trial.baseline(look(0, 0, 0)));
        assert_eq!(trial.look(look(0, 0, 1), 1), None);
        assert_eq!(trial.look(look(0, 0, 2), 5), None);
        assert!(trial.look(look(0, 0, 2), 4).is_some());
    }

    #[test]
    fn the_next_daemon_goes_on_from_where_it_was() {
        let mut first = Trial::default();
        first.look(look(0, 0, 7), 4);
        let baseline = first.baseline(look(1000, 50, 7));
        first.begin(baseline);
        assert_eq!(first.news_to_keep(look(1010, 50, 7)), None, "on disk already");
        assert_eq!(first.look(look(1010, 50, 8), 4), None, "one of four");
        let kept = first.news_to_keep(look(1010, 50, 8)).expect("one that fell");
        assert_eq!(first.news_to_keep(look(1020, 50, 8)), None);

        // It counts its own falls anew; what the packet path counted goes on.
        let mut second = Trial::default();
        second.resume(kept, look(1020, 50, 0), true);
        assert_eq!(second.look(look(1020, 50, 0), 4), None);
        let why = second.look(look(1020, 50, 1), 4).expect("the second of four");
        assert_eq!(why, "2 of 4 real servers failed since it was applied");
        let why = second.look(look(1090, 75, 0), 4).expect("much worse");
        assert_eq!(why, "21 % of 115 attempts failed since it was applied, 4 % before");
        assert_eq!(second.news_to_keep(look(1020, 50, 1)).map(|it| it.fallen), Some(2));

        // The tables are new, or so new that they have counted more already: all they count came after it.
        for (now, adopted) in [(look(5, 0, 0), true), (look(2000, 60, 0), false)] {
            let mut third = Trial::default();
            third.resume(baseline, now, adopted);
            let since = third.begun.expect("it goes on").since(now);
            assert_eq!((since.opened, since.failed), (now.opened, now.failed));
        }
    }
}
