//! The cluster's secret: what the keys of hashes are made of, so that nobody outside can tell where a client goes.
//!
//! A file, because all directors of a cluster need the same one: whoever takes over a flow that is placed by hash has to
//! place it alike.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a secret; the file has them as hexadecimal digits, and a line end.
const LEN: usize = 32;
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 4096;
/// Who may read and write the file: its owner.
const MODE: u32 = 0o600;

/// The file of the secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("cannot {operation} the secret {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{} is no secret: expected 64 hexadecimal digits; copy the file of another director, or remove it to have a new one made",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// No random numbers.
    #[error("cannot make a secret")]
    Random(#[from] runtime::random::RandomError),
}

/// The keys that are made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Secret {
    /// Of the hash schedulers.
    pub(crate) placement_key: [u64; 2],
    /// Of the placement without flows, and of calls.
    pub(crate) overflow_key: [u64; 2],
}

/// A secret, and its text where it is in no file yet.
#[derive(Debug)]
pub(crate) struct Held {
    /// The secret.
    pub(crate) secret: Secret,
    unsaved: Option<String>,
    path: PathBuf,
}

impl Held {
    /// The secret in this file; where there is none, a new one, for [`Held::keep`].
    pub(crate) fn load_or_make(path: &Path) -> Result<Self, SecretError> {
        let (text, unsaved) = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (random_text()?, true),
            Err(error) => return Err(failed("read", path)(error)),
            Ok(file) => (read(file, path)?, false),
        };
        let secret = parse(&text).ok_or_else(|| SecretError::Malformed { path: path.to_owned() })?;
        Ok(Self { secret, unsaved: unsaved.then_some(text), path: path.to_owned() })
    }

    /// Writes a new secret into its file. Not before all else has gone well: a start that fails leaves nothing behind.
    pub(crate) fn keep(self) -> Result<(), SecretError> {
        let Some(text) = self.unsaved else { return Ok(()) };
        write(&self.path, &text).map_err(failed("write", &self.path))?;
        tracing::info!(secret = %self.path.display(), "made a secret: other directors of this cluster need a copy");
        Ok(())
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretError {
    let path = path.to_owned();
    move |source| SecretError::File { operation, path, source }
}

fn read(file: File, path: &Path) -> Result<String, SecretError> {
    let mode = file.metadata().map_err(failed("read", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(secret = %path.display(), "others may read the secret: chmod 600");
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn random_text() -> Result<String, SecretError> {
    let mut text = String::new();
    for _ in 0..LEN / size_of::<u64>() {
        text += &format!("{:016x}", runtime::random::random_u64()?);
    }
    text.push('\n');
    Ok(text)
}

/// Writes the file whole or not at all, and never over one that came to be meanwhile.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let next = path.with_extension("next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&next, path);
    std::fs::remove_file(&next)?;
    linked?;
    File::open(directory)?.sync_all()
}

fn parse(text: &str) -> Option<Secret> {
    let digits = text.trim_end();
    if digits.len() != 2 * LEN || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let word = |at: usize| u64::from_str_radix(digits.get(16 * at..16 * at + 16)?, 16).ok();
    Some(Secret { placement_key: [word(0)?, word(1)?], overflow_key: [word(2)?, word(3)?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a start that goes well does.
    fn start(path: &Path) -> Result<Secret, SecretError> {
        let held = Held::load_or_make(path)?;
        let secret = held.secret;
        held.keep().map(|()| secret)
    }

    #[test]
    fn a_secret_is_made_once_for_its_owner_alone_and_read_again() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("secret");
        let made = start(&path).expect("made");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, MODE);
        assert_eq!(start(&path).expect("read"), made);
        assert_ne!(made.placement_key, made.overflow_key);
        // Another director has another one, until it gets a copy.
        let other = directory.path().join("other");
        assert_ne!(start(&other).expect("made"), made);
        std::fs::copy(&path, &other).expect("copied");
        assert_eq!(start(&other).expect("read"), made);
        assert_eq!(std::fs::read_dir(directory.path()).expect("list").count(), 2, "nothing else is left");
    }

    #[test]
    fn what_is_no_secret_is_refused_and_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("secret");
        for text in ["", "00", &"x".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            std::fs::write(&path, text).expect("written");
            let error = start(&path).expect_err(text);
            assert!(error.to_string().contains("expected 64 hexadecimal digits"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).expect("kept"), text);
        }
        let error = start(&directory.path().join("no/where")).expect_err("no directory");
        assert!(error.to_string().starts_with("cannot write the secret"), "{error}");
    }
}
