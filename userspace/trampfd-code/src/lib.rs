//! Memory for code that is made at run time, on systems where no memory may be writable and
//! executable, nor executable that was ever written: what a JIT compiler needs.
//!
//! ```text
//!  cache      batches of code in files, verified, mapped R-X straight from them
//!  got        relocatable objects, loaded: GOT and stubs counted first, shared, in reach
//!  pool       sections by the caller's id, laid out at once, freed without touching others
//!  stage      the same for compilers that write where the code will run
//!  alloc      small blocks of code, as malloc
//!  ───────────────────────────────────────────────────────────────────────────
//!  vm         reserve, map, release; files for code; R-X views; what this system allows
//!  sys        every system call, counted
//! ```
//!
//! | you have | use | you get |
//! |---|---|---|
//! | pieces of code, made and thrown away | [`alloc::JitAllocator`] | blocks of some bytes, freed one by one |
//! | modules with code, constants and variables | [`pool::Pools`] | sections laid out together, one commit, freed by pool |
//! | ELF relocatable objects | [`got::Loader`] | loaded and linked, GOT and stubs counted first, in reach, shared |
//! | a compiler that writes where its code will run | [`stage::Stage`] | the same addresses, executable after [`finalise`](stage::Stage::finalise) |
//! | code that the next start could use | [`cache::Cache`] | batches in verified files, mapped R-X straight from them |
//! | your own ideas | [`vm`] | files for code, views, address space, and a report of what this system allows |
//!
//! The smallest JIT compiler:
//!
//! ```
//! use trampfd_code::alloc::JitAllocator;
//!
//! /// Code of x86-64 for a function that returns `value`: mov eax, value; ret.
//! fn compile(value: i32) -> Vec<u8> {
//!     [&[0xb8][..], &value.to_le_bytes(), &[0xc3]].concat()
//! }
//!
//! let allocator = JitAllocator::new()?;
//! let code = compile(42);
//! let mut block = allocator.alloc(code.len())?;
//! block.write(0, &code)?;
//! // SAFETY: such a function begins there, and `block`, which frees it, is still there.
//! let answer = unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(block.rx()) };
//! assert_eq!(answer(), 42);
//! # Ok::<(), trampfd_code::alloc::Error>(())
//! ```
//!
//! An object file, as a compiler has written it; what it does not define is asked for by name:
//!
//! ```no_run
//! use trampfd_code::got::{Loader, Options, Symbol};
//! use trampfd_code::pool::Pools;
//!
//! extern "C" fn triple(x: i32) -> i32 {
//!     3 * x
//! }
//!
//! let loader = Loader::new(Pools::new()?, Options::default())?;
//! let mut set = loader.set(1);
//! set.add("module.o", &std::fs::read("module.o")?)?;
//! set.resolve(|name| (name == "triple").then_some(Symbol::Address(triple as *const () as usize)));
//! // SAFETY: a compiler made it, and `triple` is what it was told.
//! let set = unsafe { set.load() }?;
//! let run = set.symbol("run").ok_or("no symbol run")?;
//! // SAFETY: its type in the source of module.o; `set` is still there.
//! let run = unsafe { std::mem::transmute::<usize, extern "C" fn(i32) -> i32>(run) };
//! println!("{}", run(14));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A compiler for a whole language, with a cache of what it has compiled, is `examples/calc` of
//! this crate; begin with its `main.rs`. For LLVM, cranelift-jit, wasmtime, closure-ffi and
//! dynasmrt there are crates in the folder `adapters`.
//!
//! Where code cannot be had at all the error is [`vm::Error::NoExecutableMemory`], with what each
//! way was answered; [`vm::report`] tells what this system allows before anything is tried:
//!
//! ```
//! let report = trampfd_code::vm::report();
//! match report.anonymous_code() {
//!     Ok(source) => println!("code would lie in {source}"),
//!     Err(why) => println!("{why}\n{report}"),
//! }
//! ```
//!
//! Each layer can be used alone. One rule holds in all of them: executable pages are a view,
//! through a descriptor that cannot write, of a file that no path leads to; those of `cache`, of a
//! file that stays, privately. So no page is writable and executable at any time. Code gets in by
//! pwrite(2), or through a second, writable view ([`vm::Write`]), or is in the file already.
//!
//! Linux only. Nothing here needs the kernel service.

mod arch;
mod extents;
mod sys;

pub mod alloc;
pub mod cache;
pub mod got;
pub mod pool;
pub mod stage;
pub mod vm;
