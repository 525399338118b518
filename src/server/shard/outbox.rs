//! [`Outbox`]: what one connection is owed and the driver was not yet given, in order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::long::{LongAnswer, MultiRead};

/// Finished bytes, then long answers that are being made, each with what comes behind it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Pieces of a long answer.
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    /// An event that many connections hear, in its one encoding; everything else is empty then.
    event: Option<Bytes>,
    bytes: BytesMut,
    held: VecDeque<(LongAnswer, BytesMut)>,
}

impl Outbox {
    /// Where the next reply is appended.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        if let Some(event) = self.event.take() {
            self.bytes.extend_from_slice(&event);
        }
        self.held.back_mut().map_or(&mut self.bytes, |(_, behind)| behind)
    }

    /// Appends an event that was encoded for all who hear it. It is copied only if something
    /// stands beside it.
    pub(super) fn push_event(&mut self, event: &Bytes) {
        if self.is_empty() && !self.is_holding() {
            self.event = Some(event.clone());
        } else {
            self.tail().extend_from_slice(event);
        }
    }

    /// Appends a long answer that is yet to be made.
    pub(super) fn hold(&mut self, answer: LongAnswer) {
        self.tail();
        self.held.push_back((answer, BytesMut::new()));
    }

    /// Whether a long answer is being made.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the one that comes first reads the tree.
    pub(super) fn is_at_read(&self) -> bool {
        self.held.front().is_some_and(|(answer, _)| !matches!(answer, LongAnswer::Results(_)))
    }

    /// Bytes of long answers that need no reading, and of what stands behind long answers: the
    /// client is owed them whatever it does.
    pub(super) fn held_bytes(&self) -> usize {
        let bytes = |(answer, behind): &(LongAnswer, BytesMut)| answer.owed_bytes() + behind.len();
        self.held.iter().map(bytes).sum()
    }

    /// Goes on with the long answer that comes first. `slice` gives the answer once it is whole.
    pub(super) fn go_on(&mut self, slice: impl FnOnce(&mut LongAnswer) -> Option<Vec<Bytes>>) {
        let Some((held, _)) = self.held.front_mut() else { return };
        let Some(answer) = slice(held) else { return };
        let Some((_, behind)) = self.held.pop_front() else { return };
        let before = std::mem::replace(&mut self.bytes, behind).freeze();
        for chunk in std::iter::once(before).chain(answer).filter(|chunk| !chunk.is_empty()) {
            self.chunk_bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// The multiRead that has not read everything.
    pub(super) fn multi_read(&mut self) -> Option<&mut MultiRead> {
        self.held.iter_mut().find_map(|(answer, _)| match answer {
            LongAnswer::MultiRead(read) if !read.is_done() => Some(read),
            _ => None,
        })
    }

    /// Number of finished bytes.
    pub(super) fn len(&self) -> usize {
        self.chunk_bytes + self.event.as_ref().map_or(0, Bytes::len) + self.bytes.len()
    }

    /// Whether no finished bytes are left.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next piece. Of long answers only while the socket `has_room`.
    pub(super) fn take(&mut self, has_room: bool) -> Option<Bytes> {
        if self.chunks.is_empty() {
            let rest = self.event.take().unwrap_or_else(|| self.bytes.split().freeze());
            return (!rest.is_empty()).then_some(rest);
        }
        let chunk = has_room.then(|| self.chunks.pop_front()).flatten()?;
        self.chunk_bytes -= chunk.len();
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::SetWatches;
    use crate::model::{Xid, Zxid};
    use crate::server::shard::long::Rewatch;

    #[test]
    fn an_event_by_itself_is_shared_and_order_is_kept() {
        let event = Bytes::from_static(b"event");
        let mut outbox = Outbox::default();
        outbox.push_event(&event);
        assert_eq!(outbox.take(true).expect("it is owed").as_ptr(), event.as_ptr(), "not copied");
        outbox.push_event(&event);
        outbox.push_event(&event);
        outbox.tail().extend_from_slice(b" reply ");
        outbox.push_event(&event);
        assert_eq!(outbox.take(true).expect("it is owed"), "eventevent reply event");
        assert_eq!((outbox.take(true), outbox.is_empty()), (None, true));
    }

    #[test]
    fn what_comes_behind_a_long_answer_waits_for_it() {
        let read = || LongAnswer::Rewatch(Rewatch::begin(SetWatches::default(), Xid(1), Zxid(1)));
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"before");
        outbox.hold(read());
        outbox.push_event(&Bytes::from_static(b"between"));
        outbox.hold(read());
        outbox.tail().extend_from_slice(b"behind");
        assert!(outbox.is_at_read(), "what it would be told is not known yet");
        assert_eq!(outbox.held_bytes(), "between".len() + "behind".len(), "nothing is read yet");
        assert_eq!(outbox.take(true).expect("it is owed"), "before");
        assert_eq!(outbox.take(true), None);
        outbox.go_on(|_| None);
        assert_eq!((outbox.take(true), outbox.is_holding()), (None, true));
        let answer = |text: &'static str| Some(vec![Bytes::from_static(text.as_bytes())]);
        outbox.go_on(|_| answer("first"));
        outbox.go_on(|_| answer("second"));
        assert_eq!((outbox.len(), outbox.take(false)), (24, None), "there is no room");
        let all: Vec<Bytes> = std::iter::from_fn(|| outbox.take(true)).collect();
        assert_eq!(all, ["first", "between", "second", "behind"]);
        assert!(!outbox.is_holding() && outbox.is_empty());
    }
}
