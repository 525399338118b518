//! Holding something that lives with a session, and running a command meanwhile.
//!
//! A session that cannot reach any server may be expired by them; this end can only know until when
//! it surely is not. A command is therefore asked to end (SIGTERM) a sixth of the session timeout
//! before that moment, and ended (SIGKILL) when it has come: nobody else gets what is held before.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use ringkeeper::client::session::{Phase, SessionEvent};
use ringkeeper::model::EventType;
use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM};

use crate::failure::{Failure, Outcome};
use crate::inputs::{Input, Inputs};
use crate::zk::Zk;

/// What is held, and by which session.
pub(crate) struct Guard<'a> {
    pub(crate) zk: &'a Zk,
    pub(crate) inputs: &'a Inputs,
    /// If somebody deletes this znode, what is held is lost.
    pub(crate) znode: Option<&'a str>,
}

/// Why holding has ended.
enum End {
    /// The command ended by itself.
    Exited(ExitStatus),
    /// This process was asked to end.
    Asked,
    /// What was held is lost, or is about to be.
    Lost(Failure),
}

impl Guard<'_> {
    /// Holds while the command runs; without one until a signal comes. The command's exit code is
    /// passed on.
    pub(crate) fn hold(&self, words: &[String], environment: &[(&str, String)]) -> Outcome {
        let Some((program, arguments)) = words.split_first() else {
            return match self.watch(None)? {
                End::Exited(_) | End::Asked => Ok(()),
                End::Lost(failure) => Err(failure),
            };
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(key, value)| (key, value)));
        let pid = self.inputs.start(&mut command).map_err(|error| Failure::io(program, &error))?;
        match self.watch(Some(pid))? {
            End::Exited(status) => passed_on(status),
            End::Asked => Ok(()),
            End::Lost(failure) => {
                self.end(pid);
                Err(failure)
            }
        }
    }

    /// Waits until it ends, one way or another. Signals are the command's to answer, if there is
    /// one.
    fn watch(&self, pid: Option<i32>) -> Result<End, Failure> {
        let mut watched = false;
        loop {
            if let (Some(znode), false, Phase::Connected) =
                (self.znode, watched, self.zk.session.phase())
            {
                // Not longer than what is left to act in.
                let left = self.warn_at().saturating_duration_since(Instant::now());
                match self.is_there(znode, left.min(self.warning())) {
                    Ok(true) => watched = true,
                    Ok(false) => return Ok(self.lost(znode)),
                    Err(Failure::Expired) => return Ok(End::Lost(Failure::Expired)),
                    // The connection has just gone; the next one shows.
                    Err(_) => {}
                }
            }
            let warning = self.warn_at();
            if warning <= Instant::now() {
                let text = "no server was reached until the session may have expired";
                return Ok(End::Lost(Failure::Unknown(text.to_owned())));
            }
            match self.inputs.next(Some(warning)) {
                // The moment has come, or moved.
                None => {}
                Some(Input::Exited(status)) => {
                    return status.map(End::Exited).map_err(|error| Failure::io("wait", &error));
                }
                Some(Input::Signal(signal)) => match pid {
                    // The terminal has sent it to the command as well.
                    Some(_) if signal == SIGINT && std::io::stdin().is_terminal() => {}
                    Some(pid) => send(pid, signal),
                    None => return Ok(End::Asked),
                },
                Some(Input::Session(SessionEvent::Expired)) => {
                    return Ok(End::Lost(Failure::Expired));
                }
                Some(Input::Session(SessionEvent::AuthFailed)) => {
                    return Ok(End::Lost(Failure::AuthFailed));
                }
                Some(Input::Session(SessionEvent::Watch { event, .. })) => {
                    let own = self.znode.is_some_and(|znode| self.zk.full(znode) == *event.path);
                    if own && event.event_type == EventType::NodeDeleted {
                        return Ok(self.lost(&event.path));
                    }
                    watched = watched && !own;
                }
                Some(Input::Session(SessionEvent::Missed(_))) => watched = false,
                Some(Input::Session(_)) => {}
            }
        }
    }

    fn lost(&self, znode: &str) -> End {
        let text = format!("somebody has deleted {}", self.zk.seen(znode));
        End::Lost(Failure::Unknown(text))
    }

    /// Leaves a watch.
    fn is_there(&self, znode: &str, limit: Duration) -> Result<bool, Failure> {
        self.zk.within(limit).exists(znode, true).map(|stat| stat.is_some())
    }

    fn warning(&self) -> Duration {
        self.zk.session.timeout() / 6
    }

    /// When a command is asked to end.
    fn warn_at(&self) -> Instant {
        self.zk.session.safe_until() - self.warning()
    }

    /// Ends a command: first asked, then not, in any case before somebody else may hold.
    fn end(&self, pid: i32) {
        eprintln!("rk: ending the command");
        send(pid, SIGTERM);
        let until = self.zk.session.safe_until().min(Instant::now() + self.warning());
        let mut deadline = Some(until);
        loop {
            match self.inputs.next(deadline) {
                Some(Input::Exited(_)) => return,
                Some(_) => {}
                None => {
                    send(pid, SIGKILL);
                    // It cannot refuse; its end is the next input.
                    deadline = None;
                }
            }
        }
    }
}

fn send(pid: i32, signal: i32) {
    // SAFETY: sends a signal. The thread that waits for the child may just have reaped it; its id
    // is not given to another process within this moment.
    unsafe { libc::kill(pid, signal) };
}

/// A command's end as ours: its exit code, or 128 and the signal, as shells say it.
fn passed_on(status: ExitStatus) -> Outcome {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Exit(code)),
        None => Err(Failure::Exit(u8::MAX)),
    }
}
