//! Access control lists.

use crate::base::Str;

/// Permission bits. Bits beyond ALL are stored untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Perms(pub i32);

impl Perms {
    /// Read data and list children.
    pub const READ: Self = Self(1);
    /// Set data.
    pub const WRITE: Self = Self(2);
    /// Create children.
    pub const CREATE: Self = Self(4);
    /// Delete children.
    pub const DELETE: Self = Self(8);
    /// Set the ACL.
    pub const ADMIN: Self = Self(16);
    /// Everything.
    pub const ALL: Self = Self(31);

    /// The letter of each bit, in the order in which Apache's zkCli prints them.
    pub const LETTERS: [(char, Self); 5] = [
        ('c', Self::CREATE),
        ('d', Self::DELETE),
        ('r', Self::READ),
        ('w', Self::WRITE),
        ('a', Self::ADMIN),
    ];

    /// The letters of the bits that have one.
    #[must_use]
    pub fn letters(self) -> String {
        Self::LETTERS
            .iter()
            .filter(|(_, bit)| self.any_of(*bit))
            .map(|(letter, _)| letter)
            .collect()
    }

    /// Whether any bit of `wanted` is among these.
    #[must_use]
    pub const fn any_of(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// Either set of bits.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Who: a scheme and an id that the scheme understands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// `world`, `auth`, `digest`, `ip`, ...
    pub scheme: Str,
    /// What the scheme compares.
    pub id: Str,
}

/// One entry of an ACL.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// What is allowed.
    pub perms: Perms,
    /// To whom.
    pub id: Id,
}

impl Acl {
    /// The same, in memory of its own: what was received keeps the whole packet.
    #[must_use]
    pub fn detached(&self) -> Self {
        let Id { scheme, id } = &self.id;
        Self { perms: self.perms, id: Id { scheme: Str::from(&**scheme), id: Str::from(&**id) } }
    }

    /// In the place of an ACL that is not known yet: it grants nothing.
    #[must_use]
    pub const fn unknown() -> Self {
        let id = Id { scheme: Str::from_static("unknown"), id: Str::from_static("") };
        Self { perms: Perms(0), id }
    }

    /// world:anyone with every permission.
    #[must_use]
    pub const fn open() -> Self {
        Self::world(Perms::ALL)
    }

    /// world:anyone with `perms`.
    #[must_use]
    pub const fn world(perms: Perms) -> Self {
        let id = Id { scheme: Str::from_static("world"), id: Str::from_static("anyone") };
        Self { perms, id }
    }
}
