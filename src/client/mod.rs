//! Layer 4: blocking clients for programs and tests.
//!
//! [`Client`] is one connection, frames in and out, pipelining up to the caller; it never
//! reconnects and hides nothing. [`session::Session`] is a session that is renewed from server to
//! server, with its identities and watches, for programs that people use.

pub mod replies;
pub mod requests;
pub mod servers;
pub mod session;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::model::{ErrorCode, Request, SessionId, WatchEvent, Xid, Zxid};
use crate::wire::client::{ReplyHeader, decode_event, decode_reply_header, encode_request};
use crate::wire::connect::{ConnectRequest, ConnectResponse};
use crate::wire::jute::Reader;

/// A read that takes longer fails: nothing waits for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The frame length that no server of ours exceeds.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// One connection.
pub struct Client {
    stream: TcpStream,
    next_xid: i32,
    events: VecDeque<WatchEvent>,
    /// How long a read waits.
    patience: Duration,
    /// What the server answered the handshake with; a timeout of 0 is a refusal.
    pub session: ConnectResponse,
}

/// What a handshake asks for.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The session to renew; 0 asks for a new one.
    pub session: SessionId,
    /// Its password.
    pub password: [u8; 16],
    /// The last zxid this client has seen.
    pub last_zxid_seen: Zxid,
    /// Session timeout, ms; the server may change it.
    pub timeout_ms: i32,
    /// A server without a quorum will do.
    pub read_only: bool,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            session: SessionId(0),
            password: [0; 16],
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 10_000,
            read_only: false,
        }
    }
}

/// A reply or notification.
pub struct Reply {
    /// Its header.
    pub header: ReplyHeader,
    /// At the start of its body.
    pub body: Reader,
}

impl Client {
    /// A connection without a handshake.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn dial(server: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(stream)
    }

    /// A connection with a new session.
    ///
    /// # Errors
    /// The server cannot be reached or closes the connection.
    pub fn connect(server: impl ToSocketAddrs) -> io::Result<Self> {
        Self::attach(server, &Hello::default())
    }

    /// A connection with the session that `hello` asks for.
    ///
    /// # Errors
    /// The server cannot be reached or closes the connection.
    pub fn attach(server: impl ToSocketAddrs, hello: &Hello) -> io::Result<Self> {
        Self::greet(Self::dial(server)?, hello, READ_TIMEOUT)
    }

    /// The same, where connecting and each read take `patience` at most.
    ///
    /// # Errors
    /// The server cannot be reached, does not answer in time or closes the connection.
    pub fn attach_within(
        server: SocketAddr,
        hello: &Hello,
        patience: Duration,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Self::greet(stream, hello, patience)
    }

    fn greet(mut stream: TcpStream, hello: &Hello, patience: Duration) -> io::Result<Self> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: hello.last_zxid_seen,
            timeout_ms: hello.timeout_ms,
            session: hello.session,
            password: Some(Bytes::copy_from_slice(&hello.password)),
            read_only: hello.read_only,
            has_read_only: true,
        };
        let mut buf = BytesMut::new();
        request.encode(&mut buf);
        stream.write_all(&buf)?;
        let frame = read_frame(&mut stream)?;
        let session = ConnectResponse::decode(&frame).map_err(io::Error::other)?;
        Ok(Self { stream, next_xid: 1, events: VecDeque::new(), patience, session })
    }

    /// Sends a request without waiting; its xid.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, request: &Request) -> io::Result<Xid> {
        let xid = Xid(self.next_xid);
        self.next_xid += 1;
        let mut buf = BytesMut::new();
        encode_request(xid, request, &mut buf);
        self.stream.write_all(&buf)?;
        Ok(xid)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Closes the sending half: nothing more can be asked. Servers take it for the end.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn end_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// The next frame, be it a reply or a notification.
    ///
    /// # Errors
    /// The connection is gone, nothing came in time, or the frame is no reply.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let frame = read_frame(&mut self.stream)?;
        let mut body = Reader::new(&frame);
        let header = decode_reply_header(&mut body).map_err(io::Error::other)?;
        Ok(Reply { header, body })
    }

    /// Sends a request and waits for its reply. Events that come before it are kept for
    /// [`Client::next_event`].
    ///
    /// # Errors
    /// The connection is gone, or a reply to something else came.
    pub fn call(&mut self, request: &Request) -> io::Result<Reply> {
        let xid = self.send(request)?;
        loop {
            let mut reply = self.receive()?;
            if reply.header.xid == Xid::NOTIFICATION {
                self.events.push_back(decode_event(&mut reply.body).map_err(io::Error::other)?);
            } else if reply.header.xid == xid
                || (request == &Request::Ping && reply.header.xid == Xid::PING)
            {
                return Ok(reply);
            } else if reply.header.xid != Xid::PING {
                let (got, wanted) = (reply.header.xid.0, xid.0);
                return Err(io::Error::other(format!("a reply to {got} instead of {wanted}")));
            }
        }
    }

    /// The error code of a request.
    ///
    /// # Panics
    /// If the connection does not stay.
    pub fn code(&mut self, request: &Request) -> ErrorCode {
        self.call(request).expect("the connection stays").header.code
    }

    /// The next event, waited for up to `patience`; replies to pings are passed over.
    ///
    /// # Errors
    /// The connection is gone, or something else came.
    pub fn next_event(&mut self, patience: Duration) -> io::Result<Option<WatchEvent>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        self.stream.set_read_timeout(Some(patience))?;
        // Only looking, so that a time limit never cuts a frame.
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(self.patience))?;
        match looked {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut reply = self.receive()?;
        match reply.header.xid {
            Xid::NOTIFICATION => decode_event(&mut reply.body).map(Some).map_err(io::Error::other),
            Xid::PING => Ok(None),
            other => Err(io::Error::other(format!("a reply to {} out of turn", other.0))),
        }
    }

    /// Keeps the session alive; the answer is taken by whoever reads next.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn ping(&mut self) -> io::Result<()> {
        let mut buf = BytesMut::new();
        encode_request(Xid::PING, &Request::Ping, &mut buf);
        self.stream.write_all(&buf)
    }

    /// Whether the server closes the connection next.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// The answer of a server to a four-letter word.
///
/// # Errors
/// The server cannot be reached.
pub fn word(server: impl ToSocketAddrs, word: &str) -> io::Result<String> {
    let mut stream = Client::dial(server)?;
    stream.write_all(word.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(i32::from_be_bytes(len)).map_err(io::Error::other)?;
    if FRAME_BYTES_MAX < len {
        return Err(io::Error::other(format!("a frame of {len} bytes is announced")));
    }
    let mut frame = Vec::new();
    stream.take(len as u64).read_to_end(&mut frame)?;
    if frame.len() < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    Ok(Bytes::from(frame))
}
