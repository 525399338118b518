//! barrier: nobody goes on before so many have come, and with a command, nobody ends before all
//! have.
//!
//! Each process has an ephemeral below the barrier; the last to come creates `ready`. Who leaves
//! deletes its own, waits until there are no others, and removes `ready`, or finds it removed: then
//! the barrier can be used again.

use std::time::Instant;

use clap::Args;
use ringkeeper::model::{Acl, ErrorCode, Zxid};
use serde_json::json;

use super::member::{Member, in_order};
use super::{Wait, wait_for_change};
use crate::commands::{Context, OwnSession, znode_path};
use crate::failure::{Failure, Outcome};
use crate::guard::Guard;
use crate::zk::{Kind, join, none_if_missing};

const LABEL: &str = "member-";
const READY: &str = "ready";

/// Arguments of barrier.
#[derive(Args)]
pub(crate) struct Barrier {
    /// The barrier; created if it is missing
    #[arg(value_parser = znode_path)]
    path: String,
    /// How many must come
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,
    #[command(flatten)]
    wait: Wait,
    /// Run when all have come; ends when all such commands have ended
    #[arg(last = true)]
    command: Vec<String>,
}

/// Enters, runs the command, leaves.
pub(crate) fn run(barrier: &Barrier, context: &mut Context) -> Outcome {
    let own = context.own_session()?;
    let until = barrier.wait.deadline();
    wait_for_round(barrier, &own, until)?;
    let member = Member::join(&own.zk, &own.inputs, &barrier.path, LABEL, b"")?;
    let round = enter(barrier, &own, &member, until)?;
    context.out.json_only(&json!({ "state": "entered", "path": member.path }))?;
    context.out.flush()?;
    let outcome = if barrier.command.is_empty() {
        Ok(())
    } else {
        let environment = [("RK_ZNODE", member.path.clone())];
        let guard = Guard { zk: &own.zk, inputs: &own.inputs, znode: Some(&member.path) };
        guard.hold(&barrier.command, &environment)
    };
    match outcome {
        Ok(()) | Err(Failure::Exit(_)) => {
            leave(barrier, &own, &member, round)?;
            outcome
        }
        outcome => outcome,
    }
}

/// A round that is still being left is waited for; what a crash has left of one is removed.
fn wait_for_round(barrier: &Barrier, own: &OwnSession, until: Option<Instant>) -> Outcome {
    let ready = join(&barrier.path, READY);
    while own.zk.exists(&ready, true)?.is_some() {
        let children = none_if_missing(own.zk.children(&barrier.path, true))?;
        let (names, _) = children.unwrap_or_default();
        if in_order(&names, LABEL).is_empty() {
            none_if_missing(own.zk.delete(&ready, -1))?;
        } else {
            wait_for_change(&own.inputs, until)?;
        }
    }
    Ok(())
}

/// Waits until all have come; which round it is.
fn enter(
    barrier: &Barrier,
    own: &OwnSession,
    member: &Member<'_>,
    until: Option<Instant>,
) -> Result<Zxid, Failure> {
    let ready = join(&barrier.path, READY);
    loop {
        if let Some(stat) = own.zk.exists(&ready, true)? {
            return Ok(stat.czxid);
        }
        let (names, _) = own.zk.children(&barrier.path, true)?;
        let members = in_order(&names, LABEL);
        if !members.iter().any(|name| member.path.ends_with(*name)) {
            return Err(Failure::Unknown(format!("somebody has deleted {}", member.path)));
        }
        if u32::try_from(members.len()).is_ok_and(|come| barrier.number <= come) {
            own.zk.ensure(&ready, &[Acl::open()], Kind::Persistent)?;
        } else {
            wait_for_change(&own.inputs, until)?;
        }
    }
}

fn leave(barrier: &Barrier, own: &OwnSession, member: &Member<'_>, round: Zxid) -> Outcome {
    let ready = join(&barrier.path, READY);
    match own.zk.delete(&member.path, -1) {
        Err(failure) if failure.is(ErrorCode::NO_NODE) => {}
        // Settled by the end of the session.
        Err(Failure::Unknown(_)) => return Ok(()),
        outcome => outcome?,
    }
    loop {
        match own.zk.exists(&ready, true)? {
            Some(stat) if stat.czxid == round => {}
            // Removed, or of a later round.
            _ => return Ok(()),
        }
        let children = none_if_missing(own.zk.children(&barrier.path, true))?;
        let (names, _) = children.unwrap_or_default();
        if in_order(&names, LABEL).is_empty() {
            return none_if_missing(own.zk.delete(&ready, -1)).map(|_| ());
        }
        wait_for_change(&own.inputs, None)?;
    }
}
