//! The targets: each takes any bytes and must come back. Round trips are checked where there is an
//! encoder: what was decoded, encoded and decoded again is the same.

pub(crate) mod files;
pub(crate) mod peers;
/// Checksums put right after a mutation, so that what lies behind them is reached.
mod seal;
pub(crate) mod texts;
pub(crate) mod wire;

/// A decoder on any bytes.
pub(crate) struct Target {
    /// By which it is asked for.
    pub(crate) name: &'static str,
    /// Decodes; panics if something is not as it must be.
    pub(crate) run: fn(&[u8]),
    /// Valid inputs, from the encoders.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// What it may allocate for each byte of the input, at most at once.
    pub(crate) bytes_per_byte: usize,
}

/// Splits an input into pieces of up to `len` bytes, as a socket or a file may.
fn pieces(bytes: &[u8], len: usize) -> impl Iterator<Item = bytes::Bytes> + '_ {
    bytes.chunks(len.max(1)).map(bytes::Bytes::copy_from_slice)
}
