//! Memory for compilers that write where the code will run.
//!
//! Many compilers know one address of their code only: they write there, and jump there. Such
//! memory cannot be made executable in place, where what was written must not be executed; but
//! other memory, with the same content, can take its place. That is done here: the content goes
//! into a file for code, and the file's R-X view is mapped over the pages that were written.
//!
//! ```text
//!                  staged                             finalised
//!  address A  ┌──────────────┐               ┌──────────────────────────┐
//!             │ private, RW  │  ── pwrite ─► │ file for code, R-X view  │  address A
//!             └──────────────┘               └──────────────────────────┘
//! ```

mod area;
mod error;
mod in_place;
mod span;

/// Code is written until [`Stage::finalise`] and executed after it; constants are written until
/// then, and read after it; variables are both at any time.
pub use crate::pool::Kind;
pub use error::Error;
pub use in_place::{Published, publish_in_place, unpublish_in_place};

use crate::vm::{self, Meter, Options, Place, Stats, Write};
use span::{Sizes, Span};

/// How far from its first byte memory of one [`Stage`] may lie: any two bytes of it are less
/// than 2 GiB from each other then.
const REACH: usize = 1 << 30;

/// Memory that is written where it will be used, and then becomes what it is for.
///
/// Memory comes from reservations of address space, each with an area for code and areas for
/// data beside it, so that code reaches its data, and code that was made earlier, by signed
/// displacements of 32 bits. All of it is given back when the stage is dropped; nothing before
/// that. Use one for each compiler: [`Stage::finalise`] is for all that was allocated.
///
/// Until it is final, code can be changed as any memory can; from then on by nothing.
///
/// A child of fork has the code that was finalised before. What it allocates and finalises is
/// its own, and its parent's code stays as it is.
///
/// ```
/// use trampfd_code::stage::{Kind, Stage};
/// use trampfd_code::vm::Options;
///
/// let mut stage = Stage::new(Options::default())?;
/// let code = stage.allocate(Kind::Code, 6, 16)?;
/// // SAFETY: six bytes of ours to write; then code, of x86-64: mov eax, 42; ret.
/// let answer = unsafe {
///     code.copy_from_nonoverlapping([0xb8, 42, 0, 0, 0, 0xc3].as_ptr(), 6);
///     stage.finalise()?;
///     std::mem::transmute::<*mut u8, extern "C" fn() -> i32>(code)()
/// };
/// assert_eq!(answer, 42);
/// # Ok::<(), trampfd_code::stage::Error>(())
/// ```
#[derive(Debug)]
pub struct Stage {
    /// Not empty; the first says what the others have to be near to.
    spans: Vec<Span>,
    sizes: Sizes,
    options: Options,
    meter: Meter,
}

impl Stage {
    /// With reservations of 64 MiB, of which nothing but address space is taken: memory is had
    /// as it is asked for, a call for each MiB.
    ///
    /// [`Options::write`] matters if it is [`Write::Pwrite`]; code is written once, and an alias
    /// is made only where nothing else can write. [`Options::place`] is where every reservation
    /// lies: code that needs 32-bit addresses can have `Place::Near { address: 1 << 30, within:
    /// 1 << 30 }`, the lowest 2 GiB.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn new(options: Options) -> Result<Stage, Error> {
        Stage::with_room(options, 64 << 20)
    }

    /// With reservations of `room` bytes, or more where one request is greater: half of it for
    /// code, the rest for data.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`], [`Error::TooLarge`].
    pub fn with_room(options: Options, room: usize) -> Result<Stage, Error> {
        let (options, meter) = (written_once(&options), Meter::new());
        let sizes = Sizes::of(room)?;
        if sizes.total().is_none_or(|total| total > REACH) {
            return Err(Error::TooLarge(room));
        }
        let first = Span::new(sizes, options.place, &options, &meter)?;
        Ok(Stage { spans: vec![first], sizes, options, meter })
    }

    /// `len` bytes, or one if it is 0, zeros, at an address that is a multiple of `align`. They
    /// may be written until [`Stage::finalise`] is called, and [`Kind::ReadWrite`] until the
    /// stage is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Alignment`]; [`Error::TooLarge`]; [`Error::Memory`], for instance
    /// [`vm::Error::NoRoomNear`] when no more room is in reach of the first.
    pub fn allocate(&mut self, kind: Kind, len: usize, align: usize) -> Result<*mut u8, Error> {
        if !align.is_power_of_two() {
            return Err(Error::Alignment(align));
        }
        let len = len.max(1);
        for span in self.spans.iter_mut().rev() {
            if let Some(ptr) = span.take(kind, len, align)? {
                return Ok(ptr);
            }
        }
        let sizes = self.sizes.and(kind, len, align)?;
        if sizes.total().is_none_or(|total| total > REACH) {
            return Err(Error::TooLarge(len));
        }
        let place = next_to(self.spans[0].base(), self.options.place);
        let mut span = Span::new(sizes, place, &self.options, &self.meter)?;
        let ptr = span.take(kind, len, align)?.ok_or(Error::TooLarge(len))?;
        self.spans.push(span);
        Ok(ptr)
    }

    /// Code that was allocated becomes executable, and constants cannot be written any more, at
    /// the addresses where they are. Nothing that was final before is touched: threads may run
    /// it meanwhile. Three system calls: the code into its file, its view over what was written,
    /// constants protected.
    ///
    /// Nobody may write to staged memory while this runs. If it fails, what is not final yet is
    /// as it was, and this can be called again.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn finalise(&mut self) -> Result<(), Error> {
        for span in &mut self.spans {
            span.finalise(&self.options, &self.meter)?;
        }
        Ok(())
    }

    /// What was asked of the kernel until now.
    pub fn stats(&self) -> Stats {
        self.meter.stats()
    }

    /// What counts it: for who gives the stage away.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// All that was allocated stays where it is until the process ends: for compilers that cannot
    /// say when their code is not used any more. No descriptor stays open, and address space for
    /// more is given back. What is staged never becomes final.
    pub fn leak(self) {
        self.spans.into_iter().for_each(Span::leak);
    }
}

/// Where all is in reach of what begins at `first`, and where the caller wants it.
fn next_to(first: usize, place: Place) -> Place {
    match place {
        Place::Anywhere => Place::Near { address: first, within: REACH },
        // Any two places in there are in reach of each other.
        near @ Place::Near { within, .. } if within <= REACH => near,
        Place::Near { address, within } => {
            let left = within.saturating_sub(first.abs_diff(address));
            Place::Near { address: first, within: left.min(REACH) }
        }
    }
}

/// An alias would be of use to nobody.
fn written_once(options: &Options) -> Options {
    let write = match options.write {
        Write::Pwrite => Write::Pwrite,
        Write::Any | Write::Alias => Write::Any,
    };
    Options { write, ..options.clone() }
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Memory(vm::Error::System { what, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_next_is_in_reach_and_where_it_is_asked_to() {
        let first = 1 << 40;
        let near = |address, within| Place::Near { address, within };
        assert_eq!(next_to(first, Place::Anywhere), near(first, REACH));
        assert_eq!(next_to(first, near(first + 5, REACH)), near(first + 5, REACH));
        assert_eq!(next_to(first, near(first, 8 * REACH)), near(first, REACH));
        assert_eq!(next_to(first, near(first + 3 * REACH, 3 * REACH + 9)), near(first, 9));
    }
}
