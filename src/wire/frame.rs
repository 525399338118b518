//! Cutting a byte stream into length-prefixed frames.

use bytes::{Bytes, BytesMut};

/// A frame length that is negative or above the limit. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame length {len} is outside 0..={max} (jute.maxbuffer)")]
pub struct FrameError {
    /// As received.
    pub len: i32,
    /// The limit in force.
    pub max: usize,
}

/// Collects chunks and yields whole frames. A frame that lies within one chunk is not copied;
/// what is held is never more than what was received.
#[derive(Debug)]
pub struct Deframer {
    max: usize,
    buffer: ReceiveBuffer,
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
        Self { max, buffer: ReceiveBuffer::default() }
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
        self.buffer.peek(8).map(i32::from_be_bytes)
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
