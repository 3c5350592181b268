//! What part of an area was handed out.

use std::ops::Range;

use crate::vm::page_size;

/// How many pages' bytes are made ready at once, where there is room.
const AHEAD: usize = 1 << 20;

/// A range of pages that is handed out from its first byte to its last.
///
/// # Invariants
///
/// `done <= next <= ready <= end`; all but `next` are multiples of a page. What lies before
/// `done` is final, what lies from there to `ready` can be written. All are offsets in one
/// mapping.
#[derive(Debug)]
pub(super) struct Area {
    done: usize,
    next: usize,
    ready: usize,
    end: usize,
}

impl Area {
    pub(super) fn new(pages: Range<usize>) -> Area {
        Area { done: pages.start, next: pages.start, ready: pages.start, end: pages.end }
    }

    /// Where `len` bytes, not 0, whose address is a multiple of `align`, a power of two, have
    /// room if the mapping begins at `base`.
    pub(super) fn room(&self, base: usize, len: usize, align: usize) -> Option<Range<usize>> {
        let at = base.checked_add(self.next)?.checked_next_multiple_of(align)? - base;
        let end = at.checked_add(len).filter(|&end| end <= self.end)?;
        Some(at..end)
    }

    /// The pages that have to be made writable before what ends at `end` is handed out.
    pub(super) fn unready(&self, end: usize) -> Option<Range<usize>> {
        let ahead = end.next_multiple_of(page_size()).saturating_add(AHEAD).min(self.end);
        (end > self.ready).then_some(self.ready..ahead)
    }

    /// All before `end` can be written.
    pub(super) fn made_ready(&mut self, end: usize) {
        self.ready = end;
    }

    /// `room` belongs to somebody, and is ready.
    pub(super) fn hand_out(&mut self, room: &Range<usize>) {
        self.next = room.end;
    }

    /// What was handed out and is not final.
    pub(super) fn staged(&self) -> Option<Range<usize>> {
        (self.next > self.done).then_some(self.done..self.next)
    }

    /// The pages of which nothing was handed out.
    pub(super) fn unused(&self) -> Range<usize> {
        // Not past `end`, which is a multiple of a page.
        self.next.next_multiple_of(page_size())..self.end
    }

    /// What was handed out is final, and the rest of its last page is nobody's.
    pub(super) fn finish(&mut self) {
        // Not past `ready`, which is a multiple of a page.
        self.next = self.next.next_multiple_of(page_size());
        self.done = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Area {
        fn take(&mut self, base: usize, len: usize, align: usize) -> Option<usize> {
            let room = self.room(base, len, align)?;
            if let Some(pages) = self.unready(room.end) {
                assert!(pages.start == self.ready && room.end <= pages.end);
                self.made_ready(pages.end);
            }
            self.hand_out(&room);
            Some(room.start)
        }
    }

    #[test]
    fn pages_are_made_ready_ahead_and_once() {
        let mut area = Area::new(0..3 * AHEAD);
        assert_eq!(area.unready(1), Some(0..AHEAD + page_size()));
        area.made_ready(AHEAD + page_size());
        assert_eq!(area.unready(AHEAD + page_size()), None);
        assert_eq!(area.unready(2 * AHEAD + 1), Some(AHEAD + page_size()..3 * AHEAD));
    }

    #[test]
    fn what_is_handed_out_is_aligned_and_in_order() {
        let page = page_size();
        let mut area = Area::new(page..3 * page);
        let base = 16 * page;
        assert_eq!(area.take(base, 1, 1), Some(page));
        assert_eq!(area.take(base, 5, 64), Some(page + 64));
        assert_eq!(area.take(base, 1, 1), Some(page + 69));
        assert_eq!(area.staged(), Some(page..page + 70));
        // The address is aligned, not the offset.
        assert_eq!(area.take(base + page, page, 2 * page), None);
        assert_eq!(area.take(base, page, 2 * page), Some(2 * page));
        assert_eq!(area.take(base, 1, 1), None);
    }

    #[test]
    fn after_finish_a_new_page_begins() {
        let page = page_size();
        let mut area = Area::new(0..3 * page);
        assert_eq!(area.staged(), None);
        area.finish();
        assert_eq!(area.take(0, 10, 1), Some(0));
        area.finish();
        assert_eq!(area.staged(), None);
        assert_eq!(area.take(0, page, 1), Some(page));
        area.finish();
        assert_eq!(area.take(0, page, 1), Some(2 * page));
        area.finish();
        assert_eq!(area.take(0, 1, 1), None);
    }

    #[test]
    fn no_length_or_alignment_goes_around() {
        let page = page_size();
        let mut area = Area::new(0..page);
        for (len, align) in [(usize::MAX, 1), (1, 1 << (usize::BITS - 1)), (page + 1, 1)] {
            assert_eq!(area.take(page, len, align), None);
        }
        assert_eq!(area.take(page, page, 1), Some(0));
    }
}
