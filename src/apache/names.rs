//! Names of the files in an Apache data directory, and the two epoch files.

use super::Compression;
use crate::model::Zxid;

/// The directory below `dataDir` and `dataLogDir` that holds everything.
pub const DIRECTORY: &str = "version-2";
/// The last epoch promised to a leader.
pub const ACCEPTED_EPOCH: &str = "acceptedEpoch";
/// The last epoch whose history was taken over.
pub const CURRENT_EPOCH: &str = "currentEpoch";
/// The same while it is written.
pub const CURRENT_EPOCH_UNFINISHED: &str = "currentEpoch.tmp";
/// The files that say something of epochs.
pub const EPOCHS: [&str; 3] = [ACCEPTED_EPOCH, CURRENT_EPOCH, CURRENT_EPOCH_UNFINISHED];

/// The name of the log file whose first record is `zxid`.
#[must_use]
pub fn log_name(zxid: Zxid) -> String {
    format!("log.{:x}", zxid.0)
}

/// The first zxid of the log file of this name; `None` for every other file.
#[must_use]
pub fn log_zxid(name: &str) -> Option<Zxid> {
    hex(name.strip_prefix("log.")?)
}

/// The name of the snapshot whose writing began at `zxid`.
#[must_use]
pub fn snapshot_name(zxid: Zxid, compression: Compression) -> String {
    format!("snapshot.{:x}{}", zxid.0, compression.suffix())
}

/// What the name of a snapshot says; `None` for every other file.
#[must_use]
pub fn snapshot_zxid(name: &str) -> Option<(Zxid, Compression)> {
    let rest = name.strip_prefix("snapshot.")?;
    let (digits, compression) = match rest.split_once('.') {
        None => (rest, Compression::None),
        Some((digits, "gz")) => (digits, Compression::Gzip),
        Some((digits, "snappy")) => (digits, Compression::Snappy),
        Some(_) => return None,
    };
    Some((hex(digits)?, compression))
}

/// Reads an epoch file: a decimal number in its first line.
#[must_use]
pub fn parse_epoch(file: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(file).ok()?.lines().next()?;
    // Both are Java's ints.
    line.trim().parse().ok().filter(|epoch| i32::try_from(*epoch).is_ok())
}

fn hex(digits: &str) -> Option<Zxid> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    // As Apache parses it: 64 bits, never negative in a name that it wrote.
    plain.then(|| i64::from_str_radix(digits, 16).ok()).flatten().map(Zxid)
}
