//! What a committed txn means to this shard's clients: events, then the writer's reply, then the
//! end of connections whose session closed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::auth;
use crate::model::{Acl, ConnId, ErrorCode, Perms, WatchEvent, Zxid};
use crate::tree::{Outcome, Step};
use crate::watch::{Filter, Firing, Foreseen};
use crate::wire::response;

use super::conn::{Conn, Work, WriteKind};
use super::long::{LongAnswer, Results};
use super::{Shard, Surroundings, mark_dirty};
use crate::server::stream::{Delta, Origin};

/// An event that not all who watch have heard.
#[derive(Debug)]
pub(super) struct Telling {
    firing: Firing,
    zxid: Zxid,
    /// Encoded once, when the first one hears of it.
    encoded: Option<Bytes>,
    /// Whose READ permission it takes.
    acl: Arc<[Acl]>,
}

impl Telling {
    fn event(&mut self) -> (Bytes, Arc<[Acl]>) {
        let encoded = self.encoded.get_or_insert_with(|| {
            let Firing { event_type, path, .. } = &self.firing;
            let event = WatchEvent { event_type: *event_type, path: path.clone() };
            let mut encoded = BytesMut::new();
            response::event(&mut encoded, self.zxid, &event);
            encoded.freeze()
        });
        (encoded.clone(), Arc::clone(&self.acl))
    }
}

impl Shard {
    /// Must be called before the txn is applied: runs the reads that its session sent before it.
    /// Whether it may be applied now; if not, call this again in the next turn.
    pub(crate) fn before_delta(&mut self, origin: Origin, around: Surroundings<'_>) -> bool {
        let id = origin.address.conn;
        let Some(mut conn) = self.conns.remove(&id) else { return true };
        // A committed write of the session proves what the syncs before it wait for.
        for pending in &mut conn.queue {
            match &mut pending.work {
                Work::Write(_) => break,
                Work::Sync { awaited, .. } => *awaited = false,
                _ => {}
            }
        }
        self.run_all(id, &mut conn, around);
        self.conns.insert(id, conn);
        self.pinning.is_none()
    }

    /// Whether the tree must stay as it is: not all who watch have heard of the last txn's events,
    /// or a multiRead has not read everything.
    pub(crate) fn holds_tree(&self) -> bool {
        self.is_telling() || self.pinning.is_some()
    }

    pub(super) fn is_telling(&self) -> bool {
        !self.telling.is_empty()
    }

    /// The tree is not yet the one that is published.
    pub(crate) const fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// Nothing but pings may be answered, nor they while events are told: the tree does not show
    /// what is published, or it shows what some connections are yet to hear of.
    pub(super) fn is_held_up(&self) -> bool {
        self.midway.is_some() || self.behind || self.is_telling()
    }

    /// Takes note of a part of a txn. Until [`Shard::on_delta`] hears the rest of it, nothing but
    /// pings is answered, and who heard an event is sent nothing.
    pub(crate) fn on_part(&mut self, zxid: Zxid, steps: &[Step]) {
        self.midway = Some(zxid);
        let mut firings = Vec::new();
        for step in steps {
            self.fire(step, zxid, &mut firings);
        }
        self.tell_some();
    }

    /// Another tree has taken the old one's place: the rest of a txn is not told of, and long
    /// answers that were being made of the old one end with their connections.
    pub(crate) fn tree_replaced(&mut self) {
        self.midway = None;
        self.pinning = None;
        self.told_left = usize::MAX;
        self.tell_some();
        for (id, conn) in self.conns.iter_mut().filter(|(_, conn)| conn.out.is_holding()) {
            conn.abort();
            mark_dirty(&mut self.dirty, *id, conn);
        }
    }

    /// Takes note of an applied txn, with all steps that no part has told of. `around.view` shows
    /// the tree right behind it.
    pub(crate) fn on_delta(
        &mut self,
        delta: &Arc<Delta>,
        steps: &[Step],
        around: Surroundings<'_>,
    ) {
        self.midway = None;
        let mut firings = Vec::new();
        for step in steps {
            self.fire(step, delta.header.zxid, &mut firings);
        }
        let origin = delta.origin;
        let ended = steps.iter().rev().find_map(|step| match step {
            Step::SessionClosed { session } => self.by_session.get(session).copied(),
            _ => None,
        });
        // Who is told more hears of all of it now.
        for id in [origin.map(|origin| origin.address.conn), ended].into_iter().flatten() {
            self.tell_first(id);
        }
        self.tell_some();
        if let Some(origin) = origin {
            self.answer_write(origin, delta, around);
        }
        if let Some(id) = ended {
            self.close(id);
        }
    }

    fn fire(&mut self, step: &Step, zxid: Zxid, firings: &mut Vec<Firing>) {
        firings.clear();
        let (own, parent) = match step {
            Step::Created { path, acl, parent_acl, .. } => {
                self.watches.created(path, firings);
                (acl, parent_acl)
            }
            Step::Changed { path, acl, .. } => {
                self.watches.changed(path, firings);
                (acl, acl)
            }
            Step::Deleted { path, acl, parent_acl, .. } => {
                self.watches.deleted(path, firings);
                (acl, parent_acl)
            }
            _ => return,
        };
        for firing in firings.drain(..) {
            let acl = match firing.filter {
                Filter::Own => own,
                Filter::Parent => parent,
            };
            let acl = Arc::clone(acl);
            self.telling.push_back(Telling { firing, zxid, encoded: None, acl });
        }
    }

    /// Lets more of those who watch hear of the last txn's events, as many as the turn may have.
    pub(super) fn tell_some(&mut self) {
        while let Some(telling) = self.telling.front_mut() {
            if telling.firing.is_over() {
                self.telling.pop_front();
                continue;
            }
            if self.told_left == 0 {
                break;
            }
            self.told_left -= 1;
            if let Some(id) = self.watches.next_of(&mut telling.firing).flatten() {
                let (event, acl) = telling.event();
                let zxid = telling.zxid;
                self.tell(id, zxid, &event, &acl);
            }
        }
    }

    /// Lets one connection hear of all of them before anybody else.
    fn tell_first(&mut self, id: ConnId) {
        let (mut events, mut foreseen) = (Vec::new(), Foreseen::default());
        for telling in &mut self.telling {
            if self.watches.tells(id, &mut telling.firing, &mut foreseen) {
                events.push((telling.zxid, telling.event()));
            }
        }
        for (zxid, (event, acl)) in events {
            self.tell(id, zxid, &event, &acl);
        }
    }

    /// Gives an event, encoded once for all, to a connection that may know. One that is being
    /// closed hears only the rest of a txn: the tree may have been replaced since, and what led to
    /// the event have been passed over. A client that saw the later zxid would not ask for the
    /// earlier change.
    fn tell(&mut self, id: ConnId, zxid: Zxid, event: &Bytes, acl: &[Acl]) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.phase.is_closing() && conn.told_midway != Some(zxid) {
            return;
        }
        if auth::allowed(&self.options.auth, acl, Perms::READ, &conn.identities) {
            conn.out.push_event(event);
            conn.told_midway = self.midway.or(conn.told_midway);
            conn.stats.sent += 1;
            self.sent += 1;
            mark_dirty(&mut self.dirty, id, conn);
        }
    }

    fn answer_write(&mut self, origin: Origin, delta: &Arc<Delta>, around: Surroundings<'_>) {
        let id = origin.address.conn;
        let Some(mut conn) = self.conns.remove(&id) else { return };
        self.answer_head(id, &mut conn, origin, delta, around);
        self.conns.insert(id, conn);
    }

    fn answer_head(
        &mut self,
        id: ConnId,
        conn: &mut Conn,
        origin: Origin,
        delta: &Arc<Delta>,
        around: Surroundings<'_>,
    ) {
        if conn.phase.is_closing() {
            return;
        }
        let number = conn.answered;
        let Some(pending) = conn.dequeue() else { return };
        assert_eq!(number, origin.number, "the head of the queue is the write being answered");
        let Work::Write(kind) = pending.work else {
            unreachable!("before_delta has run everything in front of the write")
        };
        // The session's client is elsewhere: this connection ends without a reply. An Apache leader
        // says so in an op of a multi.
        let is_moved = |outcome: &Outcome| *outcome == Outcome::Failed(ErrorCode::SESSION_MOVED);
        let has_moved = match &delta.applied.outcome {
            Outcome::Multi(outcomes) => outcomes.iter().any(is_moved),
            outcome => is_moved(outcome),
        };
        if has_moved {
            conn.begin_close();
            return mark_dirty(&mut self.dirty, id, conn);
        }
        match Results::begin(delta, pending.xid, self.options.slices.long_steps) {
            Some(results) => conn.out.hold(LongAnswer::Results(results)),
            None => super::replies::write(conn.out.tail(), kind, pending.xid, delta),
        }
        self.count_reply(conn, &pending, delta.header.zxid, around.now);
        let closes = match &delta.applied.outcome {
            Outcome::Failed(code) => kind == WriteKind::Close && *code == ErrorCode::OK,
            _ => kind == WriteKind::Close,
        };
        if closes {
            conn.begin_close();
        }
        mark_dirty(&mut self.dirty, id, conn);
    }
}
