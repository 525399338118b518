//! Layer 4: the deterministic simulator.
