//! The configuration last accepted, on disk: a JSON file that is replaced as a whole.

use api::Changes;
use plan::{Model, Options};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Version of the file.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
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
    #[error("{} has version {found}, this director reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// What it declares is refused now, mostly because limits are lower than they were.
    #[error("{} cannot be applied (change {number} of its list)", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Which change, counted from 1.
        number: usize,
        /// Why.
        #[source]
        source: api::Refusal,
    },
}

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file in this directory, which is made if it is missing.
    pub(crate) fn in_directory(directory: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(directory).map_err(|source| StateError::File {
            operation: "make the directory",
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self { path: directory.join("model.json") })
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The model and its generation; `None` when nothing was ever saved.
    pub(crate) fn load(&self, options: Options) -> Result<Option<(Model, u64)>, StateError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("read")(source)),
        };
        let saved: Saved = serde_json::from_slice(&text)
            .map_err(|source| StateError::Malformed { path: self.path.clone(), source })?;
        if saved.version != VERSION {
            return Err(StateError::Version { path: self.path.clone(), found: saved.version });
        }
        let mut model = Model::new(options);
        for (at, change) in saved.configuration.changes.iter().enumerate() {
            model.apply(change).map_err(|source| StateError::Refused {
                path: self.path.clone(),
                number: at + 1,
                source,
            })?;
        }
        Ok(Some((model, saved.generation)))
    }

    /// Replaces the file; after a crash there is the old one or the new one.
    pub(crate) fn save(&self, model: &Model, generation: u64) -> Result<(), StateError> {
        let saved = Saved { version: VERSION, generation, configuration: model.to_changes() };
        let mut text = serde_json::to_vec_pretty(&saved)
            .map_err(|source| StateError::Malformed { path: self.path.clone(), source })?;
        text.push(b'\n');
        let next = self.path.with_extension("json.next");
        let write = || -> io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&next, &self.path)?;
            // The new name must be on disk too.
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(self.failed("write"))
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> StateError {
        let path = self.path.clone();
        move |source| StateError::File { operation, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Change, Protocol, SchedulerFlags, ServiceId, ServiceSpec, Timeouts};

    fn model() -> Model {
        let mut model = Model::new(Options::default());
        let service = ServiceId::Address {
            protocol: Protocol::Tcp,
            address: "192.0.2.1".parse().expect("address"),
            port: 80,
        };
        let spec = ServiceSpec {
            scheduler: "wlc".to_owned(),
            scheduler_flags: SchedulerFlags::default(),
            persistence: None,
            persistence_engine: None,
            one_packet: false,
        };
        model.apply(&Change::AddService { service, spec }).expect("added");
        let timeouts = Timeouts { tcp_s: 100, tcp_fin_s: 0, udp_s: 0 };
        model.apply(&Change::SetTimeouts { timeouts }).expect("set");
        model
    }

    #[test]
    fn what_was_saved_is_read_back() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = StateFile::in_directory(&directory.path().join("a/b")).expect("directory");
        assert!(file.load(Options::default()).expect("nothing yet").is_none());
        let model = model();
        file.save(&model, 41).expect("first");
        file.save(&model, 42).expect("second");
        assert_eq!(file.load(Options::default()).expect("read"), Some((model, 42)));
    }

    #[test]
    fn a_spoilt_file_is_named_and_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = StateFile::in_directory(directory.path()).expect("directory");
        for (text, expected) in [
            ("{\"version\": 1, \"gener", "cannot understand "),
            (
                "{\"version\":9,\"generation\":1,\"configuration\":{\"atomic\":true,\"changes\":[]}}",
                "has version 9",
            ),
        ] {
            std::fs::write(directory.path().join("model.json"), text).expect("write");
            let error = file.load(Options::default()).expect_err("spoilt");
            assert!(error.to_string().contains(expected), "{error}");
        }
        file.save(&model(), 1).expect("saved");
        let limits = abi::Limits { services_max: 0, ..abi::Limits::default() };
        let error = file.load(Options { limits, ..Options::default() }).expect_err("too many");
        assert!(matches!(error, StateError::Refused { number: 2, .. }), "{error:?}");
    }
}
