//! What of a run of pages was handed out, and what was written.

use std::ops::Range;

use super::plan::{self, Item, Plan};

/// A run of pages that is handed out from its first byte to its last.
///
/// # Invariants
///
/// All are offsets in one arena. `run` is whole pages, `next` lies in it or at its end, and from
/// there on nothing is handed out. No page from `used` on was ever written. `touched` says of each
/// page of the run whether what was to be written there is there.
#[derive(Debug)]
pub(super) struct Tail {
    run: Range<usize>,
    next: usize,
    used: usize,
    page: usize,
    touched: Vec<bool>,
}

/// Bytes that were handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    range: Range<usize>,
    /// Up to where others had been handed out.
    before: usize,
}

impl Taken {
    /// Theirs alone.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Tail {
    /// Of a run of whole pages of `page` bytes.
    pub(super) fn new(run: Range<usize>, page: usize) -> Tail {
        let touched = vec![false; run.len() / page];
        Tail { next: run.start, used: run.start, run, page, touched }
    }

    /// All of the run.
    pub(super) fn run(&self) -> Range<usize> {
        self.run.clone()
    }

    /// Hands out bytes for the items, if there are as many.
    pub(super) fn take(&mut self, items: &[Item]) -> Option<(Plan, Taken)> {
        let plan = plan::place(self.next, items).filter(|plan| plan.end <= self.run.end)?;
        let start = plan.offsets.iter().copied().min()?;
        let taken = Taken { range: start..plan.end, before: self.next };
        self.next = plan.end;
        Some((plan, taken))
    }

    /// Takes back what was not used, if nothing behind it was handed out.
    pub(super) fn put(&mut self, taken: &Taken) {
        if self.next == taken.range.end {
            self.next = taken.before;
        }
    }

    /// What has to be written for `range`, which was handed out, so that a page that has code has
    /// nothing else but traps around it: the rest of its first and its last page, if they are
    /// written for the first time. Who has been handed out bytes there will write them later.
    pub(super) fn with_rest(&self, range: Range<usize>) -> Range<usize> {
        let pages = self.pages(range.clone());
        let first = self.is_touched(range.start..range.start + 1);
        let last = self.is_touched(range.end - 1..range.end);
        let start = if first { range.start } else { pages.start };
        start..if last { range.end } else { pages.end }
    }

    /// The pages of `range`.
    pub(super) fn pages(&self, range: Range<usize>) -> Range<usize> {
        range.start / self.page * self.page..range.end.next_multiple_of(self.page)
    }

    /// Whether every page of `range` was written before.
    pub(super) fn is_touched(&self, range: Range<usize>) -> bool {
        self.touched[self.numbers(range)].iter().all(|&touched| touched)
    }

    /// `range` is written; says how many bytes of pages were not touched before.
    pub(super) fn touch(&mut self, range: Range<usize>) -> usize {
        let numbers = self.numbers(range);
        let pages = &mut self.touched[numbers];
        let new = pages.iter().filter(|&&touched| !touched).count();
        pages.fill(true);
        new * self.page
    }

    /// `range` is about to be written. Should that fail, something of it may be there.
    pub(super) fn attempt(&mut self, range: &Range<usize>) {
        self.used = self.used.max(range.end.next_multiple_of(self.page));
    }

    /// The pages in which there may be something.
    pub(super) fn used(&self) -> Option<Range<usize>> {
        (self.used > self.run.start).then_some(self.run.start..self.used)
    }

    /// Bytes of pages that were written.
    pub(super) fn committed(&self) -> usize {
        self.touched.iter().filter(|&&touched| touched).count() * self.page
    }

    fn numbers(&self, range: Range<usize>) -> Range<usize> {
        let Range { start, end } = self.pages(range);
        (start - self.run.start) / self.page..(end - self.run.start) / self.page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn tail(pages: usize) -> Tail {
        Tail::new(PAGE..(pages + 1) * PAGE, PAGE)
    }

    fn take(tail: &mut Tail, len: usize) -> Taken {
        tail.take(&[Item { len, align: 16 }]).unwrap().1
    }

    #[test]
    fn traps_surround_what_is_written_and_nothing_written_is_trapped() {
        let mut tail = tail(4);
        let first = take(&mut tail, 100);
        assert_eq!(tail.with_rest(first.range.clone()), PAGE..2 * PAGE);
        tail.attempt(&first.range);
        assert_eq!(tail.touch(first.range), PAGE);
        let second = take(&mut tail, 100);
        assert_eq!(second.range, PAGE + 112..PAGE + 212);
        assert_eq!(tail.with_rest(second.range.clone()), second.range);
        assert_eq!(tail.touch(second.range), 0);
        let third = take(&mut tail, PAGE);
        assert_eq!(tail.with_rest(third.range.clone()), third.range.start..3 * PAGE);
        tail.attempt(&third.range);
        assert_eq!(tail.touch(third.range), PAGE);
        assert_eq!(tail.used(), Some(PAGE..3 * PAGE));
        assert_eq!(tail.committed(), 2 * PAGE);
    }

    #[test]
    fn sets_may_be_written_in_any_order() {
        let mut tail = tail(8);
        let sets: Vec<_> = [100, 3 * PAGE, 100].map(|len| take(&mut tail, len)).into();
        // The last first: its page, and not the pages of the one before.
        let last = tail.with_rest(sets[2].range.clone());
        assert_eq!(last, 4 * PAGE..5 * PAGE);
        tail.touch(last);
        assert!(!tail.is_touched(sets[1].range.clone()));
        // The bytes behind are another's.
        let middle = tail.with_rest(sets[1].range.clone());
        assert_eq!(middle, PAGE..sets[1].range.end);
        tail.touch(middle);
        assert_eq!(tail.with_rest(sets[0].range.clone()), sets[0].range);
        assert_eq!(tail.committed(), 4 * PAGE);
        assert!(tail.is_touched(PAGE..5 * PAGE));
    }

    #[test]
    fn what_is_given_up_is_handed_out_again() {
        let mut tail = tail(1);
        let (first, second) = (take(&mut tail, 10), take(&mut tail, 10));
        tail.put(&first);
        assert_eq!(take(&mut tail, 1).range.start, PAGE + 32);
        tail.put(&second);
        assert_eq!(take(&mut tail, 1).range.start, PAGE + 48, "there is something behind it");
        let third = take(&mut tail, 100);
        tail.put(&third);
        assert_eq!(take(&mut tail, 100), third);
        assert_eq!(tail.take(&[Item { len: PAGE, align: 1 }]), None);
    }
}
