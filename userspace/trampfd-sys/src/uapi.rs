//! `linux/trampfd.h`, in the order of the header.
#![allow(non_camel_case_types)] // the names of the header

use core::mem::size_of;

/// Version of the contract that this crate mirrors, as in [`trampfd_info::abi_version`].
pub const TRAMPFD_ABI_VERSION: u32 = 1;

/// Bytes of one view, and the distance from a stub to its slot.
pub const TRAMPFD_TABLE_SIZE: usize = 0x80000;

/// Offsets for mmap are multiples of this many bytes, so that they are offsets on every page size.
pub const TRAMPFD_OFF_UNIT: u64 = 0x10000;
/// Offset for mmap of a data view, in bytes.
pub const TRAMPFD_OFF_DATA: u64 = 0;

/// Offset for mmap of the code view that loads register `reg`, in bytes: `TRAMPFD_OFF_CODE(reg)`.
///
/// `reg` is the register's DWARF number in the psABI of the architecture. Legal are those in
/// [`trampfd_info::regs`]; the kernel answers EINVAL for each other.
pub const fn off_code(reg: u16) -> u64 {
    (reg as u64 + 0x100) * TRAMPFD_OFF_UNIT
}

/// First part of each command's number.
pub const TRAMPFD_IOC_TYPE: u32 = 0xB7;

/// What this kernel offers ([`TRAMPFD_INFO`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct trampfd_info {
    /// `size_of::<trampfd_info>()`; on return the size the kernel knows.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Out: [`TRAMPFD_ABI_VERSION`] of the module.
    pub abi_version: u32,
    /// Out: bytes from one stub to the next, and one slot to the next.
    pub slot_stride: u32,
    /// Out: usable slots in each page; slot i of a table is at page `i / slots_per_page`, byte
    /// `(i % slots_per_page) * slot_stride`.
    pub slots_per_page: u32,
    /// Out: bytes of a page.
    pub page_size: u32,
    /// Out: usable slots of a table.
    pub slots_per_table: u32,
    /// Out: `TRAMPFD_POLICY_*` in force.
    pub policy: u32,
    /// Out: bit n set: register with DWARF number n is legal.
    pub regs: u64,
    /// Out: `TRAMPFD_FEATURE_*`.
    pub features: u64,
    /// Out: views that one user may have.
    pub max_views: u64,
    /// Out: views that the caller's user has now.
    pub user_views: u64,
    /// Out: pages of slots that one user may have.
    pub max_pages: u64,
    /// Out: pages of slots charged to the caller's user now.
    pub user_pages: u64,
}

/// In [`trampfd_info::policy`]: any mapping with private copies is refused as a target.
pub const TRAMPFD_POLICY_STRICT_VMA: u32 = 1 << 0;
/// In [`trampfd_info::policy`]: any executable, non-writable mapping is a legal target.
pub const TRAMPFD_POLICY_RELAXED: u32 = 1 << 1;

/// In [`trampfd_info::features`]: [`TRAMPFD_SET_STRIDED`].
pub const TRAMPFD_FEATURE_STRIDED: u64 = 1 << 0;
/// In [`trampfd_info::features`]: [`TRAMPFD_SEAL`], [`TRAMPFD_SEAL_ALL`].
pub const TRAMPFD_FEATURE_SEAL: u64 = 1 << 1;

/// One entry of [`TRAMPFD_SET`] and [`TRAMPFD_GET`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct trampfd_slot {
    /// Address of the stub in a code view.
    pub stub: u64,
    /// Where the stub jumps; GET: 0 for an empty slot.
    pub code: u64,
    /// What the stub loads into its register, never dereferenced; GET: 0 for an empty slot.
    pub data: u64,
}

/// Bind empty slots ([`TRAMPFD_SET`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct trampfd_set {
    /// `size_of::<trampfd_set>()`; on return the size the kernel knows.
    pub size: u32,
    /// 0 or [`TRAMPFD_SET_STRIDED`].
    pub flags: u32,
    /// Number of slots, at least 1, at most those of a table.
    pub count: u32,
    /// Out: on error the index of the first bad entry.
    pub bad: u32,
    /// Address of `count` [`trampfd_slot`]; 0 with STRIDED.
    pub entries: u64,
    /// STRIDED: first slot, the run goes on in slot order, from page to page; else 0.
    pub stub: u64,
    /// STRIDED: target of all slots; else 0.
    pub code: u64,
    /// STRIDED: data of the first slot; else 0.
    pub data: u64,
    /// STRIDED: added to data from slot to slot (modulo 2^64); else 0.
    pub data_stride: u64,
}

/// In [`trampfd_set::flags`]: a run of slots with one target, given without an array.
pub const TRAMPFD_SET_STRIDED: u32 = 1 << 0;

/// Make slots empty again ([`TRAMPFD_CLEAR`]).
///
/// Clearing an empty slot is no error. The caller promises that no thread runs in the stubs at
/// that moment; one that does may jump to the trap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct trampfd_clear {
    /// `size_of::<trampfd_clear>()`; on return the size the kernel knows.
    pub size: u32,
    /// 0 or [`TRAMPFD_CLEAR_RANGE`].
    pub flags: u32,
    /// Number of slots, at least 1, at most those of a table.
    pub count: u32,
    /// Out: on error the index of the first bad entry.
    pub bad: u32,
    /// Address of `count` stub addresses, `u64` each; 0 with RANGE.
    pub entries: u64,
    /// RANGE: first slot; else 0.
    pub stub: u64,
}

/// In [`trampfd_clear::flags`]: a run of slots, given without an array.
pub const TRAMPFD_CLEAR_RANGE: u32 = 1 << 0;

/// Read slots of the calling process ([`TRAMPFD_GET`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct trampfd_get {
    /// `size_of::<trampfd_get>()`; on return the size the kernel knows.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// Number of slots, at least 1, at most those of a table.
    pub count: u32,
    /// Out: on error the index of the first bad entry.
    pub bad: u32,
    /// Address of `count` [`trampfd_slot`]: `stub` is read, `code` and `data` are written. The
    /// slots may lie in different tables, sealed ones too.
    pub entries: u64,
}

/// No more changes ([`TRAMPFD_SEAL`]).
///
/// A sealed table refuses SET and CLEAR (EPERM). fork hands the seal down, exec ends it; a
/// child's seal is its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct trampfd_seal {
    /// `size_of::<trampfd_seal>()`; on return the size the kernel knows.
    pub size: u32,
    /// 0 or [`TRAMPFD_SEAL_ALL`].
    pub flags: u32,
    /// Address of any stub of the table to seal; 0 with [`TRAMPFD_SEAL_ALL`].
    pub stub: u64,
}

/// In [`trampfd_seal::flags`]: seal every table of the process and refuse any further mmap of the
/// device (EPERM).
pub const TRAMPFD_SEAL_ALL: u32 = 1 << 0;

/// `_IO(type, nr)` as on x86, arm64 and riscv (asm-generic/ioctl.h): no direction, no size.
const fn io(ty: u32, nr: u32) -> u32 {
    ty << 8 | nr
}

/// Fills a [`trampfd_info`].
pub const TRAMPFD_INFO: u32 = io(TRAMPFD_IOC_TYPE, 0x00);
/// Takes a [`trampfd_set`].
pub const TRAMPFD_SET: u32 = io(TRAMPFD_IOC_TYPE, 0x01);
/// Takes a [`trampfd_clear`].
pub const TRAMPFD_CLEAR: u32 = io(TRAMPFD_IOC_TYPE, 0x02);
/// Takes a [`trampfd_get`].
pub const TRAMPFD_GET: u32 = io(TRAMPFD_IOC_TYPE, 0x03);
/// Takes a [`trampfd_seal`].
pub const TRAMPFD_SEAL: u32 = io(TRAMPFD_IOC_TYPE, 0x04);

// A struct is as large as its 32-bit and 64-bit words together: no holes, on no architecture.
const _: () = {
    assert!(size_of::<trampfd_info>() == 8 * 4 + 6 * 8);
    assert!(size_of::<trampfd_slot>() == 3 * 8);
    assert!(size_of::<trampfd_set>() == 4 * 4 + 5 * 8);
    assert!(size_of::<trampfd_clear>() == 4 * 4 + 2 * 8);
    assert!(size_of::<trampfd_get>() == 4 * 4 + 8);
    assert!(size_of::<trampfd_seal>() == 2 * 4 + 8);
};
