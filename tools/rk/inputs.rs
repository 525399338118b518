//! What a waiting command waits for: the session, signals, a child process.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Instant;

use ringkeeper::client::session::SessionEvent;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Inputs that wait; the session's own queue is behind it.
const WAITING_MAX: usize = 1024;

/// One thing that happened.
pub(crate) enum Input {
    /// To the session.
    Session(SessionEvent),
    /// This process was asked to end.
    Signal(i32),
    /// The child ended.
    Exited(io::Result<ExitStatus>),
}

/// All that happens, in one queue.
pub(crate) struct Inputs {
    sender: SyncSender<Input>,
    receiver: Receiver<Input>,
    signals: signal_hook::iterator::Handle,
}

impl Inputs {
    /// Takes over the events, and SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn new(events: Receiver<SessionEvent>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        let to = sender.clone();
        std::thread::spawn(move || {
            events.into_iter().try_for_each(|event| to.send(Input::Session(event)))
        });
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let to = sender.clone();
        std::thread::spawn(move || {
            signals.forever().try_for_each(|signal| to.send(Input::Signal(signal)))
        });
        Ok(Self { sender, receiver, signals: handle })
    }

    /// The next input; `None` when `until` has come first.
    pub(crate) fn next(&self, until: Option<Instant>) -> Option<Input> {
        match until {
            None => self.receiver.recv().ok(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.receiver.recv_timeout(left).ok()
            }
        }
    }

    /// Starts a command, whose end will be an input; its process id.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<i32> {
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let to = self.sender.clone();
        std::thread::spawn(move || to.send(Input::Exited(child.wait())));
        Ok(pid)
    }
}

/// Signals are no longer waited for.
impl Drop for Inputs {
    fn drop(&mut self) {
        self.signals.close();
    }
}
