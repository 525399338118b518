//! getacl and setacl.

use clap::Args;
use ringkeeper::model::{Acl, ErrorCode};
use serde_json::{Value, json};

use super::{Context, znode_path};
use crate::acl;
use crate::failure::{Failure, Outcome};
use crate::stat;

/// Arguments of getacl.
#[derive(Args)]
pub(crate) struct Getacl {
    #[arg(value_parser = znode_path)]
    path: String,
    /// The stat, too
    #[arg(long, short)]
    stat: bool,
}

/// Arguments of setacl.
#[derive(Args)]
pub(crate) struct Setacl {
    #[arg(value_parser = znode_path)]
    path: String,
    /// scheme:id:permissions,... of the letters cdrwa
    acl: String,
    /// Only if the ACL has this version
    #[arg(long, default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    version: i32,
    /// All below it, too
    #[arg(long, short = 'R', conflicts_with = "version")]
    recursive: bool,
}

/// Entries as JSON.
pub(crate) fn to_json(acl: &[Acl]) -> Value {
    let entry = |acl: &Acl| {
        json!({
            "scheme": acl.id.scheme.as_str(),
            "id": acl.id.id.as_str(),
            "perms": acl::perms(acl.perms),
        })
    };
    acl.iter().map(entry).collect()
}

impl Getacl {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let (acl, stat) = context.zk.acl(&self.path)?;
        if context.out.format.json {
            let value =
                json!({ "path": self.path, "acl": to_json(&acl), "stat": stat::json(&stat) });
            return context.out.json(&value);
        }
        context.out.line(&acl::format(&acl))?;
        if self.stat { context.out.bytes(stat::text(&stat).as_bytes()) } else { Ok(()) }
    }
}

impl Setacl {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let acl = acl::parse(&self.acl).map_err(Failure::Usage)?;
        if !self.recursive {
            let stat = context.zk.set_acl(&self.path, &acl, self.version)?;
            let value = json!({ "path": self.path, "stat": stat::json(&stat) });
            return context.out.json_only(&value);
        }
        let mut paths = Vec::new();
        context.zk.walk(&self.path, |path| {
            paths.push(path.to_owned());
            Ok(())
        })?;
        let mut changed = 0;
        // Children first: the new ACL may not let us list.
        for path in paths.iter().rev() {
            match context.zk.set_acl(path, &acl, -1) {
                Ok(_) => changed += 1,
                Err(failure) if failure.is(ErrorCode::NO_NODE) && *path != self.path => {}
                Err(failure) => return Err(failure),
            }
        }
        context.out.json_only(&json!({ "path": self.path, "changed": changed }))
    }
}
