//! The configuration last accepted, on disk: `model.json`, which is replaced as a whole, and the journal of what was
//! accepted since (`model.journal`, see [`crate::journal`]).
//!
//! A small change costs a record of the journal. When the journal has grown beyond the file it follows, the whole is
//! written anew, and the journal begins again.

use crate::journal::{Base, Journal, Record, sync_directory_of};
use api::{Change, Changes, Refusal, RefusalKind};
use plan::{Model, Options};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Version of the file that is written. Since version 2 there may be a journal beside it.
const VERSION: u32 = 2;
/// The oldest version that is read.
const VERSION_MIN: u32 = 1;
/// A journal of so many bytes is not yet worth a new whole file.
const JOURNAL_BYTES_MIN: u64 = 1 << 20;
/// How many times as long as the file it follows the journal may become, when there was no quiet moment to begin again.
const JOURNAL_SHARE_MAX: u64 = 4;

/// What the file holds.
#[derive(Debug, Deserialize)]
struct Saved {
    version: u32,
    generation: u64,
    configuration: Changes,
}

/// The state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file or its directory cannot be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not JSON, or lacks something.
    #[error("cannot understand {}: restore it, or remove it to start without services", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The file is of another version.
    #[error("{} has version {found}, this director reads versions {VERSION_MIN} to {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A line of the journal is spoilt, and it is not the last one.
    #[error(
        "line {line} of {} is damaged: restore it, or remove it to lose the changes in it and go by model.json alone",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
    },
    /// A record of the journal is missing.
    #[error(
        "{} lacks change {generation}: restore it, or remove it to lose the changes in it and go by model.json alone",
        path.display()
    )]
    Missing {
        /// The journal.
        path: PathBuf,
        /// Number of the configuration that the record would lead to.
        generation: u64,
    },
    /// The journal follows another configuration.
    #[error(
        "{} follows another model.json than the one beside it: restore both together, or remove it to go by model.json alone",
        path.display()
    )]
    Stray {
        /// The journal.
        path: PathBuf,
    },
    /// What it declares is refused now, mostly because limits are lower than they were.
    #[error("{} cannot be applied (change {number} of its list {generation})", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Number of the configuration that the list leads to.
        generation: u64,
        /// Which change, counted from 1.
        number: usize,
        /// Why.
        #[source]
        source: Refusal,
    },
}

/// The files.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    journal: Journal,
    /// The whole configuration that is there, and its length in bytes; `None` when the next must be written whole.
    base: Option<(Base, u64)>,
    /// Whether there is a whole configuration of whatever version.
    exists: bool,
}

impl StateFile {
    /// The files in this directory, which is made if it is missing.
    pub(crate) fn in_directory(directory: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(directory).map_err(file_error("make the directory", directory))?;
        let journal = Journal::at(directory.join("model.journal"));
        Ok(Self { path: directory.join("model.json"), journal, base: None, exists: false })
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The model and its generation; `None` when nothing was ever saved.
    pub(crate) fn load(&mut self, options: Options) -> Result<Option<(Model, u64)>, StateError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(file_error("read", &self.path)(source)),
        };
        let saved: Saved = serde_json::from_slice(&text)
            .map_err(|source| StateError::Malformed { path: self.path.clone(), source })?;
        if !(VERSION_MIN..=VERSION).contains(&saved.version) {
            return Err(StateError::Version { path: self.path.clone(), found: saved.version });
        }
        self.exists = true;
        let base = Base { generation: saved.generation, checksum: crc32fast::hash(&text) };
        let whole = Record { generation: saved.generation, changes: saved.configuration.changes };
        let mut records = vec![(self.path.clone(), whole)];
        if saved.version == VERSION {
            self.base = Some((base, text.len() as u64));
            let path = self.path.with_extension("journal");
            records.extend(self.journal.read(base)?.into_iter().map(|record| (path.clone(), record)));
        }
        let mut model = Model::new(options);
        let mut reached = saved.generation;
        for (path, Record { generation, changes }) in records {
            // As a whole, as they may have been taken so.
            let (refusals, _) = model.change(&changes, true);
            let is_own = |refusal: &Refusal| refusal.kind != RefusalKind::Aborted;
            let refused =
                refusals.into_iter().zip(1..).find_map(|(refusal, at)| Some((refusal.filter(is_own)?, at)));
            if let Some((source, number)) = refused {
                return Err(StateError::Refused { path, generation, number, source });
            }
            reached = generation;
        }
        Ok(Some((model, reached)))
    }

    /// Keeps changes that led to `model`: when it returns, they are on disk. After a crash there is the configuration
    /// before them or the one after them.
    ///
    /// # Errors
    /// Nothing was kept.
    pub(crate) fn keep(
        &mut self,
        changes: &[&Change],
        model: &Model,
        generation: u64,
    ) -> Result<(), StateError> {
        let entries = model.services().len() + model.reals_len();
        match self.base {
            Some((base, bytes)) if changes.len() < entries => {
                if self.journal.bytes() > bytes.max(JOURNAL_BYTES_MIN).saturating_mul(JOURNAL_SHARE_MAX) {
                    return self.save(model, generation);
                }
                self.journal.append(base, generation, changes)
            }
            // A list as long as the whole, or nothing to follow.
            _ => self.save(model, generation),
        }
    }

    /// Whether the journal has grown so that the whole should be written anew ([`Self::save`]) at a quiet moment.
    pub(crate) fn has_grown(&self) -> bool {
        self.base.is_some_and(|(_, bytes)| self.journal.bytes() > bytes.max(JOURNAL_BYTES_MIN))
    }

    /// Replaces the file; after a crash there is the old one or the new one.
    pub(crate) fn save(&mut self, model: &Model, generation: u64) -> Result<(), StateError> {
        let text = whole(model, generation)
            .map_err(|source| StateError::Malformed { path: self.path.clone(), source })?;
        if !self.exists {
            // Somebody removed the configuration that it follows; it must not follow the new one.
            self.journal.remove()?;
        }
        let next = self.path.with_extension("json.next");
        let write = || -> io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&next, &self.path)?;
            // The new name must be on disk too.
            sync_directory_of(&self.path)
        };
        // From here on it may be the new one that is there, whatever the answer.
        self.base = None;
        write().map_err(file_error("write", &self.path))?;
        self.exists = true;
        self.journal.overtaken();
        self.base = Some((Base { generation, checksum: crc32fast::hash(&text) }, text.len() as u64));
        Ok(())
    }
}

/// The text of the file: JSON with a change on each line.
fn whole(model: &Model, generation: u64) -> Result<Vec<u8>, serde_json::Error> {
    let Changes { atomic, changes } = model.to_changes();
    let mut text = format!(
        "{{\"version\":{VERSION},\"generation\":{generation},\"configuration\":{{\"atomic\":{atomic},\"changes\":["
    )
    .into_bytes();
    for (change, separator) in changes.iter().zip(std::iter::once("\n").chain(std::iter::repeat(",\n"))) {
        text.extend_from_slice(separator.as_bytes());
        serde_json::to_writer(&mut text, change)?;
    }
    text.extend_from_slice(b"\n]}}\n");
    Ok(text)
}

/// Names the file in an error.
pub(crate) fn file_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { operation, path, source }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
