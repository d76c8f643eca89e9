//! What a random script knows of one service.

use super::REALS;
use super::numbers::Numbers;
use std::collections::BTreeSet;

const SCHEDULERS: [&str; 13] =
    ["rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "sed", "nq", "fo", "ovf", "lblc", "lblcr"];
const TUNNELS: [&str; 4] =
    ["-i", "-i --tun-type gre", "-i --tun-type gre --tun-csum", "-i --tun-type gue --tun-port 6080"];
/// Ports of a service that has more than one.
const PORTS: [u16; 2] = [80, 443];

/// How packets find the service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By address and port.
    Port(u16),
    /// By address, whatever the port.
    AnyPort,
    /// By a mark of two ports.
    Mark(u64),
}

/// One of the real servers that a service may have.
#[derive(Clone)]
struct Real {
    address: String,
    method: String,
    /// 0: that of the packet.
    port: u16,
}

/// A service, and the real servers it has or may get.
pub(super) struct Service {
    kind: Kind,
    is_udp: bool,
    is_v6: bool,
    vip: String,
    pub(super) scheduler: String,
    /// `-o` or `-p 300 -M ...`.
    options: String,
    reals: Vec<Real>,
    present: BTreeSet<u64>,
    /// Real servers that were removed.
    gone: BTreeSet<u64>,
}

impl Service {
    /// `-t VIP:80`
    pub(super) fn name(&self) -> String {
        let protocol = if self.is_udp { "-u" } else { "-t" };
        match self.kind {
            Kind::Mark(mark) if self.is_v6 => format!("-f {mark} -6"),
            Kind::Mark(mark) => format!("-f {mark}"),
            Kind::Port(port) => format!("{protocol} {}:{port}", self.vip),
            Kind::AnyPort => format!("{protocol} {}:0", self.vip),
        }
    }

    /// `-s wrr -p 300`
    pub(super) fn flags(&self) -> String {
        format!("-s {}{}", self.scheduler, self.options)
    }

    /// The marks it needs, as steps.
    pub(super) fn marks(&self) -> Vec<String> {
        let Kind::Mark(mark) = self.kind else { return Vec::new() };
        let [a, b] = PORTS.map(|port| format!("{}:{port}", self.vip));
        vec![format!("mark {} {a} {b} {mark}", self.protocol())]
    }

    /// `-t VIP:80 -r 10.0.0.1:80`
    pub(super) fn named(&self, number: u64) -> String {
        let real = self.real(number);
        format!("{} -r {}:{}", self.name(), real.address, real.port)
    }

    pub(super) fn method(&self, number: u64) -> &str {
        &self.real(number).method
    }

    fn real(&self, number: u64) -> &Real {
        &self.reals[(number as usize - 1) % self.reals.len()]
    }

    /// Address and port of a masqueraded real server that answers what was sent to a port; of others `None`.
    pub(super) fn answers_as(&self, number: u64, to_port: u16) -> Option<String> {
        let real = self.real(number);
        let port = if real.port == 0 { to_port } else { real.port };
        (real.method == "-m").then(|| format!("{}:{port}", real.address))
    }

    pub(super) fn protocol(&self) -> &'static str {
        if self.is_udp { "udp" } else { "tcp" }
    }

    pub(super) fn is_udp(&self) -> bool {
        self.is_udp
    }

    pub(super) fn is_persistent(&self) -> bool {
        self.options.contains("-p")
    }

    /// An address and a port that belong to it.
    pub(super) fn destination(&self, numbers: &mut Numbers) -> (String, u16) {
        let port = match self.kind {
            Kind::Port(port) => port,
            Kind::AnyPort | Kind::Mark(_) => PORTS[numbers.below(PORTS.len() as u64) as usize],
        };
        (self.vip.clone(), port)
    }

    /// The client number `add` of those that differ in their ports or in their addresses.
    pub(super) fn client(&self, port: u16, vary: &str, add: u16) -> String {
        let (host, port) = if vary == "port" { (1, port + add) } else { (1 + add, port) };
        if self.is_v6 {
            format!("[2001:db8:1::{host:x}]:{port}")
        } else {
            format!("198.51.100.{host}:{port}")
        }
    }

    /// Whether the server may be added: where templates stay behind, none comes back.
    pub(super) fn may_add(&self, number: u64) -> bool {
        !(self.is_persistent() && self.gone.contains(&number))
    }

    pub(super) fn added(&mut self, number: u64) {
        self.present.insert(number);
    }

    /// Whether there was one to remove.
    pub(super) fn removed(&mut self, number: u64) -> bool {
        let was_there = self.present.remove(&number);
        if was_there {
            self.gone.insert(number);
        }
        was_there
    }

    pub(super) fn removed_all(&mut self) {
        self.gone.append(&mut self.present);
    }
}

/// What a service is made from.
pub(super) struct Draft<'a> {
    /// Unlike those of the script's other services.
    pub(super) number: u64,
    pub(super) numbers: &'a mut Numbers,
}

impl Draft<'_> {
    pub(super) fn service(&mut self) -> Service {
        let last = 10 + self.number;
        let (is_udp, is_v6) = (self.numbers.one_in(3), self.numbers.one_in(2));
        let is_persistent = self.numbers.one_in(4);
        let kind = match self.numbers.below(4) {
            0 => Kind::Mark(7 + self.number),
            1 if is_persistent => Kind::AnyPort,
            _ => Kind::Port(80 + self.numbers.below(3) as u16),
        };
        let options = if is_persistent {
            self.persistence(is_v6)
        } else if is_udp && self.numbers.one_in(4) {
            " -o".to_owned()
        } else {
            String::new()
        };
        let vip = if is_v6 { format!("[2001:db8::{last}]") } else { format!("192.0.2.{last}") };
        let method = self.numbers.below(5);
        let reals = (1..=REALS).map(|number| self.real(kind, is_v6, method, number)).collect();
        let (scheduler, present, gone) = (self.scheduler(), BTreeSet::new(), BTreeSet::new());
        Service { kind, is_udp, is_v6, vip, scheduler, options, reals, present, gone }
    }

    fn persistence(&mut self, is_v6: bool) -> String {
        let mask =
            if is_v6 { ["", " -M 64", " -M 120"] } else { ["", " -M 255.255.255.0", " -M 255.255.255.240"] };
        format!(" -p {}{}", 60 + self.numbers.below(300), self.numbers.pick(&mask))
    }

    /// By the method of the whole service, or one of its own.
    fn real(&mut self, kind: Kind, is_v6: bool, method: u64, number: u64) -> Real {
        let method = if method < 4 { method } else { self.numbers.below(4) };
        let own = match kind {
            Kind::Port(port) => port,
            Kind::AnyPort | Kind::Mark(_) => 0,
        };
        let (method, port) = match method {
            0 | 1 if own != 0 && self.numbers.one_in(2) => ("-m", 8000 + own),
            0 | 1 => ("-m", own),
            2 => (self.numbers.pick(&TUNNELS), own),
            _ => ("-g", own),
        };
        // A tunnel may lead through the other family.
        let is_real_v6 = is_v6 ^ (method.starts_with("-i") && self.numbers.one_in(5));
        let address = if is_real_v6 { format!("[fd00::{number}]") } else { format!("10.0.0.{number}") };
        Real { address, method: method.to_owned(), port }
    }

    pub(super) fn scheduler(&mut self) -> String {
        let scheduler = self.numbers.pick(&SCHEDULERS);
        let flags = match scheduler {
            "sh" | "mh" => self.numbers.pick(&["", " -b #-fallback", " -b #-port", " -b #-fallback,#-port"]),
            _ => "",
        };
        format!("{scheduler}{}", flags.replace('#', scheduler))
    }
}
