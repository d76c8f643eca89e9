//! Small inputs for the tests of this crate, and the packet path's view of tables.

use crate::ring::Entry;
use crate::{Options, TableSize, Tables};
use abi::{
    AccessKey, Address, Affinity, AffinityKey, Answers, ClientKey, ClientLimits, Failure, Flow, FlowKey,
    Fragment, Limits, Load, Real, Reply, Service, ServiceKey, Settings, Slot, Verdict,
};
use api::{
    Admission, Change, Forwarding, Gone, HealthSpec, Placement, PolicyChoices, Protocol, RealHealth, RealId,
    RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Timeouts, Tunnel,
};
use forward::tables::{Route, Scan};
use proptest::prelude::*;
use std::cell::Cell;
use std::ops::Deref;

/// Ring entries from (number, weight), newest first. Number n is 10.0.0.0 + n, port 80.
pub(crate) fn entries(weights: &[(u32, u32)]) -> Vec<Entry> {
    weights
        .iter()
        .map(|&(real, weight)| Entry {
            real,
            weight,
            last_weight: weight,
            address: 0x0a00_0000 + real,
            port: 80,
        })
        .collect()
}

/// Limits that random changes reach.
pub(crate) fn small_options() -> Options {
    let limits = Limits { services_max: 5, reals_max: 12, slots_max: 3_000, ..Limits::default() };
    let mh_table = TableSize::from_index(8).expect("251 slots");
    Options { limits, mh_table, ..Options::default() }
}

/// Service n is TCP 192.0.2.n:80.
pub(crate) fn service(number: u8) -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: [192, 0, 2, number].into(), port: 80 }
}

pub(crate) fn service_spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    }
}

pub(crate) fn real_spec(weight: u32) -> RealSpec {
    RealSpec {
        forwarding: Forwarding::DirectRouting,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel: Tunnel::Ipip,
    }
}

/// A random change over a few services and real servers, mostly one that can be done.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let services = (0_u8..6).prop_map(|number| match number {
        5 => ServiceId::Address {
            protocol: Protocol::Udp,
            address: "2001:db8::1".parse().expect("an address"),
            port: 53,
        },
        number => service(number),
    });
    let real = (services.clone(), 0_u8..5).prop_map(|(service, number)| {
        let (address, port) = match service {
            ServiceId::Address { port: 53, .. } => (format!("2001:db8::1:{number}").parse(), 53),
            _ => (format!("10.0.0.{number}").parse(), 80),
        };
        (service, RealId { address: address.expect("an address"), port })
    });
    let names = vec!["rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "none", "nonsense"];
    let spec = prop::sample::select(names).prop_map(service_spec);
    let weights = prop_oneof![4 => 0_u32..6, 1 => Just(9_000), 1 => any::<u32>()];
    let methods = prop_oneof![9 => Just(Forwarding::DirectRouting), 1 => Just(Forwarding::Tunnel)];
    let real_spec = (weights, 0_u32..9, methods).prop_map(|(weight, lower, forwarding)| RealSpec {
        forwarding,
        lower_threshold: lower.saturating_sub(7),
        ..real_spec(weight)
    });
    prop_oneof![
        4 => (services.clone(), spec.clone()).prop_map(|(service, spec)| Change::AddService { service, spec }),
        2 => (services.clone(), spec).prop_map(|(service, spec)| Change::EditService { service, spec }),
        1 => services.clone().prop_map(|service| Change::DeleteService { service }),
        8 => (real.clone(), real_spec.clone())
            .prop_map(|((service, real), spec)| Change::AddReal { service, real, spec }),
        4 => (real.clone(), real_spec).prop_map(|((service, real), spec)| Change::EditReal { service, real, spec }),
        1 => (real.clone(), any::<bool>()).prop_map(|((service, real), drain)| Change::SetRealHealth {
            service,
            real,
            health: RealHealth { checks: None, drain },
        }),
        1 => (services.clone(), 0_u8..110).prop_map(|(service, panic_percent)| Change::SetHealth {
            service,
            health: HealthSpec { panic_percent, ..HealthSpec::default() },
        }),
        2 => (services.clone(), admission())
            .prop_map(|(service, admission)| Change::SetAdmission { service, admission }),
        3 => real.prop_map(|(service, real)| Change::DeleteReal { service, real }),
        1 => prop::option::of(services).prop_map(|service| Change::Zero { service }),
        1 => (0_u32..3_000_000).prop_map(|tcp_s| Change::SetTimeouts {
            timeouts: Timeouts { tcp_s, tcp_fin_s: 0, udp_s: 5 }
        }),
        1 => (prop::option::of(prop::sample::select(vec![service(0), service(1)])), any::<bool>(), policy())
            .prop_map(|(service, forget, choices)| Change::SetPolicy { service, forget, choices }),
        1 => (prop::sample::select(vec!["conn_reuse_mode", "sloppy_tcp", "drop_packet", "conntrack"]), 0_u32..4)
            .prop_map(|(name, value)| Change::SetSetting { name: name.to_owned(), value }),
        1 => Just(Change::Flush),
    ]
}

fn admission() -> impl Strategy<Value = Admission> {
    let networks = prop::sample::subsequence(
        vec!["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32", "2001:db8::/32", "10.0.0.1/8", "::/0"],
        0..4,
    );
    let networks = networks.prop_map(|list| {
        let parse = |network: &str| network.parse().expect("a network");
        list.into_iter().map(parse).collect::<Vec<ipnet::IpNet>>()
    });
    (networks.clone(), networks, 0_u32..3, 0_u32..3).prop_map(
        |(allow, deny, connections_per_client, rate_per_client)| Admission {
            allow,
            deny,
            connections_per_client,
            rate_per_client,
        },
    )
}

fn policy() -> impl Strategy<Value = PolicyChoices> {
    let gone = prop::option::of(prop::sample::select(vec![Gone::Keep, Gone::Reschedule, Gone::Reset]));
    let placement = prop::option::of(prop::sample::select(vec![Placement::Keyed, Placement::Exact]));
    (gone, any::<Option<bool>>(), any::<Option<bool>>(), placement).prop_map(
        |(gone, rescue, source_nat, placement)| PolicyChoices { gone, rescue, source_nat, placement },
    )
}

/// The packet path on tables of one service: what scheduling reads, with no flows and no load.
pub(crate) struct Simulated {
    tables: Tables,
    cursor: Cell<u64>,
}

impl Simulated {
    pub(crate) fn new(tables: Tables) -> Self {
        Self { tables, cursor: Cell::new(0) }
    }

    /// Last bytes of the addresses of the real servers that so many new flows of a client get.
    pub(crate) fn choices(&self, client: [u8; 4], count: usize) -> Vec<u8> {
        let service = *self.tables.services.values().next().expect("one service");
        let key = FlowKey { client: Address::v4(client), ..FlowKey::default() };
        (0..count)
            .filter_map(|_| forward::schedule::schedule(self, &service, &key))
            .map(|real| self.tables.reals[&real].address.octets()[15])
            .collect()
    }
}

impl forward::Tables for Simulated {
    type Flow = ();

    fn settings(&self) -> Option<&Settings> {
        Some(&self.tables.settings)
    }
    fn may_be_vip(&self, address: &Address) -> bool {
        let (word, mask) = abi::vip_filter_bit(address);
        self.tables.vip_filter.get(&word).is_some_and(|bits| bits & mask != 0)
    }
    fn established(&self, _: &FlowKey) -> Option<()> {
        None
    }
    fn embryonic(&self, _: &FlowKey) -> Option<()> {
        None
    }
    fn flow(&self, (): ()) -> Flow {
        Flow::default()
    }
    fn set_flow(&self, (): (), _: &Flow) {}
    fn insert_established(&self, _: &FlowKey, _: &Flow) -> bool {
        false
    }
    fn insert_embryonic(&self, _: &FlowKey, _: &Flow) -> bool {
        false
    }
    fn remove_established(&self, _: &FlowKey) -> bool {
        false
    }
    fn remove_embryonic(&self, _: &FlowKey) -> bool {
        false
    }
    fn template(&self, _: &FlowKey) -> Option<()> {
        None
    }
    fn insert_template(&self, _: &FlowKey, _: &Flow) -> bool {
        false
    }
    fn read_message<B: wire::Bytes>(&self, _: &B, _: usize, _: u32) -> bool {
        false
    }
    fn message_byte(&self, _: u32) -> u8 {
        0
    }
    fn set_call_byte(&self, _: u32, _: u8) {}
    fn finish_call(&self, _: &Address, _: u32, _: Address) {}
    fn call_hash(&self) -> Address {
        Address::default()
    }
    fn insert_call(&self, _: &FlowKey) {}
    fn fragment(&self, _: &FlowKey) -> Option<Fragment> {
        None
    }
    fn insert_fragment(&self, _: &FlowKey, _: &Fragment) {}
    fn may_be_masqueraded(&self, _: &Address) -> bool {
        false
    }
    fn reply(&self, _: &FlowKey) -> Option<Reply> {
        None
    }
    fn insert_reply(&self, _: &FlowKey, _: &Reply) -> bool {
        false
    }
    fn insert_embryonic_reply(&self, _: &FlowKey, _: &Reply) -> bool {
        false
    }
    fn add_embryonic_reply(&self, _: &FlowKey, _: &Reply) -> bool {
        false
    }
    fn remove_embryonic_reply(&self, _: &FlowKey) {}
    fn route(&self, _: u32, _: &FlowKey, _: u32) -> Route {
        Route::Unknown
    }
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.tables.services.get(key).copied()
    }
    fn affinity(&self, _key: &AffinityKey) -> Option<Affinity> {
        None
    }

    fn put_affinity(&self, _key: &AffinityKey, _entry: &Affinity) {}

    fn slot(&self, index: u32) -> Option<Slot> {
        self.tables.slots.get(&index).copied()
    }
    fn real(&self, index: u32) -> Option<impl Deref<Target = Real>> {
        self.tables.reals.get(&index)
    }
    fn load(&self, _: u32) -> Load {
        Load::default()
    }
    fn add_load(&self, _: u32, _: Load) {}
    fn access(&self, _: &AccessKey) -> u32 {
        0
    }
    fn client_limits(&self, _: u32) -> ClientLimits {
        ClientLimits::default()
    }
    fn client_connections(&self, _: &ClientKey) -> i32 {
        0
    }
    fn add_client_connection(&self, _: &ClientKey) {}
    fn end_client_connection(&self, _: &ClientKey) {}
    fn client_due_ns(&self, _: &ClientKey) -> u64 {
        0
    }
    fn set_client_due_ns(&self, _: &ClientKey, _: u64) {}
    fn count_failure(&self, _: u32, _: Failure) {}
    fn progressed_ns(&self, _: u32) -> u64 {
        0
    }
    fn set_progressed_ns(&self, _: u32, _: u64) {}
    fn random(&self) -> u32 {
        0
    }
    fn set_overloaded(&self, _: u32, _: bool) {}
    fn advance_cursor(&self, _: u32) -> u64 {
        self.cursor.replace(self.cursor.get() + 1)
    }
    fn scan<S: Scan>(&self, count: u32, scan: &mut S) {
        let _ended_at = (0..count).find(|&i| !scan.step(self, i));
    }
    fn overflow_until_ns(&self) -> u64 {
        0
    }
    fn set_overflow_until_ns(&self, _: u64) {}
    fn answers(&self) -> Answers {
        Answers::default()
    }
    fn set_answers(&self, _: Answers) {}
    fn count_in(&self, _: u32, _: u32, _: bool) {}
    fn count_out(&self, _: u32, _: u32) {}
    fn count_verdict(&self, _: Verdict) {}
    fn take_back_known(&self) {}
}
