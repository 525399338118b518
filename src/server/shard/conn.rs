//! One client connection: what it has received, what it owes, and its phase.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::auth::Identities;
use crate::base::Instant;
use crate::limits;
use crate::model::{ErrorCode, Generation, ReadRequest, SessionId, Xid, Zxid};
use crate::wire::frame::Deframer;
use crate::wire::opcode;
use crate::wire::request::MultiDecoder;

use super::outbox::Outbox;
use crate::server::contract::Clock;
use crate::server::credit::Credit;
use crate::server::stats::Latency;

/// The state of one connection. `queue` holds what was received and not answered, in order.
pub(super) struct Conn {
    pub(super) phase: Phase,
    pub(super) identities: Identities,
    /// When it was last heard of: its last bytes came, or its last request was taken in.
    pub(super) heard: Instant,
    /// When the pipeline was last told so.
    pub(super) touched: Option<Instant>,
    pub(super) deframer: Deframer,
    pub(super) queue: VecDeque<Pending>,
    /// How many requests have left the queue: the number of the one at its head.
    pub(super) answered: u64,
    /// Bytes of the requests in `queue`.
    pub(super) queued_bytes: usize,
    /// Replies and events of this turn.
    pub(super) out: Outbox,
    /// Those of them whose frames are large.
    pub(super) large_bytes: usize,
    /// Room kept for the long frame that has begun to arrive, or is being decoded.
    pub(super) reserved_bytes: usize,
    /// A multi that is being decoded, with its frame.
    pub(super) decoding: Option<Box<(Bytes, MultiDecoder)>>,
    /// It ends behind the last request in `queue`: nothing more is taken in.
    pub(super) ends: bool,
    /// Bytes handed to the driver that the socket has not taken.
    pub(super) unsent_bytes: usize,
    /// When the socket last took some, or was given the first.
    pub(super) sent_at: Instant,
    /// What the shard has counted.
    pub(super) counted: Load,
    /// Since when received frames wait because a limit was reached.
    pub(super) held_since: Option<Instant>,
    pub(super) paused: bool,
    /// In the shard's list of connections to visit at the end of the turn.
    pub(super) dirty: bool,
    /// In the shard's list of connections whose long answers are being made.
    pub(super) in_long: bool,
    /// In the shard's list of connections that wait for room.
    pub(super) in_stalled: bool,
    /// The txn of which only a part is applied here, if an event of it stands in `out`.
    pub(super) told_midway: Option<Zxid>,
    /// The driver was told to close.
    pub(super) close_asked: bool,
    /// Nothing more is sent before that.
    pub(super) aborted: bool,
    pub(super) stats: ConnStats,
}

/// What a connection costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) outstanding: Credit,
    pub(super) large_bytes: usize,
    pub(super) unsent_bytes: usize,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing complete was received: a four-letter word or a handshake may follow.
    Fresh,
    /// A word waits for its text.
    Word,
    /// The handshake waits for the pipeline. Bytes behind it are kept.
    Attaching {
        /// The client sent the readOnly byte, so the answer has one too.
        has_read_only: bool,
    },
    /// Attached to a session.
    Live { session: SessionId, generation: Generation },
    /// Output is sent, input ignored.
    Closing {
        /// The attachment it had.
        attachment: Option<(SessionId, Generation)>,
    },
}

/// One request that was received and not answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) xid: Xid,
    pub(super) bytes: usize,
    /// Counts against `largeRequestMaxBytes`.
    pub(super) large: bool,
    pub(super) since: Instant,
    /// Name of the op for `cons`.
    pub(super) opcode: i32,
    pub(super) work: Work,
}

impl Pending {
    const fn large_bytes(&self) -> usize {
        if self.large { self.bytes } else { 0 }
    }
}

/// How a request comes to its answer.
#[derive(Debug)]
pub(super) enum Work {
    /// Known at receipt.
    Answer(Answer),
    /// Runs against the tree at the head of the queue.
    Read(ReadRequest, Identities),
    /// The identities of the connection when the request was received.
    WhoAmI(Identities),
    /// Answered with its path when everything before it is applied here and, in an ensemble, when
    /// the leader's word is no longer awaited.
    Sync { path: crate::base::Str, awaited: bool },
    /// In the pipeline; its delta answers it.
    Write(WriteKind),
}

impl Work {
    /// Whether it waits for the pipeline.
    pub(super) const fn waits(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Sync { awaited: true, .. })
    }
}

/// Which reply record a write has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteKind {
    /// The path.
    Create,
    /// Path and stat.
    CreateStat,
    /// Nothing.
    Delete,
    /// The stat.
    Stat,
    /// A result per op.
    Multi,
    /// The new configuration's text and the stat.
    Config,
    /// Nothing, and the connection is closed behind it.
    Close,
}

/// An answer that does not depend on the tree.
#[derive(Debug)]
pub(super) struct Answer {
    /// `None`: the last applied zxid when it is given.
    pub(super) zxid: Option<Zxid>,
    pub(super) code: ErrorCode,
    pub(super) body: Bytes,
    pub(super) close: bool,
    /// Nothing is sent: the connection is only closed.
    pub(super) silent: bool,
}

/// What `cons` and `stat` tell of a connection. Times are on the driver's monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct ConnStats {
    pub(crate) peer: SocketAddr,
    /// Wall clock, ms.
    pub(crate) established_ms: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) queued: usize,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) last_opcode: Option<i32>,
    pub(crate) last_xid: Option<Xid>,
    pub(crate) last_zxid: Zxid,
    pub(crate) last_response: Instant,
    pub(crate) last_latency_ms: u64,
    pub(crate) latency: Latency,
}

impl ConnStats {
    /// As `crst` does: the last request is forgotten, too.
    pub(super) fn reset(&mut self) {
        self.received = 0;
        self.sent = 0;
        self.last_opcode = None;
        self.last_xid = None;
        self.last_zxid = Zxid(-1);
        self.last_response = Instant::default();
        self.last_latency_ms = 0;
        self.latency = Latency::default();
    }
}

impl Phase {
    pub(super) const fn is_closing(self) -> bool {
        matches!(self, Self::Closing { .. })
    }
}

impl Conn {
    pub(super) fn new(peer: SocketAddr, frame_bytes_max: usize, clock: Clock) -> Self {
        Self {
            phase: Phase::Fresh,
            identities: Identities::of_peer(peer.ip()),
            heard: clock.now,
            touched: None,
            deframer: Deframer::new(frame_bytes_max),
            queue: VecDeque::new(),
            answered: 0,
            queued_bytes: 0,
            large_bytes: 0,
            reserved_bytes: 0,
            decoding: None,
            ends: false,
            out: Outbox::default(),
            unsent_bytes: 0,
            sent_at: clock.now,
            counted: Load::default(),
            held_since: None,
            paused: false,
            dirty: false,
            in_long: false,
            in_stalled: false,
            told_midway: None,
            close_asked: false,
            aborted: false,
            stats: ConnStats {
                peer,
                established_ms: clock.wall.0,
                timeout_ms: 0,
                queued: 0,
                received: 0,
                sent: 0,
                last_opcode: None,
                last_xid: None,
                last_zxid: Zxid::ZERO,
                last_response: clock.now,
                last_latency_ms: 0,
                latency: Latency::default(),
            },
        }
    }

    pub(super) const fn attachment(&self) -> Option<(SessionId, Generation)> {
        match self.phase {
            Phase::Live { session, generation } => Some((session, generation)),
            Phase::Closing { attachment } => attachment,
            Phase::Fresh | Phase::Word | Phase::Attaching { .. } => None,
        }
    }

    pub(super) fn begin_close(&mut self) {
        if !self.phase.is_closing() {
            self.phase = Phase::Closing { attachment: self.attachment() };
            self.queue.clear();
            (self.queued_bytes, self.large_bytes, self.reserved_bytes) = (0, 0, 0);
            self.held_since = None;
            self.decoding = None;
        }
    }

    /// When its client was last known to live. One that is not read for want of room lives; one
    /// that does not take its replies lives as long as it takes some of them.
    pub(super) fn last_alive(&self, now: Instant) -> Instant {
        match (self.paused || self.held_since.is_some(), self.is_output_full()) {
            (false, _) => self.heard,
            (true, false) => now,
            (true, true) => self.heard.max(self.sent_at),
        }
    }

    /// Ends without sending what waits.
    pub(super) fn abort(&mut self) {
        self.begin_close();
        self.out = Outbox::default();
        self.aborted = true;
    }

    pub(super) fn load(&self) -> Load {
        Load {
            outstanding: Credit {
                requests: self.queue.len(),
                bytes: self.queued_bytes + self.reserved_bytes,
            },
            large_bytes: self.large_bytes,
            // A closing connection is given a few seconds at most.
            unsent_bytes: if self.phase.is_closing() { 0 } else { self.kept_bytes() },
        }
    }

    /// Bytes of replies and events that wait for the client.
    pub(super) fn owed_bytes(&self) -> usize {
        self.unsent_bytes + self.out.len()
    }

    /// The same with what long answers will come to and what stands behind them.
    pub(super) fn kept_bytes(&self) -> usize {
        self.owed_bytes() + self.out.held_bytes()
    }

    pub(super) fn is_over_limits(&self) -> bool {
        self.queue.len() >= limits::CONN_OUTSTANDING_REQUESTS_MAX
            || self.queued_bytes >= limits::CONN_OUTSTANDING_BYTES_MAX
            || self.is_output_full()
    }

    /// Whether it waits for the pipeline's word before anything is taken in, and bytes have come.
    pub(super) fn waits_with_bytes(&self) -> bool {
        matches!(self.phase, Phase::Attaching { .. } | Phase::Word)
            && limits::FRAME_BYTES_SMALL < self.deframer.buffered()
    }

    /// Whether what stands at the head of the queue waits for nothing but its turn.
    pub(super) fn can_run(&self) -> bool {
        !self.phase.is_closing() && self.queue.front().is_some_and(|head| !head.work.waits())
    }

    /// Whether a ping stands at the head of the queue: its answer shows nothing.
    pub(super) fn is_at_ping(&self) -> bool {
        self.queue.front().is_some_and(|head| head.opcode == opcode::PING)
    }

    /// Whether a multiRead stands there: it shows one state of the tree.
    pub(super) fn is_at_multi_read(&self) -> bool {
        let is_one = |work: &Work| matches!(work, Work::Read(ReadRequest::MultiRead(_), _));
        self.queue.front().is_some_and(|head| is_one(&head.work))
    }

    /// What stands there costs as much as so many requests.
    pub(super) fn head_cost(&self) -> usize {
        match self.queue.front().map(|head| &head.work) {
            Some(Work::Read(ReadRequest::MultiRead(items), _)) => items.len().max(1),
            _ => 1,
        }
    }

    /// Whether requests are not executed for the moment: a long answer is being made, or too much
    /// waits for the socket.
    pub(super) fn must_wait(&self) -> bool {
        self.out.is_holding() || self.is_output_full()
    }

    /// Whether a long answer is being made and may go on. One of a connection that closes is still
    /// owed.
    pub(super) fn can_go_on(&self) -> bool {
        self.out.is_holding() && (self.phase.is_closing() || !self.is_output_full())
    }

    /// Whether the socket is given more of a long answer.
    pub(super) fn has_window(&self) -> bool {
        self.phase.is_closing() || self.unsent_bytes < limits::CONN_WINDOW_BYTES
    }

    fn is_output_full(&self) -> bool {
        limits::CONN_UNSENT_BYTES_MAX <= self.owed_bytes()
    }

    pub(super) fn enqueue(&mut self, pending: Pending) {
        self.queued_bytes += pending.bytes;
        self.large_bytes += pending.large_bytes();
        self.queue.push_back(pending);
        self.stats.queued = self.queue.len();
    }

    /// The number of the request that is put into the queue next.
    pub(super) fn next_number(&self) -> u64 {
        self.answered + self.queue.len() as u64
    }

    /// The request of this number, if it is still to be answered.
    pub(super) fn pending(&mut self, number: u64) -> Option<&mut Pending> {
        let at = number.checked_sub(self.answered)?;
        self.queue.get_mut(usize::try_from(at).ok()?)
    }

    pub(super) fn dequeue(&mut self) -> Option<Pending> {
        let pending = self.queue.pop_front()?;
        self.answered += 1;
        self.queued_bytes -= pending.bytes;
        self.large_bytes -= pending.large_bytes();
        self.stats.queued = self.queue.len();
        Some(pending)
    }
}
