//! What part of an area was handed out.

use std::ops::Range;

use crate::vm::page_size;

/// A range of pages that is handed out from its first byte to its last.
///
/// # Invariants
///
/// `done <= next`, and `next <= end`; `done` and `end` are multiples of a page. What lies before
/// `done` is final. All are offsets in one mapping.
#[derive(Debug)]
pub(super) struct Area {
    done: usize,
    next: usize,
    end: usize,
}

impl Area {
    pub(super) fn new(pages: Range<usize>) -> Area {
        Area { done: pages.start, next: pages.start, end: pages.end }
    }

    /// The offset of `len` bytes, not 0, whose address is a multiple of `align`, a power of two,
    /// if the mapping begins at `base`.
    pub(super) fn take(&mut self, base: usize, len: usize, align: usize) -> Option<usize> {
        let at = base.checked_add(self.next)?.checked_next_multiple_of(align)? - base;
        let end = at.checked_add(len).filter(|&end| end <= self.end)?;
        self.next = end;
        Some(at)
    }

    /// What was handed out and is not final.
    pub(super) fn staged(&self) -> Option<Range<usize>> {
        (self.next > self.done).then_some(self.done..self.next)
    }

    /// What was handed out is final, and the rest of its last page is nobody's.
    pub(super) fn finish(&mut self) {
        // Not past `end`, which is a multiple of a page.
        self.next = self.next.next_multiple_of(page_size());
        self.done = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
