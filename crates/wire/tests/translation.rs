//! Changed addresses and ports: checksums mended in place equal those of a full computation.

use proptest::prelude::*;
use wire::checksum::Change;
use wire::{Bytes, Short, ipv4, ipv6, tcp};

/// A packet from the network header on.
struct Packet(Vec<u8>);

impl Bytes for Packet {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn ingress(&self) -> u32 {
        0
    }

    fn get<const N: usize>(&self, offset: usize) -> Result<[u8; N], Short> {
        self.0.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(Short)
    }

    fn put<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Result<(), Short> {
        *self.0.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()).ok_or(Short)? = value;
        Ok(())
    }
}

/// The one's-complement sum of everything, an odd byte padded with zero, complemented.
fn full(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let words = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u64 = words.map(u64::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A transport segment with its checksum over the pseudo-header of these addresses.
fn segment(protocol: u8, addresses: &[u8], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let mut segment = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    let (size, at) = if protocol == TCP { (20, 16) } else { (8, 6) };
    segment.resize(size, 0x5a);
    segment.extend(payload);
    let len = segment.len() as u16;
    if protocol == UDP {
        segment[4..6].copy_from_slice(&len.to_be_bytes());
    }
    segment[at..at + 2].fill(0);
    let mut sum = full(&[addresses, &[0, 0], &len.to_be_bytes(), &[0, protocol], &segment]);
    if protocol == UDP && sum == 0 {
        sum = 0xffff;
    }
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|i| {
        let start = i * 4;
        u32::from_ne_bytes([bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]])
    })
}

/// Replaces the ports of the transport header at `l4`, and mends its checksum for them and the addresses.
fn translate(packet: &mut Packet, protocol: u8, l4: usize, addresses: Change, old: [u16; 2], new: [u16; 2]) {
    let [old_source, old_destination] = old.map(u16::to_be);
    let [source, destination] = new.map(u16::to_be);
    let change = addresses.half(old_source, source).half(old_destination, destination);
    tcp::set_ports(packet, l4, source, destination).expect("room");
    if protocol == TCP {
        tcp::mend_checksum(packet, l4, change).expect("room");
    } else {
        tcp::mend_udp_checksum(packet, l4, change).expect("room");
    }
}

fn protocols() -> impl Strategy<Value = u8> {
    prop_oneof![Just(TCP), Just(UDP)]
}

proptest! {
    #[test]
    fn of_ipv4_equals_recomputing(
        protocol in protocols(),
        old in any::<[u8; 8]>(),
        new in any::<[u8; 8]>(),
        old_ports in any::<[u16; 2]>(),
        new_ports in any::<[u16; 2]>(),
        ttl in 2..=255_u8,
        options in 0..=10_usize,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let size = 20 + options * 4;
        let mut header = vec![0x40 | (size / 4) as u8, 0, 0, 0, 0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0];
        header.extend(old);
        header.resize(size, 1);
        let sum = full(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut packet = Packet([header, segment(protocol, &old, old_ports, &payload)].concat());

        let change = Change::NONE.words::<2>(words(&old), words(&new));
        ipv4::decrement_ttl_and(&mut packet, 0, change).expect("room");
        ipv4::set_addresses(&mut packet, 0, words(&new)).expect("room");
        translate(&mut packet, protocol, size, change, old_ports, new_ports);

        let mut header = packet.0[..size].to_vec();
        header[10..12].fill(0);
        prop_assert_eq!(full(&[&header]).to_be_bytes(), [packet.0[10], packet.0[11]]);
        prop_assert_eq!(packet.0[8], ttl - 1);
        prop_assert_eq!(&packet.0[12..20], &new);
        prop_assert_eq!(&packet.0[size..], &segment(protocol, &new, new_ports, &payload));
    }

    #[test]
    fn of_ipv6_equals_recomputing(
        protocol in protocols(),
        old in any::<[u8; 32]>(),
        new in any::<[u8; 32]>(),
        old_ports in any::<[u16; 2]>(),
        new_ports in any::<[u16; 2]>(),
        hops in 2..=255_u8,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, hops];
        header.extend(old);
        let mut packet = Packet([header, segment(protocol, &old, old_ports, &payload)].concat());

        let change = Change::NONE.words::<8>(words(&old), words(&new));
        ipv6::decrement_hop_limit(&mut packet, 0).expect("room");
        ipv6::set_addresses(&mut packet, 0, words(&new)).expect("room");
        translate(&mut packet, protocol, 40, change, old_ports, new_ports);

        prop_assert_eq!(packet.0[7], hops - 1);
        prop_assert_eq!(&packet.0[8..40], &new);
        prop_assert_eq!(&packet.0[40..], &segment(protocol, &new, new_ports, &payload));
    }

    #[test]
    fn what_was_wrong_stays_wrong_by_as_much(field in 1..=0xffff_u16, old in any::<u32>(), new in any::<u32>()) {
        let there = Change::NONE.word(old, new).apply(field);
        // And back: the same but for the two forms of zero.
        let back = Change::NONE.word(new, old).apply(there);
        prop_assert_eq!(u32::from(back) % 0xffff, u32::from(field) % 0xffff);
    }
}

#[test]
fn udp_without_a_checksum_stays_so() {
    let mut packet = Packet(vec![0, 1, 0, 2, 0, 8, 0, 0]);
    tcp::mend_udp_checksum(&mut packet, 0, Change::NONE.half(1, 2)).expect("room");
    assert_eq!(packet.0, [0, 1, 0, 2, 0, 8, 0, 0]);
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_sent_as_all_ones() {
    // RFC 1624 section 4: this change leads to 0.
    let mut packet = Packet(vec![0, 1, 0, 2, 0, 8, 0xdd, 0x2f]);
    let change = Change::NONE.half(0x5555_u16.to_be(), 0x3285_u16.to_be());
    tcp::mend_udp_checksum(&mut packet, 0, change).expect("room");
    assert_eq!(packet.0[6..], [0xff, 0xff]);
}

#[test]
fn one_hop_less_is_what_the_general_change_gives() {
    for checksum in 0..=u16::MAX {
        for ttl in [2, 64, 255] {
            let [a, b] = checksum.to_be_bytes();
            let mut short = Packet(vec![0; 20]);
            short.0[8..12].copy_from_slice(&[ttl, 6, a, b]);
            let mut general = Packet(short.0.clone());
            ipv4::decrement_ttl(&mut short, 0).expect("room");
            ipv4::decrement_ttl_and(&mut general, 0, Change::NONE).expect("room");
            assert_eq!(short.0, general.0, "checksum {checksum:#x}, ttl {ttl}");
        }
    }
}
