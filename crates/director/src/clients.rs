//! Connections of each client of services that limit them, counted.
//!
//! The packet path adds a connection when it lets one in and takes it away when it closes. It cannot see one that runs into its
//! time-out, nor one that the kernel evicts; so the sweep counts, and what two passes in a row find wrong is put right.

use crate::recount::agreed;
use abi::{ClientKey, FLOW_INACTIVE, Flow, FlowKey, protocol};
use kernel::{HashTable, Put, TableError};
use std::collections::HashMap;

/// Connections by client, counted in the present pass, and the differences that the pass before found.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    counted: HashMap<ClientKey, i32>,
    suspected: HashMap<ClientKey, i32>,
}

impl Clients {
    /// Counts a live flow of a service that limits connections.
    pub(crate) fn count(&mut self, service: u32, key: &FlowKey, flow: &Flow) {
        if is_connection(key, flow) {
            *self.counted.entry(ClientKey::new(service, &key.client)).or_default() += 1;
        }
    }

    /// Ends a pass: puts right what is wrong in `table`. `limits` says which services limit connections.
    pub(crate) fn finish(
        &mut self,
        table: &HashTable<ClientKey, i32>,
        limits: impl Fn(u32) -> bool,
    ) -> Result<(), TableError> {
        let counted = std::mem::take(&mut self.counted);
        let before = std::mem::take(&mut self.suspected);
        let mut known: HashMap<ClientKey, i32> = table.entries()?.into_iter().collect();
        for key in counted.keys() {
            known.entry(*key).or_default();
        }
        for (key, present) in known {
            let real = counted.get(&key).copied().unwrap_or_default();
            if real == 0 && (present == 0 || !limits(key.service)) {
                table.delete(&key)?;
                continue;
            }
            let drift = real.saturating_sub(present);
            let repair = agreed(before.get(&key).copied().unwrap_or_default(), drift);
            if repair != 0 {
                // A connection that comes between these two is counted in the next pass.
                let now = table.get(&key)?.unwrap_or_default();
                table.put(&key, &now.saturating_add(repair), Put::Any)?;
            }
            if drift != repair {
                self.suspected.insert(key, drift.saturating_sub(repair));
            }
        }
        Ok(())
    }
}

/// Whether a flow counts as a connection of its client: TCP and SCTP while it is open or opening, others as long as they live.
fn is_connection(key: &FlowKey, flow: &Flow) -> bool {
    let opens_and_closes = [protocol::TCP, protocol::SCTP].map(u32::from).contains(&key.protocol);
    !opens_and_closes || flow.flags & FLOW_INACTIVE == 0
}
