//! Models of any kind, and changes to them.

use api::{
    Admission, Change, Check, CheckKind, Exchange, Expect, Fallback, Forwarding, Gone, HealthSpec, HoldDown,
    Http, MarkMatch, Octets, OnFailure, Passive, Persistence, Placement, PolicyChoices, Ports, Protocol,
    RealHealth, RealId, RealSpec, Rhythm, SchedulerFlags, ServiceId, ServiceSpec, Timeouts, Tls, Transport,
    Tunnel, TunnelChecksum,
};
use plan::{Model, Options};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::net::IpAddr;

fn address(list: &[&str]) -> impl Strategy<Value = IpAddr> + Clone {
    select(list.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>())
}

fn protocol() -> impl Strategy<Value = Protocol> + Clone {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn vip() -> impl Strategy<Value = IpAddr> + Clone {
    address(&["192.0.2.10", "192.0.2.11", "2001:db8::10"])
}

fn service() -> impl Strategy<Value = ServiceId> + Clone {
    let family = select(vec![api::Family::Ipv4, api::Family::Ipv6]);
    prop_oneof![
        4 => (protocol(), vip(), select(vec![0_u16, 80, 81, 82, 443]))
            .prop_map(|(protocol, address, port)| ServiceId::Address { protocol, address, port }),
        1 => (1_u32..4, family).prop_map(|(mark, family)| ServiceId::Fwmark { mark, family }),
    ]
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    let flags = any::<[bool; 3]>();
    let persistence = prop::option::of((1_u32..2_678_401, select(vec![128, 64, u32::MAX, 0xffff_ff00])));
    let engine = prop::option::of(Just("sip".to_owned()));
    (select(vec!["rr", "wlc", "mh", "twos"]), flags, persistence, engine, any::<bool>()).prop_map(
        |(scheduler, [flag_1, flag_2, flag_3], persistence, persistence_engine, one_packet)| ServiceSpec {
            scheduler: scheduler.to_owned(),
            scheduler_flags: SchedulerFlags { flag_1, flag_2, flag_3 },
            persistence: persistence.map(|(timeout_s, mask)| Persistence { timeout_s, mask }),
            persistence_engine,
            one_packet,
        },
    )
}

fn real() -> impl Strategy<Value = RealId> + Clone {
    let addresses = address(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8:1::1", "2001:db8:1::2"]);
    (addresses, select(vec![0_u16, 80, 80, 443, 8080])).prop_map(|(address, port)| RealId { address, port })
}

fn real_spec() -> impl Strategy<Value = RealSpec> {
    let sums = select(vec![TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote]);
    let tunnels = prop_oneof![
        3 => Just(Tunnel::Ipip),
        1 => (1_u16.., sums).prop_map(|(port, checksum)| Tunnel::Gue { port, checksum }),
        1 => select(vec![TunnelChecksum::None, TunnelChecksum::Full]).prop_map(|checksum| Tunnel::Gre { checksum }),
    ];
    let ways = select(vec![Forwarding::DirectRouting, Forwarding::Masquerade, Forwarding::Tunnel]);
    (ways, prop_oneof![Just(0_u32), Just(1), 0_u32..1_000], 0_u32..9, 0_u32..9, tunnels).prop_map(
        |(forwarding, weight, upper_threshold, lower, tunnel)| RealSpec {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold: lower.min(upper_threshold),
            tunnel,
        },
    )
}

fn octets() -> impl Strategy<Value = Octets> {
    prop_oneof![
        "[ -~äß\\n\\r\\t\\x00\"\\\\]{0,9}".prop_map(|text| Octets(text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Octets)
    ]
}

fn tls() -> impl Strategy<Value = Tls> {
    (prop::option::of(Just("shop.example".to_owned())), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(name, verify, authorities, own)| Tls {
            name,
            verify,
            authorities: authorities.then(|| "/etc/ca.pem".into()),
            certificate: own.then(|| "/etc/a b\"c.pem".into()),
            key: own.then(|| "/etc/key.pem".into()),
        },
    )
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let plain = select(vec![CheckKind::Tcp, CheckKind::Ping, CheckKind::Load]);
    let expect = prop_oneof![
        Just(Expect::Nothing),
        octets().prop_map(Expect::Begins),
        octets().prop_map(Expect::Contains),
        Just(Expect::Matches("^a.*\\d$".to_owned())),
    ];
    let over = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp), tls().prop_map(Transport::Tls)];
    let exchange = (over, octets(), expect)
        .prop_map(|(over, send, expect)| CheckKind::Exchange(Exchange { over, send, expect }));
    let http = (
        (
            1_u8..3,
            prop::option::of(tls()),
            select(vec!["GET", "HEAD"]),
            prop::option::of(Just("shop.example".to_owned())),
        ),
        (select(vec!["/", "/health?a=\"b\""]), select(vec![vec![(200, 299)], vec![(200, 200), (301, 302)]])),
        (prop::option::of(Just("up\\s+(ok|fine)".to_owned())), prop::option::of(Just("ab".repeat(32)))),
    )
        .prop_map(|((version, tls, method, host), (path, status), (body, digest))| {
            CheckKind::Http(Http {
                version,
                tls,
                method: method.to_owned(),
                host,
                path: path.to_owned(),
                status,
                body,
                digest,
            })
        });
    let smtp = (select(vec!["localhost", "lb.example"]), prop::option::of(tls()))
        .prop_map(|(hello, tls)| CheckKind::Smtp { hello: hello.to_owned(), tls });
    let dns =
        (select(vec![".", "shop.example"]), select(vec!["A", "NS", "SOA"]), select(vec!["", "192.0.2.1"]))
            .prop_map(|(name, record, expect)| CheckKind::Dns {
                name: name.to_owned(),
                record: record.to_owned(),
                expect: expect.to_owned(),
            });
    let program = (prop::collection::vec("[ -~]{0,9}", 0..3), select(vec!["nobody", "checker"])).prop_map(
        |(mut command, user)| {
            command.insert(0, "/usr/bin/check".to_owned());
            CheckKind::Program { command, user: user.to_owned() }
        },
    );
    prop_oneof![plain, exchange, http, smtp, dns, program]
}

fn check() -> impl Strategy<Value = Check> {
    let rhythm =
        (100_u32..86_400_001, 10_u32..3_600_001, 1_u16..1001, 1_u16..1001, 0_u8..51, 0_u32..86_400_001)
            .prop_map(|(interval_ms, timeout_ms, rise, fall, jitter_percent, grace_ms)| Rhythm {
                interval_ms,
                timeout_ms,
                rise,
                fall,
                jitter_percent,
                grace_ms,
            });
    let rhythm = prop_oneof![2 => Just(Rhythm::default()), 1 => rhythm];
    (kind(), prop::option::of(vip()), prop::option::of(1_u16..), rhythm)
        .prop_map(|(kind, address, port, rhythm)| Check { kind, address, port, rhythm })
}

fn checks() -> impl Strategy<Value = Vec<Check>> {
    prop::collection::vec(check(), 0..3)
}

fn health() -> impl Strategy<Value = HealthSpec> {
    let fallback = prop::option::of((real(), real_spec()).prop_map(|(real, spec)| Fallback { real, spec }));
    let hold_down = prop::option::of((2_u16..101, 1000_u32..86_400_001, 1000_u32..86_400_001))
        .prop_map(|it| it.map(|(failures, within_ms, hold_ms)| HoldDown { failures, within_ms, hold_ms }));
    let on_failure = select(vec![OnFailure::Quiesce, OnFailure::Remove]);
    (
        (checks(), on_failure, 0_u8..101, fallback),
        (hold_down, 0_u32..3_600_001, 0_u32..86_400_001),
        any::<bool>(),
        prop::option::of((1_u32..1_000_001, 1_u8..101)),
    )
        .prop_map(
            |(
                (checks, on_failure, panic_percent, fallback),
                (hold_down, slow_start_ms, drain_ms),
                adaptive,
                passive,
            )| HealthSpec {
                checks,
                on_failure,
                panic_percent,
                fallback,
                hold_down,
                slow_start_ms,
                drain_ms,
                adaptive,
                passive: passive.map(|(flows_min, failed_percent)| Passive { flows_min, failed_percent }),
            },
        )
}

fn admission() -> impl Strategy<Value = Admission> {
    let all = vec!["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "2001:db8::1/128"];
    (prop::sample::subsequence(all, 0..6), 0_usize..6, 0_u32..3, 0_u32..3).prop_map(
        |(networks, allowed, connections_per_client, rate_per_client)| {
            let (allow, deny): (Vec<_>, Vec<_>) =
                networks.iter().enumerate().partition(|(place, _)| *place < allowed);
            let parse = |list: Vec<(usize, &&str)>| {
                list.iter().map(|(_, network)| network.parse().expect("a network")).collect()
            };
            Admission { allow: parse(allow), deny: parse(deny), connections_per_client, rate_per_client }
        },
    )
}

/// A change that the model may take or refuse.
pub fn change() -> impl Strategy<Value = Change> {
    let choices = (
        prop::option::of(select(vec![Gone::Keep, Gone::Reschedule, Gone::Reset])),
        any::<Option<bool>>(),
        any::<Option<bool>>(),
        prop::option::of(select(vec![Placement::Keyed, Placement::Exact])),
    )
        .prop_map(|(gone, rescue, source_nat, placement)| PolicyChoices {
            gone,
            rescue,
            source_nat,
            placement,
        });
    let ports = prop::option::of((1_u16..100, 0_u16..9))
        .prop_map(|it| it.map_or(Ports::Any, |(first, more)| Ports::Range { first, last: first + more }));
    let matched = (protocol(), vip(), ports).prop_map(|(protocol, address, ports)| MarkMatch {
        protocol,
        address,
        ports,
    });
    let real_health =
        (prop::option::of(checks()), any::<bool>()).prop_map(|(checks, drain)| RealHealth { checks, drain });
    prop_oneof![
        4 => (service(), spec()).prop_map(|(service, spec)| Change::AddService { service, spec }),
        10 => (service(), real(), real_spec()).prop_map(|(service, real, spec)| Change::AddReal { service, real, spec }),
        3 => (service(), real(), real_spec()).prop_map(|(service, real, spec)| Change::EditReal { service, real, spec }),
        3 => (service(), health()).prop_map(|(service, health)| Change::SetHealth { service, health }),
        3 => (service(), admission()).prop_map(|(service, admission)| Change::SetAdmission { service, admission }),
        3 => (service(), real(), real_health).prop_map(|(service, real, health)| Change::SetRealHealth { service, real, health }),
        1 => (prop::option::of(service()), choices).prop_map(|(service, choices)| Change::SetPolicy { service, forget: true, choices }),
        2 => (matched, 1_u32..5).prop_map(|(matched, mark)| Change::AddMark { matched, mark }),
        1 => (select(vec!["sloppy_tcp", "conn_reuse_mode"]), 0_u32..2).prop_map(|(name, value)| Change::SetSetting { name: name.to_owned(), value }),
        1 => (0_u32..2_678_401, 0_u32..900, 0_u32..900).prop_map(|(tcp_s, tcp_fin_s, udp_s)| Change::SetTimeouts { timeouts: Timeouts { tcp_s, tcp_fin_s, udp_s } }),
    ]
}

/// Lets what is about a real server be about one that there is.
pub fn aim(change: &mut Change, index: Index, model: &Model) {
    let (Change::EditReal { service, real, .. } | Change::SetRealHealth { service, real, .. }) = change
    else {
        return;
    };
    let all: Vec<(ServiceId, RealId)> =
        model.services().flat_map(|(id, entry)| entry.reals().map(|(real, _)| (*id, *real))).collect();
    if !all.is_empty() {
        (*service, *real) = all[index.index(all.len())];
    }
}

/// Changes of which most can be done: services come first, and real servers of the service's port and family.
pub fn model() -> impl Strategy<Value = Model> {
    let services = prop::collection::vec((service(), spec()), 0..6);
    (services, prop::collection::vec((change(), any::<Index>()), 0..60), any::<bool>()).prop_map(
        |(services, changes, fitting)| {
            let mut model = Model::new(Options::default());
            for (service, spec) in services {
                let _ = model.apply(&Change::AddService { service, spec });
            }
            for (mut change, index) in changes {
                aim(&mut change, index, &model);
                if let Change::AddReal { service: ServiceId::Address { port, .. }, real, .. } = &mut change
                    && fitting
                {
                    real.port = *port;
                }
                // What is refused leaves the model as it was.
                let _ = model.apply(&change);
            }
            model
        },
    )
}
