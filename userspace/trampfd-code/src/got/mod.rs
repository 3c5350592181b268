//! Relocatable objects, loaded.
