//! Layer 0: small pieces that know nothing of ZooKeeper: time as integers, shared strings, and
//! the list of what may be asked of a disk.

pub mod file_op;
pub mod prng;
pub mod str;
pub mod time;

pub use self::file_op::{FileDir, FileFailure, FileName, FileOp, FileOpId, FileOps};
pub use self::prng::Prng;
pub use self::str::Str;
pub use self::time::{Duration, Instant, WallMs};
