//! [`SnapshotSender`]: the tree as a learner receives it behind a SNAP packet (`quorum-and-disk.md`
//! part 4.4), while txns go on being applied.
//!
//! What is sent is the state right behind one txn, which the packet names. Any number of senders
//! and a snapshot of the server's own may be under way at the same time: each has a cut of its own.

use bytes::Bytes;

use crate::apache::SnapshotEncoder;
use crate::base::{Duration, Instant};
use crate::limits;
use crate::model::{SessionId, Zxid};
use crate::tree::{CutId, Tree};

/// One snapshot for one learner. Whoever sends it calls [`SnapshotSender::next_chunk`] whenever the
/// connection takes more, and [`SnapshotSender::end`] in any case.
#[derive(Debug)]
pub struct SnapshotSender {
    zxid: Zxid,
    cut: CutId,
    /// `None` once the end was handed out.
    encoder: Option<SnapshotEncoder>,
}

impl SnapshotSender {
    /// Of the tree as it is now, with the sessions at this moment and their timeouts in ms.
    /// Sessions and ACLs are encoded at once.
    pub fn begin(tree: &mut Tree, sessions: &[(SessionId, i32)]) -> Self {
        Self {
            zxid: tree.last_zxid(),
            cut: tree.begin_cut(),
            encoder: Some(SnapshotEncoder::for_stream(sessions, tree.acls().cloned())),
        }
    }

    /// The zxid for the SNAP packet: the state is exactly the one right behind this txn.
    #[must_use]
    pub const fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The next bytes of the stream, about as many as asked for and at most one znode more; `None`
    /// at its end. They may be few or none where much of the tree's room is free: a call takes a
    /// bounded time. The tree is the one that it began with.
    pub fn next_chunk(&mut self, tree: &mut Tree, bytes: usize) -> Option<Bytes> {
        let encoder = self.encoder.as_mut()?;
        let more = tree.cut_items(self.cut, bytes.max(1), &mut |item| {
            encoder.znode(item.path, item.data, item.acl, item.stat);
        });
        if more {
            return Some(encoder.take_chunk(1).unwrap_or_default());
        }
        tree.end_cut(self.cut);
        self.encoder.take().map(SnapshotEncoder::finish_stream)
    }

    /// Ends it, finished or not: changes of the tree are no longer remembered for it.
    pub fn end(self, tree: &mut Tree) {
        tree.end_cut(self.cut);
    }
}

/// When more of a snapshot is sent: not as fast as the learner takes it, since what it does with it
/// may be in the way of the others' writes, but fast enough for it to end in time.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    due: Instant,
}

impl Pace {
    /// From now on, so that a snapshot of about so many bytes takes no longer than `within`.
    #[must_use]
    pub fn new(now: Instant, bytes: u64, within: Duration) -> Self {
        let wanted = u128::from(bytes) * 1_000_000_000 / u128::from(within.0.max(1));
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let bytes_per_second = wanted.max(limits::SNAPSHOT_SENT_BYTES_PER_SECOND);
        Self { bytes_per_second, due: now }
    }

    /// When more may be sent.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Whether it may now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// So many bytes were sent. What could have been sent lately is made up for.
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        let takes = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration(u64::try_from(takes).unwrap_or(u64::MAX));
        self.due = self.due.max(now - limits::SNAPSHOT_MADE_UP_FOR) + takes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long so many bytes take if more is sent as soon as it is due and somebody looks.
    fn takes(bytes: u64, within: Duration, looks_every: Duration) -> Duration {
        let start = Instant(7);
        let (mut now, mut left) = (start, bytes);
        let mut pace = Pace::new(start, bytes, within);
        loop {
            while pace.is_due(now) {
                let chunk = left.min(64 << 10);
                pace.sent(now, usize::try_from(chunk).expect("it is short"));
                left -= chunk;
                if left == 0 {
                    return Duration(now.0 - start.0);
                }
            }
            now = now + looks_every;
        }
    }

    #[test]
    fn a_snapshot_is_sent_steadily_and_in_time() {
        let seconds = |count: u64| Duration::from_millis(count * 1_000);
        let second = limits::SNAPSHOT_SENT_BYTES_PER_SECOND;
        for looks_every in [Duration::from_micros(100), Duration::from_millis(5)] {
            let slow = takes(4 * second, seconds(60), looks_every);
            assert!((3_900..=4_000).contains(&slow.as_millis()), "{slow:?}");
            let hurried = takes(40 * second, seconds(5), looks_every);
            assert!((4_900..=5_000).contains(&hurried.as_millis()), "{hurried:?}");
        }
        // Time in which nobody looks is not made up for without bounds.
        let late = takes(second / 10, seconds(60), seconds(1));
        assert!(seconds(8) <= late, "{late:?}");
    }
}
