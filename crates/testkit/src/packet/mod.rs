//! Packets as people read them: a text language, the bytes it stands for, and the way back.
//!
//! `eth 02:00:00:00:00:01 > 02:00:00:00:00:02 / ip4 198.51.100.1 > 192.0.2.10 / tcp 40000 > 80 syn`
//!
//! Layers are separated by ` / `. A layer is a word, then `a > b` or bare numbers where that header
//! has them, then `name value` pairs and flags. What is left out is computed: lengths, types,
//! checksums. What is given is written as given, however wrong. Beside headers there are
//! `"text"`, `bytes N` (0, 1, 2, ...) and `hex 0a0b` for payload, `trailer HEX` for bytes after the end
//! of the IP packet, and `truncate N` for a frame cut to N bytes.
//!
//! Absent on purpose: any code of the packet path. This is the other opinion.

mod build;
pub mod checksum;
mod diff;
mod kind;
mod read;
mod text;

use std::collections::BTreeMap;

pub use diff::{difference, field_at};
pub use read::read;
pub use text::TextError;

use kind::Kind;

/// A packet: layers from the outside in.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    pub(crate) layers: Vec<Layer>,
    /// Bytes after everything that the headers count.
    pub(crate) trailer: Vec<u8>,
    /// Bytes kept of the finished frame; `None` keeps all.
    pub(crate) truncate: Option<usize>,
}

/// One layer of a packet.
#[derive(Clone, Debug)]
pub(crate) enum Layer {
    Header(Header),
    Payload(Vec<u8>),
}

/// One header: the fields that were given, and its variable part.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) kind: &'static Kind,
    pub(crate) fields: BTreeMap<&'static str, u128>,
    pub(crate) options: Vec<u8>,
}

impl Header {
    pub(crate) fn new(kind: &'static Kind) -> Self {
        Self { kind, fields: BTreeMap::new(), options: Vec::new() }
    }

    /// Bytes of this header on the wire.
    pub(crate) fn size(&self) -> usize {
        self.kind.fixed + self.options.len()
    }
}

impl Packet {
    /// The bytes of the packet.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        build::build(self)
    }

    /// Sets a field of the first header called `word`; the value is as in the language.
    /// Returns false, changing nothing, when there is no such header, field, or value.
    #[must_use]
    pub fn set(&mut self, word: &str, name: &str, value: &str) -> bool {
        let header = self.layers.iter_mut().find_map(|layer| match layer {
            Layer::Header(header) if header.kind.word == word => Some(header),
            Layer::Header(_) | Layer::Payload(_) => None,
        });
        let Some(header) = header else { return false };
        let Some(field) = header.kind.field(name) else { return false };
        let Some(value) = text::value(field, value) else { return false };
        header.fields.insert(field.name, value);
        true
    }

    /// Whether the packet has a header called `word`.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.header(word).is_some()
    }

    /// Whether the first header called `word` states this field, instead of leaving it to be computed. Of a
    /// packet that was read: whether the field is other than it should be.
    #[must_use]
    pub fn states(&self, word: &str, name: &str) -> bool {
        self.header(word).is_some_and(|header| header.fields.contains_key(name))
    }

    fn header(&self, word: &str) -> Option<&Header> {
        self.layers.iter().find_map(|layer| match layer {
            Layer::Header(header) if header.kind.word == word => Some(header),
            Layer::Header(_) | Layer::Payload(_) => None,
        })
    }

    /// The packet after `changes`: clauses separated by `;`, each either `eth A > B` or a word, a
    /// field and a value (`ip4 ttl 63`). `ttl N` and `hoplimit N` may stand alone.
    ///
    /// # Errors
    /// The clause that could not be applied.
    pub fn changed(&self, changes: &str) -> Result<Self, TextError> {
        let mut packet = self.clone();
        for clause in changes.split(';').map(str::trim).filter(|clause| !clause.is_empty()) {
            let words: Vec<&str> = clause.split_whitespace().collect();
            let applied = match words.as_slice() {
                ["eth", src, ">", dst] => packet.set("eth", "src", src) && packet.set("eth", "dst", dst),
                ["ttl", value] => packet.set("ip4", "ttl", value),
                ["hoplimit", value] => packet.set("ip6", "hoplimit", value),
                [word, name, value] => packet.set(word, name, value),
                _ => false,
            };
            if !applied {
                return Err(TextError::Change { clause: clause.to_owned() });
            }
        }
        Ok(packet)
    }
}

/// The bytes of a packet text, for tests.
///
/// # Panics
/// When the text is not in the language: a mistake of the test.
#[must_use]
#[track_caller]
pub fn packet(text: &str) -> Vec<u8> {
    match text.parse::<Packet>() {
        Ok(packet) => packet.to_bytes(),
        Err(error) => panic!("packet text {text:?}: {error}"),
    }
}
