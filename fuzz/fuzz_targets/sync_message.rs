//! Random bytes for the reader of synchronisation messages. What is read is written again and must be the same.
#![no_main]

use connsync::{Writer, read};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = read(bytes) else { return };
    let mut writer = Writer::new(message.syncid, u16::MAX);
    let records: Vec<_> = message.records.into_iter().filter(|record| record.timeout_s.is_some()).collect();
    for record in &records {
        assert_eq!(writer.add(record), None, "255 records fit the longest message");
    }
    let Some(datagram) = writer.finish() else { return };
    let again = read(&datagram).expect("own writing");
    assert_eq!((again.records, again.skipped), (records, 0));
});
