//! Client of the director's control API: HTTP/1.1 with JSON bodies on a Unix socket, one connection a
//! request.
//!
//! [`Client::get`] and [`Client::post`] wait, for programs that do one thing; inside an async program use
//! [`Client::get_async`] and [`Client::post_async`].
//!
//! Deliberately absent: retries (a change must not be sent twice), connection pools (a request takes less
//! than the connection of a pool would save), and the meaning of the requests (`api`).

use crate::signals::{Shutdown, SignalError};
use api::Refusal;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// Names the socket, instead of [`api::DEFAULT_SOCKET_PATH`].
pub const SOCKET_VARIABLE: &str = "SLUICE_SOCKET";

/// Longest time for one request, connection and answer included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer taken, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Longest path of a socket, in bytes: `sun_path` of unix(7), less its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Most characters shown of an answer that is not what it should be.
const EXCERPT_CHARS_MAX: usize = 200;

/// Why a request to the director failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The machine has no resources left to start a request.
    #[error("cannot start a request to the director")]
    Runtime(#[source] io::Error),
    /// There is no socket.
    #[error("no director listens on {}: start it with `sluice director`, or name its socket in {SOCKET_VARIABLE}", .0.display())]
    NoSocket(PathBuf),
    /// There is a socket, but the director behind it is gone.
    #[error("the director of {} is not running any more: start it again with `sluice director`", .0.display())]
    NobodyListens(PathBuf),
    /// There is something else in the socket's place.
    #[error("{} is no socket: start a director with `sluice director`, or name its socket in {SOCKET_VARIABLE}", .0.display())]
    NoSocketThere(PathBuf),
    /// No socket can have such a path.
    #[error("no director listens on {}: the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes", .0.display())]
    LongPath(PathBuf),
    /// The socket may not be used by this user.
    #[error("no permission to use {}: run as root, or as a member of the socket's group", .0.display())]
    NotPermitted(PathBuf),
    /// The connection failed otherwise.
    #[error("cannot connect to the director on {}", .path.display())]
    Connect {
        /// Socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No answer in time. Whether a change was made is unknown.
    #[error("the director on {} did not answer within {} s", .0.display(), REQUEST_TIMEOUT.as_secs())]
    TimedOut(PathBuf),
    /// The request could not be written as JSON or as HTTP.
    #[error("cannot write the request {path}")]
    Encode {
        /// Path of the request.
        path: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("the director broke off while answering {path}")]
    Exchange {
        /// Path of the request.
        path: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what this request answers with; mostly another version of the director.
    #[error("the director's answer to {path} is not understood (another version?): {excerpt:?}")]
    Decode {
        /// Path of the request.
        path: String,
        /// Beginning of the answer.
        excerpt: String,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// An error status without a refusal that could be read.
    #[error("the director answered {path} with status {status}: {excerpt:?}")]
    Status {
        /// Path of the request.
        path: String,
        /// HTTP status.
        status: u16,
        /// Beginning of the answer.
        excerpt: String,
    },
    /// Signals could not be waited for.
    #[error("cannot wait for an interruption")]
    Signals(#[source] SignalError),
    /// What came could not be handed on.
    #[error("cannot take what the director answers")]
    Take(#[source] io::Error),
    /// The director refused the request as a whole.
    #[error("the director refused")]
    Refused(#[source] Refusal),
}

/// The director behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// The director behind this socket. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: REQUEST_TIMEOUT }
    }

    /// The director behind the socket named by this value of [`SOCKET_VARIABLE`], or behind the default one.
    #[must_use]
    pub fn from_variable(value: Option<OsString>) -> Self {
        let named = value.filter(|value| !value.is_empty());
        Self::new(named.map_or_else(|| PathBuf::from(api::DEFAULT_SOCKET_PATH), PathBuf::from))
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for something and waits. Not to be called inside an async program.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        waiting()?.block_on(self.get_async(path))
    }

    /// Sends something and waits for the answer. Not to be called inside an async program.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn post<B, T>(&self, path: &str, body: &B) -> Result<T, ControlError>
    where
        B: Serialize + Sync + ?Sized,
        T: DeserializeOwned,
    {
        waiting()?.block_on(self.post_async(path, body))
    }

    /// Asks for something.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn get_async<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    /// Sends something and reads the answer.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn post_async<B, T>(&self, path: &str, body: &B) -> Result<T, ControlError>
    where
        B: Serialize + Sync + ?Sized,
        T: DeserializeOwned,
    {
        let body = serde_json::to_vec(body)
            .map_err(|source| ControlError::Encode { path: path.to_owned(), source: source.into() })?;
        self.exchange(Method::POST, path, body.into()).await
    }

    /// Sends something and hands on the answer piece by piece, which may take as long as it does. `take` says whether it wants more. The
    /// first SIGINT or SIGTERM sends `end`, upon which the director is to finish its answer; a second one breaks off. Not to be called
    /// inside an async program.
    ///
    /// # Errors
    /// See [`ControlError`]; [`ControlError::Take`] for what `take` could not do.
    pub fn follow<B>(
        &self,
        path: &str,
        body: &B,
        end: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<bool>,
    ) -> Result<(), ControlError>
    where
        B: Serialize + Sync + ?Sized,
    {
        let body = serde_json::to_vec(body)
            .map_err(|source| ControlError::Encode { path: path.to_owned(), source: source.into() })?;
        waiting()?.block_on(async {
            let mut shutdown = Shutdown::install().map_err(ControlError::Signals)?;
            let broke = |source: Broken| ControlError::Exchange { path: path.to_owned(), source };
            let mut tasks = JoinSet::new();
            let begun = async {
                let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.connect_error(e))?;
                send(stream, Method::POST, path, body.into(), &mut tasks).await
            };
            let response = tokio::time::timeout(self.timeout, begun)
                .await
                .map_err(|_elapsed| ControlError::TimedOut(self.socket.clone()))??;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(broke)?.to_bytes();
                return read::<()>(path, status, &bytes);
            }
            let mut ending = false;
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    _ = shutdown.wait() => {
                        if ending {
                            return Ok(());
                        }
                        ending = true;
                        self.post_async::<_, bool>(end, &()).await?;
                        continue;
                    }
                };
                let Some(frame) = frame else { return Ok(()) };
                let frame = frame.map_err(|error| broke(error.into()))?;
                if let Some(piece) = frame.data_ref()
                    && !take(piece).map_err(ControlError::Take)?
                {
                    return Ok(());
                }
            }
        })
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ControlError> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.connect_error(e))?;
            answer(stream, method, path, body).await
        };
        let (status, bytes) = tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_elapsed| ControlError::TimedOut(self.socket.clone()))??;
        read(path, status, &bytes)
    }

    fn connect_error(&self, source: io::Error) -> ControlError {
        let path = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound => ControlError::NoSocket(path),
            io::ErrorKind::ConnectionRefused if !is_socket(&path) => ControlError::NoSocketThere(path),
            io::ErrorKind::ConnectionRefused => ControlError::NobodyListens(path),
            io::ErrorKind::InvalidInput if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX => {
                ControlError::LongPath(path)
            }
            io::ErrorKind::PermissionDenied => ControlError::NotPermitted(path),
            _ => ControlError::Connect { path, source },
        }
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// A small async runtime for one request.
fn waiting() -> Result<tokio::runtime::Runtime, ControlError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Runtime)
}

/// One request and its answer's status and body.
async fn answer(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), ControlError> {
    let broke = |source: Broken| ControlError::Exchange { path: path.to_owned(), source };
    // The set ends the connection's task when this function ends, in time or not.
    let mut tasks = JoinSet::new();
    let response = send(stream, method, path, body, &mut tasks).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broke)?;
    Ok((status, body.to_bytes()))
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// One request, and its answer before its body. The connection's task is put among these.
async fn send(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
    tasks: &mut JoinSet<hyper::Result<()>>,
) -> Result<hyper::Response<hyper::body::Incoming>, ControlError> {
    let broke = |source: Broken| ControlError::Exchange { path: path.to_owned(), source };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, HeaderValue::from_static("director"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Full::new(body))
        .map_err(|source| ControlError::Encode { path: path.to_owned(), source: source.into() })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(e.into()))?;
    tasks.spawn(connection);
    sender.send_request(request).await.map_err(|e| broke(e.into()))
}

fn read<T: DeserializeOwned>(path: &str, status: StatusCode, bytes: &[u8]) -> Result<T, ControlError> {
    let excerpt = || String::from_utf8_lossy(bytes).chars().take(EXCERPT_CHARS_MAX).collect();
    if status.is_success() {
        return serde_json::from_slice(bytes).map_err(|source| ControlError::Decode {
            path: path.to_owned(),
            excerpt: excerpt(),
            source,
        });
    }
    match serde_json::from_slice(bytes) {
        Ok(refusal) => Err(ControlError::Refused(refusal)),
        // The status says more than why the body is no refusal.
        Err(_) => {
            Err(ControlError::Status { path: path.to_owned(), status: status.as_u16(), excerpt: excerpt() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;
    use api::{RefusalKind, Timeouts};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    const TIMEOUTS: &str = r#"{"tcp_s":1,"tcp_fin_s":2,"udp_s":3}"#;

    /// A server that answers one request with these bytes; gives back what it was sent.
    async fn serve(listener: UnixListener, answer: String) -> String {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&request).contains("\r\n\r\n") {
            let n = stream.read(&mut buffer).await.expect("a request");
            assert!(n > 0, "the request ended early");
            request.extend_from_slice(&buffer[..n]);
        }
        stream.write_all(answer.as_bytes()).await.expect("the answer to be taken");
        String::from_utf8(request).expect("text")
    }

    async fn get_from(answer: String) -> (Result<Timeouts, ControlError>, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let client = Client::new(&socket);
        let (got, request) = tokio::join!(client.get_async("/v1/x?cursor=3"), serve(listener, answer));
        (got, request)
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn an_answer_is_read() {
        let (got, request) = get_from(http("200 OK", TIMEOUTS)).await;
        assert_eq!(got.expect("an answer"), Timeouts { tcp_s: 1, tcp_fin_s: 2, udp_s: 3 });
        assert!(request.starts_with("GET /v1/x?cursor=3 HTTP/1.1\r\n"), "{request}");
    }

    #[tokio::test]
    async fn a_refusal_is_passed_on() {
        let body = r#"{"kind":"limit","message":"at most 3 services"}"#;
        let (got, _) = get_from(http("409 Conflict", body)).await;
        let error = got.expect_err("a refusal");
        assert_eq!(Chain(&error).to_string(), "the director refused: at most 3 services");
        assert!(matches!(error, ControlError::Refused(r) if r.kind == RefusalKind::Limit));
    }

    #[tokio::test]
    async fn other_answers_are_named() {
        let (got, _) = get_from(http("404 Not Found", "nope")).await;
        let error = got.expect_err("an error");
        assert_eq!(error.to_string(), "the director answered /v1/x?cursor=3 with status 404: \"nope\"");
        let (got, _) = get_from(http("200 OK", "{}")).await;
        assert!(matches!(got, Err(ControlError::Decode { .. })));
        let (got, _) = get_from(String::new()).await;
        assert!(matches!(got, Err(ControlError::Exchange { .. })));
    }

    #[tokio::test]
    async fn connection_errors_say_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing");
        let got = Client::new(&missing).get_async::<Timeouts>("/v1/x").await;
        let text = got.expect_err("no socket").to_string();
        assert!(text.contains("start it with `sluice director`"), "{text}");
        let stale = folder.path().join("stale");
        drop(UnixListener::bind(&stale).expect("a socket"));
        let got = Client::new(&stale).get_async::<Timeouts>("/v1/x").await;
        assert!(matches!(got, Err(ControlError::NobodyListens(path)) if path == stale));
        let got = Client::new(folder.path()).get_async::<Timeouts>("/v1/x").await;
        assert!(got.expect_err("a folder").to_string().contains(" is no socket: start a director with "));
        let long = folder.path().join("s".repeat(SOCKET_PATH_BYTES_MAX));
        let got = Client::new(long).get_async::<Timeouts>("/v1/x").await;
        let text = got.expect_err("too long").to_string();
        assert!(text.ends_with(": the path of a socket has at most 107 bytes"), "{text}");
        // Root may use any socket, so the error is made by hand.
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let text = Client::new(&stale).connect_error(denied).to_string();
        assert!(text.contains("run as root"), "{text}");
    }

    #[tokio::test]
    async fn silence_times_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let client = Client { socket, timeout: Duration::from_millis(50) };
        let got = client.get_async::<Timeouts>("/v1/x").await;
        assert!(matches!(got, Err(ControlError::TimedOut(_))), "{got:?}");
    }

    #[test]
    fn the_waiting_form_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let client = Client::new(folder.path().join("missing"));
        assert!(matches!(client.get::<Timeouts>("/v1/x"), Err(ControlError::NoSocket(_))));
        let sent = client.post::<_, Timeouts>("/v1/x", &1);
        assert!(matches!(sent, Err(ControlError::NoSocket(_))));
    }

    #[test]
    fn the_variable_names_the_socket() {
        assert_eq!(Client::from_variable(None).socket(), Path::new(api::DEFAULT_SOCKET_PATH));
        assert_eq!(Client::from_variable(Some("".into())).socket(), Path::new(api::DEFAULT_SOCKET_PATH));
        assert_eq!(Client::from_variable(Some("/x".into())).socket(), Path::new("/x"));
    }
}
