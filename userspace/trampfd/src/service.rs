//! What can be had here, and why not.

use crate::backend::kernel;
use crate::error::{Backend, Unavailable};
use crate::fork;

/// What the kernel service offers, as it says itself.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Version of the contract.
    pub version: u32,
    /// Views that one user may have; a table is two.
    pub max_views: u64,
    /// Views that this user has.
    pub views: u64,
    /// Pages of slots that one user may have.
    pub max_pages: u64,
    /// Pages of slots charged to this user.
    pub pages: u64,
    /// Targets in mappings with private copies are refused (module parameter `strict_vma`).
    pub strict: bool,
    /// Any executable mapping that is not writable is accepted as target (module parameter
    /// `relaxed`).
    pub relaxed: bool,
}

/// The answer of [`support`].
#[derive(Debug)]
pub struct Support {
    /// The kernel service, or why it cannot be used.
    pub kernel: Result<Service, Unavailable>,
}

impl Support {
    /// The backend that a closure without wishes gets, where none was made before. Static text
    /// is always there: it is part of the program.
    pub fn backend(&self) -> Backend {
        if self.kernel.is_ok() { Backend::Kernel } else { Backend::Text }
    }
}

/// Looks what can be had here: opens `/dev/trampfd`, asks it what it offers, and maps a table as
/// a closure would.
pub fn support() -> Support {
    fork::prepare();
    let kernel = kernel::lock().probe().map(|info| Service {
        version: info.abi_version,
        max_views: info.max_views,
        views: info.user_views,
        max_pages: info.max_pages,
        pages: info.user_pages,
        strict: info.policy & trampfd_sys::TRAMPFD_POLICY_STRICT_VMA != 0,
        relaxed: info.policy & trampfd_sys::TRAMPFD_POLICY_RELAXED != 0,
    });
    Support { kernel }
}
