//! The structures and numbers of `ffi.h` that closures need, as on 64-bit architectures.

/// `ffi_type`.
#[repr(C)]
#[derive(Debug)]
pub struct Type {
    /// Bytes; 0 until libffi has laid it out.
    pub size: usize,
    /// Alignment in bytes.
    pub alignment: u16,
    /// One of the numbers below.
    pub code: u16,
    /// Members of a structure, the part of a complex number; ends with null.
    pub elements: *const *const Type,
}

/// `FFI_TYPE_VOID`.
pub const VOID: u16 = 0;
/// `FFI_TYPE_FLOAT`.
pub const FLOAT: u16 = 2;
/// `FFI_TYPE_DOUBLE`.
pub const DOUBLE: u16 = 3;
/// `FFI_TYPE_LONGDOUBLE`.
pub const LONG_DOUBLE: u16 = 4;
/// `FFI_TYPE_UINT8`.
pub const UINT8: u16 = 5;
/// `FFI_TYPE_SINT8`.
pub const SINT8: u16 = 6;
/// `FFI_TYPE_UINT16`.
pub const UINT16: u16 = 7;
/// `FFI_TYPE_SINT16`.
pub const SINT16: u16 = 8;
/// `FFI_TYPE_UINT32`.
pub const UINT32: u16 = 9;
/// `FFI_TYPE_SINT32`.
pub const SINT32: u16 = 10;
/// `FFI_TYPE_UINT64`.
pub const UINT64: u16 = 11;
/// `FFI_TYPE_SINT64`.
pub const SINT64: u16 = 12;
/// `FFI_TYPE_STRUCT`.
pub const STRUCT: u16 = 13;
/// `FFI_TYPE_POINTER`.
pub const POINTER: u16 = 14;
/// `FFI_TYPE_COMPLEX`.
pub const COMPLEX: u16 = 15;
/// `FFI_TYPE_UINT128`, since 3.6.0.
pub const UINT128: u16 = 16;
/// `FFI_TYPE_SINT128`, since 3.6.0.
pub const SINT128: u16 = 17;

/// `ffi_cif`, as `ffi_prep_cif` leaves it.
#[repr(C)]
#[derive(Debug)]
pub struct Cif {
    /// `ffi_abi`.
    pub abi: u32,
    /// Number of arguments.
    pub nargs: u32,
    /// As many types.
    pub arg_types: *const *const Type,
    /// Type of the result.
    pub rtype: *const Type,
    /// libffi's own.
    pub bytes: u32,
    /// libffi's own.
    pub flags: u32,
}

/// `ffi_status`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Status {
    /// `FFI_OK`.
    Ok = 0,
    /// `FFI_BAD_TYPEDEF`.
    BadTypedef = 1,
    /// `FFI_BAD_ABI`.
    BadAbi = 2,
    /// `FFI_BAD_ARGTYPE`.
    BadArgtype = 3,
}

/// What a closure calls: cif, result, arguments, user data.
pub type Fun = unsafe extern "C-unwind" fn(*const (), *mut u8, *const *mut u8, *mut ());

/// What a raw closure calls: cif, result, words of the arguments, user data.
pub type RawFun = unsafe extern "C-unwind" fn(*const Cif, *mut u8, *mut Word, *mut ());

/// `ffi_raw`, and `ffi_java_raw` where that is as large.
pub type Word = u64;

/// `ffi_closure`.
#[repr(C)]
#[derive(Debug)]
pub struct Closure {
    /// Of libffi, or of `trampfd`.
    pub tramp: [usize; 4],
    /// First argument of `fun`.
    pub cif: *const Cif,
    /// What is called.
    pub fun: Option<Fun>,
    /// Last argument of `fun`.
    pub user_data: *mut (),
}

/// `ffi_raw_closure` and `ffi_java_raw_closure`.
#[repr(C)]
#[derive(Debug)]
pub struct RawClosure {
    /// A closure whose function translates.
    pub closure: Closure,
    /// What is called with the words.
    pub fun: Option<RawFun>,
    /// Its last argument.
    pub user_data: *mut (),
}
