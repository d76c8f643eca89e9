//! A packet in fragments: `pieces 48 in 2 1 3 of ip4 198.51.100.1 > 192.0.2.10 id 7 / udp 1 > 53 / bytes 100`.

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// Protocol number of the IPv6 fragment header.
const FRAGMENT_HEADER: u8 = 44;
/// "More fragments" in the second half of an IPv4 header's third word.
const IPV4_MORE: u16 = 0x2000;
/// Identification of IPv6 fragments.
const IPV6_ID: u32 = 0x1234_5678;

/// Cuts what follows the IP header into fragments of `size` bytes, a multiple of eight. `None` when the frame holds
/// no IP packet or needs more than 8,191 units of eight bytes.
pub(crate) fn cut(frame: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    if size == 0 || !size.is_multiple_of(8) {
        return None;
    }
    match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => cut_v4(frame, size),
        [0x86, 0xdd] => cut_v6(frame, size),
        _ => None,
    }
}

fn cut_v4(frame: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    let header = usize::from(frame.get(ETHERNET)? & 15) * 4;
    let (head, payload) = frame.split_at_checked(ETHERNET + header)?;
    let mut pieces = Vec::new();
    for (number, part) in payload.chunks(size).enumerate() {
        let mut piece = [head, part].concat();
        let is_last = (number + 1) * size >= payload.len();
        let kept = u16::from_be_bytes([*head.get(20)?, *head.get(21)?]) & 0xc000;
        let units = u16::try_from(number * size / 8).ok().filter(|units| *units < IPV4_MORE)?;
        let more = if is_last { 0 } else { IPV4_MORE };
        piece[16..18].copy_from_slice(&u16::try_from(header + part.len()).ok()?.to_be_bytes());
        piece[20..22].copy_from_slice(&(kept | more | units).to_be_bytes());
        piece[24..26].fill(0);
        let sum = testkit::packet::checksum::internet(&[piece.get(ETHERNET..ETHERNET + header)?]);
        piece[24..26].copy_from_slice(&sum.to_be_bytes());
        pieces.push(piece);
    }
    Some(pieces)
}

/// The fragment header comes first behind the IPv6 header.
fn cut_v6(frame: &[u8], size: usize) -> Option<Vec<Vec<u8>>> {
    let (head, payload) = frame.split_at_checked(ETHERNET + IPV6)?;
    let next = *head.get(20)?;
    let mut pieces = Vec::new();
    for (number, part) in payload.chunks(size).enumerate() {
        let is_last = (number + 1) * size >= payload.len();
        let offset = u16::try_from(number * size).ok()? | u16::from(!is_last);
        let mut piece = head.to_vec();
        piece[20] = FRAGMENT_HEADER;
        piece[18..20].copy_from_slice(&u16::try_from(part.len() + 8).ok()?.to_be_bytes());
        piece.extend([next, 0]);
        piece.extend(offset.to_be_bytes());
        piece.extend(IPV6_ID.to_be_bytes());
        piece.extend(part);
        pieces.push(piece);
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::packet;
    use testkit::packet::read;

    #[test]
    fn pieces_are_fragments_of_the_packet() {
        let eth = "eth 02:00:00:00:00:01 > 02:00:00:00:00:02";
        let whole = packet(&format!("{eth} / ip4 10.0.0.1 > 10.0.0.2 id 7 / udp 1 > 53 / bytes 40"));
        let texts: Vec<String> =
            cut(&whole, 24).expect("pieces").iter().map(|piece| read(piece).to_string()).collect();
        assert_eq!(texts.len(), 2);
        assert!(
            texts[0].starts_with(&format!("{eth} / ip4 10.0.0.1 > 10.0.0.2 id 7 more / udp 1 > 53")),
            "{texts:?}"
        );
        assert!(
            texts[1].starts_with(&format!("{eth} / ip4 10.0.0.1 > 10.0.0.2 id 7 off 24 proto 17")),
            "{texts:?}"
        );
        let whole = packet(&format!("{eth} / ip6 ::1 > ::2 / udp 1 > 53 / bytes 16"));
        let pieces = cut(&whole, 8).expect("pieces");
        assert_eq!(pieces.len(), 3);
        let text = read(&pieces[2]).to_string();
        assert!(text.contains("/ frag next 17 off 16 id 305419896 /"), "{text}");
        assert_eq!(cut(&whole, 12), None);
    }
}
