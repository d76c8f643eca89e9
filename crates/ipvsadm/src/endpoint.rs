//! How addresses and ports are written, and the name services that help.

use api::Protocol;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Longest endpoint text, in bytes: the classic tool's buffer without its end mark.
const TEXT_BYTES_MAX: usize = 59;

/// Name services. Tier 2 implements them with the C library, tests with a table.
pub trait Names {
    /// First IPv4 address of a host name. Names never give IPv6 addresses here.
    fn host_address(&self, name: &str) -> Option<Ipv4Addr>;
    /// Port of a service name; case matters.
    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16>;
    /// Name of a host.
    fn host_name(&self, address: IpAddr) -> Option<String>;
    /// Name of a service.
    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// How to write endpoints in an answer.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    /// No names (`-n`).
    pub(crate) numeric: bool,
    /// Where names come from otherwise.
    pub(crate) names: &'a dyn Names,
}

impl Writer<'_> {
    /// `address:port`, IPv6 in brackets. Port names need a protocol; services of a firewall mark have none.
    pub(crate) fn endpoint(&self, at: SocketAddr, protocol: Option<Protocol>) -> String {
        if self.numeric {
            return at.to_string();
        }
        let host = self.names.host_name(at.ip()).unwrap_or_else(|| at.ip().to_string());
        let port = protocol.and_then(|p| self.names.service_name(at.port(), p));
        let port = port.unwrap_or_else(|| at.port().to_string());
        let text = if at.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        cut(&text, TEXT_BYTES_MAX).to_owned()
    }
}

/// At most so many bytes of a text, whole characters only.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
