//! TCP connections for one probe.

use crate::error::{Failure, fail};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// Either kind of stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A new connection. It is reset when it is dropped, so that thousands of checks a second leave no ports in TIME_WAIT.
pub(crate) async fn connect(to: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_zero_linger()?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads until `is_enough`, the end, or the limit, and returns what came.
pub(crate) async fn read_until(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    limit: usize,
    is_enough: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Failure> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !is_enough(&answer) && answer.len() < limit {
        let most = piece.len().min(limit - answer.len());
        match stream.read(&mut piece[..most]).await {
            Ok(0) => break,
            Ok(got) => answer.extend_from_slice(&piece[..got]),
            // TLS without a farewell: what came is the answer.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer)
}

/// Reads a line, without its end.
pub(crate) async fn read_line(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    limit: usize,
) -> Result<String, Failure> {
    let mut line = Vec::new();
    loop {
        // A byte at a time: what follows the line belongs to whoever reads next.
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if line.len() < limit => line.push(byte),
            Ok(_) => return fail(format!("a line of more than {limit} bytes")),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !line.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
