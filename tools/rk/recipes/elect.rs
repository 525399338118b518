//! elect: one of several processes is the leader; when it goes, the next is.

use clap::Args;
use ringkeeper::model::ErrorCode;
use serde_json::json;

use super::Wait;
use super::member::{Member, in_order};
use crate::commands::{Context, OwnSession, znode_path};
use crate::failure::{Failure, Outcome};
use crate::guard::Guard;
use crate::zk::join;

const LABEL: &str = "latch-";

/// Arguments of elect.
#[derive(Args)]
pub(crate) struct Elect {
    /// The election; created if it is missing
    #[arg(value_parser = znode_path)]
    path: String,
    /// What others see of this candidate; its process id by default
    #[arg(long)]
    id: Option<String>,
    /// Only print the leader's id
    #[arg(long, conflicts_with_all = ["id", "wait", "command"])]
    who: bool,
    #[command(flatten)]
    wait: Wait,
    /// Run while this process leads; ended when it no longer does, and run again when it leads
    /// again. Without it, the changes are printed, until ctrl-c
    #[arg(last = true)]
    command: Vec<String>,
}

/// Takes part until the command ends or a signal comes; a lost session is followed by a new one.
pub(crate) fn run(elect: &Elect, context: &mut Context) -> Outcome {
    if elect.who {
        return who(&elect.path, context);
    }
    let mut own = context.own_session()?;
    own.zk.session.wait_connected(own.zk.deadline()).map_err(|error| Failure::of(error, ""))?;
    loop {
        match candidacy(elect, context, &own) {
            Err(failure @ (Failure::Expired | Failure::Unknown(_) | Failure::NoConnection(_))) => {
                failure.report(context.out.format.json);
                say(context, "lost", "")?;
                // It may still be alive, and must not lead on our behalf.
                own.zk.session.close();
                own = context.another_session()?;
            }
            outcome => return outcome,
        }
    }
}

fn candidacy(elect: &Elect, context: &mut Context, own: &OwnSession) -> Outcome {
    let id = elect.id.clone().unwrap_or_else(|| std::process::id().to_string());
    let member = Member::join(&own.zk, &own.inputs, &elect.path, LABEL, id.as_bytes())?;
    say(context, "candidate", &member.path)?;
    member.wait_turn(elect.wait.deadline())?;
    let token = own.zk.stat(&member.path, false)?.czxid;
    say(context, "leader", &member.path)?;
    let environment = [("RK_ZNODE", member.path.clone()), ("RK_TOKEN", token.0.to_string())];
    let guard = Guard { zk: &own.zk, inputs: &own.inputs, znode: Some(&member.path) };
    guard.hold(&elect.command, &environment)
}

fn say(context: &mut Context, role: &str, path: &str) -> Outcome {
    let text = format!("{role} {path}");
    context.out.either(text.trim_end(), &json!({ "role": role, "path": path }))?;
    context.out.flush()
}

fn who(path: &str, context: &mut Context) -> Outcome {
    let nobody = || Failure::Refused { code: ErrorCode::NO_NODE, path: format!("{path}: leader") };
    let (children, _) = context.zk.children(path, false)?;
    for name in in_order(&children, LABEL) {
        match context.zk.get(&join(path, name), false) {
            Ok((data, _)) => {
                let id = String::from_utf8_lossy(data.as_deref().unwrap_or_default()).into_owned();
                let value = json!({ "leader": id, "path": join(path, name) });
                return context.out.either(&id, &value);
            }
            // Just gone: the next one leads.
            Err(failure) if failure.is(ErrorCode::NO_NODE) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(nobody())
}
