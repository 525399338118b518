//! dump and load: a subtree as JSON lines, parents first, for backups and for moving it.
//!
//! ```text
//! {"path":"/a","data":"text","acl":[{"scheme":"world","id":"anyone","perms":"cdrwa"}]}
//! {"path":"/a/b","data_base64":"AAE=","acl":[...],"ephemeral":true}
//! ```
//! A dump is not of one moment: znodes that change meanwhile are in it as they were or as they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use clap::Args;
use ringkeeper::client::{replies, requests};
use ringkeeper::model::{Acl, ErrorCode, Id, ReadRequest, Request};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Context, acls, znode_path};
use crate::acl;
use crate::failure::{Failure, Outcome};
use crate::output::{decode_base64, decode_hex};
use crate::zk::{Kind, NewZnode, WINDOW, Zk, finish, join};

/// Paths read at once.
const BATCH: usize = 256;

/// Arguments of dump.
#[derive(Args)]
pub(crate) struct Dump {
    #[arg(value_parser = znode_path, default_value = "/")]
    path: String,
}

/// Arguments of load.
#[derive(Args)]
pub(crate) struct Load {
    /// FILE, or - for standard input
    #[arg(default_value = "-")]
    file: String,
    /// Below this path; it and the parents of the first znode are created if they are missing
    #[arg(long, value_parser = znode_path, default_value = "/")]
    at: String,
    /// Set data and ACL of znodes that exist
    #[arg(long)]
    overwrite: bool,
    /// Leave znodes alone that exist
    #[arg(long, conflicts_with = "overwrite")]
    keep: bool,
}

/// A line of a dump.
#[derive(Deserialize)]
struct Line {
    path: String,
    data: Option<String>,
    data_base64: Option<String>,
    data_hex: Option<String>,
    #[serde(default)]
    acl: Vec<Entry>,
    #[serde(default)]
    ephemeral: bool,
}

#[derive(Deserialize)]
struct Entry {
    scheme: String,
    id: String,
    perms: String,
}

impl Dump {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let mut batch = Vec::new();
        let zk = context.zk.clone();
        // What the server keeps there is not the users' to load elsewhere.
        let is_own = |path: &str| {
            let full = zk.full(path);
            full == "/zookeeper" || full.starts_with("/zookeeper/")
        };
        zk.walk(&self.path, |path| {
            if !is_own(path) {
                batch.push(path.to_owned());
            }
            if batch.len() == BATCH { write(context, &std::mem::take(&mut batch)) } else { Ok(()) }
        })?;
        write(context, &batch)
    }
}

/// Znodes that have vanished are passed over.
fn write(context: &mut Context, paths: &[String]) -> Outcome {
    let Context { zk, out, .. } = context;
    let mut found = Vec::new();
    let request = |path: &str| requests::get(&zk.full(path), false);
    zk.for_each(paths, request, |zk, path, answer| {
        let answer = zk.again_if_lost(answer, || request(path));
        match finish(path, answer, replies::data_and_stat) {
            Ok((data, stat)) => found.push((path.clone(), data, stat)),
            Err(failure) if failure.is(ErrorCode::NO_NODE) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    })?;
    let request = |path: &str| Request::Read(ReadRequest::GetAcl { path: zk.full(path).into() });
    let acl_paths: Vec<&String> = found.iter().map(|(path, ..)| path).collect();
    let mut acl_of = Vec::new();
    zk.for_each(acl_paths, request, |zk, path, answer| {
        let answer = zk.again_if_lost(answer, || request(path));
        match finish(path, answer, replies::acl_and_stat) {
            Ok((acl, _)) => acl_of.push(Some(acl)),
            Err(failure) if failure.is(ErrorCode::NO_NODE) => acl_of.push(None),
            Err(failure) => return Err(failure),
        }
        Ok(())
    })?;
    for ((path, data, stat), acl) in found.iter().zip(acl_of) {
        let Some(acl) = acl else { continue };
        let mut line = Map::new();
        line.insert("path".into(), json!(path));
        out.format.data_into(&mut line, data.as_deref());
        line.insert("acl".into(), acls::to_json(&acl));
        if stat.ephemeral_owner != 0 {
            line.insert("ephemeral".into(), json!(true));
        }
        out.json(&Value::Object(line))?;
    }
    Ok(())
}

impl Load {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let reader: Box<dyn BufRead> = if self.file == "-" {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(&self.file);
            Box::new(BufReader::new(
                file.map_err(|error| Failure::io(&format!("file {}", self.file), &error))?,
            ))
        };
        context.zk.ensure(&self.at, &[Acl::open()], Kind::Persistent)?;
        let mut counts = Counts::default();
        let mut batch = Vec::new();
        for (at, line) in reader.lines().enumerate() {
            let line = line.map_err(|error| Failure::io(&self.file, &error))?;
            if line.trim().is_empty() {
                continue;
            }
            let read = self.read(&line);
            let wrong = |why| Failure::Usage(format!("{}: line {}: {why}", self.file, at + 1));
            match read.map_err(wrong)? {
                Some(item) => {
                    if batch.is_empty() && counts == Counts::default() {
                        let open = [Acl::open()];
                        context.zk.create_parents(&item.path, &open, Kind::Persistent)?;
                    }
                    batch.push(item);
                }
                None => counts.ephemerals += 1,
            }
            if batch.len() == WINDOW {
                self.create(&context.zk, &std::mem::take(&mut batch), &mut counts)?;
            }
        }
        self.create(&context.zk, &batch, &mut counts)?;
        let text = format!(
            "{} created, {} overwritten, {} kept, {} ephemerals passed over",
            counts.created, counts.overwritten, counts.kept, counts.ephemerals
        );
        let value = json!({
            "created": counts.created,
            "overwritten": counts.overwritten,
            "kept": counts.kept,
            "ephemerals": counts.ephemerals,
        });
        context.out.either(&text, &value)
    }

    /// `None` for an ephemeral.
    fn read(&self, line: &str) -> Result<Option<Item>, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        znode_path(&line.path).map_err(|why| format!("{}: {why}", line.path))?;
        let (data, acl) = (line.data()?, line.acl()?);
        if line.ephemeral {
            return Ok(None);
        }
        let path = match (self.at.as_str(), line.path.as_str()) {
            ("/", path) => path.to_owned(),
            (at, "/") => at.to_owned(),
            (at, path) => join(at, path.trim_start_matches('/')),
        };
        Ok(Some(Item { path, data, acl }))
    }

    /// Sends a batch at once: the server executes it in order, parents first.
    fn create(&self, zk: &Zk, batch: &[Item], counts: &mut Counts) -> Outcome {
        let mut sent = Vec::new();
        for item in batch {
            let new = NewZnode {
                path: &item.path,
                data: &item.data,
                acl: &item.acl,
                kind: Kind::Persistent,
                sequential: false,
            };
            // The root is always there; a create of it is not even a request.
            sent.push((item, (item.path != "/").then(|| zk.submit_create(&new))));
        }
        for (item, ticket) in sent {
            let created = match ticket {
                Some(ticket) => zk.created(&item.path, ticket).map(Some),
                None => Ok(None),
            };
            match created {
                Ok(Some(_)) => counts.created += 1,
                Err(failure) if !failure.is(ErrorCode::NODE_EXISTS) => return Err(failure),
                _ if self.overwrite => {
                    zk.set(&item.path, &item.data, -1)?;
                    zk.set_acl(&item.path, &item.acl, -1)?;
                    counts.overwritten += 1;
                }
                // What load itself has created is no surprise.
                Err(failure) if !self.keep && item.path != self.at => return Err(failure),
                _ => counts.kept += 1,
            }
        }
        Ok(())
    }
}

/// A znode to be created.
struct Item {
    path: String,
    data: Vec<u8>,
    acl: Vec<Acl>,
}

#[derive(Default, PartialEq, Eq)]
struct Counts {
    created: u64,
    overwritten: u64,
    kept: u64,
    ephemerals: u64,
}

impl Line {
    fn data(&self) -> Result<Vec<u8>, String> {
        match (&self.data, &self.data_base64, &self.data_hex) {
            (Some(text), _, _) => Ok(text.as_bytes().to_vec()),
            (None, Some(text), _) => decode_base64(text.as_bytes()),
            (None, None, Some(text)) => decode_hex(text.as_bytes()),
            (None, None, None) => Ok(Vec::new()),
        }
    }

    /// None is the open one.
    fn acl(&self) -> Result<Vec<Acl>, String> {
        let entry = |entry: &Entry| {
            let perms = acl::parse_perms(&entry.perms)
                .ok_or_else(|| format!("permissions {:?} are not letters of cdrwa", entry.perms))?;
            let id = Id { scheme: entry.scheme.as_str().into(), id: entry.id.as_str().into() };
            Ok(Acl { perms, id })
        };
        match self.acl.as_slice() {
            [] => Ok(vec![Acl::open()]),
            entries => entries.iter().map(entry).collect(),
        }
    }
}
