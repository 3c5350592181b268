//! The debugger's interface for code made at run time: a list of objects, and a function at
//! which the debugger stops to read it ("JIT Compilation Interface" of gdb's manual).

use std::ptr;
use std::sync::Mutex;

use super::object::Object;

#[repr(C)]
struct Entry {
    next: *mut Entry,
    previous: *mut Entry,
    file: *const u8,
    len: u64,
}

#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *mut Entry,
    first: *mut Entry,
}

const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

unsafe extern "C" {
    /// Defined in the architecture's file, weakly: other compilers in the program have it too.
    static mut __jit_debug_descriptor: Descriptor;
    fn __jit_debug_register_code();
}

/// Over changes of the list by this crate.
static LIST: Mutex<()> = Mutex::new(());

/// An object that the debugger sees.
///
/// # Invariants
///
/// `entry` came from a box, as did `file`, which it points to; it is in the list from
/// [`Shown::new`] to the drop.
#[derive(Debug)]
pub(super) struct Shown {
    entry: *mut Entry,
    _file: Box<[u8]>,
}

// SAFETY: the entry is touched under `LIST` only.
unsafe impl Send for Shown {}
// SAFETY: as above; there are no methods.
unsafe impl Sync for Shown {}

impl Shown {
    pub(super) fn new(file: Box<[u8]>) -> Shown {
        let (next, previous) = (ptr::null_mut(), ptr::null_mut());
        let entry = Entry { next, previous, file: file.as_ptr(), len: file.len() as u64 };
        let entry = Box::into_raw(Box::new(entry));
        let _held = LIST.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: under the lock; entries in the list are live, by the type's invariants.
        unsafe {
            let list = &raw mut __jit_debug_descriptor;
            (*entry).next = (*list).first;
            if !(*list).first.is_null() {
                (*(*list).first).previous = entry;
            }
            (*list).first = entry;
            tell(entry, REGISTER);
        }
        Shown { entry, _file: file }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _held = LIST.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: under the lock; entries in the list are live, by the type's invariants, and
        // this one is taken out before it goes.
        unsafe {
            let list = &raw mut __jit_debug_descriptor;
            let Entry { next, previous, .. } = *self.entry;
            match previous.is_null() {
                true => (*list).first = next,
                false => (*previous).next = next,
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            tell(self.entry, UNREGISTER);
            drop(Box::from_raw(self.entry));
        }
    }
}

/// # Safety
///
/// `LIST` is held.
unsafe fn tell(entry: *mut Entry, action: u32) {
    // SAFETY: the caller's contract; a debugger reads at the call, when all is in place.
    unsafe {
        let list = &raw mut __jit_debug_descriptor;
        (&raw mut (*list).relevant).write_volatile(entry);
        (&raw mut (*list).action).write_volatile(action);
        __jit_debug_register_code();
        (&raw mut (*list).action).write_volatile(0);
    }
}

/// The object's file with the addresses of its sections filled in.
pub(super) fn file_with_addresses(
    object: &Object,
    address: impl Fn(usize) -> Option<usize>,
) -> Box<[u8]> {
    /// Bytes of a section header, and of its `sh_addr` where that begins.
    const HEADER: usize = 64;
    const ADDRESS: usize = 16;
    let mut file = object.file.clone();
    let headers = file.get_mut(object.headers.clone()).unwrap_or_default();
    for (section, header) in headers.chunks_exact_mut(HEADER).enumerate() {
        if let Some(address) = address(section) {
            header[ADDRESS..ADDRESS + 8].copy_from_slice(&(address as u64).to_ne_bytes());
        }
    }
    file.into()
}
