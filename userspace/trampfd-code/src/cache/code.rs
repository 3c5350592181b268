//! A batch while its methods are compiled.

use std::collections::HashMap;
use std::hash::Hash;

/// A place in the GOT that holds the address of a function: `call *slot(%rip)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(super) u32);

/// Bytes that code reads: read-only, not executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Constant(pub(super) u32);

/// What code refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A slot of the GOT.
    Slot(Slot),
    /// A constant.
    Constant(Constant),
}

impl From<Slot> for Target {
    fn from(slot: Slot) -> Target {
        Target::Slot(slot)
    }
}

impl From<Constant> for Target {
    fn from(constant: Constant) -> Target {
        Target::Constant(constant)
    }
}

/// Whose address a slot holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Callee<M> {
    Method(M),
    Helper(String),
}

/// The four bytes at `at` of all code are to hold the distance from their own address to
/// `target`, plus `addend`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixup {
    pub(super) at: usize,
    pub(super) target: Target,
    pub(super) addend: i32,
}

/// A method and where its code is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<M> {
    pub(super) method: M,
    pub(super) at: usize,
    pub(super) len: usize,
}

/// How much of a [`Draft`] there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    code: usize,
    constants: usize,
    slots: usize,
    fixups: usize,
}

/// All code of a batch, and what it refers to.
#[derive(Debug)]
pub(super) struct Draft<M> {
    pub(super) code: Vec<u8>,
    pub(super) constants: Vec<u8>,
    pub(super) slots: Vec<Callee<M>>,
    slot_of: HashMap<Callee<M>, Slot>,
    pub(super) fixups: Vec<Fixup>,
    pub(super) methods: Vec<Placed<M>>,
    /// The first wrong fixup: method and offset in it.
    pub(super) wrong: Option<(M, usize)>,
}

impl<M: Copy + Eq + Hash> Draft<M> {
    /// What each method's code begins at a multiple of.
    const ALIGN: usize = 16;
    const MAX_CONSTANT_ALIGN: usize = 64;

    pub(super) fn new() -> Draft<M> {
        Draft {
            code: Vec::new(),
            constants: Vec::new(),
            slots: Vec::new(),
            slot_of: HashMap::new(),
            fixups: Vec::new(),
            methods: Vec::new(),
            wrong: None,
        }
    }

    /// Where it is now.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            code: self.code.len(),
            constants: self.constants.len(),
            slots: self.slots.len(),
            fixups: self.fixups.len(),
        }
    }

    /// Forgets all that came after `mark`, but for what was wrong.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.code.truncate(mark.code);
        self.constants.truncate(mark.constants);
        self.slots.truncate(mark.slots);
        self.slot_of.retain(|_, slot| (slot.0 as usize) < mark.slots);
        self.fixups.truncate(mark.fixups);
    }

    /// For the code of one more method.
    pub(super) fn begin(&mut self, method: M) -> Code<'_, M> {
        let len = self.code.len().next_multiple_of(Draft::<M>::ALIGN);
        self.pad(len);
        Code { start: len, draft: self, method, calls: Vec::new() }
    }

    /// Fills up to `len` with instructions that trap.
    pub(super) fn pad(&mut self, len: usize) {
        let trap = crate::arch::TRAP;
        while self.code.len() < len {
            self.code.push(trap[self.code.len() % trap.len()]);
        }
    }

    fn slot(&mut self, callee: Callee<M>) -> Slot {
        let next = Slot(self.slots.len() as u32);
        let slots = &mut self.slots;
        *self.slot_of.entry(callee).or_insert_with_key(|callee| {
            slots.push(callee.clone());
            next
        })
    }
}

/// Takes the code of one method. Other methods, functions of the run time and constants are
/// reached by distances that [`Code::fix`] fills in, so that nothing depends on where the code
/// will lie:
///
/// ```
/// # use trampfd_code::cache::{Code, Failure};
/// # fn compile(code: &mut Code<'_, u32>, other: u32) -> Result<(), Failure> {
/// code.emit(&[0x48, 0x83, 0xec, 8]); // sub $8, %rsp
/// code.emit(&[0xff, 0x15]); // call *slot(%rip)
/// let slot = code.call(other);
/// code.emit_distance(slot);
/// code.emit(&[0x48, 0x83, 0xc4, 8, 0xc3]); // add $8, %rsp; ret
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Code<'a, M> {
    draft: &'a mut Draft<M>,
    method: M,
    start: usize,
    /// In the order of the first call.
    calls: Vec<M>,
}

impl<M: Copy + Eq + Hash> Code<'_, M> {
    /// Appends instructions.
    pub fn emit(&mut self, bytes: &[u8]) {
        self.draft.code.extend_from_slice(bytes);
    }

    /// Bytes emitted for this method until now.
    pub fn len(&self) -> usize {
        self.draft.code.len() - self.start
    }

    /// Whether nothing was emitted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was emitted, to be changed: jumps inside of the method, for instance.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.draft.code[self.start..]
    }

    /// The slot that holds the address of `method`, which may be this one. The first call of it
    /// compiles the method if need be; the address in the slot does not change after that. Eight
    /// bytes, to be called, jumped or loaded through.
    pub fn call(&mut self, method: M) -> Slot {
        if !self.calls.contains(&method) {
            self.calls.push(method);
        }
        self.draft.slot(Callee::Method(method))
    }

    /// The slot that holds the address of a function of the run time
    /// ([`Compiler::helper`](super::Compiler::helper)).
    pub fn helper(&mut self, name: &str) -> Slot {
        self.draft.slot(Callee::Helper(name.into()))
    }

    /// Bytes that code reads, at a multiple of their length or of 64, whichever is less. A
    /// length that is no power of two counts as the next.
    pub fn constant(&mut self, bytes: &[u8]) -> Constant {
        let align = bytes.len().next_power_of_two().min(Draft::<M>::MAX_CONSTANT_ALIGN);
        let constants = &mut self.draft.constants;
        constants.resize(constants.len().next_multiple_of(align), 0);
        let at = constants.len() as u32;
        constants.extend_from_slice(bytes);
        Constant(at)
    }

    /// The four bytes at offset `at` of this method will hold the distance, in bytes, from their
    /// own address to `target`, plus `addend`. Where the processor counts from the end of an
    /// instruction, and they are its last bytes, that is -4.
    pub fn fix(&mut self, at: usize, target: impl Into<Target>, addend: i32) {
        if at.checked_add(4).is_none_or(|end| end > self.len()) {
            self.draft.wrong.get_or_insert((self.method, at));
            return;
        }
        let fixup = Fixup { at: self.start + at, target: target.into(), addend };
        self.draft.fixups.push(fixup);
    }

    /// Appends four bytes that will hold the distance from their end to `target`: what ends an
    /// x86-64 instruction with a memory operand relative to %rip.
    pub fn emit_distance(&mut self, target: impl Into<Target>) {
        let at = self.len();
        self.emit(&[0; 4]);
        self.fix(at, target, -4);
    }

    /// The methods called, in the order of their first call.
    pub(super) fn finish(self) -> Vec<M> {
        let (at, len) = (self.start, self.draft.code.len() - self.start);
        self.draft.methods.push(Placed { method: self.method, at, len });
        self.calls
    }
}
