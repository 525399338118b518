//! Stats as zkCli prints them, and as JSON.

use ringkeeper::model::Stat;
use serde_json::{Value, json};

use crate::time::rfc3339;

/// Eleven lines.
pub(crate) fn text(stat: &Stat) -> String {
    format!(
        "cZxid = {}\nctime = {}\nmZxid = {}\nmtime = {}\npZxid = {}\ncversion = {}\n\
         dataVersion = {}\naclVersion = {}\nephemeralOwner = 0x{:x}\ndataLength = {}\n\
         numChildren = {}\n",
        stat.czxid,
        rfc3339(stat.ctime),
        stat.mzxid,
        rfc3339(stat.mtime),
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
        assert!(text.contains("mtime = 1969-12-31T23:59:59.999Z\n"));
        assert!(text.contains("ephemeralOwner = 0xffffffffffffffff\n"));
        assert_eq!(json(&stat)["ephemeralOwner"], "0xffffffffffffffff");
    }
}
