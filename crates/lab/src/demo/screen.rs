//! The demo on a terminal: acts, request rate, share of each server, and the `ipvsadm` table, live.

use super::board::{ActLine, ActState, Board};
use super::{DemoError, io_failed, listing};
use crate::address::{Node, REALS_MAX};
use crate::load::LoadStats;
use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Sparkline};
use ratatui::{DefaultTerminal, Frame};
use std::collections::BTreeSet;
use std::net::SocketAddr;
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

/// Rows of the list of acts, its title included.
const ACTS_ROWS: u16 = 9;
/// Rows of the story of the acts that are always there, the title included.
const STORY_ROWS_MIN: u16 = 7;
/// Rows of the rate, its title and its numbers included.
const RATE_ROWS: u16 = 4;
/// Columns of the list of acts.
const ACTS_COLUMNS: u16 = 28;

fn draw(frame: &mut Frame<'_>, board: &Board, numbers: &Numbers) {
    let (acts, table) = (board.acts(), board.table());
    let wanted = u16::try_from(table.lines().count()).unwrap_or(u16::MAX).saturating_add(1).max(10);
    let left = frame.area().height.saturating_sub(ACTS_ROWS + STORY_ROWS_MIN);
    let rows = [
        Constraint::Length(ACTS_ROWS),
        Constraint::Min(STORY_ROWS_MIN),
        Constraint::Length(wanted.min(left)),
    ];
    let [top, story, bottom] = Layout::vertical(rows).areas(frame.area());
    let [list, right] =
        Layout::horizontal([Constraint::Length(ACTS_COLUMNS), Constraint::Min(20)]).areas(top);
    let [rate, shares] = Layout::vertical([Constraint::Length(RATE_ROWS), Constraint::Min(5)]).areas(right);
    draw_acts(frame, list, &acts);
    draw_rate(frame, rate, numbers);
    draw_shares(frame, shares, &numbers.recent(), &table);
    draw_story(frame, story, &acts);
    draw_table(frame, bottom, &table, board.table_is_old());
}

fn titled(title: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).title(title).title_style(Style::new().bold())
}

fn mark(state: &ActState) -> (&'static str, Color) {
    match state {
        ActState::Waiting => ("  ", Color::DarkGray),
        ActState::Running => ("> ", Color::Yellow),
        ActState::Done(outcome) if outcome.ok => ("ok", Color::Green),
        ActState::Done(_) => ("NO", Color::Red),
    }
}

fn draw_acts(frame: &mut Frame<'_>, area: Rect, acts: &[ActLine]) {
    let line = |act: &ActLine| {
        let (mark, color) = mark(&act.state);
        Line::from(format!("{mark} {}", act.name)).style(color)
    };
    // Where they do not all fit, those that are over make room for the one under way.
    let room = usize::from(area.height.saturating_sub(1));
    let begun = acts.iter().filter(|act| !matches!(act.state, ActState::Waiting)).count();
    let lines: Vec<Line<'_>> = acts.iter().skip(begun.saturating_sub(room)).map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(titled(" Sluice demo (q leaves) ")), area);
}

/// The act under way, and those that ended, the last one first: as many as there is room for.
fn draw_story(frame: &mut Frame<'_>, area: Rect, acts: &[ActLine]) {
    let width = usize::from(area.width);
    let mut lines = Vec::new();
    for act in acts.iter().rev() {
        let (mark, color) = mark(&act.state);
        let head = Span::from(format!("{mark} {}", act.name)).style(color);
        match &act.state {
            ActState::Waiting => {}
            ActState::Running => lines.extend(wrapped(head, &format!(": {}", act.plan), 3, width)),
            ActState::Done(outcome) => {
                // No plan any more: on a small terminal there is just room for these two.
                lines.extend(wrapped(head, &format!(". Expected: {}", outcome.expected), 3, width));
                lines.extend(wrapped(Span::from("   Seen:"), &format!(" {}", outcome.seen), 9, width));
            }
        }
    }
    frame.render_widget(Paragraph::new(lines).block(titled(" what is done, expected and seen ")), area);
}

/// A head and a text after it, broken at blanks into lines of at most `width` columns; all but the first are indented.
fn wrapped<'a>(head: Span<'a>, text: &str, indent: usize, width: usize) -> Vec<Line<'a>> {
    let mut columns = head.width();
    let (mut lines, mut rest) = (Vec::new(), String::new());
    let mut line = Line::from(head);
    for word in text.split_inclusive(' ') {
        let long = word.chars().count();
        if columns + word.trim_end().chars().count() > width && columns > indent {
            line.push_span(std::mem::take(&mut rest));
            lines.push(std::mem::take(&mut line));
            rest = " ".repeat(indent);
            columns = indent;
        }
        rest.push_str(word);
        columns += long;
    }
    line.push_span(rest);
    lines.push(line);
    lines
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, numbers: &Numbers) {
    let total = numbers.total();
    let text = format!(
        "{} answered, {} failed; median {:.1} ms",
        total.answered,
        total.failed,
        f64::from(total.p50_us) / 1000.0
    );
    let title = format!(" {} requests/s ", numbers.rates.last().copied().unwrap_or(0));
    let block = titled(&title);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let [curve, words] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(inside);
    let shown =
        numbers.rates.get(numbers.rates.len().saturating_sub(curve.width.into())..).unwrap_or_default();
    frame.render_widget(Sparkline::default().data(shown).style(Color::Cyan), curve);
    let color = if total.failed == 0 { Color::Reset } else { Color::Red };
    frame.render_widget(Line::from(text).style(color), words);
}

fn draw_shares(frame: &mut Frame<'_>, area: Rect, recent: &LoadStats, table: &str) {
    /// Columns of the words around the bar.
    const WORDS: u16 = 38;
    let rows = listing::rows(table);
    let bar_columns = area.width.saturating_sub(WORDS);
    let line = |name: &String| {
        let part = recent.part_of(name).clamp(0.0, 1.0);
        let full = (part * f64::from(bar_columns)).round() as usize;
        let row =
            rows.iter().find(|row| row.service.starts_with("TCP") && named(row.real).as_ref() == Some(name));
        let flows = match row {
            Some(row) if row.weight == 0 => format!(" {} active, draining", row.active),
            Some(row) => format!(" {} active, {} inactive", row.active, row.inactive),
            None => " not in the table".to_owned(),
        };
        Line::from(vec![
            Span::from(format!("{name:<6} {:>3.0} % ", part * 100.0)),
            Span::from("\u{2588}".repeat(full)).style(Color::Blue),
            Span::from("\u{2591}".repeat(usize::from(bar_columns).saturating_sub(full)))
                .style(Color::DarkGray),
            Span::from(flows),
        ])
    };
    // A drained server gets nothing new, but what goes on at it is the point of draining.
    let listed = rows.iter().filter_map(|row| named(row.real));
    let names: BTreeSet<String> = recent.share.keys().cloned().chain(listed).collect();
    let lines: Vec<Line<'_>> = names.iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(titled(" share of each server, last 2 s ")), area);
}

/// The table from its top. When there is no room for all of it, its first line (the version) goes, and then its last
/// line says how much is missing.
fn draw_table(frame: &mut Frame<'_>, area: Rect, table: &str, is_old: bool) {
    let mut block = titled(" ipvsadm -L -n ");
    if is_old {
        block =
            titled(" ipvsadm -L -n: no director answers; the table as it was ").title_style(Color::Yellow);
    }
    let room = usize::from(block.inner(area).height);
    let all = table.lines().count();
    let table = if all > room { table.split_once('\n').map_or("", |(_, rest)| rest) } else { table };
    let all = table.lines().count();
    let shown = if all > room { room.saturating_sub(1) } else { all };
    let mut lines: Vec<Line<'_>> = table.lines().take(shown).map(Line::from).collect();
    if shown < all {
        lines.push(Line::from(format!("... {} more lines", all - shown)).style(Color::DarkGray));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The real server with this IPv4 address.
fn named(address: SocketAddr) -> Option<String> {
    (1..=REALS_MAX).map(Node::Real).find(|node| address.ip() == node.v4()).map(|node| node.name())
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
        board.announce([("balance", "clients ask"), ("drain a server", "weight 0")].into_iter());
        board.end(Outcome {
            act: "balance".to_owned(),
            expected: "equal".to_owned(),
            seen: "they are equal".to_owned(),
            ok: true,
        });
        board.begin("drain a server");
        let table = "TCP  192.0.2.10:80 rr\n  -> 192.0.2.101:80  Route   1      12     345\n  \
                     -> 192.0.2.103:80  Route   0      3     0\n";
        board.show_table(table.to_owned());
        let mut numbers = Numbers::default();
        numbers.add(stats(0, 0), SAMPLE);
        numbers.add(stats(75, 25), SAMPLE);
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("terminal");
        terminal.draw(|frame| draw(frame, &board, &numbers)).expect("drawn");
        let text = terminal.backend().to_string();
        for wanted in [
            "ok balance",
            "they are equal",
            "ok balance. Expected: equal",
            "   Seen: they are equal",
            ">  drain a server: weight 0",
            " 400 requests/s ",
            "100 answered, 0 failed; median 1.5 ms",
            "real1   75 % ",
            " 12 active, 345 inactive",
            "real2   25 % ",
            " not in the table",
            "real3    0 % ",
            " 3 active, draining",
            "TCP  192.0.2.10:80 rr",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }

    /// Where it is smallest, an operator still sees what the last act should do and did, and the whole table.
    #[test]
    fn on_80_columns_and_24_rows_what_was_seen_is_there() {
        let board = Board::default();
        let acts =
            (1..=9).map(|number| ["set up", "balance", "add a server"].get(number - 1).unwrap_or(&"later"));
        board.announce(acts.map(|name| {
            (*name, "a fourth real server starts; `ipvsadm -a` adds it in the middle of traffic")
        }));
        let end = |act: &str, seen: &str| {
            let expected =
                "each of 3 servers gets 33.3 % of the new connections, give or take 3 points; none fails";
            board.end(Outcome {
                act: act.to_owned(),
                expected: expected.to_owned(),
                seen: seen.to_owned(),
                ok: true,
            });
        };
        end("set up", "3 answer");
        end(
            "balance",
            "real1 33.5 %, real2 33.3 %, real3 33.3 %; 499 requests, 0 failed; median 0.2 ms, 99 % within 2.0 ms",
        );
        board.begin("add a server");
        board.show_table(format!(
            "IP Virtual Server\nProt\n  -> Remote\nTCP  192.0.2.10:80 rr\n{}",
            "  -> row\n".repeat(4)
        ));
        board.show_no_table();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("terminal");
        terminal.draw(|frame| draw(frame, &board, &Numbers::default())).expect("drawn");
        let text = terminal.backend().to_string();
        assert_eq!(text.matches("  -> row").count(), 4, "{text}");
        assert!(!text.contains("more lines"), "{text}");
        for wanted in [
            "ok balance. Expected: each of",
            "give\"\n\"   or take",
            "Seen: real1",
            "99 % within 2.0 ms",
            "no director answers",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }

    #[test]
    fn text_is_broken_at_blanks_and_indented() {
        let text = |width| -> Vec<String> {
            wrapped(Span::from("ok a"), ": bb ccc dddddddddd e", 3, width)
                .iter()
                .map(Line::to_string)
                .collect()
        };
        assert_eq!(text(80), ["ok a: bb ccc dddddddddd e"]);
        assert_eq!(text(10), ["ok a: bb ", "   ccc ", "   dddddddddd ", "   e"]);
        assert_eq!(text(0).len(), 6, "the head and each word");
    }

    #[test]
    fn a_table_with_no_room_says_how_much_is_missing() {
        let board = Board::default();
        board.show_table("a row\n".repeat(40));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("terminal");
        terminal.draw(|frame| draw(frame, &board, &Numbers::default())).expect("drawn");
        let text = terminal.backend().to_string();
        assert_eq!(text.matches("a row").count(), 6, "{text}");
        assert!(text.contains("... 33 more lines"), "{text}");
    }

    #[test]
    fn the_act_under_way_is_in_the_list_however_many_there_are() {
        let board = Board::default();
        let names: Vec<String> = (1..=9).map(|number| format!("act {number}")).collect();
        board.announce(names.iter().map(|name| (name.as_str(), "a plan")));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("terminal");
        for name in &names {
            board.begin(name);
            terminal.draw(|frame| draw(frame, &board, &Numbers::default())).expect("drawn");
            let text = terminal.backend().to_string();
            assert!(text.contains(&format!("\">  {name} ")), "{name} is missing in\n{text}");
            let seen = "nothing".to_owned();
            board.end(Outcome { act: name.clone(), expected: seen.clone(), seen, ok: true });
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
