//! Pools: where sections lie, what that costs, and what others notice of it.
//!
//! | file | promises |
//! |---|---|
//! | `sections.rs` | that sections are where they were said to be, with what was put there |
//! | `counts.rs` | what is counted, and that the counts are true |
//! | `others.rs` | that threads and children of fork are not disturbed |
//! | `protection.rs` | what is never writable, and what a system may forbid |
//! | `errors.rs` | what is refused |
//! | `model.rs` | that sets stay what they are whatever is done |
//! | `failing.rs` | that any system call may fail |

use support::maps::{Row, row_of, rows, rows_of};
use trampfd_code::pool::{Error, Kind, Layout, Options, Pool, Request, Section, Set};
use trampfd_code::vm::{Write, page_size};

mod counts;
mod errors;
mod failing;
#[path = "../stage/arch/x86_64.rs"]
mod machine;
mod model;
mod others;
mod protection;
mod sections;
#[path = "../support/mod.rs"]
mod support;

/// Calls the function there.
fn call(address: usize) -> i32 {
    // SAFETY: the tests put functions where they call.
    unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address)() }
}

/// What is there now.
fn bytes(address: usize, len: usize) -> Vec<u8> {
    let byte = |at| std::ptr::with_exposed_provenance::<u8>(address + at);
    // SAFETY: mapped for reading, as the tests know.
    (0..len).map(|at| unsafe { byte(at).read_volatile() }).collect()
}

fn request(name: &str, kind: Kind, len: usize) -> Request<'_> {
    Request { name, kind, len, align: 16 }
}

fn options(write: Write) -> Options {
    let mut options = Options::default();
    options.memory.write = write;
    options
}

/// A set with one function that returns `value`.
fn answer(pool: &Pool, value: i32) -> usize {
    let mut set = pool.set();
    let code = set.request(request("answer", Kind::Code, machine::ANSWER));
    let mut layout = set.lay_out().unwrap();
    layout.bytes(code).unwrap().copy_from_slice(&machine::answer(value));
    layout.commit().unwrap().section(code).unwrap().address
}

/// A module: a function in 1000 bytes, 300 bytes of constants, 200 of variables. The function
/// returns `value`: half of it is a constant, the rest a variable.
struct Module {
    code: Section,
    constants: Section,
    variables: Section,
}

impl Module {
    const PAYLOAD: usize = 1500;

    fn request(set: &mut trampfd_code::pool::SetBuilder) -> Module {
        Module {
            code: set.request(request("code", Kind::Code, 1000)),
            constants: set.request(request("constants", Kind::ReadOnly, 300)),
            variables: set.request(request("variables", Kind::ReadWrite, 200)),
        }
    }

    fn fill(&self, layout: &mut Layout, value: i32) {
        let [code, one, other] =
            [self.code, self.constants, self.variables].map(|part| layout.address(part).unwrap());
        let sum = machine::sum(code, one, other).expect("in reach");
        layout.bytes(self.code).unwrap()[..machine::SUM].copy_from_slice(&sum);
        let halves = [(self.constants, value / 2), (self.variables, value - value / 2)];
        for (section, half) in halves {
            let bytes = layout.bytes(section).unwrap();
            bytes.fill(7);
            bytes[..4].copy_from_slice(&half.to_le_bytes());
        }
    }

    fn call(&self, set: &Set) -> i32 {
        call(set.section(self.code).unwrap().address)
    }
}

/// One set of `count` modules, whose functions return their numbers.
fn modules(pool: &Pool, count: i32) -> (Set, Vec<Module>) {
    try_modules(pool, count).unwrap()
}

fn try_modules(pool: &Pool, count: i32) -> Result<(Set, Vec<Module>), Error> {
    let mut set = pool.set();
    let modules: Vec<Module> = (0..count).map(|_| Module::request(&mut set)).collect();
    let mut layout = set.lay_out()?;
    for (i, module) in modules.iter().enumerate() {
        module.fill(&mut layout, i as i32);
    }
    Ok((layout.commit()?, modules))
}

/// Each function returns its number.
fn check((set, modules): &(Set, Vec<Module>)) {
    for (i, module) in modules.iter().enumerate() {
        assert_eq!(module.call(set), i as i32);
    }
}

/// The row that an address is in.
fn row(address: usize) -> Row {
    row_of(address as *const u8).expect("mapped")
}

/// The views through which the page at `address` could be written.
fn writable(address: usize) -> Vec<Row> {
    let view = row(address);
    let offset = view.offset + (address - view.range.start) / page_size() * page_size();
    let shows = |row: &Row| {
        let same = row.inode == view.inode && row.inode != 0;
        same && (row.offset..row.offset + row.range.len()).contains(&offset)
    };
    rows().into_iter().filter(|row| row.rights.contains('w') && shows(row)).collect()
}
