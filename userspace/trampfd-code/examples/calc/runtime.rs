//! What compiled code needs while it runs.
//!
//! All compiled functions are `extern "C" fn(&mut Context, i64, ..) -> Outcome`, with as many
//! integers as they have parameters. Who gets an outcome that failed returns at once and fails,
//! so the first fault ends the program, and no unwinder has to know the code.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::thread;

use trampfd_code::cache;

/// Why a program ended early, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub what: What,
    /// In which function; empty if it is none of the program's.
    pub function: String,
    /// Lines after the first of the function.
    pub line: u32,
}

impl Fault {
    /// One that is in no function.
    pub fn outside(what: What) -> Fault {
        Fault { what, function: String::new(), line: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Overflow,
    DivisionByZero,
    TooManyCalls,
    /// There is no thread with the stack that a program needs.
    NoStack(String),
    /// A function was called, and its code could not be had.
    NotCompiled(String),
    Output(std::io::ErrorKind),
}

impl What {
    /// What compiled code says for the faults that it finds itself.
    pub const CODES: [What; 3] = [What::Overflow, What::DivisionByZero, What::TooManyCalls];

    pub fn code(&self) -> i32 {
        What::CODES.iter().position(|what| what == self).expect("a fault of compiled code") as i32
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Overflow => f.write_str("the result is too great for 64 bits"),
            What::DivisionByZero => f.write_str("division by zero"),
            What::TooManyCalls => f.write_str("too many calls in each other"),
            What::NoStack(why) => write!(f, "no stack for the program: {why}"),
            What::NotCompiled(why) => write!(f, "not compiled: {why}"),
            What::Output(why) => write!(f, "nothing can be printed: {why}"),
        }
    }
}

/// What a compiled function returns, in two registers.
#[repr(C)]
pub struct Outcome {
    value: i64,
    failed: u64,
}

impl Outcome {
    const FAILED: Outcome = Outcome { value: 0, failed: 1 };
}

/// What every compiled function is given first.
#[repr(C)]
pub struct Context<'a> {
    /// Below it no function begins. Compiled code reads it: it has to be the first.
    stack_limit: usize,
    output: &'a mut (dyn Write + Send),
    fault: Option<Fault>,
}

type Code = extern "C" fn(&mut Context<'_>, i64, i64, i64, i64, i64) -> Outcome;

/// Of the thread that runs the program.
const STACK: usize = 16 << 20;
/// What is left of a stack for the functions of the run time, and for the compiler.
const RESERVE: usize = 2 << 20;

/// Runs compiled code.
///
/// # Safety
///
/// `code` is that of a function with the given number of parameters, at most five, compiled for
/// this run time.
pub unsafe fn run(
    code: *const u8,
    arguments: &[i64],
    output: &mut (dyn Write + Send),
) -> Result<i64, Fault> {
    // SAFETY: by the caller's contract. Arguments are in registers; those it has no parameters
    // for are not looked at.
    let code: Code = unsafe { std::mem::transmute(code) };
    let argument = |i| arguments.get(i).copied().unwrap_or(0);
    let (a, b, c, d, e) = (argument(0), argument(1), argument(2), argument(3), argument(4));
    with_stack(STACK, move |stack_limit| {
        let mut context = Context { stack_limit, output, fault: None };
        let outcome = code(&mut context, a, b, c, d, e);
        match context.fault {
            Some(fault) if outcome.failed != 0 => Err(fault),
            _ => Ok(outcome.value),
        }
    })
}

/// Runs `work` in a thread that has so many bytes of stack. It is given the address below which
/// no function of the program may begin.
pub fn with_stack<V: Send, E: From<Fault> + Send>(
    bytes: usize,
    work: impl FnOnce(usize) -> Result<V, E> + Send,
) -> Result<V, E> {
    let work = move || work(stack_pointer() - (bytes - RESERVE));
    thread::scope(|scope| {
        match thread::Builder::new().stack_size(bytes).spawn_scoped(scope, work) {
            Ok(thread) => thread.join().expect("the program's thread panicked"),
            Err(error) => Err(Fault::outside(What::NoStack(error.to_string())).into()),
        }
    })
}

/// About: the address of something on the stack.
pub fn stack_pointer() -> usize {
    let here = 0u8;
    &raw const here as usize
}

/// The functions that compiled code calls, by name.
pub fn helper(name: &str) -> Option<*const u8> {
    Some(match name {
        "print" => print as *const u8,
        "fault" => fault as *const u8,
        _ => return None,
    })
}

extern "C" fn print(context: &mut Context<'_>, value: i64) -> Outcome {
    if let Err(error) = writeln!(context.output, "{value}") {
        context.fault = Some(Fault::outside(What::Output(error.kind())));
        return Outcome::FAILED;
    }
    Outcome { value, failed: 0 }
}

/// # Safety
///
/// `name` are `len` bytes.
unsafe extern "C" fn fault(
    context: &mut Context<'_>,
    name: *const u8,
    len: usize,
    line: u32,
    code: u32,
) -> Outcome {
    // SAFETY: by the caller's contract.
    let name = unsafe { std::slice::from_raw_parts(name, len) };
    let function = String::from_utf8_lossy(name).into_owned();
    let what = What::CODES[code as usize].clone();
    context.fault = Some(Fault { what, function, line });
    Outcome::FAILED
}

thread_local! {
    /// Why the function that this thread calls next was not compiled.
    static WHY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What to call in place of a function that could not be compiled.
pub fn not_compiled(error: &cache::Error) -> *const u8 {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        why += &format!(": {error}");
        source = error.source();
    }
    WHY.set(why);
    extern "C" fn fail(context: &mut Context<'_>) -> Outcome {
        context.fault = Some(Fault::outside(What::NotCompiled(WHY.take())));
        Outcome::FAILED
    }
    fail as *const u8
}
