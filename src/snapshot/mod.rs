//! Layer 1: the snapshot's format.
