//! Cutting the byte stream of the quorum port into packets.

use bytes::Bytes;

use super::{DATA_AT, DATA_HEAD_BYTES_MAX, QuorumPacket};
use crate::limits::{AUTHINFO_BYTES_MAX, RECORD_BYTES_MAX};
use crate::wire::frame::ReceiveBuffer;
use crate::wire::jute::{DecodeError, DecodeErrorKind, Reader};

/// Collects chunks and yields whole packets. What is held is never more than what was received;
/// a packet that lies within one chunk is not copied.
///
/// The driver pushes a chunk, then takes packets until there is none. Behind a SNAP packet it takes
/// [`PacketStream::take_rest`], and pushes back what the snapshot leaves over.
#[derive(Debug)]
pub struct PacketStream {
    buffer: ReceiveBuffer,
    data_bytes_max: usize,
}

impl Default for PacketStream {
    /// As with the default settings of both ends.
    fn default() -> Self {
        Self::new(RECORD_BYTES_MAX)
    }
}

impl PacketStream {
    /// Of an ensemble whose txns and requests are no longer than `record_bytes_max`.
    #[must_use]
    pub fn new(record_bytes_max: usize) -> Self {
        let data_bytes_max = record_bytes_max.saturating_add(DATA_HEAD_BYTES_MAX);
        Self { buffer: ReceiveBuffer::default(), data_bytes_max }
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

    /// The next whole packet; `None` until it has arrived. An error is final: the stream has no
    /// marks from which reading could go on.
    pub fn next_packet(&mut self) -> Result<Option<QuorumPacket>, DecodeError> {
        let Some(bytes) = self.next_bytes()? else { return Ok(None) };
        QuorumPacket::decode(&mut Reader::new(&bytes)).map(Some)
    }

    /// The bytes of the next whole packet, otherwise as [`PacketStream::next_packet`].
    pub fn next_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(len) = self.measure()? else { return Ok(None) };
        Ok((len <= self.buffer.len()).then(|| self.buffer.split_to(len)))
    }

    /// Everything not yet yielded.
    pub fn take_rest(&mut self) -> Bytes {
        self.buffer.split_to(self.buffer.len())
    }

    /// Length of the first packet, as soon as enough of it is there to tell.
    fn measure(&self) -> Result<Option<usize>, DecodeError> {
        let Some(data) = self.length("data", DATA_AT, self.data_bytes_max)? else {
            return Ok(None);
        };
        let count_at = DATA_AT + 4 + data;
        let Some(count) = self.word(count_at) else { return Ok(None) };
        let mut at = count_at + 4;
        // Counts below zero are empty lists; each identity is two strings.
        for _ in 0..count.max(0).saturating_mul(2) {
            let left = AUTHINFO_BYTES_MAX.checked_sub(at - count_at);
            let Some(left) = left else {
                let kind = DecodeErrorKind::Length(count);
                return Err(DecodeError { at: count_at, field: "authinfo", kind });
            };
            let Some(len) = self.length("authinfo", at, left)? else { return Ok(None) };
            at += 4 + len;
        }
        Ok(Some(at))
    }

    /// The length that stands at `at`; null has none.
    fn length(
        &self,
        field: &'static str,
        at: usize,
        max: usize,
    ) -> Result<Option<usize>, DecodeError> {
        match self.word(at) {
            None => Ok(None),
            Some(-1) => Ok(Some(0)),
            Some(len) => match usize::try_from(len) {
                Ok(len) if len <= max => Ok(Some(len)),
                _ => Err(DecodeError { at, field, kind: DecodeErrorKind::Length(len) }),
            },
        }
    }

    fn word(&self, at: usize) -> Option<i32> {
        self.buffer.peek(at).map(i32::from_be_bytes)
    }
}
