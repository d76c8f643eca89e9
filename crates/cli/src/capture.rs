//! `sluice capture`: packets with what became of them, into a file or as lines.

use crate::show::{ShowError, write_on};
use api::{CaptureRequest, SNAPLEN_MAX};
use ipnet::IpNet;
use pcap_file::PcapError;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgParser};
use runtime::control::Client;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What every file begins with: the type of its first block.
const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Longest block of the file; nothing that the director writes is longer.
const BLOCK_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sluice capture --count 20          # 20 packets as lines
  sluice capture -w out.pcapng --client 198.51.100.0/24 --seconds 10
  sluice capture -w - --verdict drop_unresolved | wireshark -k -i -
  sluice capture -w all.pcapng --sample 1/1000 --seconds 60

Each packet's comment in the file says its verdict, its real server and where it leaves. While packets are captured each one costs more;
otherwise nothing. One client can capture at a time.")]
pub(crate) struct CaptureArgs {
    /// Write a file in the pcapng format; - is standard output. Without, each packet is one line.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// End after so many packets.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=4_294_967_295))]
    seconds: Option<u64>,
    /// Only one of N packets that match.
    #[arg(long, value_name = "1/N", value_parser = sample, default_value = "1/1")]
    sample: u32,
    /// Most packets a second on one CPU; others are counted as dropped.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    per_second: u32,
    /// Only packets with an end in this network, as they come or as they leave.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    client: Option<IpNet>,
    /// Only packets with this end.
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<IpAddr>,
    /// Only packets of this verdict, as `sluice verdicts` names it; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = verdict)]
    verdict: Vec<String>,
    /// Most bytes of a frame.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=i64::from(SNAPLEN_MAX)))]
    snaplen: u32,
    /// Frames as they came, instead of as they leave.
    #[arg(long)]
    as_it_came: bool,
    /// End the capture that runs, whoever began it.
    #[arg(long, conflicts_with_all = ["write", "count", "seconds", "client", "vip", "verdict", "as_it_came"])]
    end: bool,
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    socket: PathBuf,
}

fn sample(text: &str) -> Result<u32, &'static str> {
    let of = text.strip_prefix("1/").and_then(|of| of.parse().ok()).filter(|of| *of > 0);
    of.ok_or("give a part such as 1/1000")
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| text.parse::<IpNet>());
    network.map_err(
        |_| "give a network or an address, such as 198.51.100.0/24; a capture does not look at ports",
    )
}

fn verdict(text: &str) -> Result<String, String> {
    let known = abi::Verdict::ALL.iter().any(|verdict| verdict.name() == text);
    if known {
        Ok(text.to_owned())
    } else {
        Err(format!("there is no verdict `{text}': `sluice verdicts' lists them"))
    }
}

/// `sluice capture`.
pub(crate) fn run(args: &CaptureArgs) -> Result<(), ShowError> {
    let client = Client::new(&args.socket);
    if args.end {
        let ended: bool = client.post("/v1/capture/end", &()).map_err(ShowError::asking)?;
        let text = if ended { "ended\n" } else { "nobody captures packets\n" };
        return crate::show::write_out(text).map_err(ShowError::Print);
    }
    let request = CaptureRequest {
        client: args.client,
        vip: args.vip,
        verdicts: args.verdict.clone(),
        count: args.count,
        seconds: args.seconds,
        one_of: args.sample,
        per_second_max: args.per_second,
        snaplen: args.snaplen,
        as_it_came: args.as_it_came,
    };
    let mut target = args.write.as_deref().map(Target::open).transpose()?;
    let mut reading = Reading::default();
    let took = client.follow("/v1/capture", &request, "/v1/capture/end", |piece| {
        let lines = reading.take(piece, args.write.is_none())?;
        match &mut target {
            None => write_on(&lines),
            Some(target) => target.write(piece),
        }
    });
    if let (Err(_), Some(target)) = (&took, target) {
        target.give_up();
    }
    took.map_err(ShowError::asking)?;
    if reading.parser.is_none() {
        let text = "the director's answer to /v1/capture is no capture (another version?)";
        return Err(ShowError::Words(text.to_owned()));
    }
    runtime::tell(reading.summary());
    match reading.failed {
        Some(text) => Err(ShowError::Words(format!("nothing was captured: {text}"))),
        None => Ok(()),
    }
}

/// Where the file goes. It is opened before a capture begins, but emptied with the first bytes only, so that a capture that is refused
/// leaves the file that was there.
enum Target {
    Output(io::Stdout),
    File { file: File, path: PathBuf, is_new: bool, begun: bool },
}

impl Target {
    fn open(path: &Path) -> Result<Self, ShowError> {
        if path.as_os_str() == "-" {
            return Ok(Self::Output(io::stdout()));
        }
        let is_new = !path.exists();
        let opened = File::options().write(true).create(true).truncate(false).open(path);
        match opened {
            Ok(file) => Ok(Self::File { file, path: path.to_owned(), is_new, begun: false }),
            Err(error) => Err(ShowError::Words(format!("cannot write {}: {error}", path.display()))),
        }
    }

    /// `false` when the reader has gone.
    fn write(&mut self, piece: &[u8]) -> io::Result<bool> {
        let done = match self {
            Self::Output(out) => out.write_all(piece).and_then(|()| out.flush()),
            Self::File { file, begun, .. } => {
                // Pipes and devices cannot be emptied.
                if !std::mem::replace(begun, true) && file.metadata()?.is_file() {
                    file.set_len(0)?;
                }
                file.write_all(piece)
            }
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// After a refusal.
    fn give_up(self) {
        if let Self::File { path, is_new: true, begun: false, .. } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What is read of the file as it comes.
#[derive(Default)]
struct Reading {
    parser: Option<PcapNgParser>,
    waiting: Vec<u8>,
    packets: u64,
    matched: Option<u64>,
    limited: u64,
    lost: u64,
    /// Why it never began.
    failed: Option<String>,
}

impl Reading {
    /// Reads on. Gives a line for each packet, if those are wanted.
    fn take(&mut self, piece: &[u8], wants_lines: bool) -> io::Result<String> {
        self.waiting.extend_from_slice(piece);
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = waiting.as_slice();
        let mut lines = String::new();
        while !rest.is_empty() {
            let Some(parser) = &mut self.parser else {
                if rest.len() >= MAGIC.len() && !rest.starts_with(&MAGIC) {
                    return Err(no_capture("it begins otherwise"));
                }
                match PcapNgParser::new(rest) {
                    Ok((behind, parser)) => (rest, self.parser) = (behind, Some(parser)),
                    Err(PcapError::IncompleteBuffer) => break,
                    Err(error) => return Err(no_capture(error)),
                }
                continue;
            };
            let (behind, block) = match parser.next_block(rest) {
                Ok(read) => read,
                Err(PcapError::IncompleteBuffer) => break,
                Err(error) => return Err(no_capture(error)),
            };
            rest = behind;
            match block {
                Block::EnhancedPacket(packet) => {
                    self.packets += 1;
                    if wants_lines {
                        lines += &line(&packet);
                    }
                }
                Block::InterfaceStatistics(statistics) => self.count(&statistics.options),
                _ => {}
            }
        }
        if rest.len() > BLOCK_BYTES_MAX {
            return Err(io::Error::other("a block of the file is too long"));
        }
        self.waiting = rest.to_vec();
        Ok(lines)
    }

    fn count(&mut self, options: &[InterfaceStatisticsOption<'_>]) {
        for option in options {
            match option {
                InterfaceStatisticsOption::IsbIfRecv(packets) => self.matched = Some(*packets),
                InterfaceStatisticsOption::IsbIfDrop(packets) => self.limited = *packets,
                InterfaceStatisticsOption::IsbOsDrop(packets) => self.lost = *packets,
                InterfaceStatisticsOption::Comment(text) => self.failed = Some(text.to_string()),
                _ => {}
            }
        }
    }

    fn summary(&self) -> String {
        let packets = self.packets;
        let Some(matched) = self.matched else {
            return format!("{packets} packets captured; the end of the capture was not seen");
        };
        format!(
            "{packets} packets captured, {matched} matched, {} dropped by the limit (--per-second), {} lost for want of room",
            self.limited, self.lost
        )
    }
}

fn no_capture(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("it is no capture (another version?): {error}"))
}

/// Time, length and comment.
fn line(packet: &EnhancedPacketBlock<'_>) -> String {
    let comment = packet.options.iter().find_map(|option| match option {
        EnhancedPacketOption::Comment(comment) => Some(comment.as_ref()),
        _ => None,
    });
    let time = humantime::format_rfc3339_micros(UNIX_EPOCH + packet.timestamp);
    let ends = ends(&packet.data).map(|ends| format!(" {ends}")).unwrap_or_default();
    format!("{time}{ends} {} bytes: {}\n", packet.original_len, comment.unwrap_or("?"))
}

/// Source and destination of a frame, as far as they are to be seen.
fn ends(frame: &[u8]) -> Option<String> {
    let packet = etherparse::LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        etherparse::LaxNetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::LaxNetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::LaxNetSlice::Arp(_) => return None,
    };
    let (protocol, ports) = match packet.transport {
        Some(etherparse::TransportSlice::Tcp(it)) => ("TCP", Some((it.source_port(), it.destination_port()))),
        Some(etherparse::TransportSlice::Udp(it)) => ("UDP", Some((it.source_port(), it.destination_port()))),
        Some(etherparse::TransportSlice::Icmpv4(_) | etherparse::TransportSlice::Icmpv6(_)) => ("ICMP", None),
        Some(_) | None => ("IP", None),
    };
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let (from, to) = (ports.map(|it| it.0), ports.map(|it| it.1));
    Some(format!("{protocol} {} > {}", end(source, from), end(destination, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_capture_is_said_to_be_none() {
        let error = Reading::default().take(b"<html>", true).expect_err("no pcapng");
        assert_eq!(error.to_string(), "it is no capture (another version?): it begins otherwise");
        // A piece may end anywhere.
        assert_eq!(Reading::default().take(&MAGIC[..3], true).expect("the beginning"), "");
    }
}
