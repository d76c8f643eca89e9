//! Captures: packets with what became of them, as a stream in the pcapng format.
//!
//! ```text
//! claim (one at a time) -> load programs that record -> exchange them -> records -> pcapng -> client
//!                                                       exchange back <- end, time, count, or client gone
//! ```
//!
//! Loading takes as long as a start, so it is done beside the owner; only the exchange is its. Records that nobody reads in time are
//! counted by the kernel and told in the file's last block.

use crate::actor::{Director, log_error};
use crate::convert::address;
use crate::messages::{Mailbox, Request};
use abi::{CAPTURE_NO_REAL, CaptureNetwork, CaptureRecord, CaptureSettings, Limits, Verdict};
use api::{CaptureRequest, Refusal, RefusalKind, SNAPLEN_MAX};
use axum::body::Bytes;
use futures_util::FutureExt as _;
use ipnet::IpNet;
use kernel::{Capture, CaptureReader};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Between two looks for records. The kernel's buffer holds what comes meanwhile.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// Records turned into text at a time.
const BATCH: usize = 1024;
/// Pieces of the file that wait for the client.
pub(crate) const PIECES_MAX: usize = 16;
/// How long names of real servers are believed.
const NAMES_PERIOD: Duration = Duration::from_secs(1);
/// How long the last piece may take to be fetched, and how long programs are kept after they were exchanged: a packet may
/// still be inside one.
const END_PERIOD: Duration = Duration::from_secs(2);

/// Whether a capture runs, and the word to end it.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    busy: AtomicBool,
    end: Notify,
}

/// The right to capture; given back on drop.
#[derive(Debug)]
pub(crate) struct Claim {
    switch: Arc<Switch>,
    limits: Limits,
    maps: Option<PathBuf>,
    settings: CaptureSettings,
    request: CaptureRequest,
}

impl Switch {
    /// Whether a capture runs, or is about to.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Whether nobody captures; from here on somebody does.
    fn claim(&self) -> bool {
        if self.busy.swap(true, Ordering::Acquire) {
            return false;
        }
        // A word to end that came when the one before was ending already must not end this one.
        let _ = self.end.notified().now_or_never();
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.switch.busy.store(false, Ordering::Release);
    }
}

impl Director {
    /// Gives the right to capture to one client at a time.
    pub(crate) fn claim_capture(&self, request: CaptureRequest) -> Result<Claim, Refusal> {
        let settings = settings(&request)?;
        if !self.capture.claim() {
            let text = "somebody else captures packets now, and one can at a time: wait for the end, or end it with `sluice capture --end'";
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        let (limits, maps) = (*self.datapath.limits(), self.datapath.pinned_maps());
        Ok(Claim { switch: Arc::clone(&self.capture), limits, maps, settings, request })
    }

    pub(crate) fn begin_capture(&mut self, capture: Capture) -> Result<(), Refusal> {
        self.datapath.begin_capture(capture).map_err(|error| refusal(&error))?;
        tracing::info!("packets are recorded now");
        Ok(())
    }

    /// Gives back the programs that recorded.
    pub(crate) fn end_capture(&mut self) -> Result<Option<Capture>, Refusal> {
        let ended = self.datapath.end_capture().map_err(|error| refusal(&error))?;
        tracing::info!("packets are not recorded any more");
        Ok(ended)
    }

    /// Tells the capture that runs to end. `false` if there is none.
    pub(crate) fn stop_capture(&self) -> bool {
        let runs = self.capture.is_busy();
        if runs {
            self.capture.end.notify_one();
        }
        runs
    }

    /// Real servers by index, as a person would write them.
    pub(crate) fn real_names(&self, indices: &BTreeSet<u32>) -> BTreeMap<u32, String> {
        let name = |index: u32| {
            let real = self.tables.reals.get(&index).copied().unwrap_or_default();
            let method = match real.method {
                abi::METHOD_MASQUERADE => "NAT",
                abi::METHOD_TUNNEL => "tunnel",
                abi::METHOD_BYPASS => "bypass",
                _ => "direct",
            };
            match self.layout.identify(index) {
                Some(it) if it.present => format!("{} of {} ({method})", it.real, it.service),
                Some(it) => format!("{} of {} ({method}, deleted)", it.real, it.service),
                None => format!("{} ({method}, deleted)", crate::convert::ip(&real.address)),
            }
        };
        indices.iter().map(|index| (*index, name(*index))).collect()
    }
}

fn refusal(error: &(dyn std::error::Error + 'static)) -> Refusal {
    log_error("a capture failed", error);
    Refusal::new(RefusalKind::Kernel, runtime::Chain(error).to_string())
}

/// What is asked for, in the terms of the packet path.
fn settings(request: &CaptureRequest) -> Result<CaptureSettings, Refusal> {
    let range = |name: &str, value: u64, most: u64| {
        let text = || format!("{name} is {value}: give 1 to {most}");
        if (1..=most).contains(&value) { Ok(()) } else { Err(Refusal::new(RefusalKind::OutOfRange, text())) }
    };
    range("one_of", request.one_of.into(), u32::MAX.into())?;
    range("per_second_max", request.per_second_max.into(), u32::MAX.into())?;
    range("snaplen", request.snaplen.into(), SNAPLEN_MAX.into())?;
    range("count", request.count.unwrap_or(1), u64::MAX)?;
    range("seconds", request.seconds.unwrap_or(1), u32::MAX.into())?;
    let mut verdicts = if request.verdicts.is_empty() { u64::MAX } else { 0 };
    for name in &request.verdicts {
        let found = Verdict::ALL.into_iter().find(|verdict| verdict.name() == name);
        let text = || format!("there is no verdict `{name}': `sluice verdicts' lists them");
        let found = found.ok_or_else(|| Refusal::new(RefusalKind::Invalid, text()))?;
        verdicts |= 1 << found.number();
    }
    Ok(CaptureSettings {
        verdicts,
        client: request.client.map(network).unwrap_or_default(),
        vip: request.vip.map(IpNet::from).map(network).unwrap_or_default(),
        bytes_max: request.snaplen,
        one_of: request.one_of,
        per_second_max: request.per_second_max,
        as_it_came: request.as_it_came.into(),
    })
}

fn network(network: IpNet) -> CaptureNetwork {
    let mask = match network.netmask() {
        // The words before the address say that it is one of IPv4, and count.
        IpAddr::V4(mask) => {
            let [.., last] = abi::Address::v4(mask.octets()).0;
            abi::Address([u32::MAX, u32::MAX, u32::MAX, last])
        }
        IpAddr::V6(mask) => abi::Address::v6(mask.octets()),
    };
    CaptureNetwork { address: address(network.network()), mask }
}

/// Loads the programs, exchanges them, and starts to write. The receiver gets the file piece by piece.
///
/// # Errors
/// A refusal; nothing is recorded then.
pub(crate) async fn start(mailbox: Mailbox, claim: Claim) -> Result<mpsc::Receiver<Bytes>, Refusal> {
    let loading = tokio::task::spawn_blocking(move || {
        let loaded = Capture::load(&claim.limits, claim.maps.as_deref(), &claim.settings);
        (loaded, claim)
    });
    let (loaded, claim) = loading.await.map_err(|error| refusal(&error))?;
    let (capture, reader) = loaded.map_err(|error| refusal(&error))?;
    let mut file = File::begin(&claim.request).map_err(|error| refusal(&error))?;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let _ = sender.try_send(file.take());
    let recording = Recording { mailbox, claim, reader, file, sender, left: u64::MAX };
    tokio::spawn(recording.run(capture));
    Ok(receiver)
}

/// A capture that runs.
struct Recording {
    mailbox: Mailbox,
    claim: Claim,
    reader: CaptureReader,
    file: File,
    sender: mpsc::Sender<Bytes>,
    /// Packets that are still wanted.
    left: u64,
}

impl Recording {
    async fn run(mut self, capture: Capture) {
        self.left = self.claim.request.count.unwrap_or(u64::MAX);
        let began = self.mailbox.ask(|reply| Request::CaptureBegin(Box::new(capture), reply)).await;
        if let Err(refusal) = &began {
            self.file.comment = Some(refusal.message.clone());
        } else {
            self.record().await;
        }
        let ended = self.mailbox.ask(Request::CaptureEnd).await;
        // What came until then belongs to it too.
        while self.left > 0 && self.read().await > 0 {}
        let counts = self.reader.counts().unwrap_or_default();
        let Self { claim, mut file, sender, .. } = self;
        if let Err(error) = file.end(counts.matched, counts.limited, counts.lost) {
            log_error("the end of a capture could not be written", &error);
        }
        let last = file.take();
        // Before the client sees the end: it may begin the next one at once.
        drop(claim);
        let _ = timeout(END_PERIOD, sender.send(last)).await;
        drop(sender);
        tokio::time::sleep(END_PERIOD).await;
        drop(ended);
    }

    /// Until it is over, for whatever reason.
    async fn record(&mut self) {
        let seconds = self.claim.request.seconds.map(Duration::from_secs);
        let until = seconds.map(|seconds| Instant::now() + seconds);
        let mut looks = interval(LOOK_PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let switch = Arc::clone(&self.claim.switch);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = switch.end.notified() => return,
                () = self.sender.closed() => return,
            }
            if self.mailbox.is_closed() || until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            self.read().await;
            let piece = self.file.take();
            if piece.is_empty() {
                continue;
            }
            // A client that does not read: records are lost and counted meanwhile, but its time goes on.
            tokio::select! {
                sent = self.sender.send(piece) => if sent.is_err() { return },
                () = switch.end.notified() => return,
                () = sleep_until(until) => return,
            }
            if self.left == 0 {
                return;
            }
        }
    }

    /// Writes a batch of records. Gives their number.
    async fn read(&mut self) -> usize {
        let mut batch = Vec::new();
        while batch.len() < BATCH && self.left > 0 {
            let Some(record) = self.reader.take() else { break };
            batch.push(record);
            self.left -= 1;
        }
        if batch.is_empty() {
            return 0;
        }
        let reals = batch.iter().map(|(record, _)| record.real).filter(|real| *real != CAPTURE_NO_REAL);
        let unknown = self.file.unknown(reals.collect());
        if !unknown.is_empty()
            && let Ok(names) = self.mailbox.ask(|reply| Request::RealNames(unknown, reply)).await
        {
            self.file.reals.extend(names);
        }
        for (record, frame) in &batch {
            if let Err(error) = self.file.packet(record, frame) {
                log_error("a packet could not be written", &error);
            }
        }
        batch.len()
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The file so far, and what its words are made of.
struct File {
    writer: PcapNgWriter<Vec<u8>>,
    snaplen: u32,
    /// Numbers in the file by index of the interface.
    interfaces: BTreeMap<u32, u32>,
    interface_names: BTreeMap<u32, String>,
    reals: BTreeMap<u32, String>,
    named: Instant,
    /// What the monotonic clock's zero was.
    epoch: Duration,
    comment: Option<String>,
}

type Written = Result<(), pcap_file::PcapError>;

impl File {
    fn begin(request: &CaptureRequest) -> Result<Self, pcap_file::PcapError> {
        let application = format!("sluice {}", env!("CARGO_PKG_VERSION"));
        let header = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..SectionHeaderBlock::default()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            writer: PcapNgWriter::with_section_header(Vec::new(), header)?,
            snaplen: request.snaplen,
            interfaces: BTreeMap::new(),
            interface_names: kernel::interface_names(),
            reals: BTreeMap::new(),
            named: Instant::now(),
            epoch: now.saturating_sub(runtime::clock::monotonic()),
            comment: None,
        })
    }

    /// What was written since the last time.
    fn take(&mut self) -> Bytes {
        std::mem::take(self.writer.get_mut()).into()
    }

    /// Those of these real servers whose names are not known, or not any more.
    fn unknown(&mut self, mut reals: BTreeSet<u32>) -> BTreeSet<u32> {
        if self.named.elapsed() > NAMES_PERIOD {
            self.named = Instant::now();
            self.reals.clear();
            self.interface_names = kernel::interface_names();
        }
        reals.retain(|real| !self.reals.contains_key(real));
        reals
    }

    fn interface_name(&self, index: u32) -> String {
        self.interface_names.get(&index).cloned().unwrap_or_else(|| format!("interface {index}"))
    }

    /// The number of an interface in the file.
    fn interface(&mut self, index: u32) -> Result<u32, pcap_file::PcapError> {
        const NANOSECONDS: u8 = 9;
        if let Some(number) = self.interfaces.get(&index) {
            return Ok(*number);
        }
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let options = vec![
            InterfaceDescriptionOption::IfName(self.interface_name(index).into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        let linktype = DataLink::ETHERNET;
        let block = InterfaceDescriptionBlock { linktype, snaplen: self.snaplen, options };
        self.writer.write_pcapng_block(block)?;
        self.interfaces.insert(index, number);
        Ok(number)
    }

    fn packet(&mut self, record: &CaptureRecord, frame: &[u8]) -> Written {
        /// What pcapng calls inbound and outbound.
        const DIRECTIONS: [u32; 2] = [1, 2];
        let interface_id = self.interface(record.ingress)?;
        let [inbound, outbound] = DIRECTIONS;
        let direction = if record.egress == 0 { inbound } else { outbound };
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: self.epoch + Duration::from_nanos(record.time_ns),
            original_len: record.length,
            data: frame.into(),
            options: vec![
                EnhancedPacketOption::Comment(self.comment_on(record).into()),
                EnhancedPacketOption::Flags(direction),
            ],
        };
        self.writer.write_pcapng_block(block).map(|_| ())
    }

    /// `VERDICT: sentence; real server R of S (method); leaves by I`.
    fn comment_on(&self, record: &CaptureRecord) -> String {
        let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.number() == record.verdict);
        let mut text = match verdict {
            Some(verdict) => format!("{}: {}", verdict.name(), verdict.sentence()),
            None => format!("verdict {}", record.verdict),
        };
        if let Some(real) = self.reals.get(&record.real) {
            text += &format!("; real server {real}");
        }
        if record.egress != 0 {
            text += &format!("; leaves by {}", self.interface_name(record.egress));
        }
        text
    }

    /// The last block: packets that matched, those beyond the limit, and those that were lost.
    fn end(&mut self, matched: u64, limited: u64, lost: u64) -> Written {
        // Without an interface there is nothing to say something about.
        let loopback = 1;
        let interface_id = match self.interfaces.values().next() {
            Some(number) => *number,
            None => self.interface(loopback)?,
        };
        let now = self.epoch + runtime::clock::monotonic();
        let mut options = vec![
            InterfaceStatisticsOption::IsbIfRecv(matched),
            InterfaceStatisticsOption::IsbIfDrop(limited),
            InterfaceStatisticsOption::IsbOsDrop(lost),
        ];
        if let Some(comment) = &self.comment {
            options.insert(0, InterfaceStatisticsOption::Comment(comment.as_str().into()));
        }
        // The format wants the upper half first, whatever the order of the bytes.
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let block =
            InterfaceStatisticsBlock { interface_id, timestamp: nanoseconds.rotate_left(32), options };
        self.writer.write_pcapng_block(block).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_to_end_that_came_too_late_does_not_end_the_next_capture() {
        let switch = Switch::default();
        assert!(switch.claim() && !switch.claim());
        // Nobody waits for it: the capture is ending by itself.
        switch.end.notify_one();
        switch.busy.store(false, Ordering::Release);
        assert!(switch.claim());
        assert!(switch.end.notified().now_or_never().is_none());
        // One that comes while the programs are loaded counts.
        switch.end.notify_one();
        assert!(switch.end.notified().now_or_never().is_some());
    }
}
