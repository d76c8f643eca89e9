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
        let names = (!self.numeric).then_some(self.names);
        let host = names.and_then(|n| n.host_name(at.ip())).unwrap_or_else(|| ip_text(at.ip()));
        let port = names.zip(protocol).and_then(|(n, protocol)| n.service_name(at.port(), protocol));
        let port = port.unwrap_or_else(|| at.port().to_string());
        let text = if at.is_ipv6() { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        cut(&text, TEXT_BYTES_MAX).to_owned()
    }
}

/// An address as the C library writes it. Unlike Rust's, it has dots in IPv4-compatible addresses
/// (`::10.0.0.1`).
fn ip_text(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, high, _] if high != 0 => {
                let [.., a, b, c, d] = v6.octets();
                format!("::{a}.{b}.{c}.{d}")
            }
            _ => v6.to_string(),
        },
        IpAddr::V4(v4) => v4.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_look_as_the_c_library_writes_them() {
        let cases = [
            ("::a00:1", "::10.0.0.1"),
            ("::1:0", "::0.1.0.0"),
            ("::5", "::5"),
            ("::", "::"),
            ("::ffff:0:1", "::ffff:0.0.0.1"),
            ("1::a00:1", "1::a00:1"),
            ("0:0:1:0:0:0:0:0", "0:0:1::"),
            ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
            ("::1:a00:1", "::1:a00:1"),
            ("10.0.0.1", "10.0.0.1"),
        ];
        for (address, text) in cases {
            assert_eq!(ip_text(address.parse().expect("an address")), text);
        }
    }

    #[test]
    fn a_cut_keeps_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("é", 1), "");
    }
}
