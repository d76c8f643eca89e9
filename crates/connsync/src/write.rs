//! Messages of version 1 -> datagrams.

use crate::message::Record;
use crate::read::{FIXED, HEADERS, TYPE_V6};
use std::net::{IpAddr, SocketAddr};

/// Most records of a message: the count is a byte.
const RECORDS_MAX: u8 = u8::MAX;

/// The message of a backup of this group that asks for everything: one without records.
#[must_use]
pub fn question(syncid: u8) -> [u8; HEADERS.0] {
    [0, syncid, 0, HEADERS.0 as u8, 0, 1, 0, 0]
}

/// Puts records together to datagrams of limited length.
#[derive(Debug)]
pub struct Writer {
    syncid: u8,
    longest: usize,
    count: u8,
    bytes: Vec<u8>,
}

impl Writer {
    /// For a group, with datagrams of at most so many bytes (one record fits in any case).
    #[must_use]
    pub fn new(syncid: u8, longest: u16) -> Self {
        Self { syncid, longest: longest.into(), count: 0, bytes: vec![0; HEADERS.0] }
    }

    /// Adds a record. The datagram before it, if that has no room left. A record whose ends are of two families has no place on the wire
    /// and is left out.
    pub fn add(&mut self, record: &Record) -> Option<Vec<u8>> {
        if !record.ends.are_of_one_family() {
            return None;
        }
        let written = write(record);
        let start = self.bytes.len().next_multiple_of(4);
        let is_full = self.count == RECORDS_MAX || start + written.len() > self.longest;
        let done = if is_full { self.finish() } else { None };
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend(written);
        self.count += 1;
        done
    }

    /// The datagram of what was added since the last one; `None` when that is nothing.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        let mut done = std::mem::replace(&mut self.bytes, vec![0; HEADERS.0]);
        let size = u16::try_from(done.len()).unwrap_or(u16::MAX).to_be_bytes();
        let header = [0, self.syncid, size[0], size[1], self.count, 1, 0, 0];
        done.splice(..HEADERS.0, header);
        self.count = 0;
        Some(done)
    }
}

fn write(record: &Record) -> Vec<u8> {
    let ends = [record.ends.client, record.ends.vip, record.ends.real];
    let is_v6 = record.ends.client.is_ipv6();
    let size = FIXED + if is_v6 { 48 } else { 12 };
    let mut bytes = Vec::with_capacity(size);
    bytes.push(if is_v6 { TYPE_V6 } else { 0 });
    bytes.push(record.protocol);
    bytes.extend((size as u16).to_be_bytes());
    bytes.extend(record.flags.to_be_bytes());
    bytes.extend(record.state.to_be_bytes());
    bytes.extend(ends.iter().flat_map(|end| end.port().to_be_bytes()));
    bytes.extend(record.mark.to_be_bytes());
    bytes.extend(record.timeout_s.unwrap_or_default().to_be_bytes());
    for end in ends {
        push_address(&mut bytes, end);
    }
    bytes
}

fn push_address(bytes: &mut Vec<u8>, end: SocketAddr) {
    match end.ip() {
        IpAddr::V4(v4) => bytes.extend(v4.octets()),
        IpAddr::V6(v6) => bytes.extend(v6.octets()),
    }
}
