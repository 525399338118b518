//! quota: limits on the znodes and bytes of a subtree (`client-protocol.md` part 9). What a quota
//! is, is in two znodes below `/zookeeper/quota`; keys and rules are those of zkCli.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use ringkeeper::model::{Acl, ErrorCode};
use serde_json::{Value, json};

use super::{Context, znode_path};
use crate::failure::{Failure, Outcome};
use crate::zk::{Kind, Zk, join, none_if_missing};

const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";
/// Key, name as an option, in the order in which Apache writes them.
const KEYS: [(&str, &str); 4] = [
    ("count", "count"),
    ("bytes", "bytes"),
    ("byteHardLimit", "hard-bytes"),
    ("countHardLimit", "hard-count"),
];

/// Arguments of quota.
#[derive(Args)]
pub(crate) struct Quota {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Prints limits and usage of a path, or of every path that has a quota
    List {
        #[arg(value_parser = znode_path)]
        path: Option<String>,
    },
    /// Sets limits; those not named stay
    Set {
        #[arg(value_parser = znode_path)]
        path: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Deletes the quota
    Delete {
        #[arg(value_parser = znode_path)]
        path: String,
    },
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Limits {
    /// Znodes: the server warns
    #[arg(long)]
    count: Option<u32>,
    /// Bytes of data: the server warns
    #[arg(long)]
    bytes: Option<u32>,
    /// Znodes: the server refuses, if it enforces quotas
    #[arg(long)]
    hard_count: Option<u32>,
    /// Bytes of data: the server refuses, if it enforces quotas
    #[arg(long)]
    hard_bytes: Option<u32>,
}

/// `count=1,bytes=2=;byteHardLimit=3;countHardLimit=4`, the stray `=` included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Track(BTreeMap<String, i64>);

impl Track {
    fn parse(data: &[u8]) -> Self {
        let text = String::from_utf8_lossy(data);
        let pairs = text.split([',', ';']).filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.trim_end_matches('=').trim().parse().unwrap_or(-1)))
        });
        Self(pairs.collect())
    }

    fn get(&self, key: &str) -> i64 {
        self.0.get(key).copied().unwrap_or(-1)
    }

    fn to_text(&self) -> String {
        let [count, bytes, hard_bytes, hard_count] = KEYS.map(|(key, _)| self.get(key));
        format!(
            "count={count},bytes={bytes}=;byteHardLimit={hard_bytes};countHardLimit={hard_count}"
        )
    }

    /// Only the limits that there are.
    fn to_json(&self) -> Value {
        let there = KEYS.iter().filter(|(key, _)| self.get(key) != -1);
        there.map(|(key, name)| ((*name).replace('-', "_"), json!(self.get(key)))).collect()
    }

    fn for_people(&self) -> String {
        let there = KEYS.iter().filter(|(key, _)| self.get(key) != -1);
        let texts: Vec<String> =
            there.map(|(key, name)| format!("{name} {}", self.get(key))).collect();
        if texts.is_empty() { "no limit".to_owned() } else { texts.join(", ") }
    }
}

impl Quota {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        match &self.action {
            Action::List { path: Some(path) } => {
                let quota = Place::of(&context.zk, path);
                if !quota.print(context, path)? {
                    return Err(Failure::Refused {
                        code: ErrorCode::NO_NODE,
                        path: format!("{} (no quota)", quota.limits),
                    });
                }
                Ok(())
            }
            Action::List { path: None } => list_all(context),
            Action::Set { path, limits } => {
                Place::of(&context.zk, path).set(&context.zk, path, limits)?;
                context.out.json_only(&json!({ "path": path }))
            }
            Action::Delete { path } => {
                Place::of(&context.zk, path).delete()?;
                context.out.json_only(&json!({ "path": path }))
            }
        }
    }
}

/// Where the quota of a path is kept.
struct Place {
    zk: Zk,
    folder: String,
    limits: String,
    stats: String,
}

impl Place {
    fn of(zk: &Zk, path: &str) -> Self {
        let folder = format!("{ROOT}{}", zk.full(path).trim_end_matches('/'));
        let (limits, stats) = (join(&folder, LIMITS), join(&folder, STATS));
        Self { zk: zk.absolute(), folder, limits, stats }
    }

    fn read(&self, path: &str) -> Result<Option<Track>, Failure> {
        let found = none_if_missing(self.zk.get(path, false))?;
        Ok(found.map(|(data, _)| Track::parse(data.as_deref().unwrap_or_default())))
    }

    /// Whether there is one.
    fn print(&self, context: &mut Context, path: &str) -> Result<bool, Failure> {
        let Some(limits) = self.read(&self.limits)? else { return Ok(false) };
        let usage = self.read(&self.stats)?.unwrap_or_default();
        let text = format!(
            "{path}: {}; used: count {}, bytes {}",
            limits.for_people(),
            usage.get("count"),
            usage.get("bytes")
        );
        let value = json!({ "path": path, "limits": limits.to_json(), "usage": usage.to_json() });
        context.out.either(&text, &value)?;
        Ok(true)
    }

    fn set(&self, zk: &Zk, path: &str, limits: &Limits) -> Outcome {
        zk.stat(path, false)?;
        self.check_relatives(zk.full(path).as_str())?;
        let old = self.read(&self.limits)?;
        let mut new = old.clone().unwrap_or_default();
        let values = [limits.count, limits.bytes, limits.hard_bytes, limits.hard_count];
        for ((key, _), value) in KEYS.iter().zip(values) {
            if let Some(value) = value {
                new.0.insert((*key).to_owned(), i64::from(value));
            }
        }
        let text = new.to_text();
        if old.is_some() {
            return self.zk.set(&self.limits, text.as_bytes(), -1).map(|_| ());
        }
        let acl = [Acl::open()];
        self.zk.ensure(&self.folder, &acl, Kind::Persistent)?;
        // Statistics come after the limits, so that the server counts what is there.
        for (path, data) in [(&self.limits, text.as_str()), (&self.stats, "count=0,bytes=0")] {
            let new = crate::zk::NewZnode {
                path,
                data: data.as_bytes(),
                acl: &acl,
                kind: Kind::Persistent,
                sequential: false,
            };
            self.zk.create(&new)?;
        }
        Ok(())
    }

    /// As zkCli: no quota above or below another.
    fn check_relatives(&self, full: &str) -> Outcome {
        let above = full.match_indices('/').skip(1).map(|(at, _)| &full[..at]);
        for ancestor in above {
            let limits = format!("{ROOT}{ancestor}/{LIMITS}");
            if self.zk.exists(&limits, false)?.is_some() {
                return Err(Failure::Usage(format!("{ancestor} above it has a quota")));
            }
        }
        let mut below = None;
        if self.zk.exists(&self.folder, false)?.is_some() {
            self.zk.walk(&self.folder, |path| {
                if path.ends_with(&format!("/{LIMITS}")) && path != self.limits {
                    below = Some(path.to_owned());
                }
                Ok(())
            })?;
        }
        match below {
            Some(path) => Err(Failure::Usage(format!(
                "{} below it has a quota",
                path.trim_start_matches(ROOT).trim_end_matches(LIMITS).trim_end_matches('/')
            ))),
            None => Ok(()),
        }
    }

    /// The folders above it that are left empty go, too.
    fn delete(&self) -> Outcome {
        self.zk.delete(&self.limits, -1)?;
        none_if_missing(self.zk.delete(&self.stats, -1))?;
        let mut folder = self.folder.as_str();
        while folder.len() > ROOT.len() {
            match none_if_missing(self.zk.delete(folder, -1)) {
                Ok(_) => {}
                Err(failure) if failure.is(ErrorCode::NOT_EMPTY) => break,
                Err(failure) => return Err(failure),
            }
            folder = folder.rsplit_once('/').map_or(ROOT, |(parent, _)| parent);
        }
        Ok(())
    }
}

fn list_all(context: &mut Context) -> Outcome {
    let absolute = context.zk.absolute();
    let mut full = Vec::new();
    absolute.walk(ROOT, |path| {
        if let Some(folder) = path.strip_suffix(LIMITS) {
            full.push(folder.trim_end_matches('/')[ROOT.len()..].to_owned());
        }
        Ok(())
    })?;
    let chroot = context.zk.full("/");
    let below =
        |path: &String| chroot == "/" || (path.clone() + "/").starts_with(&(chroot.clone() + "/"));
    for path in full.into_iter().filter(below) {
        let seen = context.zk.seen(&path);
        Place::of(&context.zk, &seen).print(context, &seen)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written_as_apache_does() {
        let text = "count=5,bytes=-1=;byteHardLimit=70;countHardLimit=-1";
        let track = Track::parse(text.as_bytes());
        assert_eq!(track.to_text(), text);
        assert_eq!(track.for_people(), "count 5, hard-bytes 70");
        assert_eq!(track.to_json(), json!({ "count": 5, "hard_bytes": 70 }));
        assert_eq!(Track::parse(b"count=1,bytes=x").get("bytes"), -1);
        assert_eq!(Track::parse(b"").for_people(), "no limit");
    }
}
