//! Sends something and expects an answer, over TCP, UDP or TLS.

use crate::ANSWER_BYTES_MAX;
use crate::error::{Failure, fail, quoted};
use crate::stream::{Stream, connect, read_until};
use crate::tls::Configurations;
use api::{Exchange, Expect, Transport};
use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

/// How long an ICMP error is waited for where no answer is expected.
const ERROR_WAIT: Duration = Duration::from_millis(200);

pub(crate) async fn probe(tls: &Configurations, to: SocketAddr, exchange: &Exchange) -> Result<(), Failure> {
    let wanted = Wanted::new(&exchange.expect)?;
    match &exchange.over {
        Transport::Tcp => over_stream(connect(to).await?, exchange, &wanted).await,
        Transport::Tls(how) => {
            let stream = tls.connect(connect(to).await?, how, None, to.ip(), &[]).await?;
            over_stream(stream, exchange, &wanted).await
        }
        Transport::Udp => over_udp(to, exchange, &wanted).await,
    }
}

async fn over_stream(
    mut stream: impl Stream,
    exchange: &Exchange,
    wanted: &Wanted<'_>,
) -> Result<(), Failure> {
    if !exchange.send.0.is_empty() {
        stream.write_all(&exchange.send.0).await?;
        stream.flush().await?;
    }
    let answer = read_until(&mut stream, ANSWER_BYTES_MAX, |so_far| wanted.is_decided(so_far)).await?;
    wanted.judge(&answer)
}

async fn over_udp(to: SocketAddr, exchange: &Exchange, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    socket.send(&exchange.send.0).await?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    if matches!(wanted, Wanted::Nothing) {
        return match tokio::time::timeout(ERROR_WAIT, socket.recv(&mut answer)).await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(_)) | Err(_) => Ok(()),
        };
    }
    let length = socket.recv(&mut answer).await?;
    wanted.judge(&answer[..length])
}

enum Wanted<'a> {
    Nothing,
    Begins(&'a [u8]),
    Contains(&'a [u8]),
    Matches(Regex),
}

impl<'a> Wanted<'a> {
    fn new(expect: &'a Expect) -> Result<Self, Failure> {
        Ok(match expect {
            Expect::Nothing => Self::Nothing,
            Expect::Begins(octets) => Self::Begins(&octets.0),
            Expect::Contains(octets) => Self::Contains(&octets.0),
            Expect::Matches(pattern) => Self::Matches(compile(pattern)?),
        })
    }

    /// Whether more bytes would not change the verdict.
    fn is_decided(&self, answer: &[u8]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Begins(wanted) => answer.len() >= wanted.len() || !wanted.starts_with(answer),
            Self::Contains(_) | Self::Matches(_) => self.is_met(answer),
        }
    }

    fn is_met(&self, answer: &[u8]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Begins(wanted) => answer.starts_with(wanted),
            Self::Contains(wanted) => {
                wanted.is_empty() || answer.windows(wanted.len()).any(|window| window == *wanted)
            }
            Self::Matches(pattern) => std::str::from_utf8(answer).is_ok_and(|text| pattern.is_match(text)),
        }
    }

    fn judge(&self, answer: &[u8]) -> Result<(), Failure> {
        if self.is_met(answer) {
            return Ok(());
        }
        let wanted = match self {
            Self::Nothing => return Ok(()),
            Self::Begins(wanted) => format!("one that begins with {}", quoted(wanted)),
            Self::Contains(wanted) => format!("one with {}", quoted(wanted)),
            Self::Matches(pattern) => format!("one that fits `{pattern}'"),
        };
        let got = if answer.is_empty() { "no bytes".to_owned() } else { quoted(answer) };
        fail(format!("the answer was {got}, not {wanted}"))
    }
}

/// A pattern that was tried when it was declared.
pub(crate) fn compile(pattern: &str) -> Result<Regex, Failure> {
    Regex::new(pattern).map_err(|error| Failure(format!("`{pattern}' is no regular expression: {error}")))
}
