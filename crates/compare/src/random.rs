//! Scripts made from a seed: services of every kind (TCP, UDP, marks, any port; persistent, one-packet; both families), real
//! servers of every method, edits, deletions, flows that open, answer and close, listings.
//!
//! Absent on purpose is what is known to differ (docs/compatibility.md), as it would hide all else: a real server keeps its
//! method; a UDP flow whose real server is gone is left alone, a TCP one gets no SYN again; a persistent service stays, and
//! with a real server gone from one its templates are not listed. Absent too: waits but for counters (a minute of random
//! scripts is to hold many), and client ports that come again after a close, which is the business of written scripts. Resets come last.

mod numbers;
mod service;

use crate::script::{Script, ScriptError};
use numbers::Numbers;
use service::{Draft, Service};

/// Steps after the set-up.
const STEPS: u64 = 16;
/// Real servers of a service have numbers from 1 to this.
const REALS: u64 = 6;

/// Scripts number 1 to `count` of a seed. Each depends on the seed and its own number alone.
///
/// # Errors
/// A line that is no step: a mistake in this module.
pub fn scripts(seed: u64, count: u32) -> Result<Vec<Script>, ScriptError> {
    (1..=count).map(|number| Script::read(&format!("random {seed} {number}"), &text(seed, number))).collect()
}

fn text(seed: u64, number: u32) -> String {
    let mut writer = Writer::new(seed ^ (u64::from(number) << 40));
    writer.write();
    writer.text
}

/// Flows that were opened, and may be there.
#[derive(Clone)]
struct Flows {
    /// Of which service.
    at: usize,
    /// Port of the first, or of all.
    port: u16,
    /// Where they went.
    to: String,
    to_port: u16,
    count: u16,
    /// What differs from one to the next: `port` or `address`.
    vary: &'static str,
}

struct Writer {
    numbers: Numbers,
    text: String,
    services: Vec<Service>,
    flows: Vec<Flows>,
    next_port: u16,
    /// Whether real servers have thresholds.
    thresholds: bool,
    /// Whether packets come at the end of their hops.
    hops: bool,
    /// Whether the counters are listed in the end.
    counters: bool,
    /// Whether templates may be listed.
    templates: bool,
}

impl Writer {
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        // Not in all scripts: what fails for one of these hides everything else.
        let (thresholds, hops) = (numbers.one_in(4), numbers.one_in(4));
        // The director's own answers are counted by IPVS alone.
        let counters = !hops && numbers.one_in(6);
        Self {
            numbers,
            text: String::new(),
            services: Vec::new(),
            flows: Vec::new(),
            next_port: 1024,
            thresholds,
            hops,
            counters,
            templates: true,
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn write(&mut self) {
        for number in 0..1 + self.numbers.below(3) {
            let service = Draft { number, numbers: &mut self.numbers }.service();
            service.marks().iter().for_each(|line| self.line(line));
            self.services.push(service);
            self.add_service(self.services.len() - 1);
        }
        for _ in 0..STEPS {
            let at = self.numbers.below(self.services.len() as u64) as usize;
            match self.numbers.below(12) {
                0 | 1 => self.edit_server(at),
                2 => self.edit_service(at),
                3 => self.add_or_remove(at),
                4 | 5 => self.go_on(),
                6 | 7 => self.answer(),
                8 if self.numbers.one_in(3) => self.remake(at),
                8 => self.line("-Ln"),
                9 if self.hops => self.hop(at),
                _ => self.open(at),
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        for line in ["-Ln", "-Sn", "-Ln --thresholds", "-Ln --tun-info"] {
            self.line(line);
        }
        if self.templates {
            self.line("-Lcn");
            self.line("-Ln --persistent-conn");
        }
        if self.counters {
            // The kernel sums its counters up every two seconds.
            self.line("wait 4.5");
            self.line("-Ln --stats");
        }
        self.reset();
    }

    /// Resets flows, last of all: what is reset is gone ten seconds later, and a slow machine may take as long.
    fn reset(&mut self) {
        match self.numbers.below(3) {
            0 => return,
            1 => self.answer_with("rst"),
            _ => {
                let Some((flows, from, count)) = self.some() else { return };
                let words = if self.services[flows.at].is_udp() { "data 3" } else { "rst" };
                self.packets(&flows, from, count, words);
            }
        }
        if self.templates {
            self.line("-Lcn");
        }
        self.line("-Ln");
    }

    /// Adds a service and some of its servers, for wrr each by a command of its own: many at once are not the same.
    fn add_service(&mut self, at: usize) {
        let service = &self.services[at];
        let start = if service.scheduler.starts_with("wrr") { "" } else { "| " };
        let line = format!("{start}-A {} {}", service.name(), service.flags());
        self.line(&line);
        for number in 1..=1 + self.numbers.below(REALS - 1) {
            self.add_server(at, number, start);
        }
    }

    fn add_server(&mut self, at: usize, number: u64, start: &str) {
        if self.services[at].may_add(number) {
            let server = self.server(at, number);
            self.line(&format!("{start}-a {server}"));
            self.services[at].added(number);
        }
    }

    /// `-t VIP:80 -r 10.0.0.1:80 -m -w 3`
    fn server(&mut self, at: usize, number: u64) -> String {
        let weight = self.numbers.below(6);
        let thresholds = match self.numbers.below(8) {
            _ if !self.thresholds => String::new(),
            0 | 1 => format!(" -x {}", 2 + self.numbers.below(8)),
            2 => format!(" -x {} -y {}", 6 + self.numbers.below(8), 1 + self.numbers.below(5)),
            _ => String::new(),
        };
        let service = &self.services[at];
        format!("{} {} -w {weight}{thresholds}", service.named(number), service.method(number))
    }

    fn edit_server(&mut self, at: usize) {
        let number = 1 + self.numbers.below(REALS);
        let server = self.server(at, number);
        self.line(&format!("-e {server}"));
    }

    fn edit_service(&mut self, at: usize) {
        let scheduler = Draft { number: 0, numbers: &mut self.numbers }.scheduler();
        let service = &mut self.services[at];
        service.scheduler = scheduler;
        let line = format!("-E {} {}", service.name(), service.flags());
        self.line(&line);
    }

    fn add_or_remove(&mut self, at: usize) {
        let number = 1 + self.numbers.below(REALS);
        if self.numbers.one_in(2) {
            return self.add_server(at, number, "");
        }
        let line = format!("-d {}", self.services[at].named(number));
        self.line(&line);
        let service = &mut self.services[at];
        if service.removed(number) {
            self.templates &= !service.is_persistent();
            if service.is_udp() {
                self.flows.retain(|flows| flows.at != at);
            }
        }
    }

    /// A service goes, and comes back with other servers.
    fn remake(&mut self, at: usize) {
        if self.services[at].is_persistent() {
            return;
        }
        let line = format!("-D {}", self.services[at].name());
        self.line(&line);
        self.flows.retain(|flows| flows.at != at);
        // Counters of real servers that come back do or do not begin anew, as the time of the kernel's sums falls.
        self.counters = false;
        self.services[at].removed_all();
        if self.numbers.one_in(2) {
            self.open(at);
            self.flows.retain(|flows| flows.at != at);
        }
        self.add_service(at);
    }

    /// New flows, from many ports of one client or from many clients.
    fn open(&mut self, at: usize) {
        let count = 1 + self.numbers.below(30) as u16;
        let vary = self.numbers.pick(&["port", "address"]);
        let service = &self.services[at];
        let (to, to_port) = service.destination(&mut self.numbers);
        let flows = Flows { at, port: self.next_port, to, to_port, count, vary };
        self.next_port += count;
        if service.is_udp() {
            let size = self.numbers.below(64);
            self.packets(&flows, 0, count, &format!("data {size}"));
        } else {
            self.packets(&flows, 0, count, "syn");
            if self.numbers.one_in(2) {
                self.packets(&flows, 0, count, "ack");
            }
        }
        self.flows.push(flows);
    }

    fn packets(&mut self, flows: &Flows, from: u16, count: u16, words: &str) {
        let service = &self.services[flows.at];
        let (protocol, vary) = (service.protocol(), flows.vary);
        let client = service.client(flows.port, vary, from);
        let line = format!("{protocol} {client} > {}:{} {words} x {count} {vary}", flows.to, flows.to_port);
        self.line(&line);
    }

    /// Some of the flows there are: the first of these, and how many.
    fn some(&mut self) -> Option<(Flows, u16, u16)> {
        let at = self.numbers.below(self.flows.len() as u64) as usize;
        let flows = self.flows.get(at)?.clone();
        let from = self.numbers.below(flows.count.into()) as u16;
        let count = 1 + self.numbers.below((flows.count - from).min(12).into()) as u16;
        Some((flows, from, count))
    }

    /// Packets of clients in flows that may exist, in any order of states.
    fn go_on(&mut self) {
        let Some((flows, from, count)) = self.some() else { return };
        let flags = self.numbers.pick(&["fin ack", "ack", "fin", "none", "psh ack data 20"]);
        let words = if self.services[flows.at].is_udp() { "data 3" } else { flags };
        self.packets(&flows, from, count, words);
    }

    /// What a masqueraded server sends, in flows of its own and of others.
    fn answer(&mut self) {
        let flags = self.numbers.pick(&["syn ack", "syn ack", "ack data 30", "fin ack"]);
        self.answer_with(flags);
    }

    fn answer_with(&mut self, flags: &str) {
        let Some((flows, from, count)) = self.some() else { return };
        let number = 1 + self.numbers.below(REALS);
        let service = &self.services[flows.at];
        let Some(server) = service.answers_as(number, flows.to_port) else { return };
        let words = if service.is_udp() { "data 5" } else { flags };
        let (client, vary) = (service.client(flows.port, flows.vary, from), flows.vary_back());
        let line = format!("{} {server} > {client} {words} x {count} {vary}", service.protocol());
        self.line(&line);
    }

    /// A packet that may not go on.
    fn hop(&mut self, at: usize) {
        let ttl = self.numbers.below(3);
        let service = &self.services[at];
        let client = service.client(self.next_port, "port", 0);
        let (to, to_port) = service.destination(&mut self.numbers);
        let flags = if service.is_udp() { "" } else { "syn" };
        let line = format!("{} {client} > {to}:{to_port} {flags} ttl {ttl}", service.protocol());
        self.next_port += 1;
        self.line(&line);
    }
}

impl Flows {
    /// What differs in the packets that come back.
    fn vary_back(&self) -> &'static str {
        if self.vary == "port" { "toport" } else { "to" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_scripts_and_another_seed_others() {
        let lines = |seed, count| {
            let scripts = scripts(seed, count).expect("every line is a step");
            scripts
                .iter()
                .map(|it| it.steps.iter().map(|step| step.0.clone()).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(1, 200), lines(1, 200));
        assert_eq!(lines(1, 10)[..5], lines(1, 5)[..]);
        assert_ne!(lines(1, 10), lines(2, 10));
    }

    #[test]
    fn two_hundred_scripts_hold_every_kind() {
        let texts: Vec<String> = (1..=200).map(|number| text(7, number)).collect();
        let holds = |what: &str| texts.iter().filter(|text| text.contains(what)).count();
        for kind in [
            "-A -t 192.0.2.",
            "-A -t [2001:db8::",
            "-A -u 192.0.2.",
            "-A -u [2001:db8::",
            "| -A -f ",
            "\n-A -f ",
            ":0 -s ",
            " -p ",
            " -M ",
            " -o",
            " -m -w",
            " -g -w",
            " -i -w",
            "--tun-type gre",
            "--tun-type gue",
            " -x ",
            " -y ",
            "\n-e ",
            "\n-E ",
            "\n-d ",
            "\n-D ",
            "\nmark ",
            "tcp 10.0.0.",
            "udp 10.0.0.",
            "tcp [fd00::",
            "syn ack",
            " rst ",
            "ttl 1",
            "--stats",
            "-s lblcr",
        ] {
            assert!(holds(kind) >= 5, "{kind:?} is in {} of 200", holds(kind));
        }
    }
}
