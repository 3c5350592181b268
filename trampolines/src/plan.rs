//! What an entry for signatures known only at run time is told: the plan.
//!
//! A C type is classified once, when a signature is made, into an [`arch::Class`]; the classes of
//! a signature give a [`Plan`]: for each argument the bytes from the frame to where the caller,
//! or the entry, left it. At a call nothing is decided any more.
//!
//! ```text
//!   stub ─► register ◄─ address of a Cell          Cell { plan ─► Plan, callee ─► Callee }
//!   entry: saves the registers of the plan's classes
//!          args[n] = frame + plan.offsets[n]
//!          callee.handler(callee.signature, result, args, callee.data)
//!          loads the result registers, as plan.finish says
//! ```

use crate::arch;

/// A C type that is not made of others, or one part of a complex number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// An integer of up to 64 bits, `bool` or pointer: bytes, and whether it is signed.
    Int(u8, bool),
    /// A 128-bit integer.
    Wide,
    /// `float`.
    F32,
    /// `double`.
    F64,
    /// `long double`.
    LongDouble,
}

impl Scalar {
    /// Bytes.
    pub const fn size(self) -> usize {
        match self {
            Scalar::Int(size, _) => size as usize,
            Scalar::Wide => 16,
            Scalar::F32 => 4,
            Scalar::F64 => 8,
            Scalar::LongDouble => arch::LONG_DOUBLE,
        }
    }
}

/// A scalar inside a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Bytes from the start of the value.
    pub offset: usize,
    /// What is there.
    pub scalar: Scalar,
}

/// A word that an entry copies, so that a value whose halves came in registers of two kinds lies
/// in one piece. Bytes from the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// From here.
    pub from: i32,
    /// To here.
    pub to: i32,
}

/// How the arguments of one signature reach a handler, and its result the caller.
///
/// # Invariants
///
/// `enter` and `finish` are code of [`crate::arch`] for this signature. `offsets` points to
/// a number for each argument and, if those are odd, one more; `listed` is 16 for each two of
/// them. `moves` points to `moved` moves. `frame` is what [`arch::frame`] gives for them. The
/// plan is never changed, and never freed.
#[repr(C)]
#[derive(Debug)]
pub struct Plan {
    /// Where a stub jumps.
    pub enter: usize,
    /// Where the entry jumps after the handler.
    pub finish: usize,
    /// Bytes of stack that the entry takes.
    pub frame: u32,
    /// Bytes of the list of pointers to the arguments, which is filled by two at a time.
    pub listed: u32,
    /// Number of moves.
    pub moved: u32,
    /// Not 0: the caller passed the address of the result as a hidden first argument.
    pub hidden: u32,
    /// For each argument, bytes from the frame.
    pub offsets: *const i64,
    /// Copied before the handler is called.
    pub moves: *const Move,
}

// SAFETY: never changed, by the invariant.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

/// What a dynamic stub loads the address of.
///
/// # Invariants
///
/// While the stub can be called, `plan` is a plan and `callee` a callee for its signature.
#[repr(C)]
#[derive(Debug)]
pub struct Cell {
    /// How the arguments reach the handler.
    pub plan: *const Plan,
    /// The handler.
    pub callee: *const Callee,
}

/// A function for handlers: signature, where the result goes, where the arguments are, data.
/// (libffi's `fun(cif, ret, args, user_data)`.)
pub type Handler = unsafe extern "C-unwind" fn(*const (), *mut u8, *const *mut u8, *mut ());

/// What a dynamic closure calls. Read at each call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Callee {
    /// First argument of the handler.
    pub signature: *const (),
    /// The handler.
    pub handler: Option<Handler>,
    /// Last argument of the handler.
    pub data: *mut (),
}

/// What a stub that jumps to [`arch::foreign`] finds in place of a plan: code of another library
/// that expects the address of its own closure, [`CALLEE_AT`] bytes before the callee, in the
/// static chain register.
#[repr(C)]
#[derive(Debug)]
pub struct Foreign {
    /// [`arch::foreign`].
    pub enter: extern "C" fn(),
    /// That code.
    pub target: usize,
}

/// Bytes from a closure to its [`Callee`].
pub const CALLEE_AT: usize = 32;
