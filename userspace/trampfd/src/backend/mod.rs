//! What makes stubs, and which of them is used.

pub(crate) mod ioctl;
pub(crate) mod kernel;
pub(crate) mod text;
