//! Programs that record packets, against the running kernel: what they record, and that they take the place of the others and give
//! it back. Needs root.

use abi::{Address, CAPTURE_NO_REAL, CaptureNetwork, CaptureSettings, Limits, Verdict};
use kernel::{Capture, CaptureReader, Datapath, detach_all};
use testkit::netns::NetNs;

const LIMITS: Limits = Limits {
    services_max: 16,
    reals_max: 64,
    slots_max: 8192,
    embryonic_flows_max: 1024,
    established_flows_max: 1024,
    templates_max: 100,
    fragments_max: 1024,
    affinities_max: 64,
    networks_max: 64,
    clients_max: 64,
};

const ALL: CaptureSettings = CaptureSettings {
    verdicts: u64::MAX,
    client: CaptureNetwork { address: Address([0; 4]), mask: Address([0; 4]) },
    vip: CaptureNetwork { address: Address([0; 4]), mask: Address([0; 4]) },
    bytes_max: 64,
    one_of: 1,
    per_second_max: u32::MAX,
    as_it_came: 0,
};

/// A bpffs mounted on a temporary directory, unmounted on drop.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path();
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("bpf"), path, Some("bpf"), none, None::<&str>).expect("mount a bpffs");
        Self(directory)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// An IPv4 packet of UDP from 198.51.100.7 to 192.0.2.9, which is no VIP, with so many bytes in all.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![2; len];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 7, 192, 0, 2, 9]);
    frame[16..18].copy_from_slice(&u16::try_from(len - 14).expect("short").to_be_bytes());
    frame
}

fn load(datapath: &Datapath, settings: &CaptureSettings) -> (Capture, CaptureReader) {
    Capture::load(&LIMITS, datapath.pinned_maps().as_deref(), settings).expect("programs that record")
}

#[test]
fn a_record_has_the_verdict_and_the_beginning_of_the_frame() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let bpffs = Bpffs::new();
    let pins = bpffs.0.path().join("sluice");
    let datapath = Datapath::open_pinned(&pins, &LIMITS).expect("the packet path");
    for as_it_came in [0, 1] {
        let (capture, mut reader) = load(&datapath, &CaptureSettings { as_it_came, ..ALL });
        for len in [60, 64, 65, 1500] {
            let frame = frame(len);
            let run = capture.entry().test_run(&frame, 1).expect("test run");
            assert_eq!((run.action, &run.packet), (2, &frame), "it passes as it is");
            let (record, bytes) = reader.take().expect("a record");
            let verdict = Verdict::PassNotVip.number();
            // A test run comes by the loopback interface.
            assert_eq!((record.verdict, record.ingress, record.egress), (verdict, 1, 0));
            assert_eq!((record.real, record.length as usize), (CAPTURE_NO_REAL, len));
            assert_eq!(bytes, frame[..len.min(64)]);
            assert!(record.time_ns > 0);
            assert_eq!(reader.take(), None);
        }
        let counts = reader.counts().expect("counts");
        assert_eq!((counts.matched, counts.limited, counts.lost), (4, 0, 0));
    }
    // Counted as ever, over the same tables.
    let verdicts = datapath.tables().verdicts.fold_range(0, 64, |a, b| a + b).expect("verdicts");
    assert_eq!(verdicts[Verdict::PassNotVip.number() as usize], 8);
    drop(datapath);
    detach_all(&pins).expect("remove");
}

#[test]
fn what_is_not_wanted_is_not_recorded_and_what_is_too_much_is_counted() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let bpffs = Bpffs::new();
    let pins = bpffs.0.path().join("sluice");
    let datapath = Datapath::open_pinned(&pins, &LIMITS).expect("the packet path");
    let network = |address: [u8; 4], bits: u32| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be();
        let Address([a, b, c, d]) = Address::v4(address);
        CaptureNetwork {
            address: Address([a, b, c, d & mask]),
            mask: Address([u32::MAX, u32::MAX, u32::MAX, mask]),
        }
    };
    let recorded = |settings: CaptureSettings, repeat: u32| {
        let (capture, mut reader) = load(&datapath, &settings);
        capture.entry().test_run(&frame(60), repeat).expect("test run");
        let records = std::iter::from_fn(|| reader.take()).count();
        (records, reader.counts().expect("counts"))
    };
    let other = !(1 << Verdict::PassNotVip.number());
    for (settings, expected) in [
        (CaptureSettings { verdicts: !other, ..ALL }, 1),
        (CaptureSettings { verdicts: other, ..ALL }, 0),
        (CaptureSettings { client: network([198, 51, 100, 0], 24), ..ALL }, 1),
        (CaptureSettings { client: network([192, 0, 2, 9], 32), ..ALL }, 1),
        (CaptureSettings { client: network([198, 51, 101, 0], 24), ..ALL }, 0),
        (CaptureSettings { client: network([0, 0, 0, 0], 0), vip: network([192, 0, 2, 9], 32), ..ALL }, 1),
        (
            CaptureSettings {
                client: network([198, 51, 100, 7], 32),
                vip: network([192, 0, 2, 8], 32),
                ..ALL
            },
            0,
        ),
    ] {
        let (records, counts) = recorded(settings, 1);
        assert_eq!((records, counts.matched), (expected, expected as u64), "{settings:?}");
    }
    let (records, counts) = recorded(CaptureSettings { one_of: 10, ..ALL }, 95);
    assert_eq!((records, counts.matched, counts.limited), (9, 95, 0));
    // Two seconds may have been begun.
    let (records, counts) = recorded(CaptureSettings { per_second_max: 5, ..ALL }, 95);
    assert!(records == 5 || records == 10, "{records}");
    assert_eq!((counts.limited, counts.lost), (95 - records as u64, 0));
    // 8 MiB of records that nobody reads.
    let (records, counts) = recorded(CaptureSettings { bytes_max: 60, ..ALL }, 200_000);
    assert!(records > 50_000 && counts.lost > 0, "{records}");
    assert_eq!(records as u64 + counts.lost, 200_000);
    drop(datapath);
    detach_all(&pins).expect("remove");
}

#[test]
fn they_take_the_place_of_the_others_and_give_it_back() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let bpffs = Bpffs::new();
    let pins = bpffs.0.path().join("sluice");
    let (one, other) = (NetNs::new("one").expect("namespace"), NetNs::new("two").expect("namespace"));
    one.veth("eth0", &other, "eth0").expect("veth");
    let attached = || {
        // A child of this thread, so in its namespace.
        let shown = std::process::Command::new("ip").args(["-details", "link", "show", "eth0"]).output();
        let link = String::from_utf8(shown.expect("ip").stdout).expect("text");
        let id = link
            .split_once("prog/xdp id ")
            .and_then(|(_, behind)| behind.split_whitespace().next()?.parse().ok());
        id.expect("a program")
    };
    let leftover = pins.join("maps/PROGRAMS_next");
    one.run(|| {
        let mut datapath = Datapath::open_pinned(&pins, &LIMITS).expect("make");
        datapath.attach("eth0").expect("attach");
        let normal = datapath.entry().info().expect("info").id;
        for _ in 0..2 {
            let (capture, _reader) = load(&datapath, &ALL);
            let recording = capture.entry().info().expect("info").id;
            datapath.begin_capture(capture).expect("begin");
            assert_eq!((attached(), leftover.exists()), (recording, true));
            assert!(datapath.end_capture().expect("end").is_some());
            assert_eq!((attached(), leftover.exists()), (normal, false));
            assert!(datapath.end_capture().expect("nothing to end").is_none());
        }
        // One that goes while it captures gives the place back too.
        let (capture, _reader) = load(&datapath, &ALL);
        datapath.begin_capture(capture).expect("begin");
        drop(datapath);
        assert_eq!((attached(), leftover.exists()), (normal, false));
        // One that is killed does not; the next one does.
        let mut datapath = Datapath::open_pinned(&pins, &LIMITS).expect("adopt");
        let (capture, _reader) = load(&datapath, &ALL);
        let recording: u32 = capture.entry().info().expect("info").id;
        datapath.begin_capture(capture).expect("begin");
        std::mem::forget(datapath);
        assert_eq!((attached(), leftover.exists()), (recording, true));
        let datapath = Datapath::open_pinned(&pins, &LIMITS).expect("adopt");
        assert_eq!((attached(), leftover.exists()), (datapath.entry().info().expect("info").id, false));
        drop(datapath);
        detach_all(&pins).expect("remove");
    })
    .expect("inside");
}
