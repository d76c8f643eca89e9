//! Why a probe failed.

use std::fmt;
use std::io;

/// Why a probe failed, as a part of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// It failed.
pub(crate) fn fail<T>(reason: impl Into<String>) -> Result<T, Failure> {
    Err(Failure(reason.into()))
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let text = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
            io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
            io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
            io::ErrorKind::UnexpectedEof => "the connection was closed early".to_owned(),
            _ => error.to_string(),
        };
        Self(text)
    }
}

/// What a server said, short enough for one line and without control characters.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text: String =
        bytes.iter().take(SHOWN).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
    format!("\"{text}{}\"", if bytes.len() > SHOWN { "..." } else { "" })
}
