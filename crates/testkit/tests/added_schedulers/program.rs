//! Asks for services with the schedulers beside this file, as `ipvsadm -A -s NAME` does, and prints the real servers
//! that their first connections go to.

use api::{Change, Forwarding, Protocol, RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Tunnel};
use plan::{Cursors, Layout, Model, Neighbours, Options, Resolved, compile};
use std::net::{IpAddr, Ipv4Addr};
use testkit::MemoryTables;
use testkit::case::{Compiled, Tables};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const NOW_NS: u64 = 1_000_000_000;

fn real(last: u8) -> RealId {
    RealId { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port: 80 }
}

/// A model with one service of this scheduler; real server 10.0.0.N has weight N.
fn model(scheduler: &str) -> Model {
    let mut model = Model::new(Options::default());
    let service = ServiceId::Address { protocol: Protocol::Tcp, address: VIP, port: 80 };
    let spec = ServiceSpec {
        scheduler: scheduler.to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    };
    model.apply(&Change::AddService { service, spec }).expect("a scheduler that is known");
    for last in 1..=3 {
        let spec = RealSpec {
            forwarding: Forwarding::DirectRouting,
            weight: last.into(),
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::Ipip,
        };
        model.apply(&Change::AddReal { service, real: real(last), spec }).expect("a real server");
    }
    model
}

/// What the daemon would write into the kernel's tables, for the packet path in memory.
fn tables(model: &Model) -> MemoryTables {
    let next_hop = Resolved { ifindex: 2, ..Resolved::default() };
    let neighbours: Neighbours = (1..=3).map(|last| (real(last).address, next_hop)).collect();
    let mut layout = Layout::new(Options::default().limits);
    let made = compile(&mut layout, model, &neighbours, &Cursors::new()).expect("room").tables;
    let mut tables = Compiled::new(&Tables::default(), NOW_NS).expect("empty tables");
    tables.settings = made.settings;
    tables.services = made.services.into_iter().collect();
    tables.cursors = vec![0];
    tables.slots = made.slots.into_values().collect();
    tables.reals = made.reals.into_values().collect();
    tables.loads = vec![abi::Load::default(); tables.reals.len()];
    // 10.0.0.1 is all but free, if only what is active counts.
    tables.loads[0].inactive = 2;
    MemoryTables::new(&tables)
}

fn main() {
    for scheduler in std::env::args().skip(1) {
        let model = model(&scheduler);
        let (_, entry) = model.services().next().expect("the service");
        let memory = tables(&model);
        let mut line = entry.scheduler().to_string();
        for port in 1..=8 {
            let text = format!("eth 02:00:00:00:00:01 > 02:00:00:00:00:02 / ip4 198.51.100.1 > {VIP} / tcp {port} > 80 syn");
            let (seen, _) = memory.run(testkit::packet::packet(&text), None, NOW_NS);
            let real = seen.added.iter().position(|added| added.connections == 1).expect("scheduled");
            line += &format!(" {}", real + 1);
        }
        println!("{line}");
    }
}
