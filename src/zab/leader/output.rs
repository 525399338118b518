//! What a leader asks of its driver, and why it closes a connection or gives up.

use super::link::LinkId;
use crate::base::Instant;
use crate::model::{EnsembleConfig, ServerId, Zxid};
use crate::wire::quorum::{ForwardedRequest, LeaderPacket, Touch};
use crate::zab::paxos::{Epochs, EpochsExhausted};

/// What the driver owes.
#[derive(Debug)]
pub enum Output {
    /// Send this to the learner.
    Send(LinkId, LeaderPacket),
    /// Close the connection; `closed` need not be reported for it.
    Close(LinkId, CloseReason),
    /// Write the epochs record, then call [`Leader::stored`](super::Leader::stored).
    Store(Epochs),
    /// Choose how to synchronize a learner whose log ends at `last`, within the history up to
    /// [`Leader::committed`](super::Leader::committed), then call
    /// [`Leader::synchronize`](super::Leader::synchronize).
    Choose {
        /// Whom.
        link: LinkId,
        /// The last zxid of its log.
        last: Zxid,
    },
    /// Read the txns in (`after`, `upto`] from the log and hand them to
    /// [`Leader::history`](super::Leader::history), in order, in as many calls as suits.
    ReadHistory {
        /// For whom.
        link: LinkId,
        /// Exclusive.
        after: Zxid,
        /// Inclusive.
        upto: Zxid,
    },
    /// Send SNAP and a snapshot of a tree with everything up to `upto`, or later, then call
    /// [`Leader::snapshot_sent`](super::Leader::snapshot_sent) with the last zxid in it. One from
    /// before `upto` would take txns from the learner that it has acknowledged: what it lacks then
    /// comes behind the snapshot, and the connection may end in between.
    SendSnapshot {
        /// To whom.
        link: LinkId,
        /// The end of the history when it was chosen how to synchronize the learner.
        upto: Zxid,
    },
    /// The first configuration of the ensemble gets a version: write it down as the one that was
    /// last seen. Nothing that follows may be done before it is on disk.
    Config(EnsembleConfig),
    /// A quorum has the history: all of the log is committed, and the configuration that was last
    /// seen is in force. Prepare requests from here on, in this epoch.
    Established {
        /// The epoch.
        epoch: u32,
    },
    /// Everything up to here is committed: apply it.
    Committed(Zxid),
    /// The configuration that was proposed with this zxid is in force. If another server is to lead
    /// from here on, this one is over: nothing else follows but the commit itself.
    Activated {
        /// Its txn's.
        zxid: Zxid,
        /// Who leads.
        designated: ServerId,
    },
    /// A request that a learner forwards for a client.
    Request(LinkId, ForwardedRequest),
    /// A client of this session has come to the learner; answer with [`LeaderPacket::Revalidate`].
    Revalidate(LinkId, Touch),
    /// Sessions that a learner has heard of since it last said so; it may be none.
    Touched {
        /// The learner.
        link: LinkId,
        /// When it was asked: what it heard of later, it may tell later.
        asked: Instant,
        /// The sessions.
        touches: Vec<Touch>,
    },
    /// Leadership was confirmed by a quorum after the sync of this number was asked for, and
    /// everything proposed before it is committed.
    Synced(u64),
    /// This server leads no more. Nothing else follows.
    Abdicate(Abdication),
}

/// Why a learner's connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Its packet is not legal where the dialogue stands.
    #[error("{0} is not legal here")]
    Illegal(&'static str),
    /// Its configuration is newer than the leader's.
    #[error("its configuration, version {theirs:x}, is newer than the leader's, {ours:x}")]
    NewerConfig {
        /// The learner's.
        theirs: i64,
        /// The leader's.
        ours: i64,
    },
    /// It speaks the dialogue of before 3.4.
    #[error("it speaks protocol version {0:#x}")]
    Protocol(i32),
    /// Its history is ahead of the leader's.
    #[error("its history is ahead of the leader's")]
    Ahead,
    /// It was not heard of for too long.
    #[error("it was silent for too long")]
    Silent,
    /// Too many connections came after it, and it has not said who it is.
    #[error("it does not say who it is, and others have come")]
    Crowded,
    /// It does not keep up with the proposals.
    #[error("it does not acknowledge what it is sent")]
    Slow,
    /// The same server has a newer connection.
    #[error("the server has a newer connection")]
    Replaced,
    /// It was not synchronized when the next epoch began in place.
    #[error("the next epoch begins")]
    Renewal,
    /// A reconfiguration is committed, which it would miss where its synchronization is.
    #[error("it would miss the reconfiguration that is committed now")]
    Activation,
}

/// Why a leader stops leading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abdication {
    /// No quorum came in time.
    #[error("no quorum in time: {0}")]
    NotEstablished(String),
    /// The quorum was lost.
    #[error("the quorum is lost: {0}")]
    QuorumLost(String),
    /// This server's own log does not keep up.
    #[error("the own log has not taken a proposal for too long")]
    OwnLogStalls,
    /// No zxid is left in the epoch.
    #[error("the epoch's zxids are used up")]
    Rollover,
    /// The configuration that came into force names others to lead.
    #[error("it does not vote, at its present address, in the configuration that is in force")]
    NoVoter,
    /// No epoch is left.
    #[error("{0}")]
    NoEpoch(EpochsExhausted),
}
