//! The handshake: ConnectRequest, ConnectResponse and the session password
//! (`client-protocol.md` part 2).

use bytes::{BufMut, Bytes, BytesMut};

use super::jute::{self, DecodeError, Reader};
use crate::model::{SessionId, Zxid};

/// Length of every session password.
pub const PASSWORD_BYTES: usize = 16;

/// The first frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Ignored.
    pub protocol_version: i32,
    /// Highest zxid the client saw in any reply.
    pub last_zxid_seen: Zxid,
    /// Requested session timeout, ms.
    pub timeout_ms: i32,
    /// 0 asks for a new session.
    pub session: SessionId,
    /// The session's password, if it is renewed.
    pub password: Option<Bytes>,
    /// The client accepts a read-only server.
    pub read_only: bool,
    /// The readOnly byte was there; the answer has one too.
    pub has_read_only: bool,
}

impl ConnectRequest {
    /// Reads a frame of 44 bytes and more; old clients omit the last byte.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        let protocol_version = reader.i32("protocolVersion")?;
        let last_zxid_seen = Zxid(reader.i64("lastZxidSeen")?);
        let timeout_ms = reader.i32("timeOut")?;
        let session = SessionId(reader.i64("sessionId")?);
        let password = reader.buffer("passwd")?;
        let has_read_only = reader.remaining() != 0;
        let read_only = has_read_only && reader.bool("readOnly")?;
        Ok(Self {
            protocol_version,
            last_zxid_seen,
            timeout_ms,
            session,
            password,
            read_only,
            has_read_only,
        })
    }

    /// The frame with its length, as a client sends it.
    pub fn encode(&self, buf: &mut BytesMut) {
        let frame = jute_frame(buf);
        buf.put_i32(self.protocol_version);
        buf.put_i64(self.last_zxid_seen.0);
        buf.put_i32(self.timeout_ms);
        buf.put_i64(self.session.0);
        jute::put_buffer(buf, self.password.as_deref());
        if self.has_read_only {
            jute::put_bool(buf, self.read_only);
        }
        finish_frame(buf, frame);
    }
}

/// The answer to a handshake. Clients take a timeout and session of 0 as "expired".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Negotiated timeout, ms.
    pub timeout_ms: i32,
    /// The session.
    pub session: SessionId,
    /// Its password. Always 16 bytes: the C client reads a fixed length.
    pub password: [u8; PASSWORD_BYTES],
    /// The server is read-only.
    pub read_only: bool,
    /// Whether the readOnly byte is sent.
    pub has_read_only: bool,
}

impl ConnectResponse {
    /// The answer to a wrong password or a session that is gone.
    #[must_use]
    pub const fn refused(has_read_only: bool) -> Self {
        Self {
            timeout_ms: 0,
            session: SessionId(0),
            password: [0; PASSWORD_BYTES],
            read_only: false,
            has_read_only,
        }
    }

    /// The frame with its length.
    pub fn encode(&self, buf: &mut BytesMut) {
        let frame = jute_frame(buf);
        buf.put_i32(0);
        buf.put_i32(self.timeout_ms);
        buf.put_i64(self.session.0);
        jute::put_buffer(buf, Some(&self.password));
        if self.has_read_only {
            jute::put_bool(buf, self.read_only);
        }
        finish_frame(buf, frame);
    }

    /// Reads the frame as a client does.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        reader.i32("protocolVersion")?;
        let timeout_ms = reader.i32("timeOut")?;
        let session = SessionId(reader.i64("sessionId")?);
        let received = reader.buffer("passwd")?.unwrap_or_default();
        let mut password = [0; PASSWORD_BYTES];
        password.iter_mut().zip(received.iter()).for_each(|(to, from)| *to = *from);
        let has_read_only = reader.remaining() != 0;
        let read_only = has_read_only && reader.bool("readOnly")?;
        Ok(Self { timeout_ms, session, password, read_only, has_read_only })
    }
}

/// Starts a frame: leaves room for its length.
pub(crate) fn jute_frame(buf: &mut BytesMut) -> usize {
    let at = buf.len();
    buf.put_i32(0);
    at
}

/// Ends a frame: writes the length into the room that `jute_frame` left.
pub(crate) fn finish_frame(buf: &mut BytesMut, at: usize) {
    let len = i32::try_from(buf.len() - at - 4).expect("frames are far below 2 GiB");
    if let Some(room) = buf.get_mut(at..at + 4) {
        room.copy_from_slice(&len.to_be_bytes());
    }
}

/// The password of a session: the first 16 bytes of java.util.Random seeded with the id
/// (`client-protocol.md` 2.5). A checksum, not a secret; Apache's servers compute the same.
#[must_use]
pub fn session_password(session: SessionId) -> [u8; PASSWORD_BYTES] {
    const MASK: u64 = (1 << 48) - 1;
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    let seed = session.0.cast_unsigned() ^ 0xB341_5C00;
    let mut state = (seed ^ MULTIPLIER) & MASK;
    let mut password = [0; PASSWORD_BYTES];
    for word in password.chunks_exact_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER).wrapping_add(0xB)) & MASK;
        let bits = u32::try_from(state >> 16).expect("48 - 16 bits");
        word.copy_from_slice(&bits.to_le_bytes());
    }
    password
}
