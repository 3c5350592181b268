//! Whatever is done with pools, in whatever order, what was committed stays what it is.

use std::collections::BTreeMap;
use std::ops::Range;

use trampfd_code::pool::{Error, Kind, Layout, Pool, Pools, Request, Section, Set};
use trampfd_code::vm::{Write, page_size};

use super::{bytes, machine, options};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// What is to be in the sections of one set.
type Wanted = Vec<(Section, Vec<u8>)>;

struct One {
    pool: Pool,
    sets: Vec<(Set, Wanted)>,
    layouts: Vec<(Layout, Wanted)>,
    finalised: bool,
}

impl One {
    fn payload(&self) -> usize {
        let wanted = self.sets.iter().flat_map(|(_, wanted)| wanted);
        wanted.map(|(_, bytes)| bytes.len()).sum()
    }

    /// Where its sections are, those of sets that are not committed included.
    fn ranges(&self, all: &mut Vec<Range<usize>>) {
        let range = |at: usize, bytes: &Vec<u8>| at..at + bytes.len().max(1);
        for (set, wanted) in &self.sets {
            let at = |section| set.section(section).unwrap().address;
            all.extend(wanted.iter().map(|(section, bytes)| range(at(*section), bytes)));
        }
        for (layout, wanted) in &self.layouts {
            let at = |section| layout.address(section).unwrap();
            all.extend(wanted.iter().map(|(section, bytes)| range(at(*section), bytes)));
        }
    }

    fn check(&self) {
        for (set, wanted) in &self.sets {
            for (section, wanted) in wanted {
                let placed = set.section(*section).unwrap();
                assert!(bytes(placed.address, placed.len) == *wanted, "{placed:?} has changed");
            }
        }
    }

    /// Around code there are traps, unless there is other code.
    fn check_traps(&self) {
        let page = page_size();
        let mut code = BTreeMap::new();
        for (set, _) in &self.sets {
            for placed in set.sections().iter().filter(|placed| placed.kind == Kind::Code) {
                code.insert(placed.address, placed.address + placed.len);
            }
        }
        for (&start, &end) in code.iter().filter(|(start, end)| start < end) {
            let next = code.range(end..).find(|(start, end)| start < end);
            let next = next.map_or(usize::MAX, |(&start, _)| start);
            let rest = end..end.next_multiple_of(page).min(next);
            let traps = bytes(rest.start, rest.len());
            assert!(traps.iter().all(|byte| *byte == machine::TRAP), "after {start:#x}: {traps:?}");
        }
    }
}

fn lay_out(pool: &Pool, random: &mut Random) -> Result<(Layout, Wanted), Error> {
    let page = page_size();
    let mut set = pool.set();
    let mut wanted = Vec::new();
    for _ in 0..random.below(6) {
        let len = match random.below(12) {
            0 => 0,
            1 => 1,
            2 => page - 1,
            3 => page,
            4 => page + 1,
            5 => random.below(20 * page),
            _ => random.below(600),
        };
        let kind = [Kind::Code, Kind::ReadOnly, Kind::ReadWrite][random.below(3)];
        let most = if random.below(4) == 0 { 13 } else { 7 };
        let align = 1 << random.below(most);
        let section = set.request(Request { name: "", kind, len, align });
        // Never a trap.
        wanted.push((section, (0..len).map(|_| random.below(100) as u8).collect::<Vec<u8>>()));
    }
    let mut layout = set.lay_out()?;
    for (section, wanted) in &wanted {
        assert!(layout.address(*section).unwrap() > 0);
        layout.bytes(*section).unwrap().copy_from_slice(wanted);
    }
    Ok((layout, wanted))
}

/// With so many pools. Without `order` sets are committed in any order, or given up.
fn behaves(write: Write, seed: u64, count: usize, order: bool) {
    let random = &mut Random(seed);
    let pools = Pools::with(options(write)).unwrap();
    let start = pools.stats();
    let mut all: BTreeMap<u64, One> = BTreeMap::new();
    let mut commits = 0;
    let steps = 150 * count;
    for step in 0..steps {
        let id = random.below(count) as u64;
        match (random.below(40), all.get_mut(&id)) {
            (_, None) => {
                let pool = pools.create(id).unwrap();
                let (sets, layouts) = (Vec::new(), Vec::new());
                all.insert(id, One { pool, sets, layouts, finalised: false });
            }
            (0, Some(_)) => assert!(matches!(pools.create(id), Err(Error::IdInUse(_)))),
            (1, Some(_)) => {
                let mut one = all.remove(&id).unwrap();
                one.sets.clear();
                if random.below(2) == 0 {
                    pools.free(id).unwrap();
                }
                // What was laid out is dropped before its pool, or after it.
                if random.below(2) == 0 {
                    one.layouts.clear();
                }
                drop(one);
                assert!(matches!(pools.free(id), Err(Error::NoSuchPool(_))));
            }
            (2, Some(one)) => {
                one.pool.finalise().unwrap();
                one.finalised = true;
            }
            (3..10, Some(one)) if !one.layouts.is_empty() && !order => {
                // Given up.
                one.layouts.swap_remove(random.below(one.layouts.len()));
            }
            (10..25, Some(one)) if !one.layouts.is_empty() => {
                let next = if order { 0 } else { random.below(one.layouts.len()) };
                let (layout, wanted) = one.layouts.remove(next);
                match layout.commit() {
                    Ok(set) => {
                        one.sets.push((set, wanted));
                        commits += 1;
                    }
                    Err(Error::Finalised(_)) if one.finalised => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            (_, Some(one)) => match lay_out(&one.pool, random) {
                Ok(laid_out) => one.layouts.push(laid_out),
                Err(Error::Finalised(_)) if one.finalised => {}
                Err(other) => panic!("{other:?}"),
            },
        }
        if step % 50 == 0 {
            all.values().for_each(One::check);
            all.values().for_each(One::check_traps);
            let mut ranges = Vec::new();
            all.values().for_each(|one| one.ranges(&mut ranges));
            ranges.sort_by_key(|range| range.start);
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "sections overlap");
            let payload: usize = all.values().map(One::payload).sum();
            assert_eq!(pools.stats().payload, payload);
        }
    }
    assert!(commits > steps / 12, "hardly anything was done: {commits} sets");
    all.clear();
    let end = pools.stats();
    assert_eq!((end.committed, end.payload), (0, 0));
    assert_eq!((end.mappings, end.reserved), (start.mappings, start.reserved));
}

#[test]
fn what_was_committed_stays_until_its_pool_is_freed() {
    for seed in 0..3 {
        behaves(Write::Pwrite, seed, 8, false);
        behaves(Write::Alias, seed, 8, false);
    }
}

#[test]
fn one_pool_filled_in_order_stays_as_it_is() {
    for write in [Write::Pwrite, Write::Alias] {
        behaves(write, 7, 1, true);
    }
}
