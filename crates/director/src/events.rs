//! What happened lately, numbered.

use api::{Event, EventKind, Events, Standing};
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

/// Events remembered; older ones are forgotten, and whoever asks for them is told how many.
const REMEMBERED: usize = 10_000;
/// Most events of one answer.
const PAGE: usize = 1_000;

/// The events of this daemon.
#[derive(Debug, Default)]
pub(crate) struct Log {
    events: VecDeque<Event>,
    last: u64,
    /// Real servers that failed since the start, but for those that had before.
    falls: u64,
}

impl Log {
    /// Remembers and logs something.
    pub(crate) fn add(&mut self, what: EventKind, cause: String) {
        if let EventKind::Standing { to: Standing::Down, .. } = what {
            self.falls += 1;
        }
        self.add_known(what, cause);
    }

    /// The same of something that a former daemon knew: nobody failed just now.
    pub(crate) fn add_known(&mut self, what: EventKind, cause: String) {
        tracing::info!(event = %what, %cause, "event");
        self.last += 1;
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis());
        let time_ms = u64::try_from(time_ms).unwrap_or(u64::MAX);
        if self.events.len() >= REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(Event { number: self.last, time_ms, what, cause });
    }

    /// How many real servers failed since the start.
    pub(crate) fn falls(&self) -> u64 {
        self.falls
    }

    /// Those after a number, oldest first.
    pub(crate) fn after(&self, number: u64) -> Events {
        // One that was never given is a former daemon's: whoever follows wants all of this one's.
        let number = if number > self.last { 0 } else { number };
        let first = self.events.front().map_or(self.last + 1, |it| it.number);
        let skip = usize::try_from((number + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        Events {
            events: self.events.iter().skip(skip).take(PAGE).cloned().collect(),
            lost: first.saturating_sub(number.saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_and_the_lost_ones_counted() {
        let mut log = Log::default();
        assert_eq!(log.after(0), Events::default());
        for generation in 1..=REMEMBERED as u64 + 5 {
            log.add(EventKind::Generation { generation }, "a change".to_owned());
        }
        let page = log.after(0);
        assert_eq!((page.lost, page.events.len(), page.events[0].number), (5, PAGE, 6));
        let page = log.after(REMEMBERED as u64 + 3);
        let numbers: Vec<u64> = page.events.iter().map(|it| it.number).collect();
        assert_eq!((page.lost, numbers), (0, vec![10_004, 10_005]));
        assert_eq!(log.after(REMEMBERED as u64 + 5).events, []);
        assert_eq!(log.after(u64::MAX), log.after(0), "the number of a daemon before this one");
    }
}
