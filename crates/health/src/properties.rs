//! What holds whatever happens.

use crate::tests::{Farm, checked, real};
use crate::weight::FINE;
use api::{Fallback, HealthSpec, HoldDown, OnFailure, Standing};
use proptest::prelude::*;

fn spec() -> impl Strategy<Value = HealthSpec> {
    let hold = prop::option::of(Just(HoldDown { failures: 2, within_ms: 20_000, hold_ms: 5_000 }));
    let fallback = prop::option::of(Just(Fallback { real: real(99), spec: crate::tests::real_spec(1) }));
    (any::<bool>(), 0_u8..=100, hold, fallback, 0_u32..5_000, 0_u32..5_000, any::<bool>()).prop_map(
        |(quiesce, panic_percent, hold_down, fallback, slow_start_ms, drain_ms, adaptive)| HealthSpec {
            on_failure: if quiesce { OnFailure::Quiesce } else { OnFailure::Remove },
            panic_percent,
            hold_down,
            fallback,
            slow_start_ms,
            drain_ms,
            adaptive,
            ..checked()
        },
    )
}

#[derive(Clone, Debug)]
enum Act {
    Break(u8),
    Mend(u8),
    Drain(u8, bool),
    Share(u8, u16),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1_u8..=4).prop_map(Act::Break),
        (1_u8..=4).prop_map(Act::Mend),
        (1_u8..=4, any::<bool>()).prop_map(|(number, on)| Act::Drain(number, on)),
        (1_u8..=4, 0_u16..1200).prop_map(|(number, share)| Act::Share(number, share)),
        (1_u64..60).prop_map(|tenths| Act::Pass(tenths * 100)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn weights_are_what_the_standings_say(
        spec in spec(),
        weights in prop::collection::vec(1_u32..1000, 4),
        acts in prop::collection::vec(act(), 1..40),
    ) {
        let mut farm = Farm::new(spec.clone(), &weights, true);
        for act in acts {
            match act {
                Act::Break(number) => drop(farm.broken.insert(real(number), "no answer")),
                Act::Mend(number) => drop(farm.broken.remove(&real(number))),
                Act::Drain(number, on) => {
                    farm.declared.reals[usize::from(number) - 1].health.drain = on;
                    farm.declare();
                }
                Act::Share(number, share) => drop(farm.shares.insert(real(number), share)),
                Act::Pass(time) => farm.pass(time),
            }
            prop_assert_eq!(farm.changed_by_another(), [], "{:?}", farm.weights);
            let view = farm.machine.view(farm.now_ms);
            let service = &view.services[0];
            for it in &service.reals {
                prop_assert_eq!(it.weight, farm.weights[&it.real], "what was told is what is meant");
                let most = u64::from(it.declared_weight) * u64::from(FINE) * 10;
                prop_assert!(u64::from(it.weight.unwrap_or(0)) <= most);
                let failed = farm.failed.contains(&it.real);
                match it.standing {
                    Standing::Down | Standing::Held => prop_assert_eq!(failed, it.weight == Some(0), "{:?}", it),
                    Standing::Up | Standing::Starting | Standing::Drained => prop_assert!(!failed, "{:?}", it),
                    _ => {}
                }
                match it.standing {
                    Standing::Up | Standing::Starting | Standing::Unchecked => {
                        // A share of 0 is the server's own wish.
                        prop_assert!(it.weight.unwrap_or(0) > 0 || spec.adaptive, "{:?}", it);
                    }
                    Standing::Down | Standing::Held => {
                        prop_assert!(it.weight.unwrap_or(0) == 0 || service.panic, "{:?}", it);
                    }
                    Standing::Draining => prop_assert_eq!(it.weight, Some(0)),
                    Standing::Drained => prop_assert_eq!(it.weight, None),
                    Standing::Unknown => {}
                }
            }
            let is_empty = service.reals.iter().all(|it| it.weight.unwrap_or(0) == 0);
            prop_assert_eq!(service.fallback, is_empty && spec.fallback.is_some());
            prop_assert_eq!(farm.fallback, service.fallback);
        }
    }
}
