//! [`Model`]: a server whose txns are known: random histories for tests, with their state.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::recovery::Recovered;
use super::state::State;
use crate::apache::{
    Compression, SnapshotDigest, SnapshotEncoder, names, put_log_header, put_log_record,
};
use crate::base::{Prng, Str, StrList};
use crate::model::{
    Acl, CreateTxn, CreateTxnKind, ErrorCode, ExtendedTypes, Id, Perms, SessionId, StatPersisted,
    TxnBody, TxnHeader, Zxid,
};
use crate::tree::TreeOptions;
use crate::wire;

pub(crate) const OPTIONS: TreeOptions =
    TreeOptions { extended_types: ExtendedTypes::Off, digests: true };

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Path, data, ACL and stat.
type Znode = (String, Option<Vec<u8>>, Vec<Acl>, StatPersisted);

/// A server whose txns are known, and their bytes.
pub(crate) struct Model {
    pub(crate) state: State,
    pub(crate) txns: Vec<(Zxid, Bytes)>,
    pub(crate) prng: Prng,
    /// Txns carry digests.
    pub(crate) digests: bool,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State::new(OPTIONS);
        Self { state, txns: Vec::new(), prng: Prng::new(seed), digests: true }
    }

    /// As it was right behind this txn.
    pub(crate) fn at(&self, zxid: Zxid) -> Self {
        let mut state = State::new(OPTIONS);
        let txns: Vec<_> = self.txns.iter().filter(|(txn, _)| *txn <= zxid).cloned().collect();
        for (_, txn) in &txns {
            state.apply(&wire::txn::decode(txn).expect("it was encoded"));
        }
        Self { state, txns, prng: Prng::new(1), digests: self.digests }
    }

    pub(crate) fn commit_at(&mut self, zxid: Zxid, session: i64, body: TxnBody) {
        let time_ms = 1000 + zxid.0;
        let session = SessionId(session);
        let header = TxnHeader { session, zxid, time_ms, ..TxnHeader::default() };
        let is_error = matches!(body, TxnBody::Error(_));
        self.state.apply(&crate::model::Txn { header, body: body.clone(), digest: None });
        let digest = (self.digests && !is_error).then(|| self.state.tree.digest());
        let mut bytes = BytesMut::new();
        wire::txn::encode(&header, &body, digest, &mut bytes);
        self.txns.push((zxid, bytes.freeze()));
    }

    pub(crate) fn commit(&mut self, session: i64, body: TxnBody) {
        self.commit_at(self.state.tree.last_zxid().next(), session, body);
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(path) = open.pop() {
            for name in self.state.tree.get(&path).expect("it was listed").children() {
                if name != "zookeeper" {
                    open.push(format!("{path}/{name}"));
                }
            }
            found.push(path);
        }
        found.sort();
        found
    }

    pub(crate) fn create(&mut self, path: &str, kind: CreateTxnKind) -> TxnBody {
        let parent = crate::model::path::parent(path).expect("the root is there from the start");
        let parent_cversion =
            self.state.tree.get(parent).expect("parents are there").persisted().cversion + 1;
        let data = match self.prng.below(3) {
            0 => None,
            1 => Some(Bytes::new()),
            _ => Some(Bytes::from(self.prng.next_u64().to_string())),
        };
        let acl = self.acl();
        TxnBody::Create(CreateTxn { kind, path: Str::from(path), data, acl, parent_cversion })
    }

    fn acl(&mut self) -> Vec<Acl> {
        let id = Id { scheme: Str::from_static("digest"), id: Str::from_static("u:h") };
        match self.prng.below(3) {
            0 => vec![Acl::open()],
            1 => vec![Acl::world(Perms::READ), Acl { perms: Perms::ALL, id }],
            _ => vec![Acl { perms: Perms(self.prng.below(32) as i32), id }],
        }
    }

    /// One random txn over few names, so that znodes come and go often.
    pub(crate) fn act(&mut self) {
        let paths = self.paths();
        let path = paths[self.prng.below(paths.len() as u64) as usize].clone();
        let sessions: Vec<i64> = self.state.sessions.keys().map(|session| session.0).collect();
        let name = format!("{path}/{}", self.prng.below(3));
        let is_free = self.state.tree.get(&name).is_none();
        let persisted = self.state.tree.get(&path).expect("it was listed").persisted();
        let is_ephemeral = persisted.ephemeral_owner != 0;
        let is_empty = self.state.tree.get(&path).expect("it was listed").child_count() == 0;
        match self.prng.below(12) {
            0 => {
                let timeout_ms = 4000 + self.prng.below(9) as i32;
                let id = 0x10_0000 + self.prng.next_u64() as i64 % 1000;
                self.commit(id, TxnBody::CreateSession { timeout_ms });
            }
            1 => {
                let Some(session) = sessions.first().copied() else { return };
                let paths: StrList =
                    self.state.tree.ephemerals_of(SessionId(session)).cloned().collect();
                // A record without paths (before 3.6) says too little to be replayed exactly.
                let paths = (!paths.is_empty() || self.prng.one_in(2)).then_some(paths);
                self.commit(session, TxnBody::CloseSession { paths });
            }
            2 => self.commit(7, TxnBody::Error(ErrorCode::NO_NODE)),
            3..=5 if is_free && !is_ephemeral => {
                let ephemeral = self.prng.one_in(3) && !sessions.is_empty();
                let owner = if ephemeral { sessions[0] } else { 7 };
                let kind = match self.prng.below(3) {
                    0 => CreateTxnKind::Create { ephemeral },
                    1 => CreateTxnKind::Create2 { ephemeral },
                    _ => CreateTxnKind::Container,
                };
                let body = self.create(&name, kind);
                self.commit(owner, body);
            }
            6..=8 if is_empty && !path.is_empty() => {
                self.commit(7, TxnBody::Delete { path: Str::from(path.as_str()) });
            }
            9 if !path.is_empty() => {
                let acl = self.acl();
                let version = persisted.aversion + 1;
                self.commit(7, TxnBody::SetAcl { path: Str::from(path.as_str()), acl, version });
            }
            10 if is_free && !is_ephemeral => {
                let create = self.create(&name, CreateTxnKind::Create { ephemeral: false });
                let set = TxnBody::SetData { path: Str::from(&*name), data: None, version: 1 };
                let delete = TxnBody::Delete { path: Str::from(&*name) };
                let mut ops = vec![create, set];
                if self.prng.one_in(2) {
                    ops.push(delete);
                }
                self.commit(7, TxnBody::Multi(ops));
            }
            _ if !path.is_empty() => {
                let data = Some(Bytes::from(self.prng.next_u64().to_string()));
                let version = persisted.version + 1;
                self.commit(7, TxnBody::SetData { path: Str::from(path.as_str()), data, version });
            }
            _ => {}
        }
    }

    /// A snapshot as Apache writes one: znode by znode, while up to `ahead` txns go on.
    pub(crate) fn snapshot(
        &mut self,
        ahead: u64,
        digest: bool,
        last_zxid: bool,
    ) -> (Zxid, Vec<u8>) {
        let begun = self.state.tree.last_zxid();
        let sessions: Vec<_> = self.state.sessions.iter().map(|(id, ms)| (*id, *ms)).collect();
        let mut znodes: Vec<Znode> = Vec::new();
        let mut open = vec!["/".to_owned()];
        let mut left = ahead;
        while let Some(path) = open.pop() {
            if let Some(znode) = self.state.tree.get(&path) {
                let data = znode.data().map(<[u8]>::to_vec);
                znodes.push((path.clone(), data, znode.acl().to_vec(), znode.persisted()));
                let base = if path == "/" { "" } else { path.as_str() };
                open.extend(znode.children().map(|name| format!("{base}/{name}")));
            }
            while 0 < left && self.prng.one_in(2) {
                self.act();
                left -= 1;
            }
        }
        let acls = znodes.iter().map(|(_, _, acl, _)| acl.as_slice().into());
        let mut encoder = SnapshotEncoder::new(Compression::None, &sessions, acls);
        for (path, data, acl, stat) in &znodes {
            encoder.znode(path, data.as_deref(), acl, stat);
        }
        let mut file = encoder.take_chunk(1).map(|chunk| chunk.to_vec()).unwrap_or_default();
        let zxid = self.state.tree.last_zxid();
        let section = SnapshotDigest { zxid, version: 2, digest: self.state.tree.digest() };
        let section = digest.then_some(section);
        file.extend_from_slice(&encoder.finish(section, last_zxid.then_some(zxid)));
        (begun, file)
    }

    /// Txns `from..` as log files of `each` records.
    pub(crate) fn logs(&self, from: usize, each: usize) -> Files {
        let files = self.txns[from..].chunks(each).map(|txns| {
            let mut file = BytesMut::new();
            put_log_header(&mut file);
            txns.iter().for_each(|(_, txn)| put_log_record(&mut file, txn));
            file.resize(file.len() + 100, 0);
            (names::log_name(txns[0].0), file.to_vec())
        });
        files.collect()
    }

    pub(crate) fn assert_same(&self, recovered: &Recovered, what: &str) {
        let sessions: Vec<_> = self.state.sessions.iter().map(|(id, ms)| (*id, *ms)).collect();
        assert_eq!(recovered.sessions, sessions, "{what}");
        assert_eq!(recovered.last_zxid, self.state.tree.last_zxid(), "{what}");
        assert_eq!(recovered.tree.znode_count(), self.state.tree.znode_count(), "{what}");
        for path in self.paths() {
            let (ours, theirs) = (recovered.tree.get(&path), self.state.tree.get(&path));
            let (ours, theirs) = (ours.expect(&path), theirs.expect("it was listed"));
            assert_eq!(ours.data(), theirs.data(), "{what} {path}");
            assert_eq!(ours.persisted(), theirs.persisted(), "{what} {path}");
            assert_eq!(ours.acl(), theirs.acl(), "{what} {path}");
        }
        assert_eq!(recovered.tree.digest(), self.state.tree.digest(), "{what}");
    }
}
