//! [`History`]: a fuzzy snapshot and the records behind it become one exact state.
//!
//! The snapshot may show any txn up to the one in its last sections; the log reaches behind that
//! range (see [`Fuzzy`]), so the last comparison of digests holds.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::apache::{LogRecord, SnapshotDecoder, SnapshotItem, SnapshotSummary};
use crate::model::{EphemeralOwner, ExtendedTypes, SessionId, Txn, TxnBody, TxnHeader, Zxid};
use crate::server::fuzzy::{Fuzzy, Unequal};
use crate::server::state::State;
use crate::tree::TreeOptions;
use crate::wire;

use super::{ImportRefusal, Unfit};

/// Records of which is remembered what they were, to know a repetition when it comes.
const REMEMBERED_RECORDS: usize = 4096;
/// The digest version that is compared.
const DIGEST_VERSION: i32 = 2;

/// What the files stand for so far.
#[derive(Debug)]
pub(super) struct History {
    pub(super) state: State,
    /// The zxid in the snapshot's name.
    pub(super) begun: Zxid,
    /// The last txn that a znode of the snapshot shows.
    shown: Zxid,
    recent: VecDeque<(Zxid, u32)>,
    /// Digests that were compared.
    pub(super) compared: u64,
    extended_types: ExtendedTypes,
}

/// Why a record could not be taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// The snapshot is to blame, maybe; another may do.
    Unfit(Unfit),
    /// No snapshot makes that good.
    Refuse(ImportRefusal),
}

impl History {
    /// For a snapshot whose name says `begun`.
    pub(super) fn new(options: TreeOptions, begun: Zxid) -> Self {
        Self {
            state: State::for_restore(options),
            begun,
            shown: Zxid::ZERO,
            recent: VecDeque::new(),
            compared: 0,
            extended_types: options.extended_types,
        }
    }

    /// The next bytes of the snapshot's file.
    pub(super) fn take_snapshot_piece(
        &mut self,
        decoder: &mut SnapshotDecoder,
        bytes: &Bytes,
    ) -> Result<(), Unfit> {
        decoder.push(bytes);
        while let Some(item) = decoder.next_item()? {
            match item {
                SnapshotItem::Session { id, timeout_ms } => {
                    self.state.sessions.insert(id, timeout_ms);
                }
                SnapshotItem::Znode { path, data, acl, stat } => {
                    // That one shows the version of a configuration, which may be no txn.
                    if &*path != "/zookeeper/config" {
                        self.shown = self.shown.max(stat.czxid).max(stat.mzxid).max(stat.pzxid);
                    }
                    self.state.tree.restore_znode(&path, data.as_deref(), &acl, stat)?;
                }
            }
        }
        Ok(())
    }

    /// The snapshot's file was read to its end.
    pub(super) fn finish_snapshot(&mut self, decoder: SnapshotDecoder) -> Result<(), Unfit> {
        let summary = decoder.finish()?;
        let tree = &mut self.state.tree;
        tree.restore_built_ins();
        tree.finish_restore(self.begun)?;
        self.state.snapshot = Some(self.begun);
        self.state.fuzzy = match fuzzy_range(self.begun, &summary) {
            // It has no sections that tell, as all before 3.6.
            Fuzzy::Unknown(_) if self.begun < self.shown => Fuzzy::Until(self.shown, None),
            known => known,
        };
        self.state.fuzzy.reach(&mut self.state.tree);
        Ok(())
    }

    /// The next record of the log called `file`.
    pub(super) fn take_record(&mut self, file: &str, record: &LogRecord) -> Result<(), Stop> {
        let (file, offset, found) = (|| file.to_owned(), record.offset, record.zxid);
        let last = self.state.tree.last_zxid();
        let checksum = crc32c::crc32c(&record.txn);
        let decoded = wire::txn::decode(&record.txn);
        if found <= last {
            // A refusal that Apache gave the zxid of the txn before changes nothing.
            let is_error = decoded.is_ok_and(|txn| txn.body.is_error());
            let is_known = found <= self.begun || self.recent.contains(&(found, checksum));
            return match is_known || is_error {
                true => Ok(()),
                false => {
                    Err(Stop::Refuse(ImportRefusal::Repeated { file: file(), offset, last, found }))
                }
            };
        }
        if !found.follows(last) {
            return Err(Stop::Refuse(ImportRefusal::Gap { file: file(), offset, last, found }));
        }
        let txn = decoded.map_err(|error| {
            Stop::Refuse(ImportRefusal::Txn { file: file(), offset, zxid: found, error })
        })?;
        if self.recent.len() == REMEMBERED_RECORDS {
            self.recent.pop_front();
        }
        self.recent.push_back((found, checksum));
        self.apply(&txn).map_err(Stop::Unfit)
    }

    fn apply(&mut self, txn: &Txn) -> Result<(), Unfit> {
        self.state.apply(txn);
        let State { tree, fuzzy, .. } = &mut self.state;
        let compared = fuzzy.applied(tree, txn.digest).map_err(unfit)?;
        self.compared += u64::from(compared);
        Ok(())
    }

    /// The log is over: the state, once it is known to be exact.
    pub(super) fn finish(&mut self) -> Result<(), Unfit> {
        match self.state.fuzzy {
            Fuzzy::Until(until, _) => {
                Err(Unfit::Ahead { until, last: self.state.tree.last_zxid() })
            }
            _ => self.state.fuzzy.passed(&mut self.state.tree).map_err(unfit),
        }
    }

    /// Removes ephemerals of sessions that are over, as Apache's server does when it starts; how
    /// many there were. TTL znodes look the same to a server that does not offer them.
    pub(super) fn remove_orphans(&mut self) -> Result<usize, ImportRefusal> {
        let State { tree, sessions, .. } = &mut self.state;
        let dead = tree.ephemeral_sessions().filter(|session| !sessions.contains_key(session));
        let dead: Vec<SessionId> = dead.collect();
        let mut count = 0;
        for session in dead {
            let path = tree.ephemerals_of(session).next().cloned().unwrap_or_default();
            let looks_like_ttl =
                matches!(EphemeralOwner::of(session.0, ExtendedTypes::On), EphemeralOwner::Ttl(_));
            if looks_like_ttl && self.extended_types == ExtendedTypes::Off {
                return Err(ImportRefusal::Ttl { path: path.to_string() });
            }
            count += tree.ephemerals_of(session).count();
            let header = TxnHeader { session, zxid: tree.last_zxid(), ..TxnHeader::default() };
            tree.apply(&header, &TxnBody::CloseSession { paths: None });
        }
        tree.recount_quotas();
        Ok(count)
    }
}

const fn unfit(Unequal { zxid, expected, found }: Unequal) -> Unfit {
    Unfit::Digest { zxid, expected, found }
}

/// How far a snapshot may be ahead of `begun`, the zxid in its name, as its sections say.
#[must_use]
pub fn fuzzy_range(begun: Zxid, summary: &SnapshotSummary) -> Fuzzy {
    // Zxid 0: the writer had applied nothing since its start, and the digest is none.
    let digest = summary.digest.filter(|section| {
        Zxid::ZERO < section.zxid && begun <= section.zxid && section.version == DIGEST_VERSION
    });
    let ended = summary.last_zxid.filter(|last| begun <= *last);
    match (digest, ended) {
        (Some(section), _) => Fuzzy::Until(section.zxid, Some(section.digest)),
        (None, Some(ended)) => Fuzzy::Until(ended, None),
        (None, None) => Fuzzy::Unknown(None),
    }
}
