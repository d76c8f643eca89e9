//! Text -> packet and packet -> text.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::kind::{self, Auto, Field, Fill, Kind, Show};
use super::{Header, Layer, Packet};

/// Longest frame the language builds, in bytes: above every MTU, below what could hurt.
const FRAME_BYTES_MAX: usize = 65_536;

/// Why a packet text is not in the language. Layers count from 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A quoted text without its closing quote.
    #[error("layer {layer}: the quote is not closed")]
    OpenQuote {
        /// Which layer.
        layer: usize,
    },
    /// Nothing between two slashes.
    #[error("layer {layer} is empty")]
    EmptyLayer {
        /// Which layer.
        layer: usize,
    },
    /// The first word of a layer is unknown.
    #[error("layer {layer}: no layer is called {word:?}")]
    UnknownLayer {
        /// Which layer.
        layer: usize,
        /// The word.
        word: String,
    },
    /// A word that is neither field nor flag of its layer.
    #[error("layer {layer}: {kind} has no field {word:?}")]
    UnknownField {
        /// Which layer.
        layer: usize,
        /// What the layer is.
        kind: &'static str,
        /// The word.
        word: String,
    },
    /// A value that is missing, does not parse, or does not fit.
    #[error("layer {layer}: {value:?} is no value for {what}")]
    BadValue {
        /// Which layer.
        layer: usize,
        /// For what.
        what: String,
        /// The value, empty when it is missing.
        value: String,
    },
    /// A change that names nothing of this packet.
    #[error("the change {clause:?} does not fit this packet")]
    Change {
        /// The clause.
        clause: String,
    },
}

impl FromStr for Packet {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut packet = Self::default();
        if text.trim().is_empty() {
            return Ok(packet);
        }
        for (index, words) in split(text)?.iter().enumerate() {
            let mut words = Words { layer: index + 1, words, next: 0 };
            parse_layer(&mut packet, &mut words)?;
        }
        Ok(packet)
    }
}

/// Words of each layer. A quoted text is one word that keeps its opening quote.
fn split(text: &str) -> Result<Vec<Vec<String>>, TextError> {
    let mut layers = vec![Vec::new()];
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let layer = layers.len();
        let end = if let Some(quoted) = rest.strip_prefix('"') {
            quoted.find('"').ok_or(TextError::OpenQuote { layer })? + 1
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let word = &rest[..end];
        if word == "/" {
            layers.push(Vec::new());
        } else if let Some(words) = layers.last_mut() {
            words.push(word.to_owned());
        }
        let after = &rest[end..];
        rest = after.strip_prefix('"').unwrap_or(after).trim_start();
    }
    Ok(layers)
}

/// The words of one layer, read from the front.
struct Words<'a> {
    layer: usize,
    words: &'a [String],
    next: usize,
}

impl<'a> Words<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).map(String::as_str)
    }

    fn bad(&self, what: impl Into<String>, value: &str) -> TextError {
        TextError::BadValue { layer: self.layer, what: what.into(), value: value.to_owned() }
    }

    fn size(&mut self, what: &str) -> Result<usize, TextError> {
        let word = self.take().unwrap_or_default();
        let size = word.parse().ok().filter(|size| *size <= FRAME_BYTES_MAX);
        size.ok_or_else(|| self.bad(what, word))
    }

    fn hex(&mut self, what: &str) -> Result<Vec<u8>, TextError> {
        let word = self.take().unwrap_or_default();
        from_hex(word).ok_or_else(|| self.bad(what, word))
    }

    fn end(&self, kind: &'static str) -> Result<(), TextError> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(TextError::UnknownField { layer: self.layer, kind, word: word.to_owned() }),
        }
    }
}

fn parse_layer(packet: &mut Packet, words: &mut Words<'_>) -> Result<(), TextError> {
    let Some(word) = words.take() else { return Err(TextError::EmptyLayer { layer: words.layer }) };
    if let Some(text) = word.strip_prefix('"') {
        packet.layers.push(Layer::Payload(text.as_bytes().to_vec()));
        return words.end("a quoted text");
    }
    match word {
        "bytes" => {
            let size = words.size("bytes")?;
            packet.layers.push(Layer::Payload(counted(size)));
            words.end("bytes")
        }
        "hex" => {
            let bytes = words.hex("hex")?;
            packet.layers.push(Layer::Payload(bytes));
            words.end("hex")
        }
        "trailer" => {
            packet.trailer = words.hex("trailer")?;
            words.end("trailer")
        }
        "truncate" => {
            packet.truncate = Some(words.size("truncate")?);
            words.end("truncate")
        }
        _ => {
            let kind = kind::by_word(word)
                .ok_or_else(|| TextError::UnknownLayer { layer: words.layer, word: word.to_owned() })?;
            packet.layers.push(Layer::Header(parse_header(kind, words)?));
            Ok(())
        }
    }
}

fn parse_header(kind: &'static Kind, words: &mut Words<'_>) -> Result<Header, TextError> {
    let mut header = Header::new(kind);
    if let Some((from, to)) = kind.pair {
        set(&mut header, from, words)?;
        let arrow = words.take().unwrap_or_default();
        if arrow != ">" {
            return Err(words.bad(format!("the arrow of {}", kind.word), arrow));
        }
        set(&mut header, to, words)?;
    }
    for name in kind.positional {
        set(&mut header, name, words)?;
    }
    if kind.is_sized_extension()
        && words.peek().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    {
        let size = words.size(kind.word)?;
        header.options = filled(kind.fill, size.saturating_sub(kind.fixed));
    }
    while let Some(word) = words.take() {
        if word == "opts" && kind.fill != Fill::None {
            header.options = options(kind, words)?;
        } else {
            let field = kind.field(word).ok_or_else(|| TextError::UnknownField {
                layer: words.layer,
                kind: kind.word,
                word: word.to_owned(),
            })?;
            if field.show == Show::Flag {
                header.fields.insert(field.name, 1);
            } else {
                set(&mut header, field.name, words)?;
            }
        }
    }
    Ok(header)
}

fn set(header: &mut Header, name: &'static str, words: &mut Words<'_>) -> Result<(), TextError> {
    let word = words.take().unwrap_or_default();
    let parsed = header.kind.field(name).and_then(|field| value(field, word));
    let parsed = parsed.ok_or_else(|| words.bad(format!("{} {name}", header.kind.word), word))?;
    header.fields.insert(name, parsed);
    Ok(())
}

/// `opts N` (filler of N bytes) or `opts 0xHEX`.
fn options(kind: &Kind, words: &mut Words<'_>) -> Result<Vec<u8>, TextError> {
    let word = words.take().unwrap_or_default();
    let bytes = match word.strip_prefix("0x") {
        Some(hex) => from_hex(hex),
        None => word.parse().ok().filter(|size| *size <= FRAME_BYTES_MAX).map(|size| filled(kind.fill, size)),
    };
    bytes.ok_or_else(|| words.bad(format!("{} opts", kind.word), word))
}

fn filled(fill: Fill, size: usize) -> Vec<u8> {
    match fill {
        Fill::None => Vec::new(),
        Fill::Nop => vec![1; size],
        Fill::Zero | Fill::Words => vec![0; size],
        Fill::PadN => {
            let mut bytes = vec![0; size];
            if let [option, length, ..] = bytes.as_mut_slice() {
                *option = 1;
                *length = size.saturating_sub(2) as u8;
            }
            bytes
        }
    }
}

fn counted(size: usize) -> Vec<u8> {
    (0..size).map(|index| index as u8).collect()
}

/// The value of a field as the language writes it; `None` when it does not parse or fit.
pub(super) fn value(field: &Field, word: &str) -> Option<u128> {
    let value = match field.show {
        Show::Mac => {
            let bytes: Vec<u8> = word
                .split(':')
                .map(|part| u8::from_str_radix(part, 16))
                .collect::<Result<_, _>>()
                .ok()
                .filter(|bytes: &Vec<u8>| bytes.len() == 6)?;
            bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
        }
        Show::Ip4 => u128::from(u32::from(word.parse::<Ipv4Addr>().ok()?)),
        Show::Ip6 => u128::from(word.parse::<Ipv6Addr>().ok()?),
        Show::Dec | Show::Hex | Show::Flag => integer(word)?,
        Show::Times8 => integer(word).filter(|bytes| bytes % 8 == 0)? / 8,
    };
    (field.width == 128 || value >> field.width == 0).then_some(value)
}

fn integer(word: &str) -> Option<u128> {
    match word.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

fn from_hex(word: &str) -> Option<Vec<u8>> {
    if word.is_empty()
        || !word.is_ascii()
        || !word.len().is_multiple_of(2)
        || word.len() > 2 * FRAME_BYTES_MAX
    {
        return None;
    }
    (0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).ok()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut layers: Vec<String> = self.layers.iter().map(layer_text).collect();
        if !self.trailer.is_empty() {
            layers.push(format!("trailer {}", to_hex(&self.trailer)));
        }
        if let Some(size) = self.truncate {
            layers.push(format!("truncate {size}"));
        }
        out.write_str(&layers.join(" / "))
    }
}

fn layer_text(layer: &Layer) -> String {
    match layer {
        Layer::Payload(bytes) => {
            let printable = |byte: &u8| (byte.is_ascii_graphic() || *byte == b' ') && *byte != b'"';
            if bytes.iter().all(printable) {
                format!("\"{}\"", String::from_utf8_lossy(bytes))
            } else if *bytes == counted(bytes.len()) {
                format!("bytes {}", bytes.len())
            } else {
                format!("hex {}", to_hex(bytes))
            }
        }
        Layer::Header(header) => header_text(header),
    }
}

fn header_text(header: &Header) -> String {
    let kind = header.kind;
    let mut words = vec![kind.word.to_owned()];
    let shown = |name: &str| match kind.field(name) {
        Some(field) => {
            let default = if let Auto::Const(value) = field.auto { value } else { 0 };
            value_text(field, header.fields.get(name).copied().unwrap_or(default))
        }
        None => String::new(),
    };
    if let Some((from, to)) = kind.pair {
        words.extend([shown(from), ">".to_owned(), shown(to)]);
    }
    words.extend(kind.positional.iter().map(|name| shown(name)));
    let led = |name: &str| {
        kind.positional.contains(&name) || kind.pair.is_some_and(|(a, b)| name == a || name == b)
    };
    if !header.options.is_empty() {
        let plain = header.options == filled(kind.fill, header.options.len());
        match (plain, kind.is_sized_extension()) {
            (true, true) => words.push(header.size().to_string()),
            (true, false) => words.push(format!("opts {}", header.options.len())),
            (false, _) => words.push(format!("opts 0x{}", to_hex(&header.options))),
        }
    }
    for field in kind.fields.iter().filter(|field| !led(field.name)) {
        match header.fields.get(field.name) {
            Some(1) if field.show == Show::Flag => words.push(field.name.to_owned()),
            Some(value) if field.show != Show::Flag => {
                words.push(format!("{} {}", field.name, value_text(field, *value)));
            }
            Some(_) | None => {}
        }
    }
    words.join(" ")
}

fn value_text(field: &Field, value: u128) -> String {
    match field.show {
        Show::Dec | Show::Flag => value.to_string(),
        Show::Times8 => (value * 8).to_string(),
        Show::Hex => format!("{value:#x}"),
        Show::Mac => {
            let bytes = (value as u64).to_be_bytes();
            bytes[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
        }
        Show::Ip4 => Ipv4Addr::from(value as u32).to_string(),
        Show::Ip6 => Ipv6Addr::from(value).to_string(),
    }
}
