//! Bugs put in on purpose, which the oracle must find, and those of them that show in what the
//! server sends.

use bytes::{Buf, Bytes, BytesMut};

use crate::base::{FileName, Prng};
use crate::model::ErrorCode;
use crate::server::epochs;

/// A bug put in on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
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
    /// A reply carries another txn's zxid.
    ReplyOfAnotherTxn,
    /// A reply is not sent.
    ReplyLost,
    /// A reply is sent twice.
    ReplyTwice,
    /// A success is answered as a refusal.
    SuccessHidden,
    /// An event names another path.
    EventOfAnotherPath,
    /// An event is of another type.
    EventOfAnotherType,
    /// No configuration is written down.
    ConfigsForgotten,
    /// A restart takes a proposed configuration for the one in force: the old quorum is not asked.
    ProposedTakenForCommitted,
    /// A restart counts the votes of servers that were removed.
    RemovedStillVotes,
    /// Servers know only a part of the voters: a minority is a quorum.
    MinorityIsQuorum,
    /// Some servers count servers where weights count.
    WeightsIgnored,
    /// Some servers count observers.
    ObserversCounted,
    /// The epochs record stays in the drive's cache.
    EpochsNotFlushed,
    /// Snapshots stay in the drive's cache.
    SnapshotsNotFlushed,
    /// A log is cut one txn too early.
    CutTooFar,
    /// A restart takes the last txn of the log for its torn end.
    LastTxnForgotten,
    /// A leader tells of a commit when it proposes.
    CommitBeforeQuorum,
    /// A leader proposes another txn to one learner than to others.
    ProposalAltered,
    /// A leader believes that a learner has accepted its history before it has.
    NewLeaderAckedEarly,
    /// A learner acknowledges one txn more than it has.
    AckInflated,
    /// A leader's snapshot does not contain the last txn that it is said to contain.
    SnapshotAhead,
    /// A learner whose log has parted from the leader's is treated as if it had not.
    DiffForAll,
    /// A leader hears a learner's request twice.
    RequestTwice,
    /// A leader hears another request than the client has sent.
    RequestAltered,
    /// Servers believe what was damaged on its way.
    ChecksumIgnored,
    /// A server without a quorum lets every client in.
    ReadOnlyForAll,
    /// A server without a quorum does not tell its clients so.
    ReadOnlyUntold,
    /// A write that is refused for want of a quorum is answered as a success.
    ReadOnlyWrites,
}

impl Plant {
    /// Those that are looked for in one server.
    pub const ALL: [Self; 20] = [
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
        Self::ReplyOfAnotherTxn,
        Self::ReplyLost,
        Self::ReplyTwice,
        Self::SuccessHidden,
        Self::EventOfAnotherPath,
        Self::EventOfAnotherType,
    ];

    /// Those that are looked for in ensembles.
    pub const OF_ENSEMBLES: [Self; 37] = [
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
        Self::ConfigsForgotten,
        Self::ProposedTakenForCommitted,
        Self::RemovedStillVotes,
        Self::MinorityIsQuorum,
        Self::WeightsIgnored,
        Self::ObserversCounted,
        Self::EpochsNotFlushed,
        Self::SnapshotsNotFlushed,
        Self::CutTooFar,
        Self::LastTxnForgotten,
        Self::CommitBeforeQuorum,
        Self::ProposalAltered,
        Self::NewLeaderAckedEarly,
        Self::AckInflated,
        Self::SnapshotAhead,
        Self::DiffForAll,
        Self::RequestTwice,
        Self::RequestAltered,
        Self::ChecksumIgnored,
        Self::ReadOnlyForAll,
        Self::ReadOnlyUntold,
        Self::ReadOnlyWrites,
    ];

    /// Whether only changes of an ensemble's members reveal it.
    pub(super) const fn needs_changes(self) -> bool {
        matches!(
            self,
            Self::ConfigsForgotten | Self::ProposedTakenForCommitted | Self::RemovedStillVotes
        )
    }

    /// Whether it is in the packets that servers send each other.
    pub(super) const fn is_in_packets(self) -> bool {
        matches!(
            self,
            Self::PacketsLost
                | Self::PacketsTwice
                | Self::CommitBeforeQuorum
                | Self::ProposalAltered
                | Self::NewLeaderAckedEarly
                | Self::AckInflated
                | Self::SnapshotAhead
                | Self::DiffForAll
                | Self::RequestTwice
                | Self::RequestAltered
                | Self::ChecksumIgnored
        )
    }

    /// Whether the drive keeps a durable write of this file in its cache.
    pub(super) fn leaves_in_cache(self, file: &FileName) -> bool {
        match self {
            Self::FlushSkipped => true,
            Self::EpochsNotFlushed => file.name.starts_with(epochs::FILE_NAME),
            Self::SnapshotsNotFlushed => file.name.starts_with("snapshot."),
            _ => false,
        }
    }

    /// What the bug makes of a client's handshake.
    pub(super) fn tamper_hello(self, hello: Bytes) -> Bytes {
        if self == Self::ReadOnlyForAll { with_last(hello, 1) } else { hello }
    }

    /// What the bug makes of the bytes of one turn to one client. All but one leave the answer to
    /// the handshake alone: it has no header.
    pub(super) fn tamper(self, bytes: Bytes, attached: bool, prng: &mut Prng) -> Bytes {
        if self == Self::ReadOnlyUntold && !attached {
            return with_last(bytes, 0);
        }
        let tampers = matches!(
            self,
            Self::WatchAfterReply
                | Self::EventLost
                | Self::EventTwice
                | Self::EventOfAnotherTxn
                | Self::RepliesSwapped
                | Self::ReplyAltered
                | Self::RefusalHidden
                | Self::ReplyOfAnotherTxn
                | Self::ReplyLost
                | Self::ReplyTwice
                | Self::SuccessHidden
                | Self::EventOfAnotherPath
                | Self::EventOfAnotherType
                | Self::ReadOnlyWrites
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
            (Self::EventOfAnotherPath, Some(at)) => {
                if let Some(frame) = frames.get_mut(at) {
                    let last = frame.len() - 1;
                    add_to(Some(frame), last);
                }
            }
            (Self::EventOfAnotherType, Some(at)) => add_to(frames.get_mut(at), LAST_OF_TYPE),
            (Self::ReplyOfAnotherTxn, None) if unlucky => {
                add_to(frames.first_mut(), LAST_OF_ZXID);
            }
            (Self::ReplyLost, None) if unlucky => drop(frames.pop()),
            (Self::ReplyTwice, None) if unlucky => frames.extend(frames.last().cloned()),
            (Self::SuccessHidden, None) if unlucky => {
                let succeeds = |frame: &&mut BytesMut| {
                    0 <= xid_of(frame)
                        && frame.get(LAST_OF_CODE - 3..=LAST_OF_CODE) == Some(&[0; 4])
                };
                if let Some(frame) = frames.iter_mut().find(succeeds) {
                    refuse(frame);
                }
            }
            (Self::RepliesSwapped, _) if unlucky && frames.len() == 2 => frames.swap(0, 1),
            (Self::ReplyAltered, None) if unlucky => {
                let long = frames.iter_mut().find(|frame| LAST_OF_CODE + 1 < frame.len());
                if let Some(frame) = long {
                    let last = frame.len() - 1;
                    add_to(Some(frame), last);
                }
            }
            (Self::RefusalHidden, _) => hide_refusal(&mut frames, ErrorCode::BAD_VERSION),
            (Self::ReadOnlyWrites, _) => hide_refusal(&mut frames, ErrorCode::NOT_READ_ONLY),
            _ => {}
        }
        frames.concat().into()
    }
}

/// Offsets in a frame, its length included: the last bytes of the header's zxid and error code.
const LAST_OF_ZXID: usize = 15;
const LAST_OF_CODE: usize = 19;
/// The last byte of an event's type.
const LAST_OF_TYPE: usize = 23;

/// A reply without a body that says `NODEEXISTS`.
fn refuse(frame: &mut BytesMut) {
    frame.truncate(LAST_OF_CODE + 1);
    if let Some(len) = frame.get_mut(..4) {
        len.copy_from_slice(&16_i32.to_be_bytes());
    }
    if let Some(code) = frame.get_mut(LAST_OF_CODE - 3..) {
        code.copy_from_slice(&(-110_i32).to_be_bytes());
    }
}

/// Makes the first reply that says only this a success.
fn hide_refusal(frames: &mut [BytesMut], refusal: ErrorCode) {
    let is_refused = |frame: &&mut BytesMut| {
        frame.len() == LAST_OF_CODE + 1 && frame.ends_with(&refusal.0.to_be_bytes())
    };
    if let Some(frame) = frames.iter_mut().find(is_refused)
        && let Some(code) = frame.get_mut(LAST_OF_CODE - 3..)
    {
        code.fill(0);
    }
}

/// The same frame with another last byte.
fn with_last(frame: Bytes, byte: u8) -> Bytes {
    let mut frame = BytesMut::from(frame);
    if let Some(last) = frame.last_mut() {
        *last = byte;
    }
    frame.freeze()
}

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
