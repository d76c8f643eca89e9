//! The kinds of values that keys have.

use crate::read::{At, Node, Reader, Record, Value, alike, one_of, write_string};
use api::{MarkMatch, Protocol, Scheduler};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use toml::de::DeValue;

/// A value that is written as a string: what is expected, how it is read, how it is written.
macro_rules! string_value {
    ($name:ty, $title:literal, $expected:expr, $parse:expr, $write:expr) => {
        impl Value for $name {
            fn expected() -> String {
                $expected.to_string()
            }
            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                let parse: fn(&str) -> Option<$name> = $parse;
                node.get_ref().as_str().and_then(parse).or_else(|| reader.mismatch::<Self>(node))
            }
            fn write(&self) -> String {
                let write: fn(&$name) -> String = $write;
                write_string(&write(self))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "title": $title })
            }
        }
    };
}

impl Value for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        node.get_ref().as_bool().or_else(|| reader.mismatch::<Self>(node))
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

/// A whole number from one bound to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<const LOW: u32, const HIGH: u32>(pub u32);

impl<const LOW: u32, const HIGH: u32> Int<LOW, HIGH> {
    /// As a number of 16 bits, which the bound `HIGH` sees to.
    pub(crate) fn short(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }

    /// As a number of 8 bits, which the bound `HIGH` sees to.
    pub(crate) fn byte(self) -> u8 {
        u8::try_from(self.0).unwrap_or(u8::MAX)
    }
}

/// A whole number, if one stands there.
pub(crate) fn whole(node: &Node) -> Option<i64> {
    let DeValue::Integer(number) = node.get_ref() else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl<const LOW: u32, const HIGH: u32> Value for Int<LOW, HIGH> {
    fn expected() -> String {
        format!("a whole number, {LOW} to {HIGH}")
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let number = whole(node).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (LOW..=HIGH).contains(number));
        number.map(Self).or_else(|| reader.mismatch::<Self>(node))
    }
    fn write(&self) -> String {
        self.0.to_string()
    }
}

impl<const LOW: u32, const HIGH: u32> JsonSchema for Int<LOW, HIGH> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("{LOW} to {HIGH}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": LOW, "maximum": HIGH })
    }
}

/// A time in units of so many milliseconds, from one bound to another in that unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const UNIT_MS: u32, const LOW: u32, const HIGH: u32>(pub u32);

/// A time that counts in milliseconds.
pub type Millis<const LOW: u32, const HIGH: u32> = Time<1, LOW, HIGH>;
/// A time that counts in seconds.
pub type Seconds<const LOW: u32, const HIGH: u32> = Time<1000, LOW, HIGH>;

/// The shortest text that [`humantime`] reads as this time.
fn time_text(unit_ms: u32, count: u32) -> String {
    let ms = u64::from(unit_ms) * u64::from(count);
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

impl<const UNIT_MS: u32, const LOW: u32, const HIGH: u32> Time<UNIT_MS, LOW, HIGH> {
    fn bounds() -> String {
        format!("{} to {}", time_text(UNIT_MS, LOW), time_text(UNIT_MS, HIGH))
    }
}

impl<const UNIT_MS: u32, const LOW: u32, const HIGH: u32> Value for Time<UNIT_MS, LOW, HIGH> {
    fn expected() -> String {
        let whole = if UNIT_MS == 1000 { " in whole seconds" } else { "" };
        let example = if UNIT_MS == 1000 { "90s" } else { "500ms" };
        format!("a time with its unit{whole}, such as \"{example}\" or \"5m\", {}", Self::bounds())
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let of = |time: Duration| {
            let fits = time.as_nanos().is_multiple_of(u128::from(UNIT_MS) * 1_000_000);
            let count = u32::try_from(time.as_millis() / u128::from(UNIT_MS)).ok()?;
            (fits && (LOW..=HIGH).contains(&count)).then_some(Self(count))
        };
        let time = node.get_ref().as_str().and_then(|text| humantime::parse_duration(text).ok());
        time.and_then(of).or_else(|| reader.mismatch::<Self>(node))
    }
    fn write(&self) -> String {
        write_string(&time_text(UNIT_MS, self.0))
    }
}

impl<const UNIT_MS: u32, const LOW: u32, const HIGH: u32> JsonSchema for Time<UNIT_MS, LOW, HIGH> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("time, {}", Self::bounds()).into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": Self::schema_name() })
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Many<T>(pub Vec<At<T>>);

impl<T> Many<T> {
    /// These values, read nowhere.
    pub(crate) fn of(values: impl IntoIterator<Item = T>) -> Self {
        Self(values.into_iter().map(At::from).collect())
    }

    /// The values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|at| &at.value)
    }
}

impl<T: Value> Value for Many<T> {
    fn expected() -> String {
        format!("{}, or a list of such", T::expected())
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let mut one = |node: &Node| T::read(node, reader).map(|value| At { value, span: node.span() });
        match node.get_ref() {
            DeValue::Array(nodes) => {
                // All of them are looked at before one that is wrong spoils the list.
                let values: Vec<Option<At<T>>> = nodes.iter().map(one).collect();
                values.into_iter().collect::<Option<_>>().map(Self)
            }
            _ => one(node).map(|value| Self(vec![value])),
        }
    }
    fn write(&self) -> String {
        match self.0.as_slice() {
            [one] if T::stands_alone() => one.value.write(),
            many => format!("[{}]", many.iter().map(|at| at.value.write()).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Many<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("{} or a list", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A record of which one key often is enough: then its value alone stands for the table.
pub trait Shortened: Sized {
    /// What stands alone.
    type Alone;
    /// The table that it stands for.
    fn from_alone(alone: At<Self::Alone>) -> Self;
    /// What may stand alone, were it the only key.
    fn alone(&self) -> Option<&Self::Alone>;
}

/// A record, or the value of its chief key alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Short<R>(pub R);

impl<R: Record + Shortened> Value for Short<R>
where
    R::Alone: Value,
{
    fn stands_alone() -> bool {
        false
    }
    fn expected() -> String {
        format!("{}, or {}", R::Alone::expected(), R::expected())
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.get_ref() {
            DeValue::Table(table) => R::read_table(table, node.span(), reader).map(Self),
            _ => {
                let value = R::Alone::read(node, reader)?;
                Some(Self(R::from_alone(At { value, span: node.span() })))
            }
        }
    }
    fn write(&self) -> String {
        match self.0.alone() {
            Some(alone) if self.0.pairs().len() == 1 => alone.write(),
            _ => self.0.write(),
        }
    }
}

impl<R: JsonSchema + Shortened> JsonSchema for Short<R>
where
    R::Alone: JsonSchema,
{
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("{} or {}", R::Alone::schema_name(), R::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (alone, table) = (generator.subschema_for::<R::Alone>(), generator.subschema_for::<R>());
        json_schema!({ "anyOf": [alone, table] })
    }
}

/// Any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);
string_value!(Text, "text", "text in quotes", |text| Some(Text(text.to_owned())), |it| it.0.clone());

/// The name of a table elsewhere in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);
string_value!(Name, "name", "a name in quotes", |text| Some(Name(text.to_owned())), |it| it.0.clone());

/// A file, by its absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub String);
string_value!(
    FilePath,
    "absolute path",
    "the absolute path of a file, such as \"/etc/sluice/client.pem\" (what is secret never stands in this file itself)",
    |text| (text.starts_with('/') && !text.contains('\n')).then(|| FilePath(text.to_owned())),
    |it| it.0.clone()
);

/// An IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub IpAddr);
string_value!(
    Address,
    "IP address",
    "an IP address, such as \"192.0.2.10\" or \"2001:db8::10\"",
    |text| text.parse().ok().map(Address),
    |it| it.0.to_string()
);

/// An IPv4 netmask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netmask(pub u32);
string_value!(
    Netmask,
    "netmask",
    "an IPv4 netmask, such as \"255.255.255.0\"",
    |text| text.parse::<Ipv4Addr>().ok().map(|mask| Netmask(mask.to_bits())),
    |it| Ipv4Addr::from_bits(it.0).to_string()
);

/// A network of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);
string_value!(
    Network,
    "network",
    "a network without bits behind its prefix, such as \"198.51.100.0/24\" or \"2001:db8::/32\"",
    |text| {
        let network: IpNet = text.parse().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))?;
        (network.trunc() == network).then_some(Network(network))
    },
    |it| it.0.to_string()
);

/// A protocol and its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Which ports.
    pub ports: api::Ports,
}
string_value!(
    Ports,
    "protocol/ports",
    "a protocol and ports, such as \"tcp/80\", \"udp/5000-5010\" or \"tcp/*\"",
    |text| {
        let (protocol, ports) = text.split_once('/')?;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|it| it.to_string().to_lowercase() == protocol)?;
        // The ports are read as those of a match, which have the same form.
        let matched = MarkMatch::parse(protocol, &format!("0.0.0.0:{ports}")).ok()?;
        Some(Ports { protocol, ports: matched.ports })
    },
    |it| format!("{}/{}", it.protocol.to_string().to_lowercase(), it.ports)
);

/// Packets to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match(pub MarkMatch);
string_value!(
    Match,
    "protocol VIP:ports",
    "a protocol, a VIP and ports, such as \"tcp 192.0.2.10:80\", \"udp [2001:db8::10]:5000-5010\" or \"tcp 192.0.2.10:*\"",
    |text| {
        let (protocol, rest) = text.split_once(' ')?;
        MarkMatch::parse(protocol.parse().ok()?, rest).ok().map(Match)
    },
    |it| format!("{} {}", it.0.protocol.to_string().to_lowercase(), it.0)
);

/// The scheduler of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerName(pub Scheduler);

impl Value for SchedulerName {
    fn expected() -> String {
        one_of(Scheduler::all().map(Scheduler::name))
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = node.get_ref().as_str();
        let found = text.and_then(Scheduler::from_name).map(Self);
        if found.is_none()
            && let Some(text) = text
            && let Some(known) = alike(text, Scheduler::all().map(Scheduler::name))
        {
            reader.error(node.span(), format!("no scheduler `{text}': did you mean `{known}'?"));
            return None;
        }
        found.or_else(|| reader.mismatch::<Self>(node))
    }
    fn write(&self) -> String {
        write_string(self.0.name())
    }
}

impl JsonSchema for SchedulerName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "scheduler".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // One that an administrator added by a file is good too, so the list is of examples.
        let names: Vec<&str> = Scheduler::ALL.into_iter().map(Scheduler::name).collect();
        json_schema!({ "type": "string", "title": "scheduler", "examples": names })
    }
}

/// Status codes that pass: one, or from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, pub u16);

impl Value for Status {
    fn expected() -> String {
        "a status code from 100 to 599, such as 200, or a range, such as \"200-299\"".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let code = |text: &str| text.parse().ok().filter(|code: &u16| (100..=599).contains(code));
        let status = match node.get_ref() {
            DeValue::String(text) => match text.split_once('-') {
                Some((low, high)) => code(low).zip(code(high)).map(|(low, high)| Self(low, high)),
                None => code(text).map(|code| Self(code, code)),
            },
            _ => whole(node).and_then(|number| code(&number.to_string())).map(|code| Self(code, code)),
        };
        status.filter(|Self(low, high)| low <= high).or_else(|| reader.mismatch::<Self>(node))
    }
    fn write(&self) -> String {
        match self {
            Self(low, high) if low == high => low.to_string(),
            Self(low, high) => write_string(&format!("{low}-{high}")),
        }
    }
}

impl JsonSchema for Status {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "status".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "title": "range of status codes", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
        ] })
    }
}

/// Bytes in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);
string_value!(
    Hex,
    "hexadecimal digits",
    "an even number of hexadecimal digits, such as \"00ff\"",
    |text| {
        let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let digits = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| (0..text.len()).step_by(2).map(pair).collect::<Option<_>>()).flatten().map(Hex)
    },
    |it| it.0.iter().map(|byte| format!("{byte:02x}")).collect()
);
