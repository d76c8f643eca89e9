//! A pass of the sweep over real tables keeps what lives, announces it once, and removes what has ended. Needs root. With other
//! sizes it measures what that costs a flow:
//!
//! `SLUICE_SWEEP_FLOWS='10000 100000 1000000 4000000' cargo test --release -p sluice-director --lib sweep_cost -- --nocapture`

use crate::announcing::Announcing;
use crate::sweep::Sweep;
use crate::sync::{Counts, QUEUE};
use abi::{Flow, FlowKey, Limits, Real, Service, ServiceKey, TcpState};
use connsync::Writer;
use kernel::Datapath;
use nix::time::{ClockId, clock_gettime};
use plan::Tables;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Names the numbers of flows in the table, with room for as many; multiples of [`PAGE`].
const SIZES: &str = "SLUICE_SWEEP_FLOWS";
/// Flows written in one go.
const PAGE: u32 = 10_000;

fn key(number: u32) -> FlowKey {
    FlowKey {
        client: abi::Address::v4((0x0a00_0000 + number).to_be_bytes()),
        virtual_address: abi::Address::v4([192, 0, 2, 10]),
        client_port_be: 4000_u16.to_be(),
        protocol: 6,
        ..FlowKey::default()
    }
}

/// Processor time of this thread: a busy machine does not show in it.
fn busy_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Nanoseconds of processor time a flow of one pass over `count` flows, all of which live until `expires_ns`.
fn pass(datapath: &Datapath, count: u32, now_ns: u64) -> u64 {
    let (mut sweep, tables) = (Sweep::default(), Tables::default());
    let begun = busy_ns();
    while sweep.slice(datapath.tables(), (&tables, 0), now_ns, std::iter::empty()).expect("slice").is_none() {
    }
    (busy_ns() - begun) / u64::from(count)
}

/// One real server of one service, which all flows have.
fn tables() -> Tables {
    let mut tables = Tables::default();
    tables.reals.insert(0, Real { address: abi::Address::v4([10, 0, 0, 1]), ..Real::default() });
    tables.services.insert(ServiceKey::default(), Service::default());
    tables
}

/// The same, of passes that announce all flows, and of one when all are known. How many were announced.
fn announcing(datapath: &Datapath, count: u32) -> (u64, u64, u64) {
    let (queue, mut messages) = mpsc::channel(QUEUE);
    let drain = std::thread::spawn(move || while messages.blocking_recv().is_some() {});
    let counts = Arc::<Counts>::default();
    let mut sweep = Sweep::default();
    sweep.announcing =
        Some(Announcing::new(Writer::new(1, 1472), queue, Arc::clone(&counts), Arc::default()));
    let tables = tables();
    let mut pass = || {
        let begun = busy_ns();
        while sweep.slice(datapath.tables(), (&tables, 0), 1, std::iter::empty()).expect("slice").is_none() {}
        (busy_ns() - begun) / u64::from(count)
    };
    let told = || counts.records.load(Ordering::Relaxed);
    let mut first = 0;
    // What finds no room in the queue is due again in the next pass.
    for _ in 0..1_000 {
        if told() == u64::from(count) {
            break;
        }
        first += pass();
    }
    let again = pass();
    let told = told();
    drop(sweep);
    drain.join().expect("drained");
    (first, again, told)
}

#[test]
fn a_pass_keeps_what_lives_and_removes_what_has_ended() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    println!(
        "{:>9}  {:>12}  {:>9}  {:>10}  {:>15}",
        "flows", "ns each kept", "announced", "known", "ns each removed"
    );
    let sizes = std::env::var(SIZES).unwrap_or_else(|_| "10000".to_owned());
    for count in sizes.split_whitespace().map(|size| size.parse::<u32>().expect("a number of flows")) {
        let limits = Limits { established_flows_max: count, embryonic_flows_max: 64, ..Limits::default() };
        let datapath = Datapath::load(&limits).expect("load");
        let state = TcpState::Established as u8;
        let flow = Flow { expires_ns: 1000, state, ..Flow::default() };
        for first in (0..count).step_by(PAGE as usize) {
            let keys: Vec<FlowKey> = (first..first + PAGE).map(key).collect();
            datapath.tables().established.put_batch(&keys, &vec![flow; keys.len()]).expect("put");
        }
        let kept = pass(&datapath, count, 1);
        assert!(datapath.tables().established.get(&key(0)).expect("read").is_some());
        let (announced, known, told) = announcing(&datapath, count);
        assert_eq!(told, u64::from(count), "each is announced once");
        let removed = pass(&datapath, count, 2000);
        assert_eq!(datapath.tables().established.get(&key(0)).expect("read"), None);
        println!("{count:>9}  {kept:>12}  {announced:>9}  {known:>10}  {removed:>15}");
    }
}
