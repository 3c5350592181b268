//! What an allocator can tell about itself.

use super::map::Map;
use crate::vm;

/// A block that is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its first byte, in the executable view.
    pub start: *const u8,
    /// Bytes: what was asked for, rounded up to the [granularity](super::Granularity), or to
    /// pages if it was much.
    pub len: usize,
}

/// What [`JitAllocator::statistics`](super::JitAllocator::statistics) has counted. Exact if no
/// other thread uses the allocator meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Bytes handed out, each block rounded up.
    pub used: usize,
    /// Bytes of memory taken from the system for code.
    pub reserved: usize,
    /// Bytes that the books take, beside the code.
    pub side_data: usize,
    /// Pieces of memory taken: of [`Options::block`](super::Options::block) bytes for small
    /// blocks, as long as they need be for large ones.
    pub blocks: usize,
    /// Blocks of code handed out.
    pub live: usize,
    /// Free pieces between them, as long as they can be, in memory taken for small blocks.
    pub free_runs: usize,
    /// Bytes of the longest free piece there: what can be handed out as one without taking more.
    pub largest_free: usize,
    /// Regions of address space.
    pub regions: usize,
    /// What was asked of the system.
    pub system: vm::Stats,
}

impl Statistics {
    /// Bytes that are taken and not used.
    pub fn free(&self) -> usize {
        self.reserved - self.used
    }

    /// A unit that a heap has.
    pub(super) fn add_unit(&mut self, map: &Map, granule: u32) {
        self.blocks += 1;
        self.reserved += map.len() << granule;
        for run in map.runs() {
            let bytes = run.len << granule;
            if run.live {
                self.live += 1;
                self.used += bytes;
            } else {
                self.free_runs += 1;
                self.largest_free = self.largest_free.max(bytes);
            }
        }
    }

    /// Pages that all threads share: those in use have memory.
    pub(super) fn add_pages(&mut self, map: &Map) {
        for run in map.runs().filter(|run| run.live) {
            let bytes = run.len * vm::page_size();
            self.blocks += 1;
            self.live += 1;
            self.used += bytes;
            self.reserved += bytes;
        }
    }

    /// How scattered free memory is, from 0 (all of it in one piece) to 1: the part of the free
    /// bytes that is outside the longest free piece.
    pub fn fragmentation(&self) -> f64 {
        match self.free() {
            0 => 0.0,
            free => 1.0 - self.largest_free as f64 / free as f64,
        }
    }
}
