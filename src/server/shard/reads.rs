//! Running what stands at the head of a connection's queue: reads, watch operations, and answers
//! that only waited for their turn.

use bytes::BytesMut;

use crate::auth::{self, Identities};
use crate::base::{Instant, Str};
use crate::model::request::PathWatch;
use crate::model::{ConnId, ErrorCode, Perms, ReadRequest, SessionId, Zxid};
use crate::tree::{Tree, ZnodeRef};
use crate::watch::{WatchKind, WatchTable};
use crate::wire::{opcode, response};

use super::conn::{Conn, Pending, Work};
use super::load::abort_if_too_slow;
use super::long::{Children, Ephemerals, LongAnswer, MultiRead, Rewatch, Wanted};
use super::{Shard, Surroundings};

impl Shard {
    /// Runs the queue from its head until a write that waits for its delta, a long answer, or a
    /// full output, at most about so many requests; how many it were.
    pub(super) fn run_some(
        &mut self,
        id: ConnId,
        conn: &mut Conn,
        around: Surroundings<'_>,
        requests_max: usize,
    ) -> usize {
        let mut count = 0;
        let may_run = |conn: &Conn| conn.can_run() && !conn.must_wait();
        while count < requests_max && may_run(conn) && self.may_reply(conn) {
            // A ping's answer shows the tree's zxid, too.
            if self.is_telling() || (self.is_held_up() && !conn.is_at_ping()) {
                break;
            }
            if conn.is_at_multi_read() && !(self.may_pin && self.pinning.is_none()) {
                break;
            }
            count += conn.head_cost();
            self.run_head(id, conn, around);
        }
        count
    }

    /// Runs everything in front of a write whose delta comes next, as far as it can be run now: of
    /// several multiReads each is finished first.
    pub(super) fn run_all(&mut self, id: ConnId, conn: &mut Conn, around: Surroundings<'_>) {
        while conn.can_run() && !(conn.is_at_multi_read() && self.pinning.is_some()) {
            self.run_head(id, conn, around);
            abort_if_too_slow(conn);
        }
    }

    fn run_head(&mut self, id: ConnId, conn: &mut Conn, around: Surroundings<'_>) {
        let Some(mut pending) = conn.dequeue() else { return };
        let session = conn.attachment().map_or(SessionId(0), |(session, _)| session);
        let zxid = match self.long_read((id, session), &mut pending, around) {
            Some(LongAnswer::MultiRead(mut read)) if read.is_done() => {
                read.answer().iter().for_each(|piece| conn.out.tail().extend_from_slice(piece));
                around.view.last_zxid()
            }
            Some(read) => {
                conn.out.hold(read);
                around.view.last_zxid()
            }
            None => self.run(id, conn, &pending, around),
        };
        self.count_reply(conn, &pending, zxid, around.now);
        if matches!(&pending.work, Work::Answer(answer) if answer.close) {
            conn.begin_close();
        }
    }

    /// Begins a read that may be too long for one turn; `None` for all others.
    fn long_read(
        &mut self,
        (id, session): (ConnId, SessionId),
        pending: &mut Pending,
        around: Surroundings<'_>,
    ) -> Option<LongAnswer> {
        let Work::Read(read, identities) = &mut pending.work else { return None };
        let steps_max = self.options.slices.long_steps;
        match read {
            ReadRequest::GetChildren(target) | ReadRequest::GetChildren2(target) => {
                let view = around.view;
                let znode = view.get(&target.path).filter(|it| steps_max < it.child_count())?;
                if !auth::allowed(&self.options.auth, znode.acl(), Perms::READ, identities) {
                    return None;
                }
                if target.watch {
                    self.watches.add(id, &target.path, WatchKind::Child);
                }
                let with_stat = pending.opcode == opcode::GET_CHILDREN2;
                Some(LongAnswer::Children(Children::begin(view, &znode, pending.xid, with_stat)))
            }
            ReadRequest::GetEphemerals { prefix }
                if steps_max < around.view.ephemerals_count_of(session) =>
            {
                let wanted = Wanted::new(prefix.as_ref());
                let read = Ephemerals::begin(around.view, session, pending.xid, wanted);
                Some(LongAnswer::Ephemerals(read))
            }
            ReadRequest::MultiRead(items) => {
                let (items, zxid) = (std::mem::take(items), around.view.last_zxid());
                let identities = identities.clone();
                let mut read = MultiRead::begin(items, identities, pending.xid, zxid);
                if !read.go_on(around.view, &self.options.auth, steps_max) {
                    self.pinning = Some(id);
                }
                Some(LongAnswer::MultiRead(read))
            }
            ReadRequest::SetWatches(set) if steps_max < set.path_count() => {
                let (set, zxid) = (std::mem::take(set), around.view.last_zxid());
                Some(LongAnswer::Rewatch(Rewatch::begin(set, pending.xid, zxid)))
            }
            _ => None,
        }
    }

    pub(super) fn count_reply(
        &mut self,
        conn: &mut Conn,
        pending: &Pending,
        zxid: Zxid,
        now: Instant,
    ) {
        let latency_ms = now.since(pending.since).as_millis();
        self.sent += 1;
        self.latency.record(latency_ms);
        let stats = &mut conn.stats;
        stats.sent += 1;
        stats.latency.record(latency_ms);
        stats.last_latency_ms = latency_ms;
        stats.last_opcode = Some(pending.opcode);
        stats.last_xid = Some(pending.xid);
        stats.last_zxid = zxid;
        stats.last_response = now;
    }

    fn run(
        &mut self,
        id: ConnId,
        conn: &mut Conn,
        pending: &Pending,
        around: Surroundings<'_>,
    ) -> Zxid {
        let view = around.view;
        let mut zxid = view.last_zxid();
        let xid = pending.xid;
        match &pending.work {
            Work::Answer(answer) => {
                zxid = answer.zxid.unwrap_or(zxid);
                if answer.silent {
                    return zxid;
                }
                response::reply(conn.out.tail(), xid, zxid, answer.code, |buf| {
                    buf.extend_from_slice(&answer.body);
                });
            }
            Work::WhoAmI(identities) => {
                response::reply(conn.out.tail(), xid, zxid, ErrorCode::OK, |buf| {
                    response::client_infos(buf, &identities.who_am_i());
                });
            }
            Work::Sync { path, .. } => {
                response::reply(conn.out.tail(), xid, zxid, ErrorCode::OK, |buf| {
                    response::path(buf, path);
                });
            }
            Work::Read(ReadRequest::SetWatches(set), _) => {
                let mut rewatch = Rewatch::begin(set.clone(), xid, zxid);
                rewatch.go_on(view, &mut self.watches, id, usize::MAX);
                conn.out.tail().extend_from_slice(&rewatch.answer());
            }
            Work::Read(read, identities) => {
                let session = conn.attachment().map_or(SessionId(0), |(session, _)| session);
                let mut reader = Reader {
                    shard: self,
                    view,
                    identities,
                    conn: id,
                    session,
                    body: BytesMut::new(),
                };
                let code = reader.read(read).err().unwrap_or(ErrorCode::OK);
                let body = reader.body;
                response::reply(conn.out.tail(), xid, zxid, code, |buf| {
                    buf.extend_from_slice(&body);
                });
            }
            Work::Write(_) => unreachable!("writes are answered by their delta"),
        }
        zxid
    }
}

/// One read being answered.
struct Reader<'a> {
    shard: &'a mut Shard,
    view: &'a Tree,
    identities: &'a Identities,
    conn: ConnId,
    session: SessionId,
    body: BytesMut,
}

type Answered = Result<(), ErrorCode>;

impl<'a> Reader<'a> {
    fn read(&mut self, read: &ReadRequest) -> Answered {
        match read {
            ReadRequest::Exists(target) => self.exists(target),
            ReadRequest::GetData(target) => {
                let znode = self.readable(&target.path)?;
                response::data_and_stat(&mut self.body, znode.data(), &znode.stat());
                self.leave_watch(target, WatchKind::Data);
                Ok(())
            }
            ReadRequest::GetAcl { path } => self.get_acl(path),
            ReadRequest::GetChildren(target) => {
                let znode = self.readable(&target.path)?;
                response::children(&mut self.body, znode.children());
                self.leave_watch(target, WatchKind::Child);
                Ok(())
            }
            ReadRequest::GetChildren2(target) => {
                let znode = self.readable(&target.path)?;
                response::children_and_stat(&mut self.body, znode.children(), &znode.stat());
                self.leave_watch(target, WatchKind::Child);
                Ok(())
            }
            ReadRequest::GetAllChildrenNumber { path } => {
                self.readable(path)?;
                let count = self.view.descendant_count(path).ok_or(ErrorCode::NO_NODE)?;
                response::int(&mut self.body, count);
                Ok(())
            }
            ReadRequest::GetEphemerals { prefix } => {
                self.get_ephemerals(prefix.as_ref());
                Ok(())
            }
            ReadRequest::CheckWatches(selection) => {
                found(self.shard.watches.contains(self.conn, selection))
            }
            ReadRequest::RemoveWatches(selection) => {
                let conn = self.conn;
                found(self.watches().remove(conn, selection))
            }
            ReadRequest::SetWatches(_) => unreachable!("set by a Rewatch"),
            ReadRequest::MultiRead(_) => unreachable!("read by a MultiRead"),
            ReadRequest::AddWatch { path, recursive } => {
                let kind = match recursive {
                    true => WatchKind::PersistentRecursive,
                    false => WatchKind::Persistent,
                };
                self.add_watch(path, kind);
                response::int(&mut self.body, 0);
                Ok(())
            }
        }
    }

    fn exists(&mut self, target: &PathWatch) -> Answered {
        if target.path.contains('\0') {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        match self.readable(&target.path) {
            Ok(znode) => response::stat(&mut self.body, &znode.stat()),
            Err(ErrorCode::NO_NODE) => {
                self.leave_watch(target, WatchKind::Data);
                return Err(ErrorCode::NO_NODE);
            }
            Err(code) => return Err(code),
        }
        self.leave_watch(target, WatchKind::Data);
        Ok(())
    }

    fn get_acl(&mut self, path: &str) -> Answered {
        let znode = self.view.get(path).ok_or(ErrorCode::NO_NODE)?;
        let config = &self.shard.options.auth;
        let may = |wanted| auth::allowed(config, znode.acl(), wanted, self.identities);
        if may(Perms::ADMIN) {
            response::acl_and_stat(&mut self.body, znode.acl(), &znode.stat());
        } else if may(Perms::READ) {
            let masked = auth::mask_digests(znode.acl());
            response::acl_and_stat(&mut self.body, &masked, &znode.stat());
        } else {
            return Err(ErrorCode::NO_AUTH);
        }
        Ok(())
    }

    fn get_ephemerals(&mut self, prefix: Option<&Str>) {
        let wanted = Wanted::new(prefix);
        let paths = self.view.ephemerals_of(self.session).map(Str::as_str);
        response::strings(&mut self.body, paths.filter(|path| wanted.has(path)));
    }

    /// The znode, if it exists and may be read.
    fn readable(&self, path: &str) -> Result<ZnodeRef<'a>, ErrorCode> {
        let znode = self.view.get(path).ok_or(ErrorCode::NO_NODE)?;
        let config = &self.shard.options.auth;
        match auth::allowed(config, znode.acl(), Perms::READ, self.identities) {
            true => Ok(znode),
            false => Err(ErrorCode::NO_AUTH),
        }
    }

    fn leave_watch(&mut self, target: &PathWatch, kind: WatchKind) {
        if target.watch {
            self.add_watch(&target.path, kind);
        }
    }

    fn add_watch(&mut self, path: &Str, kind: WatchKind) {
        let conn = self.conn;
        self.watches().add(conn, path, kind);
    }

    const fn watches(&mut self) -> &mut WatchTable {
        &mut self.shard.watches
    }
}

const fn found(any: bool) -> Answered {
    if any { Ok(()) } else { Err(ErrorCode::NO_WATCHER) }
}
