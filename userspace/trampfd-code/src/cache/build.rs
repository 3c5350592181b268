//! From compiled methods to the bytes of a file.

use std::collections::HashMap;

use super::code::{Callee, Draft, Target};
use super::format::{self, Layout};
use super::{Compiler, Error, Key, arch};
use crate::vm;

/// The file for a draft. `home` says in whose batch a method is that is not in this one.
pub(super) fn build<C: Compiler>(
    mut draft: Draft<C::Method>,
    compiler: &C,
    version: &[u8; 32],
    home: impl Fn(C::Method) -> Option<Key>,
) -> Result<Vec<u8>, Error> {
    // What `find` does not lead back to, no file would ever be used for.
    let key = |method| {
        let key = compiler.key(method);
        let found = key != Key::NONE && compiler.find(&key) == Some(method);
        if found { Ok(key) } else { Err(Error::Keys(key)) }
    };
    if let Some((method, at)) = draft.wrong {
        return Err(Error::Fixup { method: key(method)?, at });
    }
    let inside: HashMap<C::Method, u32> =
        draft.methods.iter().zip(0..).map(|(placed, n)| (placed.method, n)).collect();

    // Stubs follow the methods: one for each slot of a method that is not in the batch, and
    // before them what they share.
    let outside =
        |callee: &Callee<C::Method>| matches!(callee, Callee::Method(m) if !inside.contains_key(m));
    let shared = draft.code.len().next_multiple_of(arch::STUB);
    let stubs = draft.slots.iter().filter(|callee| outside(callee)).count();
    let code = if stubs == 0 { draft.code.len() } else { shared + arch::STUB * (1 + stubs) };
    let all = code.saturating_add(draft.constants.len());
    let layout = Layout::new(code, draft.constants.len(), draft.slots.len());
    let layout = layout.ok_or(Error::TooLarge(all))?;

    let mut names = Vec::new();
    let mut rows = Vec::new();
    for (slot, callee) in draft.slots.clone().into_iter().enumerate() {
        let got = (layout.got + format::slot_at(slot)) as i32;
        let (kind, a, b, callee, home) = match callee {
            Callee::Method(m) if inside.contains_key(&m) => (0, inside[&m], 0, key(m)?, None),
            Callee::Method(m) => {
                if draft.code.len() < shared + arch::STUB {
                    draft.pad(shared);
                    draft.code.extend(arch::shared_stub((layout.got - shared) as i32));
                }
                let at = draft.code.len() as i32;
                draft.code.extend(arch::stub(got - at, shared as i32 - at));
                (1, at as u32, 0, key(m)?, home(m))
            }
            Callee::Helper(name) => {
                let at = names.len() as u32;
                names.extend_from_slice(name.as_bytes());
                (2, at, name.len() as u32, Key::NONE, None)
            }
        };
        for number in [kind, a, b, 0] {
            rows.extend(u32::to_le_bytes(number));
        }
        rows.extend(callee.0);
        rows.extend(home.unwrap_or(Key::NONE).0);
    }

    for fixup in &draft.fixups {
        let to = match fixup.target {
            Target::Slot(slot) => layout.got + format::slot_at(slot.0 as usize),
            Target::Constant(constant) => layout.constants + constant.0 as usize,
        };
        let distance = to as i64 - fixup.at as i64 + i64::from(fixup.addend);
        let Ok(distance) = i32::try_from(distance) else {
            let of = draft.methods.iter().rfind(|placed| placed.at <= fixup.at);
            let (method, start) = of.map_or((draft.methods[0].method, 0), |p| (p.method, p.at));
            return Err(Error::Fixup { method: key(method)?, at: fixup.at - start });
        };
        draft.code[fixup.at..fixup.at + 4].copy_from_slice(&distance.to_le_bytes());
    }

    let front = format::HEADER + draft.methods.len() * format::METHOD + rows.len() + names.len();
    let code_at = vm::round_to_pages(front)?;
    let mut file = Vec::with_capacity(code_at + layout.got);
    file.extend(format::MAGIC);
    let counts = [draft.methods.len(), draft.slots.len(), names.len()];
    for number in [format::FORMAT, arch::MACHINE, vm::page_size() as u32] {
        file.extend(number.to_le_bytes());
    }
    for number in counts {
        file.extend((number as u32).to_le_bytes());
    }
    for number in [code_at, code, draft.constants.len()] {
        file.extend((number as u64).to_le_bytes());
    }
    file.extend(version);
    file.extend(key(draft.methods[0].method)?.0);
    file.extend([0; 32]);
    for placed in &draft.methods {
        file.extend(key(placed.method)?.0);
        file.extend((placed.at as u32).to_le_bytes());
        file.extend((placed.len as u32).to_le_bytes());
    }
    file.extend(rows);
    file.extend(names);
    file.resize(code_at, 0);
    draft.pad(layout.constants);
    file.extend(&draft.code);
    file.extend(&draft.constants);
    file.resize(code_at + layout.got, 0);
    format::seal(&mut file);
    Ok(file)
}
