//! Greets a mail server and takes leave [RFC 5321, 3.1 and 4.1.1; RFC 3207].

use crate::error::{Failure, fail, quoted};
use crate::stream::{Stream, connect, read_line};
use crate::tls::Configurations;
use api::Tls;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;

/// Longest line of an answer [RFC 5321, 4.5.3.1.5], with room for servers that do not keep to it.
const LINE_BYTES_MAX: usize = 2048;
/// Most lines of an answer.
const LINES_MAX: usize = 100;

pub(crate) async fn probe(
    configurations: &Configurations,
    to: SocketAddr,
    hello: &str,
    tls: Option<&Tls>,
) -> Result<(), Failure> {
    let mut stream = connect(to).await?;
    expect(&mut stream, 220).await?;
    command(&mut stream, &format!("EHLO {hello}"), 250).await?;
    let Some(tls) = tls else {
        return command(&mut stream, "QUIT", 221).await;
    };
    command(&mut stream, "STARTTLS", 220).await?;
    let mut stream = configurations.connect(stream, tls, None, to.ip(), &[]).await?;
    command(&mut stream, &format!("EHLO {hello}"), 250).await?;
    command(&mut stream, "QUIT", 221).await
}

async fn command(stream: &mut impl Stream, line: &str, code: u16) -> Result<(), Failure> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await?;
    expect(stream, code).await.map_err(|Failure(reason)| {
        let word = line.split(' ').next().unwrap_or(line);
        Failure(format!("{word}: {reason}"))
    })
}

async fn expect(stream: &mut impl Stream, code: u16) -> Result<(), Failure> {
    for _ in 0..LINES_MAX {
        let line = read_line(stream, LINE_BYTES_MAX).await?;
        // All lines of an answer but the last have a hyphen after the code.
        if line.as_bytes().get(3) == Some(&b'-') {
            continue;
        }
        if line.get(..3).and_then(|digits| digits.parse().ok()) == Some(code) {
            return Ok(());
        }
        return fail(format!("the answer was {}, not {code}", quoted(line.as_bytes())));
    }
    fail(format!("an answer of more than {LINES_MAX} lines"))
}
