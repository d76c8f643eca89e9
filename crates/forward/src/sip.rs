//! The Call-ID of a SIP message, by which a service may be persistent [`ip_vs_pe_sip.c`].
//!
//! The only place that looks at a payload. The message is copied to scratch of this CPU and read byte by byte, at most
//! [`abi::SIP_BYTES_MAX`] of them.

use crate::hash::Sip;
use crate::packet::Work;
use crate::tables::{Scan, Tables};
use crate::{Step, find, persist};
use abi::{Address, CALL_ID_BYTES_MAX, Program, SIP_BYTES_MAX, Verdict, protocol};
use wire::Bytes;

const UDP_HEADER_LEN: u32 = 8;
/// The long form of the header's name, in lower case, as the bytes of a number: the first is the lowest.
const CALL_ID: u64 = u64::from_le_bytes(*b"call-id\0");
const CALL_ID_LEN: u32 = 7;

/// Reads the Call-ID of the message that begins a flow, for the program that looks for its template. Not UDP, or no
/// Call-ID: dropped, as there is no other way to keep the call together.
#[inline(always)]
pub fn call<B: Bytes, T: Tables>(bytes: &B, tables: &T, work: &Work) -> Step {
    let Some(service) = find::service(tables, &work.key) else {
        return Step::stop(tables, Verdict::PassNoService);
    };
    let is_udp = work.key.protocol == u32::from(protocol::UDP);
    let client = persist::masked(&work.key.client, service.mask);
    match is_udp.then(|| search(bytes, tables, work, &client)) {
        Some(Some(())) => Step::Next(Program::Persist, *work),
        _ => Step::stop(tables, Verdict::DropNoCallId),
    }
}

#[inline(always)]
fn search<B: Bytes, T: Tables>(bytes: &B, tables: &T, work: &Work, client: &Address) -> Option<()> {
    let before = u32::from(work.l4).wrapping_sub(u32::from(work.l3)).wrapping_add(UDP_HEADER_LEN);
    let len = work.ip_len.checked_sub(before)?.min(SIP_BYTES_MAX.wrapping_sub(1));
    // With the byte before it: the verifier of 6.1 must see that the length is not 0.
    let offset = u32::from(work.l4).wrapping_add(UDP_HEADER_LEN.wrapping_sub(1));
    if !tables.read_message(bytes, offset as usize, len.wrapping_add(1)) {
        return None;
    }
    let mut search = Search::new(tables.settings()?.overflow_key, client);
    tables.scan(len, &mut search);
    if search.place != Place::Found || search.len == 0 {
        return None;
    }
    // A keyed hash: nobody outside can aim at the template of somebody else's call.
    tables.finish_call(client, search.len, search.hash.finish());
    Some(())
}

/// Where in the message the search is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Place {
    /// In a line that is not the one.
    Line,
    /// Behind a line end: a name may start here.
    Start,
    /// Inside the name of a header.
    Name,
    /// Behind the name.
    Colon,
    /// Behind the colon.
    Blank,
    /// In the Call-ID.
    Value,
    /// The Call-ID was read to its end.
    Found,
}

/// One run over a message.
struct Search {
    place: Place,
    /// Bytes of the name that match so far.
    matched: u32,
    /// Bytes of the Call-ID.
    len: u32,
    /// Whether it has had its `@`.
    has_at: u32,
    hash: Sip,
}

impl Search {
    #[inline(always)]
    fn new(key: [u64; 2], client: &Address) -> Self {
        let mut hash = Sip::new(key);
        let [a, b, c, d] = client.0;
        hash.block(u64::from(a) << 32 | u64::from(b));
        hash.block(u64::from(c) << 32 | u64::from(d));
        Self { place: Place::Line, matched: 0, len: 0, has_at: 0, hash }
    }

    /// The name goes on with this byte, or ends before it.
    #[inline(always)]
    fn name(&mut self, byte: u8) -> Place {
        let wanted = CALL_ID.wrapping_shr(self.matched.wrapping_mul(8)) as u8;
        if self.matched < CALL_ID_LEN && lower(byte) == wanted {
            self.matched = self.matched.wrapping_add(1);
            return if self.matched == CALL_ID_LEN { Place::Colon } else { Place::Name };
        }
        Self::line(byte)
    }

    #[inline(always)]
    fn line(byte: u8) -> Place {
        if is_end(byte) { Place::Start } else { Place::Line }
    }

    #[inline(always)]
    fn colon(byte: u8) -> Place {
        match byte {
            b':' => Place::Blank,
            b' ' | b'\t' => Place::Colon,
            _ => Self::line(byte),
        }
    }

    /// The Call-ID goes on with this byte, or is over; `None` when it ends as none may.
    #[inline(always)]
    fn value<T: Tables>(&mut self, tables: &T, byte: u8) -> Option<Place> {
        if is_end(byte) {
            return Some(Place::Found);
        }
        let is_at = byte == b'@';
        if self.len >= CALL_ID_BYTES_MAX || !(is_word(byte) || is_at && self.has_at == 0) {
            return None;
        }
        self.has_at |= u32::from(is_at);
        self.hash.byte(self.len, byte);
        tables.set_call_byte(self.len, byte);
        self.len = self.len.wrapping_add(1);
        Some(Place::Value)
    }
}

impl Scan for Search {
    #[inline(always)]
    fn step<T: Tables>(&mut self, tables: &T, index: u32) -> bool {
        let byte = tables.message_byte(index.wrapping_add(1));
        self.place = match self.place {
            Place::Line => Self::line(byte),
            Place::Start if is_end(byte) => Place::Start,
            // The short form; another letter behind it makes it another header.
            Place::Start if lower(byte) == b'i' => Place::Colon,
            Place::Start => {
                self.matched = 0;
                self.name(byte)
            }
            Place::Name => self.name(byte),
            Place::Colon => Self::colon(byte),
            Place::Blank if byte == b' ' || byte == b'\t' => Place::Blank,
            Place::Blank | Place::Value => match self.value(tables, byte) {
                Some(place) => place,
                None => return false,
            },
            Place::Found => return false,
        };
        self.place != Place::Found
    }
}

/// A line may end with CR, LF, or both.
#[inline(always)]
const fn is_end(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

#[inline(always)]
const fn lower(byte: u8) -> u8 {
    byte.to_ascii_lowercase()
}

/// The bytes of a `word` (RFC 3261 section 25.1), one bit each.
const WORD: [u64; 2] = word_set();

const fn word_set() -> [u64; 2] {
    let mut set = [0; 2];
    let mut byte: u8 = 0;
    while byte < 128 {
        let is_word = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'!'
                    | b'%'
                    | b'*'
                    | b'_'
                    | b'+'
                    | b'`'
                    | b'\''
                    | b'~'
                    | b'('
                    | b')'
                    | b'<'
                    | b'>'
                    | b':'
                    | b'\\'
                    | b'"'
                    | b'/'
                    | b'['
                    | b']'
                    | b'?'
                    | b'{'
                    | b'}'
            );
        if is_word {
            let [low, high] = set;
            let bit = 1_u64.wrapping_shl(byte as u32);
            set = if byte < 64 { [low | bit, high] } else { [low, high | bit] };
        }
        byte = byte.wrapping_add(1);
    }
    set
}

#[inline(always)]
const fn is_word(byte: u8) -> bool {
    let [low, high] = WORD;
    let half = if byte < 64 { low } else { high };
    byte < 128 && half.wrapping_shr(byte as u32) & 1 != 0
}
