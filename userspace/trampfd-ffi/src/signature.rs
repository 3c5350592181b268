//! From a prepared `ffi_cif` to a plan.
//!
//! Scalars are found in a table. Of a structure that is small enough for registers the members
//! are walked exactly as libffi does ([`arch::leaves`]), so that both agree also on types that no
//! C compiler would lay out so (those of packed structures and unions, as Python's ctypes
//! describes them).
//!
//! | type | outcome |
//! |---|---|
//! | every type of libffi 3.6.0 | a plan |
//! | a number not known here (vectors, since 3.8.0), an alignment above 16, `void` as an argument | no plan: libffi's own entry |
//! | a structure of no bytes or no members, one that contains itself | `FFI_BAD_TYPEDEF` |

use trampfd::raw::{Class, Leaf, MAX_IN_REGISTERS, Plan, Planner, Returned, Scalar};

use crate::arch;
use crate::ffi::{self, Cif, Status, Type};

/// Structures within structures, at most.
pub const MAX_DEPTH: u32 = 64;
/// Members of one structure and all within it, at most: more than fit into registers, unless
/// they lie about their sizes.
pub const MAX_MEMBERS: u32 = 1024;

/// The scalars, by their number.
pub const SCALARS: [Option<Scalar>; ffi::SINT128 as usize + 1] = {
    let mut scalars = [None; ffi::SINT128 as usize + 1];
    scalars[ffi::FLOAT as usize] = Some(Scalar::F32);
    scalars[ffi::DOUBLE as usize] = Some(Scalar::F64);
    scalars[ffi::LONG_DOUBLE as usize] = Some(Scalar::LongDouble);
    scalars[ffi::UINT8 as usize] = Some(Scalar::Int(1, false));
    scalars[ffi::SINT8 as usize] = Some(Scalar::Int(1, true));
    scalars[ffi::UINT16 as usize] = Some(Scalar::Int(2, false));
    scalars[ffi::SINT16 as usize] = Some(Scalar::Int(2, true));
    scalars[ffi::UINT32 as usize] = Some(Scalar::Int(4, false));
    scalars[ffi::SINT32 as usize] = Some(Scalar::Int(4, true));
    scalars[ffi::UINT64 as usize] = Some(Scalar::Int(8, false));
    scalars[ffi::SINT64 as usize] = Some(Scalar::Int(8, true));
    scalars[ffi::POINTER as usize] = Some(Scalar::Int(size_of::<usize>() as u8, false));
    scalars[ffi::UINT128 as usize] = Some(Scalar::Wide);
    scalars[ffi::SINT128 as usize] = Some(Scalar::Wide);
    scalars
};

/// How the scalars are passed, by their number.
const CLASSES: [Option<Class>; SCALARS.len()] = {
    let mut classes = [None; SCALARS.len()];
    let mut n = 0;
    while n < SCALARS.len() {
        if let Some(scalar) = SCALARS[n] {
            classes[n] = Some(Class::scalar(scalar));
        }
        n += 1;
    }
    classes
};

/// The codes of these classes.
const CODES: [u8; SCALARS.len()] = {
    let mut codes = [Class::NO_CODE; SCALARS.len()];
    let mut n = 0;
    while n < SCALARS.len() {
        if let Some(class) = CLASSES[n]
            && let Some(code) = class.code()
        {
            codes[n] = code as u8;
        }
        n += 1;
    }
    codes
};

/// How the scalars, and nothing, are returned, by their number.
const RETURNED: [Option<Returned>; SCALARS.len()] = {
    let mut returned = [None; SCALARS.len()];
    let mut n = 0;
    while n < SCALARS.len() {
        if let Some(scalar) = SCALARS[n] {
            returned[n] = Some(Returned::scalar(scalar));
        }
        n += 1;
    }
    returned[ffi::VOID as usize] = Some(Returned::Void);
    returned
};

impl Cif {
    /// The types of the arguments.
    #[inline(always)]
    pub fn arguments(&self) -> impl Iterator<Item = &Type> {
        // SAFETY: a prepared `ffi_cif` has as many types as it says.
        (0..self.nargs as usize).map(|n| unsafe { &**self.arg_types.add(n) })
    }
}

/// What can be said of a type here.
enum Known<T> {
    /// It is passed or returned so.
    So(T),
    /// Only libffi knows.
    Not,
}

/// The plan for a signature of few scalars, if it was asked for before.
#[inline(always)]
pub fn recent(cif: &Cif) -> Option<&'static Plan> {
    // SAFETY: a prepared `ffi_cif` has a type of its result.
    let result = unsafe { &*cif.rtype };
    let Some(returned) = RETURNED.get(usize::from(result.code)).copied().flatten() else {
        return none();
    };
    // SAFETY: and as many types of arguments as it says.
    let code = |n| unsafe { (**cif.arg_types.add(n)).code };
    let code = |n| CODES.get(usize::from(code(n))).copied();
    Planner::recent(returned, (0..cif.nargs as usize).map(code))
}

/// Keeps the compiler from making the usual case the one that jumps.
#[cold]
#[inline(always)]
const fn none() -> Option<&'static Plan> {
    None
}

/// The plan for a signature; `None` if only libffi knows how its arguments are passed.
///
/// # Errors
///
/// [`Status::BadTypedef`].
pub fn plan(cif: &Cif) -> Result<Option<&'static Plan>, Status> {
    // SAFETY: a prepared `ffi_cif` has a type of its result.
    let result = unsafe { &*cif.rtype };
    let returned = match RETURNED.get(usize::from(result.code)) {
        Some(&Some(returned)) => returned,
        _ => match returned(result)? {
            Known::So(returned) => returned,
            Known::Not => return Ok(None),
        },
    };
    let mut planner = Planner::new(returned);
    for kind in cif.arguments() {
        planner.arg(match CLASSES.get(usize::from(kind.code)) {
            Some(&Some(class)) => class,
            _ => match class(kind)? {
                Known::So(class) => class,
                Known::Not => return Ok(None),
            },
        });
    }
    planner.finish().map(Some).map_err(|_| Status::BadTypedef)
}

/// How an argument is passed that is no scalar.
fn class(kind: &Type) -> Result<Known<Class>, Status> {
    match kind.code {
        ffi::STRUCT => {}
        ffi::COMPLEX => match part(kind)? {
            Some(part @ (Scalar::F32 | Scalar::F64 | Scalar::LongDouble)) => {
                return Ok(Known::So(Class::complex(part)));
            }
            Some(_) => {}
            None => return Ok(Known::Not),
        },
        _ => return Ok(Known::Not),
    }
    with_leaves(kind, |leaves| {
        let aligned_to =
            |align| Class::compound(kind.size, align, leaves).ok_or(Status::BadTypedef);
        let align = usize::from(kind.alignment);
        let class = aligned_to(align)?;
        // On the stack libffi aligns any value as its type says.
        let aligned = align <= 8 || align == 16 && class != aligned_to(8)?;
        Ok(if aligned { Known::So(class) } else { Known::Not })
    })
}

/// How a result is returned that is no scalar.
fn returned(kind: &Type) -> Result<Known<Returned>, Status> {
    match kind.code {
        ffi::STRUCT => {}
        ffi::COMPLEX => match part(kind)? {
            Some(part @ (Scalar::F32 | Scalar::F64 | Scalar::LongDouble)) => {
                return Ok(Known::So(Returned::complex(part)));
            }
            Some(_) => {}
            None => return Ok(Known::Not),
        },
        _ => return Ok(Known::Not),
    }
    with_leaves(kind, |leaves| Ok(Known::So(Returned::compound(kind.size, leaves))))
}

/// The part of a complex number; `None` if it is not known here.
///
/// # Errors
///
/// [`Status::BadTypedef`] if it has none.
pub fn part(kind: &Type) -> Result<Option<Scalar>, Status> {
    let part = elements(kind)?.next().ok_or(Status::BadTypedef)?;
    Ok(SCALARS.get(usize::from(part.code)).copied().flatten())
}

/// The members of a structure, the part of a complex number.
///
/// # Errors
///
/// [`Status::BadTypedef`] if there is no list.
pub fn elements(kind: &Type) -> Result<impl Iterator<Item = &Type>, Status> {
    if kind.elements.is_null() {
        return Err(Status::BadTypedef);
    }
    // SAFETY: by the contract of libffi, the list of elements ends with null.
    Ok((0..).map_while(|n| unsafe { (*kind.elements.add(n)).as_ref() }))
}

/// Calls `with` with scalars that stand for those in a structure: none if it is too large for
/// registers. Not known if not all of them are.
#[inline(always)]
fn with_leaves<T>(
    kind: &Type,
    with: impl FnOnce(&[Leaf]) -> Result<Known<T>, Status>,
) -> Result<Known<T>, Status> {
    let nothing = Leaf { offset: 0, scalar: Scalar::LongDouble };
    let mut leaves = [nothing; arch::LEAVES];
    let count = match kind.size {
        0 => return Err(Status::BadTypedef),
        1..=MAX_IN_REGISTERS => arch::leaves(kind, &mut leaves)?,
        _ => Some(0),
    };
    match count {
        Some(count) => with(leaves.get(..count).unwrap_or(&leaves)),
        None => Ok(Known::Not),
    }
}
