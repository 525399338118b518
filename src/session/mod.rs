//! Layer 2: client sessions and their expiry.
