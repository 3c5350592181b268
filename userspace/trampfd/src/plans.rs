//! Plans: made once for each shape of signature, and kept for ever.
//!
//! Two signatures have one plan if their arguments are passed alike, so there are few: `int(int,
//! int)` and `int(char *, long)` share theirs. They are found by a key, the classes in a row;
//! where that fits 64 bits, as for up to 15 scalars, without a lock.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use trampfd_text::arch::{self, Class, Found, Placer, Returned};
use trampfd_text::plan::{Foreign, Plan};

use crate::fork;
use crate::slots::seldom;
use crate::types::TypeError;

/// Collects the classes of a signature's arguments, and finds its plan.
#[derive(Debug)]
pub struct Planner {
    returned: Returned,
    /// The number of `returned`, then the codes of the arguments, as long as all of it fits.
    key: u64,
    shift: u32,
    /// All arguments, where it does not.
    long: Vec<Class>,
}

impl Planner {
    /// For a signature whose result is returned so.
    #[inline(always)]
    pub const fn new(returned: Returned) -> Planner {
        Planner { returned, key: returned as u64, shift: Returned::BITS, long: Vec::new() }
    }

    /// The plan for a result and arguments whose classes have these codes ([`Class::code`]), if it
    /// was made before and is found without a lock. An argument that is `None` or has
    /// [`Class::NO_CODE`] is in no plan. Costs a few instructions for each argument.
    #[inline(always)]
    pub fn recent(
        returned: Returned,
        args: impl ExactSizeIterator<Item = Option<u8>> + DoubleEndedIterator,
    ) -> Option<&'static Plan> {
        const MOST: usize = ((u64::BITS - Returned::BITS) / Class::BITS) as usize;
        if args.len() > MOST {
            seldom();
            return None;
        }
        if args.len() == 0 {
            seldom();
            return recent(returned as u64);
        }
        // From the last to the first, which needs no count of bits.
        let mut key = 0;
        for code in args.rev() {
            key = key << Class::BITS | u64::from(code?);
        }
        recent(key << Returned::BITS | returned as u64)
    }

    /// The next argument.
    #[inline(always)]
    pub fn arg(&mut self, class: Class) {
        match class.code() {
            Some(code) if self.shift < u64::BITS => {
                self.key |= u64::from(code) << self.shift;
                self.shift += Class::BITS;
            }
            _ => self.long_arg(class),
        }
    }

    #[cold]
    fn long_arg(&mut self, class: Class) {
        if self.long.is_empty() {
            self.long = short_args(self.key, self.shift).collect();
            self.shift = u64::BITS;
        }
        self.long.push(class);
    }

    /// The plan.
    ///
    /// # Errors
    ///
    /// [`TypeError::TooLarge`] if no call could have so many or so large arguments.
    #[inline(always)]
    pub fn finish(self) -> Result<&'static Plan, TypeError> {
        match recent(self.key) {
            Some(plan) if self.long.is_empty() => Ok(plan),
            _ => self.look_up(),
        }
    }

    #[cold]
    fn look_up(self) -> Result<&'static Plan, TypeError> {
        let short = self.long.is_empty();
        let args = if short { short_args(self.key, self.shift).collect() } else { self.long };
        let mut key = vec![self.returned as u32];
        key.extend(args.iter().map(|class| class.bits()));
        fork::prepare();
        let mut all = lock();
        let made = match all.plans.get(&*key) {
            Some(&made) => made,
            None => {
                let plan = make(self.returned, &args).ok_or(TypeError::TooLarge)?;
                let made: &'static Made = Box::leak(Box::new(Made { plan, key: self.key }));
                all.plans.insert(key.into(), made);
                made
            }
        };
        if short {
            RECENT[place(self.key)].store((&raw const *made).cast_mut(), Ordering::Release);
        }
        Ok(&made.plan)
    }
}

/// The arguments of a key whose first free bit is `shift`.
fn short_args(key: u64, shift: u32) -> impl Iterator<Item = Class> {
    (Returned::BITS..shift)
        .step_by(Class::BITS as usize)
        .map(move |at| Class::of_code((key >> at) as u32 & ((1 << Class::BITS) - 1)))
}

/// A plan with its key.
struct Made {
    plan: Plan,
    key: u64,
}

/// Places where plans of short signatures are found without a lock.
const PLACES: usize = 256;

static RECENT: [AtomicPtr<Made>; PLACES] = [const { AtomicPtr::new(null_mut()) }; PLACES];

/// The plan of a short signature, if it is found without a lock.
#[inline(always)]
fn recent(key: u64) -> Option<&'static Plan> {
    // SAFETY: null or from `Box::leak`.
    let made = unsafe { RECENT[place(key)].load(Ordering::Acquire).as_ref() };
    made.filter(|made| made.key == key).map(|made| &made.plan)
}

#[inline(always)]
fn place(key: u64) -> usize {
    // Fibonacci hashing: the upper bits of the product depend on all of the key.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % PLACES
}

/// All that was made.
pub(crate) struct All {
    plans: BTreeMap<Box<[u32]>, &'static Made>,
    foreign: Vec<&'static Foreign>,
}

static ALL: Mutex<All> = Mutex::new(All { plans: BTreeMap::new(), foreign: Vec::new() });

/// The lock of the list. fork takes it too.
pub(crate) fn lock() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(|e| e.into_inner())
}

/// What leads from [`arch::any`] to another library's entry.
pub(crate) fn foreign(target: usize) -> &'static Foreign {
    fork::prepare();
    let mut all = lock();
    if let Some(known) = all.foreign.iter().find(|known| known.target == target) {
        return known;
    }
    let foreign: &'static Foreign = Box::leak(Box::new(Foreign { enter: arch::foreign, target }));
    all.foreign.push(foreign);
    foreign
}

/// Makes the plan of a signature; `None` if it is too large.
fn make(returned: Returned, args: &[Class]) -> Option<Plan> {
    let mut placer = Placer::new(returned);
    let mut offsets = Vec::with_capacity(args.len() + 1);
    let mut moves = Vec::new();
    for &class in args {
        offsets.push(i64::from(match placer.place(class)? {
            Found::At(at) => at,
            Found::Apart { from } => {
                let (at, halves) = arch::together(moves.len() / 2, from);
                moves.extend(halves);
                at
            }
        }));
    }
    offsets.resize(args.len().next_multiple_of(2), 0);
    let (enter, finish) = arch::entries(&placer, returned, args);
    Some(Plan {
        enter,
        finish,
        frame: arch::frame(args.len(), moves.len() / 2)?,
        listed: u32::try_from(8 * offsets.len()).ok()?,
        moved: u32::try_from(moves.len()).ok()?,
        hidden: u32::from(returned == Returned::Memory),
        offsets: offsets.leak().as_ptr(),
        moves: moves.leak().as_ptr(),
    })
}
