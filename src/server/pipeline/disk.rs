//! What the pipeline asks of the disk besides the log's batches, and what it hears from there:
//! ends of operations, slow flushes, space that runs low, snapshots that are due.

use super::super::fuzzy::Fuzzy;
use super::super::snapshotter::SnapshotProgress;
use super::{Pipeline, SnapshotDue};
use crate::base::{FileFailure, FileOpId, FileOps, Instant, WallMs};
use crate::limits;

impl Pipeline {
    /// Makes the end of the log provable before a planned stop.
    pub(crate) fn attest_now(&mut self, ops: &mut FileOps) {
        self.log.attest(ops);
    }

    /// A file operation ended. An error is the log's, and final.
    pub(crate) fn on_file_done(
        &mut self,
        now: Instant,
        id: FileOpId,
        result: Result<(), FileFailure>,
        ops: &mut FileOps,
    ) -> Result<(), FileFailure> {
        match self.snapshotter.on_done(id, &result, &mut self.tree, ops) {
            SnapshotProgress::NotMine => {
                self.warn_of_slow_flush(id, now);
                let progress = self.log.on_done(id, result, ops).map(|_| ());
                self.notice_disk_space();
                progress
            }
            SnapshotProgress::Going => Ok(()),
            SnapshotProgress::Finished(zxid) => {
                tracing::info!(%zxid, "snapshot written");
                let oldest = self.snapshotter.purge(self.options.snap_retain_count, ops);
                self.log.remove_before(oldest, ops);
                Ok(())
            }
            SnapshotProgress::Failed(failure) => {
                tracing::warn!(%failure, "snapshot given up; the one before stays in use");
                Ok(())
            }
        }
    }

    pub(super) fn notice_flush(&mut self, now: Instant) {
        let flushing = self.log.flushing().map(|(id, _)| id);
        if self.flushing.map(|(id, _)| id) != flushing {
            self.flushing = flushing.map(|id| (id, now));
        }
    }

    /// In Apache's words, which operators search for.
    fn warn_of_slow_flush(&mut self, id: FileOpId, now: Instant) {
        let Some((_, since)) = self.flushing.take_if(|(flushing, _)| *flushing == id) else {
            return;
        };
        let took = now.since(since);
        if self.options.fsync_warning_threshold < took {
            self.slow_flush_count += 1;
            let bytes = self.log.flushing().map_or(0, |(_, bytes)| bytes);
            tracing::warn!(
                "fsync-ing the write ahead log in shard-0 took {}ms which will adversely effect \
                 operation latency. File size is {bytes} bytes. See the ZooKeeper troubleshooting \
                 guide",
                took.as_millis()
            );
        }
    }

    /// Says once that the disk is full, and once that it no longer is.
    fn notice_disk_space(&mut self) {
        if let Some(failure) = self.log.prepare_failure() {
            if !self.low_on_disk {
                tracing::warn!(%failure, "no room for the next log segment: creates, longer \
                    values and long multis are refused until there is; reads, deletes and \
                    sessions go on");
            }
            self.low_on_disk = true;
        } else if self.low_on_disk && self.log.has_reserve() {
            tracing::warn!("there is room for the log again");
            self.low_on_disk = false;
            self.prepare_retry_after = limits::PREPARE_RETRY_AFTER;
        }
    }

    /// There was no room for the next segment, and it is time to try again: by turns to have it,
    /// and to write a snapshot, behind which the oldest one can go, and the log up to the next.
    /// Both at once would take each other's room.
    pub(super) fn retry_for_room(&mut self, ops: &mut FileOps) {
        if self.snapshotter.is_busy() {
            return;
        }
        let may_free = self.options.snap_retain_count <= self.snapshotter.count();
        self.frees_room = may_free && !self.frees_room;
        match self.frees_room {
            true => self.snapshot_due.txns_left = 0,
            false => self.log.retry_prepare(ops),
        }
    }

    pub(super) fn drive_snapshot(&mut self, wall: WallMs, ops: &mut FileOps) {
        // No cut may show a part of a txn.
        if self.snapshot_is_due() && !self.snapshotter.is_busy() && !self.is_applying() {
            self.schedule_snapshot();
            let sessions = self.sessions.iter().collect();
            self.snapshotter.begin(&mut self.tree, wall, sessions, ops);
        }
        if self.snapshotter.wants_items() {
            self.snapshotter.feed(&mut self.tree, ops);
        }
    }

    fn snapshot_is_due(&self) -> bool {
        let by_bytes = self.options.snap_log_bytes != 0
            && self.log.appended_bytes() >= self.snapshot_due.log_bytes_at;
        // A cut never runs ahead of the log: what a quorum has may not be durable here yet. Nor is
        // there a second one of the same tree, which can stand still while the log grows.
        let zxid = self.tree.last_zxid();
        let is_durable = zxid <= self.log.flushed_zxid();
        is_durable
            && self.snapshotter.newest() != Some(zxid)
            && self.member.fuzzy == Fuzzy::Over
            && (self.snapshot_due.txns_left == 0 || by_bytes)
    }

    pub(super) fn schedule_snapshot(&mut self) {
        let count = self.options.snap_txn_count / 2;
        let bytes = self.options.snap_log_bytes / 2;
        self.snapshot_due = SnapshotDue {
            txns_left: count + 1 + self.prng.below(count.max(1)),
            log_bytes_at: self.log.appended_bytes() + bytes + self.prng.below(bytes.max(1)),
        };
    }
}
