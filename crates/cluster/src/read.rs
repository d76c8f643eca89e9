//! Values and records: how a type is read from a file with every error at its place, and written again.
//!
//! [`record!`] and [`words!`] make all that the reader, the writer, the schema and the reference need out of one
//! declaration.

use crate::finding::Finding;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value of the file as the parser has it.
pub(crate) type Node<'i> = Spanned<DeValue<'i>>;

/// What is read, and what was found to be wrong with it so far.
pub(crate) struct Reader<'a> {
    /// The text of the file.
    pub(crate) source: &'a str,
    /// Errors so far.
    pub(crate) findings: Vec<Finding>,
}

/// What a type can stand in a file as.
pub(crate) trait Value: Sized + Clone + PartialEq + JsonSchema {
    /// What would be right, after "expected".
    fn expected() -> String;
    /// Reads it; if it is wrong, the reader was told so.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;
    /// As a value in one line.
    fn write(&self) -> String;
    /// Whether one of a list is written without brackets.
    fn stands_alone() -> bool {
        true
    }
}

/// A table with known keys.
pub(crate) trait Record: Sized + Clone + PartialEq + JsonSchema {
    /// What it is, after "in".
    const NOUN: &'static str;
    /// The keys it may have.
    const KEYS: &'static [&'static str];
    /// Reads as much as can be read; `None` if a key that must be there is missing or wrong.
    fn read_table(table: &DeTable, at: Range<usize>, reader: &mut Reader) -> Option<Self>;
    /// Keys that are there, with their values.
    fn pairs(&self) -> Vec<(&'static str, String)>;
    /// Takes what is not there from another one.
    fn fill(&mut self, base: &Self);
}

/// One of a closed set of words.
pub(crate) trait Word: Copy {
    /// The word that names it.
    fn word(self) -> &'static str;
}

impl<R: Record> Value for R {
    fn expected() -> String {
        format!("a table with keys of {}", R::NOUN)
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.get_ref() {
            DeValue::Table(table) => R::read_table(table, node.span(), reader),
            _ => reader.mismatch::<Self>(node),
        }
    }

    fn write(&self) -> String {
        inline(self.pairs().into_iter().map(|(key, value)| (key.to_owned(), value)))
    }
}

/// `{ key = value }`.
pub(crate) fn inline(pairs: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("{} = {value}", write_key(&key))).collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// A key, in quotes where it must be.
pub(crate) fn write_key(key: &str) -> String {
    let bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if bare { key.to_owned() } else { write_string(key) }
}

/// A string in quotes.
pub(crate) fn write_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a String does not fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A value and where it stood. Where it stood is no part of what it is.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// What stood there.
    pub value: T,
    /// Where: bytes of the file; nowhere if it was not read from one.
    pub span: Range<usize>,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> From<T> for At<T> {
    fn from(value: T) -> Self {
        Self { value, span: 0..0 }
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// Tables by name, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sections<T>(pub Vec<Section<T>>);

/// A table with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Section<T> {
    /// Its name.
    pub name: At<String>,
    /// Whether something in it was wrong, so that what is missing may not be missing.
    pub broken: bool,
    /// What could be read.
    pub record: Option<T>,
}

impl<T: Record> Value for Sections<T> {
    fn expected() -> String {
        format!("tables with names of your own, each of {}", T::NOUN)
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let DeValue::Table(table) = node.get_ref() else { return reader.mismatch::<Self>(node) };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let sections = entries.into_iter().map(|(name, node)| {
            let before = reader.findings.len();
            let record = match node.get_ref() {
                DeValue::Table(table) => T::read_table(table, name.span(), reader),
                _ => reader.mismatch::<T>(node),
            };
            reader.check_name(name);
            let name = At { value: name.get_ref().clone().into_owned(), span: name.span() };
            Section { name, broken: reader.findings.len() > before, record }
        });
        Some(Self(sections.collect()))
    }

    fn write(&self) -> String {
        inline(
            self.0
                .iter()
                .filter_map(|section| Some((section.name.value.clone(), section.record.as_ref()?.write()))),
        )
    }
}

impl<T: JsonSchema> JsonSchema for Sections<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("{}s by name", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let record = generator.subschema_for::<T>();
        schemars::json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9._-]{1,63}$" },
            "additionalProperties": record,
        })
    }
}

impl Reader<'_> {
    /// Notes an error.
    pub(crate) fn error(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.findings.push(Finding::error(span, message));
    }

    /// Notes that a value is none of its type.
    pub(crate) fn mismatch<T: Value>(&mut self, node: &Node) -> Option<T> {
        let message = format!("found {}, expected {}", self.found(node), T::expected());
        self.error(node.span(), message);
        None
    }

    /// What stands there, in words if it is long.
    pub(crate) fn found(&self, node: &Node) -> String {
        let text = self.source.get(node.span()).unwrap_or_default();
        match node.get_ref() {
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            DeValue::String(_) if text.contains("-----BEGIN") => "what may be a secret".to_owned(),
            DeValue::String(_) if text.len() > 60 || text.contains('\n') => "a long string".to_owned(),
            _ => format!("`{text}'"),
        }
    }

    fn check_name(&mut self, name: &Spanned<Cow<str>>) {
        let text = name.get_ref();
        let fine = (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !fine {
            let message = format!("`{text}' is no name: 1 to 63 letters, digits, and . _ -");
            self.error(name.span(), message);
        }
    }

    /// Notes a key that there is not.
    pub(crate) fn unknown_key(&mut self, key: &Spanned<Cow<str>>, noun: &str, keys: &[&'static str]) {
        let text = key.get_ref();
        let hint = match alike(text, keys.iter().copied()) {
            Some(known) => format!("did you mean `{known}'?"),
            None => format!("there are {}", keys.join(", ")),
        };
        self.error(key.span(), format!("unknown key `{text}' in {noun}: {hint}"));
    }
}

/// The word most like this one, if one is like it.
pub(crate) fn alike<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong. Words of the length of a novel are like none.
    let most = (word.chars().count() / 3).min(3);
    if word.len() > 100 {
        return None;
    }
    let lower = word.to_lowercase();
    let near = known.map(|it| (strsim::damerau_levenshtein(&lower, &it.to_lowercase()), it));
    near.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, it)| it)
}

/// "did you mean", or what there is.
pub(crate) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone, none: &str) -> String {
    /// Names that are listed.
    const LISTED_MAX: usize = 12;
    if let Some(known) = alike(word, known.clone()) {
        return format!("did you mean `{known}'?");
    }
    let mut names: Vec<&str> = known.take(LISTED_MAX + 1).collect();
    match names.len() {
        0 => none.to_owned(),
        1..=LISTED_MAX => format!("there are {}", names.join(", ")),
        _ => {
            names.truncate(LISTED_MAX);
            format!("there are {}, ...", names.join(", "))
        }
    }
}

/// Type of a field: `must` be there or `may`.
macro_rules! field_type {
    (must $type:ty) => { $crate::read::At<$type> };
    (may $type:ty) => { Option<$crate::read::At<$type>> };
}

/// Says of a field that it must be there and is not.
macro_rules! field_missing {
    (must $name:expr, $table:ident, $at:ident, $reader:ident, $noun:expr) => {
        if !$table.contains_key($name) {
            $reader.error($at.clone(), format!("`{}' is missing in {}", $name, $noun));
        }
    };
    (may $name:expr, $table:ident, $at:ident, $reader:ident, $noun:expr) => {};
}

/// Takes what was read; leaves the record if it must be there and is not, or could not be read.
macro_rules! field_value {
    (must $field:ident) => {
        $field?
    };
    (may $field:ident) => {
        $field
    };
}

macro_rules! field_pair {
    (must $self:ident, $field:ident) => {
        Some(($crate::read::key(stringify!($field)), $crate::read::Value::write(&$self.$field.value)))
    };
    (may $self:ident, $field:ident) => {
        $self
            .$field
            .as_ref()
            .map(|at| ($crate::read::key(stringify!($field)), $crate::read::Value::write(&at.value)))
    };
}

macro_rules! field_fill {
    (must $self:ident, $base:ident, $field:ident) => {};
    (may $self:ident, $base:ident, $field:ident) => {
        if $self.$field.is_none() {
            $self.$field.clone_from(&$base.$field);
        }
    };
}

/// A key out of the name of a field.
pub(crate) const fn key(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Declares a table of the file: what it is after "in", then its fields, each of which `must` or `may` be there.
macro_rules! record {
    ($noun:literal $(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $need:ident $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $crate::read::field_type!($need $type),)*
        }

        impl $crate::read::Record for $name {
            const NOUN: &'static str = $noun;
            const KEYS: &'static [&'static str] = &[$($crate::read::key(stringify!($field))),*];

            fn read_table(
                table: &toml::de::DeTable,
                at: std::ops::Range<usize>,
                reader: &mut $crate::read::Reader,
            ) -> Option<Self> {
                $(let mut $field: Option<$crate::read::At<$type>> = None;)*
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_by_key(|(key, _)| key.span().start);
                for (key, node) in entries {
                    match key.get_ref().as_ref() {
                        $(name if name == $crate::read::key(stringify!($field)) => {
                            let span = node.span();
                            $field = $crate::read::Value::read(node, reader)
                                .map(|value| $crate::read::At { value, span });
                        })*
                        _ => reader.unknown_key(key, $noun, Self::KEYS),
                    }
                }
                $($crate::read::field_missing!(
                    $need $crate::read::key(stringify!($field)), table, at, reader, $noun
                );)*
                // A record without anything that must be there blames no place.
                let _ = &at;
                Some(Self { $($field: $crate::read::field_value!($need $field),)* })
            }

            fn pairs(&self) -> Vec<(&'static str, String)> {
                [$($crate::read::field_pair!($need self, $field)),*].into_iter().flatten().collect()
            }

            fn fill(&mut self, base: &Self) {
                $($crate::read::field_fill!($need self, base, $field);)*
                // A record without anything that may be left out takes nothing.
                let _ = base;
            }
        }
    };
}

/// Declares a closed set of words.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$word_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$word_meta])* $variant,)* }

        impl $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),*];
        }

        impl $crate::read::Word for $name {
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl $crate::read::Value for $name {
            fn expected() -> String {
                $crate::read::one_of(Self::WORDS.iter().map(|(word, _)| *word))
            }
            fn read(node: &$crate::read::Node, reader: &mut $crate::read::Reader) -> Option<Self> {
                let text = node.get_ref().as_str();
                let found = Self::WORDS.iter().find(|(word, _)| Some(*word) == text).map(|(_, it)| *it);
                found.or_else(|| reader.mismatch::<Self>(node))
            }
            fn write(&self) -> String {
                $crate::read::write_string($crate::read::Word::word(*self))
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                schemars::json_schema!({ "type": "string", "enum": words })
            }
        }
    };
}

/// `"a"`, `"b"` or `"c"`.
pub(crate) fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.join(""),
    }
}

pub(crate) use {field_fill, field_missing, field_pair, field_type, field_value, record, words};
