//! C types, as values: what signatures known only at run time are made of.

use std::fmt;
use std::sync::Arc;

use trampfd_text::arch::{Class, LONG_DOUBLE, MAX_IN_REGISTERS, Returned};
use trampfd_text::plan::{Leaf, Scalar};

/// Structures within structures, at most.
const MAX_DEPTH: usize = 64;
/// Bytes of a type, at most.
const MAX_SIZE: usize = 1 << 30;
/// Parts of a type with all parts of these, at most: what it costs to compare or to print one.
const MAX_PARTS: usize = 1 << 16;

/// Why there is no such type, or no such signature.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeError {
    /// A structure, union or array of no bytes: C passes nothing for it, C++ a byte.
    ZeroSized,
    /// `void` as an argument or as a part of a structure.
    Void,
    /// An array as an argument or result: C passes its address, which is a pointer.
    Array,
    /// An alignment that is not the one of the parts: smaller (packed) or larger. Where such a
    /// value is passed depends on the compiler.
    Alignment,
    /// More bytes than a call can pass, or more than 65,536 parts (an array is one).
    TooLarge,
    /// A structure that contains itself, or has more than 64 levels of others.
    TooDeep,
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TypeError::ZeroSized => "a structure, union or array has no bytes",
            TypeError::Void => "void is neither an argument nor a part of a structure",
            TypeError::Array => "an array is neither an argument nor a result; C passes a pointer",
            TypeError::Alignment => "a structure is packed, or aligned to more than its parts are",
            TypeError::TooLarge => "the type or all arguments together are too large for a call",
            TypeError::TooDeep => "a structure contains itself or too many levels of others",
        })
    }
}

impl std::error::Error for TypeError {}

/// A C type.
///
/// The integer types are named by their width; [`INT`](Type::INT), [`LONG`](Type::LONG) and
/// others are the ones of the C compiler here. Types are cheap to clone.
///
/// ```
/// use trampfd::Type;
/// // struct { char tag; union { double d; struct { short a[3]; } s; } u; }
/// let shorts = Type::structure(&[Type::array(&Type::I16, 3)?])?;
/// let either = Type::union(&[Type::F64, shorts])?;
/// let tagged = Type::structure(&[Type::I8, either])?;
/// assert_eq!((tagged.size(), tagged.align()), (16, 8));
/// assert_eq!(tagged.offset(1), Some(8));
/// # Ok::<(), trampfd::TypeError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Type(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Void,
    Scalar(Scalar),
    Complex(Scalar),
    Compound(Arc<Compound>),
}

/// A structure, union or array.
///
/// # Invariants
///
/// `size` is not 0 and a multiple of `align`, the largest alignment of `parts`. `leaves` are the
/// scalars in it, each once, if `size` is at most [`MAX_IN_REGISTERS`]. `depth` counts its levels,
/// `count` its parts with all parts of these.
#[derive(PartialEq, Eq)]
struct Compound {
    form: Form,
    size: usize,
    align: usize,
    depth: usize,
    count: usize,
    /// Types and offsets of the parts; of an array one.
    parts: Box<[(Type, usize)]>,
    leaves: Box<[Leaf]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Structure,
    Union,
    Array,
}

/// An integer type of so many bytes.
const fn int(size: usize, signed: bool) -> Type {
    Type(Kind::Scalar(Scalar::Int(size as u8, signed)))
}

impl Type {
    /// `void`: a result only.
    pub const VOID: Type = Type(Kind::Void);
    /// `_Bool`
    pub const BOOL: Type = int(1, false);
    /// `int8_t`, `signed char`
    pub const I8: Type = int(1, true);
    /// `uint8_t`, `unsigned char`
    pub const U8: Type = int(1, false);
    /// `int16_t`
    pub const I16: Type = int(2, true);
    /// `uint16_t`
    pub const U16: Type = int(2, false);
    /// `int32_t`
    pub const I32: Type = int(4, true);
    /// `uint32_t`
    pub const U32: Type = int(4, false);
    /// `int64_t`
    pub const I64: Type = int(8, true);
    /// `uint64_t`
    pub const U64: Type = int(8, false);
    /// `__int128`
    pub const I128: Type = Type(Kind::Scalar(Scalar::Wide));
    /// `unsigned __int128`
    pub const U128: Type = Type(Kind::Scalar(Scalar::Wide));
    /// `float`
    pub const F32: Type = Type(Kind::Scalar(Scalar::F32));
    /// `double`
    pub const F64: Type = Type(Kind::Scalar(Scalar::F64));
    /// `long double`
    pub const LONG_DOUBLE: Type = Type(Kind::Scalar(Scalar::LongDouble));
    /// `float _Complex`
    pub const COMPLEX_F32: Type = Type(Kind::Complex(Scalar::F32));
    /// `double _Complex`
    pub const COMPLEX_F64: Type = Type(Kind::Complex(Scalar::F64));
    /// `long double _Complex`
    pub const COMPLEX_LONG_DOUBLE: Type = Type(Kind::Complex(Scalar::LongDouble));
    /// Any pointer.
    pub const POINTER: Type = int(size_of::<usize>(), false);

    /// `char`
    pub const CHAR: Type = int(1, core::ffi::c_char::MIN != 0);
    /// `short`
    pub const SHORT: Type = int(size_of::<core::ffi::c_short>(), true);
    /// `unsigned short`
    pub const USHORT: Type = int(size_of::<core::ffi::c_ushort>(), false);
    /// `int`
    pub const INT: Type = int(size_of::<core::ffi::c_int>(), true);
    /// `unsigned int`
    pub const UINT: Type = int(size_of::<core::ffi::c_uint>(), false);
    /// `long`
    pub const LONG: Type = int(size_of::<core::ffi::c_long>(), true);
    /// `unsigned long`
    pub const ULONG: Type = int(size_of::<core::ffi::c_ulong>(), false);
    /// `long long`
    pub const LONG_LONG: Type = int(size_of::<core::ffi::c_longlong>(), true);
    /// `unsigned long long`
    pub const ULONG_LONG: Type = int(size_of::<core::ffi::c_ulonglong>(), false);
    /// `size_t`
    pub const SIZE: Type = int(size_of::<usize>(), false);

    /// A structure with these members, laid out as C does.
    ///
    /// # Errors
    ///
    /// [`TypeError::ZeroSized`], [`TypeError::Void`], [`TypeError::TooLarge`],
    /// [`TypeError::TooDeep`].
    pub fn structure(members: &[Type]) -> Result<Type, TypeError> {
        let mut end = 0usize;
        let mut parts = Vec::with_capacity(members.len());
        for member in members {
            let at = end.next_multiple_of(member.align());
            end = at.checked_add(member.size()).ok_or(TypeError::TooLarge)?;
            parts.push((member.clone(), at));
        }
        Type::compound(Form::Structure, parts, end, 1)
    }

    /// A union of these members.
    ///
    /// # Errors
    ///
    /// As for [`structure`](Type::structure).
    pub fn union(members: &[Type]) -> Result<Type, TypeError> {
        let end = members.iter().map(Type::size).max().unwrap_or(0);
        let parts = members.iter().map(|member| (member.clone(), 0)).collect();
        Type::compound(Form::Union, parts, end, 1)
    }

    /// An array of `count` elements: a member of structures and unions.
    ///
    /// # Errors
    ///
    /// As for [`structure`](Type::structure).
    pub fn array(element: &Type, count: usize) -> Result<Type, TypeError> {
        let end = element.size().checked_mul(count).ok_or(TypeError::TooLarge)?;
        Type::compound(Form::Array, vec![(element.clone(), 0)], end, count)
    }

    fn compound(
        form: Form,
        parts: Vec<(Type, usize)>,
        end: usize,
        count: usize,
    ) -> Result<Type, TypeError> {
        if parts.iter().any(|(part, _)| part.0 == Kind::Void) {
            return Err(TypeError::Void);
        }
        let align = parts.iter().map(|(part, _)| part.align()).max().unwrap_or(1);
        let size = end.checked_next_multiple_of(align).unwrap_or(usize::MAX);
        let depth = 1 + parts.iter().map(|(part, _)| part.depth()).max().unwrap_or(0);
        // No part has more than `MAX_PARTS`.
        let all = parts.iter().map(|(part, _)| part.count()).sum::<usize>();
        match (size, depth, all) {
            (0, ..) => return Err(TypeError::ZeroSized),
            (size, ..) if size > MAX_SIZE => return Err(TypeError::TooLarge),
            (_, depth, _) if depth > MAX_DEPTH => return Err(TypeError::TooDeep),
            (.., all) if all > MAX_PARTS => return Err(TypeError::TooLarge),
            _ => {}
        }
        let mut leaves = Vec::new();
        if size <= MAX_IN_REGISTERS {
            for n in 0..count {
                for (part, at) in &parts {
                    part.leaves(at + n * part.size(), &mut leaves);
                }
            }
        }
        let compound = Compound {
            form,
            size,
            align,
            depth,
            count: all,
            parts: parts.into(),
            leaves: leaves.into(),
        };
        Ok(Type(Kind::Compound(Arc::new(compound))))
    }

    /// Adds the scalars of a value of this type that lies at `at`. None is added twice: in unions
    /// of unions there would be no end of them.
    fn leaves(&self, at: usize, out: &mut Vec<Leaf>) {
        let mut add = |offset, scalar| {
            let leaf = Leaf { offset: at + offset, scalar };
            if !out.contains(&leaf) {
                out.push(leaf);
            }
        };
        match &self.0 {
            Kind::Void => {}
            Kind::Scalar(scalar) => add(0, *scalar),
            Kind::Complex(part) => [0, part.size()].into_iter().for_each(|at| add(at, *part)),
            Kind::Compound(compound) => {
                compound.leaves.iter().for_each(|leaf| add(leaf.offset, leaf.scalar));
            }
        }
    }

    fn depth(&self) -> usize {
        match &self.0 {
            Kind::Compound(compound) => compound.depth,
            _ => 0,
        }
    }

    /// Parts of it with all parts of these, and itself.
    fn count(&self) -> usize {
        match &self.0 {
            Kind::Compound(compound) => 1 + compound.count,
            _ => 1,
        }
    }

    /// Bytes of a value; 0 for `void`.
    pub fn size(&self) -> usize {
        match &self.0 {
            Kind::Void => 0,
            Kind::Scalar(scalar) => scalar.size(),
            Kind::Complex(part) => 2 * part.size(),
            Kind::Compound(compound) => compound.size,
        }
    }

    /// Alignment of a value in bytes.
    pub fn align(&self) -> usize {
        match &self.0 {
            Kind::Void => 1,
            Kind::Scalar(scalar) | Kind::Complex(scalar) => scalar.size(),
            Kind::Compound(compound) => compound.align,
        }
    }

    /// Bytes from the start of a structure or union to member `n`, of an array to element `n`.
    pub fn offset(&self, n: usize) -> Option<usize> {
        match &self.0 {
            Kind::Compound(array) if array.form == Form::Array => {
                let element = array.parts[0].0.size();
                (n < array.size / element).then(|| n * element)
            }
            Kind::Compound(compound) => compound.parts.get(n).map(|(_, at)| *at),
            _ => None,
        }
    }

    /// How an argument of this type is passed.
    pub(crate) fn class(&self) -> Result<Class, TypeError> {
        match &self.0 {
            Kind::Void => Err(TypeError::Void),
            Kind::Scalar(scalar) => Ok(Class::scalar(*scalar)),
            Kind::Complex(part) => Ok(Class::complex(*part)),
            Kind::Compound(array) if array.form == Form::Array => Err(TypeError::Array),
            Kind::Compound(c) => {
                Class::compound(c.size, c.align, &c.leaves).ok_or(TypeError::TooLarge)
            }
        }
    }

    /// How a result of this type is returned.
    pub(crate) fn returned(&self) -> Result<Returned, TypeError> {
        match &self.0 {
            Kind::Void => Ok(Returned::Void),
            Kind::Scalar(scalar) => Ok(Returned::scalar(*scalar)),
            Kind::Complex(part) => Ok(Returned::complex(*part)),
            Kind::Compound(array) if array.form == Form::Array => Err(TypeError::Array),
            Kind::Compound(c) => Ok(Returned::compound(c.size, &c.leaves)),
        }
    }

    /// The scalar that this type is.
    pub(crate) fn scalar(&self) -> Option<Scalar> {
        match self.0 {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Void => f.write_str("void"),
            Kind::Scalar(Scalar::Int(size, signed)) => {
                write!(f, "{}int{}_t", if *signed { "" } else { "u" }, 8 * u32::from(*size))
            }
            Kind::Scalar(scalar) => f.write_str(name(*scalar)),
            Kind::Complex(part) => write!(f, "{} _Complex", name(*part)),
            Kind::Compound(array) if array.form == Form::Array => {
                let element = &array.parts[0].0;
                write!(f, "{element:?}[{}]", array.size / element.size())
            }
            Kind::Compound(compound) => {
                f.write_str(if compound.form == Form::Union { "union " } else { "struct " })?;
                f.debug_set().entries(compound.parts.iter().map(|(part, _)| part)).finish()
            }
        }
    }
}

fn name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Int(..) => "int",
        Scalar::Wide => "__int128",
        Scalar::F32 => "float",
        Scalar::F64 => "double",
        Scalar::LongDouble => "long double",
    }
}

const _: () = assert!(LONG_DOUBLE == 16, "a long double of other size: look at Type::align");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_laid_out_as_c_does() {
        let pair = Type::structure(&[Type::I8, Type::F64]).unwrap();
        assert_eq!((pair.size(), pair.align(), pair.offset(1)), (16, 8, Some(8)));
        let tail = Type::structure(&[Type::F64, Type::I8]).unwrap();
        assert_eq!((tail.size(), tail.align()), (16, 8));
        let bytes = Type::structure(&[Type::array(&Type::U8, 3).unwrap()]).unwrap();
        assert_eq!((bytes.size(), bytes.align(), bytes.offset(1)), (3, 1, None));
        let inner = Type::structure(&[Type::U8, pair.clone(), Type::I16]).unwrap();
        assert_eq!((inner.size(), inner.offset(1), inner.offset(2)), (32, Some(8), Some(24)));
        let either = Type::union(&[Type::LONG_DOUBLE, Type::I32]).unwrap();
        assert_eq!((either.size(), either.align(), either.offset(1)), (16, 16, Some(0)));
        assert_eq!(format!("{pair:?}"), "struct {int8_t, double}");
    }

    #[test]
    fn malformed_types_are_errors() {
        assert_eq!(Type::structure(&[]), Err(TypeError::ZeroSized));
        assert_eq!(Type::union(&[]), Err(TypeError::ZeroSized));
        assert_eq!(Type::array(&Type::I32, 0), Err(TypeError::ZeroSized));
        assert_eq!(Type::structure(&[Type::VOID]), Err(TypeError::Void));
        assert_eq!(Type::array(&Type::VOID, 4), Err(TypeError::Void));
        assert_eq!(Type::array(&Type::I64, usize::MAX / 4), Err(TypeError::TooLarge));
        let huge = Type::array(&Type::U8, MAX_SIZE).unwrap();
        assert_eq!(Type::structure(&[huge.clone(), huge.clone()]), Err(TypeError::TooLarge));
        assert_eq!(huge.class(), Err(TypeError::Array));
        assert_eq!(huge.returned(), Err(TypeError::Array));
        let mut deep = Type::I8;
        let error = loop {
            match Type::structure(&[deep.clone()]) {
                Ok(deeper) => deep = deeper,
                Err(error) => break error,
            }
        };
        assert_eq!((error, deep.depth()), (TypeError::TooDeep, MAX_DEPTH));
    }
}
