//! [`SnapshotSender`]: the tree as a learner receives it behind a SNAP packet (`quorum-and-disk.md`
//! part 4.4), while txns go on being applied.
//!
//! What is sent is the state right behind one txn, which the packet names. Any number of senders
//! and a snapshot of the server's own may be under way at the same time: each has a cut of its own.

use bytes::Bytes;

use crate::apache::SnapshotEncoder;
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
    /// Of the tree as it is now, all of it committed, with the sessions at this moment and their
    /// timeouts in ms. Sessions and ACLs are encoded at once.
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
