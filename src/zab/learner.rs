//! A learner: a follower or observer on its connection to a leader, from the greeting to the end
//! (`quorum-and-disk.md` parts 3.2, 4.5 and 5).
//!
//! | stage | it waits for | then |
//! |---|---|---|
//! | greeting | LEADERINFO | the promise is written, ACKEPOCH goes out |
//! | promised | DIFF, TRUNC or SNAP | the log is kept, cut, or replaced |
//! | receiving | history, NEWLEADER | history is flushed, then the epoch written, then ACK |
//! | accepted | UPTODATE | what was committed is applied, clients are served, ACK |
//! | serving | proposals, commits | each txn is logged, flushed, acknowledged; applied last |
//! | | LEADERINFO | the leader's next epoch is promised; clients are served meanwhile |
//!
//! What is acknowledged is durable: the acknowledgement of NEWLEADER needs the flush of the whole
//! history and then of the epochs record (ZOOKEEPER-3911, 4643, 4646), that of a proposal its own
//! flush. Both go out over one ordered stream, NEWLEADER's first (ZOOKEEPER-4685).
//!
//! Proposals are logged when they come, in every stage: the log is the one place where they wait.
//! Nothing is applied before it is known to be committed.

use bytes::Bytes;

use super::Timing;
use super::leader::LearnerKind;
use super::paxos::{Acceptor, Answer, DurableHistory, Epochs, Said};
use crate::base::{Duration, Instant, Str};
use crate::model::{ServerId, SessionId, Zxid};
use crate::wire::quorum::{LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION};

/// What a learner starts with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its number.
    pub me: ServerId,
    /// Follower or observer.
    pub kind: LearnerKind,
    /// Version of its committed configuration.
    pub config_version: i64,
    /// How long things may take.
    pub timing: Timing,
    /// What is on disk about epochs.
    pub epochs: Epochs,
    /// The last zxid of its log, all of it durable; `None` if its database was lost and it does not
    /// know what it knew.
    pub last_zxid: Option<Zxid>,
    /// The log could not be cut where a leader wanted it.
    pub cannot_cut: bool,
}

/// What the driver owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the leader.
    Send(LearnerPacket),
    /// Write the epochs record, then call [`Learner::stored`].
    Store(Epochs),
    /// Cut the log behind this txn, durably, with every snapshot that is later; what was applied
    /// must not be more. Then call [`Learner::cut`]. Nothing else is asked for meanwhile.
    Cut(Zxid),
    /// Receive the snapshot that follows the SNAP packet on the connection, beside what is there.
    /// Once it is whole and durable, put it in the place of log and tree in one step that a crash
    /// cannot divide, and call [`Learner::installed`]. A server that dies before has what it had
    /// (ZOOKEEPER-2872, 3642). Packets behind the snapshot are handed in afterwards.
    Install(Zxid),
    /// Append the txn to the log. If it is a configuration, that is the one that was last seen, and
    /// must be on disk as such before the txn is.
    Append {
        /// Its place in the order.
        zxid: Zxid,
        /// Txn bytes.
        txn: Bytes,
    },
    /// Everything up to here is committed: apply it. Nothing is applied before
    /// [`Output::Serve`] says so.
    Committed(Zxid),
    /// Apply what was committed, then serve clients; they are served already if only the leader's
    /// epoch is another one.
    Serve {
        /// The leader's epoch.
        epoch: u32,
    },
    /// The leader's configuration, as NEWLEADER tells it: it takes the place of the one that was
    /// last seen. Nothing that follows may be done before it is on disk.
    Config(Str),
    /// The configuration that was last seen is in force, if its version is not above `upto`.
    Activate {
        /// Committed, or the beginning of the leader's epoch.
        upto: Zxid,
        /// Who leads from there on, if the leader has said so.
        designated: Option<ServerId>,
    },
    /// Answer the leader's ping with the sessions that were heard of since the last one.
    AnswerPing(Zxid),
    /// The oldest sync that was sent is answered.
    Synced,
    /// The oldest revalidation of this session is answered.
    Revalidated {
        /// Whose.
        session: SessionId,
        /// It lives, and belongs to this server.
        is_valid: bool,
    },
    /// The connection is of no use. Nothing else follows.
    GiveUp(Reason),
}

/// Why a learner leaves its leader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The leader's epoch is lower than one that was promised.
    #[error("the leader's epoch {epoch} is below {accepted}, which was promised")]
    Epoch {
        /// The leader's.
        epoch: i64,
        /// The promised one.
        accepted: u32,
    },
    /// A packet is not legal where the dialogue stands.
    #[error("{0} is not legal here")]
    Illegal(&'static str),
    /// A proposal does not follow the one before.
    #[error("proposal {found} follows {last}")]
    Gap {
        /// The last one.
        last: Zxid,
        /// The next one.
        found: Zxid,
    },
    /// A commit of something that was never proposed here.
    #[error("commit of {0}, which was not proposed")]
    UnknownCommit(Zxid),
    /// The leader was silent for too long.
    #[error("the leader was silent for too long")]
    Silent,
    /// The connection ended.
    #[error("the connection ended")]
    Closed,
}

/// Where the dialogue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// FOLLOWERINFO was sent.
    Greeting,
    /// The promise of this epoch is being written, or was sent.
    Promised(u32),
    /// The log is being cut or replaced: nothing may come before it is done.
    Preparing(u32),
    /// History and proposals come.
    Receiving(u32),
    /// NEWLEADER has come; history up to `upto` is being flushed, or the epoch written.
    Accepting { epoch: u32, upto: Zxid },
    /// The acceptance was sent.
    Accepted(u32),
    /// Clients are served.
    Serving(u32),
    /// It has given up.
    Over,
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Learner {
    kind: LearnerKind,
    timing: Timing,
    acceptor: Acceptor,
    stage: Stage,
    /// The last zxid of the log, durable or not.
    last: Option<Zxid>,
    /// What of the log is durable.
    flushed: Zxid,
    /// Committed, as far as the leader has said: what this learner had when it was found to be a
    /// prefix of the leader's history, and every COMMIT since. Not before UPTODATE is it true.
    committed: Zxid,
    /// Acknowledged, or known to be committed when NEWLEADER came and therefore never acknowledged.
    acknowledged: Zxid,
    heard: Instant,
    /// It hears of several txns that are durable by the last one. Once it pings, its silence means
    /// more than that of one of Apache's.
    leader_is_ringkeeper: bool,
    is_pinged: bool,
    /// Clients are served, also while the leader establishes its next epoch.
    served: bool,
    /// Syncs that were answered meanwhile.
    syncs_answered: usize,
    /// A promise of that epoch is on disk and waits for the log: what it says of the epoch before.
    promise_waits: Option<i32>,
    cannot_cut: bool,
}

impl Learner {
    /// Greets the leader. The connection is open.
    pub fn new(start: Start, now: Instant, out: &mut Vec<Output>) -> Self {
        let Start { me, kind, config_version, timing, epochs, last_zxid, cannot_cut } = start;
        let info = LearnerInfo {
            sid: me,
            protocol_version: PROTOCOL_VERSION,
            config_version: Some(config_version),
            is_ringkeeper: true,
            has_checksums: true,
        };
        let accepted_epoch = signed(epochs.accepted);
        out.push(Output::Send(match kind {
            LearnerKind::Follower => {
                LearnerPacket::FollowerInfo { accepted_epoch, info: Some(info) }
            }
            LearnerKind::Observer => {
                LearnerPacket::ObserverInfo { accepted_epoch, info: Some(info) }
            }
        }));
        let last = last_zxid.unwrap_or(Zxid::ZERO);
        Self {
            kind,
            timing,
            acceptor: Acceptor::new(epochs),
            stage: Stage::Greeting,
            last: last_zxid,
            flushed: last,
            committed: Zxid::ZERO,
            acknowledged: last,
            heard: now,
            leader_is_ringkeeper: false,
            is_pinged: false,
            served: false,
            syncs_answered: 0,
            promise_waits: None,
            cannot_cut,
        }
    }

    /// Clients are served.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving(_))
    }

    /// The leader has said nothing.
    #[must_use]
    pub const fn is_unheard(&self) -> bool {
        matches!(self.stage, Stage::Greeting)
    }

    /// Nothing more is to be expected of it.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// A packet came.
    pub fn received(&mut self, now: Instant, packet: LeaderPacket, out: &mut Vec<Output>) {
        self.heard = now;
        if let LeaderPacket::Ping { .. } = packet {
            self.is_pinged = true;
        }
        match (self.stage, packet) {
            (Stage::Over, _) => {}
            (Stage::Greeting, LeaderPacket::LeaderInfo { epoch, is_ringkeeper, .. }) => {
                self.leader_is_ringkeeper = is_ringkeeper;
                self.on_leader_info(epoch, out);
            }
            // The leader begins its next epoch in place.
            (
                Stage::Serving(before),
                LeaderPacket::LeaderInfo { epoch, is_ringkeeper: true, .. },
            ) if i64::from(before) < i64::from(epoch) => {
                self.on_leader_info(epoch, out);
            }
            // Answers to what clients asked before or meanwhile.
            (Stage::Serving(_), LeaderPacket::Sync) => out.push(Output::Synced),
            // What was committed before the answer is yet to be heard, before UPTODATE.
            (_, LeaderPacket::Sync) if self.served => self.syncs_answered += 1,
            (_, LeaderPacket::Revalidate { session, is_valid }) if self.served => {
                out.push(Output::Revalidated { session, is_valid });
            }
            (Stage::Promised(_), LeaderPacket::Trunc { .. } | LeaderPacket::Snap { .. })
                if self.served =>
            {
                self.give_up(Reason::Illegal("TRUNC or SNAP, where clients are served"), out);
            }
            (Stage::Promised(_), LeaderPacket::Diff { .. } | LeaderPacket::Trunc { .. })
                if self.last.is_none() =>
            {
                self.give_up(Reason::Illegal("DIFF or TRUNC, where no history is"), out);
            }
            (Stage::Promised(epoch), LeaderPacket::Diff { .. }) => {
                self.committed = self.last.unwrap_or(Zxid::ZERO);
                self.stage = Stage::Receiving(epoch);
            }
            (Stage::Promised(epoch), LeaderPacket::Trunc { zxid }) => {
                self.stage = Stage::Preparing(epoch);
                out.push(Output::Cut(zxid));
            }
            (Stage::Promised(epoch), LeaderPacket::Snap { zxid }) => {
                self.stage = Stage::Preparing(epoch);
                out.push(Output::Install(zxid));
            }
            (Stage::Greeting | Stage::Promised(_) | Stage::Preparing(_), _) => {
                self.give_up(Reason::Illegal("what comes before DIFF, TRUNC or SNAP is done"), out);
            }
            (_, LeaderPacket::Proposal { zxid, txn }) => {
                self.on_proposal(zxid, txn, out);
            }
            (_, LeaderPacket::Commit { zxid }) => self.on_commit(zxid, out),
            (_, LeaderPacket::CommitAndActivate { zxid, designated_leader }) => {
                self.on_activation(zxid, designated_leader, out);
            }
            (_, LeaderPacket::Inform { zxid, txn }) => {
                self.on_proposal(zxid, txn, out);
                self.on_commit(zxid, out);
            }
            (_, LeaderPacket::InformAndActivate { zxid, designated_leader, txn }) => {
                self.on_proposal(zxid, txn, out);
                self.on_activation(zxid, designated_leader, out);
            }
            (Stage::Receiving(promised), LeaderPacket::NewLeader { epoch, config }) => {
                self.on_new_leader(promised, epoch, config, out);
            }
            (Stage::Accepted(epoch), LeaderPacket::UpToDate) => self.on_up_to_date(epoch, out),
            (Stage::Serving(_), LeaderPacket::Ping { zxid }) => out.push(Output::AnswerPing(zxid)),
            // Apache's learners do not answer before UPTODATE either.
            (_, LeaderPacket::Ping { .. }) => {}
            (_, LeaderPacket::NewLeader { .. }) => {
                self.give_up(Reason::Illegal("NEWLEADER"), out);
            }
            (_, LeaderPacket::UpToDate) => self.give_up(Reason::Illegal("UPTODATE"), out),
            (_, _) => self.give_up(Reason::Illegal("the packet"), out),
        }
    }

    /// The epochs record asked for with [`Output::Store`] is durable.
    pub fn stored(&mut self, out: &mut Vec<Output>) {
        let said = self.acceptor.on_stored();
        if self.stage != Stage::Over {
            self.say(said, out);
        }
    }

    /// The log ends at `zxid`, durably, and nothing that was applied is later.
    pub fn cut(&mut self, now: Instant, zxid: Zxid) {
        self.replaced(now, zxid);
    }

    /// The snapshot that contains everything up to `zxid` is durable, and the log is empty.
    pub fn installed(&mut self, now: Instant, zxid: Zxid) {
        self.replaced(now, zxid);
    }

    fn replaced(&mut self, now: Instant, zxid: Zxid) {
        let Stage::Preparing(epoch) = self.stage else { return };
        self.stage = Stage::Receiving(epoch);
        self.cannot_cut = false;
        self.last = Some(zxid);
        self.flushed = zxid;
        self.committed = zxid;
        self.acknowledged = zxid;
        self.heard = now;
    }

    /// Part of a snapshot has come: the leader is alive.
    pub fn progressed(&mut self, now: Instant) {
        self.heard = now;
    }

    /// This server was stalled for so long: what the leader sent meanwhile is yet to be heard.
    pub fn credit(&mut self, stalled: Duration) {
        self.heard = self.heard + stalled;
    }

    /// The log is durable up to `zxid`.
    pub fn flushed(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        self.flushed = self.flushed.max(zxid);
        match self.stage {
            Stage::Promised(_) => self.tell_promise(out),
            Stage::Accepting { epoch, upto } => self.accept(epoch, upto, out),
            Stage::Accepted(_) | Stage::Serving(_) => self.acknowledge(out),
            _ => {}
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, out: &mut Vec<Output>) {
        self.give_up(Reason::Closed, out);
    }

    /// The time that `next_timer` gave has come; an early call is harmless.
    pub fn timer(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.next_timer() <= now {
            self.give_up(Reason::Silent, out);
        }
    }

    /// When `timer` is due: the leader will then have been silent for too long.
    #[must_use]
    pub fn next_timer(&self) -> Instant {
        let patience = match self.stage {
            Stage::Accepting { .. } | Stage::Accepted(_) | Stage::Serving(_) => self.patience(),
            // The leader establishes its next epoch.
            _ if self.served => self.patience(),
            _ => self.timing.establish_within,
        };
        // One more nanosecond: the limit itself is still in time.
        self.heard + Duration(patience.0 + 1)
    }

    /// How long a leader that has a quorum may be silent.
    const fn patience(&self) -> Duration {
        match self.leader_is_ringkeeper && self.is_pinged {
            true => self.timing.silence_max,
            false => self.timing.sync_within,
        }
    }

    fn on_leader_info(&mut self, epoch: i32, out: &mut Vec<Output>) {
        let accepted = self.acceptor.stored().accepted;
        let Ok(epoch) = u32::try_from(epoch) else {
            return self.give_up(Reason::Epoch { epoch: i64::from(epoch), accepted }, out);
        };
        match self.acceptor.on_leader_info(epoch) {
            Answer::Store(epochs) => {
                self.stage = Stage::Promised(epoch);
                out.push(Output::Store(epochs));
            }
            Answer::Say(said) => {
                self.stage = Stage::Promised(epoch);
                self.say(said, out);
            }
            Answer::Refused { accepted } => {
                self.give_up(Reason::Epoch { epoch: i64::from(epoch), accepted }, out);
            }
        }
    }

    fn say(&mut self, said: Said, out: &mut Vec<Output>) {
        match said {
            Said::Promised(promise) => {
                self.promise_waits = Some(promise.current_epoch().map_or(-1, signed));
                self.tell_promise(out);
            }
            Said::Accepted(accept) => {
                self.stage = Stage::Accepted(accept.epoch());
                let zxid = Zxid::new(accept.epoch(), 0);
                out.push(Output::Send(LearnerPacket::Ack { zxid }));
                self.acknowledge(out);
            }
        }
    }

    /// Tells the promise, with the end of a log that is durable. Of one that cannot be cut Apache's
    /// server is told nothing: it would send TRUNC again, and counts nobody who knows nothing.
    fn tell_promise(&mut self, out: &mut Vec<Output>) {
        if self.last.is_none_or(|last| last <= self.flushed)
            && let Some(current_epoch) = self.promise_waits.take()
        {
            if self.cannot_cut && !self.leader_is_ringkeeper {
                (self.last, self.cannot_cut) = (None, false);
            }
            let (last_zxid, cannot_cut) = (self.last.unwrap_or(Zxid(-1)), self.cannot_cut);
            let promise = LearnerPacket::AckEpoch { last_zxid, current_epoch, cannot_cut };
            out.push(Output::Send(promise));
        }
    }

    fn on_proposal(&mut self, zxid: Zxid, txn: Bytes, out: &mut Vec<Output>) {
        let last = self.last.unwrap_or(Zxid::ZERO);
        // It may come with the history and once more with the broadcast.
        if zxid <= last {
            return;
        }
        let starts_epoch = last.epoch() < zxid.epoch() && zxid.counter() == 1;
        if zxid != last.next() && !starts_epoch {
            return self.give_up(Reason::Gap { last, found: zxid }, out);
        }
        self.last = Some(zxid);
        out.push(Output::Append { zxid, txn });
    }

    fn on_commit(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        if self.stage == Stage::Over {
            return;
        }
        if self.last.unwrap_or(Zxid::ZERO) < zxid {
            return self.give_up(Reason::UnknownCommit(zxid), out);
        }
        if self.committed < zxid {
            self.committed = zxid;
            if self.is_serving() {
                out.push(Output::Committed(zxid));
            }
        }
    }

    /// A configuration is committed. In the history before NEWLEADER that one tells what counts.
    fn on_activation(&mut self, zxid: Zxid, designated: ServerId, out: &mut Vec<Output>) {
        let has_it = zxid <= self.last.unwrap_or(Zxid::ZERO);
        if has_it && !matches!(self.stage, Stage::Over | Stage::Receiving(_)) {
            out.push(Output::Activate { upto: zxid, designated: Some(designated) });
        }
        self.on_commit(zxid, out);
    }

    fn on_new_leader(
        &mut self,
        promised: u32,
        epoch: i32,
        config: Option<Str>,
        out: &mut Vec<Output>,
    ) {
        if i64::from(epoch) != i64::from(promised) {
            return self.give_up(Reason::Illegal("NEWLEADER of another epoch"), out);
        }
        out.extend(config.map(Output::Config));
        let last = self.last.unwrap_or(Zxid::ZERO);
        self.last = Some(last);
        // Apache's leader may have sent proposals that are not committed; they are acknowledged one
        // by one. The history itself is not.
        self.acknowledged = self.committed;
        self.stage = Stage::Accepting { epoch: promised, upto: last };
        self.accept(promised, last, out);
    }

    /// Writes the epoch once the history is durable.
    fn accept(&mut self, epoch: u32, upto: Zxid, out: &mut Vec<Output>) {
        if self.flushed < upto || self.acceptor.is_storing() {
            return;
        }
        match self.acceptor.on_history(DurableHistory { epoch }) {
            Answer::Store(epochs) => out.push(Output::Store(epochs)),
            Answer::Say(said) => self.say(said, out),
            Answer::Refused { accepted } => {
                self.give_up(Reason::Epoch { epoch: i64::from(epoch), accepted }, out);
            }
        }
    }

    fn on_up_to_date(&mut self, epoch: u32, out: &mut Vec<Output>) {
        self.stage = Stage::Serving(epoch);
        self.served = true;
        // A configuration without a txn of its own has the beginning of its epoch as version.
        let upto = self.committed.max(Zxid::new(epoch, 0));
        out.push(Output::Activate { upto, designated: None });
        out.push(Output::Committed(self.committed));
        out.push(Output::Serve { epoch });
        let answered = std::mem::take(&mut self.syncs_answered);
        out.extend(std::iter::repeat_n(Output::Synced, answered));
        out.push(Output::Send(LearnerPacket::Ack { zxid: Zxid::new(epoch, 0) }));
    }

    /// Acknowledges what has become durable. Apache's leader counts each txn and wants a packet for
    /// each, one of ours the last one.
    fn acknowledge(&mut self, out: &mut Vec<Output>) {
        if self.kind == LearnerKind::Observer {
            return;
        }
        let durable = self.flushed.min(self.last.unwrap_or(Zxid::ZERO));
        if self.leader_is_ringkeeper && self.acknowledged < durable {
            self.acknowledged = durable;
            out.push(Output::Send(LearnerPacket::Ack { zxid: durable }));
        }
        while self.acknowledged < durable {
            let next = match self.acknowledged.epoch() < durable.epoch() {
                true => Zxid::new(durable.epoch(), 1),
                false => self.acknowledged.next(),
            };
            self.acknowledged = next;
            out.push(Output::Send(LearnerPacket::Ack { zxid: next }));
        }
    }

    fn give_up(&mut self, reason: Reason, out: &mut Vec<Output>) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            out.push(Output::GiveUp(reason));
        }
    }
}

/// An epoch as packets carry it.
fn signed(epoch: u32) -> i32 {
    i32::try_from(epoch).expect("epochs are bounded where they are chosen")
}
