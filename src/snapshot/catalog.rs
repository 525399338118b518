//! Names of snapshots, and which of them may go.

use crate::model::Zxid;

/// What a snapshot is called while it is written.
pub const UNFINISHED_SUFFIX: &str = ".new";

/// The name of the snapshot at `zxid`.
#[must_use]
pub fn file_name(zxid: Zxid) -> String {
    format!("snapshot.{:016x}", zxid.0)
}

/// The zxid of a snapshot's name; `None` for every other name.
#[must_use]
pub fn zxid_of(name: &str) -> Option<Zxid> {
    let digits = name.strip_prefix("snapshot.").filter(|digits| digits.len() == 16)?;
    let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    lower.then(|| i64::from_str_radix(digits, 16).ok()).flatten().map(Zxid)
}

/// Splits verified snapshots, oldest first, into those to remove and those to keep.
#[must_use]
pub fn split_for_purge(verified: &[Zxid], keep_count: usize) -> (&[Zxid], &[Zxid]) {
    verified.split_at(verified.len().saturating_sub(keep_count.max(1)))
}
