//! What cannot be done with pages, and what is counted.

use trampfd_code::vm::{
    Access, CodeFile, Error, Mapping, Meter, Options, Place, Region, Write, page_size,
};

use crate::pages::{attempts, poke, reserve, take};
use crate::support::alone::{alone, lacks};
use crate::support::maps::Row;
use crate::support::policy::refuse;
use crate::{
    call, folder_source, from, memfds, options, region, returns, row_of, rows, usable_sources,
};

fn errno(result: Result<(), Error>) -> Option<i32> {
    match result {
        Err(Error::System { error, .. }) => error.raw_os_error(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn executable_pages_can_never_be_written() {
    for source in usable_sources() {
        for write in [Write::Pwrite, Write::Alias] {
            let region = region(&from(&source, write));
            assert_eq!(poke(region.rx()), libc::EIO, "{source}: /proc/self/mem");
            let [rw, rwx, ..] = attempts(region.rx().cast_mut());
            assert_eq!([rw, rwx], [libc::EACCES; 2], "{source}: mprotect");
            // The last attempts took the page away. The next is still there.
            assert_eq!(row_of(region.rx().wrapping_add(page_size())).unwrap().rights, "r-xs");
        }
    }
}

#[test]
fn pages_that_were_written_never_become_executable_where_they_are() {
    let mapping = Mapping::reserve(4 * page_size(), Place::Anywhere, &Meter::new()).unwrap();
    mapping.map_memory(0, page_size()).unwrap();
    let error = mapping.protect(0, page_size(), Access::Execute).unwrap_err();
    assert!(matches!(error, Error::WouldExecute), "{error:?}");
    assert_eq!(row_of(mapping.ptr()).unwrap().rights, "rw-p");
}

#[test]
fn an_alias_that_is_withdrawn_is_gone() {
    let region = region(&options(Write::Alias));
    let alias = region.rw().unwrap();
    assert_eq!(row_of(alias).unwrap().rights, "rw-s");
    // SAFETY: nobody uses it.
    unsafe { region.file().withdraw() }.unwrap();
    assert_eq!(region.rw(), None);
    let there = row_of(alias).unwrap();
    assert_eq!((&*there.rights, &*there.path), ("---p", ""), "the address is kept");
    let inode = row_of(region.rx()).unwrap().path;
    let writable = rows().into_iter().find(|row| row.path == inode && row.rights.contains('w'));
    // Other tests have files of that name: only what lies in the alias is this one's.
    let inside = writable.filter(|row| row.range.contains(&(alias as usize)));
    assert!(inside.is_none(), "{inside:?}");
    assert_eq!(call(region.rx()), 42);
    // By pwrite from here on.
    assert_eq!(region.file().how(), Write::Pwrite);
    // SAFETY: nobody runs it.
    unsafe { region.write(0, &returns(43)) }.unwrap();
    assert_eq!(call(region.rx()), 43);
}

#[test]
fn an_alias_that_could_not_be_withdrawn_is_there_still() {
    alone(|| {
        let region = region(&options(Write::Alias));
        // What takes an alias away leaves its address reserved.
        refuse(&[(libc::SYS_mmap, 3, libc::MAP_FIXED | libc::MAP_ANONYMOUS)], libc::ENOMEM);
        for _ in 0..2 {
            // SAFETY: nobody uses it.
            let error = errno(unsafe { region.file().withdraw() });
            assert_eq!(error, Some(libc::ENOMEM));
            assert_eq!(row_of(region.rw().unwrap()).unwrap().rights, "rw-s");
        }
        assert_eq!(region.file().how(), Write::Alias);
        // SAFETY: nobody runs it.
        unsafe { region.write(0, &returns(43)) }.unwrap();
        assert_eq!(call(region.rx()), 43);
    });
}

#[test]
fn an_alias_that_children_would_get_is_not_left() {
    alone(|| {
        let file = CodeFile::new(1, &options(Write::Pwrite), &Meter::new()).unwrap();
        let (meter, page) = (Meter::new(), page_size());
        let mapping = Mapping::reserve(2 * page, Place::Anywhere, &meter).unwrap();
        refuse(&[(libc::SYS_madvise, 2, libc::MADV_DONTFORK)], libc::EPERM);
        let answer = mapping.map_file(page, page, &file, 0, Access::Write);
        assert_eq!(errno(answer), Some(libc::EPERM));
        assert_eq!(row_of(mapping.ptr().wrapping_add(page)).unwrap().rights, "---p");
        assert_eq!(meter.stats().mappings, 1);
        assert_eq!(errno(file.writable(0..page).map(drop)), Some(libc::EPERM));
        let error = CodeFile::new(1, &options(Write::Alias), &Meter::new()).unwrap_err();
        assert!(matches!(error, Error::System { .. }), "{error:?}");
        assert!(rows().iter().all(|row| row.rights != "rw-s"), "an alias is left");
    });
}

/// Asked past the library, too: a view is made through a descriptor that gives no more.
#[test]
fn a_view_never_becomes_more_than_it_was_made_for() {
    let region = region(&options(Write::Pwrite));
    let page = page_size();
    for access in [Access::None, Access::Read, Access::Execute] {
        let mapping = Mapping::reserve(page, Place::Anywhere, &Meter::new()).unwrap();
        mapping.map_file(0, page, region.file(), 0, access).unwrap();
        let before = row_of(mapping.ptr()).unwrap().rights;
        assert_eq!(attempts(mapping.ptr())[..2], [libc::EACCES; 2], "{access:?}");
        std::mem::forget(mapping);
        assert!(!before.contains('w'), "{access:?}");
    }
    for access in [Access::None, Access::Read, Access::Write, Access::Execute] {
        let mapping = Mapping::reserve(2 * page, Place::Anywhere, &Meter::new()).unwrap();
        mapping.map_memory(0, page).unwrap();
        mapping.map_file(page, page, region.file(), 0, access).unwrap();
        let rights = || row_of(mapping.ptr().wrapping_add(page)).unwrap().rights;
        let before = rights();
        for to in [Access::None, Access::Read, Access::Write] {
            for range in [page..2 * page, 0..2 * page] {
                let answer = mapping.protect(range.start, range.len(), to);
                assert!(matches!(answer, Err(Error::ViewOfFile)), "{access:?} {to:?}: {answer:?}");
            }
        }
        assert_eq!(rights(), before);
        mapping.protect(0, page, Access::Read).unwrap();
    }
}

#[test]
fn a_file_that_is_sealed_is_written_by_its_alias_only() {
    for source in &memfds() {
        let region = region(&from(source, Write::Alias));
        region.file().seal_but_alias().unwrap();
        // SAFETY: nobody runs it.
        unsafe { region.write(0, &returns(43)) }.unwrap();
        assert_eq!(call(region.rx()), 43, "the alias still writes");
        let more = region.file().writable(0..page_size()).map(drop);
        assert_eq!(errno(more), Some(libc::EPERM), "another alias");
        // SAFETY: nobody uses the alias.
        unsafe { region.file().withdraw() }.unwrap();
        // SAFETY: nobody runs it.
        let by_call = unsafe { region.write(0, &returns(44)) };
        assert_eq!(errno(by_call), Some(libc::EPERM), "pwrite");
        assert_eq!(call(region.rx()), 43);
    }
}

#[test]
fn a_file_whose_writes_are_sealed_is_written_by_nothing() {
    for source in &memfds() {
        let region = region(&from(source, Write::Alias));
        let error = region.file().seal_writes().unwrap_err();
        assert!(matches!(error, Error::Aliased), "{error:?}");
        let view = region.file().writable(0..page_size()).unwrap();
        // SAFETY: nobody uses the alias.
        unsafe { region.file().withdraw() }.unwrap();
        let error = region.file().seal_writes().unwrap_err();
        assert!(matches!(error, Error::Aliased), "a view is an alias, too: {error:?}");
        drop(view);
        region.file().seal_writes().unwrap();
        // SAFETY: nobody runs it.
        let (write, punch) =
            unsafe { (region.write(0, &returns(44)), region.file().discard(0..page_size())) };
        assert_eq!(errno(write), Some(libc::EPERM), "pwrite");
        assert_eq!(errno(punch), Some(libc::EPERM), "punch");
        let more = region.file().writable(0..page_size()).map(drop);
        assert_eq!(errno(more), Some(libc::EPERM), "another alias");
        assert_eq!(call(region.rx()), 42);
        assert_eq!(poke(region.rx()), libc::EIO);
    }
    // An executable view can still be made of it.
    let file = CodeFile::new(1, &Options::default(), &Meter::new()).unwrap();
    file.seal_writes().unwrap();
    let view = Mapping::reserve(1, Place::Anywhere, &Meter::new()).unwrap();
    view.map_file(0, file.len(), &file, 0, Access::Execute).unwrap();
}

#[test]
fn a_file_that_is_no_memfd_says_that_it_has_no_seals() {
    let region = region(&from(&folder_source(), Write::Pwrite));
    for answer in [region.file().seal_writes(), region.file().seal_but_alias()] {
        assert!(matches!(answer, Err(Error::NoSeals)), "{answer:?}");
    }
}

#[test]
fn sealed_pages_stay_where_they_are() {
    let region = region(&Options::default());
    if let Err(Error::System { error, .. }) = region.seal_pages() {
        lacks("mseal", (6, 10), &error);
    }
    let code = region.rx();
    for round in ["held", "dropped"] {
        let [rw, rwx, rest @ ..] = attempts(code.cast_mut());
        // Before it is seen that the pages are sealed, it is that they cannot be written.
        assert_eq!([rw, rwx], [libc::EACCES; 2], "{round}");
        assert_eq!(rest, [libc::EPERM; 3], "{round}: munmap, mremap, mmap");
        assert_eq!(call(code), 42);
        // SAFETY: the pages are sealed.
        let none = unsafe { libc::mprotect(code.cast_mut().cast(), page_size(), 0) };
        assert_eq!(none, -1, "{round}: mprotect to nothing");
    }
    drop(region);
    assert_eq!(call(code), 42);
    assert_eq!(attempts(code.cast_mut())[2..], [libc::EPERM; 3]);
}

#[test]
fn pages_are_as_near_as_asked() {
    let mut near = Options::default();
    for within in [1 << 31, 1 << 27] {
        let address = pages_are_as_near_as_asked as *const () as usize;
        near.place = Place::Near { address, within };
        for _ in 0..8 {
            let region = region(&near);
            let start = region.rx() as usize;
            let far = address.abs_diff(start).max(address.abs_diff(start + region.len()));
            assert!(far <= within, "{far:#x}");
            std::mem::forget(region);
        }
    }
    // Everything around is taken.
    let taken = reserve(1 << 24) as usize + (1 << 23);
    near.place = Place::Near { address: taken, within: 1 << 22 };
    let meter = Meter::new();
    let error = Region::new(1, &near, &meter).unwrap_err();
    assert!(matches!(error, Error::NoRoomNear { address, within: 0x40_0000 } if address == taken));
    assert_eq!((meter.stats().mappings, meter.stats().reserved), (0, 0));
}

#[test]
fn the_only_room_is_found_wherever_it_is() {
    alone(|| {
        let (page, around) = (page_size(), 1 << 24);
        let low = reserve(2 * around);
        let address = low as usize + around;
        for (number, distance) in [3, 177, 1000, 4000].into_iter().enumerate() {
            let hole = match number % 2 {
                0 => address + distance * page,
                _ => address - distance * page,
            };
            // SAFETY: of the reserved range, which nobody uses.
            unsafe { libc::munmap(hole as *mut _, 3 * page) };
            let near = Place::Near { address, within: 1 << 24 };
            let mapping = Mapping::reserve(3 * page, near, &Meter::new()).unwrap();
            assert_eq!(mapping.ptr() as usize, hole);
            std::mem::forget(mapping);
            let error = Mapping::reserve(page, near, &Meter::new()).unwrap_err();
            assert!(matches!(error, Error::NoRoomNear { .. }), "{error:?}");
        }
    });
}

#[test]
fn places_at_the_ends_of_numbers_are_refused_or_had() {
    let (page, most) = (page_size(), isize::MAX as usize & !(page_size() - 1));
    for address in [0, 1, 2 * page, 1 << 46, 1 << 63, usize::MAX] {
        for within in [0, 1, page, 1 << 31, 1 << 47, usize::MAX] {
            for len in [0, 1, page + 1, most] {
                let place = Place::Near { address, within };
                match Mapping::reserve(len, place, &Meter::new()) {
                    Ok(mapping) => {
                        let start = mapping.ptr() as usize;
                        let far = address.abs_diff(start);
                        assert!(far.max(address.abs_diff(start + mapping.len())) <= within);
                    }
                    Err(Error::NoRoomNear { .. } | Error::System { .. }) => {}
                    Err(other) => panic!("{place:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn what_is_no_part_is_refused() {
    let (meter, page) = (Meter::new(), page_size());
    let mapping = Mapping::reserve(4 * page, Place::Anywhere, &meter).unwrap();
    let file = CodeFile::new(2 * page, &Options::default(), &meter).unwrap();
    let calls = meter.stats();
    for (at, len) in [(1, page), (4 * page, 1), (3 * page, page + 1), (usize::MAX, 1), (0, 0)] {
        let answer = mapping.map_memory(at, len);
        assert!(matches!(answer, Err(Error::OutOfRange { .. })), "{at} {len}: {answer:?}");
    }
    for (len, offset) in [(page, 2 * page), (page, 1), (3 * page, 0), (page, usize::MAX)] {
        let answer = mapping.map_file(0, len, &file, offset, Access::Execute);
        assert!(matches!(answer, Err(Error::OutOfRange { .. })), "{len} {offset}: {answer:?}");
    }
    for at in [2 * page - 5, 2 * page, usize::MAX] {
        // SAFETY: nothing is written.
        let answer = unsafe { file.write(at, &returns(0)) };
        assert!(matches!(answer, Err(Error::OutOfRange { .. })), "{at}: {answer:?}");
    }
    let ranges = [page..3 * page, usize::MAX - 1..usize::MAX, 0..1, 1..page, 0..0, page..0];
    for range in ranges {
        // SAFETY: nothing lies there.
        let discarded = unsafe { file.discard(range.clone()) };
        for answer in [discarded, file.allocate(range.clone())] {
            assert!(matches!(answer, Err(Error::OutOfRange { .. })), "{range:?}: {answer:?}");
        }
    }
    assert_eq!(meter.stats(), calls, "the kernel was asked");
}

/// Numbers from a seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n as u64) as usize
    }
}

#[test]
fn mappings_are_counted_as_the_kernel_counts_them() {
    // Nobody else maps anything.
    alone(|| {
        const PAGES: usize = 24;
        let page = page_size();
        for seed in 0..20 {
            let mut numbers = Numbers(seed);
            let meter = Meter::new();
            let mapping = Mapping::reserve(PAGES * page, Place::Anywhere, &meter).unwrap();
            // Of their own meter: their aliases lie elsewhere.
            let files: Vec<CodeFile> = (0..2)
                .map(|_| CodeFile::new(PAGES * page, &Options::default(), &Meter::new()).unwrap())
                .collect();
            let range = mapping.ptr() as usize..mapping.ptr() as usize + mapping.len();
            for step in 0..150 {
                let at = numbers.below(PAGES);
                let len = 1 + numbers.below(PAGES - at);
                let file = &files[numbers.below(2)];
                // Often at the same offset, so that neighbours continue each other.
                let from = if numbers.below(3) == 0 { numbers.below(PAGES - len + 1) } else { at };
                match numbers.below(5) {
                    // Not at the ends: malloc's memory may lie beside them. The kernel joins that
                    // with ours, and then does not join it with more of ours that is still
                    // empty (Linux 6.1).
                    0 => {
                        let (first, end) = (at.max(1), (at + len).min(PAGES - 1));
                        if first < end {
                            mapping.map_memory(first * page, (end - first) * page).unwrap();
                        }
                    }
                    1 => mapping.release(at * page, len * page).unwrap(),
                    2 => mapping
                        .map_file(at * page, len * page, file, from * page, Access::Write)
                        .unwrap(),
                    3 => mapping
                        .map_file(at * page, len * page, file, from * page, Access::Read)
                        .unwrap(),
                    _ => mapping
                        .map_file(at * page, len * page, file, from * page, Access::Execute)
                        .unwrap(),
                }
                let inside =
                    |row: &&Row| row.range.start < range.end && row.range.end > range.start;
                let (there, said) = (rows().iter().filter(inside).count(), meter.stats());
                assert_eq!(said.mappings, there, "seed {seed}, step {step}");
                assert_eq!(said.reserved, PAGES * page);
            }
            drop(mapping);
            assert_eq!((meter.stats().mappings, meter.stats().reserved), (0, 0));
            assert!(take(range.start as *mut u8), "it is still mapped");
        }
    });
}
