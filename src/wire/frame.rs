//! Cutting a byte stream into length-prefixed frames.

use bytes::{Bytes, BytesMut};

use crate::limits::SKIPPED_FRAME_HEAD_BYTES;

/// A frame length that is negative or above the limit. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame length {len} is outside 0..={max} (jute.maxbuffer)")]
pub struct FrameError {
    /// As received.
    pub len: i32,
    /// The limit in force.
    pub max: usize,
}

/// What comes out of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framed {
    /// A whole frame without its length.
    Frame(Bytes),
    /// A frame over the limit went by.
    Skipped {
        /// Its announced length.
        len: usize,
        /// Its first bytes.
        head: Bytes,
    },
}

/// Collects chunks and yields whole frames. A frame that lies within one chunk is not copied;
/// what is held is never more than what was received.
#[derive(Debug)]
pub struct Deframer {
    max: usize,
    buffer: ReceiveBuffer,
    /// Longest frame that is skipped.
    skip_max: usize,
    skipping: Option<Skipping>,
}

/// A frame over the limit is going by.
#[derive(Debug)]
struct Skipping {
    len: usize,
    left: usize,
    head: BytesMut,
}

/// Bytes received and not yet taken.
#[derive(Debug, Default)]
pub(super) struct ReceiveBuffer {
    /// The chunk whose bytes come first; parts of it are taken without a copy.
    head: Bytes,
    /// What came after it.
    tail: BytesMut,
}

impl Deframer {
    /// Accepts frames of up to `max` bytes, the length prefix not counted.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, buffer: ReceiveBuffer::default(), skip_max: 0, skipping: None }
    }

    /// From here on [`Deframer::next_framed`] skips frames over the limit, up to this length.
    pub const fn skip_up_to(&mut self, len: usize) {
        self.skip_max = len;
    }

    /// Takes the next chunk of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        self.buffer.push(chunk);
    }

    /// Bytes received and not yet yielded.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The first four bytes, if that many have arrived.
    #[must_use]
    pub fn peek_word(&self) -> Option<[u8; 4]> {
        self.buffer.peek(0)
    }

    /// The second integer of the next frame's body, where requests have their opcode.
    #[must_use]
    pub fn peek_opcode(&self) -> Option<i32> {
        let at_a_frame = self.skipping.is_none();
        at_a_frame.then(|| self.buffer.peek(8).map(i32::from_be_bytes)).flatten()
    }

    /// The 8-byte integer from offset `at` on, if it has arrived.
    #[must_use]
    pub fn peek_long(&self, at: usize) -> Option<i64> {
        self.buffer.peek(at).map(i64::from_be_bytes)
    }

    /// The length of the frame that has begun to arrive.
    #[must_use]
    pub fn announced(&self) -> Option<usize> {
        let at_a_frame = self.skipping.is_none();
        let word = at_a_frame.then(|| self.buffer.peek(0)).flatten()?;
        usize::try_from(i32::from_be_bytes(word)).ok()
    }

    /// The next whole frame without its length; `None` until it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(word) = self.buffer.peek(0) else { return Ok(None) };
        let announced = i32::from_be_bytes(word);
        let error = FrameError { len: announced, max: self.max };
        let len = usize::try_from(announced).map_err(|_| error)?;
        if self.max < len {
            return Err(error);
        }
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(4 + len).split_off(4)))
    }

    /// The next whole frame, or that one over the limit went by.
    pub fn next_framed(&mut self) -> Result<Option<Framed>, FrameError> {
        if self.skipping.is_none() {
            match self.next_frame() {
                Ok(frame) => return Ok(frame.map(Framed::Frame)),
                Err(error) => {
                    let len = usize::try_from(error.len).map_err(|_| error)?;
                    if self.skip_max < len {
                        return Err(error);
                    }
                    drop(self.buffer.split_to(4));
                    self.skipping = Some(Skipping { len, left: len, head: BytesMut::new() });
                }
            }
        }
        Ok(self.skip())
    }

    fn skip(&mut self) -> Option<Framed> {
        let skipping = self.skipping.as_mut()?;
        let part = self.buffer.split_to(self.buffer.len().min(skipping.left));
        skipping.left -= part.len();
        let room = SKIPPED_FRAME_HEAD_BYTES.saturating_sub(skipping.head.len());
        skipping.head.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        if skipping.left != 0 {
            return None;
        }
        let Skipping { len, head, .. } = self.skipping.take()?;
        Some(Framed::Skipped { len, head: head.freeze() })
    }

    /// Everything not yet yielded.
    pub fn take_rest(&mut self) -> Bytes {
        self.buffer.split_to(self.buffer.len())
    }
}

impl ReceiveBuffer {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if self.head.is_empty() && self.tail.is_empty() {
            self.head = chunk;
        } else {
            self.tail.extend_from_slice(&chunk);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// The `N` bytes from offset `at` on, if they have arrived.
    pub(super) fn peek<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut word = [0; N];
        let bytes = self.head.iter().chain(self.tail.iter()).skip(at);
        let copied = word.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
        (copied == N).then_some(word)
    }

    /// Takes the first `len` bytes, which must have arrived. Copies only what spans chunks.
    pub(super) fn split_to(&mut self, len: usize) -> Bytes {
        if self.head.len() < len {
            self.join();
        }
        self.head.split_to(len)
    }

    /// Called at most once per part taken, and only when it spans chunks.
    fn join(&mut self) {
        let tail = self.tail.split();
        if self.head.is_empty() {
            self.head = tail.freeze();
            return;
        }
        let mut joined = BytesMut::with_capacity(self.head.len() + tail.len());
        joined.extend_from_slice(&self.head);
        joined.extend_from_slice(&tail);
        self.head = joined.freeze();
    }
}
