//! Code generators.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::compile;

/// There is none for this processor.
#[cfg(not(target_arch = "x86_64"))]
pub fn compile(
    _: &crate::tree::Function,
    _: &mut trampfd_code::cache::Code<'_, usize>,
) -> Result<(), trampfd_code::cache::Failure> {
    Err("calc makes code for x86-64 only".into())
}

/// What the code of all functions depends on, and their source does not say.
pub const GENERATOR: &[u8] = include_bytes!("x86_64.rs");
