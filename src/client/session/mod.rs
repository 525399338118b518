//! A session that outlives its connections.
//!
//! A thread connects to one of several servers, sends pings, takes replies and events, and when
//! the connection breaks renews the session on the next one: identities first, then the watches,
//! so that no event is missed that the protocol can still deliver. Callers on any thread send
//! requests and wait for their replies.
//!
//! What is never done in secret: a request that was sent when the connection broke is not sent
//! again. Its caller gets [`CallError::Lost`] and decides; [`Session::read`] decides for those
//! requests that change nothing.

mod keeper;
#[cfg(test)]
mod tests;
mod watches;

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::Reply;
use super::servers::Servers;
use crate::base::Str;
use crate::limits::CLIENT_EVENTS_MAX;
use crate::model::{ErrorCode, Request, SessionId, WatchEvent, WriteRequest, Xid, Zxid};
use crate::wire::client::encode_request;
use crate::wire::jute::DecodeError;
use watches::{Change, Watches};

/// How long [`Session::close`] waits for the server's word.
const CLOSE_WAITS: Duration = Duration::from_secs(2);

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The servers of one service. The chroot is the caller's to apply.
    pub servers: Servers,
    /// The session timeout to ask for; the server may change it.
    pub timeout: Duration,
    /// Scheme and credentials of each identity, sent on every connection before anything else.
    pub auth: Vec<(Str, Bytes)>,
    /// Keep trying when no server of the list can be reached at first. Once a session exists, it is
    /// always renewed with patience.
    pub patient: bool,
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server's refusal.
    #[error("refused with {0:?}")]
    Refused(ErrorCode),
    /// No server was reached in time; the request was not sent.
    #[error("no connection: {0}")]
    NotConnected(String),
    /// The connection broke after the request was sent: it may have been executed or not.
    #[error("connection lost, outcome unknown")]
    Lost,
    /// No reply came in time: the request may have been executed or not.
    #[error("no answer in time, outcome unknown")]
    TimedOut,
    /// The session is gone, and its ephemerals with it. The request was not executed.
    #[error("the session has expired")]
    Expired,
    /// An identity was refused.
    #[error("authentication failed")]
    AuthFailed,
    /// The session was closed by its owner.
    #[error("the session is closed")]
    Closed,
    /// The reply is not what the protocol says.
    #[error("the reply does not decode: {0}")]
    Malformed(#[from] DecodeError),
}

impl CallError {
    /// Whether the request may have been executed.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut | Self::Malformed(_))
    }
}

/// What happens to a session beside replies, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// A watch fired.
    Watch {
        /// What happened, and where.
        event: WatchEvent,
        /// By which txn; -1 if the server does not say.
        zxid: Zxid,
    },
    /// A connection is up. Events of persistent watches may have been missed if `renewed`.
    Connected {
        /// With whom.
        server: SocketAddr,
        /// The session is older than the connection.
        renewed: bool,
    },
    /// The connection is gone; another is tried.
    Disconnected {
        /// What went wrong.
        why: String,
    },
    /// The session is gone. The last event.
    Expired,
    /// An identity was refused. The last event.
    AuthFailed,
    /// The receiver was too slow for this many events.
    Missed(u64),
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No connection, one is tried.
    Connecting,
    /// Requests can be sent.
    Connected,
    /// Gone on the server's word.
    Expired,
    /// An identity was refused.
    AuthFailed,
    /// Ended by its owner.
    Closed,
}

/// A handle; every method may be called from any thread.
pub struct Session {
    shared: Arc<Shared>,
}

/// A request that was sent.
pub struct Ticket(Receiver<Result<Reply, CallError>>);

/// Locks are taken in the order of the fields.
struct Shared {
    /// The sending half, while requests may be sent. Held while one is written.
    sender: Mutex<Option<TcpStream>>,
    state: Mutex<State>,
    /// The phase or the number of failed rounds has changed.
    changed: Condvar,
}

struct State {
    phase: Phase,
    /// What requests that were sent wait for, oldest first. As long as what callers have in flight.
    pending: VecDeque<Pending>,
    next_xid: i32,
    session: SessionId,
    password: [u8; 16],
    last_zxid_seen: Zxid,
    /// As negotiated; before that, as asked for.
    timeout: Duration,
    /// When the newest packet was sent that the server has answered: it counts from then or later.
    heard_of: Instant,
    last_sent: Instant,
    watches: Watches,
    auth: Vec<(Str, Bytes)>,
    /// How often all servers were tried in vain since the last connection, and connections so far.
    failed_rounds: u32,
    connections: u32,
    last_error: String,
}

struct Pending {
    xid: Xid,
    sent: Instant,
    change: Option<Change>,
    answer: SyncSender<Result<Reply, CallError>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the session: whoever waits is told, nothing more is sent.
    fn finish(&self, phase: Phase) {
        if let Some(stream) = self.sender().take() {
            let _gone = stream.shutdown(Shutdown::Both);
        }
        let mut state = self.state();
        if state.phase != Phase::Closed {
            state.phase = phase;
        }
        state.fail_pending();
        self.changed.notify_all();
    }
}

impl State {
    fn take_xid(&mut self) -> Xid {
        let xid = self.next_xid;
        self.next_xid = xid.checked_add(1).unwrap_or(1);
        Xid(xid)
    }

    fn fail_pending(&mut self) {
        for pending in self.pending.drain(..) {
            let _nobody_waits = pending.answer.send(Err(CallError::Lost));
        }
    }
}

impl Session {
    /// Begins to open a session: returns at once, the first call waits. Events come through the
    /// receiver; one that is too slow is told how many it missed, the session does not wait for it.
    #[must_use]
    pub fn open(options: SessionOptions) -> (Self, Receiver<SessionEvent>) {
        let now = Instant::now();
        let state = State {
            phase: Phase::Connecting,
            pending: VecDeque::new(),
            next_xid: 1,
            session: SessionId(0),
            password: [0; 16],
            last_zxid_seen: Zxid::ZERO,
            timeout: options.timeout,
            heard_of: now,
            last_sent: now,
            watches: Watches::default(),
            auth: options.auth,
            failed_rounds: 0,
            connections: 0,
            last_error: String::new(),
        };
        let shared = Arc::new(Shared {
            sender: Mutex::new(None),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let (events, receiver) = mpsc::sync_channel(CLIENT_EVENTS_MAX);
        let keeper =
            keeper::Keeper::new(Arc::clone(&shared), options.servers, options.patient, events);
        std::thread::spawn(move || keeper.run());
        (Self { shared }, receiver)
    }

    /// Where the session is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.shared.state().phase
    }

    /// Its id; 0 before the first connection.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.shared.state().session
    }

    /// Until when the server cannot have expired the session, as far as this end can tell.
    #[must_use]
    pub fn safe_until(&self) -> Instant {
        let state = self.shared.state();
        state.heard_of + state.timeout
    }

    /// The negotiated timeout; before the first connection the one asked for.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.shared.state().timeout
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// There is none in time, or there will be none.
    pub fn wait_connected(&self, deadline: Instant) -> Result<(), CallError> {
        let mut state = self.shared.state();
        loop {
            match state.phase {
                Phase::Connected => return Ok(()),
                Phase::Expired => return Err(CallError::Expired),
                Phase::AuthFailed => return Err(CallError::AuthFailed),
                Phase::Closed => {
                    // The keeper has given up, or the owner has closed.
                    return Err(match state.last_error.as_str() {
                        "" => CallError::Closed,
                        why => CallError::NotConnected(why.to_owned()),
                    });
                }
                Phase::Connecting => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::NotConnected(match state.last_error.as_str() {
                    "" => "no server answers in time".to_owned(),
                    why => why.to_owned(),
                }));
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a request as soon as there is a connection.
    ///
    /// # Errors
    /// There is none in time, or there will be none; the request was not sent.
    pub fn submit(&self, request: &Request, deadline: Instant) -> Result<Ticket, CallError> {
        loop {
            self.wait_connected(deadline)?;
            let mut sender = self.shared.sender();
            let Some(stream) = sender.as_mut() else { continue };
            let (answer, ticket) = mpsc::sync_channel(1);
            let mut state = self.shared.state();
            let xid = state.take_xid();
            let now = Instant::now();
            state.last_sent = now;
            let change = Change::of(request);
            state.pending.push_back(Pending { xid, sent: now, change, answer });
            drop(state);
            let mut frame = BytesMut::new();
            encode_request(xid, request, &mut frame);
            if stream.write_all(&frame).is_err() {
                // The keeper notices, and tells all who wait.
                let _gone = stream.shutdown(Shutdown::Both);
            }
            return Ok(Ticket(ticket));
        }
    }

    /// Sends a request once and waits for its reply.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::is_unknown`] tells whether it may have been executed.
    pub fn call(&self, request: &Request, deadline: Instant) -> Result<Reply, CallError> {
        self.submit(request, deadline)?.wait(deadline)
    }

    /// Sends a request that changes nothing, again if its connection breaks.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn read(&self, request: &Request, deadline: Instant) -> Result<Reply, CallError> {
        loop {
            match self.call(request, deadline) {
                Err(CallError::Lost) if Instant::now() < deadline => {}
                result => return result,
            }
        }
    }

    /// Adds an identity, now and on every later connection.
    ///
    /// # Errors
    /// The server refuses it and closes the connection; it is then forgotten.
    pub fn add_auth(&self, scheme: &str, auth: Bytes, deadline: Instant) -> Result<(), CallError> {
        let identity = (Str::from(scheme), auth);
        let request =
            Request::Auth { scheme: Some(identity.0.clone()), auth: Some(identity.1.clone()) };
        match self.read(&request, deadline) {
            Ok(_) => {
                self.shared.state().auth.push(identity);
                Ok(())
            }
            Err(CallError::Refused(ErrorCode::AUTH_FAILED)) => Err(CallError::AuthFailed),
            Err(error) => Err(error),
        }
    }

    /// Ends the session: its ephemerals are gone when this returns, unless there is no connection;
    /// then the server expires it later.
    pub fn close(&self) {
        let request = Request::Write(WriteRequest::CloseSession);
        if self.phase() == Phase::Connected {
            let _best_effort = self.call(&request, Instant::now() + CLOSE_WAITS);
        }
        self.shared.finish(Phase::Closed);
    }
}

/// Without [`Session::close`] the server keeps the session until it expires. The thread ends by
/// itself; one that is just connecting, not at once.
impl Drop for Session {
    fn drop(&mut self) {
        self.shared.finish(Phase::Closed);
    }
}

impl Ticket {
    /// Waits for the reply.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn wait(&self, deadline: Instant) -> Result<Reply, CallError> {
        let reply = match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(reply) => reply?,
            Err(RecvTimeoutError::Timeout) => return Err(CallError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => return Err(CallError::Lost),
        };
        match reply.header.code {
            ErrorCode::OK => Ok(reply),
            code => Err(CallError::Refused(code)),
        }
    }
}
