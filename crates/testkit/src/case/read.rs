//! Files -> cases.
//!
//! `tables.toml` holds the named tables and words that every file may use. A word `{client}` in a
//! packet text stands for its text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Case, Flow, Service, Step, Tables, Template};

/// The file with the tables that all others may name.
const SHARED: &str = "tables.toml";

/// Why the cases could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// A file or the directory cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is not of the form.
    #[error("understand {path}")]
    Form {
        /// Which.
        path: PathBuf,
        /// The cause, with line and column.
        #[source]
        source: toml::de::Error,
    },
    /// A case names tables that do not exist.
    #[error("{case}: there are no tables called {tables:?}")]
    NoTables {
        /// The case.
        case: String,
        /// The name.
        tables: String,
    },
    /// A packet text has an unknown word in braces.
    #[error("{case}: no word {{{word}}} is defined")]
    NoWord {
        /// The case.
        case: String,
        /// The word.
        word: String,
    },
    /// Two cases have the same name.
    #[error("two cases are called {case:?}")]
    Twice {
        /// The name.
        case: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    words: BTreeMap<String, String>,
    #[serde(default)]
    tables: BTreeMap<String, Tables>,
    #[serde(default)]
    case: Vec<Written>,
}

/// A case as it is written: the first step's fields stand in the case itself.
#[derive(Debug, Deserialize)]
struct Written {
    name: String,
    #[serde(default)]
    tables: String,
    /// Added to those of the tables.
    #[serde(default)]
    services: Vec<Service>,
    /// Added to those of the tables.
    #[serde(default)]
    flows: Vec<Flow>,
    /// Added to those of the tables.
    #[serde(default)]
    templates: Vec<Template>,
    #[serde(default)]
    established_full: bool,
    #[serde(default)]
    overflowed: bool,
    answers_per_second_max: Option<u64>,
    pmtu_disc: Option<bool>,
    #[serde(default)]
    settings: BTreeMap<String, u32>,
    #[serde(default)]
    routes: Vec<super::Route>,
    source_ports: Option<[u16; 2]>,
    #[serde(default)]
    wire: bool,
    #[serde(default)]
    then: Vec<Step>,
    #[serde(flatten)]
    step: toml::Table,
}

/// Every case of the directory, sorted by file name.
///
/// # Errors
/// The first file or case that is not as it should be.
pub fn read_all(directory: &Path) -> Result<Vec<Case>, CaseError> {
    let failed = |source| CaseError::Read { path: directory.to_owned(), source };
    let mut paths = BTreeSet::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with(SHARED) {
            paths.insert(path);
        }
    }
    let shared = read_file(&directory.join(SHARED))?;
    let mut names = BTreeSet::new();
    let mut cases = Vec::new();
    for path in paths {
        let file = read_file(&path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for written in file.case {
            let case = finish(
                &stem,
                &path,
                written,
                &[&file.tables, &shared.tables],
                &[&file.words, &shared.words],
            )?;
            if !names.insert(case.name.clone()) {
                return Err(CaseError::Twice { case: case.name });
            }
            cases.push(case);
        }
    }
    Ok(cases)
}

fn read_file(path: &Path) -> Result<File, CaseError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| CaseError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| CaseError::Form { path: path.to_owned(), source })
}

fn finish(
    stem: &str,
    path: &Path,
    written: Written,
    tables: &[&BTreeMap<String, Tables>],
    words: &[&BTreeMap<String, String>],
) -> Result<Case, CaseError> {
    let name = format!("{stem}: {}", written.name);
    let mut state = if written.tables.is_empty() {
        Tables::default()
    } else {
        let found = tables.iter().find_map(|named| named.get(&written.tables));
        found.cloned().ok_or_else(|| CaseError::NoTables { case: name.clone(), tables: written.tables })?
    };
    state.services.extend(written.services);
    state.flows.extend(written.flows);
    state.templates.extend(written.templates);
    state.established_full |= written.established_full;
    state.overflowed |= written.overflowed;
    state.routes.extend(written.routes);
    state.source_ports = written.source_ports.or(state.source_ports);
    state.answers_per_second_max = written.answers_per_second_max.or(state.answers_per_second_max);
    state.pmtu_disc = written.pmtu_disc.or(state.pmtu_disc);
    state.settings.extend(written.settings);
    let first: Step = written
        .step
        .try_into()
        .map_err(|source| CaseError::Form { path: path.join(&written.name), source })?;
    let mut steps = vec![first];
    steps.extend(written.then);
    for step in &mut steps {
        for text in [Some(&mut step.input), step.out.as_mut(), step.change.as_mut()].into_iter().flatten() {
            *text = replace_words(&name, text, words)?;
        }
    }
    Ok(Case { name, tables: state, wire: written.wire, steps })
}

fn replace_words(case: &str, text: &str, words: &[&BTreeMap<String, String>]) -> Result<String, CaseError> {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (word, after) = after.split_once('}').unwrap_or((after, ""));
        let meaning = words.iter().find_map(|known| known.get(word));
        let missing = || CaseError::NoWord { case: case.to_owned(), word: word.to_owned() };
        done.push_str(before);
        done.push_str(meaning.ok_or_else(missing)?);
        rest = after;
    }
    done.push_str(rest);
    Ok(done)
}
