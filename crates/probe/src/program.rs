//! Runs a program, as a user without rights.

use crate::Passed;
use crate::error::{Failure, fail, quoted};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};
use std::net::SocketAddr;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Most bytes of its output that are looked at.
const OUTPUT_BYTES_MAX: u64 = 4096;

pub(crate) async fn probe(command: &[String], user: &str, to: SocketAddr) -> Result<Passed, Failure> {
    let Some((program, arguments)) = command.split_first() else { return fail("no program is declared") };
    let mut process = Command::new(program);
    for argument in arguments {
        process.arg(
            argument.replace("{address}", &to.ip().to_string()).replace("{port}", &to.port().to_string()),
        );
    }
    process
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .kill_on_drop(true);
    // Who is not root can run it only as themselves.
    if nix::unistd::geteuid().is_root() {
        let user = find_user(user)?;
        process.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let mut child = process.spawn().map_err(|error| Failure(format!("cannot run {program}: {error}")))?;
    // Killed when the time is over and this future is dropped; its leader is not waited for until then, so the number of
    // the group cannot be somebody else's.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Group);
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let (output, errors) = tokio::join!(read(output), read(errors));
    let status = child.wait().await?;
    if let Some(group) = group {
        group.leave();
    }
    if !status.success() {
        let said = if errors.is_empty() { &output } else { &errors };
        let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
        return fail(format!("{program}: {status}, and said {}", quoted(line)));
    }
    weight(&output)
}

fn find_user(name: &str) -> Result<User, Failure> {
    match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => fail(format!("the user {name} has the rights of root")),
        Ok(Some(user)) => Ok(user),
        Ok(None) => fail(format!("there is no user {name} to run the check as")),
        Err(error) => fail(format!("cannot look up the user {name}: {error}")),
    }
}

/// A program and what it started, killed with this.
struct Group(i32);

impl Group {
    /// The program has ended by itself.
    fn leave(mut self) {
        self.0 = 0;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.0 == 0 {
            return;
        }
        // There may be nobody left.
        let _ = killpg(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

/// The first bytes of a stream; the rest is read and dropped, so that the program can go on writing.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let mut kept = Vec::new();
    // An error ends it like the end of the stream: the exit code decides.
    let _ = (&mut stream).take(OUTPUT_BYTES_MAX).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    kept
}

/// The share of its weight that the program asks for.
fn weight(output: &[u8]) -> Result<Passed, Failure> {
    let text = String::from_utf8_lossy(output);
    let Some(number) = text.lines().find_map(|line| line.trim().strip_prefix("weight ")) else {
        return Ok(None);
    };
    match number.trim().parse::<u16>() {
        Ok(share @ 0..=1000) => Ok(Some(share)),
        _ => fail(format!("the program asks for a weight of {}, not 0 to 1000", quoted(number.as_bytes()))),
    }
}
