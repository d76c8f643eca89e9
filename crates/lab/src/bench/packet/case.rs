//! The cases and their names.

use api::{Family, Protocol};

/// What the packets of a case meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// A program that only returns `XDP_TX`.
    FloorTx,
    /// A program that only parses.
    FloorParse,
    /// A flow of the established table, drawn at random from `flows`.
    Hit { family: Family, protocol: Protocol, flows: u32 },
    /// The SYN of a flow that is in the embryonic table already.
    SynAgain,
    /// The SYN of a flow never seen; the embryonic table is full.
    New { scheduler: &'static str, reals: u32 },
    /// A packet to an address that is no VIP.
    PassNoVip,
    /// A frame that is neither IPv4 nor IPv6.
    PassNonIp,
}

/// Numbers of flows of the hit cases.
const FLOWS: [u32; 4] = [1, 1_024, 65_536, 1_000_000];
/// Most of them.
pub(super) const FLOWS_MAX: u32 = 1_000_000;
/// Schedulers of the new-flow cases.
const SCHEDULERS: [&str; 6] = ["rr", "wrr", "lc", "wlc", "sh", "mh"];
/// Numbers of real servers of the new-flow cases.
const REALS: [u32; 3] = [3, 64, 512];

impl Case {
    /// Its name.
    pub(super) fn name(&self) -> String {
        match self {
            Self::FloorTx => "floor/tx".to_owned(),
            Self::FloorParse => "floor/parse".to_owned(),
            Self::Hit { family, protocol, flows } => {
                let family = if *family == Family::Ipv4 { "v4" } else { "v6" };
                let protocol = if *protocol == Protocol::Tcp { "tcp" } else { "udp" };
                format!("hit/{family}/{protocol}/{flows}")
            }
            Self::SynAgain => "syn/again".to_owned(),
            Self::New { scheduler, reals } => format!("new/{scheduler}/{reals}"),
            Self::PassNoVip => "pass/no-vip".to_owned(),
            Self::PassNonIp => "pass/non-ip".to_owned(),
        }
    }

    fn is_floor(self) -> bool {
        matches!(self, Self::FloorTx | Self::FloorParse)
    }
}

/// Every case.
pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![Case::FloorTx, Case::FloorParse];
    for family in [Family::Ipv4, Family::Ipv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            cases.extend(FLOWS.map(|flows| Case::Hit { family, protocol, flows }));
        }
    }
    cases.push(Case::SynAgain);
    for scheduler in SCHEDULERS {
        cases.extend(REALS.map(|reals| Case::New { scheduler, reals }));
    }
    cases.extend([Case::PassNoVip, Case::PassNonIp]);
    cases
}

/// The floors and the cases whose name matches, and whether any does.
pub(super) fn select(filter: Option<&str>) -> (Vec<Case>, bool) {
    let chosen = |case: &Case| filter.is_none_or(|filter| matches(filter, &case.name()));
    let found = all().iter().any(chosen);
    (all().into_iter().filter(|case| case.is_floor() || chosen(case)).collect(), found)
}

/// Whether a name matches a pattern in which `*` stands for anything, nothing included.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((front, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(front) else { return false };
    name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(rest, &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_issue_are_there_once() {
        let names: Vec<String> = all().iter().map(Case::name).collect();
        let wanted = [
            "floor/tx",
            "floor/parse",
            "hit/v4/tcp/1",
            "hit/v4/tcp/1000000",
            "hit/v6/udp/65536",
            "new/rr/3",
            "new/mh/512",
            "new/wlc/64",
            "pass/no-vip",
            "pass/non-ip",
        ];
        for name in wanted {
            assert_eq!(names.iter().filter(|n| *n == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("hit/*", "hit/v4/tcp/1"));
        assert!(matches("*/1", "hit/v4/tcp/1"));
        assert!(matches("hit/*/udp/*", "hit/v6/udp/1024"));
        assert!(matches("*", "floor/tx"));
        assert!(!matches("hit/*/1", "hit/v4/tcp/1024"));
        assert!(!matches("hit", "hit/v4/tcp/1"));
    }

    #[test]
    fn a_selection_keeps_the_floors() {
        let (cases, found) = select(Some("new/rr/3"));
        assert!(found);
        let wanted = [Case::FloorTx, Case::FloorParse, Case::New { scheduler: "rr", reals: 3 }];
        assert_eq!(cases, wanted);
        assert!(!select(Some("nothing")).1);
    }
}
