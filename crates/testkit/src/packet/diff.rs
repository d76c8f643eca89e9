//! What differs between two packets, for the person who reads the failed test.

use super::read::read;
use super::{Layer, Packet};

/// The name of the field that byte `offset` of the packet belongs to, such as `ip4.ttl`.
#[must_use]
pub fn field_at(packet: &Packet, offset: usize) -> String {
    let mut start = 0;
    for layer in &packet.layers {
        let size = match layer {
            Layer::Header(header) => header.size(),
            Layer::Payload(bytes) => bytes.len(),
        };
        if offset >= start + size {
            start += size;
            continue;
        }
        let Layer::Header(header) = layer else { return format!("payload byte {}", offset - start) };
        let bit = (offset - start) * 8;
        let names: Vec<&str> = header
            .kind
            .fields
            .iter()
            .filter(|field| field.bit < bit + 8 && bit < field.bit + field.width)
            .map(|field| field.name)
            .collect();
        let names = if names.is_empty() { "opts".to_owned() } else { names.join("+") };
        return format!("{}.{names}", header.kind.word);
    }
    format!("trailer byte {}", offset.saturating_sub(start))
}

/// `None` when the packets are the same; else both in the packet language and the first byte that
/// differs with the name of its field.
#[must_use]
pub fn difference(expected: &[u8], seen: &[u8]) -> Option<String> {
    if expected == seen {
        return None;
    }
    let first = expected.iter().zip(seen).position(|(a, b)| a != b);
    let longer = if expected.len() >= seen.len() { expected } else { seen };
    let offset = first.unwrap_or(expected.len().min(seen.len()));
    let place = field_at(&read(longer), offset);
    let byte = |bytes: &[u8]| bytes.get(offset).map_or("none".to_owned(), |byte| format!("{byte:#04x}"));
    Some(format!(
        "expected: {}\n    seen: {}\n   first difference at byte {offset} ({place}): expected {}, seen {}\n   \
         lengths: expected {}, seen {}",
        read(expected),
        read(seen),
        byte(expected),
        byte(seen),
        expected.len(),
        seen.len()
    ))
}
