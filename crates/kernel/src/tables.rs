//! The maps of the packet path, by name.

use crate::loads::Loads;
use crate::map::{Map, TableError};
use crate::table::{Array, HashTable, PerCpuArray};
use abi::{
    Affinity, AffinityKey, Call, Counters, Flow, FlowKey, Fragment, Limits, Real, Reply, Service, ServiceKey,
    Settings, Shared, Slot,
};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

/// The tables user space reads and writes. Meanings and units are in `abi`.
#[derive(Debug)]
pub struct Tables {
    /// Settings, one entry.
    pub settings: Array<Settings>,
    /// State the packet path writes, one entry.
    pub shared: Array<Shared>,
    /// The filter in front of the look-ups.
    pub vip_filter: Array<u64>,
    /// Virtual services.
    pub services: HashTable<ServiceKey, Service>,
    /// Rings and pools.
    pub slots: Array<Slot>,
    /// Real servers.
    pub reals: Array<Real>,
    /// Their flows now, same index.
    pub loads: Loads,
    /// When a connection to each of them last finished its handshake, in ns; same index.
    pub progress: Array<u64>,
    /// Cursors of the round-robin services, by service index.
    pub cursors: Array<u64>,
    /// Statistics of the real servers, same index.
    pub counters: PerCpuArray<Counters>,
    /// Packets by verdict number.
    pub verdicts: PerCpuArray<u64>,
    /// Flows that have not proved themselves.
    pub embryonic: HashTable<FlowKey, Flow>,
    /// Flows that have.
    pub established: HashTable<FlowKey, Flow>,
    /// Persistence templates.
    pub templates: HashTable<FlowKey, Flow>,
    /// Call-IDs of those that are keyed by one.
    pub calls: HashTable<FlowKey, Call>,
    /// Notes of first pieces, for the later ones.
    pub fragments: HashTable<FlowKey, Fragment>,
    /// Which real servers serve a destination address.
    pub affinities: HashTable<AffinityKey, Affinity>,
    /// The filter in front of the look-ups of replies.
    pub masquerade_filter: Array<u64>,
    /// The ways back of embryonic translated flows.
    pub embryonic_replies: HashTable<FlowKey, Reply>,
    /// The ways back of established translated flows.
    pub replies: HashTable<FlowKey, Reply>,
}

/// Maps that live as long as the tables do: pinned, and adopted by the next daemon. `SCRATCH` and `PROGRAMS` belong to
/// one load of the programs instead.
pub(crate) const LASTING: [&str; 21] = [
    "SETTINGS",
    "SHARED",
    "VIP_FILTER",
    "SERVICES",
    "SLOTS",
    "REALS",
    "LOADS",
    "PROGRESS",
    "CURSORS",
    "COUNTERS",
    "VERDICTS",
    "EMBRYONIC",
    "ESTABLISHED",
    "TEMPLATES",
    "CALLS",
    "FRAGMENTS",
    "AFFINITIES",
    "MASQUERADE_FILTER",
    "EMBRYONIC_REPLIES",
    "REPLIES",
    "ANSWERS",
];

/// The tail-call table.
pub(crate) const PROGRAMS: &str = "PROGRAMS";

/// How many entries each configurable map has, and the name of the limit that says so.
pub(crate) fn sizes(limits: &Limits) -> [(&'static str, u32, &'static str); 15] {
    [
        ("SERVICES", limits.services_max, "services_max"),
        ("CURSORS", limits.services_max, "services_max"),
        ("SLOTS", limits.slots_max, "slots_max"),
        ("REALS", limits.reals_max, "reals_max"),
        ("LOADS", limits.reals_max, "reals_max"),
        ("PROGRESS", limits.reals_max, "reals_max"),
        ("COUNTERS", limits.reals_max, "reals_max"),
        ("EMBRYONIC", limits.embryonic_flows_max, "embryonic_flows_max"),
        ("ESTABLISHED", limits.established_flows_max, "established_flows_max"),
        ("TEMPLATES", limits.templates_max, "templates_max"),
        ("CALLS", limits.templates_max, "templates_max"),
        ("FRAGMENTS", limits.fragments_max, "fragments_max"),
        ("AFFINITIES", limits.affinities_max, "affinities_max"),
        ("EMBRYONIC_REPLIES", limits.embryonic_flows_max, "embryonic_flows_max"),
        ("REPLIES", limits.established_flows_max, "established_flows_max"),
    ]
}

impl Tables {
    pub(crate) fn new(maps: &mut HashMap<String, OwnedFd>) -> Result<Self, TableError> {
        let mut take = |name: &'static str| match maps.remove(name) {
            Some(fd) => Map::new(fd, name),
            None => {
                let source = io::Error::other("the eBPF object has no such map");
                Err(TableError { table: name, operation: "open", source })
            }
        };
        Ok(Self {
            settings: Array::new(take("SETTINGS")?)?,
            shared: Array::new(take("SHARED")?)?,
            vip_filter: Array::new(take("VIP_FILTER")?)?,
            services: HashTable::new(take("SERVICES")?)?,
            slots: Array::new(take("SLOTS")?)?,
            reals: Array::new(take("REALS")?)?,
            loads: Loads::new(take("LOADS")?)?,
            progress: Array::new(take("PROGRESS")?)?,
            cursors: Array::new(take("CURSORS")?)?,
            counters: PerCpuArray::new(take("COUNTERS")?)?,
            verdicts: PerCpuArray::new(take("VERDICTS")?)?,
            embryonic: HashTable::new(take("EMBRYONIC")?)?,
            established: HashTable::new(take("ESTABLISHED")?)?,
            templates: HashTable::new(take("TEMPLATES")?)?,
            calls: HashTable::new(take("CALLS")?)?,
            fragments: HashTable::new(take("FRAGMENTS")?)?,
            affinities: HashTable::new(take("AFFINITIES")?)?,
            masquerade_filter: Array::new(take("MASQUERADE_FILTER")?)?,
            embryonic_replies: HashTable::new(take("EMBRYONIC_REPLIES")?)?,
            replies: HashTable::new(take("REPLIES")?)?,
        })
    }
}
