//! What the commit pipeline and the shards tell each other.
//!
//! A shard hears one ordered stream from the pipeline: deltas in zxid order, with the answers to
//! its own handshakes between them. The pipeline hears requests from each shard in the order of
//! arrival. Nothing else crosses.

use std::sync::Arc;

use bytes::Bytes;

use super::credit::Credit;
use super::shard::{Scope, ShardReport};
use crate::auth::Identities;
use crate::base::Instant;
use crate::model::{
    ConnId, ErrorCode, Generation, SessionId, ShardId, TxnBody, TxnHeader, WriteRequest, Xid,
};
use crate::tree::{Applied, Tree};
use crate::wire::word::Word;

/// What a shard asks of the pipeline, in the order in which it must be heard.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A handshake.
    Attach(Attach),
    /// A write.
    Submit(Submit),
    /// A sync that needs the leader's word.
    Sync(SessionId, Origin),
    /// The session is alive.
    Touch(SessionId),
    /// The connection of an attachment is gone. When it was last heard of.
    Detach(SessionId, Generation, Instant),
    /// A four-letter word waits for its text.
    Word(ConnId, Word),
    /// The answer to [`ToShard::AskLife`]: when the session was last heard of; `None` if its
    /// connection is not here.
    Life(SessionId, Option<Instant>),
    /// A piece of the answer to [`ToShard::Report`].
    Report(Ticket, Box<ShardReport>),
    /// Whether there are watches here, so that deltas are urgent.
    Watching(bool),
    /// This many bytes of deltas were applied here since the last time.
    Passed(usize),
    /// There is no room for more outstanding requests here.
    Borrow,
    /// What was lent and is no longer needed.
    GiveBack(Credit),
    /// Every connection is closed, after [`ToShard::CloseAll`].
    Emptied,
}

/// Names a question that several shards answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// One item of the stream that a satellite hears from the pipeline.
#[derive(Debug)]
pub(crate) enum ToShard {
    /// A committed txn; applied once it is published. With its size for [`Ask::Passed`].
    Delta(Arc<Delta>, usize),
    /// The answer to a handshake, or the end of a connection.
    Notice(Notice),
    /// The next piece of a four-letter word's text; whether it is the last.
    WordText(ConnId, String, bool),
    /// The session seems overdue: was it heard of?
    AskLife(SessionId),
    /// Say what the words tell.
    Report(Ticket, Scope),
    /// Room for more outstanding requests.
    Lend(Credit),
    /// Count from zero again.
    ResetStats,
    /// Count each connection's requests from zero again.
    ResetConnStats,
    /// Take nothing new in.
    StopAccepting,
    /// Close every connection.
    CloseAll,
    /// There is no leader: close the connections of sessions, answer words only.
    Suspend,
    /// Take clients.
    Resume(Service),
    /// This tree takes the replica's place. Comes while suspended.
    Replace(Box<Tree>),
}

/// What clients are served with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Service {
    /// Words only.
    #[default]
    Nothing,
    /// Reads, for clients who have said that they want no more: there is no quorum.
    ReadOnly,
    /// Everything.
    Full,
}

/// A connection, and the shard that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    /// The owner.
    pub shard: ShardId,
    /// The connection.
    pub conn: ConnId,
}

/// A client's handshake on its way to the pipeline.
#[derive(Debug)]
pub(crate) struct Attach {
    /// Where the answer goes.
    pub to: Address,
    /// The session to renew; 0 asks for a new one.
    pub session: SessionId,
    /// What the client offers as the session's password.
    pub password: Option<Bytes>,
    /// Requested timeout, ms.
    pub timeout_ms: i32,
}

/// A write on its way to the pipeline.
#[derive(Debug)]
pub(crate) struct Submit {
    /// Where the answer goes.
    pub origin: Origin,
    /// The session that asks.
    pub session: SessionId,
    /// The identities of its connection when the request was received.
    pub identities: Identities,
    /// The request, or the error that a body that does not decode is answered with.
    pub request: Result<WriteRequest, ErrorCode>,
    /// In an ensemble: the opcode, and the body to be forwarded.
    pub raw: Option<(i32, Bytes)>,
}

/// Where a write came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The connection.
    pub address: Address,
    /// The attachment under which it was sent: writes of an older one are dropped.
    pub generation: Generation,
    /// The client's number for it. Clients choose what they like, and may repeat it.
    pub xid: Xid,
    /// Its place among the requests of the connection.
    pub number: u64,
}

/// One committed txn and what it did, as every shard learns it.
#[derive(Debug)]
pub(crate) struct Delta {
    /// Who, when, where in the order.
    pub header: TxnHeader,
    /// What.
    pub body: TxnBody,
    /// The steps it took and the outcome for the client.
    pub applied: Applied,
    /// Whom to answer; `None` for the server's own txns.
    pub origin: Option<Origin>,
}

/// Answers of the pipeline that are not deltas.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// The handshake succeeded.
    Attached {
        /// Which connection.
        conn: ConnId,
        /// Its session.
        session: SessionId,
        /// The attachment's number.
        generation: Generation,
        /// Negotiated timeout, ms.
        timeout_ms: i32,
    },
    /// The handshake was refused: wrong password, or the session is gone.
    Refused {
        /// Which connection.
        conn: ConnId,
    },
    /// Close the connection without a word: its session went elsewhere.
    Drop {
        /// Which connection.
        conn: ConnId,
    },
    /// A write does not become a txn: this is its answer.
    Answered(Origin, ErrorCode),
    /// A sync may be answered.
    Synced(Origin),
}
