//! libffi's closures in three libraries: the system's, the one in libffi-sys, and ours.

use std::ffi::c_void;
use std::path::Path;
use std::ptr::null_mut;

use libffi::raw::{
    ffi_abi_FFI_DEFAULT_ABI, ffi_cif, ffi_closure, ffi_closure_alloc, ffi_closure_free,
    ffi_prep_cif, ffi_prep_closure_loc, ffi_status, ffi_status_FFI_OK, ffi_type, ffi_type_double,
    ffi_type_enum_STRUCT, ffi_type_sint32, ffi_type_sint64,
};

use crate::library::Library;

/// Where `scripts/libs` puts ours.
pub const OURS: &str = "target/lib/ffi/libffi.so.8";

/// What a closure calls.
pub type Handler = unsafe extern "C" fn(*mut ffi_cif, *mut c_void, *mut *mut c_void, *mut c_void);
type Alloc = unsafe extern "C" fn(usize, *mut *mut c_void) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type PrepCif =
    unsafe extern "C" fn(*mut ffi_cif, u32, u32, *mut ffi_type, *mut *mut ffi_type) -> ffi_status;
type PrepClosure = unsafe extern "C" fn(
    *mut ffi_closure,
    *mut ffi_cif,
    Option<Handler>,
    *mut c_void,
    *mut c_void,
) -> ffi_status;

/// Which library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that programs of this system get.
    System,
    /// The one that libffi-sys carries and builds; linked to this program.
    Vendored,
    /// The drop-in of this repository.
    Ours,
}

impl Who {
    /// All of them. The system's is loaded before ours, whose soname is the same.
    pub const ALL: [Who; 3] = [Who::System, Who::Vendored, Who::Ours];

    /// A word for command lines.
    pub fn word(self) -> &'static str {
        match self {
            Who::System => "system",
            Who::Vendored => "vendored",
            Who::Ours => "ours",
        }
    }
}

/// A libffi.
///
/// # Invariants
///
/// All fields are of one library, and its version is 8 of the interface.
pub struct Ffi {
    /// For people.
    pub name: String,
    alloc: Alloc,
    free: Free,
    prep_cif: PrepCif,
    prep_closure: PrepClosure,
    int: *mut ffi_type,
    long: *mut ffi_type,
    double: *mut ffi_type,
}

// SAFETY: libffi's functions may be called by any thread; its types are constants.
unsafe impl Send for Ffi {}
// SAFETY: as above.
unsafe impl Sync for Ffi {}

/// A C type, in the library's words.
#[derive(Clone, Copy, Debug)]
pub enum Ctype {
    /// `int`
    Int,
    /// `long`
    Long,
    /// `double`
    Double,
    /// `struct { int; double; }`
    IntDouble,
}

/// A prepared signature, for ever.
///
/// # Invariants
///
/// `ffi_prep_cif` of the library that it is used with has filled it in.
#[derive(Clone, Copy, Debug)]
pub struct Cif(*mut ffi_cif);

// SAFETY: nobody writes to it any more.
unsafe impl Sync for Cif {}

/// A closure with its code.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// The closure, to be freed.
    pub closure: *mut ffi_closure,
    /// What C calls.
    pub code: *const (),
}

impl Ffi {
    /// A library.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn open(who: Who) -> Result<Ffi, String> {
        let path = match who {
            Who::System => Path::new("libffi.so.8"),
            Who::Ours => Path::new(OURS),
            Who::Vendored => return Ok(Ffi::vendored()),
        };
        let library = Library::open(path, c"ffi_closure_alloc")?;
        let ours = Path::new(OURS).canonicalize().ok();
        if (Some(&library.file) == ours.as_ref()) != (who == Who::Ours) {
            return Err(format!("{} is not the {} libffi", library.file.display(), who.word()));
        }
        let name = match who {
            Who::Ours => "ours".to_owned(),
            _ => format!("the system's {}", library.name()),
        };
        // SAFETY: libffi's functions by their names, with the types that they have since 3.0.
        unsafe {
            Ok(Ffi {
                name,
                alloc: std::mem::transmute::<*mut c_void, Alloc>(
                    library.symbol(c"ffi_closure_alloc")?,
                ),
                free: std::mem::transmute::<*mut c_void, Free>(
                    library.symbol(c"ffi_closure_free")?,
                ),
                prep_cif: std::mem::transmute::<*mut c_void, PrepCif>(
                    library.symbol(c"ffi_prep_cif")?,
                ),
                prep_closure: std::mem::transmute::<*mut c_void, PrepClosure>(
                    library.symbol(c"ffi_prep_closure_loc")?,
                ),
                int: library.symbol(c"ffi_type_sint32")?.cast(),
                long: library.symbol(c"ffi_type_sint64")?.cast(),
                double: library.symbol(c"ffi_type_double")?.cast(),
            })
        }
    }

    fn vendored() -> Ffi {
        Ffi {
            name: "libffi of libffi-sys".to_owned(),
            alloc: ffi_closure_alloc,
            free: ffi_closure_free,
            prep_cif: ffi_prep_cif,
            prep_closure: ffi_prep_closure_loc,
            int: &raw mut ffi_type_sint32,
            long: &raw mut ffi_type_sint64,
            double: &raw mut ffi_type_double,
        }
    }

    fn of_type(&self, ctype: Ctype) -> *mut ffi_type {
        match ctype {
            Ctype::Int => self.int,
            Ctype::Long => self.long,
            Ctype::Double => self.double,
            Ctype::IntDouble => Box::into_raw(Box::new(ffi_type {
                size: 0,
                alignment: 0,
                type_: ffi_type_enum_STRUCT,
                elements: Box::leak(Box::new([self.int, self.double, null_mut()])).as_mut_ptr(),
            })),
        }
    }

    /// Prepares a signature.
    pub fn cif(&self, args: &[Ctype], result: Ctype) -> Cif {
        let types: Vec<_> = args.iter().map(|&arg| self.of_type(arg)).collect();
        let types = types.leak().as_mut_ptr();
        let result = self.of_type(result);
        // SAFETY: memory of its own, which is never given back. Zero is a valid value of each
        // field.
        unsafe {
            let cif = Box::into_raw(Box::new(std::mem::zeroed::<ffi_cif>()));
            let status =
                (self.prep_cif)(cif, ffi_abi_FFI_DEFAULT_ABI, args.len() as u32, result, types);
            assert_eq!(status, ffi_status_FFI_OK, "{}: ffi_prep_cif", self.name);
            Cif(cif)
        }
    }

    /// Allocates and prepares a closure; `None` where there is no memory for it.
    ///
    /// # Safety
    ///
    /// `cif` is of this library, and `handler` is for its types.
    #[inline(always)]
    pub unsafe fn make(&self, cif: Cif, handler: Handler, data: usize) -> Option<Made> {
        let mut code = null_mut();
        // SAFETY: a new closure; the rest by the contract.
        unsafe {
            let closure = (self.alloc)(size_of::<ffi_closure>(), &mut code);
            let closure = closure.cast::<ffi_closure>();
            if closure.is_null() {
                return None;
            }
            let data = std::ptr::without_provenance_mut(data);
            let status = (self.prep_closure)(closure, cif.0, Some(handler), data, code);
            assert_eq!(status, ffi_status_FFI_OK, "{}: ffi_prep_closure_loc", self.name);
            Some(Made { closure, code: code.cast() })
        }
    }

    /// Frees a closure.
    ///
    /// # Safety
    ///
    /// It is of this library, and nobody uses it any more.
    #[inline(always)]
    pub unsafe fn free(&self, made: Made) {
        // SAFETY: by the contract.
        unsafe { (self.free)(made.closure.cast()) };
    }
}
