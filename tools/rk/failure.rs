//! Why a command failed, for people, for JSON readers and as an exit code.

use std::fmt;
use std::io;

use ringkeeper::client::session::CallError;
use ringkeeper::model::ErrorCode;
use serde_json::{Value, json};

/// The end of a command that did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server said no.
    Refused {
        /// What it said.
        code: ErrorCode,
        /// To what.
        path: String,
    },
    /// The server said no to an op of a multi.
    MultiRefused {
        /// What it said.
        code: ErrorCode,
        /// Which op, counted from 1.
        op: usize,
        /// Its text.
        line: String,
    },
    /// An identity was refused.
    AuthFailed,
    /// Arguments or input that cannot be used.
    Usage(String),
    /// No server was reached.
    NoConnection(String),
    /// Something may or may not have happened.
    Unknown(String),
    /// It took too long; nothing is in doubt.
    TimedOut(String),
    /// The session is gone.
    Expired,
    /// Nobody reads the output any more.
    BrokenPipe,
    /// The command that was run ended with this code.
    Exit(u8),
}

/// The result of a command.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    /// Names the path that a call was about.
    pub(crate) fn of(error: CallError, path: &str) -> Self {
        match error {
            CallError::Refused(code) => Self::Refused { code, path: path.to_owned() },
            CallError::NotConnected(why) => Self::NoConnection(why),
            CallError::Lost | CallError::TimedOut | CallError::Malformed(_) => {
                Self::Unknown(format!("{path}: {error}"))
            }
            CallError::Expired => Self::Expired,
            CallError::AuthFailed => Self::AuthFailed,
            CallError::Closed => Self::NoConnection("the session is closed".to_owned()),
        }
    }

    /// A file or stream of this machine.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Usage(format!("{what}: {error}")),
        }
    }

    /// The server's code, if it is one.
    pub(crate) const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } | Self::MultiRefused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the server refused with `code`.
    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code)
    }

    /// What the process ends with.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Refused { .. } | Self::MultiRefused { .. } | Self::AuthFailed => 1,
            Self::Usage(_) => 2,
            Self::NoConnection(_) => 3,
            Self::Unknown(_) | Self::TimedOut(_) | Self::Expired => 4,
            Self::Exit(code) => *code,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Refused { code, .. } | Self::MultiRefused { code, .. } => code.name(),
            Self::AuthFailed => ErrorCode::AUTH_FAILED.name(),
            Self::Usage(_) => "USAGE",
            Self::NoConnection(_) => "NO_CONNECTION",
            Self::Unknown(_) => "OUTCOME_UNKNOWN",
            Self::TimedOut(_) => "TIMED_OUT",
            Self::Expired => "SESSION_EXPIRED",
            Self::BrokenPipe => "BROKEN_PIPE",
            Self::Exit(_) => "COMMAND_FAILED",
        }
    }

    fn to_json(&self) -> Value {
        let mut value = json!({ "error": self.name(), "message": self.to_string() });
        match self {
            Self::Refused { path, .. } => value["path"] = json!(path),
            Self::MultiRefused { op, .. } => value["op"] = json!(op),
            _ => {}
        }
        value
    }

    /// Says it on standard error.
    pub(crate) fn report(&self, json: bool) {
        match self {
            Self::BrokenPipe | Self::Exit(_) => {}
            _ if json => eprintln!("{}", self.to_json()),
            _ => eprintln!("rk: {self}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, path } => write!(f, "{}", refusal(*code, path)),
            Self::MultiRefused { code, op, line } => {
                write!(f, "nothing was done: op {op} ({line}) was refused ({})", code.name())
            }
            Self::AuthFailed => write!(f, "the server refuses the credentials (AUTH_FAILED)"),
            Self::Usage(text) | Self::Unknown(text) | Self::TimedOut(text) => f.write_str(text),
            Self::NoConnection(why) => write!(f, "no connection: {why}"),
            Self::Expired => write!(f, "the session has expired, its ephemerals are gone"),
            Self::BrokenPipe => write!(f, "nobody reads the output"),
            Self::Exit(code) => write!(f, "the command ended with {code}"),
        }
    }
}

fn refusal(code: ErrorCode, path: &str) -> String {
    let text = match code {
        ErrorCode::NO_NODE => format!("no znode {path}"),
        ErrorCode::NODE_EXISTS => format!("{path} exists already"),
        ErrorCode::NOT_EMPTY => format!("{path} has children"),
        ErrorCode::NO_AUTH => format!("no permission for {path}"),
        ErrorCode::BAD_VERSION => format!("{path} has another version"),
        ErrorCode::NO_CHILDREN_FOR_EPHEMERALS => {
            format!("{path} would be the child of an ephemeral")
        }
        ErrorCode::INVALID_ACL => format!("the ACL for {path} is not valid"),
        ErrorCode::BAD_ARGUMENTS => format!("{path}: path or arguments are not valid"),
        ErrorCode::UNIMPLEMENTED => format!("{path}: the server does not offer this"),
        ErrorCode::QUOTA_EXCEEDED => format!("{path}: a hard quota would be exceeded"),
        ErrorCode::RECONFIG_DISABLED => {
            format!("{path}: the server has reconfigEnabled=false")
        }
        ErrorCode::RECONFIG_IN_PROGRESS => format!("{path}: another change is under way"),
        ErrorCode::NEW_CONFIG_NO_QUORUM => {
            format!("{path}: no quorum of the new members has joined and is up to date")
        }
        ErrorCode::NO_WATCHER => format!("no such watch on {path}"),
        ErrorCode::NOT_READ_ONLY => format!("{path}: the server only reads now"),
        ErrorCode::THROTTLED_OP => format!("{path}: the server is overloaded, nothing was done"),
        ErrorCode::SYSTEM_ERROR => format!("{path}: the server cannot do this now"),
        code => format!("{path}: refused with code {}", code.0),
    };
    format!("{text} ({})", code.name())
}
