//! The ordered difference of two models: what to change so that the one becomes the other.
//!
//! What is in both is edited in place, so its flows stay. What goes, goes first, so that no limit is in the way of what
//! comes: the list is meant to be applied as a whole ([`api::Changes::atomic`]), and packets see nothing of its middle.
//! The order of services and real servers that are in both is left as it is.

use crate::model::{Model, RealEntry, ServiceEntry};
use api::{Admission, Change, HealthSpec, Mark, RealHealth, RealId, RealSpec, SETTINGS, ServiceId};
use indexmap::IndexMap;
use std::collections::HashSet;
use std::hash::Hash;

/// What turns one keyed map into another, in the order of the maps.
struct Keyed<K, V> {
    removed: Vec<K>,
    /// With the value before and after.
    changed: Vec<(K, V, V)>,
    added: Vec<(K, V)>,
}

/// The difference of two keyed maps.
fn keyed<K: Copy + Eq + Hash, V: Copy + PartialEq>(
    now: impl Iterator<Item = (K, V)>,
    target: impl Iterator<Item = (K, V)>,
) -> Keyed<K, V> {
    let mut left: IndexMap<K, Option<V>> = now.map(|(key, value)| (key, Some(value))).collect();
    let (mut changed, mut added) = (Vec::new(), Vec::new());
    for (key, after) in target {
        match left.get_mut(&key).and_then(Option::take) {
            Some(before) if before == after => {}
            Some(before) => changed.push((key, before, after)),
            None => added.push((key, after)),
        }
    }
    let removed = left.into_iter().filter_map(|(key, value)| value.map(|_| key)).collect();
    Keyed { removed, changed, added }
}

/// The changes that turn `now` into `target`. Both must be of a director with the same [`crate::Options`].
#[must_use]
pub fn difference(now: &Model, target: &Model) -> Vec<Change> {
    let mut changes = Vec::new();
    let marks =
        |model: &Model| model.marks().map(|Mark { matched, mark }| (matched, mark)).collect::<Vec<_>>();
    let marks = keyed(marks(now).into_iter(), marks(target).into_iter());
    let services = keyed(services(now), services(target));

    // A mark cannot be edited: its match has no flows of its own.
    let remarked = marks.changed.iter().map(|(matched, _, _)| *matched);
    changes.extend(remarked.chain(marks.removed).map(|matched| Change::DeleteMark { matched }));
    changes.extend(services.removed.into_iter().map(|service| Change::DeleteService { service }));
    let edits: Vec<_> = services
        .changed
        .iter()
        .map(|(id, before, after)| (*id, reals(before, after), *before, *after))
        .collect();
    for (service, reals, ..) in &edits {
        let service = *service;
        let reborn = reals.changed.iter().filter(|(_, before, after)| !can_edit(before, after));
        let gone = reals.removed.iter().chain(reborn.map(|(real, ..)| real));
        changes.extend(gone.map(|&real| Change::DeleteReal { service, real }));
    }

    general(now, target, &mut changes);
    let remarked = marks.changed.into_iter().map(|(matched, _, mark)| (matched, mark));
    changes.extend(remarked.chain(marks.added).map(|(matched, mark)| Change::AddMark { matched, mark }));
    for (id, reals, before, after) in edits {
        edit(id, &reals, before, after, &mut changes);
    }
    for (service, entry) in services.added {
        add(service, entry, &mut changes);
    }
    changes
}

fn services(model: &Model) -> impl Iterator<Item = (ServiceId, &ServiceEntry)> {
    model.services().map(|(id, entry)| (*id, entry))
}

/// The real servers, oldest first, as they must be added.
fn declared(entry: &ServiceEntry) -> impl Iterator<Item = (RealId, RealEntry)> {
    entry.reals().rev().map(|(id, real)| (*id, *real))
}

fn reals(before: &ServiceEntry, after: &ServiceEntry) -> Keyed<RealId, RealEntry> {
    keyed(declared(before), declared(after))
}

/// Timeouts, the policy of all, and settings.
fn general(now: &Model, target: &Model, changes: &mut Vec<Change>) {
    if now.timeouts() != target.timeouts() {
        changes.push(Change::SetTimeouts { timeouts: target.timeouts() });
    }
    let choices = target.default_policy_choices();
    if now.default_policy_choices() != choices {
        changes.push(Change::SetPolicy { service: None, forget: true, choices });
    }
    for setting in SETTINGS {
        let value = target.setting(setting.name);
        if now.setting(setting.name) != value {
            changes.push(Change::SetSetting { name: setting.name.to_owned(), value });
        }
    }
}

/// Whether edits lead there. A weight that a real server never had cannot be un-had: then it is added anew, which, the list
/// being applied as a whole, its flows do not notice.
fn can_edit(before: &RealEntry, after: &RealEntry) -> bool {
    after.last_weight != 0 || before.last_weight == 0
}

fn edit(
    service: ServiceId,
    reals: &Keyed<RealId, RealEntry>,
    before: &ServiceEntry,
    after: &ServiceEntry,
    changes: &mut Vec<Change>,
) {
    let admission = (before.admission() != after.admission())
        .then(|| Change::SetAdmission { service, admission: after.admission().clone() });
    // A limit that packets scheduled one by one cannot have goes before they are.
    let (first, last) = if after.spec().one_packet { (admission, None) } else { (None, admission) };
    changes.extend(first);
    if before.spec() != after.spec() {
        changes.push(Change::EditService { service, spec: after.spec().clone() });
    }
    let choices = after.policy_choices();
    if before.policy_choices() != choices {
        changes.push(Change::SetPolicy { service: Some(service), forget: true, choices });
    }
    changes.extend(last);
    let mut reborn = Vec::new();
    for (real, before, after) in &reals.changed {
        if can_edit(before, after) {
            edit_real(service, *real, before, after, changes);
        } else {
            reborn.push((*real, *after));
        }
    }
    // First, as a former fallback may become a real server.
    if before.health() != after.health() {
        changes.push(Change::SetHealth { service, health: after.health().clone() });
    }
    for (real, entry) in reborn.iter().chain(&reals.added) {
        add_real(service, *real, entry, changes);
    }
    let fresh: HashSet<RealId> = reborn.iter().chain(&reals.added).map(|(real, _)| *real).collect();
    for (real, _) in declared(after) {
        // One that was added knows of nothing yet.
        let known = before.real_health(&real).filter(|_| !fresh.contains(&real));
        let wanted = after.real_health(&real);
        if known != wanted {
            let health = wanted.cloned().unwrap_or_default();
            changes.push(Change::SetRealHealth { service, real, health });
        }
    }
}

fn edit_real(
    service: ServiceId,
    real: RealId,
    before: &RealEntry,
    after: &RealEntry,
    changes: &mut Vec<Change>,
) {
    let RealEntry { spec, last_weight, .. } = *after;
    if spec.weight != last_weight && before.last_weight != last_weight {
        changes.push(Change::EditReal { service, real, spec: RealSpec { weight: last_weight, ..spec } });
    }
    changes.push(Change::EditReal { service, real, spec });
}

fn add_real(service: ServiceId, real: RealId, entry: &RealEntry, changes: &mut Vec<Change>) {
    let RealEntry { spec, last_weight, .. } = *entry;
    changes.push(Change::AddReal { service, real, spec: RealSpec { weight: last_weight, ..spec } });
    if spec.weight != last_weight {
        changes.push(Change::EditReal { service, real, spec });
    }
}

fn add(service: ServiceId, entry: &ServiceEntry, changes: &mut Vec<Change>) {
    changes.push(Change::AddService { service, spec: entry.spec().clone() });
    let choices = entry.policy_choices();
    if !choices.is_empty() {
        changes.push(Change::SetPolicy { service: Some(service), forget: true, choices });
    }
    if *entry.admission() != Admission::default() {
        changes.push(Change::SetAdmission { service, admission: entry.admission().clone() });
    }
    for (real, entry) in declared(entry) {
        add_real(service, real, &entry, changes);
    }
    if *entry.health() != HealthSpec::default() {
        changes.push(Change::SetHealth { service, health: entry.health().clone() });
    }
    for (real, _) in declared(entry) {
        if let Some(health) = entry.real_health(&real).filter(|health| **health != RealHealth::default()) {
            changes.push(Change::SetRealHealth { service, real, health: health.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use api::{Changes, Check, CheckKind, Forwarding, MarkMatch, Ports, Protocol, Rhythm};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn real() -> impl Strategy<Value = RealId> {
        (0_u8..5).prop_map(|number| RealId { address: [10, 0, 0, number].into(), port: 80 })
    }

    fn checks(path: bool) -> Vec<Check> {
        let kind = if path { CheckKind::Path } else { CheckKind::Tcp };
        vec![Check { kind, address: None, port: None, rhythm: Rhythm::default() }]
    }

    /// A change of the samples, or one of a mark.
    fn change() -> impl Strategy<Value = Change> {
        let matched = (1_u8..3, prop::option::of((1_u16..5, 0_u16..3))).prop_map(|(host, ports)| MarkMatch {
            protocol: Protocol::Tcp,
            address: [192, 0, 2, host].into(),
            ports: ports.map_or(Ports::Any, |(first, more)| Ports::Range { first, last: first + more }),
        });
        prop_oneof![
            12 => samples::change(),
            2 => (matched.clone(), 1_u32..4).prop_map(|(matched, mark)| Change::AddMark { matched, mark }),
            1 => matched.prop_map(|matched| Change::DeleteMark { matched }),
            // Checks that cannot be made of every real server, and real servers of which they cannot.
            1 => (0_u8..5, any::<bool>()).prop_map(|(number, path)| Change::SetHealth {
                service: samples::service(number),
                health: HealthSpec { checks: checks(path), ..HealthSpec::default() },
            }),
            2 => (0_u8..5, real(), prop::option::of(any::<bool>())).prop_map(|(number, real, own)| {
                let health = RealHealth { checks: own.map(checks), drain: false };
                Change::SetRealHealth { service: samples::service(number), real, health }
            }),
            2 => (0_u8..5, real(), any::<bool>(), any::<bool>()).prop_map(|(number, real, edit, masqueraded)| {
                let forwarding =
                    if masqueraded { Forwarding::Masquerade } else { Forwarding::DirectRouting };
                let (service, spec) = (samples::service(number), RealSpec { forwarding, ..samples::real_spec(1) });
                if edit {
                    Change::EditReal { service, real, spec }
                } else {
                    Change::AddReal { service, real, spec }
                }
            }),
            1 => (0_u8..5, prop::option::of(0_u8..5)).prop_map(|(number, fallback)| Change::SetHealth {
                service: samples::service(number),
                health: HealthSpec {
                    fallback: fallback.map(|n| api::Fallback {
                        real: RealId { address: [10, 0, 0, n].into(), port: 80 },
                        spec: samples::real_spec(1),
                    }),
                    ..HealthSpec::default()
                },
            }),
        ]
    }

    fn model(changes: &[Change]) -> Model {
        let mut model = Model::new(samples::small_options());
        for change in changes {
            // What is refused leaves the model as it was.
            let _ = model.apply(change);
        }
        model
    }

    fn apply(model: &mut Model, changes: Vec<Change>) -> Result<(), String> {
        let list = Changes { atomic: true, changes };
        match model.apply_all(&list).into_iter().zip(&list.changes).find(|(refusal, _)| refusal.is_some()) {
            Some((refusal, change)) => Err(format!("{change:?}: {refusal:?}")),
            None => Ok(()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_difference_applied_makes_the_target(
            common in prop::collection::vec(change(), 0..40),
            one in prop::collection::vec(change(), 0..20),
            other in prop::collection::vec(change(), 0..20),
        ) {
            let (one, other) = ([common.clone(), one].concat(), [common, other].concat());
            let (mut now, target) = (model(&one), model(&other));
            let changes = difference(&now, &target);
            apply(&mut now, changes.clone()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&now, &target);
            prop_assert_eq!(difference(&now, &target), vec![]);
            // What is saved can be read one by one.
            prop_assert_eq!(&model(&target.to_changes().changes).services, &target.services);
            // What is in both is not taken away: a service never, a real server only if no edit leads there.
            for change in &changes {
                if let Change::DeleteService { service } = change {
                    prop_assert!(target.service(service).is_none());
                }
            }
            // Nor is anything there that could be left out.
            let before = model(&one);
            for left_out in 0..changes.len() {
                let mut changes = changes.clone();
                changes.remove(left_out);
                let mut short = before.clone();
                let done = apply(&mut short, changes).is_ok();
                prop_assert!(!done || short != target);
            }
        }

        #[test]
        fn keyed_maps_differ_by_what_is_said(
            now in prop::collection::btree_map(0_u32..40, 0_u8..3, 0..30),
            target in prop::collection::btree_map(0_u32..40, 0_u8..3, 0..30),
        ) {
            let pairs = |map: &BTreeMap<u32, u8>| map.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>();
            let difference = keyed(pairs(&now).into_iter(), pairs(&target).into_iter());
            let mut replayed = now;
            for key in &difference.removed {
                prop_assert!(replayed.remove(key).is_some());
            }
            for (key, before, after) in difference.changed {
                prop_assert!(before != after);
                prop_assert_eq!(replayed.insert(key, after), Some(before));
            }
            for (key, value) in difference.added {
                prop_assert_eq!(replayed.insert(key, value), None);
            }
            prop_assert_eq!(replayed, target);
        }
    }

    #[test]
    fn an_edit_keeps_the_service_and_its_servers() {
        let service = samples::service(1);
        let real = |n: u8| RealId { address: [10, 0, 0, n].into(), port: 80 };
        let mut now = Model::new(samples::small_options());
        let add = |n, weight| Change::AddReal { service, real: real(n), spec: samples::real_spec(weight) };
        let first =
            vec![Change::AddService { service, spec: samples::service_spec("rr") }, add(1, 1), add(2, 1)];
        apply(&mut now, first).expect("applied");
        let mut target = now.clone();
        let edits = vec![
            Change::EditService { service, spec: samples::service_spec("mh") },
            Change::EditReal { service, real: real(1), spec: samples::real_spec(0) },
            add(3, 7),
        ];
        apply(&mut target, edits.clone()).expect("applied");
        assert_eq!(difference(&now, &target), edits);
        let back = difference(&target, &now);
        assert_eq!(back[0], Change::DeleteReal { service, real: real(3) });
        assert_eq!(back.len(), 3);
    }
}
