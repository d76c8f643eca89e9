//! `[check.NAME]`: one table for all types of checks, and which keys belong to which type.

use crate::read::{At, record, words};
use crate::values::{Address, FilePath, Hex, Int, Many, Millis, Short, Shortened, Status, Text};

record! { "a check"
/// A health check.
pub struct Check {
    /// What is done: `tcp` opens a connection; `exchange` sends something and expects an answer; `http` asks for a page; `smtp`
    /// greets a mail server; `dns` asks a name server; `ping` sends an ICMP echo request; `program` runs a program of yours;
    /// `load` reads the load that the server reports; `path` opens a connection to the VIP through this very server, by its
    /// MAC address or its tunnel.
    must r#type: CheckType,
    /// Where to. Default: the server's own address. `path`: the VIP; default: the service's.
    may address: Address,
    /// Which port. Default: the server's port, or else the service's.
    may port: Int<1, 65535>,
    /// From start to start. Default 2s.
    may interval: Millis<100, 86_400_000>,
    /// What takes longer has failed. Default 1s.
    may timeout: Millis<10, 3_600_000>,
    /// So many passes in a row make a failed server good again. Default 2.
    may rise: Int<1, 1000>,
    /// So many failures in a row make a good server failed. Default 3.
    may fall: Int<1, 1000>,
    /// Intervals are longer or shorter at random by up to so many hundredths. Default 10.
    may jitter_percent: Int<0, 50>,
    /// For so long, failures of a new server are not counted. Default 0s.
    may grace: Millis<0, 86_400_000>,
    /// `exchange`, `http`, `smtp`: speak TLS. Default false.
    may tls: Short<Tls>,
    /// `exchange`: over TCP or UDP. Default `tcp`.
    may over: Over,
    /// `exchange`: what is sent. Default: nothing.
    may send: Short<Octets>,
    /// `exchange`: what must come back; `http`: what the body must have. Default: anything.
    may expect: Short<Expect>,
    /// `http`: 1 for HTTP/1.1, 2 for HTTP/2. Default 1.
    may version: Int<1, 2>,
    /// `http`: the method. Default GET.
    may method: Text,
    /// `http`: the `Host` header. Default: the address.
    may host: Text,
    /// `http`: path and query. Default `/`.
    may path: Text,
    /// `http`: status codes that pass. Default 200-299.
    may status: Many<Status>,
    /// `http`: SHA-256 of the whole body, in 64 hexadecimal digits.
    may digest: Text,
    /// `smtp`: the name given with EHLO. Default `localhost`.
    may hello: Text,
    /// `dns`: the name asked for. Default `.`
    may name: Text,
    /// `dns`: A, AAAA, NS, SOA, MX, TXT, CNAME, PTR or SRV. Default A; of the name `.` NS.
    may record: Text,
    /// `dns`: an answer must have this as its text. Default: any answer without an error.
    may answer: Text,
    /// `program`: its absolute path, and its arguments; `{address}` and `{port}` there stand for the server's.
    may command: Many<Text>,
    /// `program`: the user it runs as, not root. Default `nobody`.
    may user: Text,
}}

words! {
/// What a check does.
pub enum CheckType {
    /// Opens a TCP connection.
    Tcp = "tcp",
    /// Sends something and expects an answer.
    Exchange = "exchange",
    /// Asks for a page.
    Http = "http",
    /// Greets a mail server.
    Smtp = "smtp",
    /// Asks a name server.
    Dns = "dns",
    /// Sends an ICMP echo request.
    Ping = "ping",
    /// Runs a program.
    Program = "program",
    /// Reads the reported load.
    Load = "load",
    /// Opens a connection to the VIP. Not in this release: refused.
    Path = "path",
}}

words! {
/// What an exchange goes over.
pub enum Over {
    /// TCP.
    Tcp = "tcp",
    /// UDP.
    Udp = "udp",
}}

record! { "tls"
/// How TLS is spoken. `true` stands for TLS with defaults.
#[derive(Default)]
pub struct Tls {
    /// false: no TLS at all. Default true.
    may on: bool,
    /// Name asked for (SNI) and looked for in the certificate. Default: `host`, or the address.
    may name: Text,
    /// Whether the certificate must be good. Default false.
    may verify: bool,
    /// Certificates of authorities to trust, a PEM file. Default: those of the system.
    may authorities: FilePath,
    /// Client certificate, a PEM file.
    may certificate: FilePath,
    /// Its private key, a PEM file.
    may key: FilePath,
}}

record! { "bytes"
/// Bytes: text, or hexadecimal digits.
pub struct Octets {
    /// As text.
    may text: Text,
    /// In hexadecimal digits.
    may hex: Hex,
}}

record! { "expect"
/// What must come back: one of these. Text alone stands for `contains`.
pub struct Expect {
    /// The answer has this somewhere.
    may contains: Short<Octets>,
    /// The answer begins with this.
    may begins: Short<Octets>,
    /// The answer fits this regular expression.
    may matches: Text,
}}

impl Check {
    /// A check of this type with defaults.
    pub(crate) fn of(r#type: CheckType) -> Self {
        Self {
            r#type: r#type.into(),
            address: None,
            port: None,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            jitter_percent: None,
            grace: None,
            tls: None,
            over: None,
            send: None,
            expect: None,
            version: None,
            method: None,
            host: None,
            path: None,
            status: None,
            digest: None,
            hello: None,
            name: None,
            record: None,
            answer: None,
            command: None,
            user: None,
        }
    }
}

impl Shortened for Tls {
    type Alone = bool;
    fn from_alone(on: At<bool>) -> Self {
        Self { on: Some(on), ..Self::default() }
    }
    fn alone(&self) -> Option<&bool> {
        self.on.as_ref().map(|at| &at.value)
    }
}

impl Shortened for Octets {
    type Alone = Text;
    fn from_alone(text: At<Text>) -> Self {
        Self { text: Some(text), hex: None }
    }
    fn alone(&self) -> Option<&Text> {
        self.text.as_ref().map(|at| &at.value)
    }
}

impl Shortened for Expect {
    type Alone = Text;
    fn from_alone(text: At<Text>) -> Self {
        let span = text.span.clone();
        let contains = Some(At { value: Short(Octets::from_alone(text)), span });
        Self { contains, begins: None, matches: None }
    }
    fn alone(&self) -> Option<&Text> {
        self.contains.as_ref().and_then(|at| at.value.0.alone())
    }
}
