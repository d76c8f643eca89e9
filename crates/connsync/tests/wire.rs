//! The bytes of the messages.

use connsync::{
    Ends, FLAG_INACTIVE, FLAG_NO_OUTPUT, FLAG_SEQUENCES, METHOD_DIRECT_ROUTING, Message, ReadError, Record,
    Writer, question, read,
};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn record() -> Record {
    let end = |text: &str| text.parse().expect("address and port");
    Record {
        protocol: 6,
        flags: METHOD_DIRECT_ROUTING | FLAG_NO_OUTPUT,
        state: 1,
        ends: Ends {
            client: end("198.51.100.1:54321"),
            vip: end("192.0.2.10:80"),
            real: end("10.0.0.1:8080"),
        },
        mark: 7,
        timeout_s: Some(900),
    }
}

/// One record as the specification lays it out, typed by hand.
const RECORD: [u8; 36] = [
    0, 6, 0, 36, 0, 0, 0, 0x83, 0, 1, 0xd4, 0x31, 0, 80, 0x1f, 0x90, 0, 0, 0, 7, 0, 0, 3, 0x84, 198, 51, 100,
    1, 192, 0, 2, 10, 10, 0, 0, 1,
];

fn datagram(syncid: u8, count: u8, records: &[u8]) -> Vec<u8> {
    let size = (8 + records.len()) as u16;
    let [high, low] = size.to_be_bytes();
    [&[0, syncid, high, low, count, 1, 0, 0], records].concat()
}

fn written(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(3, 1472);
    for record in records {
        assert_eq!(writer.add(record), None, "all fit");
    }
    writer.finish().expect("something was added")
}

#[test]
fn a_record_is_laid_out_as_the_specification_says() {
    assert_eq!(written(&[record()]), datagram(3, 1, &RECORD));
    let message = read(&datagram(3, 1, &RECORD)).expect("a message");
    assert_eq!(message, Message { syncid: 3, records: vec![record()], skipped: 0 });
}

#[test]
fn a_question_is_a_message_without_records() {
    let message = read(&question(9)).expect("a message");
    assert_eq!((message.syncid, message.is_question()), (9, true));
    assert!(!read(&written(&[record()])).expect("a message").is_question());
    // What IPVS makes of it: version 1, its size, no records.
    assert_eq!(question(9), [0, 9, 0, 8, 0, 1, 0, 0]);
}

#[test]
fn forty_records_fit_the_usual_datagram() {
    let mut writer = Writer::new(1, 1472);
    let sent: Vec<usize> = (0..41).filter(|_| writer.add(&record()).is_some()).collect();
    assert_eq!(sent, [40]);
    assert_eq!(read(&writer.finish().expect("the last one")).expect("a message").records.len(), 1);
    assert_eq!(writer.finish(), None);
}

#[test]
fn ends_of_two_families_are_left_out() {
    let mut mixed = record();
    mixed.ends.real = "[2001:db8::1]:80".parse().expect("address and port");
    let mut writer = Writer::new(1, 1472);
    assert_eq!(writer.add(&mixed), None);
    assert_eq!(writer.finish(), None);
}

#[test]
fn a_datagram_that_says_another_size_is_refused() {
    let mut cut = datagram(3, 1, &RECORD);
    cut.pop();
    assert_eq!(read(&cut), Err(ReadError::Size { said: 44, has: 43 }));
    assert_eq!(read(&[0, 3, 0]), Err(ReadError::Short));
}

/// The record with parameters behind it, and its size mended.
fn with(parameters: &[u8]) -> Vec<u8> {
    let mut record = [&RECORD[..], parameters].concat();
    record[3] = record.len() as u8;
    record
}

#[test]
fn parameters_are_passed_over_and_wrong_ones_lose_what_the_specification_says() {
    let sequences = [&[1_u8, 24][..], &[0; 24]].concat();
    let named = [2, 3, b'a', b'b', b'c', 3, 3, b's', b'i', b'p'];
    let second = datagram(3, 1, &RECORD)[8..].to_vec();
    let read_both = |first: &[u8]| {
        let mut records = first.to_vec();
        records.resize(records.len().next_multiple_of(4), 0);
        let message = read(&datagram(3, 2, &[&records[..], &second].concat())).expect("a message");
        (message.records.len(), message.skipped)
    };
    assert_eq!(read_both(&with(&sequences)), (2, 0));
    assert_eq!(read_both(&with(&named)), (2, 0));
    assert_eq!(read_both(&with(&[0x44, 1, 9])), (2, 0), "unknown, but one may pass it over");
    assert_eq!(read_both(&with(&[4, 1, 9])), (1, 1), "unknown");
    assert_eq!(read_both(&with(&named[..5])), (1, 1), "data without a name");
    assert_eq!(read_both(&with(&[1, 23])), (0, 1), "cut: the rest is lost");
    assert_eq!(read_both(&with(&[[3, 1, b's'], [3, 1, b's']].concat())), (0, 1), "twice");
    let mut unknown_type = RECORD.to_vec();
    unknown_type[0] = 2;
    assert_eq!(read_both(&unknown_type), (0, 1));
    let mut other_version = RECORD.to_vec();
    other_version[2] = 0x10;
    assert_eq!(read_both(&other_version), (0, 1));
}

#[test]
fn messages_of_version_0_are_read() {
    let old = |flags: u16| {
        let [high, low] = flags.to_be_bytes();
        [
            &[0, 6, 0xd4, 0x31, 0, 80, 0x1f, 0x90, 198, 51, 100, 1, 192, 0, 2, 10, 10, 0, 0, 1][..],
            &[high, low, 0, 1],
        ]
        .concat()
    };
    let moved = [old((FLAG_SEQUENCES | FLAG_INACTIVE) as u16), vec![0; 24]].concat();
    let records = [old(0x83), moved, old(0x83)].concat();
    let mut message = vec![3, 9, 0, (4 + records.len()) as u8];
    message.extend(records);
    let message = read(&message).expect("a message");
    assert_eq!((message.syncid, message.skipped), (9, 0));
    let flags: Vec<u32> = message.records.iter().map(|record| record.flags).collect();
    assert_eq!(flags, [0x83, 0x700, 0x83]);
    assert_eq!(message.records[2], Record { mark: 0, timeout_s: None, ..record() });
}

fn ends() -> impl Strategy<Value = Ends> {
    let v4 = any::<[([u8; 4], u16); 3]>().prop_map(|ends| ends.map(|(ip, port)| (IpAddr::from(ip), port)));
    let v6 = any::<[([u8; 16], u16); 3]>().prop_map(|ends| ends.map(|(ip, port)| (IpAddr::from(ip), port)));
    prop_oneof![v4, v6].prop_map(|ends| {
        let [client, vip, real] = ends.map(|(ip, port)| SocketAddr::new(ip, port));
        Ends { client, vip, real }
    })
}

prop_compose! {
    fn records()(protocol: u8, flags: u32, state: u16, ends in ends(), mark: u32, timeout_s: u32) -> Record {
        Record { protocol, flags, state, ends, mark, timeout_s: Some(timeout_s) }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(all in prop::collection::vec(records(), 1..600), longest in 0_u16..9000, syncid: u8) {
        let mut writer = Writer::new(syncid, longest);
        let mut datagrams: Vec<Vec<u8>> = all.iter().filter_map(|record| writer.add(record)).collect();
        datagrams.extend(writer.finish());
        let mut seen = Vec::new();
        for datagram in datagrams {
            let message = read(&datagram).expect("a message");
            prop_assert_eq!((message.syncid, message.skipped), (syncid, 0));
            prop_assert!(datagram.len() <= usize::from(longest) || message.records.len() == 1);
            seen.extend(message.records);
        }
        prop_assert_eq!(seen, all);
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), is_new: bool) {
        let _ = read(&bytes);
        // Past the header too, which random bytes hardly are.
        if bytes.len() >= 8 {
            let size = (bytes.len() as u16).to_be_bytes();
            bytes[2..4].copy_from_slice(&size);
            if is_new {
                bytes[0] = 0;
                bytes[5..8].copy_from_slice(&[1, 0, 0]);
            }
            read(&bytes).expect("a message, whatever its records");
        }
    }
}
