//! The frames that a path check sends: a TCP segment to the VIP, as it is, or in a tunnel.

use api::{Tunnel, TunnelChecksum};
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader,
    UdpHeader,
};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Time to live of the segment. A server that does not have the VIP and forwards what it gets would send it back to the
/// director, or to any other one, whose answer would pass for its own: there it arrives with 1, and goes no further. One hop
/// is left for a server that hands its port to a container.
const TTL: u8 = 2;
/// Of a tunnel's outer header.
const TUNNEL_TTL: u8 = 64;
/// What a receiver of the answer could take; nothing ever comes of it.
const WINDOW: u16 = 1024;
/// Source port of GUE: one of those that are nobody's.
const GUE_SOURCE_PORT: u16 = 0xc5ac;
/// The GRE header has a checksum.
const GRE_CHECKSUM_PRESENT: u16 = 0x8000;

/// A TCP segment from the director to a VIP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    /// A reset, else a SYN.
    pub(super) reset: bool,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) destination: [u8; 6],
    pub(super) source: [u8; 6],
}

/// A tunnel and its ends, which are of one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Through {
    pub(super) tunnel: Tunnel,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
}

/// The whole frame.
pub(super) fn frame(link: Link, segment: &Segment, through: Option<&Through>) -> io::Result<Vec<u8>> {
    let inner = packet(segment)?;
    let is_v4 = segment.to.is_ipv4();
    let (packet, is_v4) = match through {
        None => (inner, is_v4),
        Some(through) => (encapsulate(through, &inner, is_v4)?, through.to.is_ipv4()),
    };
    let ether_type = if is_v4 { EtherType::IPV4 } else { EtherType::IPV6 };
    let header = Ethernet2Header { source: link.source, destination: link.destination, ether_type };
    Ok([&header.to_bytes()[..], &packet].concat())
}

fn packet(segment: &Segment) -> io::Result<Vec<u8>> {
    let mut tcp = TcpHeader::new(segment.from.port(), segment.to.port(), segment.sequence, WINDOW);
    (tcp.syn, tcp.rst) = (!segment.reset, segment.reset);
    let mut packet = Vec::new();
    let written = match (segment.from.ip(), segment.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let builder = PacketBuilder::ipv4(from.octets(), to.octets(), TTL);
            builder.tcp_header(tcp).write(&mut packet, &[])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let builder = PacketBuilder::ipv6(from.octets(), to.octets(), TTL);
            builder.tcp_header(tcp).write(&mut packet, &[])
        }
        _ => return Err(mixed()),
    };
    written.map_err(io::Error::other)?;
    Ok(packet)
}

fn mixed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the ends are of two address families")
}

/// The packet as the payload of another one.
fn encapsulate(through: &Through, inner: &[u8], inner_v4: bool) -> io::Result<Vec<u8>> {
    let own = if inner_v4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let kind = if inner_v4 { EtherType::IPV4 } else { EtherType::IPV6 };
    let kind = kind.0.to_be_bytes();
    match through.tunnel {
        Tunnel::Ipip => outer(through, own, inner),
        Tunnel::Gre { checksum: TunnelChecksum::None } => {
            outer(through, IpNumber::GRE, &[&[0; 2], &kind[..], inner].concat())
        }
        Tunnel::Gre { .. } => {
            let head = GRE_CHECKSUM_PRESENT.to_be_bytes();
            // The sum comes in memory's order.
            let sum = Sum16BitWords::new().add_2bytes(head).add_2bytes(kind).add_slice(inner);
            let header = [head, kind, sum.ones_complement().to_ne_bytes(), [0; 2]].concat();
            outer(through, IpNumber::GRE, &[&header[..], inner].concat())
        }
        Tunnel::Gue { port, checksum } => {
            // Version 0, no control message, no options, no flags.
            let payload = [&[0, own.0, 0, 0][..], inner].concat();
            let udp = udp(through, port, checksum != TunnelChecksum::None, &payload)?;
            outer(through, IpNumber::UDP, &[&udp.to_bytes()[..], &payload].concat())
        }
    }
}

fn udp(through: &Through, port: u16, summed: bool, payload: &[u8]) -> io::Result<UdpHeader> {
    let mut header =
        UdpHeader::without_ipv4_checksum(GUE_SOURCE_PORT, port, payload.len()).map_err(io::Error::other)?;
    if summed {
        let sum = match (through.from, through.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
            }
            _ => return Err(mixed()),
        };
        header.checksum = sum.map_err(io::Error::other)?;
    }
    Ok(header)
}

/// With the outer IP header in front.
fn outer(through: &Through, next: IpNumber, payload: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "too long for a packet");
    match (through.from, through.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(payload.len()).map_err(too_long)?;
            let mut header = Ipv4Header::new(length, TUNNEL_TTL, next, from.octets(), to.octets())
                .map_err(io::Error::other)?;
            header.header_checksum = header.calc_header_checksum();
            Ok([&header.to_bytes()[..], payload].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: u16::try_from(payload.len()).map_err(too_long)?,
                next_header: next,
                hop_limit: TUNNEL_TTL,
                source: from.octets(),
                destination: to.octets(),
            };
            Ok([&header.to_bytes()[..], payload].concat())
        }
        _ => Err(mixed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const LINK: Link = Link { destination: [2, 0, 0, 0, 0, 1], source: [2, 0, 0, 0, 0, 2] };
    const V4: [&str; 2] = ["10.0.0.9:40000", "192.0.2.10:80"];
    const V6: [&str; 2] = ["[2001:db8::9]:40000", "[2001:db8::10]:80"];

    fn segment([from, to]: [&str; 2], reset: bool) -> Segment {
        let socket = |text: &str| text.parse().expect("an address");
        Segment { from: socket(from), to: socket(to), sequence: 0x1234_5678, reset }
    }

    fn through(tunnel: Tunnel, [from, to]: [&str; 2]) -> Through {
        let ip = |text: &str| text.parse::<SocketAddr>().expect("an address").ip();
        Through { tunnel, from: ip(from), to: ip(to) }
    }

    /// Checks the segment, checksums included.
    fn check(packet: &[u8], segment: &Segment) {
        let packet = SlicedPacket::from_ip(packet).expect("a packet");
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("{packet:?}") };
        let sum = match packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(header.time_to_live, TTL);
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
                assert_eq!(IpAddr::from(header.source), segment.from.ip());
                assert_eq!(IpAddr::from(header.destination), segment.to.ip());
                tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(header.hop_limit, TTL);
                assert_eq!(IpAddr::from(header.source), segment.from.ip());
                tcp.calc_checksum_ipv6(header.source, header.destination)
            }
            _ => panic!("no packet of IP"),
        };
        assert_eq!(sum.expect("short"), tcp.checksum());
        let (syn, rst) = (!segment.reset, segment.reset);
        assert_eq!((tcp.syn(), tcp.rst(), tcp.ack()), (syn, rst, false));
        assert_eq!((tcp.source_port(), tcp.destination_port()), (40_000, 80));
        assert_eq!(tcp.sequence_number(), 0x1234_5678);
    }

    #[test]
    fn a_frame_carries_the_segment_as_it_is() {
        for (ends, reset, kind) in [(V4, false, [8, 0]), (V6, true, [0x86, 0xdd])] {
            let segment = segment(ends, reset);
            let frame = frame(LINK, &segment, None).expect("made");
            assert_eq!(frame[..14], [&LINK.destination[..], &LINK.source[..], &kind[..]].concat());
            check(&frame[14..], &segment);
        }
    }

    #[test]
    fn a_tunnel_carries_it_between_its_own_ends() {
        let (none, full) = (TunnelChecksum::None, TunnelChecksum::Full);
        // Bytes between the outer header and the packet.
        let kinds = [
            (Tunnel::Ipip, 0),
            (Tunnel::Gre { checksum: none }, 4),
            (Tunnel::Gre { checksum: full }, 8),
            (Tunnel::Gue { port: 6080, checksum: none }, 12),
            (Tunnel::Gue { port: 6080, checksum: full }, 12),
            (Tunnel::Gue { port: 6080, checksum: TunnelChecksum::Remote }, 12),
        ];
        for (tunnel, shim) in kinds {
            for (inner, outer) in [(V4, V4), (V4, V6), (V6, V4), (V6, V6)] {
                let segment = segment(inner, false);
                let frame = frame(LINK, &segment, Some(&through(tunnel, outer))).expect("made");
                let outer_length = if outer == V4 { 20 } else { 40 };
                check(&frame[14 + outer_length + shim..], &segment);
                check_shim(&frame[14..], tunnel, inner == V4);
            }
        }
        let mixed = Through { from: [10, 0, 0, 9].into(), ..through(Tunnel::Ipip, V6) };
        assert!(frame(LINK, &segment(V4, false), Some(&mixed)).is_err());
    }

    fn check_shim(packet: &[u8], tunnel: Tunnel, inner_v4: bool) {
        let (inner, kind) = if inner_v4 { (4, [8, 0]) } else { (41, [0x86, 0xdd]) };
        let packet = SlicedPacket::from_ip(packet).expect("a packet");
        let (payload, number, ends) = match &packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
                (
                    ip.payload().payload,
                    header.protocol.0,
                    [header.source.to_vec(), header.destination.to_vec()],
                )
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header().to_header();
                let ends = [header.source.to_vec(), header.destination.to_vec()];
                (ip.payload().payload, header.next_header.0, ends)
            }
            _ => panic!("no packet of IP"),
        };
        let sum = |parts: &[&[u8]]| {
            parts.iter().fold(Sum16BitWords::new(), |sum, part| sum.add_slice(part)).ones_complement()
        };
        match tunnel {
            Tunnel::Ipip => assert_eq!(number, inner),
            Tunnel::Gre { checksum: TunnelChecksum::None } => {
                assert_eq!((number, &payload[..4]), (47, &[0, 0, kind[0], kind[1]][..]));
            }
            Tunnel::Gre { .. } => {
                assert_eq!((number, &payload[..4]), (47, &[0x80, 0, kind[0], kind[1]][..]));
                assert_eq!(sum(&[payload]), 0);
            }
            Tunnel::Gue { port, checksum } => {
                let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("{packet:?}") };
                assert_eq!((udp.destination_port(), &udp.payload()[..4]), (port, &[0, inner, 0, 0][..]));
                let length = u16::try_from(udp.slice().len()).expect("short").to_be_bytes();
                let whole = sum(&[&ends[0], &ends[1], &[0, 17], &length, udp.slice()]);
                match checksum {
                    TunnelChecksum::None => assert_eq!(udp.checksum(), 0),
                    TunnelChecksum::Full | TunnelChecksum::Remote => assert_eq!(whole, 0),
                }
            }
        }
    }
}
