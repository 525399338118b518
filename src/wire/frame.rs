//! Cutting a byte stream into length-prefixed frames.

use bytes::{Buf, Bytes, BytesMut};

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
    /// Received and not yet yielded: `head` first, then `tail`.
    head: Bytes,
    tail: BytesMut,
}

impl Deframer {
    /// Accepts frames of up to `max` bytes, the length prefix not counted.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, head: Bytes::new(), tail: BytesMut::new() }
    }

    /// Takes the next chunk of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.head.is_empty() && self.tail.is_empty() {
            self.head = chunk;
        } else {
            self.tail.extend_from_slice(&chunk);
        }
    }

    /// Bytes received and not yet yielded.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// The first four bytes, if that many have arrived.
    #[must_use]
    pub fn peek_word(&self) -> Option<[u8; 4]> {
        self.peek(0)
    }

    /// The second integer of the next frame's body, where requests have their opcode.
    #[must_use]
    pub fn peek_opcode(&self) -> Option<i32> {
        self.peek(8).map(i32::from_be_bytes)
    }

    fn peek(&self, at: usize) -> Option<[u8; 4]> {
        let mut word = [0; 4];
        let bytes = self.head.iter().chain(self.tail.iter()).skip(at);
        let copied = word.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
        (copied == 4).then_some(word)
    }

    /// The next whole frame without its length; `None` until it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(word) = self.peek(0) else { return Ok(None) };
        let announced = i32::from_be_bytes(word);
        let error = FrameError { len: announced, max: self.max };
        let len = usize::try_from(announced).map_err(|_| error)?;
        if self.max < len {
            return Err(error);
        }
        if self.buffered() < 4 + len {
            return Ok(None);
        }
        if self.head.len() < 4 + len {
            self.join();
        }
        self.head.advance(4);
        Ok(Some(self.head.split_to(len)))
    }

    /// Everything not yet yielded.
    pub fn take_rest(&mut self) -> Bytes {
        self.join();
        std::mem::take(&mut self.head)
    }

    /// Called at most once per yielded frame, and only when the frame spans chunks.
    fn join(&mut self) {
        if self.tail.is_empty() {
            return;
        }
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
