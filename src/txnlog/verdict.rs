//! What recovery can conclude: the rows of its decision table, the end of a log, a refusal.

use super::format::{Position, SegmentInfo};
use crate::model::Zxid;

/// The rows of the decision table. Each has a test of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryRow {
    /// No segment: the log begins after the snapshot.
    EmptyDirectory,
    /// Segments without a single batch: nothing was ever acknowledged.
    EmptyLog,
    /// Only zeros behind the last batch. Every whole batch is kept.
    CleanEnd,
    /// As `CleanEnd`, and an empty batch or a header says that the last batch is the last one.
    AttestedEnd,
    /// Bytes behind the last whole batch, which nothing proves to have been flushed: cut.
    TornTail,
    /// As `TornTail`, but the bytes are a whole batch of another incarnation: cut.
    StaleBytes,
    /// The caller asked for a cut ([`super::LogRecovery::keep_until`]).
    Truncated,
    /// Refused: bytes are damaged that a later header proves to have been flushed.
    DamagedAcknowledged,
    /// Refused: a segment between two others, or the one before the first, is absent.
    MissingSegment,
    /// Refused: an undamaged batch or segment does not follow on from the one before.
    ChainBroken,
    /// Refused: neither the snapshot nor the log holds the records before this one.
    ZxidGap,
    /// Refused: a segment's header block is damaged or belongs to another segment. It was durable
    /// before the file had its name.
    SegmentHeaderDamaged,
    /// Refused: the file does not have the length in its header. It was durable at that length.
    SegmentLength,
    /// Refused: the checksums hold but a batch's records contradict its header.
    RecordsDamaged,
    /// Refused: the log could not be read, or a step of the cut failed.
    Unusable,
}

/// Why a log is refused. What is on disk is untouched, except after a failed step of a cut, which
/// the next start repeats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "transaction log refused ({row:?}): {detail}: \
    file {file}, offset {offset}, last good zxid {zxid}"
)]
pub struct LogDamage {
    /// Which row decided.
    pub row: RecoveryRow,
    /// The file; empty when it is the directory.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The last zxid in front of the damage.
    pub zxid: Zxid,
    /// What was found.
    pub detail: String,
}

/// Where a log ends, and all that its writer needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Which row decided.
    pub row: RecoveryRow,
    /// The last zxid of the log, or of the snapshot if that is later.
    pub last_zxid: Zxid,
    /// End of the last batch; zero if there is none.
    pub flushed_to: Position,
    /// Chain value of the last batch; 0 if there is none.
    pub chain: u32,
    /// The number of the next batch.
    pub next_number: u64,
    /// The sequence number of the next segment. A file of that name without a batch in it may
    /// exist; making the segment replaces it.
    pub next_sequence: u64,
    /// The nonce of the segment before that.
    pub previous_nonce: u64,
    /// The segments that hold batches, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Bytes of the records after the snapshot.
    pub replayed_bytes: u64,
}

impl LogEnd {
    /// The end of a log that does not exist yet and will hold the records after `after`.
    #[must_use]
    pub const fn empty(after: Zxid) -> Self {
        Self {
            row: RecoveryRow::EmptyDirectory,
            last_zxid: after,
            flushed_to: Position { segment: 0, offset: 0 },
            chain: 0,
            next_number: 1,
            next_sequence: 1,
            previous_nonce: 0,
            segments: Vec::new(),
            replayed_bytes: 0,
        }
    }
}
