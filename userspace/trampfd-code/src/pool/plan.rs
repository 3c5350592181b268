//! Where the sections of one kind go.

use std::cmp::Reverse;

/// What has to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Bytes.
    pub(super) len: usize,
    /// A power of two.
    pub(super) align: usize,
}

/// Offsets, in the order of the items, and where the last ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) offsets: Vec<usize>,
    pub(super) end: usize,
}

/// Places items one behind the other, from `from` on, aligned. A gap is less than the greatest
/// alignment. An item without bytes takes one, so that its offset is nobody else's.
pub(super) fn place(from: usize, items: &[Item]) -> Option<Plan> {
    // In one of these orders little is lost, whether `from` begins a page or is inside one.
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| Reverse(items[i].align));
    let falling = in_order(from, items, &order)?;
    order.sort_by_key(|&i| items[i].align);
    match in_order(from, items, &order) {
        Some(rising) if rising.end < falling.end => Some(rising),
        _ => Some(falling),
    }
}

fn in_order(from: usize, items: &[Item], order: &[usize]) -> Option<Plan> {
    let mut plan = Plan { offsets: vec![0; items.len()], end: from };
    for &i in order {
        let at = plan.end.checked_next_multiple_of(items[i].align)?;
        plan.offsets[i] = at;
        plan.end = at.checked_add(items[i].len.max(1))?;
    }
    Some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn item(len: usize, align: usize) -> Item {
        Item { len, align }
    }

    /// Numbers below `limit`, small ones more often.
    fn random(state: &mut u64, limit: usize) -> usize {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let number = (*state >> 33) as usize;
        (number >> (number % 16)) % limit
    }

    #[test]
    fn sections_are_aligned_apart_and_waste_no_full_page() {
        let state = &mut 1;
        for _ in 0..2000 {
            let count = random(state, 60) + 1;
            let items: Vec<Item> =
                (0..count).map(|_| item(random(state, 3 * PAGE), 1 << random(state, 13))).collect();
            let from = random(state, 5 * PAGE);
            let plan = place(from, &items).unwrap();
            let mut used: Vec<_> = plan
                .offsets
                .iter()
                .zip(&items)
                .map(|(&at, item)| {
                    assert!(at.is_multiple_of(item.align), "{at:#x}: {item:?}");
                    at..at + item.len.max(1)
                })
                .collect();
            used.sort_by_key(|range| range.start);
            let mut before = from;
            for range in &used {
                assert!(range.start >= before, "{range:?} begins before {before}");
                assert!(range.start - before < PAGE, "a page between {before} and {range:?}");
                before = range.end;
            }
            assert_eq!(plan.end, before);
            let padded: usize =
                items.iter().map(|item| item.len.max(1).next_multiple_of(item.align)).sum();
            let most = items.iter().map(|item| item.align).max().unwrap();
            assert!(plan.end < from + padded + most, "{items:?} take more than padded");
        }
    }

    #[test]
    fn sections_go_into_the_page_that_is_begun() {
        let items = [item(PAGE, PAGE), item(100, 4), item(100, 2)];
        let inside = place(PAGE / 2, &items).unwrap();
        assert_eq!(inside.end, 2 * PAGE);
        let at_the_start = place(0, &items).unwrap();
        assert_eq!(at_the_start, Plan { offsets: vec![0, PAGE, PAGE + 100], end: PAGE + 200 });
    }

    #[test]
    fn no_length_goes_around() {
        let top = usize::MAX;
        for items in [
            &[item(top, 1), item(1, 1)][..],
            &[item(top / 2 + 1, 1), item(top / 2 + 1, 1)],
            &[item(top - 10, 4096), item(1, 4096)],
        ] {
            assert_eq!(place(0, items), None, "{items:?}");
        }
        assert_eq!(place(top, &[item(0, 1)]), None);
    }
}
