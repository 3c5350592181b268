//! What a cache needs of a compiler.

use std::hash::Hash;

use super::{Code, Error, Key};

/// Why a compiler refused a method.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Makes code of methods.
///
/// It is asked by one thread at a time, and must not ask the cache that it works for: not by
/// [`Cache::get`](super::Cache::get), nor by running a method of it that calls one that was not
/// compiled yet ([`Error::Nested`]).
pub trait Compiler: Send {
    /// Names a method in this process.
    type Method: Copy + Eq + Hash + Send;

    /// Names it in files, and changes when its source does. All zeros for a method that was there
    /// and is not any more. What changes the code of all methods (the compiler's own version,
    /// features of the processor, options) belongs into
    /// [`Options::version`](super::Options::version).
    fn key(&self, method: Self::Method) -> Key;

    /// The method that has this key now. A batch is used if all methods in it, and all that they
    /// call, are found.
    fn find(&self, key: &Key) -> Option<Self::Method>;

    /// The address of a function of the run time, by the name that [`Code::helper`] was given. It
    /// has to stay where it is as long as the cache lives.
    fn helper(&self, name: &str) -> Option<*const u8>;

    /// Writes the method's code.
    ///
    /// # Errors
    ///
    /// Its own: [`Error::Compiler`] if it is the method that was called; another is left out of
    /// the batch, and asked for again when it is called. No code at all counts as an error.
    fn compile(
        &mut self,
        method: Self::Method,
        code: &mut Code<'_, Self::Method>,
    ) -> Result<(), Failure>;

    /// A method was called that was not compiled yet, and there was no way to compile it: what to
    /// call in its place, with its arguments. A function that raises the language's exception,
    /// for instance. The next call of the method tries again.
    fn failed(error: Error) -> *const u8;
}
