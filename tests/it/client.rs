//! A blocking client: one connection, frames in and out, pipelining up to the caller.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringkeeper::base::Str;
use ringkeeper::model::request::{PathWatch, RawAcl};
use ringkeeper::model::{
    CreateKind, CreateRequest, ErrorCode, Perms, ReadRequest, Request, SessionId, WriteRequest,
    Xid, Zxid,
};
use ringkeeper::wire::client::{ReplyHeader, decode_reply_header, encode_request};
use ringkeeper::wire::connect::{ConnectRequest, ConnectResponse};
use ringkeeper::wire::jute::Reader;

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    next_xid: i32,
    /// What the server answered the handshake with.
    pub(crate) session: ConnectResponse,
}

/// A reply or notification.
pub(crate) struct Reply {
    /// Its header.
    pub(crate) header: ReplyHeader,
    /// At the start of its body.
    pub(crate) body: Reader,
}

impl Client {
    /// A connection without a handshake.
    pub(crate) fn dial(port: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }

    /// A connection with a new session.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        Self::attach(port, SessionId(0), [0; 16], Zxid::ZERO)
    }

    /// A connection that asks for an existing session.
    pub(crate) fn attach(
        port: u16,
        session: SessionId,
        password: [u8; 16],
        seen: Zxid,
    ) -> io::Result<Self> {
        let mut stream = Self::dial(port)?;
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: seen,
            timeout_ms: 10_000,
            session,
            password: Some(Bytes::copy_from_slice(&password)),
            read_only: false,
            has_read_only: true,
        };
        let mut buf = BytesMut::new();
        hello.encode(&mut buf);
        stream.write_all(&buf)?;
        let frame = read_frame(&mut stream)?;
        let session = ConnectResponse::decode(&frame).map_err(io::Error::other)?;
        Ok(Self { stream, next_xid: 1, session })
    }

    /// Sends a request without waiting; its xid.
    pub(crate) fn send(&mut self, request: &Request) -> io::Result<Xid> {
        let xid = Xid(self.next_xid);
        self.next_xid += 1;
        let mut buf = BytesMut::new();
        encode_request(xid, request, &mut buf);
        self.stream.write_all(&buf)?;
        Ok(xid)
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame.
    pub(crate) fn receive(&mut self) -> io::Result<Reply> {
        let frame = read_frame(&mut self.stream)?;
        let mut body = Reader::new(&frame);
        let header = decode_reply_header(&mut body).map_err(io::Error::other)?;
        Ok(Reply { header, body })
    }

    /// Sends a request and waits for its reply, which must be the next frame.
    pub(crate) fn call(&mut self, request: &Request) -> io::Result<Reply> {
        let xid = self.send(request)?;
        let reply = self.receive()?;
        if request != &Request::Ping {
            assert_eq!(reply.header.xid, xid, "replies come in the order of the requests");
        }
        Ok(reply)
    }

    /// The error code of a request.
    pub(crate) fn code(&mut self, request: &Request) -> ErrorCode {
        self.call(request).expect("the connection stays").header.code
    }

    /// Whether the server closes the connection next.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(i32::from_be_bytes(len)).map_err(io::Error::other)?;
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame)?;
    Ok(Bytes::from(frame))
}

/// create with the open ACL.
pub(crate) fn create(path: &str, data: &[u8], flags: i32) -> Request {
    let open =
        RawAcl { perms: Perms::ALL, scheme: Some("world".into()), id: Some("anyone".into()) };
    Request::Write(WriteRequest::Create(CreateRequest {
        kind: CreateKind::Create,
        path: path.into(),
        data: Some(Bytes::copy_from_slice(data)),
        acl: Some(vec![open]),
        flags,
    }))
}

/// setData of any version.
pub(crate) fn set(path: &str, data: &[u8]) -> Request {
    let data = Some(Bytes::copy_from_slice(data));
    Request::Write(WriteRequest::SetData { path: path.into(), data, version: -1 })
}

/// delete of any version.
pub(crate) fn delete(path: &str) -> Request {
    Request::Write(WriteRequest::Delete { path: path.into(), version: -1 })
}

/// getData.
pub(crate) fn get(path: &str, watch: bool) -> Request {
    Request::Read(ReadRequest::GetData(PathWatch { path: Str::from(path), watch }))
}

/// getChildren.
pub(crate) fn list(path: &str, watch: bool) -> Request {
    Request::Read(ReadRequest::GetChildren(PathWatch { path: Str::from(path), watch }))
}

/// exists.
pub(crate) fn exists(path: &str, watch: bool) -> Request {
    Request::Read(ReadRequest::Exists(PathWatch { path: Str::from(path), watch }))
}
