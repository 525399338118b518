//! Layer 0: small pieces that know nothing of ZooKeeper: time as integers, shared strings, large
//! collections that grow a little at a time, and the list of what may be asked of a disk.

pub mod file_op;
pub mod index;
pub mod pages;
pub mod prng;
pub mod str;
pub mod str_list;
pub mod str_set;
pub mod time;

pub use self::file_op::{FileDir, FileFailure, FileName, FileOp, FileOpId, FileOps, FilePart};
pub use self::index::Index;
pub use self::pages::{Arena, Pages};
pub use self::prng::Prng;
pub use self::str::Str;
pub use self::str_list::StrList;
pub use self::str_set::StrSet;
pub use self::time::{Duration, Instant, WallMs};
