//! Who owns which slots.
//!
//! A span that is given back is not given out again before [`Spans::settle`]: until the kernel's services
//! point elsewhere, packets still read it.

use abi::Span;
use std::collections::BTreeMap;

/// Free and waiting slots of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spans {
    /// Start and length of each free run; runs never touch.
    free: BTreeMap<u32, u32>,
    waiting: Vec<Span>,
}

impl Spans {
    pub(crate) fn new(slots_max: u32) -> Self {
        let free = if slots_max > 0 { BTreeMap::from([(0, slots_max)]) } else { BTreeMap::new() };
        Self { free, waiting: Vec::new() }
    }

    /// Takes the first run that is long enough. A span of no slots is at 0 and costs nothing.
    pub(crate) fn take(&mut self, len: u32) -> Option<Span> {
        if len == 0 {
            return Some(Span::default());
        }
        let start = self.free.iter().find(|&(_, &run)| run >= len).map(|(&start, _)| start)?;
        let span = Span { start, len };
        self.reserve(span).then_some(span)
    }

    /// Takes exactly this span; `false` if part of it is not free.
    pub(crate) fn reserve(&mut self, span: Span) -> bool {
        if span.len == 0 {
            return true;
        }
        let Some((&start, &run)) = self.free.range(..=span.start).next_back() else { return false };
        let before = span.start - start;
        let Some(after) = run.checked_sub(before).and_then(|left| left.checked_sub(span.len)) else {
            return false;
        };
        self.free.remove(&start);
        if before > 0 {
            self.free.insert(start, before);
        }
        if after > 0 {
            self.free.insert(span.start + span.len, after);
        }
        true
    }

    /// Gives a span back, to be free after the next [`Self::settle`].
    pub(crate) fn give_back(&mut self, span: Span) {
        if span.len > 0 {
            self.waiting.push(span);
        }
    }

    /// What [`Self::give_back`] was given last stays where it is.
    pub(crate) fn keep_last(&mut self) {
        self.waiting.pop();
    }

    /// A span that was taken is free at once: the kernel never heard of it.
    pub(crate) fn put_back(&mut self, span: Span) {
        if span.len > 0 {
            self.join(span);
        }
    }

    /// The kernel has everything compiled so far: what was given back is free.
    pub(crate) fn settle(&mut self) {
        for span in std::mem::take(&mut self.waiting) {
            self.join(span);
        }
    }

    /// Slots in the longest free run.
    pub(crate) fn longest_free(&self) -> u32 {
        self.free.values().copied().max().unwrap_or_default()
    }

    fn join(&mut self, span: Span) {
        let mut joined = span;
        if let Some((&start, &run)) = self.free.range(..span.start).next_back()
            && start + run == span.start
        {
            self.free.remove(&start);
            joined = Span { start, len: run + span.len };
        }
        if let Some(run) = self.free.remove(&(span.start + span.len)) {
            joined.len += run;
        }
        self.free.insert(joined.start, joined.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_span_given_back_waits_for_the_kernel() {
        let mut spans = Spans::new(10);
        let first = spans.take(6).expect("fits");
        spans.give_back(first);
        assert_eq!(spans.take(6), None);
        spans.settle();
        assert_eq!(spans.take(10), Some(Span { start: 0, len: 10 }));
        assert_eq!(spans.take(0), Some(Span::default()));
    }

    #[test]
    fn a_reserved_span_must_be_free_and_inside() {
        let mut spans = Spans::new(10);
        assert!(spans.reserve(Span { start: 3, len: 4 }));
        assert!(!spans.reserve(Span { start: 6, len: 1 }));
        assert!(!spans.reserve(Span { start: 8, len: 3 }));
        assert!(!spans.reserve(Span { start: u32::MAX, len: 3 }));
        assert!(spans.reserve(Span { start: 7, len: 3 }));
    }

    proptest! {
        #[test]
        fn spans_never_overlap_and_nothing_is_lost(ops in prop::collection::vec((0_u32..20, any::<prop::sample::Index>()), 1..60)) {
            let mut spans = Spans::new(100);
            let mut held: Vec<Span> = Vec::new();
            for (len, which) in ops {
                if len == 0 && !held.is_empty() {
                    spans.give_back(held.swap_remove(which.index(held.len())));
                    spans.settle();
                } else if let Some(span) = spans.take(len) {
                    for other in &held {
                        let apart = span.start + span.len <= other.start || other.start + other.len <= span.start;
                        prop_assert!(apart || span.len == 0 || other.len == 0);
                    }
                    prop_assert!(span.start + span.len <= 100);
                    held.push(span);
                }
            }
            held.drain(..).for_each(|span| spans.give_back(span));
            spans.settle();
            prop_assert_eq!(spans.longest_free(), 100);
        }
    }
}
