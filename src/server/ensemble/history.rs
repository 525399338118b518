//! What a leader sends of its log to learners: where their logs end is looked up, and the txns
//! behind that are sent in slices, from memory as far as it reaches and else from the log's files.
//!
//! The txns of one learner leave in order and without a gap, whichever of the two they come from:
//! each slice begins behind the last txn of the one before. A segment that is read is not purged.
//! One that cannot be read makes learners that need it get a snapshot.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Context, Ensemble, Role};
use crate::base::{FileFailure, FileOpId, FilePart};
use crate::limits;
use crate::model::Zxid;
use crate::server::contract::PeerLink;
use crate::txnlog::{LogCursor, LogUnread};
use crate::zab::leader::{LinkId, Output};
use crate::zab::synchronization::{History, SyncPlan, SyncWay};

/// The learners that get a part of the log.
#[derive(Debug, Default)]
pub(super) struct Histories {
    of: BTreeMap<LinkId, Sending>,
    /// This segment, and perhaps some before it, cannot be read.
    unread: Option<u64>,
    /// The oldest segment that is read, as the log was told.
    read_from: Option<u64>,
}

/// One of them.
#[derive(Debug)]
struct Sending {
    stage: Stage,
    /// In the files, if what comes next is, or was, to be read there.
    cursor: Option<LogCursor>,
    reading: Option<(FileOpId, FilePart)>,
    /// The next slice is at hand.
    is_ready: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Where the learner's log ends is looked up in the files, of which so many bytes of records
    /// are looked through or follow.
    LookingUp { last: Zxid, record_bytes: u64 },
    /// It was found, and the leader knows.
    Found,
    /// The txns in (`after`, `upto`] are on their way.
    Sending { after: Zxid, upto: Zxid },
}

/// What a look-up in the files has shown.
#[derive(Clone, Copy, Debug)]
struct Found {
    floor: Zxid,
    last: Zxid,
    bytes: u64,
}

impl History for Found {
    fn start(&self) -> Zxid {
        self.floor
    }

    fn last(&self) -> Zxid {
        self.last
    }

    fn floor(&self, _: Zxid) -> Zxid {
        self.floor
    }

    fn bytes_after(&self, _: Zxid) -> u64 {
        self.bytes
    }
}

impl Sending {
    const fn new(stage: Stage, cursor: Option<LogCursor>) -> Self {
        Self { stage, cursor, reading: None, is_ready: true }
    }
}

/// About how long a snapshot for a learner is.
pub(super) fn snapshot_bytes(cx: &Context<'_>) -> u64 {
    let tree = cx.pipeline.tree();
    tree.data_bytes() + tree.znode_count() as u64 * limits::SNAPSHOT_ZNODE_BYTES
}

impl Ensemble {
    fn histories(&mut self) -> Option<&mut Histories> {
        match &mut self.role {
            Role::Leading(leading) => Some(&mut leading.histories),
            _ => None,
        }
    }

    fn history_end(&self) -> Option<Zxid> {
        match &self.role {
            Role::Leading(leading) => Some(leading.leader.committed()),
            _ => None,
        }
    }

    fn sending(&mut self, link: LinkId) -> Option<&mut Sending> {
        self.histories().and_then(|histories| histories.of.get_mut(&link))
    }

    /// A cursor for the txns behind `after`, if the files may have them.
    fn log_cursor(&mut self, cx: &Context<'_>, after: Zxid) -> Option<(LogCursor, u64)> {
        let unread = self.histories().and_then(|histories| histories.unread);
        let found = cx.pipeline.log_cursor(after);
        found.filter(|(cursor, _)| unread.is_none_or(|unread| unread < cursor.segment()))
    }

    /// Chooses how a learner whose log ends with `last` is synchronized, at once or after a look
    /// into the files.
    pub(super) fn choose_way(
        &mut self,
        cx: &Context<'_>,
        link: LinkId,
        last: Zxid,
        more: &mut Vec<Output>,
    ) {
        let Some(upto) = self.history_end() else { return };
        let history = cx.pipeline.recent().committed(upto);
        // What is not committed may be all that is left in memory.
        if Zxid::ZERO <= last
            && last.min(upto) < history.start()
            && let Some((cursor, record_bytes)) = self.log_cursor(cx, last)
        {
            let stage = Stage::LookingUp { last, record_bytes };
            if let Some(histories) = self.histories() {
                histories.of.insert(link, Sending::new(stage, Some(cursor)));
            }
            return;
        }
        let plan = SyncPlan::choose(&history, last, snapshot_bytes(cx));
        self.decided(link, last, plan, more);
    }

    fn decided(&mut self, link: LinkId, last: Zxid, plan: SyncPlan, more: &mut Vec<Output>) {
        let from_files = self.sending(link).is_some();
        tracing::info!(link = link.0, %last, after = %plan.after, way = ?plan.way, from_files,
            "a learner is synchronized");
        if let Some(sending) = self.sending(link) {
            sending.stage = Stage::Found;
        }
        if let Role::Leading(leading) = &mut self.role {
            leading.leader.synchronize(link, plan, more);
        }
    }

    /// The txns in (`after`, `upto`] are to be sent to the learner.
    pub(super) fn begin_history(&mut self, link: LinkId, after: Zxid, upto: Zxid) {
        let Some(histories) = self.histories() else { return };
        let sending = histories.of.entry(link).or_insert_with(|| Sending::new(Stage::Found, None));
        sending.stage = Stage::Sending { after, upto };
        sending.is_ready = true;
    }

    /// The learner is gone, or gets no more of the log.
    pub(super) fn forget_history(&mut self, link: LinkId) {
        if let Some(histories) = self.histories() {
            histories.of.remove(&link);
        }
    }

    /// Part of a file was read, or could not be.
    pub(crate) fn on_file_read(
        &mut self,
        cx: &mut Context<'_>,
        id: FileOpId,
        result: Result<Bytes, FileFailure>,
    ) {
        let is_read = |sending: &Sending| sending.reading.as_ref().is_some_and(|it| it.0 == id);
        // Whom it was for may be gone.
        let Some(histories) = self.histories() else { return };
        let Some((link, sending)) = histories.of.iter_mut().find(|(_, it)| is_read(it)) else {
            return;
        };
        let (link, part) = (*link, sending.reading.take().map(|(_, part)| part));
        let (Some(part), Some(cursor)) = (part, &mut sending.cursor) else { return };
        sending.is_ready = true;
        let segment = cursor.segment();
        let end = cx.pipeline.log_end();
        let pushed = result.map_err(|failure| failure.to_string()).and_then(|bytes| {
            match cursor.push(&part, bytes, end) {
                Err(LogUnread::Begins(_)) => Ok(false),
                pushed => pushed.map(|()| true).map_err(|error| error.to_string()),
            }
        });
        match pushed {
            Ok(true) => {}
            Ok(false) => self.history_unread(cx, link),
            Err(error) => {
                tracing::warn!(%error, "the log cannot be read for a learner: whoever needs this \
                    part of it gets a snapshot");
                if let Some(histories) = self.histories() {
                    histories.unread = histories.unread.max(Some(segment));
                }
                self.history_unread(cx, link);
            }
        }
    }

    /// The files do not have what a learner needs.
    fn history_unread(&mut self, cx: &mut Context<'_>, link: LinkId) {
        let Some(sending) = self.sending(link) else { return };
        match sending.stage {
            Stage::LookingUp { last, .. } => {
                let Some(after) = self.history_end() else { return };
                let mut out = Vec::new();
                self.decided(link, last, SyncPlan { way: SyncWay::Snap, after }, &mut out);
                self.leader_outputs(cx, out);
            }
            // It comes again.
            Stage::Found | Stage::Sending { .. } => self.drop_learner(cx, link),
        }
    }

    /// Goes on with what is at hand; once in each turn.
    pub(super) fn send_histories(&mut self, cx: &mut Context<'_>) {
        let Some(histories) = self.histories() else { return };
        if histories.of.is_empty() && histories.read_from.is_none() {
            return;
        }
        for link in histories.of.keys().copied().collect::<Vec<_>>() {
            match self.sending(link).map(|sending| sending.stage) {
                Some(Stage::LookingUp { last, record_bytes }) => {
                    self.look_up(cx, link, last, record_bytes);
                }
                Some(Stage::Sending { after, upto }) => self.send_history(cx, link, after, upto),
                Some(Stage::Found) | None => {}
            }
        }
        let Some(histories) = self.histories() else { return };
        let cursors = histories.of.values().filter_map(|sending| sending.cursor.as_ref());
        let read_from = cursors.map(LogCursor::segment).min();
        if std::mem::replace(&mut histories.read_from, read_from) != read_from {
            cx.pipeline.read_log_from(read_from, cx.ops);
        }
    }

    fn look_up(&mut self, cx: &mut Context<'_>, link: LinkId, last: Zxid, record_bytes: u64) {
        let found = self.sending(link).and_then(|it| it.cursor.as_ref()?.found());
        let Some((floor, passed_bytes)) = found else {
            // Everything durable was read, and nothing else is on its way.
            if !self.read_on(cx, link) && cx.pipeline.is_flushed() {
                self.history_unread(cx, link);
            }
            return;
        };
        let bytes = record_bytes.saturating_sub(passed_bytes);
        let Some(end) = self.history_end() else { return };
        // What an established leader has in its log and is not committed is no history yet: the
        // learner would take it for committed, and show it.
        if end < floor
            && let Some(sending) = self.sending(link)
        {
            sending.cursor = None;
        }
        let found = Found { floor: floor.min(end), last: end, bytes };
        let plan = SyncPlan::choose(&found, last, snapshot_bytes(cx));
        let mut out = Vec::new();
        self.decided(link, last, plan, &mut out);
        self.leader_outputs(cx, out);
        // The first slice need not wait for the next turn.
        match self.sending(link).map(|it| it.stage) {
            Some(Stage::Sending { after, upto }) => self.send_history(cx, link, after, upto),
            // It lacks nothing.
            Some(Stage::Found) => self.forget_history(link),
            Some(Stage::LookingUp { .. }) | None => {}
        }
    }

    /// Has the next part of the files read. Whether one is being read.
    fn read_on(&mut self, cx: &mut Context<'_>, link: LinkId) -> bool {
        let (end, len) = (cx.pipeline.log_end(), self.options.history.bytes_per_turn as u64);
        let Some(sending) = self.sending(link) else { return false };
        sending.is_ready = false;
        if sending.reading.is_none()
            && let Some(part) = sending.cursor.as_ref().and_then(|cursor| cursor.wants(end, len))
        {
            sending.reading = Some((cx.ops.read(part.clone()), part));
        }
        sending.reading.is_some()
    }

    /// Sends the next slice, if the learner's socket takes any.
    fn send_history(&mut self, cx: &mut Context<'_>, link: LinkId, after: Zxid, upto: Zxid) {
        if limits::HISTORY_UNSENT_BYTES_MAX <= self.peers.unsent_bytes(PeerLink(link.0)) {
            return;
        }
        let slice = self.options.history.bytes_per_turn;
        let Some(txns) = self.next_slice(cx, link, after, upto, slice) else {
            return self.drop_learner(cx, link);
        };
        let Some((last, _)) = txns.last() else {
            self.read_on(cx, link);
            return;
        };
        let last = *last;
        if let Some(sending) = self.sending(link) {
            sending.stage = match last < upto {
                true => Stage::Sending { after: last, upto },
                // The leader may want more, from where the cursor is.
                false => Stage::Found,
            };
        }
        let mut out = Vec::new();
        if let Role::Leading(leading) = &mut self.role {
            leading.leader.history(link, txns, &mut out);
        }
        self.leader_outputs(cx, out);
        if matches!(self.sending(link).map(|sending| sending.stage), Some(Stage::Found)) {
            self.forget_history(link);
        }
    }

    /// The txns behind `after`, at most up to `upto`: none if they are still to be read, `None` if
    /// they are nowhere.
    fn next_slice(
        &mut self,
        cx: &Context<'_>,
        link: LinkId,
        after: Zxid,
        upto: Zxid,
        bytes: usize,
    ) -> Option<Vec<(Zxid, Bytes)>> {
        if let Some(recent) = cx.pipeline.recent().between(after, upto) {
            let mut left = bytes;
            let fits = |(_, txn): &&(Zxid, Bytes)| {
                let has_room = left != 0;
                left = left.saturating_sub(txn.len());
                has_room
            };
            let txns = recent.take_while(fits).cloned().collect();
            if let Some(sending) = self.sending(link) {
                (sending.cursor, sending.reading) = (None, None);
            }
            return Some(txns);
        }
        if self.sending(link)?.cursor.is_none() {
            let (cursor, _) = self.log_cursor(cx, after)?;
            self.sending(link)?.cursor = Some(cursor);
        }
        let cursor = self.sending(link)?.cursor.as_mut()?;
        Some(cursor.take(bytes, upto))
    }

    /// Whether a slice can be sent without any other input.
    pub(super) fn has_history_to_send(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        leading.histories.of.iter().any(|(link, sending)| {
            sending.is_ready
                && self.peers.unsent_bytes(PeerLink(link.0)) < limits::HISTORY_UNSENT_BYTES_MAX
        })
    }
}
