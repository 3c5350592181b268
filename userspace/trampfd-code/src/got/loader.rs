//! Sets are put together, laid out and filled.

use std::path::PathBuf;
use std::sync::Arc;

use super::arch::{self, Entry};
use super::fixed::Piece;
use super::gdb::{Shown, file_with_addresses};
use super::object::{Home, Object, Use};
use super::perf::{Dump, Function, Map};
use super::plan::{Meaning, Plan, Surroundings};
use super::relocate::{BlockPlace, Buffers, Places, fill};
use super::set::{Claim, Loaded, Set, calls};
use super::tls::{self, Module};
use super::unwind::Registered;
use super::{Counts, Error, Symbol, low_place};
use crate::pool::{self, Kind, Placed, Pools, Request, Section};
use crate::vm::Meter;

/// What a [`Loader`] is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Most bytes of memory that the sections of one set may take.
    pub limit: u64,
    /// Tables for the unwinder (`.eh_frame`) are loaded and registered with libgcc's: exceptions
    /// and backtraces pass through the code.
    pub unwind: bool,
    /// Objects are shown to debuggers, by gdb's interface for code made at run time. They cannot
    /// write breakpoints into the code, as nothing can: `hbreak` is what works, and gdb does not
    /// always say that `break` does not.
    pub gdb: bool,
    /// Functions are listed in `/tmp/perf-PID.map`, behind what is there. `perf` itself looks there
    /// only for code that is no part of a file, as that of this crate is (of a memfd, say): for
    /// `perf` there is [`Options::jitdump`].
    pub perf_map: bool,
    /// Functions and their code are written to `jit-PID.dump` in this folder, for
    /// `perf record -k mono` and `perf inject --jit`. All loaders of a process write to the same
    /// file; one that an earlier process left is overwritten.
    pub jitdump: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        let (limit, unwind) = (1 << 30, true);
        Options { limit, unwind, gdb: false, perf_map: false, jitdump: None }
    }
}

/// How pools are made whose sections lie in the lowest 2 GiB of the address space: where code
/// that was compiled with `-fno-PIC` has its own addresses in reach.
pub fn low() -> pool::Options {
    let mut options = pool::Options::default();
    options.memory.place = low_place();
    options
}

/// Loads sets of objects, each into a pool of its own.
#[derive(Debug)]
pub struct Loader {
    pools: Pools,
    options: Options,
    map: Option<Map>,
    dump: Option<Dump>,
    meter: Meter,
}

impl Loader {
    /// Sets go to `pools`.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`]: the files for profilers cannot be written.
    pub fn new(pools: Pools, options: Options) -> Result<Loader, Error> {
        let meter = Meter::new();
        let map = options.perf_map.then(|| Map::open(&meter)).transpose()?;
        let dump = options.jitdump.as_ref().map(|folder| Dump::open(folder, &meter));
        Ok(Loader { pools, options, map, dump: dump.transpose()?, meter })
    }

    /// A new set, which becomes the pool `id`.
    pub fn set(&self, id: u64) -> SetBuilder<'_> {
        SetBuilder { loader: self, id, objects: Vec::new(), earlier: Vec::new(), resolve: None }
    }
}

type Resolver<'a> = Box<dyn Fn(&str) -> Option<Symbol> + 'a>;

/// A set that is put together.
pub struct SetBuilder<'a> {
    loader: &'a Loader,
    id: u64,
    objects: Vec<Object>,
    earlier: Vec<Claim>,
    resolve: Option<Resolver<'a>>,
}

impl<'a> SetBuilder<'a> {
    /// Adds an ELF relocatable object. `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`].
    pub fn add(&mut self, name: &str, file: &[u8]) -> Result<&mut Self, Error> {
        self.objects.push(Object::new(name, file)?);
        Ok(self)
    }

    /// Symbols that the set lacks are looked for in `set`, before the resolver is asked, and
    /// where it is in reach its table entries and stubs are used, and its functions called
    /// directly. What is used makes this set depend on `set`, which cannot be removed before.
    pub fn share(&mut self, set: &Set) -> &mut Self {
        self.earlier.push(Claim::new(&set.0, self.id));
        self
    }

    /// What says where symbols are that neither this set nor those it shares with define. It may
    /// be asked more than once for a name, and has to answer the same.
    pub fn resolve(&mut self, resolve: impl Fn(&str) -> Option<Symbol> + 'a) -> &mut Self {
        self.resolve = Some(Box::new(resolve));
        self
    }

    /// What the set needs, exactly, if what it shares is in reach.
    ///
    /// # Errors
    ///
    /// Those of [`SetBuilder::load`] that the objects are the reason for.
    pub fn count(&self) -> Result<Counts, Error> {
        let near = vec![true; self.earlier.len()];
        let around = Around { builder: self, near: &near };
        let options = &self.loader.options;
        Ok(Plan::new(&self.objects, &around, options.limit, options.unwind)?.counts)
    }

    /// Lays the set out, relocates it and writes it, with its table, to the pool.
    ///
    /// # Safety
    ///
    /// The objects are what a compiler made: the unwinder, and the debugger if it is asked for,
    /// believe what they say about their code. What the resolver says is true as long as the set
    /// is loaded.
    ///
    /// # Errors
    ///
    /// Each [`Error`] says what it is about.
    pub unsafe fn load(mut self) -> Result<Set, Error> {
        let pool = self.loader.pools.create(self.id)?;
        let mut block = Own::Nothing;
        // Which of the earlier sets are taken to be in reach: all, at first.
        let mut near = vec![true; self.earlier.len()];
        let (plan, ready) = loop {
            let options = &self.loader.options;
            let around = Around { builder: &self, near: &near };
            let mut plan = Plan::new(&self.objects, &around, options.limit, options.unwind)?;
            block = block.or_for(&plan)?;
            let mut requests = pool.set();
            let sections = plan.parts.iter().map(|part| {
                let kind = match part.kind {
                    Use::Code => Kind::Code,
                    Use::ReadWrite => Kind::ReadWrite,
                    Use::ReadOnly | Use::Unwind | Use::Thread | Use::Nothing => Kind::ReadOnly,
                };
                let (name, len, align) = (part.name.as_str(), part.len, part.align);
                requests.request(Request { name, kind, len, align })
            });
            let sections: Vec<Section> = sections.collect();
            let layout = requests.lay_out()?;
            let addresses: Result<Vec<usize>, _> =
                sections.iter().map(|&section| layout.address(section)).collect();
            let lens = plan.parts.iter().map(|part| part.len).collect();
            let mut ready = Ready { addresses: addresses?, lens, sections, layout };
            match fill(&self.objects, &mut plan, &mut ready, block.place()) {
                Ok(()) => break (plan, ready),
                // What was taken to be in reach is not: the set gets its own.
                Err(Error::OutOfRange { .. }) if near.contains(&true) => {
                    let before = near.clone();
                    for (near, claim) in near.iter_mut().zip(&self.earlier) {
                        *near &= ready.reaches(claim.of().sections.sections());
                    }
                    if near == before {
                        near.fill(false);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        self.publish(&plan, ready, block, pool)
    }

    fn publish(
        &mut self,
        plan: &Plan,
        mut ready: Ready,
        block: Own,
        pool: pool::Pool,
    ) -> Result<Set, Error> {
        let objects = &self.objects;
        let places = Places::new(objects, plan, &ready, block.place());
        let (init, fini) = calls(plan, objects, &mut ready);
        self.profile(plan, &places, &mut ready)?;
        let Ready { layout, addresses, .. } = ready;
        let sections = layout.commit()?;
        pool.finalise()?;
        let mut loaded = Loaded::new(self.id, plan, objects, &places, block.place(), sections);
        (loaded.init, loaded.fini) = (init, fini);
        if let (Own::Module(module), Some(image)) = (&block, plan.block.image_part) {
            // SAFETY: the part is as long as the block's image, and the pool outlives the module
            // (`Loaded`).
            unsafe { module.begin_as(addresses[image]) };
        }
        let table = plan.parts.iter().position(|part| part.kind == Use::Unwind);
        // SAFETY: a whole table, checked and with an end, in a pool that outlives the value
        // (`Loaded`); the caller of `load` vouches for what it says.
        loaded.unwind = table.map(|part| unsafe { Registered::new(addresses[part]) });
        if self.loader.options.gdb {
            for (o, object) in objects.iter().enumerate() {
                let address = |section| {
                    let (part, at) = plan.home(o, section)?;
                    Some(addresses[part] + at)
                };
                loaded.shown.push(Shown::new(file_with_addresses(object, address)));
            }
        }
        match block {
            Own::Nothing => {}
            Own::Module(module) => loaded.module = Some(module),
            Own::Fixed(piece) => piece.keep(),
        }
        let used = plan.used_sets();
        let claims = std::mem::take(&mut self.earlier).into_iter().enumerate();
        loaded.claims = claims.filter(|(i, _)| used.contains(i)).map(|(_, claim)| claim).collect();
        loaded.pool = Some(pool);
        Ok(Set(Arc::new(loaded)))
    }

    /// Tells the profilers.
    fn profile(&self, plan: &Plan, places: &Places<'_>, ready: &mut Ready) -> Result<(), Error> {
        let Loader { map, dump, meter, .. } = self.loader;
        if map.is_none() && dump.is_none() {
            return Ok(());
        }
        let mut found = Vec::new();
        for (o, object) in self.objects.iter().enumerate() {
            for (s, symbol) in object.symbols.iter().enumerate() {
                let Home::Section(section) = symbol.home else { continue };
                let Some((part, at)) = plan.home(o, section) else { continue };
                let Some(address) = places.address(Meaning::Here(o, s)) else { continue };
                let start = at + symbol.value as usize;
                let end = start.saturating_add(symbol.size as usize);
                if !symbol.function || start == end || end > plan.parts[part].len {
                    continue;
                }
                let code = ready.bytes(part)[start..end].to_vec();
                found.push((symbol.name.as_str(), address, code));
            }
        }
        let functions: Vec<Function<'_>> = found
            .iter()
            .map(|(name, address, code)| Function { name, address: *address, code })
            .collect();
        if let Some(map) = map {
            map.add(&functions, meter)?;
        }
        if let Some(dump) = dump {
            dump.add(&functions, meter)?;
        }
        Ok(())
    }
}

/// The set's own thread-local variables.
enum Own {
    Nothing,
    Module(Arc<Module>),
    Fixed(Piece),
}

impl Own {
    /// Where the variables of the plan go, if that was not decided before.
    fn or_for(self, plan: &Plan) -> Result<Own, Error> {
        let block = &plan.block;
        if !matches!(self, Own::Nothing) {
            return Ok(self);
        }
        if let Some(site) = &block.fixed {
            let failed = |reason| Error::StaticTls { site: site.clone(), reason };
            if block.image > 0 {
                return Err(failed("variables at a fixed distance have to begin as zeros"));
            }
            return Piece::take(block.len, block.align).map(Own::Fixed).map_err(failed);
        }
        if block.len == 0 && !plan.entries.contains_key(&(Entry::Block, Meaning::Block)) {
            return Ok(Own::Nothing);
        }
        let module = Module::new(block.len, block.align, block.image);
        module.map(Own::Module).ok_or_else(|| Error::TooLarge {
            object: "the set".into(),
            section: ".tdata".into(),
            len: block.len as u64,
            limit: isize::MAX as u64,
        })
    }

    fn place(&self) -> BlockPlace {
        match self {
            Own::Nothing => BlockPlace::Module(0),
            Own::Module(module) => BlockPlace::Module(module.number()),
            Own::Fixed(piece) => BlockPlace::Fixed(piece.distance),
        }
    }
}

/// A set that is laid out.
struct Ready {
    layout: pool::Layout,
    sections: Vec<Section>,
    addresses: Vec<usize>,
    lens: Vec<usize>,
}

impl Ready {
    /// Whether everything of the set and of these sections is in reach of each other.
    fn reaches(&self, sections: &[Placed]) -> bool {
        let theirs = sections.iter().map(|section| (section.address, section.len));
        let own = self.addresses.iter().zip(&self.lens).map(|(&address, &len)| (address, len));
        let all = theirs.chain(own);
        let (first, end) = all.fold((usize::MAX, 0), |(first, end), (address, len)| {
            (first.min(address), end.max(address + len))
        });
        end.saturating_sub(first) <= arch::REACH
    }
}

impl Buffers for Ready {
    fn address(&self, part: usize) -> usize {
        self.addresses[part]
    }

    fn bytes(&mut self, part: usize) -> &mut [u8] {
        self.layout.bytes(self.sections[part]).expect("a section of this layout")
    }
}

/// What a set sees of others.
struct Around<'a, 'b> {
    builder: &'a SetBuilder<'b>,
    near: &'a [bool],
}

impl Around<'_, '_> {
    fn find<T>(&self, mut look: impl FnMut(&Loaded) -> Option<T>) -> Option<(usize, T)> {
        let earlier = self.builder.earlier.iter().enumerate();
        earlier.filter_map(|(i, claim)| Some((i, look(claim.of())?))).next()
    }

    /// The same, among those in reach.
    fn find_near<T>(&self, look: impl Fn(&Loaded) -> Option<T>) -> Option<(usize, T)> {
        let near = self.builder.earlier.iter().zip(self.near).enumerate();
        let mut near = near.filter(|(_, (_, near))| **near);
        near.find_map(|(i, (claim, _))| Some((i, look(claim.of())?)))
    }
}

impl Surroundings for Around<'_, '_> {
    fn symbol(&self, name: &str) -> Option<(Symbol, Option<usize>)> {
        if name == arch::GET_ADDR {
            return Some((Symbol::Address(tls::get_addr_address()), None));
        }
        if let Some((i, symbol)) = self.find(|set| set.lookup(name)) {
            return Some((symbol, Some(i)));
        }
        Some((self.builder.resolve.as_ref()?(name)?, None))
    }

    fn entry(&self, name: &str, entry: Entry, symbol: Option<Symbol>) -> Option<(usize, usize)> {
        self.find_near(|set| set.entry(name, entry, symbol))
    }

    fn stub(&self, name: &str, symbol: Option<Symbol>) -> Option<(usize, usize)> {
        self.find_near(|set| set.stub(name, symbol))
    }

    fn near(&self, set: usize) -> bool {
        self.near[set]
    }
}
