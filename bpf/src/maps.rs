//! State: the core's `Tables` over BPF maps. Sizes here are placeholders; the loader sets them from the limits.

use abi::{
    AccessKey, Address, Affinity, AffinityKey, Answers, Call, ClientKey, ClientLimits, Counters, Failure,
    Failures, Flow, FlowKey, Fragment, Load, PROGRAMS_MAX, Real, Reply, Service, ServiceKey, Settings,
    Shared, SipScratch, Slot, VERDICTS_MAX, VIP_FILTER_WORDS, Verdict, vip_filter_bit,
};
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::programs::XdpContext;
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ops::Deref;
use forward::tables::{SCAN_MAX, Scan};
use forward::{Route, Tables, Work};
use wire::Bytes;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static SHARED: Array<Shared> = Array::with_max_entries(1, 0);
#[map]
static VIP_FILTER: Array<u64> = Array::with_max_entries(VIP_FILTER_WORDS, 0);
#[map]
static SERVICES: HashMap<ServiceKey, Service> = HashMap::with_max_entries(1, 0);
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(1, 0);
#[map]
static REALS: Array<Real> = Array::with_max_entries(1, 0);
/// User space maps it into its memory, so that the sweep corrects with atomic additions too.
#[map]
static LOADS: Array<Load> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// When a connection to each real server last finished its handshake.
#[map]
static PROGRESS: Array<u64> = Array::with_max_entries(1, 0);
/// What went wrong with each real server.
#[map]
static FAILURES: Array<Failures> = Array::with_max_entries(1, 0);
#[map]
static CURSORS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICTS_MAX, 0);
#[map]
static EMBRYONIC: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(1, 0);
#[map]
static ESTABLISHED: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, 0);
/// Of the addresses of masqueraded real servers.
#[map]
static MASQUERADE_FILTER: Array<u64> = Array::with_max_entries(VIP_FILTER_WORDS, 0);
#[map]
static EMBRYONIC_REPLIES: LruHashMap<FlowKey, Reply> = LruHashMap::with_max_entries(1, 0);
/// Takes memory only as it fills: nobody pays for it who does not masquerade.
#[map]
static REPLIES: HashMap<FlowKey, Reply> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
/// Notes of first pieces, for the later ones.
#[map]
static FRAGMENTS: LruHashMap<FlowKey, Fragment> = LruHashMap::with_max_entries(1, 0);
#[map]
static TEMPLATES: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, 0);
#[map]
static AFFINITIES: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(1, 0);
/// Networks that services let in or keep out. A trie of the kernel takes memory only as it fills.
#[map]
static ACCESS: LpmTrie<[u32; 5], u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static CLIENT_LIMITS: Array<ClientLimits> = Array::with_max_entries(1, 0);
#[map]
static CLIENT_CONNECTIONS: LruHashMap<ClientKey, i32> = LruHashMap::with_max_entries(1, 0);
#[map]
static CLIENT_RATES: LruHashMap<ClientKey, u64> = LruHashMap::with_max_entries(1, 0);
/// Takes memory only as calls come: most directors have none.
#[map]
static CALLS: HashMap<FlowKey, Call> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static SIP: PerCpuArray<SipScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
static ANSWERS: PerCpuArray<Answers> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
/// The programs behind the entry.
#[map]
pub static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(PROGRAMS_MAX, 0);

/// Leaves the parsed packet for the next program. `false` when the kernel has no scratch, which cannot be.
#[inline(always)]
pub fn put_work(work: &Work) -> bool {
    let Some(place) = SCRATCH.get_ptr_mut(0) else { return false };
    // SAFETY: a per-CPU value; this program runs to its end on this CPU before another can touch it.
    unsafe { *place = *work };
    true
}

/// The parsed packet that the program before left.
#[inline(always)]
pub fn take_work() -> Option<Work> {
    work().copied()
}

/// The same in place, where a copy would take too much of the stack. It changes only when the program hands over.
#[inline(always)]
pub fn work() -> Option<&'static Work> {
    // SAFETY: as for `put_work`.
    SCRATCH.get_ptr(0).map(|work| unsafe { &*work })
}

/// The parsed packet in its place, to be changed there: a copy on the stack would not fit beside what else is there.
#[inline(always)]
pub fn work_in_place() -> Option<&'static mut Work> {
    // SAFETY: as for `put_work`; each program calls this once, so there is one reference.
    SCRATCH.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// The maps of this object, in one run of a program.
pub struct Maps {
    ctx: *mut c_void,
}

impl Maps {
    /// Where no route is looked up, which alone takes the context.
    pub const NO_ROUTES: Self = Self { ctx: core::ptr::null_mut() };

    /// For the run with this context.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx.cast() }
    }
}

impl Tables for Maps {
    type Flow = *mut Flow;

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn may_be_vip(&self, address: &Address) -> bool {
        let (word, mask) = vip_filter_bit(address);
        VIP_FILTER.get(word).is_some_and(|bits| bits & mask != 0)
    }

    #[inline(always)]
    fn established(&self, key: &FlowKey) -> Option<*mut Flow> {
        ESTABLISHED.get_ptr_mut(key)
    }

    #[inline(always)]
    fn embryonic(&self, key: &FlowKey) -> Option<*mut Flow> {
        EMBRYONIC.get_ptr_mut(key)
    }

    #[inline(always)]
    fn flow(&self, handle: *mut Flow) -> Flow {
        // SAFETY: the kernel keeps a found map value readable until the program ends. Another CPU may write
        // it meanwhile; each field is whole, and the sweep repairs what a mixture of two writes spoils.
        unsafe { *handle }
    }

    #[inline(always)]
    fn set_flow(&self, handle: *mut Flow, flow: &Flow) {
        // SAFETY: as for `flow`.
        unsafe { *handle = *flow };
    }

    #[inline(always)]
    fn insert_established(&self, key: &FlowKey, flow: &Flow) -> bool {
        ESTABLISHED.insert(key, flow, 0).is_ok()
    }

    #[inline(always)]
    fn insert_embryonic(&self, key: &FlowKey, flow: &Flow) -> bool {
        EMBRYONIC.insert(key, flow, 0).is_ok()
    }

    #[inline(always)]
    fn remove_established(&self, key: &FlowKey) -> bool {
        ESTABLISHED.remove(key).is_ok()
    }

    #[inline(always)]
    fn remove_embryonic(&self, key: &FlowKey) -> bool {
        EMBRYONIC.remove(key).is_ok()
    }

    #[inline(always)]
    fn template(&self, key: &FlowKey) -> Option<*mut Flow> {
        TEMPLATES.get_ptr_mut(key)
    }

    #[inline(always)]
    fn insert_template(&self, key: &FlowKey, template: &Flow) -> bool {
        TEMPLATES.insert(key, template, 0).is_ok()
    }

    #[inline(always)]
    fn read_message<B: Bytes>(&self, bytes: &B, offset: usize, len: u32) -> bool {
        let Some(sip) = SIP.get_ptr_mut(0) else { return false };
        // SAFETY: a per-CPU value; this program runs to its end on this CPU before another can touch it.
        let message = unsafe { &mut (*sip).message };
        message.get_mut(..len as usize).is_some_and(|part| bytes.copy_out(offset, part).is_ok())
    }

    #[inline(always)]
    fn message_byte(&self, index: u32) -> u8 {
        let Some(sip) = SIP.get_ptr(0) else { return 0 };
        // SAFETY: as for `read_message`.
        let message = unsafe { &(*sip).message };
        message.get(index as usize).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn set_call_byte(&self, index: u32, byte: u8) {
        let Some(sip) = SIP.get_ptr_mut(0) else { return };
        // SAFETY: as for `read_message`.
        let text = unsafe { &mut (*sip).call.text };
        if let Some(place) = text.get_mut(index as usize) {
            *place = byte;
        }
    }

    #[inline(always)]
    fn finish_call(&self, client: &Address, len: u32, hash: Address) {
        let Some(sip) = SIP.get_ptr_mut(0) else { return };
        // SAFETY: as for `read_message`.
        unsafe {
            (*sip).call.client = *client;
            (*sip).call.len = len;
            (*sip).hash = hash;
        }
    }

    #[inline(always)]
    fn call_hash(&self) -> Address {
        // SAFETY: as for `read_message`.
        SIP.get_ptr(0).map(|sip| unsafe { (*sip).hash }).unwrap_or_default()
    }

    #[inline(always)]
    fn insert_call(&self, key: &FlowKey) {
        let Some(sip) = SIP.get_ptr(0) else { return };
        // SAFETY: as for `read_message`.
        let call = unsafe { &(*sip).call };
        // In place: a copy would not fit the stack. Without room the listing lacks the text, no more.
        let _full = CALLS.insert(key, call, 0);
    }

    #[inline(always)]
    fn may_be_masqueraded(&self, address: &Address) -> bool {
        let (word, mask) = vip_filter_bit(address);
        MASQUERADE_FILTER.get(word).is_some_and(|bits| bits & mask != 0)
    }

    #[inline(always)]
    fn reply(&self, key: &FlowKey) -> Option<Reply> {
        let found = REPLIES.get_ptr(key).or_else(|| EMBRYONIC_REPLIES.get_ptr(key));
        // SAFETY: as for `flow`. An entry is replaced as a whole and never written in place by the kernel.
        found.map(|reply| unsafe { *reply })
    }

    #[inline(always)]
    fn insert_reply(&self, key: &FlowKey, reply: &Reply) -> bool {
        REPLIES.insert(key, reply, 0).is_ok()
    }

    #[inline(always)]
    fn insert_embryonic_reply(&self, key: &FlowKey, reply: &Reply) -> bool {
        EMBRYONIC_REPLIES.insert(key, reply, 0).is_ok()
    }

    #[inline(always)]
    fn add_embryonic_reply(&self, key: &FlowKey, reply: &Reply) -> bool {
        EMBRYONIC_REPLIES.insert(key, reply, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn remove_embryonic_reply(&self, key: &FlowKey) {
        let _ = EMBRYONIC_REPLIES.remove(key);
    }

    #[inline(always)]
    fn route(&self, ingress: u32, ends: &FlowKey, _ip_len: u32) -> Route {
        crate::route::look_up(self.ctx, ingress, ends)
    }

    #[inline(always)]
    fn fragment(&self, key: &FlowKey) -> Option<Fragment> {
        // SAFETY: notes are replaced as a whole and never written in place.
        FRAGMENTS.get_ptr(key).map(|note| unsafe { *note })
    }

    #[inline(always)]
    fn insert_fragment(&self, key: &FlowKey, fragment: &Fragment) {
        // The kernel evicts when it is full; a refusal under contention costs one datagram.
        let _refused = FRAGMENTS.insert(key, fragment, 0);
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        // SAFETY: user space replaces whole values and never writes them in place, so this one stays as it
        // is until the program ends.
        SERVICES.get_ptr(key).map(|service| unsafe { *service })
    }

    #[inline(always)]
    fn access(&self, key: &AccessKey) -> u32 {
        // SAFETY: both are a length and five words in the same order, and the pointer lives as long as `key`.
        let key = unsafe { &*(&raw const *key).cast::<Key<[u32; 5]>>() };
        ACCESS.get(key).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn client_limits(&self, service: u32) -> ClientLimits {
        CLIENT_LIMITS.get(service).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn client_connections(&self, key: &ClientKey) -> i32 {
        // SAFETY: one aligned word of a map value that lives until the program ends.
        CLIENT_CONNECTIONS.get_ptr(key).map_or(0, |count| unsafe { *count })
    }

    #[inline(always)]
    fn add_client_connection(&self, key: &ClientKey) {
        let Some(count) = CLIENT_CONNECTIONS.get_ptr_mut(key) else {
            // Where the kernel refuses or another CPU was first, the sweep counts it.
            let _ = CLIENT_CONNECTIONS.insert(key, 1, u64::from(BPF_NOEXIST));
            return;
        };
        // SAFETY: as for `add_load`.
        unsafe { atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(count, 1) };
    }

    #[inline(always)]
    fn end_client_connection(&self, key: &ClientKey) {
        if let Some(count) = CLIENT_CONNECTIONS.get_ptr_mut(key) {
            // SAFETY: as for `add_load`.
            unsafe { atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(count, -1) };
        }
    }

    #[inline(always)]
    fn client_due_ns(&self, key: &ClientKey) -> u64 {
        // SAFETY: as for `client_connections`.
        CLIENT_RATES.get_ptr(key).map_or(0, |due| unsafe { *due })
    }

    #[inline(always)]
    fn set_client_due_ns(&self, key: &ClientKey, due_ns: u64) {
        // The kernel gives up an old entry for it. Where it refuses, the client has one flow more.
        let _ = CLIENT_RATES.insert(key, due_ns, 0);
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: as for `flow`: two writes may be mixed, and what comes of that is checked like any old entry.
        AFFINITIES.get_ptr(key).map(|entry| unsafe { *entry })
    }

    #[inline(always)]
    fn put_affinity(&self, key: &AffinityKey, entry: &Affinity) {
        // The kernel gives up an old entry for it. Where it refuses, the next flow tries again.
        let _ = AFFINITIES.insert(key, entry, 0);
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn real(&self, index: u32) -> Option<impl Deref<Target = Real>> {
        REALS.get(index)
    }

    #[inline(always)]
    fn load(&self, index: u32) -> Load {
        LOADS.get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn add_load(&self, index: u32, delta: Load) {
        let Some(load) = LOADS.get_ptr_mut(index) else { return };
        // SAFETY: aligned words of a map value that lives until the program ends; the addition is atomic.
        unsafe {
            if delta.active != 0 {
                atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(&raw mut (*load).active, delta.active);
            }
            if delta.persistent != 0 {
                atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(
                    &raw mut (*load).persistent,
                    delta.persistent,
                );
            }
            if delta.inactive != 0 {
                atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(
                    &raw mut (*load).inactive,
                    delta.inactive,
                );
            }
        }
    }

    #[inline(always)]
    fn progressed_ns(&self, index: u32) -> u64 {
        PROGRESS.get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn set_progressed_ns(&self, index: u32, now_ns: u64) {
        if let Some(place) = PROGRESS.get_ptr_mut(index) {
            // SAFETY: one aligned word; whichever CPU writes last is right.
            unsafe { *place = now_ns };
        }
    }

    #[inline(always)]
    fn set_overloaded(&self, index: u32, overloaded: bool) {
        if let Some(load) = LOADS.get_ptr_mut(index) {
            // SAFETY: one aligned word; the last writer is right, and the sweep repairs a race.
            unsafe { (*load).overloaded = overloaded as u32 };
        }
    }

    #[inline(always)]
    fn count_failure(&self, index: u32, failure: Failure) {
        let Some(failures) = FAILURES.get_ptr_mut(index) else { return };
        // SAFETY: as for `add_load`.
        unsafe {
            let place = match failure {
                Failure::Unanswered => &raw mut (*failures).unanswered,
                Failure::Refused => &raw mut (*failures).refused,
                Failure::Unreachable => &raw mut (*failures).unreachable,
            };
            atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(place, 1);
        }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: has no arguments and no effect.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn advance_cursor(&self, service: u32) -> u64 {
        let Some(cursor) = CURSORS.get_ptr_mut(service) else { return 0 };
        // A relaxed addition would be compiled to the instruction that does not give the old value.
        // SAFETY: as for `add_load`.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cursor, 1) }
    }

    #[inline(always)]
    fn scan<S: Scan>(&self, count: u32, scan: &mut S) {
        let scan = (scan as *mut S).cast::<c_void>();
        // SAFETY: the kernel calls `call_step` only before `bpf_loop` returns, so `scan` outlives it.
        unsafe { bpf_loop(count.min(SCAN_MAX), call_step::<S> as *mut c_void, scan, 0) };
    }

    #[inline(always)]
    fn overflow_until_ns(&self) -> u64 {
        SHARED.get(0).map_or(0, |shared| shared.overflow_until_ns)
    }

    #[inline(always)]
    fn set_overflow_until_ns(&self, until_ns: u64) {
        if let Some(shared) = SHARED.get_ptr_mut(0) {
            // SAFETY: one aligned word; whichever CPU writes last is right.
            unsafe { (*shared).overflow_until_ns = until_ns };
        }
    }

    #[inline(always)]
    fn answers(&self) -> Answers {
        ANSWERS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn set_answers(&self, answers: Answers) {
        if let Some(place) = ANSWERS.get_ptr_mut(0) {
            // SAFETY: a per-CPU value.
            unsafe { *place = answers };
        }
    }

    #[inline(always)]
    fn count_in(&self, real: u32, bytes: u32, connection: bool) {
        crate::capture::note_real(real);
        if let Some(counters) = COUNTERS.get_ptr_mut(real) {
            // SAFETY: a per-CPU value.
            unsafe {
                (*counters).in_packets += 1;
                (*counters).in_bytes += u64::from(bytes);
                (*counters).connections += u64::from(connection);
            }
        }
    }

    #[inline(always)]
    fn count_out(&self, real: u32, bytes: u32) {
        crate::capture::note_real(real);
        if let Some(counters) = COUNTERS.get_ptr_mut(real) {
            // SAFETY: a per-CPU value.
            unsafe {
                (*counters).out_packets += 1;
                (*counters).out_bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn count_verdict(&self, verdict: Verdict) {
        if let Some(count) = VERDICTS.get_ptr_mut(verdict.number()) {
            // SAFETY: a per-CPU value.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn take_back_known(&self) {
        if let Some(count) = VERDICTS.get_ptr_mut(Verdict::ForwardKnown.number()) {
            // SAFETY: a per-CPU value.
            unsafe { *count = (*count).wrapping_sub(1) };
        }
    }
}

/// What the kernel calls for each step of a scan: 0 goes on, 1 stops.
#[inline(never)]
extern "C" fn call_step<S: Scan>(index: u64, scan: *mut c_void) -> i64 {
    // SAFETY: `scan` above passes a pointer to a value of this type.
    let scan = unsafe { &mut *scan.cast::<S>() };
    i64::from(!scan.step(&Maps::NO_ROUTES, index as u32))
}
