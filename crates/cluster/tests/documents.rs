//! The schema and the reference in docs/ are what the types say.
//!
//! `SLUICE_BLESS=1 cargo test -p sluice-cluster --test documents` writes them anew.

use serde_json::Value;
use std::fs;
use std::path::Path;

fn check(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("SLUICE_BLESS").is_some() {
        fs::write(&path, expected).expect("docs/ can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/{name} is not what the types say: run with SLUICE_BLESS=1");
}

#[test]
fn the_reference_is_up_to_date() {
    check("cluster-file-reference.md", &cluster::reference());
}

#[test]
fn the_schema_is_up_to_date() {
    check("cluster-file.schema.json", &cluster::schema());
}

#[test]
fn the_examples_are_good() {
    for (page, least) in [("docs/cluster-file.md", 6), ("README.md", 1)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
        let page = fs::read_to_string(path).expect("the page");
        let mut examples = 0;
        for part in page.split("```toml\n").skip(1) {
            let example = part.split("```").next().unwrap_or_default();
            let parsed = cluster::parse(example, &plan::Options::default());
            assert_eq!(parsed.findings, [], "{example}");
            examples += 1;
        }
        assert!(examples >= least, "{examples} examples");
    }
}

#[test]
fn the_first_example_is_what_the_page_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cluster-file.md");
    let page = fs::read_to_string(path).expect("the page");
    let example =
        page.split("```toml\n").nth(1).and_then(|part| part.split("```").next()).expect("an example");
    let model =
        |text: &str| cluster::parse(text, &plan::Options::default()).cluster.map(|cluster| cluster.model);
    let good = model(example).expect("good");
    assert_eq!((good.services().len(), good.reals_len()), (4, 8));
    assert!(page.contains("good: 4 services with 8 real servers in all, 0 warnings"));
    let wrong = example
        .replace("weight = 2", "weight = \"two\"")
        .replace("[\"web1\", \"web2\"]", "[\"web1\", \"wbe2\"]");
    let lines = cluster::Lines::new(&wrong);
    for finding in cluster::parse(&wrong, &plan::Options::default()).findings {
        let text = finding.text("cluster.toml", &lines);
        assert!(page.contains(&text), "the page does not show\n{text}");
    }
}

/// Whether a value fits a schema, as far as ours go: a keyword that is not known here fails the test.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(keywords) = schema.as_object() else { return schema == &Value::Bool(true) };
    let known = |name: &str| schema["properties"].get(name).is_some();
    keywords.iter().all(|(keyword, wanted)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" | "examples" | "pattern" | "propertyNames" => true,
        "$ref" => {
            let pointer = wanted.as_str().and_then(|text| text.strip_prefix('#')).expect("inside the schema");
            fits(root, root.pointer(pointer).expect("a definition"), value)
        }
        "type" => match wanted.as_str().expect("one type") {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            other => panic!("no type {other}"),
        },
        "enum" => wanted.as_array().is_some_and(|words| words.contains(value)),
        "minimum" => value.as_i64() >= wanted.as_i64(),
        "maximum" => value.as_i64() <= wanted.as_i64(),
        "anyOf" => wanted.as_array().is_some_and(|list| list.iter().any(|one| fits(root, one, value))),
        "items" => value.as_array().is_none_or(|list| list.iter().all(|item| fits(root, wanted, item))),
        "required" => wanted
            .as_array()
            .is_some_and(|keys| keys.iter().all(|key| value.get(key.as_str().unwrap_or_default()).is_some())),
        "properties" => wanted.as_object().is_some_and(|keys| {
            keys.iter().all(|(key, one)| value.get(key).is_none_or(|value| fits(root, one, value)))
        }),
        "additionalProperties" => value
            .as_object()
            .is_none_or(|keys| keys.iter().all(|(key, value)| known(key) || fits(root, wanted, value))),
        other => panic!("no keyword {other}"),
    })
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    let schema: Value = serde_json::from_str(&cluster::schema()).expect("JSON");
    let read = |text: &str| {
        let table: toml::Table = toml::from_str(text).expect("TOML");
        serde_json::to_value(table).expect("JSON")
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/cluster_file");
    for entry in fs::read_dir(folder).expect("the seeds") {
        let path = entry.expect("a seed").path();
        let text = fs::read_to_string(&path).expect("UTF-8");
        assert!(fits(&schema, &schema, &read(&text)), "{}", path.display());
    }
    for wrong in [
        "[server.a]\nweight = 1\n",
        "[server.a]\naddress = 1\n",
        "[server.a]\naddress = \"10.0.0.1\"\nweight = -1\n",
        "[service.s]\nschedular = \"rr\"\n",
        "[service.s]\nforward = \"dsr\"\n",
        "[service.s]\nservers = [{ weight = 1 }]\n",
        "[settings]\nconntrack = 1\n",
        "[marks]\n1 = 2\n",
        "page = 1\n",
    ] {
        assert!(!fits(&schema, &schema, &read(wrong)), "{wrong}");
    }
}
