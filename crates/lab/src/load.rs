//! An HTTP load generator: one thread in the client's namespace, many connections.
//!
//! It counts what a user would notice: requests answered, requests failed, which server answered, how long it
//! took. It is paced, so that client, director and servers can share a small machine. For the highest rate
//! use `wrk` instead.

use crate::http::{Connection, RequestError};
use host::Namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// A request without an answer for so long has failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Texts of the first failures kept.
const FAILURES_KEPT: usize = 5;
/// Latencies kept for the percentiles; later ones overwrite the oldest.
const LATENCIES_MAX: usize = 1 << 16;

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMode {
    /// A connection for each request.
    NewConnection,
    /// One connection for each worker, opened again only when it breaks.
    KeepAlive,
}

/// What load to make.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where to.
    pub target: SocketAddr,
    /// How connections are used.
    pub mode: LoadMode,
    /// Workers, each with one request under way at most.
    pub workers: u32,
    /// Requests a second of all workers together.
    pub rate_per_s: u32,
    /// Requests at most.
    pub requests_max: u64,
    /// Time at most.
    pub duration_max: Duration,
}

impl LoadOptions {
    /// A modest load of new connections on `target`.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            mode: LoadMode::NewConnection,
            workers: 8,
            rate_per_s: 200,
            requests_max: 1_000_000,
            duration_max: Duration::from_secs(300),
        }
    }
}

/// What became of the requests so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadStats {
    /// Requests answered rightly.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The first failures in words.
    pub failures: Vec<String>,
    /// Requests answered by each server.
    pub share: BTreeMap<String, u64>,
    /// Median time to the whole answer, connection included, in microseconds.
    pub p50_us: u32,
    /// 99th percentile of the same.
    pub p99_us: u32,
}

impl LoadStats {
    /// What happened after `earlier`. The percentiles stay those of the whole time.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let share = self.share.iter().filter_map(|(name, count)| {
            let delta = count - earlier.share.get(name).copied().unwrap_or(0).min(*count);
            (delta > 0).then(|| (name.clone(), delta))
        });
        Self {
            answered: self.answered.saturating_sub(earlier.answered),
            failed: self.failed.saturating_sub(earlier.failed),
            failures: self.failures.iter().skip(earlier.failures.len()).cloned().collect(),
            share: share.collect(),
            p50_us: self.p50_us,
            p99_us: self.p99_us,
        }
    }

    /// Part of the answers that came from `server`, 0 to 1.
    #[must_use]
    pub fn part_of(&self, server: &str) -> f64 {
        let count = self.share.get(server).copied().unwrap_or(0);
        if self.answered == 0 { 0.0 } else { count as f64 / self.answered as f64 }
    }
}

#[derive(Debug, Default)]
struct Tally {
    stats: LoadStats,
    latencies_us: Vec<u32>,
    started: u64,
    /// Numbers of the requests under way.
    under_way: BTreeSet<u64>,
}

impl Tally {
    /// Counts a request that begins; gives its number, or nothing after `most` of them.
    fn begin(&mut self, most: u64) -> Option<u64> {
        if self.started >= most {
            return None;
        }
        let number = self.started;
        self.started += 1;
        self.under_way.insert(number);
        Some(number)
    }

    /// Whether every request with a number below `number` has ended.
    fn ended_below(&self, number: u64) -> bool {
        self.under_way.first().is_none_or(|oldest| *oldest >= number)
    }

    fn answered(&mut self, server: String, took: Duration) {
        let position = usize::try_from(self.stats.answered).unwrap_or(0) % LATENCIES_MAX;
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        match self.latencies_us.get_mut(position) {
            Some(old) => *old = micros,
            None => self.latencies_us.push(micros),
        }
        self.stats.answered += 1;
        *self.stats.share.entry(server).or_default() += 1;
    }

    fn failed(&mut self, error: &RequestError) {
        self.stats.failed += 1;
        if self.stats.failures.len() < FAILURES_KEPT {
            self.stats.failures.push(runtime::Chain(error).to_string());
        }
    }

    fn summary(&self) -> LoadStats {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let position = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(position).copied().unwrap_or(0)
        };
        LoadStats { p50_us: at(50), p99_us: at(99), ..self.stats.clone() }
    }
}

/// A moment of a load, in requests begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadMark(u64);

/// The numbers of a running load, for whoever wants to look; cheap to clone.
#[derive(Clone, Debug)]
pub struct LoadWatch(Arc<Mutex<Tally>>);

impl LoadWatch {
    /// What became of the requests so far.
    #[must_use]
    pub fn stats(&self) -> LoadStats {
        self.tally().summary()
    }

    /// A mark for [`Self::is_past`]: what begins from now on comes after it.
    #[must_use]
    pub fn mark(&self) -> LoadMark {
        LoadMark(self.tally().started)
    }

    /// Whether every request that began before the mark has ended.
    #[must_use]
    pub fn is_past(&self, mark: LoadMark) -> bool {
        self.tally().ended_below(mark.0)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A worker that panicked leaves whole numbers behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running load; stopped and waited for when dropped.
#[derive(Debug)]
pub struct LoadHandle {
    watch: LoadWatch,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LoadHandle {
    /// Starts a load from inside `namespace`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(namespace: &Namespace, options: LoadOptions) -> std::io::Result<Self> {
        let watch = LoadWatch(Arc::default());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (namespace, watch, stop) = (namespace.clone(), watch.clone(), Arc::clone(&stop));
            std::thread::Builder::new().name("load".to_owned()).spawn(move || {
                if let Err(error) = in_namespace(&namespace, generate(options, watch.clone(), stop)) {
                    let mut tally = watch.tally();
                    tally.stats.failed += 1;
                    tally.stats.failures.push(error);
                }
            })?
        };
        Ok(Self { watch, stop, thread: Some(thread) })
    }

    /// What became of the requests so far.
    #[must_use]
    pub fn stats(&self) -> LoadStats {
        self.watch.stats()
    }

    /// The numbers for another thread to look at.
    #[must_use]
    pub fn watch(&self) -> LoadWatch {
        self.watch.clone()
    }

    /// Sends no further request, waits for those under way, and gives the final numbers.
    #[must_use]
    pub fn stop(mut self) -> LoadStats {
        self.end();
        self.watch.stats()
    }

    /// Waits until the load has ended by its own bounds.
    #[must_use]
    pub fn wait(mut self) -> LoadStats {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.watch.stats()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for LoadHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Moves this thread into a namespace and runs a future to its end there.
pub(crate) fn in_namespace<T>(namespace: &Namespace, work: impl Future<Output = T>) -> Result<T, String> {
    namespace.enter().map_err(|error| runtime::Chain(&error).to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    Ok(runtime.block_on(work))
}

async fn generate(options: LoadOptions, watch: LoadWatch, stop: Arc<AtomicBool>) {
    let options = Arc::new(options);
    let started = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..options.workers.max(1) {
        workers.spawn(work(number, Arc::clone(&options), watch.clone(), Arc::clone(&stop), started));
    }
    while workers.join_next().await.is_some() {}
}

async fn work(
    number: u32,
    options: Arc<LoadOptions>,
    watch: LoadWatch,
    stop: Arc<AtomicBool>,
    started: Instant,
) {
    let workers = options.workers.max(1);
    let pause = Duration::from_secs(1) * workers / options.rate_per_s.max(1);
    // The workers take turns instead of sending all at once.
    let first = tokio::time::Instant::now() + pause * number / workers;
    let mut turn = tokio::time::interval_at(first, pause);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        turn.tick().await;
        if stop.load(Ordering::Relaxed) || started.elapsed() > options.duration_max {
            return;
        }
        let Some(number) = watch.tally().begin(options.requests_max) else { return };
        let begun = Instant::now();
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, request(&options, &mut connection)).await;
        let mut tally = watch.tally();
        tally.under_way.remove(&number);
        match asked.unwrap_or(Err(RequestError::Late(REQUEST_TIMEOUT))) {
            Ok(server) => tally.answered(server, begun.elapsed()),
            Err(error) => {
                connection = None;
                tally.failed(&error);
            }
        }
    }
}

async fn request(options: &LoadOptions, kept: &mut Option<Connection>) -> Result<String, RequestError> {
    let mut connection = match kept.take() {
        Some(connection) if connection.is_usable() => connection,
        _ => Connection::open(options.target).await?,
    };
    let close = options.mode == LoadMode::NewConnection;
    let name = connection.get_name(close).await?;
    if !close {
        *kept = Some(connection);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_kept_latencies() {
        let mut tally = Tally::default();
        for millis in 1..=100 {
            tally.answered("real1".to_owned(), Duration::from_millis(millis));
        }
        let stats = tally.summary();
        assert_eq!((stats.p50_us, stats.p99_us), (51_000, 100_000));
        assert_eq!(Tally::default().summary(), LoadStats::default());
    }

    #[test]
    fn a_mark_is_past_once_all_before_it_have_ended() {
        let watch = LoadWatch(Arc::default());
        assert!(watch.is_past(watch.mark()), "nothing is under way");
        assert_eq!(watch.tally().begin(3), Some(0));
        assert_eq!(watch.tally().begin(3), Some(1));
        let mark = watch.mark();
        assert_eq!(watch.tally().begin(3), Some(2));
        assert_eq!(watch.tally().begin(3), None);
        watch.tally().under_way.remove(&1);
        assert!(!watch.is_past(mark), "the first one is still under way");
        watch.tally().under_way.remove(&0);
        assert!(watch.is_past(mark), "the last one began after the mark");
    }

    #[test]
    fn the_difference_of_two_readings() {
        let share = |pairs: &[(&str, u64)]| pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
        let earlier = LoadStats { answered: 10, share: share(&[("a", 4), ("b", 6)]), ..LoadStats::default() };
        let later = LoadStats {
            answered: 16,
            failed: 1,
            share: share(&[("a", 4), ("b", 9), ("c", 3)]),
            ..LoadStats::default()
        };
        let between = later.since(&earlier);
        assert_eq!((between.answered, between.failed), (6, 1));
        assert_eq!(between.share, share(&[("b", 3), ("c", 3)]));
        assert!((between.part_of("b") - 0.5).abs() < 1e-9);
        assert!(LoadStats::default().part_of("b").abs() < 1e-9);
    }
}
