//! The matches of firewall marks.

use api::{Mark, MarkMatch, Ports, Protocol, Refusal, RefusalKind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Matches and their marks. No two overlap, but for one of any port, which stands behind the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    marks: BTreeMap<MarkMatch, u32>,
    by_mark: BTreeMap<u32, BTreeSet<MarkMatch>>,
    /// Entries they take in the table of services.
    ports: usize,
}

impl Marks {
    /// All, sorted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Mark> {
        self.marks.iter().map(|(&matched, &mark)| Mark { matched, mark })
    }

    /// Entries they take in the table of services.
    pub(crate) fn len(&self) -> usize {
        self.ports
    }

    /// Matches of a mark.
    pub(crate) fn of_mark(&self, mark: u32) -> impl Iterator<Item = &MarkMatch> {
        self.by_mark.get(&mark).into_iter().flatten()
    }

    /// The mark of a match.
    pub(crate) fn get(&self, matched: &MarkMatch) -> Option<u32> {
        self.marks.get(matched).copied()
    }

    /// The mark that a match of ports gives this one.
    pub(crate) fn of_port(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<u32> {
        self.get(&self.range_of(protocol, address, port)?)
    }

    /// The match of ports that has this one.
    fn range_of(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<MarkMatch> {
        let at = |first, last| MarkMatch { protocol, address, ports: Ports::Range { first, last } };
        // They do not overlap, so the last one that starts in time is the only one.
        let (matched, _) = self.marks.range(at(0, 0)..=at(port, u16::MAX)).next_back()?;
        matches!(matched.ports, Ports::Range { last, .. } if port <= last).then_some(*matched)
    }

    /// A match of which some port is one of this match, the lowest one.
    fn overlapping(&self, matched: &MarkMatch) -> Option<MarkMatch> {
        let MarkMatch { protocol, address, ports } = *matched;
        let Ports::Range { first, last } = ports else {
            return self.marks.contains_key(matched).then_some(*matched);
        };
        let at = |first, last| MarkMatch { protocol, address, ports: Ports::Range { first, last } };
        let next = || self.marks.range(at(first, 0)..=at(last, u16::MAX)).next().map(|(matched, _)| *matched);
        self.range_of(protocol, address, first).or_else(next)
    }

    pub(crate) fn add(&mut self, matched: MarkMatch, mark: u32) -> Result<(), Refusal> {
        let refuse = |message| Err(Refusal::new(RefusalKind::Invalid, message));
        if mark == 0 {
            return refuse(format!("{matched}: mark 0 is no mark: use 1 to 4294967295"));
        }
        if matches!(matched.ports, Ports::Range { first, last } if first == 0 || first > last) {
            return refuse(format!("{matched}: give ports from 1 to 65535, the lower one first, or *"));
        }
        if let Some(other) = self.overlapping(&matched) {
            let (protocol, known) = (other.protocol, self.get(&other).unwrap_or_default());
            return refuse(format!("{protocol} {other} has mark {known}: delete that first"));
        }
        self.set(matched, Some(mark));
        Ok(())
    }

    pub(crate) fn delete(&mut self, matched: &MarkMatch) -> Result<(), Refusal> {
        if self.marks.contains_key(matched) {
            self.set(*matched, None);
            return Ok(());
        }
        let protocol = matched.protocol;
        Err(Refusal::new(
            RefusalKind::Invalid,
            format!("{protocol} {matched} has no mark: `sluice mark list' shows those that have"),
        ))
    }

    /// Gives a match a mark, or takes it away, without asking.
    pub(crate) fn set(&mut self, matched: MarkMatch, mark: Option<u32>) {
        let before = match mark {
            Some(mark) => self.marks.insert(matched, mark),
            None => self.marks.remove(&matched),
        };
        if let Some(before) = before {
            self.ports -= usize::from(ports_of(&matched));
            if let Some(matches) = self.by_mark.get_mut(&before) {
                matches.remove(&matched);
                if matches.is_empty() {
                    self.by_mark.remove(&before);
                }
            }
        }
        if let Some(mark) = mark {
            self.ports += usize::from(ports_of(&matched));
            self.by_mark.entry(mark).or_default().insert(matched);
        }
    }
}

fn ports_of(matched: &MarkMatch) -> u16 {
    match matched.ports {
        Ports::Any => 1,
        // At most 65,535, as there is no port 0.
        Ports::Range { first, last } => last.saturating_sub(first).saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Protocol;

    #[test]
    fn matches_do_not_overlap_but_for_any_port() {
        let of = |text| MarkMatch::parse(Protocol::Tcp, text).expect("a match");
        let mut marks = Marks::default();
        marks.add(of("192.0.2.1:80-90"), 1).expect("the first");
        marks.add(of("192.0.2.1:*"), 2).expect("behind it");
        marks.add(of("192.0.2.2:80"), 1).expect("another address");
        marks.add(MarkMatch { protocol: Protocol::Udp, ..of("192.0.2.1:80") }, 1).expect("another protocol");
        let refusal = marks.add(of("192.0.2.1:90-100"), 2).expect_err("port 90 twice");
        assert_eq!(refusal.message, "TCP 192.0.2.1:80-90 has mark 1: delete that first");
        assert!(marks.add(of("192.0.2.1:*"), 3).is_err());
        assert!(marks.add(of("192.0.2.3:80"), 0).is_err());
        assert_eq!(marks.len(), 14);
        assert!(marks.delete(&of("192.0.2.1:80")).is_err());
        marks.delete(&of("192.0.2.1:80-90")).expect("there");
        assert_eq!(marks.iter().count(), 3);
        assert_eq!((marks.len(), marks.of_mark(1).count(), marks.of_mark(2).count()), (3, 2, 1));
    }

    #[test]
    fn a_port_has_the_mark_of_the_match_it_is_in() {
        let of = |text| MarkMatch::parse(Protocol::Tcp, text).expect("a match");
        let mut marks = Marks::default();
        for (text, mark) in [("192.0.2.1:80-90", 1), ("192.0.2.1:92", 2), ("192.0.2.1:*", 3)] {
            marks.add(of(text), mark).expect("apart");
        }
        let address = [192, 0, 2, 1].into();
        let at = |port| marks.of_port(Protocol::Tcp, address, port);
        assert_eq!([79, 80, 90, 91, 92, 93].map(at), [None, Some(1), Some(1), None, Some(2), None]);
        assert_eq!(marks.of_port(Protocol::Udp, address, 80), None);
        let mut more = marks.clone();
        let refusal = more.add(of("192.0.2.1:1-100"), 4).expect_err("around both");
        assert_eq!(refusal.message, "TCP 192.0.2.1:80-90 has mark 1: delete that first");
        assert!(more.add(of("192.0.2.1:91-92"), 4).is_err() && more.add(of("192.0.2.1:85"), 4).is_err());
        assert_eq!(more, marks);
        more.add(of("192.0.2.1:91"), 4).expect("between");
    }
}
