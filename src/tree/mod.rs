//! Layer 2: the data tree.
