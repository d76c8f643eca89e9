//! Makes the health checks that are ordered: one probe in, one outcome out, within its time.
//!
//! ```text
//! health::Probe -> Prober::probe -> health::Outcome
//! ```
//!
//! Every connection is a new one: a check must notice a server that takes no new connections. Nothing that a server
//! answers is read without a limit.
//!
//! Deliberately absent: when a probe is made and what follows from it (`health`).

mod dns;
mod error;
mod exchange;
mod http;
mod load;
pub mod look;
mod path;
mod ping;
mod program;
mod raw;
mod smtp;
mod stream;
mod tls;

use api::CheckKind;
use error::{Failure, fail};
use health::{Outcome, Probe};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use path::{Hop, NextHop, SynAnswer};

/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the probes need between them.
#[derive(Debug, Default)]
pub struct Prober {
    path: path::Paths,
    ping: ping::Pings,
    tls: tls::Configurations,
}

fn answered<E>(asked: Result<Result<SynAnswer, Failure>, E>) -> Result<Option<SynAnswer>, String> {
    match asked {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(Failure(why))) => Err(why),
        Err(_) => Ok(None),
    }
}

/// What a passed probe reports.
type Passed = Option<u16>;

impl Prober {
    /// Makes a probe. It takes as long as the probe's time-out at most.
    ///
    /// For a path check, `next_hop` is where packets to its real server go; without one it fails.
    pub async fn probe(&self, probe: &Probe, next_hop: Option<&NextHop>) -> Outcome {
        let start = Instant::now();
        let limit = Duration::from_millis(probe.timeout_ms.into());
        let passed = match tokio::time::timeout(limit, self.make(probe, next_hop)).await {
            Ok(passed) => passed,
            Err(_) if probe.kind == CheckKind::Path => fail(path::silence(probe, next_hop)),
            Err(_) => fail(format!("no answer within {} ms", probe.timeout_ms)),
        };
        match passed {
            Ok(share) => Outcome::Passed { latency_ms: start.elapsed().as_secs_f64() * 1000.0, share },
            Err(Failure(reason)) => Outcome::Failed { reason },
        }
    }

    /// Opens a VIP by this way, as a path check does; `None`: nobody answered in time.
    ///
    /// # Errors
    /// Why it could not be asked, as a part of a sentence.
    pub async fn ask_way(
        &self,
        way: &health::Way,
        hop: &Hop,
        port: u16,
        wait: Duration,
    ) -> Result<Option<SynAnswer>, String> {
        answered(tokio::time::timeout(wait, self.path.ask_way(way, hop, port)).await)
    }

    /// Opens a port of a real server, from this machine's own address, or from another one, the answer to which comes to
    /// this machine only if the server's routes send it here; `None`: nobody answered in time.
    ///
    /// # Errors
    /// Why it could not be asked, as a part of a sentence.
    pub async fn ask_from(
        &self,
        from: Option<SocketAddr>,
        to: SocketAddr,
        hop: &Hop,
        wait: Duration,
    ) -> Result<Option<SynAnswer>, String> {
        match from {
            Some(from) => answered(tokio::time::timeout(wait, self.path.ask_from(from, to, hop)).await),
            None => answered(tokio::time::timeout(wait, self.path.ask_own(to, hop)).await),
        }
    }

    async fn make(&self, probe: &Probe, next_hop: Option<&NextHop>) -> Result<Passed, Failure> {
        let to = SocketAddr::new(probe.address, probe.port);
        match &probe.kind {
            CheckKind::Tcp => stream::connect(to).await.map(|_| None),
            CheckKind::Exchange(exchange) => exchange::probe(&self.tls, to, exchange).await.map(|()| None),
            CheckKind::Http(http) => http::probe(&self.tls, to, http).await.map(|()| None),
            CheckKind::Smtp { hello, tls } => {
                smtp::probe(&self.tls, to, hello, tls.as_ref()).await.map(|()| None)
            }
            CheckKind::Dns { name, record, expect } => {
                dns::probe(to, name, record, expect).await.map(|()| None)
            }
            CheckKind::Ping => self.ping.probe(probe.address, probe.timeout_ms).await.map(|()| None),
            CheckKind::Program { command, user } => program::probe(command, user, to).await,
            CheckKind::Load => load::probe(to).await.map(Some),
            CheckKind::Path => self.path.probe(probe, next_hop).await.map(|()| None),
        }
    }
}
