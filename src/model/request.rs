//! Client requests as values, decoded but not yet judged. Null strings and vectors are kept
//! apart from empty ones where the answer differs.

use bytes::Bytes;

use super::{Perms, Zxid};
use crate::base::{Str, StrList};

/// A decoded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Consumes a zxid; goes through the commit pipeline.
    Write(WriteRequest),
    /// Answered from the applied tree.
    Read(ReadRequest),
    /// 9: answered when everything committed before it is applied here.
    Sync {
        /// Echoed.
        path: Str,
    },
    /// 11.
    Ping,
    /// 100: takes effect at receipt, answered in order.
    Auth {
        /// The scheme.
        scheme: Option<Str>,
        /// What the scheme understands.
        auth: Option<Bytes>,
    },
    /// 102.
    Sasl {
        /// The client's token.
        token: Option<Bytes>,
    },
    /// 107: the connection's identities.
    WhoAmI,
}

/// Requests that become txns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteRequest {
    /// 1, 15, 19, 21.
    Create(CreateRequest),
    /// 2.
    Delete {
        /// Whose.
        path: Str,
        /// Expected version; -1 is any.
        version: i32,
    },
    /// 5.
    SetData {
        /// Whose.
        path: Str,
        /// New data.
        data: Option<Bytes>,
        /// Expected version; -1 is any.
        version: i32,
    },
    /// 7.
    SetAcl {
        /// Whose.
        path: Str,
        /// New ACL as sent.
        acl: Option<Vec<RawAcl>>,
        /// Expected aversion; -1 is any.
        version: i32,
    },
    /// 13, only inside a multi.
    Check {
        /// Whose.
        path: Str,
        /// Expected version; -1 is any.
        version: i32,
    },
    /// 14.
    Multi(Vec<Self>),
    /// 16: needs an ensemble and `reconfigEnabled`.
    Reconfig(ReconfigRequest),
    /// -11 from a client.
    CloseSession,
}

/// A change of the ensemble's members as sent: the whole list, or who comes and goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReconfigRequest {
    /// `server.N=...`, separated by commas: who comes, or is replaced.
    pub joining: Option<Str>,
    /// Numbers of servers, separated by commas: who goes.
    pub leaving: Option<Str>,
    /// The whole list, lines separated by newlines or commas. If there is one it alone counts.
    pub new_members: Option<Str>,
    /// The version of the configuration that is to be changed; -1 is any.
    pub from_config: i64,
}

/// An ACL entry as sent: either string may be null (`client-protocol.md` 8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAcl {
    /// Permission bits, any value.
    pub perms: Perms,
    /// Null is refused.
    pub scheme: Option<Str>,
    /// Null is accepted for scheme `auth` only.
    pub id: Option<Str>,
}

/// A create of any kind, as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// Which opcode.
    pub kind: CreateKind,
    /// Path; a prefix when the flags ask for a sequence number.
    pub path: Str,
    /// Initial data.
    pub data: Option<Bytes>,
    /// ACL as sent.
    pub acl: Option<Vec<RawAcl>>,
    /// Create mode 0..=6, any value as sent.
    pub flags: i32,
}

/// Which opcode a create came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateKind {
    /// 1: answered with the path.
    Create,
    /// 15: answered with path and stat.
    Create2,
    /// 19.
    Container,
    /// 21.
    Ttl {
        /// Milliseconds, any value as sent.
        ttl_ms: i64,
    },
}

/// Requests answered from the applied tree or from this connection's watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRequest {
    /// 3.
    Exists(PathWatch),
    /// 4.
    GetData(PathWatch),
    /// 6.
    GetAcl {
        /// Whose.
        path: Str,
    },
    /// 8.
    GetChildren(PathWatch),
    /// 12.
    GetChildren2(PathWatch),
    /// 17.
    CheckWatches(WatcherSelection),
    /// 18.
    RemoveWatches(WatcherSelection),
    /// 22: (opcode 4 or 8, path) each.
    MultiRead(Vec<(MultiReadKind, Str)>),
    /// 101 and 105.
    SetWatches(SetWatches),
    /// 103.
    GetEphemerals {
        /// Plain string prefix; null, blank and `/` mean all.
        prefix: Option<Str>,
    },
    /// 104.
    GetAllChildrenNumber {
        /// Of whom.
        path: Str,
    },
    /// 106.
    AddWatch {
        /// Where.
        path: Str,
        /// false: persistent; true: persistent and recursive.
        recursive: bool,
    },
}

/// A path and whether to leave a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathWatch {
    /// Whose.
    pub path: Str,
    /// Leave a one-shot watch.
    pub watch: bool,
}

/// Which watches on a path: wire values 1..=5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatcherSelection {
    /// Exact path.
    pub path: Str,
    /// Which kind.
    pub watcher_type: WatcherType,
}

/// Watcher types of ops 17 and 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherType {
    /// 1: one-shot child watches.
    Children,
    /// 2: one-shot data watches, those on missing znodes included.
    Data,
    /// 3: every kind.
    Any,
    /// 4.
    Persistent,
    /// 5.
    PersistentRecursive,
}

/// The two reads a multiRead may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiReadKind {
    /// Opcode 4.
    GetData,
    /// Opcode 8.
    GetChildren,
}

/// The watches a client had on its previous connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetWatches {
    /// What the client had seen then.
    pub relative_zxid: Zxid,
    /// Data watches on znodes that existed.
    pub data: StrList,
    /// Exist watches on znodes that did not.
    pub exist: StrList,
    /// Child watches.
    pub child: StrList,
    /// Persistent watches (op 105).
    pub persistent: StrList,
    /// Persistent recursive watches (op 105).
    pub persistent_recursive: StrList,
    /// A null list or path was next: what comes before it is done, then MARSHALLING_ERROR is the
    /// answer.
    pub cut_short: bool,
}

impl SetWatches {
    /// Number of paths in all lists.
    #[must_use]
    pub const fn path_count(&self) -> usize {
        self.data.len()
            + self.exist.len()
            + self.child.len()
            + self.persistent.len()
            + self.persistent_recursive.len()
    }
}
