//! Batches of code in files.

#[path = "cache/crash.rs"]
mod crash;
#[path = "cache/disks.rs"]
mod disks;
#[path = "cache/failing.rs"]
mod failing;
#[path = "cache/files.rs"]
mod files;
#[path = "cache/graph.rs"]
mod graph;
#[path = "cache/lazy.rs"]
mod lazy;
#[path = "cache/arch/x86_64.rs"]
mod machine;
#[path = "cache/policy.rs"]
mod policy;
#[path = "cache/processes.rs"]
mod processes;
#[path = "cache/program.rs"]
mod program;
#[path = "support/mod.rs"]
mod support;
