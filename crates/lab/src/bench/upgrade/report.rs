//! What was counted, and how it is shown.

use super::counters::Counters;
use crate::load::LoadStats;
use serde::Serialize;
use std::io::{self, Write};

/// One way to go and to come back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub way: &'static str,
    /// How often it was done.
    pub starts: u64,
    /// How often the programs of the interface were exchanged.
    pub exchanges: u64,
    /// The longest time without a director that answers, in milliseconds.
    pub away_ms: u64,
    /// Requests answered from the end until a moment after the start.
    pub answered: u64,
    /// Requests that failed then.
    pub failed: u64,
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// A row a way.
    pub rows: Vec<Row>,
    /// How long the load ran, in seconds.
    pub seconds: f64,
    /// Requests on connections of their own.
    #[serde(skip)]
    pub new_connections: LoadStats,
    /// Requests on kept connections.
    #[serde(skip)]
    pub kept_connections: LoadStats,
    /// Requests answered on new and on kept connections.
    pub answered: [u64; 2],
    /// Requests that failed on new and on kept connections.
    pub failed: [u64; 2],
    /// TCP segments that the client sent.
    pub segments_sent: u64,
    /// TCP segments that the real servers received.
    pub segments_received: u64,
    /// Segments that were sent once more at either end.
    pub retransmitted: u64,
    /// SYNs among them.
    pub syns_retransmitted: u64,
    /// Frames that met the director's program.
    pub frames_in: u64,
    /// Frames that it sent on.
    pub frames_out: u64,
    /// Frames that its interface dropped or could not send.
    pub frames_lost: u64,
    /// Packets forwarded, by the director's verdicts.
    pub forwarded: u64,
    /// Packets dropped, by the director's verdicts.
    pub dropped: u64,
}

impl Report {
    pub(super) fn add(&mut self, row: Row) {
        match self.rows.iter_mut().find(|it| it.way == row.way) {
            Some(sum) => {
                sum.starts += row.starts;
                sum.exchanges += row.exchanges;
                sum.away_ms = sum.away_ms.max(row.away_ms);
                sum.answered += row.answered;
                sum.failed += row.failed;
            }
            None => self.rows.push(row),
        }
    }

    pub(super) fn count(&mut self, counters: &Counters) {
        let loads = [&self.new_connections, &self.kept_connections];
        self.answered = loads.map(|load| load.answered);
        self.failed = loads.map(|load| load.failed);
        self.segments_sent = counters.sent;
        self.segments_received = counters.received;
        self.retransmitted = counters.retransmitted;
        self.syns_retransmitted = counters.syns_retransmitted;
        self.frames_in = counters.frames_in;
        self.frames_out = counters.frames_out;
        self.frames_lost = counters.frames_lost;
        self.forwarded = counters.forwarded;
        self.dropped = counters.dropped;
    }

    /// Whether no request failed and every segment to the VIP arrived.
    #[must_use]
    pub fn nothing_lost(&self) -> bool {
        self.failed == [0, 0]
            && self.segments_sent == self.segments_received
            && self.segments_sent == self.forwarded
            && self.forwarded == self.frames_out
            && (self.frames_lost, self.dropped) == (0, 0)
    }

    /// Writes it as a table.
    ///
    /// # Errors
    /// What the writer answers.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<18}{:>8}{:>12}{:>14}{:>11}{:>9}",
            "the director", "starts", "exchanges", "longest away", "answered", "failed"
        )?;
        for row in &self.rows {
            writeln!(
                out,
                "{:<18}{:>8}{:>12}{:>11} ms{:>11}{:>9}",
                row.way, row.starts, row.exchanges, row.away_ms, row.answered, row.failed
            )?;
        }
        let [new, kept] = self.answered;
        let [new_failed, kept_failed] = self.failed;
        writeln!(out, "\nin all, over {:.1} s", self.seconds)?;
        writeln!(out, "requests on new connections    {new} answered, {new_failed} failed")?;
        writeln!(out, "requests on kept connections   {kept} answered, {kept_failed} failed")?;
        for failure in self.new_connections.failures.iter().chain(&self.kept_connections.failures) {
            writeln!(out, "  {failure}")?;
        }
        writeln!(
            out,
            "TCP segments to the VIP        {} sent, {} received",
            self.segments_sent, self.segments_received
        )?;
        writeln!(
            out,
            "retransmitted at either end    {}, {} SYNs among them",
            self.retransmitted, self.syns_retransmitted
        )?;
        writeln!(
            out,
            "frames at the director         {} in, {} sent on, {} left to the host, {} lost",
            self.frames_in,
            self.frames_out,
            self.frames_in.saturating_sub(self.frames_out),
            self.frames_lost
        )?;
        writeln!(out, "verdicts                       {} forwarded, {} dropped", self.forwarded, self.dropped)
    }

    /// Writes it as one line of JSON.
    ///
    /// # Errors
    /// What the writer answers.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report { segments_sent: 9, segments_received: 9, forwarded: 9, frames_out: 9, ..Report::default() }
    }

    #[test]
    fn each_loss_is_seen() {
        assert!(good().nothing_lost());
        let bad = [
            Report { failed: [1, 0], ..good() },
            Report { failed: [0, 1], ..good() },
            Report { segments_received: 8, ..good() },
            Report { frames_lost: 1, ..good() },
            Report { dropped: 1, ..good() },
            Report { forwarded: 8, ..good() },
            Report { frames_out: 8, ..good() },
        ];
        for report in bad {
            assert!(!report.nothing_lost(), "{report:?}");
        }
    }

    #[test]
    fn rows_of_one_way_add_up() {
        let row = Row { way: "upgrade", starts: 1, exchanges: 1, away_ms: 500, answered: 10, failed: 0 };
        let mut report = Report::default();
        report.add(row.clone());
        report.add(Row { away_ms: 400, failed: 2, ..row });
        let sum = Row { way: "upgrade", starts: 2, exchanges: 2, away_ms: 500, answered: 20, failed: 2 };
        assert_eq!(report.rows, [sum]);
    }
}
