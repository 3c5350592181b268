//! Sections by the caller's id, laid out at once, freed without touching others.
