//! Who is who on the link: MAC addresses of the director, the gateway and the servers.

use std::net::{IpAddr, Ipv6Addr};

/// MAC address of the director.
pub(crate) const DIRECTOR_MAC: &str = "02:00:00:00:00:0d";
/// MAC address of the gateway, behind which all clients are.
pub(crate) const GATEWAY_MAC: &str = "02:00:00:00:00:0c";
/// MAC addresses of servers, without the last byte, which is that of their addresses.
pub(crate) const SERVER_MACS: [u8; 5] = [2, 0, 0, 0, 1];
/// 10.0.0.1 and fd00::1 up to this one.
pub(crate) const SERVERS: u8 = 16;

/// MAC address of a server.
pub(crate) fn of_server(number: u8) -> String {
    let bytes = SERVER_MACS.iter().chain([&number]);
    bytes.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// The server with this address.
pub(crate) fn server_at(address: IpAddr) -> Option<u8> {
    let number = match address {
        IpAddr::V4(it) => it.octets().strip_prefix(&[10, 0, 0]).and_then(<[u8]>::first).copied(),
        IpAddr::V6(it) => {
            let last = it.octets()[15];
            (it == Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())).then_some(last)
        }
    };
    number.filter(|number| (1..=SERVERS).contains(number))
}

/// MAC address from which packets with this source address come: of the server that has it, or of the gateway.
pub(crate) fn of_source(address: IpAddr) -> String {
    server_at(address).map_or_else(|| GATEWAY_MAC.to_owned(), of_server)
}

/// The server whose MAC address stands at the start of these bytes.
pub(crate) fn server(bytes: &[u8]) -> Option<u8> {
    bytes.strip_prefix(&SERVER_MACS).and_then(<[u8]>::first).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_send_from_their_own_address() {
        let source = |text: &str| of_source(text.parse().expect("address"));
        assert_eq!(source("10.0.0.3"), "02:00:00:00:01:03");
        assert_eq!(source("fd00::10"), "02:00:00:00:01:10");
        for other in ["10.0.0.17", "10.0.0.254", "198.51.100.1", "fd00::fe", "2001:db8::3"] {
            assert_eq!(source(other), GATEWAY_MAC, "{other}");
        }
    }
}
