//! Structured logs to standard error: text for people, text for the journal, or one JSON object a line.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::str::FromStr;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Compact, DefaultFields, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::registry::LookupSpan;

/// The environment variable with the log filter, such as `debug` or `director=trace,info`.
pub const FILTER_VARIABLE: &str = "SLUICE_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// [`Self::Journal`] where standard error is the journal, else [`Self::Text`].
    #[default]
    Auto,
    /// For people.
    Text,
    /// For the journal of systemd: each line begins with its priority as sd-daemon(3) has it, without the time.
    Journal,
    /// One JSON object a line.
    Json,
}

/// A word that names no log format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a log format; say auto, text, journal or json")]
pub struct UnknownLogFormat(String);

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "journal" => Ok(Self::Journal),
            "json" => Ok(Self::Json),
            other => Err(UnknownLogFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Journal => "journal",
            Self::Json => "json",
        })
    }
}

/// Where systemd says which file the journal is: `DEVICE:INODE`.
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";

impl LogFormat {
    /// What `auto` means for this process, whose [`STREAM_VARIABLE`] is `stream`.
    fn resolve(self, stream: Option<&OsStr>) -> Self {
        match self {
            Self::Auto if stream.is_some_and(is_standard_error) => Self::Journal,
            Self::Auto => Self::Text,
            chosen => chosen,
        }
    }
}

/// Whether standard error is the journal of systemd.
#[must_use]
pub fn is_journal() -> bool {
    std::env::var_os(STREAM_VARIABLE).is_some_and(|stream| is_standard_error(&stream))
}

/// Whether a `DEVICE:INODE` is standard error. It may have been sent elsewhere, the variable being inherited.
fn is_standard_error(stream: &OsStr) -> bool {
    let Ok(file) = nix::sys::stat::fstat(std::io::stderr().as_fd()) else { return false };
    stream.to_str() == Some(&format!("{}:{}", file.st_dev, file.st_ino))
}

/// Lines with their priority in front. The journal has the time itself, and no line is read as two: line feeds within one
/// become blanks.
struct Prioritized(Format<Compact, ()>);

impl Default for Prioritized {
    fn default() -> Self {
        Self(Format::default().compact().without_time().with_level(false))
    }
}

impl<S> FormatEvent<S, DefaultFields> for Prioritized
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "<{}>{}", priority(*event.metadata().level()), line.trim_end().replace('\n', " "))
    }
}

/// The number of syslog(3) for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
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

/// Whether standard error takes colours: a terminal, and nobody who said otherwise (no-color.org).
fn wants_color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
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
    match format.resolve(std::env::var_os(STREAM_VARIABLE).as_deref()) {
        LogFormat::Auto | LogFormat::Text => builder.with_ansi(wants_color()).try_init(),
        LogFormat::Journal => builder.with_ansi(false).event_format(Prioritized::default()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(LoggingError::Installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_and_shown_alike() {
        for format in [LogFormat::Auto, LogFormat::Text, LogFormat::Journal, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "xml".parse::<LogFormat>().expect_err("no such format");
        assert_eq!(error.to_string(), "'xml' is not a log format; say auto, text, journal or json");
    }

    #[test]
    fn the_journal_is_recognized_by_its_file_alone() {
        let own = nix::sys::stat::fstat(std::io::stderr().as_fd()).expect("standard error");
        let own = std::ffi::OsString::from(format!("{}:{}", own.st_dev, own.st_ino));
        assert_eq!(LogFormat::Auto.resolve(Some(&own)), LogFormat::Journal);
        assert_eq!(LogFormat::Auto.resolve(None), LogFormat::Text);
        for other in ["", "1:", "0:0", "x:y", "1:2:3"] {
            assert_eq!(LogFormat::Auto.resolve(Some(OsStr::new(other))), LogFormat::Text, "{other}");
        }
        assert_eq!(LogFormat::Json.resolve(Some(&own)), LogFormat::Json, "what was chosen stays");
    }

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Page(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("page").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_for_the_journal_begin_with_their_priority() {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .event_format(Prioritized::default())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(error = %"first\n<0>second", "broken");
            tracing::warn!("odd");
            tracing::info!(services = 3, "ready");
            tracing::debug!("looking");
            tracing::trace!("breathing");
        });
        let page = String::from_utf8(page.0.lock().expect("page").clone()).expect("text");
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.len(), 5, "{page}");
        for (line, start) in lines.iter().zip(["<3>", "<4>", "<6>", "<7>", "<7>"]) {
            assert!(line.starts_with(start), "{line}");
        }
        assert!(lines[0].contains("broken") && lines[0].ends_with("first <0>second"), "{page}");
        assert!(lines[2].contains("ready services=3"), "{page}");
    }

    #[test]
    fn a_second_set_up_is_refused() {
        init(LogFormat::Json).expect("first set-up");
        let error = init(LogFormat::Text).expect_err("second set-up");
        assert_eq!(error.to_string(), "logging is set up already");
    }
}
