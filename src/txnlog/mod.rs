//! Layer 1: the transaction log's format: bytes in, records out; no file handles.
