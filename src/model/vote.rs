//! What elections are about: votes, and the states of a server.

use std::fmt;

use super::{ServerId, Zxid};

/// Whom a server wants to lead, with the position that speaks for it. Ordered as elections compare
/// votes: by epoch, then zxid, then sid, each signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// The epoch of the leader's history. `i64::MIN` from a server that may not lead.
    pub peer_epoch: i64,
    /// The last zxid of the leader's log. -1 if its empty database is not trusted, `i64::MIN` from
    /// a server that may not lead.
    pub zxid: Zxid,
    /// The leader.
    pub leader: ServerId,
}

/// What a server is doing, in Apache's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerState {
    /// 0: it looks for a leader.
    Looking,
    /// 1: it follows one.
    Following,
    /// 2: it leads.
    Leading,
    /// 3: it observes one.
    Observing,
}

impl Vote {
    /// The vote of a server that may not lead.
    pub const NONE: Self =
        Self { peer_epoch: i64::MIN, zxid: Zxid(i64::MIN), leader: ServerId::NONE };
}

impl ServerState {
    /// The state of this number.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Looking,
            1 => Self::Following,
            2 => Self::Leading,
            3 => Self::Observing,
            _ => return None,
        })
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Looking => 0,
            Self::Following => 1,
            Self::Leading => 2,
            Self::Observing => 3,
        }
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leader {} zxid {} epoch {}", self.leader, self.zxid, self.peer_epoch)
    }
}
