//! Reading a [`Change`], at the price of what it says.
//!
//! What serde makes of `#[serde(tag = "change")]` keeps every field aside until it has seen the tag, wherever that stands.
//! Here a tag that comes first, as everybody writes it, says at once what the fields are: a restore of 100,000 services
//! spends most of its reading on nothing else. One that comes later is read as before.

use crate::admission::Admission;
use crate::change::{Change, Timeouts};
use crate::health::{HealthSpec, RealHealth};
use crate::mark::MarkMatch;
use crate::policy::PolicyChoices;
use crate::service::{RealId, RealSpec, ServiceId, ServiceSpec};
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, IntoDeserializer, MapAccess, VariantAccess,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use std::fmt;

/// Name of the tag.
const TAG: &str = "change";

/// The variants of [`Change`]; the compiler holds the two together.
#[derive(Deserialize)]
#[serde(remote = "Change", rename_all = "snake_case")]
enum Variants {
    AddService {
        service: ServiceId,
        spec: ServiceSpec,
    },
    EditService {
        service: ServiceId,
        spec: ServiceSpec,
    },
    DeleteService {
        service: ServiceId,
    },
    Flush,
    AddReal {
        service: ServiceId,
        real: RealId,
        spec: RealSpec,
    },
    EditReal {
        service: ServiceId,
        real: RealId,
        spec: RealSpec,
    },
    DeleteReal {
        service: ServiceId,
        real: RealId,
    },
    Zero {
        service: Option<ServiceId>,
    },
    SetPolicy {
        service: Option<ServiceId>,
        #[serde(default)]
        forget: bool,
        choices: PolicyChoices,
    },
    SetSetting {
        name: String,
        value: u32,
    },
    AddMark {
        #[serde(rename = "match")]
        matched: MarkMatch,
        mark: u32,
    },
    DeleteMark {
        #[serde(rename = "match")]
        matched: MarkMatch,
    },
    SetHealth {
        service: ServiceId,
        health: HealthSpec,
    },
    SetRealHealth {
        service: ServiceId,
        real: RealId,
        health: RealHealth,
    },
    SetAdmission {
        service: ServiceId,
        admission: Admission,
    },
    SetDrain {
        service: ServiceId,
        real: RealId,
        drain: bool,
    },
    SetTimeouts {
        timeouts: Timeouts,
    },
}

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Change;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change, such as {\"change\":\"flush\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Change, A::Error> {
        let mut aside = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key != TAG {
                aside.insert(key, map.next_value()?);
                continue;
            }
            let tag = map.next_value::<String>()?;
            if aside.is_empty() {
                return Variants::deserialize(Tagged { tag, fields: map });
            }
            while let Some((key, value)) = map.next_entry()? {
                aside.insert(key, value);
            }
            let fields = MapDeserializer::new(aside.into_iter());
            return Variants::deserialize(Tagged { tag, fields }).map_err(A::Error::custom);
        }
        Err(A::Error::missing_field(TAG))
    }
}

/// A variant's name and its fields.
struct Tagged<A> {
    tag: String,
    fields: A,
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Tagged<A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Tagged<A> {
    type Error = A::Error;
    type Variant = Fields<A>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Fields<A>), A::Error> {
        Ok((seed.deserialize(self.tag.into_deserializer())?, Fields(self.fields)))
    }
}

/// The fields of a variant.
struct Fields<A>(A);

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn unit_variant(mut self) -> Result<(), A::Error> {
        // What it does not have is passed over, as everywhere.
        while self.0.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        seed.deserialize(MapAccessDeserializer::new(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_map(self.0)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        visitor.visit_map(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Change, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    const SERVICE: &str = r#"{"address":{"protocol":"tcp","address":"192.0.2.1","port":80}}"#;

    #[test]
    fn what_is_written_is_read_wherever_the_tag_stands() {
        let texts = [
            r#"{"change":"flush"}"#.to_owned(),
            r#"{"change":"set_timeouts","timeouts":{"tcp_s":1,"tcp_fin_s":2,"udp_s":3}}"#.to_owned(),
            format!(r#"{{"change":"zero","service":{SERVICE}}}"#),
            format!(r#"{{"change":"delete_service","service":{SERVICE}}}"#),
            format!(
                r#"{{"change":"add_real","service":{SERVICE},"real":{{"address":"2001:db8::1","port":8080}},"spec":{{"forwarding":"tunnel","weight":7,"upper_threshold":3,"lower_threshold":1,"tunnel":{{"type":"gue","port":6080,"checksum":"full"}}}}}}"#
            ),
            r#"{"change":"add_mark","match":{"protocol":"udp","address":"192.0.2.1","ports":{"range":{"first":1,"last":9}}},"mark":4}"#
                .to_owned(),
            r#"{"change":"set_policy","service":null,"forget":true,"choices":{"gone":"keep"}}"#
                .to_owned(),
        ];
        for text in texts {
            let change = read(&text).expect("a change");
            assert_eq!(serde_json::to_string(&change).expect("JSON"), text);
            // The tag last, and something unknown.
            let (tag, fields) =
                text[1..text.len() - 1].split_once(',').unwrap_or((&text[1..text.len() - 1], "\"x\":[{}]"));
            assert_eq!(read(&format!("{{{fields},{tag}}}")), Ok(change.clone()), "{text}");
            assert_eq!(read(&format!("{{{tag},\"y\":{{\"z\":1}},{fields}}}")), Ok(change), "{text}");
        }
    }

    #[test]
    fn what_is_no_change_is_refused_with_the_reason() {
        for (text, expected) in [
            ("{}", "missing field `change`"),
            ("7", "expected a change, such as"),
            (r#"{"change":"dance"}"#, "unknown variant `dance`, expected one of `add_service`"),
            (r#"{"change":"delete_service"}"#, "missing field `service`"),
            (r#"{"service":null,"change":"delete_service"}"#, "invalid type: null, expected"),
            (r#"{"change":"set_setting","name":"x","value":-1}"#, "invalid value: integer `-1`"),
        ] {
            let error = read(text).expect_err("no change");
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
