//! What clients asked and were told, in the order in which each connection saw it, and the order
//! of txns that the server's own log gives: the evidence that the replay judges.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::world::Failure;
use crate::base::{FileName, FileOp};
use crate::model::{ConnId, ErrorCode, Request, SessionId, Txn, WatchEvent, Xid, Zxid};
use crate::{txnlog, wire};

/// Everything that happened in one seed.
#[derive(Debug, Default)]
pub(super) struct History {
    /// One for each connection that was attached to a session.
    pub(super) conns: BTreeMap<ConnId, ConnHistory>,
    /// Requests sent and replies and events received so far: the numbers that tell which was first.
    steps: u64,
    /// The txns of the log. Those behind the end that a restart finds never were.
    pub(super) txns: BTreeMap<Zxid, Txn>,
    /// Highest zxid that any client was shown; of an ensemble, any client of the server in hand.
    pub(super) seen: Zxid,
    /// Highest zxid that any client of any server was shown.
    pub(super) latest: Zxid,
    /// Sessions are local until they own an ephemeral.
    pub(super) has_local_sessions: bool,
    /// The texts of all configurations of the ensemble that were ever proposed, by their versions.
    pub(super) configs: BTreeMap<i64, String>,
    /// A write failed for want of space: growth may be refused.
    pub(super) disk_was_full: bool,
}

/// One connection's life.
#[derive(Debug, Default)]
pub(super) struct ConnHistory {
    pub(super) session: SessionId,
    /// Its server had no quorum.
    pub(super) is_read_only: bool,
    /// Requests in the order in which they were sent.
    pub(super) exchanges: Vec<Exchange>,
    /// What came back, in order.
    pub(super) received: Vec<Received>,
    /// When each of it came: the number of the step.
    pub(super) received_at: Vec<u64>,
}

/// A request, and its answer if one came.
#[derive(Debug)]
pub(super) struct Exchange {
    /// When it was sent: the number of the step.
    pub(super) sent_at: u64,
    pub(super) xid: Xid,
    pub(super) request: Request,
    pub(super) answer: Option<Answer>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) zxid: Zxid,
    pub(super) code: ErrorCode,
    /// Behind the header.
    pub(super) body: Bytes,
}

/// One thing that came from the server.
#[derive(Debug)]
pub(super) enum Received {
    /// The answer to the exchange of this index.
    Reply(usize),
    /// A notification.
    Event(Zxid, WatchEvent),
}

impl History {
    /// A reply or event showed this zxid.
    pub(super) fn saw(&mut self, zxid: Zxid) {
        self.seen = self.seen.max(zxid);
        self.latest = self.latest.max(zxid);
    }

    /// The number of the next step of any client.
    pub(super) const fn step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }

    /// Takes note of the txns in a write to the log, and of a configuration that is proposed.
    pub(super) fn logged(&mut self, op: &FileOp) -> Result<(), Failure> {
        for (zxid, txn) in records(op) {
            let txn = wire::txn::decode(&txn).map_err(Failure::because)?;
            self.txns.insert(zxid, txn);
        }
        if let FileOp::WriteNextConfig { text } = op {
            let version = text.rsplit_once("version=").map(|(_, version)| version);
            let version = version.and_then(|version| i64::from_str_radix(version, 16).ok());
            let version = version.ok_or_else(|| Failure::new(format!("no version in {text}")))?;
            self.configs.insert(version, text.clone());
        }
        Ok(())
    }

    /// A restart found the log ending here.
    pub(super) fn ends_at(&mut self, last: Zxid) {
        self.txns.retain(|zxid, _| *zxid <= last);
    }
}

/// The txns in a write to the log.
pub(super) fn records(op: &FileOp) -> Vec<(Zxid, Bytes)> {
    let FileOp::Write { file: FileName { name, .. }, bytes, .. } = op else { return Vec::new() };
    match txnlog::segment_sequence(name) {
        Some(_) => txnlog::batch_records(bytes).unwrap_or_default(),
        None => Vec::new(),
    }
}

impl ConnHistory {
    /// A request is sent; its bytes are appended to `buf`.
    pub(super) fn ask(&mut self, sent_at: u64, xid: Xid, request: Request, buf: &mut BytesMut) {
        wire::client::encode_request(xid, &request, buf);
        self.exchanges.push(Exchange { sent_at, xid, request, answer: None });
    }

    /// Something came.
    pub(super) fn receive(&mut self, at: u64, received: Received) {
        self.received.push(received);
        self.received_at.push(at);
    }
}
