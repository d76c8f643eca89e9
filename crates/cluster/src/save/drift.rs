//! What was changed of one service since its table was applied.

use super::document::Slot;
use crate::file::{Forward, Service};
use crate::read::Record as _;
use crate::render::{Common, Known, item_texts, own_port, table};
use crate::resolve::tunnel_of;
use api::{Forwarding, RealId, ServiceId};
use plan::ServiceEntry;

/// Keys that say something else now. Services of one table with the same drift can share a table again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Drift {
    /// How they are written now; `None`: not at all.
    pub(super) keys: Vec<(&'static str, Option<String>)>,
    /// The servers, if they changed.
    pub(super) servers: Option<Servers>,
}

/// What became of the servers of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Servers {
    /// Of those there were, in the order of the file.
    pub(super) slots: Vec<Slot>,
    /// New ones, oldest first.
    pub(super) added: Vec<String>,
    /// All of them as a value.
    pub(super) whole: String,
}

/// What a table says for all its servers.
pub(super) fn said_by(id: &ServiceId, table: &Service) -> Option<Common> {
    let forwarding = match table.forward.as_ref().map(|at| at.value) {
        Some(Forward::Direct) | None => Forwarding::DirectRouting,
        Some(Forward::Nat | Forward::FullNat) => Forwarding::Masquerade,
        Some(Forward::Tunnel) => Forwarding::Tunnel,
        Some(Forward::Local) => Forwarding::Local,
    };
    let tunnel = table.tunnel.as_ref().map_or(Ok(api::Tunnel::Ipip), |at| tunnel_of(&at.value.0));
    let port = table.server_port.as_ref().map_or(own_port(id), |at| at.value.short());
    Some(Common { forwarding, tunnel: tunnel.ok()?, port })
}

/// What differs between a service as its table said and as it is.
pub(super) fn drift(
    id: &ServiceId,
    before: &ServiceEntry,
    now: &ServiceEntry,
    common: &Common,
    known: &mut Known,
) -> Drift {
    let (was, is) = (table(id, before, common, known), table(id, now, common, known));
    let (old, new) = (was.pairs(), is.pairs());
    let mut keys = Vec::new();
    let all = old.iter().chain(new.iter().filter(|(key, _)| old.iter().all(|(it, _)| it != key)));
    for key in all.map(|(key, _)| *key).filter(|key| *key != "servers") {
        let text =
            |pairs: &[(&str, String)]| pairs.iter().find(|(it, _)| *it == key).map(|(_, text)| text.clone());
        let after = text(&new);
        if text(&old) != after {
            keys.push((key, after));
        }
    }
    let named = |entry: &ServiceEntry, service: &Service| -> Vec<(RealId, String)> {
        entry.reals().rev().map(|(real, _)| *real).zip(item_texts(service)).collect()
    };
    let (old, new) = (named(before, &was), named(now, &is));
    let slots: Vec<Slot> = old
        .iter()
        .map(|(real, text)| match new.iter().find(|(it, _)| it == real) {
            Some((_, now)) if now == text => Slot::Stays,
            Some((_, now)) => Slot::Is(now.clone()),
            None => Slot::Goes,
        })
        .collect();
    let is_new = |real: &RealId| old.iter().all(|(it, _)| it != real);
    let added: Vec<String> =
        new.iter().filter(|(real, _)| is_new(real)).map(|(_, text)| text.clone()).collect();
    let is_same = added.is_empty() && slots.iter().all(|slot| *slot == Slot::Stays);
    // Brackets also around one, so that the next save finds a list.
    let whole = format!("[{}]", item_texts(&is).join(", "));
    Drift { keys, servers: (!is_same).then_some(Servers { slots, added, whole }) }
}

/// How a key says what it would say if it were not there, for a table whose template says something else. `None`: it cannot.
pub(super) fn unsaid(key: &str) -> Option<&'static str> {
    match key {
        "scheduler_flags" | "checks" | "allow" | "deny" => Some("[]"),
        "one_packet" | "adaptive" => Some("false"),
        "on_failure" => Some("\"remove\""),
        "panic_percent" => Some("0"),
        "slow_start_time" | "drain_time" => Some("\"0s\""),
        _ => None,
    }
}
