//! The schema and the reference in docs/ are what the types say.
//!
//! `SLUICE_BLESS=1 cargo test -p sluice-cluster --test documents` writes them anew.

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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cluster-file.md");
    let page = fs::read_to_string(path).expect("the page");
    let mut examples = 0;
    for part in page.split("```toml\n").skip(1) {
        let example = part.split("```").next().unwrap_or_default();
        let parsed = cluster::parse(example, &plan::Options::default());
        assert_eq!(parsed.findings, [], "{example}");
        examples += 1;
    }
    assert!(examples >= 6, "{examples} examples");
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
