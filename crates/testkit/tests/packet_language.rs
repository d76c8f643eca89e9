//! The packet language against itself and against another library (etherparse).

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use testkit::packet::{Packet, difference, packet, read};

const CLIENT: &str = "eth 02:00:00:00:00:01 > 02:00:00:00:00:02";

fn round_trip(text: &str) {
    let bytes = packet(text);
    assert_eq!(read(&bytes).to_string(), text);
    assert_eq!(read(&bytes).to_bytes(), bytes);
}

#[test]
fn plain_packets_read_back_as_written() {
    for rest in [
        "ip4 198.51.100.1 > 192.0.2.10 / tcp 40000 > 80 seq 1 syn / \"GET / HTTP\"",
        "ip4 198.51.100.1 > 192.0.2.10 opts 8 ttl 63 / udp 1 > 53 / bytes 20",
        "vlan 10 / ip6 2001:db8::1 > 2001:db8::10 hoplimit 3 / hopopts 8 / frag more id 7 / udp 1 > 53 / bytes 16",
        "svlan 5 pcp 3 / vlan 10 dei / ip6 ::1 > ::2 / dstopts 16 / routing 24 / tcp 1 > 2 opts 4 ack",
        "ip4 10.0.0.1 > 10.0.0.2 / icmp 3 3 / ip4 10.0.0.2 > 10.0.0.1 / udp 53 > 1",
        "ip6 fe80::1 > fe80::2 / icmp6 1 4 / ip6 fe80::2 > fe80::1 / tcp 80 > 1 rst",
        "ip4 10.0.0.1 > 10.0.0.2 / sctp 1 > 2 tag 9 / hex 01000014ff",
        "arp 192.0.2.1 > 192.0.2.2 sha 02:00:00:00:00:01",
        "ip4 10.0.0.1 > 10.0.0.2 off 1480 proto 17 / bytes 24",
        "ip4 10.0.0.1 > 10.0.0.2 csum 0xdead / tcp 1 > 2 doff 3 syn csum 0x1 / bytes 3",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 1 > 2 len 9 / trailer 0000",
        "ip4 10.0.0.1 > 10.0.0.2 / ip4 10.0.0.3 > 10.0.0.4 / udp 1 > 53",
        "ip6 fe80::1 > fe80::2 / ip4 10.0.0.3 > 10.0.0.4 / tcp 1 > 80 syn",
        "ip4 10.0.0.1 > 10.0.0.2 / gre / ip6 ::1 > ::2 / tcp 1 > 80 syn",
        "ip4 10.0.0.1 > 10.0.0.2 / gresum / ip4 10.0.0.3 > 10.0.0.4 / udp 1 > 53 / \"query\"",
        "ip6 fe80::1 > fe80::2 / gresum csum 0x1 / ip4 10.0.0.3 > 10.0.0.4 / udp 1 > 53",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 40000 > 6080 csum 0x0 / gue / ip4 10.0.0.3 > 10.0.0.4 / tcp 1 > 80",
        "ip4 10.0.0.1 > 10.0.0.2 / udp 40000 > 6080 / gue opts 8 flags 0x1 / ip6 ::1 > ::2 / udp 1 > 53",
    ] {
        round_trip(&format!("{CLIENT} / {rest}"));
    }
}

#[test]
fn a_truncated_packet_is_a_prefix_of_the_whole() {
    let text = format!("{CLIENT} / ip4 10.0.0.1 > 10.0.0.2 / tcp 1 > 2");
    let whole = packet(&text);
    let cut = packet(&format!("{text} / truncate 20"));
    assert_eq!(cut, whole[..20]);
    assert_eq!(read(&cut).to_bytes(), cut);
}

#[test]
fn a_change_alters_the_named_field_and_every_sum_over_it() -> Result<(), Box<dyn std::error::Error>> {
    let text = format!("{CLIENT} / ip4 10.0.0.1 > 10.0.0.2 / tcp 1 > 2");
    let changed = text.parse::<Packet>()?.changed("eth 02:00:00:00:00:03 > 02:00:00:00:00:04; ttl 63")?;
    let written = "eth 02:00:00:00:00:03 > 02:00:00:00:00:04 / ip4 10.0.0.1 > 10.0.0.2 ttl 63 / tcp 1 > 2";
    assert_eq!(changed.to_bytes(), packet(written));
    assert!(text.parse::<Packet>()?.changed("hoplimit 3").is_err());
    Ok(())
}

#[test]
fn a_difference_names_the_field() {
    let one = packet(&format!("{CLIENT} / ip4 10.0.0.1 > 10.0.0.2 / udp 1 > 2"));
    let other = packet(&format!("{CLIENT} / ip4 10.0.0.1 > 10.0.0.2 ttl 63 / udp 1 > 2"));
    let said = difference(&one, &other).unwrap_or_default();
    assert!(said.contains("byte 22 (ip4.ttl): expected 0x40, seen 0x3f"), "{said}");
    assert_eq!(difference(&one, &one), None);
}

#[test]
fn mistakes_in_a_text_are_named() {
    for (text, expected) in [
        ("eth 02:00:00:00:00:01 / arp", "layer 1: \"\" is no value for the arrow of eth"),
        ("eth 1 > 2", "layer 1: \"1\" is no value for eth src"),
        ("eht", "layer 1: no layer is called \"eht\""),
        ("\"a\" / / \"b\"", "layer 2 is empty"),
        ("ip4 10.0.0.1 > 10.0.0.2 tll 3", "layer 1: ip4 has no field \"tll\""),
        ("ip4 10.0.0.1 > 10.0.0.2 ttl 256", "layer 1: \"256\" is no value for ip4 ttl"),
        ("ip4 10.0.0.1 > 10.0.0.2 off 7", "layer 1: \"7\" is no value for ip4 off"),
        ("\"abc", "layer 1: the quote is not closed"),
        ("bytes 70000", "layer 1: \"70000\" is no value for bytes"),
        ("hex 0", "layer 1: \"0\" is no value for hex"),
    ] {
        let error = text.parse::<Packet>().err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(expected), "{text}");
    }
}

proptest! {
    /// Any bytes become a text that builds the same bytes.
    #[test]
    fn any_bytes_read_back(bytes in prop::collection::vec(any::<u8>(), 0..120), guide in 0_usize..6) {
        let mut bytes = bytes;
        // Random Ethernet types are almost never a known one; steer some into each parser.
        let starts: [&[u8]; 6] = [&[], &[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 5], &[8, 6], &[8, 0]];
        for (index, byte) in starts[guide].iter().enumerate() {
            if let Some(place) = bytes.get_mut(12 + index) {
                *place = *byte;
            }
        }
        let text = read(&bytes).to_string();
        let again = text.parse::<Packet>().map(|packet| packet.to_bytes());
        prop_assert_eq!(again, Ok(bytes), "{}", text);
    }

    /// Another library finds the fields, the lengths and the checksums that were meant.
    #[test]
    fn etherparse_agrees(
        (client, vip) in (any::<u32>(), any::<u32>()),
        (sport, dport) in (any::<u16>(), any::<u16>()),
        (six, tcp) in (any::<bool>(), any::<bool>()),
        tags in 0_usize..3,
        payload in 0_usize..64,
    ) {
        let net = if six {
            format!("ip6 2001:db8::{:x} > 2001:db8::{:x}", client & 0xffff, vip & 0xffff)
        } else {
            format!("ip4 {} > {} opts 4", std::net::Ipv4Addr::from(client), std::net::Ipv4Addr::from(vip))
        };
        let l4 = if tcp { format!("tcp {sport} > {dport} syn") } else { format!("udp {sport} > {dport}") };
        let tags = ["", "vlan 7 / ", "svlan 6 / vlan 7 / "][tags];
        let text = format!("{CLIENT} / {tags}{net} / {l4} / bytes {payload}");
        let bytes = packet(&text);
        let sliced = SlicedPacket::from_ethernet(&bytes)
            .map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let (header_sum_good, source, destination) = match &sliced.net {
            Some(NetSlice::Ipv4(slice)) => {
                let header = slice.header().to_header();
                (header.calc_header_checksum() == header.header_checksum, header.source.to_vec(), header.destination.to_vec())
            }
            Some(NetSlice::Ipv6(slice)) => {
                let header = slice.header().to_header();
                (usize::from(header.payload_length) == bytes.len() - 14 - tags.matches("vlan").count() * 4 - 40,
                 header.source.to_vec(), header.destination.to_vec())
            }
            other => return Err(TestCaseError::fail(format!("{text}: no IP layer but {other:?}"))),
        };
        prop_assert!(header_sum_good, "{}", text);
        let four = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).unwrap_or_default();
        let sixteen = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).unwrap_or_default();
        match sliced.transport {
            Some(TransportSlice::Tcp(slice)) => {
                let sum = if six {
                    slice.calc_checksum_ipv6(sixteen(&source), sixteen(&destination))
                } else {
                    slice.calc_checksum_ipv4(four(&source), four(&destination))
                };
                prop_assert_eq!(sum.ok(), Some(slice.checksum()), "{}", text);
                prop_assert!(slice.syn() && !slice.ack());
                prop_assert_eq!((slice.source_port(), slice.destination_port()), (sport, dport));
            }
            Some(TransportSlice::Udp(slice)) => {
                let header = slice.to_header();
                let sum = if six {
                    header.calc_checksum_ipv6_raw(sixteen(&source), sixteen(&destination), slice.payload())
                } else {
                    header.calc_checksum_ipv4_raw(four(&source), four(&destination), slice.payload())
                };
                prop_assert_eq!(sum.ok(), Some(slice.checksum()), "{}", text);
                prop_assert_eq!(usize::from(slice.length()), payload + 8);
            }
            other => return Err(TestCaseError::fail(format!("{text}: no transport but {other:?}"))),
        }
    }
}
