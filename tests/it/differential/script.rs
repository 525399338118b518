//! What is done to both servers: steps, each of them plain data, so that a failing sequence can be
//! run again in part.

use ringkeeper::model::{Request, WriteRequest};
use ringkeeper::wire::{self, opcode};

/// Connections in use at once.
pub(super) const SLOTS: usize = 6;

/// One request as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) xid: i32,
    pub(super) opcode: i32,
    pub(super) body: Vec<u8>,
    /// Where the body holds a zxid that counts from the first one of the sequence.
    pub(super) zxid_at: Option<usize>,
    /// The path it is about, if there is one.
    pub(super) path: Option<Vec<u8>>,
    /// What it is, for people.
    pub(super) label: String,
}

impl Frame {
    /// The bytes to send to a server whose sequence began at zxid `base`.
    pub(super) fn bytes(&self, base: i64) -> Vec<u8> {
        let mut body = self.body.clone();
        if let Some(room) = self.zxid_at.and_then(|at| body.get_mut(at..at + 8)) {
            let relative = i64::from_be_bytes(room.try_into().expect("eight bytes"));
            room.copy_from_slice(&relative.wrapping_add(base).to_be_bytes());
        }
        let len = i32::try_from(8 + body.len()).expect("requests are small");
        let mut frame = Vec::with_capacity(12 + body.len());
        for number in [len, self.xid, self.opcode] {
            frame.extend_from_slice(&number.to_be_bytes());
        }
        frame.extend_from_slice(&body);
        frame
    }

    /// Whether its answer may overtake others or ends the connection: nothing is sent beside it.
    pub(super) const fn goes_alone(&self) -> bool {
        !opcode::is_write(self.opcode) && !is_pipelined_read(self.opcode)
            || self.opcode == opcode::CLOSE_SESSION
    }

    /// Whether Apache would judge what is sent right behind it by a wrong picture: as if a setACL
    /// had changed nothing, or a multi with a null in an ACL had succeeded in part.
    pub(super) fn goes_last(&self) -> bool {
        if self.opcode == opcode::SET_ACL {
            return true;
        }
        let has_null = |write: &WriteRequest| match write {
            WriteRequest::Create(create) => {
                let acl = create.acl.as_deref().unwrap_or_default();
                acl.iter().any(|entry| entry.scheme.is_none() || entry.id.is_none())
            }
            _ => false,
        };
        let decoded = wire::request::decode(&self.bytes(0).split_off(4).into());
        match decoded.map(|frame| frame.request) {
            Ok(Ok(Request::Write(WriteRequest::Multi(writes)))) => writes.iter().any(has_null),
            _ => false,
        }
    }
}

const fn is_pipelined_read(number: i32) -> bool {
    matches!(
        number,
        opcode::EXISTS
            | opcode::GET_DATA
            | opcode::GET_ACL
            | opcode::GET_CHILDREN
            | opcode::SYNC
            | opcode::PING
            | opcode::GET_CHILDREN2
            | opcode::RECONFIG
            | opcode::CHECK_WATCHES
            | opcode::REMOVE_WATCHES
            | opcode::MULTI_READ
            | opcode::SET_WATCHES
            | opcode::GET_EPHEMERALS
            | opcode::GET_ALL_CHILDREN_NUMBER
            | opcode::SET_WATCHES2
            | opcode::ADD_WATCH
            | opcode::WHO_AM_I
    )
}

/// Which session a handshake asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    New,
    /// The one this slot had last.
    Own,
    Unknown(i64),
}

/// Which password a handshake has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Password {
    /// The session's; zeros for a new one.
    Right,
    Raw(Option<Vec<u8>>),
}

/// A first frame.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) version: i32,
    /// Counts from the first zxid of the sequence; `None` sends 0.
    pub(super) seen: Option<i64>,
    pub(super) timeout_ms: i32,
    pub(super) whose: Whose,
    pub(super) password: Password,
    /// `None`: the frame has 44 bytes.
    pub(super) read_only: Option<u8>,
}

/// The longest timeout both servers grant: nothing expires during a sequence.
const TIMEOUT_MS: i32 = 3_600_000;

impl Hello {
    pub(super) const fn plain(whose: Whose) -> Self {
        Self {
            version: 0,
            seen: None,
            timeout_ms: TIMEOUT_MS,
            whose,
            password: Password::Right,
            read_only: Some(0),
        }
    }
}

/// One thing that is done to both servers; its answers are compared before the next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A new connection, and what is sent right behind the handshake.
    Connect { slot: usize, hello: Hello, behind: Vec<Frame> },
    /// Requests that are sent without waiting between them.
    Send { slot: usize, frames: Vec<Frame> },
    /// The client closes without a word, both directions or only the one it sends in.
    Drop { slot: usize, half: bool },
    /// A connection that is no client's: its bytes, and whether its sending half is closed then.
    Raw { bytes: Vec<u8>, half_close: bool },
}

impl Step {
    /// Requests in it.
    pub(super) const fn requests(&self) -> usize {
        match self {
            Self::Connect { behind, .. } => 1 + behind.len(),
            Self::Send { frames, .. } => frames.len(),
            Self::Raw { .. } => 1,
            Self::Drop { .. } => 0,
        }
    }

    /// What it is, in a line.
    pub(super) fn title(&self) -> String {
        self.describe().lines().next().unwrap_or_default().to_owned()
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> String {
        let list = |frames: &[Frame]| {
            let lines = frames.iter().map(|frame| format!("\n    {}", frame.label));
            lines.collect::<String>()
        };
        match self {
            Self::Connect { slot, hello, behind } => {
                format!("connection {slot}: {hello:?}{}", list(behind))
            }
            Self::Send { slot, frames } => format!("connection {slot} sends{}", list(frames)),
            Self::Drop { slot, half } => format!("connection {slot} is dropped, half {half}"),
            Self::Raw { bytes, half_close } => {
                format!("first bytes {}, half-close {half_close}", bytes.escape_ascii())
            }
        }
    }
}
