//! Long downloads: open connections whose every byte is checked, to see whether something cuts or spoils
//! them.

use crate::http::{Connection, RequestError};
use crate::load::in_namespace;
use crate::nginx::{SLOW_BYTES, slow_byte};
use host::Namespace;
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No byte for so long is a failure.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How far one download is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadProgress {
    /// Who sends it, once known.
    pub server: Option<String>,
    /// Bytes received, all as they should be.
    pub bytes: usize,
    /// How it ended: `Ok` when complete.
    pub outcome: Option<Result<(), String>>,
}

type Shared = Arc<Mutex<Vec<DownloadProgress>>>;

/// Downloads under way on a thread of their own.
#[derive(Debug)]
pub struct Downloads {
    shared: Shared,
    cancel: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Downloads {
    /// Starts `count` downloads of [`SLOW_BYTES`] at `rate` bytes a second each, from inside `namespace`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        namespace: &Namespace,
        target: SocketAddr,
        count: usize,
        rate: u32,
    ) -> std::io::Result<Self> {
        let shared: Shared = Arc::new(Mutex::new(vec![DownloadProgress::default(); count]));
        let (cancel, cancelled) = tokio::sync::oneshot::channel();
        let thread = {
            let (namespace, shared) = (namespace.clone(), Arc::clone(&shared));
            std::thread::Builder::new().name("downloads".to_owned()).spawn(move || {
                let all = all(target, rate, Arc::clone(&shared));
                let work = async {
                    tokio::select! {
                        () = all => {}
                        _ = cancelled => {}
                    }
                };
                if let Err(error) = in_namespace(&namespace, work) {
                    for one in lock(&shared).iter_mut() {
                        one.outcome = Some(Err(error.clone()));
                    }
                }
            })?
        };
        Ok(Self { shared, cancel: Some(cancel), thread: Some(thread) })
    }

    /// How far they are.
    #[must_use]
    pub fn progress(&self) -> Vec<DownloadProgress> {
        lock(&self.shared).clone()
    }

    /// Whether each has received something or has ended.
    #[must_use]
    pub fn all_begun(&self) -> bool {
        lock(&self.shared).iter().all(|one| one.bytes > 0 || one.outcome.is_some())
    }

    /// Whether each has ended.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        lock(&self.shared).iter().all(|one| one.outcome.is_some())
    }

    /// Waits until `done` says so, at most `patience`; gives whether it did.
    #[must_use]
    pub fn wait_until(&self, done: impl Fn(&Self) -> bool, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !done(self) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.cancel = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Vec<DownloadProgress>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn all(target: SocketAddr, rate: u32, shared: Shared) {
    let mut tasks = tokio::task::JoinSet::new();
    let count = lock(&shared).len();
    for number in 0..count {
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let outcome = one(target, rate, number, &shared).await;
            let outcome = outcome.map_err(|error| runtime::Chain(&error).to_string());
            if let Some(progress) = lock(&shared).get_mut(number) {
                progress.outcome = Some(outcome);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn one(target: SocketAddr, rate: u32, number: usize, shared: &Shared) -> Result<(), RequestError> {
    let begin = async {
        let mut connection = Connection::open(target).await?;
        let answer = connection.get(&format!("/slow?rate={rate}"), true).await?;
        Ok((connection, answer))
    };
    let begun = tokio::time::timeout(SILENCE_MAX, begin).await;
    let (_connection, (server, response)) = begun.unwrap_or(Err(RequestError::Late(SILENCE_MAX)))?;
    if let Some(progress) = lock(shared).get_mut(number) {
        progress.server = Some(server);
    }
    let mut body = response.into_body();
    let mut received = 0;
    loop {
        let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await;
        let Some(frame) = frame.map_err(|_| RequestError::Late(SILENCE_MAX))? else { break };
        let Ok(data) = frame.map_err(RequestError::Http)?.into_data() else { continue };
        if let Some(position) = (0..data.len()).find(|at| data.get(*at) != Some(&slow_byte(received + at))) {
            return Err(RequestError::Wrong(format!("byte {} differs", received + position)));
        }
        received += data.len();
        if let Some(progress) = lock(shared).get_mut(number) {
            progress.bytes = received;
        }
    }
    if received == SLOW_BYTES {
        return Ok(());
    }
    Err(RequestError::Wrong(format!("{received} bytes instead of {SLOW_BYTES}")))
}
