//! [`ErrorCode`]: the numbers that replies carry.

use std::fmt;

/// What a reply says about its request. 0 is success; the table is `client-protocol.md` part 11.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The code's name, as ZooKeeper's documentation spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

codes! {
    /// Success.
    OK = 0;
    /// The server cannot do it now; here: what grows the tree while the disk is full.
    SYSTEM_ERROR = -1;
    /// An op of a failed multi that comes after the failing one.
    RUNTIME_INCONSISTENCY = -2;
    /// The request's body does not decode.
    MARSHALLING_ERROR = -5;
    /// The opcode, or the feature it needs, is not offered.
    UNIMPLEMENTED = -6;
    /// A path, flag or TTL is not valid.
    BAD_ARGUMENTS = -8;
    /// The new configuration has no synced quorum.
    NEW_CONFIG_NO_QUORUM = -13;
    /// Another reconfiguration is pending.
    RECONFIG_IN_PROGRESS = -14;
    /// The znode, or the parent of the one to create, does not exist.
    NO_NODE = -101;
    /// The connection's identities lack the permission.
    NO_AUTH = -102;
    /// The expected version is not the znode's.
    BAD_VERSION = -103;
    /// Ephemerals have no children.
    NO_CHILDREN_FOR_EPHEMERALS = -108;
    /// The znode exists.
    NODE_EXISTS = -110;
    /// The znode has children.
    NOT_EMPTY = -111;
    /// The session has expired or is closing.
    SESSION_EXPIRED = -112;
    /// The ACL is empty or holds an entry that no provider accepts.
    INVALID_ACL = -114;
    /// The auth packet was refused.
    AUTH_FAILED = -115;
    /// The session's connection is at another server by now.
    SESSION_MOVED = -118;
    /// A write on a read-only server.
    NOT_READ_ONLY = -119;
    /// An ephemeral on a local session that cannot be upgraded.
    EPHEMERAL_ON_LOCAL_SESSION = -120;
    /// No such watch.
    NO_WATCHER = -121;
    /// Reconfiguration is switched off.
    RECONFIG_DISABLED = -123;
    /// The server demands authentication that this connection lacks.
    SESSION_CLOSED_REQUIRE_SASL_AUTH = -124;
    /// A hard quota would be exceeded.
    QUOTA_EXCEEDED = -125;
    /// The request waited too long and was not executed.
    THROTTLED_OP = -127;
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}
