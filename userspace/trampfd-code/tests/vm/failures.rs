//! Any system call may fail: then there is an error, and nothing is left, or what was asked for is
//! had in another way, and nothing weaker.

use trampfd_code::vm::{Access, Error, Mapping, Meter, Place, Region, Write, page_size};

use crate::support::alone::alone;
use crate::support::faults::with_fault;
use crate::{call, from, memfds, options, region, returns, row_of, rows};

/// All that are made for pages but munmap(2) and unlink(2), whose failure leaves something.
const CALLS: &[libc::c_long] = &[
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_madvise,
    libc::SYS_pwrite64,
];

const ERRORS: [i32; 5] = [libc::EMFILE, libc::ENOMEM, libc::EPERM, libc::EACCES, libc::ENOSPC];

/// Numbers of mappings and of descriptors.
fn taken() -> (usize, usize) {
    (rows().len(), std::fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Fails each of the calls that `act` makes in turn, until it makes no more; `look` sees what came
/// of it, with nothing failing. How many failed `act`, and how many did not.
fn each_fails<P: Sync, T: Send>(
    prepare: impl Fn(&Meter) -> P,
    act: impl Fn(&P, &Meter) -> Result<T, Error> + Sync,
    look: impl Fn(&P, Option<T>),
) -> [usize; 2] {
    let (mut ends, warm) = ([0; 2], Meter::new());
    // What is made once for the whole process, and the stack of such a thread.
    let prepared = prepare(&warm);
    drop(with_fault(CALLS, usize::MAX, 0, || act(&prepared, &warm).map(drop)));
    drop(prepared);
    for errno in ERRORS {
        for n in 0.. {
            assert!(n < 200, "there is no end of calls");
            let (meter, before) = (Meter::new(), taken());
            let prepared = prepare(&meter);
            let (answer, failed) = with_fault(CALLS, n, errno, || act(&prepared, &meter));
            let had = match answer {
                Ok(value) => Some(value),
                Err(Error::System { .. }) if failed.is_some() => None,
                Err(error) => panic!("call {n} ({failed:?}), errno {errno}: {error:?}"),
            };
            ends[usize::from(had.is_some())] += usize::from(failed.is_some());
            look(&prepared, had);
            drop(prepared);
            assert_eq!(meter.stats().mappings, 0, "call {n} ({failed:?}), errno {errno}");
            assert_eq!(taken(), before, "call {n} ({failed:?}), errno {errno}");
            if failed.is_none() {
                break;
            }
        }
    }
    ends
}

#[test]
fn pages_are_had_as_asked_or_not_at_all() {
    alone(|| {
        for write in [Write::Any, Write::Pwrite, Write::Alias] {
            let make = |_: &(), meter: &Meter| Region::new(1, &options(write), meter);
            let [refused, had] = each_fails(
                |_| (),
                make,
                |(), region| {
                    let Some(region) = region else { return };
                    assert_eq!(region.rw().is_some(), write == Write::Alias);
                    assert_eq!(row_of(region.rx()).unwrap().rights, "r-xs");
                    // SAFETY: nobody runs it.
                    unsafe { region.write(0, &returns(42)) }.unwrap();
                    assert_eq!(call(region.rx()), 42);
                },
            );
            assert!(refused > 0 && had > 0, "{write:?}: {refused} refused, {had} had otherwise");
        }
    });
}

#[test]
fn code_is_written_or_what_was_there_stays() {
    alone(|| {
        let prepare = |_: &Meter| region(&options(Write::Pwrite));
        // SAFETY: nobody runs it.
        let write = |region: &Region, _: &Meter| unsafe { region.write(0, &returns(43)) };
        let [refused, _] = each_fails(prepare, write, |region, had| {
            assert_eq!(call(region.rx()), if had.is_some() { 43 } else { 42 });
        });
        assert!(refused > 0);
    });
}

#[test]
fn a_writable_view_is_had_or_not() {
    alone(|| {
        let prepare = |meter: &Meter| {
            let mapping = Mapping::reserve(1, Place::Anywhere, meter).unwrap();
            (region(&options(Write::Pwrite)), mapping)
        };
        let view = |(region, mapping): &(Region, Mapping), _: &Meter| {
            mapping.map_file(0, page_size(), region.file(), 0, Access::Write)
        };
        let [refused, _] = each_fails(prepare, view, |(_, mapping), had| {
            let rights = row_of(mapping.ptr()).unwrap().rights;
            assert_eq!(rights, if had.is_some() { "rw-s" } else { "---p" });
        });
        assert!(refused > 0);
    });
}

#[test]
fn an_alias_is_withdrawn_or_there() {
    alone(|| {
        let prepare = |_: &Meter| {
            let region = region(&options(Write::Alias));
            (region.rw().unwrap() as usize, region)
        };
        // SAFETY: nobody uses the alias.
        let withdraw =
            |(_, region): &(usize, Region), _: &Meter| unsafe { region.file().withdraw() };
        let [refused, _] = each_fails(prepare, withdraw, |(alias, region), had| {
            let rights = row_of(*alias as *const u8).unwrap().rights;
            assert_eq!(rights, if had.is_some() { "---p" } else { "rw-s" });
            assert_eq!(region.rw().is_none(), had.is_some());
        });
        assert!(refused > 0);
    });
}

#[test]
fn writes_are_sealed_or_not() {
    alone(|| {
        let source = memfds().pop().unwrap();
        let prepare = |_: &Meter| region(&from(&source, Write::Pwrite));
        let seal = |region: &Region, _: &Meter| region.file().seal_writes();
        let [refused, _] = each_fails(prepare, seal, |region, had| {
            // SAFETY: nobody runs it.
            let written = unsafe { region.write(0, &returns(43)) };
            assert_eq!(written.is_err(), had.is_some(), "{written:?}");
        });
        assert!(refused > 0);
    });
}
