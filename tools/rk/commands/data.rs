//! get, stat, create and set.

use std::time::Duration;

use clap::Args;
use ringkeeper::model::{Acl, ErrorCode};
use serde_json::{Map, Value, json};

use super::{Context, watch, znode_path, znode_prefix};
use crate::acl;
use crate::failure::{Failure, Outcome};
use crate::guard::Guard;
use crate::stat;
use crate::time::parse_duration;
use crate::zk::{Kind, NewZnode};

/// Arguments of get.
#[derive(Args)]
pub(crate) struct Get {
    #[arg(value_parser = znode_path)]
    path: String,
    /// The stat, too
    #[arg(long, short)]
    stat: bool,
    /// Wait for the next change and print it; in the shell: leave a watch
    #[arg(long, short)]
    watch: bool,
}

/// Arguments of stat.
#[derive(Args)]
pub(crate) struct Stat {
    #[arg(value_parser = znode_path)]
    path: String,
    /// Wait for the next change, creation included, and print it; in the shell: leave a watch
    #[arg(long, short)]
    watch: bool,
}

/// Arguments of set.
#[derive(Args)]
pub(crate) struct Set {
    #[arg(value_parser = znode_path)]
    path: String,
    /// TEXT, @FILE or - for standard input
    #[arg(allow_hyphen_values = true)]
    data: String,
    /// Only if the data has this version
    #[arg(long, default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    version: i32,
    /// Print the new stat
    #[arg(long, short)]
    stat: bool,
}

/// Arguments of create.
#[derive(Args)]
pub(crate) struct Create {
    /// With -s a prefix
    #[arg(value_parser = znode_prefix)]
    path: String,
    /// TEXT, @FILE or - for standard input; nothing by default
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
    /// The server appends a number of ten digits
    #[arg(long, short)]
    sequential: bool,
    /// The znode lives while COMMAND runs, or until ctrl-c; in the shell: with its session
    #[arg(long, short, conflicts_with_all = ["container", "ttl"])]
    ephemeral: bool,
    /// The server removes it when its last child is gone
    #[arg(long, short, conflicts_with_all = ["ttl", "sequential"])]
    container: bool,
    /// The server removes it when it has no children and was not set for this long
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Create missing parents, with the same ACL
    #[arg(long, short)]
    parents: bool,
    /// scheme:id:permissions,... of the letters cdrwa
    #[arg(long, default_value = "world:anyone:cdrwa")]
    acl: String,
    /// Run while the ephemeral lives
    #[arg(last = true, requires = "ephemeral")]
    command: Vec<String>,
}

impl Get {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let (data, stat) = context.zk.get(&self.path, self.watch)?;
        if context.out.format.json {
            let mut object = Map::new();
            object.insert("path".into(), json!(self.path));
            context.out.format.data_into(&mut object, data.as_deref());
            object.insert("stat".into(), stat::json(&stat));
            context.out.json(&Value::Object(object))?;
        } else {
            context.out.data(data.as_deref().unwrap_or_default(), self.stat)?;
            if self.stat {
                context.out.bytes(stat::text(&stat).as_bytes())?;
            }
        }
        if self.watch { watch::wait_for_one(context) } else { Ok(()) }
    }
}

impl Stat {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        match context.zk.stat(&self.path, self.watch) {
            Ok(stat) if context.out.format.json => {
                context.out.json(&json!({ "path": self.path, "stat": stat::json(&stat) }))?;
            }
            Ok(stat) => context.out.bytes(stat::text(&stat).as_bytes())?,
            // The watch is on a znode that may come.
            Err(failure) if self.watch && failure.is(ErrorCode::NO_NODE) => {
                failure.report(context.out.format.json);
            }
            Err(failure) => return Err(failure),
        }
        if self.watch { watch::wait_for_one(context) } else { Ok(()) }
    }
}

impl Set {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let data = context.out.format.data_from(&self.data)?;
        let stat = context.zk.set(&self.path, &data, self.version)?;
        if self.stat && !context.out.format.json {
            context.out.bytes(stat::text(&stat).as_bytes())?;
        }
        context.out.json_only(&json!({ "path": self.path, "stat": stat::json(&stat) }))
    }
}

impl Create {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let data = match &self.data {
            Some(data) => context.out.format.data_from(data)?,
            None => Vec::new(),
        };
        if self.path.ends_with('/') && !self.sequential {
            return Err(Failure::Usage(format!("{}: only -s may end in a slash", self.path)));
        }
        let acl = acl::parse(&self.acl).map_err(Failure::Usage)?;
        let is_held = !context.is_shell() || !self.command.is_empty();
        if self.ephemeral && is_held {
            let own = context.own_session()?;
            let path = self.create(&own.zk, &data, &acl)?;
            context.out.either(&path, &json!({ "path": path }))?;
            context.out.flush()?;
            let guard = Guard { zk: &own.zk, inputs: &own.inputs, znode: Some(&path) };
            return guard.hold(&self.command, &[("RK_ZNODE", path.clone())]);
        }
        let path = self.create(&context.zk, &data, &acl)?;
        context.out.either(&path, &json!({ "path": path }))
    }

    fn create(&self, zk: &crate::zk::Zk, data: &[u8], acl: &[Acl]) -> Result<String, Failure> {
        let kind = match self.ttl {
            Some(ttl) => Kind::Ttl(ttl),
            None if self.ephemeral => Kind::Ephemeral,
            None if self.container => Kind::Container,
            None => Kind::Persistent,
        };
        let new = NewZnode { path: &self.path, data, acl, kind, sequential: self.sequential };
        match zk.create(&new) {
            Err(failure) if self.parents && failure.is(ErrorCode::NO_NODE) => {
                zk.create_parents(&self.path, acl, Kind::Persistent)?;
                zk.create(&new)
            }
            result => result,
        }
    }
}
