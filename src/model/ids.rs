//! Identities: sessions, connections, shards. Newtypes without arithmetic.

use std::fmt;

/// A client session. Ids may be negative; 0 asks for a new session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

/// A client's number for one of its requests; called cxid once it stands in a txn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub i32);

/// One TCP connection of a client. Assigned by the driver, never reused within a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A shard of this server: one executor pinned to one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Counts the times a session was attached to a connection, so that requests of an older
/// connection can be told from those of the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl Xid {
    /// A notification from the server.
    pub const NOTIFICATION: Self = Self(-1);
    /// A ping; its reply carries this xid whatever the ping carried.
    pub const PING: Self = Self(-2);
}
