//! Address space for batches, which is taken once and used again.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Error;
use crate::extents::Extents;
use crate::vm::{self, Access, Mapping, Meter};

/// Where batches are mapped: private memory, writable, in which a batch puts its views of a file
/// and keeps its part of the GOT. A batch that was unloaded leaves its memory to the next, so
/// that to map a known file again is one call, and no page has to be found for its GOT.
#[derive(Clone, Debug)]
pub(super) struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rooms: Mutex<Vec<Room>>,
    meter: Meter,
}

/// # Invariants
///
/// What `free` has is private memory, writable; what it does not have belongs to one [`Share`],
/// or to nobody.
#[derive(Debug)]
struct Room {
    map: Mapping,
    free: Extents,
}

/// A part of a room: whole pages.
///
/// # Invariants
///
/// `[at, at + len)` of its mapping is this value's alone.
#[derive(Debug)]
pub(super) struct Share {
    rooms: Rooms,
    room: usize,
    at: usize,
    len: usize,
    base: *mut u8,
}

// SAFETY: an address; what lies there is reached by who has the share.
unsafe impl Send for Share {}

impl Rooms {
    /// Address space that is taken at once.
    const LEN: usize = 4 << 20;

    pub(super) fn new(meter: &Meter) -> Rooms {
        Rooms(Arc::new(Inner { rooms: Mutex::default(), meter: meter.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Room>> {
        self.0.rooms.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// `len` bytes, whole pages: private memory, writable. What is in it is not said.
    pub(super) fn take(&self, len: usize) -> Result<Share, Error> {
        let mut rooms = self.lock();
        let there = rooms
            .iter_mut()
            .enumerate()
            .find_map(|(room, it)| Some((room, it.free.take(len)?.start)));
        let (room, at) = match there {
            Some(found) => found,
            None => {
                let map = Mapping::memory(len.max(Rooms::LEN), &self.0.meter)?;
                // Otherwise the first word of a GOT could cost a huge page.
                map.use_small_pages()?;
                let free = Extents::new(len..map.len());
                rooms.push(Room { map, free });
                (rooms.len() - 1, 0)
            }
        };
        let base = rooms[room].map.ptr().wrapping_add(at);
        Ok(Share { rooms: self.clone(), room, at, len, base })
    }
}

impl Share {
    /// The first byte.
    pub(super) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Shows a part of a file, privately, at offset `at` of it.
    pub(super) fn map_file(
        &self,
        at: usize,
        len: usize,
        fd: BorrowedFd<'_>,
        from: usize,
        access: Access,
    ) -> Result<(), vm::Error> {
        self.rooms.lock()[self.room].map.map_private(self.at + at, len, fd, from, access)
    }

    /// Changes what may be done with memory in it.
    pub(super) fn protect(&self, at: usize, len: usize, access: Access) -> Result<(), vm::Error> {
        self.rooms.lock()[self.room].map.protect(self.at + at, len, access)
    }

    /// Takes the first `len` bytes of it, whole pages, back from the files that were mapped
    /// there. If that fails they belong to nobody from now on.
    pub(super) fn give_back(self, len: usize) {
        let mut rooms = self.rooms.lock();
        let room = &mut rooms[self.room];
        if len == 0 || room.map.map_memory(self.at, len).is_ok() {
            room.free.put(self.at..self.at + self.len);
        }
    }
}
