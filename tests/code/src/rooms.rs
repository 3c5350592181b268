//! How each part makes code and runs it.

use trampfd_code::alloc::{self, JitAllocator};
use trampfd_code::cache::{self, Cache, Code, Compiler, Failure, Happened, Key};
use trampfd_code::got::{self, Loader, Symbol};
use trampfd_code::pool::{Pools, Request};
use trampfd_code::stage::{Kind, Stage};
use trampfd_code::vm::{Meter, Options, Region, Write, report};

use crate::arch::{answer, call_and_add_one};
use crate::client::Result;

/// A part of the library.
pub struct Room {
    pub name: &'static str,
    /// It needs executable memory that is no private mapping of a file.
    pub anonymous: bool,
    /// It asks for what no other part ever asks for.
    pub asks: bool,
    pub run: fn() -> Result,
}

pub const ROOMS: &[Room] = &[
    Room { name: "report", anonymous: false, asks: true, run: what_the_report_says },
    Room { name: "vm alias", anonymous: true, asks: false, run: || region(Write::Alias) },
    Room { name: "vm pwrite", anonymous: true, asks: false, run: || region(Write::Pwrite) },
    Room { name: "vm any", anonymous: true, asks: false, run: || region(Write::Any) },
    Room { name: "alloc", anonymous: true, asks: false, run: || allocator(Write::Any) },
    Room { name: "alloc alias", anonymous: true, asks: false, run: || allocator(Write::Alias) },
    Room { name: "pool", anonymous: true, asks: false, run: || pools(Write::Any) },
    Room { name: "pool alias", anonymous: true, asks: false, run: || pools(Write::Alias) },
    Room { name: "got", anonymous: true, asks: false, run: objects },
    Room { name: "stage", anonymous: true, asks: false, run: stage },
    Room { name: "cache", anonymous: false, asks: false, run: files },
];

fn call(code: *const u8) -> i32 {
    // SAFETY: the rooms put `answer` there before.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i32>(code)() }
}

fn expect(what: &str, found: i32, wanted: i32) -> Result {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what} returned {found}, not {wanted}").into()),
    }
}

/// Its conclusions are what the library does.
fn what_the_report_says() -> Result {
    let report = report();
    let does = |write| {
        let mut options = Options::default();
        options.write = write;
        Region::new(1, &options, &Meter::new())
    };
    for (write, said) in
        [(Write::Any, report.anonymous_code()), (Write::Pwrite, report.code_without_alias())]
    {
        match (does(write), said) {
            (Ok(region), Ok(source)) if region.source() == source => {}
            (Err(does), Err(said)) if does.to_string() == said.to_string() => {}
            (does, said) => {
                return Err(format!("{write:?}: says {said:?}, and does {does:?}\n{report}").into());
            }
        }
    }
    match report.file_code() {
        Some(_) => Ok(()),
        None => Err(format!("no folder for code\n{report}").into()),
    }
}

fn region(write: Write) -> Result {
    let mut options = Options::default();
    options.write = write;
    let region = Region::new(8192, &options, &Meter::new())?;
    for n in [42, 43] {
        // SAFETY: nobody runs it.
        unsafe { region.write(4096, &answer(n)) }?;
        expect("the function", call(region.rx().wrapping_add(4096)), n.into())?;
    }
    Ok(())
}

fn stage() -> Result {
    let mut stage = Stage::new(Options::default())?;
    let mut earlier = Vec::new();
    for n in [42, 43] {
        let code = stage.allocate(Kind::Code, 6, 16)?;
        let data = stage.allocate(Kind::ReadOnly, 1, 1)?;
        // SAFETY: bytes of ours.
        unsafe {
            code.copy_from_nonoverlapping(answer(n).as_ptr(), 6);
            *data = n;
        }
        stage.finalise()?;
        earlier.push((code, n));
        for &(code, n) in &earlier {
            expect("the function", call(code), n.into())?;
        }
        // SAFETY: written above.
        expect("the constant", unsafe { *data }.into(), n.into())?;
    }
    Ok(())
}

fn allocator(write: Write) -> Result {
    let mut options = alloc::Options::default();
    options.memory.write = write;
    let allocator = JitAllocator::with(&options)?;
    let mut blocks = Vec::new();
    for n in 1..=100 {
        let mut block = allocator.alloc(6 + usize::from(n) * 10)?;
        block.write(0, &answer(n))?;
        blocks.push((block, n));
        if n % 3 == 0 {
            blocks.swap_remove(0).0.release()?;
        }
    }
    for (block, n) in &blocks {
        expect("the function", call(block.rx()), (*n).into())?;
    }
    Ok(())
}

fn pools(write: Write) -> Result {
    let mut options = trampfd_code::pool::Options::default();
    options.memory.write = write;
    let pools = Pools::with(options)?;
    let request = |name, kind| Request { name, kind, len: 6, align: 16 };
    let mut code = Vec::new();
    for id in [1, 2] {
        let pool = pools.create(id)?;
        let mut set = pool.set();
        let function = set.request(request("function", Kind::Code));
        let constant = set.request(request("constant", Kind::ReadOnly));
        let variable = set.request(request("variable", Kind::ReadWrite));
        let mut layout = set.lay_out()?;
        let n = 40 + id as u8;
        layout.bytes(function)?.copy_from_slice(&answer(n));
        layout.bytes(constant)?[0] = n;
        layout.bytes(variable)?[0] = n;
        let set = layout.commit()?;
        pool.finalise()?;
        for section in [constant, variable] {
            let at = set.section(section)?.address as *const u8;
            // SAFETY: a byte of the set.
            expect("the data", unsafe { *at }.into(), n.into())?;
        }
        let at = set.section(function)?.address as *const u8;
        expect("the function", call(at), n.into())?;
        code.push((pool, at, n));
    }
    drop(code.remove(0));
    expect("the function of the pool that is left", call(code[0].1), code[0].2.into())
}

extern "C" fn outside(n: i32) -> i32 {
    n * 10
}

fn objects() -> Result {
    let loader = Loader::new(Pools::new()?, got::Options::default())?;
    let mut set = loader.set(1);
    set.add("object.o", include_bytes!(concat!(env!("OUT_DIR"), "/object.o")))?;
    set.resolve(|name| match name {
        "outside" => Some(Symbol::Address(outside as *const () as usize)),
        _ => None,
    });
    // SAFETY: a compiler made it of this crate's C file, and `outside` is what that declares.
    let set = unsafe { set.load() }?;
    let entry = set.symbol("entry").ok_or("no symbol entry")?;
    // SAFETY: what the C file says.
    let entry: extern "C" fn(i32) -> i32 = unsafe { std::mem::transmute(entry) };
    expect("the first call", entry(1), 61)?;
    expect("the second call", entry(2), 72)
}

/// Method 0 calls method 1 and adds one; method 1 returns 41.
struct Two;

impl Compiler for Two {
    type Method = u8;

    fn key(&self, method: u8) -> Key {
        Key::of(&[&[method]])
    }

    fn find(&self, key: &Key) -> Option<u8> {
        (0..2).find(|&method| self.key(method) == *key)
    }

    fn helper(&self, _: &str) -> Option<*const u8> {
        None
    }

    fn compile(&mut self, method: u8, code: &mut Code<'_, u8>) -> std::result::Result<(), Failure> {
        match method {
            0 => {
                let slot = code.call(1);
                call_and_add_one(code, slot);
            }
            _ => code.emit(&answer(41)),
        }
        Ok(())
    }

    fn failed(_: cache::Error) -> *const u8 {
        extern "C" fn failed() -> i32 {
            -1
        }
        failed as *const u8
    }
}

/// Compiled by the first start, loaded by the second.
fn files() -> Result {
    let folder = std::env::current_dir()?.join("cache");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    for start in ["first", "second"] {
        let cache = Cache::open(&folder, Two, cache::Options::default())?;
        expect("the method", call(cache.get(0)?), 42)?;
        let events = cache.take_events();
        let as_wanted = match &events[..] {
            [event] => match event.what {
                Happened::Compiled { methods: 2 } => start == "first",
                Happened::Loaded { methods: 2, .. } => start == "second",
                _ => false,
            },
            _ => false,
        };
        if !as_wanted {
            return Err(format!("the {start} start: {events:?}").into());
        }
    }
    Ok(())
}
