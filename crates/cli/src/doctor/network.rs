//! The questions to other machines. Each is asked twice before silence counts.

use super::gather::{Gathered, NextHops};
use doctor::{Answerer, Examination, PathResult, WayBack};
use health::Way;
use host::netlink::Netlink;
use host::{Interface, MacAddress, OwnAddress, Route};
use probe::look::{clock, owner};
use probe::{Hop, NextHop, Prober, SynAnswer};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long an answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Interfaces that are asked on at a time.
const LINKS_AT_ONCE: usize = 32;
/// Questions of one kind at a time.
const AT_ONCE: usize = 256;
/// Ways that are tried at most: a minute's work if nobody answers.
const PATHS_MAX: usize = 8192;
/// Addresses where nobody is: for documentation (RFC 5737), and to be thrown away (RFC 6666).
const NOWHERE: [&str; 4] = ["203.0.113.241", "198.51.100.241", "192.0.2.241", "100::f1"];
/// The port of the first question from nowhere.
const NOWHERE_PORT: u16 = 40_000;

/// Asks on each of these interfaces who has the VIPs.
pub(super) async fn owners(links: &[Interface], own: &[OwnAddress], gathered: &mut Gathered) {
    let vips: Arc<[IpAddr]> = gathered.facts.vips.iter().map(|vip| vip.address).collect();
    // What is joined to another interface of this machine may hear it answer.
    let mut own_macs: BTreeSet<[u8; 6]> = BTreeSet::new();
    if let Ok(netlink) = Netlink::open() {
        let all = Interface::list(&netlink).await.unwrap_or_default();
        own_macs = all.iter().filter_map(|link| link.mac).map(|mac| mac.0).collect();
    }
    let mut asked = JoinSet::new();
    for link in links.iter().filter(|link| link.up && link.carrier) {
        let Some(mac) = link.mac else { continue };
        let link_local = own.iter().find_map(|it| match it.address {
            IpAddr::V6(v6) if it.interface == link.name && v6.is_unicast_link_local() => Some(v6),
            _ => None,
        });
        if link_local.is_none() && vips.iter().any(IpAddr::is_ipv6) {
            let why = format!("{} has no link-local address to ask for VIPs of IPv6 from", link.name);
            gathered.miss(Examination::Arp, why);
        }
        let at = owner::Link { interface: link.index, mac: mac.0, link_local };
        let (name, vips) = (link.name.clone(), Arc::clone(&vips));
        asked.spawn(async move { (name, owner::owners(at, &vips, ANSWER_WAIT).await) });
        if asked.len() >= LINKS_AT_ONCE
            && let Some(Ok((name, answers))) = asked.join_next().await
        {
            take_owners(&name, answers, &own_macs, gathered);
        }
    }
    for (name, answers) in asked.join_all().await {
        take_owners(&name, answers, &own_macs, gathered);
    }
    // Which interface answered first says nothing.
    for vip in &mut gathered.facts.vips {
        vip.answers.sort_by(|a, b| (&a.interface, &a.mac).cmp(&(&b.interface, &b.mac)));
    }
}

fn take_owners(
    link: &str,
    answers: std::io::Result<owner::Owners>,
    own_macs: &BTreeSet<[u8; 6]>,
    gathered: &mut Gathered,
) {
    match answers {
        Ok(answers) => {
            for vip in &mut gathered.facts.vips {
                let macs = answers.get(&vip.address).into_iter().flatten();
                let others = macs
                    .filter(|mac| !own_macs.contains(*mac))
                    .map(|mac| Answerer { interface: link.to_owned(), mac: MacAddress(*mac).to_string() });
                vip.answers.extend(others);
            }
        }
        Err(error) => gathered.miss(Examination::Arp, needs(&error, link)),
    }
}

fn needs(error: &std::io::Error, place: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("asking on {place} needs CAP_NET_RAW: run this as root")
        }
        _ => format!("cannot ask on {place}: {error}"),
    }
}

/// Tries each way by which a VIP can be opened.
pub(super) async fn try_paths(next_hops: &NextHops, gathered: &mut Gathered) {
    let prober = Arc::new(Prober::default());
    let mut ways: Vec<(usize, Way, u16, Hop)> = Vec::new();
    let mut wrong = BTreeSet::new();
    for (at, path) in gathered.facts.paths.iter().enumerate().filter(|(_, path)| path.real.port > 0) {
        let (real, port) = (path.real.address, path.real.port);
        match next_hops.get(&real) {
            Some(NextHop::Link(hop)) => {
                ways.push((at, Way { vip: path.vip, real, tunnel: path.tunnel }, port, *hop));
            }
            // The host's own.
            Some(NextHop::Local) => {}
            None => drop(wrong.insert(unreachable(real))),
        }
    }
    if ways.len() > PATHS_MAX {
        let why = format!("only the first {PATHS_MAX} of {} ways were tried", ways.len());
        gathered.miss(Examination::Path, why);
        ways.truncate(PATHS_MAX);
    }
    for some in ways.chunks(AT_ONCE) {
        let mut asked = JoinSet::new();
        for (at, way, port, hop) in some.iter().cloned() {
            let prober = Arc::clone(&prober);
            asked.spawn(async move {
                let first = prober.ask_way(&way, &hop, port, ANSWER_WAIT).await;
                match first {
                    Ok(None) => (at, prober.ask_way(&way, &hop, port, ANSWER_WAIT).await),
                    said => (at, said),
                }
            });
        }
        for (at, answer) in asked.join_all().await {
            match answer {
                Ok(answer) => gathered.facts.paths[at].result = Some(result(answer)),
                Err(why) => drop(wrong.insert(why)),
            }
        }
    }
    for why in wrong {
        gathered.miss(Examination::Path, why);
    }
}

fn unreachable(real: IpAddr) -> String {
    format!("no MAC address is known for {real}: `--only neighbour' says more")
}

fn result(answer: Option<SynAnswer>) -> PathResult {
    match answer {
        None => PathResult::Silent,
        Some(SynAnswer { accepted: true, mss, .. }) => PathResult::Open { mss },
        Some(SynAnswer { accepted: false, .. }) => PathResult::Closed,
    }
}

/// Has each of these answer to an address far away, which must bring the answer here.
pub(super) async fn ways_back(
    ports: &[SocketAddr],
    next_hops: &NextHops,
    netlink: &Netlink,
    gathered: &mut Gathered,
) {
    let prober = Arc::new(Prober::default());
    let mut asked = JoinSet::new();
    for (to, number) in ports.iter().zip(0_u16..) {
        let hop = match next_hops.get(&to.ip()) {
            Some(NextHop::Link(hop)) if to.port() > 0 => hop,
            Some(NextHop::Local) => continue,
            Some(NextHop::Link(_)) => {
                let why =
                    format!("no port of {} is known: it is in services of every port or by mark", to.ip());
                gathered.miss(Examination::WayBack, why);
                continue;
            }
            None => {
                gathered.miss(Examination::WayBack, unreachable(to.ip()));
                continue;
            }
        };
        let Some(from) = nowhere(netlink, to.ip()).await else {
            let why = "this machine has routes of its own to all addresses that are nobody's";
            gathered.miss(Examination::WayBack, why);
            return;
        };
        let from = SocketAddr::new(from, NOWHERE_PORT + number % 20_000);
        let (prober, to, hop) = (Arc::clone(&prober), *to, *hop);
        asked.spawn(async move { (to, ask_back(&prober, from, to, &hop).await) });
        if asked.len() >= AT_ONCE {
            let done = asked.join_next().await;
            take_way_back(done.and_then(Result::ok), gathered);
        }
    }
    for done in asked.join_all().await {
        take_way_back(Some(done), gathered);
    }
}

/// Whether the answer comes here, and whether it has its checksum.
type CameBack = Result<(WayBack, bool), String>;

fn take_way_back(done: Option<(SocketAddr, CameBack)>, gathered: &mut Gathered) {
    let Some((to, came)) = done else { return };
    match came {
        Ok((way_back, is_summed)) => {
            if let WayBack::Silent { port } = way_back {
                let why = format!("{} answers nobody at port {port}, so its way back is not known", to.ip());
                gathered.miss(Examination::WayBack, why);
            }
            let server = gathered.facts.servers.iter_mut().find(|it| it.address == to.ip());
            if let Some(server) = server {
                server.way_back = Some(way_back);
                server.unfinished_checksums = !is_summed;
            }
        }
        Err(why) => gathered.miss(Examination::WayBack, why),
    }
}

async fn ask_back(prober: &Prober, from: SocketAddr, to: SocketAddr, hop: &Hop) -> CameBack {
    for _ in 0..2 {
        if let Some(answer) = prober.ask_from(Some(from), to, hop, ANSWER_WAIT).await? {
            return Ok((WayBack::Here, answer.is_summed));
        }
    }
    // A server that answers nobody says nothing of its routes.
    for _ in 0..2 {
        if let Some(answer) = prober.ask_from(None, to, hop, ANSWER_WAIT).await? {
            return Ok((WayBack::Elsewhere, answer.is_summed));
        }
    }
    Ok((WayBack::Silent { port: to.port() }, true))
}

/// An address that is nobody's, and that this machine would not look for on a link of its own.
async fn nowhere(netlink: &Netlink, family_of: IpAddr) -> Option<IpAddr> {
    let candidates = NOWHERE.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    for candidate in candidates.filter(|it| it.is_ipv4() == family_of.is_ipv4()) {
        match Route::to(netlink, candidate).await {
            Ok(route) if route.local || route.next_hop == candidate => {}
            _ => return Some(candidate),
        }
    }
    None
}

/// Asks the real servers what time it is.
pub(super) async fn clocks(gathered: &mut Gathered) {
    let addresses: Vec<_> = gathered
        .facts
        .servers
        .iter()
        .filter_map(|server| match server.address {
            IpAddr::V4(v4) if !server.is_local && server.mac.is_some() => Some(v4),
            _ => None,
        })
        .collect();
    match clock::ahead_ms(&addresses, ANSWER_WAIT).await {
        Ok(found) => {
            for server in &mut gathered.facts.servers {
                if let IpAddr::V4(v4) = server.address {
                    server.ahead_ms = found.get(&v4).copied();
                }
            }
        }
        Err(error) => gathered.miss(Examination::Clock, needs(&error, "raw sockets of ICMP")),
    }
}
