//! The thread behind a session: connects, reads, pings, renews.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};

use super::{Phase, SessionEvent, Shared, State};
use crate::base::prng::Prng;
use crate::client::servers::Servers;
use crate::client::{FRAME_BYTES_MAX, Reply, is_timeout, read_frame};
use crate::model::{ErrorCode, Request, SessionId, Xid};
use crate::wire::client::{decode_event, encode_request, frame_body};
use crate::wire::connect::{ConnectRequest, ConnectResponse};
use crate::wire::frame::Deframer;

const AUTH_XID: Xid = Xid(-4);
const SET_WATCHES_XID: Xid = Xid(-8);

/// Pause after all servers were tried in vain; doubled up to the second value.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Why there is no connection any more.
enum End {
    /// Try the next server.
    Broken(String),
    /// The session is over.
    Final(Phase),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    servers: Servers,
    patient: bool,
    events: SyncSender<SessionEvent>,
    /// When the pings were sent that are not answered; as many as fit into the patience of a
    /// connection.
    pings: VecDeque<Instant>,
    /// Events that the receiver was too slow for.
    missed: u64,
    prng: Prng,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        servers: Servers,
        patient: bool,
        events: SyncSender<SessionEvent>,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since_epoch.map_or(0, |since| u64::from(since.subsec_nanos()));
        let prng = Prng::new(nanos ^ (u64::from(std::process::id()) << 32));
        Self { shared, servers, patient, events, pings: VecDeque::new(), missed: 0, prng }
    }

    /// Runs until the session is over.
    pub(super) fn run(mut self) {
        let count = self.servers.addresses.len();
        // Clients spread over the servers by beginning anywhere.
        let mut at = self.prng.below(count as u64) as usize;
        let mut tried = 0;
        loop {
            let name = self.servers.addresses[at % count].clone();
            at += 1;
            let end = match self.connect(&name) {
                Ok((stream, server)) => {
                    tried = 0;
                    self.serve(stream, server)
                }
                Err(End::Broken(why)) => {
                    tried += 1;
                    End::Broken(format!("{name}: {why}"))
                }
                Err(end) => end,
            };
            match end {
                End::Broken(why) => self.on_broken(why),
                End::Final(phase) => return self.on_final(phase),
            }
            if tried == count {
                tried = 0;
                if !self.on_failed_round() {
                    return;
                }
            }
            if self.shared.state().phase == Phase::Closed {
                return;
            }
        }
    }

    fn on_broken(&mut self, why: String) {
        self.shared.sender().take();
        let mut state = self.shared.state();
        let was_connected = state.phase == Phase::Connected;
        if was_connected {
            state.phase = Phase::Connecting;
        }
        state.last_error.clone_from(&why);
        state.fail_pending();
        drop(state);
        self.shared.changed.notify_all();
        if was_connected {
            self.tell(SessionEvent::Disconnected { why });
        }
    }

    fn on_final(&mut self, phase: Phase) {
        self.shared.finish(phase);
        match phase {
            Phase::Expired => self.tell(SessionEvent::Expired),
            Phase::AuthFailed => self.tell(SessionEvent::AuthFailed),
            _ => {}
        }
    }

    /// Pauses, or gives up: false.
    fn on_failed_round(&mut self) -> bool {
        let mut state = self.shared.state();
        state.failed_rounds += 1;
        if !self.patient && state.session == SessionId(0) {
            drop(state);
            self.shared.finish(Phase::Closed);
            return false;
        }
        let longest = PAUSE_MIN * 2_u32.pow(state.failed_rounds.min(8));
        let longest = longest.min(PAUSE_MAX).as_millis() as u64;
        let pause = Duration::from_millis(longest / 2 + self.prng.below(longest / 2));
        let waited = self.shared.changed.wait_timeout(state, pause);
        drop(waited);
        true
    }

    fn connect(&self, name: &str) -> Result<(TcpStream, SocketAddr), End> {
        let timeout = self.shared.state().timeout;
        let patience = (timeout / self.servers.addresses.len() as u32).max(PAUSE_MAX);
        let mut end = End::Broken("the name has no address".to_owned());
        for address in name.to_socket_addrs()? {
            match self.attach(address, patience) {
                Ok(stream) => return Ok((stream, address)),
                Err(End::Broken(why)) => end = End::Broken(why),
                Err(end) => return Err(end),
            }
        }
        Err(end)
    }

    /// The handshake, then identities and watches; requests of callers come behind them.
    fn attach(&self, address: SocketAddr, patience: Duration) -> Result<TcpStream, End> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let request = {
            let state = self.shared.state();
            ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: state.last_zxid_seen,
                timeout_ms: i32::try_from(state.timeout.as_millis()).unwrap_or(i32::MAX),
                session: state.session,
                password: Some(Bytes::copy_from_slice(&state.password)),
                read_only: false,
                has_read_only: true,
            }
        };
        let mut buf = BytesMut::new();
        request.encode(&mut buf);
        let sent = Instant::now();
        stream.write_all(&buf)?;
        let frame = read_frame(&mut stream).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                End::Broken("the server closed the connection at the handshake".to_owned())
            }
            _ => End::from(error),
        })?;
        let response = ConnectResponse::decode(&frame)
            .map_err(|error| End::Broken(format!("the handshake's answer: {error}")))?;
        if response.timeout_ms <= 0 {
            return Err(End::Final(Phase::Expired));
        }
        let mut state = self.shared.state();
        state.session = response.session;
        state.password = response.password;
        state.timeout = Duration::from_millis(response.timeout_ms.unsigned_abs().into());
        state.heard_of = sent;
        state.last_sent = Instant::now();
        let buf = greeting(&state);
        drop(state);
        stream.write_all(&buf)?;
        Ok(stream)
    }

    /// One connection from its first request to its end.
    fn serve(&mut self, mut stream: TcpStream, server: SocketAddr) -> End {
        let timeout = self.shared.state().timeout;
        let tick = (timeout / 12).max(Duration::from_millis(1));
        let patience = timeout * 2 / 3;
        let prepared = stream.try_clone().and_then(|sender| {
            sender.set_write_timeout(Some(patience.max(tick)))?;
            stream.set_read_timeout(Some(tick))?;
            Ok(sender)
        });
        let sender = match prepared {
            Ok(sender) => sender,
            Err(error) => return error.into(),
        };
        self.open(sender, server);
        let mut deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut last_heard = Instant::now();
        self.pings.clear();
        let end = loop {
            match stream.read(&mut chunk) {
                Ok(0) => break End::Broken("the server closed the connection".to_owned()),
                Ok(len) => {
                    last_heard = Instant::now();
                    deframer.push(Bytes::copy_from_slice(&chunk[..len]));
                    if let Err(end) = self.drain(&mut deframer) {
                        break end;
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.into(),
            }
            if patience <= last_heard.elapsed() {
                break End::Broken(format!("nothing heard for {} ms", patience.as_millis()));
            }
            if timeout / 3 <= self.shared.state().last_sent.elapsed() {
                self.ping();
            }
        };
        let _gone = stream.shutdown(Shutdown::Both);
        end
    }

    fn open(&mut self, sender: TcpStream, server: SocketAddr) {
        let mut slot = self.shared.sender();
        let mut state = self.shared.state();
        if state.phase != Phase::Connecting {
            // Closed in the meantime: the socket goes, and the reader with it.
            let _gone = sender.shutdown(Shutdown::Both);
            return;
        }
        *slot = Some(sender);
        state.phase = Phase::Connected;
        state.failed_rounds = 0;
        state.last_error.clear();
        let renewed = state.connections != 0;
        state.connections += 1;
        drop(state);
        drop(slot);
        self.shared.changed.notify_all();
        self.tell(SessionEvent::Connected { server, renewed });
    }

    /// Sends a ping, unless a caller is just writing.
    fn ping(&mut self) {
        let Ok(mut sender) = self.shared.sender.try_lock() else { return };
        let Some(stream) = sender.as_mut() else { return };
        let now = Instant::now();
        let mut frame = BytesMut::new();
        encode_request(Xid::PING, &Request::Ping, &mut frame);
        // A failure shows at the next read.
        let _sent = stream.write_all(&frame);
        self.shared.state().last_sent = now;
        self.pings.push_back(now);
    }

    fn drain(&mut self, deframer: &mut Deframer) -> Result<(), End> {
        loop {
            match deframer.next_frame() {
                Ok(Some(frame)) => self.on_frame(&frame)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(End::Broken(error.to_string())),
            }
        }
    }

    fn on_frame(&mut self, frame: &Bytes) -> Result<(), End> {
        let broken = |error| End::Broken(format!("a reply does not decode: {error}"));
        let (header, mut body) = frame_body(frame).map_err(broken)?;
        match header.xid {
            Xid::NOTIFICATION => {
                let event = decode_event(&mut body).map_err(broken)?;
                self.shared.state().watches.on_event(&event);
                self.tell(SessionEvent::Watch { event, zxid: header.zxid });
            }
            Xid::PING => {
                if let Some(sent) = self.pings.pop_front() {
                    let mut state = self.shared.state();
                    state.heard_of = state.heard_of.max(sent);
                }
            }
            AUTH_XID if header.code != ErrorCode::OK => {
                return Err(End::Final(Phase::AuthFailed));
            }
            AUTH_XID | SET_WATCHES_XID => {}
            _ => self.on_reply(Reply { header, body })?,
        }
        Ok(())
    }

    fn on_reply(&self, reply: Reply) -> Result<(), End> {
        let mut state = self.shared.state();
        let Some(pending) = state.pending.pop_front() else {
            return Err(End::Broken(format!("a reply to nothing, xid {}", reply.header.xid.0)));
        };
        if pending.xid != reply.header.xid {
            let (got, wanted) = (reply.header.xid.0, pending.xid.0);
            state.pending.push_front(pending);
            return Err(End::Broken(format!("a reply to xid {got} instead of {wanted}")));
        }
        state.heard_of = state.heard_of.max(pending.sent);
        state.last_zxid_seen = state.last_zxid_seen.max(reply.header.zxid);
        if let Some(change) = pending.change {
            state.watches.on_reply(change, reply.header.code);
        }
        drop(state);
        let _nobody_waits = pending.answer.send(Ok(reply));
        Ok(())
    }

    fn tell(&mut self, event: SessionEvent) {
        if self.missed != 0 && self.events.try_send(SessionEvent::Missed(self.missed)).is_ok() {
            self.missed = 0;
        }
        if self.missed != 0 {
            self.missed += 1;
        } else if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.missed = 1;
        }
    }
}

/// Identities and watches of a renewed session.
fn greeting(state: &State) -> BytesMut {
    let mut buf = BytesMut::new();
    for (scheme, auth) in &state.auth {
        let request = Request::Auth { scheme: Some(scheme.clone()), auth: Some(auth.clone()) };
        encode_request(AUTH_XID, &request, &mut buf);
    }
    for request in state.watches.to_requests(state.last_zxid_seen) {
        encode_request(SET_WATCHES_XID, &request, &mut buf);
    }
    buf
}
