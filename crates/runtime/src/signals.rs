//! The signals that ask a program to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Handlers could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install a handler for {name}")]
pub struct SignalError {
    name: &'static str,
    #[source]
    source: std::io::Error,
}

/// Waits for SIGTERM or SIGINT. From its making on, these no longer kill the process.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Installs the handlers. Must be called inside a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> Result<Self, SignalError> {
        let install = |kind, name| signal(kind).map_err(|source| SignalError { name, source });
        Ok(Self {
            terminate: install(SignalKind::terminate(), "SIGTERM")?,
            interrupt: install(SignalKind::interrupt(), "SIGINT")?,
        })
    }

    /// The name of the signal, once one arrives. May be called again for a second signal. Cancel-safe.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal as Number, kill};
    use nix::unistd::Pid;
    use std::time::Duration;

    #[tokio::test]
    async fn both_signals_are_seen() {
        let mut shutdown = Shutdown::install().expect("handlers");
        for (number, name) in [(Number::SIGTERM, "SIGTERM"), (Number::SIGINT, "SIGINT")] {
            kill(Pid::this(), number).expect("signal ourselves");
            let seen = tokio::time::timeout(Duration::from_secs(5), shutdown.wait()).await;
            assert_eq!(seen.expect("in time"), name);
        }
    }
}
