//! Packet -> bytes. From the last layer to the first, because a header counts and sums what follows it.

use super::kind::{Auto, Field, Kind};
use super::{Header, Layer, Packet, checksum};

/// Ethernet type for something that is no known header (local experimental, IEEE 802).
const UNKNOWN_TYPE: u16 = 0x88b5;
/// IP protocol for something that is no known header (RFC 3692 experiment).
const UNKNOWN_PROTOCOL: u8 = 253;

pub(super) fn build(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, layer) in packet.layers.iter().enumerate().rev() {
        let mut whole = match layer {
            Layer::Payload(payload) => payload.clone(),
            Layer::Header(header) => {
                let next = packet.layers.get(index + 1).and_then(kind_of);
                build_header(header, next, enclosing_ip(&packet.layers[..index]), &bytes)
            }
        };
        whole.extend_from_slice(&bytes);
        bytes = whole;
    }
    bytes.extend_from_slice(&packet.trailer);
    bytes.truncate(packet.truncate.unwrap_or(usize::MAX));
    bytes
}

fn kind_of(layer: &Layer) -> Option<&'static Kind> {
    match layer {
        Layer::Header(header) => Some(header.kind),
        Layer::Payload(_) => None,
    }
}

fn enclosing_ip(before: &[Layer]) -> Option<&Header> {
    before.iter().rev().find_map(|layer| match layer {
        Layer::Header(header) if matches!(header.kind.word, "ip4" | "ip6") => Some(header),
        Layer::Header(_) | Layer::Payload(_) => None,
    })
}

fn build_header(header: &Header, next: Option<&Kind>, ip: Option<&Header>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; header.kind.fixed];
    bytes.extend_from_slice(&header.options);
    let is_sum = |field: &&Field| {
        matches!(field.auto, Auto::HeaderChecksum | Auto::WholeChecksum | Auto::PseudoChecksum | Auto::Crc32c)
    };
    // Sums last: they cover the other fields.
    for field in header.kind.fields.iter().filter(|field| !is_sum(field)) {
        let value = header.fields.get(field.name).copied();
        put(&mut bytes, field, value.unwrap_or_else(|| plain_value(field, header, next, payload.len())));
    }
    for field in header.kind.fields.iter().filter(is_sum) {
        let value = header.fields.get(field.name).copied();
        let value = value.unwrap_or_else(|| sum_value(field, header.kind, ip, &bytes, payload));
        put(&mut bytes, field, value);
    }
    bytes
}

fn plain_value(field: &Field, header: &Header, next: Option<&Kind>, payload: usize) -> u128 {
    let value = match field.auto {
        Auto::Const(value) => return value,
        Auto::NextType => usize::from(next.and_then(|kind| kind.ethertype).unwrap_or(UNKNOWN_TYPE)),
        Auto::NextProto => usize::from(next.and_then(|kind| kind.protocol).unwrap_or(UNKNOWN_PROTOCOL)),
        Auto::HeaderWords => header.size() / 4,
        Auto::OptionWords => header.options.len() / 4,
        Auto::ExtensionWords => (header.size() / 8).saturating_sub(1),
        Auto::TotalLength => header.size() + payload,
        Auto::PayloadLength => payload,
        Auto::HeaderChecksum | Auto::WholeChecksum | Auto::PseudoChecksum | Auto::Crc32c => 0,
    };
    value as u128
}

fn sum_value(field: &Field, kind: &Kind, ip: Option<&Header>, header: &[u8], payload: &[u8]) -> u128 {
    match field.auto {
        Auto::HeaderChecksum => u128::from(checksum::internet(&[header])),
        Auto::WholeChecksum => u128::from(checksum::internet(&[header, payload])),
        Auto::PseudoChecksum => {
            let length = header.len() + payload.len();
            let pseudo = ip.map(|ip| pseudo_header(ip, kind, length)).unwrap_or_default();
            let sum = checksum::internet(&[&pseudo, header, payload]);
            // RFC 768: a computed zero is sent as all ones, because zero means "none".
            u128::from(if sum == 0 && kind.word == "udp" { 0xffff } else { sum })
        }
        Auto::Crc32c => u128::from(checksum::crc32c(&[header, payload]).swap_bytes()),
        _ => 0,
    }
}

/// The pseudo-header of RFC 9293 (IPv4) or RFC 8200 section 8.1 (IPv6).
fn pseudo_header(ip: &Header, kind: &Kind, length: usize) -> Vec<u8> {
    let address = |name: &str| ip.fields.get(name).copied().unwrap_or(0);
    let mut bytes = Vec::new();
    let protocol = kind.protocol.unwrap_or(UNKNOWN_PROTOCOL);
    if ip.kind.word == "ip4" {
        bytes.extend_from_slice(&(address("src") as u32).to_be_bytes());
        bytes.extend_from_slice(&(address("dst") as u32).to_be_bytes());
        bytes.extend_from_slice(&[0, protocol]);
        bytes.extend_from_slice(&(length as u16).to_be_bytes());
    } else {
        bytes.extend_from_slice(&address("src").to_be_bytes());
        bytes.extend_from_slice(&address("dst").to_be_bytes());
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, protocol]);
    }
    bytes
}

/// Writes the low `width` bits of `value`, bit by bit: slow, and clear.
fn put(bytes: &mut [u8], field: &Field, value: u128) {
    for position in 0..field.width {
        let bit = field.bit + position;
        let set = value >> (field.width - 1 - position) & 1 == 1;
        let mask = 0x80 >> (bit % 8);
        if set {
            bytes[bit / 8] |= mask;
        } else {
            bytes[bit / 8] &= !mask;
        }
    }
}

/// The value of a field in `bytes`, which hold the whole fixed header.
pub(super) fn get(bytes: &[u8], field: &Field) -> u128 {
    let mut value = 0;
    for bit in field.bit..field.bit + field.width {
        value = value << 1 | u128::from(bytes[bit / 8] >> (7 - bit % 8) & 1);
    }
    value
}
