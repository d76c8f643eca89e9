//! What the types say of the file: a JSON schema for editors, and a reference for people.

use crate::check_table::{Check, Expect, Octets, Tls};
use crate::file::{
    Director, Fallback, File, HoldDown, LogicalCluster, Passive, Persistence, Policy, Server, Service,
    Timeouts, Tunnel, Use,
};
use crate::read::Record;
use crate::settings::{MarksTable, SettingsTable};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;
use std::fmt::Write as _;

/// The JSON schema of the file, with a newline at its end.
#[must_use]
pub fn schema() -> String {
    let mut schema = of::<File>();
    schema["title"] = "Sluice cluster file".into();
    format!("{schema:#}\n")
}

/// The schema of a type. What may be left out is not `null` then, which TOML does not have.
fn of<T: JsonSchema>() -> Value {
    let mut schema = schema_for!(T).to_value();
    without_null(&mut schema);
    schema
}

fn without_null(schema: &mut Value) {
    if let Some(parts) = schema.as_array_mut() {
        parts.iter_mut().for_each(without_null);
    }
    let Some(keys) = schema.as_object_mut() else { return };
    keys.values_mut().for_each(without_null);
    for list in ["type", "enum", "anyOf"] {
        let Some(choices) = keys.get_mut(list).and_then(Value::as_array_mut) else { continue };
        choices.retain(|choice| !choice.is_null() && *choice != "null" && choice["type"] != "null");
        if list != "enum" && choices.len() == 1 {
            let only = choices.remove(0);
            keys.remove(list);
            match only {
                Value::Object(inner) => {
                    for (key, value) in inner {
                        keys.entry(key).or_insert(value);
                    }
                }
                only => {
                    keys.insert(list.to_owned(), only);
                }
            }
        }
    }
}

/// What a type of the schema is called, and where it is described.
const TABLES: [(&str, &str); 17] = [
    ("Timeouts", "timeouts"),
    ("Settings", "settings"),
    ("Policy", "policy"),
    ("Director", "directorname"),
    ("Server", "servername"),
    ("LogicalCluster", "clustername"),
    ("Check", "checkname"),
    ("Service", "servicename-and-templatename"),
    ("Marks", "marks"),
    ("Use", "a-server-of-a-service"),
    ("Fallback", "fallback"),
    ("Persistence", "persistence"),
    ("Tunnel", "tunnel"),
    ("HoldDown", "hold_down"),
    ("Passive", "passive"),
    ("Tls", "tls"),
    ("Expect", "expect"),
];

/// The reference of the file, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = "# Cluster file: reference\n\n\
        Every table and key of the [cluster file](cluster-file.md). This page is made from the types that read the file; \
        so is its [JSON schema](cluster-file.schema.json), which `sluice schema` prints.\n\n\
        A key that may have a list may have one value without brackets. Times have a unit (`500ms`, `2s`, `5m`, `1h`, `1d`). \
        Names are 1 to 63 letters, digits, and `.` `_` `-`.\n"
        .to_owned();
    record::<File>(&mut text, "The file");
    record::<Server>(&mut text, "`[server.NAME]`");
    record::<LogicalCluster>(&mut text, "`[cluster.NAME]`");
    record::<Service>(&mut text, "`[service.NAME]` and `[template.NAME]`");
    record::<Use>(&mut text, "A server of a service");
    record::<Persistence>(&mut text, "`persistence`");
    record::<Tunnel>(&mut text, "`tunnel`");
    record::<Fallback>(&mut text, "`fallback`");
    record::<HoldDown>(&mut text, "`hold_down`");
    record::<Passive>(&mut text, "`passive`");
    record::<Check>(&mut text, "`[check.NAME]`");
    record::<Tls>(&mut text, "`tls`");
    record::<Expect>(&mut text, "`expect`");
    record::<Octets>(&mut text, "Bytes");
    record::<Timeouts>(&mut text, "`[timeouts]`");
    settings(&mut text);
    record::<Policy>(&mut text, "`[policy]`");
    marks(&mut text);
    record::<Director>(&mut text, "`[director.NAME]`");
    text
}

/// A section with a row for each key.
fn record<R: Record>(text: &mut String, heading: &str) {
    let schema = of::<R>();
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "\n## {heading}\n\n{}\n\n| key | value | meaning |\n| --- | --- | --- |\n",
        description(&schema)
    );
    for key in R::KEYS {
        let property = &schema["properties"][*key];
        let must = if required.contains(key) { " (must be there)" } else { "" };
        let _ = writeln!(text, "| `{key}`{must} | {} | {} |", kind(property), cell(&description(property)));
    }
}

fn settings(text: &mut String) {
    let schema = of::<SettingsTable>();
    let _ = write!(
        text,
        "\n## `[settings]`\n\n{}\n\n| key | value | meaning |\n| --- | --- | --- |\n",
        description(&schema)
    );
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "| `{name}` | {} | {} |", kind(property), cell(&description(property)));
    }
}

fn marks(text: &mut String) {
    let schema = of::<MarksTable>();
    let _ = write!(
        text,
        "\n## `[marks]`\n\n{}\n\n| key | value | meaning |\n| --- | --- | --- |\n| a mark, 1 to 4294967295 | {} | What gets it. |\n",
        description(&schema),
        kind(&schema["additionalProperties"])
    );
}

fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ")
}

/// What may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What a value is, in few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let known = TABLES.iter().find(|(known, _)| *known == name);
        return match known {
            Some((_, anchor)) => format!("[table](#{anchor})"),
            None => "[bytes](#bytes)".to_owned(),
        };
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> =
            words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices_text(choices);
    }
    match (schema["type"].as_str(), schema["title"].as_str()) {
        (Some("boolean"), _) => "`true`, `false`".to_owned(),
        (Some("integer"), _) => format!("{} to {}", schema["minimum"], schema["maximum"]),
        (_, Some(title)) => cell(title),
        (Some("object"), _) => format!("{}s by name", kind(&schema["additionalProperties"])),
        _ => "text".to_owned(),
    }
}

fn choices_text(choices: &[Value]) -> String {
    let texts = choices.iter().map(|choice| match choice["type"].as_str() {
        Some("array") => "a list".to_owned(),
        _ => kind(choice),
    });
    texts.collect::<Vec<_>>().join(", or ")
}
