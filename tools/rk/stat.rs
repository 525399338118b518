//! Stats as zkCli prints them, and as JSON.

use std::time::{Duration, SystemTime};

use ringkeeper::model::Stat;
use serde_json::{Value, json};

/// Wall time in milliseconds as `2026-01-02T03:04:05.678Z`; the number if it is out of range.
pub(crate) fn time(ms: i64) -> String {
    // Year 9999 is the last that the format can say.
    const LAST_MS: i64 = 253_402_300_799_999;
    match u64::try_from(ms) {
        Ok(since) if ms <= LAST_MS => {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(since);
            humantime::format_rfc3339_millis(time).to_string()
        }
        _ => ms.to_string(),
    }
}

/// Eleven lines.
pub(crate) fn text(stat: &Stat) -> String {
    format!(
        "cZxid = {}\nctime = {}\nmZxid = {}\nmtime = {}\npZxid = {}\ncversion = {}\n\
         dataVersion = {}\naclVersion = {}\nephemeralOwner = 0x{:x}\ndataLength = {}\n\
         numChildren = {}\n",
        stat.czxid,
        time(stat.ctime),
        stat.mzxid,
        time(stat.mtime),
        stat.pzxid,
        stat.cversion,
        stat.version,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children,
    )
}

/// Zxids and owner as hexadecimal text, since JSON's numbers end at 53 bits; times in ms.
pub(crate) fn json(stat: &Stat) -> Value {
    json!({
        "czxid": stat.czxid.to_string(),
        "mzxid": stat.mzxid.to_string(),
        "pzxid": stat.pzxid.to_string(),
        "ctime": stat.ctime,
        "mtime": stat.mtime,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeralOwner": format!("0x{:x}", stat.ephemeral_owner),
        "dataLength": stat.data_length,
        "numChildren": stat.num_children,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringkeeper::model::Zxid;

    #[test]
    fn stats_are_printed() {
        let stat = Stat {
            czxid: Zxid(0x1_0000_0002),
            ctime: 1_700_000_000_123,
            mtime: -1,
            ephemeral_owner: -1,
            ..Stat::default()
        };
        let text = text(&stat);
        assert_eq!(text.lines().count(), 11);
        assert!(text.starts_with("cZxid = 0x100000002\nctime = 2023-11-14T22:13:20.123Z\n"));
        assert!(text.contains("mtime = -1\n"));
        assert!(text.contains("ephemeralOwner = 0xffffffffffffffff\n"));
        assert_eq!(json(&stat)["ephemeralOwner"], "0xffffffffffffffff");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }
}
