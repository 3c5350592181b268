//! What differs by architecture, under the same names in each file: the machine's number, what
//! each relocation asks for and how it is written, and the stub.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod this;

pub(super) use this::{
    Field, GET_ADDR, LARGE_COMMON, MACHINE, REACH, STUB_ALIGN, STUB_LEN, decode, name, stub, write,
};

/// What a relocation asks for: `target + addend - origin`, written as `field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) target: Target,
    pub(super) origin: Origin,
    pub(super) field: Field,
    /// Added to the place.
    pub(super) shift: i8,
    /// Bytes to change besides, by their distance from the relocation's place.
    pub(super) edits: &'static [(i8, u8)],
}

/// What a relocation refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing: there are only bytes to change.
    Nothing,
    /// The symbol.
    Symbol,
    /// The symbol, or a stub that jumps to it where it is not part of the set.
    Callee,
    /// The symbol's size.
    Size,
    /// The start of the table.
    Table,
    /// An entry of the table.
    Entry(Entry),
    /// A thread's variable, from the start of its block.
    InBlock,
    /// A thread's variable, from the thread pointer.
    FromThread,
}

/// Entries of the table (GOT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Entry {
    /// A symbol's address.
    Address,
    /// The distance of a thread's variable from the thread pointer.
    FromThread,
    /// What `__tls_get_addr` needs to find a thread's variable.
    Variable,
    /// What `__tls_get_addr` needs to find the set's block.
    Block,
}

/// What is subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Zero,
    Place,
    Table,
}
