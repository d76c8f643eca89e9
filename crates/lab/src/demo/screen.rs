//! The demo on a terminal: acts, request rate, share of each server, and the `ipvsadm` table, live.

use super::board::{ActState, Board};
use super::{DemoError, io_failed, listing};
use crate::address::Node;
use crate::load::LoadStats;
use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline, Wrap};
use ratatui::{DefaultTerminal, Frame};
use std::time::{Duration, Instant};

/// Between two points of the rate.
const SAMPLE: Duration = Duration::from_millis(250);
/// Points of the rate kept.
const SAMPLES_MAX: usize = 400;
/// Seconds the shares are taken over, in samples.
const SHARE_SAMPLES: usize = 8;
/// Keys read for one picture at most.
const KEYS_MAX: usize = 32;

/// The numbers behind the pictures.
#[derive(Debug, Default)]
struct Numbers {
    samples: Vec<LoadStats>,
    rates: Vec<u64>,
}

impl Numbers {
    fn add(&mut self, stats: LoadStats, after: Duration) {
        if let Some(last) = self.samples.last() {
            let answered = stats.since(last).answered as f64;
            self.rates.push((answered / after.as_secs_f64().max(0.001)).round() as u64);
        }
        self.samples.push(stats);
        self.samples.drain(..self.samples.len().saturating_sub(SHARE_SAMPLES));
        self.rates.drain(..self.rates.len().saturating_sub(SAMPLES_MAX));
    }

    /// What happened over the last samples.
    fn recent(&self) -> LoadStats {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.since(first),
            _ => LoadStats::default(),
        }
    }

    fn total(&self) -> LoadStats {
        self.samples.last().cloned().unwrap_or_default()
    }
}

/// The terminal while the demo has it; given back when dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    numbers: Numbers,
    sampled: Instant,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be put into raw mode.
    pub fn open() -> Result<Self, DemoError> {
        let terminal = ratatui::try_init().map_err(io_failed("use the terminal"))?;
        Ok(Self { terminal, numbers: Numbers::default(), sampled: Instant::now() })
    }

    /// Draws one picture and reads the keys; gives whether the user wants to leave.
    ///
    /// # Errors
    /// When the terminal fails.
    pub fn frame(&mut self, board: &Board) -> Result<bool, DemoError> {
        let passed = self.sampled.elapsed();
        if passed >= SAMPLE
            && let Some(watch) = board.watch()
        {
            self.sampled = Instant::now();
            self.numbers.add(watch.stats(), passed);
        }
        let numbers = &self.numbers;
        self.terminal.draw(|frame| draw(frame, board, numbers)).map_err(io_failed("draw"))?;
        for _ in 0..KEYS_MAX {
            if !event::poll(Duration::ZERO).map_err(io_failed("read keys"))? {
                break;
            }
            if leaves(&event::read().map_err(io_failed("read keys"))?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn leaves(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    control_c || key.code == KeyCode::Char('q')
}

fn draw(frame: &mut Frame<'_>, board: &Board, numbers: &Numbers) {
    let [top, bottom] = Layout::vertical([Constraint::Min(12), Constraint::Length(16)]).areas(frame.area());
    let [left, right] = Layout::horizontal([Constraint::Percentage(50); 2]).areas(top);
    let [rate, shares] = Layout::vertical([Constraint::Length(7), Constraint::Min(5)]).areas(right);
    let table = board.table();
    draw_acts(frame, left, board);
    draw_rate(frame, rate, numbers);
    draw_shares(frame, shares, &numbers.recent(), &table);
    let block = Block::bordered().title(" ipvsadm -L -n ");
    frame.render_widget(Paragraph::new(table).block(block), bottom);
}

fn draw_acts(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let mut lines = Vec::new();
    for (name, state) in board.acts() {
        let (mark, color) = match &state {
            ActState::Waiting => ("  ", Color::DarkGray),
            ActState::Running => ("> ", Color::Yellow),
            ActState::Done(outcome) if outcome.ok => ("ok", Color::Green),
            ActState::Done(_) => ("NO", Color::Red),
        };
        lines.push(Line::from(Span::styled(format!("{mark} {name}"), Style::new().fg(color))));
        if let ActState::Done(outcome) = state {
            lines.push(Line::from(format!("   {}", outcome.seen)));
        }
    }
    let block = Block::bordered().title(" Sluice demo (q to leave) ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, numbers: &Numbers) {
    let total = numbers.total();
    let title = format!(
        " {}/s  {} answered  {} failed  median {:.1} ms ",
        numbers.rates.last().copied().unwrap_or(0),
        total.answered,
        total.failed,
        f64::from(total.p50_us) / 1000.0
    );
    let width = usize::from(area.width.saturating_sub(2));
    let shown = numbers.rates.get(numbers.rates.len().saturating_sub(width)..).unwrap_or_default();
    let line = Sparkline::default().data(shown).style(Style::new().fg(Color::Cyan));
    frame.render_widget(line.block(Block::bordered().title(title)), area);
}

fn draw_shares(frame: &mut Frame<'_>, area: Rect, recent: &LoadStats, table: &str) {
    let block = Block::bordered().title(" share of each server, last 2 s ");
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let rows = listing::rows(table);
    let names: Vec<&String> = recent.share.keys().collect();
    let areas = Layout::vertical(vec![Constraint::Length(1); names.len()]).split(inside);
    for (name, line) in names.into_iter().zip(areas.iter()) {
        let part = recent.part_of(name).clamp(0.0, 1.0);
        let flows = rows
            .iter()
            .find(|row| row.service.starts_with("TCP") && names_row(name, row))
            .map(|row| format!("  active {}  inactive {}", row.active, row.inactive));
        let label = format!("{name} {:.0} %{}", part * 100.0, flows.unwrap_or_default());
        let style = Style::new().fg(Color::Blue);
        frame.render_widget(Gauge::default().ratio(part).label(label).gauge_style(style), *line);
    }
}

fn names_row(name: &str, row: &listing::Row) -> bool {
    let number = name.strip_prefix("real").and_then(|number| number.parse().ok());
    number.is_some_and(|number| row.real.ip() == Node::Real(number).v4())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::Outcome;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn stats(real1: u64, real2: u64) -> LoadStats {
        let share = [("real1".to_owned(), real1), ("real2".to_owned(), real2)];
        LoadStats { answered: real1 + real2, share: share.into(), p50_us: 1500, ..LoadStats::default() }
    }

    #[test]
    fn everything_is_on_the_picture() {
        let board = Board::default();
        board.announce(["balance", "drain a server"].into_iter());
        board.end(Outcome {
            act: "balance".to_owned(),
            expected: "equal".to_owned(),
            seen: "they are equal".to_owned(),
            ok: true,
        });
        board.begin("drain a server");
        board
            .show_table("TCP  192.0.2.10:80 rr\n  -> 192.0.2.101:80  Route   1      12     345\n".to_owned());
        let mut numbers = Numbers::default();
        numbers.add(stats(0, 0), SAMPLE);
        numbers.add(stats(75, 25), SAMPLE);
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("terminal");
        terminal.draw(|frame| draw(frame, &board, &numbers)).expect("drawn");
        let text = terminal.backend().to_string();
        for wanted in [
            "ok balance",
            "they are equal",
            ">  drain a server",
            "400/s  100 answered  0 failed  median 1.5 ms",
            "real1 75 %  active 12  inactive 345",
            "real2 25 %",
            "TCP  192.0.2.10:80 rr",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }

    #[test]
    fn a_tiny_terminal_does_no_harm() {
        let mut terminal = Terminal::new(TestBackend::new(3, 2)).expect("terminal");
        let board = Board::default();
        let mut numbers = Numbers::default();
        numbers.add(stats(1, 1), Duration::ZERO);
        terminal.draw(|frame| draw(frame, &board, &numbers)).expect("drawn");
    }

    #[test]
    fn old_samples_are_forgotten() {
        let mut numbers = Numbers::default();
        for count in 0..1000 {
            numbers.add(stats(count, count), SAMPLE);
        }
        assert_eq!((numbers.samples.len(), numbers.rates.len()), (SHARE_SAMPLES, SAMPLES_MAX));
        assert_eq!(numbers.recent().answered, 2 * (SHARE_SAMPLES as u64 - 1));
    }
}
