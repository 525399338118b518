//! The closed list of what a machine may ask of a disk. A driver runs each operation and reports
//! its end as an input; the simulator puts a crash between any two of them.

use std::fmt;

use bytes::Bytes;

/// Which of the server's two directories a file is in. They may be one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileDir {
    /// Transaction log segments: `dataLogDir/ringkeeper`.
    Log,
    /// Snapshots and the epochs record: `dataDir/ringkeeper`.
    Data,
}

/// A file by directory and name. Names never contain a separator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// Where.
    pub dir: FileDir,
    /// Its name there.
    pub name: String,
}

/// Identifies an operation under way, so that its completion can be told from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOpId(pub u64);

/// One operation. The driver may run operations that are under way together in any order and
/// interleaving; whoever needs an order waits for the completion of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Create the file, or truncate it if it exists. Its name is durable only after `SyncDir`.
    Create {
        /// The file.
        file: FileName,
    },
    /// Write `bytes` at `offset`. Offset and length are multiples of
    /// [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES). When `durable`, completion means that the
    /// bytes survive a power cut.
    Write {
        /// The file.
        file: FileName,
        /// Where, in bytes.
        offset: u64,
        /// What. Never empty.
        bytes: Bytes,
        /// Flush with the write (O_DSYNC).
        durable: bool,
    },
    /// Write `len` zero bytes at `offset`, both multiples of the block size. Not durable.
    Zero {
        /// The file.
        file: FileName,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Make everything written to the file durable. Never retried after a failure.
    Flush {
        /// The file.
        file: FileName,
    },
    /// Give the file a new name in the same directory, replacing any file of that name.
    Rename {
        /// The file.
        from: FileName,
        /// Its new name; the directory is `from`'s.
        to: String,
    },
    /// Remove the file.
    Remove {
        /// The file.
        file: FileName,
    },
    /// Put the configuration that was last proposed beside the file that the server was started
    /// with, in one step and durably.
    WriteNextConfig {
        /// The configuration's text, with its version.
        text: String,
    },
    /// Put the configuration that is in force there, and make the file that the server was started
    /// with name it; each in one step and durably, in this order.
    WriteConfig {
        /// Its version.
        version: i64,
        /// Its text.
        text: String,
        /// It says where this server's clients connect.
        moves_client: bool,
        /// It is the one that was last proposed, which need not be kept beside it any longer.
        is_last: bool,
    },
    /// Make creations, renames and removals in the directory durable.
    SyncDir {
        /// The directory.
        dir: FileDir,
    },
}

impl FileOp {
    /// Where it works. The configuration counts as data, though it lies beside the file that the
    /// server was started with.
    #[must_use]
    pub const fn dir(&self) -> FileDir {
        match self {
            Self::Create { file }
            | Self::Write { file, .. }
            | Self::Zero { file, .. }
            | Self::Flush { file }
            | Self::Rename { from: file, .. }
            | Self::Remove { file } => file.dir,
            Self::SyncDir { dir } => *dir,
            Self::WriteNextConfig { .. } | Self::WriteConfig { .. } => FileDir::Data,
        }
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct FileFailure {
    /// No space left, or a quota or file-size limit was reached.
    pub no_space: bool,
    /// There was no descriptor to open the file with. Nothing is wrong with the file: the shell
    /// tries again until there is one.
    pub no_descriptor: bool,
    /// The operating system's words, with the path.
    pub text: String,
}

/// A part of a file that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// The file.
    pub file: FileName,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes; fewer are read only at the end of the file.
    pub len: u64,
}

/// Names operations and collects them for the driver. One per server, so that ids are unique.
#[derive(Debug, Default)]
pub struct FileOps {
    asked: Vec<(FileOpId, FileOp)>,
    reads: Vec<(FileOpId, FilePart)>,
    next: u64,
}

impl FileOps {
    /// Asks the driver to run `op`.
    pub fn ask(&mut self, op: FileOp) -> FileOpId {
        let id = FileOpId(self.next);
        self.next += 1;
        self.asked.push((id, op));
        id
    }

    /// Asks the driver to read, beside everything else that is under way.
    pub fn read(&mut self, part: FilePart) -> FileOpId {
        let id = FileOpId(self.next);
        self.next += 1;
        self.reads.push((id, part));
        id
    }

    /// What was asked to be read since the last call.
    pub fn take_reads(&mut self) -> Vec<(FileOpId, FilePart)> {
        std::mem::take(&mut self.reads)
    }

    /// What was asked since the last call, in order.
    pub fn take(&mut self) -> Vec<(FileOpId, FileOp)> {
        std::mem::take(&mut self.asked)
    }
}

impl FileName {
    /// A file in the log directory.
    #[must_use]
    pub const fn log(name: String) -> Self {
        Self { dir: FileDir::Log, name }
    }

    /// A file in the data directory.
    #[must_use]
    pub const fn data(name: String) -> Self {
        Self { dir: FileDir::Data, name }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
