//! Closures of one signature each: every data register, the entry for those that have none left,
//! arguments on the stack, values that need a box, and a signature that is known at run time.

use trampfd::{Builder, Closure, DynCall, DynClosure, Error, Signature, Type};
use trampfd_sys::TRAMPFD_TABLE_SIZE;
use trampfd_text::arch;

use crate::Fail;

/// Closures of one signature.
pub(crate) trait Lane {
    fn name(&self) -> &'static str;
    /// Makes `count` more.
    fn make(&mut self, builder: &Builder, count: usize) -> Result<(), Error>;
    /// How many more need more than three tables beyond the first.
    fn more_than_three_tables(&self) -> usize;
    /// How many there are.
    fn count(&self) -> usize;
    /// Calls all.
    fn check(&self) -> Result<(), Fail>;
    /// Drops every second; how many those were.
    fn halve(&mut self) -> usize;
    /// Makes in one thread, calls in this, drops in a third.
    fn cross_threads(&self, builder: &Builder) -> Result<(), Fail>;
    /// Calls one closure that lives for ever; whether the answer was right.
    fn caller(&self) -> Box<dyn Fn() -> bool + Send>;
    /// From now on the first closure is expected to say something else.
    fn lie(&mut self);
}

/// A C function pointer with what it is asked and answers.
trait Callback: Copy + Send + 'static {
    type Closure: Send + 'static;
    fn closure(builder: &Builder, tag: u64) -> Result<Self::Closure, Error>;
    fn pointer(closure: &Self::Closure) -> Self;
    /// Calls it.
    ///
    /// # Safety
    ///
    /// Its closure lives.
    unsafe fn ask(self) -> u64;
    /// What the closure with this tag must answer.
    fn answer(tag: u64) -> u64;
}

/// Depends on the value and the place of each argument.
fn mix(tag: u64, arguments: &[u64]) -> u64 {
    arguments.iter().fold(tag, |mixed, a| mixed.wrapping_mul(31).wrapping_add(*a))
}

macro_rules! callback {
    ($($a:ident: $t:ty = $v:literal),*) => {
        impl Callback for unsafe extern "C" fn($($t),*) -> u64 {
            type Closure = Closure<Self>;
            fn closure(builder: &Builder, tag: u64) -> Result<Closure<Self>, Error> {
                builder.closure(|$($a: $t,)* tag: &u64| mix(*tag, &[$($a as u64),*]), tag)
            }
            fn pointer(closure: &Closure<Self>) -> Self {
                closure.as_ptr()
            }
            unsafe fn ask(self) -> u64 {
                // SAFETY: by the contract.
                unsafe { self($($v as $t),*) }
            }
            fn answer(tag: u64) -> u64 {
                mix(tag, &[$($v),*])
            }
        }
    };
}
callback!();
callback!(a: u64 = 3);
callback!(a: u64 = 3, b: i32 = 5);
callback!(a: u64 = 3, b: i32 = 5, c: u8 = 7);
callback!(a: u64 = 3, b: i32 = 5, c: u8 = 7, d: u64 = 11);
callback!(a: u64 = 3, b: i32 = 5, c: u8 = 7, d: u64 = 11, e: i16 = 13);
callback!(a: u64 = 3, b: i32 = 5, c: u8 = 7, d: u64 = 11, e: i16 = 13, f: u64 = 17);
callback!(a: u64 = 3, b: i32 = 5, c: u8 = 7, d: u64 = 11, e: i16 = 13, f: u64 = 17, g: u32 = 19,
    h: f64 = 23, i: u64 = 29);
callback!(a: f64 = 3, b: f32 = 5, c: f64 = 7, d: f64 = 11, e: f32 = 13, f: f64 = 17, g: f64 = 19,
    h: f64 = 23, i: f64 = 29, j: f32 = 31, k: u64 = 37);

impl Callback for unsafe extern "C" fn(*const u8) -> u64 {
    type Closure = Closure<Self>;
    fn closure(builder: &Builder, tag: u64) -> Result<Closure<Self>, Error> {
        // More than fits into a slot.
        let data = [tag, 1, 2, 3, 4];
        builder.closure(|p: *const u8, data: &[u64; 5]| mix(data[0], &data[1..]) + p as u64, data)
    }
    fn pointer(closure: &Closure<Self>) -> Self {
        closure.as_ptr()
    }
    unsafe fn ask(self) -> u64 {
        // SAFETY: by the contract; the pointer is only a number.
        unsafe { self(core::ptr::without_provenance(41)) }
    }
    fn answer(tag: u64) -> u64 {
        mix(tag, &[1, 2, 3, 4]) + 41
    }
}

/// The pointer of a closure whose signature the library is told at run time.
#[derive(Clone, Copy)]
struct Told(unsafe extern "C" fn(u64, f64, i16) -> u64);

impl Callback for Told {
    type Closure = DynClosure;
    fn closure(builder: &Builder, tag: u64) -> Result<DynClosure, Error> {
        thread_local! {
            static SIGNATURE: Signature = Signature::new(&[Type::U64, Type::F64, Type::I16], Type::U64)
                .expect("a plain signature");
        }
        let handler = |call: &mut DynCall<'_>, tag: &u64| {
            if let (Ok(a), Ok(b), Ok(c)) =
                (call.arg::<u64>(0), call.arg::<f64>(1), call.arg::<i16>(2))
            {
                // Where this failed the result is 0, and wrong.
                let _ = call.set(mix(*tag, &[a, b as u64, c as u64]));
            }
        };
        SIGNATURE.with(|signature| builder.dynamic(signature, handler, tag))
    }
    fn pointer(closure: &DynClosure) -> Self {
        // SAFETY: a function of this signature, as `closure` says.
        Told(unsafe {
            core::mem::transmute::<*const (), unsafe extern "C" fn(u64, f64, i16) -> u64>(
                closure.as_ptr(),
            )
        })
    }
    unsafe fn ask(self) -> u64 {
        // SAFETY: by the contract.
        unsafe { (self.0)(3, 5.0, 7) }
    }
    fn answer(tag: u64) -> u64 {
        mix(tag, &[3, 5, 7])
    }
}

struct Of<S: Callback> {
    name: &'static str,
    next_tag: u64,
    table: usize,
    /// Every how many'th is called.
    step: usize,
    made: Vec<(u64, S::Closure)>,
}

fn right<S: Callback>((tag, closure): &(u64, S::Closure)) -> bool {
    // SAFETY: the closure lives.
    unsafe { S::pointer(closure).ask() == S::answer(*tag) }
}

impl<S: Callback> Lane for Of<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn make(&mut self, builder: &Builder, count: usize) -> Result<(), Error> {
        for _ in 0..count {
            let closure = S::closure(builder, self.next_tag)?;
            self.made.push((self.next_tag, closure));
            self.next_tag += 1;
        }
        Ok(())
    }

    fn more_than_three_tables(&self) -> usize {
        4 * self.table + 1
    }

    fn count(&self) -> usize {
        self.made.len()
    }

    fn check(&self) -> Result<(), Fail> {
        if self.made.is_empty() || !self.made.iter().step_by(self.step).all(right::<S>) {
            return Err(Fail::Wrong(format!("{}: a wrong answer", self.name)));
        }
        Ok(())
    }

    fn halve(&mut self) -> usize {
        let before = self.made.len();
        let mut keep = false;
        self.made.retain(|_| {
            keep = !keep;
            keep
        });
        before - self.made.len()
    }

    fn cross_threads(&self, builder: &Builder) -> Result<(), Fail> {
        let builder = *builder;
        let work = move || (0..64).map(|tag| Ok((tag, S::closure(&builder, tag)?))).collect();
        let made: Result<Vec<_>, Error> = std::thread::spawn(work)
            .join()
            .map_err(|_| Fail::Wrong(format!("{}: a thread panicked", self.name)))?;
        let made = made.map_err(|e| Fail::Wrong(format!("{}: in a thread: {e:?}", self.name)))?;
        if !made.iter().step_by(self.step).all(right::<S>) {
            return Err(Fail::Wrong(format!("{}: made by another thread", self.name)));
        }
        std::thread::spawn(move || drop(made))
            .join()
            .map_err(|_| Fail::Wrong(format!("{}: a dropping thread panicked", self.name)))
    }

    fn caller(&self) -> Box<dyn Fn() -> bool + Send> {
        let (tag, closure) = &self.made[0];
        let (pointer, answer) = (S::pointer(closure), S::answer(*tag));
        // SAFETY: the first closure is kept to the end: `halve` keeps it.
        Box::new(move || unsafe { pointer.ask() } == answer)
    }

    fn lie(&mut self) {
        self.made[0].0 += 1;
    }
}

/// The lanes; `kernel`: of the kernel service; `small`: on a slow machine.
pub(crate) fn all(kernel: bool, small: bool) -> Vec<Box<dyn Lane>> {
    // An emulator keeps a translation of each stub that was called, all of the one page that all
    // kernel stubs are; when that page is freed and used again it walks that list for every byte.
    let step = if kernel && small { 61 } else { 1 };
    // A quarter of what one lane, and each of the others, makes more.
    let (table, of_one) = match (kernel, small) {
        // One lane as far as on text; the others stay in reach of the limit of one user.
        (true, _) => (TRAMPFD_TABLE_SIZE / arch::SLOT_STRIDE, if small { 64 } else { 1024 }),
        // One beyond the small copies, with which a table starts to grow.
        (false, false) => (6 * arch::TABLE_SLOTS, arch::TABLE_SLOTS),
        (false, true) => (arch::TABLE_SLOTS, arch::TABLE_SLOTS / 4),
    };
    // Their table is longer than the others.
    let told = if kernel { 0 } else { arch::static_table(arch::DYNAMIC).len / 4 };
    fn of<S: Callback>(name: &'static str, table: usize, step: usize) -> Box<dyn Lane> {
        // Room ahead, for an event that leaves no memory.
        let made = Vec::with_capacity(4 * table + 512);
        Box::new(Of::<S> { name, next_tag: 1, table, step, made })
    }
    vec![
        of::<unsafe extern "C" fn() -> u64>("no argument", of_one, step),
        of::<unsafe extern "C" fn(u64) -> u64>("1 integer", of_one, step),
        of::<unsafe extern "C" fn(u64, i32) -> u64>("2 integers", table, step),
        of::<unsafe extern "C" fn(u64, i32, u8) -> u64>("3 integers", of_one, step),
        of::<unsafe extern "C" fn(u64, i32, u8, u64) -> u64>("4 integers", of_one, step),
        of::<unsafe extern "C" fn(u64, i32, u8, u64, i16) -> u64>("5 integers", of_one, step),
        of::<unsafe extern "C" fn(u64, i32, u8, u64, i16, u64) -> u64>("framed", of_one, step),
        of::<unsafe extern "C" fn(u64, i32, u8, u64, i16, u64, u32, f64, u64) -> u64>(
            "framed with stack",
            of_one,
            step,
        ),
        of::<unsafe extern "C" fn(f64, f32, f64, f64, f32, f64, f64, f64, f64, f32, u64) -> u64>(
            "floats on the stack",
            of_one,
            step,
        ),
        of::<unsafe extern "C" fn(*const u8) -> u64>("boxed", of_one, step),
        of::<Told>("told at run time", of_one.max(told), step),
    ]
}
