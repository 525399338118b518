//! What a waiting command waits for: the session, signals, a child process.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Instant;

use ringkeeper::client::session::SessionEvent;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

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
    /// A signal waits; the next one ends the process, unless a child would go on without it.
    is_signalled: Arc<AtomicBool>,
    has_child: Arc<AtomicBool>,
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
        let is_signalled = Arc::new(AtomicBool::new(false));
        let has_child = Arc::new(AtomicBool::new(false));
        let (waiting, child) = (Arc::clone(&is_signalled), Arc::clone(&has_child));
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if waiting.swap(true, Ordering::Relaxed) && !child.load(Ordering::Relaxed) {
                    let _ended = emulate_default_handler(signal);
                }
                match to.try_send(Input::Signal(signal)) {
                    // If the queue is full nobody looks, and the next one ends the process.
                    Ok(()) | Err(TrySendError::Full(_)) => {}
                    Err(TrySendError::Disconnected(_)) => return,
                }
            }
        });
        Ok(Self { sender, receiver, signals: handle, is_signalled, has_child })
    }

    /// The next input; `None` when `until` has come first.
    pub(crate) fn next(&self, until: Option<Instant>) -> Option<Input> {
        let input = match until {
            None => self.receiver.recv().ok(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.receiver.recv_timeout(left).ok()
            }
        };
        if matches!(input, Some(Input::Signal(_))) {
            self.is_signalled.store(false, Ordering::Relaxed);
        }
        input
    }

    /// Starts a command, whose end will be an input; its process id.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<i32> {
        let mut child = command.spawn()?;
        self.has_child.store(true, Ordering::Relaxed);
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let to = self.sender.clone();
        let has_child = Arc::clone(&self.has_child);
        std::thread::spawn(move || {
            let ended = child.wait();
            has_child.store(false, Ordering::Relaxed);
            to.send(Input::Exited(ended))
        });
        Ok(pid)
    }
}

/// Signals are no longer waited for.
impl Drop for Inputs {
    fn drop(&mut self) {
        self.signals.close();
    }
}
