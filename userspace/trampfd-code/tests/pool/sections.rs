//! Sections are where they were said to be, with what was put there: what LLVM asks of a memory
//! manager (MCJITMemoryManagerTest), and what sets and pools add to that.

use std::collections::HashSet;

use trampfd_code::pool::{Error, Kind, Options, Pool, Pools, Request, Section};
use trampfd_code::vm::{self, Place, Write, page_size};

use super::support::alone::alone;
use super::{Module, answer, bytes, call, check, machine, modules, options, request, row};

/// One set with these sections, each filled with a byte of its own; it is seen that they are
/// there, aligned, apart, and have the rights of their kind.
fn sections_hold(pool: &Pool, wanted: &[(Kind, usize, usize)]) -> Vec<usize> {
    let mut set = pool.set();
    let sections: Vec<Section> = wanted
        .iter()
        .map(|&(kind, len, align)| set.request(Request { name: "", kind, len, align }))
        .collect();
    let mut layout = set.lay_out().unwrap();
    for (i, &section) in sections.iter().enumerate() {
        let bytes = layout.bytes(section).unwrap();
        assert_eq!(bytes.len(), wanted[i].1);
        bytes.fill(i as u8);
    }
    let said: Vec<usize> = sections.iter().map(|&s| layout.address(s).unwrap()).collect();
    let set = layout.commit().unwrap();
    let mut ranges = Vec::new();
    for (i, (&section, &(kind, len, align))) in sections.iter().zip(wanted).enumerate() {
        let placed = set.section(section).unwrap();
        assert_eq!((placed.address, placed.len, placed.kind), (said[i], len, kind));
        assert!(placed.address.is_multiple_of(align));
        assert!(bytes(placed.address, len).iter().all(|&byte| byte == i as u8), "section {i}");
        ranges.push(placed.address..placed.address + len.max(1));
    }
    for kind in [Kind::Code, Kind::ReadOnly, Kind::ReadWrite] {
        let Some(i) = wanted.iter().position(|wanted| wanted.0 == kind) else { continue };
        let rights = match kind {
            Kind::Code => "r-xs",
            Kind::ReadOnly => "r--s",
            Kind::ReadWrite => "rw-p",
        };
        assert_eq!(row(said[i]).rights, rights);
    }
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "sections overlap");
    said
}

#[test]
fn basic_allocations() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let wanted = [Kind::Code, Kind::ReadOnly, Kind::Code, Kind::ReadWrite];
    sections_hold(&pool, &wanted.map(|kind| (kind, 256, 1)));
    pool.finalise().unwrap();
}

#[test]
fn large_allocations() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let wanted = [Kind::Code, Kind::ReadOnly, Kind::Code, Kind::ReadWrite];
    sections_hold(&pool, &wanted.map(|kind| (kind, 1 << 20, 1)));
    pool.finalise().unwrap();
}

#[test]
fn many_allocations() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let both = [(Kind::Code, 32, 1), (Kind::ReadWrite, 32, 1)];
    sections_hold(&pool, &both.repeat(10_000));
    pool.finalise().unwrap();
}

#[test]
fn many_varied_allocations() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let mut wanted = Vec::new();
    for i in 0..10_000 {
        let read_only = if i % 3 == 0 { Kind::ReadOnly } else { Kind::ReadWrite };
        wanted.push((Kind::Code, i % 512, 1 << (i % 13)));
        wanted.push((read_only, i % 128, 1 << (i % 7)));
    }
    sections_hold(&pool, &wanted);
    pool.finalise().unwrap();
}

/// With LLVM this needs a reservation first; here every set is one.
#[test]
fn what_was_asked_for_at_once_lies_together() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let said = sections_hold(&pool, &[(Kind::Code, 600, 1); 3]);
    let span = said.iter().max().unwrap() - said.iter().min().unwrap();
    assert_eq!(span, 1200);
    let all = [Kind::Code, Kind::ReadOnly, Kind::ReadWrite].map(|kind| (kind, 5000, 64));
    let said = sections_hold(&pool, &all);
    let span = said.iter().max().unwrap() - said.iter().min().unwrap();
    assert!(span < 1 << 31, "out of reach of each other: {said:x?}");
}

#[test]
fn the_next_set_goes_on_in_the_same_pages() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let kinds = [Kind::Code, Kind::ReadOnly, Kind::ReadWrite].map(|kind| (kind, 256, 16));
    let first = sections_hold(&pool, &kinds);
    let second = sections_hold(&pool, &kinds);
    let next: Vec<usize> = first.iter().map(|address| address + 256).collect();
    assert_eq!(second, next);
    assert_eq!(bytes(first[0], 256), [0; 256], "the second set changed the first");
}

#[test]
fn many_sets_of_one_pool() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let mut all = Vec::new();
    for i in 0..1000 {
        let set = modules(&pool, i % 5);
        check(&set);
        all.push(set);
    }
    all.iter().for_each(check);
    pool.finalise().unwrap();
    all.iter().for_each(check);
}

/// Small arenas, so that there have to be many.
fn near(place: Place) -> Pools {
    let mut options = Options::default();
    options.arena = 1 << 20;
    options.memory.place = place;
    Pools::with(options).unwrap()
}

#[test]
fn code_reaches_the_data_of_every_pool() {
    let address = 1 << 40;
    let far = Place::Near { address, within: 1 << 40 };
    let close = Place::Near { address: address + (8 << 30), within: 1 << 28 };
    for (place, around) in [(Place::Anywhere, None), (far, Some(far)), (close, Some(close))] {
        let pools = near(place);
        let pool: Vec<Pool> = (0..64).map(|id| pools.create(id).unwrap()).collect();
        let of = |pool| modules(pool, 30).0.sections().to_vec();
        let addresses: Vec<usize> =
            pool.iter().flat_map(of).map(|section| section.address).collect();
        let (low, high) = (*addresses.iter().min().unwrap(), *addresses.iter().max().unwrap());
        assert!(high - low > 3 << 20, "one arena was enough");
        assert!(high - low < 1 << 31, "{place:?}: out of reach: {low:#x} and {high:#x}");
        if let Some(Place::Near { address, within }) = around {
            assert!(address.abs_diff(low) <= within && address.abs_diff(high) <= within);
        }
    }
}

/// Takes `len` bytes of address space at `address`, if they are free.
fn take(address: usize, len: usize) {
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let at = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: replaces nothing.
    unsafe { libc::mmap(at, len, libc::PROT_NONE, kind | libc::MAP_FIXED_NOREPLACE, -1, 0) };
}

#[test]
fn arenas_of_any_size_do() {
    let most = (1 << 30) / 3 / page_size() * page_size();
    for arena in [0, 1, page_size() - 1, page_size(), page_size() + 1, 1 << 16, most] {
        for write in [Write::Pwrite, Write::Alias] {
            let mut options = options(write);
            options.arena = arena;
            let pools = Pools::with(options).unwrap();
            let (one, other) = (pools.create(1).unwrap(), pools.create(2).unwrap());
            let sets = [(&one, 30), (&other, 1), (&one, 1), (&other, 100)];
            let sets = sets.map(|(pool, count)| modules(pool, count));
            one.finalise().unwrap();
            sets.iter().for_each(check);
            drop(other);
            check(&sets[0]);
            check(&sets[2]);
        }
    }
}

#[test]
fn where_no_room_is_near_a_pool_is_refused() {
    alone(|| {
        for place in [Place::Anywhere, Place::Near { address: 1 << 40, within: 1 << 40 }] {
            let pools = near(place);
            let first = pools.create(0).unwrap();
            let code = answer(&first, 1);
            let blocks = (1100 << 20) / (1 << 20);
            for i in 1..=blocks {
                let base = code & !((1 << 20) - 1);
                take(base - (i << 20), 1 << 20);
                take(base + (i << 20), 1 << 20);
            }
            let full = (1..100).map(|id| pools.create(id)).collect::<Vec<_>>();
            let error = full.into_iter().find_map(Result::err);
            let no_room = matches!(error, Some(Error::Memory(vm::Error::NoRoomNear { .. })));
            assert!(no_room, "{place:?}: {error:?}");
            assert_eq!((call(code), call(answer(&first, 2))), (1, 2));
        }
    });
}

#[test]
fn pools_share_no_page_and_sets_of_a_pool_do() {
    let pools = Pools::new().unwrap();
    let pool = [1, 2].map(|id| pools.create(id).unwrap());
    let mut pages = [HashSet::new(), HashSet::new()];
    for i in 0..200 {
        let address = answer(&pool[i % 2], i as i32);
        pages[i % 2].insert(address / page_size());
    }
    assert_eq!(pages.each_ref().map(HashSet::len), [1, 1], "16 bytes each");
    assert!(pages[0].is_disjoint(&pages[1]));
}

#[test]
fn traps_are_around_code_and_where_none_was_put() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let mut set = pool.set();
    let code = set.request(request("code", Kind::Code, 100));
    let mut layout = set.lay_out().unwrap();
    layout.bytes(code).unwrap()[..6].copy_from_slice(&machine::answer(1));
    let abandoned = {
        let mut set = pool.set();
        let code = set.request(request("never", Kind::Code, 100));
        let layout = set.lay_out().unwrap();
        layout.address(code).unwrap()
    };
    let first = layout.commit().unwrap().section(code).unwrap().address;
    let second = answer(&pool, 2);
    assert_eq!(second, abandoned, "the place of a set that was given up");
    let page = bytes(first, page_size());
    let traps = page.iter().filter(|&&byte| byte == machine::TRAP).count();
    assert_eq!(traps, page_size() - 2 * machine::ANSWER);
    assert_eq!((call(first), call(second)), (1, 2));
}

#[test]
fn sections_without_bytes_have_addresses_of_their_own() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let mut addresses = HashSet::new();
    for _ in 0..10 {
        for align in [1, 64, page_size()] {
            for kind in [Kind::Code, Kind::ReadOnly, Kind::ReadWrite] {
                let [address] = sections_hold(&pool, &[(kind, 0, align)])[..] else { panic!() };
                assert!(addresses.insert(address));
            }
        }
    }
    let nothing = pool.set().lay_out().unwrap().commit().unwrap();
    assert!(nothing.sections().is_empty());
}

#[test]
fn a_set_says_what_it_has() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let (set, modules) = modules(&pool, 2);
    let Module { code, constants, .. } = modules[0];
    assert_eq!(set.get("code"), Some(set.section(code).unwrap()));
    assert_eq!(set.get("constants"), Some(set.section(constants).unwrap()));
    assert_eq!(set.get("something"), None);
    let names: Vec<&str> = set.sections().iter().map(|section| &*section.name).collect();
    assert_eq!(names, ["code", "constants", "variables"].repeat(2));
}

#[test]
fn code_stays_when_its_pool_is_leaked() {
    let code = {
        let pools = Pools::new().unwrap();
        let pool = pools.create(1).unwrap();
        let set = modules(&pool, 10);
        pool.leak();
        assert!(pools.create(1).is_err(), "its id is in use");
        set
    };
    check(&code);
}

#[test]
fn variables_can_be_changed_after_finalise() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let (set, modules) = modules(&pool, 3);
    let variables = set.section(modules[2].variables).unwrap().address;
    let mut more = pool.set();
    let code = more.request(request("bump", Kind::Code, machine::BUMP));
    let mut layout = more.lay_out().unwrap();
    let bump = machine::bump(layout.address(code).unwrap(), variables).expect("in reach");
    layout.bytes(code).unwrap().copy_from_slice(&bump);
    let bump = layout.commit().unwrap().section(code).unwrap().address;
    pool.finalise().unwrap();
    assert_eq!(modules[2].call(&set), 2);
    call(bump);
    assert_eq!(modules[2].call(&set), 3);
}
