//! x86-64.
//!
//! The programs of libffi 3.6.0; what asks for ABI_NUM has two conventions, System V and Windows:
//!
//! ```text
//!   call  closures  complex   go  threads   bhaible
//!    216       200       56    8        2       644 = (81 + 80) x 2 conventions x (-O0, -O2)
//!   ───────────────────────────────────────────────► 1126
//! ```

/// Suffix and definitions of each convention, as libffi.exp has them.
pub const CONVENTIONS: [(&str, &[&str]); 2] =
    [("", &[]), (" gnuw64", &["-DABI_NUM=FFI_GNUW64", "-DABI_ATTR=__MSABI__"])];

/// A version of libffi that has fewer programs is looked at by a person.
pub const LIBFFI_PROGRAMS: usize = 1126;
