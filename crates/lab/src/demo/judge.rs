//! Whether what was seen is what was expected: arithmetic and words only.

use crate::download::DownloadProgress;
use crate::load::LoadStats;
use crate::udp::UdpStats;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Fewer answers than this say nothing about shares.
const ANSWERS_MIN: u64 = 50;

/// Whether each of `servers`, and nobody else, has its equal part, give or take `points` percentage points.
#[must_use]
pub fn shares_are_equal(share: &BTreeMap<String, u64>, servers: &[String], points: f64) -> bool {
    let total: u64 = share.values().sum();
    let others = share.iter().any(|(name, count)| *count > 0 && !servers.contains(name));
    if total == 0 || others || servers.is_empty() {
        return false;
    }
    let fair = 100.0 / servers.len() as f64;
    servers.iter().all(|server| {
        let count = share.get(server).copied().unwrap_or(0);
        (count as f64 * 100.0 / total as f64 - fair).abs() <= points
    })
}

/// Whether enough was answered, nothing failed, and the shares are equal.
#[must_use]
pub fn is_balanced(stats: &LoadStats, servers: &[String], points: f64) -> bool {
    stats.answered >= ANSWERS_MIN && stats.failed == 0 && shares_are_equal(&stats.share, servers, points)
}

/// `real1 33.3 %, real2 66.7 %`.
#[must_use]
pub fn describe_shares(share: &BTreeMap<String, u64>) -> String {
    let total: u64 = share.values().sum();
    if total == 0 {
        return "nobody answered".to_owned();
    }
    let parts = share.iter().map(|(name, count)| {
        let percent = *count as f64 * 100.0 / total as f64;
        format!("{name} {percent:.1} %")
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Shares, count, failures and latency of a load.
#[must_use]
pub fn describe_load(stats: &LoadStats) -> String {
    let mut text = format!(
        "{}; {} requests, {} failed; median {:.1} ms, 99 % within {:.1} ms",
        describe_shares(&stats.share),
        stats.answered + stats.failed,
        stats.failed,
        f64::from(stats.p50_us) / 1000.0,
        f64::from(stats.p99_us) / 1000.0
    );
    if let Some(failure) = stats.failures.first() {
        let _ = write!(text, "; first failure: {failure}");
    }
    text
}

/// Shares and losses of UDP questions.
#[must_use]
pub fn describe_udp(stats: &UdpStats) -> String {
    format!("{}, {} lost", describe_shares(&stats.share), stats.lost)
}

/// How many downloads each server sends.
#[must_use]
pub fn downloads_by_server(progress: &[DownloadProgress]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for server in progress.iter().filter_map(|one| one.server.clone()) {
        *counts.entry(server).or_default() += 1;
    }
    counts
}

/// Whether every download arrived whole.
#[must_use]
pub fn all_whole(progress: &[DownloadProgress]) -> bool {
    !progress.is_empty() && progress.iter().all(|one| one.outcome == Some(Ok(())))
}

/// `5 of 6 downloads whole; first failure: ...`.
#[must_use]
pub fn describe_downloads(progress: &[DownloadProgress]) -> String {
    let whole = progress.iter().filter(|one| one.outcome == Some(Ok(()))).count();
    let mut text = format!("{whole} of {} downloads whole", progress.len());
    if let Some(Err(error)) = progress.iter().filter_map(|one| one.outcome.as_ref()).find(|o| o.is_err()) {
        let _ = write!(text, "; first failure: {error}");
    }
    let running = progress.iter().filter(|one| one.outcome.is_none()).count();
    if running > 0 {
        let _ = write!(text, "; {running} still running");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn equal_means_within_the_tolerance_and_nobody_else() {
        let three = names(&["a", "b", "c"]);
        assert!(shares_are_equal(&share(&[("a", 33), ("b", 33), ("c", 34)]), &three, 1.0));
        assert!(!shares_are_equal(&share(&[("a", 30), ("b", 33), ("c", 37)]), &three, 1.0));
        assert!(!shares_are_equal(&share(&[("a", 50), ("b", 50)]), &three, 20.0 - 1e-9));
        assert!(!shares_are_equal(&share(&[("a", 25), ("b", 25), ("c", 25), ("d", 25)]), &three, 50.0));
        assert!(!shares_are_equal(&share(&[]), &three, 100.0));
        assert!(!shares_are_equal(&share(&[("a", 1)]), &[], 100.0));
    }

    #[test]
    fn one_failure_or_too_few_answers_are_no_balance() {
        let servers = names(&["a"]);
        let good = LoadStats { answered: 50, share: share(&[("a", 50)]), ..LoadStats::default() };
        assert!(is_balanced(&good, &servers, 1.0));
        assert!(!is_balanced(&LoadStats { failed: 1, ..good.clone() }, &servers, 1.0));
        assert!(!is_balanced(&LoadStats { answered: 49, ..good }, &servers, 1.0));
    }

    #[test]
    fn words() {
        let stats = LoadStats {
            answered: 3,
            failed: 1,
            failures: vec!["cannot connect: refused".to_owned()],
            share: share(&[("a", 1), ("b", 2)]),
            p50_us: 1500,
            p99_us: 12_000,
        };
        assert_eq!(
            describe_load(&stats),
            "a 33.3 %, b 66.7 %; 4 requests, 1 failed; median 1.5 ms, 99 % within 12.0 ms; \
             first failure: cannot connect: refused"
        );
        assert_eq!(describe_udp(&UdpStats { lost: 2, ..UdpStats::default() }), "nobody answered, 2 lost");
    }

    #[test]
    fn downloads_are_whole_or_not() {
        let whole = DownloadProgress { server: Some("a".into()), bytes: 9, outcome: Some(Ok(())) };
        let cut = DownloadProgress { outcome: Some(Err("cut".into())), ..whole.clone() };
        let running = DownloadProgress { outcome: None, ..whole.clone() };
        assert!(all_whole(&[whole.clone(), whole.clone()]));
        assert!(!all_whole(&[whole.clone(), running.clone()]) && !all_whole(&[]));
        let all = [whole, cut, running];
        assert_eq!(describe_downloads(&all), "1 of 3 downloads whole; first failure: cut; 1 still running");
        assert_eq!(downloads_by_server(&all), BTreeMap::from([("a".to_owned(), 3)]));
    }
}
