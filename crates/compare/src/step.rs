//! One line of a script: a command, packets or a wait.
//!
//! ```text
//! -A -t 192.0.2.10:80 -s rr                      a call of ipvsadm
//! ipvsadm -L ''                                  the same; for calls that do not start with an option
//! | -a -t 192.0.2.10:80 -r 10.0.0.1 -w 2         lines in a row: the input of one `ipvsadm -R`
//! weights 192.0.2.10:80 -t rr 1 3                a service with the servers 10.0.0.1 and 10.0.0.2 of these weights
//! tcp 198.51.100.1:1024 > 192.0.2.10:80 syn      a packet; x 100 port: a hundred, each from the next port
//! send ip4 198.51.100.1 > 192.0.2.10 / udp 5 > 53 / "hello"     a packet of the packet language
//! wait 2.5                                       seconds
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use testkit::Packet;

use crate::net::{DIRECTOR_MAC, GATEWAY_MAC};

/// Most packets of one step.
const PACKETS_MAX: u32 = 5000;
/// Longest wait of one step, in seconds.
const WAIT_S_MAX: f64 = 200.0;

/// Why a line is no step.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum StepError {
    /// The first word says nothing.
    #[error("no step begins like this; steps begin with -, |, ipvsadm, weights, tcp, udp, send or wait")]
    Unknown,
    /// A quote without its end.
    #[error("the quote is not closed")]
    OpenQuote,
    /// Bad addresses of a packet.
    #[error("a packet is `tcp ADDRESS:PORT > ADDRESS:PORT ...`, both of one family")]
    Addresses,
    /// A word of a packet.
    #[error("{word:?} is no word of a packet, or its number is missing or out of range")]
    Word {
        /// The word.
        word: String,
    },
    /// A packet of the packet language.
    #[error("the packet: {0}")]
    Packet(#[from] testkit::packet::TextError),
    /// A service.
    #[error("a service is `weights ADDRESS:PORT -t|-u SCHEDULER WEIGHT...`")]
    Weights,
    /// A wait.
    #[error("a wait is a number of seconds from 0 to {WAIT_S_MAX}")]
    Wait,
}

/// What a script does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A call of ipvsadm with these words.
    Command(Vec<String>),
    /// A call of `ipvsadm -R` with this input.
    Restore(String),
    /// Packets from a client, one after the other.
    Packets(Vec<Packet>),
    /// A pause.
    Wait(Duration),
}

/// What differs from one packet of a burst to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vary {
    /// The client's port.
    Port,
    /// The client's address.
    Address,
    /// The virtual address.
    To,
}

/// Packets that differ in one thing.
#[derive(Clone, Debug)]
pub struct Burst {
    protocol: &'static str,
    from: SocketAddr,
    to: SocketAddr,
    ttl: u8,
    data: usize,
    flags: Vec<&'static str>,
    count: u32,
    stride: u32,
    vary: Vary,
}

const FLAGS: [&str; 6] = ["syn", "ack", "fin", "rst", "psh", "urg"];

impl Step {
    /// Reads one line. A line of a restore (`|`) is a restore of that line.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn read(line: &str) -> Result<Self, StepError> {
        if let Some(rest) = line.strip_prefix('|') {
            return Ok(Self::Restore(format!("{}\n", rest.trim())));
        }
        if let Some(rest) = line.strip_prefix("send ") {
            let text = format!("eth {GATEWAY_MAC} > {DIRECTOR_MAC} / {rest}");
            return Ok(Self::Packets(vec![text.parse()?]));
        }
        let words = words(line)?;
        match words.first().map(String::as_str) {
            Some("ipvsadm") => Ok(Self::Command(words[1..].to_vec())),
            Some(first) if first.starts_with('-') => Ok(Self::Command(words)),
            Some("weights") => Ok(Self::Restore(service(&words).ok_or(StepError::Weights)?)),
            Some("tcp" | "udp") => Ok(Self::Packets(Burst::read(&words)?.packets()?)),
            Some("wait") => {
                let seconds = words.get(1).and_then(|word| word.parse::<f64>().ok());
                let seconds = seconds.filter(|it| (0.0..=WAIT_S_MAX).contains(it) && words.len() == 2);
                Ok(Self::Wait(Duration::from_secs_f64(seconds.ok_or(StepError::Wait)?)))
            }
            _ => Err(StepError::Unknown),
        }
    }
}

/// The lines that make a service and its servers.
fn service(words: &[String]) -> Option<String> {
    let [_, address, protocol, scheduler, weights @ ..] = words else { return None };
    let service = format!("{protocol} {address}");
    let mut lines = format!("-A {service} -s {scheduler}\n");
    for (number, weight) in weights.iter().enumerate() {
        lines.push_str(&format!("-a {service} -r 10.0.0.{} -w {weight}\n", number + 1));
    }
    matches!(protocol.as_str(), "-t" | "-u").then_some(lines)
}

/// Words separated by blanks; `'...'` is one word, empty too.
fn words(line: &str) -> Result<Vec<String>, StepError> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').ok_or(StepError::OpenQuote)?,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

impl Burst {
    fn read(words: &[String]) -> Result<Self, StepError> {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let address = |at: usize| word(at).parse::<SocketAddr>().map_err(|_| StepError::Addresses);
        let (from, to) = (address(1)?, address(3)?);
        if word(2) != ">" || from.is_ipv4() != to.is_ipv4() {
            return Err(StepError::Addresses);
        }
        let mut burst = Self {
            protocol: if word(0) == "tcp" { "tcp" } else { "udp" },
            from,
            to,
            ttl: 64,
            data: 0,
            flags: Vec::new(),
            count: 1,
            stride: 1,
            vary: Vary::Port,
        };
        let mut rest = words.iter().skip(4).map(String::as_str);
        while let Some(word) = rest.next() {
            burst.word(word, &mut rest).ok_or_else(|| StepError::Word { word: word.to_owned() })?;
        }
        Ok(burst)
    }

    fn word<'a>(&mut self, word: &str, rest: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        match word {
            "ttl" => self.ttl = rest.next()?.parse().ok()?,
            "data" => self.data = rest.next()?.parse().ok().filter(|size| *size <= 1400)?,
            "step" => self.stride = rest.next()?.parse().ok()?,
            "none" => {}
            "x" => {
                self.count = rest.next()?.parse().ok().filter(|count| *count <= PACKETS_MAX)?;
                self.vary = match rest.next()? {
                    "port" => Vary::Port,
                    "address" => Vary::Address,
                    "to" => Vary::To,
                    _ => return None,
                };
            }
            _ => self.flags.push(FLAGS.into_iter().find(|flag| *flag == word)?),
        }
        Some(())
    }

    fn packets(&self) -> Result<Vec<Packet>, StepError> {
        (0..self.count).map(|number| self.packet(number.wrapping_mul(self.stride))).collect()
    }

    fn packet(&self, add: u32) -> Result<Packet, StepError> {
        let (mut from, mut to) = (self.from, self.to);
        match self.vary {
            Vary::Port => from.set_port(from.port().wrapping_add(add as u16)),
            Vary::Address => from.set_ip(plus(from.ip(), add)),
            Vary::To => to.set_ip(plus(to.ip(), add)),
        }
        let (ip, hops) = if from.is_ipv4() { ("ip4", "ttl") } else { ("ip6", "hoplimit") };
        let mut text = format!(
            "eth {GATEWAY_MAC} > {DIRECTOR_MAC} / {ip} {} > {} {hops} {} / {} {} > {} {}",
            from.ip(),
            to.ip(),
            self.ttl,
            self.protocol,
            from.port(),
            to.port(),
            self.flags.join(" ")
        );
        if self.data > 0 {
            text.push_str(&format!(" / bytes {}", self.data));
        }
        Ok(text.parse()?)
    }
}

fn plus(address: IpAddr, add: u32) -> IpAddr {
    match address {
        IpAddr::V4(it) => Ipv4Addr::from(u32::from(it).wrapping_add(add)).into(),
        IpAddr::V6(it) => Ipv6Addr::from(u128::from(it).wrapping_add(add.into())).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_counts_up() {
        let step = Step::read("tcp 198.51.100.1:1024 > 192.0.2.10:80 syn x 3 port step 2").expect("step");
        let Step::Packets(packets) = step else { panic!("{step:?}") };
        let texts: Vec<String> = packets.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[2].ends_with("tcp 1028 > 80 syn"), "{texts:?}");
        let step =
            Step::read("udp [2001:db8:1::ff]:5 > [2001:db8::10]:53 ttl 2 data 3 x 2 address").expect("step");
        let Step::Packets(packets) = step else { panic!("{step:?}") };
        let text = packets[1].to_string();
        assert!(text.contains("2001:db8:1::100") && text.contains("hoplimit 2"), "{text}");
    }

    #[test]
    fn words_may_be_quoted_and_empty() {
        let Ok(Step::Command(words)) = Step::read("ipvsadm -A -t ''  x") else { panic!("no command") };
        assert_eq!(words, ["-A", "-t", "", "x"]);
        let Ok(Step::Command(words)) = Step::read("-Ln") else { panic!("no command") };
        assert_eq!(words, ["-Ln"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |line: &str| Step::read(line).expect_err(line);
        assert_eq!(error("go"), StepError::Unknown);
        assert_eq!(error("-A 'x"), StepError::OpenQuote);
        assert_eq!(error("tcp 1.2.3.4 > 1.2.3.4:5"), StepError::Addresses);
        assert_eq!(error("tcp 1.2.3.4:1 > [::1]:5"), StepError::Addresses);
        assert_eq!(error("tcp 1.2.3.4:1 > 1.2.3.4:5 x 9999 port"), StepError::Word { word: "x".to_owned() });
        assert_eq!(error("tcp 1.2.3.4:1 > 1.2.3.4:5 sin"), StepError::Word { word: "sin".to_owned() });
        assert_eq!(error("wait long"), StepError::Wait);
        assert_eq!(error("weights 192.0.2.10:80 rr 1 2 3"), StepError::Weights);
        assert!(matches!(error("send ip4 x > y"), StepError::Packet(_)));
    }
}
