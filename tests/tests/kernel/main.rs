//! What only the kernel service promises: seals, refusals of every kind, and an fd that others
//! may take away. Every test fails where the service is not; most want root.

mod fd;
mod reasons;
mod seal;
mod slots;
