//! The journal: changes accepted since the configuration was last written as a whole, one record a line.
//!
//! ```text
//! sluice-journal 1 <generation> <checksum>      the file that it follows
//! <generation> <checksum> [<change>, ...]       one accepted list of changes
//! ```
//!
//! A record is on disk before its changes are answered. One that was cut off, at whatever byte, is the last and not
//! whole: it does not count. Anything else that is wrong is an error, because what follows it would be lost.
//!
//! Deliberately absent: what the changes mean.

use crate::state::{StateError, file_error};
use api::Change;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Name and version of the format.
const MAGIC: &str = "sluice-journal 1";

/// Which whole configuration a journal follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// Its number.
    pub(crate) generation: u64,
    /// CRC-32 of its file.
    pub(crate) checksum: u32,
}

/// One accepted list of changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Number of the configuration that it leads to.
    pub(crate) generation: u64,
    pub(crate) changes: Vec<Change>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Open once something was appended.
    file: Option<File>,
    /// Bytes that count; 0 when what is there belongs to no present configuration.
    bytes: u64,
    /// Whether there may be bytes behind them.
    torn: bool,
}

impl Journal {
    /// The journal of this name; nothing is opened yet.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, file: None, bytes: 0, torn: true }
    }

    /// Bytes of whole records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The records that follow this base. A journal that an older base has overtaken has none.
    pub(crate) fn read(&mut self, base: Base) -> Result<Vec<Record>, StateError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(file_error("read", &self.path)(source)),
        };
        let damaged = |line| StateError::Damaged { path: self.path.clone(), line };
        let mut lines = text.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let Some(header) = first.strip_suffix(b"\n") else { return Ok(Vec::new()) };
        let follows = parse_header(header).ok_or_else(|| damaged(1))?;
        let mut records = Vec::new();
        let mut bytes = first.len();
        let mut lines = lines.zip(2..).peekable();
        while let Some((line, number)) = lines.next() {
            match parse(line) {
                // Whole, but not understood: of a newer release.
                Some((generation, changes)) => {
                    let changes = serde_json::from_slice(changes).map_err(|_| damaged(number))?;
                    records.push(Record { generation, changes });
                }
                None if lines.peek().is_none() => {
                    tracing::warn!(path = %self.path.display(), "the last change was cut off: it does not count");
                    break;
                }
                None => return Err(damaged(number)),
            }
            bytes += line.len();
        }
        let last = records.last().map_or(0, |record| record.generation);
        if follows != base {
            let overtaken = follows.generation < base.generation && last <= base.generation;
            if records.is_empty() || overtaken {
                return Ok(Vec::new());
            }
            return Err(StateError::Stray { path: self.path.clone() });
        }
        for (record, generation) in records.iter().zip(base.generation + 1..) {
            if record.generation != generation {
                return Err(StateError::Missing { path: self.path.clone(), generation });
            }
        }
        self.bytes = bytes as u64;
        Ok(records)
    }

    /// Appends a record; when it returns, it is on disk. After an error it is not, or does not count.
    pub(crate) fn append(
        &mut self,
        base: Base,
        generation: u64,
        changes: &[&Change],
    ) -> Result<(), StateError> {
        let text = record(generation, changes).map_err(file_error("write", &self.path))?;
        self.write(base, &text).map_err(file_error("write", &self.path))
    }

    fn write(&mut self, base: Base, record: &[u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&self.path)?;
                // The name must be on disk before what counts.
                sync_directory_of(&self.path)?;
                file
            }
        };
        let file = self.file.insert(file);
        if self.torn {
            file.set_len(self.bytes)?;
        }
        let Base { generation, checksum } = base;
        let header =
            if self.bytes == 0 { format!("{MAGIC} {generation} {checksum:08x}\n") } else { String::new() };
        let text = [header.as_bytes(), record].concat();
        self.torn = true;
        let written = file.write_all_at(&text, self.bytes).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Nobody reads it, but it takes room. What stays is removed before the next record.
            self.torn = file.set_len(self.bytes).and_then(|()| file.sync_data()).is_err();
            return Err(error);
        }
        self.torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// A whole configuration has overtaken it: what is there does not count any more.
    pub(crate) fn overtaken(&mut self) {
        // Should the file stay, its records are older than the configuration, and the next record goes over them.
        let _ = std::fs::remove_file(&self.path);
        *self = Self::at(std::mem::take(&mut self.path));
    }

    /// Removes a journal of a configuration that somebody removed.
    pub(crate) fn remove(&mut self) -> Result<(), StateError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("remove", &self.path)(error))
            }
            _ => sync_directory_of(&self.path).map_err(file_error("remove", &self.path)),
        }
    }
}

/// Makes the names in a file's directory as lasting as the files.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn parse_header(line: &[u8]) -> Option<Base> {
    let rest = std::str::from_utf8(line).ok()?.strip_prefix(MAGIC)?.strip_prefix(' ')?;
    let (generation, checksum) = rest.split_once(' ')?;
    Some(Base { generation: generation.parse().ok()?, checksum: u32::from_str_radix(checksum, 16).ok()? })
}

/// CRC-32 of a record: its number is a part of it.
fn checksum(generation: u64, changes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(changes);
    hasher.finalize()
}

/// Number and changes of a whole line that is what it was; `None` for any other.
fn parse(line: &[u8]) -> Option<(u64, &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok();
    let (generation, sum) = (number()?.parse().ok()?, u32::from_str_radix(number()?, 16).ok()?);
    let changes = parts.next()?;
    (checksum(generation, changes) == sum).then_some((generation, changes))
}

fn record(generation: u64, changes: &[&Change]) -> io::Result<Vec<u8>> {
    let changes = serde_json::to_vec(changes)?;
    let mut text = format!("{generation} {:08x} ", checksum(generation, &changes)).into_bytes();
    text.extend_from_slice(&changes);
    text.push(b'\n');
    Ok(text)
}
