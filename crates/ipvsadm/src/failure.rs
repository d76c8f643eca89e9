//! A command line that failed: what to say on standard error and how to exit.

/// Why a command line failed. Displays as the classic text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Text for standard error, without the last newline.
    pub text: String,
    /// Exit code: 1 a failed listing, 2 a usage error, 255 a refusal or a parser error.
    pub code: u8,
    /// Whether the classic tool ends the whole program here, and with it a restore.
    pub ends_program: bool,
}

impl Failure {
    /// A usage error raised by the tool itself (exit 2).
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2, ends_program: true }
    }

    /// No command first (exit 255).
    pub(crate) fn try_help(program: &str) -> Self {
        Self {
            text: format!("Try `{program} -h' or '{program} --help' for more information."),
            code: 255,
            ends_program: true,
        }
    }

    /// The option scanner did not understand a word after the command (exit 255).
    pub(crate) fn scanner(word: &str, what: &str) -> Self {
        Self { text: format!("{word}: {what}"), code: 255, ends_program: false }
    }

    /// The director refused (exit 255).
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 255, ends_program: false }
    }

    /// A listing has nothing to list (exit 1).
    pub(crate) fn listing(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1, ends_program: true }
    }
}
