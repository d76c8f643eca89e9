//! "Where would this flow go, and why": the packet path's own code on the live tables, with a packet made up here.
//!
//! Reads only: cursors stay where they are, and what the core would write goes nowhere. The answer is that of this moment;
//! for a round-robin service it is where the next flow goes, whoever opens it.

use crate::actor::Director;
use crate::connections::{protocol_name, state_name};
use crate::convert::{address, ip, socket};
use abi::{
    AccessKey, Address, Affinity, AffinityKey, Answers, ClientKey, ClientLimits, Failure, Flow, FlowKey,
    Fragment, Load, Real, Reply, Service, ServiceKey, Settings, Slot, Verdict, protocol,
};
use api::{ExplainRequest, Explanation, Refusal, RefusalKind};
use forward::tables::{Route, SCAN_MAX, Scan};
use kernel::{TableError, Tables as Maps};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use wire::{Bytes, Short};

impl Director {
    pub(crate) fn explain(&self, question: &ExplainRequest, now_ns: u64) -> Result<Explanation, Refusal> {
        let (client, vip) = (question.client, question.virtual_address);
        if client.is_ipv4() != vip.is_ipv4() {
            let message =
                format!("{client} and {vip} are of different address families: give two of the same");
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        let key = FlowKey {
            client: address(client.ip()),
            virtual_address: address(vip.ip()),
            client_port_be: client.port().to_be(),
            virtual_port_be: vip.port().to_be(),
            protocol: question.protocol.number().into(),
        };
        let live = Live::new(self.datapath.tables(), now_ns);
        // A segment of a known flow is no SYN; the first of a new one is.
        let is_known = live.look_up(&key).is_some_and(|flow| now_ns < flow.expires_ns);
        live.steps.borrow_mut().clear();
        let frame = Frame(frame(&key, client, vip, is_known));
        let (outcome, _) = forward::decide(frame, &live, now_ns);
        let mut steps = live.steps.into_inner();
        let real = live.chosen.get().and_then(|index| {
            let real = live.maps.reals.get(index).ok().flatten()?;
            let port_be = if real.port_be == 0 { key.virtual_port_be } else { real.port_be };
            let to = SocketAddr::new(ip(&real.address), u16::from_be(port_be));
            if real.flags & abi::REAL_LOCAL != 0 {
                steps.push(format!("{to} is this machine: left to its own stack"));
                return Some(to);
            }
            let names = kernel::interface_names();
            let interface = names.get(&real.ifindex).map_or("an interface that is gone", String::as_str);
            if real.method == abi::METHOD_TUNNEL {
                steps.push(encapsulation(&real));
            }
            steps.push(format!("sent to {to} by {interface}, weight {}", real.weight));
            Some(to)
        });
        Ok(Explanation {
            verdict: outcome.verdict.name().to_owned(),
            sentence: outcome.verdict.sentence().to_owned(),
            real,
            steps,
        })
    }
}

/// How a packet is wrapped for a real server behind a tunnel.
fn encapsulation(real: &Real) -> String {
    let checksum = if real.tunnel_flags & abi::TUNNEL_CHECKSUM != 0 { " with checksum" } else { "" };
    let kind = match real.tunnel {
        abi::TUNNEL_GUE => format!("GUE to port {}{checksum}", u16::from_be(real.tunnel_port_be)),
        abi::TUNNEL_GRE => format!("GRE{checksum}"),
        _ => "IPIP".to_owned(),
    };
    let overhead = forward::mtu::overhead(real);
    let room = match forward::mtu::largest(real) {
        u32::MAX => "the MTU of the way is not known".to_owned(),
        largest => format!("packets up to {largest} bytes fit"),
    };
    format!(
        "wrapped in {kind} from {} to {}, {overhead} bytes more; {room}",
        ip(&real.source),
        ip(&real.address)
    )
}

/// The smallest Ethernet frame of the flow: a TCP SYN or, of a known flow, an ACK; an SCTP INIT or DATA chunk; for other
/// protocols eight bytes.
fn frame(key: &FlowKey, client: SocketAddr, vip: SocketAddr, is_known: bool) -> Vec<u8> {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    const DATA: u8 = 0;
    const INIT: u8 = 1;
    let number = key.protocol.to_be_bytes()[3];
    let mut transport = Vec::new();
    transport.extend(client.port().to_be_bytes());
    transport.extend(vip.port().to_be_bytes());
    if number == protocol::TCP {
        let flags = if is_known { ACK } else { SYN };
        // Sequence numbers, header length of five words, flags, window, checksum, urgent pointer.
        transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    } else if number == protocol::SCTP {
        let chunk = if is_known { DATA } else { INIT };
        // Verification tag, CRC32c, and the header of a chunk without content.
        transport.extend([0, 0, 0, 0, 0, 0, 0, 0, chunk, 0, 0, 4]);
    } else {
        transport.extend([0, 8, 0, 0]);
    }
    let length = u16::try_from(transport.len()).unwrap_or_default();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (client, vip) {
        (SocketAddr::V4(client), SocketAddr::V4(vip)) => {
            let [high, low] = (length + 20).to_be_bytes();
            frame.extend([8, 0, 0x45, 0, high, low, 0, 0, 0, 0, 64, number, 0, 0]);
            frame.extend(client.ip().octets());
            frame.extend(vip.ip().octets());
        }
        _ => {
            let [high, low] = length.to_be_bytes();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, number, 64]);
            frame.extend(key.client.octets());
            frame.extend(key.virtual_address.octets());
        }
    }
    frame.extend(transport);
    frame
}

/// A frame in memory.
struct Frame(Vec<u8>);

impl Bytes for Frame {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn ingress(&self) -> u32 {
        0
    }

    fn get<const N: usize>(&self, offset: usize) -> Result<[u8; N], Short> {
        self.0.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(Short)
    }

    fn put<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Result<(), Short> {
        let place = self.0.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()).ok_or(Short)?;
        *place = value;
        Ok(())
    }
}

impl forward::Resize for Frame {
    fn resize(mut self, len: usize, front: usize) -> Result<Self, (Short, Self)> {
        self.0.resize(len, 0);
        let mut longer = vec![0; front];
        longer.append(&mut self.0);
        Ok(Self(longer))
    }

    fn cut_front(mut self, len: usize) -> Result<Self, (Short, Self)> {
        if len > self.0.len() {
            return Err((Short, self));
        }
        self.0.drain(..len);
        Ok(self)
    }

    fn sum(&self, offset: usize, len: usize) -> Result<u16, Short> {
        let part = offset.checked_add(len).and_then(|end| self.0.get(offset..end)).ok_or(Short)?;
        let word = |pair: &[u8]| match *pair {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [last] => u32::from(last) << 8,
            _ => 0,
        };
        Ok(wire::checksum::fold(part.chunks(2).map(word).sum()))
    }
}

/// The live tables, read-only, noting what was looked at.
struct Live<'a> {
    maps: &'a Maps,
    settings: Option<Settings>,
    now_ns: u64,
    steps: RefCell<Vec<String>>,
    chosen: Cell<Option<u32>>,
}

impl<'a> Live<'a> {
    fn new(maps: &'a Maps, now_ns: u64) -> Self {
        let settings = maps.settings.get(0).ok().flatten();
        Self { maps, settings, now_ns, steps: RefCell::default(), chosen: Cell::new(None) }
    }

    fn note(&self, step: String) {
        self.steps.borrow_mut().push(step);
    }

    /// What a table said; a table that cannot be read is a step, and nothing found.
    fn read<T>(&self, answer: Result<Option<T>, TableError>) -> Option<T> {
        answer.unwrap_or_else(|error| {
            self.note(runtime::Chain(&error).to_string());
            None
        })
    }

    fn look_up(&self, key: &FlowKey) -> Option<Flow> {
        self.read(self.maps.established.get(key)).or_else(|| self.read(self.maps.embryonic.get(key)))
    }

    fn note_template(&self, template: &Flow) {
        let Some(real) = self.read(self.maps.reals.get(template.real)) else { return };
        let mut why = format!("the client has a template for {}", ip(&real.address));
        if real.flags & abi::REAL_AVAILABLE == 0 {
            why += ", which was deleted";
        } else if real.weight == 0 && real.failed != 0 {
            why += ", which counts no more, as it failed its checks";
        } else if real.weight == 0 {
            why += ", whatever its weight of 0 unless expire_quiescent_template is set";
        }
        let seconds = template.expires_ns.saturating_sub(self.now_ns) / 1_000_000_000;
        if seconds > 0 {
            why += &format!("; it ends in {seconds} s");
        } else if template.flags & abi::FLOW_CONTROLLED != 0 {
            why += "; its time is over, but connections stand under it";
        } else {
            why += "; it has ended";
        }
        self.note(why);
    }

    fn note_flow(&self, table: &str, key: &FlowKey, found: Option<Flow>) -> Option<Flow> {
        match &found {
            None => self.note(format!("no flow in the {table} table")),
            Some(flow) => {
                let state = state_name(key.protocol, flow.state);
                self.note(format!("a flow in state {state} in the {table} table"));
                self.chosen.set(Some(flow.real));
            }
        }
        found
    }
}

impl forward::Tables for Live<'_> {
    type Flow = Flow;

    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn may_be_vip(&self, address: &Address) -> bool {
        let (word, mask) = abi::vip_filter_bit(address);
        let found = self.read(self.maps.vip_filter.get(word)).is_some_and(|bits| bits & mask != 0);
        let says = if found { "may be a VIP" } else { "is no VIP" };
        self.note(format!("the filter says that {} {says}", ip(address)));
        found
    }

    fn established(&self, key: &FlowKey) -> Option<Flow> {
        self.note_flow("established", key, self.read(self.maps.established.get(key)))
    }

    fn embryonic(&self, key: &FlowKey) -> Option<Flow> {
        self.note_flow("embryonic", key, self.read(self.maps.embryonic.get(key)))
    }

    fn flow(&self, handle: Flow) -> Flow {
        handle
    }

    fn set_flow(&self, _handle: Flow, _flow: &Flow) {}

    fn insert_established(&self, _key: &FlowKey, _flow: &Flow) -> bool {
        true
    }

    fn insert_embryonic(&self, _key: &FlowKey, _flow: &Flow) -> bool {
        true
    }

    fn remove_established(&self, _key: &FlowKey) -> bool {
        true
    }

    fn remove_embryonic(&self, _key: &FlowKey) -> bool {
        true
    }

    fn template(&self, key: &FlowKey) -> Option<Flow> {
        let found = self.read(self.maps.templates.get(key));
        match &found {
            None => self.note("the client has no template".to_owned()),
            Some(template) => self.note_template(template),
        }
        found
    }

    fn insert_template(&self, _key: &FlowKey, _template: &Flow) -> bool {
        true
    }

    // The question brings no message: a call that is not known.
    fn read_message<B: Bytes>(&self, _bytes: &B, _offset: usize, _len: u32) -> bool {
        self.note("a message decides by its Call-ID, and the question has none".to_owned());
        false
    }

    fn message_byte(&self, _index: u32) -> u8 {
        0
    }

    fn set_call_byte(&self, _index: u32, _byte: u8) {}

    fn finish_call(&self, _client: &Address, _len: u32, _hash: Address) {}

    fn call_hash(&self) -> Address {
        Address::default()
    }

    fn insert_call(&self, _key: &FlowKey) {}

    fn fragment(&self, _key: &FlowKey) -> Option<Fragment> {
        // The packet made up here is whole.
        None
    }

    fn insert_fragment(&self, _key: &FlowKey, _fragment: &Fragment) {}

    fn may_be_masqueraded(&self, address: &Address) -> bool {
        let (word, mask) = abi::vip_filter_bit(address);
        self.read(self.maps.masquerade_filter.get(word)).is_some_and(|bits| bits & mask != 0)
    }

    fn reply(&self, key: &FlowKey) -> Option<Reply> {
        self.read(self.maps.replies.get(key)).or_else(|| self.read(self.maps.embryonic_replies.get(key)))
    }

    fn insert_reply(&self, _key: &FlowKey, _reply: &Reply) -> bool {
        true
    }

    fn insert_embryonic_reply(&self, _key: &FlowKey, _reply: &Reply) -> bool {
        true
    }

    fn add_embryonic_reply(&self, _key: &FlowKey, _reply: &Reply) -> bool {
        true
    }

    fn remove_embryonic_reply(&self, _key: &FlowKey) {}

    fn route(&self, _ingress: u32, _ends: &FlowKey, _ip_len: u32) -> Route {
        // Only replies are routed, and only requests are explained.
        Route::Unknown
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        // The flow that was looked at before, if any, is over.
        self.chosen.set(None);
        let found = self.read(self.maps.services.get(key));
        let at = socket(&key.address, key.port_be);
        match &found {
            None => self.note(format!("no {} service on {at}", protocol_name(key.protocol.into()))),
            Some(service) => {
                let scheduler = scheduler_name(service.scheduler);
                let reals = service.pool.len;
                let mut said = match service.mark {
                    0 => format!("the service on {at} has scheduler {scheduler} and {reals} real servers"),
                    mark => format!(
                        "{at} belongs to mark {mark}, whose service has scheduler {scheduler} and {reals} real servers"
                    ),
                };
                if service.persistence_s > 0 {
                    said += &format!("; clients stay for {} s", service.persistence_s);
                }
                self.note(said);
            }
        }
        found
    }

    fn access(&self, key: &AccessKey) -> u32 {
        let found = self.read(self.maps.access.get(key)).unwrap_or_default();
        let client = ip(&key.address);
        self.note(match found {
            0 => format!("{client} is in no network that the service names"),
            abi::ACCESS_DENY => format!("{client} is in a network that the service denies"),
            _ => format!("{client} is in a network that the service allows"),
        });
        found
    }

    fn client_limits(&self, service: u32) -> ClientLimits {
        self.read(self.maps.client_limits.get(service)).unwrap_or_default()
    }

    fn client_connections(&self, key: &ClientKey) -> i32 {
        let count = self.read(self.maps.client_connections.get(key)).unwrap_or_default();
        self.note(format!("the client has {count} connections"));
        count
    }

    fn add_client_connection(&self, _key: &ClientKey) {}

    fn end_client_connection(&self, _key: &ClientKey) {}

    fn client_due_ns(&self, key: &ClientKey) -> u64 {
        self.read(self.maps.client_rates.get(key)).unwrap_or_default()
    }

    fn set_client_due_ns(&self, _key: &ClientKey, _due_ns: u64) {}

    fn count_failure(&self, _index: u32, _failure: Failure) {}

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        let found = self.read(self.maps.affinities.get(key));
        let address = ip(&key.address);
        match &found {
            None => self.note(format!("no real server is remembered for {address}")),
            Some(entry) => self.note(format!("{} real servers are remembered for {address}", entry.len)),
        }
        found
    }

    fn put_affinity(&self, _key: &AffinityKey, _entry: &Affinity) {}

    fn slot(&self, index: u32) -> Option<Slot> {
        self.read(self.maps.slots.get(index))
    }

    fn real(&self, index: u32) -> Option<impl Deref<Target = Real>> {
        self.read(self.maps.reals.get(index)).map(Box::new)
    }

    fn load(&self, index: u32) -> Load {
        self.read(self.maps.loads.get(index)).unwrap_or_default()
    }

    fn add_load(&self, _index: u32, _delta: Load) {}

    fn progressed_ns(&self, index: u32) -> u64 {
        self.read(self.maps.progress.get(index)).unwrap_or_default()
    }

    fn set_progressed_ns(&self, _index: u32, _now_ns: u64) {}

    fn random(&self) -> u32 {
        // One of the possible answers, and the same each time.
        u32::MAX / 3
    }

    fn set_overloaded(&self, _index: u32, _overloaded: bool) {}

    fn advance_cursor(&self, service: u32) -> u64 {
        let cursor = self.read(self.maps.cursors.get(service)).unwrap_or_default();
        self.note(format!("the ring's cursor is at {cursor}"));
        cursor
    }

    fn scan<S: Scan>(&self, count: u32, scan: &mut S) {
        for index in 0..count.min(SCAN_MAX) {
            if !scan.step(self, index) {
                return;
            }
        }
    }

    fn overflow_until_ns(&self) -> u64 {
        self.read(self.maps.shared.get(0)).map_or(0, |shared| shared.overflow_until_ns)
    }

    fn set_overflow_until_ns(&self, _until_ns: u64) {}

    fn answers(&self) -> Answers {
        // Nothing is sent, so no limit is reached.
        Answers::default()
    }

    fn set_answers(&self, _answers: Answers) {}

    fn count_in(&self, real: u32, _bytes: u32, _connection: bool) {
        self.chosen.set(Some(real));
    }

    fn count_out(&self, _real: u32, _bytes: u32) {}

    fn count_verdict(&self, verdict: Verdict) {
        if !verdict.is_forward() {
            self.chosen.set(None);
        }
    }

    fn take_back_known(&self) {}
}

fn scheduler_name(number: u16) -> String {
    match plan::scheduler_of(number) {
        Some(scheduler) => scheduler.name().to_owned(),
        None => format!("number {number}"),
    }
}
