//! What a leader sends behind a SNAP packet: Apache's server reads what ours sends; what ours
//! receives becomes its state ([`Files`], also used with real leaders).

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use ringkeeper::base::{FileOp, FileOps, WallMs};
use ringkeeper::model::request::RawAcl;
use ringkeeper::model::{
    Acl, CreateTxn, CreateTxnKind, ExtendedTypes, Id, Perms, SessionId, Txn, TxnBody, TxnHeader,
    Zxid,
};
use ringkeeper::server::recovery::{self, Recovered, Recovery};
use ringkeeper::server::snap_receive::{ReceiveProgress, SnapshotReceiver};
use ringkeeper::server::snap_send::SnapshotSender;
use ringkeeper::server::state::State;
use ringkeeper::tree::TreeOptions;

use super::apache::{self, Apache, Java};
use super::migration;
use super::peer;

const OPTIONS: TreeOptions = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };

/// The directory of a learner, in memory.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn run(&mut self, op: FileOp) {
        match op {
            FileOp::Create { file } => drop(self.0.insert(file.name, Vec::new())),
            FileOp::Write { file, offset, bytes, .. } => {
                let content = self.0.get_mut(&file.name).expect("it was created");
                let at = usize::try_from(offset).expect("it is small");
                content.resize(content.len().max(at + bytes.len()), 0);
                content[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            FileOp::Rename { from, to } => {
                let content = self.0.remove(&from.name).expect("it was created");
                self.0.insert(to, content);
            }
            FileOp::Remove { file } => drop(self.0.remove(&file.name)),
            FileOp::Zero { .. } | FileOp::Flush { .. } | FileOp::SyncDir { .. } => {}
            FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. } => panic!("{op:?}"),
        }
    }

    /// Receives what `next` hands in, a piece at a time; the bytes behind the snapshot.
    pub(crate) fn receive(&mut self, zxid: Zxid, mut next: impl FnMut() -> Bytes) -> Bytes {
        let mut ops = FileOps::default();
        let mut receiver = SnapshotReceiver::begin(zxid, WallMs(1), 2 << 20, 1, &mut ops);
        loop {
            while receiver.wants_bytes() {
                receiver.push(&next(), &mut ops);
            }
            let (id, op) = ops.take().pop().expect("one operation is under way");
            self.run(op);
            match receiver.on_done(id, Ok(()), &mut ops) {
                ReceiveProgress::Going => {}
                ReceiveProgress::Done { leftover } => return leftover,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn recover(&mut self) -> Recovered {
        let mut machine = Recovery::new(OPTIONS, 5);
        let mut answer = recovery::Answer::Start;
        loop {
            answer = match machine.step(answer) {
                recovery::Step::List(_) => {
                    let files = self.0.iter();
                    let files = files.map(|(name, bytes)| (name.clone(), bytes.len() as u64));
                    recovery::Answer::Listing(files.collect())
                }
                recovery::Step::Read { file, offset, len } => {
                    let bytes = self.0.get(&file.name).expect("what is listed is there");
                    let at = usize::try_from(offset).expect("it is small").min(bytes.len());
                    let len = usize::try_from(len).expect("it is small");
                    let end = bytes.len().min(at + len);
                    recovery::Answer::Bytes(Bytes::copy_from_slice(&bytes[at..end]))
                }
                recovery::Step::Run(op) => {
                    self.run(op);
                    recovery::Answer::Ran(Ok(()))
                }
                recovery::Step::Note(note) => panic!("{note}"),
                recovery::Step::Done(recovered) => return *recovered,
                recovery::Step::Refuse(refusal) => panic!("{refusal}"),
            };
        }
    }
}

/// A tree with several ACLs and an ephemeral, in which parents lie behind their children.
fn leader() -> State {
    let mut state = State::new(OPTIONS);
    let (session, mut zxid) = (SessionId(0x1_0000_0001), Zxid::new(3, 0));
    let mut apply = |body: TxnBody| {
        zxid = zxid.next();
        let header = TxnHeader { session, zxid, time_ms: 5000 + zxid.0, ..TxnHeader::default() };
        state.apply(&Txn { header, body, digest: None });
    };
    let create = |path: &str, data: Option<&[u8]>, acl: Vec<Acl>, ephemeral: bool| {
        let (kind, parent_cversion) = (CreateTxnKind::Create { ephemeral }, -1);
        let data = data.map(Bytes::copy_from_slice);
        TxnBody::Create(CreateTxn { kind, path: path.into(), data, acl, parent_cversion })
    };
    let open = || vec![Acl::open()];
    let id = Id { scheme: "digest".into(), id: migration::DIGEST_ID.into() };
    let closed = vec![Acl::world(Perms::READ), Acl { perms: Perms::ALL, id }];
    apply(TxnBody::CreateSession { timeout_ms: 600_000 });
    for number in 0..50 {
        apply(create(&format!("/x{number}"), None, open(), false));
    }
    // Slots that are free are taken again in the other order: children in front of their parents.
    for number in 0..50 {
        apply(TxnBody::Delete { path: format!("/x{number}").as_str().into() });
    }
    let mut path = String::new();
    for number in 0..30 {
        path.push_str(&format!("/p{number}"));
        let acl = if number % 3 == 0 { closed.clone() } else { open() };
        apply(create(&path, Some(path.as_bytes()), acl, false));
    }
    apply(create("/p0/e", Some(b""), open(), true));
    apply(create("/long", Some(&[7; 500_000]), closed, false));
    state
}

fn send(state: &mut State) -> Vec<u8> {
    let sessions: Vec<_> = state.sessions.iter().map(|(id, ms)| (*id, *ms)).collect();
    let mut sender = SnapshotSender::begin(&mut state.tree, &sessions);
    let mut stream = Vec::new();
    while let Some(chunk) = sender.next_chunk(&mut state.tree, 1000) {
        stream.extend_from_slice(&chunk);
    }
    sender.end(&mut state.tree);
    stream
}

/// The stream is the body of a snapshot's file without header and seal: with them it is one.
#[test]
fn apaches_server_reads_what_a_leader_of_ours_sends() {
    let test = "a snapshot of ours at Apache's server";
    let Some(jars) = apache::jars() else {
        return apache::skip(test, "no java or no Apache ZooKeeper");
    };
    let mut state = leader();
    let stream = send(&mut state);
    let body = stream.strip_suffix(b"\0\0\0\x0aBenWasHere").expect("the text is at the end");
    let mut file = b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff".to_vec();
    file.extend_from_slice(body);
    let seal = i64::from(adler2::adler32_slice(&file));
    file.extend_from_slice(&seal.to_be_bytes());
    file.extend_from_slice(b"\0\0\0\x01/");

    let home = peer::fresh_directory();
    let port = peer::free_port();
    peer::write_config(&home, port, "maxSessionTimeout=600000");
    let data = home.join("data/version-2");
    fs::create_dir_all(&data).expect("the directory is new");
    let name = format!("snapshot.{:x}", state.tree.last_zxid().0);
    fs::write(data.join(name), file).expect("there is room");
    // No sections behind the seal, as in the stream.
    let java = Java::new(&jars)
        .with("zookeeper.digest.enabled", "false")
        .with("zookeeper.serializeLastProcessedZxid.enabled", "false");
    let server = Apache::start_in(&java, &home, port);
    let shown = migration::dump(port);
    assert_eq!(shown.len(), state.tree.znode_count(), "{test}");
    for (path, (data, stat, acl)) in &shown {
        let znode = state.tree.get(path).expect(path);
        assert_eq!(data.as_deref(), znode.data(), "{test}: {path}");
        assert_eq!(*stat, znode.stat(), "{test}: {path}");
        let ours = znode.acl().iter().map(|entry| RawAcl {
            perms: entry.perms,
            scheme: Some(entry.id.scheme.clone()),
            id: Some(entry.id.id.clone()),
        });
        assert_eq!(*acl, ours.collect::<Vec<_>>(), "{test}: {path}");
    }
    drop(server);
    peer::clean(&home);
}

#[test]
fn a_learner_of_ours_has_what_a_leader_of_ours_sends() {
    let mut state = leader();
    let zxid = state.tree.last_zxid();
    let stream = Bytes::from([&send(&mut state)[..], b"packets"].concat());
    let mut files = Files::default();
    let mut at = 0;
    let leftover = files.receive(zxid, || {
        let piece = stream.slice(at..stream.len().min(at + 3000));
        at += piece.len();
        piece
    });
    assert_eq!([&leftover[..], &stream[at..]].concat(), b"packets");
    let recovered = files.recover();
    assert_eq!((recovered.installed, recovered.last_zxid), (Some(zxid), zxid));
    assert_eq!(recovered.tree.digest(), state.tree.digest());
    assert_eq!(recovered.sessions, state.sessions.into_iter().collect::<Vec<_>>());
}
