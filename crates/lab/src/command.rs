//! Programs of the system the lab leans on: `ip`, `ethtool`, `nginx`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

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
    /// It ended with an error.
    #[error("{command} failed ({status}): {message}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
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

/// Runs a command to its end and gives what it wrote to standard output.
///
/// # Errors
/// [`CommandError`].
pub fn output(mut command: Command, input: Option<&str>) -> Result<String, CommandError> {
    let line = describe(&command);
    let start = |source| CommandError::Start { command: line.clone(), source };
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends early closes its end; its status and message tell more than that.
        match stdin.write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(start(error)),
            _ => {}
        }
    }
    let done = child.wait_with_output().map_err(start)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&done.stderr).trim().replace('\n', "; ");
    Err(CommandError::Failed { command: line, status: done.status, message })
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
    fn input_is_fed() {
        assert_eq!(output(Command::new("cat"), Some("a\nb\n")).expect("cat"), "a\nb\n");
        output(Command::new("true"), Some(&"x".repeat(1 << 20))).expect("a program that reads nothing");
    }
}
