//! One-shot commands; the shell runs the same.

pub(crate) mod acls;
pub(crate) mod children;
pub(crate) mod data;
pub(crate) mod dump;
pub(crate) mod info;
pub(crate) mod members;
pub(crate) mod multi;
pub(crate) mod quota;
pub(crate) mod watch;

use std::sync::mpsc::Receiver;

use ringkeeper::client::session::{Session, SessionEvent, SessionOptions};
use ringkeeper::model::path;

use crate::cli::Command;
use crate::failure::{Failure, Outcome};
use crate::inputs::Inputs;
use crate::output::Output;
use crate::recipes::{barrier, elect, lock, queue};
use crate::zk::Zk;

/// What commands work with.
pub(crate) struct Context {
    pub(crate) zk: Zk,
    pub(crate) out: Output,
    /// How the session was opened.
    pub(crate) options: SessionOptions,
    /// The session's events; `None` in the shell, which prints them itself.
    pub(crate) events: Option<Receiver<SessionEvent>>,
}

impl Context {
    /// Whether this is the shell.
    pub(crate) const fn is_shell(&self) -> bool {
        self.events.is_none()
    }

    /// A session that a command has for itself, and what happens to it: the one of the process, or
    /// in the shell a new one.
    pub(crate) fn own_session(&mut self) -> Result<OwnSession, Failure> {
        match self.events.take() {
            Some(events) => OwnSession::new(self.zk.clone(), events, false),
            None => self.another_session(),
        }
    }

    /// A new session, opened as the first one was, but with patience: there were servers.
    pub(crate) fn another_session(&self) -> Result<OwnSession, Failure> {
        let options = SessionOptions { patient: true, ..self.options.clone() };
        let (session, events) = Session::open(options);
        let zk = Zk::new(session, &self.options.servers.chroot, self.zk.limit);
        OwnSession::new(zk, events, true)
    }
}

/// A session with everything that a command can wait for.
pub(crate) struct OwnSession {
    pub(crate) zk: Zk,
    pub(crate) inputs: Inputs,
    /// Not the one of the process, which `main` closes.
    is_extra: bool,
}

impl OwnSession {
    fn new(zk: Zk, events: Receiver<SessionEvent>, is_extra: bool) -> Result<Self, Failure> {
        let inputs = Inputs::new(events).map_err(|error| Failure::io("signals", &error))?;
        // What lives with the session is worth waiting for as long as the session may live.
        let limit = zk.limit.max(zk.session.timeout());
        Ok(Self { zk: zk.within(limit), inputs, is_extra })
    }
}

impl Drop for OwnSession {
    fn drop(&mut self) {
        if self.is_extra {
            self.zk.session.close();
        }
    }
}

/// Does what is asked.
pub(crate) fn run(command: &Command, context: &mut Context) -> Outcome {
    let done = match command {
        Command::Get(command) => command.run(context),
        Command::Ls(command) => command.run(context),
        Command::Stat(command) => command.run(context),
        Command::Create(command) => command.run(context),
        Command::Set(command) => command.run(context),
        Command::Rm(command) => command.run(context),
        Command::Count(command) => command.run(context),
        Command::Getacl(command) => command.run(context),
        Command::Setacl(command) => command.run(context),
        Command::Watch(command) => command.run(context),
        Command::Sync(command) => command.run(context),
        Command::Ephemerals(command) => command.run(context),
        Command::Quota(command) => command.run(context),
        Command::Multi(command) => command.run(context),
        Command::Whoami => info::whoami(context),
        Command::Config(command) => command.run(context),
        Command::Reconfig(command) => command.run(context),
        Command::Word(command) => {
            let Context { zk, out, options, .. } = &mut *context;
            command.run(&options.servers.addresses, zk.limit, out)
        }
        Command::Dump(command) => command.run(context),
        Command::Load(command) => command.run(context),
        Command::Lock(command) => lock::run(command, context),
        Command::Elect(command) => elect::run(command, context),
        Command::Queue(command) => queue::run(command, context),
        Command::Barrier(command) => barrier::run(command, context),
    };
    let flushed = context.out.flush();
    done.and(flushed)
}

/// A path from an argument. The servers judge it too; here a mistake is usage.
pub(crate) fn znode_path(text: &str) -> Result<String, String> {
    if path::is_valid(text) {
        return Ok(text.to_owned());
    }
    Err("a path is absolute, has no trailing slash and no empty, `.` or `..` part".to_owned())
}

/// As [`znode_path`], for the path of a sequential znode, which may end in a slash.
pub(crate) fn znode_prefix(text: &str) -> Result<String, String> {
    match text.strip_suffix('/') {
        Some(parent) if !parent.is_empty() => znode_path(parent).map(|_| text.to_owned()),
        _ => znode_path(text),
    }
}
