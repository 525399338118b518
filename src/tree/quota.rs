//! Quotas: which subtrees have one, what they use, and the statistics nodes that say so
//! (`client-protocol.md` part 9).
//!
//! The quota of subtree T is in two ordinary znodes below `/zookeeper/quota` + T: clients write
//! `zookeeper_limits`, the tree rewrites the data of `zookeeper_stats` in place, without a new
//! version and without an event.

use std::collections::BTreeMap;
use std::fmt;

use super::store::Tree;
use super::value::Common;
use crate::base::Str;
use crate::model::path;

const QUOTA_ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// What the data of a limits or statistics node says. A missing key is -1: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track(BTreeMap<String, i64>);

/// The quota that a path is under, and what its subtree uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The subtree's root.
    pub root: Str,
    /// Limits.
    pub limits: Track,
    /// Usage, as the statistics node says.
    pub usage: Track,
}

/// A limit that a change would pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// `count` or `bytes`.
    pub what: &'static str,
    /// What it would be.
    pub usage: i64,
    /// What it may be.
    pub limit: i64,
    /// Refused, not only warned about.
    pub hard: bool,
}

impl Track {
    const COUNT: &str = "count";
    const BYTES: &str = "bytes";
    const COUNT_HARD: &str = "countHardLimit";
    const BYTES_HARD: &str = "byteHardLimit";

    /// Reads `count=1,bytes=2=;byteHardLimit=3`; what is no number is taken for -1.
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        let text = String::from_utf8_lossy(data);
        let pairs = text.split([',', ';']).filter_map(|pair| {
            let mut parts = pair.splitn(2, '=');
            let key = parts.next().filter(|key| !key.is_empty())?;
            let value = parts.next().unwrap_or_default().trim_end_matches('=');
            Some((key.to_owned(), value.trim().parse().unwrap_or(-1)))
        });
        Self(pairs.collect())
    }

    fn usage(count: i64, bytes: i64) -> Self {
        Self(BTreeMap::from([(Self::COUNT.to_owned(), count), (Self::BYTES.to_owned(), bytes)]))
    }

    fn get(&self, key: &str) -> i64 {
        self.0.get(key).copied().unwrap_or(-1)
    }

    /// Znodes, or their soft limit.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.get(Self::COUNT)
    }

    /// Bytes of data, or their soft limit.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        self.get(Self::BYTES)
    }

    fn add(&mut self, count: i64, bytes: i64) {
        self.0.insert(Self::COUNT.to_owned(), self.count().saturating_add(count));
        self.0.insert(Self::BYTES.to_owned(), self.bytes().saturating_add(bytes));
    }
}

/// As Apache prints it, the stray `=` before further keys included.
impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.count(), self.bytes())?;
        let others =
            self.0.iter().filter(|(key, _)| ![Self::COUNT, Self::BYTES].contains(&&***key));
        for (at, (key, value)) in others.enumerate() {
            let lead = if at == 0 { "=;" } else { ";" };
            write!(f, "{lead}{key}={value}")?;
        }
        Ok(())
    }
}

impl Quota {
    /// The limits that a change by so many znodes and bytes would pass. Equal is allowed.
    #[must_use]
    pub fn excesses(&self, count: i64, bytes: i64) -> Vec<Excess> {
        let one = |what, change, usage: i64, hard: i64, soft: i64| {
            let usage = usage.saturating_add(change);
            let (limit, hard) = if hard > -1 { (hard, true) } else { (soft, false) };
            (change != 0 && limit > -1 && limit < usage).then_some(Excess {
                what,
                usage,
                limit,
                hard,
            })
        };
        let limits = &self.limits;
        let count_hard = limits.get(Track::COUNT_HARD);
        let bytes_hard = limits.get(Track::BYTES_HARD);
        [
            one(Track::COUNT, count, self.usage.count(), count_hard, limits.count()),
            one(Track::BYTES, bytes, self.usage.bytes(), bytes_hard, limits.bytes()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The subtree whose limits or statistics node `path` is; never `/`, which has no quota.
fn subtree_of<'p>(node: &'p str, name: &str) -> Option<&'p str> {
    let parent = node.strip_suffix(name)?.strip_suffix('/')?;
    parent.strip_prefix(QUOTA_ROOT).filter(|root| root.starts_with('/'))
}

impl Tree {
    /// The deepest quota that a change at `path` counts for.
    #[must_use]
    pub fn quota_of(&self, path: &str) -> Option<Quota> {
        let root = self.quota_root_of(path)?;
        let track = |name: &str| {
            let znode = self.get(&format!("{QUOTA_ROOT}{root}/{name}"))?;
            Some(Track::parse(znode.data().unwrap_or_default()))
        };
        let (limits, usage) = (track(LIMITS)?, track(STATS)?);
        Some(Quota { root: Str::from(root), limits, usage })
    }

    fn quota_root_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.quotas.is_empty() {
            return None;
        }
        let mut at = path;
        while at != "/" {
            if self.quotas.contains(at) {
                return Some(at);
            }
            at = path::parent(at)?;
        }
        None
    }

    /// A znode was created, set or deleted: by how much its subtree grew.
    pub(super) fn account(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(root) = self.quota_root_of(path) else { return };
        let stats = format!("{QUOTA_ROOT}{root}/{STATS}");
        let Some(old) = self.get(&stats).map(|znode| znode.data().unwrap_or_default().to_vec())
        else {
            return;
        };
        let mut track = Track::parse(&old);
        track.add(count, bytes);
        self.rewrite(&stats, &track);
    }

    /// A znode came into being: it may switch a quota on.
    pub(super) fn quota_node_created(&mut self, node: &str) {
        if let Some(root) = subtree_of(node, LIMITS) {
            self.quotas.insert(Str::from(root));
        } else if let Some(root) = subtree_of(node, STATS) {
            self.recount(&Str::from(root));
        }
    }

    /// A znode is gone: it may switch a quota off.
    pub(super) fn quota_node_deleted(&mut self, node: &str) {
        if let Some(root) = subtree_of(node, LIMITS) {
            self.quotas.remove(root);
        }
    }

    /// After a restore: finds the quotas, and counts anew.
    pub(super) fn restore_quotas(&mut self) {
        let limits: Vec<String> = self
            .paths_below(QUOTA_ROOT)
            .into_iter()
            .filter(|path| subtree_of(path, LIMITS).is_some())
            .collect();
        for node in limits {
            if let Some(root) = subtree_of(&node, LIMITS) {
                self.quotas.insert(Str::from(root));
                self.recount(&Str::from(root));
            }
        }
    }

    fn recount(&mut self, root: &Str) {
        let (mut count, mut bytes) = (0, 0);
        for path in std::iter::once(root.to_string()).chain(self.paths_below(root)) {
            if let Some(znode) = self.get(&path) {
                count += 1;
                bytes += znode.data().map_or(0, <[u8]>::len) as i64;
            }
        }
        self.rewrite(&format!("{QUOTA_ROOT}{root}/{STATS}"), &Track::usage(count, bytes));
    }

    /// Replaces a statistics node's data, and nothing else of it.
    fn rewrite(&mut self, stats: &str, track: &Track) {
        let Some(id) = self.find(stats) else { return };
        let Some(value) = self.value(id).cloned() else { return };
        let (interned, text) = (self.intern(value.acl()), track.to_string());
        let common = Common::of(&interned, Some(text.as_bytes()));
        self.replace(id, stats, value.stat(), common, text.as_bytes());
    }

    pub(super) fn paths_below(&self, top: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![top.to_owned()];
        while let Some(path) = open.pop() {
            let Some(znode) = self.get(&path) else { continue };
            for name in znode.children() {
                let child = format!("{path}/{name}");
                found.push(child.clone());
                open.push(child);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_are_read_and_printed_as_apache_does() {
        for (text, printed) in [
            ("count=1,bytes=2", "count=1,bytes=2"),
            ("count=5", "count=5,bytes=-1"),
            ("", "count=-1,bytes=-1"),
            ("count=,bytes=x", "count=-1,bytes=-1"),
            (
                "count=1,bytes=2=;byteHardLimit=3;countHardLimit=4",
                "count=1,bytes=2=;byteHardLimit=3;countHardLimit=4",
            ),
        ] {
            assert_eq!(Track::parse(text.as_bytes()).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn only_nodes_below_the_quota_root_name_subtrees() {
        for (node, root) in [
            ("/zookeeper/quota/a/b/zookeeper_limits", Some("/a/b")),
            ("/zookeeper/quota/zookeeper_limits", None),
            ("/a/zookeeper_limits", None),
            ("/zookeeper/quotax/zookeeper_limits", None),
        ] {
            assert_eq!(subtree_of(node, LIMITS), root, "{node}");
        }
    }

    #[test]
    fn a_hard_limit_takes_the_place_of_a_soft_one_and_equal_is_allowed() {
        let quota = |limits: &str| Quota {
            root: Str::from("/a"),
            limits: Track::parse(limits.as_bytes()),
            usage: Track::usage(3, 10),
        };
        assert_eq!(quota("count=4,bytes=10").excesses(1, 0), []);
        let soft = Excess { what: "count", usage: 5, limit: 4, hard: false };
        assert_eq!(quota("count=4,bytes=-1").excesses(2, 5), [soft]);
        let hard = Excess { what: "bytes", usage: 9, limit: 8, hard: true };
        // Even a change that shrinks is refused while the usage stays above the limit.
        assert_eq!(quota("count=9,bytes=20=;byteHardLimit=8").excesses(0, -1), [hard]);
    }
}
