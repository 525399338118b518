//! Layer 1: bytes and values of the client protocol: jute, frames, handshakes, requests, replies,
//! txns. Knows nothing of sockets, and nothing of what a request does.

pub mod client;
pub mod connect;
pub mod frame;
pub mod jute;
pub mod opcode;
pub mod request;
pub mod response;
pub mod txn;
pub mod word;

#[cfg(test)]
mod tests;
