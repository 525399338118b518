//! Every bound in the system, with its unit in its name and its derivation beside it.

use crate::base::Duration;

/// Longest client frame unless `jute.maxbuffer` says otherwise: 0xfffff, Apache's default.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 0xf_ffff;

/// Smallest frame that holds a request header (xid and opcode).
pub const REQUEST_HEADER_BYTES: usize = 8;

/// Longest txn that Apache's readers accept with default settings: `jute.maxbuffer` plus
/// `jute.maxbuffer.extrasize`.
pub const RECORD_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX_DEFAULT;

/// Alignment and granularity of everything written with O_DIRECT: the physical block of the
/// devices we run on, and a multiple of every logical block.
pub const BLOCK_BYTES: usize = 4096;

/// A batch is closed when its body reaches this size. A durable write costs the same up to
/// 32 KiB (reference: glommio.md part 1), and throughput keeps growing up to about 1 MiB.
pub const BATCH_BODY_BYTES_TARGET: usize = 256 * 1024;

/// First segment of a fresh log, zeroed before the server starts to serve.
pub const SEGMENT_BYTES_FIRST: u64 = 4 << 20;

/// Second segment of a fresh log.
pub const SEGMENT_BYTES_SECOND: u64 = 16 << 20;

/// Every later segment, unless `preAllocSize` says otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Largest snapshot block: bounds what the writer holds and how long one step takes.
pub const SNAPSHOT_BLOCK_BYTES_TARGET: usize = 256 * 1024;

/// Bytes that one connection may have sent but not yet had answered before it is no longer read.
pub const CONN_OUTSTANDING_BYTES_MAX: usize = 4 << 20;

/// Requests that one connection may have outstanding before it is no longer read.
pub const CONN_OUTSTANDING_REQUESTS_MAX: usize = 4096;

/// Bytes of replies and events that may wait for one connection's socket before its requests
/// are no longer executed.
pub const CONN_UNSENT_BYTES_MAX: usize = 8 << 20;

/// Bytes that may wait for one connection's socket at all: events come whether it reads or not, and
/// reads that were sent before a write run before the write. Above, the connection is closed.
pub const CONN_UNSENT_BYTES_HARD_MAX: usize = 64 << 20;

/// Bytes that may wait for the sockets of all connections. Above half, only connections that wait
/// for nothing have requests executed; above, a slow reader is closed.
pub const UNSENT_BYTES_MAX: usize = 256 << 20;

/// A connection whose socket takes nothing for this long is a slow reader.
pub const SLOW_READER_AFTER: Duration = Duration::from_millis(1_000);

/// Bytes of requests that all connections may have outstanding, frames that have begun to arrive
/// included.
pub const OUTSTANDING_BYTES_MAX: usize = 256 << 20;

/// A frame of up to this length is received without asking whether there is room for it.
pub const FRAME_BYTES_SMALL: usize = 16 << 10;

/// Somebody who has room for a long frame, lets others wait for it, and sends nothing for this long
/// is closed.
pub const FRAME_STALLED_AFTER: Duration = Duration::from_millis(10_000);

/// A frame over `jute.maxbuffer` and up to this length is skipped and answered with an error; a
/// longer one ends its connection.
pub const FRAME_BYTES_SKIPPED_MAX: usize = 16 << 20;

/// What is kept of the front of a skipped frame, to answer and to name it.
pub const SKIPPED_FRAME_HEAD_BYTES: usize = 1024;

/// Longest frame that `jute.maxbuffer` may allow.
pub const FRAME_BYTES_HARD_MAX: usize = 512 << 20;

/// Body bytes of txns that may be logged and not yet committed before the pipeline stops
/// taking requests.
pub const PIPELINE_INFLIGHT_BYTES_MAX: usize = 64 << 20;

/// Txns that may be in flight before the pipeline stops taking requests: bounds the overlay.
pub const PIPELINE_INFLIGHT_TXNS_MAX: usize = 65_536;

/// How long an idle log waits before an empty batch attests the last one, so that its loss would
/// be noticed.
pub const ATTEST_AFTER_IDLE: Duration = Duration::from_millis(50);

/// Room of the log that writes leave free until the next segment is ready: for what frees space if
/// there is none for that segment.
pub const LOG_RESERVE_BYTES: u64 = SEGMENT_BYTES_FIRST / 4;

/// How long a shard waits before it looks again at connections that it could not take in, if
/// nothing else wakes it.
pub const STALLED_RETRY_AFTER: Duration = Duration::from_millis(5);

/// How long the log waits before it tries again to prepare a segment that did not fit on the disk,
/// at first. Each try fills the disk for a moment.
pub const PREPARE_RETRY_AFTER: Duration = Duration::from_millis(500);

/// The same at most, after several tries.
pub const PREPARE_RETRY_AFTER_MAX: Duration = Duration::from_millis(4_000);

/// A machine asks to be run at least this often.
pub const PULSE_EVERY: Duration = Duration::from_millis(50);

/// A machine that was not run for longer than this was stalled or stopped; clients are credited
/// with the time.
pub const STALL_NOTICED_AFTER: Duration = Duration::from_millis(150);

/// A session's shard tells the pipeline of its life at most this often; before a session expires,
/// its shard is asked when it really was last heard of.
pub const TOUCH_EVERY: Duration = Duration::from_millis(100);

/// A member with `readonlymode.enabled` looks for a leader for so long, and for a tick, before it
/// serves reads.
pub const READ_ONLY_AFTER_MIN: Duration = Duration::from_millis(2_000);

/// Global sessions whose end a leader remembers, if there are local ones: more than a learner that
/// is still connected can be behind with. Half a megabyte.
pub const ENDED_SESSIONS_MAX: usize = 10_000;

/// Sessions that are due and wait for the word of a shard or of a learner are looked at this often.
pub const OVERDUE_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The tree's digest is kept at every so many zxids, for the word `hash`, as Apache does.
pub const DIGEST_LOG_EVERY: i64 = 128;

/// So many of them are kept.
pub const DIGEST_LOG_MAX: usize = 1024;

/// Shards of one server: each has a replica, and every delta goes to every one.
pub const SHARDS_MAX: u16 = 64;

/// Shards by default, at most: the pipeline has one core's worth of writes to give.
pub const SHARDS_DEFAULT_MAX: u16 = 4;

/// Bytes of deltas that one satellite may be behind. Above half, the pipeline takes no new writes.
pub const STREAM_BYTES_MAX: usize = 64 << 20;

/// Longest list of addresses in the message that opens an election connection: Apache's bound.
pub const ELECTION_ADDRESSES_BYTES_MAX: usize = 2048;

/// Longest notification of an election: Apache's bound.
pub const ELECTION_FRAME_BYTES_MAX: usize = 512 * 1024;

/// How long a server that has a quorum of votes waits for better ones from connected voters: some
/// round trips between machines of one site.
pub const ELECTION_QUIET: Duration = Duration::from_millis(5);

/// How long a vote may be unanswered before it is repeated. Longer than the 200 ms for which
/// Apache's servers want to hear nothing before they are done.
pub const ELECTION_RESEND_AFTER: Duration = Duration::from_millis(300);

/// The time between repetitions doubles up to this.
pub const ELECTION_RESEND_AFTER_MAX: Duration = Duration::from_millis(10_000);

/// A voter of a proposed configuration that is none of the one in force stands for itself once the
/// time between repetitions is so long, and then again for nobody, by turns.
pub const ELECTION_STANDS_AT: Duration = Duration::from_millis(1_200);

/// How long a connection of the election port may take to say who it is.
pub const ELECTION_GREETING_WITHIN: Duration = Duration::from_millis(5_000);

/// Connections of the election port that have not said who they are; one more ends the oldest.
pub const ELECTION_GREETINGS_MAX: usize = 64;

/// Servers of no configuration that may speak on the election port: observers and joiners.
pub const ELECTION_STRANGERS_MAX: usize = 64;

/// How long after a refused dial of another server's election port it is dialled again, at first.
pub const ELECTION_DIAL_RETRY_AFTER: Duration = Duration::from_millis(1);

/// How long a larger server is given to dial back, or to dial again when a connection was lost,
/// before it is dialled, at first.
pub const ELECTION_DIAL_BACK_AFTER: Duration = Duration::from_millis(200);

/// The time between dials doubles up to this.
pub const ELECTION_DIAL_RETRY_AFTER_MAX: Duration = Duration::from_millis(1_000);

/// Bytes of txns that a learner is sent rather than a snapshot even if that is smaller: a fraction
/// of a second on any network and disk.
pub const DIFF_BYTES_ALWAYS: u64 = 16 << 20;

/// Bytes of a znode in a snapshot for a learner, besides its path and data.
pub const SNAPSHOT_ZNODE_BYTES: u64 = 76;

/// Longest text of a configuration that is read: a notification must hold it.
pub const CONFIG_TEXT_BYTES_MAX: usize = ELECTION_FRAME_BYTES_MAX / 2;

/// Connections to other servers, made and accepted; more are not accepted.
pub const PEER_LINKS_MAX: usize = 1024;

/// Descriptors that no client's connection takes, so that clients end neither the log nor what the
/// servers tell each other.
pub const DESCRIPTORS_KEPT_FROM_CLIENTS: u64 = 128;

/// Descriptors that slow readers do not take, each of which has a second one.
pub const DESCRIPTORS_KEPT_FROM_SLOW_READERS: u64 = 96;

/// Descriptors that no connection of another server takes: for files alone.
pub const DESCRIPTORS_KEPT_FOR_FILES: u64 = 32;

/// Dials whose names are being resolved or that wait for an answer; more fail at once.
pub const DIALS_MAX: usize = 256;

/// Entries of an ACL after `auth` was replaced: more than the longest packet holds.
pub const ACL_ENTRIES_MAX: usize = 1 << 16;

/// Identities that one connection may prove: each of its requests that is forwarded carries all.
pub const CONN_IDENTITIES_MAX: usize = AUTHINFO_IDS_MAX;

/// Bytes of these identities, two lengths of 4 bytes for each included.
pub const CONN_IDENTITIES_BYTES_MAX: usize = 64 << 10;

/// Identities of a client that may come with its forwarded request.
pub const AUTHINFO_IDS_MAX: usize = 1024;

/// Bytes of the identities that a member forwards with a request, their lengths included. Apache's
/// servers let a client prove any number; more than [`AUTHINFO_IDS_MAX`] are not looked at.
pub const AUTHINFO_BYTES_MAX: usize = 4 << 20;

/// Watches of ended connections that one turn lets go of: each costs some cache misses, together
/// well below a millisecond.
pub const WATCHES_SWEPT_PER_TURN: usize = 2_048;

/// Connections that one turn answers: each costs a send, some microseconds of kernel time.
pub const CONNS_PER_TURN: usize = 256;

/// Requests that one connection has executed in one turn before others have theirs.
pub const REQUESTS_PER_CONN_AND_TURN: usize = 256;

/// Requests that are executed in one turn; below a microsecond each.
pub const REQUESTS_PER_TURN: usize = 2_048;

/// Steps of long answers that one turn makes: names, results, or watches set again, each some
/// hundred nanoseconds. What has more steps than this is a long answer.
pub const LONG_STEPS_PER_TURN: usize = 2_048;

/// Ops of a multi that are read out of its frame at once, each some hundred nanoseconds with the
/// first touch of the memory it takes.
pub const OPS_DECODED_AT_ONCE: usize = 4_096;

/// Ephemerals of ending sessions that one turn finds, or deletes, and ops of multis that it judges,
/// or applies: some microseconds each with their events.
pub const OPS_PER_TURN: usize = 256;

/// Overdue sessions that one timer looks at: the end of one is some microseconds.
pub const EXPIRIES_PER_TURN: usize = 256;

/// Containers and TTL znodes that one turn looks at, each some hundred nanoseconds.
pub const OVERDUE_LOOKS_PER_TURN: usize = 2_048;

/// Watches that are gone through in one turn to tell those who watch of an event, each some hundred
/// nanoseconds.
pub const TOLD_PER_TURN: usize = 1_024;

/// Changes that one turn forgets, since they are applied.
pub const RETIRED_PER_TURN: usize = 2_048;

/// Steps of a four-letter word that one turn makes: connections or watches reported, or lines of
/// text; each up to two microseconds.
pub const WORD_STEPS_PER_TURN: usize = 512;

/// Bytes of long answers that a connection's socket is given before it has taken them.
pub const CONN_WINDOW_BYTES: usize = 1 << 20;

/// Committed txns that one turn applies: a few microseconds each with events and replies.
pub const COMMITS_PER_TURN: usize = 512;

/// How long a planned stop of a member of an ensemble waits for the commit of what it proposed or
/// passed on.
pub const STOP_WAITS_FOR_COMMITS: Duration = Duration::from_millis(2_000);

/// How long a planned stop waits for clients to take their last replies.
pub const STOP_WAITS_FOR_CLIENTS: Duration = Duration::from_millis(5_000);

/// Events that wait for a program that uses our client; a slower one is told how many it missed.
pub const CLIENT_EVENTS_MAX: usize = 1 << 16;

/// Bytes of proposals and commits that wait for a learner while it gets the history. Where there
/// are more, what is committed is history, too: what is told at once stays below a millisecond.
pub const LEARNER_NEWS_BYTES_MAX: usize = 1 << 20;

/// Bytes that may wait for the socket of another server, and one txn of the longest besides. One
/// that takes so little comes again.
pub const PEER_UNSENT_BYTES_MAX: usize = 256 << 20;

/// Bytes of the last txns that a member of an ensemble keeps in memory for learners that lack only
/// those: over 100,000 txns of 100-byte values.
pub const RECENT_TXNS_BYTES_MAX: u64 = 32 << 20;

/// Connections to the quorum port of a server that has no role yet, or to a leader's that have not
/// said who they are; one more ends the oldest.
pub const QUORUM_WAITING_MAX: usize = 64;

/// How long one waits. Followers may have counted their votes before the leader that they elected,
/// by 200 ms if they are Apache's. One that follows a server which has lost its role, by a restart
/// for one, is not kept from looking for another.
pub const QUORUM_WAITING_FOR: Duration = Duration::from_millis(500);

/// Bytes that such a connection may send: a greeting is far shorter.
pub const QUORUM_WAITING_BYTES_MAX: usize = 64 << 10;

/// The counter of a zxid with which a leader of ours begins the next epoch in place: early enough
/// for the last of Apache's servers to leave before [`LAST_COUNTER`].
pub const RENEW_AT: u32 = u32::MAX - (1 << 24);

/// The counter with which a leader gives up, before they are used up (ZOOKEEPER-1277). Behind it
/// there are enough for all that may have been prepared in the same turn.
pub const LAST_COUNTER: u32 = u32::MAX - 2 * PIPELINE_INFLIGHT_TXNS_MAX as u32;

/// Bytes of the log that one turn sends to a learner, and that are read at once for it.
pub const HISTORY_BYTES_PER_TURN: usize = 256 << 10;

/// Bytes of the log that may wait for a learner's socket.
pub const HISTORY_UNSENT_BYTES_MAX: usize = 4 << 20;

/// Bytes of a snapshot for a learner that one turn makes.
pub const SNAPSHOT_SENT_BYTES_PER_TURN: usize = 64 << 10;

/// Bytes of it that are sent in a second, if that is enough for it to end in time.
pub const SNAPSHOT_SENT_BYTES_PER_SECOND: u64 = 48 << 20;

/// How much of the time in which none could be sent is made up for: more than a heartbeat.
pub const SNAPSHOT_MADE_UP_FOR: Duration = Duration::from_millis(10);

/// Bytes of it that may wait for the learner's socket.
pub const SNAPSHOT_UNSENT_BYTES_MAX: usize = 4 << 20;

/// A leader that cannot be reached is dialled again after this time, then ever more rarely.
pub const LEADER_DIAL_RETRY_AFTER: Duration = Duration::from_millis(1);
/// The longest such time.
pub const LEADER_DIAL_RETRY_AFTER_MAX: Duration = Duration::from_millis(100);

const _: () = {
    assert!(FRAME_BYTES_MAX_DEFAULT < RECORD_BYTES_MAX);
    assert!((RECORD_BYTES_MAX as u64) < SEGMENT_BYTES_FIRST);
    assert!(FRAME_BYTES_SMALL < FRAME_BYTES_MAX_DEFAULT);
    assert!(FRAME_BYTES_MAX_DEFAULT < FRAME_BYTES_SKIPPED_MAX);
    assert!(CONN_IDENTITIES_BYTES_MAX < AUTHINFO_BYTES_MAX);
    assert!(BATCH_BODY_BYTES_TARGET.is_multiple_of(BLOCK_BYTES));
};
