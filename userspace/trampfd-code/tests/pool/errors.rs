//! What is refused, and what it leaves behind: nothing.

use std::error::Error as _;

use trampfd_code::pool::{Error, Kind, Options, Pools, Request};
use trampfd_code::vm::{self, page_size};

use super::support::alone::alone;
use super::{answer, call, request};

#[test]
fn ids_are_one_pool_each() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(7).unwrap();
    assert_eq!(pool.id(), 7);
    assert!(matches!(pools.create(7), Err(Error::IdInUse(7))));
    assert!(matches!(pools.free(8), Err(Error::NoSuchPool(8))));
    let other = Pools::new().unwrap();
    assert!(matches!(other.free(7), Err(Error::NoSuchPool(7))), "it is another's");
    pools.free(7).unwrap();
    assert!(matches!(pools.free(7), Err(Error::NoSuchPool(7))), "freed twice");
    let again = pools.create(7).unwrap();
    let code = answer(&again, 5);
    // Was freed; the pool that has its id now is none of its business.
    drop(pool);
    assert_eq!(call(code), 5);
    assert!(matches!(pools.create(7), Err(Error::IdInUse(7))));
    drop(again);
    assert!(matches!(pools.free(7), Err(Error::NoSuchPool(7))));
}

#[test]
fn a_pool_that_was_freed_takes_nothing() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let mut set = pool.set();
    set.request(request("a", Kind::Code, 10));
    let laid_out = set.lay_out().unwrap();
    let set = pool.set();
    pools.free(1).unwrap();
    assert!(matches!(laid_out.commit(), Err(Error::NoSuchPool(1))));
    let mut requested = set;
    requested.request(request("a", Kind::Code, 10));
    assert!(matches!(requested.lay_out(), Err(Error::NoSuchPool(1))));
    assert!(matches!(pool.finalise(), Err(Error::NoSuchPool(1))));
    let stats = pools.stats();
    assert_eq!((stats.committed, stats.payload), (0, 0));
}

#[test]
fn a_finalised_pool_takes_nothing() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let code = answer(&pool, 3);
    let mut set = pool.set();
    set.request(request("late", Kind::Code, 10));
    let laid_out = set.lay_out().unwrap();
    pool.finalise().unwrap();
    pool.finalise().unwrap();
    assert!(matches!(laid_out.commit(), Err(Error::Finalised(1))));
    let mut set = pool.set();
    set.request(request("later", Kind::ReadWrite, 10));
    assert!(matches!(set.lay_out(), Err(Error::Finalised(1))));
    assert_eq!(call(code), 3);
}

#[test]
fn alignments_are_powers_of_two_up_to_a_page() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    for align in [0, 3, page_size() * 2, usize::MAX, 1 << (usize::BITS - 1)] {
        let mut set = pool.set();
        set.request(Request { name: "odd", kind: Kind::Code, len: 1, align });
        let Err(Error::Alignment { section, align: said }) = set.lay_out() else {
            panic!("{align}")
        };
        assert_eq!((&*section, said), ("odd", align));
    }
}

#[test]
fn lengths_that_no_address_space_has() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let before = pools.stats();
    let top = usize::MAX;
    for lens in [&[top][..], &[top / 2, top / 2, 2], &[top - 4096, 1, 4000], &[1 << 40]] {
        for kind in [Kind::Code, Kind::ReadOnly, Kind::ReadWrite] {
            let mut set = pool.set();
            for &len in lens {
                set.request(request("huge", kind, len));
            }
            assert!(matches!(set.lay_out(), Err(Error::TooLarge(_))), "{lens:x?} of {kind:?}");
        }
    }
    assert_eq!(pools.stats(), before);
    for arena in [1 << 30, usize::MAX, usize::MAX / 3] {
        let mut options = Options::default();
        options.arena = arena;
        assert!(matches!(Pools::with(options), Err(Error::TooLarge(_))), "{arena:#x}");
    }
}

#[test]
fn a_set_that_finds_no_room_takes_none() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let code = answer(&pool, 1);
    let mut set = pool.set();
    set.request(request("small", Kind::Code, 100));
    set.request(request("huge", Kind::ReadWrite, 1 << 40));
    assert!(matches!(set.lay_out(), Err(Error::TooLarge(_))));
    assert_eq!(answer(&pool, 2), code + 16, "the place of the small one is free");
}

#[test]
fn a_set_that_no_memory_is_left_for_takes_none() {
    alone(|| {
        const LARGE: usize = 200 << 20;
        let mut options = Options::default();
        options.arena = LARGE;
        let pools = Pools::with(options).unwrap();
        let pool = pools.create(1).unwrap();
        let code = answer(&pool, 1);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = pages.split_whitespace().next().unwrap().parse().unwrap();
        let most = (pages * page_size() + LARGE / 2) as libc::rlim_t;
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: takes address space away from this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        for kind in [Kind::Code, Kind::ReadOnly, Kind::ReadWrite] {
            let mut set = pool.set();
            set.request(request("large", kind, LARGE - (1 << 20)));
            let result = set.lay_out();
            let Err(Error::Memory(vm::Error::System { error, .. })) = result else {
                panic!("{kind:?}: there was memory")
            };
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
        }
        assert_eq!(answer(&pool, 2), code + 16);
    });
}

#[test]
fn sections_are_of_one_set() {
    let pools = Pools::new().unwrap();
    let pool = pools.create(1).unwrap();
    let (mut one, mut other) = (pool.set(), pool.set());
    let section = one.request(request("a", Kind::Code, 10));
    other.request(request("b", Kind::Code, 10));
    let mut layout = other.lay_out().unwrap();
    assert!(matches!(layout.address(section), Err(Error::ForeignSection)));
    assert!(matches!(layout.bytes(section), Err(Error::ForeignSection)));
    assert!(matches!(layout.commit().unwrap().section(section), Err(Error::ForeignSection)));
}

#[test]
fn what_the_system_says_is_passed_on() {
    let mut options = Options::default();
    options.memory.sources = vec![vm::Source::Folder("/nowhere".into())];
    let error = Pools::with(options).unwrap_err();
    assert!(matches!(&error, Error::Memory(vm::Error::NoExecutableMemory(_))), "{error:?}");
    let cause = error.source().expect("a cause").to_string();
    assert!(cause.contains("/nowhere"), "{cause}");
}
