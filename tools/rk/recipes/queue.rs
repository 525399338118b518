//! queue: entries that are put once and taken once, by priority and then in order.
//!
//! An entry is a znode `entry-PRIORITY-UUID-NUMBER`. Each txn that puts or takes creates an
//! ephemeral marker with it: after a broken connection the marker tells whether it was executed.

use clap::{Args, Subcommand};
use ringkeeper::model::{Acl, ErrorCode, WriteRequest};
use ringkeeper::wire::response::MultiResult;
use serde_json::{Map, Value, json};

use super::{Wait, sequence, still_unknown, unique, wait_for_change};
use crate::commands::{Context, znode_path};
use crate::failure::{Failure, Outcome};
use crate::zk::{Kind, NewZnode, Zk, join, none_if_missing};

/// Arguments of queue.
#[derive(Args)]
pub(crate) struct Queue {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Appends an entry and prints its path
    Put {
        /// The queue; created if it is missing
        #[arg(value_parser = znode_path)]
        path: String,
        /// TEXT, @FILE or - for standard input
        data: String,
        /// Smaller ones are taken first
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(..1000))]
        priority: u16,
    },
    /// Removes the first entry and prints its data
    Take {
        #[arg(value_parser = znode_path)]
        path: String,
        #[command(flatten)]
        wait: Wait,
    },
}

/// Puts or takes.
pub(crate) fn run(queue: &Queue, context: &mut Context) -> Outcome {
    match &queue.action {
        Action::Put { path, data, priority } => {
            let data = context.out.format.data_from(data)?;
            let own = context.own_session()?;
            let prefix = format!("entry-{priority:03}-{}-", unique());
            let put = put(&own.zk, path, &prefix, &data)?;
            context.out.either(&put, &json!({ "path": put }))
        }
        Action::Take { path, wait } => take(context, path, wait),
    }
}

/// The path of the entry. Settled after a broken connection it may have been taken already; then
/// the number is missing.
fn put(zk: &Zk, folder: &str, prefix: &str, data: &[u8]) -> Result<String, Failure> {
    let path = join(folder, prefix);
    let acl = [Acl::open()];
    let new = NewZnode { path: &path, data, acl: &acl, kind: Kind::Persistent, sequential: true };
    let results = loop {
        match once(zk, folder, new.to_request(&zk.full(&path))) {
            Err(failure) if failure.is(ErrorCode::NO_NODE) => {
                zk.ensure(folder, &acl, Kind::Persistent)?;
            }
            results => break results?,
        }
    };
    if let Some(MultiResult::Create { path }) = results.first() {
        return Ok(zk.seen(path));
    }
    let (children, _) = zk.children(folder, false)?;
    let name = children.into_iter().find(|name| name.starts_with(prefix));
    Ok(name.map_or(path, |name| join(folder, &name)))
}

fn take(context: &mut Context, folder: &str, wait: &Wait) -> Outcome {
    let own = context.own_session()?;
    let until = wait.deadline();
    loop {
        let (children, _) = own.zk.children(folder, true)?;
        for name in entries(&children) {
            let path = join(folder, name);
            let Some((data, _)) = none_if_missing(own.zk.get(&path, false))? else { continue };
            let delete = WriteRequest::Delete { path: own.zk.full(&path).into(), version: -1 };
            // Somebody else may be quicker.
            if none_if_missing(once(&own.zk, folder, delete))?.is_none() {
                continue;
            }
            if context.out.format.json {
                let mut value = Map::new();
                value.insert("path".into(), json!(path));
                context.out.format.data_into(&mut value, data.as_deref());
                return context.out.json(&Value::Object(value));
            }
            return context.out.data(data.as_deref().unwrap_or_default(), false);
        }
        wait_for_change(&own.inputs, until)?;
    }
}

/// Executes an op exactly once on this session. No results if that was only found out afterwards.
fn once(zk: &Zk, folder: &str, op: WriteRequest) -> Result<Vec<MultiResult>, Failure> {
    let path = join(folder, &format!("done-{}", unique()));
    let acl = [Acl::open()];
    let marker =
        NewZnode { path: &path, data: b"", acl: &acl, kind: Kind::Ephemeral, sequential: false };
    let ops = vec![op, marker.to_request(&zk.full(&path))];
    loop {
        match zk.multi(ops.clone()) {
            Ok(Ok(results)) => {
                // It has served; the end of the session would remove it, too.
                let _left_for_later = zk.delete(&path, -1);
                return Ok(results);
            }
            Ok(Err(codes)) => {
                let is_own = |code: &&ErrorCode| {
                    !matches!(**code, ErrorCode::OK | ErrorCode::RUNTIME_INCONSISTENCY)
                };
                let code = codes.iter().find(is_own).copied();
                let code = code.unwrap_or(ErrorCode::RUNTIME_INCONSISTENCY);
                return Err(Failure::Refused { code, path: folder.to_owned() });
            }
            Err(Failure::Unknown(_)) => {
                let found = zk.sync(folder).and_then(|()| zk.exists(&path, false));
                if found.map_err(still_unknown)?.is_some() {
                    return Ok(Vec::new());
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Names of entries: smaller priority first, then smaller number.
fn entries(children: &[String]) -> Vec<&str> {
    let mut entries: Vec<(&str, i64, &str)> = children
        .iter()
        .filter_map(|name| {
            let priority = name.strip_prefix("entry-")?.get(..3)?;
            Some((priority, sequence(name)?, name.as_str()))
        })
        .collect();
    entries.sort_unstable();
    entries.into_iter().map(|(.., name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_by_priority_and_number() {
        let children = [
            "entry-100-zz-0000000001",
            "entry-100-aa-0000000003",
            "done-aa",
            "entry-050-mm-0000000004",
            "entry-100-bb-0000000002",
            "entry-x",
        ]
        .map(str::to_owned);
        assert_eq!(
            entries(&children),
            [
                "entry-050-mm-0000000004",
                "entry-100-zz-0000000001",
                "entry-100-bb-0000000002",
                "entry-100-aa-0000000003"
            ]
        );
    }
}
