//! Listings of services and real servers, all formats, trailing blanks included.

use crate::endpoint::{Names, Writer, cut};
use crate::failure::Failure;
use crate::flags::flags_text;
use crate::{sort, texts, tunnel};
use api::{Counters, Family, Forwarding, Persistence, RealView, ServiceId, ServiceView, Services};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Characters an IPv4 endpoint is cut to, so that the columns stay; IPv6 ones are never cut.
const ENDPOINT_WIDTH: usize = 28;

/// Columns of a listing. When several are asked for, the first in this order wins, [`Format::Plain`] last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Forwarding method, weight, flows.
    #[default]
    Plain,
    /// Counters (`--stats`).
    Stats,
    /// Counters a second (`--rate`).
    Rate,
    /// Connection thresholds (`--thresholds`).
    Thresholds,
    /// Persistence templates (`--persistent-conn`).
    PersistentConn,
    /// Tunnels (`--tun-info`).
    TunInfo,
}

/// How to write big numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BigNumbers {
    /// Cut to thousands, millions and so on from 100,000,000.
    #[default]
    Rounded,
    /// All digits (`--exact`).
    Exact,
}

/// A listing of services, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListServices {
    /// One service, without the version line; `None`: all.
    pub only: Option<ServiceId>,
    /// Columns.
    pub format: Format,
    /// No names.
    pub numeric: bool,
    /// Sorted, or in the director's order.
    pub sorted: bool,
    /// Big numbers.
    pub big_numbers: BigNumbers,
}

impl Default for ListServices {
    fn default() -> Self {
        Self {
            only: None,
            format: Format::Plain,
            numeric: false,
            sorted: true,
            big_numbers: BigNumbers::Rounded,
        }
    }
}

/// The text of a listing.
///
/// # Errors
/// The one service asked for is not there (exit 1).
pub fn services_text(
    services: &Services,
    request: &ListServices,
    names: &dyn Names,
) -> Result<String, Failure> {
    let writer = Writer { numeric: request.numeric, names };
    let mut out = String::new();
    if let Some(only) = request.only {
        let service = services.services.iter().find(|s| s.id == only);
        let service = service.ok_or_else(|| Failure::listing(texts::NO_SUCH_SERVICE))?;
        out += titles(request.format);
        service_text(&mut out, service, request, writer);
        return Ok(out);
    }
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "IP Virtual Server version 1.2.1 (size={})", services.connection_table_size);
    out += titles(request.format);
    let order =
        if request.sorted { sort::services(&services.services) } else { services.services.iter().collect() };
    for service in order {
        service_text(&mut out, service, request, writer);
    }
    Ok(out)
}

fn titles(format: Format) -> &'static str {
    match format {
        Format::Plain => concat!(
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        ),
        Format::TunInfo => concat!(
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n",
        ),
        Format::Stats => concat!(
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n",
            "  -> RemoteAddress:Port\n",
        ),
        Format::Rate => concat!(
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n",
            "  -> RemoteAddress:Port\n",
        ),
        Format::Thresholds => concat!(
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n",
        ),
        Format::PersistentConn => concat!(
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n",
        ),
    }
}

fn service_text(out: &mut String, service: &ServiceView, request: &ListServices, writer: Writer<'_>) {
    let name = service_name(&service.id, writer);
    let numbers = request.big_numbers;
    let _ = match request.format {
        Format::Stats => writeln!(out, "{name:<33}{}", stats_text(&service.counters, numbers)),
        Format::Rate => {
            let c = &service.counters;
            let rates = [
                c.connections_per_s,
                c.in_packets_per_s,
                c.out_packets_per_s,
                c.in_bytes_per_s,
                c.out_bytes_per_s,
            ];
            writeln!(out, "{name:<33}{}", big_numbers_text(&rates, numbers))
        }
        Format::Plain | Format::TunInfo | Format::Thresholds | Format::PersistentConn => {
            writeln!(out, "{name} {}", spec_text(service))
        }
    };
    let order = if request.sorted { sort::reals(&service.reals) } else { service.reals.iter().collect() };
    for real in order {
        real_text(out, &service.id, real, request, writer);
    }
}

/// Protocol and endpoint, or the mark. Marks print as signed numbers.
fn service_name(id: &ServiceId, writer: Writer<'_>) -> String {
    match *id {
        ServiceId::Fwmark { mark, family } => {
            let family = if family == Family::Ipv6 { " IPv6" } else { "" };
            format!("FWM  {}{family}", mark.cast_signed())
        }
        ServiceId::Address { protocol, address, port } => {
            let at = SocketAddr::new(address, port);
            let text = writer.endpoint(at, Some(protocol));
            format!("{:<4} {}", protocol.to_string(), cut_ipv4(at, &text))
        }
    }
}

fn cut_ipv4(at: SocketAddr, text: &str) -> &str {
    if at.is_ipv4() { cut(text, ENDPOINT_WIDTH) } else { text }
}

/// Scheduler, flags and persistence.
fn spec_text(service: &ServiceView) -> String {
    let spec = &service.spec;
    let mut text = spec.scheduler.clone();
    if spec.scheduler_flags.any() {
        let _ = write!(text, " ({})", flags_text(spec.scheduler_flags, &spec.scheduler));
    }
    if let Some(persistence) = &spec.persistence {
        let _ = write!(text, " persistent {}", persistence.timeout_s);
        if let Some(mask) = mask_text(persistence, service.id.family()) {
            let _ = write!(text, " mask {mask}");
        }
        if let Some(engine) = &spec.persistence_engine {
            let _ = write!(text, " pe {engine}");
        }
    }
    if spec.one_packet {
        text += " ops";
    }
    text
}

/// The mask, unless it is the default.
pub(crate) fn mask_text(persistence: &Persistence, family: Family) -> Option<String> {
    match (family, persistence.mask) {
        (Family::Ipv4, u32::MAX) | (Family::Ipv6, 128) => None,
        (Family::Ipv4, mask) => Some(std::net::Ipv4Addr::from(mask).to_string()),
        (Family::Ipv6, prefix) => Some(prefix.to_string()),
    }
}

fn real_text(
    out: &mut String,
    service: &ServiceId,
    real: &RealView,
    request: &ListServices,
    writer: Writer<'_>,
) {
    let at = SocketAddr::new(real.id.address, real.id.port);
    let protocol = match service {
        ServiceId::Address { protocol, .. } => Some(*protocol),
        ServiceId::Fwmark { .. } => None,
    };
    let text = writer.endpoint(at, protocol);
    let name = cut_ipv4(at, &text);
    let spec = &real.spec;
    let (active, inactive) = (real.active, real.inactive);
    let forwarding = spec.forwarding.listing_name();
    let columns = match request.format {
        Format::Plain => format!(" {forwarding:<7} {:<6} {active:<10} {inactive:<10}", spec.weight),
        Format::TunInfo => {
            let tunnel = match spec.forwarding {
                Forwarding::Tunnel => tunnel::info_text(spec.tunnel),
                Forwarding::Masquerade | Forwarding::Local | Forwarding::DirectRouting => "n/a".to_owned(),
            };
            format!(" {forwarding:<7} {tunnel:<13} {:<6} {active:<10} {inactive:<10}", spec.weight)
        }
        Format::Stats => stats_text(&real.counters, request.big_numbers),
        Format::Rate => {
            let c = &real.counters;
            let bytes = big_numbers_text(&[c.in_bytes_per_s, c.out_bytes_per_s], request.big_numbers);
            format!(" {:>8} {:>8} {:>8}{bytes}", c.connections_per_s, c.in_packets_per_s, c.out_packets_per_s)
        }
        Format::Thresholds => {
            let (upper, lower) = (spec.upper_threshold, spec.lower_threshold);
            format!(" {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        Format::PersistentConn => {
            format!(" {:<9} {:<11} {active:<10} {inactive:<10}", spec.weight, real.persistent)
        }
    };
    let _ = writeln!(out, "  -> {name:<ENDPOINT_WIDTH$}{columns}");
}

fn stats_text(c: &Counters, numbers: BigNumbers) -> String {
    big_numbers_text(&[c.connections, c.in_packets, c.out_packets, c.in_bytes, c.out_bytes], numbers)
}

fn big_numbers_text(values: &[u64], numbers: BigNumbers) -> String {
    values.iter().map(|value| big_number_text(*value, numbers)).collect()
}

/// A counter, nine characters wide with a blank in front; longer ones lose digits or, if exact, the width.
fn big_number_text(value: u64, numbers: BigNumbers) -> String {
    match (numbers, value) {
        (BigNumbers::Rounded, 100_000_000_000_000..) => format!("{:>8}T", value / 1_000_000_000_000),
        (BigNumbers::Rounded, 100_000_000_000..) => format!("{:>8}G", value / 1_000_000_000),
        (BigNumbers::Rounded, 1_000_000_000..) => format!("{:>8}M", value / 1_000_000),
        (BigNumbers::Rounded, 100_000_000..) => format!("{:>8}K", value / 1000),
        (BigNumbers::Exact, 100_000_000..) => format!(" {value}"),
        (BigNumbers::Rounded | BigNumbers::Exact, _) => format!("{value:>9}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_numbers_keep_the_columns() {
        let cases = [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (99_999_999_999_999, "   99999G", " 99999999999999"),
            (100_000_000_000_000, "     100T", " 100000000000000"),
        ];
        for (value, rounded, exact) in cases {
            assert_eq!(big_number_text(value, BigNumbers::Rounded), rounded);
            assert_eq!(big_number_text(value, BigNumbers::Exact), exact);
        }
    }
}
