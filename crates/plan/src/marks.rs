//! The matches of firewall marks.

use api::{Mark, MarkMatch, Ports, Refusal, RefusalKind};
use std::collections::BTreeMap;

/// Matches and their marks. No two overlap, but for one of any port, which stands behind the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(BTreeMap<MarkMatch, u32>);

impl Marks {
    /// All, sorted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Mark> {
        self.0.iter().map(|(&matched, &mark)| Mark { matched, mark })
    }

    /// Entries they take in the table of services.
    pub(crate) fn len(&self) -> usize {
        self.0.keys().map(|matched| usize::from(ports_of(matched))).sum()
    }

    pub(crate) fn add(&mut self, matched: MarkMatch, mark: u32) -> Result<(), Refusal> {
        let refuse = |message| Err(Refusal::new(RefusalKind::Invalid, message));
        if mark == 0 {
            return refuse(format!("{matched}: mark 0 is no mark: use 1 to 4294967295"));
        }
        if matches!(matched.ports, Ports::Range { first, last } if first == 0 || first > last) {
            return refuse(format!("{matched}: give ports from 1 to 65535, the lower one first, or *"));
        }
        if let Some((other, known)) = self.0.iter().find(|(other, _)| overlap(other, &matched)) {
            let protocol = other.protocol;
            return refuse(format!("{protocol} {other} has mark {known}: delete that first"));
        }
        self.0.insert(matched, mark);
        Ok(())
    }

    pub(crate) fn delete(&mut self, matched: &MarkMatch) -> Result<(), Refusal> {
        match self.0.remove(matched) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(
                RefusalKind::Invalid,
                format!(
                    "{} {matched} has no mark: `sluice mark list' shows those that have",
                    matched.protocol
                ),
            )),
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

fn overlap(a: &MarkMatch, b: &MarkMatch) -> bool {
    let ports = match (a.ports, b.ports) {
        (Ports::Any, Ports::Any) => true,
        (Ports::Range { first, last }, Ports::Range { first: other_first, last: other_last }) => {
            first <= other_last && other_first <= last
        }
        _ => false,
    };
    a.protocol == b.protocol && a.address == b.address && ports
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
    }
}
