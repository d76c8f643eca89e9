//! `sluice top`: services and real servers, live, with keys to drain and undrain.

use crate::policy::change_all;
use crate::show::ShowError;
use api::{
    Change, Counters, Event, Events, HealthView, RealHealthView, RealId, ServiceId, Services, Standing,
};
use crossterm::event::{self, Event as Input, KeyCode, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use runtime::control::Client;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Between two questions to the director.
const ASK_PERIOD: Duration = Duration::from_secs(1);
/// How long a key may take to be noticed.
const KEY_PERIOD: Duration = Duration::from_millis(50);
/// Points of a sparkline.
const POINTS: usize = 20;
/// Events shown.
const EVENTS_ROWS: usize = 6;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sluice top\n\nKeys: up and down choose a real server, d drains it, u gives it work again, q leaves."
)]
pub(crate) struct TopArgs {
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    socket: std::path::PathBuf,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    service: ServiceId,
    /// A real server of it, or the service itself.
    real: Option<RealId>,
    cells: [String; 6],
    standing: Option<Standing>,
    note: String,
}

/// What is shown.
#[derive(Debug, Default)]
struct Picture {
    rows: Vec<Row>,
    rates: BTreeMap<(ServiceId, Option<RealId>), VecDeque<u64>>,
    events: VecDeque<Event>,
    last_event: u64,
    /// Which real server is chosen, by place among those that are shown.
    chosen: usize,
    /// Why there is nothing new.
    trouble: Option<String>,
}

/// `sluice top`.
pub(crate) fn run(args: &TopArgs) -> Result<(), ShowError> {
    if !std::io::stdout().is_terminal() {
        let text = "standard output is no terminal, and `sluice top' draws on one: `ipvsadm -Ln --rate', `sluice health' and \
                    `sluice metrics' print what it shows";
        return Err(ShowError::Words(text.to_owned()));
    }
    let client = Client::new(&args.socket);
    let mut picture = Picture::default();
    // Before the terminal is taken, so that who has no director reads why.
    picture.ask(&client)?;
    let mut terminal = ratatui::try_init().map_err(ShowError::Print)?;
    let done = drive(&mut terminal, &client, &mut picture);
    ratatui::restore();
    done
}

fn drive(
    terminal: &mut ratatui::DefaultTerminal,
    client: &Client,
    picture: &mut Picture,
) -> Result<(), ShowError> {
    let mut asked = Instant::now();
    loop {
        terminal.draw(|frame| draw(frame, picture)).map_err(ShowError::Print)?;
        if event::poll(KEY_PERIOD).map_err(ShowError::Print)? {
            match event::read().map_err(ShowError::Print)? {
                Input::Key(key)
                    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) =>
                {
                    return Ok(());
                }
                Input::Key(key) => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Up | KeyCode::Char('k') => picture.choose(-1),
                    KeyCode::Down | KeyCode::Char('j') => picture.choose(1),
                    KeyCode::Char('d') => picture.drain(client, true),
                    KeyCode::Char('u') => picture.drain(client, false),
                    _ => {}
                },
                _ => {}
            }
        }
        if asked.elapsed() >= ASK_PERIOD {
            asked = Instant::now();
            let done = picture.ask(client);
            picture.trouble = done.err().map(|error| runtime::Chain(&error).to_string());
        }
    }
}

impl Picture {
    fn ask(&mut self, client: &Client) -> Result<(), ShowError> {
        let services: Services = client.get("/v1/services").map_err(ShowError::asking)?;
        let health: HealthView = client.get("/v1/health").map_err(ShowError::asking)?;
        let after = self.last_event;
        let events: Events = client.get(&format!("/v1/events?after={after}")).map_err(ShowError::asking)?;
        self.take(&services, &health, events);
        Ok(())
    }

    fn take(&mut self, services: &Services, health: &HealthView, events: Events) {
        self.rows.clear();
        for service in &services.services {
            let of = health.services.iter().find(|it| it.service == service.id);
            let note = match of {
                Some(it) if it.panic => "too many failed: all get work",
                Some(it) if it.fallback => "the fallback has the work",
                _ => "",
            };
            let active = service.reals.iter().map(|it| it.active).sum();
            let name = format!("{} {}", service.id, service.spec.scheduler);
            self.add(
                service.id,
                None,
                cells(name, String::new(), active, &service.counters),
                None,
                note.to_owned(),
            );
            let known: BTreeMap<RealId, &RealHealthView> =
                of.into_iter().flat_map(|it| &it.reals).map(|it| (it.real, it)).collect();
            for it in &service.reals {
                let health = known.get(&it.id);
                let cells =
                    cells(format!("  {}", it.id), it.spec.weight.to_string(), it.active, &it.counters);
                let note = health.map(|it| it.reason.clone()).unwrap_or_default();
                self.add(service.id, Some(it.id), cells, health.map(|it| it.standing), note);
            }
            // Those that were taken out are shown all the same.
            for (real, it) in known.iter().filter(|(real, _)| service.reals.iter().all(|it| it.id != **real))
            {
                let cells = cells(format!("  {real}"), "out".to_owned(), 0, &Counters::default());
                self.add(service.id, Some(*real), cells, Some(it.standing), it.reason.clone());
            }
        }
        let shown: BTreeSet<_> = self.rows.iter().map(|row| (row.service, row.real)).collect();
        self.rates.retain(|of, _| shown.contains(of));
        for event in events.events {
            self.last_event = event.number;
            self.events.push_back(event);
        }
        while self.events.len() > EVENTS_ROWS {
            self.events.pop_front();
        }
        self.choose(0);
    }

    fn add(
        &mut self,
        service: ServiceId,
        real: Option<RealId>,
        (cells, rate): ([String; 6], u64),
        standing: Option<Standing>,
        note: String,
    ) {
        let rates = self.rates.entry((service, real)).or_default();
        if rates.len() >= POINTS {
            rates.pop_front();
        }
        rates.push_back(rate);
        self.rows.push(Row { service, real, cells, standing, note });
    }

    fn reals(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.real.is_some())
    }

    fn choose(&mut self, by: isize) {
        let last = self.reals().count().saturating_sub(1);
        self.chosen = self.chosen.saturating_add_signed(by).min(last);
    }

    fn drain(&mut self, client: &Client, drain: bool) {
        let Some((service, Some(real))) = self.reals().nth(self.chosen).map(|row| (row.service, row.real))
        else {
            return;
        };
        let done = change_all(client, vec![Change::SetDrain { service, real, drain }]);
        self.trouble =
            done.and_then(|()| self.ask(client)).err().map(|error| runtime::Chain(&error).to_string());
    }
}

/// The cells of a line, and its rate of connections.
fn cells(name: String, weight: String, active: u32, counters: &Counters) -> ([String; 6], u64) {
    let rate = counters.connections_per_s;
    let cells = [
        name,
        weight,
        active.to_string(),
        rate.to_string(),
        short(counters.in_bytes_per_s),
        short(counters.out_bytes_per_s),
    ];
    (cells, rate)
}

/// A number with three or four digits and a letter.
fn short(number: u64) -> String {
    let letters = ['k', 'M', 'G', 'T', 'P'];
    let (mut value, mut letter) = (number, None);
    for next in letters {
        if value < 10_000 {
            break;
        }
        (value, letter) = (value / 1000, Some(next));
    }
    letter.map_or(value.to_string(), |letter| format!("{value}{letter}"))
}

/// The rates as bars, the highest one full.
fn sparkline(rates: &VecDeque<u64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = rates.iter().copied().max().unwrap_or(0).max(1);
    let bar = |rate: &u64| BARS[usize::try_from(rate * 7 / most).unwrap_or(7).min(7)];
    rates.iter().map(bar).collect()
}

fn color(standing: Option<Standing>) -> Color {
    match standing {
        None => Color::Reset,
        Some(Standing::Up | Standing::Unchecked) => Color::Green,
        Some(Standing::Starting | Standing::Unknown | Standing::Draining | Standing::Held) => Color::Yellow,
        Some(Standing::Down | Standing::Drained) => Color::Red,
    }
}

fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    // On a low screen events make room for the table.
    let left = frame.area().height.saturating_sub(TABLE_ROWS_MIN + 2);
    let events_rows = u16::try_from(picture.events.len() + 1).unwrap_or(u16::MAX).min(left);
    let [table, note, events, help] = Layout::vertical([
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(events_rows),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(table_lines(picture, table.width, table.height)), table);
    // Beside the numbers there is no room for a whole reason.
    if let Some(row) = picture.reals().nth(picture.chosen).filter(|row| !row.note.is_empty()) {
        frame.render_widget(Paragraph::new(format!("{}: {}", row.cells[0].trim(), row.note)), note);
    }
    let mut lines = vec![Line::styled("EVENTS", bold)];
    // The last ones, if not all.
    let above = picture.events.len().saturating_sub(usize::from(events.height.saturating_sub(1)));
    let shown = picture.events.iter().skip(above);
    lines.extend(shown.map(|it| Line::raw(format!("{}: {}", it.what, it.cause))));
    frame.render_widget(Paragraph::new(lines), events);
    let help_line = match &picture.trouble {
        Some(trouble) => Line::styled(trouble.clone(), Style::new().fg(Color::Red)),
        None => Line::raw("up, down: choose   d: drain   u: undrain   q: leave"),
    };
    frame.render_widget(Paragraph::new(help_line), help);
}

/// The header and as many rows as there is room for, the chosen one among them.
fn table_lines(picture: &Picture, columns: u16, rows: u16) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let widths = match columns {
        ..SMALL_COLUMNS => SMALL,
        SMALL_COLUMNS..WIDE_COLUMNS => NARROW,
        WIDE_COLUMNS.. => WIDE,
    };
    let points = if columns < WIDE_COLUMNS { 0 } else { POINTS };
    let header =
        line(&["SERVICE", "WEIGHT", "ACTIVE", "CONN/S", "IN B/S", "OUT B/S"].map(str::to_owned), widths);
    let gap = |rates: &str| if points == 0 { "  ".to_owned() } else { format!("  {rates:<points$} ") };
    let mut lines = Vec::new();
    let (mut place, mut chosen) = (0, 0);
    for row in &picture.rows {
        let rates = picture.rates.get(&(row.service, row.real)).map(sparkline).unwrap_or_default();
        let word = row.standing.map_or("", Standing::name);
        let mut style = if row.real.is_none() { bold } else { Style::new() };
        if row.real.is_some() {
            if place == picture.chosen {
                style = style.add_modifier(Modifier::REVERSED);
                chosen = lines.len();
            }
            place += 1;
        }
        // Why a server is well says the line below; there is seldom room for it here.
        let is_told = !row.note.is_empty() && row.standing != Some(Standing::Up);
        let note = if is_told { format!(" {}", row.note) } else { String::new() };
        lines.push(Line::from(vec![
            Span::styled(line(&row.cells, widths), style),
            Span::raw(gap(&rates)),
            Span::styled(word, Style::new().fg(color(row.standing))),
            Span::raw(note),
        ]));
    }
    let room = usize::from(rows).saturating_sub(1).max(1);
    let above = (chosen + 1).saturating_sub(room);
    let mut shown = vec![Line::styled(format!("{header}{}HEALTH", gap("")), bold)];
    shown.extend(lines.into_iter().skip(above).take(room));
    shown
}

/// Columns from which there is room for bars, and longer names.
const WIDE_COLUMNS: u16 = 110;
/// Columns from which there is room for all numbers.
const SMALL_COLUMNS: u16 = 76;
/// Columns of a name, and of each number, and how many of these there are.
const WIDE: (usize, usize, usize) = (30, 7, 5);
const NARROW: (usize, usize, usize) = (24, 7, 5);
const SMALL: (usize, usize, usize) = (22, 7, 3);
/// Rows of the table that events leave to it.
const TABLE_ROWS_MIN: u16 = 6;

fn line(cells: &[String; 6], (name_columns, columns, count): (usize, usize, usize)) -> String {
    let [name, numbers @ ..] = cells;
    let mut text = if name.chars().count() > name_columns {
        name.chars().take(name_columns.saturating_sub(1)).chain(['…']).collect()
    } else {
        format!("{name:<name_columns$}")
    };
    for number in numbers.iter().take(count) {
        // One that is longer takes from the space before it.
        text += &format!(" {number:>columns$}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ServiceHealth;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn services(reals: &str) -> Services {
        let counters = concat!(
            r#"{"connections":5,"in_packets":9,"out_packets":0,"in_bytes":900,"out_bytes":0,"connections_per_s":12,"#,
            r#""in_packets_per_s":0,"out_packets_per_s":0,"in_bytes_per_s":1234567,"out_bytes_per_s":0}"#
        );
        let text = format!(
            r#"{{"connection_table_size":20,"timeouts":{{"tcp_s":900,"tcp_fin_s":120,"udp_s":300}},"services":[{{"id":
            {{"address":{{"protocol":"tcp","address":"192.0.2.1","port":80}}}},"spec":{{"scheduler":"rr"}},"counters":{counters},
            "reals":[{}]}}]}}"#,
            reals.replace("COUNTERS", counters)
        );
        serde_json::from_str(&text).expect("services")
    }

    #[test]
    fn the_table_shows_what_is_in_and_what_is_out() {
        let real = r#"{"id":{"address":"10.0.0.1","port":80},"spec":{"forwarding":"direct_routing","weight":3},"active":7,
            "inactive":0,"persistent":0,"neighbour":null,"counters":COUNTERS}"#;
        let services = services(real);
        let out = RealHealthView {
            real: RealId { address: [10, 0, 0, 2].into(), port: 80 },
            standing: Standing::Down,
            reason: "tcp check failed".to_owned(),
            declared_weight: 1,
            weight: None,
            since_ms: 0,
            latency_ms: None,
        };
        let service = services.services[0].id;
        let health = HealthView {
            services: vec![ServiceHealth { service, panic: false, fallback: false, reals: vec![out] }],
        };
        let mut picture = Picture::default();
        picture.take(&services, &health, Events::default());
        picture.choose(5);
        assert_eq!(picture.chosen, 1, "the last of two");
        let mut terminal = Terminal::new(TestBackend::new(120, 10)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &picture)).expect("drawn");
        let screen = terminal.backend().to_string();
        let shown = |part: &str| assert!(screen.contains(part), "{part} is not in\n{screen}");
        shown("TCP 192.0.2.1:80 rr                          7      12   1234k       0  █");
        shown("  10.0.0.1:80                        3       7      12   1234k");
        shown(
            "  10.0.0.2:80                      out       0       0       0       0  ▁                    down tcp check failed",
        );
        shown("d: drain");
        shown("10.0.0.2:80: tcp check failed");
    }

    #[test]
    fn a_small_screen_shows_the_health_and_the_chosen_server() {
        let real = |number: u8| {
            let id = format!(r#"{{"id":{{"address":"10.0.0.{number}","port":80}},"#);
            id + r#""spec":{"forwarding":"direct_routing","weight":3},"active":7,"inactive":0,"persistent":0,"neighbour":null,"counters":COUNTERS}"#
        };
        let reals: Vec<String> = (1..=40).map(real).collect();
        let services = services(&reals.join(","));
        let of = |view: &api::RealView| RealHealthView {
            real: view.id,
            standing: Standing::Starting,
            reason: "tcp check passes".to_owned(),
            declared_weight: 3,
            weight: Some(3),
            since_ms: 0,
            latency_ms: None,
        };
        let (service, reals) = (services.services[0].id, services.services[0].reals.iter().map(of).collect());
        let health =
            HealthView { services: vec![ServiceHealth { service, panic: false, fallback: false, reals }] };
        let mut picture = Picture::default();
        picture.take(&services, &health, Events::default());
        picture.choose(38);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &picture)).expect("drawn");
        let screen = terminal.backend().to_string();
        for part in [
            "SERVICE                   WEIGHT  ACTIVE  CONN/S  IN B/S OUT B/S  HEALTH",
            "  10.0.0.39:80                 3       7      12   1234k       0  starting",
        ] {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
        // A smaller one leaves out numbers before the health, and events before the table.
        let event = |number| Event {
            number,
            time_ms: 0,
            what: api::EventKind::Generation { generation: number },
            cause: "1 changes were accepted".to_owned(),
        };
        let events = Events { events: (1..=9).map(event).collect(), ..Events::default() };
        picture.take(&services, &health, events);
        let drawn = |columns, rows| {
            let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
            terminal.draw(|frame| draw(frame, &picture)).expect("drawn");
            terminal.backend().to_string()
        };
        let screen = drawn(60, 10);
        for part in [
            "SERVICE                 WEIGHT  ACTIVE  CONN/S  HEALTH",
            "  10.0.0.39:80               3       7      12  starting",
            "EVENTS",
            "generation 9: 1 changes",
            "d: drain",
        ] {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
        assert!(!screen.contains("generation 8"), "{screen}");
        for (columns, rows) in [(1, 1), (2, 3), (20, 5), (300, 1), (1, 100)] {
            drawn(columns, rows);
        }
        // Services and real servers that are gone take their rates along.
        picture.take(
            &Services { services: Vec::new(), ..services },
            &HealthView::default(),
            Events::default(),
        );
        assert!(picture.rates.is_empty());
    }

    #[test]
    fn a_long_name_is_cut() {
        let cells = ["TCP [2001:db8:1111:2222:3333::10]:443 wlc", "1", "2", "3", "4", "5"].map(str::to_owned);
        assert_eq!(line(&cells, NARROW), "TCP [2001:db8:1111:2222…       1       2       3       4       5");
    }

    #[test]
    fn numbers_are_short_and_rates_are_bars() {
        assert_eq!([short(0), short(9_999), short(10_000), short(123_456_789)], ["0", "9999", "10k", "123M"]);
        assert_eq!(sparkline(&VecDeque::from([0, 50, 100])), "▁▄█");
        assert_eq!(sparkline(&VecDeque::new()), "");
    }
}
