//! What `dynasm!` writes to.

use dynasmrt::components::{LabelRegistry, PatchLoc, RelocRegistry, StaticLabel};
use dynasmrt::relocations::Relocation;
use dynasmrt::{
    AssemblyOffset, DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi, LabelKind, TargetKind,
    UncommittedModifier,
};
use trampfd_code::alloc::{Handle, Span};

use crate::{Code, Error};

/// Takes instructions before it is known where they will lie.
///
/// As in dynasmrt's `VecAssembler`, `.align` counts from the first byte, which
/// [`Assembler::finish`] puts at a multiple of the allocator's granularity: 64 at least.
#[derive(Debug)]
pub struct Assembler<R: Relocation> {
    ops: Vec<u8>,
    labels: LabelRegistry,
    relocs: RelocRegistry<R>,
    /// Addresses outside, and where the code refers to them.
    values: Vec<(PatchLoc<R>, usize)>,
    /// The first.
    error: Option<DynasmError>,
}

impl<R: Relocation> Default for Assembler<R> {
    fn default() -> Assembler<R> {
        Assembler::new()
    }
}

impl<R: Relocation> Assembler<R> {
    /// Without code.
    pub fn new() -> Assembler<R> {
        Assembler {
            ops: Vec::new(),
            labels: LabelRegistry::new(),
            relocs: RelocRegistry::new(),
            values: Vec::new(),
            error: None,
        }
    }

    /// A label that can be placed once, and referred to from anywhere.
    pub fn new_dynamic_label(&mut self) -> DynamicLabel {
        self.labels.new_dynamic_label()
    }

    /// To change what was emitted. References to labels in there are filled in over it.
    pub fn alter(&mut self) -> UncommittedModifier<'_> {
        UncommittedModifier::new(&mut self.ops, AssemblyOffset(0))
    }

    /// The labels.
    pub fn labels(&self) -> &LabelRegistry {
        &self.labels
    }

    /// The code as it has to be at address `base`, for memory of whatever kind.
    ///
    /// # Errors
    ///
    /// [`Error::Assembly`].
    pub fn encode(mut self, base: usize) -> Result<Vec<u8>, Error> {
        self.resolve(base)?;
        Ok(self.ops)
    }

    /// Takes memory, and puts the code there.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`], [`Error::Assembly`].
    pub fn finish<A: Handle>(mut self, allocator: A) -> Result<Code<A>, Error> {
        let mut span = Span::new(allocator, self.ops.len())?;
        self.resolve(span.rx().addr())?;
        span.write(0, &self.ops)?;
        Ok(Code { span, labels: self.labels })
    }

    fn fail(&mut self, error: DynasmError) {
        self.error.get_or_insert(error);
    }

    fn resolve(&mut self, base: usize) -> Result<(), Error> {
        if let Some(error) = self.error.take() {
            return Err(error.into());
        }
        let (ops, labels) = (&mut self.ops, &self.labels);
        let mut patch = |place: PatchLoc<R>, target: usize, kind: TargetKind| {
            let impossible = |_| DynasmError::ImpossibleRelocation(kind);
            place.patch(&mut ops[place.range(0)], base, target).map_err(impossible)
        };
        for (place, label) in self.relocs.take_statics() {
            let target = labels.resolve_static(&label)?;
            let name = label.get_name();
            let global = label.is_global();
            let kind = if global { TargetKind::Global(name) } else { TargetKind::Local(name) };
            patch(place, target.0, kind)?;
        }
        for (place, label) in self.relocs.take_dynamics() {
            let target = labels.resolve_dynamic(label)?;
            patch(place, target.0, TargetKind::Dynamic(label))?;
        }
        for (place, value) in self.values.drain(..) {
            patch(place, value, TargetKind::Value(value))?;
        }
        Ok(())
    }

    fn place(&self, target: isize, field: u8, reference: u8, kind: R) -> PatchLoc<R> {
        PatchLoc::new(self.offset(), target, field, reference, kind)
    }
}

impl<R: Relocation> Extend<u8> for Assembler<R> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.ops.extend(bytes);
    }
}

impl<'a, R: Relocation> Extend<&'a u8> for Assembler<R> {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, bytes: T) {
        self.ops.extend(bytes);
    }
}

impl<R: Relocation> DynasmApi for Assembler<R> {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.ops.len())
    }

    fn push(&mut self, byte: u8) {
        self.ops.push(byte);
    }

    fn align(&mut self, alignment: usize, with: u8) {
        self.ops.resize(self.ops.len().next_multiple_of(alignment), with);
    }
}

impl<R: Relocation> DynasmLabelApi for Assembler<R> {
    type Relocation = R;

    fn local_label(&mut self, name: &'static str) {
        self.labels.define_local(name, AssemblyOffset(self.ops.len()));
    }

    fn global_label(&mut self, name: &'static str) {
        let offset = self.offset();
        self.labels.define_global(name, offset).unwrap_or_else(|error| self.fail(error));
    }

    fn dynamic_label(&mut self, id: DynamicLabel) {
        let offset = self.offset();
        self.labels.define_dynamic(id, offset).unwrap_or_else(|error| self.fail(error));
    }

    fn global_relocation(
        &mut self,
        name: &'static str,
        target: isize,
        field: u8,
        reference: u8,
        kind: R,
    ) {
        let place = self.place(target, field, reference, kind);
        self.relocs.add_static(StaticLabel::global(name), place);
    }

    fn dynamic_relocation(
        &mut self,
        id: DynamicLabel,
        target: isize,
        field: u8,
        reference: u8,
        kind: R,
    ) {
        let place = self.place(target, field, reference, kind);
        self.relocs.add_dynamic(id, place);
    }

    fn forward_relocation(
        &mut self,
        name: &'static str,
        target: isize,
        field: u8,
        reference: u8,
        kind: R,
    ) {
        let last = self.labels.place_local_reference(name);
        let label = last.map_or_else(|| StaticLabel::first(name), StaticLabel::next);
        let place = self.place(target, field, reference, kind);
        self.relocs.add_static(label, place);
    }

    fn backward_relocation(
        &mut self,
        name: &'static str,
        target: isize,
        field: u8,
        reference: u8,
        kind: R,
    ) {
        let place = self.place(target, field, reference, kind);
        match self.labels.place_local_reference(name) {
            Some(label) => self.relocs.add_static(label, place),
            None => self.fail(DynasmError::UnknownLabel(LabelKind::Local(name))),
        }
    }

    fn value_relocation(&mut self, value: usize, field: u8, reference: u8, kind: R) {
        let place = self.place(0, field, reference, kind);
        self.values.push((place, value));
    }
}
