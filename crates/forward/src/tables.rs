//! What the core asks of the state around it.

use abi::{
    AccessKey, Address, Affinity, AffinityKey, Answers, ClientKey, ClientLimits, Failure, Flow, FlowKey,
    Fragment, Load, Real, Reply, Service, ServiceKey, Settings, Slot,
};
use core::ops::Deref;
use wire::Bytes;

/// The tables. In the kernel these are BPF maps; a look-up that finds nothing is `None`, never an error.
///
/// Several CPUs use them at once: a value read may be old by the time it is used. Nothing here is locked;
/// what a race can spoil (the load of a real server) the sweep repairs.
pub trait Tables {
    /// A found flow, for reading and writing in place.
    type Flow: Copy;

    /// Settings of the director.
    fn settings(&self) -> Option<&Settings>;
    /// Whether the address may be a VIP; `false` is certain.
    fn may_be_vip(&self, address: &Address) -> bool;

    /// A flow of the established table.
    fn established(&self, key: &FlowKey) -> Option<Self::Flow>;
    /// A flow of the embryonic table.
    fn embryonic(&self, key: &FlowKey) -> Option<Self::Flow>;
    /// What is known about it.
    fn flow(&self, handle: Self::Flow) -> Flow;
    /// Replaces what is known about it.
    fn set_flow(&self, handle: Self::Flow, flow: &Flow);
    /// Adds or replaces a flow of the established table; `false` when it is full.
    fn insert_established(&self, key: &FlowKey, flow: &Flow) -> bool;
    /// Adds or replaces a flow of the embryonic table; `false` when the kernel refuses.
    fn insert_embryonic(&self, key: &FlowKey, flow: &Flow) -> bool;
    /// Removes a flow of the established table; `false` when it is not there.
    fn remove_established(&self, key: &FlowKey) -> bool;
    /// Removes a flow of the embryonic table; `false` when it is not there.
    fn remove_embryonic(&self, key: &FlowKey) -> bool;

    /// A persistence template; a handle as those of flows.
    fn template(&self, key: &FlowKey) -> Option<Self::Flow>;
    /// Adds or replaces a persistence template; `false` when there is no room.
    fn insert_template(&self, key: &FlowKey, template: &Flow) -> bool;
    /// Copies `len` bytes of a packet, at most [`abi::SIP_BYTES_MAX`], to where [`Self::message_byte`] reads. `false` when
    /// the packet ends before.
    fn read_message<B: Bytes>(&self, bytes: &B, offset: usize, len: u32) -> bool;
    /// A byte of the message that was copied.
    fn message_byte(&self, index: u32) -> u8;
    /// Writes a byte of the Call-ID.
    fn set_call_byte(&self, index: u32, byte: u8);
    /// The Call-ID is whole: whose it is, how long, and what stands for both in the key of its template.
    fn finish_call(&self, client: &Address, len: u32, hash: Address);
    /// That hash, for the program after.
    fn call_hash(&self) -> Address;
    /// Keeps the Call-ID for listings, under the key of its template.
    fn insert_call(&self, key: &FlowKey);
    /// Where the later pieces of a datagram go; the key is that of [`Fragment`].
    fn fragment(&self, key: &FlowKey) -> Option<Fragment>;
    /// Adds or replaces that.
    fn insert_fragment(&self, key: &FlowKey, fragment: &Fragment);

    /// Whether packets from this address may be replies of a masqueraded real server; `false` is certain.
    fn may_be_masqueraded(&self, address: &Address) -> bool;
    /// The way back of a translated flow, established or not, by its ends towards the real server.
    fn reply(&self, key: &FlowKey) -> Option<Reply>;
    /// Adds or replaces the way back of an established flow; `false` when there is no room.
    fn insert_reply(&self, key: &FlowKey, reply: &Reply) -> bool;
    /// Adds or replaces the way back of an embryonic flow; `false` when the kernel refuses.
    fn insert_embryonic_reply(&self, key: &FlowKey, reply: &Reply) -> bool;
    /// Adds the way back of an embryonic flow; `false` when another embryonic flow has the same ends.
    fn add_embryonic_reply(&self, key: &FlowKey, reply: &Reply) -> bool;
    /// Removes the way back of an embryonic flow.
    fn remove_embryonic_reply(&self, key: &FlowKey);
    /// Where the routing table sends a packet of `ip_len` bytes that came by `ingress` and goes from `ends.client` to
    /// `ends.virtual_address`.
    fn route(&self, ingress: u32, ends: &FlowKey, ip_len: u32) -> Route;

    /// The service with this key.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// What the narrowest network says that a service names and that a client is in: `ACCESS_*`; 0 where it is in none.
    fn access(&self, key: &AccessKey) -> u32;
    /// What each client of a service may have, by the service's index.
    fn client_limits(&self, service: u32) -> ClientLimits;
    /// Connections that a client has.
    fn client_connections(&self, key: &ClientKey) -> i32;
    /// Adds one.
    fn add_client_connection(&self, key: &ClientKey);
    /// Takes one away, if the client is known.
    fn end_client_connection(&self, key: &ClientKey);
    /// From when on a client has a second's worth of flows before it again, in ns; 0 for one that is not known.
    fn client_due_ns(&self, key: &ClientKey) -> u64;
    /// Sets that.
    fn set_client_due_ns(&self, key: &ClientKey, due_ns: u64);
    /// The real servers of a destination address.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Adds or replaces them.
    fn put_affinity(&self, key: &AffinityKey, entry: &Affinity);
    /// A slot of a ring or a pool.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A real server. Read where it stands, if it can be: a known flow needs a few fields, each once, and a copy would be
    /// written to the stack and read back.
    fn real(&self, index: u32) -> Option<impl Deref<Target = Real>>;
    /// Its flows now.
    fn load(&self, index: u32) -> Load;
    /// Adds to its flows.
    fn add_load(&self, index: u32, delta: Load);
    /// When a connection to it last finished its handshake, in ns of the packet path's clock.
    fn progressed_ns(&self, index: u32) -> u64;
    /// Sets that.
    fn set_progressed_ns(&self, index: u32, now_ns: u64);
    /// Counts something that went wrong with it.
    fn count_failure(&self, index: u32, failure: Failure);
    /// A random number.
    fn random(&self) -> u32;
    /// Says whether its upper connection threshold is reached.
    fn set_overloaded(&self, index: u32, overloaded: bool);
    /// The next number of the service's cursor, from 0.
    fn advance_cursor(&self, service: u32) -> u64;
    /// Calls [`Scan::step`] with 0, 1, ... `count - 1` until it returns `false`. At most [`SCAN_MAX`] times.
    fn scan<S: Scan>(&self, count: u32, scan: &mut S);

    /// Until when new flows are placed by consistent hash, in ns.
    fn overflow_until_ns(&self) -> u64;
    /// Sets that.
    fn set_overflow_until_ns(&self, until_ns: u64);
    /// ICMP errors sent on this CPU.
    fn answers(&self) -> Answers;
    /// Sets that.
    fn set_answers(&self, answers: Answers);

    /// Counts a packet of `bytes` (link layer not counted) from a client to a real server, and a
    /// connection if it opened one.
    fn count_in(&self, real: u32, bytes: u32, connection: bool);
    /// Counts a packet of `bytes` (link layer not counted) from a real server to a client.
    fn count_out(&self, real: u32, bytes: u32);
    /// Counts a verdict. `ForwardKnown` is not counted: it is the rest of the real servers' packets.
    fn count_verdict(&self, verdict: abi::Verdict);
    /// Takes one back from that rest: a packet counted for its real server that is not `ForwardKnown`, nor any other
    /// verdict that the rest leaves out ([`abi::Verdict::is_counted_forward`]).
    fn take_back_known(&self);
}

/// What the routing table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The packet leaves here.
    Known {
        /// Index of the interface.
        ifindex: u32,
        /// First twelve bytes of the frame, in words.
        macs: [u32; 3],
    },
    /// No route, no neighbour, or no answer.
    Unknown,
    /// The operator forbids the way: a blackhole, prohibit or unreachable route.
    Refused,
}

/// Most steps of one scan: the largest pool, and the largest table of a hash scheduler.
pub const SCAN_MAX: u32 = 65_536;

/// The body of a loop over the tables. A trait and not a closure: the kernel calls it back by name.
pub trait Scan {
    /// One step; `false` ends the loop.
    fn step<T: Tables>(&mut self, tables: &T, index: u32) -> bool;
}
