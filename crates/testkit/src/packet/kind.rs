//! The headers of the packet language, as data: one table a header, from which building, reading,
//! printing and naming of fields all follow.
//!
//! Every bit of a fixed header belongs to exactly one field, so that any bytes can be read into
//! fields and built again without loss (checked by the tests below).

/// How a field is written in the packet language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    Dec,
    Hex,
    Mac,
    Ip4,
    Ip6,
    /// A bare word; present means one.
    Flag,
    /// Stored in units of eight bytes, written in bytes (fragment offsets).
    Times8,
}

/// What a field holds when the text does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auto {
    Const(u128),
    /// Ethernet type of the next layer.
    NextType,
    /// IP protocol number of the next layer.
    NextProto,
    /// Own header length in units of four bytes.
    HeaderWords,
    /// Own header length in units of eight bytes, the first eight not counted.
    ExtensionWords,
    /// Length of the variable part in units of four bytes.
    OptionWords,
    /// Own header and everything after it, in bytes.
    TotalLength,
    /// Everything after the fixed header, in bytes.
    PayloadLength,
    /// Internet checksum of the header alone.
    HeaderChecksum,
    /// Internet checksum of header and payload.
    WholeChecksum,
    /// As above, with the pseudo-header of the IP layer before.
    PseudoChecksum,
    /// CRC32c of header and payload, stored little-endian.
    Crc32c,
}

/// One field: `width` bits from bit `bit` of the header, big-endian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) bit: usize,
    pub(crate) width: usize,
    pub(crate) show: Show,
    pub(crate) auto: Auto,
}

/// What the variable part after the fixed header is filled with when only its size is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// No variable part.
    None,
    /// IPv4 and TCP no-operation options.
    Nop,
    /// One IPv6 PadN option.
    PadN,
    Zero,
    /// Zeroes, of which the field `hlen` counts the words of four bytes.
    Words,
}

/// One kind of header.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) word: &'static str,
    /// Bytes of the fixed part.
    pub(crate) fixed: usize,
    pub(crate) fields: &'static [Field],
    /// The two fields written `a > b` after the word.
    pub(crate) pair: Option<(&'static str, &'static str)>,
    /// Fields written bare after the word.
    pub(crate) positional: &'static [&'static str],
    pub(crate) fill: Fill,
    pub(crate) ethertype: Option<u16>,
    pub(crate) protocol: Option<u8>,
}

impl Kind {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// True for the IPv6 extension headers whose size is the first word of the text.
    pub(crate) fn is_sized_extension(&self) -> bool {
        matches!(self.fill, Fill::PadN | Fill::Zero)
    }
}

const fn field(name: &'static str, bit: usize, width: usize, show: Show, auto: Auto) -> Field {
    Field { name, bit, width, show, auto }
}

const fn number(name: &'static str, bit: usize, width: usize, default: u128) -> Field {
    field(name, bit, width, Show::Dec, Auto::Const(default))
}

const fn flag(name: &'static str, bit: usize) -> Field {
    field(name, bit, 1, Show::Flag, Auto::Const(0))
}

const ETH: Kind = Kind {
    word: "eth",
    fixed: 14,
    fields: &[
        field("dst", 0, 48, Show::Mac, Auto::Const(0)),
        field("src", 48, 48, Show::Mac, Auto::Const(0)),
        field("type", 96, 16, Show::Hex, Auto::NextType),
    ],
    pair: Some(("src", "dst")),
    positional: &[],
    fill: Fill::None,
    ethertype: None,
    protocol: None,
};

const VLAN: Kind = Kind {
    word: "vlan",
    fixed: 4,
    fields: &[
        number("pcp", 0, 3, 0),
        flag("dei", 3),
        number("id", 4, 12, 0),
        field("type", 16, 16, Show::Hex, Auto::NextType),
    ],
    pair: None,
    positional: &["id"],
    fill: Fill::None,
    ethertype: Some(0x8100),
    protocol: None,
};

/// The service tag of 802.1ad: laid out as `vlan`, announced by another type.
const SVLAN: Kind = Kind { word: "svlan", ethertype: Some(0x88a8), ..VLAN };

const ARP: Kind = Kind {
    word: "arp",
    fixed: 28,
    fields: &[
        number("htype", 0, 16, 1),
        field("ptype", 16, 16, Show::Hex, Auto::Const(0x0800)),
        number("hlen", 32, 8, 6),
        number("plen", 40, 8, 4),
        number("op", 48, 16, 1),
        field("sha", 64, 48, Show::Mac, Auto::Const(0)),
        field("src", 112, 32, Show::Ip4, Auto::Const(0)),
        field("tha", 144, 48, Show::Mac, Auto::Const(0)),
        field("dst", 192, 32, Show::Ip4, Auto::Const(0)),
    ],
    pair: Some(("src", "dst")),
    positional: &[],
    fill: Fill::None,
    ethertype: Some(0x0806),
    protocol: None,
};

const IP4: Kind = Kind {
    word: "ip4",
    fixed: 20,
    fields: &[
        number("ver", 0, 4, 4),
        field("ihl", 4, 4, Show::Dec, Auto::HeaderWords),
        field("tos", 8, 8, Show::Hex, Auto::Const(0)),
        field("len", 16, 16, Show::Dec, Auto::TotalLength),
        number("id", 32, 16, 0),
        flag("rf", 48),
        flag("df", 49),
        flag("more", 50),
        field("off", 51, 13, Show::Times8, Auto::Const(0)),
        number("ttl", 64, 8, 64),
        field("proto", 72, 8, Show::Dec, Auto::NextProto),
        field("csum", 80, 16, Show::Hex, Auto::HeaderChecksum),
        field("src", 96, 32, Show::Ip4, Auto::Const(0)),
        field("dst", 128, 32, Show::Ip4, Auto::Const(0)),
    ],
    pair: Some(("src", "dst")),
    positional: &[],
    fill: Fill::Nop,
    ethertype: Some(0x0800),
    protocol: Some(4),
};

const IP6: Kind = Kind {
    word: "ip6",
    fixed: 40,
    fields: &[
        number("ver", 0, 4, 6),
        field("class", 4, 8, Show::Hex, Auto::Const(0)),
        field("flow", 12, 20, Show::Hex, Auto::Const(0)),
        field("len", 32, 16, Show::Dec, Auto::PayloadLength),
        field("next", 48, 8, Show::Dec, Auto::NextProto),
        number("hoplimit", 56, 8, 64),
        field("src", 64, 128, Show::Ip6, Auto::Const(0)),
        field("dst", 192, 128, Show::Ip6, Auto::Const(0)),
    ],
    pair: Some(("src", "dst")),
    positional: &[],
    fill: Fill::None,
    ethertype: Some(0x86dd),
    protocol: Some(41),
};

const EXTENSION_FIELDS: &[Field] =
    &[field("next", 0, 8, Show::Dec, Auto::NextProto), field("len", 8, 8, Show::Dec, Auto::ExtensionWords)];

const HOPOPTS: Kind = Kind {
    word: "hopopts",
    fixed: 2,
    fields: EXTENSION_FIELDS,
    pair: None,
    positional: &[],
    fill: Fill::PadN,
    ethertype: None,
    protocol: Some(0),
};

const DSTOPTS: Kind = Kind { word: "dstopts", protocol: Some(60), ..HOPOPTS };

/// Routing header; the fill is type 0 with no segment left.
const ROUTING: Kind = Kind { word: "routing", protocol: Some(43), fill: Fill::Zero, ..HOPOPTS };

const FRAG: Kind = Kind {
    word: "frag",
    fixed: 8,
    fields: &[
        field("next", 0, 8, Show::Dec, Auto::NextProto),
        number("res", 8, 8, 0),
        field("off", 16, 13, Show::Times8, Auto::Const(0)),
        number("res2", 29, 2, 0),
        flag("more", 31),
        number("id", 32, 32, 0),
    ],
    pair: None,
    positional: &[],
    fill: Fill::None,
    ethertype: None,
    protocol: Some(44),
};

const TCP: Kind = Kind {
    word: "tcp",
    fixed: 20,
    fields: &[
        number("src", 0, 16, 0),
        number("dst", 16, 16, 0),
        number("seq", 32, 32, 0),
        number("ackno", 64, 32, 0),
        field("doff", 96, 4, Show::Dec, Auto::HeaderWords),
        number("res", 100, 4, 0),
        flag("cwr", 104),
        flag("ece", 105),
        flag("urg", 106),
        flag("ack", 107),
        flag("psh", 108),
        flag("rst", 109),
        flag("syn", 110),
        flag("fin", 111),
        number("win", 112, 16, 65_535),
        field("csum", 128, 16, Show::Hex, Auto::PseudoChecksum),
        number("urgp", 144, 16, 0),
    ],
    pair: Some(("src", "dst")),
    positional: &[],
    fill: Fill::Nop,
    ethertype: None,
    protocol: Some(6),
};

const UDP: Kind = Kind {
    word: "udp",
    fixed: 8,
    fields: &[
        number("src", 0, 16, 0),
        number("dst", 16, 16, 0),
        field("len", 32, 16, Show::Dec, Auto::TotalLength),
        field("csum", 48, 16, Show::Hex, Auto::PseudoChecksum),
    ],
    pair: Some(("src", "dst")),
    positional: &[],
    fill: Fill::None,
    ethertype: None,
    protocol: Some(17),
};

const SCTP: Kind = Kind {
    word: "sctp",
    fixed: 12,
    fields: &[
        number("src", 0, 16, 0),
        number("dst", 16, 16, 0),
        number("tag", 32, 32, 0),
        field("csum", 64, 32, Show::Hex, Auto::Crc32c),
    ],
    pair: Some(("src", "dst")),
    positional: &[],
    fill: Fill::None,
    ethertype: None,
    protocol: Some(132),
};

const ICMP: Kind = Kind {
    word: "icmp",
    fixed: 8,
    fields: &[
        number("type", 0, 8, 0),
        number("code", 8, 8, 0),
        field("csum", 16, 16, Show::Hex, Auto::WholeChecksum),
        field("rest", 32, 32, Show::Hex, Auto::Const(0)),
    ],
    pair: None,
    positional: &["type", "code"],
    fill: Fill::None,
    ethertype: None,
    protocol: Some(1),
};

const ICMP6: Kind = Kind {
    word: "icmp6",
    fields: &[
        number("type", 0, 8, 0),
        number("code", 8, 8, 0),
        field("csum", 16, 16, Show::Hex, Auto::PseudoChecksum),
        field("rest", 32, 32, Show::Hex, Auto::Const(0)),
    ],
    protocol: Some(58),
    ..ICMP
};

/// GRE without optional fields (RFC 2784).
const GRE: Kind = Kind {
    word: "gre",
    fixed: 4,
    fields: &[
        field("flags", 0, 16, Show::Hex, Auto::Const(0)),
        field("type", 16, 16, Show::Hex, Auto::NextType),
    ],
    pair: None,
    positional: &[],
    fill: Fill::None,
    ethertype: None,
    protocol: Some(47),
};

/// GRE with a checksum, which the first bit of the flags announces.
const GRESUM: Kind = Kind {
    word: "gresum",
    fixed: 8,
    fields: &[
        field("flags", 0, 16, Show::Hex, Auto::Const(0x8000)),
        field("type", 16, 16, Show::Hex, Auto::NextType),
        field("csum", 32, 16, Show::Hex, Auto::WholeChecksum),
        field("res", 48, 16, Show::Hex, Auto::Const(0)),
    ],
    ..GRE
};

/// Generic UDP encapsulation, variant 0 (draft-ietf-intarea-gue). Its length counts what `opts` gives.
const GUE: Kind = Kind {
    word: "gue",
    fixed: 4,
    fields: &[
        number("ver", 0, 2, 0),
        flag("control", 2),
        field("hlen", 3, 5, Show::Dec, Auto::OptionWords),
        field("proto", 8, 8, Show::Dec, Auto::NextProto),
        field("flags", 16, 16, Show::Hex, Auto::Const(0)),
    ],
    pair: None,
    positional: &[],
    fill: Fill::Words,
    ethertype: None,
    protocol: None,
};

/// The port at which GUE is read: the one assigned to it.
pub(crate) const GUE_PORT: u128 = 6080;

/// Every kind of header the language knows.
pub(crate) static KINDS: &[Kind] = &[
    ETH, VLAN, SVLAN, ARP, IP4, IP6, HOPOPTS, DSTOPTS, ROUTING, FRAG, TCP, UDP, SCTP, ICMP, ICMP6, GRE,
    GRESUM, GUE,
];

/// The kind with this word.
pub(crate) fn by_word(word: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.word == word)
}

/// The kind announced by this Ethernet type.
pub(crate) fn by_ethertype(ethertype: u128) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.ethertype.map(u128::from) == Some(ethertype))
}

/// The kind announced by this IP protocol number.
pub(crate) fn by_protocol(protocol: u128) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.protocol.map(u128::from) == Some(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cover_each_header_exactly() {
        for kind in KINDS {
            let mut next = 0;
            for field in kind.fields {
                assert_eq!(field.bit, next, "{}.{}", kind.word, field.name);
                next += field.width;
            }
            assert_eq!(next, kind.fixed * 8, "{}", kind.word);
        }
    }

    #[test]
    fn words_and_field_names_are_unique() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(!KINDS[..index].iter().any(|other| other.word == kind.word), "{}", kind.word);
            for (at, field) in kind.fields.iter().enumerate() {
                let again = kind.fields[..at].iter().any(|other| other.name == field.name);
                assert!(!again, "{}.{}", kind.word, field.name);
            }
        }
    }
}
