//! Objects that gcc makes, loaded: what they compute, what they need, what they may not.

#[path = "got/build.rs"]
mod build;
#[path = "got/count.rs"]
mod count;
#[path = "got/cxx.rs"]
mod cxx;
#[path = "got/malformed.rs"]
mod malformed;
#[path = "got/policy.rs"]
mod policy;
#[path = "got/reach.rs"]
mod reach;
#[path = "got/reported.rs"]
mod reported;
#[path = "got/run.rs"]
mod run;
#[path = "got/share.rs"]
mod share;
#[path = "support/mod.rs"]
mod support;
#[path = "got/thread.rs"]
mod thread;
#[path = "got/words.rs"]
mod words;
