//! Layer 1: bytes and values of the client protocol: jute, frames, handshakes, requests, replies, txns.
