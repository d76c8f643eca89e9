//! The library against the running kernel: loading, tables, test runs, pins, attaching, taking over.
//!
//! Needs root. Pins go to a bpffs of the test's own, attachments to network namespaces of its own.

use abi::{Address, Flow, FlowKey, Limits, Load, Real, Settings, Slot};
use kernel::{AttachError, Cursor, Datapath, Mode, OpenError, PinError, Put, detach_all};
use std::path::Path;
use std::time::{Duration, Instant};
use testkit::netns::NetNs;

const LIMITS: Limits = Limits {
    services_max: 16,
    reals_max: 64,
    slots_max: 8192,
    embryonic_flows_max: 1024,
    established_flows_max: 20_000,
    templates_max: 100,
    fragments_max: 1024,
    affinities_max: 64,
    networks_max: 64,
    clients_max: 64,
};

/// A bpffs mounted on a temporary directory, unmounted on drop.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        nix::mount::mount(
            Some("bpf"),
            directory.path(),
            Some("bpf"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .expect("mount a bpffs");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn flow_key(number: u32) -> FlowKey {
    FlowKey {
        client: Address::v4(number.to_be_bytes()),
        virtual_address: Address::v4([192, 0, 2, 1]),
        client_port_be: 1,
        virtual_port_be: 2,
        protocol: 6,
    }
}

#[test]
fn the_programs_load_and_pass_what_is_not_ip() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let datapath = Datapath::load(&LIMITS).expect("load");
    let settings = datapath.tables().settings.get(0).expect("read").expect("one entry");
    assert_eq!(settings, Settings::default());
    for info in datapath.verify_programs().expect("infos") {
        assert!(info.verified_instructions > 0 && info.translated_bytes > 0, "{info:?}");
    }
    // An ARP frame: pass, unchanged, and counted (also in every repetition).
    let mut frame = vec![0xff; 60];
    frame[12..14].copy_from_slice(&[8, 6]);
    let run = datapath.entry().test_run(&frame, 7).expect("test run");
    assert_eq!((run.action, &run.packet), (2, &frame));
    let verdicts = datapath.tables().verdicts.fold_range(0, 64, |a, b| a + b).expect("verdicts");
    assert_eq!(verdicts.iter().sum::<u64>(), 7);
    let error = datapath.entry().test_run(&[0; 4], 1).expect_err("too short for Ethernet");
    assert_eq!(error.to_string(), "cannot run eBPF program director");
}

#[test]
fn arrays_and_loads_read_back() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let datapath = Datapath::load(&LIMITS).expect("load");
    let tables = datapath.tables();
    let slots: Vec<Slot> = (0..6000).map(|n| Slot { real: n, weight: n + 1 }).collect();
    tables.slots.put_range(10, &slots).expect("write");
    assert_eq!(tables.slots.get_range(10, 6000).expect("read"), slots);
    assert_eq!(tables.slots.get_range(6008, 4).expect("read").len(), 4);
    assert_eq!(tables.slots.get(6009).expect("read"), Some(slots[5999]));
    // The range ends with the array; a write past it is refused.
    assert_eq!(tables.slots.get_range(8000, 1000).expect("read").len(), 192);
    assert_eq!(tables.slots.get(8192).expect("read"), None);
    assert!(tables.slots.put_range(8190, &slots[..3]).expect_err("too far").is_full());

    let real = Real { ifindex: 3, weight: 4, ..Real::default() };
    tables.reals.put(5, &real).expect("write");
    assert_eq!(tables.reals.get(5).expect("read"), Some(real));

    tables.loads.set(5, Load { active: 7, inactive: 1, ..Load::default() }).expect("set");
    tables.loads.add(5, Load { active: -2, inactive: 3, ..Load::default() }).expect("add");
    assert_eq!(tables.loads.get(5).expect("read"), Some(Load { active: 5, inactive: 4, ..Load::default() }));
    tables.loads.set_overloaded(5, true).expect("set");
    assert_eq!(tables.loads.get(5).expect("read").map(|load| (load.active, load.overloaded)), Some((5, 1)));
    assert_eq!(tables.loads.get(64).expect("read"), None);
}

#[test]
fn a_hash_table_is_scanned_whole_and_deleted_in_part() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let datapath = Datapath::load(&LIMITS).expect("load");
    let table = &datapath.tables().established;
    let keys: Vec<FlowKey> = (0..10_000).map(flow_key).collect();
    let flows: Vec<Flow> = (0..10_000).map(|n| Flow { expires_ns: n, ..Flow::default() }).collect();
    table.put_batch(&keys, &flows).expect("fill");

    let mut cursor = Cursor::Start;
    let mut seen = Vec::new();
    let mut rounds = 0;
    while cursor != Cursor::End {
        let page = table.scan(&mut cursor, 700).expect("scan");
        assert!(page.len() <= 700);
        seen.extend(page);
        rounds += 1;
        assert!(rounds < 1000, "the scan does not end");
    }
    seen.sort_by_key(|(_, flow)| flow.expires_ns);
    let expected: Vec<(FlowKey, Flow)> = keys.iter().copied().zip(flows.iter().copied()).collect();
    assert_eq!(seen, expected);
    assert!(rounds > 10);

    // Every second key, some of them absent.
    let some: Vec<FlowKey> = (0..12_000).step_by(2).map(flow_key).collect();
    assert_eq!(table.delete_batch(&some).expect("delete"), 5000);
    assert_eq!(table.entries().expect("entries").len(), 5000);
    assert_eq!(table.take(&keys[1]).expect("take"), Some(flows[1]));
    assert_eq!(table.take(&keys[1]).expect("take"), None);
    assert!(!table.delete(&keys[1]).expect("delete"));

    let error = table.put(&keys[3], &flows[3], Put::New).expect_err("exists");
    assert_eq!(error.source.raw_os_error(), Some(libc::EEXIST));
    let error = table.put(&keys[1], &flows[1], Put::Existing).expect_err("absent");
    assert_eq!(error.source.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_full_table_says_so() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let limits = Limits { established_flows_max: 100, ..LIMITS };
    let datapath = Datapath::load(&limits).expect("load");
    let keys: Vec<FlowKey> = (0..5000).map(flow_key).collect();
    let error = datapath
        .tables()
        .established
        .put_batch(&keys, &vec![Flow::default(); 5000])
        .expect_err("more than its size");
    assert!(error.is_full(), "{error:?}");
    assert_eq!(error.to_string(), "cannot write to table ESTABLISHED");
}

#[test]
fn tables_and_attachments_outlive_the_process() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let bpffs = Bpffs::new();
    let pin = bpffs.path().join("sluice");
    let (one, other) = (NetNs::new("one").expect("namespace"), NetNs::new("two").expect("namespace"));
    one.veth("eth0", &other, "eth0").expect("veth");
    one.run(|| {
        let mut first = Datapath::open_pinned(&pin, &LIMITS).expect("make");
        assert!(!first.adopted());
        assert_eq!(first.attach("eth0").expect("attach"), Mode::Native);
        assert_eq!(first.attach("eth0").expect("again"), Mode::Native);
        first.tables().established.put(&flow_key(1), &Flow::default(), Put::Any).expect("a flow");
        let id = first.entry().info().expect("info").id;
        drop(first);

        let second = Datapath::open_pinned(&pin, &LIMITS).expect("adopt");
        assert!(second.adopted());
        assert_eq!(second.tables().established.get(&flow_key(1)).expect("read"), Some(Flow::default()));
        assert_eq!(second.entry().info().expect("info").id, id, "the same program runs on");
        let names: Vec<_> = second.attachments().iter().map(|a| (a.interface_name(), a.mode)).collect();
        assert_eq!(names, [(Some("eth0".to_owned()), Mode::Native)]);
        drop(second);

        assert_eq!(detach_all(&pin).expect("remove"), 1);
        assert!(!pin.exists());
        assert_eq!(detach_all(&pin).expect("again"), 0);
    })
    .expect("inside");
}

#[test]
fn another_program_is_exchanged_without_detaching() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let bpffs = Bpffs::new();
    let pin = bpffs.path().join("sluice");
    let (one, other) = (NetNs::new("one").expect("namespace"), NetNs::new("two").expect("namespace"));
    one.veth("eth0", &other, "eth0").expect("veth");
    one.run(|| {
        let mut first = Datapath::open_pinned(&pin, &LIMITS).expect("make");
        first.attach("eth0").expect("attach");
        let old = first.entry().info().expect("info").id;
        drop(first);
        // Another program is pinned: as if an older version had left it.
        std::fs::remove_file(pin.join("programs/director")).expect("unpin");
        let mut second = Datapath::open_pinned(&pin, &LIMITS).expect("adopt");
        let new = second.entry().info().expect("info").id;
        assert_ne!(old, new);
        assert_eq!(second.attachments().len(), 1);
        // The kernel frees a program some time after its last user.
        let deadline = Instant::now() + Duration::from_secs(10);
        while kernel::holder_of(old).is_some() {
            assert!(Instant::now() < deadline, "the old program is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
        let index = second.attachments()[0].interface;
        assert!(second.detach(index).expect("detach"));
        assert!(!second.detach(index).expect("detach"));
        drop(second);
        detach_all(&pin).expect("remove");
    })
    .expect("inside");
}

#[test]
fn an_interface_in_use_is_refused_with_the_name_of_the_user() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let (one, other) = (NetNs::new("one").expect("namespace"), NetNs::new("two").expect("namespace"));
    one.veth("eth0", &other, "eth0").expect("veth");
    one.run(|| {
        let (link, mode) = kernel::attach_pass("eth0").expect("pass program");
        assert_eq!(mode, Mode::Native);
        let mut datapath = Datapath::load(&LIMITS).expect("load");
        let error = datapath.attach("eth0").expect_err("in use");
        assert!(matches!(error, AttachError::Busy { .. }), "{error:?}");
        drop(link);
        // A process that another test is just starting holds a copy of the link until its exec.
        let deadline = Instant::now() + Duration::from_secs(10);
        let attached = loop {
            match datapath.attach("eth0") {
                Err(AttachError::Busy { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                attached => break attached,
            }
        };
        attached.expect("free now");
        let id = datapath.entry().info().expect("info").id;
        let holder = kernel::holder_of(id).expect("still there");
        assert_eq!((holder.program.as_str(), holder.program_id), ("director", id));

        let error = datapath.attach("eth7").expect_err("no such interface");
        assert_eq!(error.to_string(), "there is no interface 'eth7'; there are: lo, eth0");
    })
    .expect("inside");
}

#[test]
fn an_interface_without_native_mode_falls_back() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let one = NetNs::new("one").expect("namespace");
    one.run(|| {
        let mut datapath = Datapath::load(&LIMITS).expect("load");
        // The loopback interface has no native XDP.
        assert_eq!(datapath.attach("lo").expect("attach"), Mode::Generic);
    })
    .expect("inside");
}

#[test]
fn other_limits_and_layouts_are_refused_and_change_nothing() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let bpffs = Bpffs::new();
    let pin = bpffs.path().join("sluice");
    let first = Datapath::open_pinned(&pin, &LIMITS).expect("make");
    let more = Limits { reals_max: 128, ..LIMITS };
    let error = Datapath::open_pinned(&pin, &more).expect_err("other limits");
    assert!(
        matches!(error, OpenError::Limit { limit: "reals_max", found: 64, wanted: 128, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("start with --reals-max 64, or"), "{error}");

    let settings = Settings { layout_version: 99, ..Settings::default() };
    first.tables().settings.put(0, &settings).expect("write");
    let error = Datapath::open_pinned(&pin, &LIMITS).expect_err("other layout");
    assert!(matches!(error, OpenError::Layout { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains("--remove"), "{error}");

    // A start that was cut off before its end is made anew.
    let settings = Settings { layout_version: 0, ..Settings::default() };
    first.tables().settings.put(0, &settings).expect("write");
    let second = Datapath::open_pinned(&pin, &LIMITS).expect("anew");
    assert!(!second.adopted());
    detach_all(&pin).expect("remove");
}

#[test]
fn a_directory_that_is_no_bpffs_is_refused() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let pin = directory.path().join("sluice");
    let error = Datapath::open_pinned(&pin, &LIMITS).expect_err("no bpffs");
    assert!(matches!(error, OpenError::Pin(PinError::NoBpffs { .. })), "{error:?}");
    assert!(!pin.exists());
}

#[test]
fn values_of_all_cpus_are_summed() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let datapath = Datapath::load(&LIMITS).expect("load");
    let verdicts = &datapath.tables().verdicts;
    verdicts.put_sum(3, &40).expect("write");
    verdicts.put_sum(63, &2).expect("write");
    let sums = verdicts.fold_range(2, 100, |a, b| a + b).expect("read");
    assert_eq!((sums.len(), sums[0], sums[1], sums[61]), (62, 0, 40, 2));
    let cpus = verdicts.get(3).expect("read");
    assert_eq!(cpus.iter().sum::<u64>(), 40);
    assert!(verdicts.get(64).expect("read").is_empty());
}

#[test]
fn an_interface_that_goes_and_comes_back_is_attached_anew() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let bpffs = Bpffs::new();
    let pin = bpffs.path().join("sluice");
    let (one, other) = (NetNs::new("one").expect("namespace"), NetNs::new("two").expect("namespace"));
    one.veth("eth0", &other, "eth0").expect("veth");
    let mut datapath = one
        .run(|| {
            let mut datapath = Datapath::open_pinned(&pin, &LIMITS).expect("make");
            datapath.attach("eth0").expect("attach");
            datapath
        })
        .expect("inside");
    assert_eq!(datapath.forget_gone().expect("nothing gone"), 0);
    one.ip("link del eth0").expect("delete");
    assert_eq!(datapath.forget_gone().expect("one gone"), 1);
    assert!(datapath.attachments().is_empty());
    one.veth("eth0", &other, "eth0").expect("veth");
    one.run(|| datapath.attach("eth0").expect("attach again")).expect("inside");
    drop(datapath);
    assert_eq!(detach_all(&pin).expect("remove"), 1);
}
