//! The two compressions of snapshots: gzip, and the stream of snappy blocks that snappy-java
//! writes. Both ways, in bounded pieces.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::write::{GzEncoder, MultiGzDecoder};

/// How a snapshot is compressed; its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// One gzip stream.
    Gzip,
    /// A snappy-java stream.
    Snappy,
}

impl Compression {
    /// What the name of a snapshot ends with.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Snappy => ".snappy",
        }
    }
}

/// Takes compressed bytes, gives plain ones.
#[derive(Debug)]
pub(super) enum Inflate {
    None,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Snappy(SnappyBlocks),
}

/// The state of reading a snappy-java stream.
#[derive(Debug, Default)]
pub(super) struct SnappyBlocks {
    header_seen: bool,
    received: BytesMut,
}

/// Compressed bytes that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadStream(pub(super) &'static str);

impl Inflate {
    pub(super) fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Compression::Snappy => Self::Snappy(SnappyBlocks::default()),
        }
    }

    /// Takes the next few KiB of the file; what they say is appended to `plain`.
    pub(super) fn feed(&mut self, bytes: &[u8], plain: &mut BytesMut) -> Result<(), BadStream> {
        match self {
            Self::None => plain.extend_from_slice(bytes),
            Self::Gzip(gzip) => {
                let written = gzip.write_all(bytes).and_then(|()| gzip.flush());
                plain.extend_from_slice(gzip.get_ref());
                gzip.get_mut().clear();
                written.map_err(|_| BadStream("the gzip stream is damaged"))?;
            }
            Self::Snappy(blocks) => {
                blocks.received.extend_from_slice(bytes);
                while blocks.next_block(plain)? {}
            }
        }
        Ok(())
    }

    /// The file is over: whether the stream is.
    pub(super) fn finish(&mut self, plain: &mut BytesMut) -> Result<(), BadStream> {
        match self {
            Self::None => Ok(()),
            Self::Gzip(gzip) => {
                let finished = gzip.try_finish();
                plain.extend_from_slice(gzip.get_ref());
                gzip.get_mut().clear();
                finished.map_err(|_| BadStream("the gzip stream is cut short"))
            }
            Self::Snappy(blocks) if blocks.received.is_empty() && blocks.header_seen => Ok(()),
            // A cut leaves less than a block; more is what a damaged length passes over.
            Self::Snappy(blocks) if 2 * SNAPPY_BLOCK_BYTES < blocks.received.len() => {
                Err(BadStream("a snappy block is damaged"))
            }
            Self::Snappy(_) => Err(BadStream("the snappy stream is cut short")),
        }
    }
}

impl SnappyBlocks {
    /// Whether there was a whole block.
    fn next_block(&mut self, plain: &mut BytesMut) -> Result<bool, BadStream> {
        if !self.header_seen {
            let Some(header) = self.received.get(..SNAPPY_HEADER_BYTES) else { return Ok(false) };
            if header.get(..8) != Some(SNAPPY_MAGIC) {
                return Err(BadStream("no snappy stream starts here"));
            }
            let _header = self.received.split_to(SNAPPY_HEADER_BYTES);
            self.header_seen = true;
        }
        let Some(len) = self.received.get(..4).and_then(|len| len.try_into().ok()) else {
            return Ok(false);
        };
        let len = usize::try_from(i32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if SNAPPY_BLOCK_BYTES_MAX < len {
            return Err(BadStream("unreasonable length of a snappy block"));
        }
        let Some(block) = self.received.get(4..4 + len) else { return Ok(false) };
        let damaged = BadStream("a snappy block is damaged");
        let plain_len = snap::raw::decompress_len(block).map_err(|_| damaged)?;
        if len.saturating_mul(SNAPPY_RATIO_MAX) < plain_len {
            return Err(damaged);
        }
        let start = plain.len();
        plain.resize(start + plain_len, 0);
        let room = plain.get_mut(start..).unwrap_or_default();
        snap::raw::Decoder::new().decompress(block, room).map_err(|_| damaged)?;
        let _block = self.received.split_to(4 + len);
        Ok(true)
    }
}

/// Takes plain bytes, gives compressed ones.
#[derive(Debug)]
pub(super) enum Deflate {
    None(BytesMut),
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Snappy { open: BytesMut, ready: BytesMut },
}

impl Deflate {
    pub(super) fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None(BytesMut::new()),
            Compression::Gzip => {
                let level = flate2::Compression::default();
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
            Compression::Snappy => {
                let mut ready = BytesMut::new();
                ready.put_slice(SNAPPY_MAGIC);
                ready.put_i32(SNAPPY_VERSION);
                ready.put_i32(SNAPPY_VERSION);
                Self::Snappy { open: BytesMut::new(), ready }
            }
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::None(ready) => ready.extend_from_slice(bytes),
            Self::Gzip(gzip) => gzip.write_all(bytes).expect("writing to memory does not fail"),
            Self::Snappy { open, ready } => {
                open.extend_from_slice(bytes);
                while SNAPPY_BLOCK_BYTES <= open.len() {
                    put_block(ready, &open.split_to(SNAPPY_BLOCK_BYTES));
                }
            }
        }
    }

    /// Bytes that are ready to be taken.
    pub(super) fn ready_bytes(&self) -> usize {
        match self {
            Self::None(ready) | Self::Snappy { ready, .. } => ready.len(),
            Self::Gzip(gzip) => gzip.get_ref().len(),
        }
    }

    pub(super) fn take(&mut self) -> Bytes {
        match self {
            Self::None(ready) | Self::Snappy { ready, .. } => ready.split().freeze(),
            Self::Gzip(gzip) => Bytes::from(std::mem::take(gzip.get_mut())),
        }
    }

    /// Ends the stream: what is left of it.
    pub(super) fn finish(mut self) -> Bytes {
        match &mut self {
            Self::None(_) => {}
            Self::Gzip(gzip) => gzip.try_finish().expect("writing to memory does not fail"),
            Self::Snappy { open, ready } => {
                if !open.is_empty() {
                    put_block(ready, open);
                }
            }
        }
        self.take()
    }
}

fn put_block(ready: &mut BytesMut, plain: &[u8]) {
    let block = snap::raw::Encoder::new().compress_vec(plain);
    let block = block.expect("blocks are far below snappy's bound");
    ready.put_i32(i32::try_from(block.len()).expect("blocks are small"));
    ready.put_slice(&block);
}

const SNAPPY_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const SNAPPY_VERSION: i32 = 1;
/// Magic, version, and the oldest version that can read it.
const SNAPPY_HEADER_BYTES: usize = 16;
/// Plain bytes in a block that we write; snappy-java's default.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;
/// Longest block that is read; snappy-java's own is at most 32 KiB plus a little.
const SNAPPY_BLOCK_BYTES_MAX: usize = 64 << 20;
/// Snappy's densest element makes 64 bytes of three.
const SNAPPY_RATIO_MAX: usize = 22;
