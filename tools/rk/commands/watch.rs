//! watch, and events as lines.

use clap::Args;
use ringkeeper::client::session::SessionEvent;
use serde_json::{Value, json};

use super::{Context, OwnSession, znode_path};
use crate::failure::{Failure, Outcome};
use crate::inputs::Input;
use crate::output::Output;
use crate::zk::below;

/// Arguments of watch.
#[derive(Args)]
pub(crate) struct Watch {
    /// It need not exist
    #[arg(value_parser = znode_path)]
    path: String,
    /// All below it, too
    #[arg(long, short = 'R')]
    recursive: bool,
    /// End after this many events
    #[arg(long, short = 'n')]
    events: Option<u64>,
}

/// An event as a line of text and as JSON.
pub(crate) fn describe(chroot: &str, event: &SessionEvent) -> (String, Value) {
    match event {
        SessionEvent::Watch { event, zxid } => {
            let name = format!("{:?}", event.event_type);
            let path = below(chroot, &event.path);
            let value = json!({ "event": name, "path": path, "zxid": zxid.to_string() });
            (format!("{name} {path}"), value)
        }
        SessionEvent::Connected { server, renewed: false } => {
            (format!("connected to {server}"), json!({ "state": "connected" }))
        }
        SessionEvent::Connected { server, renewed: true } => (
            format!("connected again to {server}; events may have been missed"),
            json!({ "state": "reconnected" }),
        ),
        SessionEvent::Disconnected { why } => {
            (format!("connection lost: {why}"), json!({ "state": "disconnected", "why": why }))
        }
        SessionEvent::Expired => {
            ("the session has expired".to_owned(), json!({ "state": "expired" }))
        }
        SessionEvent::AuthFailed => {
            ("the credentials were refused".to_owned(), json!({ "state": "auth failed" }))
        }
        SessionEvent::Missed(count) => {
            (format!("{count} events were missed"), json!({ "missed": count }))
        }
    }
}

impl Watch {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        if context.is_shell() {
            return context.zk.add_watch(&self.path, self.recursive);
        }
        let own = context.own_session()?;
        own.zk.add_watch(&self.path, self.recursive)?;
        if !context.out.format.json {
            eprintln!("watching {}", self.path);
        }
        context.out.json_only(&json!({ "state": "watching", "path": self.path }))?;
        stream(&own, &mut context.out, self.events)
    }
}

/// After a command that has left a one-shot watch: prints the event; the shell prints it by itself.
pub(crate) fn wait_for_one(context: &mut Context) -> Outcome {
    if context.is_shell() {
        return Ok(());
    }
    let own = context.own_session()?;
    stream(&own, &mut context.out, Some(1))
}

/// Prints events until so many have come, or a signal.
fn stream(own: &OwnSession, out: &mut Output, count: Option<u64>) -> Outcome {
    let chroot = own.zk.chroot();
    let mut left = count;
    while left != Some(0) {
        out.flush()?;
        let event = match own.inputs.next(None) {
            Some(Input::Session(event)) => event,
            Some(Input::Signal(_)) | None => return Ok(()),
            Some(Input::Exited(_)) => continue,
        };
        let (text, value) = describe(chroot, &event);
        match event {
            SessionEvent::Watch { .. } => {
                out.either(&text, &value)?;
                left = left.map(|left| left - 1);
            }
            SessionEvent::Connected { renewed: false, .. } => {}
            SessionEvent::Expired => return Err(Failure::Expired),
            SessionEvent::AuthFailed => return Err(Failure::AuthFailed),
            _ if out.format.json => out.json(&value)?,
            _ => eprintln!("{text}"),
        }
    }
    Ok(())
}
