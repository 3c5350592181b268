//! The signatures of which closures are called, each with what it computes: as a handler of
//! libffi, as one of trampfd, as a plain function. All of them add their arguments and the data.

use std::ffi::c_void;
use std::hint::black_box;

use libffi::raw::ffi_cif;
use trampfd::{Backend, Builder, DynCall, DynClosure, Signature, Type};

use crate::ffi::{Ctype, Handler};

/// Calls in a batch.
pub const CALLS: usize = 10_000;

/// A signature.
pub struct Shape {
    /// As C writes it.
    pub name: &'static str,
    /// Its arguments.
    pub args: &'static [Ctype],
    /// Its result.
    pub result: Ctype,
    /// The handler for libffi. Its data is a number, not a pointer.
    pub handler: Handler,
    /// A plain function that computes the same, with data 5.
    pub plain: *const (),
    /// `CALLS` calls, each of which gets the result of the one before.
    pub fed: unsafe fn(*const ()),
    /// `CALLS` calls, of which none waits for another.
    pub free: unsafe fn(*const ()),
    /// Whether a call answers right if the data is this.
    pub answers: unsafe fn(*const (), usize) -> bool,
    /// How many times faster than the better libffi ours has to be.
    pub faster: f64,
    /// Makes a dynamic closure of trampfd, with this data.
    pub closure: fn(&Signature, usize) -> DynClosure,
}

// SAFETY: addresses of functions.
unsafe impl Sync for Shape {}

impl Shape {
    /// Its signature in trampfd's words.
    pub fn signature(&self) -> Signature {
        let of = |ctype: &Ctype| match ctype {
            Ctype::Int => Type::I32,
            Ctype::Long => Type::I64,
            Ctype::Double => Type::F64,
            Ctype::IntDouble => Type::structure(&[Type::I32, Type::F64]).expect("a type"),
        };
        let args: Vec<Type> = self.args.iter().map(of).collect();
        Signature::new(&args, of(&self.result)).expect("a signature")
    }
}

fn closure(
    signature: &Signature,
    handler: impl Fn(&mut DynCall<'_>, &usize) + Send + Sync + 'static,
    data: usize,
) -> DynClosure {
    let builder = Builder::new().require(Backend::Text);
    builder.dynamic(signature, handler, data).expect("a closure")
}

/// `struct { int; double; }`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntDouble(i32, f64);

type Ints = unsafe extern "C" fn(i32, i32) -> i32;
type Doubles = unsafe extern "C" fn(f64, f64) -> f64;
type Structs = unsafe extern "C" fn(IntDouble) -> IntDouble;
type Longs = unsafe extern "C" fn(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> i64;

/// The data of the plain functions.
const DATA: usize = 5;

/// `int(int, int)`, of which a million are made.
pub static INTS: Shape = Shape {
    name: "int(int,int)",
    args: &[Ctype::Int; 2],
    result: Ctype::Int,
    handler: ints,
    plain: plain_ints as *const (),
    fed: fed_ints,
    free: free_ints,
    answers: answers_ints,
    faster: 3.0,
    closure: |signature, data| {
        let handler = |call: &mut DynCall<'_>, &data: &usize| {
            if let (Ok(a), Ok(b)) = (call.arg::<i32>(0), call.arg::<i32>(1)) {
                let _ = call.set(a.wrapping_add(b).wrapping_add(data as i32));
            }
        };
        closure(signature, handler, data)
    },
};

/// All of them.
pub static ALL: [&Shape; 4] = [
    &INTS,
    &Shape {
        name: "double(double,double)",
        args: &[Ctype::Double; 2],
        result: Ctype::Double,
        handler: doubles,
        plain: plain_doubles as *const (),
        fed: fed_doubles,
        free: free_doubles,
        answers: answers_doubles,
        faster: 2.0,
        closure: |signature, data| {
            let handler = |call: &mut DynCall<'_>, &data: &usize| {
                if let (Ok(a), Ok(b)) = (call.arg::<f64>(0), call.arg::<f64>(1)) {
                    let _ = call.set(a + b + data as f64);
                }
            };
            closure(signature, handler, data)
        },
    },
    &Shape {
        name: "struct{int,double}(same)",
        args: &[Ctype::IntDouble],
        result: Ctype::IntDouble,
        handler: structs,
        plain: plain_structs as *const (),
        fed: fed_structs,
        free: free_structs,
        answers: answers_structs,
        faster: 1.8,
        closure: |signature, data| {
            let handler = |call: &mut DynCall<'_>, &data: &usize| {
                let Ok(bytes) = call.bytes(0) else { return };
                // SAFETY: the bytes of such a structure, and room for one.
                unsafe {
                    let s = bytes.as_ptr().cast::<IntDouble>().read_unaligned();
                    let s = IntDouble(s.0.wrapping_add(data as i32), s.1 + data as f64);
                    call.result_bytes().as_mut_ptr().cast::<IntDouble>().write_unaligned(s);
                }
            };
            closure(signature, handler, data)
        },
    },
    &Shape {
        name: "long(10 longs)",
        args: &[Ctype::Long; 10],
        result: Ctype::Long,
        handler: longs,
        plain: plain_longs as *const (),
        fed: fed_longs,
        free: free_longs,
        answers: answers_longs,
        faster: 5.0,
        closure: |signature, data| {
            let handler = |call: &mut DynCall<'_>, &data: &usize| {
                let sum =
                    (0..10).filter_map(|n| call.arg::<i64>(n).ok()).fold(0, i64::wrapping_add);
                let _ = call.set(sum.wrapping_add(data as i64));
            };
            closure(signature, handler, data)
        },
    },
];

// Handlers. For all of them: SAFETY: libffi passes pointers to arguments of the signature's types
// and room for its result, which for integers is at least a register wide.

unsafe extern "C" fn ints(
    _: *mut ffi_cif,
    result: *mut c_void,
    args: *mut *mut c_void,
    data: *mut c_void,
) {
    // SAFETY: as above.
    unsafe {
        let arg = |n| *(*args.add(n)).cast::<i32>();
        let sum = arg(0).wrapping_add(arg(1)).wrapping_add(data.addr() as i32);
        *result.cast::<i64>() = i64::from(sum);
    }
}

unsafe extern "C" fn doubles(
    _: *mut ffi_cif,
    result: *mut c_void,
    args: *mut *mut c_void,
    data: *mut c_void,
) {
    // SAFETY: as above.
    unsafe {
        let arg = |n| *(*args.add(n)).cast::<f64>();
        *result.cast::<f64>() = arg(0) + arg(1) + data.addr() as f64;
    }
}

unsafe extern "C" fn structs(
    _: *mut ffi_cif,
    result: *mut c_void,
    args: *mut *mut c_void,
    data: *mut c_void,
) {
    // SAFETY: as above.
    unsafe {
        let IntDouble(a, b) = *(*args).cast::<IntDouble>();
        *result.cast() = IntDouble(a.wrapping_add(data.addr() as i32), b + data.addr() as f64);
    }
}

unsafe extern "C" fn longs(
    _: *mut ffi_cif,
    result: *mut c_void,
    args: *mut *mut c_void,
    data: *mut c_void,
) {
    // SAFETY: as above.
    unsafe {
        let arg = |n| *(*args.add(n)).cast::<i64>();
        let sum = (0..10).map(arg).fold(0, i64::wrapping_add);
        *result.cast::<i64>() = sum.wrapping_add(data.addr() as i64);
    }
}

extern "C" fn plain_ints(a: i32, b: i32) -> i32 {
    a.wrapping_add(b).wrapping_add(DATA as i32)
}
extern "C" fn plain_doubles(a: f64, b: f64) -> f64 {
    a + b + DATA as f64
}
extern "C" fn plain_structs(s: IntDouble) -> IntDouble {
    IntDouble(s.0.wrapping_add(DATA as i32), s.1 + DATA as f64)
}
#[rustfmt::skip]
extern "C" fn plain_longs(
    a: i64, b: i64, c: i64, d: i64, e: i64, f: i64, g: i64, h: i64, i: i64, j: i64,
) -> i64 {
    [a, b, c, d, e, f, g, h, i, j].into_iter().fold(DATA as i64, i64::wrapping_add)
}

macro_rules! answers {
    ($($name:ident, |$code:ident, $data:ident| $right:expr;)*) => {$(
        /// # Safety
        ///
        /// `code` is a function of this shape.
        unsafe fn $name($code: *const (), $data: usize) -> bool {
            // SAFETY: by the contract.
            unsafe { $right }
        }
    )*};
}
answers! {
    answers_ints, |code, data| of_ints(code)(20, 22) == 42 + data as i32;
    answers_doubles, |code, data| of_doubles(code)(20.5, 22.5) == 43.0 + data as f64;
    answers_structs, |code, data|
        of_structs(code)(IntDouble(1, 2.5)) == IntDouble(1 + data as i32, 2.5 + data as f64);
    answers_longs, |code, data|
        of_longs(code)(1, 2, 3, 4, 5, 6, 7, 8, 9, 10) == 55 + data as i64;
}

macro_rules! calls {
    ($($ty:ty, $of:ident, $fed:ident, $free:ident, $first:expr, |$f:ident, $x:ident, $n:ident|
       $call_fed:expr, $call_free:expr;)*) => {$(
        fn $of(code: *const ()) -> $ty {
            // SAFETY: the caller's: it is a function of this type.
            unsafe { std::mem::transmute::<*const (), $ty>(code) }
        }

        /// # Safety
        ///
        /// `code` is a function of this type.
        #[inline(never)]
        unsafe fn $fed(code: *const ()) {
            let $f = black_box($of(code));
            let mut $x = $first;
            for _ in 0..CALLS {
                // SAFETY: by the contract.
                $x = unsafe { $call_fed };
            }
            black_box($x);
        }

        /// # Safety
        ///
        /// `code` is a function of this type.
        #[inline(never)]
        unsafe fn $free(code: *const ()) {
            let $f = black_box($of(code));
            for $n in 0..CALLS {
                // SAFETY: by the contract.
                let $x = unsafe { $call_free };
                // Looked at, but nothing waits for it.
                black_box($x);
            }
        }
    )*};
}
calls! {
    Ints, of_ints, fed_ints, free_ints, 1, |f, x, n| f(x, 3), f(n as i32, 3);
    Doubles, of_doubles, fed_doubles, free_doubles, 1.0, |f, x, n| f(x, 3.0), f(n as f64, 3.0);
    Structs, of_structs, fed_structs, free_structs, IntDouble(1, 2.0), |f, x, n|
        f(x), f(IntDouble(n as i32, 2.0));
    Longs, of_longs, fed_longs, free_longs, 1, |f, x, n|
        f(x, 2, 3, 4, 5, 6, 7, 8, 9, 10), f(n as i64, 2, 3, 4, 5, 6, 7, 8, 9, 10);
}
