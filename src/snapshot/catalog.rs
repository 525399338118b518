//! Names of snapshots, and which of them may go.

use crate::model::Zxid;

/// What a snapshot is called while it is written.
pub const UNFINISHED_SUFFIX: &str = ".new";

/// Behind the name of a snapshot that comes from a leader.
const RECEIVED: &str = ".received";

/// The name of the snapshot at `zxid`.
#[must_use]
pub fn file_name(zxid: Zxid) -> String {
    format!("snapshot.{:016x}", zxid.0)
}

/// What the snapshot at `zxid` is called that was received from a leader, until it takes the place
/// of what is there.
#[must_use]
pub fn received_name(zxid: Zxid) -> String {
    format!("{}{RECEIVED}{UNFINISHED_SUFFIX}", file_name(zxid))
}

/// The zxid of a snapshot's name; `None` for every other name.
#[must_use]
pub fn zxid_of(name: &str) -> Option<Zxid> {
    let digits = name.strip_prefix("snapshot.").filter(|digits| digits.len() == 16)?;
    let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    lower.then(|| i64::from_str_radix(digits, 16).ok()).flatten().map(Zxid)
}

/// Whether a file of this name is read as a snapshot, a received one among them.
#[must_use]
pub fn is_snapshot(name: &str) -> bool {
    let received =
        name.strip_suffix(UNFINISHED_SUFFIX).and_then(|name| name.strip_suffix(RECEIVED));
    zxid_of(received.unwrap_or(name)).is_some()
}

/// Splits verified snapshots, oldest first, into those to remove and those to keep.
#[must_use]
pub fn split_for_purge(verified: &[Zxid], keep_count: usize) -> (&[Zxid], &[Zxid]) {
    verified.split_at(verified.len().saturating_sub(keep_count.max(1)))
}
