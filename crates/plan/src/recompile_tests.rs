//! What a change touched, compiled, is what the whole comes to.

use super::*;
use crate::samples::{change, real_spec, service, service_spec, small_options};
use crate::{LayoutFull, Resolved, compile, diff};
use api::{Change, Changes, Family, Forwarding, MarkMatch, Protocol, RealId};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A change of services by mark, of marks, or of masqueraded real servers; or any other one.
fn any_change() -> impl Strategy<Value = Change> {
    let marked = |mark| ServiceId::Fwmark { mark, family: Family::Ipv4 };
    let texts = ["192.0.2.0:80", "192.0.2.0:79-81", "192.0.2.1:*", "192.0.2.1:80", "192.0.2.1:21-23"];
    let of = |text| MarkMatch::parse(Protocol::Tcp, text).expect("a match");
    let matched = prop::sample::select(texts.map(of).to_vec());
    let ports = prop::sample::select(vec![0_u16, 21, 80]);
    let address = (0_u8..2, ports).prop_map(|(number, port)| ServiceId::Address {
        protocol: Protocol::Tcp,
        address: [192, 0, 2, number].into(),
        port,
    });
    let name = prop::sample::select(vec!["rr", "wlc", "mh"]);
    let real = |number: u8, port| RealId { address: [10, 0, 0, number].into(), port };
    let masqueraded = |weight| api::RealSpec { forwarding: Forwarding::Masquerade, ..real_spec(weight) };
    prop_oneof![
        6 => change(),
        2 => (1_u32..4).prop_map(move |mark| {
            Change::AddService { service: marked(mark), spec: service_spec("rr") }
        }),
        1 => (1_u32..4).prop_map(move |mark| Change::DeleteService { service: marked(mark) }),
        2 => (1_u32..4, 0_u8..5).prop_map(move |(mark, number)| {
            Change::AddReal { service: marked(mark), real: real(number, 0), spec: real_spec(1) }
        }),
        3 => (matched.clone(), 1_u32..4).prop_map(|(matched, mark)| Change::AddMark { matched, mark }),
        2 => matched.prop_map(|matched| Change::DeleteMark { matched }),
        2 => (address, name).prop_map(|(service, name)| Change::AddService { service, spec: service_spec(name) }),
        2 => (0_u8..3, 0_u8..5, 0_u32..3).prop_map(move |(number, host, weight)| {
            Change::AddReal { service: service(number), real: real(host, 8080), spec: masqueraded(weight) }
        }),
        1 => (0_u8..3, 0_u8..5, 0_u32..3).prop_map(move |(number, host, weight)| {
            Change::EditReal { service: service(number), real: real(host, 80), spec: masqueraded(weight) }
        }),
    ]
}

/// One round: changes, whether they are one list; whose next hop changes, flows scheduled, what is released, and whether
/// the kernel takes it.
type Round = (Vec<Change>, bool, Option<u8>, u64, bool, bool);

fn round() -> impl Strategy<Value = Round> {
    let changes = prop::collection::vec(any_change(), 0..7);
    let taken = prop::bool::weighted(0.8);
    (changes, any::<bool>(), prop::option::of(0_u8..5), 0_u64..9, any::<bool>(), taken)
}

struct World {
    model: Model,
    layout: Layout,
    kernel: Tables,
    neighbours: Neighbours,
    cursors: Cursors,
}

impl World {
    fn new() -> Self {
        let mut options = small_options();
        options.limits.services_max = 16;
        let model = Model::new(options);
        let mut layout = Layout::new(options.limits);
        let (neighbours, cursors) = (Neighbours::new(), Cursors::new());
        let kernel = compile(&mut layout, &model, &neighbours, &cursors).expect("empty").tables;
        Self { model, layout, kernel, neighbours, cursors }
    }

    /// Changes what is around; tells whose rows that touches.
    fn surroundings(&mut self, hop: Option<u8>, release: bool) -> BTreeSet<u32> {
        let mut touched = BTreeSet::new();
        if let Some(number) = hop {
            let address = [10, 0, 0, number].into();
            if self.neighbours.remove(&address).is_none() {
                self.neighbours.insert(address, Resolved { ifindex: 7, ..Resolved::default() });
            }
            touched.extend(self.layout.reals_at(address));
        }
        if release {
            let deleted: Vec<u32> = self.layout.deleted().iter().copied().take(3).collect();
            assert!(deleted.iter().all(|index| self.layout.release(*index)));
            touched.extend(deleted);
        }
        touched
    }

    fn go(&mut self, (changes, atomic, hop, picks, release, taken): Round) {
        (0_u32..16)
            .for_each(|service| *self.cursors.entry(service).or_default() += picks * u64::from(service + 1));
        let (model, layout) = (self.model.clone(), self.layout.clone());
        let neighbours = self.neighbours.clone();
        let reals = self.surroundings(hop, release);
        let (_, before) = self.model.change(&changes, atomic);
        let touched = Touched { reals, ..self.model.touched(&before) };

        let mut whole = self.layout.clone();
        touched.edited.iter().for_each(|id| whole.edited(id));
        let expected = compile(&mut whole, &self.model, &self.neighbours, &self.cursors);
        let asked = self.layout.cursors_of(touched.services.iter());
        let cursors = self.cursors.iter().filter(|(index, _)| asked.contains(index));
        let cursors: Cursors = cursors.map(|(index, cursor)| (*index, *cursor)).collect();
        let got =
            recompile(&mut self.layout, &self.model, &touched, &self.neighbours, &cursors, &self.kernel);
        match (expected, got) {
            (Ok(expected), Ok(got)) if taken => {
                assert_eq!(got.changes, diff(&self.kernel, &expected.tables));
                assert_eq!(got.new_reals, expected.new_reals);
                got.changes.iter().for_each(|change| self.kernel.apply(change));
                assert_eq!(self.kernel, expected.tables);
                self.layout.settle();
                whole.settle();
                assert_eq!(self.layout, whole);
            }
            (expected, got) => {
                assert_eq!(expected.map(drop), got.map(drop));
                self.layout.revert();
                self.model.undo(before);
                self.neighbours = neighbours;
                assert_eq!(self.layout, layout);
                assert_eq!(self.model, model);
                assert_eq!(self.model.to_changes(), model.to_changes());
                assert_eq!(self.model.reals_len(), model.reals_len());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_touched_comes_to_the_same_as_the_whole(rounds in prop::collection::vec(round(), 1..25)) {
        let mut world = World::new();
        rounds.into_iter().for_each(|round| world.go(round));
    }

    #[test]
    fn the_inverse_of_each_change_undoes_them_all(
        old in prop::collection::vec(any_change(), 0..30),
        new in prop::collection::vec(any_change(), 0..30),
    ) {
        let mut world = World::new();
        world.go((old, false, Some(1), 3, false, true));
        let before = world.kernel.clone();
        let (_, found) = world.model.change(&new, false);
        let touched = world.model.touched(&found);
        let World { model, mut layout, mut kernel, neighbours, cursors } = world;
        if let Ok(got) = recompile(&mut layout, &model, &touched, &neighbours, &cursors, &kernel) {
            let mut inverses = Vec::new();
            for change in &got.changes {
                inverses.push(kernel.inverse(change));
                kernel.apply(change);
            }
            inverses.iter().rev().for_each(|change| kernel.apply(change));
            prop_assert_eq!(kernel, before);
        }
    }
}

#[test]
fn models_that_share_their_services_stay_apart() {
    let add = [Change::AddService { service: service(1), spec: service_spec("wlc") }];
    let mut first = Model::new(small_options());
    let mut second = first.clone();
    first.change(&add, true);
    let (_, before) = second.change(&add, true);
    second.share(&first, &before);
    assert!(std::ptr::eq(
        first.service(&service(1)).expect("added"),
        second.service(&service(1)).expect("added")
    ));
    let unchanged = second.clone();
    let edit = Change::EditService { service: service(1), spec: service_spec("rr") };
    first.apply(&edit).expect("an edit");
    assert_eq!(second, unchanged);
    assert_ne!(first, second);
    // What is not alike stays.
    second.share(&first, &before);
    assert_eq!(second, unchanged);
}

#[test]
fn a_full_table_leaves_layout_and_model_as_they_were() {
    let mut options = small_options();
    options.limits.slots_max = 3;
    let mut world = World { model: Model::new(options), layout: Layout::new(options.limits), ..World::new() };
    let real = |number: u8| RealId { address: [10, 0, 0, number].into(), port: 80 };
    let add = |number| Change::AddReal { service: service(1), real: real(number), spec: real_spec(1) };
    let first = vec![Change::AddService { service: service(1), spec: service_spec("wlc") }, add(1)];
    world.go((first, true, None, 0, false, true));
    let layout = world.layout.clone();
    let (refusals, before) = world.model.change(&[add(2), add(3), add(4)], true);
    assert!(refusals.iter().all(Option::is_none));
    let touched = world.model.touched(&before);
    let World { mut model, layout: mut now, kernel, neighbours, cursors } = world;
    let full = recompile(&mut now, &model, &touched, &neighbours, &cursors, &kernel).expect_err("3 slots");
    assert!(matches!(full, LayoutFull::Slots { max: 3, needed: 4, .. }), "{full}");
    assert_eq!(now, layout);
    model.undo(before);
    let saved = Changes { atomic: true, changes: model.to_changes().changes };
    let mut again = Model::new(options);
    assert!(again.apply_all(&saved).iter().all(Option::is_none));
    assert_eq!(again, model);
    assert_eq!(model.reals_len(), 1);
}
