//! Scripts made from a seed: services, real servers, edits, flows that open and close, listings.
//!
//! Absent: waits (a minute of random scripts is to hold many), and client ports that come again after a close, which is
//! the business of written scripts.

use crate::script::{Script, ScriptError};

const SCHEDULERS: [&str; 11] = ["rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "sed", "nq", "fo", "ovf"];
/// Steps after the set-up.
const STEPS: u64 = 14;

/// Scripts number 1 to `count` of a seed. Each depends on the seed and its own number alone.
///
/// # Errors
/// A line that is no step: a mistake in this module.
pub fn scripts(seed: u64, count: u32) -> Result<Vec<Script>, ScriptError> {
    (1..=count)
        .map(|number| {
            let mut writer = Writer::new(seed ^ (u64::from(number) << 40));
            writer.write();
            Script::read(&format!("random {seed} {number}"), &writer.text)
        })
        .collect()
}

/// Numbers from a seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit.max(1)
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

struct Service {
    option: &'static str,
    protocol: &'static str,
    v6: bool,
    vip: String,
    port: u16,
}

struct Writer {
    numbers: Numbers,
    text: String,
    services: Vec<Service>,
    next_port: u16,
    /// Whether real servers have thresholds.
    thresholds: bool,
    /// Whether packets come at the end of their hops.
    hops: bool,
}

impl Writer {
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers(seed);
        // Not in all scripts: what fails for one of these hides everything else.
        let (thresholds, hops) = (numbers.one_in(4), numbers.one_in(4));
        Self { numbers, text: String::new(), services: Vec::new(), next_port: 1024, thresholds, hops }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn write(&mut self) {
        for number in 0..1 + self.numbers.below(2) {
            self.add_service(number);
        }
        for _ in 0..STEPS {
            let at = self.numbers.below(self.services.len() as u64) as usize;
            match self.numbers.below(10) {
                0 | 1 => self.edit_server(at),
                2 => self.edit_service(at),
                3 => self.remove_or_add(at),
                4 => self.close(at),
                5 => self.line("-Ln"),
                6 if self.hops => self.hop(at),
                _ => self.open(at),
            }
        }
        for line in ["-Ln", "-Lcn", "-Sn", "-Ln --thresholds", "-Ln --persistent-conn"] {
            self.line(line);
        }
    }

    fn add_service(&mut self, number: u64) {
        let (option, protocol) = if self.numbers.one_in(3) { ("-u", "udp") } else { ("-t", "tcp") };
        let v6 = self.numbers.one_in(2);
        let last = 10 + number;
        let vip = if v6 { format!("[2001:db8::{last}]") } else { format!("192.0.2.{last}") };
        let port = 80 + self.numbers.below(3) as u16;
        let scheduler = self.scheduler();
        self.line(&format!("| -A {option} {vip}:{port} {scheduler}"));
        self.services.push(Service { option, protocol, v6, vip, port });
        let at = self.services.len() - 1;
        for server in 1..=1 + self.numbers.below(5) {
            let server = self.server(at, server);
            self.line(&format!("| -a {server}"));
        }
    }

    fn scheduler(&mut self) -> String {
        let scheduler = self.numbers.pick(&SCHEDULERS);
        let flags = match scheduler {
            "sh" | "mh" => self.numbers.pick(&["", " -b #-fallback", " -b #-port", " -b #-fallback,#-port"]),
            _ => "",
        };
        format!("-s {scheduler}{}", flags.replace('#', scheduler))
    }

    /// `-t VIP:80 -r 10.0.0.1 -w 3`
    fn server(&mut self, at: usize, number: u64) -> String {
        let weight = self.numbers.below(6);
        let thresholds = match self.numbers.below(8) {
            _ if !self.thresholds => String::new(),
            0 => format!(" -x {}", 2 + self.numbers.below(8)),
            1 => format!(" -x {} -y {}", 6 + self.numbers.below(8), 1 + self.numbers.below(5)),
            _ => String::new(),
        };
        format!("{} -w {weight}{thresholds}", self.named(at, number))
    }

    fn named(&self, at: usize, number: u64) -> String {
        let service = &self.services[at];
        let real = if service.v6 { format!("[fd00::{number}]") } else { format!("10.0.0.{number}") };
        let Service { option, vip, port, .. } = service;
        format!("{option} {vip}:{port} -r {real}:{port}")
    }

    fn edit_server(&mut self, at: usize) {
        let number = 1 + self.numbers.below(6);
        let server = self.server(at, number);
        self.line(&format!("-e {server}"));
    }

    fn edit_service(&mut self, at: usize) {
        let scheduler = self.scheduler();
        let Service { option, vip, port, .. } = &self.services[at];
        let line = format!("-E {option} {vip}:{port} {scheduler}");
        self.line(&line);
    }

    fn remove_or_add(&mut self, at: usize) {
        let number = 1 + self.numbers.below(6);
        let line = if self.numbers.one_in(2) {
            format!("-d {}", self.named(at, number))
        } else {
            format!("-a {}", self.server(at, number))
        };
        self.line(&line);
    }

    fn client(&self, at: usize, port: u16) -> String {
        let host = if self.services[at].v6 { "[2001:db8:1::1]" } else { "198.51.100.1" };
        format!("{host}:{port}")
    }

    /// New flows, from many ports of one client or from many clients.
    fn open(&mut self, at: usize) {
        let count = 1 + self.numbers.below(30) as u16;
        let vary = self.numbers.pick(&["port", "address"]);
        let from = self.client(at, self.next_port);
        let Service { protocol, vip, port, .. } = &self.services[at];
        let (flows, is_tcp) = (format!("{protocol} {from} > {vip}:{port}"), *protocol == "tcp");
        self.next_port += count;
        if is_tcp {
            self.line(&format!("{flows} syn x {count} {vary}"));
            if self.numbers.one_in(2) {
                self.line(&format!("{flows} ack x {count} {vary}"));
            }
        } else {
            self.line(&format!("{flows} data {} x {count} {vary}", self.text.len() % 64));
        }
    }

    /// Packets of flows that may exist, in any order of states.
    fn close(&mut self, at: usize) {
        let count = 1 + self.numbers.below(12);
        let span = u64::from(self.next_port - 1024);
        let port = 1024 + self.numbers.below(span) as u16;
        let from = self.client(at, port);
        let flags = self.numbers.pick(&["fin ack", "rst", "ack", "fin", "none"]);
        let Service { protocol, vip, port, .. } = &self.services[at];
        let flags = if *protocol == "tcp" { flags } else { "" };
        let line = format!("{protocol} {from} > {vip}:{port} {flags} x {count} port");
        self.line(&line);
    }

    /// A packet that may not go on.
    fn hop(&mut self, at: usize) {
        let ttl = self.numbers.below(3);
        let from = self.client(at, self.next_port);
        self.next_port += 1;
        let Service { protocol, vip, port, .. } = &self.services[at];
        let flags = if *protocol == "tcp" { "syn" } else { "" };
        let line = format!("{protocol} {from} > {vip}:{port} {flags} ttl {ttl}");
        self.line(&line);
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
}
