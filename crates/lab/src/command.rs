//! Programs of the system the lab leans on: `ip`, `ethtool`, `nginx`.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time for one command.
pub const COMMAND_MAX: Duration = Duration::from_secs(30);
/// Between two looks whether a command has ended.
const POLL: Duration = Duration::from_millis(2);
/// Output of a command beyond this is cut off.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// Looked through after PATH: root's programs are not in everybody's PATH.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("{program} is not installed; install it with: apt-get install {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// It cannot be started or fed.
    #[error("cannot run {command}")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not end and was killed.
    #[error("{command} took longer than {seconds} s")]
    TooLong {
        /// The command line.
        command: String,
        /// The time it had.
        seconds: u64,
    },
    /// It ended with an error.
    #[error("{command} failed ({status}): {message}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        message: String,
    },
}

/// Where a program is.
///
/// # Errors
/// [`CommandError::Missing`].
pub fn find(program: &'static str, package: &'static str) -> Result<PathBuf, CommandError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or(CommandError::Missing { program, package })
}

/// Runs `ip` with these arguments, split at blanks.
///
/// # Errors
/// [`CommandError`].
pub fn ip(arguments: &str) -> Result<String, CommandError> {
    let mut command = Command::new(find("ip", "iproute2")?);
    command.args(arguments.split_whitespace());
    output(command, None)
}

/// Runs these lines of `ip` in a namespace, stopping at the first that fails.
///
/// # Errors
/// [`CommandError`].
pub fn ip_batch(namespace: &str, lines: &[String]) -> Result<(), CommandError> {
    let mut command = Command::new(find("ip", "iproute2")?);
    command.args(["-netns", namespace, "-batch", "-"]);
    let mut text = lines.join("\n");
    text.push('\n');
    output(command, Some(&text)).map(drop)
}

/// Runs a command to its end, at most [`COMMAND_MAX`], and gives what it wrote to standard output.
///
/// # Errors
/// [`CommandError`].
pub fn output(command: Command, input: Option<&str>) -> Result<String, CommandError> {
    output_within(command, input, COMMAND_MAX)
}

fn output_within(
    mut command: Command,
    input: Option<&str>,
    patience: Duration,
) -> Result<String, CommandError> {
    let line = describe(&command);
    let start = |source| CommandError::Start { command: line.clone(), source };
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends early closes its end; its status and message tell more than that.
        match stdin.write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(start(error)),
            _ => {}
        }
    }
    let status = wait(&mut child, patience).map_err(start)?;
    let Some(status) = status else {
        return Err(CommandError::TooLong { command: line, seconds: patience.as_secs() });
    };
    if status.success() {
        return Ok(out.join().unwrap_or_default());
    }
    let message = err.join().unwrap_or_default().trim().replace('\n', "; ");
    Err(CommandError::Failed { command: line, status, message })
}

/// Waits for a child; kills it and gives `None` when it takes too long.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Reads a pipe on a thread of its own, so that a child with much to say is never blocked.
fn read(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The command line as typed.
#[must_use]
pub fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error = find("sl-no-such-program", "sl-package").expect_err("not there");
        let expected = "sl-no-such-program is not installed; install it with: apt-get install sl-package";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn failures_carry_command_status_and_message() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo wrong >&2; exit 3"]);
        let error = output(command, None).expect_err("fails");
        let expected = "sh -c echo wrong >&2; exit 3 failed (exit status: 3): wrong";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn one_that_hangs_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let error = output_within(command, None, Duration::from_millis(50)).expect_err("hangs");
        assert_eq!(error.to_string(), "sleep 600 took longer than 0 s");
    }

    #[test]
    fn input_is_fed() {
        assert_eq!(output(Command::new("cat"), Some("a\nb\n")).expect("cat"), "a\nb\n");
        output(Command::new("true"), Some(&"x".repeat(1 << 20))).expect("a program that reads nothing");
    }
}
