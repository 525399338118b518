//! The files in which a member keeps its configuration, beside `zoo.cfg` (`quorum-and-disk.md`
//! 6.2).
//!
//! | file | what |
//! |---|---|
//! | `zoo.cfg` | names the dynamic file, once there is one |
//! | `zoo.cfg.dynamic.<version>` | the configuration in force; the version is in the name alone |
//! | `zoo.cfg.dynamic.next` | the one that was last proposed, with its version |
//! | `zoo.cfg.bak` | `zoo.cfg` as it was when it held the list itself |
//!
//! What is written here is read by [`Config::parse`](super::Config::parse) and by Apache's servers.

use super::properties;

/// The text of a dynamic file: the lines of a configuration's text, sorted as Apache sorts them.
#[must_use]
pub fn dynamic_text(config_text: &str, keeps_version: bool) -> String {
    let lines = config_text.lines().filter(|line| keeps_version || !line.starts_with("version="));
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The name of the dynamic file of a configuration.
#[must_use]
pub fn dynamic_name(config_file: &str, version: i64) -> String {
    format!("{config_file}.dynamic.{version:x}")
}

/// The name of the file of the configuration that was last proposed.
#[must_use]
pub fn next_name(config_file: &str) -> String {
    format!("{config_file}.dynamic.next")
}

/// `zoo.cfg` as it names `dynamic_file`: without what stands there and, if that says where clients
/// connect, without `clientPort`. Every other line stays as it is, comments included.
#[must_use]
pub fn static_text(text: &[u8], dynamic_file: &str, moves_client: bool) -> Vec<u8> {
    let goes = |key: &str| {
        let key = key.strip_prefix("zookeeper.").unwrap_or(key);
        ["server.", "group", "weight", "dynamicConfigFile", "peerType"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
            || (moves_client && key.starts_with("clientPort") && !key.contains("Backlog"))
    };
    let mut kept = properties::without(text, goes);
    if kept.last().is_some_and(|byte| *byte != b'\n') {
        kept.push(b'\n');
    }
    kept.extend_from_slice(b"dynamicConfigFile=");
    for byte in dynamic_file.bytes() {
        if byte == b'\\' {
            kept.push(byte);
        }
        kept.push(byte);
    }
    kept.push(b'\n');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_files_are_sorted() {
        let text = "server.2=b:1:2:observer\nserver.10=a:1:2:participant\nversion=1f";
        let sorted = "server.10=a:1:2:participant\nserver.2=b:1:2:observer";
        assert_eq!(dynamic_text(text, false), sorted);
        assert_eq!(dynamic_text(text, true), format!("{sorted}\nversion=1f"));
        assert_eq!(dynamic_name("/e/zoo.cfg", 0x1_0000_0000), "/e/zoo.cfg.dynamic.100000000");
        assert_eq!(next_name("zoo.cfg"), "zoo.cfg.dynamic.next");
    }

    #[test]
    fn zoo_cfg_loses_the_list_and_keeps_the_rest() {
        let text = b"# ours\ndataDir=/d\nserver.1=a:1:2\nserver.2 = \\\n  b:1:2\nclientPort=5\n\
            clientPortAddress=h\nclientPortListenBacklog=9\npeerType=observer\ngroup.1=1:2\n\
            weight.1=2\ninitLimit=\\\n7";
        let kept = static_text(text, "/e/zoo.cfg.dynamic.1", false);
        assert_eq!(
            String::from_utf8(kept).unwrap(),
            "# ours\ndataDir=/d\nclientPort=5\nclientPortAddress=h\nclientPortListenBacklog=9\n\
             initLimit=\\\n7\ndynamicConfigFile=/e/zoo.cfg.dynamic.1\n"
        );
        let again = static_text(b"dynamicConfigFile=old\nclientPort=5\nx=y\n", "/n", true);
        assert_eq!(String::from_utf8(again).unwrap(), "x=y\ndynamicConfigFile=/n\n");
    }
}
