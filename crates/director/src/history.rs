//! Configurations that were applied as a whole, on disk, and the one that is still to be confirmed.
//!
//! A record is written before its generation is accepted. One whose generation was never accepted (the daemon was killed in
//! between) is removed at the next start, so the history never tells of what was not.

use crate::state::StateError;
use crate::trial::Baseline;
use api::{AppliedFile, Changes, HistoryEntry, Pending};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Records kept; the oldest goes.
const RECORDS_MAX: usize = 100;

/// A configuration that was applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) entry: HistoryEntry,
    /// What makes it out of an empty one.
    pub(crate) configuration: Changes,
    /// The cluster file, if it came from one.
    #[serde(default)]
    pub(crate) text: Option<String>,
}

/// What is to be confirmed, and what its traffic is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OnTrial {
    #[serde(flatten)]
    pub(crate) pending: Pending,
    /// A former release wrote none; then there is only the deadline.
    #[serde(default)]
    pub(crate) baseline: Option<Baseline>,
}

/// The records.
#[derive(Clone, Debug)]
pub(crate) struct HistoryFiles {
    directory: PathBuf,
    pending: PathBuf,
}

impl HistoryFiles {
    /// Those in a directory, which is made with the first record. What belongs to generations after the present one is removed.
    pub(crate) fn in_directory(state: &Path, generation: u64) -> Result<Self, StateError> {
        let files = Self { directory: state.join("history"), pending: state.join("confirm.json") };
        for number in files.numbers()? {
            if number > generation {
                remove(&files.path(number))?;
            }
        }
        if let Some(OnTrial { pending, baseline }) = files.on_trial()? {
            if pending.generation > generation || pending.replaced_by.is_some_and(|it| it <= generation) {
                remove(&files.pending)?;
            } else if pending.replaced_by.is_some() {
                // What was to replace it was never accepted.
                let pending = Pending { replaced_by: None, ..pending };
                write(&files.pending, &OnTrial { pending, baseline })?;
            }
        }
        Ok(files)
    }

    /// Writes a record and forgets the oldest ones.
    pub(crate) fn add(&self, record: &Record) -> Result<(), StateError> {
        std::fs::create_dir_all(&self.directory).map_err(failed("make the directory", &self.directory))?;
        write(&self.path(record.entry.generation), record)?;
        let numbers = self.numbers()?;
        let old = numbers.len().saturating_sub(RECORDS_MAX);
        numbers.iter().take(old).try_for_each(|number| remove(&self.path(*number)))
    }

    /// Takes a record back.
    pub(crate) fn remove(&self, generation: u64) -> Result<(), StateError> {
        remove(&self.path(generation))
    }

    /// One record.
    pub(crate) fn get(&self, generation: u64) -> Result<Option<Record>, StateError> {
        read(&self.path(generation))
    }

    /// The cluster file that a configuration of this number came from, or is the last one before it.
    pub(crate) fn file_at(&self, generation: u64) -> Result<Option<AppliedFile>, StateError> {
        for number in self.numbers()?.into_iter().rev().filter(|number| *number <= generation) {
            if let Some(Record { entry, text: Some(text), .. }) = self.get(number)? {
                return Ok(Some(AppliedFile { generation: number, source: entry.source, text }));
            }
        }
        Ok(None)
    }

    /// All of them, oldest first, without their contents.
    pub(crate) fn entries(&self) -> Result<Vec<HistoryEntry>, StateError> {
        let records = self.numbers()?.into_iter().map(|number| self.get(number));
        records.filter_map(|it| it.map(|it| it.map(|it| it.entry)).transpose()).collect()
    }

    /// What is to be confirmed.
    pub(crate) fn pending(&self) -> Result<Option<Pending>, StateError> {
        Ok(self.on_trial()?.map(|it| it.pending))
    }

    /// The same with what it is compared with.
    pub(crate) fn on_trial(&self) -> Result<Option<OnTrial>, StateError> {
        read(&self.pending)
    }

    /// Something is to be confirmed, or no longer.
    pub(crate) fn set_on_trial(&self, on_trial: Option<&OnTrial>) -> Result<(), StateError> {
        match on_trial {
            Some(on_trial) => write(&self.pending, on_trial),
            None => remove(&self.pending),
        }
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.directory.join(format!("{generation}.json"))
    }

    fn numbers(&self) -> Result<Vec<u64>, StateError> {
        let read = || -> io::Result<Vec<u64>> {
            let mut numbers = Vec::new();
            let entries = match std::fs::read_dir(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
                entries => entries?,
            };
            for entry in entries {
                let name = entry?.file_name();
                // Half-written ones have another ending.
                let number: Option<u64> =
                    name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|it| it.parse().ok());
                numbers.extend(number);
            }
            numbers.sort_unstable();
            Ok(numbers)
        };
        read().map_err(failed("read", &self.directory))
    }
}

/// Reads a file; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", path)(source)),
    };
    let read = serde_json::from_slice(&text).map(Some);
    read.map_err(|source| StateError::Malformed { path: path.to_owned(), source })
}

/// Replaces a file; after a crash there is the old one or the new one.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let text = serde_json::to_vec(value)
        .map_err(|source| StateError::Malformed { path: path.to_owned(), source })?;
    let next = path.with_extension("json.next");
    let write = || -> io::Result<()> {
        let mut file = File::create(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        sync_directory(path)
    };
    write().map_err(failed("write", path))
}

fn remove(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed("remove", path)(source)),
        Ok(()) => sync_directory(path).map_err(failed("write", path)),
    }
}

/// Names must be on disk too.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| StateError::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64) -> Record {
        let entry = HistoryEntry { generation, time_ms: 5, source: "web.toml".to_owned(), services: 0 };
        let configuration = Changes { atomic: true, changes: Vec::new() };
        Record { entry, configuration, text: Some("# nothing".to_owned()) }
    }

    #[test]
    fn records_are_kept_up_to_a_number_and_none_of_what_was_not_accepted() {
        let state = tempfile::tempdir().expect("a directory");
        let files = HistoryFiles::in_directory(state.path(), 0).expect("files");
        for generation in 1..=RECORDS_MAX as u64 + 3 {
            files.add(&record(generation)).expect("kept");
        }
        let entries = files.entries().expect("entries");
        assert_eq!((entries.len(), entries[0].generation), (RECORDS_MAX, 4));
        assert_eq!(files.get(3).expect("read").map(|it| it.entry.generation), None);
        assert_eq!(files.get(4).expect("read").and_then(|it| it.text).as_deref(), Some("# nothing"));
        let pending = Pending { generation: 103, back_to: 102, deadline_ms: 9, replaced_by: None };
        let of = |pending| OnTrial { pending, baseline: Some(Baseline::default()) };
        files.set_on_trial(Some(&of(pending))).expect("pending");
        std::fs::write(state.path().join("history/104.json.next"), "{").expect("write");

        let again = HistoryFiles::in_directory(state.path(), 103).expect("files");
        assert_eq!(again.on_trial().expect("pending"), Some(of(pending)));
        assert_eq!(again.entries().expect("entries").len(), RECORDS_MAX);
        // Killed while something was to replace it: after the record, and after the configuration.
        let replaced = Pending { replaced_by: Some(104), ..pending };
        again.set_on_trial(Some(&of(replaced))).expect("pending");
        let earlier = HistoryFiles::in_directory(state.path(), 103).expect("files");
        assert_eq!(earlier.on_trial().expect("pending"), Some(of(pending)));
        earlier.set_on_trial(Some(&of(replaced))).expect("pending");
        let later = HistoryFiles::in_directory(state.path(), 104).expect("files");
        assert_eq!(later.pending().expect("pending"), None);
        // A change by hand is no confirmation.
        later.set_on_trial(Some(&of(pending))).expect("pending");
        let later = HistoryFiles::in_directory(state.path(), 105).expect("files");
        assert_eq!(later.pending().expect("pending"), Some(pending));
        // Killed after the records and before the configuration.
        let earlier = HistoryFiles::in_directory(state.path(), 102).expect("files");
        assert_eq!(earlier.pending().expect("pending"), None);
        assert_eq!(earlier.entries().expect("entries").last().map(|it| it.generation), Some(102));
    }

    #[test]
    fn what_a_former_release_left_to_be_confirmed_is_read() {
        let state = tempfile::tempdir().expect("a directory");
        let text = r#"{"generation":3,"back_to":2,"deadline_ms":9}"#;
        std::fs::write(state.path().join("confirm.json"), text).expect("write");
        let files = HistoryFiles::in_directory(state.path(), 3).expect("files");
        let pending = Pending { generation: 3, back_to: 2, deadline_ms: 9, replaced_by: None };
        assert_eq!(files.on_trial().expect("pending"), Some(OnTrial { pending, baseline: None }));
    }
}
