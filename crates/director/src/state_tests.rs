//! What is on disk at every moment is one configuration.

use super::*;
use api::{Protocol, RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Timeouts};
use std::path::Path;

fn service(number: u8) -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: [192, 0, 2, number].into(), port: 80 }
}

fn add_service(number: u8) -> Change {
    let spec = ServiceSpec {
        scheduler: "wlc".to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    };
    Change::AddService { service: service(number), spec }
}

fn add_real(number: u8) -> Change {
    let real = RealId { address: [10, 0, 0, number].into(), port: 80 };
    let spec: RealSpec =
        serde_json::from_str(r#"{"forwarding":"direct_routing","weight":1}"#).expect("a real server");
    Change::AddReal { service: service(1), real, spec }
}

fn timeouts(tcp_s: u32) -> Change {
    Change::SetTimeouts { timeouts: Timeouts { tcp_s, tcp_fin_s: 0, udp_s: 0 } }
}

fn model(changes: &[Change]) -> Model {
    let mut model = Model::new(Options::default());
    let (refusals, _) = model.change(changes, true);
    assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
    model
}

/// Ten services, so that small changes are records.
fn large() -> Model {
    model(&(1..=10).map(add_service).collect::<Vec<_>>())
}

fn files(directory: &Path) -> StateFile {
    StateFile::in_directory(directory).expect("directory")
}

fn load(directory: &Path) -> Option<(Model, u64)> {
    files(directory).load(Options::default()).expect("sound")
}

/// Keeps one list of changes.
fn keep(file: &mut StateFile, model: &mut Model, generation: u64, changes: &[Change]) {
    assert!(model.change(changes, true).0.iter().all(Option::is_none));
    file.keep(&changes.iter().collect::<Vec<_>>(), model, generation).expect("kept");
}

fn copy(from: &Path, to: &Path) {
    for name in ["model.json", "model.journal"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copy");
        }
    }
}

#[test]
fn what_was_kept_is_read_back() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let directory = directory.path().join("a/b");
    let mut file = files(&directory);
    assert!(file.load(Options::default()).expect("nothing yet").is_none());
    let mut model = large();
    file.save(&model, 41).expect("first");
    assert!(!directory.join("model.journal").exists());
    keep(&mut file, &mut model, 42, &[timeouts(100), add_real(1)]);
    keep(&mut file, &mut model, 43, &[add_real(2)]);
    assert_eq!(load(&directory), Some((model.clone(), 43)));
    // Another director goes on where this one was.
    let mut file = files(&directory);
    file.load(Options::default()).expect("read");
    keep(&mut file, &mut model, 44, &[Change::DeleteService { service: service(9) }]);
    assert_eq!(load(&directory), Some((model.clone(), 44)));
    file.save(&model, 44).expect("whole");
    assert!(!directory.join("model.journal").exists());
    keep(&mut file, &mut model, 45, &[timeouts(7)]);
    assert_eq!(load(&directory), Some((model, 45)));
}

#[test]
fn a_record_cut_off_at_any_byte_leaves_the_old_configuration() {
    let (whole, cut) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
    let journal = cut.path().join("model.journal");
    let mut file = files(whole.path());
    let mut model = large();
    file.save(&model, 1).expect("whole");
    let mut states = vec![(0, model.clone())];
    for generation in 2..5 {
        keep(&mut file, &mut model, generation, &[add_real(generation as u8), timeouts(generation as u32)]);
        let bytes = std::fs::metadata(whole.path().join("model.journal")).expect("journal").len();
        states.push((bytes, model.clone()));
    }
    copy(whole.path(), cut.path());
    let text = std::fs::read(&journal).expect("read");
    for length in 0..=text.len() {
        // The last whole record counts, and what is behind it may be nothing, or what the disk had there.
        let (at, (_, expected)) = states
            .iter()
            .enumerate()
            .rfind(|(_, (bytes, _))| *bytes <= length as u64)
            .expect("the whole configuration");
        for rest in [&[][..], &[0; 9]] {
            std::fs::write(&journal, [&text[..length], rest].concat()).expect("write");
            let read = load(cut.path());
            assert!(read == Some((expected.clone(), at as u64 + 1)), "cut to {length} bytes: {read:?}");
        }
    }
    // The next record goes over what was cut off.
    std::fs::write(&journal, &text[..text.len() - 3]).expect("write");
    let mut file = files(cut.path());
    let (mut model, generation) = file.load(Options::default()).expect("sound").expect("there");
    keep(&mut file, &mut model, generation + 1, &[timeouts(9)]);
    assert_eq!(load(cut.path()), Some((model, generation + 1)));
}

#[test]
fn a_whole_file_cut_off_at_any_byte_leaves_the_old_configuration() {
    let directory = tempfile::tempdir().expect("directory");
    let mut file = files(directory.path());
    let mut model = large();
    file.save(&model, 1).expect("whole");
    keep(&mut file, &mut model, 2, &[add_real(1)]);
    let next = directory.path().join("model.json.next");
    let text = super::whole(&model, 2).expect("text");
    for length in 0..=text.len() {
        std::fs::write(&next, &text[..length]).expect("write");
        assert!(load(directory.path()) == Some((model.clone(), 2)), "cut to {length} bytes");
    }
    // Renamed, and then the end: the journal is still there, and older.
    std::fs::rename(&next, directory.path().join("model.json")).expect("rename");
    assert!(directory.path().join("model.journal").exists());
    assert_eq!(load(directory.path()), Some((model.clone(), 2)));
    let mut file = files(directory.path());
    file.load(Options::default()).expect("sound");
    keep(&mut file, &mut model, 3, &[add_real(2)]);
    assert_eq!(load(directory.path()), Some((model, 3)));
}

#[test]
fn a_journal_that_grows_makes_room_for_itself() {
    let directory = tempfile::tempdir().expect("directory");
    let mut file = files(directory.path());
    let mut model = large();
    file.save(&model, 1).expect("whole");
    assert!(!file.has_grown());
    file.base = file.base.map(|(base, _)| (base, 0));
    let mut generation = 1;
    while !file.has_grown() {
        generation += 1;
        assert!(generation < 10_000, "it never grows");
        // As long as a list that is still a record can be.
        keep(&mut file, &mut model, generation, &vec![timeouts(generation as u32); 9]);
    }
    assert!(file.journal.bytes() > JOURNAL_BYTES_MIN);
    assert_eq!(load(directory.path()), Some((model.clone(), generation)));
    file.save(&model, generation).expect("whole");
    assert!(!file.has_grown());
    assert_eq!(load(directory.path()), Some((model, generation)));
}

#[test]
fn what_cannot_be_kept_leaves_the_old_configuration() {
    let directory = tempfile::tempdir().expect("directory");
    let mut file = files(directory.path());
    let mut model = large();
    file.save(&model, 1).expect("whole");
    // Something in the place of the journal.
    let obstacle = directory.path().join("model.journal");
    std::fs::create_dir(&obstacle).expect("obstacle");
    let mut next = model.clone();
    let change = timeouts(5);
    next.apply(&change).expect("in range");
    let error = file.keep(&[&change], &next, 2).expect_err("a directory is in the way");
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    std::fs::remove_dir(&obstacle).expect("remove");
    assert_eq!(load(directory.path()), Some((model.clone(), 1)));
    keep(&mut file, &mut model, 2, &[timeouts(6)]);
    assert_eq!(load(directory.path()), Some((model, 2)));
}

#[test]
fn files_of_the_first_version_are_read_and_replaced_at_the_first_change() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("model.json");
    let old = r#"{ "version": 1, "generation": 41, "configuration": { "atomic": true, "changes": [
        { "change": "set_timeouts", "timeouts": { "tcp_s": 900, "tcp_fin_s": 120, "udp_s": 300 } },
        { "change": "add_service", "service": { "address": { "protocol": "tcp", "address": "192.0.2.1", "port": 80 } },
          "spec": { "scheduler": "wlc", "scheduler_flags": { "flag_1": false, "flag_2": false, "flag_3": false },
                    "persistence": null, "persistence_engine": null, "one_packet": false } },
        { "change": "add_real", "service": { "address": { "protocol": "tcp", "address": "192.0.2.1", "port": 80 } },
          "real": { "address": "10.0.0.1", "port": 80 }, "spec": { "forwarding": "direct_routing", "weight": 1,
          "upper_threshold": 0, "lower_threshold": 0, "tunnel": { "type": "ipip" } } },
        { "change": "add_real", "service": { "address": { "protocol": "tcp", "address": "192.0.2.1", "port": 80 } },
          "real": { "address": "10.0.0.2", "port": 80 }, "spec": { "forwarding": "direct_routing", "weight": 1,
          "upper_threshold": 0, "lower_threshold": 0, "tunnel": { "type": "ipip" } } }
    ] } }"#;
    std::fs::write(&path, old).expect("write");
    let mut file = files(directory.path());
    let (mut model, generation) = file.load(Options::default()).expect("sound").expect("there");
    assert_eq!((generation, model.reals_len()), (41, 2));
    assert_eq!(model, self::model(&[add_service(1), add_real(1), add_real(2)]));
    keep(&mut file, &mut model, 42, &[timeouts(5)]);
    // A release that knows no journal must not go by the file without it.
    assert!(std::fs::read_to_string(&path).expect("read").starts_with("{\"version\":2,\"generation\":42,"));
    assert!(!directory.path().join("model.journal").exists());
    keep(&mut file, &mut model, 43, &[timeouts(6)]);
    assert!(directory.path().join("model.journal").exists());
    assert_eq!(load(directory.path()), Some((model, 43)));
}

#[test]
fn a_journal_whose_configuration_was_removed_does_not_come_back() {
    let directory = tempfile::tempdir().expect("directory");
    let mut file = files(directory.path());
    let mut model = large();
    file.save(&model, 1).expect("whole");
    keep(&mut file, &mut model, 2, &[timeouts(6)]);
    std::fs::remove_file(directory.path().join("model.json")).expect("remove");
    let mut file = files(directory.path());
    assert!(file.load(Options::default()).expect("nothing").is_none());
    let new = large();
    file.save(&new, 1).expect("whole");
    assert_eq!(load(directory.path()), Some((new, 1)));
}

#[test]
fn spoilt_files_are_named_and_kept() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (json, journal) = (directory.path().join("model.json"), directory.path().join("model.journal"));
    let error = || files(directory.path()).load(Options::default()).expect_err("spoilt");
    for (text, expected) in [
        ("{\"version\": 1, \"gener", "cannot understand "),
        (
            "{\"version\":9,\"generation\":1,\"configuration\":{\"atomic\":true,\"changes\":[]}}",
            "has version 9",
        ),
    ] {
        std::fs::write(&json, text).expect("write");
        assert!(error().to_string().contains(expected), "{}", error());
    }
    std::fs::remove_file(&json).expect("remove");
    let mut file = files(directory.path());
    let mut model = large();
    file.save(&model, 1).expect("saved");
    for generation in 2..5 {
        keep(&mut file, &mut model, generation, &[timeouts(generation as u32)]);
    }
    let good = std::fs::read_to_string(&journal).expect("read");
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    let with = |lines: &[&str]| std::fs::write(&journal, lines.concat()).expect("write");
    let wrong = lines[2].replace("\"tcp_s\":3", "\"tcp_s\":4");
    with(&[lines[0], lines[1], &wrong, lines[3]]);
    assert!(matches!(error(), StateError::Damaged { line: 3, .. }), "{:?}", error());
    with(&[lines[0], lines[1], lines[3]]);
    assert!(matches!(error(), StateError::Missing { generation: 3, .. }), "{:?}", error());
    // The last one, whole, of a release that knows more.
    let unknown = br#"[{"change":"dance"}]"#;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&3_u64.to_le_bytes());
    hasher.update(unknown);
    let newer = format!("3 {:08x} {}\n", hasher.finalize(), String::from_utf8_lossy(unknown));
    with(&[lines[0], lines[1], &newer]);
    assert!(matches!(error(), StateError::Damaged { line: 3, .. }), "{:?}", error());
    with(&["something else\n", lines[1]]);
    assert!(matches!(error(), StateError::Damaged { line: 1, .. }), "{:?}", error());
    with(&lines);
    let edited = std::fs::read_to_string(&json).expect("read").replace("\"udp_s\":300", "\"udp_s\":301");
    std::fs::write(&json, edited).expect("write");
    assert!(matches!(error(), StateError::Stray { .. }), "{:?}", error());
    std::fs::remove_file(&journal).expect("remove");
    files(directory.path()).load(Options::default()).expect("edited by hand");
    let limits = abi::Limits { services_max: 0, ..abi::Limits::default() };
    let options = Options { limits, ..Options::default() };
    let error = files(directory.path()).load(options).expect_err("too many");
    assert!(matches!(error, StateError::Refused { number: 2, generation: 1, .. }), "{error:?}");
}
