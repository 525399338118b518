//! One connection, of a client or between two servers: a task that reads, direct sends, and a task
//! that sends what the socket would not take at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_lite::{AsyncRead, AsyncWriteExt};
use glommio::net::TcpStream;

use super::descriptors;
use super::driver::Driver;
use super::notify::Notify;
use crate::limits::{DESCRIPTORS_KEPT_FOR_FILES, DESCRIPTORS_KEPT_FROM_SLOW_READERS};
use crate::model::ConnId;
use crate::server::{Input, PeerInput, PeerLink};

const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// Sent bytes that are worth a turn of their own.
const SENT_BYTES_NEWS: usize = 64 * 1024;
/// How long a closing connection may take to accept its last bytes, and then to close its end.
const CLOSE_FLUSH: Duration = Duration::from_secs(5);
const CLOSE_DRAIN: Duration = Duration::from_secs(1);
/// The same for the first when the other end is a server, whose end nobody waits for.
const CLOSE_FLUSH_PEER: Duration = Duration::from_secs(1);
const CLOSE_STEP: Duration = Duration::from_millis(5);
const WORD_BYTES: usize = 4;
/// Fewer bytes hold no handshake: at most a four-letter word.
const HANDSHAKE_BYTES_MIN: usize = 48;
/// How long the answer to a word may take after the client has closed its sending half.
const WORD_GRACE: Duration = Duration::from_secs(1);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// A client.
    Client(ConnId),
    /// Another server of the ensemble.
    Peer(PeerLink),
}

impl End {
    /// Whom these bytes came from, if the input is bytes.
    pub(super) const fn of_received(input: &Input) -> Option<Self> {
        match input {
            Input::Received { conn, .. } => Some(Self::Client(*conn)),
            Input::Peer(PeerInput::Received { link, .. }) => Some(Self::Peer(*link)),
            _ => None,
        }
    }

    const fn received(self, bytes: Bytes) -> Input {
        match self {
            Self::Client(conn) => Input::Received { conn, bytes },
            Self::Peer(link) => Input::Peer(PeerInput::Received { link, bytes }),
        }
    }

    pub(super) const fn sent(self, bytes: usize) -> Input {
        match self {
            Self::Client(conn) => Input::Sent { conn, bytes },
            Self::Peer(link) => Input::Peer(PeerInput::Sent { link, bytes }),
        }
    }

    const fn closed(self) -> Input {
        match self {
            Self::Client(conn) => Input::Closed { conn },
            Self::Peer(link) => Input::Peer(PeerInput::Closed { link }),
        }
    }
}

/// The driver's side of a connection.
pub(super) struct Conn {
    pub(super) address: IpAddr,
    fd: RawFd,
    /// Bytes the socket took that the driver may not know yet.
    taken: Cell<usize>,
    /// Opens for the next read once the machine has taken the last one.
    gate: Notify,
    paused: Cell<bool>,
    /// A chunk was handed over and the gate not opened since.
    has_chunk: Cell<bool>,
    /// What the socket would not take.
    backlog: RefCell<BytesMut>,
    has_writer: Cell<bool>,
    closing: Cell<bool>,
    gone: Cell<bool>,
}

impl Conn {
    pub(super) fn new(address: IpAddr, stream: &TcpStream) -> Self {
        Self {
            address,
            fd: stream.as_raw_fd(),
            taken: Cell::new(0),
            gate: Notify::default(),
            paused: Cell::new(false),
            has_chunk: Cell::new(false),
            backlog: RefCell::new(BytesMut::new()),
            has_writer: Cell::new(false),
            closing: Cell::new(false),
            gone: Cell::new(false),
        }
    }

    /// Lets the reading task go on, unless the machine wants it to wait.
    pub(super) fn open_gate(&self) {
        if self.has_chunk.get() && !self.paused.get() {
            self.has_chunk.set(false);
            self.gate.notify();
        }
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.set(paused);
        self.open_gate();
    }
}

/// Reads until the end, then reports `Closed`. Owns the stream.
pub(super) async fn read(driver: Rc<Driver>, end: End, conn: Rc<Conn>, mut stream: TcpStream) {
    let mut size = READ_BYTES_MIN;
    let mut buffer = BytesMut::zeroed(size);
    let mut received = 0;
    loop {
        let mut waited = false;
        let read = poll_fn(|context| {
            let read = Pin::new(&mut stream).poll_read(context, &mut buffer);
            waited |= read.is_pending();
            read
        });
        let count = match read.await {
            Ok(0) => {
                let may_be_word = (WORD_BYTES..HANDSHAKE_BYTES_MIN).contains(&received);
                if conn.closing.get() || (may_be_word && matches!(end, End::Client(_))) {
                    last_bytes(&conn).await;
                }
                break;
            }
            Err(_) => break,
            Ok(count) => count,
        };
        if waited {
            driver.was_polled();
        }
        received += count;
        if conn.closing.get() {
            continue;
        }
        let chunk: Bytes = buffer.split_to(count).freeze();
        if buffer.is_empty() {
            size = READ_BYTES_MAX.min(size * 4);
        }
        if buffer.len() < READ_BYTES_MIN {
            buffer = BytesMut::zeroed(size);
        }
        conn.has_chunk.set(true);
        driver.input(end.received(chunk));
        conn.gate.notified().await;
    }
    // The writing task may wait at its own descriptor, for a client that reads nothing any more.
    shut(conn.fd, Shutdown::Both);
    conn.gone.set(true);
    driver.input(end.closed());
    driver.forget(end);
}

/// Waits until a client that has closed its sending half has what it is still owed: the last reply,
/// or the answer to a four-letter word, as some versions of `nc` do. A client that ended without a
/// word is given the same short time.
async fn last_bytes(conn: &Conn) {
    let mut waited = Duration::ZERO;
    while (!conn.closing.get() || conn.has_writer.get()) && waited < WORD_GRACE {
        glommio::timer::sleep(CLOSE_STEP).await;
        waited += CLOSE_STEP;
    }
}

/// Sends as much as the socket takes now; a task of its own sends the rest.
pub(super) fn send(driver: &Rc<Driver>, end: End, conn: &Rc<Conn>, mut bytes: Bytes) {
    if conn.gone.get() {
        return;
    }
    // The writing task may be in the middle of bytes that it has taken out of the backlog.
    if !conn.has_writer.get() && conn.backlog.borrow().is_empty() {
        let taken = match send_now(conn.fd, &bytes) {
            Ok(taken) => taken,
            Err(error) => return lost(conn, &error),
        };
        if taken != 0 {
            bytes.advance(taken);
            let untold = conn.taken.get() + taken;
            let news = SENT_BYTES_NEWS <= untold;
            conn.taken.set(if news { 0 } else { untold });
            driver.sent(end, taken, news);
        }
    }
    if bytes.is_empty() {
        return;
    }
    conn.backlog.borrow_mut().extend_from_slice(&bytes);
    if !conn.has_writer.replace(true) {
        let writer = write(Rc::clone(driver), end, Rc::clone(conn));
        glommio::spawn_local(writer).detach();
    }
}

/// Bytes that the socket took without waiting.
fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the descriptor is the reading task's stream, which lives until `gone` is set.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).or_else(|_| {
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            _ => Err(error),
        }
    })
}

/// Nothing more can be sent. The reading task may be waiting for the machine, which waits for bytes
/// to be sent: it is made to see the end.
fn lost(conn: &Conn, error: &io::Error) {
    tracing::debug!(address = %conn.address, %error, "nothing can be sent: the connection ends");
    abort(conn);
}

/// Sends the backlog, waiting for the socket.
async fn write(driver: Rc<Driver>, end: End, conn: Rc<Conn>) {
    if let Err(error) = write_all(&driver, end, &conn).await {
        lost(&conn, &error);
    }
    conn.has_writer.set(false);
}

/// Tells of each piece that the socket takes: who takes little lives as well. Works on a descriptor
/// of its own.
async fn write_all(driver: &Driver, end: End, conn: &Conn) -> io::Result<()> {
    // SAFETY: duplicating an open descriptor; the new one is this task's alone.
    let fd = unsafe { libc::fcntl(conn.fd, libc::F_DUPFD_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above, nobody else has the new descriptor.
    let mut stream = unsafe { TcpStream::from_raw_fd(fd) };
    let reserve = match end {
        End::Client(_) => DESCRIPTORS_KEPT_FROM_SLOW_READERS,
        End::Peer(_) => DESCRIPTORS_KEPT_FOR_FILES,
    };
    if descriptors::is_reserved(fd, reserve) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    while !conn.gone.get() {
        let mut chunk = conn.backlog.borrow_mut().split().freeze();
        if chunk.is_empty() {
            break;
        }
        while !chunk.is_empty() {
            let taken = stream.write(&chunk).await?;
            chunk.advance(taken);
            driver.sent(end, taken, true);
        }
    }
    Ok(())
}

/// Ends a connection: what was sent before goes out first, and the client is given time to close
/// its end, since closing with input unread would reset the connection and lose the last reply.
pub(super) async fn close(end: End, conn: Rc<Conn>) {
    let (flush, drain) = match end {
        End::Client(_) => (CLOSE_FLUSH, CLOSE_DRAIN),
        End::Peer(_) => (CLOSE_FLUSH_PEER, Duration::ZERO),
    };
    conn.closing.set(true);
    conn.has_chunk.set(true);
    conn.set_paused(false);
    let mut waited = Duration::ZERO;
    while conn.has_writer.get() && !conn.gone.get() && waited < flush {
        glommio::timer::sleep(CLOSE_STEP).await;
        waited += CLOSE_STEP;
    }
    if conn.gone.get() {
        return;
    }
    shut(conn.fd, Shutdown::Write);
    let mut waited = Duration::ZERO;
    while !conn.gone.get() && waited < drain {
        glommio::timer::sleep(CLOSE_STEP).await;
        waited += CLOSE_STEP;
    }
    if !conn.gone.get() {
        shut(conn.fd, Shutdown::Both);
    }
}

/// Ends a connection at once.
pub(super) fn abort(conn: &Conn) {
    conn.closing.set(true);
    conn.has_chunk.set(true);
    conn.set_paused(false);
    conn.backlog.borrow_mut().clear();
    if !conn.gone.get() {
        shut(conn.fd, Shutdown::Both);
    }
}

fn shut(fd: RawFd, how: Shutdown) {
    let how = match how {
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: the reading task's stream lives until `gone` is set, and the caller has checked it.
    unsafe { libc::shutdown(fd, how) };
}
