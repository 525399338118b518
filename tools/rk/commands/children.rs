//! ls, rm and count.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use ringkeeper::model::{ErrorCode, Request, WriteRequest};
use serde_json::json;

use super::{Context, watch, znode_path};
use crate::failure::{Failure, Outcome};
use crate::stat;
use crate::zk::{Zk, finish};

/// How often a subtree that grows while it is deleted is walked again.
const ROUNDS_MAX: usize = 10;

/// Arguments of ls.
#[derive(Args)]
pub(crate) struct Ls {
    #[arg(value_parser = znode_path, default_value = "/")]
    path: String,
    /// The whole subtree, a path per line, level by level
    #[arg(long, short = 'R', conflicts_with_all = ["stat", "watch"])]
    recursive: bool,
    /// The stat of PATH, too
    #[arg(long, short)]
    stat: bool,
    /// Wait for the next change and print it; in the shell: leave a watch
    #[arg(long, short)]
    watch: bool,
}

/// Arguments of rm.
#[derive(Args)]
pub(crate) struct Rm {
    #[arg(value_parser = znode_path)]
    path: String,
    /// Only if the data has this version
    #[arg(long, default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    version: i32,
    /// All below it, too; asks first
    #[arg(long, short, conflicts_with = "version")]
    recursive: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Arguments of count.
#[derive(Args)]
pub(crate) struct Count {
    #[arg(value_parser = znode_path, default_value = "/")]
    path: String,
}

impl Ls {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        if self.recursive {
            let Context { zk, out, .. } = context;
            return zk.walk(&self.path, |path| out.either(path, &json!({ "path": path })));
        }
        let (names, stat) = context.zk.children(&self.path, self.watch)?;
        let mut value = json!({ "path": self.path, "children": names });
        if context.out.format.json {
            value["stat"] = stat::json(&stat);
            context.out.json(&value)?;
        } else {
            for name in &names {
                context.out.shown(name)?;
            }
            if self.stat {
                context.out.bytes(stat::text(&stat).as_bytes())?;
            }
        }
        if self.watch { watch::wait_for_one(context) } else { Ok(()) }
    }
}

impl Rm {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        if !self.recursive {
            context.zk.delete(&self.path, self.version)?;
            return context.out.json_only(&json!({ "path": self.path, "deleted": 1 }));
        }
        if self.path == "/" {
            return Err(Failure::Usage("/ itself cannot be deleted".to_owned()));
        }
        let mut paths = subtree(&context.zk, &self.path)?;
        if !self.yes && !confirmed(&self.path, paths.len())? {
            return Err(Failure::Usage(format!("{} stays as it was", self.path)));
        }
        let mut deleted = 0;
        for _ in 0..ROUNDS_MAX {
            let grown = delete_all(&context.zk, &paths, &mut deleted)?;
            if !grown {
                return context.out.json_only(&json!({ "path": self.path, "deleted": deleted }));
            }
            paths = subtree(&context.zk, &self.path)?;
        }
        Err(Failure::Refused { code: ErrorCode::NOT_EMPTY, path: self.path.clone() })
    }
}

fn subtree(zk: &Zk, root: &str) -> Result<Vec<String>, Failure> {
    let mut paths = Vec::new();
    zk.walk(root, |path| {
        paths.push(path.to_owned());
        Ok(())
    })?;
    Ok(paths)
}

/// Deletes children before parents; whether somebody has created more meanwhile.
fn delete_all(zk: &Zk, paths: &[String], deleted: &mut usize) -> Result<bool, Failure> {
    let mut grown = false;
    let request = |path: &str| {
        Request::Write(WriteRequest::Delete { path: zk.full(path).into(), version: -1 })
    };
    zk.for_each(paths.iter().rev(), request, |_, path, answer| {
        match finish(path, answer, |_| Ok(())) {
            Ok(()) => *deleted += 1,
            Err(failure) if failure.is(ErrorCode::NO_NODE) => {}
            Err(failure) if failure.is(ErrorCode::NOT_EMPTY) => grown = true,
            Err(failure) => return Err(failure),
        }
        Ok(())
    })?;
    Ok(grown)
}

fn confirmed(path: &str, count: usize) -> Result<bool, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let text = format!("rm -r {path} deletes {count} znodes: say --yes");
        return Err(Failure::Usage(text));
    }
    eprint!("delete {path} and all below it, {count} znodes? [y/N] ");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|error| Failure::io("standard input", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Count {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let count = context.zk.count(&self.path)?;
        context.out.either(&count.to_string(), &json!({ "path": self.path, "descendants": count }))
    }
}
