//! Addresses with ports: `10.0.0.1:80`, `[2001:db8::1]:http`, `www:80`, and the short forms of `inet_aton`.

use crate::endpoint::Names;
use crate::number::whole_u16;
use api::Protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and, if one was given, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

/// Reads an address with an optional port. Port names are looked up for `protocol`; without one only numbers
/// pass. `None` when the text is no address.
pub(crate) fn endpoint(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Option<Endpoint> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (host, port_text) = split(text)?;
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        let port = port_text.map(|p| port_number(p, protocol, names).ok_or(()));
        return port.transpose().ok().map(|port| Endpoint { address: address.into(), port });
    }
    // Not IPv6: brackets lose whatever follows them, and the last colon inside cuts off the port.
    let (host, port_text) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    let address = ipv4(host, names)?;
    let port = port_text.map(|p| port_number(p, protocol, names).ok_or(()));
    port.transpose().ok().map(|port| Endpoint { address: address.into(), port })
}

/// Takes brackets off: the inside and the text after `]:`. Without brackets the whole text.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let Some(inner) = text.strip_prefix('[') else {
        return Some((text, None));
    };
    let (host, rest) = inner.split_once(']')?;
    Some((host, Some(rest.strip_prefix(':')?)))
}

fn port_number(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Option<u16> {
    whole_u16(text, 0, u16::MAX).or_else(|| names.service_port(text, protocol?))
}

/// An IPv4 address in `inet_aton` form or a host name.
pub(crate) fn ipv4(text: &str, names: &dyn Names) -> Option<Ipv4Addr> {
    inet_aton(text).or_else(|| names.host_address(text))
}

/// The C library's `inet_aton`: one to four numbers, decimal, octal (`010`) or hexadecimal (`0x10`), the
/// last of which fills the bytes that are left. White space ends the text.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let end = text.find([' ', '\t', '\n', '\x0b', '\x0c', '\r']).unwrap_or(text.len());
    let parts: Vec<&str> = text[..end].split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let (last, leading) = parts.split_last()?;
    let mut address: u32 = 0;
    for (place, part) in leading.iter().enumerate() {
        address |= u32::from(u8::try_from(c_number(part)?).ok()?) << (24 - 8 * place);
    }
    let last = c_number(last)?;
    let room = u32::MAX >> (8 * leading.len());
    (last <= room).then(|| Ipv4Addr::from(address | last))
}

/// A number with the C prefixes `0` and `0x`.
fn c_number(text: &str) -> Option<u32> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let signed = digits.starts_with(['+', '-']);
    if signed { None } else { u32::from_str_radix(digits, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inet_aton_forms() {
        let good = [
            ("10.1", "10.0.0.1"),
            ("24", "0.0.0.24"),
            ("0xffffff00", "255.255.255.0"),
            ("010.0.0.7", "8.0.0.7"),
            ("1.2.3.4 anything", "1.2.3.4"),
            ("4294967295", "255.255.255.255"),
            ("0", "0.0.0.0"),
        ];
        for (text, address) in good {
            assert_eq!(inet_aton(text).map(|a| a.to_string()).as_deref(), Some(address), "{text}");
        }
        for bad in
            ["", ".", "1.", ".1", "08", "0x", "0x+1", "1.2.3.4.5", "256.1", "1.16777216", " 1.2.3.4", "-1"]
        {
            assert_eq!(inet_aton(bad), None, "{bad:?}");
        }
    }
}
