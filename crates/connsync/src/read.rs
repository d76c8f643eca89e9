//! Datagrams -> messages.
//!
//! ```text
//! version 1   0         1       2          4        5          6
//!             | 0       | group | size     | count  | 1        | 0        | records ...
//! record      | type    | proto | ver+size | flags             | state    | client port | VIP port | server port
//!             | mark              | time-out          | client, VIP, server (4 or 16 bytes each) | parameters ...
//! version 0   | count   | group | size     | records ...
//! record      | 0       | proto | client port | VIP port | server port | client | VIP | server | flags | state
//! ```

use crate::message::{Ends, FLAG_SEQUENCES, Message, Record};
use std::net::{IpAddr, SocketAddr};

/// Length of the header of version 1, and of version 0.
pub(crate) const HEADERS: (usize, usize) = (8, 4);
/// Length of a record of version 1 without addresses.
pub(crate) const FIXED: usize = 24;
/// Length of a record of version 0, and of the numbers of sequences behind it.
const OLD: (usize, usize) = (24, 24);
/// In a record's type: IPv6.
pub(crate) const TYPE_V6: u8 = 1;
/// In a parameter's type: who does not know it may pass it over.
const OPTIONAL: u8 = 0x40;
/// Parameters that are known: numbers of sequences, data and name of a persistence engine, and how long each may be.
const PARAMETERS: [(u8, std::ops::RangeInclusive<usize>); 3] = [(1, 24..=24), (2, 1..=255), (3, 1..=16)];
/// Data of an engine.
const ENGINE_DATA: u8 = 2;
/// Its name, without which the data mean nothing.
const ENGINE_NAME: u8 = 3;

/// Why a datagram is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It ends inside its header.
    Short,
    /// It says another size than it has: the sender's messages are longer than the receiver's, or it was cut.
    Size {
        /// What it says.
        said: usize,
        /// What it has.
        has: usize,
    },
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("the message ends inside its header"),
            Self::Size { said, has } => write!(
                f,
                "the message says that it has {said} bytes and has {has}: is --sync-maxlen at least that of the master?"
            ),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads a datagram. What it has of records that cannot be understood is passed over and counted; where one cannot be told where the
/// next begins, the rest counts as one.
///
/// # Errors
/// [`ReadError`] when it is no message at all.
pub fn read(datagram: &[u8]) -> Result<Message, ReadError> {
    let mut at = Reader { bytes: datagram };
    let (Some(first), Some(syncid), Some(size)) = (at.byte(), at.byte(), at.half()) else {
        return Err(ReadError::Short);
    };
    if usize::from(size) != datagram.len() {
        return Err(ReadError::Size { said: size.into(), has: datagram.len() });
    }
    let mut message = Message { syncid, records: Vec::new(), skipped: 0 };
    if let (0, Some([count, 1, 0, 0])) = (first, at.clone().array::<4>()) {
        at.skip(HEADERS.0 - HEADERS.1);
        read_new(at, count, &mut message);
    } else {
        read_old(at, first, &mut message);
    }
    Ok(message)
}

/// The records of version 1.
fn read_new(mut at: Reader<'_>, count: u8, message: &mut Message) {
    for _ in 0..count {
        let Some([_, _, high, low]) = at.clone().array::<4>() else {
            message.skipped += 1;
            return;
        };
        let word = u16::from_be_bytes([high, low]);
        let (version, size) = (word >> 12, usize::from(word & 0xfff));
        let record = at.take(size).filter(|_| version == 0 && size >= FIXED);
        let Some(record) = record else {
            message.skipped += 1;
            return;
        };
        match new_record(record) {
            Ok(Some(record)) => message.records.push(record),
            Ok(None) => message.skipped += 1,
            Err(Lost) => {
                message.skipped += 1;
                return;
            }
        }
        // Zeros up to the next multiple of four, which the last record has not.
        at.skip(size.wrapping_neg() % 4);
    }
}

/// The rest of the message cannot be trusted.
struct Lost;

/// One record of version 1; `None` when it alone cannot be used.
fn new_record(bytes: &[u8]) -> Result<Option<Record>, Lost> {
    let mut at = Reader { bytes };
    let kind = at.byte().ok_or(Lost)?;
    if kind & !TYPE_V6 != 0 {
        return Err(Lost);
    }
    let protocol = at.byte().ok_or(Lost)?;
    at.skip(2);
    let flags = at.word().ok_or(Lost)?;
    let state = at.half().ok_or(Lost)?;
    let ports = [at.half().ok_or(Lost)?, at.half().ok_or(Lost)?, at.half().ok_or(Lost)?];
    let (mark, timeout_s) = (at.word().ok_or(Lost)?, at.word().ok_or(Lost)?);
    let ends = at.ends(kind & TYPE_V6 != 0, ports).ok_or(Lost)?;
    let makes_sense = parameters(at)?;
    let record = Record { protocol, flags, state, ends, mark, timeout_s: Some(timeout_s) };
    Ok(makes_sense.then_some(record))
}

/// Goes through the parameters of a record. Their content has no use here: sequences move only where a helper changes what is
/// sent, and flows are not found by what an engine called them. `false` when the record cannot be used.
fn parameters(mut at: Reader<'_>) -> Result<bool, Lost> {
    let (mut seen, mut is_usable) = (0_u8, true);
    while let Some(kind) = at.byte() {
        let length = usize::from(at.byte().ok_or(Lost)?);
        at.take(length).ok_or(Lost)?;
        let known = PARAMETERS.iter().find(|(known, _)| *known == kind & !OPTIONAL);
        match known {
            Some((known, lengths)) => {
                if !lengths.contains(&length) || seen & (1 << known) != 0 {
                    return Err(Lost);
                }
                seen |= 1 << known;
            }
            None if kind & OPTIONAL == 0 => is_usable = false,
            None => {}
        }
    }
    let has = |kind: u8| seen & (1 << kind) != 0;
    Ok(is_usable && (has(ENGINE_NAME) || !has(ENGINE_DATA)))
}

/// The records of version 0.
fn read_old(mut at: Reader<'_>, count: u8, message: &mut Message) {
    for _ in 0..count {
        let Some(record) = at.take(OLD.0).and_then(old_record) else {
            message.skipped += 1;
            return;
        };
        if record.flags & FLAG_SEQUENCES != 0 && at.take(OLD.1).is_none() {
            message.skipped += 1;
            return;
        }
        message.records.push(record);
    }
}

fn old_record(bytes: &[u8]) -> Option<Record> {
    let mut at = Reader { bytes };
    at.skip(1);
    let protocol = at.byte()?;
    let ports = [at.half()?, at.half()?, at.half()?];
    let ends = at.ends(false, ports)?;
    let (flags, state) = (at.half()?, at.half()?);
    Some(Record { protocol, flags: flags.into(), state, ends, mark: 0, timeout_s: None })
}

/// What is left of some bytes.
#[derive(Clone)]
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Passes bytes over, as many as there are.
    fn skip(&mut self, count: usize) {
        self.bytes = self.bytes.get(count..).unwrap_or_default();
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn half(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn address(&mut self, is_v6: bool) -> Option<IpAddr> {
        if is_v6 { self.array::<16>().map(IpAddr::from) } else { self.array::<4>().map(IpAddr::from) }
    }

    fn ends(&mut self, is_v6: bool, [client, vip, real]: [u16; 3]) -> Option<Ends> {
        Some(Ends {
            client: SocketAddr::new(self.address(is_v6)?, client),
            vip: SocketAddr::new(self.address(is_v6)?, vip),
            real: SocketAddr::new(self.address(is_v6)?, real),
        })
    }
}
