//! One HTTP request at a time, as the load generator and the downloads send them.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpSocket;

/// Bodies read into memory are at most this long.
const BODY_BYTES_MAX: usize = 4096;
/// The header every nginx of the lab names itself in.
const SERVER_HEADER: &str = "x-server";

/// Local ports of the connections: below those the kernel hands out by itself.
const PORTS: std::ops::Range<u16> = 1024..32768;
/// Ports tried for one connection.
const PORT_TRIES: usize = 64;

/// Connections opened by this process, which tells the next port.
static PORT_COUNT: AtomicU32 = AtomicU32::new(0);

/// A socket on the port that was longest unused.
///
/// One client stands for many. The kernel would choose ports at random every ten seconds and soon come back to one
/// whose flow has ended but is remembered by the director for two minutes, which many clients would not do.
fn bound_socket(target: SocketAddr) -> io::Result<TcpSocket> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let count = PORT_COUNT.fetch_add(1, Ordering::Relaxed) % u32::from(PORTS.end - PORTS.start);
        // In range: the remainder is below the length of a range of u16.
        let port = PORTS.start + u16::try_from(count).unwrap_or(0);
        let (socket, local): (TcpSocket, SocketAddr) = if target.is_ipv4() {
            (TcpSocket::new_v4()?, ([0; 4], port).into())
        } else {
            (TcpSocket::new_v6()?, ([0u16; 8], port).into())
        };
        socket.set_reuseaddr(true)?;
        match socket.bind(local) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// HTTP went wrong, most often because the connection was cut.
    #[error("the connection broke")]
    Http(#[source] hyper::Error),
    /// The request was malformed.
    #[error("the request is malformed")]
    Malformed(#[source] hyper::http::Error),
    /// Another status than 200.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// The answer is not what the server sent.
    #[error("the answer is wrong: {0}")]
    Wrong(String),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    target: SocketAddr,
}

impl Connection {
    /// Connects. Must be called inside a tokio runtime, on a thread in the client's namespace.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn open(target: SocketAddr) -> Result<Self, RequestError> {
        let socket = bound_socket(target).map_err(RequestError::Connect)?;
        let stream = socket.connect(target).await.map_err(RequestError::Connect)?;
        stream.set_nodelay(true).map_err(RequestError::Connect)?;
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(RequestError::Http)?;
        // Its errors reach the sender as well.
        tokio::spawn(driver);
        Ok(Self { sender, target })
    }

    /// Whether another request can be sent.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a GET request; gives the server's name and the answer, its body unread.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn get(
        &mut self,
        path: &str,
        close: bool,
    ) -> Result<(String, Response<Incoming>), RequestError> {
        let mut request = Request::get(path).header("Host", self.target.to_string());
        if close {
            request = request.header("Connection", "close");
        }
        let request = request.body(Empty::new()).map_err(RequestError::Malformed)?;
        self.sender.ready().await.map_err(RequestError::Http)?;
        let response = self.sender.send_request(request).await.map_err(RequestError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(RequestError::Status(response.status()));
        }
        let name = response.headers().get(SERVER_HEADER).and_then(|value| value.to_str().ok());
        let name = name.ok_or_else(|| RequestError::Wrong("no server names itself".to_owned()))?.to_owned();
        Ok((name, response))
    }

    /// Asks for the page with the server's name and checks it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn get_name(&mut self, close: bool) -> Result<String, RequestError> {
        let (name, response) = self.get("/", close).await?;
        let body = http_body_util::Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| RequestError::Wrong(error.to_string()))?.to_bytes();
        if body.as_ref() == format!("{name}\n").as_bytes() {
            return Ok(name);
        }
        Err(RequestError::Wrong(format!("{name} sent {:?}", String::from_utf8_lossy(&body))))
    }
}
