//! Which methods a batch has.

use std::collections::HashSet;

use super::code::Draft;
use super::{Compiler, Error};

/// Calls are followed from the root so often.
const DEPTH: usize = 2;

/// Compiles `root`, what it calls and what these call, but for what is compiled, level by level.
/// A method other than the root that the compiler refuses is left out: whoever calls it learns
/// why.
pub(super) fn collect<C: Compiler>(
    compiler: &mut C,
    root: C::Method,
    is_compiled: impl Fn(C::Method) -> bool,
) -> Result<Draft<C::Method>, Error> {
    let mut draft = Draft::new();
    let mut seen = HashSet::from([root]);
    let mut level = vec![root];
    for depth in 0..=DEPTH {
        let mut next = Vec::new();
        for method in level {
            let before = draft.mark();
            let mut code = draft.begin(method);
            let compiled = compiler.compile(method, &mut code);
            // Whoever called it would run into what follows.
            let compiled = match compiled {
                Ok(()) if code.is_empty() => Err("its code has no bytes".into()),
                other => other,
            };
            if let Err(error) = compiled {
                if depth == 0 {
                    return Err(Error::Compiler { method: compiler.key(method), error });
                }
                draft.back_to(before);
                continue;
            }
            let calls = code.finish();
            if depth < DEPTH {
                next.extend(calls.into_iter().filter(|&m| !is_compiled(m) && seen.insert(m)));
            }
        }
        level = next;
    }
    Ok(draft)
}
