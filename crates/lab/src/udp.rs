//! A UDP echo that names itself, and a client that counts who answers.

use host::Namespace;
use host::netns::NamespaceError;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// After so many questions in a row that nobody answered, the rest is not asked.
pub const LOST_MAX: u32 = 5;
/// Between two looks whether the echo should end.
const POLL: Duration = Duration::from_millis(100);
/// Longest datagram echoed, in bytes.
const DATAGRAM_MAX: usize = 2048;

/// UDP could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// The namespace.
    #[error("cannot use UDP there")]
    Namespace(#[source] NamespaceError),
    /// A socket.
    #[error("cannot open a UDP socket on {address}")]
    Socket {
        /// Its address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Answers each datagram with `NAME ` and the datagram, from the address it came to. Never returns unless
/// `stop` is set or the socket breaks.
///
/// # Errors
/// When the socket breaks.
pub fn echo(socket: &UdpSocket, name: &str, stop: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(POLL))?;
    let mut buffer = [0; DATAGRAM_MAX];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let mut answer = format!("{name} ").into_bytes();
                answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
                // An answer that cannot be sent is lost, as any datagram may be.
                let _ = socket.send_to(&answer, from);
            }
            // Time-outs, interruptions, and the errors of earlier answers nobody wanted.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionRefused)
}

/// Echo threads of one real server; they end with it.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Starts an echo on each address, inside `namespace`.
    ///
    /// # Errors
    /// [`UdpError`].
    pub fn start(namespace: &Namespace, name: &str, addresses: &[SocketAddr]) -> Result<Self, UdpError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut echo = Self { stop: Arc::clone(&stop), threads: Vec::new() };
        for socket in bind(namespace, addresses)? {
            let (name, stop) = (name.to_owned(), Arc::clone(&stop));
            let thread = std::thread::Builder::new().name("udp-echo".to_owned()).spawn(move || {
                if let Err(error) = self::echo(&socket, &name, &stop) {
                    runtime::tell(format_args!("{name}: the UDP echo ended: {error}"));
                }
            });
            echo.threads.push(thread.map_err(UdpError::Thread)?);
        }
        Ok(echo)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sockets belong to the namespace they are made in, whoever uses them later.
fn bind(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<Vec<UdpSocket>, UdpError> {
    let bind = |address: &SocketAddr| {
        UdpSocket::bind(address).map_err(|source| UdpError::Socket { address: *address, source })
    };
    namespace.run(|| addresses.iter().map(bind).collect()).map_err(UdpError::Namespace)?
}

/// Who answered, and how many datagrams nobody answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpStats {
    /// Right answers by each server.
    pub share: BTreeMap<String, u64>,
    /// Datagrams without a right answer in time.
    pub lost: u64,
}

/// Sends `count` datagrams one after the other, each from a port of its own and so a flow of its own, and
/// waits up to `patience` for each answer. After [`LOST_MAX`] without one in a row the rest is not sent and counts as
/// lost.
///
/// # Errors
/// [`UdpError`].
pub fn ask(
    namespace: &Namespace,
    target: SocketAddr,
    count: u32,
    patience: Duration,
) -> Result<UdpStats, UdpError> {
    let local: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let mut stats = UdpStats::default();
    let mut silent = 0;
    let everywhere = vec![local; usize::try_from(count).unwrap_or(0)];
    for (number, socket) in bind(namespace, &everywhere)?.into_iter().enumerate() {
        let answer = if silent < LOST_MAX { ask_once(&socket, target, number, patience) } else { None };
        match answer {
            Some(server) => {
                *stats.share.entry(server).or_default() += 1;
                silent = 0;
            }
            None => {
                stats.lost += 1;
                silent += 1;
            }
        }
    }
    Ok(stats)
}

fn ask_once(socket: &UdpSocket, target: SocketAddr, number: usize, patience: Duration) -> Option<String> {
    let question = format!("question {number}");
    socket.set_read_timeout(Some(patience)).ok()?;
    // Connected, so that an answer from any address but the one asked does not count.
    socket.connect(target).ok()?;
    socket.send(question.as_bytes()).ok()?;
    let mut buffer = [0; DATAGRAM_MAX];
    let length = socket.recv(&mut buffer).ok()?;
    let answer = std::str::from_utf8(buffer.get(..length)?).ok()?;
    let (server, rest) = answer.split_once(' ')?;
    (rest == question).then(|| server.to_owned())
}

/// The words of the hidden subcommand `lab-udp-echo`.
#[derive(Clone, Debug, clap::Args)]
pub struct EchoOptions {
    /// Name to answer with.
    pub name: String,
    /// Addresses with ports to answer on, such as 192.0.2.10:5300.
    #[arg(required = true)]
    pub addresses: Vec<SocketAddr>,
}

/// `sluice lab-udp-echo`: echoes until it is killed, for a cluster that outlives its maker.
#[must_use]
pub fn main(options: &EchoOptions) -> ExitCode {
    let echo = Namespace::current()
        .map_err(UdpError::Namespace)
        .and_then(|here| Echo::start(&here, &options.name, &options.addresses));
    match echo {
        Ok(echo) => {
            // Nothing sets the flag: this process is ended by a signal, unless a socket breaks.
            while echo.threads.iter().all(|thread| !thread.is_finished()) {
                std::thread::sleep(POLL);
            }
        }
        Err(error) => runtime::print_error(&error),
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn each_datagram_is_answered_by_name() {
        let here = Namespace::current().expect("namespace");
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        // Entering needs root even for the namespace one is in.
        let echo = match Echo::start(&here, "real1", &[free]) {
            Err(UdpError::Namespace(error)) => {
                eprintln!("SKIPPED: needs root: {error}");
                return;
            }
            started => started.expect("echo"),
        };
        let stats = ask(&here, free, 3, Duration::from_secs(2)).expect("asked");
        assert_eq!(stats, UdpStats { share: BTreeMap::from([("real1".to_owned(), 3)]), lost: 0 });
        drop(echo);
        let _silent = UdpSocket::bind(free).expect("the port of the echo is free again");
        let (begun, patience) = (Instant::now(), Duration::from_millis(200));
        let stats = ask(&here, free, 100, patience).expect("asked");
        assert_eq!(stats, UdpStats { share: BTreeMap::new(), lost: 100 });
        assert!(begun.elapsed() < patience * 50, "where nobody answers, not every question is asked");
    }
}
