//! Scripts, and the files they are in.
//!
//! ```toml
//! [[script]]
//! name = "rr starts with the newest"
//! short = true                         # optional: the tests play it too
//! better = "why"                       # optional: why Sluice differs in the steps marked with ~
//! each = { weight = ["1", "5"] }       # optional: the script once for each value of {weight}
//! steps = '''
//! | -A -t 192.0.2.10:80 -s rr
//! tcp 198.51.100.1:1024 > 192.0.2.10:80 syn
//! -Ln
//! '''
//! ```
//! Steps are lines of [`Step`]; after `words A B`, `$1` stands for A, `$2` for B and `$3` for nothing. Empty lines and those that begin with `#` are left out.

use crate::step::{Step, StepError};
use crate::template::{Each, combinations, fill};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// A script could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file or folder.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML, or other TOML.
    #[error("{} is no file of scripts", .path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// A line of a script.
    #[error("script {script:?}, line {line:?}")]
    Line {
        /// Name of the script.
        script: String,
        /// The line.
        line: String,
        /// Why.
        #[source]
        source: StepError,
    },
    /// A step that differs on purpose, in a script that does not say why.
    #[error("script {script:?} marks steps with ~; add better = \"why\"")]
    NoReason {
        /// Name of the script.
        script: String,
    },
    /// Two scripts of one name.
    #[error("two scripts are called {name:?}; give one another name")]
    Twice {
        /// The name.
        name: String,
    },
}

/// Steps that are played on a director of its own.
#[derive(Clone, Debug)]
pub struct Script {
    /// Unique among the scripts played.
    pub name: String,
    /// Whether it belongs to the short part, which the tests play.
    pub short: bool,
    /// Why Sluice differs on purpose in the steps marked with `~`.
    pub better: Option<String>,
    /// The lines as written, and what they stand for.
    pub steps: Vec<(String, Step)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    script: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    short: bool,
    better: Option<String>,
    #[serde(default)]
    each: Each,
    steps: String,
}

impl Script {
    /// Reads a script from its lines.
    ///
    /// # Errors
    /// The first line that is no step.
    pub fn read(name: &str, text: &str) -> Result<Self, ScriptError> {
        let mut steps: Vec<(String, Step)> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(words) = line.strip_prefix("words ") {
                values = words.split_whitespace().map(str::to_owned).collect();
                continue;
            }
            let line = &with_values(line, &values);
            let step = Step::read(line.trim_start_matches('~').trim_start()).map_err(|source| {
                ScriptError::Line { script: name.to_owned(), line: line.clone(), source }
            })?;
            match (steps.last_mut(), step) {
                (Some((lines, Step::Restore(input))), Step::Restore(more)) => {
                    input.push_str(&more);
                    lines.push('\n');
                    lines.push_str(line);
                }
                (_, step) => steps.push((line.clone(), step)),
            }
        }
        Ok(Self { name: name.to_owned(), short: false, better: None, steps })
    }
}

/// Most values that a line can use.
const VALUES_MAX: usize = 9;

/// The line with `$1` and so on replaced by those values, and by nothing where there are fewer values.
fn with_values(line: &str, values: &[String]) -> String {
    let given = values.iter().map(String::as_str).chain(std::iter::repeat("")).take(VALUES_MAX);
    let numbered = given.enumerate();
    let line =
        numbered.fold(line.to_owned(), |line, (at, value)| line.replace(&format!("${}", at + 1), value));
    line.trim().to_owned()
}

/// The folder of the scripts of this repository.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Every script of the files `*.toml` in a folder, in the order of the files' names.
///
/// # Errors
/// [`ScriptError`].
pub fn read_all(directory: &Path) -> Result<Vec<Script>, ScriptError> {
    read_some(directory, |_, _| true)
}

/// Those scripts of a folder that are wanted by their name and by whether they are short.
///
/// # Errors
/// [`ScriptError`].
pub fn read_some(directory: &Path, wanted: impl Fn(&str, bool) -> bool) -> Result<Vec<Script>, ScriptError> {
    let read = |source| ScriptError::Read { path: directory.to_owned(), source };
    let entries: Vec<_> =
        std::fs::read_dir(directory).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    let mut paths: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "toml"));
    paths.sort();
    let (mut scripts, mut names) = (Vec::new(), BTreeSet::new());
    for path in paths {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ScriptError::Read { path: path.clone(), source })?;
        let file: File =
            toml::from_str(&text).map_err(|source| ScriptError::Toml { path: path.clone(), source })?;
        for written in file.script {
            for chosen in combinations(&written.each) {
                let words: Vec<String> = chosen.iter().map(|(_, value)| (*value).to_owned()).collect();
                let name = [written.name.clone()].into_iter().chain(words).collect::<Vec<_>>().join(", ");
                if !names.insert(name.clone()) {
                    return Err(ScriptError::Twice { name });
                }
                if !wanted(&name, written.short) {
                    continue;
                }
                let script = Script::read(&name, &fill(&written.steps, &chosen))?;
                let is_marked = script.steps.iter().any(|(line, _)| line.starts_with('~'));
                if is_marked && written.better.is_none() {
                    return Err(ScriptError::NoReason { script: script.name });
                }
                scripts.push(Script { short: written.short, better: written.better.clone(), ..script });
            }
        }
    }
    Ok(scripts)
}

/// Whether a name fits a pattern, in which `*` stands for any characters.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_of_the_repository_can_be_read() {
        let scripts = read_all(&directory()).expect("scripts");
        assert!(scripts.len() >= 60, "only {} scripts", scripts.len());
        assert!(scripts.iter().filter(|script| script.short).count() >= 10);
        assert!(scripts.iter().all(|script| !script.steps.is_empty()));
    }

    #[test]
    fn lines_of_a_restore_are_one_step() {
        let script =
            Script::read("s", "# no\n| -A -t 1.2.3.4:5\n| -A -t 1.2.3.4:6\n\n-Ln\n| -C").expect("script");
        assert_eq!(script.steps.len(), 3);
        let Step::Restore(input) = &script.steps[0].1 else { panic!("{:?}", script.steps[0]) };
        assert_eq!(input, "-A -t 1.2.3.4:5\n-A -t 1.2.3.4:6\n");
    }

    #[test]
    fn words_stand_for_values() {
        let script = Script::read("s", "words -t 192.0.2.10:80\n-A $1 $2\nwords -u\n-C").expect("script");
        let lines: Vec<&str> = script.steps.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(lines, ["-A -t 192.0.2.10:80", "-C"]);
        let lines = |words: &str| {
            let script =
                Script::read("s", &format!("words {words}\n$2 -e -t 192.0.2.10:80 $1")).expect("script");
            script.steps[0].0.clone()
        };
        assert_eq!(lines("-m ~"), "~ -e -t 192.0.2.10:80 -m");
        assert_eq!(lines("-g"), "-e -t 192.0.2.10:80 -g", "what is not given stands for nothing");
    }

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, expected) in [
            ("rr*", "rr, x", true),
            ("*x", "rr, x", true),
            ("r*,*x", "rr, x", true),
            ("rr", "rr, x", false),
            ("*y*", "rr, x", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
