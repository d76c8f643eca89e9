//! Services as command lines that make them (`-S`). Thresholds, timeouts and daemons are not saved, as in the
//! classic tool.

use crate::endpoint::{Names, Writer};
use crate::flags::flags_text;
use crate::listing::mask_text;
use crate::{sort, tunnel};
use api::{Family, Forwarding, Protocol, RealView, ServiceId, ServiceView, Services};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// The command lines, one `-A` a service and one `-a` a real server.
#[must_use]
pub fn save_text(services: &Services, numeric: bool, names: &dyn Names) -> String {
    let writer = Writer { numeric, names };
    let mut out = String::new();
    for service in sort::services(&services.services) {
        let name = service_option(&service.id, writer);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "-A {name}{}", spec_options(service));
        for real in sort::reals(&service.reals) {
            real_line(&mut out, &name, &service.id, real, writer);
        }
    }
    out
}

fn service_option(id: &ServiceId, writer: Writer<'_>) -> String {
    match *id {
        ServiceId::Fwmark { mark, family } => {
            let family = if family == Family::Ipv6 { " -6" } else { "" };
            // Marks from 2^31 print negative, which restore refuses: a known defect, kept.
            format!("-f {}{family}", mark.cast_signed())
        }
        ServiceId::Address { protocol, address, port } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", writer.endpoint(SocketAddr::new(address, port), Some(protocol)))
        }
    }
}

fn spec_options(service: &ServiceView) -> String {
    let spec = &service.spec;
    let mut text = format!(" -s {}", spec.scheduler);
    if let Some(persistence) = &spec.persistence {
        let _ = write!(text, " -p {}", persistence.timeout_s);
        if let Some(mask) = mask_text(persistence, service.id.family()) {
            let _ = write!(text, " -M {mask}");
        }
    }
    if let Some(engine) = &spec.persistence_engine {
        let _ = write!(text, " --pe {engine}");
    }
    if spec.one_packet {
        text += " -o";
    }
    if spec.scheduler_flags.any() {
        let _ = write!(text, " -b {}", flags_text(spec.scheduler_flags, &spec.scheduler));
    }
    text
}

fn real_line(out: &mut String, name: &str, service: &ServiceId, real: &RealView, writer: Writer<'_>) {
    let protocol = match service {
        ServiceId::Address { protocol, .. } => Some(*protocol),
        ServiceId::Fwmark { .. } => None,
    };
    let at = writer.endpoint(SocketAddr::new(real.id.address, real.id.port), protocol);
    let (method, tunnel) = match real.spec.forwarding {
        Forwarding::Masquerade => ("-m", String::new()),
        Forwarding::Tunnel => ("-i", tunnel::save_text(real.spec.tunnel)),
        Forwarding::Local | Forwarding::DirectRouting => ("-g", String::new()),
    };
    let _ = writeln!(out, "-a {name} -r {at} {method} -w {}{tunnel}", real.spec.weight);
}
