//! Properties of the whole way: changes -> model -> tables -> differences.

use crate::samples::{Simulated, change, real_spec, service, service_spec, small_options};
use crate::{
    AdoptError, Compiled, Cursors, Layout, LayoutFull, Model, Neighbours, Options, Resolved, TableChange,
    Tables, compile, diff,
};
use abi::{REAL_AVAILABLE, REAL_LOCAL, REAL_RESOLVED};
use api::{Change, Changes, Placement, PolicyChoices, RealId, RealSpec, Refusal, RefusalKind, ServiceId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn real(number: u8) -> RealId {
    RealId { address: [10, 0, 0, number].into(), port: 80 }
}

fn add_service(scheduler: &str) -> Change {
    Change::AddService { service: service(1), spec: service_spec(scheduler) }
}

fn add_real(number: u8, weight: u32) -> Change {
    Change::AddReal { service: service(1), real: real(number), spec: real_spec(weight) }
}

fn model(changes: &[Change]) -> Model {
    let mut model = Model::new(Options::default());
    let refusals = model.apply_all(&Changes { atomic: true, changes: changes.to_vec() });
    assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
    model
}

fn tables(layout: &mut Layout, model: &Model) -> Tables {
    compile(layout, model, &Neighbours::new(), &Cursors::new()).expect("there is room").tables
}

/// What must hold of tables at every moment: nothing points nowhere, and nothing is chosen that is gone.
fn assert_whole(tables: &Tables, context: &str) {
    let indices: BTreeSet<u32> = tables.services.values().map(|service| service.index).collect();
    assert_eq!(indices.len(), tables.services.len(), "{context}: two services of one index");
    for (key, service) in &tables.services {
        for span in [service.ring, service.pool] {
            let slots = tables.span(span).unwrap_or_else(|| panic!("{context}: {key:?} has no slots"));
            for slot in slots {
                let real = tables.reals.get(&slot.real).unwrap_or_else(|| panic!("{context}: no real"));
                assert_eq!(real.service, service.index, "{context}");
                assert_ne!(real.flags & REAL_AVAILABLE, 0, "{context}");
            }
        }
    }
}

/// Replays a difference and checks every moment of it.
fn replay(old: &Tables, new: &Tables) -> Tables {
    let mut replayed = old.clone();
    let spans = |tables: &Tables| -> BTreeMap<_, _> {
        tables.services.iter().map(|(k, s)| (*k, (tables.span(s.ring), tables.span(s.pool)))).collect()
    };
    let (before, after) = (spans(old), spans(new));
    for change in diff(old, new) {
        replayed.apply(&change);
        assert_whole(&replayed, &format!("{change:?}"));
        for (key, now) in spans(&replayed) {
            assert!(before.get(&key) == Some(&now) || after.get(&key) == Some(&now), "{key:?} at {change:?}");
        }
    }
    replayed
}

proptest! {
    #[test]
    fn a_refused_change_leaves_the_model_as_it_was(changes in prop::collection::vec(change(), 1..60)) {
        let mut model = Model::new(small_options());
        for change in &changes {
            let before = model.clone();
            if model.apply(change).is_err() {
                prop_assert_eq!(&model, &before);
                prop_assert_eq!(model.to_changes(), before.to_changes());
            }
            let count: usize = model.services().map(|(_, entry)| entry.reals().len()).sum();
            prop_assert_eq!(model.reals_len(), count);
        }
    }

    #[test]
    fn an_atomic_list_is_done_whole_or_not_at_all(changes in prop::collection::vec(change(), 1..20)) {
        let mut model = Model::new(small_options());
        let before = model.clone();
        let refusals = model.apply_all(&Changes { atomic: true, changes: changes.clone() });
        prop_assert_eq!(refusals.len(), changes.len());
        if refusals.iter().any(Option::is_some) {
            prop_assert_eq!(&model, &before);
            let others = |r: &&Option<Refusal>| r.as_ref().is_none_or(|r| r.kind != RefusalKind::Aborted);
            prop_assert_eq!(refusals.iter().filter(others).count(), 1);
        } else {
            let mut one_by_one = before;
            changes.iter().for_each(|change| one_by_one.apply(change).expect("not refused in the list"));
            prop_assert_eq!(model, one_by_one);
        }
    }

    #[test]
    fn saved_changes_make_the_same_model_again(changes in prop::collection::vec(change(), 1..60)) {
        let mut original = Model::new(small_options());
        original.apply_all(&Changes { atomic: false, changes });
        let saved = original.to_changes();
        let mut again = Model::new(small_options());
        prop_assert!(again.apply_all(&saved).iter().all(Option::is_none));
        prop_assert_eq!(again.to_changes(), saved);
        prop_assert_eq!(again, original);
    }

    #[test]
    fn replaying_a_difference_gives_the_new_tables_and_always_forwards(
        batches in prop::collection::vec((prop::collection::vec(change(), 1..6), 0_u64..9, any::<bool>(), any::<bool>()), 1..20),
    ) {
        let mut model = Model::new(small_options());
        let mut layout = Layout::new(model.options().limits);
        let mut kernel = Tables::default();
        let mut cursors = Cursors::new();
        for (changes, picks, release, settle) in batches {
            let before = (model.clone(), layout.clone());
            model.apply_all(&Changes { atomic: false, changes });
            (0..4).for_each(|service| *cursors.entry(service).or_default() += picks * u64::from(service + 1));
            let Ok(Compiled { tables, .. }) = compile(&mut layout, &model, &Neighbours::new(), &cursors) else {
                // Full: the layout must still be good for the model before.
                (model, _) = before;
                layout.settle();
                continue;
            };
            assert_whole(&tables, "compiled");
            for (word, mask) in tables.services.keys().map(|key| abi::vip_filter_bit(&key.address)) {
                prop_assert!(tables.vip_filter[&word] & mask != 0);
            }
            prop_assert_eq!(diff(&tables, &tables), vec![]);
            kernel = replay(&kernel, &tables);
            prop_assert_eq!(&kernel, &tables);
            if settle {
                layout.settle();
            }
            if release && let Some(&index) = layout.deleted().first() {
                prop_assert!(layout.release(index));
                prop_assert!(!layout.release(index));
            }
        }
    }

    #[test]
    fn an_adopted_layout_compiles_to_what_is_there(
        changes in prop::collection::vec(change(), 1..60),
        picks in 0_u64..50,
    ) {
        let mut model = Model::new(small_options());
        let mut layout = Layout::new(model.options().limits);
        let mut cursors = Cursors::new();
        let mut kernel = Tables::default();
        for change in changes {
            let before = model.clone();
            let _ = model.apply(&change);
            match compile(&mut layout, &model, &Neighbours::new(), &cursors) {
                Ok(compiled) => kernel = compiled.tables,
                Err(_) => model = before,
            }
            layout.settle();
            (0..8).for_each(|service| *cursors.entry(service).or_default() += picks % (u64::from(service) + 2));
        }
        let limits = model.options().limits;
        let mut adopted = Layout::adopt(limits, &kernel, &cursors).expect("the tables are whole");
        let compiled = compile(&mut adopted, &model, &Neighbours::new(), &cursors).expect("it fitted before");
        prop_assert!(compiled.new_reals.is_empty());
        // Real servers of deleted services lose the number of their service; nothing else changes.
        for change in diff(&kernel, &compiled.tables) {
            let orphan = matches!(change, TableChange::PutReal(index, _) if adopted.identify(index).is_none());
            prop_assert!(orphan, "{:?}", change);
        }
        prop_assert_eq!(adopted.deleted(), layout.deleted());
    }
}

#[test]
fn a_change_of_one_service_leaves_the_others_slots() {
    let mut model = model(&[add_service("wrr"), add_real(1, 2), add_real(2, 1)]);
    let mut layout = Layout::new(model.options().limits);
    let before = tables(&mut layout, &model);
    layout.settle();
    let other = Change::AddService { service: service(2), spec: service_spec("rr") };
    model.apply(&other).expect("there is room");
    let cursors = Cursors::from([(0, 5)]);
    let after = compile(&mut layout, &model, &Neighbours::new(), &cursors).expect("there is room").tables;
    for (key, service) in &before.services {
        assert_eq!(after.services.get(key), Some(service));
    }
    assert!(before.slots.iter().all(|(index, slot)| after.slots.get(index) == Some(slot)));
}

#[test]
fn a_deleted_real_server_keeps_its_index_until_released_and_is_revived() {
    let mut model = model(&[add_service("rr"), add_real(1, 1), add_real(2, 1)]);
    let mut layout = Layout::new(model.options().limits);
    let first = tables(&mut layout, &model);
    let index = layout.real_index(&service(1), &real(1)).expect("it has one");
    assert!(!layout.release(index), "it is configured");

    model.apply(&Change::DeleteReal { service: service(1), real: real(1) }).expect("it is there");
    let deleted = tables(&mut layout, &model);
    assert_eq!(deleted.reals[&index].flags & REAL_AVAILABLE, 0);
    assert_eq!(deleted.reals[&index].address, first.reals[&index].address);
    assert_eq!(layout.deleted(), &BTreeSet::from([index]));

    model.apply(&add_real(1, 1)).expect("it was deleted");
    let compiled = compile(&mut layout, &model, &Neighbours::new(), &Cursors::new()).expect("there is room");
    assert_eq!(compiled.tables.reals[&index], first.reals[&index]);
    assert_eq!(compiled.new_reals, [0_u32; 0]);
    assert!(layout.deleted().is_empty());
    assert!(!layout.release(index), "it is configured again");

    // With its service, too.
    model.apply(&Change::Flush).expect("always possible");
    let flushed = tables(&mut layout, &model);
    assert_eq!((flushed.services.len(), flushed.slots.len(), flushed.reals.len()), (0, 0, 2));
    for change in [add_service("rr"), add_real(1, 1)] {
        model.apply(&change).expect("it was deleted");
    }
    assert_eq!(tables(&mut layout, &model).reals[&index], first.reals[&index]);

    model.apply(&Change::Flush).expect("always possible");
    tables(&mut layout, &model);
    let deleted = layout.deleted().clone();
    assert!(deleted.into_iter().all(|index| layout.release(index)));
    assert_eq!(tables(&mut layout, &model), Tables::default());
    assert_eq!(layout.service_index(&service(1)), None);
}

#[test]
fn neighbours_and_options_reach_the_tables() {
    let mut model = model(&[add_service("rr"), add_real(1, 7)]);
    let timeouts = api::Timeouts { tcp_s: 10, tcp_fin_s: 0, udp_s: 30 };
    model.apply(&Change::SetTimeouts { timeouts }).expect("in range");
    let source = Some([10, 0, 0, 99].into());
    let next_hop =
        Resolved { ifindex: 4, destination_mac: [2; 6], source_mac: [4; 6], mtu: 1400, source, local: false };
    let neighbours = Neighbours::from([(real(1).address, next_hop)]);
    let mut layout = Layout::new(model.options().limits);
    let compiled = compile(&mut layout, &model, &neighbours, &Cursors::new()).expect("there is room");
    let real = compiled.tables.reals[&0];
    assert_eq!(real.flags, REAL_AVAILABLE | REAL_RESOLVED | abi::REAL_RESCUE);
    assert_eq!((real.ifindex, real.destination_mac(), real.source_mac()), (4, [2; 6], [4; 6]));
    assert_eq!((real.weight, real.port_be), (7, 80_u16.to_be()));
    assert_eq!((real.mtu, real.source), (1400, abi::Address::v4([10, 0, 0, 99])));
    let settings = compiled.tables.settings;
    let state = |state: abi::TcpState| settings.tcp_timeout_ns[state as usize] / 1_000_000_000;
    assert_eq!((state(abi::TcpState::Established), state(abi::TcpState::FinWait)), (10, 120));
    assert_eq!(settings.udp_timeout_ns, 30_000_000_000);
    assert_eq!(compiled.new_reals, [0]);

    // An address of the director itself.
    let neighbours =
        Neighbours::from([(self::real(1).address, Resolved { local: true, ..Resolved::default() })]);
    let compiled = compile(&mut layout, &model, &neighbours, &Cursors::new()).expect("there is room");
    let real = compiled.tables.reals[&0];
    assert_eq!((real.flags, real.ifindex), (REAL_AVAILABLE | REAL_LOCAL | abi::REAL_RESCUE, 0));
}

#[test]
fn tunnels_reach_the_tables() {
    use api::{Tunnel, TunnelChecksum};
    let gue = |checksum| Tunnel::Gue { port: 6080, checksum };
    let port = 6080_u16.to_be();
    for (number, (tunnel, expected)) in (1..).zip([
        (Tunnel::Ipip, (abi::TUNNEL_IPIP, 0, 0)),
        (gue(TunnelChecksum::None), (abi::TUNNEL_GUE, port, 0)),
        (gue(TunnelChecksum::Full), (abi::TUNNEL_GUE, port, abi::TUNNEL_CHECKSUM)),
        (gue(TunnelChecksum::Remote), (abi::TUNNEL_GUE, port, abi::TUNNEL_REMOTE_CHECKSUM)),
        (Tunnel::Gre { checksum: TunnelChecksum::None }, (abi::TUNNEL_GRE, 0, 0)),
        (Tunnel::Gre { checksum: TunnelChecksum::Full }, (abi::TUNNEL_GRE, 0, abi::TUNNEL_CHECKSUM)),
    ]) {
        // The family of the real server need not be that of the VIP.
        let address = if number % 2 == 0 {
            real(number).address
        } else {
            format!("fd00::{number}").parse().expect("address")
        };
        let spec = RealSpec { forwarding: api::Forwarding::Tunnel, tunnel, ..real_spec(1) };
        let add = Change::AddReal { service: service(1), real: RealId { address, port: 80 }, spec };
        let model = model(&[add_service("rr"), add]);
        let mut layout = Layout::new(model.options().limits);
        let compiled =
            compile(&mut layout, &model, &Neighbours::new(), &Cursors::new()).expect("there is room");
        let real = compiled.tables.reals[&0];
        assert_eq!(real.method, abi::METHOD_TUNNEL);
        assert_eq!((real.tunnel, real.tunnel_port_be, real.tunnel_flags), expected);
    }
}

#[test]
fn a_full_table_of_slots_is_a_refusal_and_changes_nothing() {
    let mut options = small_options();
    options.limits.slots_max = 600;
    let mut model = Model::new(options);
    for change in [add_service("sh"), add_real(1, 1)] {
        model.apply(&change).expect("allowed");
    }
    let mut layout = Layout::new(options.limits);
    let before = tables(&mut layout, &model);
    layout.settle();
    model.apply(&Change::AddService { service: service(2), spec: service_spec("sh") }).expect("allowed");
    let other = Change::AddReal { service: service(2), real: real(1), spec: real_spec(1) };
    model.apply(&other).expect("allowed");
    // 257 + 257 slots fit; the two new generations do not.
    tables(&mut layout, &model);
    layout.settle();
    let full = model.clone();
    model.apply(&add_real(2, 1)).expect("allowed");
    let error = compile(&mut layout, &model, &Neighbours::new(), &Cursors::new()).expect_err("600 slots");
    assert!(matches!(error, LayoutFull::Slots { max: 600, needed: 256, .. }), "{error}");
    let refusal = Refusal::from(error);
    assert_eq!(refusal.kind, RefusalKind::Limit);
    assert!(refusal.message.contains("slots_max of 600"), "{refusal}");
    let after = tables(&mut layout, &full);
    assert!(before.services.iter().all(|(key, service)| after.services.get(key) == Some(service)));
}

/// Chooses as the packet path does, over the compiled tables.
#[test]
fn the_packet_path_follows_the_rings() {
    for (scheduler, expected) in
        [("rr", vec![3, 2, 1, 3, 2, 1, 3]), ("wrr", vec![3, 2, 1, 3, 3, 2, 3, 2, 1]), ("none", vec![])]
    {
        let model = model(&[add_service(scheduler), add_real(1, 2), add_real(2, 3), add_real(3, 4)]);
        let mut layout = Layout::new(model.options().limits);
        let simulated = Simulated::new(tables(&mut layout, &model));
        assert_eq!(simulated.choices([198, 51, 100, 1], expected.len()), expected, "{scheduler}");
    }
}

#[test]
fn the_packet_path_finds_the_hash_slots_of_the_specification() {
    let grown = [add_real(1, 1), add_real(2, 1), add_real(3, 1)];
    let choices = PolicyChoices { placement: Some(Placement::Exact), ..PolicyChoices::default() };
    let exact = Change::SetPolicy { service: None, forget: false, choices };
    let model = |scheduler| model(&[&[exact.clone(), add_service(scheduler)], &grown[..]].concat());
    let choose = |scheduler, client| {
        let model = model(scheduler);
        let mut layout = Layout::new(model.options().limits);
        Simulated::new(tables(&mut layout, &model)).choices(client, 1)
    };
    assert_eq!(choose("mh", [198, 51, 100, 1]), [3]);
    assert_eq!(choose("mh", [203, 0, 113, 77]), [2]);
    assert_eq!(choose("mh", [10, 9, 8, 7]), [1]);
    // Bucket 96 of 3 2 1 3 2 1 ..., and bucket 39.
    assert_eq!(choose("sh", [198, 51, 100, 1]), [3]);
    assert_eq!(choose("sh", [10, 0, 0, 1]), [3]);
}

fn refused(changes: &[Change], change: Change) -> RefusalKind {
    let mut model = model(changes);
    let before = model.clone();
    let refusal = model.apply(&change).expect_err("must be refused");
    assert_eq!(model, before);
    assert!(!refusal.message.is_empty());
    refusal.kind
}

#[test]
fn refusals_are_those_of_the_kernel() {
    use RefusalKind::*;
    let base = [add_service("rr"), add_real(1, 1)];
    let with = |spec: RealSpec, number| Change::AddReal { service: service(1), real: real(number), spec };
    let at = |address: &str| Change::AddReal {
        service: service(1),
        real: RealId { address: address.parse().expect("an address"), port: 80 },
        spec: real_spec(1),
    };
    let lower = RealSpec { lower_threshold: 1, ..real_spec(1) };
    let tunnel = |tunnel| RealSpec { forwarding: api::Forwarding::Tunnel, tunnel, ..real_spec(1) };
    let tunnel_port = Change::AddReal {
        service: service(1),
        real: RealId { port: 81, ..real(2) },
        spec: tunnel(api::Tunnel::Ipip),
    };
    let edit = Change::EditReal { service: service(1), real: real(2), spec: real_spec(1) };
    let delete = Change::DeleteReal { service: service(1), real: real(2) };
    let port =
        Change::AddReal { service: service(1), real: RealId { port: 81, ..real(2) }, spec: real_spec(1) };
    for (change, kind) in [
        (add_service("nonsense"), ServiceExists),
        (Change::AddService { service: service(2), spec: service_spec("nonsense") }, NoSuchScheduler),
        (Change::EditService { service: service(2), spec: service_spec("rr") }, NoSuchService),
        (Change::DeleteService { service: service(2) }, NoSuchService),
        (Change::Zero { service: Some(service(2)) }, NoSuchService),
        (Change::AddReal { service: service(2), real: real(1), spec: real_spec(1) }, NoSuchService),
        (add_real(1, 1), RealExists),
        (with(lower, 1), OutOfRange),
        (with(real_spec(1 << 31), 2), OutOfRange),
        (with(RealSpec { upper_threshold: 1 << 31, ..lower }, 2), Invalid),
        (edit, NoSuchReal),
        (delete, NoSuchReal),
        (at("224.0.0.1"), Invalid),
        (at("255.255.255.255"), Invalid),
        (at("0.0.0.0"), Invalid),
        (at("fe80::1"), Invalid),
        (port, Invalid),
        (with(tunnel(api::Tunnel::Gue { port: 0, checksum: api::TunnelChecksum::None }), 2), Invalid),
        (with(tunnel(api::Tunnel::Gre { checksum: api::TunnelChecksum::Remote }), 2), Invalid),
        (tunnel_port, Invalid),
    ] {
        let shown = format!("{change:?}");
        assert_eq!(refused(&base, change), kind, "{shown}");
    }
}

#[test]
fn what_this_release_lacks_is_said() {
    let address = |protocol, port| ServiceId::Address { protocol, address: [192, 0, 2, 1].into(), port };
    let tcp = address(api::Protocol::Tcp, 80);
    let sctp = Change::AddService { service: address(api::Protocol::Sctp, 80), spec: service_spec("rr") };
    Model::new(small_options()).apply(&sctp).expect("SCTP is served");
    for (timeout_s, mask) in [(0, u32::MAX), (crate::TIMEOUT_S_MAX + 1, u32::MAX)] {
        let persistence = Some(api::Persistence { timeout_s, mask });
        let spec = api::ServiceSpec { persistence, ..service_spec("rr") };
        assert_eq!(refused(&[], Change::AddService { service: tcp, spec }), RefusalKind::Invalid);
    }
    let mut engine = service_spec("rr");
    engine.persistence_engine = Some("foo".to_owned());
    assert_eq!(refused(&[], Change::AddService { service: tcp, spec: engine }), RefusalKind::NoSuchScheduler);
    let mapped = ServiceId::Address {
        protocol: api::Protocol::Tcp,
        address: "::ffff:192.0.2.1".parse().expect("an address"),
        port: 80,
    };
    assert_eq!(
        refused(&[], Change::AddService { service: mapped, spec: service_spec("rr") }),
        RefusalKind::Invalid
    );
}

#[test]
fn limits_have_names() {
    let mut options = small_options();
    options.limits.services_max = 1;
    options.limits.reals_max = 1;
    let mut model = Model::new(options);
    model.apply(&add_service("rr")).expect("one is allowed");
    let second = Change::AddService { service: service(2), spec: service_spec("rr") };
    let refusal = model.apply(&second).expect_err("one is allowed");
    assert_eq!(refusal.kind, RefusalKind::Limit);
    assert!(refusal.message.contains("services_max of 1"), "{refusal}");
    model.apply(&add_real(1, 1)).expect("one is allowed");
    let refusal = model.apply(&add_real(2, 1)).expect_err("one is allowed");
    assert!(refusal.message.contains("reals_max of 1"), "{refusal}");
}

#[test]
fn more_real_servers_than_mh_slots_are_refused_both_ways() {
    let mut options = small_options();
    options.limits.reals_max = 300;
    let mut model = Model::new(options);
    model.apply(&add_service("mh")).expect("allowed");
    (0..251).for_each(|number| model.apply(&add_real(number, 1)).expect("251 slots"));
    assert_eq!(model.apply(&add_real(251, 1)).map_err(|r| r.kind), Err(RefusalKind::Invalid));
    let edit = |scheduler| Change::EditService { service: service(1), spec: service_spec(scheduler) };
    model.apply(&edit("rr")).expect("allowed");
    model.apply(&add_real(251, 1)).expect("rr has no such limit");
    assert_eq!(model.apply(&edit("mh")).map_err(|r| r.kind), Err(RefusalKind::Invalid));
}

#[test]
fn tables_that_contradict_themselves_are_not_adopted() {
    let model = model(&[add_service("rr"), add_real(1, 1), add_real(2, 1)]);
    let limits = model.options().limits;
    let good = tables(&mut Layout::new(limits), &model);
    let adopt = |spoil: fn(&mut Tables)| {
        let mut tables = good.clone();
        spoil(&mut tables);
        Layout::adopt(limits, &tables, &Cursors::new()).map(|_| ())
    };
    assert_eq!(adopt(|_| ()), Ok(()));
    assert_eq!(
        adopt(|tables| tables.services.values_mut().for_each(|service| service.scheduler = 999)),
        Err(AdoptError::Scheduler(999))
    );
    assert_eq!(
        adopt(|tables| tables.services.values_mut().for_each(|service| service.index = u32::MAX)),
        Err(AdoptError::ServiceIndex(u32::MAX))
    );
    assert_eq!(
        adopt(|tables| tables.services.values_mut().for_each(|service| service.pool = service.ring)),
        Err(AdoptError::Slots { start: 0, len: 2 })
    );
    assert_eq!(
        adopt(|tables| {
            tables.slots.remove(&0);
        }),
        Err(AdoptError::Slots { start: 0, len: 2 })
    );
    assert_eq!(
        adopt(|tables| {
            tables.reals.remove(&1);
        }),
        Err(AdoptError::SlotReal(1))
    );
    assert_eq!(
        adopt(|tables| {
            tables.reals.insert(u32::MAX, abi::Real::default());
        }),
        Err(AdoptError::RealIndex(u32::MAX))
    );
    assert_eq!(
        adopt(|tables| {
            tables.reals.insert(7, tables.reals[&0]);
        }),
        Err(AdoptError::Twice(real(1), 0))
    );
    assert_eq!(
        adopt(|tables| {
            let (key, service) = tables.services.pop_first().expect("one service");
            tables.services.insert(abi::ServiceKey { protocol: 47, ..key }, service);
        }),
        Err(AdoptError::Protocol(47))
    );
}
