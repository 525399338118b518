//! [`Outbox`]: what one connection is owed and the driver was not yet given.

use bytes::{Bytes, BytesMut};

/// Bytes for one connection, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// An event that many connections hear, in its one encoding; `bytes` is empty beside it.
    event: Option<Bytes>,
    bytes: BytesMut,
}

impl Outbox {
    /// Where the next reply is appended.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        if let Some(event) = self.event.take() {
            self.bytes.extend_from_slice(&event);
        }
        &mut self.bytes
    }

    /// Appends an event that was encoded for all who hear it. It is copied only if something
    /// stands beside it.
    pub(super) fn push_event(&mut self, event: &Bytes) {
        if self.is_empty() {
            self.event = Some(event.clone());
        } else {
            self.tail().extend_from_slice(event);
        }
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.event.as_ref().map_or(0, Bytes::len) + self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything, in one piece.
    pub(super) fn take(&mut self) -> Bytes {
        self.event.take().unwrap_or_else(|| self.bytes.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_by_itself_is_shared_and_order_is_kept() {
        let event = Bytes::from_static(b"event");
        let mut outbox = Outbox::default();
        outbox.push_event(&event);
        assert_eq!(outbox.take().as_ptr(), event.as_ptr(), "not copied");
        outbox.push_event(&event);
        outbox.push_event(&event);
        outbox.tail().extend_from_slice(b" reply ");
        outbox.push_event(&event);
        assert_eq!(outbox.take(), "eventevent reply event");
        assert!(outbox.is_empty());
    }
}
