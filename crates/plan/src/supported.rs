//! What the packet path of this release cannot do yet.
//!
//! Valid for IPVS, refused here. This file shrinks: when the packet path learns something, its paragraph
//! goes. Rules that stay for ever are in `check.rs`.

use api::{Forwarding, Protocol, RealId, RealSpec, Refusal, RefusalKind, ServiceId, ServiceSpec};

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Unsupported, message)
}

/// Refuses a service that cannot be served yet.
pub(crate) fn service(id: &ServiceId, spec: &ServiceSpec) -> Result<(), Refusal> {
    match *id {
        ServiceId::Fwmark { mark, .. } => {
            return Err(unsupported(format!(
                "firewall mark {mark}: services by firewall mark are not in this release; name an address and a port"
            )));
        }
        ServiceId::Address { protocol: Protocol::Sctp, .. } => {
            return Err(unsupported(format!("{id}: SCTP is not in this release; use TCP or UDP")));
        }
        ServiceId::Address { port: 0, .. } => {
            return Err(unsupported(format!(
                "{id}: port 0 (every port) is not in this release; add one service for each port"
            )));
        }
        ServiceId::Address { .. } => {}
    }
    if spec.persistence.is_some() {
        return Err(unsupported(format!(
            "{id}: persistence is not in this release; the sh and mh schedulers keep a client on its real server"
        )));
    }
    if let Some(engine) = &spec.persistence_engine {
        return Err(unsupported(format!("{id}: persistence engine `{engine}' is not in this release")));
    }
    if spec.one_packet {
        return Err(unsupported(format!("{id}: one-packet scheduling is not in this release")));
    }
    Ok(())
}

/// Refuses a real server that cannot be reached yet.
pub(crate) fn real(id: &RealId, spec: &RealSpec) -> Result<(), Refusal> {
    let method = match spec.forwarding {
        Forwarding::DirectRouting | Forwarding::Tunnel => None,
        Forwarding::Masquerade => Some("masquerading (-m)"),
        Forwarding::Local => Some("local delivery"),
    };
    if let Some(method) = method {
        return Err(unsupported(format!(
            "real server {id}: {method} is not in this release; use direct routing (-g) or a tunnel (-i)"
        )));
    }
    if spec.upper_threshold > 0 {
        return Err(unsupported(format!(
            "real server {id}: connection thresholds (-x, -y) are not in this release; limit it by its weight"
        )));
    }
    Ok(())
}
