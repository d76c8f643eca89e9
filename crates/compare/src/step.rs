//! One line of a script: a command, packets or a wait.
//!
//! ```text
//! -A -t 192.0.2.10:80 -s rr                      a call of ipvsadm
//! ipvsadm -L ''                                  the same; for calls that do not start with an option
//! | -a -t 192.0.2.10:80 -r 10.0.0.1 -w 2         lines in a row: the input of one `ipvsadm -R`
//! weights 192.0.2.10:80 -t rr 1 3                a service with the servers 10.0.0.1 and 10.0.0.2 of these weights
//! tcp 198.51.100.1:1024 > 192.0.2.10:80 syn      a packet; x 100 port: a hundred, each from the next port
//! send ip4 198.51.100.1 > 192.0.2.10 / udp 5 > 53 / "hello"     a packet of the packet language
//! from 3 ip4 10.0.1.1 > 192.0.2.10 / icmp 3 1    the same, from the MAC address of server 3
//! pieces 48 in 2 1 of ip4 198.51.100.1 > 192.0.2.10 / udp 5 > 53 / bytes 60     in fragments of 48 bytes
//! mark tcp 192.0.2.10:80 192.0.2.10:443 7        these destinations belong to fwmark 7; unmark: no longer
//! set sloppy_tcp 1                               a setting of IPVS
//! ip route add 10.0.0.9/32 dev d0 mtu 1400       iproute2 on the director
//! mtu 9000                                       of the link
//! wait 2.5                                       seconds
//! ```
//! Packets come from the gateway, those with the address of a server from that server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use testkit::Packet;
use testkit::packet::read;

use crate::burst::Burst;
use crate::mac::{self, DIRECTOR_MAC, GATEWAY_MAC};
use crate::pieces::cut;

/// Longest wait of one step, in seconds.
const WAIT_S_MAX: f64 = 200.0;

/// Why a line is no step.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum StepError {
    /// The first word says nothing.
    #[error(
        "no step begins like this; steps begin with -, |, ipvsadm, weights, tcp, udp, sctp, send, from, pieces, \
         mark, unmark, set, ip, mtu or wait"
    )]
    Unknown,
    /// A quote without its end.
    #[error("the quote is not closed")]
    OpenQuote,
    /// Bad addresses of a packet.
    #[error("a packet is `tcp|udp|sctp ADDRESS:PORT > ADDRESS:PORT ...`, both of one family")]
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
    #[error("a service is `weights ADDRESS:PORT -t|-u|--sctp-service SCHEDULER WEIGHT...`")]
    Weights,
    /// A packet of a server.
    #[error("a packet of a server is `from NUMBER IP-LAYER / ...`")]
    From,
    /// Fragments.
    #[error("fragments are `pieces BYTES [in NUMBER...] of IP-LAYER / ...`, with BYTES a multiple of eight")]
    Pieces,
    /// A mark.
    #[error("a mark is `mark|unmark tcp|udp|sctp ADDRESS:PORT... MARK`; port 0 stands for any")]
    Mark,
    /// A setting.
    #[error("a setting is `set NAME VALUE...`")]
    Set,
    /// The size of frames.
    #[error("the size of frames is `mtu BYTES`, from 1280 to 9000")]
    Mtu,
    /// A wait.
    #[error("a wait is a number of seconds from 0 to {WAIT_S_MAX}")]
    Wait,
}

/// Destinations that a fwmark is given to, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// False when it is taken away.
    pub is_added: bool,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Port 0 stands for any.
    pub destinations: Vec<SocketAddr>,
    /// The mark.
    pub mark: u32,
}

/// What a script does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A call of ipvsadm with these words.
    Command(Vec<String>),
    /// A call of `ipvsadm -R` with this input.
    Restore(String),
    /// Packets, one after the other.
    Packets(Vec<Packet>),
    /// Packets whose order and number of answers does not matter: fragments.
    Together(Vec<Packet>),
    /// A change of what belongs to a fwmark.
    Mark(Mark),
    /// A setting of IPVS.
    Set(String, String),
    /// Words of `ip`, on the director.
    Ip(String),
    /// The size of frames, in bytes.
    Mtu(u16),
    /// A pause.
    Wait(Duration),
}

impl Step {
    /// Reads one line. A line of a restore (`|`) is a restore of that line.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn read(line: &str) -> Result<Self, StepError> {
        if let Some(rest) = line.strip_prefix('|') {
            return Ok(Self::Restore(format!("{}\n", rest.trim())));
        }
        let layers = |rest: &str, mac: &str| format!("eth {mac} > {DIRECTOR_MAC} / {rest}").parse::<Packet>();
        match line.split_once(' ') {
            Some(("send", rest)) => {
                let packet = layers(rest, GATEWAY_MAC)?;
                let mac = source(&packet.to_bytes()).map(mac::of_source);
                return Ok(Self::Packets(vec![layers(rest, mac.as_deref().unwrap_or(GATEWAY_MAC))?]));
            }
            Some(("from", rest)) => {
                let (number, rest) = rest.split_once(' ').ok_or(StepError::From)?;
                let number = number.parse().ok().filter(|it| (1..=mac::SERVERS).contains(it));
                return Ok(Self::Packets(vec![layers(
                    rest,
                    &mac::of_server(number.ok_or(StepError::From)?),
                )?]));
            }
            Some(("pieces", rest)) => {
                let (how, rest) = rest.split_once(" of ").ok_or(StepError::Pieces)?;
                let mut packet = layers(rest, GATEWAY_MAC)?.to_bytes();
                if let Some(server) = source(&packet).and_then(mac::server_at) {
                    packet[6..11].copy_from_slice(&mac::SERVER_MACS);
                    packet[11] = server;
                }
                return pieces(how, &packet).map(Self::Together).ok_or(StepError::Pieces);
            }
            Some(("ip", rest)) => return Ok(Self::Ip(rest.to_owned())),
            _ => {}
        }
        Self::read_words(&words(line)?)
    }

    fn read_words(words: &[String]) -> Result<Self, StepError> {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match word(0) {
            "ipvsadm" => Ok(Self::Command(words[1..].to_vec())),
            first if first.starts_with('-') => Ok(Self::Command(words.to_vec())),
            "weights" => Ok(Self::Restore(service(words).ok_or(StepError::Weights)?)),
            "tcp" | "udp" | "sctp" => Ok(Self::Packets(Burst::read(words)?.packets()?)),
            "mark" | "unmark" => mark(words).map(Self::Mark).ok_or(StepError::Mark),
            "set" if words.len() >= 3 => Ok(Self::Set(words[1].clone(), words[2..].join(" "))),
            "set" => Err(StepError::Set),
            "mtu" => {
                let bytes = word(1).parse().ok().filter(|bytes| (1280..=9000).contains(bytes));
                Ok(Self::Mtu(bytes.ok_or(StepError::Mtu)?))
            }
            "wait" => {
                let seconds = word(1).parse::<f64>().ok();
                let seconds = seconds.filter(|it| (0.0..=WAIT_S_MAX).contains(it) && words.len() == 2);
                Ok(Self::Wait(Duration::from_secs_f64(seconds.ok_or(StepError::Wait)?)))
            }
            _ => Err(StepError::Unknown),
        }
    }
}

/// The source address of an Ethernet frame with IP in it.
fn source(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => <[u8; 4]>::try_from(frame.get(26..30)?).ok().map(IpAddr::from),
        [0x86, 0xdd] => <[u8; 16]>::try_from(frame.get(22..38)?).ok().map(IpAddr::from),
        _ => None,
    }
}

/// `48 in 2 1 3` -> those fragments of 48 bytes, in that order; without `in` all of them.
fn pieces(how: &str, packet: &[u8]) -> Option<Vec<Packet>> {
    let (size, order) = how.split_once(" in ").map_or((how, None), |(size, order)| (size, Some(order)));
    let pieces = cut(packet, size.parse().ok()?)?;
    let order: Vec<usize> = match order {
        Some(order) => order.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?,
        None => (1..=pieces.len()).collect(),
    };
    order.iter().map(|number| Some(read(pieces.get(number.checked_sub(1)?)?))).collect()
}

fn mark(words: &[String]) -> Option<Mark> {
    let [first, protocol, destinations @ .., mark] = words else { return None };
    let destinations: Vec<SocketAddr> =
        destinations.iter().map(|it| it.parse()).collect::<Result<_, _>>().ok()?;
    let is_known = ["tcp", "udp", "sctp"].contains(&protocol.as_str());
    (is_known && !destinations.is_empty()).then_some(Mark {
        is_added: first == "mark",
        protocol: protocol.clone(),
        destinations,
        mark: mark.parse().ok()?,
    })
}

/// The lines that make a service and its servers.
fn service(words: &[String]) -> Option<String> {
    let [_, address, protocol, scheduler, weights @ ..] = words else { return None };
    let service = format!("{protocol} {address}");
    let mut lines = format!("-A {service} -s {scheduler}\n");
    for (number, weight) in weights.iter().enumerate() {
        lines.push_str(&format!("-a {service} -r 10.0.0.{} -w {weight}\n", number + 1));
    }
    matches!(protocol.as_str(), "-t" | "-u" | "--sctp-service").then_some(lines)
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
    fn packets_of_servers_come_from_their_mac() {
        let texts = |line: &str| match Step::read(line).expect(line) {
            Step::Packets(packets) | Step::Together(packets) => {
                packets.iter().map(ToString::to_string).collect::<Vec<_>>()
            }
            step => panic!("{step:?}"),
        };
        let from = |number: u8| format!("eth 02:00:00:00:01:0{number} > {DIRECTOR_MAC} / ip4 ");
        assert!(texts("tcp 10.0.0.3:80 > 198.51.100.1:5 syn ack x 2 toport")[1].starts_with(&from(3)));
        assert!(texts("send ip4 10.0.0.4 > 198.51.100.1 / udp 53 > 5")[0].starts_with(&from(4)));
        assert!(texts("from 5 ip4 192.0.2.10 > 198.51.100.1 / udp 53 > 5")[0].starts_with(&from(5)));
        let pieces = texts("pieces 24 in 2 1 of ip4 10.0.0.6 > 198.51.100.1 id 9 / udp 53 > 5 / bytes 30");
        assert_eq!(pieces.len(), 2);
        assert!(pieces[0].starts_with(&from(6)) && pieces[0].contains("off 24"), "{pieces:?}");
        let sctp = texts("sctp 198.51.100.1:1 > 192.0.2.10:2 cookie-echo payload data 3");
        assert!(
            sctp[0].contains("/ sctp 1 > 2 /") && sctp[0].contains("0a00000c0102030405060708"),
            "{sctp:?}"
        );
    }

    #[test]
    fn marks_and_settings_are_read() {
        let step = Step::read("mark tcp 192.0.2.10:80 [2001:db8::10]:0 7").expect("mark");
        let Step::Mark(mark) = step else { panic!("{step:?}") };
        assert_eq!((mark.is_added, mark.destinations.len(), mark.mark), (true, 2, 7));
        let step = Step::read("set sync_threshold 3 50").expect("set");
        assert!(
            matches!(&step, Step::Set(name, value) if name == "sync_threshold" && value == "3 50"),
            "{step:?}"
        );
        assert!(matches!(Step::read("ip route add 10.0.0.9/32 dev d0"), Ok(Step::Ip(_))));
        for (line, error) in [
            ("mark tcp 7", StepError::Mark),
            ("set x", StepError::Set),
            ("mtu 100", StepError::Mtu),
            ("from x ip4 10.0.0.1 > 10.0.0.2", StepError::From),
            ("pieces 7 of ip4 10.0.0.1 > 10.0.0.2 / udp 1 > 2", StepError::Pieces),
        ] {
            assert_eq!(Step::read(line).expect_err(line), error);
        }
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
