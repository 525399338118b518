//! For tests: one member of an ensemble, whose disk does something only when it is told to.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::{Context, Ensemble};
use crate::base::{Duration, FileName, FileOp, FileOpId, FileOps, Instant, WallMs};
use crate::model::{LocalSessions, ServerId, SessionId, TxnBody, TxnHeader, Xid, Zxid};
use crate::server::contract::{Clock, DialId, PeerInput, PeerLink, PeerOutput};
use crate::server::epochs::Epochs;
use crate::server::pipeline::Pipeline;
use crate::server::pipeline::member_tests::options_of_member;
use crate::server::tests::nothing_on_disk;
use crate::wire;
use crate::wire::quorum::LeaderPacket;

/// Bytes that may wait for the disk.
pub(super) const LIMIT: usize = 10_000;
/// Length of a short record, and what a record has around its txn.
pub(super) const SHORT: usize = 100;
pub(super) const FRAME_BYTES: usize = 20;
pub(super) const LINK: PeerLink = PeerLink(9);

/// A member that follows, until it is told otherwise.
pub(super) struct Following {
    pub(super) ensemble: Ensemble,
    pub(super) pipeline: Pipeline,
    pub(super) ops: FileOps,
    pub(super) now: Instant,
    pub(super) disk: VecDeque<(FileOpId, FileOp)>,
    /// What is written, and where.
    pub(super) files: BTreeMap<FileName, Vec<u8>>,
    /// What it asked of the connection to its leader: whether to read.
    pub(super) reads: Vec<bool>,
    pub(super) sent: u32,
    pub(super) dial: Option<DialId>,
    /// What it has sent to others.
    pub(super) said: BTreeMap<PeerLink, BytesMut>,
}

impl Following {
    pub(super) fn new() -> Self {
        let mut options = options_of_member(LocalSessions::Off);
        options.inflight_bytes_max = LIMIT;
        let member = options.ensemble.clone().expect("it is one");
        let (now, mut ops) = (Instant::default(), FileOps::default());
        let clock = Clock { now, wall: WallMs(0) };
        let pipeline = Pipeline::new(options, nothing_on_disk(), 1, clock, &mut ops);
        let ensemble = Ensemble::new(member, Epochs::default(), None, usize::MAX);
        let mut following = Self {
            ensemble,
            pipeline,
            ops,
            now,
            disk: VecDeque::new(),
            files: BTreeMap::new(),
            reads: Vec::new(),
            sent: 0,
            dial: None,
            said: BTreeMap::new(),
        };
        following.learns(Duration::default());
        following.is_led_in(1);
        following
    }

    /// Another server is elected, and is dialled after this time.
    pub(super) fn learns(&mut self, after: Duration) {
        self.dial = None;
        self.step(|ensemble, cx| ensemble.learn(cx, ServerId(2), false));
        if after != Duration::default() {
            self.now = Instant(self.now.0 + after.0 - 1);
            self.step(Ensemble::on_timer);
            assert_eq!(self.dial, None);
            self.now = Instant(self.now.0 + 1);
            self.step(Ensemble::on_timer);
        }
        let dial = self.dial.expect("it dials its leader");
        self.step(|ensemble, cx| ensemble.on_peer(cx, PeerInput::Dialled { dial, link: LINK }));
        self.write_all();
    }

    /// The leader that it has dialled is established in this epoch, and has nothing to send.
    pub(super) fn is_led_in(&mut self, epoch: i32) {
        self.hears(&LeaderPacket::leader_info(epoch, true, false));
        self.write_all();
        self.hears(&LeaderPacket::Diff { zxid: Zxid::ZERO });
        self.hears(&LeaderPacket::NewLeader { epoch, config: None });
        self.write_all();
        self.hears(&LeaderPacket::UpToDate);
        self.hears(&LeaderPacket::Ping { zxid: Zxid::ZERO });
    }

    /// One input, and what follows from it by the end of the turn.
    pub(super) fn step(&mut self, input: impl FnOnce(&mut Ensemble, &mut Context<'_>)) {
        let clock = Clock { now: self.now, wall: WallMs(0) };
        let (pipeline, ops) = (&mut self.pipeline, &mut self.ops);
        let mut cx = Context { clock, pipeline, ops };
        input(&mut self.ensemble, &mut cx);
        while cx.pipeline.next_commit().is_some() {
            let _ = cx.pipeline.apply_next(clock.now, &mut 1);
        }
        self.ensemble.go_on(&mut cx);
        self.pipeline.turn_end(clock, &mut self.ops);
        self.disk.extend(self.ops.take());
        for output in self.ensemble.take_outputs() {
            match output {
                PeerOutput::Dial { dial, .. } => self.dial = Some(dial),
                PeerOutput::PauseReading { link: LINK } => self.reads.push(false),
                PeerOutput::ResumeReading { link: LINK } => self.reads.push(true),
                PeerOutput::Send { link, bytes } => {
                    self.said.entry(link).or_default().extend_from_slice(&bytes);
                }
                _ => {}
            }
        }
    }

    pub(super) fn hears(&mut self, packet: &LeaderPacket) {
        let mut bytes = BytesMut::new();
        packet.encode(&mut bytes);
        let input = PeerInput::Received { link: LINK, bytes: bytes.freeze() };
        self.step(|ensemble, cx| ensemble.on_peer(cx, input));
    }

    /// A txn whose record has so many bytes.
    pub(super) fn proposed(&mut self, len: usize) {
        self.sent += 1;
        let zxid = Zxid::new(1, self.sent);
        let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time_ms: 0 };
        let encoded = |data: usize| {
            let (path, data) = ("/p".into(), Some(Bytes::from(vec![0; data])));
            let mut txn = BytesMut::new();
            wire::txn::encode(
                &header,
                &TxnBody::SetData { path, data, version: 1 },
                None,
                &mut txn,
            );
            txn.freeze()
        };
        let txn = encoded(len - FRAME_BYTES - encoded(0).len());
        assert_eq!(FRAME_BYTES + txn.len(), len);
        self.hears(&LeaderPacket::Proposal { zxid, txn });
    }

    /// The disk does the next thing that it was asked.
    pub(super) fn write(&mut self) {
        let (id, op) = self.disk.pop_front().expect("something was asked");
        match op {
            FileOp::Write { file, offset, bytes, .. } => {
                let (file, from) = (self.files.entry(file).or_default(), offset as usize);
                file.resize(file.len().max(from + bytes.len()), 0);
                file[from..from + bytes.len()].copy_from_slice(&bytes);
            }
            FileOp::Rename { from, to } => {
                let file = self.files.remove(&from).unwrap_or_default();
                self.files.insert(FileName { name: to, ..from }, file);
            }
            _ => {}
        }
        self.step(|ensemble, cx| {
            if ensemble.on_file_done(cx, id, &Ok(())).is_none() {
                let now = cx.clock.now;
                cx.pipeline.on_file_done(now, id, Ok(()), cx.ops).expect("nothing failed");
            }
        });
    }

    pub(super) fn write_all(&mut self) {
        while !self.disk.is_empty() {
            self.write();
        }
    }

    /// Reads of its files come to their end, and what follows from them.
    pub(super) fn read_all(&mut self) {
        loop {
            let asked = self.ops.take_reads();
            if asked.is_empty() {
                return;
            }
            for (id, part) in asked {
                let file = self.files.get(&part.file).map_or(&[][..], Vec::as_slice);
                let from = file.len().min(part.offset as usize);
                let upto = file.len().min(from + part.len as usize);
                let bytes = Bytes::copy_from_slice(&file[from..upto]);
                self.step(|ensemble, cx| ensemble.on_file_read(cx, id, Ok(bytes)));
            }
        }
    }
}
