//! What the packet path of this release cannot do yet.
//!
//! Valid for IPVS, refused here. This file shrinks: when the packet path learns something, its paragraph
//! goes. Rules that stay for ever are in `check.rs`.

use api::{Forwarding, Protocol, RealId, RealSpec, Refusal, RefusalKind, ServiceId};

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Unsupported, message)
}

/// Refuses a service that cannot be served yet.
pub(crate) fn service(id: &ServiceId) -> Result<(), Refusal> {
    match *id {
        ServiceId::Address { protocol: Protocol::Sctp, .. } => {
            Err(unsupported(format!("{id}: SCTP is not in this release; use TCP or UDP")))
        }
        _ => Ok(()),
    }
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
    Ok(())
}
