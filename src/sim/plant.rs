//! Bugs put in on purpose, which the oracle must find, and those of them that show in what the
//! server sends.

use bytes::{Buf, Bytes, BytesMut};

use crate::base::Prng;

/// A bug put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// None.
    None,
    /// Durable writes stay in the drive's cache.
    FlushSkipped,
    /// Directories are not flushed: files lose their names with the power.
    DirectoryNotFlushed,
    /// Completions are reported before the write has taken place.
    AckBeforeFlush,
    /// Events are sent behind the replies of the same turn.
    WatchAfterReply,
    /// An event is not sent.
    EventLost,
    /// An event is sent twice.
    EventTwice,
    /// An event carries another txn's zxid.
    EventOfAnotherTxn,
    /// Two replies are sent in the wrong order.
    RepliesSwapped,
    /// A reply's body is wrong.
    ReplyAltered,
    /// A refusal is answered as a success.
    RefusalHidden,
    /// A batch that does not follow the one before is taken for the log's torn end.
    ChainIgnored,
    /// A satellite reads before it has caught up with what is published.
    StaleReplica,
    /// A restart forgets a session.
    SessionForgotten,
    /// Sessions die by the clock while the server is stalled: the time is not credited.
    StallUncredited,
    /// A restart forgets what a member of an ensemble has promised.
    EpochsForgotten,
    /// A server that has lost its history votes as if it had an empty one.
    LossForgotten,
    /// A log that is to be cut is kept whole.
    CutIgnored,
    /// A leader's memory of its log begins later than it says: what it reads from its files for a
    /// learner ends before.
    HistoryGap,
    /// Packets between servers are lost, and those behind them arrive.
    PacketsLost,
    /// Packets between servers are sent twice.
    PacketsTwice,
}

impl Plant {
    /// Those that are looked for in one server.
    pub const ALL: [Self; 14] = [
        Self::FlushSkipped,
        Self::DirectoryNotFlushed,
        Self::AckBeforeFlush,
        Self::WatchAfterReply,
        Self::EventLost,
        Self::EventTwice,
        Self::EventOfAnotherTxn,
        Self::RepliesSwapped,
        Self::ReplyAltered,
        Self::RefusalHidden,
        Self::ChainIgnored,
        Self::StaleReplica,
        Self::SessionForgotten,
        Self::StallUncredited,
    ];

    /// Those that are looked for in ensembles.
    pub const OF_ENSEMBLES: [Self; 15] = [
        Self::FlushSkipped,
        Self::AckBeforeFlush,
        Self::EventLost,
        Self::EventTwice,
        Self::RepliesSwapped,
        Self::ReplyAltered,
        Self::RefusalHidden,
        Self::StaleReplica,
        Self::SessionForgotten,
        Self::EpochsForgotten,
        Self::CutIgnored,
        Self::LossForgotten,
        Self::HistoryGap,
        Self::PacketsLost,
        Self::PacketsTwice,
    ];

    /// Whether it is in the packets that servers send each other.
    pub(super) const fn is_in_packets(self) -> bool {
        matches!(self, Self::PacketsLost | Self::PacketsTwice)
    }

    /// What the bug makes of the bytes of one turn to one client. The answer to the handshake is
    /// left alone: it has no header.
    pub(super) fn tamper(self, bytes: Bytes, attached: bool, prng: &mut Prng) -> Bytes {
        let tampers = matches!(
            self,
            Self::WatchAfterReply
                | Self::EventLost
                | Self::EventTwice
                | Self::EventOfAnotherTxn
                | Self::RepliesSwapped
                | Self::ReplyAltered
                | Self::RefusalHidden
        );
        if !tampers || !attached {
            return bytes;
        }
        let mut frames = split(bytes);
        let unlucky = prng.one_in(4);
        let is_event = |frame: &BytesMut| xid_of(frame) == -1;
        let event = frames.iter().position(is_event).filter(|_| unlucky);
        match (self, event) {
            (Self::WatchAfterReply, _) => frames.sort_by_key(is_event),
            (Self::EventLost, Some(at)) => {
                frames.remove(at);
            }
            (Self::EventTwice, Some(at)) => {
                let copy = frames.get(at).cloned().unwrap_or_default();
                frames.insert(at, copy);
            }
            (Self::EventOfAnotherTxn, Some(at)) => add_to(frames.get_mut(at), LAST_OF_ZXID),
            (Self::RepliesSwapped, _) if unlucky && frames.len() == 2 => frames.swap(0, 1),
            (Self::ReplyAltered, None) if unlucky => {
                let long = frames.iter_mut().find(|frame| LAST_OF_CODE + 1 < frame.len());
                if let Some(frame) = long {
                    let last = frame.len() - 1;
                    add_to(Some(frame), last);
                }
            }
            (Self::RefusalHidden, _) => {
                let refused = |frame: &&mut BytesMut| {
                    frame.len() == LAST_OF_CODE + 1
                        && frame.last().copied() == (-103_i32).to_be_bytes().last().copied()
                };
                if let Some(frame) = frames.iter_mut().find(refused)
                    && let Some(code) = frame.get_mut(LAST_OF_CODE - 3..)
                {
                    code.fill(0);
                }
            }
            _ => {}
        }
        frames.concat().into()
    }
}

/// Offsets in a frame, its length included: the last bytes of the header's zxid and error code.
const LAST_OF_ZXID: usize = 15;
const LAST_OF_CODE: usize = 19;

fn add_to(frame: Option<&mut BytesMut>, at: usize) {
    if let Some(byte) = frame.and_then(|frame| frame.get_mut(at)) {
        *byte = byte.wrapping_add(1);
    }
}

fn xid_of(frame: &BytesMut) -> i32 {
    frame.get(4..8).map_or(0, |mut xid| xid.get_i32())
}

fn split(mut bytes: Bytes) -> Vec<BytesMut> {
    let mut frames = Vec::new();
    while 4 <= bytes.len() {
        let len = usize::try_from(bytes.clone().get_i32()).unwrap_or_default();
        let frame = bytes.split_to(bytes.len().min(4 + len));
        frames.push(BytesMut::from(frame.as_ref()));
    }
    frames
}
