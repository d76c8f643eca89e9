//! Reads the load that a real server reports.
//!
//! The protocol: the server writes one line and closes. `load N`, N from 0 (idle) to 100 (no more work, please), or
//! `down REASON`.

use crate::error::{Failure, fail, quoted};
use crate::stream::{connect, read_line};
use std::net::SocketAddr;

/// Longest line.
const LINE_BYTES_MAX: usize = 256;

/// The share of its weight that the server should get, in hundredths.
pub(crate) async fn probe(to: SocketAddr) -> Result<u16, Failure> {
    let line = read_line(&mut connect(to).await?, LINE_BYTES_MAX).await?;
    parse(&line)
}

fn parse(line: &str) -> Result<u16, Failure> {
    let mut words = line.trim().splitn(2, ' ');
    match (words.next(), words.next()) {
        (Some("load"), Some(number)) => match number.parse::<u16>() {
            Ok(load @ 0..=100) => Ok(100 - load),
            _ => fail(format!("a load of {}, not 0 to 100", quoted(number.as_bytes()))),
        },
        (Some("down"), reason) => {
            fail(format!("the server says it is down: {}", quoted(reason.unwrap_or("").as_bytes())))
        }
        _ => fail(format!("the answer was {}, not `load N' or `down REASON'", quoted(line.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_load_is_what_is_left_of_the_weight() {
        assert_eq!(parse("load 0"), Ok(100));
        assert_eq!(parse("load 85 "), Ok(15));
        for (line, part) in [
            ("load 101", "not 0 to 100"),
            ("load x", "not 0 to 100"),
            ("down for repair", "it is down: \"for repair\""),
            ("HTTP/1.1 400", "not `load N'"),
            ("", "not `load N'"),
        ] {
            let failure = parse(line).expect_err(line);
            assert!(failure.0.contains(part), "{failure}");
        }
    }
}
