//! Reads the listing `ipvsadm -L -n` prints: what an operator sees is what the demo checks.

use std::net::SocketAddr;

/// A real server's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Protocol and address of its service, such as `TCP 192.0.2.10:80`.
    pub service: String,
    /// Its address.
    pub real: SocketAddr,
    /// `Route`, `Masq` or `Tunnel`.
    pub forward: String,
    /// Weight.
    pub weight: u32,
    /// Active flows.
    pub active: u64,
    /// Inactive flows.
    pub inactive: u64,
}

/// Every real server's row; lines that are none are passed over.
#[must_use]
pub fn rows(listing: &str) -> Vec<Row> {
    let mut service = String::new();
    let mut rows = Vec::new();
    for line in listing.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("->"), Some(real)) => rows.extend(row(&service, real, words)),
            (Some(protocol @ ("TCP" | "UDP")), Some(address)) => service = format!("{protocol} {address}"),
            _ => {}
        }
    }
    rows
}

fn row<'a>(service: &str, real: &str, mut words: impl Iterator<Item = &'a str>) -> Option<Row> {
    Some(Row {
        service: service.to_owned(),
        real: real.parse().ok()?,
        forward: words.next()?.to_owned(),
        weight: words.next()?.parse().ok()?,
        active: words.next()?.parse().ok()?,
        inactive: words.next()?.parse().ok()?,
    })
}

/// The configured part of the rows: everything but the flow counts.
#[must_use]
pub fn configured(rows: &[Row]) -> Vec<(String, SocketAddr, String, u32)> {
    rows.iter().map(|row| (row.service.clone(), row.real, row.forward.clone(), row.weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 rr
  -> 192.0.2.101:80               Route   1      12         345       
  -> 192.0.2.102:80               Route   0      0          7         
TCP  [2001:db8::10]:80 wlc persistent 300 mask 64
  -> [2001:db8::101]:80           Route   1      1          0         
UDP  192.0.2.10:5300 rr
  -> 192.0.2.101:5300             Route   1      0          5         
";

    #[test]
    fn rows_are_read() {
        let rows = rows(LISTING);
        assert_eq!(rows.len(), 4);
        assert_eq!(
            rows[1],
            Row {
                service: "TCP 192.0.2.10:80".into(),
                real: "192.0.2.102:80".parse().expect("an address"),
                forward: "Route".into(),
                weight: 0,
                active: 0,
                inactive: 7,
            }
        );
        assert_eq!(rows[2].real, "[2001:db8::101]:80".parse().expect("an address"));
        assert_eq!(rows[3].service, "UDP 192.0.2.10:5300");
    }

    #[test]
    fn flow_counts_are_no_configuration() {
        let before = rows(LISTING);
        let after = rows(&LISTING.replace("345", "346"));
        assert_ne!(before, after);
        assert_eq!(configured(&before), configured(&after));
        let drained = rows(&LISTING.replace("Route   1      12", "Route   0      12"));
        assert_ne!(configured(&before), configured(&drained));
    }
}
