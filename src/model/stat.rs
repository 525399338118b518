//! A znode's stat: what is stored, and what clients see of it.

use super::{SessionId, Zxid};

/// Stat fields as stored in the tree, in snapshots and in digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatPersisted {
    /// Txn that created the znode.
    pub czxid: Zxid,
    /// Txn that last set its data.
    pub mzxid: Zxid,
    /// Txn that last created or deleted a child.
    pub pzxid: Zxid,
    /// Wall time of czxid, ms.
    pub ctime: i64,
    /// Wall time of mzxid, ms.
    pub mtime: i64,
    /// Number of data changes.
    pub version: i32,
    /// Number of child creations (clients see something else: [`StatPersisted::visible`]).
    pub cversion: i32,
    /// Number of ACL changes.
    pub aversion: i32,
    /// The stored owner field, see [`EphemeralOwner`].
    pub ephemeral_owner: i64,
}

/// Stat fields as clients see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's; StatPersisted explains them")]
pub struct Stat {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: Zxid,
}

impl StatPersisted {
    /// What clients see: cversion counts creations and deletions, and only real ephemerals show
    /// an owner (`client-protocol.md` 5.5).
    #[must_use]
    pub const fn visible(
        &self,
        data_length: i32,
        num_children: i32,
        extended_types: ExtendedTypes,
    ) -> Stat {
        let owner = match EphemeralOwner::of(self.ephemeral_owner, extended_types) {
            EphemeralOwner::Session(session) => session.0,
            _ => 0,
        };
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: owner,
            data_length,
            num_children,
            pzxid: self.pzxid,
        }
    }
}

/// What a stored owner below zero means: `extendedTypesEnabled` and `emulate353TTLNodes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtendedTypes {
    /// A container or a session: there are no TTL znodes.
    #[default]
    Off,
    /// With a tag in the top byte a TTL.
    On,
    /// As `On`, and what has no tag is a TTL that a server 3.5.3 has written.
    Emulate353,
}

/// What the stored owner field means (`client-protocol.md` 5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EphemeralOwner {
    /// A persistent znode.
    Persistent,
    /// A container: removed when its last child is gone.
    Container,
    /// Removed when it has no children and was not set for this many milliseconds.
    Ttl(i64),
    /// An ephemeral of this session.
    Session(SessionId),
}

impl EphemeralOwner {
    /// The stored value of a container.
    pub const CONTAINER: i64 = i64::MIN;
    /// Largest TTL in milliseconds: 40 bits.
    pub const TTL_MS_MAX: i64 = (1 << 40) - 1;
    const TTL_TAG: i64 = 0xff00_0000_0000_0000_u64 as i64;

    /// Reads the stored field.
    #[must_use]
    pub const fn of(stored: i64, extended_types: ExtendedTypes) -> Self {
        let is_ttl = match extended_types {
            ExtendedTypes::Off => false,
            ExtendedTypes::On => (stored & Self::TTL_TAG) == Self::TTL_TAG,
            ExtendedTypes::Emulate353 => stored < 0,
        };
        if stored == 0 {
            Self::Persistent
        } else if stored == Self::CONTAINER {
            Self::Container
        } else if is_ttl {
            Self::Ttl(stored & Self::TTL_MS_MAX)
        } else {
            Self::Session(SessionId(stored))
        }
    }

    /// The stored field of a TTL znode.
    #[must_use]
    pub const fn ttl_to_stored(ttl_ms: i64) -> i64 {
        Self::TTL_TAG | (ttl_ms & Self::TTL_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_mean_what_the_settings_say() {
        use EphemeralOwner::{Container, Persistent, Session, Ttl};
        let session = |id: u64| Session(SessionId(id.cast_signed()));
        for (stored, off, on, emulated) in [
            (0, Persistent, Persistent, Persistent),
            (1_u64 << 63, Container, Container, Container),
            (
                0x0100_0000_0000_0007,
                session(0x0100_0000_0000_0007),
                session(0x0100_0000_0000_0007),
                session(0x0100_0000_0000_0007),
            ),
            (0xff00_0000_0000_03e8, session(0xff00_0000_0000_03e8), Ttl(1000), Ttl(1000)),
            (
                0x8000_0000_0000_03e8,
                session(0x8000_0000_0000_03e8),
                session(0x8000_0000_0000_03e8),
                Ttl(1000),
            ),
        ] {
            let of = |types| EphemeralOwner::of(stored.cast_signed(), types);
            assert_eq!(of(ExtendedTypes::Off), off, "{stored:x}");
            assert_eq!(of(ExtendedTypes::On), on, "{stored:x}");
            assert_eq!(of(ExtendedTypes::Emulate353), emulated, "{stored:x}");
        }
    }
}
