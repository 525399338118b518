//! lock: runs a command while nobody else holds the lock.

use clap::Args;

use super::Wait;
use super::member::Member;
use crate::commands::{Context, znode_path};
use crate::failure::Outcome;
use crate::guard::Guard;

const LABEL: &str = "lock-";

const AFTER_HELP: &str = "\
The command finds in its environment RK_ZNODE, the znode that stands for it, and RK_TOKEN, a number
that grows with every holder: give it to what you write to, and let that refuse smaller ones.
When the session is lost or about to be, the command gets SIGTERM, and SIGKILL when the lock may be
somebody else's. The lock excludes that of Apache Curator's InterProcessMutex.";

/// Arguments of lock.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Lock {
    /// The lock; created if it is missing
    #[arg(value_parser = znode_path)]
    path: String,
    #[command(flatten)]
    wait: Wait,
    /// What to run
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Takes the lock, runs the command, gives it back by ending the session.
pub(crate) fn run(lock: &Lock, context: &mut Context) -> Outcome {
    let own = context.own_session()?;
    let member = Member::join(&own.zk, &own.inputs, &lock.path, LABEL, b"")?;
    member.wait_turn(lock.wait.deadline())?;
    let token = own.zk.stat(&member.path, false)?.czxid;
    let environment = [("RK_ZNODE", member.path.clone()), ("RK_TOKEN", token.0.to_string())];
    let guard = Guard { zk: &own.zk, inputs: &own.inputs, znode: Some(&member.path) };
    guard.hold(&lock.command, &environment)
}
