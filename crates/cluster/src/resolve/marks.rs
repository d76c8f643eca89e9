//! Which packets have which mark, and what that hides.

use super::Resolver;
use api::{Change, Family, MarkMatch, Ports, Protocol, ServiceId};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Range;

/// Matches with the places where they stand.
#[derive(Default)]
pub(super) struct MarkPlaces(HashMap<(Protocol, IpAddr), Places>);

#[derive(Default)]
struct Places {
    /// By the first port.
    ranges: BTreeMap<u16, Marked>,
    any: Option<Marked>,
}

#[derive(Clone)]
struct Marked {
    last: u16,
    mark: u32,
    span: Range<usize>,
}

impl Places {
    /// What has a port of this range already.
    fn overlapping(&self, ports: Ports) -> Option<&Marked> {
        match ports {
            Ports::Any => self.any.as_ref(),
            Ports::Range { first, last } => {
                let before = self.ranges.range(..=last).next_back().map(|(_, marked)| marked);
                before.filter(|marked| marked.last >= first)
            }
        }
    }

    fn of_port(&self, port: u16) -> Option<&Marked> {
        let range = self.overlapping(Ports::Range { first: port, last: port });
        range.or(self.any.as_ref())
    }
}

impl Resolver<'_> {
    /// Gives packets a mark; what has one already keeps it.
    pub(super) fn add_mark(&mut self, matched: MarkMatch, mark: u32, span: &Range<usize>) {
        let MarkMatch { protocol, address, ports } = matched;
        let places = self.marks.0.entry((protocol, address)).or_default();
        if let Some(other) = places.overlapping(ports).cloned() {
            let line = self.line(&other.span);
            let mark = other.mark;
            let message =
                format!("{protocol} {matched} overlaps what has mark {mark} already (line {line}): keep one");
            self.error(span, message);
            return;
        }
        let marked = |last| Marked { last, mark, span: span.clone() };
        match ports {
            Ports::Any => places.any = Some(marked(u16::MAX)),
            Ports::Range { first, last } => {
                places.ranges.insert(first, marked(last));
            }
        }
        self.apply(&Change::AddMark { matched, mark }, span);
    }

    /// Warns of services whose packets all go to a service with a mark.
    pub(super) fn warn_of_shadows(&mut self) {
        let mut shadows = Vec::new();
        for (id, (_, span)) in &self.taken {
            let ServiceId::Address { protocol, address, port } = *id else { continue };
            let Some(places) = self.marks.0.get(&(protocol, address)) else { continue };
            let marked = if port == 0 { places.any.as_ref() } else { places.of_port(port) };
            let Some(Marked { mark, span: by, .. }) = marked else { continue };
            let by_mark = ServiceId::Fwmark { mark: *mark, family: Family::of(address) };
            if let Some((name, _)) = self.taken.get(&by_mark) {
                let line = self.line(by);
                let message = format!(
                    "{id} gets no packets: they have mark {mark} (line {line}) and go to service `{name}'"
                );
                shadows.push((span.clone(), message));
            }
        }
        for (span, message) in shadows {
            self.warn(&span, message);
        }
    }
}
