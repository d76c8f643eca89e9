//! The tables whose keys are no fields: settings by name, marks by number.

use crate::finding::Finding;
use crate::read::{At, Node, Reader, Value, hint, inline};
use crate::values::{Many, Match, whole};
use api::{MEANINGLESS, SETTINGS, Setting};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use toml::de::DeValue;

/// Settings by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsTable(pub Vec<(&'static str, At<u32>)>);

impl Value for SettingsTable {
    fn expected() -> String {
        "a table of settings, such as [settings]".to_owned()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let DeValue::Table(table) = node.get_ref() else { return reader.mismatch::<Self>(node) };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut settings = Vec::new();
        for (key, node) in entries {
            let Some(setting) = Setting::named(key.get_ref()) else {
                reader.findings.push(Finding::error(key.span(), unknown(key.get_ref())));
                continue;
            };
            let number = whole(node).and_then(|number| u32::try_from(number).ok());
            match number.filter(|number| (setting.least..=setting.most).contains(number)) {
                Some(value) => settings.push((setting.name, At { value, span: node.span() })),
                None => {
                    let found = reader.found(node);
                    let Setting { least, most, meaning, .. } = setting;
                    let message =
                        format!("found {found}, expected a whole number, {least} to {most} ({meaning})");
                    reader.error(node.span(), message);
                }
            }
        }
        Some(Self(settings))
    }

    fn write(&self) -> String {
        inline(self.0.iter().map(|(name, at)| ((*name).to_owned(), at.value.to_string())))
    }
}

/// Why there is no setting of this name.
fn unknown(name: &str) -> String {
    match MEANINGLESS.iter().find(|(meaningless, _)| *meaningless == name) {
        Some((_, why)) => format!("{name} has no meaning here: {why}"),
        None => {
            let hint = hint(name, SETTINGS.iter().map(|setting| setting.name), "there are none");
            format!("there is no setting `{name}': {hint}")
        }
    }
}

impl JsonSchema for SettingsTable {
    fn schema_name() -> Cow<'static, str> {
        "Settings".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let property = |setting: &Setting| {
            let value = serde_json::json!({
                "type": "integer",
                "minimum": setting.least,
                "maximum": setting.most,
                "description": format!("{}. Default {}.", setting.meaning, setting.default),
            });
            (setting.name.to_owned(), value)
        };
        let properties: serde_json::Map<_, _> = SETTINGS.iter().map(property).collect();
        json_schema!({
            "type": "object",
            "description": "What IPVS has as sysctls.",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

/// Matches by mark.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MarksTable(pub Vec<(At<u32>, Many<Match>)>);

impl Value for MarksTable {
    fn expected() -> String {
        "a table of marks, such as [marks]".to_owned()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let DeValue::Table(table) = node.get_ref() else { return reader.mismatch::<Self>(node) };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut marks = Vec::new();
        for (key, node) in entries {
            let mark = key.get_ref().parse().ok().filter(|mark: &u32| *mark > 0);
            if mark.is_none() {
                let message =
                    format!("`{}' is no mark: marks are numbers from 1 to 4294967295", key.get_ref());
                reader.error(key.span(), message);
            }
            let matches = Many::<Match>::read(node, reader);
            if let Some((value, matches)) = mark.zip(matches) {
                marks.push((At { value, span: key.span() }, matches));
            }
        }
        Some(Self(marks))
    }

    fn write(&self) -> String {
        inline(self.0.iter().map(|(mark, matches)| (mark.value.to_string(), matches.write())))
    }
}

impl JsonSchema for MarksTable {
    fn schema_name() -> Cow<'static, str> {
        "Marks".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let matches = generator.subschema_for::<Many<Match>>();
        json_schema!({
            "type": "object",
            "description": "Packets that get a firewall mark; the keys are the marks.",
            "propertyNames": { "pattern": "^[1-9][0-9]{0,9}$" },
            "additionalProperties": matches,
        })
    }
}
