//! A set linked at made-up addresses, into buffers: everything that loading does, but for the
//! system calls.

use super::object::Object;
use super::plan::{Plan, Surroundings};
use super::relocate::{BlockPlace, Buffers, fill};
use super::{Counts, Error, Symbol, arch::Entry};

/// Most bytes of memory that a dry run takes.
const LIMIT: u64 = 64 << 20;

/// What a set would be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Dry {
    /// What it needs.
    pub counts: Counts,
    /// Name, address and bytes of each part.
    pub parts: Vec<(String, usize, Vec<u8>)>,
}

/// Links the objects as if the set began at `base`, with every symbol that they lack 256 MiB
/// behind it. Any objects may be given; nothing is executed and no system call made. At most
/// 64 MiB of memory are taken.
///
/// # Errors
///
/// Those of [`SetBuilder::load`](super::SetBuilder::load) that objects are the reason for.
pub fn link_dry(objects: &[Object], base: usize) -> Result<Dry, Error> {
    let nobody = Nobody { address: base.wrapping_add(256 << 20) };
    let mut plan = Plan::new(objects, &nobody, LIMIT, true)?;
    let mut parts = Vec::new();
    let mut address = base & !0xfff;
    for part in &plan.parts {
        let too_large = || Error::TooLarge {
            object: "the set".into(),
            section: part.name.clone(),
            len: part.len as u64,
            limit: LIMIT,
        };
        // Above half of the address space there are no programs.
        address = address.checked_next_multiple_of(part.align).ok_or_else(too_large)?;
        let end = address.checked_add(part.len);
        let end = end.filter(|&end| end <= isize::MAX as usize).ok_or_else(too_large)?;
        parts.push((part.name.clone(), address, vec![0; part.len]));
        address = end;
    }
    let mut made_up = MadeUp(parts);
    let block = match plan.block.fixed {
        Some(_) => BlockPlace::Fixed(-4096),
        None => BlockPlace::Module(1 << 32),
    };
    fill(objects, &mut plan, &mut made_up, block)?;
    Ok(Dry { counts: plan.counts, parts: made_up.0 })
}

struct MadeUp(Vec<(String, usize, Vec<u8>)>);

impl Buffers for MadeUp {
    fn address(&self, part: usize) -> usize {
        self.0[part].1
    }

    fn bytes(&mut self, part: usize) -> &mut [u8] {
        &mut self.0[part].2
    }
}

struct Nobody {
    address: usize,
}

impl Surroundings for Nobody {
    fn symbol(&self, _: &str) -> Option<(Symbol, Option<usize>)> {
        Some((Symbol::Address(self.address), None))
    }

    fn entry(&self, _: &str, _: Entry, _: Option<Symbol>) -> Option<(usize, usize)> {
        None
    }

    fn stub(&self, _: &str, _: Option<Symbol>) -> Option<(usize, usize)> {
        None
    }

    fn near(&self, _: usize) -> bool {
        true
    }
}
