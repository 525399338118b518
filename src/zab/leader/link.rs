//! A leader's view of one learner: how far the dialogue has come, and what waits to be sent behind
//! the history.

use std::collections::VecDeque;

use super::broadcast::Proposal;
use crate::base::{Duration, Instant};
use crate::model::{ServerId, Zxid};

/// A connection that a learner made to this leader. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What kind of learner it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnerKind {
    /// Hears proposals and acknowledges them; counts if it is a voter.
    Follower,
    /// Hears only what is committed.
    Observer,
}

/// One learner.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) sid: ServerId,
    pub(super) kind: LearnerKind,
    /// Its silence means more.
    pub(super) is_ringkeeper: bool,
    /// It understands checksums.
    pub(super) has_checksums: bool,
    pub(super) stage: Stage,
    /// Where its log ended when it promised the epoch.
    pub(super) log_end: Zxid,
    /// When it was last heard of.
    pub(super) heard: Instant,
    /// Pings sent since UPTODATE. Earlier ones are not answered.
    pub(super) pings_sent: u64,
    /// When those of them were sent that it has not answered, which it does in order.
    pub(super) unanswered: VecDeque<Instant>,
    /// A proposal that it is not known to have, if it is to acknowledge one.
    pub(super) awaited: Awaited,
    /// The end of the history it was sent, which is durable there once it has accepted.
    pub(super) history_to: Zxid,
    /// It serves clients while the next epoch is being established.
    pub(super) is_renewing: bool,
    /// Its log cannot be cut.
    pub(super) cannot_cut: bool,
}

impl Link {
    /// This server was stalled for so long: what the learner sent meanwhile is yet to be heard.
    pub(super) fn credit(&mut self, stalled: Duration) {
        self.heard = self.heard + stalled;
        self.awaited.credit(stalled);
    }
}

/// The proposal that a log is timed by. One is timed after the other, as Apache's SyncLimitCheck
/// does: under load there is always one that a log does not have yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Awaited(Option<(Zxid, Instant)>);

impl Awaited {
    /// A proposal was made.
    pub(super) fn proposed(&mut self, zxid: Zxid, now: Instant) {
        self.0.get_or_insert((zxid, now));
    }

    /// The log has everything up to `zxid`, of proposals up to `last`.
    pub(super) fn has(&mut self, zxid: Zxid, last: Zxid, now: Instant) {
        if self.0.is_some_and(|(awaited, _)| awaited <= zxid) {
            self.0 = (zxid < last).then_some((last, now));
        }
    }

    /// Whether it has waited for longer than that.
    pub(super) fn exceeds(&self, within: Duration, now: Instant) -> bool {
        self.0.is_some_and(|(_, since)| within < now.since(since))
    }

    /// This server was stalled for so long.
    pub(super) fn credit(&mut self, stalled: Duration) {
        self.0 = self.0.map(|(zxid, since)| (zxid, since + stalled));
    }
}

/// How far the dialogue has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing was heard.
    Fresh,
    /// It has introduced itself; the epoch is not chosen, or not yet promised here.
    Greeted,
    /// LEADERINFO was sent.
    Informed,
    /// It has promised the epoch.
    Promised,
    /// The history is on its way, up to `upto`; what was proposed and committed since waits.
    Synchronizing { upto: Zxid, waiting: Waiting },
    /// NEWLEADER was sent: from here on it hears everything at once.
    Told,
    /// It has acknowledged NEWLEADER.
    Following,
    /// UPTODATE was sent.
    Serving,
}

/// What a learner will hear once it has the history.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) news: VecDeque<News>,
    bytes: usize,
    /// There was more than is kept: what was committed meanwhile is history, too.
    pub(super) is_history: bool,
}

impl Waiting {
    /// Keeps it, unless there are more than `bytes_max` of them.
    pub(super) fn push(&mut self, news: News, bytes_max: usize) {
        if self.is_history {
            return;
        }
        self.bytes += size_of::<News>() + news.proposal().txn.len();
        self.news.push_back(news);
        if bytes_max < self.bytes {
            *self = Self { is_history: true, ..Self::default() };
        }
    }
}

/// What a learner hears in the broadcast phase.
#[derive(Clone, Debug)]
pub(super) enum News {
    Proposal(Proposal),
    Commit(Proposal),
    /// The commit of a configuration, which takes effect, and who leads from there on.
    Activate(Proposal, ServerId),
}

impl News {
    /// What it is about.
    pub(super) const fn proposal(&self) -> &Proposal {
        let (Self::Proposal(proposal) | Self::Commit(proposal) | Self::Activate(proposal, _)) =
            self;
        proposal
    }
}

impl Link {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sid: ServerId::NONE,
            kind: LearnerKind::Follower,
            is_ringkeeper: false,
            has_checksums: false,
            stage: Stage::Fresh,
            log_end: Zxid::ZERO,
            heard: now,
            pings_sent: 0,
            unanswered: VecDeque::new(),
            awaited: Awaited(None),
            history_to: Zxid::ZERO,
            is_renewing: false,
            cannot_cut: false,
        }
    }

    /// Hears live proposals and commits.
    pub(super) const fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Told | Stage::Following | Stage::Serving)
    }

    /// Of several txns that are committed at once it need be told the last one only.
    pub(super) fn hears_last_commit(&self) -> bool {
        self.is_live() && self.is_ringkeeper && self.kind == LearnerKind::Follower
    }

    /// Serves clients.
    pub(super) const fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving)
    }

    /// A ping is sent.
    pub(super) fn asked(&mut self, now: Instant) {
        self.pings_sent += 1;
        self.unanswered.push_back(now);
    }

    /// How many pings it has answered.
    pub(super) fn pings_answered(&self) -> u64 {
        self.pings_sent - self.unanswered.len() as u64
    }

    /// Was sent a ping that it answers: one after UPTODATE. Before, it may have nothing to say for
    /// as long as others take to get the history.
    pub(super) const fn answers_pings(&self) -> bool {
        self.pings_sent != 0
    }

    /// Has the leader's history and lives in its epoch.
    pub(super) const fn has_accepted(&self) -> bool {
        matches!(self.stage, Stage::Following | Stage::Serving)
    }
}
