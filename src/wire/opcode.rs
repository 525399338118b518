//! Opcodes: one table of number, and of the short names that `cons` and `stat` print.

macro_rules! opcodes {
    ($($name:ident = $number:literal, $short:literal;)*) => {
        $(
            #[doc = concat!("Opcode ", stringify!($number), ".")]
            pub const $name: i32 = $number;
        )*

        /// The short name that `cons` prints as `lop`.
        #[must_use]
        pub const fn short_name(opcode: i32) -> &'static str {
            match opcode {
                $($number => $short,)*
                _ => "NA",
            }
        }
    };
}

opcodes! {
    CREATE = 1, "CREA";
    DELETE = 2, "DELE";
    EXISTS = 3, "EXIS";
    GET_DATA = 4, "GETD";
    SET_DATA = 5, "SETD";
    GET_ACL = 6, "GETA";
    SET_ACL = 7, "SETA";
    GET_CHILDREN = 8, "GETC";
    SYNC = 9, "SYNC";
    PING = 11, "PING";
    GET_CHILDREN2 = 12, "GETC";
    CHECK = 13, "CHEC";
    MULTI = 14, "MULT";
    CREATE2 = 15, "CREA";
    RECONFIG = 16, "RECO";
    CHECK_WATCHES = 17, "CHKW";
    REMOVE_WATCHES = 18, "REMW";
    CREATE_CONTAINER = 19, "CREA";
    DELETE_CONTAINER = 20, "DELE";
    CREATE_TTL = 21, "CREA";
    MULTI_READ = 22, "MLTR";
    AUTH = 100, "NA";
    SET_WATCHES = 101, "SETW";
    SASL = 102, "NA";
    GET_EPHEMERALS = 103, "GETE";
    GET_ALL_CHILDREN_NUMBER = 104, "GETACN";
    SET_WATCHES2 = 105, "STW2";
    ADD_WATCH = 106, "ADDW";
    WHO_AM_I = 107, "HOMI";
    CREATE_SESSION = -10, "SESS";
    CLOSE_SESSION = -11, "CLOS";
}

/// Whether a server without a quorum refuses requests of this opcode unread.
#[must_use]
pub const fn needs_quorum(opcode: i32) -> bool {
    match opcode {
        CLOSE_SESSION => false,
        CHECK | DELETE_CONTAINER | SYNC => true,
        other => is_write(other),
    }
}

/// Whether a request of this opcode becomes a txn.
#[must_use]
pub const fn is_write(opcode: i32) -> bool {
    matches!(
        opcode,
        CREATE
            | DELETE
            | SET_DATA
            | SET_ACL
            | MULTI
            | CREATE2
            | CREATE_CONTAINER
            | CREATE_TTL
            | CLOSE_SESSION
            | RECONFIG
    )
}
