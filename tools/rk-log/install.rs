//! The install record in a data directory: a leader's snapshot was received, and the next start
//! puts it in the place of everything else (`src/docs/snapshot.md`).

use bytes::Bytes;
use ringkeeper::model::Zxid;
use ringkeeper::server::fuzzy::{Fuzzy, Unequal};
use ringkeeper::server::install::{FILE_NAME, Install};
use ringkeeper::snapshot::catalog;

use super::files::{self, Files};
use super::map;
use super::place::Trouble;
use super::replayer::load;

/// What the next start makes of the record.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is none.
    None,
    /// It does not decode: a start is refused.
    Damaged,
    /// Its snapshot takes the place of everything.
    Replaces(Install),
    /// Its snapshot is of no use, as the words say: all stays as it was.
    GivenUp(Install, String),
}

impl Files {
    /// The record, if it is there and whole.
    pub(crate) fn install_record(&self) -> Option<Install> {
        self.install.as_ref().and_then(|bytes| Install::decode(bytes))
    }

    /// Opens the snapshot that the record names. Whether it was not removed meanwhile.
    pub(super) fn find_received(&mut self) -> Result<bool, Trouble> {
        let Some(install) = self.install_record() else { return Ok(true) };
        let name = catalog::received_name(install.zxid);
        let Some(at) = self.leftovers.iter().position(|(leftover, _)| *leftover == name) else {
            return Ok(true);
        };
        self.leftovers.remove(at);
        let path = self.data_dir.join(&name);
        let bytes = files::still_there(&path, map::map(&path))?;
        self.received = bytes.map(|bytes| (install.zxid, bytes));
        Ok(self.received.is_some())
    }

    /// What the next start does.
    pub(crate) fn install_outcome(&self) -> Outcome {
        let Some(record) = &self.install else { return Outcome::None };
        let Some(install) = Install::decode(record) else { return Outcome::Damaged };
        let loaded = self.installed(install).map(|bytes| load(install.zxid, bytes));
        match loaded {
            Some(Ok(_)) => Outcome::Replaces(install),
            Some(Err(unfit)) => Outcome::GivenUp(install, unfit),
            None => Outcome::GivenUp(install, "it is not there".to_owned()),
        }
    }

    /// The record's snapshot under either name.
    fn installed(&self, install: Install) -> Option<&Bytes> {
        let received = self.received.as_ref().map(|(_, bytes)| bytes);
        received.or_else(|| self.snapshots.get(&install.zxid))
    }

    /// The files that count for the next start.
    ///
    /// # Errors
    /// The record is damaged: nobody knows.
    pub(crate) fn that_count(&self) -> Result<Self, Trouble> {
        match self.install_outcome() {
            Outcome::Damaged => Err(Trouble::Unreadable(format!(
                "{}: the record is damaged: whether the history is the one before a leader's \
                 snapshot or the one behind it is not known",
                self.data_dir.join(FILE_NAME).display()
            ))),
            outcome => Ok(self.that_count_after(&outcome)),
        }
    }

    /// The same, once it is known what a start makes of the record; all files if it is damaged.
    pub(crate) fn that_count_after(&self, outcome: &Outcome) -> Self {
        let mut left = Self { install: None, received: None, ..self.clone() };
        if let Outcome::Replaces(install) = outcome {
            left.segments.retain(|name, _| !install.replaces(name));
            let bytes = self.installed(*install).cloned().unwrap_or_default();
            left.snapshots = [(install.zxid, bytes)].into();
        }
        left
    }

    /// Name, zxid and bytes of the received snapshot.
    pub(crate) fn received(&self) -> Option<(String, Zxid, &Bytes)> {
        let (zxid, bytes) = self.received.as_ref()?;
        Some((catalog::received_name(*zxid), *zxid, bytes))
    }
}

/// Why a tree may be ahead of its zxid; `None` if it is exact.
pub(crate) fn inexact(fuzzy: Fuzzy) -> Option<String> {
    match fuzzy {
        Fuzzy::Over => None,
        Fuzzy::Until(until, _) => Some(format!(
            "the tree is ahead: its snapshot shows txns up to {until}, and only the leader of an \
             ensemble has those that the log lacks"
        )),
        Fuzzy::Unknown(Some(Unequal { zxid, expected, found })) => Some(format!(
            "the tree is ahead: its digest after txn {zxid} is {found:x}, the txn says \
             {expected:x}; only the leader of an ensemble has the txns that are missing"
        )),
        Fuzzy::Unknown(None) => {
            Some("the tree may be ahead: no digest has shown that it is exact".to_owned())
        }
    }
}
