//! What it costs to examine many servers once a second: counts are asserted, the cost is only printed.
//!
//! `SLUICE_PROBES=2000 cargo test --release -p sluice-probe --test many -- --nocapture`

use api::{
    Check, CheckKind, Forwarding, HealthSpec, Protocol, RealHealth, RealId, RealSpec, Rhythm, ServiceId,
    Standing, Tunnel,
};
use health::{Declared, DeclaredReal, Machine};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use probe::Prober;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::netns::NetNs;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Servers where nothing else is said.
const SERVERS: u32 = 200;
/// How long they are examined.
const TIME: Duration = Duration::from_secs(5);

fn declared(servers: u32) -> Declared {
    let rhythm = Rhythm { interval_ms: 1000, ..Rhythm::default() };
    let check = Check { kind: CheckKind::Tcp, address: None, port: None, rhythm };
    let spec = RealSpec {
        forwarding: Forwarding::DirectRouting,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel: Tunnel::default(),
    };
    // All of 127.0.0.0/8 is this namespace's own.
    let address = |number| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
    let reals = (1..=servers).map(|number| DeclaredReal {
        real: RealId { address: address(number).into(), port: 80 },
        spec,
        health: RealHealth::default(),
        given: Some(0),
        given_failed: false,
    });
    let spec = HealthSpec { checks: vec![check], ..HealthSpec::default() };
    Declared { spec, reals: reals.collect(), fallback_given: false }
}

fn cpu_ms() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
}

/// Drives the machine as the director does. Gives how many probes were made.
async fn drive(machine: &mut Machine) -> u64 {
    let listener = TcpListener::bind("0.0.0.0:80").await.expect("listen");
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let (told, mut outcomes) = mpsc::channel(4096);
    let prober = Arc::new(Prober::default());
    let begun = Instant::now();
    let now_ms = || u64::try_from(begun.elapsed().as_millis()).expect("short");
    let mut made = 0;
    let mut batch = Vec::new();
    while begun.elapsed() < TIME {
        for order in machine.due(now_ms()) {
            let (prober, told) = (Arc::clone(&prober), told.clone());
            tokio::spawn(async move { told.send((order.id, prober.probe(&order.probe, None).await)).await });
        }
        let next = begun + Duration::from_millis(machine.next_ms().unwrap_or(1000).max(now_ms() + 1));
        tokio::select! {
            count = outcomes.recv_many(&mut batch, 1024) => made += count as u64,
            () = tokio::time::sleep_until(next.into()) => {}
        }
        for (id, outcome) in batch.drain(..) {
            machine.record(id, outcome, now_ms());
        }
    }
    made
}

#[test]
fn many_servers_are_examined_once_a_second() {
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let servers = std::env::var("SLUICE_PROBES").map_or(SERVERS, |text| text.parse().expect("a number"));
    let service = ServiceId::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 1].into(), port: 80 };
    let netns = NetNs::new("many").expect("a namespace");
    netns.ip("link set lo up").expect("loopback");
    let mut machine = Machine::new(1);
    machine.declare(&service, Some(&declared(servers)), 0);
    let before = cpu_ms();
    let made = netns
        .run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(drive(&mut machine))
        })
        .expect("inside");
    let (cpu, seconds) = (cpu_ms() - before, TIME.as_secs());
    println!(
        "{servers} servers: {made} checks in {seconds} s, {} ms of a processor a second",
        cpu / TIME.as_secs().cast_signed()
    );
    let view = machine.view(0);
    let not_up: Vec<_> = view.services[0].reals.iter().filter(|it| it.standing != Standing::Up).collect();
    assert!(not_up.is_empty(), "{} are not up, such as {:?}", not_up.len(), not_up[0]);
    assert!(made >= u64::from(servers) * 2, "{made}");
}
