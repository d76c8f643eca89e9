//! Asks for a page, by HTTP/1.1 or HTTP/2, with or without TLS.

use crate::ANSWER_BYTES_MAX;
use crate::error::{Failure, fail, quoted};
use crate::exchange::compile;
use crate::stream::{Stream, connect};
use crate::tls::Configurations;
use api::Http;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::net::SocketAddr;
use tokio::task::JoinHandle;

/// Longest body whose digest is computed.
const DIGEST_BYTES_MAX: usize = 64 << 20;

pub(crate) async fn probe(tls: &Configurations, to: SocketAddr, http: &Http) -> Result<(), Failure> {
    let stream = connect(to).await?;
    match &http.tls {
        None => ask(stream, to, http).await,
        Some(how) => {
            let protocol: &[u8] = if http.version == 2 { b"h2" } else { b"http/1.1" };
            let stream = tls.connect(stream, how, http.host.as_deref(), to.ip(), &[protocol]).await?;
            if http.version == 2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return fail("the server does not speak HTTP/2");
            }
            ask(stream, to, http).await
        }
    }
}

/// The task that drives a connection; it ends with the probe.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask(stream: impl Stream + 'static, to: SocketAddr, http: &Http) -> Result<(), Failure> {
    let io = TokioIo::new(stream);
    let broken = |error: hyper::Error| Failure(cause(&error));
    // Errors of the connection come back by the request as well.
    if http.version == 2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(broken)?;
        let _connection = Connection(tokio::spawn(async { drop(connection.await) }));
        let response = sender.send_request(request(to, http)?).await.map_err(broken)?;
        judge(response, http).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
        let _connection = Connection(tokio::spawn(async { drop(connection.await) }));
        let response = sender.send_request(request(to, http)?).await.map_err(broken)?;
        judge(response, http).await
    }
}

fn request(to: SocketAddr, http: &Http) -> Result<Request<Empty<Bytes>>, Failure> {
    let host = http.host.clone().unwrap_or_else(|| to.to_string());
    let builder = Request::builder().method(http.method.as_str()).header(header::USER_AGENT, "sluice");
    let builder = if http.version == 2 {
        let scheme = if http.tls.is_some() { "https" } else { "http" };
        builder.uri(format!("{scheme}://{host}{}", http.path))
    } else {
        builder.uri(&http.path).header(header::HOST, host).header(header::CONNECTION, "close")
    };
    builder.body(Empty::new()).map_err(|error| Failure(format!("the request cannot be made: {error}")))
}

async fn judge(response: Response<Incoming>, http: &Http) -> Result<(), Failure> {
    let status = response.status().as_u16();
    if !http.status.iter().any(|(low, high)| (*low..=*high).contains(&status)) {
        let wanted: Vec<String> = http.status.iter().map(|range| span(*range)).collect();
        return fail(format!("status {status}, not {}", wanted.join(", ")));
    }
    if http.body.is_none() && http.digest.is_none() {
        return Ok(());
    }
    let mut body = response.into_body();
    let mut kept = Vec::new();
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure(cause(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length > DIGEST_BYTES_MAX {
            return fail(format!("a body of more than {DIGEST_BYTES_MAX} bytes"));
        }
        hash.update(data);
        let room = ANSWER_BYTES_MAX - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if kept.len() == ANSWER_BYTES_MAX && http.digest.is_none() {
            break;
        }
    }
    if let Some(pattern) = &http.body
        && !compile(pattern)?.is_match(&String::from_utf8_lossy(&kept))
    {
        return fail(format!("the body {} does not fit `{pattern}'", quoted(&kept)));
    }
    if let Some(wanted) = &http.digest {
        let mut found = String::new();
        for byte in hash.finalize() {
            // Writing to a String does not fail.
            let _ = write!(found, "{byte:02x}");
        }
        if !found.eq_ignore_ascii_case(wanted) {
            return fail(format!("the body's SHA-256 is {found}, not {wanted}"));
        }
    }
    Ok(())
}

fn span((low, high): (u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

/// The innermost cause says most: hyper's own words are "connection error".
fn cause(error: &hyper::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match inner.downcast_ref::<std::io::Error>() {
        Some(io) => Failure::from(std::io::Error::from(io.kind())).0,
        None => inner.to_string(),
    }
}
