//! Whole configurations: applied, refused, taken back; and a daemon that is killed at any step of it.

mod support;

use api::{
    Applied, ApplyRequest, Change, Changes, EventKind, Events, HealthView, History, Outcomes, Plan, Protocol,
    RollbackRequest, Saved, ServiceId, Services, Standing,
};
use nix::sys::signal::Signal;
use runtime::control::ControlError;
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{Daemon, Lab, add_real, add_service, wait_for};

const OLD: &str = r#"
[server.web1]
address = "192.0.2.3"

[service.www]
vip = "192.0.2.10"
ports = ["tcp/8080"]
scheduler = "rr"
servers = ["web1"]
"#;

const NEW: &str = r#"
[server.web1]
address = "192.0.2.3"
[server.web2]
address = "192.0.2.4"

[service.www]
vip = "192.0.2.10"
ports = ["tcp/8080", "tcp/8081"]
scheduler = "wlc"
servers = ["web1", { server = "web2", weight = 3 }]
"#;

fn file(text: &str) -> ApplyRequest {
    ApplyRequest {
        name: "web.toml".to_owned(),
        text: text.to_owned(),
        confirm_s: None,
        expect_generation: None,
    }
}

fn apply(daemon: &Daemon, request: &ApplyRequest) -> Applied {
    daemon.client.post("/v1/apply", request).unwrap_or_else(|error| panic!("{}", runtime::Chain(&error)))
}

fn refused(daemon: &Daemon, request: &ApplyRequest) -> String {
    match daemon.client.post::<_, Applied>("/v1/apply", request) {
        Err(ControlError::Refused(refusal)) => refusal.message,
        other => panic!("{other:?}"),
    }
}

fn declared(daemon: &Daemon) -> Changes {
    daemon.get("/v1/declared")
}

/// What the packet path has: services and their real servers.
fn balanced(daemon: &Daemon) -> BTreeSet<String> {
    let services: Services = daemon.get("/v1/services");
    let reals = services.services.iter().flat_map(|service| {
        service
            .reals
            .iter()
            .map(move |it| format!("{} {} {} {}", service.id, service.spec.scheduler, it.id, it.spec.weight))
    });
    reals.collect()
}

/// The same, of what is declared.
fn wanted(declared: &Changes) -> BTreeSet<String> {
    let scheduler = |of: &api::ServiceId| {
        declared.changes.iter().find_map(|change| match change {
            Change::AddService { service, spec } if service == of => Some(spec.scheduler.clone()),
            _ => None,
        })
    };
    let reals = declared.changes.iter().filter_map(|change| match change {
        Change::AddReal { service, real, spec } => {
            Some(format!("{service} {} {real} {}", scheduler(service)?, spec.weight))
        }
        _ => None,
    });
    reals.collect()
}

#[test]
fn a_file_is_planned_applied_and_taken_back() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let daemon = lab.start();
    let plan: Plan = daemon.client.post("/v1/plan", &file(OLD)).expect("a plan");
    assert_eq!(
        (plan.generation, plan.lines.len(), balanced(&daemon).len()),
        (0, 2, 0),
        "a plan changes nothing"
    );
    let first = apply(&daemon, &file(OLD));
    assert_eq!((first.generation, first.plan.lines), (1, plan.lines));
    let again = apply(&daemon, &file(OLD));
    assert_eq!((again.generation, again.plan.lines.len()), (1, 0), "the same again changes nothing");

    let second = apply(&daemon, &file(NEW));
    assert_eq!(second.generation, 2);
    assert_eq!(balanced(&daemon).len(), 4);
    let history: History = daemon.get("/v1/history");
    let numbers: Vec<_> =
        history.entries.iter().map(|it| (it.generation, it.source.as_str(), it.services)).collect();
    assert_eq!(numbers, [(0, "changes one by one", 0), (1, "web.toml", 1), (2, "web.toml", 2)]);

    let stale = ApplyRequest { expect_generation: Some(1), ..file(OLD) };
    assert!(refused(&daemon, &stale).contains("is number 2 now, not 1 any more"));
    let back: Applied =
        daemon.client.post("/v1/rollback", &RollbackRequest { generation: 1 }).expect("a rollback");
    assert_eq!((back.generation, balanced(&daemon).len()), (3, 1));
    // One event for each, with what it came from.
    let events: Events = daemon.get("/v1/events");
    let of_generations = events.events.iter().filter_map(|it| match it.what {
        EventKind::Generation { generation } => Some((generation, it.cause.as_str())),
        _ => None,
    });
    assert_eq!(
        of_generations.collect::<Vec<_>>(),
        [
            (1, "web.toml was applied"),
            (2, "web.toml was applied"),
            (3, "rollback to 1 (web.toml) was applied")
        ]
    );
    let lost = daemon.client.post::<_, Applied>("/v1/rollback", &RollbackRequest { generation: 77 });
    assert!(
        matches!(lost, Err(ControlError::Refused(refusal)) if refusal.message.contains("77 is not in the history"))
    );
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_places_and_nothing_changes() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let daemon = lab.start();
    apply(&daemon, &file(OLD));
    let before = declared(&daemon);
    let wrong = OLD.replace("\"rr\"", "\"fastest\"").replace("\"tcp/8080\"", "\"tcp/808080\"");
    let message = refused(&daemon, &file(&wrong));
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 2, "{message}");
    assert!(lines[0].starts_with("web.toml:7:10: error: ") && lines[0].contains("808080"), "{message}");
    assert!(lines[1].starts_with("web.toml:8:13: error: ") && lines[1].contains("fastest"), "{message}");
    assert_eq!(declared(&daemon), before);
    let hasty = ApplyRequest { confirm_s: Some(5), ..file(NEW) };
    assert!(refused(&daemon, &hasty).contains("must be 10 to 86400 s"));
    assert_eq!(declared(&daemon), before);
}

#[test]
fn what_is_not_confirmed_is_taken_back_even_by_the_next_daemon() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let mut daemon = lab.start();
    apply(&daemon, &file(OLD));
    let before = declared(&daemon);
    let tried = ApplyRequest { confirm_s: Some(10), ..file(NEW) };
    let confirmed = apply(&daemon, &tried);
    let history: History = daemon.client.post("/v1/confirm", &()).expect("a confirmation");
    assert_eq!((history.pending, history.generation), (None, confirmed.generation));
    let nothing = daemon.client.post::<_, History>("/v1/confirm", &());
    assert!(
        matches!(nothing, Err(ControlError::Refused(refusal)) if refusal.message == "there is nothing to confirm")
    );

    // What replaces it without a question needs no confirmation of it.
    apply(&daemon, &ApplyRequest { confirm_s: Some(10), ..file(OLD) });
    apply(&daemon, &file(NEW));
    let history: History = daemon.get("/v1/history");
    assert_eq!((history.pending, history.generation), (None, 4));

    apply(&daemon, &ApplyRequest { confirm_s: Some(10), ..file(OLD) });
    // Neither what is refused nor a change by hand confirms it.
    let hopeless = file(&OLD.replace("\"rr\"", "\"fastest\""));
    refused(&daemon, &hopeless);
    let (service, real) = (support::service(), support::real(0));
    assert_eq!(daemon.change(Change::SetDrain { service, real, drain: true }).refusals, [None]);
    let history: History = daemon.get("/v1/history");
    assert_eq!(history.pending.map(|it| (it.generation, it.back_to)), Some((5, 4)));
    let old = declared(&daemon);
    assert_eq!(wanted(&old), wanted(&before));
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    let daemon = lab.start();
    assert_eq!(wanted(&declared(&daemon)), wanted(&old), "there is time left");
    wait_for("the way back", || (wanted(&declared(&daemon)) != wanted(&old)).then_some(()));
    assert_eq!(balanced(&daemon).len(), 4);
    let history: History = daemon.get("/v1/history");
    let last = history.entries.last().expect("entries");
    assert!(last.source.starts_with("rollback to 4"), "{last:?}");
    let events: Events = daemon.get("/v1/events");
    let causes: Vec<&str> = events
        .events
        .iter()
        .filter(|it| matches!(it.what, EventKind::Generation { .. }))
        .map(|it| it.cause.as_str())
        .collect();
    assert_eq!(
        causes,
        ["rollback to 4 (web.toml), configuration 5 was taken back: it was not confirmed in time"]
    );
    assert_eq!(history.pending, None);
}

/// Lets so many clients try the VIP, who are all told that nobody serves.
fn try_in_vain(lab: &Lab, attempts: usize) {
    for _ in 0..attempts {
        let tried = lab.client.run(|| {
            TcpStream::connect_timeout(&support::VIP.parse().expect("an address"), support::PATIENCE)
        });
        let error = tried.expect("inside").expect_err("nobody serves");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    }
}

#[test]
fn a_daemon_that_is_started_anew_goes_on_watching_what_was_not_confirmed() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let mut daemon = lab.start();
    apply(&daemon, &file(OLD));
    let nobody = OLD.replace("[\"web1\"]", "[{ server = \"web1\", weight = 0 }]");
    apply(&daemon, &ApplyRequest { confirm_s: Some(3600), ..file(&nobody) });
    // Too few to say anything, so that the first daemon does not take it back, and the second one needs them.
    try_in_vain(&lab, 12);
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    daemon = lab.start();
    let history: History = daemon.get("/v1/history");
    assert_eq!(history.pending.map(|it| (it.generation, it.back_to)), Some((2, 1)));
    try_in_vain(&lab, 12);
    let cause = wait_for("the way back", || {
        let events: Events = daemon.get("/v1/events");
        let last = events.events.into_iter().find(|it| matches!(it.what, EventKind::Generation { .. }));
        last.map(|it| it.cause)
    });
    let wanted = "rollback to 1 (web.toml), configuration 2 was taken back: 100 % of 24 attempts failed since it was applied, 0 % before";
    assert_eq!(cause, wanted);
    let history: History = daemon.get("/v1/history");
    assert_eq!((history.generation, history.pending), (3, None));
}

#[test]
fn servers_that_were_down_before_do_not_end_the_trial_of_a_daemon_that_is_started_anew() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    let mut daemon = lab.start();
    // Nobody listens at either of them.
    let checked = NEW.replace("scheduler", "checks = \"open\"\nscheduler");
    let checked = format!("{checked}\n[check.open]\ntype = \"tcp\"\ninterval = \"100ms\"\nfall = 1\n");
    apply(&daemon, &file(&checked));
    let down = |daemon: &Daemon| {
        wait_for("servers that are down", || {
            let view: HealthView = daemon.get("/v1/health");
            let mut reals = view.services.iter().flat_map(|it| &it.reals);
            reals.all(|it| it.standing == Standing::Down).then_some(())
        });
    };
    down(&daemon);
    let other = ApplyRequest { confirm_s: Some(3600), ..file(&checked.replace("wlc", "rr")) };
    let applied = apply(&daemon, &other);
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    daemon = lab.start();
    down(&daemon);
    // It looks every two seconds.
    std::thread::sleep(Duration::from_secs(5));
    let history: History = daemon.get("/v1/history");
    assert_eq!(history.pending.map(|it| it.generation), Some(applied.generation));
}

#[test]
fn what_is_saved_is_the_file_that_was_applied_with_what_was_changed_since() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let mut daemon = lab.start();
    let save = |daemon: &Daemon| {
        let Saved { declared, file } = daemon.get("/v1/saved");
        let mut model = plan::Model::new(plan::Options::default());
        declared.changes.iter().for_each(|change| model.apply(change).expect("a change"));
        cluster::save(&model, file.as_ref())
    };
    let is_whole = |daemon: &Daemon, text: &str| {
        let plan: Plan = daemon.client.post("/v1/plan", &file(text)).expect("a plan");
        assert_eq!(plan.lines, [], "{text}");
    };
    assert!(!save(&daemon).contains("[service."), "nothing is declared");
    apply(&daemon, &file(OLD));
    assert_eq!(save(&daemon), OLD);
    // The same with other words is another file, though nothing changes.
    let named = OLD.replace("web1", "fred");
    assert_eq!(apply(&daemon, &file(&named)).generation, 1);
    assert_eq!(save(&daemon), named);
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    daemon = lab.start();
    assert_eq!(save(&daemon), named);

    // As ipvsadm does it.
    let (service, real) = (support::service(), support::real(0));
    let spec = api::RealSpec { weight: 0, ..support::real_spec() };
    assert_eq!(daemon.change(Change::EditReal { service, real, spec }).refusals, [None]);
    let by_hand = save(&daemon);
    is_whole(&daemon, &by_hand);
    assert!(by_hand.starts_with("# Saved by sluice: configuration 1 (web.toml), "), "{by_hand}");
    let servers = "[{ server = \"fred\", weight = 0, last_weight = 1 }]";
    let text = named.replace("[\"fred\"]", servers);
    assert!(by_hand.ends_with(&text), "{by_hand}");

    // A rollback brings back the file too, or what there was of it.
    apply(&daemon, &file(NEW));
    assert_eq!(save(&daemon), NEW);
    let back = |generation| {
        let _: Applied =
            daemon.client.post("/v1/rollback", &RollbackRequest { generation }).expect("a rollback");
        save(&daemon)
    };
    let again = back(2);
    assert!(again.ends_with(&text), "{again}");
    is_whole(&daemon, &again);
    assert_eq!(back(1), named);
}

/// Kills a process when it makes the nth of these system calls.
fn kill_at(pid: u32, call: &str, number: usize) -> Child {
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}"), "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    let status = format!("/proc/{pid}/task");
    wait_for("strace", || {
        // With the process: it has made so many calls already, of its own accord.
        if let Ok(Some(ended)) = strace.try_wait() {
            assert!(ended.success(), "strace ended: {ended}");
            return Some(());
        }
        let tasks = std::fs::read_dir(&status).ok()?;
        let is_traced = |path: std::path::PathBuf| {
            std::fs::read_to_string(path.join("status")).is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
        };
        tasks.flatten().all(|task| is_traced(task.path())).then_some(())
    });
    strace
}

#[test]
fn a_kill_at_any_step_of_an_apply_leaves_the_old_or_the_new_configuration() {
    if let Err(reason) = testkit::need_bpf().and_then(|()| testkit::need_tool("strace")) {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    let mut daemon = lab.start();
    // So that what was there is not what a file made.
    for change in [add_service(), add_real()] {
        assert_eq!(daemon.change(change).refusals, [None]);
    }
    let old = wanted(&declared(&daemon));
    let mut outcomes = BTreeSet::new();
    // Every file it writes; and every few of the calls that change tables, among which are those of the sweep.
    let steps = [("fsync", 1, 99), ("rename", 1, 99), ("bpf", 5, 60)];
    for (call, stride, most) in steps {
        for number in (1..most).step_by(stride) {
            let mut strace = kill_at(daemon.child.id(), call, number);
            let answer = daemon.client.post::<_, Applied>("/v1/apply", &file(NEW));
            let is_dead = answer.is_err() || ended_soon(&mut daemon);
            if !is_dead {
                drop((strace.kill(), strace.wait()));
                break;
            }
            drop((daemon.child.wait(), strace.wait()));
            daemon = lab.start();
            let now = declared(&daemon);
            let is_new = wanted(&now) != old;
            let (step, history): (_, History) = (format!("{call} {number}"), daemon.get("/v1/history"));
            assert_eq!(balanced(&daemon), wanted(&now), "{step}: packets go as is declared");
            assert!(
                history.entries.iter().all(|it| it.generation <= history.generation),
                "{step}: {history:?}"
            );
            assert_eq!(history.pending, None, "{step}");
            if is_new {
                assert_eq!(wanted(&now).len(), 4, "{step}: the whole of it");
            }
            assert!(is_new || answer.is_err(), "{step}: what was answered holds");
            outcomes.insert(is_new);
            if is_new {
                let back = RollbackRequest { generation: history.generation - 1 };
                let _: Applied = daemon.client.post("/v1/rollback", &back).expect("a rollback");
            }
            assert_eq!(wanted(&declared(&daemon)), old, "{step}");
        }
    }
    assert_eq!(outcomes.len(), 2, "it was killed before and after");
}

/// Whether it has the second real server, and the time-out of TCP.
fn second_server(declared: &Changes) -> (bool, u32) {
    let has = |change: &Change| matches!(change, Change::AddReal { real, .. } if *real == support::real(1));
    let tcp_s = declared.changes.iter().find_map(|change| match change {
        Change::SetTimeouts { timeouts } => Some(timeouts.tcp_s),
        _ => None,
    });
    (declared.changes.iter().any(has), tcp_s.expect("time-outs"))
}

#[test]
fn a_kill_at_any_step_of_a_small_change_leaves_the_old_or_the_new_configuration() {
    if let Err(reason) = testkit::need_bpf().and_then(|()| testkit::need_tool("strace")) {
        testkit::skip!("{reason}");
    }
    let lab = Lab::with_servers(2);
    let mut daemon = lab.start();
    // Others, so that the change is less than the whole, and is a record of the journal.
    let other = |port| {
        let Change::AddService { spec, .. } = add_service() else { unreachable!("made there") };
        let address = [192, 0, 2, 77].into();
        Change::AddService { service: ServiceId::Address { protocol: Protocol::Tcp, address, port }, spec }
    };
    let changes = [add_service(), add_real()].into_iter().chain((1..=10).map(other)).collect();
    let outcomes: Outcomes =
        daemon.client.post("/v1/changes", &Changes { atomic: true, changes }).expect("an answer");
    assert!(outcomes.refusals.iter().all(Option::is_none), "{outcomes:?}");
    let (service, real) = (support::service(), support::real(1));
    let mut seen = BTreeSet::new();
    for (call, most) in [("pwrite64", 9), ("fdatasync", 9)] {
        for number in 1..most {
            let before = second_server(&declared(&daemon));
            let after = (!before.0, before.1 + 1);
            let second = if after.0 {
                Change::AddReal { service, real, spec: support::real_spec() }
            } else {
                Change::DeleteReal { service, real }
            };
            let timeouts = api::Timeouts { tcp_s: after.1, tcp_fin_s: 0, udp_s: 0 };
            let changes = Changes { atomic: true, changes: vec![second, Change::SetTimeouts { timeouts }] };
            let mut strace = kill_at(daemon.child.id(), call, number);
            let answer = daemon.client.post::<_, Outcomes>("/v1/changes", &changes);
            if answer.is_ok() && !ended_soon(&mut daemon) {
                drop((strace.kill(), strace.wait()));
                break;
            }
            drop((daemon.child.wait(), strace.wait()));
            daemon = lab.start();
            let now = declared(&daemon);
            let has = second_server(&now);
            let step = format!("{call} {number}");
            assert!(has == before || has == after, "{step}: {has:?} is neither {before:?} nor {after:?}");
            assert!(has == after || answer.is_err(), "{step}: what was answered holds");
            assert_eq!(balanced(&daemon), wanted(&now), "{step}: packets go as is declared");
            seen.insert(has == after);
        }
    }
    assert_eq!(seen.len(), 2, "it was killed before and after");
}

/// Whether the daemon ends within a moment.
fn ended_soon(daemon: &mut Daemon) -> bool {
    for _ in 0..5 {
        if daemon.child.try_wait().expect("wait").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
