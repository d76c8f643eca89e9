//! Traces of health checks and of configurations, sent by OTLP over HTTP with JSON bodies [opentelemetry.io/docs/specs/otlp].
//!
//! Whoever makes a span never waits: it goes into a bounded queue, or is counted as dropped. A collector that is away costs that queue
//! and nothing else; what could not be sent is not tried again.
//!
//! Deliberately absent: TLS (run a collector on this machine), and the SDK of OpenTelemetry, whose queue does not tell how much it
//! dropped.

use axum::http::Uri;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Spans that wait to be sent.
const WAITING_MAX: usize = 4096;
/// Spans sent at a time.
const BATCH_MAX: usize = 512;
/// Between two looks whether there are spans.
const SEND_PERIOD: Duration = Duration::from_secs(1);
/// How long a collector may take for a batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer of a collector that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const DEFAULT_PATH: &str = "/v1/traces";
const DEFAULT_PORT: u16 = 4318;

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    authority: String,
    path: String,
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = "give one such as http://127.0.0.1:4318";
        let uri: Uri = text.parse().map_err(|error| format!("`{text}' is no address: {error}; {right}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(format!("TLS is not spoken here: run a collector on this machine and {right}"));
            }
            _ => return Err(format!("`{text}' does not begin with http://; {right}")),
        }
        let authority = uri.authority().ok_or_else(|| format!("`{text}' names no machine; {right}"))?;
        let authority = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:{DEFAULT_PORT}"),
        };
        let path = if uri.path() == "/" { DEFAULT_PATH } else { uri.path() };
        Ok(Self { authority, path: path.to_owned() })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Something that began and ended.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) start: SystemTime,
    pub(crate) took: Duration,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
}

/// The value of an attribute.
#[derive(Debug)]
pub(crate) enum Attribute {
    Text(String),
    Number(u64),
    /// Milliseconds.
    Time(Duration),
}

/// What became of spans.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// Where spans are handed in; does nothing when nobody wants them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces {
    queue: Option<mpsc::Sender<Span>>,
    counts: Arc<Counts>,
}

impl Traces {
    /// Sends to this collector from now on. Must be called inside a tokio runtime.
    pub(crate) fn to(collector: Collector) -> Self {
        let (queue, spans) = mpsc::channel(WAITING_MAX);
        let counts = Arc::<Counts>::default();
        tokio::spawn(send_all(collector, spans, Arc::clone(&counts)));
        Self { queue: Some(queue), counts }
    }

    /// Whether somebody wants spans.
    pub(crate) fn are_wanted(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a span in.
    pub(crate) fn add(&self, span: Span) {
        if let Some(queue) = &self.queue
            && queue.try_send(span).is_err()
        {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans that were sent, and that were dropped.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.counts.sent.load(Ordering::Relaxed), self.counts.dropped.load(Ordering::Relaxed))
    }
}

/// Sends spans until nobody can hand in any more.
async fn send_all(collector: Collector, mut spans: mpsc::Receiver<Span>, counts: Arc<Counts>) {
    let mut looks = interval(SEND_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut was_away, mut may_be_more) = (false, false);
    loop {
        if !may_be_more {
            // So that a batch is not of a single span.
            looks.tick().await;
        }
        let mut batch = Vec::new();
        if spans.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        may_be_more = batch.len() == BATCH_MAX;
        let number = batch.len() as u64;
        let sent = match timeout(SEND_TIMEOUT, send(&collector, &batch)).await {
            Ok(sent) => sent,
            Err(_) => Err("no answer in time".into()),
        };
        let count = if sent.is_ok() { &counts.sent } else { &counts.dropped };
        count.fetch_add(number, Ordering::Relaxed);
        match &sent {
            Err(error) if !was_away => {
                tracing::warn!(%collector, error = %runtime::Chain(error.as_ref()), "traces are not taken: they are dropped");
            }
            Ok(()) if was_away => tracing::info!(%collector, "traces are taken again"),
            _ => {}
        }
        was_away = sent.is_err();
    }
}

async fn send(collector: &Collector, batch: &[Span]) -> Result<(), Box<dyn Error + Send + Sync>> {
    let body = serde_json::to_vec(&document(batch))?;
    let request = hyper::Request::post(&collector.path)
        .header(hyper::header::HOST, &collector.authority)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(axum::body::Bytes::from(body)))?;
    let stream = TcpStream::connect(&collector.authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The set ends the connection's task when this function ends, in time or not.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    if status.is_success() {
        return Ok(());
    }
    let answer: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
    Err(format!("the collector answered with status {status}: {answer}").into())
}

/// A request of OTLP.
fn document(batch: &[Span]) -> Value {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = |text: &str| json!({ "stringValue": text });
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            { "key": "service.name", "value": text("sluice-director") },
            { "key": "service.version", "value": text(version) },
            { "key": "host.name", "value": text(host.trim()) },
        ] },
        "scopeSpans": [{
            "scope": { "name": "sluice", "version": version },
            "spans": batch.iter().map(span).collect::<Vec<_>>(),
        }],
    }] })
}

fn span(span: &Span) -> Value {
    const INTERNAL: u32 = 1;
    const OK: u32 = 1;
    const ERROR: u32 = 2;
    let nanoseconds =
        |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let identity = || runtime::random::random_u64().unwrap_or(1);
    let attributes = span.attributes.iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => json!({ "stringValue": text }),
            // Numbers of 64 bits are text in the JSON of protobuf.
            Attribute::Number(number) => json!({ "intValue": number.to_string() }),
            Attribute::Time(time) => json!({ "doubleValue": time.as_secs_f64() * 1000.0 }),
        };
        json!({ "key": key, "value": value })
    });
    let status = match &span.failure {
        Some(why) => json!({ "code": ERROR, "message": why }),
        None => json!({ "code": OK }),
    };
    json!({
        "traceId": format!("{:016x}{:016x}", identity(), identity()),
        "spanId": format!("{:016x}", identity()),
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": nanoseconds(span.start),
        "endTimeUnixNano": nanoseconds(span.start + span.took),
        "attributes": attributes.collect::<Vec<_>>(),
        "status": status,
    })
}

/// The time of something that goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    pub(crate) at: SystemTime,
    since: Instant,
}

impl Began {
    pub(crate) fn now() -> Self {
        Self { at: SystemTime::now(), since: Instant::now() }
    }

    pub(crate) fn took(&self) -> Duration {
        self.since.elapsed()
    }
}

/// How long the parts of a change took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) compile: Duration,
    pub(crate) kernel: Duration,
    pub(crate) disk: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_addresses_without_tls() {
        let read = |text: &str| text.parse::<Collector>().map(|it| it.to_string());
        assert_eq!(read("http://127.0.0.1"), Ok("http://127.0.0.1:4318/v1/traces".to_owned()));
        assert_eq!(read("http://[::1]:99/x"), Ok("http://[::1]:99/x".to_owned()));
        let said = |text: &str| read(text).expect_err(text);
        assert!(said("https://collector:4318").starts_with("TLS is not spoken here"));
        assert!(said("collector:4318").contains("give one such as http://127.0.0.1:4318"));
        assert!(said("").contains("give one such as"));
    }

    #[tokio::test]
    async fn spans_for_a_collector_that_never_answers_are_dropped_and_counted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let traces = Traces::to(format!("http://{address}").parse().expect("a collector"));
        let made = WAITING_MAX + 2 * BATCH_MAX + 1;
        for _ in 0..made {
            let start = SystemTime::now();
            traces.add(Span {
                name: "x",
                start,
                took: Duration::ZERO,
                attributes: Vec::new(),
                failure: None,
            });
        }
        // Nobody took one yet: no other task has run.
        assert_eq!(traces.counts(), (0, (made - WAITING_MAX) as u64));
    }
}
