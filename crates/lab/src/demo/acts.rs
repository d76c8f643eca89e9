//! The acts: what an operator does to a cluster, what should come of it, and what did.

use super::board::Board;
use super::director::Director;
use super::file::ClusterFile;
use super::judge::{
    all_whole, describe_downloads, describe_load, describe_shares, describe_udp, downloads_by_server,
    is_balanced, shares_are_equal,
};
use super::listing::{self, Row};
use super::report::Outcome;
use super::{Cancel, DemoError, io_failed};
use crate::address::{HTTP_PORT, Node, UDP_PORT, vip};
use crate::cluster::{Lab, LabOptions, UdpEcho};
use crate::command;
use crate::download::Downloads;
use crate::load::{LoadHandle, LoadMode, LoadOptions, LoadStats, REQUEST_TIMEOUT};
use crate::udp;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How far a share may be from the fair one, in percentage points.
pub(super) const TOLERANCE_POINTS: f64 = 3.0;
/// The same for the few UDP questions.
const UDP_TOLERANCE_POINTS: f64 = 7.0;
/// How long traffic is watched before it is judged.
const WINDOW: Duration = Duration::from_millis(2500);
/// The same at most, on a machine so busy that fewer than [`ANSWERS`] came in that time.
const WINDOW_MAX: Duration = Duration::from_secs(15);
/// So many answers that the few under way at either end of a window stay within the tolerance.
const ANSWERS: u64 = 300;
/// What was under way when something changed has as a rule ended after this.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// How long a UDP answer may take before it counts as lost.
const UDP_ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long downloads may take.
const DOWNLOADS_MAX: Duration = Duration::from_secs(25);
/// Between two readings of the table for the screen.
const TABLE_EVERY: Duration = Duration::from_millis(500);
/// How long the director stays dead before it is started again.
const DOWN: Duration = Duration::from_millis(1500);
/// UDP questions for each address family.
const UDP_QUESTIONS: u32 = 60;

/// One act.
#[derive(Clone, Copy)]
pub struct Act {
    /// Its name, stable.
    pub name: &'static str,
    /// What is done, in one sentence.
    pub plan: &'static str,
    /// Plays it. The first act makes the stage and has nothing to play.
    pub play: fn(&str, &mut Stage) -> Result<Outcome, DemoError>,
}

/// Every act in order.
pub const ACTS: [Act; 9] = [
    Act {
        name: "set up",
        plan: "three real servers, a client and the director; `sluice apply` makes a cluster file its configuration",
        play: |name, stage| stage.is_up(name),
    },
    Act {
        name: "balance",
        plan: "a client opens 200 connections a second to the VIP",
        play: |name, stage| stage.balance(name),
    },
    Act {
        name: "add a server",
        plan: "a fourth real server starts; an edit of the file and `sluice apply` add it in the middle of traffic",
        play: |name, stage| stage.add(name),
    },
    Act {
        name: "kill a server",
        plan: "a web server is killed (SIGKILL) and later started again; nobody tells the director",
        play: |name, stage| stage.kill(name),
    },
    Act {
        name: "drain a server",
        plan: "slow downloads run; `sluice drain` takes new connections away from the busiest server",
        play: |name, stage| stage.drain(name),
    },
    Act {
        name: "remove a server",
        plan: "an edit of the file and `sluice apply` remove the drained server, then the machine goes",
        play: |name, stage| stage.remove(name),
    },
    Act {
        name: "restart the director",
        plan: "the daemon is killed (SIGKILL) while connections are open, and started again",
        play: |name, stage| stage.restart(name),
    },
    Act {
        name: "IPv6",
        plan: "the classic `ipvsadm` adds a service on an IPv6 VIP, and IPv6 clients come",
        play: |name, stage| stage.ipv6(name),
    },
    Act {
        name: "UDP",
        plan: "a UDP service on both VIPs; the HTTP traffic goes on",
        play: |name, stage| stage.udp(name),
    },
];

/// The cluster with its director and its load.
#[derive(Debug)]
pub struct Stage {
    // Dropped in this order: whoever uses the cluster first, the cluster last.
    table: Option<TableReader>,
    pub(super) load: LoadHandle,
    pub(super) director: Director,
    file: ClusterFile,
    pub(super) lab: Lab,
    drained: Option<u32>,
    pub(super) cancel: Cancel,
}

impl Stage {
    /// Makes the cluster, starts the director, configures three real servers and starts the load.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn set_up(
        act: &str,
        program: PathBuf,
        keep: bool,
        cancel: &Cancel,
        board: &Board,
    ) -> Result<(Self, Outcome), DemoError> {
        let udp_echo = if keep { UdpEcho::Program(program.clone()) } else { UdpEcho::Threads };
        let lab = Lab::new(LabOptions { reals: 3, udp_echo })?;
        cancel.check()?;
        let director = Director::start(&lab, program, cancel)?;
        let service = vip(false, HTTP_PORT);
        let file = ClusterFile::new(lab.directory().join("cluster.toml"));
        file.apply(director.front(), &lab.reals())?;
        // They get no work before their first check has passed.
        for number in lab.reals() {
            let real = real_address(number, service);
            let is_up = || director.front().standing(real).is_ok_and(|it| it == Some(api::Standing::Up));
            cancel.wait_until(Duration::from_secs(5), is_up)?;
        }
        let table = TableReader::start(&director, board)?;
        cancel.sleep(SETTLE)?;
        let load = lab.start_load(LoadOptions::new(service))?;
        board.show_load(load.watch());
        let mut stage =
            Self { table: Some(table), load, director, file, lab, drained: None, cancel: cancel.clone() };
        let outcome = stage.is_up(act)?;
        Ok((stage, outcome))
    }

    /// Leaves everything running; gives the words how to enter and end it.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn keep(self) -> Result<String, DemoError> {
        let Self { table, load, director, lab, .. } = self;
        drop(table);
        drop(load);
        let program = director.front().program().display().to_string();
        let socket = director.front().socket().display().to_string();
        let (run, client) = (lab.run_id().to_owned(), lab.namespace_name(Node::Client));
        let others: Vec<String> =
            lab.reals().into_iter().map(Node::Real).chain([Node::Director]).map(Node::name).collect();
        let others = others.join(", ");
        let file = lab.directory().join("cluster.toml").display().to_string();
        director.release();
        lab.keep()?;
        Ok(format!(
            "The cluster runs on.\n  enter it:  ip netns exec {client} bash (or {others} instead of client)\n  \
             ask it:    ip netns exec {client} {}\n  \
             its table: SLUICE_SOCKET={socket} {program} ipvsadm -L -n\n  \
             its file:  {} (edit it, then SLUICE_SOCKET={socket} {program} apply FILE)\n  \
             end it:    {program} demo --end {run}\n",
            ask_command(vip(false, HTTP_PORT).ip(), command::find("curl", "curl").is_ok()),
            file
        ))
    }

    pub(super) fn rows(&self) -> Result<Vec<Row>, DemoError> {
        Ok(listing::rows(&self.director.front().ipvsadm("-L -n")?))
    }

    /// What the load sees from now on, until there is enough to judge.
    pub(super) fn watch(&self) -> Result<LoadStats, DemoError> {
        watch(&self.load, &self.cancel)
    }

    fn is_up(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let listed = self.rows()?.len();
        let reals = self.lab.reals().len();
        let answered =
            self.cancel.wait_until(Duration::from_secs(5), || self.load.stats().share.len() >= reals)?;
        let stats = self.load.stats();
        Ok(Outcome {
            act: act.to_owned(),
            expected: format!("{reals} real servers in the table, each answers through the VIP"),
            seen: format!("{listed} in the table, {} answer, {} failures", stats.share.len(), stats.failed),
            ok: answered && listed == reals && stats.failed == 0,
        })
    }

    fn balance(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let servers = names(&self.lab.reals());
        let stats = self.watch()?;
        Ok(Outcome {
            act: act.to_owned(),
            expected: fair("new connections", servers.len(), TOLERANCE_POINTS),
            seen: describe_load(&stats),
            ok: is_balanced(&stats, &servers, TOLERANCE_POINTS),
        })
    }

    fn add(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let before = self.load.stats();
        let number = self.lab.add_real()?;
        self.file.apply(self.director.front(), &self.lab.reals())?;
        let name = Node::Real(number).name();
        let begun = Instant::now();
        let joined = self.cancel.wait_until(Duration::from_secs(5), || {
            self.load.stats().since(&before).share.contains_key(&name)
        })?;
        let after = begun.elapsed();
        let servers = names(&self.lab.reals());
        self.cancel.sleep(SETTLE)?;
        let stats = self.watch()?;
        let failed = self.load.stats().since(&before).failed;
        Ok(Outcome {
            act: act.to_owned(),
            expected: format!("{name} joins; {}", fair("new connections", servers.len(), TOLERANCE_POINTS)),
            seen: format!("first answer after {} ms; {}", after.as_millis(), describe_load(&stats)),
            ok: joined && failed == 0 && is_balanced(&stats, &servers, TOLERANCE_POINTS),
        })
    }

    fn drain(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let before = self.load.stats();
        let service = vip(false, HTTP_PORT);
        let downloads = self.lab.start_downloads(service, 12, 128 * 1024)?;
        self.wait(&downloads, Downloads::all_begun, Duration::from_secs(5))?;
        let by_server = downloads_by_server(&downloads.progress());
        // The one with most open connections: it has something to lose.
        let busiest = by_server.iter().max_by_key(|(_, count)| **count).map(|(name, _)| name.clone());
        let number = self.lab.reals().into_iter().find(|n| Some(Node::Real(*n).name()) == busiest);
        let Some(number) = number else { return Ok(not_begun(act, &downloads)) };
        let name = Node::Real(number).name();
        let open = by_server.get(&name).copied().unwrap_or(0);
        let real = SocketAddr::new(Node::Real(number).v4().into(), HTTP_PORT);
        self.director.front().sluice(&format!("drain {real}"))?;
        self.drained = Some(number);
        // A request that began before may have been given to it rightly.
        let (watch, mark) = (self.load.watch(), self.load.watch().mark());
        self.cancel.sleep(SETTLE)?;
        self.cancel.wait_until(REQUEST_TIMEOUT, || watch.is_past(mark))?;
        let drained = self.load.stats();
        let active = self.rows()?.iter().find(|row| row.real == real).map_or(0, |row| row.active);
        self.cancel.sleep(Duration::from_secs(1))?;
        self.wait(&downloads, Downloads::all_ended, DOWNLOADS_MAX)?;
        let now = self.load.stats();
        let new = now.since(&drained).share.get(&name).copied().unwrap_or(0);
        let failed = now.since(&before).failed;
        let progress = downloads.progress();
        Ok(Outcome {
            act: act.to_owned(),
            expected: format!(
                "{name}, drained, gets no new connection; its {open} downloads finish; none fails"
            ),
            seen: format!(
                "{new} new connections, {active} active just after; {}; {failed} requests failed",
                describe_downloads(&progress)
            ),
            ok: new == 0 && failed == 0 && active >= open as u64 && all_whole(&progress),
        })
    }

    fn remove(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let before = self.load.stats();
        let Some(number) = self.drained.take() else {
            return Ok(Outcome {
                act: act.to_owned(),
                expected: "the drained server is removed".to_owned(),
                seen: "no server was drained".to_owned(),
                ok: false,
            });
        };
        let real = SocketAddr::new(Node::Real(number).v4().into(), HTTP_PORT);
        let left: Vec<u32> = self.lab.reals().into_iter().filter(|it| *it != number).collect();
        self.file.apply(self.director.front(), &left)?;
        self.lab.remove_real(number)?;
        let servers = names(&self.lab.reals());
        let stats = self.watch()?;
        let listed = self.rows()?.iter().any(|row| row.real == real);
        let failed = self.load.stats().since(&before).failed;
        let name = Node::Real(number).name();
        Ok(Outcome {
            act: act.to_owned(),
            expected: format!(
                "{name} leaves the table; {}",
                fair("new connections", servers.len(), TOLERANCE_POINTS)
            ),
            seen: format!(
                "{name} is {}; {}",
                if listed { "still listed" } else { "gone" },
                describe_load(&stats)
            ),
            ok: !listed && failed == 0 && is_balanced(&stats, &servers, TOLERANCE_POINTS),
        })
    }

    fn restart(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let service = vip(false, HTTP_PORT);
        let before = self.load.stats();
        let table = listing::configured(&self.rows()?);
        let keep_alive = LoadOptions {
            mode: LoadMode::KeepAlive,
            workers: 4,
            rate_per_s: 80,
            ..LoadOptions::new(service)
        };
        let keep_alive = self.lab.start_load(keep_alive)?;
        let downloads = self.lab.start_downloads(service, 6, 80 * 1024)?;
        self.wait(&downloads, Downloads::all_begun, Duration::from_secs(5))?;
        self.director.crash();
        let crashed = self.load.stats();
        self.cancel.sleep(DOWN)?;
        let alone = self.load.stats().since(&crashed);
        self.director.start_again(&self.lab, &self.cancel)?;
        let same = listing::configured(&self.rows()?) == table;
        let adopted = self.director.front().adopted()?;
        self.wait(&downloads, Downloads::all_ended, DOWNLOADS_MAX)?;
        let progress = downloads.progress();
        let kept = keep_alive.stop();
        let stats = self.load.stats().since(&before);
        let failed = stats.failed + kept.failed;
        let failure = stats.failures.first().or(kept.failures.first());
        let failure = failure.map(|text| format!("; first failure: {text}")).unwrap_or_default();
        Ok(Outcome {
            act: act.to_owned(),
            expected: "killed and started again: requests go on meanwhile, none fails, open connections and \
                       downloads live, the table is the same"
                .to_owned(),
            seen: format!(
                "{} new connections while no director ran; {} requests and {} on open connections, \
                 {failed} failed; \
                 {}; table {}; flows {}{failure}",
                alone.answered,
                stats.answered + stats.failed,
                kept.answered + kept.failed,
                describe_downloads(&progress),
                if same { "the same" } else { "CHANGED" },
                if adopted { "adopted" } else { "NOT adopted" },
            ),
            ok: alone.answered > 0
                && failed == 0
                && kept.answered > 0
                && same
                && adopted
                && all_whole(&progress),
        })
    }

    fn ipv6(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let servers = names(&self.lab.reals());
        let service = vip(true, HTTP_PORT);
        self.add_service("-t", service)?;
        let load = self.lab.start_load(LoadOptions::new(service))?;
        watch(&load, &self.cancel)?;
        let stats = load.stop();
        Ok(Outcome {
            act: act.to_owned(),
            expected: fair("new IPv6 connections", servers.len(), TOLERANCE_POINTS),
            seen: describe_load(&stats),
            ok: is_balanced(&stats, &servers, TOLERANCE_POINTS),
        })
    }

    fn udp(&mut self, act: &str) -> Result<Outcome, DemoError> {
        let servers = names(&self.lab.reals());
        let client = self.lab.namespace(Node::Client)?.clone();
        let before = self.load.stats();
        let mut ok = true;
        let mut seen = Vec::new();
        for ipv6 in [false, true] {
            let service = vip(ipv6, UDP_PORT);
            self.add_service("-u", service)?;
            let stats = udp::ask(&client, service, UDP_QUESTIONS, UDP_ANSWER_MAX)?;
            self.cancel.check()?;
            ok &= stats.lost == 0 && shares_are_equal(&stats.share, &servers, UDP_TOLERANCE_POINTS);
            seen.push(format!("{}: {}", if ipv6 { "IPv6" } else { "IPv4" }, describe_udp(&stats)));
        }
        let http = self.load.stats().since(&before);
        seen.push(format!("HTTP meanwhile: {}, {} failed", describe_shares(&http.share), http.failed));
        Ok(Outcome {
            act: act.to_owned(),
            expected: format!(
                "{UDP_QUESTIONS} questions each by IPv4 and IPv6; {}; HTTP goes on",
                fair("answers", servers.len(), UDP_TOLERANCE_POINTS)
            ),
            seen: seen.join("; "),
            ok: ok && http.answered > 0 && http.failed == 0,
        })
    }

    fn add_service(&self, protocol: &str, service: SocketAddr) -> Result<(), DemoError> {
        let front = self.director.front();
        front.ipvsadm(&format!("-A {protocol} {service} -s rr"))?;
        for number in self.lab.reals() {
            let real = real_address(number, service);
            front.ipvsadm(&format!("-a {protocol} {service} -r {real} -g -w 1"))?;
        }
        self.cancel.sleep(SETTLE)
    }

    fn wait(
        &self,
        downloads: &Downloads,
        done: fn(&Downloads) -> bool,
        patience: Duration,
    ) -> Result<bool, DemoError> {
        self.cancel.wait_until(patience, || done(downloads))
    }
}

/// A command that fetches a page; bash does it where nobody has installed curl.
fn ask_command(address: IpAddr, has_curl: bool) -> String {
    if has_curl {
        return format!("curl http://{address}/");
    }
    format!(
        "bash -c 'exec 3<>/dev/tcp/{address}/{HTTP_PORT}; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'"
    )
}

/// What a load sees from now on: during a window, and on until there are answers enough or something has failed.
fn watch(load: &LoadHandle, cancel: &Cancel) -> Result<LoadStats, DemoError> {
    let before = load.stats();
    cancel.sleep(WINDOW)?;
    let left = WINDOW_MAX.saturating_sub(WINDOW);
    cancel.wait_until(left, || {
        let stats = load.stats().since(&before);
        stats.answered >= ANSWERS || stats.failed > 0
    })?;
    Ok(load.stats().since(&before))
}

pub(super) fn names(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|number| Node::Real(*number).name()).collect()
}

fn real_address(number: u32, service: SocketAddr) -> SocketAddr {
    let node = Node::Real(number);
    if service.is_ipv4() {
        SocketAddr::new(node.v4().into(), service.port())
    } else {
        SocketAddr::new(node.v6().into(), service.port())
    }
}

pub(super) fn fair(what: &str, servers: usize, points: f64) -> String {
    let percent = 100.0 / servers.max(1) as f64;
    format!(
        "each of {servers} servers gets {percent:.1} % of the {what}, give or take {points} points; none fails"
    )
}

fn not_begun(act: &str, downloads: &Downloads) -> Outcome {
    Outcome {
        act: act.to_owned(),
        expected: "12 downloads begin".to_owned(),
        seen: describe_downloads(&downloads.progress()),
        ok: false,
    }
}

/// Reads the table again and again for the screen.
#[derive(Debug)]
struct TableReader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TableReader {
    fn start(director: &Director, board: &Board) -> Result<Self, DemoError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (front, board, ended) = (director.front().clone(), board.clone(), Arc::clone(&stop));
        let read = move || {
            while !ended.load(Ordering::Relaxed) {
                match front.ipvsadm("-L -n") {
                    Ok(table) => board.show_table(table),
                    // While the director is down.
                    Err(_) => board.show_no_table(),
                }
                std::thread::sleep(TABLE_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("table".to_owned()).spawn(read);
        Ok(Self { stop, thread: Some(thread.map_err(io_failed("start a thread"))?) })
    }
}

impl Drop for TableReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_fetched_with_or_without_curl() {
        let vip = vip(false, HTTP_PORT).ip();
        assert_eq!(ask_command(vip, true), "curl http://192.0.2.10/");
        let expected =
            r#"bash -c 'exec 3<>/dev/tcp/192.0.2.10/80; printf "GET / HTTP/1.0\r\n\r\n" >&3; cat <&3'"#;
        assert_eq!(ask_command(vip, false), expected);
    }
}
