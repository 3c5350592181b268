//! One test binary: a module for each promise.

mod stub;
mod tidy;
mod uapi;
