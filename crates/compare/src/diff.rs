//! Two records -> what differs, and what is let pass and why.
//!
//! Steps marked with `~` differ on purpose, for the reason their script gives; one that does not is a difference.
//! These things are let pass, each counted under its name:
//! - `order`: connections are listed in the order of a hash table with a random key;
//! - `expiry`: the time a connection has left may be off by a second, after adding how long ago its last
//!   packet was: the two targets were not asked at the same moment of that second;
//! - `repeated`: the kernel lists a connection twice when a reader comes back for more;
//! - `help`: the text of `-h` is Sluice's own, but for its first line;
//! - `padding`: the kernel cuts off what follows the end of the IP packet, where Sluice forwards it.

use crate::frame::PADDING_GONE;
use crate::record::{Outcome, Played, Record, Seen};
use std::collections::BTreeMap;
use std::fmt;

/// Seconds by which an expiry may be off: the listing cuts to whole ones, and packets and listing take time.
const EXPIRY_SLACK_S: f64 = 1.5;
/// Most differing packets of one step that are shown.
const SHOWN_MAX: usize = 3;

/// What comparing gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Scripts compared.
    pub scripts: usize,
    /// Scripts without any difference.
    pub agreed: usize,
    /// Commands compared.
    pub commands: usize,
    /// Packets compared.
    pub packets: usize,
    /// How often each named exception applied.
    pub exceptions: BTreeMap<&'static str, usize>,
    /// How many steps differ on purpose, by the reason.
    pub better: BTreeMap<String, usize>,
    /// Everything else that differs.
    pub differences: Vec<Difference>,
}

/// One step that went differently.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Name of the script.
    pub script: String,
    /// The step as written; its number when it is missing on one side.
    pub step: String,
    /// What differs, over several lines.
    pub text: String,
}

impl Report {
    /// Whether everything was the same.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty() && self.scripts > 0
    }

    fn except(&mut self, name: &'static str) {
        *self.exceptions.entry(name).or_default() += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut script = "";
        for difference in &self.differences {
            if difference.script != script {
                script = &difference.script;
                writeln!(out, "\n{script}")?;
            }
            writeln!(out, "  {}", difference.step.replace('\n', "\n  "))?;
            writeln!(out, "    {}", difference.text.trim_end().replace('\n', "\n    "))?;
        }
        if !self.differences.is_empty() {
            writeln!(out)?;
        }
        for (reason, count) in &self.better {
            writeln!(out, "on purpose: {reason}, {count} steps")?;
        }
        for (name, count) in &self.exceptions {
            writeln!(out, "let pass: {name}, {count} times")?;
        }
        write!(
            out,
            "{} scripts, {} agree, {} differ ({} differences); {} commands and {} packets compared",
            self.scripts,
            self.agreed,
            self.scripts - self.agreed,
            self.differences.len(),
            self.commands,
            self.packets
        )
    }
}

/// Compares two records of the same scripts.
#[must_use]
pub fn diff(a: &Record, b: &Record) -> Report {
    let names = [a.target.as_str(), b.target.as_str()];
    let mut report = Report::default();
    let theirs: BTreeMap<&str, &Played> = b.scripts.iter().map(|it| (it.name.as_str(), it)).collect();
    for ours in &a.scripts {
        report.scripts += 1;
        let before = report.differences.len();
        match theirs.get(ours.name.as_str()) {
            Some(theirs) => diff_script(&mut report, names, ours, theirs),
            None => report.differences.push(Difference {
                script: ours.name.clone(),
                step: "the whole script".to_owned(),
                text: format!("{} did not play it", names[1]),
            }),
        }
        report.agreed += usize::from(report.differences.len() == before);
    }
    let ours: BTreeMap<&str, &Played> = a.scripts.iter().map(|it| (it.name.as_str(), it)).collect();
    for extra in b.scripts.iter().filter(|it| !ours.contains_key(it.name.as_str())) {
        report.scripts += 1;
        let text = format!("{} did not play it", names[0]);
        let step = "the whole script".to_owned();
        report.differences.push(Difference { script: extra.name.clone(), step, text });
    }
    report
}

fn diff_script(report: &mut Report, names: [&str; 2], a: &Played, b: &Played) {
    let add = |report: &mut Report, step: String, text: String| {
        report.differences.push(Difference { script: a.name.clone(), step, text });
    };
    for (number, (ours, theirs)) in a.steps.iter().zip(&b.steps).enumerate() {
        if ours.line != theirs.line {
            add(report, format!("step {}", number + 1), "the records are of different scripts".to_owned());
            return;
        }
        match diff_step(report, names, ours, theirs) {
            Some(text) if !is_on_purpose(&ours.line) => add(report, ours.line.clone(), text),
            None if is_on_purpose(&ours.line) => {
                add(report, ours.line.clone(), "does not differ any more; remove the ~".to_owned());
            }
            Some(_) => *report.better.entry(a.better.clone().unwrap_or_default()).or_default() += 1,
            None => {}
        }
    }
    for (name, played) in names.into_iter().zip([a, b]) {
        if let Some(failure) = &played.failure {
            let step = format!("step {}", played.steps.len() + 1);
            add(report, step, format!("{name} could not go on: {failure}"));
        }
    }
}

/// Whether a step is marked as one that differs on purpose.
fn is_on_purpose(line: &str) -> bool {
    line.starts_with('~')
}

/// Whether a command prints the tool's help.
fn is_help(line: &str) -> bool {
    matches!(line.split(' ').next(), Some("-h" | "--help"))
}

fn diff_step(report: &mut Report, names: [&str; 2], a: &Outcome, b: &Outcome) -> Option<String> {
    match (&a.seen, &b.seen) {
        (Seen::Nothing, Seen::Nothing) => None,
        (Seen::Packets(a), Seen::Packets(b)) => {
            report.packets += a.len();
            diff_packets(report, names, a, b)
        }
        (
            Seen::Command { code, stdout, stderr, .. },
            Seen::Command { code: code_b, stdout: stdout_b, stderr: stderr_b, .. },
        ) => {
            report.commands += 1;
            let mut text = String::new();
            if code != code_b {
                text.push_str(&format!("exit code: {} {code}, {} {code_b}\n", names[0], names[1]));
            }
            if stderr != stderr_b {
                text.push_str("standard error:\n");
                text.push_str(&diff_lines(names, stderr, stderr_b));
            }
            let is_connections =
                [stdout, stdout_b].iter().all(|it| it.starts_with("IPVS connection entries"));
            if is_help(&a.line) && stdout.lines().next() == stdout_b.lines().next() {
                report.except("help");
            } else if is_connections {
                let (a, b) = (&a.seen, &b.seen);
                text.push_str(&diff_connections(report, names, (stdout, &rows(a)), (stdout_b, &rows(b))));
            } else if stdout != stdout_b {
                text.push_str(&diff_lines(names, stdout, stdout_b));
            }
            (!text.is_empty()).then_some(text)
        }
        _ => Some("the records are of different steps".to_owned()),
    }
}

fn diff_packets(report: &mut Report, names: [&str; 2], a: &[String], b: &[String]) -> Option<String> {
    let mut different: Vec<usize> = (0..a.len().max(b.len())).filter(|&at| a.get(at) != b.get(at)).collect();
    let whole = |text: Option<&String>| text.map(|text| text.replace(PADDING_GONE, ""));
    different.retain(|&at| {
        let is_padding = whole(a.get(at)) == whole(b.get(at));
        if is_padding {
            report.except("padding");
        }
        !is_padding
    });
    if different.is_empty() {
        return None;
    }
    let mut text = format!("{} of {} packets\n", different.len(), a.len());
    for &at in different.iter().take(SHOWN_MAX) {
        let of = |list: &[String]| list.get(at).map_or("(not sent)", String::as_str).to_owned();
        text.push_str(&format!("packet {}: {}: {}\n", at + 1, names[0], of(a)));
        text.push_str(&format!(
            "{:>1$}: {2}\n",
            names[1],
            names[0].len() + 11 + (at + 1).to_string().len() - 1,
            of(b)
        ));
    }
    Some(text)
}

/// Lines only in one of two texts, those in both left out; when only the order differs, both.
fn diff_lines(names: [&str; 2], a: &str, b: &str) -> String {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let mut text = String::new();
    for (name, lines, others) in [(names[0], &ours, &theirs), (names[1], &theirs, &ours)] {
        for line in lines.iter().filter(|line| !others.contains(line)) {
            text.push_str(&format!("{name:>6}| {line}|\n"));
        }
    }
    if text.is_empty() {
        text = format!(
            "the same lines in another order or number\n{}: {ours:?}\n{}: {theirs:?}\n",
            names[0], names[1]
        );
    }
    text
}

/// A connection without its time, and the time it had when its timer was restarted: from, to.
type Rows = BTreeMap<String, (f64, f64)>;

fn diff_connections(
    report: &mut Report,
    names: [&str; 2],
    (a, ours): (&str, &Rows),
    (b, theirs): (&str, &Rows),
) -> String {
    if a == b {
        return String::new();
    }
    if [(a, ours), (b, theirs)].iter().any(|(text, rows)| text.lines().count() > rows.len()) {
        report.except("repeated");
    }
    let mut text = String::new();
    for (name, rows, others) in [(names[0], ours, theirs), (names[1], theirs, ours)] {
        for (row, (time, _)) in rows.iter().filter(|(row, _)| !others.contains_key(*row)) {
            text.push_str(&format!("{name:>6}| {row}| with {time:.0} s\n"));
        }
    }
    for (row, (from, to)) in ours {
        let apart = |(other_from, other_to): &&(f64, f64)| {
            other_from - to > EXPIRY_SLACK_S || from - other_to > EXPIRY_SLACK_S
        };
        if let Some((other, _)) = theirs.get(row).filter(apart) {
            text.push_str(&format!("{row}: time-out {} {from:.1} s, {} {other:.1} s\n", names[0], names[1]));
        }
    }
    if text.is_empty() {
        let order = |text: &str| text.lines().map(without_time).map(|(row, _)| row).collect::<Vec<_>>();
        if order(a) != order(b) {
            report.except("order");
        }
        let mut sorted = [a, b].map(|text| text.lines().collect::<Vec<_>>());
        sorted.iter_mut().for_each(|lines| lines.sort_unstable());
        if sorted[0] != sorted[1] {
            report.except("expiry");
        }
    }
    text
}

fn rows(seen: &Seen) -> Rows {
    let mut rows = Rows::new();
    let Seen::Command { stdout, ages_s, ages_most_s, .. } = seen else { return rows };
    for line in stdout.lines() {
        let (row, time) = without_time(line);
        let words: Vec<&str> = row.split_whitespace().collect();
        let flow = [0, 2, 3].map(|at| words.get(at).copied().unwrap_or_default()).join(" ");
        let least = ages_s.get(&flow).copied().unwrap_or(0.0);
        let most = ages_most_s.get(&flow).copied().unwrap_or(least);
        rows.insert(row, time.map_or((0.0, 0.0), |time| (time + least, time + most)));
    }
    rows
}

/// `TCP 14:59  ESTABLISHED ...` -> `TCP ESTABLISHED ...` and 899.
pub(crate) fn without_time(line: &str) -> (String, Option<f64>) {
    let parsed = ["TCP ", "UDP ", "SCTP ", "IP  "].iter().find_map(|protocol| {
        let rest = line.strip_prefix(protocol)?;
        let (minutes, seconds) = rest.get(..6)?.trim_end().split_once(':')?;
        let time = f64::from(minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?);
        Some((format!("{protocol}{}", rest.get(7..)?), Some(time)))
    });
    parsed.unwrap_or_else(|| (line.to_owned(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &str, seen: Seen) -> Record {
        let steps = vec![Outcome { line: "step".to_owned(), seen }];
        let better = Some("because".to_owned());
        let played = Played { name: "s".to_owned(), better, failure: None, steps };
        Record { target: target.to_owned(), kernel: String::new(), scripts: vec![played] }
    }

    fn command(stdout: &str, code: i32, age: f64) -> Seen {
        let ages_s = BTreeMap::from([("TCP 198.51.100.1:5 192.0.2.10:80".to_owned(), age)]);
        let (stdout, stderr, ages_most_s) = (stdout.to_owned(), String::new(), BTreeMap::new());
        Seen::Command { code, stdout, stderr, ages_s, ages_most_s }
    }

    fn compared(a: Seen, b: Seen) -> Report {
        diff(&record("ipvs", a), &record("sluice", b))
    }

    const HEAD: &str =
        "IPVS connection entries\npro expire state       source             virtual            destination\n";

    fn listing(rows: &[(&str, &str)]) -> String {
        let row = |(expire, port): &(&str, &str)| {
            format!("TCP {expire:<6} SYN_RECV    198.51.100.1:{port}     192.0.2.10:80      10.0.0.1:80\n")
        };
        HEAD.to_owned() + &rows.iter().map(row).collect::<String>()
    }

    #[test]
    fn connections_may_differ_in_order_and_by_a_second() {
        let (a, b) = (listing(&[("00:59", "5"), ("00:59", "6")]), listing(&[("00:59", "6"), ("00:58", "5")]));
        let report = compared(command(&a, 0, 0.0), command(&b, 0, 0.0));
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.exceptions, BTreeMap::from([("order", 1), ("expiry", 1)]));
        let late = listing(&[("00:49", "5")]);
        let early = listing(&[("00:59", "5")]);
        assert!(compared(command(&early, 0, 0.0), command(&late, 0, 10.0)).is_clean(), "ten seconds later");
        assert!(!compared(command(&early, 0, 0.0), command(&late, 0, 0.0)).is_clean());
        assert!(!compared(command(&a, 0, 0.0), command(&early, 0, 0.0)).is_clean(), "one row less");
        let in_doubt = |most: f64| {
            let mut seen = command(&late, 0, 1.0);
            let Seen::Command { ages_s, ages_most_s, .. } = &mut seen else { panic!("{seen:?}") };
            ages_most_s.extend(ages_s.keys().map(|flow| (flow.clone(), most)));
            seen
        };
        assert!(compared(command(&early, 0, 0.0), in_doubt(10.0)).is_clean(), "a packet went nowhere");
        assert!(!compared(command(&early, 0, 0.0), in_doubt(5.0)).is_clean());
    }

    #[test]
    fn anything_else_is_a_difference() {
        assert!(compared(command("x \n", 0, 0.0), command("x \n", 0, 0.0)).is_clean());
        let report = compared(command("x \n", 0, 0.0), command("x\n", 2, 0.0));
        let text = report.to_string();
        assert!(text.contains("ipvs| x |") && text.contains("exit code: ipvs 0, sluice 2"), "{text}");
        let packets = |texts: &[&str]| Seen::Packets(texts.iter().map(|it| (*it).to_owned()).collect());
        let report = compared(packets(&["server 1", "server 2"]), packets(&["server 1", "nothing"]));
        assert_eq!((report.packets, report.differences.len()), (2, 1));
        assert!(report.to_string().contains("packet 2: ipvs: server 2"), "{report}");
    }

    #[test]
    fn what_differs_on_purpose_must_differ() {
        let marked = |seen| {
            let mut record = record("ipvs", seen);
            record.scripts[0].steps[0].line = "~ -Ln".to_owned();
            record
        };
        let (a, b) = (marked(command("x", 0, 0.0)), marked(command("y", 0, 0.0)));
        let report = diff(&a, &b);
        assert!(
            report.is_clean() && report.better == BTreeMap::from([("because".to_owned(), 1)]),
            "{report}"
        );
        assert!(diff(&a, &a).to_string().contains("remove the ~"));
    }

    #[test]
    fn scripts_of_one_side_and_failures_are_differences() {
        let whole = record("ipvs", Seen::Nothing);
        let mut other = record("sluice", Seen::Nothing);
        other.scripts[0].failure = Some("no memory".to_owned());
        assert!(diff(&whole, &other).to_string().contains("sluice could not go on: no memory"));
        other.scripts.clear();
        assert!(!diff(&whole, &other).is_clean());
        assert!(!diff(&other, &whole).is_clean());
        assert!(!diff(&other, &other).is_clean(), "nothing compared is no success");
    }
}
