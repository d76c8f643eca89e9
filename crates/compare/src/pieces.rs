//! A packet in fragments: `pieces 48 in 2 1 3 of ip4 198.51.100.1 > 192.0.2.10 id 7 / udp 1 > 53 / bytes 100`. And back:
//! what a receiver makes of the fragments it gets.
//!
//! ```text
//! cut: frame -> fragments            join: fragments, in tunnels too -> datagrams that are whole, and what is left over
//! ```

use testkit::packet::checksum::internet;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// Protocol number of the IPv6 fragment header.
const FRAGMENT_HEADER: u8 = 44;
/// "More fragments" in the second half of an IPv4 header's third word.
const IPV4_MORE: u16 = 0x2000;
/// Protocol numbers of IPv4 and IPv6 in a tunnel.
const IN_TUNNEL: [u8; 2] = [4, 41];
/// Bytes of the IPv6 fragment header.
const FRAGMENT: usize = 8;
/// "More fragments" in the IPv6 fragment header.
const IPV6_MORE: u8 = 1;
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
        let sum = internet(&[piece.get(ETHERNET..ETHERNET + header)?]);
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

/// What a receiver makes of these frames.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Those that are no fragments, and the datagrams that all fragments of are there.
    pub(crate) whole: Vec<Vec<u8>>,
    /// Fragments of datagrams that nobody can put together.
    pub(crate) parts: Vec<Vec<u8>>,
}

/// Puts fragments together, in any order, some twice perhaps. Fragments belong together when all that is around them is
/// the same: MAC addresses, headers with their hop counts, a tunnel's outer header. One with a wrong IP checksum belongs to
/// nothing.
pub(crate) fn join(frames: &[Vec<u8>]) -> Joined {
    let mut joined = Joined::default();
    // Of one datagram each, never empty.
    let mut groups: Vec<Vec<Piece<'_>>> = Vec::new();
    for frame in frames {
        let Some(fragment) = Fragment::of(frame) else {
            joined.whole.push(frame.clone());
            continue;
        };
        let is_akin = |(_, first): &Piece<'_>| first.around == fragment.around;
        match groups.iter_mut().find(|pieces| pieces.first().is_some_and(is_akin)) {
            Some(pieces) => pieces.push((frame, fragment)),
            None => groups.push(vec![(frame, fragment)]),
        }
    }
    for mut pieces in groups {
        pieces.sort_by_key(|(_, fragment)| fragment.offset);
        match whole(&pieces) {
            Some(frame) => joined.whole.push(frame),
            None => joined.parts.extend(pieces.iter().map(|(frame, _)| (*frame).clone())),
        }
    }
    joined
}

/// A frame and the fragment in it.
type Piece<'a> = (&'a Vec<u8>, Fragment);

/// What is to be known of a frame that holds a fragment.
#[derive(Clone, Debug)]
struct Fragment {
    /// The headers up to the fragment's own, without lengths, checksums, place, and a tunnel's identification.
    around: Vec<u8>,
    /// Where the IP header of which this is a fragment begins: that of the packet inside, in a tunnel.
    ip: usize,
    /// Where its data begins.
    data: usize,
    /// Where the datagram's data begins in it, in bytes.
    offset: usize,
    is_last: bool,
}

impl Fragment {
    fn of(frame: &[u8]) -> Option<Self> {
        let mut around = frame.get(..ETHERNET)?.to_vec();
        let mut ip = ETHERNET;
        let (header, protocol) = headers(frame, ip)?;
        if IN_TUNNEL.contains(&protocol) && !is_fragment(frame, ip)? {
            around.extend(without_variables(frame.get(ip..ip + header)?, true)?);
            ip += header;
        }
        if !is_fragment(frame, ip)? {
            return None;
        }
        let (header, _) = headers(frame, ip)?;
        around.extend(without_variables(frame.get(ip..ip + header)?, false)?);
        let (data, place, is_last) = if frame.get(ip)? >> 4 == 4 {
            let place = u16::from_be_bytes([*frame.get(ip + 6)?, *frame.get(ip + 7)?]);
            (ip + header, (place & 0x1fff) * 8, place & IPV4_MORE == 0)
        } else {
            let fragment = frame.get(ip + header..ip + header + FRAGMENT)?;
            around.extend([fragment[0], fragment[1]]);
            around.extend(&fragment[4..]);
            let place = u16::from_be_bytes([fragment[2], fragment[3]]);
            (ip + header + FRAGMENT, place & 0xfff8, fragment[3] & IPV6_MORE == 0)
        };
        Some(Self { around, ip, data, offset: place.into(), is_last })
    }
}

/// Size of the IP header at a place, and the protocol it names. `None` for a wrong checksum.
fn headers(frame: &[u8], at: usize) -> Option<(usize, u8)> {
    let ip = frame.get(at..)?;
    match ip.first()? >> 4 {
        4 => {
            let size = usize::from(ip.first()? & 15) * 4;
            (internet(&[ip.get(..size)?]) == 0).then_some((size, *ip.get(9)?))
        }
        6 => Some((IPV6, *ip.get(6)?)),
        _ => None,
    }
}

fn is_fragment(frame: &[u8], at: usize) -> Option<bool> {
    let ip = frame.get(at..)?;
    if ip.first()? >> 4 == 6 {
        return Some(*ip.get(6)? == FRAGMENT_HEADER);
    }
    Some(u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & (IPV4_MORE | 0x1fff) != 0)
}

/// An IP header without what differs from one fragment to the next; that of a tunnel without its identification too.
fn without_variables(header: &[u8], is_outer: bool) -> Option<Vec<u8>> {
    let mut kept = header.to_vec();
    if header.first()? >> 4 == 6 {
        kept.get_mut(4..6)?.fill(0);
        return Some(kept);
    }
    kept.get_mut(2..4)?.fill(0);
    if is_outer {
        kept.get_mut(4..6)?.fill(0);
    } else {
        // "May not be fragmented" stays.
        *kept.get_mut(6)? &= 0xc0;
        *kept.get_mut(7)? = 0;
    }
    kept.get_mut(10..12)?.fill(0);
    Some(kept)
}

/// The frame that these fragments, in order of their places, are those of. `None` when there is a hole.
fn whole(pieces: &[Piece<'_>]) -> Option<Vec<u8>> {
    let (frame, first) = pieces.first()?;
    let mut data: Vec<u8> = Vec::new();
    let mut is_complete = false;
    for (frame, piece) in pieces {
        let bytes = frame.get(piece.data..)?;
        match data.len().checked_sub(piece.offset)? {
            0 => data.extend(bytes),
            // Again what was there before, and nothing else in its place.
            _ if data.get(piece.offset..piece.offset + bytes.len()) == Some(bytes) => {}
            _ => return None,
        }
        is_complete |= piece.is_last;
    }
    let (header, _) = headers(frame, first.ip)?;
    let mut whole = frame.get(..first.ip + header)?.to_vec();
    if whole.get(first.ip)? >> 4 == 4 {
        *whole.get_mut(first.ip + 6)? &= 0xc0;
        *whole.get_mut(first.ip + 7)? = 0;
    } else {
        *whole.get_mut(first.ip + 6)? = *frame.get(first.ip + header)?;
    }
    whole.extend(data);
    // The packet inside first, as its length is part of nothing outside.
    for at in [first.ip, ETHERNET] {
        set_length(&mut whole, at)?;
    }
    is_complete.then_some(whole)
}

/// Writes length and checksum of the IP header at a place, behind which all the rest belongs to it.
fn set_length(frame: &mut [u8], at: usize) -> Option<()> {
    let ip = frame.get_mut(at..)?;
    let length = u16::try_from(ip.len()).ok()?;
    if ip.first()? >> 4 == 6 {
        ip.get_mut(4..6)?.copy_from_slice(&length.checked_sub(40)?.to_be_bytes());
        return Some(());
    }
    let size = usize::from(ip.first()? & 15) * 4;
    ip.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
    ip.get_mut(10..12)?.fill(0);
    let sum = internet(&[ip.get(..size)?]);
    ip.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
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

    const ETH: &str = "eth 02:00:00:00:00:01 > 02:00:00:00:00:02";

    fn fragments(text: &str) -> Vec<Vec<u8>> {
        cut(&packet(&format!("{ETH} / {text}")), 24).expect("pieces")
    }

    #[test]
    fn a_receiver_makes_the_packet_again() {
        for text in [
            "ip4 10.0.0.1 > 10.0.0.2 id 7 df / udp 1 > 53 / bytes 41",
            "ip6 ::1 > ::2 / udp 1 > 53 / bytes 41",
        ] {
            let (packet, mut pieces) = (packet(&format!("{ETH} / {text}")), fragments(text));
            assert_eq!(pieces.len(), 3);
            pieces.reverse();
            pieces.push(pieces[1].clone());
            let joined = join(&pieces);
            assert_eq!((joined.whole, joined.parts.len()), (vec![packet], 0));
            for missing in 0..3 {
                let mut rest = fragments(text);
                rest.remove(missing);
                let joined = join(&rest);
                assert_eq!((joined.whole.len(), joined.parts), (0, rest), "without {missing}");
            }
        }
        let other = packet(&format!("{ETH} / ip4 10.0.0.1 > 10.0.0.2 / tcp 1 > 2 syn"));
        assert_eq!(join(std::slice::from_ref(&other)).whole, [other]);
    }

    #[test]
    fn what_differs_around_fragments_keeps_them_apart() {
        let mut pieces = fragments("ip4 10.0.0.1 > 10.0.0.2 id 7 / udp 1 > 53 / bytes 20");
        pieces[1][5] = 3;
        assert_eq!(join(&pieces).parts, pieces, "another receiver");
        let mut pieces = fragments("ip4 10.0.0.1 > 10.0.0.2 id 7 / udp 1 > 53 / bytes 20");
        pieces[1][ETHERNET + 10] ^= 1;
        let joined = join(&pieces);
        assert_eq!((joined.whole.len(), joined.parts.len()), (1, 1), "a wrong checksum is told, not mended");
    }

    #[test]
    fn fragments_in_a_tunnel_are_those_of_the_packet_inside() {
        for (outer, inner) in [
            ("ip4 10.0.0.254 > 10.0.0.1", "ip4 198.51.100.1 > 192.0.2.10 id 7 / udp 1 > 53 / bytes 20"),
            ("ip6 fd00::fe > fd00::1", "ip6 2001:db8:1::1 > 2001:db8::10 / udp 1 > 53 / bytes 20"),
        ] {
            let pieces: Vec<Vec<u8>> = fragments(inner)
                .iter()
                .zip(5..)
                .map(|(piece, id)| {
                    let inside = read(piece).to_string();
                    let inside = inside.split_once(" / ").expect("layers").1.to_owned();
                    let id = if outer.starts_with("ip4") { format!(" id {id}") } else { String::new() };
                    packet(&format!("{ETH} / {outer}{id} / {inside}"))
                })
                .collect();
            let id = if outer.starts_with("ip4") { " id 5" } else { "" };
            let expected = packet(&format!("{ETH} / {outer}{id} / {inner}"));
            let joined = join(&pieces);
            let texts: Vec<String> = joined.whole.iter().map(|it| read(it).to_string()).collect();
            assert_eq!((texts, joined.parts.len()), (vec![read(&expected).to_string()], 0));
        }
    }
}
