//! The tables in memory, and the runner on the core.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use abi::{
    ACCESS_SERVICE_BITS, AccessKey, Address, Affinity, AffinityKey, Answers, Call, ClientKey, ClientLimits,
    Counters, Failure, Flow, FlowKey, Fragment, Load, Real, Reply, Service, ServiceKey, Settings, SipScratch,
    Slot, Verdict, vip_filter_bit,
};
use forward::tables::{SCAN_MAX, Scan};
use forward::{Route, Tables};
use wire::Bytes;

use crate::case::{Compiled, Seen, SeenFlow};
use crate::strict::{Refused, StrictBytes};

/// Which of the tables of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Established,
    Embryonic,
    Templates,
}

/// Which table, and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    table: Table,
    key: FlowKey,
}

/// Every table of the packet path, in ordered maps. One thread, no limits but the one on established
/// flows; nothing expires by itself.
#[derive(Debug, Default)]
pub struct MemoryTables {
    settings: Settings,
    vip_filter: BTreeSet<(u32, u64)>,
    services: BTreeMap<ServiceKey, Service>,
    slots: Vec<Slot>,
    reals: Vec<Real>,
    established_full: bool,
    overflow_until_ns: Cell<u64>,
    answers: Cell<Answers>,
    cursors: RefCell<Vec<u64>>,
    loads: RefCell<Vec<Load>>,
    counters: RefCell<Vec<Counters>>,
    established: RefCell<BTreeMap<FlowKey, Flow>>,
    embryonic: RefCell<BTreeMap<FlowKey, Flow>>,
    templates: RefCell<BTreeMap<FlowKey, Flow>>,
    calls: RefCell<BTreeMap<FlowKey, Call>>,
    access: BTreeMap<AccessKey, u32>,
    client_limits: Vec<ClientLimits>,
    client_connections: RefCell<BTreeMap<ClientKey, i32>>,
    client_rates: RefCell<BTreeMap<ClientKey, u64>>,
    failures: RefCell<BTreeMap<(u32, u8), u32>>,
    affinities: RefCell<BTreeMap<AffinityKey, Affinity>>,
    sip: RefCell<SipScratch>,
    fragments: RefCell<BTreeMap<FlowKey, Fragment>>,
    masquerade_filter: BTreeSet<(u32, u64)>,
    replies: RefCell<BTreeMap<FlowKey, Reply>>,
    embryonic_replies: RefCell<BTreeMap<FlowKey, Reply>>,
    routes: BTreeMap<Address, Route>,
    verdicts: RefCell<BTreeMap<Verdict, u64>>,
    taken_back: Cell<u64>,
    progressed_ns: RefCell<BTreeMap<u32, u64>>,
    draws: Cell<u64>,
}

impl MemoryTables {
    /// The tables of a case.
    #[must_use]
    pub fn new(tables: &Compiled) -> Self {
        let (embryonic, established): (Vec<_>, Vec<_>) =
            tables.flows.iter().copied().partition(|(_, flow)| flow.flags & abi::FLOW_EMBRYONIC != 0);
        let (embryonic_replies, established_replies): (Vec<_>, Vec<_>) =
            tables.replies.iter().copied().partition(|(_, _, embryonic)| *embryonic);
        Self {
            settings: tables.settings,
            vip_filter: tables.services.iter().map(|(key, _)| vip_filter_bit(&key.address)).collect(),
            services: tables.services.iter().copied().collect(),
            slots: tables.slots.clone(),
            reals: tables.reals.clone(),
            established_full: tables.established_full,
            overflow_until_ns: Cell::new(tables.overflow_until_ns),
            answers: Cell::default(),
            cursors: RefCell::new(tables.cursors.iter().map(|picks| u64::from(*picks)).collect()),
            loads: RefCell::new(tables.loads.clone()),
            counters: RefCell::new(vec![Counters::default(); tables.reals.len()]),
            established: RefCell::new(established.into_iter().collect()),
            embryonic: RefCell::new(embryonic.into_iter().collect()),
            templates: RefCell::new(tables.templates.iter().copied().collect()),
            calls: RefCell::default(),
            access: tables.access.iter().copied().collect(),
            client_limits: tables.client_limits.clone(),
            client_connections: RefCell::new(tables.client_connections.iter().copied().collect()),
            client_rates: RefCell::new(tables.client_rates.iter().copied().collect()),
            failures: RefCell::default(),
            affinities: RefCell::new(tables.affinities.iter().copied().collect()),
            sip: RefCell::default(),
            fragments: RefCell::default(),
            masquerade_filter: tables.masquerade_filter(),
            replies: RefCell::new(
                established_replies.into_iter().map(|(key, reply, _)| (key, reply)).collect(),
            ),
            embryonic_replies: RefCell::new(
                embryonic_replies.into_iter().map(|(key, reply, _)| (key, reply)).collect(),
            ),
            routes: tables.routes.iter().copied().collect(),
            verdicts: RefCell::default(),
            taken_back: Cell::default(),
            progressed_ns: RefCell::new((0..).zip(tables.progress.iter().copied()).collect()),
            draws: Cell::default(),
        }
    }

    /// The flow with this key, and whether it is in the embryonic table.
    #[must_use]
    pub fn find_flow(&self, key: &FlowKey) -> Option<(Flow, bool)> {
        let established = self.established.borrow().get(key).map(|flow| (*flow, false));
        established.or_else(|| self.embryonic.borrow().get(key).map(|flow| (*flow, true)))
    }

    /// All flows, those of the embryonic table last.
    #[must_use]
    pub fn flows(&self) -> Vec<(FlowKey, Flow)> {
        let (established, embryonic) = (self.established.borrow(), self.embryonic.borrow());
        established.iter().chain(embryonic.iter()).map(|(key, flow)| (*key, *flow)).collect()
    }

    /// All persistence templates.
    #[must_use]
    pub fn templates(&self) -> Vec<(FlowKey, Flow)> {
        self.templates.borrow().iter().map(|(key, flow)| (*key, *flow)).collect()
    }

    /// The Call-ID that a template stands for.
    #[must_use]
    pub fn call(&self, key: &FlowKey) -> Option<Call> {
        self.calls.borrow().get(key).copied()
    }

    /// The ways back of all translated flows, those of the embryonic table last.
    #[must_use]
    pub fn replies(&self) -> Vec<(FlowKey, Reply)> {
        let (established, embryonic) = (self.replies.borrow(), self.embryonic_replies.borrow());
        established.iter().chain(embryonic.iter()).map(|(key, reply)| (*key, *reply)).collect()
    }

    /// Load of each real server.
    #[must_use]
    pub fn loads(&self) -> Vec<Load> {
        self.loads.borrow().clone()
    }

    /// Statistics of each real server.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.counters.borrow().clone()
    }

    /// How often something went wrong with a real server.
    #[must_use]
    pub fn failures(&self, index: u32, failure: Failure) -> u32 {
        self.failures.borrow().get(&(index, failure as u8)).copied().unwrap_or_default()
    }

    /// How often each verdict was counted.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<Verdict, u64> {
        self.verdicts.borrow().clone()
    }

    /// Runs the core on one packet; also says what [`StrictBytes`] refused.
    #[must_use]
    pub fn run(&self, packet: Vec<u8>, key: Option<&FlowKey>, now_ns: u64) -> (Seen, Refused) {
        let before = self.counters();
        let taken_back_before = self.taken_back.get();
        let (outcome, bytes) = forward::decide(StrictBytes::new(packet), self, now_ns);
        let refused = bytes.refused();
        let flow = key.and_then(|key| self.find_flow(key)).map(|(flow, embryonic)| SeenFlow {
            flow,
            expires_in_ns: flow.expires_ns.wrapping_sub(now_ns).cast_signed(),
            embryonic,
        });
        let added = added(&before, &self.counters());
        let packets: u64 = added.iter().map(|counters| counters.in_packets).sum();
        let taken_back = self.taken_back.get() - taken_back_before;
        assert_eq!(
            packets,
            packets_of(outcome.verdict, taken_back),
            "counters of {}",
            outcome.verdict.name()
        );
        let seen = Seen {
            verdict: outcome.verdict,
            bytes: bytes.into_bytes(),
            ifindex: Some(outcome.ifindex),
            flow,
            loads: self.loads(),
            added,
            templates: self.templates(),
            now_ns,
            clock_slack_ns: 0,
        };
        (seen, refused)
    }

    fn table(&self, table: Table) -> &RefCell<BTreeMap<FlowKey, Flow>> {
        match table {
            Table::Established => &self.established,
            Table::Embryonic => &self.embryonic,
            Table::Templates => &self.templates,
        }
    }

    fn find(&self, table: Table, key: &FlowKey) -> Option<Handle> {
        self.table(table).borrow().contains_key(key).then_some(Handle { table, key: *key })
    }
}

/// What was added to each real server's statistics between two readings.
#[must_use]
pub fn added(before: &[Counters], after: &[Counters]) -> Vec<Counters> {
    let pairs = before.iter().zip(after);
    let difference = pairs.map(|(before, after)| Counters {
        connections: after.connections - before.connections,
        in_packets: after.in_packets - before.in_packets,
        in_bytes: after.in_bytes - before.in_bytes,
        out_packets: after.out_packets - before.out_packets,
        out_bytes: after.out_bytes - before.out_bytes,
    });
    difference.collect()
}

/// How many packets a real server's statistics must have counted for one packet with this verdict.
#[must_use]
pub fn packets_of(verdict: Verdict, taken_back: u64) -> u64 {
    let left = verdict == Verdict::ForwardKnown || verdict.is_counted_forward();
    u64::from(left) + taken_back
}

impl Tables for MemoryTables {
    type Flow = Handle;

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn may_be_vip(&self, address: &Address) -> bool {
        self.vip_filter.contains(&vip_filter_bit(address))
    }

    fn established(&self, key: &FlowKey) -> Option<Handle> {
        self.find(Table::Established, key)
    }

    fn embryonic(&self, key: &FlowKey) -> Option<Handle> {
        self.find(Table::Embryonic, key)
    }

    fn flow(&self, handle: Handle) -> Flow {
        self.table(handle.table).borrow().get(&handle.key).copied().unwrap_or_default()
    }

    fn set_flow(&self, handle: Handle, flow: &Flow) {
        // As in the kernel: writing through a handle never makes an entry that is gone.
        if let Some(place) = self.table(handle.table).borrow_mut().get_mut(&handle.key) {
            *place = *flow;
        }
    }

    fn insert_established(&self, key: &FlowKey, flow: &Flow) -> bool {
        let mut table = self.established.borrow_mut();
        if self.established_full && !table.contains_key(key) {
            return false;
        }
        table.insert(*key, *flow);
        true
    }

    fn insert_embryonic(&self, key: &FlowKey, flow: &Flow) -> bool {
        self.embryonic.borrow_mut().insert(*key, *flow);
        true
    }

    fn remove_established(&self, key: &FlowKey) -> bool {
        self.established.borrow_mut().remove(key).is_some()
    }

    fn remove_embryonic(&self, key: &FlowKey) -> bool {
        self.embryonic.borrow_mut().remove(key).is_some()
    }

    fn template(&self, key: &FlowKey) -> Option<Handle> {
        self.find(Table::Templates, key)
    }

    fn insert_template(&self, key: &FlowKey, template: &Flow) -> bool {
        let mut table = self.templates.borrow_mut();
        if self.established_full && !table.contains_key(key) {
            return false;
        }
        table.insert(*key, *template);
        true
    }

    fn read_message<B: Bytes>(&self, bytes: &B, offset: usize, len: u32) -> bool {
        let mut sip = self.sip.borrow_mut();
        sip.message.get_mut(..len as usize).is_some_and(|part| bytes.copy_out(offset, part).is_ok())
    }

    fn message_byte(&self, index: u32) -> u8 {
        self.sip.borrow().message.get(index as usize).copied().unwrap_or_default()
    }

    fn set_call_byte(&self, index: u32, byte: u8) {
        if let Some(place) = self.sip.borrow_mut().call.text.get_mut(index as usize) {
            *place = byte;
        }
    }

    fn finish_call(&self, client: &Address, len: u32, hash: Address) {
        let mut sip = self.sip.borrow_mut();
        (sip.call.client, sip.call.len, sip.hash) = (*client, len, hash);
    }

    fn call_hash(&self) -> Address {
        self.sip.borrow().hash
    }

    fn insert_call(&self, key: &FlowKey) {
        self.calls.borrow_mut().insert(*key, self.sip.borrow().call);
    }

    fn fragment(&self, key: &FlowKey) -> Option<Fragment> {
        self.fragments.borrow().get(key).copied()
    }

    fn insert_fragment(&self, key: &FlowKey, fragment: &Fragment) {
        self.fragments.borrow_mut().insert(*key, *fragment);
    }

    fn may_be_masqueraded(&self, address: &Address) -> bool {
        self.masquerade_filter.contains(&vip_filter_bit(address))
    }

    fn reply(&self, key: &FlowKey) -> Option<Reply> {
        let established = self.replies.borrow().get(key).copied();
        established.or_else(|| self.embryonic_replies.borrow().get(key).copied())
    }

    fn insert_reply(&self, key: &FlowKey, reply: &Reply) -> bool {
        self.replies.borrow_mut().insert(*key, *reply);
        true
    }

    fn insert_embryonic_reply(&self, key: &FlowKey, reply: &Reply) -> bool {
        self.embryonic_replies.borrow_mut().insert(*key, *reply);
        true
    }

    fn add_embryonic_reply(&self, key: &FlowKey, reply: &Reply) -> bool {
        let mut replies = self.embryonic_replies.borrow_mut();
        let is_new = !replies.contains_key(key);
        if is_new {
            replies.insert(*key, *reply);
        }
        is_new
    }

    fn remove_embryonic_reply(&self, key: &FlowKey) {
        self.embryonic_replies.borrow_mut().remove(key);
    }

    fn route(&self, _ingress: u32, ends: &FlowKey, _ip_len: u32) -> Route {
        self.routes.get(&ends.virtual_address).copied().unwrap_or(Route::Unknown)
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }

    fn access(&self, key: &AccessKey) -> u32 {
        let fits = |entry: &AccessKey| {
            let len = entry.prefix_len - ACCESS_SERVICE_BITS;
            let masked = u128::from_be_bytes(key.address.octets())
                & u128::MAX.checked_shl(128 - len).unwrap_or_default();
            entry.service == key.service && masked == u128::from_be_bytes(entry.address.octets())
        };
        let found = self.access.iter().filter(|(entry, _)| fits(entry));
        found.max_by_key(|(entry, _)| entry.prefix_len).map_or(0, |(_, access)| *access)
    }

    fn client_limits(&self, service: u32) -> ClientLimits {
        self.client_limits.get(service as usize).copied().unwrap_or_default()
    }

    fn client_connections(&self, key: &ClientKey) -> i32 {
        self.client_connections.borrow().get(key).copied().unwrap_or_default()
    }

    fn add_client_connection(&self, key: &ClientKey) {
        *self.client_connections.borrow_mut().entry(*key).or_default() += 1;
    }

    fn end_client_connection(&self, key: &ClientKey) {
        if let Some(count) = self.client_connections.borrow_mut().get_mut(key) {
            *count -= 1;
        }
    }

    fn client_due_ns(&self, key: &ClientKey) -> u64 {
        self.client_rates.borrow().get(key).copied().unwrap_or_default()
    }

    fn set_client_due_ns(&self, key: &ClientKey, due_ns: u64) {
        self.client_rates.borrow_mut().insert(*key, due_ns);
    }

    fn count_failure(&self, index: u32, failure: Failure) {
        *self.failures.borrow_mut().entry((index, failure as u8)).or_default() += 1;
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }

    fn put_affinity(&self, key: &AffinityKey, entry: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *entry);
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }

    fn real(&self, index: u32) -> Option<impl Deref<Target = Real>> {
        self.reals.get(index as usize)
    }

    fn load(&self, index: u32) -> Load {
        self.loads.borrow().get(index as usize).copied().unwrap_or_default()
    }

    fn add_load(&self, index: u32, delta: Load) {
        if let Some(load) = self.loads.borrow_mut().get_mut(index as usize) {
            load.active = load.active.wrapping_add(delta.active);
            load.inactive = load.inactive.wrapping_add(delta.inactive);
            load.persistent = load.persistent.wrapping_add(delta.persistent);
        }
    }

    fn progressed_ns(&self, index: u32) -> u64 {
        self.progressed_ns.borrow().get(&index).copied().unwrap_or_default()
    }

    fn set_progressed_ns(&self, index: u32, now_ns: u64) {
        self.progressed_ns.borrow_mut().insert(index, now_ns);
    }

    fn random(&self) -> u32 {
        // SplitMix64 from 0: the same draws in every run.
        let seed = self.draws.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.draws.set(seed);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u32
    }

    fn set_overloaded(&self, index: u32, overloaded: bool) {
        if let Some(load) = self.loads.borrow_mut().get_mut(index as usize) {
            load.overloaded = overloaded.into();
        }
    }

    fn advance_cursor(&self, service: u32) -> u64 {
        let mut cursors = self.cursors.borrow_mut();
        let Some(cursor) = cursors.get_mut(service as usize) else { return 0 };
        let picked = *cursor;
        *cursor = cursor.wrapping_add(1);
        picked
    }

    fn scan<S: Scan>(&self, count: u32, scan: &mut S) {
        for index in 0..count.min(SCAN_MAX) {
            if !scan.step(self, index) {
                return;
            }
        }
    }

    fn overflow_until_ns(&self) -> u64 {
        self.overflow_until_ns.get()
    }

    fn set_overflow_until_ns(&self, until_ns: u64) {
        self.overflow_until_ns.set(until_ns);
    }

    fn answers(&self) -> Answers {
        self.answers.get()
    }

    fn set_answers(&self, answers: Answers) {
        self.answers.set(answers);
    }

    fn count_in(&self, real: u32, bytes: u32, connection: bool) {
        if let Some(counters) = self.counters.borrow_mut().get_mut(real as usize) {
            counters.in_packets += 1;
            counters.in_bytes += u64::from(bytes);
            counters.connections += u64::from(connection);
        }
    }

    fn count_out(&self, real: u32, bytes: u32) {
        if let Some(counters) = self.counters.borrow_mut().get_mut(real as usize) {
            counters.out_packets += 1;
            counters.out_bytes += u64::from(bytes);
        }
    }

    fn count_verdict(&self, verdict: Verdict) {
        *self.verdicts.borrow_mut().entry(verdict).or_default() += 1;
    }

    fn take_back_known(&self) {
        self.taken_back.set(self.taken_back.get() + 1);
    }
}
