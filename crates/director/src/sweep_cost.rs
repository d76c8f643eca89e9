//! A pass of the sweep over real tables keeps what lives and removes what has ended. Needs root. With other sizes it
//! measures what the sweep costs a flow:
//!
//! `SLUICE_SWEEP_FLOWS='10000 100000 1000000 4000000' cargo test --release -p sluice-director --lib sweep_cost -- --nocapture`

use crate::sweep::Sweep;
use abi::{Flow, FlowKey, Limits, TcpState};
use kernel::Datapath;
use nix::time::{ClockId, clock_gettime};
use plan::Tables;

/// Names the numbers of flows in the table, with room for as many; multiples of [`PAGE`].
const SIZES: &str = "SLUICE_SWEEP_FLOWS";
/// Flows written in one go.
const PAGE: u32 = 10_000;

fn key(number: u32) -> FlowKey {
    FlowKey {
        client: abi::Address::v4((0x0a00_0000 + number).to_be_bytes()),
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

#[test]
fn a_pass_keeps_what_lives_and_removes_what_has_ended() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    println!("{:>9}  {:>12}  {:>15}", "flows", "ns each kept", "ns each removed");
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
        let removed = pass(&datapath, count, 2000);
        assert_eq!(datapath.tables().established.get(&key(0)).expect("read"), None);
        println!("{count:>9}  {kept:>12}  {removed:>15}");
    }
}
