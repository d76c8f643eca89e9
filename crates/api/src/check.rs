//! How real servers are examined.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// One examination, repeated. A real server is up while all of its checks say so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// Where, if not at the real server's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Which port, if not the real server's own, which is the service's where the real server has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// When, and how often it must fail or pass to count.
    pub rhythm: Rhythm,
}

/// When a check is made, and how many results make a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rhythm {
    /// From start to start, in milliseconds, 100 to 86,400,000.
    pub interval_ms: u32,
    /// What takes longer has failed, in milliseconds, 10 to 3,600,000.
    pub timeout_ms: u32,
    /// So many passes in a row make a failed real server good again, 1 to 1000.
    pub rise: u16,
    /// So many failures in a row make a good one failed, 1 to 1000.
    pub fall: u16,
    /// Each interval is made longer or shorter at random by up to so many hundredths, 0 to 50.
    pub jitter_percent: u8,
    /// For so long after it was added, failures of a real server that has not yet passed are not counted, in
    /// milliseconds, 0 to 86,400,000. It gets no work before its first pass.
    pub grace_ms: u32,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self { interval_ms: 2_000, timeout_ms: 1_000, rise: 2, fall: 3, jitter_percent: 10, grace_ms: 0 }
    }
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CheckKind {
    /// Opens a TCP connection.
    Tcp,
    /// Sends something and expects an answer.
    Exchange(Exchange),
    /// Asks for a page.
    Http(Http),
    /// Greets a mail server and takes leave.
    Smtp {
        /// The name given with EHLO.
        hello: String,
        /// STARTTLS after the greeting.
        tls: Option<Tls>,
    },
    /// Asks a name server.
    Dns {
        /// The name asked for.
        name: String,
        /// `A`, `AAAA`, `NS`, `SOA`, `MX`, `TXT`, `CNAME`, `PTR` or `SRV`.
        record: String,
        /// An answer must have this as its text form; empty: any answer without an error.
        expect: String,
    },
    /// Sends an ICMP echo request.
    Ping,
    /// Runs a program, as a user without rights. It passes with exit code 0; a line `weight N` on its standard output
    /// sets the weight, in hundredths of the declared one.
    Program {
        /// The program, as an absolute path, and its arguments. In the arguments `{address}` and `{port}` stand for the
        /// real server's.
        command: Vec<String>,
        /// The user it runs as.
        user: String,
    },
    /// Reads the load that the real server reports: one line `load N`, 0 (idle) to 100 (no more work), or `down REASON`.
    Load,
    /// For direct routing and tunneling: opens a TCP connection to the VIP through this very real server, by its own MAC
    /// address or through the tunnel, and resets it when the answer is seen.
    Path,
}

impl CheckKind {
    /// The word that names it in files and listings.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Exchange(_) => "exchange",
            Self::Http(_) => "http",
            Self::Smtp { .. } => "smtp",
            Self::Dns { .. } => "dns",
            Self::Ping => "ping",
            Self::Program { .. } => "program",
            Self::Load => "load",
            Self::Path => "path",
        }
    }
}

/// Something sent and something expected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exchange {
    /// Over what.
    pub over: Transport,
    /// What is sent; empty: nothing.
    pub send: Octets,
    /// What must come back.
    pub expect: Expect,
}

/// What an exchange goes over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP: one datagram each way.
    Udp,
    /// TLS over TCP.
    Tls(Tls),
}

/// What must come back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Nothing: the connection or, with UDP, no ICMP error, will do.
    Nothing,
    /// The answer begins with this.
    Begins(Octets),
    /// The answer has this somewhere.
    Contains(Octets),
    /// The answer, as UTF-8, fits this regular expression.
    Matches(String),
}

/// A request for a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Http {
    /// 1 for HTTP/1.1, 2 for HTTP/2.
    pub version: u8,
    /// HTTPS.
    pub tls: Option<Tls>,
    /// The method, such as `GET`.
    pub method: String,
    /// The `Host` header; without it the address.
    pub host: Option<String>,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Status codes that pass, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// The first 64 KiB of the body fit this regular expression.
    pub body: Option<String>,
    /// SHA-256 of the whole body, as 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tls {
    /// Name asked for (SNI) and looked for in the certificate; without it the `Host` or the address.
    pub name: Option<String>,
    /// Whether the certificate must be good. Health checks go to addresses, so it is a choice.
    pub verify: bool,
    /// Certificates of authorities to trust, a PEM file; without it those of the system.
    pub authorities: Option<PathBuf>,
    /// Client certificate, a PEM file.
    pub certificate: Option<PathBuf>,
    /// Its private key, a PEM file.
    pub key: Option<PathBuf>,
}

/// Bytes, written in JSON as hexadecimal digits.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Octets(pub Vec<u8>);

impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fmt::Write as _;
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("bytes are an even number of hexadecimal digits");
        if !text.len().is_multiple_of(2) || !text.is_ascii() {
            return Err(wrong());
        }
        let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        (0..text.len()).step_by(2).map(pair).collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }
}
