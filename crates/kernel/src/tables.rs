//! The maps of the packet path, by name.

use crate::loads::Loads;
use crate::map::{Map, TableError};
use crate::table::{Array, HashTable, PerCpuArray};
use crate::trie::Trie;
use abi::{
    AccessKey, Affinity, AffinityKey, Call, ClientKey, ClientLimits, Counters, Failures, Flow, FlowKey,
    Fragment, Limits, Real, Reply, Service, ServiceKey, Settings, Shared, Slot,
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
    /// What went wrong with each of them; same index.
    pub failures: Array<Failures>,
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
    /// Networks that services let in or keep out.
    pub access: Trie<AccessKey, u32>,
    /// What each client of a service may have, by service index.
    pub client_limits: Array<ClientLimits>,
    /// Connections of clients of services that limit them.
    pub client_connections: HashTable<ClientKey, i32>,
    /// From when on a client has a second's worth of flows before it, in ns.
    pub client_rates: HashTable<ClientKey, u64>,
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
pub(crate) const LASTING: [&str; 26] = [
    "SETTINGS",
    "SHARED",
    "VIP_FILTER",
    "SERVICES",
    "SLOTS",
    "REALS",
    "LOADS",
    "PROGRESS",
    "FAILURES",
    "CURSORS",
    "COUNTERS",
    "VERDICTS",
    "EMBRYONIC",
    "ESTABLISHED",
    "TEMPLATES",
    "CALLS",
    "FRAGMENTS",
    "ACCESS",
    "CLIENT_LIMITS",
    "CLIENT_CONNECTIONS",
    "CLIENT_RATES",
    "AFFINITIES",
    "MASQUERADE_FILTER",
    "EMBRYONIC_REPLIES",
    "REPLIES",
    "ANSWERS",
];

/// The tail-call table.
pub(crate) const PROGRAMS: &str = "PROGRAMS";

/// How many entries each configurable map has, and the name of the limit that says so.
pub(crate) fn sizes(limits: &Limits) -> [(&'static str, u32, &'static str); 20] {
    [
        ("SERVICES", limits.services_max, "services_max"),
        ("CURSORS", limits.services_max, "services_max"),
        ("SLOTS", limits.slots_max, "slots_max"),
        ("REALS", limits.reals_max, "reals_max"),
        ("LOADS", limits.reals_max, "reals_max"),
        ("PROGRESS", limits.reals_max, "reals_max"),
        ("FAILURES", limits.reals_max, "reals_max"),
        ("COUNTERS", limits.reals_max, "reals_max"),
        ("EMBRYONIC", limits.embryonic_flows_max, "embryonic_flows_max"),
        ("ESTABLISHED", limits.established_flows_max, "established_flows_max"),
        ("TEMPLATES", limits.templates_max, "templates_max"),
        ("CALLS", limits.templates_max, "templates_max"),
        ("FRAGMENTS", limits.fragments_max, "fragments_max"),
        ("ACCESS", limits.networks_max, "networks_max"),
        ("CLIENT_LIMITS", limits.services_max, "services_max"),
        ("CLIENT_CONNECTIONS", limits.clients_max, "clients_max"),
        ("CLIENT_RATES", limits.clients_max, "clients_max"),
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
            failures: Array::new(take("FAILURES")?)?,
            cursors: Array::new(take("CURSORS")?)?,
            counters: PerCpuArray::new(take("COUNTERS")?)?,
            verdicts: PerCpuArray::new(take("VERDICTS")?)?,
            embryonic: HashTable::new(take("EMBRYONIC")?)?,
            established: HashTable::new(take("ESTABLISHED")?)?,
            templates: HashTable::new(take("TEMPLATES")?)?,
            calls: HashTable::new(take("CALLS")?)?,
            fragments: HashTable::new(take("FRAGMENTS")?)?,
            access: Trie::new(take("ACCESS")?)?,
            client_limits: Array::new(take("CLIENT_LIMITS")?)?,
            client_connections: HashTable::new(take("CLIENT_CONNECTIONS")?)?,
            client_rates: HashTable::new(take("CLIENT_RATES")?)?,
            affinities: HashTable::new(take("AFFINITIES")?)?,
            masquerade_filter: Array::new(take("MASQUERADE_FILTER")?)?,
            embryonic_replies: HashTable::new(take("EMBRYONIC_REPLIES")?)?,
            replies: HashTable::new(take("REPLIES")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

    /// Bytes that the kernel says a map takes.
    fn memory(map: BorrowedFd<'_>) -> u64 {
        let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
        let text = std::fs::read_to_string(path).expect("fdinfo");
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).expect("memlock");
        line.trim().parse().expect("a number")
    }

    /// Bytes of an entry and the limit that it multiplies, as docs/operating.md has them; the counters grow with the CPUs.
    const ENTRY: [(&str, u64); 20] = [
        ("SERVICES", 128),
        ("CURSORS", 8),
        ("SLOTS", 8),
        ("REALS", 128),
        ("LOADS", 16),
        ("PROGRESS", 8),
        ("FAILURES", 16),
        ("COUNTERS", 8),
        ("EMBRYONIC", 128),
        ("ESTABLISHED", 128),
        ("TEMPLATES", 128),
        ("CALLS", 16),
        ("FRAGMENTS", 176),
        ("ACCESS", 0),
        ("CLIENT_LIMITS", 8),
        ("CLIENT_CONNECTIONS", 96),
        ("CLIENT_RATES", 96),
        ("AFFINITIES", 144),
        ("EMBRYONIC_REPLIES", 160),
        ("REPLIES", 16),
    ];

    #[test]
    fn tables_take_the_memory_that_the_documents_say() {
        if let Err(reason) = testkit::need_bpf() {
            testkit::skip!("{reason}");
        }
        let loaded = crate::object::load(&Limits::default(), None).expect("load");
        let mut sum = 0;
        for name in LASTING {
            sum += memory(loaded.maps[name].as_fd());
        }
        eprintln!("all tables: {sum} bytes");
        for ((name, entries, _), (same, bytes)) in sizes(&Limits::default()).into_iter().zip(ENTRY) {
            assert_eq!(name, same);
            let taken = memory(loaded.maps[name].as_fd());
            let cpus = if name == "COUNTERS" { crate::map::possible_cpus().expect("CPUs") } else { 0 };
            let each = bytes + cpus as u64 * size_of::<Counters>() as u64;
            eprintln!("{name}: {taken} bytes, {} each", taken / u64::from(entries));
            // Up to Linux 6.3 the kernel says what keys and values take, without what holds them. Afterwards it is all, and
            // another kernel may need a few bytes more or less.
            let all = each * u64::from(entries);
            let least = if kernel_is_exact() { all * 3 / 4 } else { 0 };
            assert!((least..=all * 5 / 4).contains(&taken), "{name} takes {taken} bytes");
        }
    }

    /// Whether the kernel counts all that a map takes [`bpf_map_memory_usage`, Linux 6.4].
    fn kernel_is_exact() -> bool {
        let name = nix::sys::utsname::uname().expect("uname");
        let mut numbers =
            name.release().to_str().unwrap_or_default().split('.').map_while(|it| it.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(4))
    }

    #[test]
    fn ways_back_and_calls_take_memory_as_they_come() {
        if let Err(reason) = testkit::need_bpf() {
            testkit::skip!("{reason}");
        }
        let mut loaded = crate::object::load(&Limits::default(), None).expect("load");
        let [replies, calls] =
            ["REPLIES", "CALLS"].map(|name| loaded.maps[name].try_clone().expect("a copy"));
        let tables = Tables::new(&mut loaded.maps).expect("tables");
        let before = [memory(replies.as_fd()), memory(calls.as_fd())];
        let keys: Vec<FlowKey> =
            (0..10_000).map(|protocol| FlowKey { protocol, ..FlowKey::default() }).collect();
        tables.replies.put_batch(&keys, &vec![Reply::default(); keys.len()]).expect("ways back");
        tables.calls.put_batch(&keys, &vec![bytemuck::Zeroable::zeroed(); keys.len()]).expect("calls");
        for (map, before, most) in [(&replies, before[0], 192), (&calls, before[1], 512)] {
            let each = (memory(map.as_fd()) - before) / keys.len() as u64;
            eprintln!("{each} bytes each");
            assert!(each <= most, "{each} bytes each");
            assert!(!kernel_is_exact() || each > most / 2);
        }
    }
}
