//! What came out, in words: which server, and what else changed on the way.

use crate::mac::{self, DIRECTOR_MAC};
use crate::pieces::{Joined, join};
use testkit::Packet;
use testkit::packet::read;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of the transport header that every ICMP error quotes.
const QUOTED: usize = 8;

/// Lowest source port of a tunnel over UDP that counts as made of the flow inside.
const FLOW_PORT_MIN: u16 = 32_768;

/// What is said of a frame that lost the bytes after the end of its IP packet, and nothing else.
pub(crate) const PADDING_GONE: &str = " without padding";

/// Describes the frames that one sent packet led to.
pub(crate) fn describe(sent: &Packet, frames: &[Vec<u8>]) -> String {
    if frames.is_empty() {
        return "nothing".to_owned();
    }
    frames.iter().map(|frame| describe_one(sent, frame)).collect::<Vec<_>>().join(" + ")
}

/// Describes what the fragments of a datagram led to, as those see it who get it: the datagram, put together again, and the
/// fragments that cannot be.
pub(crate) fn describe_all(sent: &[Packet], frames: &[Vec<u8>]) -> Vec<String> {
    let Some(first) = sent.first() else { return Vec::new() };
    let Joined { whole, parts } = join(frames);
    // That a datagram leaves as it came is told in full: it was not sent in one piece.
    let told = |frame: &Vec<u8>| place(frame) + &changed(first, frame);
    let mut texts: Vec<String> = whole.iter().map(told).collect();
    texts.extend(parts.iter().map(|frame| format!("in part: {}", told(frame))));
    texts.sort();
    if texts.is_empty() { vec!["nothing".to_owned()] } else { texts }
}

/// Who a frame is for.
fn place(frame: &[u8]) -> String {
    mac::server(frame).map_or_else(|| "client: ".to_owned(), |server| format!("server {server}, changed: "))
}

fn describe_one(sent: &Packet, frame: &[u8]) -> String {
    if let Some(server) = mac::server(frame) {
        if forwarded(sent, server).is_some_and(|expected| expected == frame) {
            return format!("server {server}");
        }
        if forwarded(&without_padding(sent), server).is_some_and(|expected| expected == frame) {
            return format!("server {server}{PADDING_GONE}");
        }
    }
    place(frame) + &changed(sent, frame)
}

/// A frame in the packet language, without what its sender chooses freely.
fn changed(sent: &Packet, frame: &[u8]) -> String {
    let sent_bytes = sent.to_bytes();
    // An error that was sent leaves translated, in full; one that was made tells by its meaning alone. About a packet of
    // the director's own, in a tunnel, one is made too.
    if (!is_icmp_error(&sent_bytes) || is_to_director(&sent_bytes))
        && let Some(text) = meaning(frame)
    {
        return text;
    }
    let text = read(frame).to_string();
    let is_answer = sent_bytes.get(6..12) == frame.get(..6);
    if is_answer {
        without_identification(&text)
    } else if is_from_director(&text) {
        without_flow_port(&without_identification(&text))
    } else {
        text
    }
}

/// Whether the IP header, of a tunnel then, has an address of the director itself as source.
fn is_from_director(text: &str) -> bool {
    let ip = text.split(" / ").nth(1).unwrap_or_default();
    ["ip4 10.0.0.254 > ", "ip6 fd00::fe > "].iter().any(|start| ip.starts_with(start))
}

/// Whether a frame is for an address of the director itself, which is no VIP.
fn is_to_director(frame: &[u8]) -> bool {
    let text = read(frame).to_string();
    let ip = text.split(" / ").nth(1).unwrap_or_default();
    [" > 10.0.0.254", " > fd00::fe"]
        .iter()
        .any(|end| ip.split_once(end).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(' ')))
}

/// The text of a tunnel's packet without the UDP source port, which the sender makes of the flow inside.
fn without_flow_port(text: &str) -> String {
    let mut layers: Vec<String> = text.split(" / ").map(str::to_owned).collect();
    if let Some(layer) = layers.get_mut(2)
        && let Some((port, rest)) = layer.strip_prefix("udp ").and_then(|rest| rest.split_once(' '))
        && port.parse::<u16>().is_ok_and(|port| port >= FLOW_PORT_MIN)
    {
        *layer = format!("udp flow {rest}");
    }
    layers.join(" / ")
}

fn without_padding(sent: &Packet) -> Packet {
    let text = sent.to_string();
    let kept =
        text.split(" / ").filter(|layer| !layer.starts_with("trailer ")).collect::<Vec<_>>().join(" / ");
    kept.parse().unwrap_or_else(|_| sent.clone())
}

/// The text of a packet of the director's own stack without its IPv4 identification, which is random.
fn without_identification(text: &str) -> String {
    let is_ip = |layer: &&str| layer.starts_with("ip4 ");
    let Some(ip) = text.split(" / ").find(is_ip) else { return text.to_owned() };
    let mut words = ip.split(' ');
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "id" => drop(words.next()),
            _ => kept.push(word),
        }
    }
    text.replacen(ip, &kept.join(" "), 1)
}

/// The frame by direct routing: other MAC addresses, a hop less, the checksum that belongs to it; all else as sent.
fn forwarded(sent: &Packet, server: u8) -> Option<Vec<u8>> {
    let bytes = sent.to_bytes();
    let (name, hops) = match bytes.get(12..ETHERNET)? {
        [0x08, 0x00] => ("ttl", bytes.get(ETHERNET + 8)?),
        [0x86, 0xdd] => ("hoplimit", bytes.get(ETHERNET + 7)?),
        _ => return None,
    };
    let changes = format!("eth {DIRECTOR_MAC} > {}; {name} {}", mac::of_server(server), hops.checked_sub(1)?);
    Some(sent.changed(&changes).ok()?.to_bytes())
}

/// Whether the frame is IPv4, the size of its IP header, and its protocol.
fn ip_header(frame: &[u8]) -> Option<(bool, usize, u8)> {
    let ip = frame.get(ETHERNET..)?;
    match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => Some((true, usize::from(ip.first()? & 15) * 4, *ip.get(9)?)),
        [0x86, 0xdd] => Some((false, 40, *ip.get(6)?)),
        _ => None,
    }
}

fn is_icmp_error(frame: &[u8]) -> bool {
    let Some((is_v4, size, protocol)) = ip_header(frame) else { return false };
    let Some(&kind) = frame.get(ETHERNET + size) else { return false };
    if is_v4 { protocol == 1 && matches!(kind, 3 | 4 | 5 | 11 | 12) } else { protocol == 58 && kind < 128 }
}

/// An ICMP error by its meaning: addresses, type, code, the rest of its header, and what it quotes of the packet
/// up to the ports. How much more it quotes, whether before or after its own decrement of the hop count, and how the
/// error's own IP header looks, is the sender's choice.
fn meaning(frame: &[u8]) -> Option<String> {
    if !is_icmp_error(frame) {
        return None;
    }
    let (is_v4, size, _) = ip_header(frame)?;
    let ip = frame.get(ETHERNET..)?;
    let icmp = ip.get(size..)?;
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    let (word, quoted_ip) = if is_v4 { ("icmp", "0800") } else { ("icmp6", "86dd") };
    let packet = read(frame);
    let wrong: Vec<&str> = [("ip4", "csum"), (word, "csum")]
        .into_iter()
        .filter(|(layer, name)| packet.states(layer, name))
        .map(|(layer, _)| layer)
        .collect();
    let quote = icmp.get(8..)?;
    let inner = if is_v4 { usize::from(quote.first()? & 15) * 4 } else { 40 };
    let mut inside = vec![0; 12];
    inside.extend(if quoted_ip == "0800" { [0x08, 0x00] } else { [0x86, 0xdd] });
    inside.extend(quote.get(..inner + QUOTED).unwrap_or(quote));
    level_hop_count(is_v4, inside.get_mut(ETHERNET..)?);
    let inside = read(&inside).to_string();
    let inside = inside.split_once(" / ").map_or(inside.as_str(), |(_, rest)| rest).to_owned();
    let (from, to) =
        if is_v4 { (ip.get(12..16)?, ip.get(16..20)?) } else { (ip.get(8..24)?, ip.get(24..40)?) };
    let rest = icmp.get(4..8)?.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let wrong =
        if wrong.is_empty() { String::new() } else { format!(" WRONG CHECKSUM of {}", wrong.join(" and ")) };
    Some(format!(
        "{word} {kind} {code} rest {rest} {} > {}{wrong} quotes {inside}",
        address(from),
        address(to)
    ))
}

/// Sets the hop count of a quoted packet to 64, and its checksum as right or wrong as it was (RFC 1624).
fn level_hop_count(is_v4: bool, packet: &mut [u8]) {
    const LEVEL: u8 = 64;
    if !is_v4 {
        if let Some(limit) = packet.get_mut(7) {
            *limit = LEVEL;
        }
        return;
    }
    let Some([ttl, protocol, high, low]) = packet.get_mut(8..12) else { return };
    let (old, new) = (u16::from_be_bytes([*ttl, *protocol]), u16::from_be_bytes([LEVEL, *protocol]));
    let sum = u32::from(!u16::from_be_bytes([*high, *low])) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or_default();
    [*high, *low] = (!folded).to_be_bytes();
    *ttl = LEVEL;
}

fn address(bytes: &[u8]) -> String {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => std::net::Ipv4Addr::from(v4).to_string(),
        (_, Ok(v6)) => std::net::Ipv6Addr::from(v6).to_string(),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::packet;

    const SENT: &str =
        "eth 02:00:00:00:00:0c > 02:00:00:00:00:0d / ip4 198.51.100.1 > 192.0.2.10 / tcp 5 > 80 syn";

    fn sent() -> Packet {
        SENT.parse().expect("packet")
    }

    #[test]
    fn a_server_is_told_by_its_mac_and_changes_are_told() {
        let good = packet(
            &SENT
                .replace(
                    "eth 02:00:00:00:00:0c > 02:00:00:00:00:0d",
                    "eth 02:00:00:00:00:0d > 02:00:00:00:01:03",
                )
                .replace(" / tcp", " ttl 63 / tcp"),
        );
        assert_eq!(describe(&sent(), std::slice::from_ref(&good)), "server 3");
        let mut bad = good;
        bad[14 + 8] = 62;
        let text = describe(&sent(), &[bad]);
        assert!(text.starts_with("server 3, changed: eth") && text.contains("ttl 62"), "{text}");
        assert_eq!(describe(&sent(), &[]), "nothing");
        let padded: Packet = format!("{SENT} / trailer 0000").parse().expect("packet");
        let cut = forwarded(&sent(), 3).expect("frame");
        assert_eq!(describe(&padded, &[cut]), "server 3 without padding");
    }

    #[test]
    fn the_identification_of_the_stack_is_left_out() {
        let text = "eth a > b / ip4 1.1.1.1 > 2.2.2.2 id 77 df / icmp 0 0 id 5";
        assert_eq!(without_identification(text), "eth a > b / ip4 1.1.1.1 > 2.2.2.2 df / icmp 0 0 id 5");
    }

    #[test]
    fn a_tunnel_is_told_without_what_its_sender_chooses() {
        let text = |port: u16, id: u16| {
            let text = format!(
                "eth {DIRECTOR_MAC} > 02:00:00:00:01:03 / ip4 10.0.0.254 > 10.0.0.3 id {id} ttl 63 / \
                 udp {port} > 6080 / gue / ip4 198.51.100.1 > 192.0.2.10 ttl 63 id 8 / tcp 5 > 80 syn"
            );
            describe(&sent(), &[packet(&text)])
        };
        assert_eq!(text(40_000, 1), text(50_000, 2));
        assert_ne!(text(40_000, 1), text(3000, 1));
        assert!(
            text(40_000, 1).contains("udp flow > 6080 / gue / ip4 198.51.100.1 > 192.0.2.10 id 8 ttl 63")
        );
    }

    #[test]
    fn a_translated_error_is_told_in_full() {
        let error = |ends: &str, inner: &str| {
            format!("{ends} / icmp 3 1 / ip4 {inner} id 3 / tcp 5 > 80 seq 9 syn / bytes 3")
        };
        let sent = error(
            "eth 02:00:00:00:01:01 > 02:00:00:00:00:0d / ip4 10.0.0.1 > 198.51.100.1 id 4",
            "198.51.100.1 > 10.0.0.1",
        );
        let left = error(
            "eth 02:00:00:00:00:0d > 02:00:00:00:00:0c / ip4 192.0.2.10 > 198.51.100.1 id 4",
            "198.51.100.1 > 192.0.2.10",
        );
        let text = describe(&sent.parse().expect("packet"), &[packet(&left)]);
        assert_eq!(text, format!("client: {left}"));
    }

    #[test]
    fn an_error_made_of_one_about_a_tunnels_packet_is_told_by_its_meaning() {
        let sent = "eth 02:00:00:00:00:0c > 02:00:00:00:00:0d / ip4 10.0.0.99 > 10.0.0.254 / icmp 3 1 / \
                    ip4 10.0.0.254 > 10.0.0.1 / ip4 198.51.100.1 > 192.0.2.10 / tcp 5 > 80 seq 9 ack / bytes 90";
        let made = |header: &str, more: &str| {
            let text = format!(
                "eth 02:00:00:00:00:0d > 02:00:00:00:00:0c / ip4 192.0.2.10 > 198.51.100.1 {header} / icmp 3 1 / \
                 ip4 198.51.100.1 > 192.0.2.10 len 130 proto 6 / hex 0005005000000009{more}"
            );
            describe(&sent.parse().expect("packet"), &[packet(&text)])
        };
        assert_eq!(made("df", ""), made("tos 0xc0", "00000000"));
        assert!(made("", "").starts_with("client: icmp 3 1 rest 00000000 "), "{}", made("", ""));
    }

    #[test]
    fn an_icmp_error_is_told_by_its_meaning() {
        let text = |header: &str, more: &str| {
            let text = format!(
                "eth 02:00:00:00:00:0d > 02:00:00:00:00:0c / ip4 192.0.2.10 > 198.51.100.1 {header} / icmp 3 3 / \
                 ip4 198.51.100.1 > 192.0.2.10 len 40 proto 6 / hex 0005005000000000{more}"
            );
            describe(&sent(), &[packet(&text)])
        };
        assert_eq!(text("", ""), text("tos 0xc0 id 7", "0000"));
        assert!(
            text("", "").starts_with("client: icmp 3 3 rest 00000000 192.0.2.10 > 198.51.100.1 quotes ip4 "),
            "{}",
            text("", "")
        );
        let broken =
            "eth 02:00:00:00:00:0d > 02:00:00:00:00:0c / ip4 1.1.1.1 > 1.1.1.2 / icmp 3 3 csum 1 / bytes 28";
        assert!(describe(&sent(), &[packet(broken)]).contains("WRONG CHECKSUM of icmp"));
    }
}
