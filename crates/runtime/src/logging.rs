//! Structured logs to standard error, as text or as one JSON object a line.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable with the log filter, such as `debug` or `director=trace,info`.
pub const FILTER_VARIABLE: &str = "SLUICE_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A word that names no log format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a log format; say text or json")]
pub struct UnknownLogFormat(String);

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownLogFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter in the environment is malformed.
    #[error("the log filter in {FILTER_VARIABLE} is malformed; say a level such as info or debug")]
    Filter(#[source] tracing_subscriber::filter::FromEnvError),
    /// A logger is installed already.
    #[error("logging is set up already")]
    Installed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sets up logging for the process: level `info` unless [`FILTER_VARIABLE`] says otherwise.
///
/// # Errors
/// [`LoggingError`]; nothing is changed then.
pub fn init(format: LogFormat) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var(FILTER_VARIABLE)
        .from_env()
        .map_err(LoggingError::Filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(LoggingError::Installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_and_shown_alike() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "xml".parse::<LogFormat>().expect_err("no such format");
        assert_eq!(error.to_string(), "'xml' is not a log format; say text or json");
    }

    #[test]
    fn a_second_set_up_is_refused() {
        init(LogFormat::Json).expect("first set-up");
        let error = init(LogFormat::Text).expect_err("second set-up");
        assert_eq!(error.to_string(), "logging is set up already");
    }
}
