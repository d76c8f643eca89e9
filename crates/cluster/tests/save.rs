//! What is saved says what holds, and keeps of the file that was applied whatever still holds.

mod models;

use api::{AppliedFile, Change, RealHealth, RealId, ServiceId};
use cluster::{format, parse, save};
use models::{aim, change, model};
use plan::{Model, Options, difference};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A file with everything that a model knows nothing of.
const FILE: &str = include_str!("save/shop.toml");

fn applied(text: &str) -> AppliedFile {
    AppliedFile { generation: 41, source: "shop.toml".to_owned(), text: text.to_owned() }
}

fn read(text: &str) -> cluster::Cluster {
    let parsed = parse(text, &Options::default());
    let lines = cluster::Lines::new(text);
    let findings: String = parsed.findings.iter().map(|it| it.text("saved", &lines)).collect();
    parsed.cluster.unwrap_or_else(|| panic!("{text}\n{findings}"))
}

fn texts() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/cluster_file");
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("the folder").map(|it| it.expect("a file").path()).collect();
    paths.sort();
    let seeds = paths.iter().map(|path| fs::read_to_string(path).expect("UTF-8"));
    std::iter::once(FILE.to_owned()).chain(seeds).collect()
}

/// What people do by hand.
#[derive(Clone, Debug)]
enum Deed {
    Weight(u32),
    Drain(bool),
    DrainEverywhere(bool),
    DeleteReal,
    AddReal(u8),
    DeleteService,
    EditService(&'static str),
}

fn deed() -> impl Strategy<Value = (Deed, Index)> {
    let deeds = prop_oneof![
        4 => (0_u32..4).prop_map(Deed::Weight),
        2 => any::<bool>().prop_map(Deed::Drain),
        2 => any::<bool>().prop_map(Deed::DrainEverywhere),
        2 => Just(Deed::DeleteReal),
        2 => (1_u8..9).prop_map(Deed::AddReal),
        1 => Just(Deed::DeleteService),
        1 => prop::sample::select(vec!["rr", "sh", "wlc"]).prop_map(Deed::EditService),
    ];
    (deeds, any::<Index>())
}

/// The changes that a deed is, to something that there is.
fn changes(deed: &Deed, at: Index, model: &Model) -> Vec<Change> {
    let reals: Vec<(ServiceId, RealId)> =
        model.services().flat_map(|(id, entry)| entry.reals().map(|(real, _)| (*id, *real))).collect();
    if reals.is_empty() {
        return Vec::new();
    }
    let (service, real) = reals[at.index(reals.len())];
    let entry = model.service(&service).expect("a service");
    let spec = entry.real(&real).expect("a real server").spec;
    let drained = |service: ServiceId, real: RealId, drain| Change::SetDrain { service, real, drain };
    match *deed {
        Deed::Weight(weight) => {
            vec![Change::EditReal { service, real, spec: api::RealSpec { weight, ..spec } }]
        }
        Deed::Drain(drain) => vec![drained(service, real, drain)],
        Deed::DrainEverywhere(drain) => {
            let own = reals.iter().filter(|(_, it)| it.address == real.address);
            own.map(|(service, real)| drained(*service, *real, drain)).collect()
        }
        Deed::DeleteReal => vec![Change::DeleteReal { service, real }],
        Deed::AddReal(last) => {
            let address = match real.address {
                std::net::IpAddr::V4(_) => [10, 0, 9, last].into(),
                std::net::IpAddr::V6(_) => [0x2001, 0xdb8, 9, 0, 0, 0, 0, u16::from(last)].into(),
            };
            vec![Change::AddReal { service, real: RealId { address, ..real }, spec }]
        }
        Deed::DeleteService => vec![Change::DeleteService { service }],
        Deed::EditService(scheduler) => {
            let spec = api::ServiceSpec { scheduler: scheduler.to_owned(), ..entry.spec().clone() };
            vec![Change::EditService { service, spec }]
        }
    }
}

/// Headers of tables of these kinds.
fn headers(text: &str, kinds: &[&str]) -> BTreeSet<String> {
    let is_one = |line: &&str| kinds.iter().any(|kind| line.starts_with(&format!("[{kind}.")));
    text.lines().filter(is_one).map(ToOwned::to_owned).collect()
}

/// The laws: it says what holds, unchanged services keep their names, and so does the layout.
fn check(text: &str, now: &Model) -> Result<String, TestCaseError> {
    let base = read(text);
    let saved = save(now, Some(&applied(text)));
    let again = read(&saved);
    let left = difference(now, &again.model);
    prop_assert!(left.is_empty(), "{:?}\n{}", left, saved);
    for (id, name) in &base.names {
        if now.service(id).is_some() && now.service(id) == base.model.service(id) {
            // Where one of a table's services was changed, the others may need more tables than one.
            let (_, now) = again.names.iter().find(|(it, _)| it == id).expect("a service with a name");
            prop_assert!(now == name || now.starts_with(&format!("{name}-")), "{} {}\n{}", id, now, saved);
        }
    }
    if difference(now, &base.model).is_empty() {
        prop_assert_eq!(&saved, text);
    }
    if format(text).as_deref() == Ok(text) {
        prop_assert_eq!(format(&saved), Ok(saved.clone()));
    }
    // Saved, applied, and saved again.
    prop_assert_eq!(&save(now, Some(&applied(&saved))), &saved);
    Ok(saved)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_done_by_hand_costs_neither_templates_nor_names(
        which in any::<Index>(), deeds in prop::collection::vec(deed(), 0..5)
    ) {
        let texts = texts();
        let text = &texts[which.index(texts.len())];
        let mut now = read(text).model;
        for (deed, at) in &deeds {
            for change in changes(deed, *at, &now) {
                let _ = now.apply(&change);
            }
        }
        let saved = check(text, &now)?;
        let kinds = ["server", "template", "check", "cluster", "director"];
        prop_assert_eq!(headers(&saved, &kinds), headers(text, &kinds), "{}", saved);
        prop_assert!(!saved.contains("could not be written"), "{:?}\n{}", deeds, saved);
    }

    #[test]
    fn whatever_was_changed_is_saved(
        which in any::<Index>(), other in model(), own in any::<bool>(),
        changes in prop::collection::vec((change(), any::<Index>()), 0..12),
    ) {
        let texts = texts();
        let text = match own {
            true => cluster::render(&other, &cluster::Hints::default()),
            false => texts[which.index(texts.len())].clone(),
        };
        let mut now = read(&text).model;
        for (mut change, index) in changes {
            aim(&mut change, index, &now);
            let _ = now.apply(&change);
        }
        check(&text, &now)?;
    }
}

#[test]
fn a_file_in_which_nothing_can_be_changed_in_place_keeps_its_names() {
    // The web servers' checks are their own by their tables, and one of them shall go by the service's now.
    let text = FILE.replace("weight = 2", "weight = 2\nchecks = \"greeting\"");
    let mut now = read(&text).model;
    let (service, real) = {
        let (id, entry) = now.services().next().expect("a service");
        (*id, *entry.reals().next_back().expect("a real server").0)
    };
    now.apply(&Change::SetRealHealth { service, real, health: RealHealth::default() }).expect("a change");
    let saved = check(&text, &now).expect("the laws");
    assert!(
        saved.contains("# These could not be written into it; its templates and comments are not here.\n"),
        "{saved}"
    );
    assert!(saved.contains("[server.web1]") && saved.contains("[service.www]"), "{saved}");
}

/// Changes a real server of each service that has it.
fn each(now: &mut Model, address: &str, change: impl Fn(ServiceId, RealId, api::RealSpec) -> Change) {
    let all: Vec<Change> = now
        .services()
        .flat_map(|(id, entry)| entry.reals().map(move |(real, it)| (*id, *real, it.spec)))
        .filter(|(_, real, _)| real.address.to_string() == address)
        .map(|(id, real, spec)| change(id, real, spec))
        .collect();
    for change in all {
        now.apply(&change).expect("a change");
    }
}

#[test]
fn a_machine_drained_everywhere_is_drained_where_it_is_declared() {
    let mut now = read(FILE).model;
    for address in ["10.0.0.2", "2001:db8:1::2"] {
        each(&mut now, address, |service, real, _| Change::SetDrain { service, real, drain: true });
    }
    let saved = check(FILE, &now).expect("the laws");
    let text = FILE.replace("\"2001:db8:1::2\"]\n", "\"2001:db8:1::2\"]\ndrain = true\n");
    assert_eq!(saved.split_once("\n\n").expect("a header").1, text);
    // And taken back, whatever is on top.
    for address in ["10.0.0.2", "2001:db8:1::2"] {
        each(&mut now, address, |service, real, _| Change::SetDrain { service, real, drain: false });
    }
    let again = save(&now, Some(&applied(&saved)));
    assert_eq!(again.matches("# Saved by sluice: ").count(), 1, "{again}");
    assert!(again.ends_with(FILE), "{again}");
}

#[test]
fn a_weight_changed_by_hand_is_written_where_it_stands() {
    let mut now = read(FILE).model;
    let quiet =
        |service, real, spec| Change::EditReal { service, real, spec: api::RealSpec { weight: 0, ..spec } };
    each(&mut now, "10.0.1.1", quiet);
    each(&mut now, "10.0.0.1", |service, real, spec| match service {
        ServiceId::Fwmark { .. } => Change::DeleteReal { service, real },
        _ => Change::EditReal { service, real, spec },
    });
    let saved = check(FILE, &now).expect("the laws");
    let text = FILE
        .replace("servers = \"db1\"", "servers = [{ server = \"db1\", weight = 0, last_weight = 1 }]")
        .replace(
            "servers = [\"web1\", { server = \"web2\", weight = 7 }]",
            "servers = [{ server = \"web2\", weight = 7 }]",
        );
    let header = "# Saved by sluice: configuration 41 (shop.toml), with what was changed since\n\
                  # ~ service FWM 21\n#     - real server 10.0.0.1:0\n\
                  # ~ service TCP 192.0.2.10:5432\n#     ~ real server 10.0.1.1:5432: weight 1 -> 0\n\n";
    assert_eq!(saved, format!("{header}{text}"));
    // What editors read on the first line stays there.
    let schema = "#:schema ./cluster-file.schema.json\n";
    assert_eq!(save(&now, Some(&applied(&format!("{schema}{FILE}")))), format!("{schema}{header}{text}"));
}

#[test]
fn without_a_file_or_with_one_that_nobody_can_read_all_is_written_anew() {
    let now = read(FILE).model;
    let plain = cluster::render(&now, &cluster::Hints::default());
    assert_eq!(save(&now, None), plain);
    let saved = save(&now, Some(&applied("[service.www]\nvip = 7\n")));
    let (header, text) = saved.split_once("\n\n").expect("a header");
    assert_eq!(text, plain);
    assert!(header.contains("configuration 41 (shop.toml) cannot be read any more"), "{header}");
}
