//! Layer 2: who wants to hear about what.
