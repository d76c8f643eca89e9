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
