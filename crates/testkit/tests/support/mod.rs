//! The tables of a case in the kernel's maps, for the runners that use the real programs.
#![allow(dead_code, reason = "each test binary uses another part")]

use abi::{Counters, FlowKey, Limits, Load, Shared, VERDICTS_MAX, VIP_FILTER_WORDS, Verdict, vip_filter_bit};
use kernel::{Datapath, HashTable, Put, TableError};
use nix::time::{ClockId, clock_gettime};
use testkit::case::{Compiled, Seen, SeenFlow, sort_templates};

/// Largest tables of a case or a random test.
const LIMITS: Limits = Limits {
    services_max: 16,
    reals_max: 64,
    slots_max: 65_536,
    embryonic_flows_max: 16_384,
    established_flows_max: 1024,
    templates_max: 1024,
    fragments_max: 1024,
    affinities_max: 64,
    networks_max: 64,
    clients_max: 64,
};
/// What the kernel runs a packet with: the loopback interface.
const INGRESS: u32 = 1;
/// Ends of flows may be off by as much as a busy machine may take between filling and reading.
const CLOCK_SLACK_NS: u64 = 4_000_000_000;

/// `XDP_*` actions [uapi/linux/bpf.h].
mod action {
    pub(super) const DROP: u32 = 1;
    pub(super) const PASS: u32 = 2;
    pub(super) const TX: u32 = 3;
    pub(super) const REDIRECT: u32 = 4;
}

/// The programs, and tables to be filled again and again.
pub struct Runner {
    pub datapath: Datapath,
    full: bool,
}

/// Statistics and verdict counters at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub counters: Vec<Counters>,
    verdicts: Vec<u64>,
}

impl Runner {
    /// Programs with tables of the usual size, or with an established table that has no room.
    pub fn new(established_full: bool) -> Self {
        let mut limits = LIMITS;
        if established_full {
            limits.established_flows_max = 1;
            limits.templates_max = 1;
        }
        Self { datapath: Datapath::load(&limits).expect("load the programs"), full: established_full }
    }

    /// Replaces everything in the tables.
    pub fn fill(&self, tables: &Compiled) -> Result<(), TableError> {
        let to = self.datapath.tables();
        clear(&to.services)?;
        clear(&to.established)?;
        clear(&to.embryonic)?;
        clear(&to.templates)?;
        clear(&to.calls)?;
        clear(&to.fragments)?;
        clear(&to.replies)?;
        clear(&to.embryonic_replies)?;
        let mut masqueraded = vec![0_u64; VIP_FILTER_WORDS as usize];
        for (word, mask) in tables.masquerade_filter() {
            masqueraded[word as usize] |= mask;
        }
        to.masquerade_filter.put_range(0, &masqueraded)?;
        for (key, reply, embryonic) in &tables.replies {
            let table = if *embryonic { &to.embryonic_replies } else { &to.replies };
            table.put(key, reply, Put::Any)?;
        }
        let mut filter = vec![0_u64; VIP_FILTER_WORDS as usize];
        for (key, service) in &tables.services {
            let (word, mask) = vip_filter_bit(&key.address);
            filter[word as usize] |= mask;
            to.services.put(key, service, Put::Any)?;
        }
        to.vip_filter.put_range(0, &filter)?;
        to.slots.put_range(0, &tables.slots)?;
        to.reals.put_range(0, &tables.reals)?;
        for (index, load) in tables.loads.iter().enumerate() {
            to.loads.set(index as u32, *load)?;
        }
        to.progress.put_range(0, &tables.progress)?;
        for (index, cursor) in tables.cursors.iter().enumerate() {
            to.cursors.put(index as u32, &u64::from(*cursor))?;
        }
        to.settings.put(0, &tables.settings)?;
        to.shared.put(0, &Shared { overflow_until_ns: tables.overflow_until_ns })?;
        for (key, flow) in &tables.flows {
            let embryonic = flow.flags & abi::FLOW_EMBRYONIC != 0;
            let table = if embryonic { &to.embryonic } else { &to.established };
            table.put(key, flow, Put::Any)?;
        }
        let access = to.access.entries()?;
        to.access.delete_all(&Vec::from_iter(access.into_iter().map(|(key, _)| key)))?;
        let (keys, values): (Vec<_>, Vec<_>) = tables.access.iter().copied().unzip();
        to.access.put_all(&keys, &values)?;
        to.client_limits.put_range(0, &tables.client_limits)?;
        clear(&to.client_connections)?;
        for (key, count) in &tables.client_connections {
            to.client_connections.put(key, count, Put::Any)?;
        }
        clear(&to.client_rates)?;
        for (key, due_ns) in &tables.client_rates {
            to.client_rates.put(key, due_ns, Put::Any)?;
        }
        clear(&to.affinities)?;
        for (key, entry) in &tables.affinities {
            to.affinities.put(key, entry, Put::Any)?;
        }
        for (key, template) in &tables.templates {
            to.templates.put(key, template, Put::Any)?;
        }
        if self.full {
            // A flow of nobody takes the only place.
            to.established.put(&FlowKey::default(), &abi::Flow::default(), Put::Any)?;
            to.templates.put(&FlowKey::default(), &abi::Flow::default(), Put::Any)?;
        }
        Ok(())
    }

    /// Reads statistics and verdict counters.
    pub fn reading(&self, tables: &Compiled) -> Result<Reading, TableError> {
        let from = self.datapath.tables();
        Ok(Reading {
            counters: from.counters.fold_range(0, tables.reals.len() as u32, sum)?,
            verdicts: from.verdicts.fold_range(0, VERDICTS_MAX, u64::wrapping_add)?,
        })
    }

    /// What went wrong with each real server.
    pub fn failures(&self) -> Vec<abi::Failures> {
        let failures = &self.datapath.tables().failures;
        failures.get_range(0, failures.capacity()).expect("failures")
    }

    /// Loads of the real servers.
    pub fn loads(&self, tables: &Compiled) -> Result<Vec<Load>, TableError> {
        let loads = &self.datapath.tables().loads;
        (0..tables.reals.len() as u32).map(|index| Ok(loads.get(index)?.unwrap_or_default())).collect()
    }

    /// The flow with this key.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<SeenFlow>, TableError> {
        let from = self.datapath.tables();
        let (found, embryonic) = match from.established.get(key)? {
            Some(flow) => (Some(flow), false),
            None => (from.embryonic.get(key)?, true),
        };
        let now_ns = now_ns();
        Ok(found.map(|flow| SeenFlow {
            flow,
            expires_in_ns: flow.expires_ns.wrapping_sub(now_ns).cast_signed(),
            embryonic,
        }))
    }

    /// All flows of both tables, sorted by key.
    pub fn flows(&self) -> Result<Vec<(FlowKey, abi::Flow)>, TableError> {
        let from = self.datapath.tables();
        let mut flows = from.established.entries()?;
        flows.extend(from.embryonic.entries()?);
        flows.retain(|(key, _)| *key != FlowKey::default());
        flows.sort_by_key(|(key, _)| *key);
        Ok(flows)
    }

    /// All persistence templates, sorted by key.
    pub fn templates(&self) -> Result<Vec<(FlowKey, abi::Flow)>, TableError> {
        let mut templates = self.datapath.tables().templates.entries()?;
        templates.retain(|(key, _)| *key != FlowKey::default());
        sort_templates(&mut templates);
        Ok(templates)
    }

    /// The ways back of all translated flows, sorted by key.
    pub fn replies(&self) -> Result<Vec<(FlowKey, abi::Reply)>, TableError> {
        let from = self.datapath.tables();
        let mut replies = from.replies.entries()?;
        replies.extend(from.embryonic_replies.entries()?);
        replies.sort_by_key(|(key, _)| *key);
        Ok(replies)
    }

    /// Runs one packet through the programs; an error when counters and action contradict each other.
    pub fn run(&self, tables: &Compiled, packet: &[u8], key: Option<&FlowKey>) -> Result<Seen, String> {
        let table = |error: TableError| format!("{error}: {:?}", error.source);
        let before = self.reading(tables).map_err(table)?;
        let run = self.datapath.entry().test_run(packet, 1);
        let run = run.map_err(|error| format!("{error}: {:?}", error.source))?;
        let after = self.reading(tables).map_err(table)?;
        let added = testkit::memory::added(&before.counters, &after.counters);
        let verdict = verdict(&before, &after)?;
        let flow = key.map(|key| self.flow(key)).transpose().map_err(table)?.flatten();
        let to = added.iter().position(|counters| counters.in_packets > 0);
        let ifindex = if verdict.is_forward() { to.map(|real| tables.reals[real].ifindex) } else { None };
        let ifindex = if verdict == Verdict::ForwardLocal { Some(0) } else { ifindex };
        let expected = match ifindex {
            // Which way a reply goes, the test run does not tell.
            None if verdict == Verdict::ForwardReply => run.action.clamp(action::TX, action::REDIRECT),
            Some(_) if verdict == Verdict::ForwardLocal => action::PASS,
            Some(INGRESS) => action::TX,
            Some(_) => action::REDIRECT,
            None if verdict.is_pass() => action::PASS,
            None if verdict.is_answer() => action::TX,
            None => action::DROP,
        };
        if run.action != expected {
            return Err(format!("action: verdict {} wants {expected}, seen {}", verdict.name(), run.action));
        }
        Ok(Seen {
            verdict,
            bytes: run.packet,
            ifindex,
            flow,
            loads: self.loads(tables).map_err(table)?,
            added,
            templates: self.templates().map_err(table)?,
            now_ns: now_ns(),
            clock_slack_ns: CLOCK_SLACK_NS,
        })
    }
}

/// The verdict between two readings: the only one counted, or `forward_known`, which the statistics count.
pub fn verdict(before: &Reading, after: &Reading) -> Result<Verdict, String> {
    let counted = |verdict: &Verdict| {
        let number = verdict.number() as usize;
        after.verdicts[number].wrapping_sub(before.verdicts[number])
    };
    let taken_back = counted(&Verdict::ForwardKnown).wrapping_neg();
    let verdicts: Vec<(Verdict, u64)> = Verdict::ALL
        .into_iter()
        .filter(|verdict| *verdict != Verdict::ForwardKnown)
        .map(|verdict| (verdict, counted(&verdict)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let packets: u64 =
        testkit::memory::added(&before.counters, &after.counters).iter().map(|c| c.in_packets).sum();
    match verdicts.as_slice() {
        [] if packets == 1 && taken_back == 0 => Ok(Verdict::ForwardKnown),
        [(verdict, 1)] if packets == testkit::memory::packets_of(*verdict, taken_back) => Ok(*verdict),
        _ => Err(format!(
            "counters contradict: verdicts {verdicts:?}, {packets} packets of real servers, {taken_back} taken back"
        )),
    }
}

/// The clock of the packet path.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("every Linux has this clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

fn sum(a: Counters, b: Counters) -> Counters {
    Counters {
        connections: a.connections + b.connections,
        in_packets: a.in_packets + b.in_packets,
        in_bytes: a.in_bytes + b.in_bytes,
        out_packets: a.out_packets + b.out_packets,
        out_bytes: a.out_bytes + b.out_bytes,
    }
}

fn clear<K: bytemuck::Pod, V: bytemuck::Pod>(table: &HashTable<K, V>) -> Result<(), TableError> {
    for (key, _) in table.entries()? {
        table.delete(&key)?;
    }
    Ok(())
}
