//! What a server would do if it were started on these files: its own recovery, with every
//! operation it asks for noted instead of run.

use bytes::Bytes;
use ringkeeper::base::{FileDir, FileName, FileOp};
use ringkeeper::model::{ExtendedTypes, Zxid};
use ringkeeper::server::recovery::{Answer, Recovered, Recovery, Refusal, Step};
use ringkeeper::server::{epochs, install};
use ringkeeper::snapshot::catalog;
use ringkeeper::tree::TreeOptions;

use super::files::{self, Files};

/// TTL znodes are recognised whatever the server's configuration says: a log that has none of them
/// is read the same either way.
pub(crate) const OPTIONS: TreeOptions =
    TreeOptions { extended_types: ExtendedTypes::On, digests: true };

/// The outcome of a start that was only thought of.
#[derive(Debug)]
pub(crate) struct Start {
    /// What the server would serve, or why it would not.
    pub(crate) outcome: Result<Box<Recovered>, Refusal>,
    /// What it would tell its operator.
    pub(crate) notes: Vec<String>,
    /// Files that it would remove or rename, and segments that it would write anew.
    pub(crate) changes: Vec<String>,
}

/// Runs recovery over the files.
pub(crate) fn think(files: &Files) -> Start {
    let mut recovery = Recovery::new(OPTIONS, 0);
    let (mut notes, mut changes) = (Vec::new(), Vec::new());
    let mut answer = Answer::Start;
    loop {
        answer = match recovery.step(answer) {
            Step::List(dir) => Answer::Listing(files.listing(dir)),
            Step::Read { file, offset, len } => Answer::Bytes(files.read(&file, offset, len)),
            Step::Run(op) => {
                changes.extend(change(&op));
                Answer::Ran(Ok(()))
            }
            Step::Note(note) => {
                notes.push(note);
                Answer::Next
            }
            Step::Done(recovered) => return Start { outcome: Ok(recovered), notes, changes },
            Step::Refuse(refusal) => return Start { outcome: Err(refusal), notes, changes },
        };
    }
}

fn change(op: &FileOp) -> Option<String> {
    match op {
        FileOp::Remove { file } => Some(format!("remove {file}")),
        FileOp::Rename { from, to } if catalog::is_snapshot(&from.name) => {
            Some(format!("rename {from} to {to}"))
        }
        FileOp::Rename { to, .. } => Some(format!("write {to} anew")),
        _ => None,
    }
}

impl Files {
    fn listing(&self, dir: FileDir) -> Vec<(String, u64)> {
        let of = |(name, bytes): (String, &Bytes)| (name, bytes.len() as u64);
        match dir {
            FileDir::Log => {
                self.segments.iter().map(|(name, bytes)| of((name.clone(), bytes))).collect()
            }
            FileDir::Data => {
                let name = |zxid: &Zxid| catalog::file_name(*zxid);
                let named = self.snapshots.iter().map(|(zxid, bytes)| of((name(zxid), bytes)));
                let epochs = self.epochs.as_ref();
                let epochs = epochs.map(|bytes| of((epochs::FILE_NAME.to_owned(), bytes)));
                let install = self.install.as_ref();
                let install = install.map(|bytes| of((install::FILE_NAME.to_owned(), bytes)));
                let received = self.received().map(|(name, _, bytes)| of((name, bytes)));
                named.chain(epochs).chain(install).chain(received).collect()
            }
        }
    }

    fn read(&self, file: &FileName, offset: u64, len: u64) -> Bytes {
        let received = self.received().filter(|(name, ..)| *name == file.name);
        let bytes = match (file.name.as_str(), received, catalog::zxid_of(&file.name)) {
            (_, Some((_, _, bytes)), _) => Some(bytes),
            (_, None, Some(zxid)) => self.snapshots.get(&zxid),
            (epochs::FILE_NAME, ..) => self.epochs.as_ref(),
            (install::FILE_NAME, ..) => self.install.as_ref(),
            (name, ..) => self.segments.get(name),
        };
        files::part(&bytes.cloned().unwrap_or_default(), offset, len)
    }
}
