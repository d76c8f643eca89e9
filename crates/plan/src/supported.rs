//! What the packet path of this release cannot do yet.
//!
//! Valid for IPVS, refused here. This file shrinks: when the packet path learns something, its paragraph
//! goes. Rules that stay for ever are in `check.rs`.

use api::{Forwarding, RealId, RealSpec, Refusal, RefusalKind};

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Unsupported, message)
}

/// Refuses a real server that cannot be reached yet.
pub(crate) fn real(id: &RealId, spec: &RealSpec) -> Result<(), Refusal> {
    let method = match spec.forwarding {
        Forwarding::DirectRouting | Forwarding::Masquerade | Forwarding::Tunnel => None,
        Forwarding::Local => Some("local delivery"),
    };
    if let Some(method) = method {
        return Err(unsupported(format!(
            "real server {id}: {method} is not in this release; use direct routing (-g) or a tunnel (-i)"
        )));
    }
    Ok(())
}
