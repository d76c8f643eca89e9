//! Bytes -> packet, for people: the shortest text that builds these very bytes.

use super::kind::{self, Fill, Kind};
use super::{Header, Layer, Packet, build};

/// Reads any bytes. Never fails: what is no known header is payload, and building the result gives
/// the same bytes again.
#[must_use]
pub fn read(bytes: &[u8]) -> Packet {
    let mut packet = Packet::default();
    let mut rest = bytes;
    let mut kind = kind::by_word("eth");
    let mut at_top = true;
    while let Some(current) = kind.filter(|kind| rest.len() >= kind.fixed) {
        let (header, complete) = read_header(current, rest);
        let body = &rest[header.size()..];
        rest = body;
        if at_top && matches!(current.word, "ip4" | "ip6") {
            at_top = false;
            rest = split_trailer(&header, body, &mut packet);
        }
        kind = if complete { next_kind(&header, rest) } else { None };
        packet.layers.push(Layer::Header(header));
    }
    if !rest.is_empty() {
        packet.layers.push(Layer::Payload(rest.to_vec()));
    }
    shorten(&mut packet, bytes);
    packet
}

/// The header at the start of `rest`, and whether its variable part is there as announced.
fn read_header(kind: &'static Kind, rest: &[u8]) -> (Header, bool) {
    let mut header = Header::new(kind);
    for field in kind.fields {
        header.fields.insert(field.name, build::get(rest, field));
    }
    let announced = match kind.fill {
        Fill::None => Some(0),
        Fill::Nop => {
            let words = header.fields.get("ihl").or(header.fields.get("doff")).copied().unwrap_or(0);
            (words as usize * 4).checked_sub(kind.fixed)
        }
        Fill::Words => Some(header.fields.get("hlen").copied().unwrap_or(0) as usize * 4),
        Fill::PadN | Fill::Zero => {
            Some((header.fields.get("len").copied().unwrap_or(0) as usize + 1) * 8 - kind.fixed)
        }
    };
    let options = announced.and_then(|size| rest.get(kind.fixed..kind.fixed + size));
    header.options = options.unwrap_or_default().to_vec();
    (header, options.is_some())
}

/// Moves what lies after the end of the IP packet into the trailer.
fn split_trailer<'a>(header: &Header, body: &'a [u8], packet: &mut Packet) -> &'a [u8] {
    let announced = header.fields.get("len").copied().unwrap_or(0) as usize;
    let size = if header.kind.word == "ip4" { announced.checked_sub(header.size()) } else { Some(announced) };
    match size.and_then(|size| body.split_at_checked(size)) {
        Some((inside, trailer)) => {
            packet.trailer = trailer.to_vec();
            inside
        }
        None => body,
    }
}

/// The kind of what follows a header, of which `rest` begins with.
fn next_kind(header: &Header, rest: &[u8]) -> Option<&'static Kind> {
    let field = |name: &str| header.fields.get(name).copied().unwrap_or(0);
    if field("off") != 0 && matches!(header.kind.word, "ip4" | "frag") {
        return None;
    }
    match header.kind.word {
        "eth" | "vlan" | "svlan" => kind::by_ethertype(field("type")),
        "ip4" | "gue" => by_protocol(field("proto"), rest),
        "ip6" | "hopopts" | "dstopts" | "routing" | "frag" => by_protocol(field("next"), rest),
        "gre" | "gresum" => kind::by_ethertype(field("type")),
        "udp" if field("dst") == kind::GUE_PORT => kind::by_word("gue"),
        "icmp" if matches!(field("type"), 3 | 4 | 5 | 11 | 12) => kind::by_word("ip4"),
        "icmp6" if field("type") < 128 => kind::by_word("ip6"),
        _ => None,
    }
}

fn by_protocol(protocol: u128, rest: &[u8]) -> Option<&'static Kind> {
    let kind = kind::by_protocol(protocol)?;
    let has_sum = kind.word == "gre" && rest.first().is_some_and(|flags| flags & 0x80 != 0);
    if has_sum { kind::by_word("gresum") } else { Some(kind) }
}

/// Drops every field that comes out the same when left to be computed.
fn shorten(packet: &mut Packet, bytes: &[u8]) {
    for layer in 0..packet.layers.len() {
        let Layer::Header(header) = &packet.layers[layer] else { continue };
        let kind = header.kind;
        // The addresses a header is introduced by are always said.
        let named = |name: &str| {
            kind.positional.contains(&name) || kind.pair.is_some_and(|(a, b)| name == a || name == b)
        };
        for field in kind.fields.iter().filter(|field| !named(field.name)) {
            let mut trial = packet.clone();
            if let Layer::Header(header) = &mut trial.layers[layer] {
                header.fields.remove(field.name);
            }
            if trial.to_bytes() == bytes {
                *packet = trial;
            }
        }
    }
}
