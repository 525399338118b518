//! Style and layering checks.
