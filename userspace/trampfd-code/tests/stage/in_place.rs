//! The same for memory of somebody else.

use std::ptr;

use trampfd_code::stage::{Error, publish_in_place, unpublish_in_place};
use trampfd_code::vm::{Meter, Options, page_size};

use super::support::alone::alone;
use super::support::policy::refuse_exec_gain;
use super::{access, anonymous, function, machine, protect, status, write};

#[test]
fn memory_of_somebody_else_becomes_code_and_memory_again() {
    let page = page_size();
    let all = anonymous(3 * page);
    let code = all.wrapping_add(page);
    write(all, &vec![3; 3 * page]);
    write(code, &machine::answer(14));
    let meter = Meter::new();
    // SAFETY: a page of ours.
    unsafe { publish_in_place(code, page, &Options::default(), &meter) }.unwrap();
    assert_eq!(function(code)(), 14);
    assert_eq!(access(code), "r-xs");
    protect(code, libc::PROT_READ | libc::PROT_WRITE).unwrap_err();
    // SAFETY: as above; nothing runs there now.
    unsafe { unpublish_in_place(code, page, &meter) }.unwrap();
    assert_eq!(access(code), "rw-p");
    write(code.wrapping_add(1), &15_i32.to_le_bytes());
    // SAFETY: as above.
    unsafe { publish_in_place(code, page, &Options::default(), &meter) }.unwrap();
    assert_eq!(function(code)(), 15);
    // SAFETY: as above; pages beside it are as they were.
    unsafe {
        for beside in [all, all.wrapping_add(2 * page)] {
            assert!(std::slice::from_raw_parts(beside, page).iter().all(|&byte| byte == 3));
        }
        libc::munmap(all.cast(), 3 * page);
    }
}

#[test]
fn memory_of_somebody_else_becomes_code_where_what_was_writable_may_not() {
    alone(|| {
        refuse_exec_gain();
        memory_of_somebody_else_becomes_code_and_memory_again();
    });
}

#[test]
fn what_became_code_becomes_memory_again_where_little_is_left() {
    alone(|| {
        let len = (64 << 20) + page_size();
        let code = anonymous(len);
        let content: Vec<u8> = (0..len).map(|at| ((at * 31) >> 4) as u8).collect();
        write(code, &content);
        let meter = Meter::new();
        // SAFETY: pages of ours, here and below.
        unsafe { publish_in_place(code, len, &Options::default(), &meter) }.unwrap();
        let all = libc::rlimit { rlim_cur: status("VmSize") + (16 << 20), rlim_max: !0 };
        // SAFETY: a limit on the address space of this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &all) }, 0);
        // SAFETY: nothing runs there.
        unsafe { unpublish_in_place(code, len, &meter) }.unwrap();
        for at in [0, len / 2, len - 1] {
            assert_eq!(access(code.wrapping_add(at)), "rw-p");
        }
        // SAFETY: pages of ours.
        assert!(unsafe { std::slice::from_raw_parts(code, len) } == content);
    });
}

#[test]
fn parts_of_pages_do_not_become_code() {
    let page = page_size();
    let all = anonymous(2 * page);
    let (meter, options) = (Meter::new(), Options::default());
    for (ptr, len) in [
        (all.wrapping_add(16), page),
        (all, page + 1),
        (all, 0),
        (ptr::null_mut(), page),
        (all, usize::MAX & !(page - 1)),
    ] {
        // SAFETY: refused; else pages of ours.
        unsafe {
            let error = publish_in_place(ptr, len, &options, &meter).unwrap_err();
            assert!(matches!(error, Error::NotPages { .. }), "{error}");
            let error = unpublish_in_place(ptr, len, &meter).unwrap_err();
            assert!(matches!(error, Error::NotPages { .. }), "{error}");
        }
    }
    assert_eq!(meter.stats().system_calls, 0);
    assert_eq!(access(all), "rw-p");
}
