//! The laws of `laws`, on texts that are nearly right.

mod laws;

use laws::{check_file, check_import};
use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::path::Path;

/// The files in a folder of the repository.
fn files(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> =
        fs::read_dir(path).expect("the folder").map(|it| it.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("UTF-8")).collect()
}

/// One of the texts, with some parts cut out, replaced, or doubled.
fn nearly(texts: Vec<String>) -> impl Strategy<Value = String> {
    let cut = (
        any::<Index>(),
        0_usize..40,
        prop_oneof!["[ -~\\n]{0,12}", "\\PC{0,3}", Just("\0\u{feff}\r".to_owned())],
        any::<bool>(),
    );
    (any::<Index>(), prop::collection::vec(cut, 0..6)).prop_map(move |(which, cuts)| {
        let mut text: Vec<char> = texts[which.index(texts.len())].chars().collect();
        for (at, len, insert, doubled) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + len).min(text.len());
            let part: Vec<char> = if doubled { text[at..end].to_vec() } else { insert.chars().collect() };
            text.splice(if doubled { at..at } else { at..end }, part);
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_read_or_refused(text in nearly(files("../../fuzz/corpus/cluster_file"))) {
        check_file(text.as_bytes()).map_err(|problem| TestCaseError::fail(format!("{problem}\n---\n{text}")))?;
    }

    #[test]
    fn any_text_is_imported(text in nearly(files("tests/import"))) {
        check_import(&text).map_err(|problem| TestCaseError::fail(format!("{problem}\n---\n{text}")))?;
    }
}

#[test]
fn the_seeds_are_good() {
    for text in files("../../fuzz/corpus/cluster_file") {
        let parsed = cluster::parse(&text, &plan::Options::default());
        assert!(parsed.cluster.is_some(), "{:?}\n{text}", parsed.findings);
        check_file(text.as_bytes()).expect("the laws");
    }
}
