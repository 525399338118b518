//! What a driver hands to the server machine and what it must do with what comes back.
//!
//! A driver calls `Server::step` once per input, `Server::turn_end` once per turn of its loop
//! (after the inputs that were at hand), drains the outputs in order after each call, then asks
//! `Server::next_timer` when it wants to be called with [`Input::Timer`] at the latest.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::{Duration, FileFailure, FileOp, FileOpId, FilePart, Instant, WallMs};
use crate::model::{ClientAddress, ConnId, ServerAddress, ShardId, Zxid};

use super::recovery::Recovered;
use super::stream::{Ask, ToShard};

/// The driver's two clocks, read once per turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Monotonic: deadlines and latencies.
    pub now: Instant,
    /// Wall: ctime and mtime only.
    pub wall: WallMs,
}

/// A pure machine that a driver can drive: the server's home shard, or a satellite.
pub trait Machine {
    /// Takes one input. Outputs are appended in the order in which the driver must act on them.
    fn step(&mut self, clock: Clock, input: Input, out: &mut Vec<Output>);

    /// Called once per turn of the driver's loop, after the inputs that were at hand: executes
    /// reads, releases replies, submits the open batch.
    fn turn_end(&mut self, clock: Clock, out: &mut Vec<Output>);

    /// Whether work was left over so that this turn stayed short: the driver looks for inputs and
    /// then calls [`Machine::turn_end`] again without waiting for any.
    fn wants_turn(&self) -> bool;

    /// When [`Input::Timer`] is due at the latest; `None` when nothing waits for time.
    fn next_timer(&self) -> Option<Instant>;
}

/// What shards of one process tell each other; made and understood by the machines only.
#[derive(Debug)]
pub struct Mesh {
    /// Who says it.
    pub(crate) from: ShardId,
    pub(crate) body: MeshBody,
}

impl Mesh {
    /// Who says it.
    #[must_use]
    pub const fn sender(&self) -> ShardId {
        self.from
    }
}

/// The two directions.
#[derive(Debug)]
pub(crate) enum MeshBody {
    /// From the pipeline, in the order of its stream.
    ToShard(Vec<ToShard>),
    /// To the pipeline, in the order of arrival.
    ToPipeline(Vec<Ask>),
}

/// What every shard may read of the pipeline without a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Everything up to here may be shown.
    pub zxid: Zxid,
    /// The last epoch in which this server has served clients: everything before that is shown.
    pub epoch: u32,
    /// The pipeline takes no writes for the moment.
    pub pipeline_full: bool,
    /// What makes the tree larger, or might, is refused.
    pub low_on_disk: bool,
}

impl Published {
    /// Whether a client that has seen this zxid has seen nothing that is not shown here. Apache's
    /// servers show the beginning of an epoch as their zxid until its first txn. A txn that is not
    /// here may have been seen at a server without a quorum, whatever its epoch.
    #[must_use]
    pub(crate) const fn shows(self, seen: Zxid) -> bool {
        seen.0 <= self.zxid.0 || (seen.counter() == 0 && seen.epoch() <= self.epoch)
    }
}

/// One connection between two servers of an ensemble, made or accepted. Assigned by the driver,
/// ascending, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerLink(pub u64);

/// One attempt to connect to another server. Assigned by the machine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// Which of the two ports of a server's `server.N` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerPort {
    /// Where elections are held.
    Election,
    /// Where a leader is joined.
    Quorum,
}

/// Where another server listens. The host is a name or an address, resolved anew for each dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Name or IP address (IPv6 without brackets).
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What happened between this server and the others of its ensemble.
#[derive(Clone, Debug)]
pub enum PeerInput {
    /// Another server has connected to this port.
    Accepted {
        /// Which port.
        port: PeerPort,
        /// Its name from now on.
        link: PeerLink,
    },
    /// A dial has succeeded.
    Dialled {
        /// Which.
        dial: DialId,
        /// The connection's name from now on.
        link: PeerLink,
    },
    /// A dial has failed, at all of its addresses, or took too long.
    DialFailed {
        /// Which.
        dial: DialId,
    },
    /// Bytes arrived: any chunk of the stream, in order.
    Received {
        /// Where.
        link: PeerLink,
        /// The bytes.
        bytes: Bytes,
    },
    /// The socket took this many of the bytes handed over with [`PeerOutput::Send`].
    Sent {
        /// Whose socket.
        link: PeerLink,
        /// How many.
        bytes: usize,
    },
    /// The other end closed or the socket failed. Also follows every [`PeerOutput::Close`]; after
    /// it the driver forgets `link`.
    Closed {
        /// Which.
        link: PeerLink,
    },
}

/// What the driver owes the other servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerOutput {
    /// Connect to one of these, tried in order, with TCP_NODELAY. Report `Dialled` or `DialFailed`.
    Dial {
        /// Its name.
        dial: DialId,
        /// Where.
        addresses: Vec<PeerAddress>,
        /// How long all of it may take.
        within: Duration,
    },
    /// Listen for the other servers at the ports of these addresses from now on, and no longer
    /// where it was. A port that cannot be had is tried again.
    Listen {
        /// The addresses of this server's own line.
        addresses: Vec<ServerAddress>,
    },
    /// Write these bytes, in order. Report `Sent`.
    Send {
        /// Where.
        link: PeerLink,
        /// What.
        bytes: Bytes,
    },
    /// Read no more from the connection until `ResumeReading`.
    PauseReading {
        /// Which.
        link: PeerLink,
    },
    /// Read from the connection again.
    ResumeReading {
        /// Which.
        link: PeerLink,
    },
    /// Write what was handed over before (bounded by a second), then close. Report `Closed`.
    Close {
        /// Which.
        link: PeerLink,
    },
}

/// What happened in the world.
#[derive(Debug)]
pub enum Input {
    /// A client connected. `conn` is never reused.
    Opened {
        /// Its name from now on.
        conn: ConnId,
        /// Its address, the `ip` identity.
        peer: SocketAddr,
    },
    /// Bytes arrived: any chunk of the stream, in order.
    Received {
        /// From whom.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The socket took this many of the bytes handed over with [`Output::Send`].
    Sent {
        /// Whose socket.
        conn: ConnId,
        /// How many.
        bytes: usize,
    },
    /// The client closed its end or the socket failed. Also follows every [`Output::Close`],
    /// once the socket is closed; after it the driver forgets `conn`.
    Closed {
        /// Who.
        conn: ConnId,
    },
    /// A message of another shard of this process; those of one shard come in order, after any
    /// delay.
    Mesh(Mesh),
    /// What the home shard last said with [`Output::Publish`], read by the driver of a satellite at
    /// the start of each turn, before it takes the messages that have come.
    Published(Published),
    /// A file operation ended.
    FileDone {
        /// Which.
        id: FileOpId,
        /// How.
        result: Result<(), FileFailure>,
    },
    /// What [`Output::Read`] asked for, or why it could not be read.
    FileRead {
        /// Which.
        id: FileOpId,
        /// The bytes.
        result: Result<Bytes, FileFailure>,
    },
    /// What happened between the servers of the ensemble.
    Peer(PeerInput),
    /// Recovery, asked for with [`Output::Recover`], has ended well. If it is refused for another
    /// reason than `NotCut` tells, the driver ends the process with the refusal.
    Recovered(Box<Recovered>),
    /// Recovery was refused because the history cannot be cut there
    /// ([`Refusal::Cut`](super::recovery::Refusal::Cut)); nothing was changed.
    NotCut,
    /// What the process has open, now and then; only the words tell it.
    OpenFiles {
        /// Descriptors in use.
        count: u64,
        /// How many there may be.
        max: u64,
    },
    /// The time given by `Server::next_timer` has come (or any other: an early call is harmless).
    Timer,
    /// SIGTERM: take no new connections or requests, finish what is in flight, flush, and answer
    /// with [`Output::Stopped`].
    Stop,
}

/// What the driver owes.
#[derive(Debug)]
pub enum Output {
    /// Write these bytes to the connection, in order; one send per turn. Report `Sent`.
    Send {
        /// To whom.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// Stop reading from the connection until `ResumeReading`.
    PauseReading {
        /// Whose.
        conn: ConnId,
    },
    /// Read from the connection again.
    ResumeReading {
        /// Whose.
        conn: ConnId,
    },
    /// Write what was handed over before (bounded by a few seconds), then close without leaving
    /// input unread if that can be helped (a reset would lose the last reply). Report `Closed`.
    Close {
        /// Whose.
        conn: ConnId,
    },
    /// Close at once; what was handed over and not sent is lost. Report `Closed`.
    Abort {
        /// Whose.
        conn: ConnId,
    },
    /// Run this operation, report `FileDone` with the same id.
    File {
        /// Its name.
        id: FileOpId,
        /// What to do.
        op: FileOp,
    },
    /// Read this part of a file, beside everything else; report `FileRead` with the same id. What
    /// was not durable when it was asked for need not be there.
    Read {
        /// Its name.
        id: FileOpId,
        /// What to read.
        part: FilePart,
    },
    /// Listen for clients there from now on, and no longer where it was; connections stay. A port
    /// that cannot be had is tried again.
    Listen(ClientAddress),
    /// Do this between the servers of the ensemble.
    Peer(PeerOutput),
    /// Run recovery again from what is on disk, without the log behind `keep_until` if that is
    /// given (Zab's TRUNC), and report [`Input::Recovered`]. No file operation is under way, and
    /// none is asked for before the answer.
    Recover {
        /// The last txn that stays.
        keep_until: Option<Zxid>,
    },
    /// Take this to another shard of this process. An urgent one wakes it; others are found when it
    /// next wakes by itself.
    Mesh {
        /// To whom.
        to: ShardId,
        /// What.
        message: Mesh,
        /// Somebody waits for it.
        urgent: bool,
    },
    /// Every effect up to and including this zxid is visible to clients of this server. Every
    /// message handed over before must be where its shard finds it once this is seen.
    Publish(Published),
    /// End the process at once, without flushing anything: what is on disk is the truth.
    Halt(Halt),
    /// Everything in flight at [`Input::Stop`] is finished and durable: exit 0.
    Stopped,
}

/// Why the server must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A write or flush of the transaction log failed. It is never retried: after a failed flush
    /// the kernel may have dropped the pages and report success the next time.
    #[error(
        "the transaction log cannot be written: {0}; what was acknowledged \
         is on disk, mend the disk and start again"
    )]
    LogFailed(FileFailure),
    /// The epochs record could not be written: what this server promises would not be known.
    #[error("the epochs record cannot be written: {0}; mend the disk and start again")]
    EpochsFailed(FileFailure),
    /// A configuration of the ensemble could not be written down: a start would not know of it.
    #[error(
        "the configuration of the ensemble cannot be kept: {0}; make the directory of \
             the configuration file writable, or set reconfigEnabled=false everywhere"
    )]
    ConfigFailed(FileFailure),
    /// It is not known whether a leader's snapshot is in place: only a start can tell.
    #[error("a leader's snapshot may or may not be in place: {0}; mend the disk and start again")]
    InstallFailed(FileFailure),
}
