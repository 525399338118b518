//! Layer 1: bytes and values of the protocols: jute, frames, handshakes, requests, replies, txns
//! between client and server; packets and votes between servers. Knows nothing of sockets, and
//! nothing of what a request does.

pub mod client;
pub mod connect;
pub mod frame;
pub mod jute;
pub mod opcode;
pub mod quorum;
pub mod request;
pub mod response;
pub mod txn;
pub mod vote;
pub mod word;

#[cfg(test)]
mod tests;
