//! Txns: what became of a request, in the form in which it is logged, replicated and applied.

use bytes::Bytes;

use super::{Acl, ErrorCode, SessionId, Xid, Zxid};
use crate::base::{Str, StrList};

/// A txn with its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Who, when, where in the order.
    pub header: TxnHeader,
    /// What.
    pub body: TxnBody,
    /// The tree's digest after this txn (`quorum-and-disk.md` part 10), if the txn carries one.
    pub digest: Option<u64>,
}

/// Common part of every txn. The type number is the body's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxnHeader {
    /// The session that asked; 0 for the server itself.
    pub session: SessionId,
    /// The session's number for the request.
    pub cxid: Xid,
    /// Place in the total order.
    pub zxid: Zxid,
    /// Wall clock of the server that validated it, ms.
    pub time_ms: i64,
}

/// What a txn does. Values are results, not requests: versions are the new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnBody {
    /// -10: a session begins.
    CreateSession {
        /// Negotiated timeout, ms.
        timeout_ms: i32,
    },
    /// -11: a session ends. `None` when the record is absent (written by servers before 3.6).
    CloseSession {
        /// The ephemerals it deletes.
        paths: Option<StrList>,
    },
    /// -1: a refused request. Consumes its zxid and changes nothing.
    Error(ErrorCode),
    /// 1, 15, 19, 21: a znode is created.
    Create(CreateTxn),
    /// 2: a znode is deleted.
    Delete {
        /// Its path.
        path: Str,
    },
    /// 20: an empty container or an overdue TTL znode is deleted.
    DeleteContainer {
        /// Its path.
        path: Str,
    },
    /// 5: data is set.
    SetData {
        /// Whose.
        path: Str,
        /// The new data.
        data: Option<Bytes>,
        /// The new version.
        version: i32,
    },
    /// 16: the configuration is replaced; applied as a `SetData`.
    Reconfig {
        /// Always the configuration znode.
        path: Str,
        /// The new configuration text.
        data: Option<Bytes>,
        /// The new version.
        version: i32,
    },
    /// 7: the ACL is set.
    SetAcl {
        /// Whose.
        path: Str,
        /// The new ACL.
        acl: Vec<Acl>,
        /// The new aversion.
        version: i32,
    },
    /// 13: a version was checked; only inside a multi.
    Check {
        /// Whose.
        path: Str,
        /// The checked version plus one.
        version: i32,
    },
    /// 14: several at once. If any is an `Error`, none is applied.
    Multi(Vec<Self>),
}

/// The creation of a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTxn {
    /// Which opcode, which decides the record's layout and the owner.
    pub kind: CreateTxnKind,
    /// Final path, sequence suffix included.
    pub path: Str,
    /// Initial data.
    pub data: Option<Bytes>,
    /// Its ACL, with `auth` entries replaced.
    pub acl: Vec<Acl>,
    /// The parent's stored cversion after the creation; -1 in records of the oldest form.
    pub parent_cversion: i32,
}

/// The four create records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateTxnKind {
    /// 1.
    Create {
        /// Owned by the header's session.
        ephemeral: bool,
    },
    /// 15: as 1, answered with the stat.
    Create2 {
        /// Owned by the header's session.
        ephemeral: bool,
    },
    /// 19.
    Container,
    /// 21.
    Ttl {
        /// Milliseconds.
        ttl_ms: i64,
    },
}

impl TxnBody {
    /// Whether it is a refused request.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Number of a multi's ops; 0 of what is no multi.
    #[must_use]
    pub const fn op_count(&self) -> usize {
        match self {
            Self::Multi(bodies) => bodies.len(),
            _ => 0,
        }
    }

    /// The type number of the record.
    #[must_use]
    pub const fn type_number(&self) -> i32 {
        match self {
            Self::CreateSession { .. } => -10,
            Self::CloseSession { .. } => -11,
            Self::Error(_) => -1,
            Self::Create(create) => match create.kind {
                CreateTxnKind::Create { .. } => 1,
                CreateTxnKind::Create2 { .. } => 15,
                CreateTxnKind::Container => 19,
                CreateTxnKind::Ttl { .. } => 21,
            },
            Self::Delete { .. } => 2,
            Self::DeleteContainer { .. } => 20,
            Self::SetData { .. } => 5,
            Self::Reconfig { .. } => 16,
            Self::SetAcl { .. } => 7,
            Self::Check { .. } => 13,
            Self::Multi(_) => 14,
        }
    }
}
